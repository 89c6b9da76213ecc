/* SPDX-License-Identifier: Apache-2.0 */
/* What a model must do on any device as on the CPU: train, resume, generate, evaluate, select, prune, save. A test
 * program says how a device comes to a runtime, how closely it computes, and lists the cases. */
#ifndef EMO_TESTS_DEVICE_CASES_H
#define EMO_TESTS_DEVICE_CASES_H

#include "../unit/infer/infer_support.h"
#include "../unit/train/train_support.h"
#include "backend/registry.h"
#include "model/model.h"
#include "support/folder.h"
#include "tensor/quant.h"

typedef struct device_kind {
    const char *name;               /* "far", "cuda" */
    void (*add)(emo_runtime *rt);   /* brings the device to a runtime */
    double tolerance;               /* 0: the CPU's bits; else of losses and weights, relative to the largest */
    double bf16;                    /* the same where products are computed in bf16; 0: not compared */
    size_t (*live)(void);           /* device memory in use */
    void (*fail_allocation)(int n); /* the n-th allocation of device memory from now on fails; 0: none */
} device_kind;

static const device_kind *device_under_test;
static emo_dtype device_compute; /* of models that are trained from here on */

static void device_stay(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_model_set_compute(model, device_compute, &err));
}

static void device_place(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    device_stay(model);
    device_under_test->add(model->rt);
    EXPECT_OK(emo_model_to_device(model, device_under_test->name, &err));
}

TEST_FOLDER

static tiny_result device_run(int on_device, const char *config, const char *pool, emo_train_options o) {
    tiny_place = on_device ? device_place : device_stay;
    tiny_result r = tiny_run(1, config, pool, o);
    tiny_place = NULL;
    return r;
}

static tiny_result device_run_ok(int on_device, const char *config, const char *pool, emo_train_options o) {
    tiny_result r = device_run(on_device, config, pool, o);
    if (r.status != EMO_OK)
        fail_msg("the run failed: %s: %s", emo_status_name(r.status), r.err.message);
    return r;
}

static void device_near(const char *what, double a, double b, double scale) {
    double relative = device_compute == EMO_DTYPE_F32 ? device_under_test->tolerance : device_under_test->bf16;
    double allowed = relative * scale, difference = a > b ? a - b : b - a;
    if (!(difference <= allowed))
        fail_msg("%s: %.9g on the CPU, %.9g on the device: %g apart, %g are allowed", what, a, b, difference, allowed);
}

/* Losses of every step and the weights after the last. */
static void device_same_run(const tiny_result *cpu, const tiny_result *device) {
    if (device_under_test->tolerance == 0.0) {
        tiny_same(cpu, device, 1);
        return;
    }
    assert_int_equal(cpu->done, device->done);
    for (int64_t s = 1; s <= cpu->done; s++) {
        device_near("loss", cpu->metrics[s].loss, device->metrics[s].loss, cpu->metrics[s].loss);
        device_near("balance loss", cpu->metrics[s].balance_loss, device->metrics[s].balance_loss, 1.0);
        device_near("gradient norm", cpu->metrics[s].grad_norm, device->metrics[s].grad_norm,
                    cpu->metrics[s].grad_norm);
    }
    for (size_t i = 0; i < cpu->count; i++)
        device_near("weight", (double)cpu->weights[i], (double)device->weights[i], 1.0);
}

/* ---- training ---- */

static void case_training(void **state) {
    (void)state;
    static const emo_balance_scope scopes[] = {EMO_BALANCE_DOCUMENT, EMO_BALANCE_BATCH, EMO_BALANCE_WINDOW};
    static const char *const configs[] = {TINY, TINY_CONFIG("[9,0]", "[1,0]", ",\"router_aux_loss_coef\":0.02"), TINY};
    static const char *const pools[] = {"uniform:3:8", NULL, "uniform:3:6"};
    for (size_t i = 0; i < 3; i++) {
        emo_train_options o = tiny_options();
        o.max_steps = i == 0 ? TINY_MOST : 3;
        o.balance_scope = scopes[i];
        o.balance_window = 3;
        o.accumulate = i == 1 ? 2 : 1;
        o.score_bias_rate = i == 2 ? 0.01f : 0.0f;
        tiny_result cpu = device_run_ok(0, configs[i], pools[i], o), first = device_run_ok(1, configs[i], pools[i], o);
        tiny_result second = device_run_ok(1, configs[i], pools[i], o);
        device_same_run(&cpu, &first);
        tiny_same(&first, &second, 1); /* two runs, the same bits */
        tiny_free(&cpu), tiny_free(&first), tiny_free(&second);
    }
}

/* Eight steps with products in bf16 on both sides. */
static void case_training_bf16(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    o.max_steps = TINY_MOST;
    if (device_under_test->bf16 == 0.0)
        skip();
    device_compute = EMO_DTYPE_BF16;
    tiny_result cpu = device_run_ok(0, TINY, "uniform:3:8", o), first = device_run_ok(1, TINY, "uniform:3:8", o);
    tiny_result second = device_run_ok(1, TINY, "uniform:3:8", o);
    device_same_run(&cpu, &first);
    tiny_same(&first, &second, 1);
    device_compute = EMO_DTYPE_F32;
    tiny_free(&cpu), tiny_free(&first), tiny_free(&second);
}

static int32_t device_stop_at(void *ctx, const emo_step_metrics *m) { return m->step == *(const int64_t *)ctx; }

static void case_resume(void **state) {
    (void)state;
    int64_t stop = 3;
    emo_train_options o = tiny_options();
    o.checkpoint_every = 2;
    o.max_steps = 5;
    o.balance_scope = EMO_BALANCE_WINDOW;
    o.balance_window = 3;
    tiny_result whole = device_run_ok(1, TINY, "uniform:3:8", o);
    o.out = test_path("run");
    o.on_step_ctx = &stop;
    o.on_step = device_stop_at;
    tiny_result first = device_run(1, TINY, "uniform:3:8", o);
    assert_int_equal(first.status, EMO_E_CANCELLED);
    o.on_step = NULL;
    o.resume = 1;
    tiny_result rest = device_run_ok(1, TINY, "uniform:3:8", o);
    tiny_same(&whole, &rest, 4);
    tiny_free(&whole), tiny_free(&first), tiny_free(&rest);
}

/* ---- inference ---- */

static void device_same_logits(const emo_session *cpu, const emo_session *device, int32_t sequence) {
    static float a[VOCAB], b[VOCAB];
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_session_logits(cpu, sequence, a, VOCAB, &err));
    EXPECT_OK(emo_session_logits(device, sequence, b, VOCAB, &err));
    for (size_t i = 0; i < VOCAB; i++)
        device_near("logit", (double)a[i], (double)b[i], 10.0);
}

static void device_same_tokens(const emo_session *cpu, const emo_session *device, int32_t sequence) {
    const int32_t *x, *y;
    const float *p, *q;
    size_t n = emo_session_generated(cpu, sequence, &x, &p);
    assert_true(n > 0);
    assert_int_equal(n, emo_session_generated(device, sequence, &y, &q));
    assert_memory_equal(x, y, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        device_near("log-probability", (double)p[i], (double)q[i], 10.0);
}

/* Two sequences of different lengths, all samplers, a mask, a pool of the prompt. */
static void case_sessions(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (int round = 0; round < 3; round++) {
        emo_session *sessions[2];
        emo_model *models[2];
        emo_runtime *rts[2];
        for (int side = 0; side < 2; side++) {
            rts[side] = test_runtime(1, EMO_ISA_AUTO);
            models[side] = test_model(rts[side], wild_config, 5);
            if (side == 1)
                device_place(models[side]);
            emo_session_options o = EMO_SESSION_OPTIONS_INIT;
            emo_mask *mask = NULL;
            emo_pool_policy *pool = NULL;
            EXPECT_OK(emo_model_mask(models[side], &mask, &err));
            for (int32_t e = 0; e < 3; e++)
                EXPECT_OK(emo_mask_set(mask, 0, 2 * e, 0, &err));
            EXPECT_OK(emo_pool_policy_parse(rts[side], "prompt:5", &pool, &err));
            o.sequences = 2;
            o.max_tokens = 6;
            o.ignore_eos = 1;
            o.temperature = round == 0 ? 0.0f : 0.9f;
            o.top_k = round == 2 ? 40 : 0;
            o.top_p = round == 2 ? 0.9f : 1.0f;
            o.repetition_penalty = round == 2 ? 1.2f : 1.0f;
            o.seed = 4;
            o.mask = round == 1 ? mask : NULL;
            o.pool = round == 2 ? pool : NULL;
            sessions[side] = test_session(models[side], &o);
            test_append(sessions[side], 0, 19, 1);
            test_append(sessions[side], 1, 7, 2);
            (void)test_finish(sessions[side], NULL);
            emo_mask_release(mask);
            emo_pool_policy_release(pool);
        }
        for (int32_t s = 0; s < 2; s++) {
            device_same_tokens(sessions[0], sessions[1], s);
            device_same_logits(sessions[0], sessions[1], s);
        }
        for (int side = 0; side < 2; side++) {
            emo_session_release(sessions[side]);
            emo_model_release(models[side]);
            emo_runtime_release(rts[side]);
        }
    }
}

/* ---- the model itself ---- */

/* Merges some experts of another model into this one, and writes GGUF files of the result and of the experts. */
static void device_merge_and_export(emo_model *model, emo_model *tuned, emo_mask *chosen, const char *folder) {
    emo_error err = EMO_ERROR_INIT;
    char path[64];
    emo_model *child = NULL, *merged = NULL;
    emo_merge_options o = EMO_MERGE_OPTIONS_INIT;
    o.average = 0.25f;
    o.router = o.shared = o.rest = 1;
    EXPECT_OK(emo_model_prune(tuned, chosen, NULL, &child, &err));
    EXPECT_OK(emo_model_merge(model, child, &o, &merged, &err));
    (void)snprintf(path, sizeof path, "%s/merged", folder);
    EXPECT_OK(emo_model_save(merged, test_path(path), NULL, &err));
    emo_export_options e = EMO_EXPORT_OPTIONS_INIT;
    e.no_tokenizer = 1;
    (void)snprintf(path, sizeof path, "%s/model.gguf", folder);
    EXPECT_OK(emo_model_export(merged, test_path(path), &e, NULL, &err));
    e.mask = chosen;
    (void)snprintf(path, sizeof path, "%s/masked.gguf", folder);
    EXPECT_OK(emo_model_export(model, test_path(path), &e, NULL, &err));
    emo_model_release(child);
    emo_model_release(merged);
}

/* Evaluation, statistics and selection; pruning, saving and reading tensors where the weights are on the device. */
static void case_model(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *models[2];
    emo_dataset *data = tiny_data(rt);
    double loss[2];
    emo_mask *chosen[2];
    device_under_test->add(rt);
    for (int side = 0; side < 2; side++) {
        models[side] = tiny_model(rt, TINY);
        if (side == 1)
            EXPECT_OK(emo_model_to_device(models[side], device_under_test->name, &err));
        emo_eval_result total;
        EXPECT_OK(emo_eval_documents(models[side], data, NULL, &total, NULL, NULL, &err));
        loss[side] = total.loss_sum / (double)total.tokens;
        emo_select_options o = EMO_SELECT_OPTIONS_INIT;
        o.keep = 5;
        EXPECT_OK(emo_select(models[side], data, &o, &chosen[side], &err));
    }
    device_near("evaluation", loss[0], loss[1], loss[0]);
    for (int32_t l = 0; l < 2; l++)
        for (int32_t e = 0; e < 9; e++)
            assert_int_equal(emo_mask_get(chosen[0], l, e), emo_mask_get(chosen[1], l, e));
    /* saved from the device, pruned on the device, moved back: the same files and numbers as on the CPU */
    for (int side = 0; side < 2; side++) {
        emo_model *small = NULL;
        EXPECT_OK(emo_model_save(models[side], test_path(side ? "b" : "a"), NULL, &err));
        EXPECT_OK(emo_model_prune(models[side], chosen[side], NULL, &small, &err));
        EXPECT_OK(emo_model_save(small, test_path(side ? "b/small" : "a/small"), NULL, &err));
        emo_model_release(small);
        emo_model *tuned = test_model(rt, TINY, 7);
        if (side == 1)
            EXPECT_OK(emo_model_to_device(tuned, device_under_test->name, &err));
        device_merge_and_export(models[side], tuned, chosen[side], side ? "b" : "a");
        emo_model_release(tuned);
    }
    static const char *const files[] = {"a/model.safetensors", "a/small/model.safetensors",
                                        "a/config.json",       "a/merged/model.safetensors",
                                        "a/model.gguf",        "a/masked.gguf"};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char other[64];
        size_t n = 0, m = 0;
        (void)snprintf(other, sizeof other, "b%s", files[i] + 1);
        unsigned char *x = test_read(test_path(files[i]), &n), *y = test_read(test_path(other), &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        free(x), free(y);
    }
    static float x[50 * 16], y[50 * 16];
    size_t n = 0;
    EXPECT_OK(emo_model_tensor_f32(models[0], "model.embed_tokens.weight", x, 50 * 16, &n, &err));
    EXPECT_OK(emo_model_tensor_f32(models[1], "model.embed_tokens.weight", y, 50 * 16, &n, &err));
    assert_memory_equal(x, y, n * sizeof *x);
    EXPECT_STATUS(emo_model_to_device(models[1], "nowhere", &err), EMO_E_NOT_FOUND, "cpu");
    emo_session *session = test_session(models[1], NULL);
    EXPECT_STATUS(emo_model_to_device(models[1], "cpu", &err), EMO_E_BUSY, "in use");
    emo_session_release(session);
    EXPECT_OK(emo_model_to_device(models[1], "cpu", &err));
    emo_eval_result total;
    EXPECT_OK(emo_eval_documents(models[1], data, NULL, &total, NULL, NULL, &err));
    assert_true(total.loss_sum / (double)total.tokens - loss[0] == 0.0);
    for (int side = 0; side < 2; side++) {
        emo_mask_release(chosen[side]);
        emo_model_release(models[side]);
    }
    emo_dataset_release(data);
    emo_runtime_release(rt);
}

static struct {
    const emo_backend_ops *own;
    emo_backend_ops table;
    size_t bytes;
} device_uploads;

static emo_status device_count_upload(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    device_uploads.bytes += bytes;
    return device_uploads.own->upload(exec, dst, src, bytes, err);
}

/* Counts what is uploaded to the runtime's device from now on. */
static void device_count_uploads(emo_runtime *rt) {
    emo_error err = EMO_ERROR_INIT;
    emo_backend *backend = NULL;
    EXPECT_OK(emo__registry_open(rt->registry, device_under_test->name, &backend, &err));
    device_uploads.own = backend->ops;
    device_uploads.table = *backend->ops;
    device_uploads.table.upload = device_count_upload;
    device_uploads.bytes = 0;
    backend->ops = &device_uploads.table;
}

/* Bytes of the weights that a model has loaded. */
static size_t device_weight_bytes(const emo_model *model) {
    size_t bytes = 0;
    for (size_t i = 0; i < model->n_params; i++)
        if (emo__param_loaded(model, &model->params[i]))
            bytes += emo__dtype_run(model->params[i].view->dtype, emo__param_count(&model->params[i]));
    return bytes;
}

/* A model loaded with a mask takes less of the device's memory and says the same as the whole one under the mask. */
static void case_subset(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *whole = test_model(rt, wild_config, 5), *part = NULL;
    emo_mask *mask = NULL;
    size_t before = 0, of_whole = 0, of_part = 0;
    EXPECT_OK(emo_model_mask(whole, &mask, &err));
    for (int32_t e = 0; e < 5; e++)
        EXPECT_OK(emo_mask_set(mask, 2, 2 * e, 0, &err));
    EXPECT_OK(emo_model_save(whole, test_path("whole"), NULL, &err));
    emo_model_load_options o = EMO_MODEL_LOAD_OPTIONS_INIT;
    o.subset = mask;
    EXPECT_OK(emo_model_load_path(rt, test_path("whole"), &o, &part, &err));
    device_under_test->add(rt);
    device_count_uploads(rt);
    before = device_under_test->live();
    EXPECT_OK(emo_model_to_device(whole, device_under_test->name, &err));
    of_whole = device_under_test->live() - before;
    assert_int_equal(device_uploads.bytes, device_weight_bytes(whole));
    device_uploads.bytes = 0;
    EXPECT_OK(emo_model_to_device(part, device_under_test->name, &err));
    of_part = device_under_test->live() - before - of_whole;
    assert_true(of_part < of_whole);
    assert_int_equal(device_uploads.bytes, device_weight_bytes(part)); /* the mask's experts and no others */
    assert_true(device_weight_bytes(part) < device_weight_bytes(whole));
    emo_session_options s = EMO_SESSION_OPTIONS_INIT;
    s.max_tokens = 5;
    s.ignore_eos = 1;
    emo_session *b = test_session(part, &s);
    s.mask = mask;
    emo_session *a = test_session(whole, &s);
    test_append(a, 0, 11, 1);
    test_append(b, 0, 11, 1);
    (void)test_finish(a, NULL);
    (void)test_finish(b, NULL);
    test_same_output(a, 0, b, 0);
    emo_session_release(a);
    emo_session_release(b);
    emo_mask_release(mask);
    emo_model_release(whole);
    emo_model_release(part);
    emo_runtime_release(rt);
}

/* Out of device memory at each of the first allocations, and at more and more distant ones after (a checked build gives
 * every scratch array an allocation): a status, and everything can be used and released. */
static void case_out_of_memory(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_dataset *data = tiny_data(rt);
    emo_model *model = tiny_model(rt, TINY);
    emo_train_options o = tiny_options();
    device_under_test->add(rt);
    for (int n = 1, failed = 1; failed; n += n < 32 ? 1 : n / 4) {
        emo_trainer *trainer = NULL;
        emo_step_metrics m = {0};
        m.struct_size = sizeof m;
        device_under_test->fail_allocation(n);
        emo_status status = emo_model_to_device(model, device_under_test->name, &err);
        if (status == EMO_OK)
            status = emo_trainer_create(model, data, &o, &trainer, &err);
        if (status == EMO_OK)
            status = emo_trainer_step(trainer, &m, &err);
        device_under_test->fail_allocation(0);
        failed = status != EMO_OK;
        if (failed && status != EMO_E_OUT_OF_MEMORY)
            fail_msg("allocation %d: %s: %s", n, emo_status_name(status), err.message);
        if (failed && trainer != NULL) /* it goes on where it stopped */
            EXPECT_OK(emo_trainer_step(trainer, &m, &err));
        emo_trainer_release(trainer);
        EXPECT_OK(emo_model_to_device(model, "cpu", &err));
        assert_true(n < 100000);
    }
    emo_model_release(model);
    emo_dataset_release(data);
    emo_runtime_release(rt);
}

#define DEVICE_CASES                                                                                                   \
    cmocka_unit_test(case_training), cmocka_unit_test(case_training_bf16), cmocka_unit_test(case_resume),              \
        cmocka_unit_test(case_sessions), cmocka_unit_test(case_model), cmocka_unit_test(case_subset),                  \
        cmocka_unit_test(case_out_of_memory)

#endif
