/* SPDX-License-Identifier: Apache-2.0 */
/* What the levels of gemm_quant.h's product share on 64-bit Arm. The including file defines VL, which is 4, and INLINE
 * before it. Only files built for that machine get anything from this. */
#ifndef EMO_SRC_CPU_GEMM_GEMM_QUANT_NEON_H
#define EMO_SRC_CPU_GEMM_GEMM_QUANT_NEON_H

#if defined(__aarch64__)
#include <arm_neon.h>
#include <stdint.h>

#include "cpu/gemm/gemm_quant_rows_body.h"
#include "cpu/gemm/transpose_neon.h"

typedef float32x4_t vecf;
typedef int32x4_t veci;

#define V_LOAD(p) vld1q_f32(p)
#define V_STORE(p, v) vst1q_f32((p), (v))
#define V_SET1(x) vdupq_n_f32(x)
#define V_MUL(a, b) vmulq_f32((a), (b))
#define V_FMA(a, b, c) vfmaq_f32((c), (a), (b))
#define V_NUMBERS(w, sum) vcvtq_f32_s32(w)
#define W_ZERO vdupq_n_s32(0)

INLINE void words_of_16(stored_rows rows, int64_t at, veci out[4]) {
#pragma GCC unroll 4
    for (int i = 0; i < VL; i++)
        out[i] = vreinterpretq_s32_u8(vld1q_u8(row_of(rows, i) + at));
    emo__transpose_4(out);
}

INLINE void words_of_32(stored_rows rows, int64_t at, veci out[8]) {
    words_of_16(rows, at, out);
    words_of_16(rows, at + 16, out + 4);
}

INLINE veci low_nibbles(veci w) { return vreinterpretq_s32_u8(vandq_u8(vreinterpretq_u8_s32(w), vdupq_n_u8(0x0F))); }
INLINE veci high_nibbles(veci w) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(w), 4)); }
INLINE veci minus_8(veci w) { return vreinterpretq_s32_s8(vsubq_s8(vreinterpretq_s8_s32(w), vdupq_n_s8(8))); }

INLINE vecf halves_at(stored_rows rows, int64_t at) {
    uint16_t half[VL];
#pragma GCC unroll 4
    for (int i = 0; i < VL; i++)
        __builtin_memcpy(half + i, row_of(rows, i) + at, sizeof *half);
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(half)));
}

INLINE float quantise_block(const float *x, float times, int8_t *q, int32_t *sum) {
    float32x4_t v[8], most = vdupq_n_f32(0.0f);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = vmulq_f32(vld1q_f32(x + i * VL), vdupq_n_f32(times));
        most = vmaxq_f32(most, vabsq_f32(v[i])); /* a NaN stays */
    }
    float top = vmaxvq_f32(most);
    const float32x4_t inverse = vdupq_n_f32(top > 0.0f ? 127.0f / top : 0.0f);
    int32x4_t w[8], total = vdupq_n_s32(0);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        w[i] = vcvtnq_s32_f32(vmulq_f32(v[i], inverse));
        total = vaddq_s32(total, w[i]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        int16x8_t low = vcombine_s16(vqmovn_s32(w[i]), vqmovn_s32(w[i + 1]));
        int16x8_t high = vcombine_s16(vqmovn_s32(w[i + 2]), vqmovn_s32(w[i + 3]));
        vst1q_s8(q + i * VL, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
    }
    *sum = vaddvq_s32(total);
    return top;
}

#endif
#endif
