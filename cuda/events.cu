/* SPDX-License-Identifier: Apache-2.0 */
/* Points in the work of execs, for order between their streams. */
#include "device.h"
#include "tape.h"

static cudaEvent_t event_of(emo_event *event) { return (cudaEvent_t)event; }

emo_status emo_cuda_event_create(emo_backend *backend, emo_event **out, emo_error *err) {
    const emo_cuda_device *device = emo_cuda_device_of(backend);
    cudaEvent_t event = NULL;
    int previous;
    *out = NULL;
    if (device->planning)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_status status =
        emo_cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags", err);
    emo_cuda_leave(device, previous);
    if (status == EMO_OK)
        *out = (emo_event *)event;
    return status;
}

void emo_cuda_event_destroy(emo_backend *backend, emo_event *event) {
    const emo_cuda_device *device = emo_cuda_device_of(backend);
    int previous;
    if (event == NULL || emo_cuda_enter(device, &previous, NULL) != EMO_OK)
        return;
    (void)cudaEventDestroy(event_of(event));
    emo_cuda_leave(device, previous);
}

emo_status emo_cuda_event_record(emo_exec *exec, emo_event *event, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (emo_cuda_planning(e))
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "an event", err));
    return emo_cuda_check(cudaEventRecord(event_of(event), e->stream), "cudaEventRecord", err);
}

emo_status emo_cuda_event_order(emo_exec *exec, emo_event *event, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (emo_cuda_planning(e))
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "it waits for an event", err));
    return emo_cuda_check(cudaStreamWaitEvent(e->stream, event_of(event), 0), "cudaStreamWaitEvent", err);
}

emo_status emo_cuda_event_wait(emo_backend *backend, emo_event *event, emo_error *err) {
    const emo_cuda_device *device = emo_cuda_device_of(backend);
    int previous;
    if (device->planning)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_status status = emo_cuda_check(cudaEventSynchronize(event_of(event)), "cudaEventSynchronize", err);
    emo_cuda_leave(device, previous);
    return status;
}
