/* SPDX-License-Identifier: Apache-2.0 */
/* A rank that fails, stops, leaves or never comes is a status on every rank, and nobody waits for ever. */
#include "ranks_support.h"
#include "support/folder.h"

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
    if (strcmp(info->phase, "copy") == 0) /* the trainer is not made yet */
        return 0;
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

/* Whatever allocation of a rank fails, in creating the trainer or in a step, both ranks end with a status. */
static void a_rank_without_memory_fails_all(void **state) {
    (void)state;
    static meter memory = METER_INIT;
    rank_job jobs[RANKS];
    emo_train_options o = tiny_options();
    long refused = 1;
    long at = 0;
    int in_steps = 0;
    o.max_steps = 2;
    o.jitter = 0.1f; /* it takes memory in every pass */
    o.score_bias_rate = 0.01f;
    for (; refused > 0 && at < 5000; at += at < 40 ? 1 : 1 + at / 16) {
        prepare(jobs, o);
        jobs[at % 2].memory = &memory;
        jobs[at % 2].fail_at = at;
        run_ranks(jobs);
        refused = atomic_load(&memory.refused);
        const tiny_result *hit = &jobs[at % 2].r;
        const tiny_result *other = &jobs[1 - at % 2].r;
        if (hit->status == EMO_OK) { /* none failed, or one that could be done without */
            assert_int_equal(other->status, EMO_OK);
        } else {
            assert_int_equal(hit->status, EMO_E_OUT_OF_MEMORY);
            if (other->status != EMO_E_COMM && !(other->status == EMO_OK && other->done == 2))
                fail_msg("allocation %ld: the other rank has %s: %s", at, emo_status_name(other->status),
                         other->err.message);
            in_steps += hit->done > 0;
        }
        meter_check(&memory, "a rank without memory");
        finish(jobs);
    }
    assert_int_equal(refused, 0);
    assert_true(at > 60);
    assert_true(in_steps > 0);
}

/* A number that is none on one rank: all skip the steps, and the weights of the others stay sound. */
static void what_is_not_finite_is_skipped_by_all(void **state) {
    (void)state;
    rank_job jobs[MOST];
    prepare_many(jobs, MOST, tiny_options());
    jobs[2].poison_at = 3;
    run_many(jobs, MOST);
    for (int r = 0; r < MOST; r++) {
        assert_int_equal(jobs[r].r.status, EMO_OK);
        assert_int_equal(jobs[r].r.done, TINY_STEPS);
        for (int s = 1; s <= TINY_STEPS; s++) {
            assert_int_equal(jobs[r].r.metrics[s].skipped, s > 3);
            assert_int_equal(isnan(jobs[r].r.metrics[s].loss) != 0, s > 3);
        }
        for (size_t i = 0; i < jobs[r].r.count && r != 2; i++)
            assert_true(isfinite(jobs[r].r.weights[i]));
    }
    finish_many(jobs, MOST);
}

static void a_rank_that_leaves_ends_the_run(void **state) {
    (void)state;
    rank_job jobs[MOST];
    prepare_many(jobs, MOST, tiny_options());
    jobs[1].leave_at = 2;
    run_many(jobs, MOST);
    for (int r = 0; r < MOST; r++) {
        assert_int_equal(jobs[r].r.status, r == 1 ? EMO_OK : EMO_E_COMM);
        assert_int_equal(jobs[r].r.done, 2);
    }
    finish_many(jobs, MOST);
}

/* Its thread neither comes nor releases anything. */
static void a_rank_that_never_comes_ends_the_run(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_comm *comms[RANKS];
    rank_job jobs[RANKS];
    prepare(jobs, tiny_options());
    EXPECT_OK(emo_comm_create_local(rt, RANKS, comms, &err));
    EXPECT_OK(emo_comm_set_timeout(comms[0], 0.3, &err));
    jobs[0].o.comm = comms[0];
    (void)rank_main(&jobs[0]);
    assert_int_equal(jobs[0].r.status, EMO_E_COMM);
    assert_non_null(strstr(jobs[0].r.err.message, "0.3 seconds"));
    /* and when it comes after all, it is told */
    jobs[1].o.comm = comms[1];
    (void)rank_main(&jobs[1]);
    assert_int_equal(jobs[1].r.status, EMO_E_COMM);
    finish(jobs);
    emo_runtime_release(rt);
}

static void *wait_for_all(void *ctx) {
    rank_job *j = ctx;
    (void)rank_main(j);
    return NULL;
}

/* Before it could even say so: its model is in use. Nothing is released until the other rank has its answer. */
static void a_rank_that_cannot_begin_ends_the_run(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_comm *comms[RANKS];
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_trainer *holds = NULL;
    emo_trainer *t = NULL;
    emo_train_options o = tiny_options();
    rank_job jobs[RANKS];
    pthread_t thread;
    EXPECT_OK(emo_trainer_create(model, data, &o, &holds, &err));
    EXPECT_OK(emo_comm_create_local(rt, RANKS, comms, &err));
    prepare(jobs, o);
    jobs[0].o.comm = comms[0];
    assert_int_equal(pthread_create(&thread, NULL, wait_for_all, &jobs[0]), 0);
    o.comm = comms[1];
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &t, &err), EMO_E_BUSY, "model");
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(jobs[0].r.status, EMO_E_COMM);
    finish(jobs);
    emo_comm_release(comms[1]);
    emo_trainer_release(holds);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* Cancelled by any rank at several places, also before the first step is done. */
static void any_rank_may_cancel_anywhere(void **state) {
    (void)state;
    static const int places[] = {0, 1, 30, 61, 97};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        rank_job jobs[MOST];
        int calls = 100 - places[i]; /* at_hundred counts from here */
        prepare_many(jobs, MOST, tiny_options());
        jobs[i % MOST].o.progress = (emo_progress){&calls, at_hundred};
        run_many(jobs, MOST);
        for (int r = 0; r < MOST; r++) {
            assert_int_equal(jobs[r].r.status, EMO_E_CANCELLED);
            assert_int_equal(jobs[r].r.done, jobs[0].r.done);
            assert_memory_equal(jobs[r].r.weights, jobs[0].r.weights, jobs[0].r.count * sizeof(float));
        }
        finish_many(jobs, MOST);
    }
}

/* In the phase that ctx names. */
static int32_t in_phase(void *ctx, const emo_progress_info *info) { return strcmp(info->phase, ctx) == 0; }

/* While trainers are made there is no step to agree on: the rank that is cancelled says so, and the others learn of it.
 */
static void cancelled_before_there_is_a_trainer(void **state) {
    (void)state;
    static char phase[] = "copy";
    rank_job jobs[MOST];
    prepare_many(jobs, MOST, tiny_options());
    jobs[2].o.progress = (emo_progress){phase, in_phase};
    run_many(jobs, MOST);
    for (int r = 0; r < MOST; r++)
        assert_int_equal(jobs[r].r.status, r == 2 ? EMO_E_CANCELLED : EMO_E_COMM);
    finish_many(jobs, MOST);
}

/* The first rank writes; all leave after that step, with the checkpoint whole. */
static void cancelled_in_a_checkpoint(void **state) {
    (void)state;
    static char phase[] = "checkpoint";
    rank_job jobs[RANKS];
    size_t size = 0;
    emo_train_options o = tiny_options();
    assert_non_null(test_folder());
    o.out = test_path("run");
    o.checkpoint_every = 2;
    prepare(jobs, o);
    jobs[0].o.progress = (emo_progress){phase, in_phase};
    run_ranks(jobs);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(jobs[r].r.status, EMO_E_CANCELLED);
        assert_int_equal(jobs[r].r.done, 2);
    }
    unsigned char *latest = test_read(test_path("run/state/latest"), &size);
    assert_true(size == 6 && memcmp(latest, "step-2", 6) == 0);
    free(latest);
    finish(jobs);
    o.resume = 1;
    prepare(jobs, o);
    run_ranks(jobs);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(jobs[r].r.status, EMO_OK);
        assert_int_equal(jobs[r].r.done, TINY_STEPS);
    }
    finish(jobs);
    test_folder_remove();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_stops_all),
        cmocka_unit_test(any_rank_may_cancel_anywhere),
        cmocka_unit_test(cancelled_before_there_is_a_trainer),
        cmocka_unit_test(cancelled_in_a_checkpoint),
        cmocka_unit_test(a_failing_rank_fails_all),
        cmocka_unit_test(a_rank_without_memory_fails_all),
        cmocka_unit_test(what_is_not_finite_is_skipped_by_all),
        cmocka_unit_test(a_rank_that_leaves_ends_the_run),
        cmocka_unit_test(a_rank_that_never_comes_ends_the_run),
        cmocka_unit_test(a_rank_that_cannot_begin_ends_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
