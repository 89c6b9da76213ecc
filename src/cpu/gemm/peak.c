/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/gemm/peak.h"

int emo__peak_int8_there(const emo__cpu_exec *cpu) {
#if defined(__x86_64__)
    return cpu->isa >= EMO_ISA_AMX && emo__cpu_allow_amx();
#else
    (void)cpu;
    return 0;
#endif
}

#if !defined(__x86_64__)
void emo__peak_int8_run(const void *memory, int loops) {
    (void)memory;
    (void)loops;
}
#endif
