/* SPDX-License-Identifier: Apache-2.0 */
/* Four floats of 64-bit Arm as gemm_body.h and gemm_pairs_body.h want them. Only files built for it get anything from
 * this. */
#ifndef EMO_SRC_CPU_GEMM_VEC_NEON_H
#define EMO_SRC_CPU_GEMM_VEC_NEON_H

#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>

#include "cpu/gemm/transpose_neon.h"

#define VL 4

typedef float32x4_t vec;

/* Elements of 16 bits may lie at odd multiples of two bytes: loads by bytes want no alignment. */
static inline vec load_f32(const void *p) { return vreinterpretq_f32_u8(vld1q_u8((const uint8_t *)p)); }
static inline vec load_bf16(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)), 16));
}
static inline vec load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p))); }

static inline __attribute__((always_inline)) void transpose(vec r[VL]) {
    int32x4_t words[VL];
#pragma GCC unroll 4
    for (int i = 0; i < VL; i++)
        words[i] = vreinterpretq_s32_f32(r[i]);
    emo__transpose_4(words);
#pragma GCC unroll 4
    for (int i = 0; i < VL; i++)
        r[i] = vreinterpretq_f32_s32(words[i]);
}

#define V_ZERO vdupq_n_f32(0.0f)
#define V_SET1(x) vdupq_n_f32(x)
#define V_LOAD(p) vld1q_f32(p)
#define V_STORE(p, v) vst1q_f32((p), (v))
#define V_ADD(a, b) vaddq_f32((a), (b))
#define V_MUL(a, b) vmulq_f32((a), (b))
#define V_FMA(a, b, c) vfmaq_f32((c), (a), (b))

#endif
#endif
