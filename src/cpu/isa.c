/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* syscall(2) */
#include "cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

/* Numbers of the processor and of arch_prctl(2), which headers name only in part. */
enum {
    AVX512_BF16 = 1 << 5, /* leaf 7.1, eax */
    AMX_BF16 = 1 << 22,   /* leaf 7.0, edx */
    AMX_TILE = 1 << 24,
    AMX_INT8 = 1 << 25,
    AVX512_VNNI = 1 << 11, /* leaf 7.0, ecx */
    STATE_AMX = 3 << 17,   /* of XCR0: tile configuration and tile data */
    FEATURE_TILE_DATA = 18,
    GET_SUPPORTED = 0x1021,
    ASK_PERMISSION = 0x1023
};

/* Tile data are large, so Linux saves them only for processes that ask; `has` tells whether it would. */
static int has_amx(void) {
#if defined(__linux__)
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    unsigned state = 0;
    unsigned state_high = 0;
    unsigned long supported = 0;
    if (!has_avx512() || !__get_cpuid(1, &a, &b, &c, &d) || (c & bit_OSXSAVE) == 0)
        return 0;
    __asm__("xgetbv" : "=a"(state), "=d"(state_high) : "c"(0));
    if ((state & STATE_AMX) != STATE_AMX || !__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        (d & (AMX_BF16 | AMX_TILE | AMX_INT8)) != (AMX_BF16 | AMX_TILE | AMX_INT8) || (c & AVX512_VNNI) == 0 ||
        !__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & AVX512_BF16) == 0)
        return 0;
    return syscall(SYS_arch_prctl, GET_SUPPORTED, &supported) == 0 && (supported >> FEATURE_TILE_DATA & 1) != 0;
#else
    return 0;
#endif
}

int emo__cpu_allow_amx(void) {
#if defined(__linux__)
    return syscall(SYS_arch_prctl, ASK_PERMISSION, FEATURE_TILE_DATA) == 0;
#else
    return 0;
#endif
}
#else
int emo__cpu_allow_amx(void) { return 0; }
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
    case EMO_ISA_AMX:
        return has_amx();
#elif defined(__aarch64__)
    case EMO_ISA_NEON: /* part of the architecture */
        return 1;
#endif
    default:
        return 0;
    }
}

emo_isa emo__cpu_best_isa(void) {
    static const emo_isa levels[] = {EMO_ISA_AMX, EMO_ISA_AVX512, EMO_ISA_AVX2, EMO_ISA_NEON};
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
