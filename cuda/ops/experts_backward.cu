/* SPDX-License-Identifier: Apache-2.0 */
/* Experts, backward, from the saved gate|up alone: the product with W_down leaves p = dy W_down in registers, where the
 * activation is computed again; dot(h, p) is then the routing weight's gradient without any expert output. */
#include "ops/experts_run.h"

template <class T>
static emo_status backward(emo_exec *exec, const emo_experts_args *args, const emo_cuda_experts_shape *s, const T *x,
                           const T *dy, emo_error *err) {
    const emo_cuda_table *table = emo_cuda_table_of(&args->table);
    emo_experts_job<T> job;
    emo_cuda_tiles tiles;
    void *d_pre, *out = NULL, *partial;
    int64_t columns = emo_x_blocks(s, EMO_X_DOWN_INPUT, args->inner);
    size_t d_pre_bytes = (size_t)(s->rows * 2 * s->inner_stride) * sizeof(T);
    EMO_CUDA_TRY(emo_x_job(exec, args, s, x, &job, &tiles, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, d_pre_bytes, &d_pre, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(s->rows * columns) * sizeof(float), &partial, err));
    if (args->dx != NULL)
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(s->rows * s->hidden_stride) * sizeof(T), &out, err));
    if (s->inner_stride != args->inner) /* sums run over the padding between the halves, too */
        EMO_CUDA_TRY(emo_cuda_clear(exec, d_pre, d_pre_bytes, err));
    job.dy = dy;
    job.d_pre = (T *)d_pre;
    job.out = (T *)out;
    job.partial = (float *)partial;
    job.row_capacity = s->rows;
    EMO_CUDA_TRY((emo_x_rows<EMO_X_DOWN_INPUT, T>(exec, job, s, args->inner, tiles.bound, "experts: activation", err)));
    if (args->d_weights != NULL)
        EMO_CUDA_TRY(emo_cuda_experts_dots(exec, args, job.partial, columns, s->rows, err));
    if (args->dx != NULL) {
        EMO_CUDA_TRY((emo_x_rows<EMO_X_INPUT, T>(exec, job, s, args->hidden, tiles.bound, "experts: input", err)));
        EMO_CUDA_TRY(emo_cuda_experts_combine(exec, args, NULL, out, s->narrow, s->hidden_stride, args->dx, 1, err));
    }
    if (table->up_grads)
        EMO_CUDA_TRY((emo_x_gradients<EMO_X_WEIGHT_UP, T>(exec, job, s, 2 * s->inner_stride, args->hidden,
                                                          args->experts, "experts: gradient of gate and up", err)));
    if (table->down_grads)
        EMO_CUDA_TRY((emo_x_gradients<EMO_X_WEIGHT_DOWN, T>(exec, job, s, args->hidden, args->inner, args->experts,
                                                            "experts: gradient of down", err)));
    return EMO_OK;
}

emo_status emo_cuda_experts_backward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    emo_cuda_experts_shape s = emo_cuda_experts_shape_of(exec, args);
    const __nv_bfloat16 *x, *dy;
    if (args->saved == NULL)
        return emo_cuda_fail(err, EMO_E_INTERNAL, "experts_backward needs the pre-activations that the forward saved");
    if (emo_cuda_table_of(&args->table)->quantised)
        return emo_cuda_unsupported(err, "go back through quantised experts");
    if (args->tokens == 0)
        return EMO_OK;
    if (!s.narrow)
        return backward<float>(exec, args, &s, args->x, args->dy, err);
    EMO_CUDA_TRY(emo_x_narrow(exec, args, &s, args->x, &x, err));
    EMO_CUDA_TRY(emo_x_narrow(exec, args, &s, args->dy, &dy, err));
    return backward<__nv_bfloat16>(exec, args, &s, x, dy, err);
}
