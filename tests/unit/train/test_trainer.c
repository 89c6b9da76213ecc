/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer in one process: determinism, accumulation, scopes, options, cancelling, what is trained and what not. */
#include <math.h>

#include "train_support.h"

static void threads_do_not_change_a_bit(void **state) {
    (void)state;
    tiny_result one = tiny_run_ok(1, TINY, "uniform:3:8", tiny_options());
    assert_int_equal(one.done, TINY_STEPS);
    assert_true(one.metrics[TINY_STEPS].loss < one.metrics[1].loss);
    for (int32_t threads = 2; threads <= 4; threads += 2) {
        tiny_result more = tiny_run_ok(threads, TINY, "uniform:3:8", tiny_options());
        tiny_same(&one, &more, 1);
        tiny_free(&more);
    }
    tiny_free(&one);
}

static void every_kind_of_model_learns(void **state) {
    (void)state;
    static const struct {
        const char *config;
        const char *pool;
    } cases[] = {
        {TINY, NULL},                                        /* a standard MoE */
        {TINY_CONFIG("[0,0]", "[0,0]", ""), NULL},           /* dense */
        {TINY_CONFIG("[0,9]", "[0,1]", ""), "fixed:4"},      /* one dense layer */
        {TINY_CONFIG("[8,6]", "[0,2]", ""), "mass:0.6:3:6"}, /* layers that differ */
        {TINY_CONFIG("[9,9]", "[1,1]", ",\"tie_word_embeddings\":true"), "scheduled:3:4"},
        {TINY_CONFIG("[0,9]", "[0,1]", ",\"attention_bias\":true,\"dense_mlp_bias\":true"), "uniform:3:8"},
    };
    emo_train_options o = tiny_options();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tiny_result r = tiny_run_ok(2, cases[i].config, cases[i].pool, o);
        /* chance is ln 50 = 3.9; the data are simple */
        if (!(r.metrics[TINY_STEPS].loss < r.metrics[1].loss - 0.2))
            fail_msg("case %zu: loss %g after %g", i, r.metrics[TINY_STEPS].loss, r.metrics[1].loss);
        assert_true(isnan(r.metrics[1].valid_loss));
        tiny_free(&r);
    }
}

static void a_window_of_one_is_a_batch(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    o.accumulate = 2;
    tiny_result batch = tiny_run_ok(1, TINY, "uniform:3:8", o);
    o.balance_scope = EMO_BALANCE_WINDOW;
    o.balance_window = 1;
    tiny_result window = tiny_run_ok(1, TINY, "uniform:3:8", o);
    tiny_same(&batch, &window, 1);
    o.balance_window = 3;
    tiny_result longer = tiny_run_ok(1, TINY, "uniform:3:8", o);
    assert_true(longer.metrics[1].total_loss == batch.metrics[1].total_loss); /* no past yet */
    assert_true(longer.metrics[2].balance_loss != batch.metrics[2].balance_loss);
    tiny_free(&batch);
    tiny_free(&window);
    tiny_free(&longer);
}

/* Sizes of the pools of two steps by layer and document, in order. */
typedef struct pools {
    int32_t size[2][2][4 * 32];
    int64_t begin[2][4 * 32];
    int64_t count[2];
} pools;

static pools drawn_pools(int32_t accumulate) {
    static pools p;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_pool_policy *policy = NULL;
    emo_trainer *t = NULL;
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 2, 8, &policy, &err));
    emo_train_options o = tiny_options();
    o.pool = policy;
    o.accumulate = accumulate;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    memset(&p, 0, sizeof p);
    for (int64_t s = 0; s < 2; s++) {
        EXPECT_OK(emo__step_data_load(t, s + 1, &err));
        for (int32_t m = 0; m < accumulate; m++) {
            emo__batch batch;
            EXPECT_OK(emo__micro_prepare(t, s + 1, m, &batch, &err));
            for (int64_t d = 0; d < batch.n_documents; d++) {
                p.begin[s][p.count[s]] = t->micro.document_id[d];
                for (int32_t l = 0; l < 2; l++)
                    p.size[s][l][p.count[s]] = batch.pool_size[l][d];
                p.count[s]++;
            }
        }
    }
    emo_trainer_release(t);
    emo_pool_policy_release(policy);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return p;
}

static void accumulation_changes_neither_losses_nor_pools(void **state) {
    (void)state;
    pools one = drawn_pools(1);
    pools four = drawn_pools(4);
    assert_memory_equal(&one, &four, sizeof one);
    assert_true(one.count[0] > 8);
    int differ = 0;
    for (int64_t d = 0; d < one.count[0]; d++)
        differ += one.size[0][0][d] != one.size[0][1][d];
    assert_true(differ > 0); /* layers draw for themselves */
    /* per document the balancing loss adds up exactly; what remains is the order of float32 sums, grown over six steps
     * through Adam's division by |g| */
    emo_train_options o = tiny_options();
    o.balance_scope = EMO_BALANCE_DOCUMENT;
    tiny_result a = tiny_run_ok(2, TINY, "uniform:3:8", o);
    o.accumulate = 4;
    tiny_result b = tiny_run_ok(2, TINY, "uniform:3:8", o);
    tiny_close(&a, &b, 2e-4);
    /* in the first step, before any of that */
    assert_true(fabs(a.metrics[1].total_loss - b.metrics[1].total_loss) < 2e-6);
    tiny_free(&a);
    tiny_free(&b);
}

static void bad_options_are_named(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_trainer *t = NULL;
    emo_train_options o;
#define REFUSED(field, value)                                                                                          \
    o = tiny_options();                                                                                                \
    o.field = (value);                                                                                                 \
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &t, &err), EMO_E_RANGE, #field);                                 \
    assert_null(t)
    REFUSED(schedule, 4);
    REFUSED(schedule, -1);
    REFUSED(balance_scope, 4);
    REFUSED(balance_window, 0);
    REFUSED(balance_weight, -1.0f);
    REFUSED(z_weight, (float)NAN);
    REFUSED(lm_z_weight, (float)INFINITY);
    REFUSED(lr, -0.1f);
    REFUSED(beta1, 1.0f);
    REFUSED(beta2, -0.1f);
    REFUSED(eps, 2.0f);
    REFUSED(weight_decay, -1.0f);
    REFUSED(max_grad_norm, -1.0f);
    REFUSED(alpha_f, 1.5f);
    REFUSED(warmup_min_lr, -1.0f);
    REFUSED(decay_min_lr, -1.0f);
    REFUSED(warmup, -2);
    REFUSED(decay, -2);
    REFUSED(max_steps, -1);
    REFUSED(max_tokens, -1);
    REFUSED(max_minutes, -1.0);
    REFUSED(batch_rows, 0);
    REFUSED(accumulate, 0);
    REFUSED(accumulate, 3); /* does not divide 4 rows */
    REFUSED(seq_len, 1);
    REFUSED(seq_len, 65); /* max_position_embeddings is 64 */
    REFUSED(train_only, 2);
    REFUSED(checkpoint_every, -1);
    REFUSED(keep_checkpoints, 0);
    REFUSED(valid_every, -1);
    REFUSED(resume, 2);
    REFUSED(profile, 2);
    REFUSED(optimizer_on, 2);
    REFUSED(recompute, 3);
    REFUSED(recompute, -1);
    REFUSED(no_graph, 2);
    REFUSED(reserved, 1);
    REFUSED(gating, 2);
    REFUSED(gating, -2);
    REFUSED(score_bias_rate, -0.001f);
    REFUSED(score_bias_rate, 1.5f);
    REFUSED(jitter, 1.0f);
    REFUSED(jitter, (float)NAN);
    REFUSED(repetition_count, -1);
    REFUSED(repetition_count, 1); /* what every row has */
    REFUSED(repetition_period, 0);
    o = tiny_options();
    o.score_bias_rate = 0.01f;
    o.train_only = EMO_TRAIN_EXPERTS; /* the router stays as it is */
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &t, &err), EMO_E_INVALID_ARGUMENT, "score_bias_rate");
    double lr = 0.0;
    o = tiny_options();
    o.max_steps = 0;
    EXPECT_STATUS(emo_schedule_lr(&o, 1, &lr, &err), EMO_E_RANGE, "max_steps");
    o.max_steps = 5;
    o.warmup = -3;
    EXPECT_STATUS(emo_schedule_lr(&o, 1, &lr, &err), EMO_E_RANGE, "warmup");
    o.warmup = 1;
    EXPECT_STATUS(emo_schedule_lr(&o, -1, &lr, &err), EMO_E_RANGE, "step");
    emo_pool_policy *small = NULL;
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 1, 8, &small, &err)); /* tokens choose 2 */
    o = tiny_options();
    o.pool = small;
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &t, &err), EMO_E_RANGE, "pool");
    o = tiny_options();
    o.max_steps = 0;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    EXPECT_STATUS(emo_trainer_run(t, &err), EMO_E_INVALID_ARGUMENT, "max_steps");
    emo_trainer *second = NULL;
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &second, &err), EMO_E_BUSY, "model");
    emo_trainer_release(t);
    emo_pool_policy_release(small);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

typedef struct canceller {
    int64_t calls;
    int64_t at; /* the call that cancels, -1: none */
} canceller;

static int32_t cancel_report(void *ctx, const emo_progress_info *info) {
    canceller *c = ctx;
    return strcmp(info->phase, "forward") == 0 && c->calls++ == c->at;
}

/* Cancelled in the middle of a step and run again: as if nothing had been. */
static void cancelling_leaves_everything_usable(void **state) {
    (void)state;
    tiny_result whole = tiny_run_ok(1, TINY, "uniform:3:8", tiny_options());
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_pool_policy *policy = NULL;
    emo_trainer *t = NULL;
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 3, 8, &policy, &err));
    emo_train_options o = tiny_options();
    canceller c = {0, 60};
    o.pool = policy;
    o.progress = (emo_progress){&c, cancel_report};
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    EXPECT_STATUS(emo_trainer_run(t, &err), EMO_E_CANCELLED, "progress");
    int64_t at = emo_trainer_at(t);
    assert_in_range(at, 1, TINY_STEPS - 1);
    tiny_result rest = {0};
    tiny_steps(t, &rest);
    assert_int_equal(rest.status, EMO_OK);
    emo_trainer_release(t);
    tiny_weights(model, &rest);
    tiny_same(&whole, &rest, at + 1);
    tiny_free(&whole);
    tiny_free(&rest);
    emo_pool_policy_release(policy);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* Which parameters a run changed; `mask` nullable. */
static void check_touched(emo_train_only only, int masked) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_mask *mask = NULL;
    emo_trainer *t = NULL;
    tiny_result before = {0};
    tiny_result after = {0};
    emo_train_options o = tiny_options();
    o.train_only = only;
    if (masked) {
        EXPECT_OK(emo_model_mask(model, &mask, &err));
        for (int32_t e = 0; e < 8; e += 2)
            EXPECT_OK(emo_mask_set(mask, 1, e, 0, &err));
        o.mask = mask;
    }
    tiny_weights(model, &before);
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    EXPECT_OK(emo_trainer_run(t, &err));
    emo_trainer_release(t);
    tiny_weights(model, &after);
    size_t at = 0;
    for (size_t i = 0; i < model->n_params; i++) {
        const emo__param *p = &model->params[i];
        size_t count = (size_t)emo__param_count(p);
        int touched = memcmp(before.weights + at, after.weights + at, count * sizeof(float)) != 0;
        int out = masked && p->group == EMO__P_ROUTED && p->layer == 1 && p->expert % 2 == 0;
        int wanted = !out && (only == EMO_TRAIN_ALL || p->group == EMO__P_ROUTED);
        char name[EMO__NAME_MAX];
        emo__param_name(p, name);
        if (touched != wanted)
            fail_msg("%s was %schanged", name, touched ? "" : "not ");
        at += count;
    }
    tiny_free(&before);
    tiny_free(&after);
    emo_mask_release(mask);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

static void only_what_is_asked_for_is_trained(void **state) {
    (void)state;
    check_touched(EMO_TRAIN_ALL, 0);
    check_touched(EMO_TRAIN_EXPERTS, 0);
    check_touched(EMO_TRAIN_ALL, 1);
    check_touched(EMO_TRAIN_EXPERTS, 1);
}

static void odd_runs(void **state) {
    (void)state;
    /* steps past the plan keep going at the last rate; gradients that are not finite leave the weights alone */
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_trainer *t = NULL;
    emo_train_options o = tiny_options();
    o.schedule = EMO_SCHEDULE_WSD;
    o.decay = 2;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    EXPECT_OK(emo_trainer_run(t, &err));
    emo_step_metrics m = {0};
    m.struct_size = sizeof m;
    EXPECT_OK(emo_trainer_step(t, &m, &err));
    assert_int_equal(m.step, TINY_STEPS + 1);
    assert_true(m.lr >= 0.0);
    float *norm = (float *)(uintptr_t)model->norm.data;
    norm[0] = (float)NAN;
    tiny_result before = {0};
    tiny_result after = {0};
    tiny_weights(model, &before);
    EXPECT_OK(emo_trainer_step(t, &m, &err));
    assert_int_equal(m.skipped, 1);
    tiny_weights(model, &after);
    assert_memory_equal(before.weights, after.weights, before.count * sizeof(float));
    tiny_free(&before);
    tiny_free(&after);
    emo_trainer_release(t);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

static int32_t profile_is_busy(void *ctx, const emo_step_metrics *metrics) {
    emo_train_profile_entry entry = EMO_TRAIN_PROFILE_ENTRY_INIT;
    emo_error err = EMO_ERROR_INIT;
    (void)metrics;
    EXPECT_STATUS(emo_trainer_profile(*(emo_trainer **)ctx, 0, &entry, &err), EMO_E_BUSY, "in use");
    return 0;
}

static void a_profile_accounts_for_the_steps(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model[2] = {tiny_model(rt, TINY), tiny_model(rt, TINY)};
    emo_dataset *data = tiny_data(rt);
    emo_trainer *t = NULL;
    tiny_result plain = {0};
    tiny_result timed = {0};
    emo_train_profile_entry entry = EMO_TRAIN_PROFILE_ENTRY_INIT;
    emo_train_options o = tiny_options();
    EXPECT_OK(emo_trainer_create(model[0], data, &o, &t, &err));
    EXPECT_OK(emo_trainer_run(t, &err));
    EXPECT_STATUS(emo_trainer_profile(t, 0, &entry, &err), EMO_E_NOT_FOUND, "options.profile");
    emo_trainer_release(t);
    tiny_weights(model[0], &plain);

    o.profile = 1;
    o.on_step_ctx = &t;
    o.on_step = profile_is_busy;
    EXPECT_OK(emo_trainer_create(model[1], data, &o, &t, &err));
    double seconds = 0.0;
    double parts = 0.0;
    for (int s = 0; s < TINY_STEPS; s++) {
        emo_step_metrics m = {0};
        m.struct_size = sizeof m;
        EXPECT_OK(emo_trainer_step(t, &m, &err));
        seconds += m.seconds;
    }
    uint64_t calls[EMO_TRAIN_PART_OTHER + 1][2] = {{0}};
    size_t n = 0;
    int32_t before = -1;
    for (;; n++) {
        emo_status status = emo_trainer_profile(t, n, &entry, &err);
        if (status == EMO_E_NOT_FOUND)
            break;
        EXPECT_OK(status);
        assert_int_equal(entry.struct_size, sizeof entry);
        assert_non_null(emo_train_part_name(entry.part));
        assert_true(2 * entry.part + entry.backward > before);
        before = 2 * entry.part + entry.backward;
        calls[entry.part][entry.backward] = entry.calls;
        parts += entry.seconds;
    }
    /* two layers; forward: qkv and the output, router logits, selection, plan and what frames them */
    assert_int_equal(calls[EMO_TRAIN_PART_DATA][0], TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_EMBED][1], TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_LINEAR][0], 4 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_LINEAR][1], 4 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_ATTENTION][0], 2 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_ATTENTION][1], 2 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_EXPERTS][0], 2 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_EXPERTS][1], 2 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_ROUTING][1], 2 * TINY_STEPS);
    assert_true(calls[EMO_TRAIN_PART_ROUTING][0] >= 6 * TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_HEAD][0], TINY_STEPS);
    assert_int_equal(calls[EMO_TRAIN_PART_DENSE][0] + calls[EMO_TRAIN_PART_RANKS][0], 0);
    /* laps are contiguous: all that a step's own clock saw is there, but for the moments between the two clocks; the
     * callback comes on top */
    assert_true(parts >= 0.9 * seconds);
    emo_trainer_release(t);
    tiny_weights(model[1], &timed);
    assert_memory_equal(plain.weights, timed.weights, plain.count * sizeof(float));
    tiny_free(&plain);
    tiny_free(&timed);
    emo_dataset_release(data);
    emo_model_release(model[0]);
    emo_model_release(model[1]);
    emo_runtime_release(rt);
}

/* Rounding the operands of products to 8 bits moves a loss by far less than what training gains in these steps; the
 * bound on each step's loss is that of bf16 runs against f32 runs on real text (docs/performance.md). */
static void bf16_learns_as_f32(void **state) {
    (void)state;
    tiny_result exact = tiny_run_ok(1, TINY, "uniform:3:8", tiny_options());
    tiny_compute = EMO_DTYPE_BF16;
    tiny_result one = tiny_run_ok(1, TINY, "uniform:3:8", tiny_options());
    tiny_result four = tiny_run_ok(4, TINY, "uniform:3:8", tiny_options());
    tiny_compute = EMO_DTYPE_F32;
    tiny_same(&one, &four, 1);
    assert_memory_not_equal(exact.weights, one.weights, one.count * sizeof(float));
    for (int64_t s = 1; s <= one.done; s++) {
        double off = one.metrics[s].loss / exact.metrics[s].loss - 1.0;
        if (!(off < 0.005 && off > -0.005))
            fail_msg("step %lld: loss %.6f in bf16, %.6f in f32", (long long)s, one.metrics[s].loss,
                     exact.metrics[s].loss);
    }
    assert_true(one.metrics[one.done].loss < one.metrics[1].loss - 0.05);
    tiny_free(&exact);
    tiny_free(&one);
    tiny_free(&four);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(every_kind_of_model_learns),
        cmocka_unit_test(a_window_of_one_is_a_batch),
        cmocka_unit_test(accumulation_changes_neither_losses_nor_pools),
        cmocka_unit_test(bad_options_are_named),
        cmocka_unit_test(cancelling_leaves_everything_usable),
        cmocka_unit_test(only_what_is_asked_for_is_trained),
        cmocka_unit_test(odd_runs),
        cmocka_unit_test(a_profile_accounts_for_the_steps),
        cmocka_unit_test(bf16_learns_as_f32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
