/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives on rows: elementwise work, dot products, picking columns, gathering and combining rows. */
#include "kernel.h"
#include "ops.h"
#include "shared.h"

enum { THREADS = 256, ROW_THREADS = 128 };

/* ---- elementwise ---- */

__device__ static float array_at(const emo_array &a, int64_t r, int64_t c) { return a.data[r * a.row + c * a.col]; }

__global__ static void elementwise_kernel(emo_elementwise_args a) {
    int64_t i = emo_index();
    if (i >= a.rows * a.cols)
        return;
    int64_t r = i / a.cols, c = i % a.cols;
    float x = a.x.data != NULL ? array_at(a.x, r, c) : 0.0f;
    float y = a.y.data != NULL ? array_at(a.y, r, c) : 1.0f;
    float v;
    if (a.op == EMO_ELEMENT_ADD)
        v = a.alpha * x + a.beta * y;
    else if (a.op == EMO_ELEMENT_MUL)
        v = a.alpha * x * y;
    else if (a.op == EMO_ELEMENT_DIV)
        v = y != 0.0f ? a.alpha * x / y : 0.0f;
    else if (a.op == EMO_ELEMENT_POW)
        v = powf(x, a.alpha);
    else
        v = emo_sigmoid(x);
    float *out = &a.out.data[r * a.out.row + c * a.out.col];
    *out = a.accumulate ? *out + v : v;
}

emo_status emo_cuda_elementwise(emo_exec *exec, const emo_elementwise_args *args, emo_error *err) {
    if (args->op < EMO_ELEMENT_ADD || args->op > EMO_ELEMENT_SIGMOID)
        return emo_cuda_fail(err, EMO_E_UNSUPPORTED, "the CUDA back end has no elementwise operation %d",
                             (int)args->op);
    int64_t n = args->rows * args->cols;
    if (n <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((elementwise_kernel), emo_blocks(n, THREADS), THREADS, 0, emo_cuda_stream(exec), *args),
        "elementwise", err);
}

/* ---- row_dot ---- */

/* A warp per row, in f64. */
__global__ static void row_dot_kernel(emo_row_dot_args a, double *sums) {
    int64_t r = emo_index() >> 5;
    if (r >= a.rows)
        return;
    int lane = (int)(threadIdx.x & 31u);
    double sum = 0.0;
    for (int64_t c = lane; c < a.cols; c += 32)
        sum += (double)array_at(a.x, r, c) * (a.y.data != NULL ? (double)array_at(a.y, r, c) : 1.0);
    sum = emo_warp_sum(sum);
    if (lane == 0) {
        if (a.out != NULL)
            a.out[r] = (float)sum;
        if (sums != NULL)
            sums[r] = sum;
    }
}

/* out[0] += scale * the sum of all, by one block. */
__global__ static void total_kernel(const double *values, int64_t n, double scale, const emo_total_now *now,
                                    double *out) {
    EMO_SHARED(double, room, 32);
    if (now != NULL) {
        n = now->n;
        scale = now->scale;
    }
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += values[i];
    sum = emo_block_sum(sum, room);
    if (threadIdx.x == 0)
        *out += scale * sum;
}

emo_status emo_cuda_total(emo_exec *exec, const double *values, int64_t n, double scale, const emo_total_now *now,
                          double *out, emo_error *err) {
    return emo_cuda_launched(
        EMO_LAUNCH((total_kernel), 1, THREADS, 0, emo_cuda_stream(exec), values, n, scale, now, out), "total", err);
}

emo_status emo_cuda_row_dot(emo_exec *exec, const emo_row_dot_args *args, emo_error *err) {
    void *sums = NULL;
    if (args->rows <= 0)
        return EMO_OK;
    if (args->total != NULL)
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)args->rows * sizeof(double), &sums, err));
    EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((row_dot_kernel), emo_blocks(args->rows * 32, THREADS), THREADS, 0,
                                              emo_cuda_stream(exec), *args, (double *)sums),
                                   "row_dot", err));
    return sums != NULL ? emo_cuda_total(exec, (const double *)sums, args->rows, 1.0, NULL, args->total, err) : EMO_OK;
}

/* ---- pick ---- */

__global__ static void pick_kernel(emo_pick_args a) {
    int64_t i = emo_index();
    if (i >= a.rows * a.k)
        return;
    int64_t r = i / a.k, j = i % a.k;
    int32_t c = a.indices[r * a.index_stride + j];
    float v = 0.0f;
    if (c >= 0 && c < a.cols)
        v = a.x != NULL ? a.x[r * a.x_stride + c] : 1.0f;
    a.values[r * a.value_stride + j] = v;
}

/* A thread per row: the same column may come twice, and sums keep the order of j. */
__global__ static void pick_add_kernel(emo_pick_args a) {
    int64_t r = emo_index();
    if (r >= a.rows)
        return;
    for (int64_t j = 0; j < a.k; j++) {
        int32_t c = a.indices[r * a.index_stride + j];
        if (c >= 0 && c < a.cols)
            a.x[r * a.x_stride + c] += a.alpha * (a.values != NULL ? a.values[r * a.value_stride + j] : 1.0f);
    }
}

emo_status emo_cuda_pick(emo_exec *exec, const emo_pick_args *args, emo_error *err) {
    emo_queue stream = emo_cuda_stream(exec);
    if (args->rows <= 0 || args->k <= 0)
        return EMO_OK;
    if (args->add)
        return emo_cuda_launched(
            EMO_LAUNCH((pick_add_kernel), emo_blocks(args->rows, THREADS), THREADS, 0, stream, *args), "pick_add", err);
    return emo_cuda_launched(
        EMO_LAUNCH((pick_kernel), emo_blocks(args->rows * args->k, THREADS), THREADS, 0, stream, *args), "pick", err);
}

/* ---- gather and combine ---- */

__global__ static void gather_kernel(emo_gather_args a) {
    int64_t i = emo_index(), r = i / a.width;
    if (r >= a.max_rows || (a.count != NULL && r >= *a.count))
        return;
    int64_t from = (a.order != NULL ? a.order[r] : r) / a.k_total;
    a.dst[i] = a.src[from * a.width + i % a.width];
}

emo_status emo_cuda_gather(emo_exec *exec, const emo_gather_args *args, emo_error *err) {
    int64_t n = args->max_rows * args->width;
    if (n <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((gather_kernel), emo_blocks(n, THREADS), THREADS, 0, emo_cuda_stream(exec), *args), "gather", err);
}

__global__ static void combine_kernel(emo_combine_args a) {
    int64_t i = emo_index(), t = i / a.width, c = i % a.width;
    if (t >= a.tokens)
        return;
    float sum = 0.0f;
    for (int32_t j = 0; j < a.k_total; j++) {
        int32_t from = a.inverse[t * a.k_total + j];
        if (from >= 0)
            sum += (a.weights != NULL ? a.weights[t * a.k_total + j] : 1.0f) * a.src[from * a.width + c];
    }
    a.dst[i] = a.accumulate ? a.dst[i] + sum : sum;
}

/* d_weights: a warp per assignment. */
__global__ static void combine_dot_kernel(emo_combine_args a) {
    int64_t i = emo_index() >> 5;
    if (i >= a.tokens * a.k_total)
        return;
    int lane = (int)(threadIdx.x & 31u);
    int32_t from = a.inverse[i];
    const float *dy = a.dy + i / a.k_total * a.width;
    float sum = 0.0f;
    for (int64_t c = lane; c < a.width && from >= 0; c += 32)
        sum += dy[c] * a.src[from * a.width + c];
    sum = emo_warp_sum(sum);
    if (lane == 0)
        a.d_weights[i] = sum;
}

emo_status emo_cuda_combine(emo_exec *exec, const emo_combine_args *args, emo_error *err) {
    emo_queue stream = emo_cuda_stream(exec);
    if (args->dst != NULL && args->tokens * args->width > 0)
        EMO_CUDA_TRY(emo_cuda_launched(
            EMO_LAUNCH((combine_kernel), emo_blocks(args->tokens * args->width, THREADS), THREADS, 0, stream, *args),
            "combine", err));
    if (args->d_weights != NULL && args->tokens * args->k_total > 0)
        EMO_CUDA_TRY(
            emo_cuda_launched(EMO_LAUNCH((combine_dot_kernel), emo_blocks(args->tokens * args->k_total * 32, THREADS),
                                         THREADS, 0, stream, *args),
                              "combine_dot", err));
    return EMO_OK;
}

/* ---- softmax ---- */

/* A block per row. probs may be x: a thread reads and writes its own columns alone. */
__global__ static void softmax_kernel(emo_softmax_args a) {
    EMO_SHARED(double, sums, 32);
    EMO_SHARED(float, tops, 32);
    int64_t r = blockIdx.x;
    const float *x = a.x + r * a.x_stride;
    float *probs = a.probs + r * a.cols;
    const uint8_t *set = a.allowed;
    if (set != NULL && a.set_of != NULL)
        set += a.set_of[r] * a.cols;
    int64_t seen = a.causal > 0 && a.causal + r < a.cols ? a.causal + r : a.cols;
    float top = -INFINITY, any = 0.0f;
    for (int64_t c = threadIdx.x; c < seen; c += blockDim.x)
        if (set == NULL || set[c] != 0) {
            top = x[c] > top ? x[c] : top;
            any = 1.0f;
        }
    top = emo_block_max(top, tops);
    any = emo_block_max(any, tops);
    double sum = 0.0;
    for (int64_t c = threadIdx.x; c < seen; c += blockDim.x)
        if (set == NULL || set[c] != 0)
            sum += (double)expf(x[c] - top);
    sum = emo_block_sum(sum, sums);
    for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x) {
        float v = 0.0f;
        if (c < seen && (set == NULL || set[c] != 0))
            v = a.sigmoid ? emo_sigmoid(x[c]) + a.floor : (float)((double)expf(x[c] - top) / sum);
        probs[c] = v;
    }
    if (a.lse != NULL && threadIdx.x == 0)
        a.lse[r] = any > 0.0f ? top + (float)log(sum) : 0.0f;
}

emo_status emo_cuda_softmax(emo_exec *exec, const emo_softmax_args *args, emo_error *err) {
    if (args->rows <= 0 || args->cols <= 0)
        return EMO_OK;
    int threads = args->cols <= 32 ? 32 : ROW_THREADS;
    return emo_cuda_launched(
        EMO_LAUNCH((softmax_kernel), (unsigned)args->rows, threads, 0, emo_cuda_stream(exec), *args), "softmax", err);
}
