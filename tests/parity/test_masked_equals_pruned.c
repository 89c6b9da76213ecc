/* SPDX-License-Identifier: Apache-2.0 */
/* One restriction, three ways, the same bits: a mask at run time, a pruned model, a model of which only the subset was
 * loaded. */
#include <emo/emo.h>
#include <unistd.h>

#include "base/runtime.h"
#include "io/files.h"
#include "support/support.h"

#define VOCAB 64
#define TOKENS 23

#define SHAPE                                                                                                          \
    "\"vocab_size\":64,\"hidden_size\":48,\"intermediate_size\":24,\"num_hidden_layers\":3,\"num_attention_heads\":4," \
    "\"max_position_embeddings\":64,\"eos_token_id\":1,\"pad_token_id\":0,\"initializer_range\":0.3,"

/* Numbers of experts that do and do not fill vector registers; every convention of the router. */
static const char *const configs[] = {
    "{" SHAPE "\"num_experts\":33,\"num_shared_experts\":1,\"num_experts_per_tok\":5}",
    "{" SHAPE "\"num_experts\":13,\"num_shared_experts\":2,\"num_experts_per_tok\":4}",
    "{" SHAPE "\"num_experts\":13,\"num_shared_experts\":2,\"num_experts_per_tok\":4,"
    "\"emo_shared_expert_weights\":\"one\"}",
    "{" SHAPE "\"num_experts\":16,\"num_experts_per_tok\":3,\"norm_topk_prob\":true}",
    "{" SHAPE "\"num_experts\":19,\"num_experts_per_tok\":4,\"always_active_experts\":[2,17]}",
    "{" SHAPE "\"num_experts_per_layer\":[9,0,14],\"num_shared_experts\":1,\"num_experts_per_tok\":3,"
    "\"dense_intermediate_size\":40}",
};
static const struct {
    emo_isa isa;
    emo_dtype compute;
} ways[] = {
    {EMO_ISA_SCALAR, EMO_DTYPE_F32},       {EMO_ISA_AVX2, EMO_DTYPE_F32},  {EMO_ISA_AVX512, EMO_DTYPE_F32},
    {EMO_ISA_NEON, EMO_DTYPE_F32},         {EMO_ISA_AUTO, EMO_DTYPE_BF16}, {EMO_ISA_AVX512, EMO_DTYPE_BF16},
    {EMO_ISA_AVX512_BF16, EMO_DTYPE_BF16},
};

/* Switches about half of the experts of each layer off, or with a share of 1 all but `least`, which stay in any case.
 */
static emo_mask *some(const emo_model *model, uint64_t seed, float share, int32_t least) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t l = 0; l < emo_mask_layers(mask); l++) {
        float draw[64];
        test_fill(draw, 64, seed + (uint64_t)l, 1.0f);
        for (int32_t e = 0; e < emo_mask_experts(mask, l); e++) {
            if (emo_mask_is_always(mask, l, e) == 0 && draw[e] < 2.0f * share - 1.0f && emo_mask_count(mask, l) > least)
                EXPECT_OK(emo_mask_set(mask, l, e, 0, &err));
        }
    }
    return mask;
}

static void logits_of(emo_model *model, const emo_mask *mask, float *out) {
    emo_error err = EMO_ERROR_INIT;
    int32_t tokens[TOKENS];
    for (int32_t i = 0; i < TOKENS; i++)
        tokens[i] = (i * 37 + 11) % VOCAB;
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    options.mask = mask;
    EXPECT_OK(emo_eval_logits(model, tokens, TOKENS, &options, out, TOKENS * VOCAB, &err));
}

static void one_case(emo_isa isa, emo_dtype compute, const char *config, int32_t keep_extra) {
    emo_error err = EMO_ERROR_INIT;
    static float full[TOKENS * VOCAB];
    static float masked[TOKENS * VOCAB];
    static float other[TOKENS * VOCAB];
    char folder[] = "/tmp/emo_test_parity_XXXXXX";
    assert_non_null(mkdtemp(folder));
    emo_runtime *rt = test_runtime(2, isa);
    emo_model *model = NULL;
    emo_model *small = NULL;
    emo_model *part = NULL;
    emo_model_create_options create = EMO_MODEL_CREATE_OPTIONS_INIT;
    create.compute = compute;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &create, &model, &err));
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EXPECT_OK(emo_model_get_info(model, &info, &err));
    emo_mask *mask = some(model, 5, keep_extra < 0 ? 1.0f : 0.5f, info.top_k + keep_extra);

    logits_of(model, NULL, full);
    logits_of(model, mask, masked);
    assert_memory_not_equal(full, masked, sizeof full);

    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    emo_model_info less = EMO_MODEL_INFO_INIT;
    EXPECT_OK(emo_model_get_info(small, &less, &err));
    assert_int_equal(less.top_k, info.top_k + (keep_extra < 0 ? keep_extra : 0));
    logits_of(small, NULL, other);
    assert_memory_equal(masked, other, sizeof masked);
    logits_of(small, mask, other); /* the parent's mask fits the pruned model too */
    assert_memory_equal(masked, other, sizeof masked);

    EXPECT_OK(emo_model_save(model, folder, NULL, &err));
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    options.subset = mask;
    options.compute = compute;
    EXPECT_OK(emo_model_load_path(rt, folder, &options, &part, &err));
    logits_of(part, NULL, other);
    assert_memory_equal(masked, other, sizeof masked);
    logits_of(part, mask, other);
    assert_memory_equal(masked, other, sizeof masked);
    emo_mask *all = NULL;
    EXPECT_OK(emo_model_mask(model, &all, &err));
    emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
    int32_t token = 3;
    eval.mask = all;
    EXPECT_STATUS(emo_eval_logits(part, &token, 1, &eval, other, VOCAB, &err), EMO_E_MISMATCH, "left out");

    emo_mask_release(all);
    emo_mask_release(mask);
    emo_model_release(part);
    emo_model_release(small);
    emo_model_release(model);
    EXPECT_OK(emo__remove_tree(&rt->mem, folder, &err));
    emo_runtime_release(rt);
}

static void the_bits_are_the_same(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (!test_has_isa(ways[i].isa))
            continue;
        for (size_t c = 0; c < sizeof configs / sizeof configs[0]; c++)
            one_case(ways[i].isa, ways[i].compute, configs[c], 1);
    }
}

/* So few experts that a token cannot have its top_k: the pruned model's top_k is smaller. Every layer has the same
 * number of experts here, because a pruned model has one top_k for all layers. */
static void fewer_experts_than_top_k(void **state) {
    (void)state;
    for (size_t c = 0; c < 3; c++)
        one_case(EMO_ISA_AUTO, EMO_DTYPE_F32, configs[c], -1);
}

/* A window's result does not depend on what else is in the pass. */
static void batching_changes_nothing(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, configs[0], strlen(configs[0]), NULL, &model, &err));
    emo_mask *mask = some(model, 9, 0.5f, 12);
    enum { DOCS = 7 };
    int32_t tokens[DOCS * 20];
    size_t lengths[DOCS];
    size_t n = 0;
    for (size_t d = 0; d < DOCS; d++) {
        lengths[d] = 3 + 2 * d;
        for (size_t t = 0; t < lengths[d]; t++, n++)
            tokens[n] = (int32_t)((n * 29 + 5) % VOCAB);
    }
    emo_dataset *data = NULL;
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, lengths, NULL, DOCS, 1, &data, &err));
    emo_eval_result a[DOCS];
    emo_eval_result b[DOCS];
    emo_eval_result total;
    emo_eval_options options = EMO_EVAL_OPTIONS_INIT;
    options.mask = mask;
    EXPECT_OK(emo_eval_documents(model, data, &options, &total, NULL, a, &err));
    options.batch_tokens = 1; /* every window by itself */
    EXPECT_OK(emo_eval_documents(model, data, &options, &total, NULL, b, &err));
    assert_memory_equal(a, b, sizeof a);
    assert_int_equal(total.tokens, n); /* every token of the text is scored once */
    options.seq_len = 4;
    EXPECT_OK(emo_eval_documents(model, data, &options, &total, NULL, b, &err));
    assert_int_equal(total.tokens, n);
    emo_dataset_release(data);
    emo_mask_release(mask);
    emo_model_release(model);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bits_are_the_same),
        cmocka_unit_test(fewer_experts_than_top_k),
        cmocka_unit_test(batching_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
