/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/vmath.h"

#define VL 8
#define KERNELS emo__swiglu_avx2

typedef __m256 vec;

#define V_ZERO _mm256_setzero_ps()
#define V_SET1(x) _mm256_set1_ps(x)
#define V_LOAD(p) _mm256_loadu_ps(p)
#define V_STORE(p, v) _mm256_storeu_ps((p), (v))
#define V_ADD(a, b) _mm256_add_ps((a), (b))
#define V_SUB(a, b) _mm256_sub_ps((a), (b))
#define V_MUL(a, b) _mm256_mul_ps((a), (b))
#define V_FMA(a, b, c) _mm256_fmadd_ps((a), (b), (c))
#define V_SIGMOID(v) emo__sigmoid8(v)

#include "cpu/swiglu_body.h"
