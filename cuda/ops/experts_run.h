/* SPDX-License-Identifier: Apache-2.0 */
/* Launching one product of experts.h. */
#ifndef EMO_CUDA_OPS_EXPERTS_RUN_H
#define EMO_CUDA_OPS_EXPERTS_RUN_H

#include "ops/experts_bf16.h"
#include "ops/experts_f32.h"

/* Rows and columns of a block's tile. */
static inline int32_t emo_x_tile_of(const emo_cuda_experts_shape *s) { return s->narrow && s->large ? 128 : 64; }

/* Blocks along the columns of a product whose result has `columns`. */
static inline int64_t emo_x_blocks(const emo_cuda_experts_shape *s, int kind, int64_t columns) {
    return emo_ceil_div(columns, kind == EMO_X_GATE_UP ? emo_x_tile_of(s) / 2 : emo_x_tile_of(s));
}

template <int KIND, class S, bool FAST>
static cudaError_t emo_x_launch(const emo_experts_job<__nv_bfloat16> &job, dim3 grid, const emo_queue &stream) {
    return EMO_LAUNCH_WIDE((experts_bf16_k<KIND, S, FAST>), grid, S::THREADS, S::SHARED, stream, job);
}

template <int KIND>
static cudaError_t emo_x_run(const emo_experts_job<__nv_bfloat16> &job, const emo_cuda_experts_shape *s, dim3 grid,
                             const emo_queue &stream) {
    constexpr bool GRADIENT = KIND == EMO_X_WEIGHT_UP || KIND == EMO_X_WEIGHT_DOWN;
    if (s->fast || GRADIENT) /* gradients read no weights */
        return s->large ? emo_x_launch<KIND, emo_x_large, true>(job, grid, stream)
                        : emo_x_launch<KIND, emo_x_small, true>(job, grid, stream);
    return s->large ? emo_x_launch<KIND, emo_x_large, GRADIENT>(job, grid, stream)
                    : emo_x_launch<KIND, emo_x_small, GRADIENT>(job, grid, stream);
}

template <int KIND>
static cudaError_t emo_x_run(const emo_experts_job<float> &job, const emo_cuda_experts_shape *s, dim3 grid,
                             const emo_queue &stream) {
    (void)s;
    return EMO_LAUNCH((experts_f32_k<KIND>), grid, EMO_TILE_BLOCK, 0, stream, job);
}

/* The part of a job that both directions have: rows, tiles, strides and the activations' scratch. The caller says what
 * comes in and goes out. */
template <class T>
static emo_status emo_x_job(emo_exec *exec, const emo_experts_args *args, const emo_cuda_experts_shape *s, const T *x,
                            emo_experts_job<T> *job, emo_cuda_tiles *tiles, emo_error *err) {
    int32_t *token;
    float *weight;
    void *h;
    memset(job, 0, sizeof *job);
    EMO_CUDA_TRY(emo_cuda_experts_lists(exec, args, emo_x_tile_of(s), &token, &weight, tiles, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(s->rows * s->inner_stride) * sizeof(T), &h, err));
    job->slots = emo_cuda_table_of(&args->table)->slots;
    job->offsets = args->offsets;
    job->token = token;
    job->weight = weight;
    job->tiles = tiles->list;
    job->hidden = args->hidden;
    job->inner = args->inner;
    job->hidden_stride = s->hidden_stride;
    job->inner_stride = s->inner_stride;
    job->x = x;
    job->saved = args->saved;
    job->h = (T *)h;
    return EMO_OK;
}

/* [tokens, hidden] as bf16 rows of the shape's stride, in scratch. */
static inline emo_status emo_x_narrow(emo_exec *exec, const emo_experts_args *args, const emo_cuda_experts_shape *s,
                                      const float *rows, const __nv_bfloat16 **out, emo_error *err) {
    void *room;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(args->tokens * s->hidden_stride) * 2, &room, err));
    *out = (const __nv_bfloat16 *)room;
    return emo_cuda_experts_narrow(exec, rows, args->tokens, args->hidden, s->hidden_stride, (__nv_bfloat16 *)room,
                                   err);
}

/* A product over tiles of rows, of which there are at most `bound`. */
template <int KIND, class T>
static emo_status emo_x_rows(emo_exec *exec, emo_experts_job<T> job, const emo_cuda_experts_shape *s, int64_t columns,
                             int32_t bound, const char *what, emo_error *err) {
    job.columns = emo_x_blocks(s, KIND, columns);
    if (job.columns * bound > INT32_MAX)
        return emo_cuda_unsupported(err, "launch this many blocks of experts at once: the limit is 2^31 - 1");
    return emo_cuda_launched(emo_x_run<KIND>(job, s, dim3((unsigned)(job.columns * bound)), emo_cuda_stream(exec)),
                             what, err);
}

/* A weight gradient [height, columns] of every expert. */
template <int KIND, class T>
static emo_status emo_x_gradients(emo_exec *exec, emo_experts_job<T> job, const emo_cuda_experts_shape *s,
                                  int64_t height, int64_t columns, int32_t experts, const char *what, emo_error *err) {
    job.columns = emo_x_blocks(s, KIND, columns);
    dim3 grid((unsigned)(job.columns * emo_ceil_div(height, emo_x_tile_of(s))), (unsigned)experts);
    return emo_cuda_launched(emo_x_run<KIND>(job, s, grid, emo_cuda_stream(exec)), what, err);
}

#endif
