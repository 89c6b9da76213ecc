/* SPDX-License-Identifier: Apache-2.0 */
/* What lies beside the weights of a model, and what loading and saving report: tokenizer, stale files, warnings,
 * cancellation, tied embeddings, dense models. */
#include <emo/model.h>
#include <unistd.h>

#include "io/files.h"
#include "model/files.h"
#include "support/support.h"

#define SHAPE                                                                                                          \
    "\"vocab_size\":260,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2," \
    "\"eos_token_id\":3,"
static const char moe[] = "{" SHAPE "\"num_experts\":4,\"num_experts_per_tok\":2}";
static const char tied[] = "{" SHAPE "\"num_experts\":4,\"num_experts_per_tok\":2,\"tie_word_embeddings\":true}";
static const char dense[] = "{" SHAPE "\"model_type\":\"olmo2_noqknorm_prenorm\",\"num_experts\":0}";

typedef struct heard {
    int warnings;
    char last[512];
} heard;

static void hear(void *ctx, emo_log_level level, const char *message) {
    heard *h = ctx;
    if (level == EMO_LOG_WARNING) {
        h->warnings++;
        snprintf(h->last, sizeof h->last, "%s", message);
    }
}

static heard ear;
static emo_runtime *rt;
static char folder[64];

static int setup(void **state) {
    (void)state;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    options.log.ctx = &ear;
    options.log.log = hear;
    options.log.level = EMO_LOG_WARNING;
    memset(&ear, 0, sizeof ear);
    strcpy(folder, "/tmp/emo_test_beside_XXXXXX");
    return mkdtemp(folder) == NULL || emo_runtime_create(&options, &rt, NULL) != EMO_OK ? -1 : 0;
}

static int teardown(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo__remove_tree(&rt->mem, folder, &err));
    emo_runtime_release(rt);
    return 0;
}

static emo_model *make(const char *config) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &model, &err));
    return model;
}

static const char *beside(const char *name) {
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void the_tokenizer_travels_along(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(moe);
    emo_tokenizer *bytes = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &bytes, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, bytes, &err));
    emo_tokenizer_release(bytes);
    EXPECT_OK(emo_model_save(model, folder, NULL, &err));
    emo_model *back = NULL;
    EXPECT_OK(emo_model_load_path(rt, folder, NULL, &back, &err));
    assert_non_null(emo_model_tokenizer(back));
    assert_int_equal(emo_tokenizer_hash(emo_model_tokenizer(back)), emo_tokenizer_hash(emo_model_tokenizer(model)));
    assert_int_equal(emo_tokenizer_eos(emo_model_tokenizer(back)), 3); /* config.json says so */
    assert_int_equal(ear.warnings, 0);
    emo_model_release(back);
    EXPECT_OK(emo__file_write(&rt->mem, beside("tokenizer.json"), "{\"model\":", 9, &err));
    EXPECT_STATUS(emo_model_load_path(rt, folder, NULL, &back, &err), EMO_E_FORMAT, "tokenizer.json");
    EXPECT_OK(emo__file_write(&rt->mem, beside("tokenizer.json"), "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", 39,
                              &err));
    EXPECT_OK(emo_model_load_path(rt, folder, NULL, &back, &err));
    assert_null(emo_model_tokenizer(back));
    assert_int_equal(ear.warnings, 1);
    emo_model_release(back);
    emo_model_release(model);
}

static void foreign_tensors_are_named(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(moe);
    EXPECT_OK(emo_model_save(model, folder, NULL, &err));
    emo_source *source = NULL;
    EXPECT_OK(emo_source_open_path(rt, beside("model.safetensors"), &source, &err));
    emo_model *back = NULL;
    EXPECT_OK(emo_model_load_sources(rt, tied, strlen(tied), &source, 1, NULL, &back, &err));
    assert_int_equal(ear.warnings, 1);
    assert_non_null(strstr(ear.last, "lm_head.weight"));
    emo_source_release(source);
    emo_model_release(back);
    emo_model_release(model);
}

static void tied_and_dense_models_round_trip(void **state) {
    (void)state;
    static const char *const configs[] = {tied, dense};
    for (size_t i = 0; i < 2; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo_model *model = make(configs[i]);
        EXPECT_OK(emo_model_save(model, folder, NULL, &err));
        emo_model *back = NULL;
        EXPECT_OK(emo_model_load_path(rt, folder, NULL, &back, &err));
        assert_int_equal(back->n_params, model->n_params);
        for (size_t p = 0; p < model->n_params; p++)
            assert_memory_equal(back->params[p].view->data, model->params[p].view->data,
                                (size_t)emo__param_count(&model->params[p]) * sizeof(float));
        assert_int_equal(emo_model_experts(back, 0), emo_model_experts(model, 0));
        assert_true(i != 0 || back->head.data == back->embed.data);
        float value;
        EXPECT_STATUS(emo_model_tensor_f32(back, i == 0 ? "lm_head.weight" : "model.layers.0.mlp.gate.weight", &value,
                                           1, NULL, &err),
                      EMO_E_NOT_FOUND, "no tensor");
        emo_model_release(back);
        emo_model_release(model);
    }
    assert_int_equal(ear.warnings, 0);
}

static void a_stale_pruning_record_goes_away(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(moe);
    emo_model *small = NULL;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 0, 0, &err));
    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    EXPECT_OK(emo_model_save(small, folder, NULL, &err));
    assert_true(access(beside("pruning_metadata.json"), F_OK) == 0);
    EXPECT_OK(emo_model_save(model, folder, NULL, &err));
    assert_false(access(beside("pruning_metadata.json"), F_OK) == 0);
    emo_model *back = NULL;
    EXPECT_OK(emo_model_load_path(rt, folder, NULL, &back, &err));
    assert_int_equal(emo_model_experts(back, 1), 4);
    emo_model_release(back);
    emo_model_release(small);
    emo_model_release(model);
    emo_mask_release(mask);
}

static int32_t cancel_at(void *ctx, const emo_progress_info *info) {
    int *left = ctx;
    assert_true(info->done <= info->total);
    return --*left < 0;
}

static void long_calls_can_be_cancelled(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(moe);
    int left = 3;
    emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
    save.progress.ctx = &left;
    save.progress.report = cancel_at;
    EXPECT_STATUS(emo_model_save(model, folder, &save, &err), EMO_E_CANCELLED, "3 of");
    assert_false(access(beside("model.safetensors"), F_OK) == 0); /* weights come last in a new folder */
    EXPECT_OK(emo_model_save(model, folder, NULL, &err));
    emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
    load.progress = save.progress;
    left = 5;
    emo_model *back = NULL;
    EXPECT_STATUS(emo_model_load_path(rt, folder, &load, &back, &err), EMO_E_CANCELLED, "5 of");
    assert_null(back);
    emo_model_release(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_tokenizer_travels_along, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_tensors_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(tied_and_dense_models_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(a_stale_pruning_record_goes_away, setup, teardown),
        cmocka_unit_test_setup_teardown(long_calls_can_be_cancelled, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
