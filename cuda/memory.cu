/* SPDX-License-Identifier: Apache-2.0 */
/* Device memory. cudaFree waits for the device, and cudaMalloc may: memory given back is therefore kept and handed out
 * again for the same size. While one exec lives, its stream orders the old work before the new. With several execs, the
 * block first waits for an event in each stream. */
#include <string.h>

#include "device.h"

#ifdef EMO_SIM
#define ROUND 1 /* the simulator sees every byte past the end of a block */
#else
#define ROUND 512
#endif

#ifdef EMO_CUDA_SEPARATE
#define KEPT_BLOCKS 0 /* what is given back is never seen again, nor what it held */
#else
#define KEPT_BLOCKS 64
#endif
#define KEPT_BYTES ((uint64_t)64 << 20) /* what is larger is given back for good: a model, the moments of a trainer */
enum { MAX_EVENTS = 16 };

struct emo_cuda_block {
    emo_cuda_block *next;
    void *ptr;
    size_t bytes;
    int32_t given_back;
    int32_t held;               /* given back while work was held back: not to be touched yet */
    const emo_cuda_exec *after; /* its stream orders reuse, as long as it is the only exec */
    int32_t n_events;
    cudaEvent_t events[MAX_EVENTS];
};

static void drop_events(emo_cuda_block *b) {
    for (int32_t i = 0; i < b->n_events; i++)
        (void)cudaEventDestroy(b->events[i]);
    b->n_events = 0;
}

/* Waits for what guards the block, then frees it. It is in no list. */
static void release(emo_cuda_device *device, emo_cuda_block *b) {
    for (int32_t i = 0; i < b->n_events; i++)
        (void)cudaEventSynchronize(b->events[i]);
    drop_events(b);
    if (!device->planning)
        (void)cudaFree(b->ptr); /* waits for the device where the block had no event */
    *(b->given_back ? &device->kept_bytes : &device->live_bytes) -= b->bytes;
    device->services.free(device->services.ctx, b);
}

/* Addresses that are never looked at: no two pieces share one, the first page is none. */
void *emo_cuda_no_address(emo_cuda_device *device, size_t bytes) {
    const uint64_t base = (uint64_t)1 << 40, align = EMO_CUDA_ALIGN;
    uint64_t at = base + device->next_address;
    device->next_address += ((uint64_t)bytes + align) / align * align;
    return (void *)(uintptr_t)at;
}

static cudaError_t obtain(emo_cuda_device *device, void **out, size_t bytes) {
    if (!device->planning)
        return cudaMalloc(out, bytes);
    *out = emo_cuda_no_address(device, bytes);
    return cudaSuccess;
}

static int reusable(const emo_cuda_device *device, emo_cuda_block *b) {
    if (b->held)
        return 0;
    if (b->after != NULL)
        return device->execs == b->after && device->execs->next == NULL;
    while (b->n_events > 0) {
        if (cudaEventQuery(b->events[b->n_events - 1]) != cudaSuccess) {
            (void)cudaGetLastError();
            return 0;
        }
        (void)cudaEventDestroy(b->events[--b->n_events]);
    }
    return 1;
}

/* Frees given-back blocks, oldest (last) first, until at most `keep` of them and `bytes` are left. */
static void trim(emo_cuda_device *device, int32_t keep, uint64_t bytes) {
    int32_t seen = 0;
    uint64_t held = 0;
    for (emo_cuda_block **at = &device->blocks; *at != NULL;) {
        emo_cuda_block *b = *at;
        int can = b->given_back && !b->held, over = can && (seen >= keep || b->bytes > bytes - held);
        seen += can && !over;
        held += can && !over ? b->bytes : 0;
        if (over) {
            *at = b->next;
            release(device, b);
        } else {
            at = &b->next;
        }
    }
}

static emo_cuda_block *take_kept(emo_cuda_device *device, size_t bytes) {
    for (emo_cuda_block *b = device->blocks; b != NULL; b = b->next)
        if (b->given_back && b->bytes == bytes && reusable(device, b)) {
            b->given_back = 0;
            b->after = NULL;
            return b;
        }
    return NULL;
}

emo_status emo_cuda_alloc(emo_cuda_device *device, size_t bytes, void **out, emo_error *err) {
    *out = NULL;
    size_t size = bytes > 0 ? bytes : 1;
    if (size > SIZE_MAX - ROUND)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "%zu bytes of device memory were asked for", bytes);
    size = (size + ROUND - 1) / ROUND * ROUND;
    (void)pthread_mutex_lock(&device->lock);
    emo_cuda_block *b = take_kept(device, size);
    if (b != NULL) {
        device->kept_bytes -= size;
        device->live_bytes += size;
        (void)pthread_mutex_unlock(&device->lock);
        *out = b->ptr;
        return EMO_OK;
    }
    b = (emo_cuda_block *)device->services.alloc(device->services.ctx, sizeof *b);
    cudaError_t result = cudaSuccess;
    if (b != NULL) {
        memset(b, 0, sizeof *b);
        b->bytes = size;
        result = obtain(device, &b->ptr, size);
        if (result == cudaErrorMemoryAllocation) { /* what is kept may be what is missing */
            (void)cudaGetLastError();
            trim(device, 0, 0);
            result = obtain(device, &b->ptr, size);
        }
        if (result == cudaSuccess) {
            b->next = device->blocks;
            device->blocks = b;
            device->live_bytes += size;
            *out = b->ptr;
        } else {
            device->services.free(device->services.ctx, b);
        }
    }
    (void)pthread_mutex_unlock(&device->lock);
    if (b == NULL)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a block of device memory");
    if (result == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        size_t room = 0, total = 0;
        (void)cudaMemGetInfo(&room, &total);
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY,
                             "%s has no room for %zu bytes: %zu of %zu MiB are free; use a smaller batch, a shorter "
                             "context or fewer experts",
                             device->name, bytes, room >> 20, total >> 20);
    }
    return emo_cuda_check(result, "cudaMalloc", err);
}

/* An event in the stream of every exec; without one, the block waits for the device when it is freed. */
static void guard(emo_cuda_device *device, emo_cuda_block *b) {
    b->after = NULL;
    for (const emo_cuda_exec *e = device->execs; e != NULL; e = e->next) {
        cudaEvent_t event;
        if (b->n_events == MAX_EVENTS || emo_cuda_capturing(e) ||
            cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) {
            (void)cudaGetLastError();
            (void)cudaStreamSynchronize(e->stream);
            continue;
        }
        b->events[b->n_events++] = event;
        (void)cudaEventRecord(event, e->stream);
    }
}

/* The work that is under way now is the last that may use the block. */
static void order(emo_cuda_device *device, emo_cuda_block *b) {
    if (device->planning)
        b->after = NULL;
    else if (device->execs != NULL && device->execs->next == NULL)
        b->after = device->execs;
    else
        guard(device, b);
}

void emo_cuda_free(emo_cuda_device *device, void *ptr) {
    if (ptr == NULL)
        return;
    (void)pthread_mutex_lock(&device->lock);
    emo_cuda_block **at = &device->blocks;
    while (*at != NULL && (*at)->ptr != ptr)
        at = &(*at)->next;
    emo_cuda_block *b = *at;
    if (b != NULL && !b->given_back) {
        *at = b->next; /* to the front: the list is in the order of use */
        b->next = device->blocks;
        device->blocks = b;
        b->given_back = 1;
        device->live_bytes -= b->bytes;
        device->kept_bytes += b->bytes;
        b->held = device->holds > 0;
        if (!b->held)
            order(device, b);
        trim(device, device->planning ? 0 : KEPT_BLOCKS, KEPT_BYTES);
    }
    (void)pthread_mutex_unlock(&device->lock);
}

void emo_cuda_memory_hold(emo_cuda_device *device) {
    (void)pthread_mutex_lock(&device->lock);
    device->holds++;
    (void)pthread_mutex_unlock(&device->lock);
}

void emo_cuda_memory_settle(emo_cuda_device *device) {
    (void)pthread_mutex_lock(&device->lock);
    device->holds--;
    for (emo_cuda_block *b = device->blocks; b != NULL && device->holds == 0; b = b->next)
        if (b->held) {
            b->held = 0;
            order(device, b);
        }
    trim(device, device->planning ? 0 : KEPT_BLOCKS, KEPT_BYTES);
    (void)pthread_mutex_unlock(&device->lock);
}

void emo_cuda_memory_shared(emo_cuda_device *device) {
    for (emo_cuda_block *b = device->blocks; b != NULL; b = b->next)
        if (b->given_back && !b->held && b->after != NULL)
            guard(device, b);
}

void emo_cuda_memory_forget(emo_cuda_device *device, const emo_cuda_exec *exec) {
    for (emo_cuda_block *b = device->blocks; b != NULL; b = b->next)
        if (b->after == exec)
            b->after = NULL; /* its work is done: no event needed */
}

emo_status emo_cuda_memory(emo_backend *backend, emo_backend_memory *out, emo_error *err) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    size_t room = 0, total = 0;
    int previous;
    if (!device->planning) {
        EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
        emo_status status = emo_cuda_check(cudaMemGetInfo(&room, &total), "cudaMemGetInfo", err);
        emo_cuda_leave(device, previous);
        EMO_CUDA_TRY(status);
    }
    (void)pthread_mutex_lock(&device->lock);
    out->live_bytes = device->live_bytes;
    out->free_bytes = device->planning ? 0 : room + device->kept_bytes;
    out->total_bytes = total;
    out->pinned_bytes = device->pinned_bytes;
    (void)pthread_mutex_unlock(&device->lock);
    return EMO_OK;
}

void emo_cuda_memory_close(emo_cuda_device *device) {
    while (device->blocks != NULL) {
        emo_cuda_block *b = device->blocks;
        device->blocks = b->next;
        release(device, b);
    }
}
