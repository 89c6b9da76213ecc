/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions under failing allocations and on several threads. */
#include <pthread.h>

#include "infer_support.h"
#include "support/meter.h"

/* ---- memory ---- */

/* A short generation; a failed call is made again. Returns the number of failures. */
static int generate(emo_model *model, const emo_pool_policy *pool, const emo_mask *mask, int32_t *out, size_t *n,
                    char *text) {
    emo_error err = EMO_ERROR_INIT;
    static const char *const stop[] = {"never said"};
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 6;
    o.ignore_eos = 1;
    o.sequences = 2;
    o.stop = stop;
    o.n_stop = 1;
    o.pool = pool;
    o.page_tokens = 16;
    o.batch_sequences = 1;
    o.batching = EMO_BATCHING_POOL;
    o.count_experts = 1;
    emo_sequence_options own = EMO_SEQUENCE_OPTIONS_INIT;
    own.max_tokens = 6;
    own.mask = mask;
    emo_session *s = NULL;
    int32_t second = -1;
    int failures = 0;
    while (emo_session_create(model, &o, &s, &err) != EMO_OK) {
        assert_int_equal(err.code, EMO_E_OUT_OF_MEMORY);
        assert_null(s);
        failures++;
    }
    while (emo_session_append_text(s,
                                   "some text that is longer than one row of the cache: "
                                   "it needs to grow while the tokens are generated",
                                   &err) != EMO_OK) {
        assert_int_equal(err.code, EMO_E_OUT_OF_MEMORY);
        failures++;
    }
    while (emo_session_add(s, &own, &second, &err) != EMO_OK) {
        assert_int_equal(err.code, EMO_E_OUT_OF_MEMORY);
        assert_int_equal(second, -1);
        failures++;
    }
    assert_int_equal(second, 1);
    const int32_t ids[] = {4, 5, 6};
    while (emo_session_append_tokens(s, 1, ids, 3, &err) != EMO_OK) {
        assert_int_equal(err.code, EMO_E_OUT_OF_MEMORY);
        failures++;
    }
    emo_state state = EMO_STATE_PENDING;
    text[0] = '\0';
    while (state != EMO_STATE_DONE) {
        if (emo_session_advance(s, NULL, &state, &err) == EMO_OK) {
            strcat(text, emo_session_text(s));
            continue;
        }
        assert_int_equal(err.code, EMO_E_OUT_OF_MEMORY);
        assert_true(++failures < 3);
    }
    const int32_t *generated;
    *n = emo_session_generated(s, 0, &generated, NULL);
    assert_true(*n > 0);
    memcpy(out, generated, *n * sizeof *out);
    emo_session_release(s);
    return failures;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    meter m = METER_INIT;
    emo_runtime *rt = meter_runtime(&m, 1);
    emo_model *model = test_model(rt, wild_config, 5);
    test_attach_bytes(rt, model);
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, 4, &pool, &err));
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 1, 0, &err));
    for (int with_pool = 0; with_pool < 2; with_pool++) {
        int32_t want[6], got[6];
        size_t n_want, n_got;
        char text_want[128], text_got[128];
        long before = m.live;
        meter_arm(&m, -1, 0);
        assert_int_equal(generate(model, with_pool ? pool : NULL, mask, want, &n_want, text_want), 0);
        long allocations = m.calls;
        assert_true(allocations > 50);
        assert_int_equal(m.live, before);
        for (long i = 0; i < allocations; i++) {
            meter_arm(&m, i, 0);
            /* the failing one may be an optional one, but then nothing fails at all */
            int failures = generate(model, with_pool ? pool : NULL, mask, got, &n_got, text_got);
            assert_int_equal(failures, 1);
            meter_disarm(&m);
            assert_int_equal(m.live, before);
            assert_int_equal(n_got, n_want);
            assert_memory_equal(got, want, n_want * sizeof *want);
            assert_string_equal(text_got, text_want);
        }
    }
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&m, "sessions");
}

/* A token in the middle of a long generation asks for no memory. */
static void decoding_does_not_allocate(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    meter m = METER_INIT;
    emo_runtime *rt = meter_runtime(&m, 1);
    emo_model *model = test_model(rt, wild_config, 5);
    test_attach_bytes(rt, model);
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.ignore_eos = 1;
    emo_session *s = test_session(model, &o);
    test_append(s, 0, 130, 1); /* the cache has 256 rows then, as have the angles */
    emo_state now;
    for (int i = 0; i < 20; i++)
        EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
    meter_arm(&m, -1, 0);
    for (int i = 0; i < 40; i++)
        EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
    assert_in_range(m.calls, 0, 4); /* the arrays of tokens double now and then */
    emo_session_release(s);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&m, "a long generation");
}

/* ---- threads ---- */

typedef struct worker {
    emo_model *model;
    uint64_t seed;
    size_t n;
    int32_t out[64];
} worker;

static void *work(void *arg) {
    worker *w = arg;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 40;
    o.ignore_eos = 1;
    emo_session *s = NULL;
    w->n = 0;
    if (emo_session_create(w->model, &o, &s, NULL) != EMO_OK)
        return NULL;
    int32_t ids[50];
    test_prompt(ids, 50, w->seed);
    emo_state state = EMO_STATE_PENDING;
    emo_status status = emo_session_append_tokens(s, 0, ids, 50, NULL);
    while (status == EMO_OK && state != EMO_STATE_DONE)
        status = emo_session_advance(s, NULL, &state, NULL);
    const int32_t *generated;
    w->n = status == EMO_OK ? emo_session_generated(s, 0, &generated, NULL) : 0;
    memcpy(w->out, generated, w->n * sizeof *generated);
    emo_session_release(s);
    return NULL;
}

static void sessions_of_one_model_run_at_once(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_model *model = test_model(rt, wild_config, 5);
    worker alone[2] = {{model, 1, 0, {0}}, {model, 2, 0, {0}}};
    worker both[2] = {{model, 1, 0, {0}}, {model, 2, 0, {0}}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        (void)work(&alone[i]);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &both[i]), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(alone[i].n, 40);
        assert_int_equal(both[i].n, 40);
        assert_memory_equal(alone[i].out, both[i].out, 40 * sizeof(int32_t));
    }
    assert_memory_not_equal(alone[0].out, alone[1].out, 40 * sizeof(int32_t));
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* One session on two threads: the second is told. */
static int32_t intrude(void *ctx, const emo_progress_info *info) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *s = *(emo_session **)ctx;
    emo_state now;
    const int32_t id = 1;
    float logits[VOCAB];
    (void)info;
    if (s == NULL)
        return 0;
    EXPECT_STATUS(emo_session_advance(s, NULL, &now, &err), EMO_E_BUSY, "in use");
    EXPECT_STATUS(emo_session_append_tokens(s, 0, &id, 1, &err), EMO_E_BUSY, "in use");
    EXPECT_STATUS(emo_session_reset(s, &err), EMO_E_BUSY, "in use");
    EXPECT_STATUS(emo_session_logits(s, 0, logits, VOCAB, &err), EMO_E_BUSY, "in use");
    assert_string_equal(emo_session_text(s), "");
    return 0;
}

static void a_session_in_use_says_so(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = test_model(rt, wild_config, 5);
    emo_session *s = NULL;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 2;
    o.progress.ctx = &s;
    o.progress.report = intrude;
    s = test_session(model, &o);
    test_append(s, 0, 4, 1);
    (void)test_finish(s, NULL);
    emo_session_release(s);
    emo_model_release(model);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(decoding_does_not_allocate),
        cmocka_unit_test(sessions_of_one_model_run_at_once),
        cmocka_unit_test(a_session_in_use_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
