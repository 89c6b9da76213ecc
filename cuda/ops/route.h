/* SPDX-License-Identifier: Apache-2.0 */
/* What the router's kernels share. A warp takes a row; lane l holds the experts l, l + 32, ... in PER registers. */
#ifndef EMO_CUDA_OPS_ROUTE_H
#define EMO_CUDA_OPS_ROUTE_H

#include <math.h>

#include "ops.h"
#include "ops/philox.h"
#include "ops/tiles.h"

enum {
    EMO_ROUTE_PIECE = 64, /* tokens of a piece: documents are summed piece by piece, from their own begin */
    EMO_ROUTE_WARPS = 8,
    EMO_ROUTE_BLOCK = 32 * EMO_ROUTE_WARPS,
    EMO_ROUTE_MOST = 1024 /* experts */
};
/* What changes from step to step among the router's arguments, where it is read from device memory. */
typedef struct emo_route_now {
    int64_t n_segments;
    int64_t first_token;
    uint64_t step;
    float z_scale;
    float pool_mass;
    int32_t pool_min, pool_max, forced;
    int32_t reserved;
} emo_route_now;

/* now NULL: the arguments are as they are. */
__device__ static inline void emo_route_take(emo_route_args &a, const emo_route_now *now) {
    if (now == NULL)
        return;
    a.n_segments = now->n_segments;
    a.first_token = now->first_token;
    a.step = now->step;
    a.z_scale = now->z_scale;
    a.pool_mass = now->pool_mass;
    a.pool_min = now->pool_min;
    a.pool_max = now->pool_max;
    a.forced = now->forced;
}

#define EMO_ROUTE_FLOOR 1e-7f /* added to a sigmoid score */

/* Runs `statement` with PER, the registers a lane needs for n experts, as a constant. */
#define EMO_ROUTE_PER(n, statement)                                                                                    \
    do {                                                                                                               \
        if ((n) <= 32) {                                                                                               \
            constexpr int PER = 1;                                                                                     \
            statement;                                                                                                 \
        } else if ((n) <= 64) {                                                                                        \
            constexpr int PER = 2;                                                                                     \
            statement;                                                                                                 \
        } else if ((n) <= 128) {                                                                                       \
            constexpr int PER = 4;                                                                                     \
            statement;                                                                                                 \
        } else if ((n) <= 256) {                                                                                       \
            constexpr int PER = 8;                                                                                     \
            statement;                                                                                                 \
        } else if ((n) <= 512) {                                                                                       \
            constexpr int PER = 16;                                                                                    \
            statement;                                                                                                 \
        } else {                                                                                                       \
            constexpr int PER = 32;                                                                                    \
            statement;                                                                                                 \
        }                                                                                                              \
    } while (0)

__host__ __device__ static inline int32_t emo_route_chosen(const emo_route_args &a) {
    return a.k + (a.n_always > 0 ? a.n_always : a.shared);
}

/* Bit i: expert lane + 32 i is in the row of `allowed` (NULL: all). */
template <int PER>
__device__ static inline uint32_t emo_route_bits(const uint8_t *allowed, int32_t n, int lane) {
    uint32_t bits = 0;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int32_t e = lane + 32 * i;
        if (e < n && (allowed == NULL || allowed[e] != 0))
            bits |= 1u << i;
    }
    return bits;
}

/* z = softmax of the row over the experts in `bits`, 0 elsewhere; returns the logsumexp. Some lane has a bit. */
template <int PER>
__device__ static inline float emo_route_softmax(const float *logits, uint32_t bits, int lane, float (&z)[PER]) {
    float top = -INFINITY, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER; i++) {
        z[i] = (bits >> i & 1u) != 0u ? logits[lane + 32 * i] : -INFINITY;
        top = fmaxf(top, z[i]);
    }
    top = emo_warp_max(top);
#pragma unroll
    for (int i = 0; i < PER; i++) {
        z[i] = (bits >> i & 1u) != 0u ? expf(z[i] - top) : 0.0f;
        sum += z[i];
    }
    sum = emo_warp_sum(sum);
    float scale = 1.0f / sum;
#pragma unroll
    for (int i = 0; i < PER; i++)
        z[i] *= scale;
    return top + logf(sum);
}

/* x of the rows [first, last) times their noise in scratch; x itself without jitter. */
emo_status emo_cuda_route_jitter(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, int64_t first,
                                 int64_t last, const float **x, emo_error *err);
/* dx += dxj * noise, on all rows. */
emo_status emo_cuda_route_unjitter(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, const float *dxj,
                                   emo_error *err);

emo_status emo_cuda_route_select(emo_exec *exec, const emo_route_args *a, const emo_route_now *now,
                                 const emo_cuda_tiles *pieces, emo_error *err);
/* The arguments to launch with: where work is held back, what changes goes into *now, and the documents are as many as
 * a grid has to cover. */
emo_status emo_cuda_route_now(emo_exec *exec, const emo_route_args *args, emo_route_args *out,
                              const emo_route_now **now, emo_error *err);

#endif
