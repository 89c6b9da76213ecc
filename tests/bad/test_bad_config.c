/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations that must be refused: the status, and words that say what is wrong. */
#include <emo/model.h>

#include "base/runtime.h"
#include "model/config.h"
#include "support/support.h"

typedef struct bad {
    const char *text;
    emo_status status;
    const char *words;
} bad;

/* A small shape that is right; each row replaces or adds keys after it is cut open. */
#define SMALL                                                                                                          \
    "\"vocab_size\":64,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":2,\"num_attention_heads\":2,"  \
    "\"eos_token_id\":1,"

static const bad configs[] = {
    {"", EMO_E_FORMAT, "config.json"},
    {"{", EMO_E_FORMAT, "config.json"},
    {"[]", EMO_E_FORMAT, "object"},
    {"{\"vocab_size\":64,\"vocab_size\":65}", EMO_E_FORMAT, NULL},
    {"{\"model_type\":\"llama\"}", EMO_E_UNSUPPORTED, "llama"},
    {"{\"model_type\":3}", EMO_E_FORMAT, "model_type"},
    {"{\"hidden_act\":\"gelu\"}", EMO_E_UNSUPPORTED, "gelu"},
    {"{\"rope_scaling\":{\"type\":\"yarn\"}}", EMO_E_UNSUPPORTED, "yarn"},
    {"{\"rope_scaling\":4}", EMO_E_FORMAT, "rope_scaling"},
    {"{\"hidden_size\":-1}", EMO_E_FORMAT, "hidden_size"},
    {"{\"hidden_size\":99999999999}", EMO_E_FORMAT, "hidden_size"},
    {"{\"hidden_size\":\"16\"}", EMO_E_FORMAT, "hidden_size"},
    {"{\"hidden_size\":16.5}", EMO_E_FORMAT, "hidden_size"},
    {"{\"num_hidden_layers\":1000000000}", EMO_E_FORMAT, "num_hidden_layers"},
    {"{\"num_hidden_layers\":0}", EMO_E_FORMAT, "num_hidden_layers"},
    {"{\"vocab_size\":100,\"eos_token_id\":100}", EMO_E_RANGE, "eos_token_id is 100"},
    {"{\"vocab_size\":100}", EMO_E_RANGE, "100257"},
    {"{" SMALL "\"num_experts\":65536,\"num_hidden_layers\":17,\"num_experts_per_tok\":2}", EMO_E_FORMAT, "duplicate"},
    {"{\"vocab_size\":64,\"eos_token_id\":1,\"hidden_size\":32,\"num_attention_heads\":2,\"num_experts\":65536,\"num_"
     "hidden_layers\":17,"
     "\"num_experts_per_tok\":2}",
     EMO_E_RANGE, "num_experts: 1114112 experts"},
    {"{" SMALL "\"num_experts\":4,\"num_experts_per_tok\":0}", EMO_E_FORMAT, "num_experts_per_tok"},
    {"{\"hidden_size\":100,\"num_attention_heads\":3,\"vocab_size\":64,\"eos_token_id\":1}", EMO_E_RANGE,
     "hidden_size 100 is no multiple of num_attention_heads 3"},
    {"{" SMALL "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0}}", EMO_E_UNSUPPORTED, "llama3"},
    {"{" SMALL "\"rope_scaling\":{\"type\":4}}", EMO_E_FORMAT, "\"type\""},
    {"{\"tie_word_embeddings\":\"yes\"}", EMO_E_FORMAT, "tie_word_embeddings"},
    {"{\"rms_norm_eps\":-1}", EMO_E_FORMAT, "rms_norm_eps"},
    {"{" SMALL "\"num_key_value_heads\":3}", EMO_E_RANGE, "num_key_value_heads"},
    {"{" SMALL "\"head_dim\":7}", EMO_E_RANGE, "even"},
    {"{" SMALL "\"num_experts\":4,\"num_shared_experts\":4,\"num_experts_per_tok\":4}", EMO_E_RANGE, "routed"},
    {"{" SMALL "\"num_experts\":4,\"num_shared_experts\":2,\"num_experts_per_tok\":2}", EMO_E_RANGE, "exceed"},
    {"{" SMALL "\"num_experts\":4,\"num_experts_per_tok\":5}", EMO_E_RANGE, "above the 4 experts"},
    {"{" SMALL "\"num_experts_per_layer\":[4]}", EMO_E_RANGE, "num_experts_per_layer"},
    {"{" SMALL "\"num_experts_per_layer\":[4,-4]}", EMO_E_FORMAT, "num_experts_per_layer"},
    {"{" SMALL "\"always_active_experts\":[9]}", EMO_E_RANGE, "always_active_experts: expert 9"},
    {"{" SMALL "\"always_active_experts\":[1,1]}", EMO_E_FORMAT, "twice"},
    {"{" SMALL "\"always_active_experts\":\"all\"}", EMO_E_FORMAT, NULL},
    {"{" SMALL "\"always_active_experts_per_layer\":[[1]]}", EMO_E_FORMAT, "2 layers"},
    {"{" SMALL "\"num_experts\":4,\"num_shared_experts\":1,\"num_experts_per_tok\":2,\"norm_topk_prob\":true}",
     EMO_E_RANGE, "norm_topk_prob"},
    {"{" SMALL "\"emo_shared_expert_weights\":\"two\"}", EMO_E_FORMAT, "emo_shared_expert_weights"},
};

static void hostile_configs_are_refused(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo_model *model = NULL;
        emo_status status = emo_model_create_json(rt, configs[i].text, strlen(configs[i].text), NULL, &model, &err);
        if (status != configs[i].status || (configs[i].words != NULL && strstr(err.message, configs[i].words) == NULL))
            fail_msg("%s: got %s '%s'", configs[i].text, emo_status_name(status), err.message);
        assert_null(model);
    }
    emo_runtime_release(rt);
}

/* ---- key by key ---- */

typedef struct number_key {
    const char *key;
    int whole;       /* an integer */
    const char *low; /* the first value below the range; NULL: none */
} number_key;

static const number_key numbers[] = {
    {"vocab_size", 1, "0"},
    {"hidden_size", 1, "0"},
    {"intermediate_size", 1, "0"},
    {"dense_intermediate_size", 1, "0"},
    {"num_hidden_layers", 1, "0"},
    {"num_attention_heads", 1, "0"},
    {"num_key_value_heads", 1, "0"},
    {"head_dim", 1, "0"},
    {"max_position_embeddings", 1, "0"},
    {"num_experts", 1, "-1"},
    {"num_shared_experts", 1, "-1"},
    {"num_experts_per_tok", 1, "0"},
    {"bos_token_id", 1, "-2"},
    {"pad_token_id", 1, "-2"},
    {"eos_token_id", 1, "-2"},
    {"emo_train_seq_len", 1, "-1"},
    {"rms_norm_eps", 0, "-1e-9"},
    {"rope_theta", 0, "0"},
    {"initializer_range", 0, "-0.5"},
    {"router_aux_loss_coef", 0, "-1e300"},
};
static const char *const wrong_types[] = {"\"7\"", "{}", "true", "[[]]", "[\"x\"]"};
static const char *const huge[] = {"1e300", "9223372036854775807", "4611686018427387904000", "-9223372036854775808"};
static const char *const bools[] = {"tie_word_embeddings", "norm_topk_prob", "attention_bias", "dense_mlp_bias",
                                    "output_router_logits"};
static const char *const texts[] = {"model_type", "hidden_act", "emo_shared_expert_weights"};
static const char *const lists[] = {"num_experts_per_layer", "num_shared_experts_per_layer", "always_active_experts",
                                    "always_active_experts_per_layer"};

/* One key wrong in a configuration that is right else: refused by its name, with a status of the format. */
static void refuse_key(emo_runtime *rt, const char *key, const char *value) {
    char text[512];
    emo_error err = EMO_ERROR_INIT;
    emo__config config;
    int n = snprintf(text, sizeof text, "{\"%s\":%s%s%s%s%s%s%s%s}", key, value,
                     strcmp(key, "vocab_size") != 0 ? ",\"vocab_size\":64" : "",
                     strcmp(key, "hidden_size") != 0 ? ",\"hidden_size\":16" : "",
                     strcmp(key, "num_hidden_layers") != 0 ? ",\"num_hidden_layers\":2" : "",
                     strcmp(key, "num_attention_heads") != 0 ? ",\"num_attention_heads\":2" : "",
                     strcmp(key, "num_experts") != 0 ? ",\"num_experts\":8" : "",
                     strcmp(key, "num_experts_per_tok") != 0 ? ",\"num_experts_per_tok\":2" : "",
                     strcmp(key, "eos_token_id") != 0 ? ",\"eos_token_id\":1" : "");
    assert_true(n > 0 && n < (int)sizeof text);
    emo_status status = emo__config_parse(&rt->mem, text, (size_t)n, &config, &err);
    bool named = strstr(err.message, key) != NULL || strstr(err.message, "invalid JSON") != NULL;
    if ((status != EMO_E_FORMAT && status != EMO_E_RANGE && status != EMO_E_UNSUPPORTED) || !named ||
        strstr(err.message, "config.json") == NULL)
        fail_msg("%s: got %s '%s'", text, emo_status_name(status), err.message);
    emo__config_free(&config);
}

static void every_key_is_checked(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        const number_key *k = &numbers[i];
        for (size_t v = 0; v < sizeof wrong_types / sizeof wrong_types[0]; v++)
            refuse_key(rt, k->key, wrong_types[v]);
        for (size_t v = 0; k->whole && v < sizeof huge / sizeof huge[0]; v++)
            refuse_key(rt, k->key, huge[v]);
        if (k->low != NULL)
            refuse_key(rt, k->key, k->low);
        if (k->whole)
            refuse_key(rt, k->key, "1.5");
        refuse_key(rt, k->key, "1e999"); /* no double: not JSON that can be read */
    }
    for (size_t i = 0; i < sizeof bools / sizeof bools[0]; i++) {
        refuse_key(rt, bools[i], "1");
        refuse_key(rt, bools[i], "\"true\"");
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        refuse_key(rt, texts[i], "1");
        refuse_key(rt, texts[i], "[\"emo\"]");
        refuse_key(rt, texts[i], "\"other\"");
        refuse_key(rt, texts[i], "\"\\u0000\"");
    }
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        refuse_key(rt, lists[i], "1");
        refuse_key(rt, lists[i], "\"all\"");
        refuse_key(rt, lists[i], "[1,2,3]"); /* two layers; two routed experts a token */
    }
    emo_runtime_release(rt);
}

static const bad prunings[] = {
    {"[", EMO_E_FORMAT, "pruning_metadata.json"},
    {"{\"experts_kept_per_layer\":[[0,1,2,3]]}", EMO_E_FORMAT, "1 layers"},
    {"{\"experts_kept_per_layer\":[[0,1,2,3],[0,1]]}", EMO_E_FORMAT, "layer 1 keeps 2"},
    {"{\"experts_kept_per_layer\":[[0,1,2,-3],[0,1,2,3]]}", EMO_E_FORMAT, "entry 3"},
    {"{\"experts_kept_per_layer\":[[0,1,2,\"3\"],[0,1,2,3]]}", EMO_E_FORMAT, "entry 3"},
    {"{\"experts_kept_per_layer\":[[0,1,2,3],[0,1,2,70000000]]}", EMO_E_FORMAT, "entry 3"},
};

static void hostile_pruning_records_are_refused(void **state) {
    (void)state;
    static const char text[] = "{" SMALL "\"num_experts\":4,\"num_experts_per_tok\":2}";
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    for (size_t i = 0; i < sizeof prunings / sizeof prunings[0]; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo__config config;
        EXPECT_OK(emo__config_parse(&rt->mem, text, strlen(text), &config, &err));
        EXPECT_STATUS(emo__config_read_pruning(&config, prunings[i].text, strlen(prunings[i].text), &err),
                      prunings[i].status, prunings[i].words);
        emo__config_free(&config);
    }
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_configs_are_refused),
        cmocka_unit_test(every_key_is_checked),
        cmocka_unit_test(hostile_pruning_records_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
