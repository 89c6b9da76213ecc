/* SPDX-License-Identifier: Apache-2.0 */
/* Products in bf16 on AVX-512 with BF16: 14 x 32 as in f32, two steps of k at a time. The instruction adds the later of
 * the two products first, each fused, and takes what is denormal as zero. */
#include "cpu/gemm/vec_avx512.h"

#define MR 14
#define NRV 2
#define KERNELS emo__gemm_pairs_avx512
#define QUANTISED emo__gemm_quant_vnni

typedef __m256i halves;

static inline halves load_halves(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }

#define V_HALVES(v) ((halves)_mm512_cvtneps_pbh(v))
#define V_JOIN(even, odd)                                                                                              \
    _mm512_castsi512_ps(_mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32(_mm512_cvtepu16_epi32(odd), 16)))
#define V_ALONG(low, high) ((vec)_mm512_cvtne2ps_pbh((high), (low)))
#define V_DOT(a, b, c) _mm512_dpbf16_ps((c), (__m512bh)(a), (__m512bh)(b))

#include "cpu/gemm/gemm_pairs_body.h"
