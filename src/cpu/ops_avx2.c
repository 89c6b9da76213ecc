/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels for machines with AVX2. */
#define EMO__OPS_TABLE emo__ops_kernels_avx2
#include "cpu/ops_kernels.inc"
