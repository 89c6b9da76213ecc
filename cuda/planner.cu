/* SPDX-License-Identifier: Apache-2.0 */
/* A planner: a device that is not there. Operators run as far as their scratch: nothing is launched or moved, and
 * memory is a number. What it says is what a device would need, since the same code says it. */
#include "device.h"

emo_status emo_cuda_planner_open(const emo_backend_services *services, emo_backend **out, emo_error *err) {
    emo_cuda_device *device;
    *out = NULL;
    EMO_CUDA_TRY(emo_cuda_device_make(services, &device, err));
    device->ordinal = -1;
    device->multiprocessors = 132; /* an H100's; no size depends on them */
    device->capability = 90;
    device->shared_optin = 227 * 1024;
    device->planning = 1;
    *out = &device->base;
    return EMO_OK;
}

emo_status emo_cuda_planner(emo_backend *backend, emo_backend **out, emo_error *err) {
    return emo_cuda_planner_open(&emo_cuda_device_of(backend)->services, out, err);
}
