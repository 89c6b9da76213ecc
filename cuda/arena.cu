/* SPDX-License-Identifier: Apache-2.0 */
/* Scratch of an exec. The stream orders one operator's work before the next one's, so all of them use the same memory.
 * An operator that needs more gets a further chunk at once; when the next operator begins, one chunk of the whole size
 * takes the place of them all, and from then on nothing is allocated. */
#include "device.h"
#include "tape.h"

enum { MAX_CHUNKS = 64 };
/* Checked builds give every array memory of its own, so that the simulator sees each byte past its end. */
#ifdef EMO_CUDA_SEPARATE
#define SEPARATE 1
#else
#define SEPARATE 0
#endif
#define LEAST_CHUNK ((size_t)1 << 20)

int emo_cuda_capturing(const emo_cuda_exec *exec) {
    if (emo_cuda_planning(exec))
        return 0;
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
    size_t size = SEPARATE || bytes > LEAST_CHUNK ? bytes : LEAST_CHUNK;
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
    if ((SEPARATE && !emo_cuda_planning(exec)) || (a->count == 1 && a->sizes[0] >= bytes))
        return EMO_OK;
    drop_chunks(exec);
    return bytes > 0 ? add_chunk(exec, bytes, err) : EMO_OK;
}

emo_status emo_cuda_begin(emo_exec *exec, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    emo_cuda_arena *a = &e->arena;
    if (SEPARATE && e->holding == NULL)
        drop_chunks(e);
    else if (a->count > 1)
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
    size = SEPARATE && bytes > 0 ? bytes : size;
    a->wanted += size;
    a->peak = a->wanted > a->peak ? a->wanted : a->peak;
    a->taken = a->wanted > a->taken ? a->wanted : a->taken;
    if (emo_cuda_planning(e)) {
        *out = emo_cuda_no_address(e->device, size);
        return EMO_OK;
    }
    if (SEPARATE && e->holding != NULL)
        return emo_cuda_tape_scratch(e, size, out, err);
    if (SEPARATE || a->count == 0 || a->sizes[a->count - 1] - a->used < size)
        EMO_CUDA_TRY(add_chunk(e, size, err));
    *out = (char *)a->chunks[a->count - 1] + a->used;
    a->used += size;
    return EMO_OK;
}

emo_cuda_mark emo_cuda_scratch_mark(emo_exec *exec) {
    const emo_cuda_arena *a = &emo_cuda_of(exec)->arena;
    emo_cuda_mark mark = {a->count, a->used, a->wanted};
    return mark;
}

void emo_cuda_scratch_release(emo_exec *exec, emo_cuda_mark mark) {
    emo_cuda_arena *a = &emo_cuda_of(exec)->arena;
    while (SEPARATE && a->count > mark.count && emo_cuda_of(exec)->holding == NULL)
        emo_cuda_free(emo_cuda_of(exec)->device, a->chunks[--a->count]);
    a->used = a->count == mark.count ? mark.used : 0; /* a chunk that is new holds nothing from before the mark */
    a->wanted = mark.wanted;
}

size_t emo_cuda_exec_scratch(emo_exec *exec) {
    emo_cuda_arena *a = &emo_cuda_of(exec)->arena;
    size_t taken = a->taken;
    a->taken = 0;
    return taken;
}

void emo_cuda_arena_destroy(emo_cuda_exec *exec) { drop_chunks(exec); }
