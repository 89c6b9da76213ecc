/* SPDX-License-Identifier: Apache-2.0 */
/* A tiny model, tiny data and whole runs of a few steps for the trainer's tests. */
#ifndef EMO_TESTS_TRAIN_SUPPORT_H
#define EMO_TESTS_TRAIN_SUPPORT_H

#include <emo/emo.h>

#include "model/model.h"
#include "support/support.h"
#include "train/trainer.h"

enum { TINY_STEPS = 6, TINY_MOST = 8, TINY_DOCS = 60 };

/* Two MoE layers with a shared expert; layers are written out so that tests can make dense ones. */
#define TINY_CONFIG(experts, shared, more)                                                                             \
    "{\"model_type\":\"emo\",\"vocab_size\":50,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":2,"    \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"    \
    "\"num_experts_per_layer\":" experts ",\"num_shared_experts_per_layer\":" shared                                   \
    ",\"eos_token_id\":1,\"dense_intermediate_size\":12" more "}"
#define TINY TINY_CONFIG("[9,9]", "[1,1]", "")

/* What tiny models compute in. */
static emo_dtype tiny_compute = EMO_DTYPE_F32;

static inline emo_model *tiny_model(emo_runtime *rt, const char *config) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = 7;
    options.compute = tiny_compute;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    return model;
}

/* Called with every model of a run before it is trained, where a test sets it: moves it to another device. */
static void (*tiny_place)(emo_model *model);

/* Documents of 3 to 24 tokens with a pattern that can be learnt. */
static inline emo_dataset *tiny_data(emo_runtime *rt) {
    emo_error err = EMO_ERROR_INIT;
    int32_t tokens[TINY_DOCS * 24];
    size_t lengths[TINY_DOCS];
    size_t at = 0;
    for (size_t d = 0; d < TINY_DOCS; d++) {
        lengths[d] = 3 + d * 7 % 22;
        for (size_t i = 0; i < lengths[d]; i++)
            tokens[at++] = (int32_t)(2 + (d % 5 * 9 + i * (1 + d % 3)) % 48);
    }
    emo_dataset *data = NULL;
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, lengths, NULL, TINY_DOCS, 1, &data, &err));
    return data;
}

static inline emo_train_options tiny_options(void) {
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.max_steps = TINY_STEPS;
    o.warmup = 2;
    o.lr = 0.01f;
    o.batch_rows = 4;
    o.seq_len = 32;
    o.seed = 3;
    return o;
}

/* Everything a run leaves. */
typedef struct tiny_result {
    emo_status status;
    emo_error err;
    int64_t done; /* steps */
    emo_step_metrics metrics[TINY_MOST + 1];
    float *weights; /* malloc'ed, all parameters in order */
    size_t count;
} tiny_result;

static inline void tiny_weights(const emo_model *model, tiny_result *r) {
    r->count = 0;
    for (size_t i = 0; i < model->n_params; i++)
        r->count += (size_t)emo__param_count(&model->params[i]);
    r->weights = malloc(r->count * sizeof(float));
    assert_non_null(r->weights);
    size_t at = 0;
    for (size_t i = 0; i < model->n_params; i++) {
        const emo__param *p = &model->params[i];
        assert_int_equal(emo__param_read_f32(model, p, r->weights + at, NULL), EMO_OK);
        at += (size_t)emo__param_count(p);
    }
}

/* Steps to the end or the first failure; nothing in here stops the test, so that any thread may call it. */
static inline void tiny_steps(emo_trainer *trainer, tiny_result *r) {
    while (r->status == EMO_OK && emo_trainer_at(trainer) < emo_trainer_steps(trainer)) {
        emo_step_metrics m = {0};
        m.struct_size = sizeof m;
        r->status = emo_trainer_step(trainer, &m, &r->err);
        if (r->status == EMO_OK && m.step <= TINY_MOST)
            r->metrics[m.step] = m;
    }
    r->done = emo_trainer_at(trainer);
}

/* A run of its own: model, data, pool from text (NULL: none). */
static inline tiny_result tiny_run(int32_t threads, const char *config, const char *pool, emo_train_options o) {
    tiny_result r = {0};
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(threads, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, config);
    emo_dataset *data = tiny_data(rt);
    emo_pool_policy *policy = NULL;
    emo_trainer *trainer = NULL;
    if (tiny_place != NULL)
        tiny_place(model);
    if (pool != NULL)
        EXPECT_OK(emo_pool_policy_parse(rt, pool, &policy, &err));
    o.pool = policy;
    r.status = emo_trainer_create(model, data, &o, &trainer, &r.err);
    if (r.status == EMO_OK)
        tiny_steps(trainer, &r);
    emo_trainer_release(trainer);
    tiny_weights(model, &r);
    emo_pool_policy_release(policy);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return r;
}

static inline tiny_result tiny_run_ok(int32_t threads, const char *config, const char *pool, emo_train_options o) {
    tiny_result r = tiny_run(threads, config, pool, o);
    if (r.status != EMO_OK)
        fail_msg("the run failed: %s: %s", emo_status_name(r.status), r.err.message);
    return r;
}

/* Bit for bit: losses from step `first` on, and weights. */
static inline void tiny_same(const tiny_result *a, const tiny_result *b, int64_t first) {
    assert_int_equal(a->done, b->done);
    for (int64_t s = first; s <= a->done; s++) {
        const emo_step_metrics *x = &a->metrics[s];
        const emo_step_metrics *y = &b->metrics[s];
        double u[] = {x->loss, x->lm_z_loss, x->balance_loss, x->router_z_loss, x->total_loss, x->grad_norm, x->lr};
        double v[] = {y->loss, y->lm_z_loss, y->balance_loss, y->router_z_loss, y->total_loss, y->grad_norm, y->lr};
        if (memcmp(u, v, sizeof u) != 0)
            fail_msg("step %lld: losses %.17g and %.17g, norms %.9g and %.9g", (long long)s, u[0], v[0], u[5], v[5]);
    }
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->weights, b->weights, a->count * sizeof(float));
}

/* The same numbers in another order of summation. */
static inline void tiny_close(const tiny_result *a, const tiny_result *b, double tolerance) {
    assert_int_equal(a->done, b->done);
    for (int64_t s = 1; s <= a->done; s++) {
        const emo_step_metrics *x = &a->metrics[s];
        const emo_step_metrics *y = &b->metrics[s];
        double u[] = {x->loss, x->balance_loss, x->router_z_loss, x->total_loss, x->grad_norm};
        double v[] = {y->loss, y->balance_loss, y->router_z_loss, y->total_loss, y->grad_norm};
        for (size_t i = 0; i < sizeof u / sizeof u[0]; i++) {
            if (!(u[i] - v[i] <= tolerance && v[i] - u[i] <= tolerance))
                fail_msg("step %lld, number %zu: %.9g and %.9g", (long long)s, i, u[i], v[i]);
        }
    }
}

static inline void tiny_free(tiny_result *r) {
    free(r->weights);
    r->weights = NULL;
}

#endif
