/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer and the plain matrix product, on cuBLASLt; SwiGLU of a dense MLP. */
#include "kernel.h"
#include "ops.h"
#include "shared.h"

enum { THREADS = 256, ROWS_PER_PART = 64 };

/* ---- linear ---- */

__global__ static void bias_kernel(float *y, emo_cuda_weight bias, int64_t tokens, int64_t rows, int64_t stride) {
    int64_t i = emo_index();
    if (i < tokens * rows)
        y[i / rows * stride + i % rows] += emo_weight_at(bias, 0, i % rows);
}

/* y[tokens, rows] (+)= x[tokens, cols] W^T + bias */
emo_status emo_cuda_linear_forward(emo_exec *exec, const emo_linear_args *args, emo_error *err) {
    const emo_weight *w = &args->weight;
    emo_gemm_args g = {0,
                       1,
                       args->tokens,
                       w->rows,
                       w->cols,
                       1.0f,
                       args->x,
                       args->x_stride,
                       w->data,
                       w->dtype,
                       w->stride,
                       args->accumulate ? 1.0f : 0.0f,
                       args->y,
                       args->y_stride};
    EMO_CUDA_TRY(emo_cuda_gemm(exec, &g, err));
    int64_t n = args->tokens * w->rows;
    if (args->bias.data == NULL || n <= 0)
        return EMO_OK;
    return emo_cuda_launched(EMO_LAUNCH((bias_kernel), emo_blocks(n, THREADS), THREADS, 0, emo_cuda_stream(exec),
                                        args->y, emo_cuda_weight_of(&args->bias), args->tokens, w->rows,
                                        args->y_stride),
                             "bias", err);
}

__global__ static void bias_sum_kernel(const float *dy, int64_t tokens, int64_t rows, int64_t stride, float *parts) {
    int64_t c = emo_index(), first = (int64_t)blockIdx.y * ROWS_PER_PART;
    if (c >= rows)
        return;
    float sum = 0.0f;
    for (int64_t t = first; t < first + ROWS_PER_PART && t < tokens; t++)
        sum += dy[t * stride + c];
    parts[(int64_t)blockIdx.y * rows + c] = sum;
}

/* dx (+)= dy W; d_weight += dy^T x; d_bias += column sums of dy */
emo_status emo_cuda_linear_backward(emo_exec *exec, const emo_linear_args *args, emo_error *err) {
    const emo_weight *w = &args->weight;
    if (args->dx != NULL) {
        emo_gemm_args g = {0,
                           0,
                           args->tokens,
                           w->cols,
                           w->rows,
                           1.0f,
                           args->dy,
                           args->y_stride,
                           w->data,
                           w->dtype,
                           w->stride,
                           args->dx_accumulate ? 1.0f : 0.0f,
                           args->dx,
                           args->x_stride};
        EMO_CUDA_TRY(emo_cuda_gemm(exec, &g, err));
    }
    if (args->tokens <= 0)
        return EMO_OK;
    if (args->d_weight != NULL) {
        emo_gemm_args g = {1,
                           0,
                           w->rows,
                           w->cols,
                           args->tokens,
                           1.0f,
                           args->dy,
                           args->y_stride,
                           args->x,
                           EMO_DTYPE_F32,
                           args->x_stride,
                           1.0f,
                           args->d_weight,
                           w->cols};
        EMO_CUDA_TRY(emo_cuda_gemm(exec, &g, err));
    }
    if (args->d_bias != NULL) {
        int64_t parts = emo_ceil_div(args->tokens, ROWS_PER_PART);
        void *sums;
        if (parts > 65535)
            return emo_cuda_unsupported(err, "take the gradient of a bias over more than 4 million rows");
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(parts * w->rows) * sizeof(float), &sums, err));
        EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((bias_sum_kernel), dim3(emo_blocks(w->rows, 128), (unsigned)parts),
                                                  128, 0, emo_cuda_stream(exec), args->dy, args->tokens, w->rows,
                                                  args->y_stride, (float *)sums),
                                       "bias_sum", err));
        return emo_cuda_add_parts(exec, (const float *)sums, parts, w->rows, args->d_bias, err);
    }
    return EMO_OK;
}

/* ---- SwiGLU ---- */

__global__ static void swiglu_forward_kernel(emo_swiglu_args a) {
    int64_t i = emo_index();
    if (i >= a.tokens * a.inner)
        return;
    int64_t at = i / a.inner * a.stride + i % a.inner;
    float g = a.gate[at];
    a.y[i] = g * emo_sigmoid(g) * a.up[at];
}

/* d_gate and d_up may be gate and up. */
__global__ static void swiglu_backward_kernel(emo_swiglu_args a) {
    int64_t i = emo_index();
    if (i >= a.tokens * a.inner)
        return;
    int64_t at = i / a.inner * a.stride + i % a.inner;
    float g = a.gate[at], u = a.up[at], dy = a.dy[i], s = emo_sigmoid(g);
    a.d_gate[at] = dy * u * s * (1.0f + g * (1.0f - s));
    a.d_up[at] = dy * g * s;
}

emo_status emo_cuda_swiglu_forward(emo_exec *exec, const emo_swiglu_args *args, emo_error *err) {
    int64_t n = args->tokens * args->inner;
    if (n <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((swiglu_forward_kernel), emo_blocks(n, THREADS), THREADS, 0, emo_cuda_stream(exec), *args),
        "swiglu_forward", err);
}

emo_status emo_cuda_swiglu_backward(emo_exec *exec, const emo_swiglu_args *args, emo_error *err) {
    int64_t n = args->tokens * args->inner;
    if (n <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((swiglu_backward_kernel), emo_blocks(n, THREADS), THREADS, 0, emo_cuda_stream(exec), *args),
        "swiglu_backward", err);
}
