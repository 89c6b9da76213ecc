/* SPDX-License-Identifier: Apache-2.0 */
/* The cache in pages: a budget, waiting for pages, giving them back, sharing them, and back ends without page tables.
 */
#include "serving_support.h"

TEST_RUNTIME_AND_MODEL(2, test_model(rt, wild_config, 5))

static uint64_t page_bytes(int32_t page_tokens) {
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.page_tokens = page_tokens;
    emo_session *s = test_session(model, &o);
    uint64_t bytes = test_statistics(s).page_bytes;
    emo_session_release(s);
    return bytes;
}

/* All at once in pages for `pages` * 8 tokens. */
static emo_session_statistics crowd(emo_session_options o, request *requests, uint64_t pages) {
    o.sequences = REQUESTS;
    o.page_tokens = 8;
    o.cache_bytes = pages * page_bytes(8) + 3; /* what is left over is left */
    emo_session *s = test_session(model, &o);
    emo_state now = EMO_STATE_PENDING;
    emo_error err = EMO_ERROR_INIT;
    for (int i = 0; i < REQUESTS; i++)
        assert_int_equal(test_submit(s, &requests[i]), i);
    while (now != EMO_STATE_DONE) {
        EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
        assert_true(test_statistics(s).pages_used <= (int64_t)pages);
    }
    for (int i = 0; i < REQUESTS; i++)
        test_as_alone(s, i, &requests[i]);
    emo_session_statistics did = test_statistics(s);
    assert_int_equal(did.pages_most, (int64_t)pages);
    emo_session_release(s);
    return did;
}

static void a_budget_makes_sequences_wait(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    request requests[REQUESTS];
    emo_pool_policy *policy = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, 3, &policy, &err));
    for (int pools = 0; pools < 2; pools++) {
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        o.pool = pools ? policy : NULL;
        size_t longest = 0;
        uint64_t all = 0, preempted = 0;
        for (int i = 0; i < REQUESTS; i++) {
            test_request(&requests[i], i);
            requests[i].options.max_tokens = 20;
            requests[i].options.ignore_eos = 1;
            test_alone(model, &o, &requests[i]);
            size_t n = requests[i].n + requests[i].n_tokens;
            longest = n > longest ? n : longest;
            all += (n + 7) / 8;
        }
        uint64_t least = (longest + 7) / 8;
        assert_int_equal(crowd(o, requests, all).preempted, 0);
        for (uint64_t pages = least; pages < all; pages += 3) {
            o.batching = pages % 2 == 0 ? EMO_BATCHING_ARRIVAL : EMO_BATCHING_POOL;
            o.batch_sequences = (int32_t)(pages % 4);
            preempted += crowd(o, requests, pages).preempted;
        }
        assert_true(preempted > 0);
    }
    emo_pool_policy_release(policy);
}

/* Nothing gets longer than the pages hold, and that is told before. */
static void a_budget_is_a_capacity(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.sequences = 2;
    o.page_tokens = 16;
    o.cache_bytes = 3 * page_bytes(16);
    o.ignore_eos = 1;
    emo_session *s = test_session(model, &o);
    int32_t ids[49] = {0};
    EXPECT_STATUS(emo_session_append_tokens(s, 0, ids, 49, &err), EMO_E_LIMIT, "capacity of 48");
    test_append(s, 0, 40, 1);
    test_append(s, 1, 40, 2);
    (void)test_finish(s, NULL);
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(emo_session_generated(s, i, NULL, NULL), 8);
        assert_int_equal(emo_session_stop_reason(s, i), EMO_STOP_LENGTH);
    }
    /* the second took the pages of the first, which had stopped */
    assert_int_equal(test_statistics(s).pages_used, 3);
    assert_int_equal(test_statistics(s).preempted, 0);
    EXPECT_OK(emo_session_remove(s, 1, &err));
    assert_int_equal(test_statistics(s).pages_used, 0);
    emo_session_release(s);
}

/* A stopped sequence whose pages another one took goes on as one that kept them. */
static void turns_survive_a_budget(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.sequences = 2;
    o.max_tokens = 4;
    o.ignore_eos = 1;
    o.page_tokens = 16;
    emo_session *kept = test_session(model, &o);
    o.cache_bytes = 4 * page_bytes(16);
    emo_session *poor = test_session(model, &o);
    emo_session *both[] = {kept, poor};
    for (int i = 0; i < 2; i++) {
        for (int turn = 0; turn < 3; turn++) {
            for (int32_t q = 0; q < 2; q++) {
                test_append(both[i], q, 14, (uint64_t)(turn * 2 + q));
                (void)test_finish(both[i], NULL);
            }
        }
    }
    for (int32_t q = 0; q < 2; q++)
        test_same_output(kept, q, poor, q);
    assert_true(test_statistics(poor).batch_tokens > test_statistics(kept).batch_tokens);
    EXPECT_OK(emo_session_reset(poor, &err));
    assert_int_equal(test_statistics(poor).pages_used, 0);
    emo_session_release(kept);
    emo_session_release(poor);
}

static void beginnings_are_shared(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_pool_policy *policy = NULL;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, 3, &policy, &err));
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 2, 0, &err));
    request r[4];
    for (int i = 0; i < 4; i++) {
        test_request(&r[i], i);
        test_prompt(r[i].prompt, LONGEST, 3);
        r[i].n = i == 1 ? 32 : 37; /* 1: whole pages, of which the last token is computed again */
        r[i].prompt[i == 2 ? 20 : 36] = 200 + i;
    }
    r[3].options.mask = mask;
    o.sequences = 4;
    o.page_tokens = 8;
    for (int round = 0; round < 3; round++) {
        static const uint64_t want[] = {24 + 16, 0, 0};
        o.share_prefix = round != 1;
        o.pool = round == 2 ? policy : NULL;
        for (int i = 0; i < 4; i++)
            test_alone(model, &o, &r[i]);
        emo_session *s = test_session(model, &o);
        for (int i = 0; i < 4; i++) {
            emo_state now;
            assert_int_equal(test_submit(s, &r[i]), i);
            EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
        }
        assert_int_equal(test_statistics(s).shared_tokens, want[round]);
        assert_int_equal(test_statistics(s).pages_shared, want[round] > 0 ? 3 : 0);
        EXPECT_OK(emo_session_cancel(s, 0, &err)); /* what it shared stays with the others */
        assert_int_equal(test_statistics(s).pages_shared, want[round] > 0 ? 2 : 0);
        (void)test_finish(s, NULL);
        for (int i = 1; i < 4; i++)
            test_as_alone(s, i, &r[i]);
        for (int32_t i = 0; i < 4; i++)
            EXPECT_OK(emo_session_remove(s, i, &err));
        assert_int_equal(test_statistics(s).pages_used, 0);
        emo_session_release(s);
    }
    emo_mask_release(mask);
    emo_pool_policy_release(policy);
}

static int32_t supports_no_pages(const emo_backend *backend, int32_t op, emo_dtype weight_dtype) {
    (void)backend;
    (void)weight_dtype;
    return op != EMO_OP_ATTENTION_PAGES;
}

/* A back end of before there were page tables gets one run of rows for each sequence. */
static void without_page_tables(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    request requests[3];
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    for (int i = 0; i < 3; i++) {
        test_request(&requests[i], i + 2);
        test_alone(model, &o, &requests[i]);
    }
    emo_backend_ops old = *model->backend->ops;
    const emo_backend_ops *ops = model->backend->ops;
    old.supports = supports_no_pages;
    model->backend->ops = &old;
    o.sequences = 2;
    o.capacity = 100;
    emo_session *s = test_session(model, &o);
    assert_int_equal(test_statistics(s).page_tokens, 100);
    assert_int_equal(test_statistics(s).pages_most, 2);
    for (int i = 0; i < 2; i++)
        (void)test_submit(s, &requests[i]);
    (void)test_finish(s, NULL);
    EXPECT_OK(emo_session_remove(s, 0, &err));
    assert_int_equal(test_submit(s, &requests[2]), 0);
    (void)test_finish(s, NULL);
    test_as_alone(s, 0, &requests[2]);
    test_as_alone(s, 1, &requests[1]);
    emo_session_release(s);
    model->backend->ops = ops;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_budget_makes_sequences_wait), cmocka_unit_test(a_budget_is_a_capacity),
        cmocka_unit_test(turns_survive_a_budget),        cmocka_unit_test(beginnings_are_shared),
        cmocka_unit_test(without_page_tables),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
