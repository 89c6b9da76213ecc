/* SPDX-License-Identifier: Apache-2.0 */
/* Experts, forward: gate|up with gathered rows and SwiGLU in registers, down, and the weighted sum of each token's
 * rows, found through the plan's inverse, so that nothing is added in an order of chance. In phases the rows before the
 * sum lie in args->out, as T: what is added is what it would be in one call. */
#include "ops/experts_run.h"

static emo_status add_up(emo_exec *exec, const emo_experts_args *args, const emo_cuda_experts_shape *s, const void *out,
                         emo_error *err) {
    EMO_CUDA_TRY(emo_cuda_experts_combine(exec, args, args->weights, out, s->narrow, s->hidden_stride, args->y,
                                          args->accumulate, err));
    if (args->out_norm != NULL)
        EMO_CUDA_TRY(emo_cuda_experts_norms(exec, args, out, s->narrow, s->hidden_stride, err));
    return EMO_OK;
}

template <class T>
static emo_status forward(emo_exec *exec, const emo_experts_args *args, const emo_cuda_experts_shape *s, const T *x,
                          emo_error *err) {
    emo_experts_job<T> job;
    emo_cuda_tiles tiles;
    void *out = args->out;
    EMO_CUDA_TRY(emo_x_job(exec, args, s, x, &job, &tiles, err));
    if (args->phases == EMO_EXPERTS_RUN)
        job.saved = NULL;
    EMO_CUDA_TRY((emo_x_rows<EMO_X_GATE_UP, T>(exec, job, s, args->inner, tiles.bound, "experts: gate and up", err)));
    if (args->phases == 0 && args->y == NULL)
        return EMO_OK;
    if (args->phases == 0)
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(s->rows * s->hidden_stride) * sizeof(T), &out, err));
    job.out = (T *)out;
    EMO_CUDA_TRY((emo_x_rows<EMO_X_DOWN, T>(exec, job, s, args->hidden, tiles.bound, "experts: down", err)));
    return args->phases == 0 ? add_up(exec, args, s, out, err) : EMO_OK;
}

emo_status emo_cuda_experts_forward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    emo_cuda_experts_shape s = emo_cuda_experts_shape_of(exec, args);
    const __nv_bfloat16 *x;
    if (args->tokens == 0)
        return EMO_OK;
    if (args->phases == EMO_EXPERTS_COMBINE)
        return add_up(exec, args, &s, args->out, err);
    if (!s.narrow)
        return forward<float>(exec, args, &s, args->x, err);
    EMO_CUDA_TRY(emo_x_narrow(exec, args, &s, args->x, &x, err));
    return forward<__nv_bfloat16>(exec, args, &s, x, err);
}
