/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on AVX2, and on AVX-512 without VNNI. */
#include <immintrin.h>
#include <stdint.h>

#define VL 8
#define KERNEL emo__gemm_quant_avx2
#define INLINE static inline __attribute__((always_inline))
#include "cpu/gemm/gemm_quant_rows_body.h"

typedef __m256 vecf;
typedef __m256i veci;

#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_STORE(p, v) _mm256_storeu_ps((p), (v))
#define V_SET1(x) _mm256_set1_ps(x)
#define V_MUL(a, b) _mm256_mul_ps((a), (b))
#define V_FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define V_NUMBERS(w, sum) _mm256_cvtepi32_ps(w)
#define W_ZERO _mm256_setzero_si256()

INLINE void words_of_32(stored_rows rows, int64_t at, veci out[8]) {
    veci r[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_si256((const __m256i *)(const void *)(row_of(rows, i) + at));
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) { /* pairs of rows */
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) { /* fours: r[i + j] has words j and j + 4 */
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        out[j] = _mm256_permute2x128_si256(r[j], r[j + 4], 0x20);
        out[j + 4] = _mm256_permute2x128_si256(r[j], r[j + 4], 0x31);
    }
}

INLINE void words_of_16(stored_rows rows, int64_t at, veci out[4]) {
    veci r[4], t[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        r[i] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(row_of(rows, i) + at))),
            _mm_loadu_si128((const __m128i *)(const void *)(row_of(rows, i + 4) + at)), 1);
    t[0] = _mm256_unpacklo_epi32(r[0], r[1]);
    t[1] = _mm256_unpackhi_epi32(r[0], r[1]);
    t[2] = _mm256_unpacklo_epi32(r[2], r[3]);
    t[3] = _mm256_unpackhi_epi32(r[2], r[3]);
    out[0] = _mm256_unpacklo_epi64(t[0], t[2]);
    out[1] = _mm256_unpackhi_epi64(t[0], t[2]);
    out[2] = _mm256_unpacklo_epi64(t[1], t[3]);
    out[3] = _mm256_unpackhi_epi64(t[1], t[3]);
}

INLINE veci low_nibbles(veci w) { return _mm256_and_si256(w, _mm256_set1_epi8(0x0F)); }
INLINE veci high_nibbles(veci w) { return low_nibbles(_mm256_srli_epi16(w, 4)); }
INLINE veci minus_8(veci w) { return _mm256_sub_epi8(w, _mm256_set1_epi8(8)); }

INLINE vecf halves_at(stored_rows rows, int64_t at) {
    uint16_t half[VL];
#pragma GCC unroll 8
    for (int i = 0; i < VL; i++)
        __builtin_memcpy(half + i, row_of(rows, i) + at, sizeof *half);
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)half));
}

/* One operand of the instruction has no sign: |w|, with w's sign given to q. A pair of products is at most
 * 2 * 128 * 127, which sixteen bits hold. */
typedef struct factor {
    veci w;
    veci size;
} factor;

INLINE factor word_for_dots(veci w) { return (factor){w, _mm256_abs_epi8(w)}; }
INLINE veci dot_four(veci sum, factor f, int32_t q) {
    veci pairs = _mm256_maddubs_epi16(f.size, _mm256_sign_epi8(_mm256_set1_epi32(q), f.w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

INLINE float quantise_block(const float *x, float times, int8_t *q, int32_t *sum) {
    const __m256 by = _mm256_set1_ps(times), positive = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    __m256 v[4], most = _mm256_setzero_ps(), odd = _mm256_setzero_ps();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + i * VL), by);
        most = _mm256_max_ps(_mm256_and_ps(v[i], positive), most);
        odd = _mm256_or_ps(odd, _mm256_cmp_ps(v[i], v[i], _CMP_UNORD_Q));
    }
    __m128 half = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    half = _mm_max_ps(half, _mm_movehl_ps(half, half));
    half = _mm_max_ss(half, _mm_movehdup_ps(half));
    /* max drops NaN: a NaN anywhere makes the block NaN */
    float top = _mm256_movemask_ps(odd) != 0 ? __builtin_nanf("") : _mm_cvtss_f32(half);
    const __m256 inverse = _mm256_set1_ps(top > 0.0f ? 127.0f / top : 0.0f);
    __m256i w[4], total = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        w[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inverse));
        total = _mm256_add_epi32(total, w[i]);
    }
    /* packs work in halves of a register: 0 4 1 5 2 6 3 7 sorts their words */
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(w[0], w[1]), _mm256_packs_epi32(w[2], w[3]));
    bytes = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)(void *)q, bytes);
    __m128i four = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    *sum = _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xB1)));
    return top;
}

#include "cpu/gemm/gemm_quant_body.h"
