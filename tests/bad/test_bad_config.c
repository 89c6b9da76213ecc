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
    {"{\"tie_word_embeddings\":\"yes\"}", EMO_E_FORMAT, "tie_word_embeddings"},
    {"{\"rms_norm_eps\":-1}", EMO_E_FORMAT, "rms_norm_eps"},
    {"{" SMALL "\"num_key_value_heads\":3}", EMO_E_RANGE, "num_key_value_heads"},
    {"{" SMALL "\"head_dim\":7}", EMO_E_RANGE, "even"},
    {"{" SMALL "\"num_experts\":4,\"num_shared_experts\":4,\"num_experts_per_tok\":4}", EMO_E_RANGE, "routed"},
    {"{" SMALL "\"num_experts\":4,\"num_shared_experts\":2,\"num_experts_per_tok\":2}", EMO_E_RANGE, "exceed"},
    {"{" SMALL "\"num_experts\":4,\"num_experts_per_tok\":5}", EMO_E_RANGE, "above the 4 experts"},
    {"{" SMALL "\"num_experts_per_layer\":[4]}", EMO_E_RANGE, "num_experts_per_layer"},
    {"{" SMALL "\"num_experts_per_layer\":[4,-4]}", EMO_E_FORMAT, "num_experts_per_layer"},
    {"{" SMALL "\"always_active_experts\":[9]}", EMO_E_RANGE, "always-active expert 9"},
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
        cmocka_unit_test(hostile_pruning_records_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
