/* SPDX-License-Identifier: Apache-2.0 */
/* Attention on tensor cores: q, k, v and d_o are rounded to bf16 on their way into shared memory, probabilities and
 * their gradients in registers; sums, softmax, lse and delta stay f32. Rows are pairs as in attention.h; a warp has 16
 * rows (or 16 keys) of a tile, so that what a row becomes depends on no other row. */
#ifndef EMO_CUDA_OPS_ATTENTION_BF16_H
#define EMO_CUDA_OPS_ATTENTION_BF16_H

#include "ops/attention.h"
#include "ops/fragments.h"

/* `rows` lines of D elements as bf16: line(r) gives row r or NULL for zeros; what a line lacks
 * is zeros, too. */
template <int D, int THREADS, class Line>
__device__ static inline void emo_ab_load(__nv_bfloat16 *to, int rows, int32_t head_dim, int32_t vector, Line line) {
    constexpr int CH = D / 8;
    for (int i = (int)threadIdx.x; i < rows * CH; i += THREADS) {
        int r = i / CH, c = i % CH;
        const float *from = line(r);
        float v[8];
        if (from != NULL && vector && c * 8 + 8 <= head_dim) {
            float4 a = ((const float4 *)(from + c * 8))[0], b = ((const float4 *)(from + c * 8))[1];
            v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w;
            v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
        } else {
#pragma unroll
            for (int j = 0; j < 8; j++)
                v[j] = from != NULL && c * 8 + j < head_dim ? from[c * 8 + j] : 0.0f;
        }
        uint4 packed;
        packed.x = emo_pack_bf16(v[0], v[1]);
        packed.y = emo_pack_bf16(v[2], v[3]);
        packed.z = emo_pack_bf16(v[4], v[5]);
        packed.w = emo_pack_bf16(v[6], v[7]);
        *(uint4 *)(to + emo_swizzle<CH>(r, c)) = packed;
    }
}

/* s[1][N / 8] = rows [row, row + 16) of a times the first N rows of b, along D. */
template <int D, int N>
__device__ static inline void emo_ab_dots(const __nv_bfloat16 *a, int row, const __nv_bfloat16 *b, int lane,
                                          float (&s)[1][N / 8][4]) {
#pragma unroll
    for (int j = 0; j < N / 8; j++)
#pragma unroll
        for (int q = 0; q < 4; q++)
            s[0][j][q] = 0.0f;
#pragma unroll 2 /* more would keep fragments of later steps in registers */
    for (int step = 0; step < D / 16; step++) {
        uint32_t u[1][4], v[N / 8][2];
        emo_left_fragments<false, D / 8, 1>(a, row, step, lane, u);
        emo_right_fragments<false, D / 8, N / 8>(b, 0, step, lane, v);
        emo_mma_tile(s, u, v);
    }
}

/* out += p b: p [16, N] as the sums of a product lie in registers, b N lines of D elements. The accumulators of two
 * neighbouring tiles of eight columns are, packed, the left fragment of sixteen steps. */
template <int D, int N>
__device__ static inline void emo_ab_add(const float (&p)[1][N / 8][4], const __nv_bfloat16 *b, int lane,
                                         float (&out)[D / 64][1][8][4]) {
#pragma unroll
    for (int step = 0; step < N / 16; step++) {
        uint32_t u[1][4] = {{emo_pack_bf16(p[0][2 * step][0], p[0][2 * step][1]),
                             emo_pack_bf16(p[0][2 * step][2], p[0][2 * step][3]),
                             emo_pack_bf16(p[0][2 * step + 1][0], p[0][2 * step + 1][1]),
                             emo_pack_bf16(p[0][2 * step + 1][2], p[0][2 * step + 1][3])}};
#pragma unroll
        for (int part = 0; part < D / 64; part++) {
            uint32_t v[8][2];
            emo_right_fragments<true, D / 8, 8>(b, part * 64, step, lane, v);
            emo_mma_tile(out[part], u, v);
        }
    }
}

/* Runs `statement` with D, of which there are fewer than for f32: tensor cores want 64 at least. */
#define EMO_AB_DIM(head_dim, statement)                                                                                \
    do {                                                                                                               \
        if ((head_dim) <= 64) {                                                                                        \
            constexpr int D = 64;                                                                                      \
            statement;                                                                                                 \
        } else {                                                                                                       \
            constexpr int D = 128;                                                                                     \
            statement;                                                                                                 \
        }                                                                                                              \
    } while (0)

enum { EMO_AB_MOST = 128 }; /* head_dim; above it attention stays f32 */

/* Rows of a tile of the forward pass; the segments in `work` were cut for them. (attention_bf16.cu) */
enum { EMO_AB_ROWS = 128, EMO_AB_BACK_ROWS = 64 };
emo_status emo_cuda_attention_bf16(emo_exec *exec, const emo_attention_args *a, const emo_at_shape *shape,
                                   const emo_at_work *work, int64_t count, emo_error *err);
emo_status emo_cuda_attention_bf16_keys(emo_exec *exec, const emo_attention_args *a, const emo_at_shape *shape,
                                        const emo_at_work *work, int64_t count, const float *delta, emo_error *err);
emo_status emo_cuda_attention_bf16_queries(emo_exec *exec, const emo_attention_args *a, const emo_at_shape *shape,
                                           const emo_at_work *work, int64_t count, const float *delta, emo_error *err);

static inline int emo_ab_takes(emo_exec *exec, const emo_attention_args *a) {
    return emo_cuda_of(exec)->compute == EMO_DTYPE_BF16 && a->head_dim <= EMO_AB_MOST;
}

#endif
