/* SPDX-License-Identifier: Apache-2.0 */
/* What a session computes does not depend on how the work is cut: against a plain pass, alone or together, in slices,
 * cancelled and resumed; masks and pools. */
#include <emo/mask.h>
#include <math.h>

#include "infer_support.h"
#include "model/files.h"

TEST_RUNTIME_AND_MODEL(2, test_model(rt, wild_config, 5))

/* Logits of the last of n tokens, everything computed anew without a cache; in slices of `work` multiply-adds unless 0,
 * with a pool of `pool` experts unless 0. Returns the number of slices. */
static uint64_t plain_pass(const int32_t *ids, int32_t n, int64_t work, int32_t pool, float *out) {
    emo_error err = EMO_ERROR_INIT;
    const int32_t row = n - 1;
    test_document d;
    emo__pass *pass = test_document_pass(model, ids, n, &row, 1, &d);
    const int32_t *const sizes[3] = {&pool, NULL, &pool};
    d.batch.pool_size = pool > 0 ? sizes : NULL;
    emo__pass_set_slice_work(pass, work);
    EXPECT_OK(emo__pass_run(pass, &d.batch, &err));
    memcpy(out, emo__pass_logits(pass), VOCAB * sizeof *out);
    uint64_t slices = emo__pass_slices(pass);
    test_document_free(pass, &d);
    return slices;
}

static void plain_logits(const int32_t *ids, int32_t n, float *out) { (void)plain_pass(ids, n, 0, 0, out); }

/* From single rows to whole operators. */
static void slices_do_not_change_a_pass(void **state) {
    (void)state;
    static const int64_t work[] = {1, 20000, 300000};
    float want[VOCAB], got[VOCAB];
    int32_t ids[333];
    test_prompt(ids, 333, 3);
    for (int32_t pool = 0; pool <= 4; pool += 4) {
        uint64_t whole = plain_pass(ids, 333, 0, pool, want);
        for (size_t i = 0; i < sizeof work / sizeof work[0]; i++) {
            assert_true(plain_pass(ids, 333, work[i], pool, got) > whole + 5);
            assert_memory_equal(got, want, sizeof got);
        }
    }
}

static void cached_logits_equal_recomputation(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const size_t lengths[] = {1, 5, 61, 130, 700}; /* 700: more than one batch */
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        o.max_tokens = 8;
        o.ignore_eos = 1;
        emo_session *s = test_session(model, &o);
        int32_t ids[720];
        float got[VOCAB], want[VOCAB];
        test_prompt(ids, lengths[i], i);
        EXPECT_OK(emo_session_append_tokens(s, 0, ids, lengths[i], &err));
        EXPECT_STATUS(emo_session_logits(s, 0, got, VOCAB, &err), EMO_E_NOT_FOUND, "not done");
        for (size_t step = 0; step < 8; step++) {
            emo_state now;
            EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
            assert_int_equal(now, EMO_STATE_TEXT);
            EXPECT_OK(emo_session_logits(s, 0, got, VOCAB, &err));
            plain_logits(ids, (int32_t)(lengths[i] + step), want);
            assert_memory_equal(got, want, sizeof got);
            const int32_t *generated;
            const float *logprobs;
            assert_int_equal(emo_session_generated(s, 0, &generated, &logprobs), step + 1);
            int32_t best = 0;
            double sum = 0.0;
            for (int32_t v = 0; v < VOCAB; v++) {
                best = want[v] > want[best] ? v : best;
                sum += exp((double)want[v]);
            }
            assert_int_equal(generated[step], best);
            /* f32 logits of size 10 and an f32 sum of 257 terms */
            assert_true(fabs((double)logprobs[step] - ((double)want[best] - log(sum))) < 1e-5);
            ids[lengths[i] + step] = best;
        }
        assert_int_equal(emo_session_stop_reason(s, 0), EMO_STOP_LENGTH);
        emo_session_release(s);
    }
}

static void sequences_do_not_see_each_other(void **state) {
    (void)state;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 20;
    o.sequences = 5;
    static const size_t lengths[] = {3, 600, 40, 1, 257};
    emo_session *all = test_session(model, &o);
    for (int32_t i = 0; i < 5; i++)
        test_append(all, i, lengths[i], (uint64_t)i);
    (void)test_finish(all, NULL);
    o.sequences = 1;
    for (int32_t i = 0; i < 5; i++) {
        emo_session *alone = test_session(model, &o);
        test_append(alone, 0, lengths[i], (uint64_t)i);
        (void)test_finish(alone, NULL);
        test_same_output(all, i, alone, 0);
        emo_session_release(alone);
    }
    emo_session_release(all);
}

static void budgets_do_not_change_results(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const emo_budget budgets[] = {{0, 1, 0}, {0, 7, 0}, {1, 0, 0}, {2000000, 0, 0}, {0, 0, 3}, {1, 5, 2}};
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 10;
    o.sequences = 2;
    o.temperature = 0.8f;
    o.seed = 9;
    emo_session *whole = test_session(model, &o);
    test_append(whole, 0, 90, 1);
    test_append(whole, 1, 5, 2);
    size_t calls = test_finish(whole, NULL);
    assert_int_equal(calls, 11); /* a token per call, and the last one */
    for (size_t i = 0; i < sizeof budgets / sizeof budgets[0]; i++) {
        emo_session *s = test_session(model, &o);
        test_append(s, 0, 90, 1);
        test_append(s, 1, 5, 2);
        size_t n = test_finish(s, &budgets[i]);
        assert_true(budgets[i].steps != 1 || n > 200); /* a call per operator */
        test_same_output(whole, 0, s, 0);
        test_same_output(whole, 1, s, 1);
        EXPECT_OK(emo_session_reset(s, &err));
        test_append(s, 0, 90, 1);
        test_append(s, 1, 5, 2);
        (void)test_finish(s, NULL);
        test_same_output(whole, 0, s, 0);
        emo_session_release(s);
    }
    emo_session *s = test_session(model, &o);
    test_append(s, 0, 90, 1);
    emo_state now;
    const emo_budget four = {0, 0, 4};
    EXPECT_OK(emo_session_advance(s, &four, &now, &err));
    assert_int_equal(now, EMO_STATE_TEXT);
    assert_int_equal(emo_session_generated(s, 0, NULL, NULL), 4);
    emo_session_release(s);
    emo_session_release(whole);
}

typedef struct canceller {
    int calls;
    int at; /* cancels every at-th call */
} canceller;

static int32_t cancel(void *ctx, const emo_progress_info *info) {
    canceller *c = ctx;
    assert_true(info->done <= info->total);
    return ++c->calls % c->at == 0;
}

static void cancelled_work_goes_on_where_it_was(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 5;
    emo_session *whole = test_session(model, &o);
    test_append(whole, 0, 300, 4);
    (void)test_finish(whole, NULL);
    canceller c = {0, 4};
    o.progress.ctx = &c;
    o.progress.report = cancel;
    emo_session *s = test_session(model, &o);
    test_append(s, 0, 300, 4);
    emo_state now = EMO_STATE_PENDING;
    int cancelled = 0;
    while (now != EMO_STATE_DONE) {
        emo_status status = emo_session_advance(s, NULL, &now, &err);
        assert_true(status == EMO_OK || status == EMO_E_CANCELLED);
        cancelled += status == EMO_E_CANCELLED;
        assert_true(cancelled < 10000);
    }
    assert_true(cancelled > 10);
    test_same_output(whole, 0, s, 0);
    emo_session_release(s);
    emo_session_release(whole);
}

/* Tokens that arrive while a batch is under way wait for the next one. */
static void appending_in_the_middle(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 6;
    int32_t ids[100];
    test_prompt(ids, 100, 8);
    emo_session *whole = test_session(model, &o);
    EXPECT_OK(emo_session_append_tokens(whole, 0, ids, 100, &err));
    (void)test_finish(whole, NULL);
    emo_session *s = test_session(model, &o);
    EXPECT_OK(emo_session_append_tokens(s, 0, ids, 30, &err));
    const emo_budget few = {0, 5, 0};
    emo_state now;
    EXPECT_OK(emo_session_advance(s, &few, &now, &err));
    assert_int_equal(now, EMO_STATE_PENDING);
    EXPECT_OK(emo_session_append_tokens(s, 0, ids + 30, 70, &err));
    (void)test_finish(s, NULL);
    test_same_output(whole, 0, s, 0);
    /* a stopped sequence continues; max_tokens counts anew */
    EXPECT_OK(emo_session_append_tokens(s, 0, ids, 3, &err));
    assert_int_equal(emo_session_stop_reason(s, 0), EMO_STOP_NONE);
    (void)test_finish(s, NULL);
    const int32_t *generated;
    assert_int_equal(emo_session_generated(s, 0, &generated, NULL), 12);
    int32_t all[112];
    float want[VOCAB], got[VOCAB];
    memcpy(all, ids, sizeof ids);
    memcpy(all + 100, generated, 6 * sizeof *all);
    memcpy(all + 106, ids, 3 * sizeof *all);
    memcpy(all + 109, generated + 6, 3 * sizeof *all);
    plain_logits(all, 109, want);
    int32_t best = 0;
    for (int32_t v = 0; v < VOCAB; v++)
        best = want[v] > want[best] ? v : best;
    assert_int_equal(best, generated[6]);
    o.max_tokens = -1; /* the prompt only */
    emo_session *prompt = test_session(model, &o);
    EXPECT_OK(emo_session_append_tokens(prompt, 0, all, 109, &err));
    assert_int_equal(test_finish(prompt, NULL), 1);
    assert_int_equal(emo_session_generated(prompt, 0, NULL, NULL), 0);
    EXPECT_OK(emo_session_logits(prompt, 0, got, VOCAB, &err));
    assert_memory_equal(got, want, sizeof got);
    emo_session_release(prompt);
    emo_session_release(s);
    emo_session_release(whole);
}

static void capacity_ends_a_sequence(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.capacity = 70;
    o.ignore_eos = 1;
    emo_session *s = test_session(model, &o);
    test_append(s, 0, 60, 1);
    (void)test_finish(s, NULL);
    assert_int_equal(emo_session_generated(s, 0, NULL, NULL), 10);
    assert_int_equal(emo_session_stop_reason(s, 0), EMO_STOP_LENGTH);
    const int32_t one = 1;
    EXPECT_STATUS(emo_session_append_tokens(s, 0, &one, 1, &err), EMO_E_LIMIT, "capacity of 70");
    EXPECT_OK(emo_session_reset(s, &err));
    assert_int_equal(emo_session_generated(s, 0, NULL, NULL), 0);
    test_append(s, 0, 70, 1); /* full from the start: nothing to generate */
    (void)test_finish(s, NULL);
    assert_int_equal(emo_session_generated(s, 0, NULL, NULL), 0);
    assert_int_equal(emo_session_stop_reason(s, 0), EMO_STOP_LENGTH);
    EXPECT_OK(emo_session_reset(s, &err));
    int32_t ids[71] = {0};
    EXPECT_STATUS(emo_session_append_tokens(s, 0, ids, 71, &err), EMO_E_LIMIT, "71 more");
    ids[2] = VOCAB;
    EXPECT_STATUS(emo_session_append_tokens(s, 0, ids, 3, &err), EMO_E_RANGE, "index 2");
    EXPECT_STATUS(emo_session_append_tokens(s, 1, ids, 1, &err), EMO_E_RANGE, "sequence 1");
    assert_int_equal(test_finish(s, NULL), 1); /* nothing was appended */
    emo_session_release(s);
}

static emo_mask *half_mask(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    static const int32_t off[][2] = {{0, 0}, {0, 3}, {0, 4}, {0, 6}, {2, 1}, {2, 2}, {2, 5}, {2, 8}, {2, 10}};
    for (size_t i = 0; i < sizeof off / sizeof off[0]; i++)
        EXPECT_OK(emo_mask_set(mask, off[i][0], off[i][1], 0, &err));
    return mask;
}

static void a_mask_is_a_pruned_model(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = half_mask();
    emo_model *pruned = NULL;
    EXPECT_OK(emo_model_prune(model, mask, NULL, &pruned, &err));
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 40;
    emo_session *full = test_session(model, &o);
    emo_session *b = test_session(pruned, &o);
    o.mask = mask;
    emo_session *a = test_session(model, &o);
    test_append(full, 0, 50, 3);
    test_append(a, 0, 50, 3);
    test_append(b, 0, 50, 3);
    (void)test_finish(full, NULL);
    (void)test_finish(a, NULL);
    (void)test_finish(b, NULL);
    const int32_t *ids_a, *ids_b, *ids_full;
    size_t n = emo_session_generated(a, 0, &ids_a, NULL);
    assert_int_equal(n, emo_session_generated(b, 0, &ids_b, NULL));
    assert_memory_equal(ids_a, ids_b, n * sizeof *ids_a);
    size_t n_full = emo_session_generated(full, 0, &ids_full, NULL);
    assert_true(n_full != n || memcmp(ids_a, ids_full, n * sizeof *ids_a) != 0);
    float la[VOCAB], lb[VOCAB];
    EXPECT_OK(emo_session_logits(a, 0, la, VOCAB, &err));
    EXPECT_OK(emo_session_logits(b, 0, lb, VOCAB, &err));
    assert_true(test_max_diff(la, lb, VOCAB) < 1e-4); /* softmax sums in another grouping; logits of size 10 */
    emo_mask *pool = NULL;
    EXPECT_OK(emo_session_pool(a, 0, &pool, &err));
    assert_true(emo_mask_equal(pool, mask));
    emo_mask_release(pool);
    emo_mask_release(mask);
    emo_session_release(a);
    emo_session_release(b);
    emo_session_release(full);
    emo_model_release(pruned);
}

static void the_prompt_freezes_its_pool(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = half_mask();
    emo_pool_policy *policy = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, 3, &policy, &err));
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 12;
    o.sequences = 3;
    o.mask = mask;
    o.pool = policy;
    emo_session *s = test_session(model, &o);
    emo_session *sliced = test_session(model, &o);
    static const size_t lengths[] = {20, 600, 3};
    for (int32_t i = 0; i < 3; i++) {
        test_append(s, i, lengths[i], (uint64_t)i + 20);
        test_append(sliced, i, lengths[i], (uint64_t)i + 20);
    }
    (void)test_finish(s, NULL);
    const emo_budget few = {1, 3, 0};
    (void)test_finish(sliced, &few);
    emo_mask *first = NULL;
    for (int32_t i = 0; i < 3; i++) {
        test_same_output(s, i, sliced, i);
        emo_mask *pool = NULL;
        emo_mask *inside = NULL;
        EXPECT_OK(emo_session_pool(s, i, &pool, &err));
        assert_int_equal(emo_mask_count(pool, 0), 3 + 1); /* and the shared one */
        assert_int_equal(emo_mask_count(pool, 2), 3 + 1);
        EXPECT_OK(emo_mask_intersect(pool, mask, &inside, &err));
        assert_true(emo_mask_equal(inside, pool));
        emo_mask_release(inside);
        /* the frozen pool as a mask gives the same */
        emo_session_options alone = EMO_SESSION_OPTIONS_INIT;
        alone.max_tokens = 12;
        alone.mask = pool;
        emo_session *fixed = test_session(model, &alone);
        test_append(fixed, 0, lengths[i], (uint64_t)i + 20);
        (void)test_finish(fixed, NULL);
        test_same_output(s, i, fixed, 0);
        emo_session_release(fixed);
        if (first == NULL)
            first = pool;
        else
            emo_mask_release(pool);
    }
    emo_mask *second = NULL;
    EXPECT_OK(emo_session_pool(s, 1, &second, &err));
    assert_false(emo_mask_equal(first, second)); /* each prompt its own */
    emo_mask_release(first);
    emo_mask_release(second);
    EXPECT_OK(emo_session_reset(s, &err));
    EXPECT_OK(emo_session_pool(s, 0, &second, &err));
    assert_true(emo_mask_equal(second, mask));
    emo_mask_release(second);
    emo_session_release(s);
    emo_session_release(sliced);
    emo_pool_policy_release(policy);
    emo_mask_release(mask);
}

static void pools_by_mass(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *policy = NULL;
    EXPECT_OK(emo_pool_policy_create_mass(rt, 0.5f, 2, 6, &policy, &err));
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 3;
    o.pool = policy;
    emo_session *s = NULL;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_INVALID_ARGUMENT, "EMO_POOL_SCOPE_PROMPT");
    EXPECT_OK(emo_pool_policy_set_scope(policy, EMO_POOL_SCOPE_PROMPT, &err));
    s = test_session(model, &o);
    test_append(s, 0, 100, 1);
    (void)test_finish(s, NULL);
    emo_mask *pool = NULL;
    EXPECT_OK(emo_session_pool(s, 0, &pool, &err));
    assert_in_range(emo_mask_count(pool, 2), 2 + 1, 6 + 1);
    emo_mask_release(pool);
    emo_session_release(s);
    emo_pool_policy_release(policy);
    EXPECT_OK(emo_pool_policy_from_prompt(rt, 1, &policy, &err));
    o.pool = policy;
    EXPECT_STATUS(emo_session_create(model, &o, &s, &err), EMO_E_RANGE, "layer 0: a pool of 1");
    emo_pool_policy_release(policy);
}

/* A writer of the model must wait for its sessions. */
static void a_session_reads_its_model(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *own = test_model(rt, wild_config, 6);
    emo_session *s = test_session(own, NULL);
    EXPECT_STATUS(emo__model_begin_write(own, &err), EMO_E_BUSY, "in use");
    emo_session *t = test_session(own, NULL);
    emo_session_release(s);
    EXPECT_STATUS(emo_model_set_tokenizer(own, NULL, &err), EMO_E_BUSY, "in use");
    emo_session_release(t);
    EXPECT_OK(emo__model_begin_write(own, &err));
    EXPECT_STATUS(emo_session_create(own, NULL, &s, &err), EMO_E_BUSY, "being changed");
    assert_null(s);
    emo__model_end_write(own);
    s = test_session(own, NULL);
    emo_model_release(own); /* the session keeps it */
    test_append(s, 0, 4, 1);
    emo_state now;
    EXPECT_OK(emo_session_advance(s, NULL, &now, &err));
    emo_session_release(s);
}

static void in_bf16_the_bits_are_the_same_too(void **state) {
    emo_error err = EMO_ERROR_INIT;
    float exact[VOCAB], rounded[VOCAB];
    int32_t ids[40];
    test_prompt(ids, 40, 1);
    plain_logits(ids, 40, exact);
    EXPECT_OK(emo_model_set_compute(model, EMO_DTYPE_BF16, &err));
    assert_int_equal(emo_model_compute(model), EMO_DTYPE_BF16);
    plain_logits(ids, 40, rounded);
    assert_memory_not_equal(exact, rounded, sizeof exact);
    slices_do_not_change_a_pass(state);
    cached_logits_equal_recomputation(state);
    sequences_do_not_see_each_other(state);
    EXPECT_STATUS(emo_model_set_compute(model, EMO_DTYPE_F16, &err), EMO_E_UNSUPPORTED, "F32 or BF16");
    emo_session *s = test_session(model, NULL);
    EXPECT_STATUS(emo_model_set_compute(model, EMO_DTYPE_F32, &err), EMO_E_BUSY, "in use");
    emo_session_release(s);
    EXPECT_OK(emo_model_set_compute(model, EMO_DTYPE_F32, &err));
    plain_logits(ids, 40, rounded);
    assert_memory_equal(exact, rounded, sizeof exact);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_do_not_change_a_pass),
        cmocka_unit_test(cached_logits_equal_recomputation),
        cmocka_unit_test(sequences_do_not_see_each_other),
        cmocka_unit_test(budgets_do_not_change_results),
        cmocka_unit_test(cancelled_work_goes_on_where_it_was),
        cmocka_unit_test(appending_in_the_middle),
        cmocka_unit_test(capacity_ends_a_sequence),
        cmocka_unit_test(a_mask_is_a_pruned_model),
        cmocka_unit_test(the_prompt_freezes_its_pool),
        cmocka_unit_test(pools_by_mass),
        cmocka_unit_test(a_session_reads_its_model),
        cmocka_unit_test(in_bf16_the_bits_are_the_same_too),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
