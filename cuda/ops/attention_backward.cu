/* SPDX-License-Identifier: Apache-2.0 */
/* Attention, backward, f32, without atomics: one kernel sums dk and dv of a tile of keys over the rows that see it, one
 * sums dq of a tile of rows over the keys it sees. Both compute the probabilities again from lse: seven products
 * instead of five, but every sum has one owner and a fixed order. delta = sum(d_o * o), P = exp(scale q k - lse), dS =
 * P (d_o v - delta) dv = P^T d_o, dk = scale dS^T q, dq = scale dS k */
#include "ops/attention_bf16.h"

/* Rows and keys of a tile: 32, or 16 where four tiles of D floats must fit in shared memory. */
template <int D>
struct tile {
    static constexpr int RT = D == 256 ? 1 : 2, ROWS = 16 * RT, LINE = ROWS + 4;
    static constexpr size_t SHARED = (4 * ROWS * (D + 4) + 2 * ROWS * LINE + 2 * ROWS) * sizeof(float);
};

/* delta[query row, head], a warp each */
__global__ static void __launch_bounds__(256) delta_k(emo_attention_args a, int64_t rows, float *delta) {
    int64_t i = ((int64_t)blockIdx.x * 256 + threadIdx.x) / 32, row = i / a.heads, head = i % a.heads;
    int lane = (int)(threadIdx.x & 31u);
    if (row >= rows)
        return;
    float sum = 0.0f;
    for (int32_t c = lane; c < a.head_dim; c += 32) {
        int64_t at = row * a.o_stride + head * a.head_dim + c;
        sum = fmaf(a.o[at], a.d_o[at], sum);
    }
    sum = emo_warp_sum(sum);
    if (lane == 0)
        delta[i] = sum;
}

/* P and dS of a tile: pairs from p0, keys from k0. q and d_o are the rows, k and v the keys in shared memory; lse and
 * delta of the rows too. */
template <int D>
__device__ static inline void probabilities(const emo_attention_args &a, const emo_at_shape &shape,
                                            const emo_at_work &w, int32_t p0, int32_t pairs, int32_t k0, const float *q,
                                            const float *d_o, const float *k, const float *v, const float *lse,
                                            const float *delta, float *p_out, float *ds_out) {
    constexpr int RT = tile<D>::RT, LINE = tile<D>::LINE;
    int x = (int)(threadIdx.x & 15u), y = (int)(threadIdx.x >> 4);
    float s[RT][RT], dp[RT][RT];
    emo_at_dots<D, RT, RT>(q, k, s);
    emo_at_dots<D, RT, RT>(d_o, v, dp);
#pragma unroll
    for (int i = 0; i < RT; i++) {
        int r = y * RT + i;
#pragma unroll
        for (int j = 0; j < RT; j++) {
            int32_t key = k0 + x + 16 * j;
            float p = 0.0f, ds = 0.0f;
            if (p0 + r < pairs && key < emo_at_seen(w, shape, p0 + r)) {
                p = expf(s[i][j] * a.scale - lse[r]);
                ds = p * (dp[i][j] - delta[r]);
            }
            if (p_out != NULL)
                p_out[r * LINE + x + 16 * j] = p;
            ds_out[r * LINE + x + 16 * j] = ds;
        }
    }
}

/* Rows of q and d_o from pair p0 on, with their lse and delta. */
template <int D>
__device__ static inline void load_rows(const emo_attention_args &a, const emo_at_shape &shape, const emo_at_work &w,
                                        int32_t p0, int32_t pairs, const float *delta_in, float *q, float *d_o,
                                        float *lse, float *delta) {
    emo_at_load<D>(q, tile<D>::ROWS, a.head_dim, shape.vector, [&](int r) {
        return p0 + r < pairs ? a.q + emo_at_query(w, shape, p0 + r) * a.q_stride +
                                    (int64_t)emo_at_head(shape, p0 + r) * a.head_dim
                              : (const float *)NULL;
    });
    emo_at_load<D>(d_o, tile<D>::ROWS, a.head_dim, shape.vector, [&](int r) {
        return p0 + r < pairs ? a.d_o + emo_at_query(w, shape, p0 + r) * a.o_stride +
                                    (int64_t)emo_at_head(shape, p0 + r) * a.head_dim
                              : (const float *)NULL;
    });
    int r = (int)threadIdx.x;
    if (r < tile<D>::ROWS) {
        int64_t at = p0 + r < pairs ? emo_at_query(w, shape, p0 + r) * a.heads + emo_at_head(shape, p0 + r) : -1;
        lse[r] = at >= 0 ? a.lse[at] : 0.0f;
        delta[r] = at >= 0 ? delta_in[at] : 0.0f;
    }
}

/* Keys and values from k0 on. */
template <int D>
__device__ static inline void load_keys(const emo_attention_args &a, const emo_at_shape &shape, const emo_at_work &w,
                                        int32_t k0, int32_t end, float *k, float *v) {
    int64_t at = (int64_t)blockIdx.y * a.head_dim;
    emo_at_load<D>(k, tile<D>::ROWS, a.head_dim, shape.vector, [&](int r) {
        return k0 + r < end ? a.k + (w.k_begin + k0 + r) * a.kv_stride + at : (const float *)NULL;
    });
    emo_at_load<D>(v, tile<D>::ROWS, a.head_dim, shape.vector, [&](int r) {
        return k0 + r < end ? a.v + (w.k_begin + k0 + r) * a.kv_stride + at : (const float *)NULL;
    });
}

template <int D>
__global__ static void __launch_bounds__(EMO_AT_BLOCK, 2)
    keys_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list, const float *delta_in) {
    constexpr int ROWS = tile<D>::ROWS, RT = tile<D>::RT, LINE = tile<D>::LINE;
    EMO_DYN_SHARED(float, q);
    float *d_o = q + ROWS * (D + 4), *k = d_o + ROWS * (D + 4), *v = k + ROWS * (D + 4), *p = v + ROWS * (D + 4);
    float *ds = p + ROWS * LINE, *lse = ds + ROWS * LINE, *delta = lse + ROWS;
    emo_at_work w = list[blockIdx.x];
    if (w.count == 0)
        return;
    int x = (int)(threadIdx.x & 15u), y = (int)(threadIdx.x >> 4);
    int32_t pairs = w.q_count * shape.group, hidden = w.k_count - w.q_count; /* keys before the first query's own */
    float dk[RT][D / 16], dv[RT][D / 16];
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            dk[i][j] = dv[i][j] = 0.0f;
    load_keys<D>(a, shape, w, w.first, w.k_count, k, v);
    int32_t from = w.first > hidden ? (w.first - hidden) * shape.group : 0;
    for (int32_t p0 = from; p0 < pairs; p0 += ROWS) {
        load_rows<D>(a, shape, w, p0, pairs, delta_in, q, d_o, lse, delta);
        __syncthreads();
        probabilities<D>(a, shape, w, p0, pairs, w.first, q, d_o, k, v, lse, delta, p, ds);
        __syncthreads();
        emo_at_add<D, RT>(p, 1, LINE, d_o, ROWS, dv);
        emo_at_add<D, RT>(ds, 1, LINE, q, ROWS, dk);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < RT; i++) {
        int r = y * RT + i;
        int64_t at = (w.k_begin + w.first + r) * a.kv_stride + (int64_t)blockIdx.y * a.head_dim;
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            int c = x + 16 * j;
            if (r < w.count && c < a.head_dim) {
                a.dk[at + c] = dk[i][j] * a.scale;
                a.dv[at + c] = dv[i][j];
            }
        }
    }
}

template <int D>
__global__ static void __launch_bounds__(EMO_AT_BLOCK, 2)
    queries_k(emo_attention_args a, emo_at_shape shape, const emo_at_work *list, const float *delta_in) {
    constexpr int ROWS = tile<D>::ROWS, RT = tile<D>::RT, LINE = tile<D>::LINE;
    EMO_DYN_SHARED(float, q);
    float *d_o = q + ROWS * (D + 4), *k = d_o + ROWS * (D + 4), *v = k + ROWS * (D + 4), *p = v + ROWS * (D + 4);
    float *ds = p + ROWS * LINE, *lse = ds + ROWS * LINE, *delta = lse + ROWS;
    emo_at_work w = list[blockIdx.x];
    if (w.count == 0)
        return;
    int x = (int)(threadIdx.x & 15u), y = (int)(threadIdx.x >> 4);
    int32_t pairs = w.first + w.count, end = emo_at_seen(w, shape, pairs - 1);
    float dq[RT][D / 16];
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int j = 0; j < D / 16; j++)
            dq[i][j] = 0.0f;
    load_rows<D>(a, shape, w, w.first, pairs, delta_in, q, d_o, lse, delta);
    for (int32_t k0 = 0; k0 < end; k0 += ROWS) {
        load_keys<D>(a, shape, w, k0, end, k, v);
        __syncthreads();
        probabilities<D>(a, shape, w, w.first, pairs, k0, q, d_o, k, v, lse, delta, NULL, ds);
        __syncthreads();
        emo_at_add<D, RT>(ds, LINE, 1, k, ROWS, dq);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < RT; i++) {
        int r = y * RT + i;
        if (r >= w.count)
            continue;
        int64_t at =
            emo_at_query(w, shape, w.first + r) * a.q_stride + (int64_t)emo_at_head(shape, w.first + r) * a.head_dim;
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            if (x + 16 * j < a.head_dim)
                a.dq[at + x + 16 * j] = dq[i][j] * a.scale;
        }
    }
}

static void fill_keys(const emo_attention_args *a, int64_t rows, emo_at_list *list) {
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        for (int64_t k = 0; k < s->k_count; k += rows) /* the first keys are seen by the most rows */
            emo_at_push(list, s, k, s->k_count - k < rows ? s->k_count - k : rows, -1, 0);
    }
}

static void fill_queries(const emo_attention_args *a, int64_t rows, emo_at_list *list) {
    int64_t group = a->heads / a->kv_heads;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        for (int64_t t = emo_ceil_div(s->q_count * group, rows) - 1; t >= 0; t--) {
            int64_t left = s->q_count * group - t * rows;
            emo_at_push(list, s, t * rows, left < rows ? left : rows, -1, 0);
        }
    }
}

emo_status emo_cuda_attention_backward(emo_exec *exec, const emo_attention_args *args, emo_error *err) {
    emo_at_shape shape;
    const emo_at_work *work;
    int64_t count, rows = 0;
    int wide = emo_ab_takes(exec, args);
    int64_t tile_rows = wide ? (int64_t)EMO_AB_BACK_ROWS : args->head_dim > 128 ? 16 : 32;
    void *delta;
    emo_queue stream = emo_cuda_stream(exec);
    cudaError_t launched = cudaSuccess;
    EMO_CUDA_TRY(emo_cuda_attention_check(args, &shape, err));
    for (int64_t i = 0; i < args->n_segments; i++) {
        int64_t end = args->segments[i].q_begin + args->segments[i].q_count;
        rows = end > rows ? end : rows;
    }
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(rows * args->heads) * sizeof(float), &delta, err));
    if (rows > 0)
        EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH(delta_k, (unsigned)emo_ceil_div(rows * args->heads, 8), 256, 0,
                                                  stream, emo_at_given(args), rows, (float *)delta),
                                       "attention: delta", err));
    EMO_CUDA_TRY(emo_cuda_attention_list(exec, args, fill_keys, tile_rows, &work, &count, err));
    if (count > 0 && wide) {
        EMO_CUDA_TRY(emo_cuda_attention_bf16_keys(exec, args, &shape, work, count, (const float *)delta, err));
    } else if (count > 0) {
        EMO_AT_DIM(args->head_dim, launched = EMO_LAUNCH_WIDE(
                                       (keys_k<D>), dim3((unsigned)count, (unsigned)args->kv_heads), EMO_AT_BLOCK,
                                       tile<D>::SHARED, stream, emo_at_given(args), shape, work, (const float *)delta));
        EMO_CUDA_TRY(emo_cuda_launched(launched, "attention: gradient of keys and values", err));
    }
    EMO_CUDA_TRY(emo_cuda_attention_list(exec, args, fill_queries, tile_rows, &work, &count, err));
    if (count == 0)
        return EMO_OK;
    if (wide)
        return emo_cuda_attention_bf16_queries(exec, args, &shape, work, count, (const float *)delta, err);
    EMO_AT_DIM(args->head_dim, launched = EMO_LAUNCH_WIDE(
                                   (queries_k<D>), dim3((unsigned)count, (unsigned)args->kv_heads), EMO_AT_BLOCK,
                                   tile<D>::SHARED, stream, emo_at_given(args), shape, work, (const float *)delta));
    return emo_cuda_launched(launched, "attention: gradient of queries", err);
}
