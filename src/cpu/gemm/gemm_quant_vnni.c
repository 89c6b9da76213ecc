/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on AVX-512 with VNNI, where there is no AMX. */
#include <immintrin.h>
#include <stdint.h>

#define VL 16
#define KERNEL emo__gemm_quant_vnni
#define MANY_ROWS 8
#define ONE_ROW emo__gemm_row_vnni
#define INLINE static inline __attribute__((always_inline))
#include "cpu/gemm/gemm_quant_avx512.h"

typedef __m512 vecf;
typedef __m512i veci;

#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps((p), (v))
#define V_SET1(x) _mm512_set1_ps(x)
#define V_MUL(a, b) _mm512_mul_ps((a), (b))
#define V_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define W_ZERO _mm512_setzero_si512()

/* One operand of the instruction has no sign: bytes of the weight plus 128. */
typedef veci factor;

INLINE factor word_for_dots(veci w) { return _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80)); }
INLINE veci dot_four(veci sum, factor f, int32_t q) { return _mm512_dpbusd_epi32(sum, f, _mm512_set1_epi32(q)); }

/* 128 times the sum of q is taken off again, in floats: 32 * 255 * 127 is less than 2^24, so nothing is rounded. */
#define V_NUMBERS(w, sum) V_FMA(V_SET1(-128.0f), V_SET1(sum), _mm512_cvtepi32_ps(w))

#include "cpu/gemm/gemm_quant_body.h"
