/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm and RoPE. */
#include "kernel.h"
#include "ops.h"
#include "shared.h"

enum { THREADS = 256, ROWS_PER_PART = 64 };

static int row_threads(int64_t width) { return width <= 64 ? 32 : width <= 1024 ? 128 : THREADS; }

/* ---- RMSNorm ---- */

__global__ static void norm_forward_kernel(const float *x, emo_cuda_weight weight, int64_t hidden, float eps, float *y,
                                           float *rstd_out) {
    EMO_SHARED(float, room, 32);
    int64_t r = blockIdx.x;
    const float *row = x + r * hidden;
    float sum = 0.0f;
    for (int64_t c = threadIdx.x; c < hidden; c += blockDim.x)
        sum += row[c] * row[c];
    sum = emo_block_sum(sum, room);
    float rstd = 1.0f / sqrtf(sum / (float)hidden + eps);
    for (int64_t c = threadIdx.x; c < hidden; c += blockDim.x)
        y[r * hidden + c] = emo_weight_at(weight, 0, c) * (row[c] * rstd);
    if (rstd_out != NULL && threadIdx.x == 0)
        rstd_out[r] = rstd;
}

static emo_status check_weight(const emo_weight *w, emo_error *err) {
    if (w->dtype == EMO_DTYPE_F32 || w->dtype == EMO_DTYPE_F16 || w->dtype == EMO_DTYPE_BF16)
        return EMO_OK;
    return emo_cuda_unsupported(err, "scale by a norm weight of this data type; f32, f16 and bf16 are supported");
}

emo_status emo_cuda_norm_forward(emo_exec *exec, const emo_norm_args *args, emo_error *err) {
    EMO_CUDA_TRY(check_weight(&args->weight, err));
    if (args->tokens <= 0 || args->hidden <= 0)
        return EMO_OK;
    return emo_cuda_launched(EMO_LAUNCH((norm_forward_kernel), (unsigned)args->tokens, row_threads(args->hidden), 0,
                                        emo_cuda_stream(exec), args->x, emo_cuda_weight_of(&args->weight), args->hidden,
                                        args->eps, args->y, args->rstd),
                             "norm_forward", err);
}

/* dx = r (w dy - x r^2 / n * sum(w dy x)) */
__global__ static void norm_backward_kernel(const float *x, emo_cuda_weight weight, const float *rstd, const float *dy,
                                            int64_t hidden, int accumulate, float *dx) {
    EMO_SHARED(float, room, 32);
    int64_t at = (int64_t)blockIdx.x * hidden;
    float r = rstd[blockIdx.x], dot = 0.0f;
    for (int64_t c = threadIdx.x; c < hidden; c += blockDim.x)
        dot += emo_weight_at(weight, 0, c) * dy[at + c] * x[at + c];
    dot = emo_block_sum(dot, room);
    float pull = -dot * r * r * r / (float)hidden;
    for (int64_t c = threadIdx.x; c < hidden; c += blockDim.x) {
        float g = emo_weight_at(weight, 0, c) * dy[at + c] * r + x[at + c] * pull;
        dx[at + c] = accumulate ? dx[at + c] + g : g;
    }
}

/* parts[p, c]: the sum over the p-th group of rows, a thread per column */
__global__ static void norm_weight_kernel(const float *x, const float *rstd, const float *dy, int64_t tokens,
                                          int64_t hidden, float *parts) {
    int64_t c = emo_index(), first = (int64_t)blockIdx.y * ROWS_PER_PART;
    if (c >= hidden)
        return;
    float sum = 0.0f;
    for (int64_t r = first; r < first + ROWS_PER_PART && r < tokens; r++)
        sum += dy[r * hidden + c] * (x[r * hidden + c] * rstd[r]);
    parts[(int64_t)blockIdx.y * hidden + c] = sum;
}

__global__ static void add_parts_kernel(const float *parts, int64_t n_parts, int64_t width, float *out) {
    int64_t c = emo_index();
    if (c >= width)
        return;
    float sum = 0.0f;
    for (int64_t p = 0; p < n_parts; p++)
        sum += parts[p * width + c];
    out[c] += sum;
}

emo_status emo_cuda_add_parts(emo_exec *exec, const float *parts, int64_t n_parts, int64_t width, float *out,
                              emo_error *err) {
    return emo_cuda_launched(EMO_LAUNCH((add_parts_kernel), emo_blocks(width, THREADS), THREADS, 0,
                                        emo_cuda_stream(exec), parts, n_parts, width, out),
                             "add_parts", err);
}

emo_status emo_cuda_norm_backward(emo_exec *exec, const emo_norm_args *args, emo_error *err) {
    EMO_CUDA_TRY(check_weight(&args->weight, err));
    emo_queue stream = emo_cuda_stream(exec);
    int64_t n = args->hidden, parts = emo_ceil_div(args->tokens, ROWS_PER_PART);
    void *sums;
    if (args->tokens <= 0 || n <= 0)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((norm_backward_kernel), (unsigned)args->tokens, row_threads(n), 0, stream,
                                              args->x, emo_cuda_weight_of(&args->weight), args->rstd, args->dy, n,
                                              args->dx_accumulate, args->dx),
                                   "norm_backward", err));
    if (args->d_weight == NULL)
        return EMO_OK;
    if (parts > 65535)
        return emo_cuda_unsupported(err, "take the gradient of a norm over more than 4 million rows");
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(parts * n) * sizeof(float), &sums, err));
    EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((norm_weight_kernel), dim3(emo_blocks(n, 128), (unsigned)parts), 128, 0,
                                              stream, args->x, args->rstd, args->dy, args->tokens, n, (float *)sums),
                                   "norm_weight", err));
    return emo_cuda_add_parts(exec, (const float *)sums, parts, n, args->d_weight, err);
}

/* ---- RoPE ---- */

__global__ static void rope_kernel(emo_rope_args a) {
    int64_t pairs_per_head = a.head_dim / 2, i = emo_index(), pairs = a.heads * pairs_per_head;
    if (i >= a.tokens * pairs)
        return;
    int64_t t = i / pairs, h = i % pairs / pairs_per_head, c = i % pairs_per_head;
    int64_t at = a.positions[t] * pairs_per_head + c;
    float cosine = a.cos[at], sine = a.inverse ? -a.sin[at] : a.sin[at];
    float *x = a.x + t * a.stride + h * a.head_dim + c;
    float low = x[0], high = x[pairs_per_head];
    x[0] = low * cosine - high * sine;
    x[pairs_per_head] = high * cosine + low * sine;
}

emo_status emo_cuda_rope(emo_exec *exec, const emo_rope_args *args, emo_error *err) {
    if (args->head_dim < 2 || args->head_dim % 2 != 0)
        return emo_cuda_fail(err, EMO_E_INVALID_ARGUMENT, "RoPE needs an even head_dim, not %d", (int)args->head_dim);
    int64_t n = args->tokens * args->heads * (args->head_dim / 2);
    if (n <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((rope_kernel), emo_blocks(n, THREADS), THREADS, 0, emo_cuda_stream(exec), *args), "rope", err);
}
