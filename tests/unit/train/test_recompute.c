/* SPDX-License-Identifier: Apache-2.0 */
/* Making activations again instead of keeping them: the same bits, less memory. */
#include "train_support.h"

typedef struct variant {
    const char *config, *pool;
    emo_dtype compute;
    emo_balance_scope scope;
    int32_t accumulate;
    float jitter, score_bias_rate;
} variant;

static const variant variants[] = {
    {TINY, "uniform:3:8", EMO_DTYPE_F32, EMO_BALANCE_DOCUMENT, 1, 0.1f, 0.0f},
    {TINY_CONFIG("[9,0]", "[1,0]", ""), "mass:0.5:3:8", EMO_DTYPE_BF16, EMO_BALANCE_WINDOW, 2, 0.0f, 0.01f},
    {TINY_CONFIG("[0,7]", "[0,1]", ",\"attention_bias\":true"), NULL, EMO_DTYPE_F32, EMO_BALANCE_BATCH, 1, 0.0f, 0.0f},
};

static void the_bits_are_the_same(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        const variant *v = &variants[i];
        emo_train_options o = tiny_options();
        o.max_steps = 4;
        o.balance_scope = v->scope;
        o.balance_window = 2;
        o.accumulate = v->accumulate;
        o.jitter = v->jitter;
        o.score_bias_rate = v->score_bias_rate;
        tiny_compute = v->compute;
        tiny_result kept = tiny_run_ok(1, v->config, v->pool, o);
        for (o.recompute = EMO_RECOMPUTE_EXPERTS; o.recompute <= EMO_RECOMPUTE_LAYER; o.recompute++) {
            tiny_result again = tiny_run_ok(2, v->config, v->pool, o);
            tiny_same(&kept, &again, 1);
            tiny_free(&again);
        }
        tiny_free(&kept);
        tiny_compute = EMO_DTYPE_F32;
    }
}

/* Four layers: with recomputation of experts a layer keeps no pre-activations, with that of layers
 * its input alone. */
static void less_is_kept(void **state) {
    (void)state;
    static const char config[] =
        "{\"model_type\":\"emo\",\"vocab_size\":50,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":4,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"
        "\"num_experts\":9,\"num_shared_experts\":1,\"eos_token_id\":1}";
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_error err = EMO_ERROR_INIT;
    emo_train_plan plan[3];
    for (int32_t r = 0; r < 3; r++) {
        emo_train_options o = tiny_options();
        plan[r] = (emo_train_plan)EMO_TRAIN_PLAN_INIT;
        o.recompute = r;
        EXPECT_OK(emo_train_plan_json(rt, config, sizeof config - 1, &o, NULL, &plan[r], &err));
    }
    int64_t tokens = plan[0].tokens, saved = tokens * 3 * 2 * 8 * 4, input = tokens * 16 * 4;
    assert_int_equal(plan[0].saved - plan[1].saved, 4 * saved);
    assert_int_equal(plan[1].activations - plan[0].activations, saved); /* one layer's, which all of them use */
    assert_int_equal(plan[2].saved, 4 * input);
    assert_true(plan[2].total < plan[1].total && plan[1].total < plan[0].total);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_bits_are_the_same), cmocka_unit_test(less_is_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
