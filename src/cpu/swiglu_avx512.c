/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/vmath.h"

#define VL 16
#define KERNELS emo__swiglu_avx512

typedef __m512 vec;

#define V_ZERO _mm512_setzero_ps()
#define V_SET1(x) _mm512_set1_ps(x)
#define V_LOAD(p) _mm512_loadu_ps(p)
#define V_STORE(p, v) _mm512_storeu_ps((p), (v))
#define V_ADD(a, b) _mm512_add_ps((a), (b))
#define V_SUB(a, b) _mm512_sub_ps((a), (b))
#define V_MUL(a, b) _mm512_mul_ps((a), (b))
#define V_FMA(a, b, c) _mm512_fmadd_ps((a), (b), (c))
#define V_SIGMOID(v) emo__sigmoid16(v)

#include "cpu/swiglu_body.h"
