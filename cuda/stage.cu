/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers between host and device. Uploads pass through pinned memory in parts used in turn: the host's memory is
 * free on return, and the call waits only when it is a whole ring ahead of the device. Small downloads land in pinned
 * memory and reach their destination when they are waited for; large ones go straight there, which waits. */
#include <string.h>

#include "device.h"
#include "kernel.h"
#include "tape.h"

#define PART_BYTES ((size_t)1 << 20)
#define DOWNLOAD_BYTES ((size_t)1 << 20)
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
#define SMALL_COPY ((size_t)64 << 10)
enum { COPY_THREADS = 256 };

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
    for (int i = 0; i < EMO_CUDA_RING_PARTS + EMO_CUDA_MARKS; i++) {
        cudaEvent_t *event = i < EMO_CUDA_RING_PARTS ? &r->done[i] : &exec->downloads.events[i - EMO_CUDA_RING_PARTS];
        emo_status status =
            emo_cuda_check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "cudaEventCreateWithFlags", err);
        if (status != EMO_OK) {
            *event = NULL;
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
    for (int i = 0; i < EMO_CUDA_MARKS; i++)
        if (exec->downloads.events[i] != NULL)
            (void)cudaEventDestroy(exec->downloads.events[i]);
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

/* ---- copies and zeroing on the device ---- */

typedef struct copy_entry {
    void *dst;
    const void *src; /* NULL: zeros */
    size_t bytes;
} copy_entry;

static cudaError_t issue_copy(const void *entry, cudaStream_t stream) {
    const copy_entry *c = (const copy_entry *)entry;
    return c->src != NULL ? cudaMemcpyAsync(c->dst, c->src, c->bytes, cudaMemcpyDeviceToDevice, stream)
                          : cudaMemsetAsync(c->dst, 0, c->bytes, stream);
}

/* A small copy inside a piece: where from, where to and how much may be others in the next one. */
__global__ static void __launch_bounds__(COPY_THREADS) copy_k(const copy_entry *now) {
    copy_entry c = *now;
    size_t i = (size_t)emo_index(), step = (size_t)gridDim.x * COPY_THREADS;
    if ((((uintptr_t)c.dst | (uintptr_t)c.src | c.bytes) & 3u) == 0) {
        for (; i < c.bytes / 4; i += step)
            ((uint32_t *)c.dst)[i] = ((const uint32_t *)c.src)[i];
        return;
    }
    for (; i < c.bytes; i += step)
        ((uint8_t *)c.dst)[i] = ((const uint8_t *)c.src)[i];
}

/* `room`: the most bytes it may be in later pieces. */
static emo_status copy_small(emo_exec *exec, const copy_entry *entry, size_t room, int *done, emo_error *err) {
    emo_tape_values v;
    *done = 0;
    EMO_CUDA_TRY(emo_cuda_tape_values(emo_cuda_of(exec), sizeof *entry, &v, err));
    if (v.host == NULL)
        return EMO_OK;
    *done = 1;
    memcpy(v.host, entry, sizeof *entry);
    return emo_cuda_launched(EMO_LAUNCH(copy_k, emo_blocks((int64_t)room, 16 * COPY_THREADS), COPY_THREADS, 0,
                                        emo_cuda_stream(exec), (const copy_entry *)v.device),
                             "copy", err);
}

static emo_status copy_within(emo_exec *exec, void *dst, const void *src, size_t bytes, size_t room, emo_error *err) {
    copy_entry entry = {dst, src, bytes};
    int done = 0;
    if (bytes <= SMALL_COPY && emo_cuda_of(exec)->holding != NULL)
        EMO_CUDA_TRY(copy_small(exec, &entry, room, &done, err));
    return done ? EMO_OK : emo_cuda_enqueue(exec, issue_copy, "a copy on the device", &entry, sizeof entry, err);
}

emo_status emo_cuda_copy(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    return bytes > 0 ? copy_within(exec, dst, src, bytes, bytes, err) : EMO_OK;
}

emo_status emo_cuda_clear(emo_exec *exec, void *dst, size_t bytes, emo_error *err) {
    copy_entry entry = {dst, NULL, bytes};
    if (bytes == 0 || emo_cuda_planning(emo_cuda_of(exec)))
        return EMO_OK;
    return emo_cuda_enqueue(exec, issue_copy, "zeroing device memory", &entry, sizeof entry, err);
}

/* ---- uploads ---- */

emo_status emo_cuda_send(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (emo_cuda_planning(e) && e->holding == NULL)
        return EMO_OK;
    if (bytes > 0 && emo_cuda_capturing(e))
        return emo_cuda_fail(err, EMO_E_BACKEND,
                             "%zu bytes of host memory were to be uploaded while a graph is recorded; upload before",
                             bytes);
    if (bytes > 0 && e->holding != NULL) {
        emo_tape_values v;
        EMO_CUDA_TRY(emo_cuda_tape_values(e, bytes, &v, err));
        if (v.host != NULL) {
            memcpy(v.host, src, bytes);
            return copy_within(exec, dst, v.device, bytes, v.room, err);
        }
    }
    if (emo_cuda_planning(e))
        return EMO_OK;
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

emo_status emo_cuda_now(emo_exec *exec, const void *host, size_t bytes, void **device, emo_error *err) {
    emo_tape_values v;
    EMO_CUDA_TRY(emo_cuda_tape_values(emo_cuda_of(exec), bytes, &v, err));
    if (v.host != NULL)
        memcpy(v.host, host, bytes);
    *device = v.device;
    return EMO_OK;
}

emo_status emo_cuda_stage(emo_exec *exec, const void *host, size_t bytes, void **device, emo_error *err) {
    EMO_CUDA_TRY(emo_cuda_now(exec, host, bytes, device, err));
    if (*device != NULL)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, bytes, device, err));
    return emo_cuda_send(exec, *device, host, bytes, err);
}

/* ---- downloads ---- */

/* Room behind the newest download; 0 and *offset unchanged: there is none before the oldest has been waited for. */
static int download_room(const emo_cuda_downloads *d, size_t bytes, size_t *offset) {
    if (d->count == 0) {
        *offset = 0;
        return 1;
    }
    int32_t newest = (d->first + d->count - 1) % EMO_CUDA_DOWNLOADS;
    size_t tail = d->list[d->first].offset, end = d->list[newest].offset + d->list[newest].bytes;
    size_t head = (end + STAGE_ALIGN - 1) / STAGE_ALIGN * STAGE_ALIGN;
    int wrapped = d->list[newest].offset < tail;
    if (d->count == EMO_CUDA_DOWNLOADS)
        return 0;
    if (!wrapped && head <= DOWNLOAD_BYTES && DOWNLOAD_BYTES - head >= bytes) {
        *offset = head;
        return 1;
    }
    if (!wrapped)
        head = 0;
    *offset = head;
    return head <= tail && tail - head >= bytes;
}

/* Hands over what was downloaded before the mark. */
static void land(emo_cuda_downloads *d, uint64_t mark, int good) {
    while (d->count > 0 && d->list[d->first].mark <= mark) {
        if (good)
            memcpy(d->list[d->first].dst, d->host + d->list[d->first].offset, d->list[d->first].bytes);
        d->first = (d->first + 1) % EMO_CUDA_DOWNLOADS;
        d->count--;
    }
}

emo_status emo_cuda_download(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_cuda_downloads *d = &e->downloads;
    size_t offset = 0;
    if (bytes == 0)
        return EMO_OK;
    if (emo_cuda_planning(e)) {
        memset(dst, 0, bytes);
        return EMO_OK;
    }
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "a download", err));
    void *to = dst;
    if (bytes <= DOWNLOAD_BYTES) {
        if (!download_room(d, bytes, &offset)) {
            EMO_CUDA_TRY(emo_cuda_synchronize(exec, err));
            offset = 0; /* the ring is empty */
        }
        to = d->host + offset;
    }
    EMO_CUDA_TRY(emo_cuda_check(cudaMemcpyAsync(to, src, bytes, cudaMemcpyDeviceToHost, e->stream), "a download", err));
    if (to != dst) {
        int32_t i = (d->first + d->count++) % EMO_CUDA_DOWNLOADS;
        d->list[i].dst = dst;
        d->list[i].offset = offset;
        d->list[i].bytes = bytes;
        d->list[i].mark = d->marks + 1;
    }
    return EMO_OK;
}

emo_status emo_cuda_synchronize(emo_exec *exec, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (emo_cuda_planning(e))
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "a wait", err));
    emo_status status = emo_cuda_check(cudaStreamSynchronize(e->stream), "the work on the device", err);
    land(&e->downloads, UINT64_MAX, status == EMO_OK);
    return status;
}

emo_status emo_cuda_mark_work(emo_exec *exec, uint64_t *out, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    *out = 0;
    if (emo_cuda_planning(e))
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "a mark", err));
    uint64_t mark = e->downloads.marks + 1;
    EMO_CUDA_TRY(
        emo_cuda_check(cudaEventRecord(e->downloads.events[mark % EMO_CUDA_MARKS], e->stream), "cudaEventRecord", err));
    *out = e->downloads.marks = mark;
    return EMO_OK;
}

emo_status emo_cuda_wait(emo_exec *exec, uint64_t mark, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    if (emo_cuda_planning(e))
        return EMO_OK;
    emo_status status =
        emo_cuda_check(cudaEventSynchronize(e->downloads.events[mark % EMO_CUDA_MARKS]), "the work on the device", err);
    land(&e->downloads, mark, status == EMO_OK);
    return status;
}
