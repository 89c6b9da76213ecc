/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on 64-bit Arm with the dot-product extension. */
#define VL 4
#define KERNEL emo__gemm_quant_neon_dot
#define INLINE static inline __attribute__((always_inline))
#include "cpu/gemm/gemm_quant_neon.h"

typedef int8x16_t factor;

INLINE factor word_for_dots(veci w) { return vreinterpretq_s8_s32(w); }
INLINE veci dot_four(veci sum, factor f, int32_t q) { return vdotq_s32(sum, f, vreinterpretq_s8_s32(vdupq_n_s32(q))); }

#include "cpu/gemm/gemm_quant_body.h"
