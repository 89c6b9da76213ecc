/* SPDX-License-Identifier: Apache-2.0 */
/* Products of activations with quantised weights in whole numbers. Activations become blocks of 32 signed bytes:
 *
 *   x[t, block b] = dx[t,b] * q,  dx = max |x| / 127,  q rounded to nearest, ties to even;  sum[t,b] = sum of q
 *   c[t, n] (+)= sum over b ascending of dx[t,b] * (a[n,b] * dot(q, w) + o[n,b] * sum[t,b]),  in f32, fused from the
 * left
 *
 * with w the weight's whole numbers (q8_0: as they are, q4_0: minus 8, q4_k: 0 to 15), a its scale (q4_k: d s) and o
 * its offset (q4_k: -m t, else none). dot is exact and every level fuses, so all levels but the scalar one (which has
 * floats instead) give the same bits, for one row as among many. */
#ifndef EMO_SRC_CPU_GEMM_GEMM_QUANT_H
#define EMO_SRC_CPU_GEMM_GEMM_QUANT_H

#include <stdint.h>

#include "cpu/gemm/gemm.h"
#include "tensor/quant.h"
#include "tensor/quant_blocks.h"

enum { EMO__GEMM_QUANT_GROUP = 16 }; /* rows of A, and of the weight, that AMX takes together */

/* Rows of A at a time, a multiple of `unit`, that fit with `lanes` rows of the weight, their spare copy and what lines
 * are not full; 0: none. */
static inline int64_t emo__gemm_quant_rows(int64_t k, size_t floats, int lanes, int unit) {
    enum { BLOCK_FLOATS = 2 * sizeof(float), MOST = 256 };
    const size_t blocks = (size_t)(k / EMO__Q_SMALL), room = floats * sizeof(float);
    const size_t fixed =
        blocks * (size_t)lanes * (EMO__Q_SMALL + BLOCK_FLOATS + EMO__Q8_0_BYTES) + 8 * (size_t)EMO__ALIGN;
    const size_t row = blocks * (EMO__Q_SMALL + BLOCK_FLOATS);
    if (row == 0 || room < fixed + (size_t)unit * row)
        return 0;
    const size_t rows = (room - fixed) / row / (size_t)unit * (size_t)unit;
    return rows < MOST ? (int64_t)rows : MOST;
}

/* As emo__gemm_kernels.direct; 0 where B is not quantised, or the product has a form that generation does not need.
 * What they say depends on g alone, not on the rows. */
int emo__gemm_quant_avx2(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                         size_t floats);
int emo__gemm_quant_vnni(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                         size_t floats);
int emo__gemm_quant_neon(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                         size_t floats);
int emo__gemm_quant_neon_dot(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                             size_t floats);

/* The same for the one row `row` of A, in the order in which memory is fastest; `g` is such a product. 0: not for this
 * k, and emo__gemm_quant_vnni has the same bits for it. */
int emo__gemm_row_vnni(const emo__gemm *g, int64_t row, int64_t n0, int64_t n1, float *work, size_t floats);

#endif
