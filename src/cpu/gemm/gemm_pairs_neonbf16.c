/* SPDX-License-Identifier: Apache-2.0 */
/* Products in bf16 on 64-bit Arm with that extension: 8 x 12 as in f32, two steps of k at a time. The instruction
 * rounds the sum of two products to odd before it adds it, and takes what is denormal as zero. */
#include "cpu/gemm/vec_neon.h"

#define MR 8
#define NRV 3
#define KERNELS emo__gemm_pairs_neon
#define QUANTISED emo__gemm_quant_neon_dot

typedef uint16x4_t halves;

static inline halves load_halves(const void *p) { return vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)); }

#define V_HALVES(v) vreinterpret_u16_bf16(vcvt_bf16_f32(v))
#define V_JOIN(even, odd) vreinterpretq_f32_u16(vcombine_u16(vzip1_u16((even), (odd)), vzip2_u16((even), (odd))))
#define V_ALONG(low, high) vreinterpretq_f32_bf16(vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), (high)))
#define V_DOT(a, b, c) vbfdotq_f32((c), vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b))

#include "cpu/gemm/gemm_pairs_body.h"
