/* SPDX-License-Identifier: Apache-2.0 */
/* What quantising costs a model that has learnt something: perplexity on documents it has not seen. */
#include <emo/emo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support/folder.h"

TEST_RUNTIME_AND_FOLDER(2, EMO_ISA_AUTO)

enum { VOCAB = 64, DOCUMENTS = 24, LENGTH = 64, STEPS = 30 };

/* Rows of 256, so that q4_k has its own blocks everywhere. */
static const char config[] =
    "{\"vocab_size\":64,\"hidden_size\":256,\"intermediate_size\":256,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"num_experts\":5,\"num_shared_experts\":1,\"num_experts_per_tok\":3,"
    "\"max_position_embeddings\":64,\"eos_token_id\":0}";

/* Each token has four likely successors: a model that knows them is at a perplexity of about 4, one that knows nothing
 * at 64. */
static emo_dataset *documents(uint32_t seed) {
    static int32_t tokens[DOCUMENTS * LENGTH];
    size_t lengths[DOCUMENTS];
    emo_dataset *out = NULL;
    emo_error err = EMO_ERROR_INIT;
    uint32_t x = seed;
    for (int d = 0; d < DOCUMENTS; d++) {
        int32_t at = 1 + d % (VOCAB - 1);
        lengths[d] = LENGTH;
        for (int i = 0; i < LENGTH; i++) {
            x = x * 1664525u + 1013904223u;
            at = 1 + (at * 5 + (int32_t)(x >> 30) * 7) % (VOCAB - 1);
            tokens[d * LENGTH + i] = at;
        }
    }
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, lengths, NULL, DOCUMENTS, 0, &out, &err));
    return out;
}

static double perplexity(emo_model *model, const emo_dataset *unseen) {
    emo_error err = EMO_ERROR_INIT;
    emo_eval_result result = {0};
    EXPECT_OK(emo_eval_documents(model, unseen, NULL, &result, NULL, NULL, &err));
    return exp(result.loss_sum / (double)result.tokens);
}

static void perplexity_stays(void **state) {
    (void)state;
    static const struct {
        emo_dtype type;
        double bound; /* relative: what is promised of a trained model */
    } types[] = {{EMO_DTYPE_Q8_0, 0.001}, {EMO_DTYPE_Q4_K, 0.02}};
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *seen = documents(1), *unseen = documents(2);
    emo_model *model = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &model, &err));
    options.batch_rows = 6;
    options.seq_len = LENGTH;
    options.max_steps = STEPS;
    EXPECT_OK(emo_trainer_create(model, seen, &options, &trainer, &err));
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
    double exact = perplexity(model, unseen);
    assert_true(exact < 8.0); /* it has learnt */
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        emo_export_options as = EMO_EXPORT_OPTIONS_INIT;
        emo_export_info info = EMO_EXPORT_INFO_INIT;
        emo_model *small = NULL;
        as.dtype = types[i].type;
        EXPECT_OK(emo_model_export(model, test_path("small.gguf"), &as, &info, &err));
        assert_int_equal(info.fallbacks, 0);
        EXPECT_OK(emo_model_load_path(rt, test_path("small.gguf"), NULL, &small, &err));
        for (emo_dtype compute = EMO_DTYPE_F32; compute <= EMO_DTYPE_BF16; compute += EMO_DTYPE_BF16) {
            EXPECT_OK(emo_model_set_compute(small, compute, &err));
            double change = perplexity(small, unseen) / exact - 1.0;
            if (getenv("EMO_TEST_SHOW") != NULL)
                print_message("%s in %s: %.5f %% of %.4f\n", emo_dtype_name(types[i].type), emo_dtype_name(compute),
                              100.0 * change, exact);
            assert_true(fabs(change) <= types[i].bound);
        }
        emo_model_release(small);
    }
    emo_model_release(model);
    emo_dataset_release(seen);
    emo_dataset_release(unseen);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(perplexity_stays)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
