/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels for 64-bit Arm. */
#define EMO__NEON
#define EMO__OPS_TABLE emo__ops_kernels_neon
#include "cpu/ops_kernels.inc"
