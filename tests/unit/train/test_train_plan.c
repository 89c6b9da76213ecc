/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of training as it is planned against what a trainer takes. */
#include "support/far.h"
#include "support/meter.h"
#include "train_support.h"

/* Large enough for the arrays of a step to be small beside the rest. */
#define WIDE                                                                                                           \
    "{\"model_type\":\"emo\",\"vocab_size\":600,\"hidden_size\":64,\"intermediate_size\":48,\"num_hidden_layers\":2,"  \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"    \
    "\"num_experts_per_layer\":[17,17],\"num_shared_experts_per_layer\":[1,1],\"eos_token_id\":1}"

static emo_train_plan plan_of(emo_runtime *rt, const char *config, const emo_train_options *o) {
    emo_error err = EMO_ERROR_INIT;
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT;
    EXPECT_OK(emo_train_plan_json(rt, config, strlen(config), o, NULL, &plan, &err));
    assert_int_equal(plan.total, plan.weights + plan.gradients + plan.moments + plan.micro_batch + plan.tables);
    assert_int_equal(plan.micro_batch, plan.saved + plan.activations + plan.workspace);
    return plan;
}

/* What the allocator has handed out once a trainer has made two steps, without what was there before. */
static void trainer_takes_what_was_planned(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) {
        emo_error err = EMO_ERROR_INIT;
        meter m = METER_INIT;
        emo_runtime *rt = meter_runtime(&m, 2);
        emo_train_options o = tiny_options();
        emo_pool_policy *pool = NULL;
        emo_trainer *trainer = NULL;
        o.batch_rows = 16;
        o.seq_len = 64;
        o.accumulate = round == 1 ? 2 : 1;
        o.balance_scope = round == 2 ? EMO_BALANCE_DOCUMENT : EMO_BALANCE_WINDOW;
        o.jitter = round == 1 ? 0.1f : 0.0f;
        EXPECT_OK(emo_pool_policy_parse(rt, "uniform:3:8", &pool, &err));
        o.pool = pool;
        emo_train_plan plan = plan_of(rt, WIDE, &o);
        emo_dataset *data = tiny_data(rt);
        long before = m.bytes;
        emo_model *model = tiny_model(rt, WIDE);
        EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
        for (int step = 0; step < 2; step++)
            EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
        double taken = (double)(m.bytes - before), planned = (double)plan.total;
        /* Besides: the rows of a step on the host, names and tables of the model (some 3 %). The workspace is an upper
         * bound: expert tiles of the worst shares, documents of one token each. */
        if (!(taken > 0.9 * planned && taken < 1.06 * planned))
            fail_msg("round %d: %.0f bytes are planned, %.0f are taken", round, planned, taken);
        emo_trainer_release(trainer);
        emo_dataset_release(data);
        emo_pool_policy_release(pool);
        emo_model_release(model);
        emo_runtime_release(rt);
        meter_check(&m, "a planned trainer");
    }
}

static void options_count(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_train_options o = tiny_options();
    emo_train_plan all = plan_of(rt, TINY, &o);
    assert_int_equal(all.tokens, 128);
    assert_int_equal(all.trained, all.parameters);
    assert_int_equal(all.moments, 2 * all.gradients);
    assert_int_equal(all.fits, -1);
    assert_true(all.workspaces[EMO_TRAIN_PART_EXPERTS] > 0 && all.workspaces[EMO_TRAIN_PART_HEAD] > 0);
    o.accumulate = 4;
    emo_train_plan four = plan_of(rt, TINY, &o);
    assert_int_equal(four.tokens, 32);
    assert_true(four.saved < all.saved / 3 && four.weights == all.weights);
    o.train_only = EMO_TRAIN_EXPERTS;
    emo_train_plan experts = plan_of(rt, TINY, &o);
    assert_true(experts.trained < all.trained && experts.gradients < all.gradients);
    o.score_bias_rate = 0.01f;
    o.train_only = EMO_TRAIN_ALL;
    assert_true(plan_of(rt, TINY, &o).parameters == all.parameters + 16); /* a bias for each routed expert */
    o = tiny_options();
    o.repetition_count = 2; /* rows that are all alike must not be left out */
    assert_int_equal(plan_of(rt, TINY, &o).total, all.total);
    emo_runtime_release(rt);
}

static void what_cannot_be_planned(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT;
    emo_train_plan_options how = EMO_TRAIN_PLAN_OPTIONS_INIT;
    emo_train_options o = tiny_options();
    o.batch_rows = 5;
    o.accumulate = 2;
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, NULL, &plan, &err), EMO_E_RANGE, "batch_rows");
    o = tiny_options();
    EXPECT_STATUS(emo_train_plan_json(rt, "{", 1, &o, NULL, &plan, &err), EMO_E_FORMAT, "config.json");
    how.device = "moon";
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err), EMO_E_NOT_FOUND, "moon");
    how.plugin = "/nowhere/libemo_moon.so";
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err), EMO_E_NOT_FOUND, "nowhere");
    how = (emo_train_plan_options)EMO_TRAIN_PLAN_OPTIONS_INIT;
    how.compute = EMO_DTYPE_I32;
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err), EMO_E_RANGE, "compute");
    how.compute = EMO_DTYPE_F32;
    far_add(rt);
    how.device = "far";
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err), EMO_E_UNSUPPORTED, "far");
    emo_runtime_release(rt);
}

static emo_status plan_stage(emo_runtime *rt, emo_error *err) {
    emo_train_options o = tiny_options();
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT;
    return emo_train_plan_json(rt, TINY, strlen(TINY), &o, NULL, &plan, err);
}

static void every_allocation_can_fail(void **state) {
    (void)state;
    meter m = METER_INIT;
    emo_runtime *rt = meter_runtime(&m, 1);
    for (long n = 0;; n++) {
        emo_error err = EMO_ERROR_INIT;
        meter_arm(&m, n, 0);
        emo_status status = plan_stage(rt, &err);
        long refused = m.refused;
        meter_disarm(&m);
        if (refused == 0) {
            EXPECT_OK(status);
            assert_true(n > 50);
            break;
        }
        assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
    }
    emo_runtime_release(rt);
    meter_check(&m, "plans out of memory");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(trainer_takes_what_was_planned),
                                       cmocka_unit_test(options_count), cmocka_unit_test(what_cannot_be_planned),
                                       cmocka_unit_test(every_allocation_can_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
