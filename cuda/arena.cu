/* SPDX-License-Identifier: Apache-2.0 */
/* Scratch of an exec. The stream orders one operator's work before the next one's, so all of them use the same memory.
 * An operator that needs more gets a further chunk at once; when the next operator begins, one chunk of the whole size
 * takes the place of them all, and from then on nothing is allocated. */
#include "device.h"

enum { MAX_CHUNKS = 16 };
#define LEAST_CHUNK ((size_t)1 << 20)

int emo_cuda_capturing(const emo_cuda_exec *exec) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(exec->stream, &status) == cudaSuccess && status != cudaStreamCaptureStatusNone;
}

static emo_status add_chunk(emo_cuda_exec *exec, size_t bytes, emo_error *err) {
    emo_cuda_arena *a = &exec->arena;
    void *chunk;
    if (emo_cuda_capturing(exec))
        return emo_cuda_fail(err, EMO_E_BACKEND,
                             "an operator needs %zu bytes of scratch while a graph is recorded; run the same step once "
                             "before it is recorded",
                             a->wanted);
    if (a->count == MAX_CHUNKS)
        return emo_cuda_fail(err, EMO_E_INTERNAL, "an operator's scratch is in more than %d pieces", (int)MAX_CHUNKS);
#ifdef EMO_CUDA_SEPARATE_SCRATCH
    size_t size = bytes;
#else
    size_t size = bytes > LEAST_CHUNK ? bytes : LEAST_CHUNK;
#endif
    EMO_CUDA_TRY(emo_cuda_alloc(exec->device, size, &chunk, err));
    a->chunks[a->count] = chunk;
    a->sizes[a->count++] = size;
    a->used = 0;
    return EMO_OK;
}

static void drop_chunks(emo_cuda_exec *exec) {
    emo_cuda_arena *a = &exec->arena;
    while (a->count > 0)
        emo_cuda_free(exec->device, a->chunks[--a->count]);
    a->used = 0;
}

emo_status emo_cuda_arena_reserve(emo_cuda_exec *exec, size_t bytes, emo_error *err) {
    emo_cuda_arena *a = &exec->arena;
    if (a->count == 1 && a->sizes[0] >= bytes)
        return EMO_OK;
    drop_chunks(exec);
    return bytes > 0 ? add_chunk(exec, bytes, err) : EMO_OK;
}

emo_status emo_cuda_begin(emo_exec *exec, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_cuda_arena *a = &e->arena;
    if (a->count > 1)
        EMO_CUDA_TRY(emo_cuda_arena_reserve(e, a->peak, err));
    a->used = 0;
    a->wanted = 0;
    return EMO_OK;
}

emo_status emo_cuda_scratch(emo_exec *exec, size_t bytes, void **out, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_cuda_arena *a = &e->arena;
    *out = NULL;
    if (bytes > SIZE_MAX - a->wanted - 2 * EMO_CUDA_ALIGN)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "%zu bytes of scratch were asked for", bytes);
    size_t size = (bytes + EMO_CUDA_ALIGN) / EMO_CUDA_ALIGN * EMO_CUDA_ALIGN; /* never 0 */
    a->wanted += size;
    a->peak = a->wanted > a->peak ? a->wanted : a->peak;
    if (a->count == 0 || a->sizes[a->count - 1] - a->used < size)
        EMO_CUDA_TRY(add_chunk(e, size, err));
    *out = (char *)a->chunks[a->count - 1] + a->used;
    a->used += size;
    return EMO_OK;
}

void emo_cuda_arena_destroy(emo_cuda_exec *exec) { drop_chunks(exec); }
