/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives on sets of columns and segments of rows: the largest of a row, pools, sums and counts per segment. */
#include "kernel.h"
#include "ops.h"
#include "ops/pool.h"

enum { THREADS = 256, ROW_THREADS = 128, MOST_POOL = 4096, PIECE = 64, COLUMNS = 32 };

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

/* A block per row. */
__global__ static void __launch_bounds__(THREADS, 1) keep_top_kernel(emo_keep_top_args a) {
    EMO_DYN_SHARED(uint64_t, keys); /* behind them [cols] values, [cols] states */
    EMO_SHARED(int32_t, room, 33);
    EMO_SHARED(int64_t, wanted, 1);
    int64_t r = blockIdx.x;
    int32_t n = (int32_t)a.cols;
    float *x = (float *)(keys + emo_pool_keys(n));
    int32_t *state = (int32_t *)(x + n);
    int by_mass = a.mass > 0.0f, narrow = a.x != NULL && (a.size != NULL || by_mass);
    uint8_t *allowed = a.allowed + r * a.cols;
    for (int32_t c = (int32_t)threadIdx.x; c < n; c += THREADS) {
        int fixed = listed(a.fixed, a.n_fixed, c), stays = fixed || c >= n - a.forced;
        int in = a.allowed_in == NULL || a.allowed_in[r * a.cols + c] != 0 || fixed;
        allowed[c] = (uint8_t)in;
        state[c] = !in ? EMO_POOL_OUTSIDE : stays ? EMO_POOL_STAYS : EMO_POOL_COMPETES;
        x[c] = narrow ? a.x[r * a.cols + c] : 0.0f;
    }
    if (!narrow)
        return;
    emo_pool_rule rule = {a.mass, by_mass ? (double)(a.row_begin[r + 1] - a.row_begin[r]) : 0.0, a.min, a.max,
                          by_mass ? 0 : (int64_t)a.size[r]};
    emo_pool_narrow(x, state, n, rule, keys, room, wanted, allowed);
}

emo_status emo_cuda_keep_top(emo_exec *exec, const emo_keep_top_args *args, emo_error *err) {
    if (args->rows <= 0 || args->cols <= 0)
        return EMO_OK;
    if (args->cols > MOST_POOL)
        return emo_cuda_unsupported(err, "keep the best of this many columns: it can of up to 4096");
    return emo_cuda_launched(EMO_LAUNCH_WIDE((keep_top_kernel), (unsigned)args->rows, THREADS,
                                             emo_pool_bytes(args->cols), emo_cuda_stream(exec), *args),
                             "keep_top", err);
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

/* Sums of runs: neighbouring rows of one set, inside a piece of PIECE rows. A thread per column of a piece; the sum of
 * a run that begins at row r lies at sums[r], its end at ends[r]. */
__global__ static void __launch_bounds__(COLUMNS) run_sums_kernel(emo_segment_sum_args a, float *sums, int32_t *ends) {
    int64_t c = (int64_t)blockIdx.y * COLUMNS + threadIdx.x, first = (int64_t)blockIdx.x * PIECE;
    int64_t end = first + PIECE < a.rows ? first + PIECE : a.rows;
    if (c >= a.cols)
        return;
    for (int64_t r = first; r < end;) {
        int64_t begin = r;
        int32_t set = a.set_of[begin];
        float sum = 0.0f;
        for (; r < end && a.set_of[r] == set; r++)
            sum += a.x[r * a.cols + c];
        sums[begin * a.cols + c] = sum;
        if (c == 0)
            ends[begin] = (int32_t)r;
    }
}

/* A thread per column meets the runs in order. */
__global__ static void __launch_bounds__(COLUMNS)
    segment_sum_kernel(emo_segment_sum_args a, const float *sums, const int32_t *ends) {
    int64_t c = (int64_t)blockIdx.x * COLUMNS + threadIdx.x;
    if (c >= a.cols)
        return;
    for (int64_t r = 0; r < a.rows; r = ends[r])
        a.out[a.set_of[r] * a.cols + c] += sums[r * a.cols + c];
}

emo_status emo_cuda_segment_sum(emo_exec *exec, const emo_segment_sum_args *args, emo_error *err) {
    void *sums, *ends;
    emo_queue stream = emo_cuda_stream(exec);
    if (args->rows <= 0 || args->cols <= 0)
        return EMO_OK;
    if (args->rows > INT32_MAX || args->cols > (int64_t)65535 * COLUMNS)
        return emo_cuda_unsupported(err, "sum this many rows or columns by segment");
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(args->rows * args->cols) * sizeof(float), &sums, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)args->rows * sizeof(int32_t), &ends, err));
    dim3 grid(emo_blocks(args->rows, PIECE), emo_blocks(args->cols, COLUMNS));
    EMO_CUDA_TRY(emo_cuda_launched(
        EMO_LAUNCH((run_sums_kernel), grid, COLUMNS, 0, stream, *args, (float *)sums, (int32_t *)ends), "run_sums",
        err));
    return emo_cuda_launched(EMO_LAUNCH((segment_sum_kernel), emo_blocks(args->cols, COLUMNS), COLUMNS, 0, stream,
                                        *args, (const float *)sums, (const int32_t *)ends),
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
