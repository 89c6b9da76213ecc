/* SPDX-License-Identifier: Apache-2.0 */
/* Operands of mma.sync m16n8k16 in shared memory. An operand is lines of 16-byte chunks: lines are rows and run along
 * the sum (ldmatrix reads them as they lie), or lines are steps of the sum and run along rows or columns (ldmatrix
 * transposes). Chunks are swizzled so that eight lines of one chunk column lie in eight different bank groups. */
#ifndef EMO_CUDA_OPS_FRAGMENTS_H
#define EMO_CUDA_OPS_FRAGMENTS_H

#include "kernel.h"

/* ---- what becomes a chunk ---- */

/* How many of the eight elements from `col` are below `limit`. */
__device__ static inline int emo_valid8(int64_t col, int64_t limit) {
    int64_t left = limit - col;
    return left <= 0 ? 0 : left < 8 ? (int)left : 8;
}

/* Eight elements of a line from `col`, those past `valid` 0. Lines of quantised weights run along the sum. */
template <bool QUANTISED>
__device__ static inline void emo_fetch8(const char *line, int32_t dtype, int64_t col, int valid, float (&v)[8]) {
    if (QUANTISED && valid == 8 && emo_is_quantised(dtype)) {
        emo_dequantise<8>(line, dtype, col, v);
        return;
    }
    const char *p = line + col * 4;
    if (valid == 8 && dtype == EMO_DTYPE_F32 && ((uintptr_t)p & 15u) == 0) {
        float4 a = ((const float4 *)p)[0], b = ((const float4 *)p)[1];
        v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
        v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        return;
    }
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i >= valid  ? 0.0f
               : QUANTISED ? emo_element(line, dtype, col + i)
                           : emo_plain_element(line, dtype, col + i);
}

__device__ static inline uint4 emo_narrow8(const float (&v)[8]) {
    uint4 out;
    out.x = emo_pack_bf16(v[0], v[1]);
    out.y = emo_pack_bf16(v[2], v[3]);
    out.z = emo_pack_bf16(v[4], v[5]);
    out.w = emo_pack_bf16(v[6], v[7]);
    return out;
}

/* ---- where chunks lie ---- */

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
