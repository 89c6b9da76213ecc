/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on 64-bit Arm, with the instructions that every such machine has. */
#define VL 4
#define KERNEL emo__gemm_quant_neon
#define INLINE static inline __attribute__((always_inline))
#include "cpu/gemm/gemm_quant_neon.h"

typedef int8x16_t factor;

INLINE factor word_for_dots(veci w) { return vreinterpretq_s8_s32(w); }
INLINE veci dot_four(veci sum, factor f, int32_t q) {
    int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(q));
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(f), vget_low_s8(four)));
    int32x4_t high = vpaddlq_s16(vmull_high_s8(f, four));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}

#include "cpu/gemm/gemm_quant_body.h"
