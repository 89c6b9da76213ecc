/* SPDX-License-Identifier: Apache-2.0 */
/* The dispatch plan: a stable counting sort of assignments by expert, without atomics.
 *
 * A piece is 1024 assignments, a run of 128 for each of eight warps. A warp takes its run 32 at a time; lanes with the
 * same expert find each other by __match_any_sync, so that a warp's counters in shared memory have one writer and a
 * lane's place among its equals is the number of equal lanes below it. (1) counters of every piece; (2) one block turns
 * them into the first place of each expert in each piece; (3) every piece walks its runs again and places them. Up to
 * 1024 assignments, as in decoding, one block does it all. */
#include "ops.h"
#include "ops/tiles.h"

enum { WARPS = 8, RUN = 128, PIECE = WARPS * RUN, MOST_EXPERTS = 1024 };

/* The expert of assignment i, -1 for entries that are left out or beyond the piece. */
__device__ static inline int32_t expert_at(const emo_plan_args &a, int64_t i, int64_t end) {
    int32_t e = i < end ? a.indices[i] : -1;
    return e >= 0 && e < a.experts ? e : -1;
}

/* hist[warp][e] = assignments of the warp's run to e. hist is zero before; a barrier comes after. */
__device__ static inline void count_run(const emo_plan_args &a, int64_t begin, int64_t end, int32_t *hist) {
    int lane = (int)(threadIdx.x & 31u);
    int32_t *mine = hist + (threadIdx.x >> 5) * a.experts;
    for (int64_t i = begin + (threadIdx.x >> 5) * RUN; i < begin + ((threadIdx.x >> 5) + 1) * RUN; i += 32) {
        int32_t e = expert_at(a, i + lane, end);
        unsigned same = __match_any_sync(EMO_FULL_WARP, (unsigned)e);
        if (e >= 0 && lane == __ffs((int)same) - 1)
            mine[e] += __popc(same);
        __syncwarp();
    }
}

/* hist[warp][e] = place of the warp's first assignment to e; it moves on as places are given. */
__device__ static inline void place_run(const emo_plan_args &a, int64_t begin, int64_t end, int32_t *hist) {
    int lane = (int)(threadIdx.x & 31u);
    int32_t *mine = hist + (threadIdx.x >> 5) * a.experts;
    for (int64_t i = begin + (threadIdx.x >> 5) * RUN; i < begin + ((threadIdx.x >> 5) + 1) * RUN; i += 32) {
        int32_t e = expert_at(a, i + lane, end);
        unsigned same = __match_any_sync(EMO_FULL_WARP, (unsigned)e);
        int32_t at = e >= 0 ? mine[e] + __popc(same & ((1u << lane) - 1u)) : -1;
        __syncwarp();
        if (e >= 0 && lane == __ffs((int)same) - 1)
            mine[e] += __popc(same);
        __syncwarp();
        if (i + lane < end) {
            a.inverse[i + lane] = at;
            if (at >= 0)
                a.order[at] = (int32_t)(i + lane);
        }
    }
}

__device__ static inline void zero_counters(int32_t *hist, int32_t count) {
    for (int32_t i = (int32_t)threadIdx.x; i < count; i += WARPS * 32)
        hist[i] = 0;
    __syncthreads();
}

/* counts of the warps -> first places, from the first place of the piece; returns the sum of the counts */
__device__ static inline int32_t spread(int32_t *hist, int32_t experts, int32_t e, int32_t first) {
    int32_t at = first;
    for (int w = 0; w < WARPS; w++) {
        int32_t count = hist[w * experts + e];
        hist[w * experts + e] = at;
        at += count;
    }
    return at - first;
}

__global__ static void __launch_bounds__(WARPS * 32) plan_count_k(emo_plan_args a, int64_t all, int32_t *counts) {
    EMO_DYN_SHARED(int32_t, hist);
    int64_t begin = (int64_t)blockIdx.x * PIECE, end = begin + PIECE < all ? begin + PIECE : all;
    zero_counters(hist, WARPS * a.experts);
    count_run(a, begin, end, hist);
    __syncthreads();
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += WARPS * 32) {
        int32_t sum = 0;
        for (int w = 0; w < WARPS; w++)
            sum += hist[w * a.experts + e];
        counts[(int64_t)blockIdx.x * a.experts + e] = sum;
    }
}

/* One block, a thread per expert: counts[piece][e] becomes the first place of e in the piece. */
__global__ static void __launch_bounds__(MOST_EXPERTS)
    plan_offsets_k(emo_plan_args a, int32_t pieces, int32_t *counts) {
    EMO_SHARED(int32_t, room, 33);
    int32_t e = (int32_t)threadIdx.x, sum = 0, all;
    if (e < a.experts) {
#pragma unroll 8
        for (int32_t p = 0; p < pieces; p++)
            sum += counts[(int64_t)p * a.experts + e];
    }
    int32_t at = emo_block_scan(sum, room, &all);
    if (e >= a.experts)
        return;
    a.offsets[e] = at;
    if (e == a.experts - 1)
        a.offsets[a.experts] = all;
#pragma unroll 8
    for (int32_t p = 0; p < pieces; p++) {
        int32_t count = counts[(int64_t)p * a.experts + e];
        counts[(int64_t)p * a.experts + e] = at;
        at += count;
    }
}

__global__ static void __launch_bounds__(WARPS * 32) plan_place_k(emo_plan_args a, int64_t all, const int32_t *first) {
    EMO_DYN_SHARED(int32_t, hist);
    int64_t begin = (int64_t)blockIdx.x * PIECE, end = begin + PIECE < all ? begin + PIECE : all;
    zero_counters(hist, WARPS * a.experts);
    count_run(a, begin, end, hist);
    __syncthreads();
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += WARPS * 32)
        (void)spread(hist, a.experts, e, first[(int64_t)blockIdx.x * a.experts + e]);
    __syncthreads();
    place_run(a, begin, end, hist);
}

__global__ static void __launch_bounds__(WARPS * 32) plan_small_k(emo_plan_args a, int64_t all) {
    EMO_DYN_SHARED(int32_t, hist);
    EMO_SHARED(int32_t, room, 33);
    zero_counters(hist, WARPS * a.experts);
    count_run(a, 0, all, hist);
    __syncthreads();
    int32_t done = 0;
    for (int32_t e0 = 0; e0 < a.experts; e0 += WARPS * 32) {
        int32_t e = e0 + (int32_t)threadIdx.x, sum = 0, total;
        for (int w = 0; w < WARPS && e < a.experts; w++)
            sum += hist[w * a.experts + e];
        int32_t at = done + emo_block_scan(sum, room, &total);
        if (e < a.experts) {
            a.offsets[e] = at;
            (void)spread(hist, a.experts, e, at);
        }
        done += total;
    }
    if (threadIdx.x == 0)
        a.offsets[a.experts] = done;
    __syncthreads();
    place_run(a, 0, all, hist);
}

emo_status emo_cuda_plan(emo_exec *exec, const emo_plan_args *args, emo_error *err) {
    int64_t all = args->tokens * args->k_total, pieces = emo_ceil_div(all, PIECE);
    size_t shared = WARPS * (size_t)args->experts * sizeof(int32_t);
    emo_queue stream = emo_cuda_stream(exec);
    if (args->experts < 1 || args->experts > MOST_EXPERTS || all > INT32_MAX)
        return emo_cuda_unsupported(err, "plan this: it sorts up to 2^31 - 1 assignments to 1 to 1024 experts");
    if (pieces <= 1)
        return emo_cuda_launched(EMO_LAUNCH(plan_small_k, 1, WARPS * 32, shared, stream, *args, all), "plan", err);
    void *counts;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(pieces * args->experts) * sizeof(int32_t), &counts, err));
    EMO_CUDA_TRY(emo_cuda_launched(
        EMO_LAUNCH(plan_count_k, (unsigned)pieces, WARPS * 32, shared, stream, *args, all, (int32_t *)counts),
        "plan: count", err));
    EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH(plan_offsets_k, 1, (unsigned)(emo_ceil_div(args->experts, 32) * 32), 0,
                                              stream, *args, (int32_t)pieces, (int32_t *)counts),
                                   "plan: offsets", err));
    return emo_cuda_launched(
        EMO_LAUNCH(plan_place_k, (unsigned)pieces, WARPS * 32, shared, stream, *args, all, (const int32_t *)counts),
        "plan: place", err);
}
