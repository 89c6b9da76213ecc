/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on tensor cores, forward and backward: the kernels of attention_forward.cu and attention_backward.cu with
 * products of attention_bf16.h. Accumulator c of thread (g = lane / 4, t = lane % 4): row g + 8 (c / 2), column
 * 2 t + c % 2 of a tile of 16 x 8. */
#include "ops/attention_bf16.h"

enum { FORWARD_THREADS = 256, BACK_THREADS = 128, KEYS = 32, BACK = 32 };
/* Two blocks share a multiprocessor, but for wide heads that read pages, or from sm_100 on, where ptxas would spill
 * into local memory. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
#define FORWARD_BLOCKS(D, PAGED) ((D) > 64 ? 1 : 2)
#else
#define FORWARD_BLOCKS(D, PAGED) ((PAGED) && (D) > 64 ? 1 : 2)
#endif

__device__ static inline const float *query_row(const emo_attention_args &a, const emo_at_shape &shape,
                                                const emo_at_work &w, int32_t pair, int32_t pairs) {
    return pair < pairs
               ? a.q + emo_at_query(w, shape, pair) * a.q_stride + (int64_t)emo_at_head(shape, pair) * a.head_dim
               : NULL;
}
__device__ static inline const float *gradient_row(const emo_attention_args &a, const emo_at_shape &shape,
                                                   const emo_at_work &w, int32_t pair, int32_t pairs) {
    return pair < pairs
               ? a.d_o + emo_at_query(w, shape, pair) * a.o_stride + (int64_t)emo_at_head(shape, pair) * a.head_dim
               : NULL;
}
__device__ static inline const float *key_row(const emo_attention_args &a, const emo_at_work &w, const float *rows,
                                              int32_t key, int32_t end) {
    return key < end ? rows + (w.k_begin + key) * a.kv_stride + (int64_t)blockIdx.y * a.head_dim : NULL;
}
template <bool PAGED>
__device__ static inline const float *cached_row(const emo_attention_args &a, const emo_at_shape &shape,
                                                 const emo_at_work &w, const float *rows, int32_t key, int32_t end) {
    if (!PAGED)
        return key_row(a, w, rows, key, end);
    return key < end ? rows + emo_at_key(w, shape, key) * a.kv_stride + (int64_t)blockIdx.y * a.head_dim : NULL;
}

template <int D, bool PAGED>
__global__ static void __launch_bounds__(FORWARD_THREADS, FORWARD_BLOCKS(D, PAGED))
    forward_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list) {
    EMO_DYN_SHARED(__nv_bfloat16, q); /* [EMO_AB_ROWS][D], then keys, then values [KEYS][D] */
    __nv_bfloat16 *k = q + EMO_AB_ROWS * D, *v = k + KEYS * D;
    emo_at_work w = list[blockIdx.x];
    if (w.count == 0)
        return;
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    int32_t pairs = w.first + w.count, end = emo_at_seen(w, shape, pairs - 1);
    emo_ab_load<D, FORWARD_THREADS>(q, EMO_AB_ROWS, a.head_dim, shape.vector,
                                    [&](int r) { return query_row(a, shape, w, w.first + r, pairs); });
    float o[D / 64][1][8][4], top[2], sum[2] = {0.0f, 0.0f};
    int32_t seen[2];
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int32_t pair = w.first + warp * 16 + (lane >> 2) + 8 * h;
        seen[h] = pair < pairs ? emo_at_seen(w, shape, pair) : 0;
        top[h] = -INFINITY;
    }
#pragma unroll
    for (int part = 0; part < D / 64; part++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                o[part][0][j][c] = 0.0f;
    for (int32_t k0 = 0; k0 < end; k0 += KEYS) {
        float s[1][KEYS / 8][4];
        emo_ab_load<D, FORWARD_THREADS>(k, KEYS, a.head_dim, shape.vector,
                                        [&](int r) { return cached_row<PAGED>(a, shape, w, a.k, k0 + r, end); });
        emo_ab_load<D, FORWARD_THREADS>(v, KEYS, a.head_dim, shape.vector,
                                        [&](int r) { return cached_row<PAGED>(a, shape, w, a.v, k0 + r, end); });
        __syncthreads();
        emo_ab_dots<D, KEYS>(q, warp * 16, k, lane, s);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = -INFINITY;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int c = 2 * h; c < 2 * h + 2; c++) {
                    int32_t key = k0 + j * 8 + (lane & 3) * 2 + (c & 1);
                    s[0][j][c] = key < seen[h] ? s[0][j][c] * a.scale : -INFINITY;
                    most = fmaxf(most, s[0][j][c]);
                }
            }
            most = fmaxf(most, __shfl_xor_sync(EMO_FULL_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(EMO_FULL_WARP, most, 2));
            float now = fmaxf(top[h], most);
            float keep = now == -INFINITY ? 1.0f : emo_exp_fast(top[h] - now);
            top[h] = now;
            sum[h] *= keep;
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++) {
#pragma unroll
                for (int c = 2 * h; c < 2 * h + 2; c++) {
                    float p = s[0][j][c] == -INFINITY ? 0.0f : emo_exp_fast(s[0][j][c] - now);
                    s[0][j][c] = p;
                    sum[h] += p;
                }
            }
#pragma unroll
            for (int part = 0; part < D / 64; part++)
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    o[part][0][j][2 * h] *= keep;
                    o[part][0][j][2 * h + 1] *= keep;
                }
        }
        emo_ab_add<D, KEYS>(s, v, lane, o);
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        sum[h] += __shfl_xor_sync(EMO_FULL_WARP, sum[h], 1);
        sum[h] += __shfl_xor_sync(EMO_FULL_WARP, sum[h], 2);
        int32_t pair = w.first + warp * 16 + (lane >> 2) + 8 * h;
        if (pair >= pairs)
            continue;
        int32_t head = emo_at_head(shape, pair);
        int64_t row = emo_at_query(w, shape, pair);
        if ((lane & 3) == 0 && a.lse != NULL)
            a.lse[row * a.heads + head] = top[h] + logf(sum[h]);
        float inverse = 1.0f / sum[h];
        float *out = a.o + row * a.o_stride + (int64_t)head * a.head_dim;
#pragma unroll
        for (int part = 0; part < D / 64; part++)
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    int col = part * 64 + j * 8 + (lane & 3) * 2 + c;
                    if (col < a.head_dim)
                        out[col] = o[part][0][j][2 * h + c] * inverse;
                }
    }
}

/* dk and dv of 64 keys, 16 a warp: products are transposed, keys are the rows of the sums. */
template <int D>
__global__ static void __launch_bounds__(BACK_THREADS)
    keys_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list, const float *delta_in) {
    EMO_DYN_SHARED(__nv_bfloat16, k); /* [64][D], then values [64][D], q and d_o [BACK][D], lse and delta [BACK] */
    __nv_bfloat16 *v = k + EMO_AB_BACK_ROWS * D, *q = v + EMO_AB_BACK_ROWS * D, *d_o = q + BACK * D;
    float *lse = (float *)(d_o + BACK * D), *delta = lse + BACK;
    emo_at_work w = list[blockIdx.x];
    if (w.count == 0)
        return;
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    int32_t pairs = w.q_count * shape.group, hidden = w.k_count - w.q_count, last = w.first + w.count;
    float dk[D / 64][1][8][4], dv[D / 64][1][8][4];
#pragma unroll
    for (int part = 0; part < D / 64; part++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                dk[part][0][j][c] = dv[part][0][j][c] = 0.0f;
    emo_ab_load<D, BACK_THREADS>(k, EMO_AB_BACK_ROWS, a.head_dim, shape.vector,
                                 [&](int r) { return key_row(a, w, a.k, w.first + r, last); });
    emo_ab_load<D, BACK_THREADS>(v, EMO_AB_BACK_ROWS, a.head_dim, shape.vector,
                                 [&](int r) { return key_row(a, w, a.v, w.first + r, last); });
    int32_t from = w.first > hidden ? (w.first - hidden) * shape.group : 0;
    for (int32_t p0 = from; p0 < pairs; p0 += BACK) {
        float s[1][BACK / 8][4], dp[1][BACK / 8][4];
        emo_ab_load<D, BACK_THREADS>(q, BACK, a.head_dim, shape.vector,
                                     [&](int r) { return query_row(a, shape, w, p0 + r, pairs); });
        emo_ab_load<D, BACK_THREADS>(d_o, BACK, a.head_dim, shape.vector,
                                     [&](int r) { return gradient_row(a, shape, w, p0 + r, pairs); });
        if (threadIdx.x < BACK) {
            int32_t pair = p0 + (int32_t)threadIdx.x;
            int64_t at = pair < pairs ? emo_at_query(w, shape, pair) * a.heads + emo_at_head(shape, pair) : -1;
            lse[threadIdx.x] = at >= 0 ? a.lse[at] : 0.0f;
            delta[threadIdx.x] = at >= 0 ? delta_in[at] : 0.0f;
        }
        __syncthreads();
        emo_ab_dots<D, BACK>(k, warp * 16, q, lane, s);
        emo_ab_dots<D, BACK>(v, warp * 16, d_o, lane, dp);
#pragma unroll
        for (int j = 0; j < BACK / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int r = j * 8 + (lane & 3) * 2 + (c & 1); /* column: the pair */
                int32_t key = w.first + warp * 16 + (lane >> 2) + 8 * (c >> 1), pair = p0 + r;
                int visible = pair < pairs && key < last && key < emo_at_seen(w, shape, pair);
                float p = visible ? emo_exp_fast(s[0][j][c] * a.scale - lse[r]) : 0.0f;
                s[0][j][c] = p;
                dp[0][j][c] = visible ? p * (dp[0][j][c] - delta[r]) : 0.0f;
            }
        }
        emo_ab_add<D, BACK>(s, d_o, lane, dv);
        emo_ab_add<D, BACK>(dp, q, lane, dk);
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int32_t key = w.first + warp * 16 + (lane >> 2) + 8 * h;
        if (key >= last)
            continue;
        int64_t at = (w.k_begin + key) * a.kv_stride + (int64_t)blockIdx.y * a.head_dim;
#pragma unroll
        for (int part = 0; part < D / 64; part++)
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    int col = part * 64 + j * 8 + (lane & 3) * 2 + c;
                    if (col < a.head_dim) {
                        a.dk[at + col] = dk[part][0][j][2 * h + c] * a.scale;
                        a.dv[at + col] = dv[part][0][j][2 * h + c];
                    }
                }
    }
}

/* dq of 64 pairs, 16 a warp. */
template <int D>
__global__ static void __launch_bounds__(BACK_THREADS)
    queries_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list, const float *delta_in) {
    EMO_DYN_SHARED(__nv_bfloat16, q); /* [64][D], d_o [64][D], then keys and values [BACK][D] */
    __nv_bfloat16 *d_o = q + EMO_AB_BACK_ROWS * D, *k = d_o + EMO_AB_BACK_ROWS * D, *v = k + BACK * D;
    emo_at_work w = list[blockIdx.x];
    if (w.count == 0)
        return;
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    int32_t pairs = w.first + w.count, end = emo_at_seen(w, shape, pairs - 1), seen[2];
    float dq[D / 64][1][8][4], lse[2], delta[2];
#pragma unroll
    for (int part = 0; part < D / 64; part++)
#pragma unroll
        for (int j = 0; j < 8; j++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                dq[part][0][j][c] = 0.0f;
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int32_t pair = w.first + warp * 16 + (lane >> 2) + 8 * h;
        int64_t at = pair < pairs ? emo_at_query(w, shape, pair) * a.heads + emo_at_head(shape, pair) : -1;
        seen[h] = at >= 0 ? emo_at_seen(w, shape, pair) : 0;
        lse[h] = at >= 0 ? a.lse[at] : 0.0f;
        delta[h] = at >= 0 ? delta_in[at] : 0.0f;
    }
    emo_ab_load<D, BACK_THREADS>(q, EMO_AB_BACK_ROWS, a.head_dim, shape.vector,
                                 [&](int r) { return query_row(a, shape, w, w.first + r, pairs); });
    emo_ab_load<D, BACK_THREADS>(d_o, EMO_AB_BACK_ROWS, a.head_dim, shape.vector,
                                 [&](int r) { return gradient_row(a, shape, w, w.first + r, pairs); });
    for (int32_t k0 = 0; k0 < end; k0 += BACK) {
        float s[1][BACK / 8][4], dp[1][BACK / 8][4];
        emo_ab_load<D, BACK_THREADS>(k, BACK, a.head_dim, shape.vector,
                                     [&](int r) { return key_row(a, w, a.k, k0 + r, end); });
        emo_ab_load<D, BACK_THREADS>(v, BACK, a.head_dim, shape.vector,
                                     [&](int r) { return key_row(a, w, a.v, k0 + r, end); });
        __syncthreads();
        emo_ab_dots<D, BACK>(q, warp * 16, k, lane, s);
        emo_ab_dots<D, BACK>(d_o, warp * 16, v, lane, dp);
#pragma unroll
        for (int j = 0; j < BACK / 8; j++) {
#pragma unroll
            for (int c = 0; c < 4; c++) {
                int32_t key = k0 + j * 8 + (lane & 3) * 2 + (c & 1);
                int visible = key < seen[c >> 1];
                float p = visible ? emo_exp_fast(s[0][j][c] * a.scale - lse[c >> 1]) : 0.0f;
                dp[0][j][c] = visible ? p * (dp[0][j][c] - delta[c >> 1]) : 0.0f;
            }
        }
        emo_ab_add<D, BACK>(dp, k, lane, dq);
        __syncthreads();
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int32_t pair = w.first + warp * 16 + (lane >> 2) + 8 * h;
        if (pair >= pairs)
            continue;
        float *out = a.dq + emo_at_query(w, shape, pair) * a.q_stride + (int64_t)emo_at_head(shape, pair) * a.head_dim;
#pragma unroll
        for (int part = 0; part < D / 64; part++)
#pragma unroll
            for (int j = 0; j < 8; j++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    int col = part * 64 + j * 8 + (lane & 3) * 2 + c;
                    if (col < a.head_dim)
                        out[col] = dq[part][0][j][2 * h + c] * a.scale;
                }
    }
}

static dim3 grid_of(const emo_attention_args *a, int64_t count) { return dim3((unsigned)count, (unsigned)a->kv_heads); }

emo_status emo_cuda_attention_bf16(emo_exec *exec, const emo_attention_args *a, const emo_at_shape *shape,
                                   const emo_at_work *work, int64_t count, emo_error *err) {
    cudaError_t launched = cudaSuccess;
    EMO_AB_DIM(a->head_dim, {
        size_t shared = (EMO_AB_ROWS + 2 * KEYS) * D * 2;
        emo_attention_args given = emo_at_given(a);
        launched = shape->pages == NULL ? EMO_LAUNCH_WIDE((forward_k<D, false>), grid_of(a, count), FORWARD_THREADS,
                                                          shared, emo_cuda_stream(exec), given, *shape, work)
                                        : EMO_LAUNCH_WIDE((forward_k<D, true>), grid_of(a, count), FORWARD_THREADS,
                                                          shared, emo_cuda_stream(exec), given, *shape, work);
    });
    return emo_cuda_launched(launched, "attention in bf16", err);
}

emo_status emo_cuda_attention_bf16_keys(emo_exec *exec, const emo_attention_args *a, const emo_at_shape *shape,
                                        const emo_at_work *work, int64_t count, const float *delta, emo_error *err) {
    cudaError_t launched = cudaSuccess;
    EMO_AB_DIM(a->head_dim, {
        size_t shared = (2 * EMO_AB_BACK_ROWS + 2 * BACK) * D * 2 + 2 * BACK * sizeof(float);
        launched = EMO_LAUNCH_WIDE((keys_k<D>), grid_of(a, count), BACK_THREADS, shared, emo_cuda_stream(exec),
                                   emo_at_given(a), *shape, work, delta);
    });
    return emo_cuda_launched(launched, "attention in bf16: gradient of keys and values", err);
}

emo_status emo_cuda_attention_bf16_queries(emo_exec *exec, const emo_attention_args *a, const emo_at_shape *shape,
                                           const emo_at_work *work, int64_t count, const float *delta, emo_error *err) {
    cudaError_t launched = cudaSuccess;
    EMO_AB_DIM(a->head_dim, {
        size_t shared = (2 * EMO_AB_BACK_ROWS + 2 * BACK) * D * 2;
        launched = EMO_LAUNCH_WIDE((queries_k<D>), grid_of(a, count), BACK_THREADS, shared, emo_cuda_stream(exec),
                                   emo_at_given(a), *shape, work, delta);
    });
    return emo_cuda_launched(launched, "attention in bf16: gradient of queries", err);
}
