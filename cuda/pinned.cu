/* SPDX-License-Identifier: Apache-2.0 */
/* Page-locked host memory that lies beside the device, and the copies between the two. */
#include <string.h>

#include "device.h"
#include "tape.h"

/* One piece, in a list of the device. */
struct emo_cuda_pinned {
    emo_cuda_pinned *next;
    void *ptr;
    size_t bytes;
};

static emo_status obtain(emo_cuda_device *device, size_t bytes, void **out, emo_error *err) {
    int previous;
    if (device->planning) {
        *out = emo_cuda_no_address(device, bytes);
        return EMO_OK;
    }
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    cudaError_t result = cudaHostAlloc(out, bytes > 0 ? bytes : 1, cudaHostAllocPortable);
    emo_cuda_leave(device, previous);
    if (result == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "the host has no room for %zu bytes of page-locked memory",
                             bytes);
    }
    EMO_CUDA_TRY(emo_cuda_check(result, "cudaHostAlloc", err));
    memset(*out, 0, bytes);
    return EMO_OK;
}

emo_status emo_cuda_pinned_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    emo_cuda_pinned *p = (emo_cuda_pinned *)device->services.alloc(device->services.ctx, sizeof *p);
    *out = NULL;
    if (p == NULL)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a piece of page-locked memory");
    p->bytes = bytes;
    emo_status status = obtain(device, bytes, &p->ptr, err);
    if (status != EMO_OK) {
        device->services.free(device->services.ctx, p);
        return status;
    }
    (void)pthread_mutex_lock(&device->lock);
    p->next = device->pinned;
    device->pinned = p;
    device->pinned_bytes += bytes;
    (void)pthread_mutex_unlock(&device->lock);
    *out = p->ptr;
    return EMO_OK;
}

void emo_cuda_pinned_free(emo_backend *backend, void *ptr) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    int previous;
    (void)pthread_mutex_lock(&device->lock);
    emo_cuda_pinned **at = &device->pinned;
    while (*at != NULL && (*at)->ptr != ptr)
        at = &(*at)->next;
    emo_cuda_pinned *p = *at;
    if (p != NULL) {
        *at = p->next;
        device->pinned_bytes -= p->bytes;
    }
    (void)pthread_mutex_unlock(&device->lock);
    if (p == NULL)
        return;
    if (!device->planning && emo_cuda_enter(device, &previous, NULL) == EMO_OK) {
        (void)cudaFreeHost(p->ptr);
        emo_cuda_leave(device, previous);
    }
    device->services.free(device->services.ctx, p);
}

emo_status emo_cuda_copy_pinned(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    const emo_cuda_device *device = e->device;
    int previous;
    if (bytes == 0 || device->planning)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_status status = emo_cuda_tape_issue(e, "a copy beside the device", err);
    if (status == EMO_OK)
        status = emo_cuda_check(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, e->stream),
                                "a copy beside the device", err);
    emo_cuda_leave(device, previous);
    return status;
}

emo_status emo_cuda_after(emo_exec *exec, emo_exec *other, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec), *o = emo_cuda_of(other);
    const emo_cuda_device *device = e->device;
    cudaEvent_t event = NULL;
    int previous;
    if (device->planning)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_status status = emo_cuda_tape_issue(e, "it waits for other work", err);
    if (status == EMO_OK)
        status = emo_cuda_tape_issue(o, "other work waits for it", err);
    if (status == EMO_OK)
        status =
            emo_cuda_check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags", err);
    if (status == EMO_OK) {
        status = emo_cuda_check(cudaEventRecord(event, o->stream), "cudaEventRecord", err);
        if (status == EMO_OK)
            status = emo_cuda_check(cudaStreamWaitEvent(e->stream, event, 0), "cudaStreamWaitEvent", err);
        (void)cudaEventDestroy(event); /* what waits for it still does */
    }
    emo_cuda_leave(device, previous);
    return status;
}
