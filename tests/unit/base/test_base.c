/* SPDX-License-Identifier: Apache-2.0 */
/* Statuses, memory, threads, random numbers, conversions. */
#include <math.h>
#include <stdatomic.h>

#include "base/options.h"
#include "base/runtime.h"
#include "base/status.h"
#include "support/support.h"
#include "tensor/dtype.h"
#include "tensor/philox.h"

static void status_names(void **state) {
    (void)state;
    assert_string_equal(emo_status_name(EMO_E_BUSY), "EMO_E_BUSY");
    assert_string_equal(emo_status_name(-999), "EMO_E_UNKNOWN");
}

static void long_messages_are_cut_at_utf8_borders(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    char text[1200] = {0};
    for (size_t i = 0; i + 2 < sizeof text; i += 2)
        memcpy(text + i, "\xC3\xA9", 2);
    assert_int_equal(emo__fail(&err, EMO_E_IO, "x%s", text), EMO_E_IO);
    size_t n = strlen(err.message);
    assert_true(n >= sizeof err.message - 3);
    assert_int_equal((unsigned char)err.message[n - 1], 0xA9);
    assert_int_equal((n - 1) % 2, 0);
}

typedef struct counted {
    atomic_int hits[1000];
} counted;

static void count_one(void *task, size_t index, size_t worker) {
    counted *c = task;
    assert_true(worker < 4);
    atomic_fetch_add(&c->hits[index], 1);
}

static void every_index_runs_once(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(4, EMO_ISA_AUTO);
    static counted c;
    for (int round = 0; round < 300; round++) {
        memset(&c, 0, sizeof c);
        size_t n = (size_t)(round * 7) % 1000 + 1;
        emo__parallel_for(rt, n, count_one, &c);
        for (size_t i = 0; i < 1000; i++)
            assert_int_equal(atomic_load(&c.hits[i]), i < n ? 1 : 0);
    }
    emo_runtime_release(rt);
}

/* Known answers from the Random123 distribution (kat_vectors, philox4x32 10). */
static void philox_known_answers(void **state) {
    (void)state;
    uint32_t zero[4] = {0, 0, 0, 0};
    emo__philox r = emo__philox4x32(0, zero);
    assert_int_equal(r.v[0], 0x6627e8d5u);
    assert_int_equal(r.v[1], 0xe169c58du);
    assert_int_equal(r.v[2], 0xbc57ac4cu);
    assert_int_equal(r.v[3], 0x9b00dbd8u);
    uint32_t pi[4] = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};
    r = emo__philox4x32(0x299f31d0a4093822u, pi);
    assert_int_equal(r.v[0], 0xd16cfe09u);
    assert_int_equal(r.v[1], 0x94fdccebu);
    assert_int_equal(r.v[2], 0x5001e420u);
    assert_int_equal(r.v[3], 0x24126ea1u);
}

static void permutation_is_one(void **state) {
    (void)state;
    uint32_t order[257];
    int seen[257] = {0};
    emo__permutation(7, EMO__RNG_ORDER, 3, order, 257);
    for (size_t i = 0; i < 257; i++)
        seen[order[i]]++;
    for (size_t i = 0; i < 257; i++)
        assert_int_equal(seen[i], 1);
}

static void half_conversions_round_trip(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = emo__f16_to_f32((uint16_t)h);
        if (!isnan(f))
            assert_int_equal(emo__f32_to_f16(f), h);
        f = emo__bf16_to_f32((uint16_t)h);
        if (!isnan(f))
            assert_int_equal(emo__f32_to_bf16(f), h);
    }
    assert_int_equal(emo__f32_to_f16(1.0f + 0x1p-11f), 0x3C00); /* tie to even */
    assert_int_equal(emo__f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(emo__f32_to_bf16(1.0f + 0x1p-8f), 0x3F80);
}

static void options_refuse_what_they_do_not_know(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    struct {
        emo_runtime_options known;
        uint64_t tail;
    } future = {EMO_RUNTIME_OPTIONS_INIT, 0};
    future.known.struct_size = sizeof future;
    emo_runtime *rt = NULL;
    EXPECT_OK(emo_runtime_create(&future.known, &rt, &err));
    emo_runtime_release(rt);
    future.tail = 5;
    EXPECT_STATUS(emo_runtime_create(&future.known, &rt, &err), EMO_E_UNSUPPORTED, "offset");
    emo_runtime_options bad = EMO_RUNTIME_OPTIONS_INIT;
    bad.threads = -1;
    EXPECT_STATUS(emo_runtime_create(&bad, &rt, &err), EMO_E_RANGE, "threads");
    bad.threads = 1;
    bad.struct_size = 0;
    EXPECT_STATUS(emo_runtime_create(&bad, &rt, &err), EMO_E_INVALID_ARGUMENT, "struct_size");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status_names),
        cmocka_unit_test(long_messages_are_cut_at_utf8_borders),
        cmocka_unit_test(every_index_runs_once),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(permutation_is_one),
        cmocka_unit_test(half_conversions_round_trip),
        cmocka_unit_test(options_refuse_what_they_do_not_know),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
