/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen floats of AVX-512 as gemm_body.h and gemm_pairs_body.h want them. Only files built for AVX-512 get anything
 * from this. */
#ifndef EMO_SRC_CPU_GEMM_VEC_AVX512_H
#define EMO_SRC_CPU_GEMM_VEC_AVX512_H

#if defined(__AVX512F__)
#include <immintrin.h>
#include <stdint.h>

#include "cpu/gemm/transpose_avx512.h"

#define VL 16

typedef __m512 vec;

static inline vec load_f32(const void *p) { return _mm512_loadu_ps(p); }
static inline vec load_bf16(const void *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline vec load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

static inline __attribute__((always_inline)) void transpose(vec r[VL]) {
    __m512i words[VL];
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++)
        words[i] = _mm512_castps_si512(r[i]);
    emo__transpose_16(words);
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++)
        r[i] = _mm512_castsi512_ps(words[i]);
}

#define V_ZERO _mm512_setzero_ps()
#define V_SET1(x) _mm512_set1_ps(x)
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps((p), (v))
#define V_ADD(a, b) _mm512_add_ps((a), (b))
#define V_MUL(a, b) _mm512_mul_ps((a), (b))
#define V_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))

#endif
#endif
