/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cpu.h"

int emo__cpu_has_isa(emo_isa isa) {
    switch (isa) {
    case EMO_ISA_SCALAR:
        return 1;
#if defined(__x86_64__)
    /* __builtin_cpu_supports also checks that the operating system saves the registers. */
    case EMO_ISA_AVX2:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    case EMO_ISA_AVX512:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
               __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#endif
    default:
        return 0;
    }
}

emo_isa emo__cpu_best_isa(void) {
    static const emo_isa levels[] = {EMO_ISA_AVX512, EMO_ISA_AVX2, EMO_ISA_NEON};
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        if (emo__cpu_has_isa(levels[i]))
            return levels[i];
    }
    return EMO_ISA_SCALAR;
}

const char *emo_isa_name(emo_isa isa) {
    switch (isa) {
    case EMO_ISA_AUTO:
        return "auto";
    case EMO_ISA_SCALAR:
        return "scalar";
    case EMO_ISA_NEON:
        return "neon";
    case EMO_ISA_AVX2:
        return "avx2";
    case EMO_ISA_AVX512:
        return "avx512";
    case EMO_ISA_AMX:
        return "amx";
    default:
        return NULL;
    }
}
