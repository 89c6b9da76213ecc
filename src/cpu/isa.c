/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>

/* __builtin_cpu_supports also checks that the operating system saves the registers; not every compiler knows the name
 * "f16c" there, so that bit is read by hand. */
static int has_avx2(void) {
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) &&
           (c & bit_F16C) != 0;
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

int emo__cpu_has_isa(emo_isa isa) {
    switch (isa) {
    case EMO_ISA_SCALAR:
        return 1;
#if defined(__x86_64__)
    case EMO_ISA_AVX2:
        return has_avx2();
    case EMO_ISA_AVX512:
        return has_avx512();
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
