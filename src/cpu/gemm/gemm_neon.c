/* SPDX-License-Identifier: Apache-2.0 */
/* 64-bit Arm: 8 x 12, which leaves five of the 32 registers for a row of B and elements of A. */
#include "cpu/gemm/vec_neon.h"

#define MR 8
#define NRV 3
#define KERNELS emo__gemm_neon
#define KERNELS_BF16 emo__gemm_neon_bf16
#define QUANTISED emo__gemm_quant_neon

#define PAIR_LOW(v) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(v), 16))
#define PAIR_HIGH(v) vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0xFFFF0000u)))

#include "cpu/gemm/gemm_body.h"

ROUNDED_KERNELS(emo__gemm_neon_dot, emo__gemm_quant_neon_dot);
