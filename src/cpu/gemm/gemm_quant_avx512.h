/* SPDX-License-Identifier: Apache-2.0 */
/* What the levels of gemm_quant.h's product share that take sixteen rows of the weight at a time, in registers of 512
 * bits. The including file defines VL, which is 16, and INLINE before it. Only files built for AVX-512 get anything
 * from this. */
#ifndef EMO_SRC_CPU_GEMM_GEMM_QUANT_AVX512_H
#define EMO_SRC_CPU_GEMM_GEMM_QUANT_AVX512_H

#if defined(__AVX512F__)
#include <immintrin.h>
#include <stdint.h>

#include "cpu/gemm/gemm_quant_rows_body.h"

/* 32 bytes of each of 16 rows, as eight vectors of one word of every row. */
INLINE void words_of_32(stored_rows rows, int64_t at, __m512i out[WORDS]) {
    __m512i r[WORDS], t[WORDS];
#pragma GCC unroll 8
    for (int i = 0; i < WORDS; i++)
        r[i] = _mm512_inserti64x4(
            _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(const void *)(row_of(rows, i) + at))),
            _mm256_loadu_si256((const __m256i *)(const void *)(row_of(rows, i + WORDS) + at)), 1);
#pragma GCC unroll 4
    for (int i = 0; i < WORDS; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < WORDS; i += 4) { /* r[i + j]: words j and j + 4 of rows i to i + 3 and i + 8 to i + 11 */
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
    const __m512i second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        out[j] = _mm512_permutex2var_epi64(r[j], first, r[j + 4]);
        out[j + 4] = _mm512_permutex2var_epi64(r[j], second, r[j + 4]);
    }
}

/* 16 bytes of each of 16 rows, as four such vectors. */
INLINE void words_of_16(stored_rows rows, int64_t at, __m512i out[4]) {
    __m512i r[4], t[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i row = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)(row_of(rows, i) + at)));
        row = _mm512_inserti32x4(row, _mm_loadu_si128((const __m128i *)(const void *)(row_of(rows, i + 4) + at)), 1);
        row = _mm512_inserti32x4(row, _mm_loadu_si128((const __m128i *)(const void *)(row_of(rows, i + 8) + at)), 2);
        r[i] = _mm512_inserti32x4(row, _mm_loadu_si128((const __m128i *)(const void *)(row_of(rows, i + 12) + at)), 3);
    }
    t[0] = _mm512_unpacklo_epi32(r[0], r[1]);
    t[1] = _mm512_unpackhi_epi32(r[0], r[1]);
    t[2] = _mm512_unpacklo_epi32(r[2], r[3]);
    t[3] = _mm512_unpackhi_epi32(r[2], r[3]);
    out[0] = _mm512_unpacklo_epi64(t[0], t[2]);
    out[1] = _mm512_unpackhi_epi64(t[0], t[2]);
    out[2] = _mm512_unpacklo_epi64(t[1], t[3]);
    out[3] = _mm512_unpackhi_epi64(t[1], t[3]);
}

INLINE __m512 halves_at(stored_rows rows, int64_t at) {
    /* four bytes of each row, of which the first two count: a gather is cheaper than sixteen loads and stores */
    const __m512i number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_mullo_epi32(number, _mm512_set1_epi32((int32_t)rows.pitch));
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_i32gather_epi32(index, (const void *)(rows.at + at), 1)));
}

INLINE __m512i low_nibbles(__m512i w) { return _mm512_and_si512(w, _mm512_set1_epi8(0x0F)); }
INLINE __m512i high_nibbles(__m512i w) { return low_nibbles(_mm512_srli_epi16(w, 4)); }
INLINE __m512i minus_8(__m512i w) { return _mm512_sub_epi8(w, _mm512_set1_epi8(8)); }

/* 32 floats times a factor to bytes; returns max |x| (NaN if one is in it). */
INLINE float quantise_block(const float *x, float times, int8_t *q, int32_t *sum) {
    const __m512 by = _mm512_set1_ps(times);
    __m512 low = _mm512_mul_ps(_mm512_loadu_ps(x), by), high = _mm512_mul_ps(_mm512_loadu_ps(x + VL), by);
    float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    /* max drops NaN: a NaN anywhere makes the block NaN */
    if ((_mm512_cmp_ps_mask(low, low, _CMP_UNORD_Q) | _mm512_cmp_ps_mask(high, high, _CMP_UNORD_Q)) != 0)
        most = __builtin_nanf("");
    const __m512 inverse = _mm512_set1_ps(most > 0.0f ? 127.0f / most : 0.0f);
    __m512i q_low = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    __m512i q_high = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(q_low, q_high));
    _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtsepi32_epi8(q_low));
    _mm_storeu_si128((__m128i *)(void *)(q + VL), _mm512_cvtsepi32_epi8(q_high));
    return most;
}

#endif
#endif
