/* SPDX-License-Identifier: Apache-2.0 */
/* Experts, forward: gate|up with gathered rows and SwiGLU in registers, down, and the weighted sum of each token's
 * rows, found through the plan's inverse, so that nothing is added in an order of chance. */
#include "ops/experts_run.h"

template <class T>
static emo_status forward(emo_exec *exec, const emo_experts_args *args, const emo_cuda_experts_shape *s, const T *x,
                          emo_error *err) {
    emo_experts_job<T> job;
    emo_cuda_tiles tiles;
    int32_t *token;
    float *weight;
    void *h, *out;
    memset(&job, 0, sizeof job);
    EMO_CUDA_TRY(emo_cuda_experts_rows(exec, args, &token, &weight, err));
    EMO_CUDA_TRY(emo_cuda_tiles_make(exec, args->offsets, args->experts, s->rows, emo_x_tile_of(s), &tiles, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(s->rows * s->inner_stride) * sizeof(T), &h, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(s->rows * s->hidden_stride) * sizeof(T), &out, err));
    job.slots = (const emo_expert_slot *)args->table.device;
    job.offsets = args->offsets;
    job.token = token;
    job.weight = weight;
    job.tiles = tiles.list;
    job.hidden = args->hidden;
    job.inner = args->inner;
    job.hidden_stride = s->hidden_stride;
    job.inner_stride = s->inner_stride;
    job.x = x;
    job.saved = args->saved;
    job.h = (T *)h;
    job.out = (T *)out;
    EMO_CUDA_TRY((emo_x_rows<EMO_X_GATE_UP, T>(exec, job, s, args->inner, tiles.bound, "experts: gate and up", err)));
    EMO_CUDA_TRY((emo_x_rows<EMO_X_DOWN, T>(exec, job, s, args->hidden, tiles.bound, "experts: down", err)));
    EMO_CUDA_TRY(emo_cuda_experts_combine(exec, args, args->weights, out, s->narrow, s->hidden_stride, args->y,
                                          args->accumulate, err));
    if (args->out_norm != NULL)
        EMO_CUDA_TRY(emo_cuda_experts_norms(exec, args, out, s->narrow, s->hidden_stride, err));
    return EMO_OK;
}

emo_status emo_cuda_experts_forward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    emo_cuda_experts_shape s = emo_cuda_experts_shape_of(exec, args);
    void *x;
    if (args->tokens == 0)
        return EMO_OK;
    if (!s.narrow)
        return forward<float>(exec, args, &s, args->x, err);
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(args->tokens * s.hidden_stride) * 2, &x, err));
    EMO_CUDA_TRY(
        emo_cuda_experts_narrow(exec, args->x, args->tokens, args->hidden, s.hidden_stride, (__nv_bfloat16 *)x, err));
    return forward<__nv_bfloat16>(exec, args, &s, (const __nv_bfloat16 *)x, err);
}
