/* SPDX-License-Identifier: Apache-2.0 */
/* 1, 2 and 4 ranks in one process make the same run: losses, pools, checkpoints. */
#include "ranks_support.h"
#include "support/folder.h"

/* Rows whose numbers of labels differ: whole ones, prompts, one without any, one that says the same all the time. */
static emo_status uneven_rows(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    (void)ctx, (void)err;
    uint32_t x = (uint32_t)row * 7919u + 17u;
    for (int i = 0; i < SEQ; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = row % ROWS == 5 ? 7 + i % 2 : i % 9 == 6 ? 1 : (int32_t)(2 + (x >> 10) % 48);
    }
    int64_t prompt = row % ROWS == 3 ? SEQ : row % 2 == 0 ? 0 : 10 + row % 7;
    for (int i = 0; i < SEQ; i++)
        labels[i] = i + 1 < SEQ && i >= prompt ? ids[i + 1] : -100;
    return EMO_OK;
}

/* 1, 2 and 4 ranks with the same global batch; `first` and `later`: tolerances of losses in step 1 and to the end. */
static void check_equal(const char *what, emo_train_options o, const char *pool, double later) {
    static pool_record one;
    static pool_record many[MOST];
    rank_job alone[1];
    rank_job jobs[MOST];
    memset(&one, 0, sizeof one);
    prepare_many(alone, 1, o);
    alone[0].pool = pool;
    alone[0].rows = uneven_rows;
    alone[0].record = &one;
    run_many(alone, 1);
    assert_int_equal(alone[0].r.status, EMO_OK);
    for (int n = 2; n <= MOST; n *= 2) {
        memset(many, 0, sizeof many);
        prepare_many(jobs, n, o);
        for (int r = 0; r < n; r++) {
            jobs[r].pool = pool;
            jobs[r].rows = uneven_rows;
            jobs[r].record = &many[r];
            jobs[r].model_seed = 7 + (uint64_t)r; /* all begin with rank 0's weights */
        }
        run_many(jobs, n);
        for (int r = 0; r < n; r++) {
            if (jobs[r].r.status != EMO_OK)
                fail_msg("%s: rank %d of %d: %s", what, r, n, jobs[r].r.err.message);
            tiny_same(&jobs[0].r, &jobs[r].r, 1); /* the ranks agree bit for bit */
            for (int s = 1; s <= TINY_STEPS; s++) {
                for (int i = 0; i < 2 * PLACES; i++) {
                    /* no document is on two ranks */
                    assert_true(r == 0 || many[0].pool[s][i / PLACES][i % PLACES] == 0 ||
                                many[r].pool[s][i / PLACES][i % PLACES] == 0);
                    many[0].pool[s][i / PLACES][i % PLACES] |= many[r].pool[s][i / PLACES][i % PLACES];
                }
            }
        }
        /* Exactly the same pools. Later, weights that differ by rounding may let two nearly equal experts change
         * places; the sizes of a uniform policy cannot. */
        assert_memory_equal(one.pool[1], many[0].pool[1], 3 * sizeof one.pool[1]);
        for (int s = 1; s <= TINY_STEPS && strncmp(pool, "uniform", 7) == 0; s++) {
            for (int i = 0; i < 2 * PLACES; i++)
                assert_int_equal(__builtin_popcount(one.pool[s][i / PLACES][i % PLACES]),
                                 __builtin_popcount(many[0].pool[s][i / PLACES][i % PLACES]));
        }
        /* Float32 sums in another order: 1e-7 of numbers near 4 in the first step; then Adam's division by |g| makes it
         * grow from step to step. Another pool, or labels weighed otherwise, would move the losses by 1e-2. */
        const emo_step_metrics *x = &alone[0].r.metrics[1];
        const emo_step_metrics *y = &jobs[0].r.metrics[1];
        if (!(fabs(x->loss - y->loss) < 2e-6 && fabs(x->balance_loss - y->balance_loss) < 2e-6 &&
              fabs(x->router_z_loss - y->router_z_loss) < 4e-6 && fabs(x->total_loss - y->total_loss) < 2e-6 &&
              fabs(x->grad_norm - y->grad_norm) < 1e-5))
            fail_msg("%s, %d ranks: %.9g %.9g %.9g %.9g, one rank %.9g %.9g %.9g %.9g", what, n, y->loss,
                     y->balance_loss, y->router_z_loss, y->grad_norm, x->loss, x->balance_loss, x->router_z_loss,
                     x->grad_norm);
        tiny_close(&alone[0].r, &jobs[0].r, later);
        for (int s = 1; s <= TINY_STEPS; s++) {
            assert_int_equal(alone[0].r.metrics[s].tokens, jobs[0].r.metrics[s].tokens);
            assert_int_equal(alone[0].r.metrics[s].filtered_rows, jobs[0].r.metrics[s].filtered_rows);
        }
        finish_many(jobs, n);
    }
    finish_many(alone, 1);
}

static emo_train_options uneven_options(void) {
    emo_train_options o = tiny_options();
    o.batch_rows = ROWS;
    o.lr = 1e-4f; /* large steps would let rounding decide, sooner or later, between two experts */
    o.balance_window = 3;
    return o;
}

static void any_number_of_ranks_is_one(void **state) {
    (void)state;
    emo_train_options o = uneven_options();
    check_equal("batch", o, "uniform:3:8", 2e-4);
    o.balance_scope = EMO_BALANCE_MICROBATCH;
    check_equal("microbatch", o, "uniform:3:8", 2e-4);
    o.balance_scope = EMO_BALANCE_WINDOW;
    check_equal("window", o, "uniform:3:8", 2e-4);
    o.balance_scope = EMO_BALANCE_DOCUMENT;
    check_equal("document", o, "mass:0.7:3:7", 2e-4);
}

/* Micro-batches of all ranks together are those of one rank. */
static void also_with_accumulation(void **state) {
    (void)state;
    emo_train_options o = uneven_options();
    o.accumulate = 2;
    check_equal("batch, two micro-batches", o, "uniform:3:8", 2e-4);
    o.balance_scope = EMO_BALANCE_MICROBATCH;
    check_equal("microbatch, two micro-batches", o, "uniform:3:8", 2e-4);
    o.balance_scope = EMO_BALANCE_WINDOW;
    check_equal("window, two micro-batches", o, "scheduled:3:4", 2e-4);
}

static void also_with_every_option(void **state) {
    (void)state;
    emo_train_options o = uneven_options();
    o.jitter = 0.2f;
    o.gating = EMO_ROUTER_SIGMOID;
    o.repetition_count = 10;
    check_equal("jitter, sigmoid, filter", o, "uniform:3:8", 2e-4);
    o.score_bias_rate = 0.01f;
    o.accumulate = 2;
    o.balance_scope = EMO_BALANCE_DOCUMENT;
    check_equal("with a bias", o, "uniform:3:8", 2e-4);
}

static int32_t stop_at_three(void *ctx, const emo_step_metrics *m) {
    (void)ctx;
    return m->step == 3;
}

/* Only rank 0 touches the folder; a resume gives both what it has there. */
static void ranks_resume_together(void **state) {
    (void)state;
    rank_job jobs[RANKS];
    emo_train_options o = tiny_options();
    o.balance_scope = EMO_BALANCE_WINDOW;
    o.balance_window = 3;
    prepare(jobs, o);
    run_ranks(jobs);
    tiny_result whole = jobs[0].r;
    tiny_free(&jobs[1].r);
    o.out = test_path("ranks");
    o.checkpoint_every = 3;
    prepare(jobs, o);
    jobs[0].o.on_step = stop_at_three;
    jobs[1].o.out = test_path("elsewhere");
    run_ranks(jobs);
    assert_int_equal(jobs[0].r.status, EMO_E_CANCELLED);
    finish(jobs);
    o.resume = 1;
    prepare(jobs, o);
    jobs[1].o.out = test_path("elsewhere");
    run_ranks(jobs);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(jobs[r].r.status, EMO_OK);
        tiny_same(&whole, &jobs[r].r, 4);
    }
    tiny_free(&whole);
    finish(jobs);
}

TEST_FOLDER

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks_is_one),
        cmocka_unit_test(also_with_accumulation),
        cmocka_unit_test(also_with_every_option),
        cmocka_unit_test(ranks_resume_together),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
