/* SPDX-License-Identifier: Apache-2.0 */
#define EMO__NEON
#include "cpu/vmath.h"

#define VL 4
#define KERNELS emo__swiglu_neon

typedef float32x4_t vec;

#define V_ZERO vdupq_n_f32(0.0f)
#define V_SET1(x) vdupq_n_f32(x)
#define V_LOAD(p) vld1q_f32(p)
#define V_STORE(p, v) vst1q_f32((p), (v))
#define V_ADD(a, b) vaddq_f32((a), (b))
#define V_SUB(a, b) vsubq_f32((a), (b))
#define V_MUL(a, b) vmulq_f32((a), (b))
#define V_FMA(a, b, c) vfmaq_f32((c), (a), (b))
#define V_SIGMOID(v) emo__sigmoid4(v)

#include "cpu/swiglu_body.h"
