/* SPDX-License-Identifier: Apache-2.0 */
/* A run survives the failure of each of its allocations: a status, nothing lost, and the same end when it goes on. */
#include "support/folder.h"
#include "support/meter.h"
#include "train_support.h"

enum { STEPS = 2 };

/* 1 when allocation n failed. */
static int run_with_failure(long n, const char *out, const tiny_result *want) {
    meter m = METER_INIT;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = meter_runtime(&m, 1);
    emo_pool_policy *pool = NULL;
    emo_trainer *t = NULL;
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 3, 8, &pool, &err));
    emo_train_options o = tiny_options();
    o.max_steps = STEPS;
    o.pool = pool;
    o.out = out;
    o.resume = 1; /* a run.json may be there already */
    meter_arm(&m, n, 1);
    emo_status status = emo_trainer_create(model, data, &o, &t, &err);
    if (status == EMO_OK)
        status = emo_trainer_run(t, &err);
    int failed = atomic_load(&m.refused) > 0;
    meter_disarm(&m);
    if (status != EMO_OK) {
        if (status != EMO_E_OUT_OF_MEMORY || strstr(err.message, "memory") == NULL)
            fail_msg("allocation %ld: %s: %s", n, emo_status_name(status), err.message);
        if (t == NULL)
            EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
        EXPECT_OK(emo_trainer_run(t, &err));
    }
    assert_int_equal(emo_trainer_at(t), STEPS);
    emo_trainer_release(t);
    tiny_result got = {0};
    tiny_weights(model, &got);
    assert_memory_equal(got.weights, want->weights, want->count * sizeof(float));
    tiny_free(&got);
    emo_pool_policy_release(pool);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&m, "failing allocations");
    return failed;
}

static void allocations_may_fail(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    o.max_steps = STEPS;
    tiny_result whole = tiny_run_ok(1, TINY, "uniform:3:8", o);
    long n = 0;
    while (run_with_failure(n, NULL, &whole))
        n++;
    assert_true(n > 50);
    /* with a folder; the allocations that both kinds of run have in common need not fail again */
    char name[32];
    (void)snprintf(name, sizeof name, "run-%ld", n);
    for (long i = 60; run_with_failure(i, test_path(name), &whole); i += 29)
        (void)snprintf(name, sizeof name, "run-%ld", i);
    tiny_free(&whole);
}

TEST_FOLDER

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(allocations_may_fail)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
