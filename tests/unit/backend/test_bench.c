/* SPDX-License-Identifier: Apache-2.0 */
/* Benches: every operator can be timed forward and backward, in every type of weights it takes; what it cannot be is
 * refused in words. What is timed is the operator itself: its work is counted by hand here. */
#include <emo/sys/bench.h>

#include "support/meter.h"

TEST_RUNTIME(2, EMO_ISA_AUTO)

static emo_bench_options shape(emo_bench_kind kind) {
    emo_bench_options o = EMO_BENCH_OPTIONS_INIT;
    o.kind = kind;
    o.tokens = 80;
    o.hidden = 64;
    o.inner = 32;
    o.experts = 9;
    o.vocab = 200;
    o.document = 33;
    o.bytes = 4 << 20;
    return o;
}

static emo_status try_on(emo_runtime *where, const emo_bench_options *o, double *operations, double *bytes,
                         emo_error *why) {
    emo_error err = EMO_ERROR_INIT;
    emo_bench *bench = NULL;
    emo_status status = emo_bench_create(where, o, &bench, why);
    if (status == EMO_OK) {
        double seconds = -1.0;
        EXPECT_OK(emo_bench_run(bench, 3, &seconds, &err));
        assert_true(seconds > 0.0);
        emo_bench_work(bench, operations, bytes);
    } else {
        assert_null(bench);
    }
    emo_bench_release(bench);
    return status;
}

static emo_status try_bench(const emo_bench_options *o, double *operations, double *bytes, emo_error *why) {
    return try_on(rt, o, operations, bytes, why);
}

static void every_operator(void **state) {
    (void)state;
    static const emo_dtype types[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16, EMO_DTYPE_Q8_0};
    emo_error err = EMO_ERROR_INIT;
    int seen = 0;
    for (emo_bench_kind kind = EMO_BENCH_EMBED; kind <= EMO_BENCH_SUMSQ; kind++)
        for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
            for (int32_t backward = 0; backward < 2; backward++) {
                emo_bench_options o = shape(kind);
                double operations = -1.0, bytes = -1.0;
                o.weights = types[t];
                o.backward = backward;
                emo_status status = try_bench(&o, &operations, &bytes, &err);
                if (status == EMO_OK) {
                    assert_true(bytes > 0.0);
                    seen++;
                } else { /* no backward pass of it, no such weights, no such operator for them */
                    assert_true((backward && status == EMO_E_RANGE) || status == EMO_E_UNSUPPORTED);
                    assert_true(err.message[0] != '\0');
                }
            }
    /* thirteen operators in two float types, eight of them backward too; five with quantised weights */
    assert_int_equal(seen, 2 * 13 + 2 * 8 + 5);
}

static void the_work_is_counted(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    double operations = 0, bytes = 0;
    emo_bench_options o = shape(EMO_BENCH_LINEAR);
    EXPECT_OK(try_bench(&o, &operations, &bytes, &err));
    assert_true(operations == 2.0 * 80 * 64 * 32);
    assert_true(bytes == 4.0 * (80 * 64 + 80 * 32 + 32 * 64));
    o.backward = 1;
    EXPECT_OK(try_bench(&o, &operations, &bytes, &err));
    assert_true(operations == 4.0 * 80 * 64 * 32);
    o = shape(EMO_BENCH_EXPERTS);
    o.tokens = 1; /* four experts, the shared one among them */
    o.weights = EMO_DTYPE_BF16;
    EXPECT_OK(try_bench(&o, &operations, &bytes, &err));
    assert_true(operations == 6.0 * 4 * 64 * 32);
    assert_true(bytes == 8.0 * 64 + 4 * 3 * 2.0 * 64 * 32);
    o = shape(EMO_BENCH_ATTENTION);
    o.tokens = 2; /* the first sees six keys, the second seven */
    o.document = 0;
    o.past = 5;
    EXPECT_OK(try_bench(&o, &operations, &bytes, &err));
    assert_true(operations == 4.0 * 64 * (6 + 7));
    o = shape(EMO_BENCH_ATTENTION); /* documents of 33, 33 and 14 */
    EXPECT_OK(try_bench(&o, &operations, &bytes, &err));
    assert_true(operations == 4.0 * 64 * (2 * 33 * 34 / 2 + 14 * 15 / 2));
}

static void limits(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (emo_bench_kind kind = EMO_BENCH_READ; kind <= EMO_BENCH_PEAK_INT8; kind++) {
        emo_bench_options o = shape(kind);
        double operations = 0, bytes = 0;
        for (o.compute = EMO_DTYPE_F32; o.compute <= EMO_DTYPE_BF16; o.compute += EMO_DTYPE_BF16) {
            emo_status status = try_bench(&o, &operations, &bytes, &err);
            if (status != EMO_OK)
                assert_true(kind == EMO_BENCH_PEAK_INT8 && status == EMO_E_UNSUPPORTED);
            else
                assert_true(kind == EMO_BENCH_READ ? bytes == 4 << 20 : operations > 1e6);
        }
    }
}

/* Whole numbers have a peak where a level has instructions for their sums, and there alone. */
static void peaks_of_every_level(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (emo_isa isa = EMO_ISA_SCALAR; isa <= EMO_ISA_AMX; isa++) {
        if (emo_isa_name(isa) == NULL || !test_has_isa(isa))
            continue;
        emo_runtime *level = test_runtime(1, isa);
        emo_bench_options o = shape(EMO_BENCH_PEAK);
        double operations = 0, bytes = 0;
        o.compute = EMO_DTYPE_BF16;
        EXPECT_OK(try_on(level, &o, &operations, &bytes, &err));
        assert_true(operations > 1e6);
        o.kind = EMO_BENCH_PEAK_INT8;
        int sums = isa >= EMO_ISA_AVX512_VNNI || (isa >= EMO_ISA_NEON_DOT && isa < EMO_ISA_AVX2);
        emo_status status = try_on(level, &o, &operations, &bytes, &err);
        assert_int_equal(status, sums ? EMO_OK : EMO_E_UNSUPPORTED);
        if (!sums)
            assert_non_null(strstr(err.message, emo_isa_name(isa)));
        emo_runtime_release(level);
    }
}

static void what_is_refused(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_bench *bench = NULL;
    emo_bench_options o;
#define REFUSE(kind, field, bad, status, words)                                                                        \
    o = shape(kind);                                                                                                   \
    o.field = bad;                                                                                                     \
    EXPECT_STATUS(emo_bench_create(rt, &o, &bench, &err), status, words)
    REFUSE(7, tokens, 1, EMO_E_RANGE, "kind is 7");
    REFUSE(EMO_BENCH_READ, bytes, 5, EMO_E_RANGE, "bytes");
    REFUSE(EMO_BENCH_READ, device, "cuda", EMO_E_NOT_FOUND, "cuda");
    REFUSE(EMO_BENCH_LINEAR, tokens, 0, EMO_E_RANGE, "tokens is 0");
    REFUSE(EMO_BENCH_LINEAR, heads, 3, EMO_E_RANGE, "heads is 3");
    REFUSE(EMO_BENCH_LINEAR, weights, EMO_DTYPE_I32, EMO_E_RANGE, "weights");
    REFUSE(EMO_BENCH_LINEAR, compute, EMO_DTYPE_F16, EMO_E_RANGE, "compute");
    REFUSE(EMO_BENCH_LINEAR, past, 3, EMO_E_RANGE, "past");
    REFUSE(EMO_BENCH_LINEAR, weights, EMO_DTYPE_Q4_K, EMO_E_RANGE, "q4_k");
    REFUSE(EMO_BENCH_EXPERTS, top_k, 10, EMO_E_RANGE, "top_k is 10");
    REFUSE(EMO_BENCH_ROPE, backward, 1, EMO_E_RANGE, "backward");
    REFUSE(EMO_BENCH_NORM, weights, EMO_DTYPE_Q8_0, EMO_E_UNSUPPORTED, "q8_0");
#undef REFUSE
    o = shape(EMO_BENCH_NORM);
    EXPECT_OK(emo_bench_create(rt, &o, &bench, &err));
    double seconds = 1.0;
    EXPECT_STATUS(emo_bench_run(bench, 0, &seconds, &err), EMO_E_RANGE, "calls");
    emo_bench_release(bench);
}

/* Every allocation of every kind fails once, in the making and in the first run. */
static void memory_that_runs_out(void **state) {
    (void)state;
    static meter hook = METER_INIT;
    emo_error err = EMO_ERROR_INIT;
    for (emo_bench_kind kind = EMO_BENCH_READ; kind <= EMO_BENCH_SUMSQ; kind++) {
        if (kind > EMO_BENCH_PEAK && kind < EMO_BENCH_EMBED)
            continue;
        int made = 0;
        for (long n = 0; !made; n++) {
            emo_bench_options o = shape(kind);
            emo_bench *bench = NULL;
            emo_runtime *runtime = meter_runtime(&hook, 1);
            o.backward = kind == EMO_BENCH_EXPERTS || kind == EMO_BENCH_ROUTE || kind == EMO_BENCH_ATTENTION;
            meter_arm(&hook, n, 0);
            emo_status status = emo_bench_create(runtime, &o, &bench, &err);
            made = atomic_load(&hook.refused) == 0;
            meter_disarm(&hook);
            if (made)
                assert_int_equal(status, EMO_OK);
            else
                assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
            emo_bench_release(bench);
            emo_runtime_release(runtime);
            meter_check(&hook, "bench");
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operator),  cmocka_unit_test(the_work_is_counted),
        cmocka_unit_test(limits),          cmocka_unit_test(peaks_of_every_level),
        cmocka_unit_test(what_is_refused), cmocka_unit_test(memory_that_runs_out),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
