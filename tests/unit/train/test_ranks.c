/* SPDX-License-Identifier: Apache-2.0 */
/* Two ranks in one process against a single one; a rank that fails or stops. */
#include <math.h>
#include <pthread.h>

#include "support/folder.h"
#include "train_support.h"

enum { RANKS = 2 };

typedef struct rank_job {
    emo_train_options o;
    const char *pool;
    uint64_t model_seed;
    tiny_result r;
} rank_job;

static void *rank_main(void *ctx) {
    rank_job *j = ctx;
    emo_runtime_options ro = EMO_RUNTIME_OPTIONS_INIT;
    emo_model_create_options mo = EMO_MODEL_CREATE_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    emo_model *model = NULL;
    emo_pool_policy *policy = NULL;
    emo_trainer *trainer = NULL;
    tiny_result *r = &j->r;
    ro.threads = 1;
    mo.seed = j->model_seed;
    r->status = emo_runtime_create(&ro, &rt, &r->err);
    if (r->status == EMO_OK)
        r->status = emo_model_create_json(rt, TINY, strlen(TINY), &mo, &model, &r->err);
    if (r->status == EMO_OK)
        r->status = emo_pool_policy_parse(rt, j->pool, &policy, &r->err);
    if (r->status == EMO_OK) {
        emo_dataset *data = tiny_data(rt);
        j->o.pool = policy;
        r->status = emo_trainer_create(model, data, &j->o, &trainer, &r->err);
        if (r->status == EMO_OK)
            tiny_steps(trainer, r);
        emo_trainer_release(trainer);
        tiny_weights(model, r);
        emo_dataset_release(data);
    }
    emo_comm_release(j->o.comm); /* a rank that leaves must not keep the others waiting */
    emo_pool_policy_release(policy);
    emo_model_release(model);
    emo_runtime_release(rt);
    return NULL;
}

/* Runs both ranks to their ends. The jobs' options are set by the caller. */
static void run_ranks(rank_job jobs[RANKS]) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_comm *comms[RANKS];
    pthread_t threads[RANKS];
    EXPECT_OK(emo_comm_create_local(rt, RANKS, comms, &err));
    for (int i = 0; i < RANKS; i++) {
        jobs[i].o.comm = comms[i];
        assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &jobs[i]), 0);
    }
    for (int i = 0; i < RANKS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    emo_runtime_release(rt);
}

static void prepare(rank_job jobs[RANKS], emo_train_options o) {
    memset(jobs, 0, RANKS * sizeof *jobs);
    for (int i = 0; i < RANKS; i++) {
        jobs[i].o = o;
        jobs[i].pool = "uniform:3:8";
        jobs[i].model_seed = 7; /* as tiny_model's */
    }
}

static void finish(rank_job jobs[RANKS]) {
    for (int i = 0; i < RANKS; i++)
        tiny_free(&jobs[i].r);
}

static void two_ranks_are_one(void **state) {
    (void)state;
    static const emo_balance_scope scopes[] = {EMO_BALANCE_BATCH, EMO_BALANCE_MICROBATCH, EMO_BALANCE_WINDOW};
    for (size_t i = 0; i < sizeof scopes / sizeof scopes[0]; i++) {
        rank_job jobs[RANKS];
        emo_train_options o = tiny_options();
        o.balance_scope = scopes[i];
        o.balance_window = 3;
        tiny_result one = tiny_run_ok(1, TINY, "uniform:3:8", o);
        prepare(jobs, o);
        jobs[1].model_seed = 8; /* all begin with rank 0's weights */
        run_ranks(jobs);
        for (int r = 0; r < RANKS; r++) {
            if (jobs[r].r.status != EMO_OK)
                fail_msg("rank %d: %s", r, jobs[r].r.err.message);
        }
        tiny_same(&jobs[0].r, &jobs[1].r, 1);
        /* pools decide which logits count: one drawn otherwise would move the losses by 1e-2. What is left is the order
         * of float32 sums, which Adam's division by |g| makes grow from step to step */
        tiny_close(&one, &jobs[0].r, 2e-4);
        assert_true(fabs(one.metrics[1].total_loss - jobs[0].r.metrics[1].total_loss) < 2e-6);
        assert_int_equal(one.metrics[TINY_STEPS].tokens, jobs[0].r.metrics[TINY_STEPS].tokens);
        tiny_free(&one);
        finish(jobs);
    }
}

static int32_t stop_at_three(void *ctx, const emo_step_metrics *m) {
    (void)ctx;
    return m->step == 3;
}

static int32_t never(void *ctx, const emo_progress_info *info) {
    (void)ctx;
    (void)info;
    return 0;
}

static int32_t at_hundred(void *ctx, const emo_progress_info *info) {
    (void)info;
    return (*(int *)ctx)++ == 100;
}

static void one_stops_all(void **state) {
    (void)state;
    rank_job jobs[RANKS];
    prepare(jobs, tiny_options());
    jobs[1].o.on_step = stop_at_three;
    run_ranks(jobs);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(jobs[r].r.status, EMO_E_CANCELLED);
        assert_int_equal(jobs[r].r.done, 3);
    }
    finish(jobs);
    /* in the middle of a step: no rank has made it */
    int calls = 0;
    prepare(jobs, tiny_options());
    jobs[0].o.progress.report = never;
    jobs[1].o.progress = (emo_progress){&calls, at_hundred};
    run_ranks(jobs);
    assert_int_equal(jobs[0].r.status, EMO_E_CANCELLED);
    assert_int_equal(jobs[1].r.status, EMO_E_CANCELLED);
    assert_int_equal(jobs[0].r.done, jobs[1].r.done);
    assert_true(jobs[0].r.done > 0 && jobs[0].r.done < TINY_STEPS);
    assert_memory_equal(jobs[0].r.weights, jobs[1].r.weights, jobs[0].r.count * sizeof(float));
    finish(jobs);
}

static void a_failing_rank_fails_all(void **state) {
    (void)state;
    rank_job jobs[RANKS];
    prepare(jobs, tiny_options());
    jobs[1].o.lr = -1.0f; /* at creation */
    run_ranks(jobs);
    assert_int_equal(jobs[1].r.status, EMO_E_RANGE);
    assert_int_equal(jobs[0].r.status, EMO_E_COMM);
    finish(jobs);
    prepare(jobs, tiny_options());
    jobs[1].o.lr = 0.02f; /* not the same run */
    run_ranks(jobs);
    assert_int_equal(jobs[1].r.status, EMO_E_MISMATCH);
    assert_non_null(strstr(jobs[1].r.err.message, "rank 1"));
    assert_int_equal(jobs[0].r.status, EMO_E_COMM);
    finish(jobs);
    prepare(jobs, tiny_options());
    jobs[1].pool = "none pool"; /* before it even gets to the trainer: it leaves */
    run_ranks(jobs);
    assert_int_equal(jobs[1].r.status, EMO_E_INVALID_ARGUMENT);
    assert_int_equal(jobs[0].r.status, EMO_E_COMM);
    finish(jobs);
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

static int setup(void **state) {
    (void)state;
    return test_folder() == NULL;
}

static int teardown(void **state) {
    (void)state;
    test_folder_remove();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_ranks_are_one),
        cmocka_unit_test(one_stops_all),
        cmocka_unit_test(a_failing_rank_fails_all),
        cmocka_unit_test(ranks_resume_together),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
