/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels with the compiler's baseline vectors, and the choice among the tables. */
#define EMO__OPS_TABLE emo__ops_kernels_scalar
#include "cpu/ops_kernels.inc"

const emo__ops_kernels *emo__ops_kernels_of(const emo__cpu_exec *cpu) {
#if defined(__x86_64__)
    if (cpu->isa >= EMO_ISA_AVX512)
        return &emo__ops_kernels_avx512;
    if (cpu->isa >= EMO_ISA_AVX2)
        return &emo__ops_kernels_avx2;
#elif defined(__aarch64__)
    if (cpu->isa >= EMO_ISA_NEON)
        return &emo__ops_kernels_neon;
#endif
    return &emo__ops_kernels_scalar;
}
