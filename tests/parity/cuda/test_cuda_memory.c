/* SPDX-License-Identifier: Apache-2.0 */
/* The device memory of training: planned to the byte before any of it is there, and nothing more is taken by steps. */
#include "../../unit/train/train_support.h"
#include "backend/registry.h"
#include "cudasim/control.h"
#include "support/folder.h"
#include "support/mirror.h"

static const cudasim_control_table *simulator;
static int separate; /* the build gives every array of scratch memory of its own: it has no arena to reserve */

static emo_runtime *device_runtime(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    EXPECT_OK(emo_runtime_load_backend(rt, mirror_plugin(), &err));
    return rt;
}

static int64_t live_bytes(emo_runtime *rt) {
    emo_error err = EMO_ERROR_INIT;
    emo_backend *device = NULL;
    emo_backend_memory memory = {0};
    EXPECT_OK(emo__registry_open(rt->registry, "cuda", &device, &err));
    EXPECT_OK(device->ops->memory(device, &memory, &err));
    return (int64_t)memory.live_bytes;
}

typedef struct variant {
    const char *config, *pool;
    emo_dtype compute;
    emo_balance_scope scope;
    int32_t accumulate, masked;
    float jitter, score_bias_rate;
    emo_train_only only;
    emo_recompute recompute;
    emo_optimizer_on on;
} variant;

static const variant variants[] = {
    {TINY, "uniform:3:8", EMO_DTYPE_F32, EMO_BALANCE_DOCUMENT, 1, 0, 0.0f, 0.0f, EMO_TRAIN_ALL, 0, 0},
    {TINY, "uniform:3:8", EMO_DTYPE_BF16, EMO_BALANCE_WINDOW, 2, 1, 0.0f, 0.01f, EMO_TRAIN_ALL, EMO_RECOMPUTE_EXPERTS,
     EMO_OPTIMIZER_HOST},
    {TINY_CONFIG("[9,0]", "[1,0]", ""), NULL, EMO_DTYPE_BF16, EMO_BALANCE_BATCH, 1, 0, 0.1f, 0.0f, EMO_TRAIN_ALL,
     EMO_RECOMPUTE_LAYER, 0},
    {TINY, "mass:0.5:3:8", EMO_DTYPE_F32, EMO_BALANCE_MICROBATCH, 4, 0, 0.0f, 0.0f, EMO_TRAIN_EXPERTS, 0, 0},
};

static void plan_is_what_is_taken(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        const variant *v = &variants[i];
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = device_runtime();
        emo_model *model = tiny_model(rt, v->config);
        emo_dataset *data = tiny_data(rt);
        emo_train_options o = tiny_options();
        emo_train_plan plan = EMO_TRAIN_PLAN_INIT;
        emo_train_plan_options how = EMO_TRAIN_PLAN_OPTIONS_INIT;
        emo_pool_policy *pool = NULL;
        emo_mask *mask = NULL;
        emo_trainer *trainer = NULL;
        if (v->pool != NULL)
            EXPECT_OK(emo_pool_policy_parse(rt, v->pool, &pool, &err));
        EXPECT_OK(emo_model_mask(model, &mask, &err));
        EXPECT_OK(emo_mask_set(mask, 0, 2, 0, &err));
        o.pool = pool;
        o.balance_scope = v->scope;
        o.balance_window = 3;
        o.accumulate = v->accumulate;
        o.jitter = v->jitter;
        o.score_bias_rate = v->score_bias_rate;
        o.train_only = v->only;
        o.recompute = v->recompute;
        o.optimizer_on = v->on;
        o.mask = v->masked ? mask : NULL;
        how.device = "cuda";
        how.compute = v->compute;
        EXPECT_OK(emo_train_plan_json(rt, v->config, strlen(v->config), &o, &how, &plan, &err));
        assert_int_equal(plan.fits, 1);
        assert_true(plan.available > 0 && plan.pinned > 0);
        EXPECT_OK(emo_model_set_compute(model, v->compute, &err));
        EXPECT_OK(emo_model_to_device(model, "cuda", &err));
        EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
        int64_t taken = live_bytes(rt) + (separate ? plan.workspace : 0);
        if (taken != plan.total)
            fail_msg("variant %zu: %lld bytes are planned, %lld are taken", i, (long long)plan.total, (long long)taken);
        if (simulator != NULL && !separate)
            simulator->fail_allocation(1); /* of device or pinned memory, from here on */
        for (int step = 0; step < (separate ? 0 : 2); step++)
            EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
        if (simulator != NULL)
            simulator->fail_allocation(0);
        if (!separate)
            assert_int_equal(live_bytes(rt), plan.total);
        emo_trainer_release(trainer);
        emo_mask_release(mask);
        emo_pool_policy_release(pool);
        emo_dataset_release(data);
        emo_model_release(model);
        assert_int_equal(live_bytes(rt), 0);
        emo_runtime_release(rt);
    }
}

static void on_the_device(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_runtime_load_backend(model->rt, mirror_plugin(), &err));
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
}

static int32_t stop_at(void *ctx, const emo_step_metrics *m) { return m->step == *(const int64_t *)ctx; }

/* Recomputation changes no bit of a run on the device. */
static void recomputed_runs_are_the_same(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    tiny_place = on_the_device;
    tiny_compute = EMO_DTYPE_BF16;
    o.max_steps = separate ? 1 : 2; /* checked builds are slow */
    o.accumulate = 2;
    o.jitter = 0.1f;
    o.balance_scope = EMO_BALANCE_DOCUMENT;
    const char *config = TINY_CONFIG("[9,0]", "[1,0]", "");
    tiny_result kept = tiny_run_ok(1, config, "uniform:3:8", o);
    for (o.recompute = EMO_RECOMPUTE_EXPERTS; o.recompute <= EMO_RECOMPUTE_LAYER; o.recompute++) {
        tiny_result again = tiny_run_ok(1, config, "uniform:3:8", o);
        tiny_same(&kept, &again, 1);
        tiny_free(&again);
    }
    tiny_free(&kept);
    tiny_place = NULL;
    tiny_compute = EMO_DTYPE_F32;
}

/* Nor does where the moments lie, also when a run goes from one to the other. */
static void moments_on_the_host(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    assert_non_null(test_folder());
    tiny_place = on_the_device;
    o.max_steps = separate ? 2 : 4;
    o.train_only = EMO_TRAIN_EXPERTS; /* of two layers: two runs of parameters, a lane for each */
    tiny_result beside = tiny_run_ok(1, TINY, "uniform:3:8", o);
    o.optimizer_on = EMO_OPTIMIZER_HOST;
    tiny_result host = tiny_run_ok(1, TINY, "uniform:3:8", o);
    tiny_same(&beside, &host, 1);
    tiny_free(&host);
    int64_t stop = separate ? 1 : 2;
    o.out = test_path("run");
    o.checkpoint_every = 1;
    o.on_step_ctx = &stop;
    o.on_step = stop_at;
    host = tiny_run(1, TINY, "uniform:3:8", o);
    assert_int_equal(host.status, EMO_E_CANCELLED);
    tiny_free(&host);
    o.on_step = NULL;
    o.resume = 1;
    o.optimizer_on = EMO_OPTIMIZER_DEVICE;
    if (!separate) {
        stop = 3;
        o.on_step = stop_at;
        host = tiny_run(1, TINY, "uniform:3:8", o);
        assert_int_equal(host.status, EMO_E_CANCELLED);
        tiny_free(&host);
        o.on_step = NULL;
        o.optimizer_on = EMO_OPTIMIZER_HOST;
    }
    host = tiny_run_ok(1, TINY, "uniform:3:8", o);
    tiny_same(&beside, &host, o.max_steps);
    tiny_free(&host);
    tiny_free(&beside);
    tiny_place = NULL;
    test_folder_remove();
}

/* A plug-in plans without being loaded as a back end: no device is looked for. */
static void no_device_is_needed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO), *with = device_runtime();
    emo_train_options o = tiny_options();
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT, same = EMO_TRAIN_PLAN_INIT;
    emo_train_plan_options how = EMO_TRAIN_PLAN_OPTIONS_INIT;
    how.device = "cuda";
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err), EMO_E_NOT_FOUND, "cuda");
    EXPECT_OK(emo_train_plan_json(with, TINY, strlen(TINY), &o, &how, &same, &err));
    how.plugin = mirror_plugin();
    EXPECT_OK(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err));
    assert_int_equal(plan.total, same.total);
    assert_int_equal(plan.fits, -1);
    assert_int_equal(plan.available, 0);
    how.device = "moon";
    EXPECT_STATUS(emo_train_plan_json(rt, TINY, strlen(TINY), &o, &how, &plan, &err), EMO_E_NOT_FOUND, "moon");
    emo_runtime_release(with);
    emo_runtime_release(rt);
}

/* What does not fit is refused before anything is allocated, in words; with room it goes. */
static void too_large_is_refused(void **state) {
    (void)state;
    if (simulator == NULL)
        skip();
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = device_runtime();
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_train_options o = tiny_options();
    emo_trainer *trainer = NULL;
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
    size_t before = simulator->live();
    simulator->memory((size_t)1 << 20);
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &trainer, &err), EMO_E_OUT_OF_MEMORY, "What helps");
    assert_non_null(strstr(err.message, "workspace"));
    assert_true(simulator->live() <= before + 64); /* the trainer's first few numbers may be kept */
    simulator->memory((size_t)4 << 30);
    EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
    EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
    emo_trainer_release(trainer);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

static void nothing_was_found(void **state) {
    (void)state;
    mirror_expect_clean(mirror_plugin());
}

int main(void) {
    if (mirror_plugin() == NULL)
        return 77;
    emo_runtime_release(device_runtime());
    simulator = mirror_simulator(mirror_plugin());
    separate = simulator != NULL && strstr(mirror_plugin(), "_hooked") != NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plan_is_what_is_taken), cmocka_unit_test(recomputed_runs_are_the_same),
        cmocka_unit_test(moments_on_the_host),   cmocka_unit_test(no_device_is_needed),
        cmocka_unit_test(too_large_is_refused),  cmocka_unit_test(nothing_was_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
