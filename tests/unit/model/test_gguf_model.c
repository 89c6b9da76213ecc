/* SPDX-License-Identifier: Apache-2.0 */
/* Models through GGUF: out and in again, whole, masked and pruned, in every type; what is refused. */
#include <emo/emo.h>
#include <unistd.h>

#include "io/files.h"
#include "io/gguf.h"
#include "model/model.h"
#include "support/folder.h"

/* rows of 256, 128 and 32: q4_k fits, falls back, falls back */
static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":300,\"hidden_size\":256,\"intermediate_size\":32,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"
    "\"num_experts_per_layer\":[0,7,7],\"num_shared_experts_per_layer\":[0,1,1],\"dense_intermediate_size\":128,"
    "\"initializer_range\":0.05,\"eos_token_id\":256,\"pad_token_id\":0,\"emo_train_seq_len\":32}";
static const emo_dtype all_types[] = {EMO_DTYPE_F32,  EMO_DTYPE_BF16, EMO_DTYPE_F16,
                                      EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};

TEST_RUNTIME_AND_FOLDER(2, EMO_ISA_AUTO)

static emo_model *make(const char *text) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = 11;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, text, strlen(text), &options, &model, &err));
    return model;
}

static void give_bytes(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo_tokenizer *tokenizer = NULL;
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tokenizer, &err));
    EXPECT_OK(emo_model_set_tokenizer(model, tokenizer, &err));
    emo_tokenizer_release(tokenizer);
}

static emo_export_info export_as(const emo_model *model, const char *path, emo_dtype dtype, const emo_mask *mask) {
    emo_error err = EMO_ERROR_INIT;
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    emo_export_info info = EMO_EXPORT_INFO_INIT;
    options.dtype = dtype;
    options.mask = mask;
    EXPECT_OK(emo_model_export(model, path, &options, &info, &err));
    return info;
}

static emo_model *load(const char *path, emo_dtype dtype, const emo_mask *subset, int32_t no_map) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    options.dtype = dtype;
    options.subset = subset;
    options.no_map = no_map;
    options.compute = EMO_DTYPE_F32; /* exact, so that blocks can be compared with floats */
    emo_model *model = NULL;
    EXPECT_OK(emo_model_load_path(rt, path, &options, &model, &err));
    return model;
}

/* The greedy continuation of a fixed prompt, and the log-probabilities of its tokens. */
enum { TOKENS = 12 };
static void greedy(emo_model *model, int32_t ids[TOKENS], float logprobs[TOKENS]) {
    static const int32_t prompt[] = {5, 77, 200, 31, 8, 8, 120, 64, 250, 1};
    emo_error err = EMO_ERROR_INIT;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_session *session = NULL;
    emo_state state = EMO_STATE_PENDING;
    const int32_t *got;
    const float *p;
    options.max_tokens = TOKENS;
    EXPECT_OK(emo_session_create(model, &options, &session, &err));
    EXPECT_OK(emo_session_append_tokens(session, 0, prompt, 10, &err));
    while (state != EMO_STATE_DONE)
        EXPECT_OK(emo_session_advance(session, NULL, &state, &err));
    size_t n = emo_session_generated(session, 0, &got, &p);
    assert_true(n > 0);
    for (size_t i = 0; i < TOKENS; i++) {
        ids[i] = i < n ? got[i] : -1;
        logprobs[i] = i < n ? p[i] : 0.0f;
    }
    emo_session_release(session);
}

static void expect_same_greedy(emo_model *a, emo_model *b) {
    int32_t ids_a[TOKENS], ids_b[TOKENS];
    float p_a[TOKENS], p_b[TOKENS];
    greedy(a, ids_a, p_a);
    greedy(b, ids_b, p_b);
    assert_memory_equal(ids_a, ids_b, sizeof ids_a);
    assert_memory_equal(p_a, p_b, sizeof p_a);
}

static float *tensor(const emo_model *model, const char *name, size_t *n) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_model_tensor_f32(model, name, NULL, 0, n, &err));
    float *out = malloc(*n * sizeof *out);
    assert_non_null(out);
    EXPECT_OK(emo_model_tensor_f32(model, name, out, *n, n, &err));
    return out;
}

/* In f32 nothing is lost but the router's unused row of the shared expert; logits agree bit for bit. */
static void f32_is_exact(void **state) {
    (void)state;
    emo_model *model = make(config);
    give_bytes(model);
    emo_export_info info = export_as(model, test_path("m.gguf"), EMO_DTYPE_F32, NULL);
    assert_int_equal(info.fallbacks, 0);
    for (int32_t no_map = 0; no_map < 2; no_map++) {
        emo_model *back = load(test_path("m.gguf"), -1, NULL, no_map);
        assert_int_equal(back->n_params, model->n_params);
        for (size_t i = 0; i < model->n_params; i++) {
            const emo__param *p = &model->params[i], *q = &back->params[i];
            int64_t rows = p->group == EMO__P_ROUTER ? p->rows - 1 : p->rows;
            assert_int_equal(q->rows, p->rows);
            assert_memory_equal(q->view->data, p->view->data, (size_t)(rows * p->cols) * sizeof(float));
        }
        assert_int_equal(back->config.train_seq_len, 32);
        assert_int_equal(back->config.eos, 256);
        assert_non_null(emo_model_tokenizer(back));
        assert_true(emo_tokenizer_hash(emo_model_tokenizer(back)) == emo_tokenizer_hash(emo_model_tokenizer(model)));
        expect_same_greedy(model, back);
        emo_model_release(back);
    }
    emo_model_release(model);
}

/* Rows of q and k as published: row h D + 2 j + i of the file is row h D + i D / 2 + j of the model. */
static void rows_are_permuted(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(config);
    emo_source *source = NULL;
    emo__gguf *g = NULL;
    (void)export_as(model, test_path("p.gguf"), EMO_DTYPE_F32, NULL);
    EXPECT_OK(emo_source_open_path(rt, test_path("p.gguf"), &source, &err));
    EXPECT_OK(emo__gguf_open(rt, source, &g, &err));
    for (int which = 0; which < 2; which++) {
        size_t n;
        int64_t heads = which == 0 ? 8 : 4;
        float *want = tensor(
            model, which == 0 ? "model.layers.1.self_attn.q_proj.weight" : "model.layers.1.self_attn.k_proj.weight",
            &n);
        const emo__gguf_tensor *t = emo__gguf_find(g, which == 0 ? "blk.1.attn_q.weight" : "blk.1.attn_k.weight");
        float row[256];
        assert_non_null(t);
        for (int64_t h = 0; h < heads; h++)
            for (int64_t i = 0; i < 2; i++)
                for (int64_t j = 0; j < 16; j++) {
                    EXPECT_OK(emo__gguf_read(g, t, (uint64_t)(h * 32 + 2 * j + i) * sizeof row, row, sizeof row, &err));
                    assert_memory_equal(row, want + (h * 32 + i * 16 + j) * 256, sizeof row);
                }
        free(want);
    }
    /* six routed experts, the shared one apart; the router without its row */
    assert_int_equal(emo__gguf_find(g, "blk.2.ffn_gate_exps.weight")->dims[2], 6);
    assert_int_equal(emo__gguf_find(g, "blk.2.ffn_gate_inp.weight")->dims[1], 6);
    assert_non_null(emo__gguf_find(g, "blk.2.ffn_down_shexp.weight"));
    assert_non_null(emo__gguf_find(g, "blk.0.ffn_down.weight"));
    int64_t value;
    EXPECT_OK(emo__gguf_i64(g, "deepseek.expert_used_count", -1, 0, 99, &value, &err));
    assert_int_equal(value, 2);
    EXPECT_OK(emo__gguf_i64(g, "deepseek.leading_dense_block_count", -1, 0, 99, &value, &err));
    assert_int_equal(value, 1);
    emo__gguf_close(g);
    emo_source_release(source);
    emo_model_release(model);
}

/* A quantised model is held as blocks, and computes what the same weights as floats compute: bit for bit, because
 * blocks become floats before they meet the activations. */
static void quantised_weights_stay_quantised(void **state) {
    (void)state;
    emo_model *model = make(config);
    give_bytes(model);
    uint64_t last = UINT64_MAX;
    for (size_t i = 0; i < sizeof all_types / sizeof all_types[0]; i++) {
        emo_export_info info = export_as(model, test_path("q.gguf"), all_types[i], NULL);
        assert_int_equal(info.fallbacks > 0, all_types[i] == EMO_DTYPE_Q4_K);
        assert_true(info.bytes < last || all_types[i] == EMO_DTYPE_F16 || all_types[i] == EMO_DTYPE_Q4_K);
        last = info.bytes;
        emo_model *held = load(test_path("q.gguf"), -1, NULL, 0);
        emo_model *floats = load(test_path("q.gguf"), EMO_DTYPE_F32, NULL, 0);
        assert_int_equal(held->embed.dtype, all_types[i]);
        assert_int_equal(held->layers[1].experts[0].gate.dtype, all_types[i]);
        assert_int_equal(held->layers[1].experts[0].down.dtype,
                         all_types[i] == EMO_DTYPE_Q4_K ? EMO_DTYPE_Q8_0 : all_types[i]);
        expect_same_greedy(held, floats);
        /* again from the blocks: bytes are copied */
        (void)export_as(held, test_path("again.gguf"), -1, NULL);
        emo_model *again = load(test_path("again.gguf"), -1, NULL, 1);
        for (size_t p = 0; p < held->n_params; p++)
            assert_int_equal(again->params[p].view->dtype, held->params[p].view->dtype);
        expect_same_greedy(held, again);
        emo_model_release(again);
        emo_model_release(floats);
        emo_model_release(held);
    }
    emo_model_release(model);
}

/* Kinds of tensors may have types of their own; the rest is as it would be without. */
/* Unless told otherwise, files with blocks compute in bf16, where blocks stay whole numbers, and other files in f32. */
static void blocks_choose_how_to_compute(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    const emo_dtype types[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16, EMO_DTYPE_Q8_0};
    emo_model *model = make(config), *got = NULL;
    const char *path = test_path("how.gguf");
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        (void)export_as(model, path, types[i], NULL);
        emo_dtype want = types[i] == EMO_DTYPE_Q8_0 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
        EXPECT_OK(emo_model_load_path(rt, path, NULL, &got, &err));
        assert_int_equal(emo_model_compute(got), want);
        emo_model_release(got);
        emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
        options.dtype = EMO_DTYPE_F32; /* no blocks stay */
        EXPECT_OK(emo_model_load_path(rt, path, &options, &got, &err));
        assert_int_equal(emo_model_compute(got), EMO_DTYPE_F32);
        emo_model_release(got);
        options.dtype = -1;
        options.compute = EMO_DTYPE_F32;
        EXPECT_OK(emo_model_load_path(rt, path, &options, &got, &err));
        assert_int_equal(emo_model_compute(got), EMO_DTYPE_F32);
        emo_model_release(got);
    }
    emo_model_release(model);
}

static void types_by_kind(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(config);
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    options.dtype = EMO_DTYPE_Q4_0;
    options.head = EMO_DTYPE_BF16;
    options.embedding = EMO_DTYPE_F16;
    options.attention = EMO_DTYPE_Q8_0;
    options.shared = EMO_DTYPE_F32;
    EXPECT_OK(emo_model_export(model, test_path("kinds.gguf"), &options, NULL, &err));
    emo_model *held = load(test_path("kinds.gguf"), -1, NULL, 0);
    const emo__layer *layer = &held->layers[1];
    int32_t shared = emo_model_experts(held, 1) - 1;
    assert_int_equal(held->head.dtype, EMO_DTYPE_BF16);
    assert_int_equal(held->embed.dtype, EMO_DTYPE_F16);
    assert_int_equal(layer->w[EMO__W_Q].dtype, EMO_DTYPE_Q8_0);
    assert_int_equal(layer->w[EMO__W_O].dtype, EMO_DTYPE_Q8_0);
    assert_int_equal(layer->w[EMO__W_ROUTER].dtype, EMO_DTYPE_F32);
    assert_int_equal(layer->experts[0].gate.dtype, EMO_DTYPE_Q4_0);
    assert_int_equal(layer->experts[shared].gate.dtype, EMO_DTYPE_F32);
    emo_model_release(held);
    options.shared = 7;
    EXPECT_STATUS(emo_model_export(model, test_path("no.gguf"), &options, NULL, &err), EMO_E_RANGE, "shared is 7");
    emo_model_release(model);
}

static emo_mask *some_experts(const emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 0, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 4, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 2, 1, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 2, 2, 0, &err));
    return mask;
}

/* A masked export, the export of the pruned model and that of a load subset are one and the same file; ids survive. */
static void masks_and_pruned_models(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(config), *pruned = NULL;
    emo_mask *mask = some_experts(model);
    EXPECT_OK(emo_model_prune(model, mask, NULL, &pruned, &err));
    EXPECT_OK(emo_model_save(model, test_path("folder"), NULL, &err));
    emo_model *part = load(test_path("folder"), -1, mask, 0);
    (void)export_as(model, test_path("1.gguf"), EMO_DTYPE_Q8_0, mask);
    (void)export_as(pruned, test_path("2.gguf"), EMO_DTYPE_Q8_0, NULL);
    (void)export_as(part, test_path("3.gguf"), EMO_DTYPE_Q8_0, NULL);
    size_t size[3];
    unsigned char *bytes[3];
    for (int i = 0; i < 3; i++)
        bytes[i] = test_read(test_path(i == 0 ? "1.gguf" : i == 1 ? "2.gguf" : "3.gguf"), &size[i]);
    for (int i = 1; i < 3; i++) {
        assert_int_equal(size[i], size[0]);
        assert_memory_equal(bytes[i], bytes[0], size[0]);
    }
    emo_model *back = load(test_path("1.gguf"), -1, NULL, 0);
    assert_int_equal(emo_model_experts(back, 1), 5);
    assert_int_equal(emo_model_original_expert(back, 1, 0), 1);
    assert_int_equal(emo_model_original_expert(back, 1, 3), 5);
    assert_int_equal(emo_model_original_expert(back, 1, 4), 6);
    /* a load subset of a GGUF file: the mask has the original ids */
    EXPECT_OK(emo_mask_set(mask, 1, 1, 0, &err));
    emo_model *less = load(test_path("1.gguf"), -1, mask, 0);
    assert_null(less->layers[1].experts[0].gate.data);
    assert_non_null(less->layers[1].experts[1].gate.data);
    for (int i = 0; i < 3; i++)
        free(bytes[i]);
    emo_model_release(less);
    emo_model_release(back);
    emo_model_release(part);
    emo_model_release(pruned);
    emo_model_release(model);
    emo_mask_release(mask);
}

/* Without a shared expert the file has one of zeros, which is dropped when it is read. Dense models are "llama". */
static void other_shapes(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{\"vocab_size\":300,\"hidden_size\":64,\"intermediate_size\":32,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts\":5,\"num_experts_per_tok\":2,"
        "\"initializer_range\":0.1,\"eos_token_id\":1,\"tie_word_embeddings\":true}",
        "{\"model_type\":\"olmo2_noqknorm_prenorm\",\"vocab_size\":300,\"hidden_size\":64,\"intermediate_size\":96,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64,"
        "\"initializer_range\":0.1,\"eos_token_id\":1}"};
    for (int i = 0; i < 2; i++) {
        emo_model *model = make(texts[i]);
        (void)export_as(model, test_path("o.gguf"), EMO_DTYPE_F32, NULL);
        emo_model *back = load(test_path("o.gguf"), -1, NULL, 0);
        assert_int_equal(emo_model_experts(back, 0), i == 0 ? 5 : 0);
        assert_int_equal(emo_model_shared(back, 0), 0);
        assert_null(emo_model_tokenizer(back));
        expect_same_greedy(model, back);
        emo_model_release(back);
        emo_model_release(model);
    }
}

static void what_cannot_be_said(void **state) {
    (void)state;
    static const struct {
        const char *keys;
        const char *words;
    } bad[] = {
        {"\"num_experts\":6,\"num_shared_experts\":2", "2 shared experts"},
        {"\"num_experts\":6,\"always_active_experts\":[1]", "always-active"},
        {"\"num_experts_per_layer\":[6,5]", "6 and 5 experts"},
        {"\"num_experts_per_layer\":[6,0]", "dense behind"},
        {"\"num_experts\":6,\"norm_topk_prob\":true", "norm_topk_prob"},
        {"\"num_experts\":6,\"attention_bias\":true", "attention_bias"},
        {"\"num_experts_per_layer\":[0,6],\"dense_mlp_bias\":true", "dense_mlp_bias"},
        {"\"num_experts\":6,\"head_dim\":16", "hidden size"},
    };
    emo_error err = EMO_ERROR_INIT;
    emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[512];
        snprintf(text, sizeof text,
                 "{\"vocab_size\":16,\"hidden_size\":64,\"intermediate_size\":32,\"num_hidden_layers\":2,"
                 "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,"
                 "\"eos_token_id\":1,%s}",
                 bad[i].keys);
        emo_model *model = make(text);
        EXPECT_STATUS(emo_model_export(model, test_path("no.gguf"), &options, NULL, &err), EMO_E_UNSUPPORTED,
                      bad[i].words);
        emo_model_release(model);
    }
    emo_model *odd = make("{\"vocab_size\":16,\"hidden_size\":40,\"intermediate_size\":32,\"num_hidden_layers\":1,"
                          "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts\":4,"
                          "\"num_experts_per_tok\":2,\"eos_token_id\":1}");
    options.dtype = EMO_DTYPE_Q4_K;
    EXPECT_STATUS(emo_model_export(odd, test_path("no.gguf"), &options, NULL, &err), EMO_E_UNSUPPORTED,
                  "token_embd.weight\" has rows of 40");
    options.dtype = EMO_DTYPE_F16;
    *(float *)(uintptr_t)odd->embed.data = 1e9f;
    EXPECT_STATUS(emo_model_export(odd, test_path("no.gguf"), &options, NULL, &err), EMO_E_NUMERIC, "token_embd");
    options.dtype = 17;
    EXPECT_STATUS(emo_model_export(odd, test_path("no.gguf"), &options, NULL, &err), EMO_E_RANGE, "dtype");
    options.dtype = -1;
    options.format = 7;
    EXPECT_STATUS(emo_model_export(odd, test_path("no.gguf"), &options, NULL, &err), EMO_E_RANGE, "format");
    assert_int_not_equal(access(test_path("no.gguf"), F_OK), 0);
    emo_model_release(odd);
}

/* What blocks cannot be used for is refused by name. */
static void quantised_weights_are_not_trained(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(config), *out = NULL;
    give_bytes(model);
    (void)export_as(model, test_path("t.gguf"), EMO_DTYPE_Q4_0, NULL);
    emo_model *held = load(test_path("t.gguf"), -1, NULL, 0);
    EXPECT_STATUS(emo_model_save(held, test_path("t"), NULL, &err), EMO_E_UNSUPPORTED, "q4_0");
    emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
    save.dtype = EMO_DTYPE_BF16;
    EXPECT_OK(emo_model_save(held, test_path("t"), &save, &err));
    EXPECT_STATUS(emo_model_merge(held, held, NULL, &out, &err), EMO_E_UNSUPPORTED, "quantised");
    const char *text = "some words to learn from, again and again and again";
    emo_dataset *data = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;
    options.max_steps = 1;
    options.seq_len = 8;
    EXPECT_OK(emo_dataset_from_text(rt, emo_model_tokenizer(held), &text, NULL, 1, &data, &err));
    EXPECT_STATUS(emo_trainer_create(held, data, &options, &trainer, &err), EMO_E_UNSUPPORTED, "cannot be trained");
    emo_dataset_release(data);
    emo_model_release(held);
    emo_model_release(model);
}

/* Every byte of the header damaged: a status, never a crash; and a model from memory, without a config. */
static void damaged_models(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make("{\"vocab_size\":16,\"hidden_size\":32,\"intermediate_size\":32,\"num_hidden_layers\":1,"
                            "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts\":3,"
                            "\"num_shared_experts\":1,\"num_experts_per_tok\":2,\"eos_token_id\":1}");
    (void)export_as(model, test_path("d.gguf"), EMO_DTYPE_Q8_0, NULL);
    size_t size;
    unsigned char *bytes = test_read(test_path("d.gguf"), &size);
    size_t header = 0, opened = 0;
    while (header + 16 < size && memcmp(bytes + header, "output.weight", 13) != 0)
        header++;
    header += 13 + 32;
    for (size_t i = 0; i < header; i++) {
        unsigned char old = bytes[i];
        bytes[i] = (unsigned char)(i % 3 == 0 ? 0 : i % 3 == 1 ? 255 : old ^ 1);
        emo_source *source = NULL;
        emo_model *back = NULL;
        EXPECT_OK(emo_source_from_memory(rt, bytes, size, &source, &err));
        emo_status status = emo_model_load_sources(rt, NULL, 0, &source, 1, NULL, &back, &err);
        opened += status == EMO_OK;
        if (status != EMO_OK && err.message[0] == '\0')
            fail_msg("byte %zu: no words", i);
        emo_model_release(back);
        emo_source_release(source);
        bytes[i] = old;
    }
    assert_true(opened > 0 && opened < header);
    free(bytes);
    emo_model_release(model);
    EXPECT_STATUS(emo_model_load_path(rt, test_write("x.gguf", "no model", 8), NULL, &model, &err), EMO_E_FORMAT,
                  "no GGUF");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f32_is_exact),
        cmocka_unit_test(rows_are_permuted),
        cmocka_unit_test(quantised_weights_stay_quantised),
        cmocka_unit_test(blocks_choose_how_to_compute),
        cmocka_unit_test(types_by_kind),
        cmocka_unit_test(masks_and_pruned_models),
        cmocka_unit_test(other_shapes),
        cmocka_unit_test(what_cannot_be_said),
        cmocka_unit_test(quantised_weights_are_not_trained),
        cmocka_unit_test(damaged_models),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
