/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE /* syscall(2) */
#include "cpu/isa.h"

#include "cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* Numbers of the processor, which headers name only in part. */
#define BIT(n) (UINT32_C(1) << (n))
enum { STATE_AVX = 0x6, STATE_AVX512 = 0xE6, STATE_AMX = 3 << 17 /* tile configuration and tile data */ };
enum { FEATURE_TILE_DATA = 18 };
#define LEAF_1_ECX_AVX2 (BIT(12) | BIT(27) | BIT(28) | BIT(29)) /* FMA, OSXSAVE, AVX, F16C */
#define LEAF_7_EBX_AVX2 BIT(5)
#define LEAF_7_EBX_AVX512 (BIT(16) | BIT(17) | BIT(30) | BIT(31)) /* F, DQ, BW, VL */
#define LEAF_7_ECX_VNNI BIT(11)
#define LEAF_7_1_EAX_BF16 BIT(5)
#define HWCAP_ASIMD_DOT BIT(20)                      /* ASIMDDP */
#define HWCAP2_BFLOAT16 BIT(14)                      /* BF16 */
#define LEAF_7_EDX_AMX (BIT(22) | BIT(24) | BIT(25)) /* bf16, tiles, int8 */

/* ---- this machine ---- */

#if defined(__x86_64__)
/* arch_prctl(2) */
enum { GET_SUPPORTED = 0x1021, ASK_PERMISSION = 0x1023 };

emo__cpu_features emo__cpu_features_here(void) {
    emo__cpu_features f = {.family = EMO__CPU_X86};
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(0, &a, &b, &c, &d))
        f.intel = b == signature_INTEL_ebx && d == signature_INTEL_edx && c == signature_INTEL_ecx;
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        f.leaf_1_eax = a;
        f.leaf_1_ecx = c;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        f.leaf_7_ebx = b;
        f.leaf_7_ecx = c;
        f.leaf_7_edx = d;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        f.leaf_7_1_eax = a;
    if ((f.leaf_1_ecx & (unsigned)bit_OSXSAVE) != 0) {
        unsigned low = 0, high = 0;
        __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        f.xcr0 = (uint64_t)high << 32 | low;
    }
#if defined(__linux__)
    unsigned long supported = 0;
    if (syscall(SYS_arch_prctl, GET_SUPPORTED, &supported) == 0)
        f.on_request = supported;
#endif
    return f;
}

int emo__cpu_allow_amx(void) {
#if defined(__linux__)
    return syscall(SYS_arch_prctl, ASK_PERMISSION, FEATURE_TILE_DATA) == 0;
#else
    return 0;
#endif
}
#else
emo__cpu_features emo__cpu_features_here(void) {
#if defined(__aarch64__) && defined(__linux__)
    return (emo__cpu_features){.family = EMO__CPU_ARM64, .hwcap = getauxval(AT_HWCAP), .hwcap2 = getauxval(AT_HWCAP2)};
#elif defined(__aarch64__)
    return (emo__cpu_features){.family = EMO__CPU_ARM64};
#else
    return (emo__cpu_features){.family = EMO__CPU_OTHER};
#endif
}

int emo__cpu_allow_amx(void) { return 0; }
#endif

int emo__cpu_has_isa(emo_isa isa) {
    emo__cpu_features here = emo__cpu_features_here();
    return emo__cpu_features_have(&here, isa);
}

emo_isa emo__cpu_best_isa(void) {
    emo__cpu_features here = emo__cpu_features_here();
    return emo__cpu_features_best(&here);
}

/* ---- levels ---- */

static bool all_of(uint64_t there, uint64_t wanted) { return (there & wanted) == wanted; }

/* Each level has all that those below it have. */
static bool x86_has(const emo__cpu_features *f, emo_isa isa) {
    if (isa >= EMO_ISA_AVX2 && !(all_of(f->leaf_1_ecx, LEAF_1_ECX_AVX2) && all_of(f->leaf_7_ebx, LEAF_7_EBX_AVX2) &&
                                 all_of(f->xcr0, STATE_AVX)))
        return false;
    if (isa >= EMO_ISA_AVX512 && !(all_of(f->leaf_7_ebx, LEAF_7_EBX_AVX512) && all_of(f->xcr0, STATE_AVX512)))
        return false;
    if (isa >= EMO_ISA_AVX512_VNNI && !all_of(f->leaf_7_ecx, LEAF_7_ECX_VNNI))
        return false;
    if (isa >= EMO_ISA_AVX512_BF16 && !all_of(f->leaf_7_1_eax, LEAF_7_1_EAX_BF16))
        return false;
    /* Tile data are large, so Linux saves them only for processes that ask: it has to say that it would. */
    if (isa >= EMO_ISA_AMX && !(all_of(f->leaf_7_edx, LEAF_7_EDX_AMX) && all_of(f->xcr0, STATE_AMX) &&
                                (f->on_request >> FEATURE_TILE_DATA & 1) != 0))
        return false;
    return true;
}

static bool arm64_has(const emo__cpu_features *f, emo_isa isa) { /* EMO_ISA_NEON is part of the architecture */
    if (isa >= EMO_ISA_NEON_DOT && !all_of(f->hwcap, HWCAP_ASIMD_DOT))
        return false;
    return isa < EMO_ISA_NEON_BF16 || all_of(f->hwcap2, HWCAP2_BFLOAT16);
}

/* Intel's processors with AMX finish a vdpbf16ps in the time of four multiply-adds in f32, of which two would do as
 * much. Of Intel's without AMX one has the instruction, Cooper Lake (family 6, model 0x55). */
static bool bf16_is_fast(const emo__cpu_features *f) { return !f->intel || (f->leaf_1_eax & 0x0FFF0FF0) == 0x00050650; }

typedef struct level {
    emo_isa isa;
    emo__cpu_family family; /* EMO__CPU_OTHER: every machine has it */
    const char *name;
} level;

/* The best last. */
static const level levels[] = {{EMO_ISA_SCALAR, EMO__CPU_OTHER, "scalar"},
                               {EMO_ISA_NEON, EMO__CPU_ARM64, "neon"},
                               {EMO_ISA_NEON_DOT, EMO__CPU_ARM64, "neon-dot"},
                               {EMO_ISA_NEON_BF16, EMO__CPU_ARM64, "neon-bf16"},
                               {EMO_ISA_AVX2, EMO__CPU_X86, "avx2"},
                               {EMO_ISA_AVX512, EMO__CPU_X86, "avx512"},
                               {EMO_ISA_AVX512_VNNI, EMO__CPU_X86, "avx512-vnni"},
                               {EMO_ISA_AVX512_BF16, EMO__CPU_X86, "avx512-bf16"},
                               {EMO_ISA_AMX, EMO__CPU_X86, "amx"}};
enum { LEVELS = sizeof levels / sizeof levels[0] };

static const level *level_of(emo_isa isa) {
    for (int i = 0; i < LEVELS; i++)
        if (levels[i].isa == isa)
            return &levels[i];
    return NULL;
}

bool emo__cpu_features_have(const emo__cpu_features *f, emo_isa isa) {
    const level *l = level_of(isa);
    if (l == NULL || l->family == EMO__CPU_OTHER)
        return l != NULL;
    return l->family == f->family && (f->family == EMO__CPU_X86 ? x86_has(f, isa) : arm64_has(f, isa));
}

emo_isa emo__cpu_features_best(const emo__cpu_features *f) {
    for (int i = LEVELS - 1; i > 0; i--)
        if (emo__cpu_features_have(f, levels[i].isa) && (levels[i].isa != EMO_ISA_AVX512_BF16 || bf16_is_fast(f)))
            return levels[i].isa;
    return EMO_ISA_SCALAR;
}

const char *emo_isa_name(emo_isa isa) {
    const level *l = level_of(isa);
    return l != NULL ? l->name : isa == EMO_ISA_AUTO ? "auto" : NULL;
}
