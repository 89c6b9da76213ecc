/* SPDX-License-Identifier: Apache-2.0 */
/* What the AMX files share: elements as bf16 in the order that tiles want. Only files built for AMX include this. */
#ifndef EMO_SRC_CPU_GEMM_GEMM_AMX_H
#define EMO_SRC_CPU_GEMM_GEMM_AMX_H

#if defined(__AMX_BF16__) || defined(__AMXBF16__) /* clang before 16 */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "cpu/gemm/gemm.h"
#include "cpu/gemm/transpose_avx512.h"

#define INLINE static inline __attribute__((always_inline))

enum { VL = 16, LANES = 32, UNIT = 32, TILE_BYTES = 1024, UNIT_BYTES = 2 * TILE_BYTES };

/* ---- 32 elements along k of one lane, or 16 lanes of two neighbours in k, as bf16 ---- */

INLINE int64_t size_of(emo_dtype dtype) { return dtype == EMO_DTYPE_F32 ? 4 : 2; }

INLINE uint32_t mask_of(int64_t have, int most) {
    return have >= most ? (uint32_t)((UINT64_C(1) << most) - 1) : have <= 0 ? 0u : (1u << have) - 1u;
}

/* `have` elements at p (32 or fewer, then zeros) times `scale`, in order. */
INLINE __m512i along(const char *p, int64_t have, __m512 scale, int scaled, emo_dtype dtype) {
    uint32_t mask = mask_of(have, UNIT);
    if (dtype == EMO_DTYPE_BF16)
        return _mm512_maskz_loadu_epi16(mask, p);
    __m512 low, high;
    if (dtype == EMO_DTYPE_F32) {
        low = _mm512_maskz_loadu_ps((__mmask16)mask, p);
        high = _mm512_maskz_loadu_ps((__mmask16)(mask >> VL), p + 64);
    } else {
        low = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)mask, p));
        high = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)(mask >> VL), p + 32));
    }
    if (scaled) {
        low = _mm512_mul_ps(low, scale);
        high = _mm512_mul_ps(high, scale);
    }
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* 16 lanes at p under `mask`, as 16 words of 32 bits with bf16 in the low half; B's, so never scaled. */
INLINE __m512i across(const char *p, __mmask16 mask, emo_dtype dtype) {
    if (dtype == EMO_DTYPE_BF16)
        return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p));
    __m512 x = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, p));
    return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
}

INLINE void store_tile(char *tile, const __m512i rows[VL]) {
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++)
        _mm512_store_si512(tile + i * 64, rows[i]);
}

/* What _tile_loadconfig reads. Configurations are constant data rather than variables: gcc 12 may leave out the stores
 * into a variable before it is loaded. */
typedef struct tile_config {
    uint8_t palette;
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t colsb[16];
    uint8_t rows[16];
} tile_config;

/* A host that had configured tiles on this thread finds them so afterwards; what tiles hold no call keeps. */
INLINE void begin_tiles(void *before, const tile_config *config) {
    _tile_storeconfig(before);
    _tile_loadconfig(config);
}
INLINE void end_tiles(const void *before) {
    if (*(const uint8_t *)before != 0) /* the palette; 0: not in use */
        _tile_loadconfig(before);
    else
        _tile_release();
}

/* Tile registers; gcc 12's intrinsics paste the number as it is written. */
#define C00 0
#define C01 1
#define C10 2
#define C11 3
#define A0 4
#define A1 5
#define B0 6
#define B1 7

/* A block of C that comes out of tiles transposed: [rows, cols], of which a tile holds 16 x 16. */
typedef struct c_block {
    float *c;
    int64_t ldc;
    int rows;
    int cols;
} c_block;

/* Columns [first, first + 16) of rows [row, row + 16), as 16 rows of a tile; what lies outside is 0. */
INLINE void read_transposed(const c_block *d, int first, int row, float *tile) {
    __m512i block[VL];
    __mmask16 mask = (__mmask16)mask_of(d->cols - first, VL);
    for (int i = 0; i < VL; i++)
        block[i] = row + i < d->rows ? (__m512i)_mm512_maskz_loadu_ps(mask, d->c + (row + i) * d->ldc + first)
                                     : _mm512_setzero_si512();
    emo__transpose_16(block);
    store_tile((char *)tile, block);
}

INLINE void write_transposed(const c_block *d, int first, int row, const float *tile) {
    __m512i block[VL];
    __mmask16 mask = (__mmask16)mask_of(d->cols - first, VL);
    for (int i = 0; i < VL; i++)
        block[i] = _mm512_load_si512(tile + i * VL);
    emo__transpose_16(block);
    for (int i = 0; i < VL && row + i < d->rows; i++)
        _mm512_mask_storeu_ps(d->c + (row + i) * d->ldc + first, mask, (__m512)block[i]);
}

/* Products that read B's rows where they lie (gemm_amx_direct.c); see emo__gemm_kernels.direct. */
int emo__gemm_amx_direct(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                         size_t floats);
/* Rows [m0, m1) of A, packed at x panel after panel, against columns [n0, n1) of every B, which are copied part by
 * part to `memory`: emo__gemm_amx_staged_bytes(m1 - m0), 64-byte aligned. For rows enough to use a copy often. */
void emo__gemm_amx_staged(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const char *x,
                          char *memory);
size_t emo__gemm_amx_staged_bytes(int64_t rows);
/* The same for quantised B, in whole numbers (gemm_amx_quant.c). What it says depends on g alone, not on the rows. */
int emo__gemm_amx_quantised(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                            size_t floats);
/* Rows of a (f32, not transposed) from 0 to k as lanes of a panel in B's order. */
void emo__gemm_amx_pack_right(char *dst, const emo__gemm_operand *a, int64_t first, int lanes, int64_t k);

#endif
#endif
