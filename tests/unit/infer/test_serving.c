/* SPDX-License-Identifier: Apache-2.0 */
/* Many sequences in one session: each gives what it gives alone, whoever comes, goes and waits beside it. */
#include "serving_support.h"

TEST_RUNTIME_AND_MODEL(3, test_model(rt, wild_config, 5))

/* Requests come at two a call, in an order of their own; those that are done make room. */
static void serve(const emo_session_options *o, const emo_budget *budget, const request *requests, int first) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *s = test_session(model, o);
    int32_t of[REQUESTS]; /* sequence of each; -1: to come, -2: done */
    int left = REQUESTS, calls = 0;
    for (int i = 0; i < REQUESTS; i++)
        of[i] = -1;
    while (left > 0) {
        emo_state now;
        for (int i = 0, come = 0; i < REQUESTS && come < 2; i++) {
            int at = (first + i * 4) % REQUESTS;
            if (of[at] != -1 || test_statistics(s).sequences == o->sequences)
                continue;
            of[at] = test_submit(s, &requests[at]);
            come++;
        }
        EXPECT_OK(emo_session_advance(s, budget, &now, &err));
        for (int i = 0; i < REQUESTS; i++) {
            if (of[i] < 0 || emo_session_stop_reason(s, of[i]) == EMO_STOP_NONE)
                continue;
            test_as_alone(s, of[i], &requests[i]);
            EXPECT_OK(emo_session_remove(s, of[i], &err));
            of[i] = -2;
            left--;
        }
        assert_true(++calls < 20000);
    }
    emo_session_statistics did = test_statistics(s);
    assert_int_equal(did.sequences, 0);
    assert_int_equal(did.pages_used, 0);
    if (o->batch_sequences > 0)
        assert_true(did.batch_sequences <= did.batches * (uint64_t)o->batch_sequences);
    emo_session_release(s);
}

static void every_way(const emo_session_options *base) {
    static request requests[REQUESTS];
    static const emo_budget budgets[] = {{0, 0, 0}, {0, 7, 0}, {0, 0, 3}};
    for (int i = 0; i < REQUESTS; i++) {
        test_request(&requests[i], i);
        test_alone(model, base, &requests[i]);
    }
    for (int i = 0; i < 12; i++) {
        emo_session_options o = *base;
        o.sequences = i % 3 == 0 ? REQUESTS : 5;
        o.batching = i % 2 == 0 ? EMO_BATCHING_ARRIVAL : EMO_BATCHING_POOL;
        o.batch_sequences = (i / 2) % 4;
        o.batch_tokens = i % 5 == 4 ? 512 : 9;
        o.page_tokens = 1 << (i % 4 * 2);
        o.max_wait = 1 + i;
        o.count_experts = i % 2;
        serve(&o, &budgets[i % 3], requests, i);
    }
}

static void each_as_alone(void **state) {
    (void)state;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    every_way(&o);
}

static void each_as_alone_with_pools(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_pool_policy *policy = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, 3, &policy, &err));
    o.pool = policy;
    every_way(&o);
    emo_pool_policy_release(policy);
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 3, 7, &policy, &err)); /* sizes are drawn from the sequence's seed */
    EXPECT_OK(emo_pool_policy_set_scope(policy, EMO_POOL_SCOPE_PROMPT, &err));
    o.pool = policy;
    every_way(&o);
    emo_pool_policy_release(policy);
    EXPECT_OK(emo_pool_policy_create_mass(rt, 0.5f, 2, 6, &policy, &err));
    EXPECT_OK(emo_pool_policy_set_scope(policy, EMO_POOL_SCOPE_PROMPT, &err));
    o.pool = policy;
    every_way(&o);
    emo_pool_policy_release(policy);
}

static void a_sequence_has_its_own_mask(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_mask *wide = NULL, *narrow = NULL, *seen = NULL, *both = NULL;
    EXPECT_OK(emo_model_mask(model, &wide, &err));
    EXPECT_OK(emo_model_mask(model, &narrow, &err));
    for (int32_t e = 0; e < 4; e++) {
        EXPECT_OK(emo_mask_set(wide, 0, e, e != 1, &err));
        EXPECT_OK(emo_mask_set(narrow, 0, 4 + e, 0, &err));
        EXPECT_OK(emo_mask_set(narrow, 2, e, 0, &err));
    }
    EXPECT_OK(emo_mask_intersect(wide, narrow, &both, &err));
    for (int pools = 0; pools < 2; pools++) {
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        emo_pool_policy *policy = NULL;
        request one, other;
        if (pools)
            EXPECT_OK(emo_pool_policy_from_prompt(rt, 3, &policy, &err));
        o.sequences = 2;
        o.mask = wide;
        o.pool = policy;
        test_request(&one, 1);
        test_request(&other, 1);
        test_alone(model, &o, &other);
        one.options.mask = both;
        test_alone(model, &o, &one);
        assert_memory_not_equal(one.logprobs, other.logprobs, sizeof(float));
        one.options.mask = narrow;
        emo_session *s = test_session(model, &o);
        int32_t a = test_submit(s, &one), b = test_submit(s, &other);
        EXPECT_OK(emo_session_pool(s, a, &seen, &err));
        assert_true(emo_mask_equal(seen, both));
        emo_mask_release(seen);
        (void)test_finish(s, NULL);
        test_as_alone(s, a, &one);
        test_as_alone(s, b, &other);
        EXPECT_OK(emo_session_remove(s, a, &err));
        EXPECT_OK(emo_session_pool(s, a, &seen, &err)); /* whoever comes next has nothing of it */
        assert_true(emo_mask_equal(seen, wide));
        emo_mask_release(seen);
        emo_session_release(s);
        emo_pool_policy_release(policy);
    }
    emo_mask_release(wide);
    emo_mask_release(narrow);
    emo_mask_release(both);
}

/* Cancelled and removed in the middle of a batch, and their places taken at once. */
static void in_the_middle_of_a_batch(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    request r[4];
    for (int i = 0; i < 4; i++) {
        test_request(&r[i], i + 1);
        test_alone(model, &o, &r[i]);
    }
    o.sequences = 3;
    const emo_budget few = {0, 1, 0};
    for (int at = 0; at < 40; at += 3) { /* in each stage of the first batches */
        emo_session *s = test_session(model, &o);
        emo_state now;
        int32_t a = test_submit(s, &r[0]), b = test_submit(s, &r[1]), c = test_submit(s, &r[2]);
        for (int i = 0; i < at; i++)
            EXPECT_OK(emo_session_advance(s, &few, &now, &err));
        EXPECT_OK(emo_session_cancel(s, a, &err));
        EXPECT_OK(emo_session_cancel(s, a, &err)); /* again is nothing */
        assert_int_equal(emo_session_stop_reason(s, a), EMO_STOP_CANCELLED);
        EXPECT_OK(emo_session_remove(s, b, &err));
        int32_t d = test_submit(s, &r[3]);
        assert_int_equal(d, b);
        (void)test_finish(s, NULL);
        assert_int_equal(emo_session_stop_reason(s, a), EMO_STOP_CANCELLED);
        test_as_alone(s, c, &r[2]);
        test_as_alone(s, d, &r[3]);
        /* what was cancelled can go on: it is computed anew, and takes up where it was */
        const int32_t *tokens;
        size_t n = emo_session_generated(s, a, &tokens, NULL);
        assert_memory_equal(tokens, r[0].tokens, n * sizeof *tokens);
        const int32_t more = 9;
        EXPECT_OK(emo_session_append_tokens(s, a, &more, 1, &err));
        (void)test_finish(s, NULL);
        assert_true(emo_session_generated(s, a, NULL, NULL) > n);
        emo_session_release(s);
    }
}

static void a_cancelled_sequence_goes_on_as_if_it_had_waited(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.sequences = 2;
    o.max_tokens = 5;
    o.ignore_eos = 1;
    emo_session *s = test_session(model, &o);
    for (int32_t i = 0; i < 2; i++)
        test_append(s, i, 30, 4);
    (void)test_finish(s, NULL);
    EXPECT_OK(emo_session_cancel(s, 1, &err)); /* only its pages go */
    assert_int_equal(emo_session_stop_reason(s, 1), EMO_STOP_LENGTH);
    assert_int_equal(test_statistics(s).pages_used, 1);
    for (int32_t i = 0; i < 2; i++)
        test_append(s, i, 7, 8);
    (void)test_finish(s, NULL);
    assert_int_equal(emo_session_generated(s, 1, NULL, NULL), 10);
    test_same_output(s, 0, s, 1);
    emo_session_release(s);
}

static void mistakes_are_told(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_sequence_options q = EMO_SEQUENCE_OPTIONS_INIT;
    emo_session *s = NULL;
    int32_t sequence = 7;
    o.page_tokens = 48;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_RANGE, "power of two");
    o.page_tokens = 8192;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_RANGE, "page_tokens");
    o.page_tokens = 64;
    o.batching = 2;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_RANGE, "batching");
    o.batching = 0;
    o.max_wait = 0;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_RANGE, "max_wait");
    o.max_wait = 1;
    o.batch_tokens = 0;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_RANGE, "batch_tokens");
    o.batch_tokens = 1;
    o.cache_bytes = 10;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_LIMIT, "holds no page");
    o.cache_bytes = 0;
    s = test_session(model, &o);
    q.top_p = 0.0f;
    EXPECT_STATUS(emo_session_add(s, &q, &sequence, &err), EMO_E_RANGE, "emo_sequence_options.top_p");
    assert_int_equal(sequence, -1);
    q.top_p = 1.0f;
    q.reserved = 1;
    EXPECT_STATUS(emo_session_add(s, &q, &sequence, &err), EMO_E_RANGE, "reserved");
    EXPECT_OK(emo_session_add(s, NULL, &sequence, &err));
    assert_int_equal(sequence, 0);
    EXPECT_STATUS(emo_session_add(s, NULL, &sequence, &err), EMO_E_LIMIT, "all 1 sequences");
    EXPECT_STATUS(emo_session_cancel(s, 1, &err), EMO_E_RANGE, "sequence 1");
    EXPECT_STATUS(emo_session_remove(s, -1, &err), EMO_E_RANGE, "sequence -1");
    EXPECT_STATUS(emo_session_append_text_to(s, 1, "a", &err), EMO_E_RANGE, "sequence 1");
    emo_session_statistics unset = {0};
    EXPECT_STATUS(emo_session_get_statistics(s, &unset, &err), EMO_E_INVALID_ARGUMENT, "struct_size");
    EXPECT_OK(emo_session_remove(s, 0, &err));
    EXPECT_OK(emo_session_remove(s, 0, &err)); /* a free one stays free */
    EXPECT_OK(emo_session_add(s, NULL, &sequence, &err));
    emo_session_release(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_as_alone),
        cmocka_unit_test(each_as_alone_with_pools),
        cmocka_unit_test(a_sequence_has_its_own_mask),
        cmocka_unit_test(in_the_middle_of_a_batch),
        cmocka_unit_test(a_cancelled_sequence_goes_on_as_if_it_had_waited),
        cmocka_unit_test(mistakes_are_told),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
