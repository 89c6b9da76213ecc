/* SPDX-License-Identifier: Apache-2.0 */
/* Small models for the tests of sessions. */
#ifndef EMO_TESTS_INFER_SUPPORT_H
#define EMO_TESTS_INFER_SUPPORT_H

#include <emo/session.h>

#include "model/pass.h"
#include "support/support.h"

enum { VOCAB = 257, EOS = 256 };

/* Weights so large that every token has its own logits; a dense layer between two MoE layers. */
static const char wild_config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":257,\"hidden_size\":32,\"intermediate_size\":16,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":1500,\"num_experts_per_tok\":3,"
    "\"num_experts_per_layer\":[9,0,13],\"num_shared_experts_per_layer\":[1,0,1],\"dense_intermediate_size\":24,"
    "\"initializer_range\":0.3,\"eos_token_id\":256,\"pad_token_id\":0}";

static inline emo_model *test_model(emo_runtime *rt, const char *config, uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = seed;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    return model;
}

static inline void test_attach_bytes(emo_runtime *rt, emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *tokenizer = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tokenizer, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, tokenizer, &err));
    emo_tokenizer_release(tokenizer);
}

/* A model that, greedily, says byte script[i + 1] after script[i], and eos after the last; bytes may not repeat. */
static inline emo_model *test_chain_model(emo_runtime *rt, const char *script) {
    static const char config[] =
        "{\"model_type\":\"emo\",\"vocab_size\":257,\"hidden_size\":64,\"intermediate_size\":8,"
        "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"max_position_embeddings\":256,\"num_experts_per_tok\":2,"
        "\"num_experts\":4,\"num_shared_experts\":1,\"initializer_range\":0.005,\"eos_token_id\":256,"
        "\"pad_token_id\":0}";
    emo_model *model = test_model(rt, config, 3);
    float *embed = (float *)(uintptr_t)model->embed.data;
    float *head = (float *)(uintptr_t)model->head.data;
    test_fill(embed, VOCAB * 64, 11, 1.0f);
    for (size_t i = 0; i < VOCAB * 64; i++) {
        embed[i] = embed[i] < 0.0f ? -1.0f : 1.0f;
        head[i] = 0.0f;
    }
    size_t n = strlen(script);
    for (size_t i = 0; i < n; i++) {
        size_t next = i + 1 < n ? (size_t)(unsigned char)script[i + 1] : EOS;
        memcpy(head + next * 64, embed + (size_t)(unsigned char)script[i] * 64, 64 * sizeof(float));
    }
    test_attach_bytes(rt, model);
    return model;
}

/* As TEST_RUNTIME, with a model, `model`, made by an expression in which `rt` is the runtime. */
#define TEST_RUNTIME_AND_MODEL(threads, make)                                                                          \
    static emo_runtime *rt;                                                                                            \
    static emo_model *model;                                                                                           \
    static int setup(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        rt = test_runtime(threads, EMO_ISA_AUTO);                                                                      \
        model = make;                                                                                                  \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int teardown(void **state) {                                                                                \
        (void)state;                                                                                                   \
        emo_model_release(model);                                                                                      \
        emo_runtime_release(rt);                                                                                       \
        return 0;                                                                                                      \
    }

static inline emo_session *test_session(emo_model *model, const emo_session_options *options) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    EXPECT_OK(emo_session_create(model, options, &session, &err));
    return session;
}

static inline void test_prompt(int32_t *ids, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 37 + seed * 101 + i * i * (seed + 3)) % 256);
}

/* One document of n tokens as a batch without a cache, with the logits of some of its rows. */
typedef struct test_document {
    int32_t *positions;
    emo_attention_segment segment;
    int32_t begin[2];
    emo__batch batch;
} test_document;

/* A pass for it; `ids` and `rows` must outlive it. */
static inline emo__pass *test_document_pass(emo_model *model, const int32_t *ids, int32_t n, const int32_t *rows,
                                            int32_t n_rows, test_document *d) {
    emo_error err = EMO_ERROR_INIT;
    emo__pass_config config = {0};
    config.max_tokens = n;
    config.max_documents = 1;
    config.max_logits = n_rows;
    config.shared_mode = -1;
    emo__pass *pass = NULL;
    EXPECT_OK(emo__pass_create(model, &config, &pass, &err));
    *d = (test_document){.segment = {0, n, 0, n}, .begin = {0, n}};
    d->positions = malloc((size_t)n * sizeof *d->positions);
    assert_non_null(d->positions);
    for (int32_t i = 0; i < n; i++)
        d->positions[i] = i;
    d->batch.tokens = n;
    d->batch.ids = ids;
    d->batch.positions = d->positions;
    d->batch.n_attention = 1;
    d->batch.attention = &d->segment;
    d->batch.n_documents = 1;
    d->batch.document_begin = d->begin;
    d->batch.n_logits = n_rows;
    d->batch.logit_rows = rows;
    return pass;
}

static inline void test_document_free(emo__pass *pass, test_document *d) {
    emo__pass_destroy(pass);
    free(d->positions);
}

static inline void test_append(emo_session *session, int32_t sequence, size_t n, uint64_t seed) {
    emo_error err = EMO_ERROR_INIT;
    int32_t *ids = malloc((n + 1) * sizeof *ids);
    assert_non_null(ids);
    test_prompt(ids, n, seed);
    EXPECT_OK(emo_session_append_tokens(session, sequence, ids, n, &err));
    free(ids);
}

/* To the end; returns the number of calls. */
static inline size_t test_finish(emo_session *session, const emo_budget *budget) {
    emo_error err = EMO_ERROR_INIT;
    emo_state state = EMO_STATE_PENDING;
    size_t calls = 0;
    while (state != EMO_STATE_DONE) {
        EXPECT_OK(emo_session_advance(session, budget, &state, &err));
        assert_true(++calls < 100000);
    }
    return calls;
}

static inline void test_same_output(const emo_session *a, int32_t in_a, const emo_session *b, int32_t in_b) {
    const int32_t *ids_a, *ids_b;
    const float *p_a, *p_b;
    size_t n = emo_session_generated(a, in_a, &ids_a, &p_a);
    assert_int_equal(n, emo_session_generated(b, in_b, &ids_b, &p_b));
    assert_true(n > 0);
    assert_memory_equal(ids_a, ids_b, n * sizeof *ids_a);
    assert_memory_equal(p_a, p_b, n * sizeof *p_a);
    assert_int_equal(emo_session_stop_reason(a, in_a), emo_session_stop_reason(b, in_b));
}

#endif
