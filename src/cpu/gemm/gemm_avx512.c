/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512: 14 x 32, that is 28 accumulators, two vectors of B and the broadcast of A. */
#include "cpu/gemm/vec_avx512.h"

#define MR 14
#define NRV 2
#define KERNELS emo__gemm_avx512
#define KERNELS_BF16 emo__gemm_avx512_bf16
#define QUANTISED emo__gemm_quant_avx2
#define PAIR_LOW(v) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16))
#define PAIR_HIGH(v) _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32((int)0xFFFF0000u)))

#include "cpu/gemm/gemm_body.h"

ROUNDED_KERNELS(emo__gemm_avx512_vnni, emo__gemm_quant_vnni);
