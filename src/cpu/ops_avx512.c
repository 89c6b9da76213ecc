/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels for machines with AVX512. */
#define EMO__OPS_TABLE emo__ops_kernels_avx512
#include "cpu/ops_kernels.inc"
