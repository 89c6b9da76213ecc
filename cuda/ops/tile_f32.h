/* SPDX-License-Identifier: Apache-2.0 */
/* One block's 64 x 64 sums in IEEE f32, 4 x 4 a thread, in steps of 16. Every sum runs along the steps in ascending
 * order with one accumulator, so an element does not depend on the tile it lies in. */
#ifndef EMO_CUDA_OPS_TILE_F32_H
#define EMO_CUDA_OPS_TILE_F32_H

#include "emo_gpu.h"

enum { EMO_TILE = 64, EMO_TILE_STEP = 16, EMO_TILE_BLOCK = 256, EMO_TILE_LINE = EMO_TILE + 4 };
enum { EMO_TILE_ROOM = EMO_TILE_STEP * EMO_TILE_LINE }; /* floats of shared memory for each operand */

/* acc[i][j] = sum over k < depth of left_at(4 ty + i, k) right_at(4 tx + j, k), where tx, ty = thread % 16, / 16. Both
 * give 0 outside of their operand, past `depth` too. A_STEPS: neighbours of the left operand in memory lie along its
 * lines, not along k; B_STEPS: the same of the right one. */
template <bool A_STEPS, bool B_STEPS, class L, class R>
__device__ static inline void emo_tile_f32(int64_t depth, L left_at, R right_at, float *left, float *right,
                                           float (&acc)[4][4]) {
    int tid = (int)threadIdx.x, tx = tid & 15, ty = tid >> 4;
    float a[4], b[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            acc[i][j] = 0.0f;
    /* Neighbouring threads read neighbouring elements of memory: along the steps or along the lines. */
    auto load = [&](int64_t k0) {
#pragma unroll
        for (int q = 0; q < 4; q++) {
            int i = tid + q * EMO_TILE_BLOCK;
            a[q] =
                A_STEPS ? left_at(i % EMO_TILE, k0 + i / EMO_TILE) : left_at(i / EMO_TILE_STEP, k0 + i % EMO_TILE_STEP);
            b[q] = B_STEPS ? right_at(i % EMO_TILE, k0 + i / EMO_TILE)
                           : right_at(i / EMO_TILE_STEP, k0 + i % EMO_TILE_STEP);
        }
    };
    load(0);
    for (int64_t k0 = 0; k0 < depth; k0 += EMO_TILE_STEP) {
        __syncthreads();
#pragma unroll
        for (int q = 0; q < 4; q++) {
            int i = tid + q * EMO_TILE_BLOCK;
            left[A_STEPS ? i / EMO_TILE * EMO_TILE_LINE + i % EMO_TILE
                         : i % EMO_TILE_STEP * EMO_TILE_LINE + i / EMO_TILE_STEP] = a[q];
            right[B_STEPS ? i / EMO_TILE * EMO_TILE_LINE + i % EMO_TILE
                          : i % EMO_TILE_STEP * EMO_TILE_LINE + i / EMO_TILE_STEP] = b[q];
        }
        __syncthreads();
        if (k0 + EMO_TILE_STEP < depth)
            load(k0 + EMO_TILE_STEP);
#pragma unroll
        for (int k = 0; k < EMO_TILE_STEP; k++) {
            float4 u = *(const float4 *)(left + k * EMO_TILE_LINE + ty * 4);
            float4 v = *(const float4 *)(right + k * EMO_TILE_LINE + tx * 4);
            float l[4] = {u.x, u.y, u.z, u.w}, r[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    acc[i][j] = fmaf(l[i], r[j], acc[i][j]);
        }
    }
}

#endif
