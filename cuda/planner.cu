/* SPDX-License-Identifier: Apache-2.0 */
/* A planner: a device that is not there. Operators run as far as their scratch: nothing is launched or moved, and
 * memory is a number. What it says is what a device would need, since the same code says it. */
#include <string.h>

#include "device.h"

emo_status emo_cuda_planner_open(const emo_backend_services *services, emo_backend **out, emo_error *err) {
    *out = NULL;
    emo_cuda_device *device = (emo_cuda_device *)services->alloc(services->ctx, sizeof *device);
    if (device == NULL)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a planner");
    memset(device, 0, sizeof *device);
    if (pthread_mutex_init(&device->lock, NULL) != 0) {
        services->free(services->ctx, device);
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "a mutex could not be made");
    }
    emo_cuda_fill_table(&device->ops);
    device->base.ops = &device->ops;
    device->base.name = "cuda";
    device->services = *services;
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
