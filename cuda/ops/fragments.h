/* SPDX-License-Identifier: Apache-2.0 */
/* Operands of mma.sync m16n8k16 in shared memory. An operand is lines of 16-byte chunks: lines are rows and run along
 * the sum (ldmatrix reads them as they lie), or lines are steps of the sum and run along rows or columns (ldmatrix
 * transposes). Chunks are swizzled so that eight lines of one chunk column lie in eight different bank groups. */
#ifndef EMO_CUDA_OPS_FRAGMENTS_H
#define EMO_CUDA_OPS_FRAGMENTS_H

#include "emo_gpu.h"

/* Element offset of chunk c of line r, CH chunks to a line. */
template <int CH>
__device__ static inline int emo_swizzle(int r, int c) {
    int turn = CH == 4 ? (r >> 1) & 3 : r & 7;
    return (r * CH + (c ^ turn)) * 8;
}

/* Fragments of a warp's MI x 16 rows and NJ x 8 columns for the 16 steps from 16 h16 on. */
template <bool LINES_ARE_STEPS, int CH, int MI>
__device__ static inline void emo_left_fragments(const __nv_bfloat16 *s, int row, int h16, int lane,
                                                 uint32_t (&a)[MI][4]) {
#pragma unroll
    for (int i = 0; i < MI; i++) {
        if (LINES_ARE_STEPS) {
            int r = h16 * 16 + (lane & 7) + ((lane >> 4) << 3), c = (row + i * 16) / 8 + ((lane >> 3) & 1);
            emo_ldmatrix_x4_trans(a[i], s + emo_swizzle<CH>(r, c));
        } else {
            emo_ldmatrix_x4(a[i], s + emo_swizzle<CH>(row + i * 16 + (lane & 15), h16 * 2 + (lane >> 4)));
        }
    }
}

template <bool LINES_ARE_STEPS, int CH, int NJ>
__device__ static inline void emo_right_fragments(const __nv_bfloat16 *s, int col, int h16, int lane,
                                                  uint32_t (&b)[NJ][2]) {
#pragma unroll
    for (int j = 0; j < NJ; j += 2) {
        uint32_t t[4];
        if (LINES_ARE_STEPS) {
            int r = h16 * 16 + (lane & 15), c = (col + j * 8) / 8 + (lane >> 4);
            emo_ldmatrix_x4_trans(t, s + emo_swizzle<CH>(r, c));
        } else {
            int r = col + j * 8 + (lane & 7) + ((lane >> 4) << 3), c = h16 * 2 + ((lane >> 3) & 1);
            emo_ldmatrix_x4(t, s + emo_swizzle<CH>(r, c));
        }
        b[j][0] = t[0];
        b[j][1] = t[1];
        b[j + 1][0] = t[2];
        b[j + 1][1] = t[3];
    }
}

#endif
