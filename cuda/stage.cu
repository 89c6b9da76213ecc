/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers between host and device. Uploads pass through pinned memory in parts used in turn: the host's memory is
 * free on return, and the call waits only when it is a whole ring ahead of the device. Small downloads land in pinned
 * memory and reach their destination in synchronize; large ones go straight there. */
#include <string.h>

#include "device.h"

#define PART_BYTES ((size_t)1 << 20)
#define DOWNLOAD_BYTES ((size_t)1 << 18)
#define STAGE_ALIGN 64
#define PINNED_BYTES (EMO_CUDA_RING_PARTS * PART_BYTES + DOWNLOAD_BYTES)

/* The ring is there from now on, or no longer. */
static void count_pinned(emo_cuda_exec *exec, int sign) {
    emo_cuda_device *device = exec->device;
    exec->ring.part_bytes = sign > 0 ? PART_BYTES : 0;
    (void)pthread_mutex_lock(&device->lock);
    device->pinned_bytes += sign > 0 ? PINNED_BYTES : (uint64_t)0 - PINNED_BYTES;
    (void)pthread_mutex_unlock(&device->lock);
}

emo_status emo_cuda_transfers_create(emo_cuda_exec *exec, emo_error *err) {
    emo_cuda_ring *r = &exec->ring;
    void *host = NULL;
    if (emo_cuda_planning(exec)) {
        count_pinned(exec, 1);
        return EMO_OK;
    }
    EMO_CUDA_TRY(emo_cuda_check(cudaHostAlloc(&host, PINNED_BYTES, cudaHostAllocPortable),
                                "cudaHostAlloc of the pinned memory for transfers", err));
    count_pinned(exec, 1);
    r->host = (char *)host;
    exec->downloads.host = r->host + EMO_CUDA_RING_PARTS * PART_BYTES;
    for (int i = 0; i < EMO_CUDA_RING_PARTS; i++) {
        emo_status status = emo_cuda_check(cudaEventCreateWithFlags(&r->done[i], cudaEventDisableTiming),
                                           "cudaEventCreateWithFlags", err);
        if (status != EMO_OK) {
            r->done[i] = NULL;
            return status;
        }
    }
    return EMO_OK;
}

void emo_cuda_transfers_destroy(emo_cuda_exec *exec) {
    emo_cuda_ring *r = &exec->ring;
    for (int i = 0; i < EMO_CUDA_RING_PARTS; i++)
        if (r->done[i] != NULL)
            (void)cudaEventDestroy(r->done[i]);
    if (r->host != NULL)
        (void)cudaFreeHost(r->host);
    if (r->part_bytes != 0)
        count_pinned(exec, -1);
}

/* Room for `bytes`, at most a part, that no transfer under way reads. */
static emo_status ring_take(emo_cuda_exec *exec, size_t bytes, char **out, emo_error *err) {
    emo_cuda_ring *r = &exec->ring;
    if (r->part_bytes - r->used < bytes) {
        EMO_CUDA_TRY(emo_cuda_check(cudaEventRecord(r->done[r->part], exec->stream), "cudaEventRecord", err));
        r->pending[r->part] = 1;
        r->part = (r->part + 1) % EMO_CUDA_RING_PARTS;
        r->used = 0;
        if (r->pending[r->part]) {
            EMO_CUDA_TRY(emo_cuda_check(cudaEventSynchronize(r->done[r->part]), "cudaEventSynchronize", err));
            r->pending[r->part] = 0;
        }
    }
    *out = r->host + (size_t)r->part * r->part_bytes + r->used;
    r->used += (bytes + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
    return EMO_OK;
}

emo_status emo_cuda_send(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (emo_cuda_planning(e))
        return EMO_OK;
    if (bytes > 0 && emo_cuda_capturing(e))
        return emo_cuda_fail(err, EMO_E_BACKEND,
                             "%zu bytes of host memory were to be uploaded while a graph is recorded; upload before",
                             bytes);
    for (size_t at = 0; at < bytes;) {
        size_t n = bytes - at < PART_BYTES ? bytes - at : PART_BYTES;
        char *pinned;
        EMO_CUDA_TRY(ring_take(e, n, &pinned, err));
        memcpy(pinned, (const char *)src + at, n);
        EMO_CUDA_TRY(emo_cuda_check(cudaMemcpyAsync((char *)dst + at, pinned, n, cudaMemcpyHostToDevice, e->stream),
                                    "an upload", err));
        at += n;
    }
    return EMO_OK;
}

emo_status emo_cuda_clear(emo_exec *exec, void *device, size_t bytes, emo_error *err) {
    if (bytes == 0 || emo_cuda_planning(emo_cuda_of(exec)))
        return EMO_OK;
    return emo_cuda_check(cudaMemsetAsync(device, 0, bytes, emo_cuda_stream(exec)), "zeroing device memory", err);
}

emo_status emo_cuda_stage(emo_exec *exec, const void *host, size_t bytes, void **device, emo_error *err) {
    EMO_CUDA_TRY(emo_cuda_scratch(exec, bytes, device, err));
    return emo_cuda_send(exec, *device, host, bytes, err);
}

emo_status emo_cuda_download(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_cuda_downloads *d = &e->downloads;
    if (bytes == 0)
        return EMO_OK;
    if (emo_cuda_planning(e)) {
        memset(dst, 0, bytes);
        return EMO_OK;
    }
    void *to = dst;
    if (bytes <= DOWNLOAD_BYTES) {
        if (d->count == EMO_CUDA_DOWNLOADS || DOWNLOAD_BYTES - d->used < bytes)
            EMO_CUDA_TRY(emo_cuda_synchronize(exec, err));
        to = d->host + d->used;
    }
    EMO_CUDA_TRY(emo_cuda_check(cudaMemcpyAsync(to, src, bytes, cudaMemcpyDeviceToHost, e->stream), "a download", err));
    if (to != dst) {
        d->list[d->count].dst = dst;
        d->list[d->count].offset = d->used;
        d->list[d->count++].bytes = bytes;
        size_t padded = (bytes + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
        d->used = DOWNLOAD_BYTES - d->used < padded ? DOWNLOAD_BYTES : d->used + padded;
    }
    return EMO_OK;
}

emo_status emo_cuda_synchronize(emo_exec *exec, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_cuda_downloads *d = &e->downloads;
    if (emo_cuda_planning(e))
        return EMO_OK;
    emo_status status = emo_cuda_check(cudaStreamSynchronize(e->stream), "the work on the device", err);
    for (int32_t i = 0; i < d->count && status == EMO_OK; i++)
        memcpy(d->list[i].dst, d->host + d->list[i].offset, d->list[i].bytes);
    d->count = 0;
    d->used = 0;
    return status;
}
