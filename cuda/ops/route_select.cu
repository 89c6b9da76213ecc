/* SPDX-License-Identifier: Apache-2.0 */
/* The router, forward: scores over the allowed set, top-k, and the sums that losses and statistics need. */
#include "ops/route.h"

/* What a piece of tokens adds to the sums; each piece has its row, so that nothing is added in an order of chance. */
typedef struct sums {
    float *scores;   /* [pieces, n] or NULL */
    int32_t *counts; /* [pieces, n] or NULL */
    double *z;       /* [pieces] or NULL */
} sums;

/* Shared or always-active experts of a row, by the lanes. z by expert id comes from the lane that holds it. */
template <int PER>
__device__ static inline void shared_part(const emo_route_args &a, const float *logits, uint32_t bits, int lane,
                                          const float (&z)[PER], int32_t *indices, float *weights) {
    if (a.n_always > 0) {
        for (int32_t j = 0; j < a.n_always; j++) {
            int32_t e = a.always[j], id = -1;
            float w = 0.0f;
#pragma unroll
            for (int i = 0; i < PER; i++) {
                if (lane + 32 * i == e && (bits >> i & 1u) != 0u) {
                    id = e;
                    w = z[i];
                }
            }
            if (lane == (e & 31)) {
                indices[j] = id;
                weights[j] = w;
            }
        }
        return;
    }
    int own = a.shared_mode == EMO_SHARED_SOFTMAX && a.shared > 1;
    float top = -INFINITY, sum = 0.0f;
    for (int32_t h = 0; h < a.shared && own; h++)
        top = fmaxf(top, logits[a.experts + h]);
    for (int32_t h = 0; h < a.shared && own; h++)
        sum += expf(logits[a.experts + h] - top);
    for (int32_t h = lane; h < a.shared; h += 32) {
        indices[h] = a.experts + h;
        weights[h] = own ? expf(logits[a.experts + h] - top) / sum : 1.0f;
    }
}

/* A block per piece, a warp per token. */
template <int PER>
__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK, 1)
    select_k(emo_route_args a, const emo_cuda_tile *pieces, sums out) {
    EMO_DYN_SHARED(float, part_scores); /* [warps, n], then as many counts */
    EMO_SHARED(double, part_z, EMO_ROUTE_WARPS);
    emo_cuda_tile piece = pieces[blockIdx.x];
    if (piece.group < 0)
        return;
    int32_t n = a.experts, k_total = emo_route_chosen(a);
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    float *my_scores = part_scores + warp * n;
    int32_t *part_counts = (int32_t *)(part_scores + EMO_ROUTE_WARPS * n), *my_counts = part_counts + warp * n;
    uint32_t bits = emo_route_bits<PER>(a.allowed + (int64_t)piece.group * n, n, lane), fixed = 0;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int32_t e = lane + 32 * i;
        if (e < n) {
            my_scores[e] = 0.0f;
            my_counts[e] = 0;
        }
        for (int32_t j = 0; j < a.n_always; j++)
            fixed |= a.always[j] == e ? 1u << i : 0u;
    }
    int any = __any_sync(EMO_FULL_WARP, bits != 0u);
    double z_sum = 0.0;
    int64_t begin = piece.first, end = piece.first + piece.rows;
    for (int64_t token = begin + warp; token < end; token += EMO_ROUTE_WARPS) {
        if (token < a.first || token >= a.last)
            continue;
        const float *logits = a.logits + token * a.columns;
        int32_t *indices = a.indices + token * k_total;
        float *weights = a.weights + token * k_total;
        float z[PER], lse = 0.0f, total = 1.0f;
        uint32_t key[PER];
        if (any) {
            lse = emo_route_softmax<PER>(logits, bits, lane, z);
            if (a.gating == EMO_GATING_SIGMOID) {
                total = 0.0f;
#pragma unroll
                for (int i = 0; i < PER; i++) {
                    if ((bits >> i & 1u) != 0u)
                        z[i] = emo_sigmoid(logits[lane + 32 * i]) + EMO_ROUTE_FLOOR;
                    total += z[i];
                }
                total = emo_warp_sum(total);
            }
        } else {
#pragma unroll
            for (int i = 0; i < PER; i++)
                z[i] = 0.0f;
        }
#pragma unroll
        for (int i = 0; i < PER; i++) {
            key[i] = 0u;
            if ((bits >> i & 1u) != 0u && (fixed >> i & 1u) == 0u)
                key[i] = emo_order_key(a.score_bias != NULL ? z[i] + a.score_bias[lane + 32 * i] : z[i]);
        }
        double norm = 0.0;
        for (int32_t j = 0; j < a.k; j++) {
            uint32_t best = 0u;
            int32_t who = INT32_MAX;
#pragma unroll
            for (int i = 0; i < PER; i++) { /* ascending ids: the first of equals stays */
                if (key[i] > best) {
                    best = key[i];
                    who = lane + 32 * i;
                }
            }
            uint32_t top = __reduce_max_sync(EMO_FULL_WARP, best);
            int32_t e = __reduce_min_sync(EMO_FULL_WARP, best == top && top != 0u ? who : INT32_MAX);
            float w = 0.0f;
            if (e != INT32_MAX) {
#pragma unroll
                for (int i = 0; i < PER; i++) {
                    if (lane + 32 * i == e) {
                        key[i] = 0u;
                        w = z[i];
                    }
                }
                w = __shfl_sync(EMO_FULL_WARP, w, e & 31);
                if (lane == (e & 31))
                    my_counts[e]++;
                if (a.norm_p > 0.0f)
                    norm += (double)(a.norm_p == 1.0f ? w : powf(w, a.norm_p));
            }
            if (lane == (j & 31)) {
                indices[j] = e != INT32_MAX ? e : -1;
                weights[j] = w;
            }
        }
        if (a.norm_p > 0.0f) {
            float by = a.norm_p == 1.0f ? (float)norm : powf((float)norm, 1.0f / a.norm_p);
            for (int32_t j = lane; j < a.k && by > 0.0f; j += 32)
                weights[j] /= by;
        }
        shared_part<PER>(a, logits, bits, lane, z, indices + a.k, weights + a.k);
        float scale = 1.0f / total;
#pragma unroll
        for (int i = 0; i < PER; i++) {
            int32_t e = lane + 32 * i;
            if (e < n) {
                my_scores[e] += z[i] * scale;
                if ((fixed >> i & 1u) != 0u && (bits >> i & 1u) != 0u)
                    my_counts[e]++;
                if (a.scores != NULL)
                    a.scores[token * n + e] = z[i];
            }
        }
        if (a.lse != NULL && lane == 0)
            a.lse[token] = lse;
        z_sum += (double)lse * (double)lse;
    }
    if (lane == 0)
        part_z[warp] = z_sum;
    __syncthreads();
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EMO_ROUTE_BLOCK) {
        float score = 0.0f;
        int32_t count = 0;
        for (int w = 0; w < EMO_ROUTE_WARPS; w++) {
            score += part_scores[w * n + e];
            count += part_counts[w * n + e];
        }
        if (out.scores != NULL)
            out.scores[(int64_t)blockIdx.x * n + e] = score;
        if (out.counts != NULL)
            out.counts[(int64_t)blockIdx.x * n + e] = count;
    }
    if (out.z != NULL && threadIdx.x == 0) {
        double z = 0.0;
        for (int w = 0; w < EMO_ROUTE_WARPS; w++)
            z += part_z[w];
        out.z[blockIdx.x] = z;
    }
}

/* to[e] and extra[e] += the sum of the rows [begin, end) of `from`: eight parts of rows, then the parts in order. The
 * block is 32 columns x 8 parts. */
template <class T>
__device__ static inline T column_sum(const T *from, int32_t begin, int32_t end, int32_t n, T *room) {
    int32_t e = (int32_t)(blockIdx.x * 32u + (threadIdx.x & 31u)), part = (int32_t)(threadIdx.x >> 5);
    T sum = 0;
    if (e < n && from != NULL) {
#pragma unroll 4
        for (int32_t p = begin + part; p < end; p += EMO_ROUTE_WARPS)
            sum += from[(int64_t)p * n + e];
    }
    room[threadIdx.x] = sum;
    __syncthreads();
    T all = 0;
    for (int q = 0; q < EMO_ROUTE_WARPS; q++)
        all += room[q * 32 + (threadIdx.x & 31u)];
    __syncthreads();
    return all;
}

/* Segment blockIdx.y: what its pieces say, into the segment's statistics and into `by_segment`. */
__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK)
    segments_k(emo_route_args a, const emo_route_now *now, const int32_t *piece_of, sums in, sums by_segment) {
    emo_route_take(a, now);
    if ((int64_t)blockIdx.y >= a.n_segments)
        return;
    EMO_SHARED(float, floats, EMO_ROUTE_BLOCK);
    EMO_SHARED(int32_t, ints, EMO_ROUTE_BLOCK);
    int32_t s = (int32_t)blockIdx.y, n = a.experts, begin = piece_of[s], end = piece_of[s + 1];
    float score = column_sum(in.scores, begin, end, n, floats);
    int32_t count = column_sum(in.counts, begin, end, n, ints), e = (int32_t)(blockIdx.x * 32u + threadIdx.x);
    if (threadIdx.x < 32 && e < n) {
        int64_t at = (int64_t)s * n + e;
        by_segment.scores[at] = score;
        by_segment.counts[at] = count;
        if (a.segment_score_sum != NULL)
            a.segment_score_sum[at] += score;
        if (a.segment_counts != NULL)
            a.segment_counts[at] += count;
    }
}

__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK)
    totals_k(emo_route_args a, const emo_route_now *now, sums by_segment) {
    emo_route_take(a, now);
    EMO_SHARED(float, floats, EMO_ROUTE_BLOCK);
    EMO_SHARED(int32_t, ints, EMO_ROUTE_BLOCK);
    int32_t n = a.experts, segments = (int32_t)a.n_segments, e = (int32_t)(blockIdx.x * 32u + threadIdx.x);
    float score = column_sum(by_segment.scores, 0, segments, n, floats);
    int32_t count = column_sum(by_segment.counts, 0, segments, n, ints);
    if (threadIdx.x < 32 && e < n) {
        if (a.score_sum != NULL)
            a.score_sum[e] += score;
        if (a.counts != NULL)
            a.counts[e] += count;
    }
    /* shared experts take every token of the slice */
    for (int32_t h = (int32_t)threadIdx.x; blockIdx.x == 0 && a.counts != NULL && a.n_always == 0 && h < a.shared;
         h += EMO_ROUTE_BLOCK)
        a.counts[n + h] += (int32_t)(a.last - a.first);
}

/* z_sum += the pieces' sums; z is 0 behind the last piece */
__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK)
    z_total_k(emo_route_args a, const emo_cuda_tile *pieces, int32_t bound, const double *z) {
    EMO_SHARED(double, room, 32);
    double sum = 0.0;
    for (int32_t p = (int32_t)threadIdx.x; p < bound; p += EMO_ROUTE_BLOCK)
        sum += pieces[p].group >= 0 ? z[p] : 0.0;
    sum = emo_block_sum(sum, room);
    if (threadIdx.x == 0)
        a.z_sum[0] += sum;
}

emo_status emo_cuda_route_select(emo_exec *exec, const emo_route_args *a, const emo_route_now *now,
                                 const emo_cuda_tiles *pieces, emo_error *err) {
    emo_queue stream = emo_cuda_stream(exec);
    size_t row = (size_t)a->experts * sizeof(float), shared = 2 * EMO_ROUTE_WARPS * row;
    int wanted = a->counts != NULL || a->segment_counts != NULL || a->score_sum != NULL || a->segment_score_sum != NULL;
    sums in = {NULL, NULL, NULL}, by_segment = {NULL, NULL, NULL};
    void *room;
    if (a->last <= a->first)
        return EMO_OK;
    if (wanted) {
        size_t counts = (size_t)pieces->bound * row, rows = (size_t)a->n_segments * row;
        EMO_CUDA_TRY(emo_cuda_scratch(exec, 2 * counts + 2 * rows, &room, err));
        in.scores = (float *)room;
        in.counts = (int32_t *)((char *)room + counts);
        by_segment.scores = (float *)((char *)room + 2 * counts);
        by_segment.counts = (int32_t *)((char *)room + 2 * counts + rows);
    }
    if (a->z_sum != NULL) {
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)pieces->bound * sizeof(double), &room, err));
        in.z = (double *)room;
    }
    cudaError_t launched = cudaSuccess;
    EMO_ROUTE_PER(a->experts, launched = EMO_LAUNCH_WIDE((select_k<PER>), (unsigned)pieces->bound, EMO_ROUTE_BLOCK,
                                                         shared, stream, *a, (const emo_cuda_tile *)pieces->list, in));
    EMO_CUDA_TRY(emo_cuda_launched(launched, "route: select", err));
    if (wanted) {
        unsigned columns = (unsigned)emo_ceil_div(a->experts, 32);
        EMO_CUDA_TRY(
            emo_cuda_launched(EMO_LAUNCH(segments_k, dim3(columns, (unsigned)a->n_segments), EMO_ROUTE_BLOCK, 0, stream,
                                         *a, now, (const int32_t *)pieces->of_group, in, by_segment),
                              "route: sums of documents", err));
        EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH(totals_k, columns, EMO_ROUTE_BLOCK, 0, stream, *a, now, by_segment),
                                       "route: sums", err));
    }
    if (a->z_sum != NULL)
        EMO_CUDA_TRY(
            emo_cuda_launched(EMO_LAUNCH(z_total_k, 1, EMO_ROUTE_BLOCK, 0, stream, *a,
                                         (const emo_cuda_tile *)pieces->list, pieces->bound, (const double *)in.z),
                              "route: z-loss", err));
    return EMO_OK;
}
