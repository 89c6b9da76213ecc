/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/gemm/peak.h"

emo__peak_int8_fn emo__peak_int8_of(const emo__cpu_exec *cpu) {
#if defined(__x86_64__)
    if (cpu->isa >= EMO_ISA_AMX && emo__cpu_allow_amx())
        return emo__peak_int8_amx;
    if (cpu->isa >= EMO_ISA_AVX512_VNNI)
        return emo__peak_int8_vnni;
#elif defined(__aarch64__)
    if (cpu->isa >= EMO_ISA_NEON_DOT)
        return emo__peak_int8_neon_dot;
#endif
    (void)cpu;
    return NULL;
}
