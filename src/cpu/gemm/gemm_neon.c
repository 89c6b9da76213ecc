/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit Arm: 8 x 12, which leaves five of the 32 registers for a row of B and elements of A. */
#include <arm_neon.h>
#include <stdint.h>

#include "cpu/gemm/transpose_neon.h"

#define VL 4
#define MR 8
#define NRV 3
#define KERNELS emo__gemm_neon
#define KERNELS_BF16 emo__gemm_neon_bf16
#define QUANTISED emo__gemm_quant_neon

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

#define PAIR_LOW(v) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v), 16))
#define PAIR_HIGH(v) vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0xFFFF0000u)))

#include "cpu/gemm/gemm_body.h"
