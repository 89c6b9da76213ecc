/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives on sets of columns and segments of rows: the largest of a row, pools, sums and counts per segment. */
#include "kernel.h"
#include "ops.h"

enum { THREADS = 256, ROW_THREADS = 128 };

__device__ static int listed(const int32_t *list, int32_t count, int64_t c) {
    for (int32_t i = 0; i < count; i++)
        if (list[i] == c)
            return 1;
    return 0;
}

/* ---- top-k ---- */

/* Whether (key, column) comes before (other, its column): the larger key, then the lower column. */
__device__ static int key_before(float key, int32_t c, float other, int32_t other_c) {
    return key > other || (key == other && c < other_c);
}

/* A warp per row finds the next one k times: the best key that comes after the one before it. */
__global__ static void topk_kernel(emo_topk_args a) {
    int64_t r = emo_index() >> 5;
    if (r >= a.rows)
        return;
    int lane = (int)(threadIdx.x & 31u);
    const float *x = a.x + r * a.x_stride;
    int32_t *indices = a.indices + r * (a.k + a.n_fixed);
    float *values = a.values + r * (a.k + a.n_fixed);
    const uint8_t *set = a.allowed;
    if (set != NULL && a.set_of != NULL)
        set += a.set_of[r] * a.cols;
    float last = INFINITY;
    int32_t last_c = -1;
    for (int32_t j = 0; j < a.k; j++) {
        float best = -INFINITY;
        int32_t best_c = INT32_MAX;
        for (int32_t c = lane; c < (int32_t)a.cols; c += 32) {
            if ((set != NULL && set[c] == 0) || listed(a.fixed, a.n_fixed, c))
                continue;
            float key = x[c] + (a.bias != NULL ? a.bias[c] : 0.0f);
            key = key == key ? key : -INFINITY; /* not a number comes last */
            if (key_before(last, last_c, key, c) && key_before(key, c, best, best_c)) {
                best = key;
                best_c = c;
            }
        }
        for (int offset = 16; offset > 0; offset >>= 1) {
            float key = __shfl_xor_sync(EMO_FULL_WARP, best, offset);
            int32_t c = __shfl_xor_sync(EMO_FULL_WARP, best_c, offset);
            if (key_before(key, c, best, best_c)) {
                best = key;
                best_c = c;
            }
        }
        int found = best_c != INT32_MAX;
        if (lane == 0) {
            indices[j] = found ? best_c : -1;
            values[j] = found ? x[best_c] : 0.0f;
        }
        last = found ? best : -INFINITY;
        last_c = best_c;
    }
    for (int32_t j = lane; j < a.n_fixed; j += 32) {
        int32_t c = a.fixed[j];
        int beyond = c >= a.cols, out = !beyond && set != NULL && set[c] == 0;
        indices[a.k + j] = out ? -1 : c;
        values[a.k + j] = beyond ? 1.0f : out ? 0.0f : x[c];
    }
}

emo_status emo_cuda_topk(emo_exec *exec, const emo_topk_args *args, emo_error *err) {
    if (args->rows <= 0)
        return EMO_OK;
    return emo_cuda_launched(EMO_LAUNCH((topk_kernel), emo_blocks(args->rows * 32, ROW_THREADS), ROW_THREADS, 0,
                                        emo_cuda_stream(exec), *args),
                             "topk", err);
}

/* ---- pools ---- */

/* Whether column i comes before column c in the order of x, descending, ties to the lower column. */
__device__ static int before(const float *x, int64_t i, int64_t c) { return x[i] > x[c] || (x[i] == x[c] && i < c); }

__device__ static int is_allowed(const emo_keep_top_args &a, const uint8_t *in, int64_t c) {
    return in == NULL || in[c] != 0 || listed(a.fixed, a.n_fixed, c);
}

__device__ static int stays(const emo_keep_top_args &a, int64_t c) {
    return c >= a.cols - a.forced || listed(a.fixed, a.n_fixed, c);
}

/* A block per row, a thread per column. */
__global__ static void keep_top_kernel(emo_keep_top_args a) {
    EMO_SHARED(int, room, 32);
    int64_t r = blockIdx.x;
    const uint8_t *in = a.allowed_in != NULL ? a.allowed_in + r * a.cols : NULL;
    uint8_t *allowed = a.allowed + r * a.cols;
    int by_mass = a.mass > 0.0f, narrow = a.x != NULL && (a.size != NULL || by_mass);
    const float *x = narrow ? a.x + r * a.cols : NULL;
    int64_t left = 0;
    if (narrow) {
        int counted = 0, kept = 0;
        double weight = by_mass ? (double)(a.row_begin[r + 1] - a.row_begin[r]) : 0.0;
        for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x) {
            if (!is_allowed(a, in, c))
                continue;
            kept += stays(a, c);
            if (by_mass) {
                double sum = (double)x[c];
                for (int64_t i = 0; i < a.cols; i++)
                    if (is_allowed(a, in, i) && before(x, i, c))
                        sum += (double)x[i];
                counted += sum < (double)a.mass * weight;
            }
        }
        counted = emo_block_sum(counted, room);
        kept = emo_block_sum(kept, room);
        int64_t size = by_mass ? counted + 1 : (int64_t)a.size[r];
        if (by_mass) {
            size = size < a.min ? a.min : size;
            size = size > a.max ? a.max : size;
        }
        left = size - kept;
    }
    for (int64_t c = threadIdx.x; c < a.cols; c += blockDim.x) {
        int in_set = is_allowed(a, in, c);
        if (in_set && narrow && !stays(a, c)) {
            int64_t better = 0;
            for (int64_t i = 0; i < a.cols; i++)
                better += is_allowed(a, in, i) && !stays(a, i) && before(x, i, c);
            in_set = better < left;
        }
        allowed[c] = (uint8_t)in_set;
    }
}

emo_status emo_cuda_keep_top(emo_exec *exec, const emo_keep_top_args *args, emo_error *err) {
    if (args->rows <= 0 || args->cols <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((keep_top_kernel), (unsigned)args->rows, ROW_THREADS, 0, emo_cuda_stream(exec), *args), "keep_top",
        err);
}

/* ---- segments ---- */

__global__ static void segment_ids_kernel(emo_segment_ids_args a) {
    int64_t t = emo_index();
    if (t >= a.tokens || t < a.begin[0] || t >= a.begin[a.n_segments])
        return;
    int64_t low = 0, high = a.n_segments; /* begin[low] <= t < begin[high] */
    while (high - low > 1) {
        int64_t middle = (low + high) / 2;
        if (a.begin[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    a.set_of[t] = (int32_t)low;
}

emo_status emo_cuda_segment_ids(emo_exec *exec, const emo_segment_ids_args *args, emo_error *err) {
    if (args->tokens <= 0 || args->n_segments <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((segment_ids_kernel), emo_blocks(args->tokens, THREADS), THREADS, 0, emo_cuda_stream(exec), *args),
        "segment_ids", err);
}

/* A thread per column meets the rows in order. */
__global__ static void segment_sum_kernel(emo_segment_sum_args a) {
    int64_t c = emo_index();
    if (c >= a.cols)
        return;
    for (int64_t r = 0; r < a.rows; r++)
        a.out[a.set_of[r] * a.cols + c] += a.x[r * a.cols + c];
}

emo_status emo_cuda_segment_sum(emo_exec *exec, const emo_segment_sum_args *args, emo_error *err) {
    if (args->rows <= 0 || args->cols <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((segment_sum_kernel), emo_blocks(args->cols, 32), 32, 0, emo_cuda_stream(exec), *args),
        "segment_sum", err);
}

/* Whole numbers add up the same in any order. */
__global__ static void count_kernel(emo_count_args a) {
    int64_t i = emo_index();
    if (i >= a.rows * a.k)
        return;
    int32_t c = a.indices[i];
    int64_t set = a.set_of != NULL ? a.set_of[i / a.k] : 0;
    if (c >= 0 && c < a.bins)
        atomicAdd(&a.counts[set * a.bins + c], 1);
}

emo_status emo_cuda_count(emo_exec *exec, const emo_count_args *args, emo_error *err) {
    if (args->rows <= 0 || args->k <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((count_kernel), emo_blocks(args->rows * args->k, THREADS), THREADS, 0, emo_cuda_stream(exec), *args),
        "count", err);
}
