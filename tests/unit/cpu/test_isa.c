/* SPDX-License-Identifier: Apache-2.0 */
/* Which levels follow from what a processor and its system say: on machines that are made up, bit by bit. */
#include "cpu/isa.h"

#include <stdio.h>
#include <string.h>

#include "support/support.h"

#define BIT(n) (UINT32_C(1) << (n))

/* A processor with all that any level asks for, under a system that saves all of its registers. */
static emo__cpu_features x86(void) {
    return (emo__cpu_features){
        .family = EMO__CPU_X86,
        .leaf_1_ecx = BIT(12) | BIT(27) | BIT(28) | BIT(29),
        .leaf_7_ebx = BIT(5) | BIT(16) | BIT(17) | BIT(30) | BIT(31),
        .leaf_7_ecx = BIT(11),
        .leaf_7_edx = BIT(22) | BIT(24) | BIT(25),
        .leaf_7_1_eax = BIT(5),
        .xcr0 = 0xE7 | 3 << 17,
        .on_request = 1 << 18,
    };
}

static void expect(const emo__cpu_features *f, emo_isa best, const char *without) {
    emo_isa is = emo__cpu_features_best(f);
    if (is != best)
        fail_msg("without %s the best level is %s and not %s", without, emo_isa_name(is), emo_isa_name(best));
    /* it has exactly the levels of its family up to that one, and the scalar one */
    for (emo_isa isa = 0; isa < 128; isa++) {
        int low = f->family == EMO__CPU_X86 ? EMO_ISA_AVX2 : EMO_ISA_NEON;
        int have = emo_isa_name(isa) != NULL && (isa == EMO_ISA_SCALAR || (isa >= low && isa <= best));
        assert_int_equal(emo__cpu_features_have(f, isa), have);
    }
}

/* Each bit that is missing costs the level that needs it and all above. */
static void test_x86(void **state) {
    (void)state;
    static const struct {
        size_t at; /* the word */
        int bits;  /* of the word */
        int bit;
        emo_isa best; /* without it */
        const char *name;
    } rows[] = {
#define WORD(field) offsetof(emo__cpu_features, field), 8 * (int)sizeof(((emo__cpu_features *)NULL)->field)
        {WORD(leaf_1_ecx), 12, EMO_ISA_SCALAR, "FMA"},
        {WORD(leaf_1_ecx), 27, EMO_ISA_SCALAR, "OSXSAVE"},
        {WORD(leaf_1_ecx), 28, EMO_ISA_SCALAR, "AVX"},
        {WORD(leaf_1_ecx), 29, EMO_ISA_SCALAR, "F16C"},
        {WORD(leaf_7_ebx), 5, EMO_ISA_SCALAR, "AVX2"},
        {WORD(leaf_7_ebx), 16, EMO_ISA_AVX2, "AVX512F"},
        {WORD(leaf_7_ebx), 17, EMO_ISA_AVX2, "AVX512DQ"},
        {WORD(leaf_7_ebx), 30, EMO_ISA_AVX2, "AVX512BW"},
        {WORD(leaf_7_ebx), 31, EMO_ISA_AVX2, "AVX512VL"},
        {WORD(leaf_7_ecx), 11, EMO_ISA_AVX512, "AVX512_VNNI"},
        {WORD(leaf_7_1_eax), 5, EMO_ISA_AVX512_VNNI, "AVX512_BF16"},
        {WORD(leaf_7_edx), 22, EMO_ISA_AVX512_BF16, "AMX_BF16"},
        {WORD(leaf_7_edx), 24, EMO_ISA_AVX512_BF16, "AMX_TILE"},
        {WORD(leaf_7_edx), 25, EMO_ISA_AVX512_BF16, "AMX_INT8"},
        {WORD(xcr0), 1, EMO_ISA_SCALAR, "saved SSE registers"},
        {WORD(xcr0), 2, EMO_ISA_SCALAR, "saved AVX registers"},
        {WORD(xcr0), 5, EMO_ISA_AVX2, "saved mask registers"},
        {WORD(xcr0), 6, EMO_ISA_AVX2, "saved upper halves"},
        {WORD(xcr0), 7, EMO_ISA_AVX2, "saved upper registers"},
        {WORD(xcr0), 17, EMO_ISA_AVX512_BF16, "saved tile configuration"},
        {WORD(xcr0), 18, EMO_ISA_AVX512_BF16, "saved tile data"},
        {WORD(on_request), 18, EMO_ISA_AVX512_BF16, "tiles on request"},
    };
    emo__cpu_features f = x86();
    expect(&f, EMO_ISA_AMX, "nothing");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        f = x86();
        char *word = (char *)&f + rows[i].at;
        uint64_t wide = 0;
        memcpy(&wide, word, (size_t)rows[i].bits / 8); /* little-endian, as all machines that are supported */
        assert_true((wide >> rows[i].bit & 1) != 0);
        wide &= ~(UINT64_C(1) << rows[i].bit);
        memcpy(word, &wide, (size_t)rows[i].bits / 8);
        expect(&f, rows[i].best, rows[i].name);
    }
}

/* Intel's processors with AMX can run the level of vdpbf16ps, which is slow on them: without tiles they take the one
 * below. */
static void test_slow_bf16(void **state) {
    (void)state;
    static const struct {
        uint32_t signature;
        emo_isa best;
    } rows[] = {{0x000806F8, EMO_ISA_AVX512_VNNI},  /* Sapphire Rapids */
                {0x000C06F2, EMO_ISA_AVX512_VNNI},  /* Emerald Rapids */
                {0x0005065B, EMO_ISA_AVX512_BF16}}; /* Cooper Lake */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        emo__cpu_features f = x86();
        f.intel = true;
        f.leaf_1_eax = rows[i].signature;
        expect(&f, EMO_ISA_AMX, "nothing");
        f.on_request = 0;
        assert_int_equal(emo__cpu_features_best(&f), rows[i].best);
        assert_true(emo__cpu_features_have(&f, EMO_ISA_AVX512_BF16)); /* when it is asked for */
    }
}

static void test_others(void **state) {
    (void)state;
    emo__cpu_features f = x86();
    f.family = EMO__CPU_OTHER; /* whatever the words hold */
    for (emo_isa isa = 0; isa < 128; isa++)
        assert_int_equal(emo__cpu_features_have(&f, isa), isa == EMO_ISA_SCALAR);
    assert_int_equal(emo__cpu_features_best(&f), EMO_ISA_SCALAR);
}

static void test_arm64(void **state) {
    (void)state;
    emo__cpu_features f = {.family = EMO__CPU_ARM64};
    expect(&f, EMO_ISA_NEON, "extensions");
    f.hwcap2 = 1 << 14; /* BF16 */
    expect(&f, EMO_ISA_NEON, "ASIMDDP");
    f.hwcap = 1 << 20; /* ASIMDDP */
    expect(&f, EMO_ISA_NEON_BF16, "nothing");
    f.hwcap2 = 0;
    expect(&f, EMO_ISA_NEON_DOT, "BF16");
    f.hwcap2 = ~(UINT64_C(1) << 14);
    expect(&f, EMO_ISA_NEON_DOT, "BF16");
    f = (emo__cpu_features){.family = EMO__CPU_ARM64, .hwcap = ~(UINT64_C(1) << 20), .hwcap2 = ~UINT64_C(0)};
    expect(&f, EMO_ISA_NEON, "ASIMDDP");
}

/* The option takes each level that this machine has, and refuses the others by their names. */
static void test_option(void **state) {
    (void)state;
    emo__cpu_features here = emo__cpu_features_here();
    int levels = 0;
    for (emo_isa isa = 1; isa < 128; isa++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
        options.threads = 1;
        options.isa = isa;
        emo_runtime *rt = NULL;
        emo_status status = emo_runtime_create(&options, &rt, &err);
        if (emo_isa_name(isa) == NULL) {
            assert_int_equal(status, EMO_E_RANGE);
        } else if (emo__cpu_features_have(&here, isa)) {
            assert_int_equal(status, EMO_OK);
            assert_int_equal(emo_runtime_isa(rt), isa);
        } else {
            assert_int_equal(status, EMO_E_UNSUPPORTED);
            assert_non_null(strstr(err.message, emo_isa_name(isa)));
            assert_non_null(strstr(err.message, emo_isa_name(emo__cpu_features_best(&here))));
        }
        levels += emo_isa_name(isa) != NULL;
        emo_runtime_release(rt);
    }
    assert_true(levels >= 5);
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    (void)printf("this machine: %s\n", emo_isa_name(emo_runtime_isa(rt))); /* scripts/test_aarch64.sh reads it */
    assert_int_equal(emo_runtime_isa(rt), emo__cpu_features_best(&here));
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_x86), cmocka_unit_test(test_slow_bf16),
                                       cmocka_unit_test(test_others), cmocka_unit_test(test_arm64),
                                       cmocka_unit_test(test_option)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
