/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF files that are well formed and lie about the model: keys of the wrong type or beyond reason, tensors that are
 * missing, doubled, of another shape or of no use. tests/unit/io/test_gguf.c has the lies of the container itself. */
#include <emo/emo.h>
#include <unistd.h>

#include "base/runtime.h"
#include "io/gguf.h"
#include "support/folder.h"
#include "tensor/quant.h"

TEST_RUNTIME_AND_FOLDER(1, EMO_ISA_AUTO)

/* How a key is written instead of its own value. */
typedef enum how {
    AS_IS = 0,
    DROPPED,
    AS_NUMBER, /* u32 */
    AS_REAL,
    AS_FLAG,
    AS_TEXT,
    AS_LIST /* i32, one item */
} how;

typedef struct lie {
    const char *key; /* or the name of a tensor, or a key that honest files lack */
    how how;
    uint32_t number;
    const char *text;
    /* of a tensor */
    int64_t dims[3]; /* 0: as they should be */
    emo_dtype dtype; /* 0: f32 */
    const char *name;
    emo_status status;
    const char *words;
} lie;

static void put(emo__gguf_writer *w, const lie *l, const char *key, how kind, uint32_t number, const char *text) {
    emo_error err = EMO_ERROR_INIT;
    char full[96];
    (void)snprintf(full, sizeof full, "%s%s",
                   strchr(key, '.') == NULL || strncmp(key, "rope", 4) == 0 || strncmp(key, "attention", 9) == 0
                       ? "deepseek."
                       : "",
                   key);
    if (l->key != NULL && l->how != AS_IS && strcmp(l->key, key) == 0) {
        kind = l->how;
        number = l->number;
        text = l->text;
    }
    if (kind == AS_NUMBER)
        EXPECT_OK(emo__gguf_put_u32(w, full, number, &err));
    else if (kind == AS_REAL)
        EXPECT_OK(emo__gguf_put_f32(w, full, (float)number, &err));
    else if (kind == AS_FLAG)
        EXPECT_OK(emo__gguf_put_bool(w, full, number != 0, &err));
    else if (kind == AS_TEXT)
        EXPECT_OK(emo__gguf_put_string(w, full, text, strlen(text), &err));
    else if (kind == AS_LIST) {
        EXPECT_OK(emo__gguf_put_array(w, full, EMO__GGUF_I32, 1, &err));
        EXPECT_OK(emo__gguf_put_item_i32(w, (int32_t)number, &err));
    }
}

static const struct {
    const char *key;
    uint32_t value;
} numbers[] = {
    {"block_count", 1},         {"context_length", 32},           {"embedding_length", 64},
    {"feed_forward_length", 1}, {"attention.head_count", 2},      {"attention.head_count_kv", 1},
    {"expert_count", 2},        {"expert_used_count", 1},         {"expert_feed_forward_length", 32},
    {"expert_shared_count", 1}, {"leading_dense_block_count", 0}, {"rope.dimension_count", 32},
};

static const struct {
    const char *name;
    int64_t dims[3];
} tensors[] = {
    {"token_embd.weight", {64, 16, 1}},          {"blk.0.attn_norm.weight", {64, 0, 0}},
    {"blk.0.attn_q.weight", {64, 64, 0}},        {"blk.0.attn_k.weight", {64, 32, 0}},
    {"blk.0.attn_v.weight", {64, 32, 0}},        {"blk.0.attn_output.weight", {64, 64, 0}},
    {"blk.0.ffn_norm.weight", {64, 0, 0}},       {"blk.0.ffn_gate_inp.weight", {64, 2, 0}},
    {"blk.0.ffn_gate_exps.weight", {64, 32, 2}}, {"blk.0.ffn_up_exps.weight", {64, 32, 2}},
    {"blk.0.ffn_down_exps.weight", {32, 64, 2}}, {"blk.0.ffn_gate_shexp.weight", {64, 32, 0}},
    {"blk.0.ffn_up_shexp.weight", {64, 32, 0}},  {"blk.0.ffn_down_shexp.weight", {32, 64, 0}},
    {"output_norm.weight", {64, 0, 0}},          {"output.weight", {64, 16, 0}},
};
enum { N_TENSORS = sizeof tensors / sizeof tensors[0] };

static void put_tensors(emo__gguf_writer *w, const lie *l) {
    emo_error err = EMO_ERROR_INIT;
    static const char zeros[64 * 64 * 4];
    const char *names[N_TENSORS];
    size_t bytes[N_TENSORS], n = 0;
    for (size_t i = 0; i < N_TENSORS; i++) {
        bool changed = l->key != NULL && strcmp(l->key, tensors[i].name) == 0;
        const int64_t *dims = changed && l->dims[0] > 0 ? l->dims : tensors[i].dims;
        emo_dtype dtype = changed ? l->dtype : EMO_DTYPE_F32;
        int32_t n_dims = dims[1] == 0 ? 1 : dims[2] == 0 ? 2 : 3;
        if (changed && l->how == DROPPED)
            continue;
        names[n] = changed && l->name != NULL ? l->name : tensors[i].name;
        EXPECT_OK(emo__gguf_writer_add(w, names[n], dtype, dims, n_dims, &err));
        int64_t count = dims[0] * (n_dims > 1 ? dims[1] : 1) * (n_dims > 2 ? dims[2] : 1);
        assert_true(emo__dtype_bytes(dtype, count, &bytes[n]));
        n++;
    }
    EXPECT_OK(emo__gguf_writer_begin(w, &err));
    for (size_t i = 0; i < n; i++)
        for (size_t at = 0; at < bytes[i]; at += sizeof zeros) {
            size_t piece = bytes[i] - at < sizeof zeros ? bytes[i] - at : sizeof zeros;
            EXPECT_OK(emo__gguf_writer_write(w, names[i], zeros, piece, &err));
        }
    EXPECT_OK(emo__gguf_writer_finish(w, &err));
}

/* Loads the file from a path and from memory; the lie must meet the same status both times. */
static void tell(const lie *l) {
    emo_error err = EMO_ERROR_INIT;
    emo__gguf_writer *w = NULL;
    const char *path = test_path("lie.gguf");
    (void)remove(path);
    EXPECT_OK(emo__gguf_writer_create(rt, path, &w, &err));
    put(w, l, "general.architecture", AS_TEXT, 0, "deepseek");
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        put(w, l, numbers[i].key, AS_NUMBER, numbers[i].value, NULL);
    static const char *const more[] = {"attention.layer_norm_rms_epsilon",
                                       "rope.freq_base",
                                       "rope.scaling.type",
                                       "expert_weights_scale",
                                       "expert_weights_norm",
                                       "expert_gating_func",
                                       "attention.key_length",
                                       "emo.no_shared_expert",
                                       "emo.train_seq_len",
                                       "emo.pruning_metadata",
                                       "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.model",
                                       "tokenizer.ggml.pre",
                                       "tokenizer.ggml.tokens",
                                       "tokenizer.huggingface.json"};
    for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
        put(w, l, more[i], DROPPED, 0, NULL);
    put_tensors(w, l);
    emo__gguf_writer_destroy(w);
    size_t size;
    unsigned char *bytes = test_read(path, &size);
    for (int from_memory = 0; from_memory < 2; from_memory++) {
        emo_model *model = NULL;
        emo_source *source = NULL;
        emo_status status;
        if (from_memory) {
            EXPECT_OK(emo_source_from_memory(rt, bytes, size, &source, &err));
            status = emo_model_load_sources(rt, NULL, 0, &source, 1, NULL, &model, &err);
        } else {
            status = emo_model_load_path(rt, path, NULL, &model, &err);
        }
        if (status != l->status || (status != EMO_OK && strstr(err.message, l->words) == NULL))
            fail_msg("%s: %s (%s), not %s with '%s'", l->key, emo_status_name(status), err.message,
                     emo_status_name(l->status), l->words);
        assert_true((model != NULL) == (status == EMO_OK));
        emo_model_release(model);
        emo_source_release(source);
    }
    free(bytes);
}

static void keys_that_lie(void **state) {
    (void)state;
#define KEY(key, how, number, text, status, words)                                                                     \
    { key, how, number, text, {0}, 0, NULL, status, words }
    static const lie lies[] = {
        KEY(NULL, AS_IS, 0, NULL, EMO_OK, ""),
        KEY("general.architecture", DROPPED, 0, NULL, EMO_E_UNSUPPORTED, "general.architecture"),
        KEY("general.architecture", AS_NUMBER, 7, NULL, EMO_E_FORMAT, "general.architecture\" is no text"),
        KEY("general.architecture", AS_TEXT, 0, "deepseek2", EMO_E_UNSUPPORTED, "'deepseek2'"),
        KEY("block_count", DROPPED, 0, NULL, EMO_E_FORMAT, "deepseek.block_count"),
        KEY("block_count", AS_TEXT, 0, "1", EMO_E_FORMAT, "block_count\" is no integer"),
        KEY("block_count", AS_REAL, 1, NULL, EMO_E_FORMAT, "block_count\" is no integer"),
        KEY("block_count", AS_NUMBER, 0, NULL, EMO_E_FORMAT, "\"num_hidden_layers\" is"),
        KEY("block_count", AS_NUMBER, INT32_MAX, NULL, EMO_E_FORMAT, "\"num_hidden_layers\" is"),
        KEY("block_count", AS_NUMBER, UINT32_MAX, NULL, EMO_E_RANGE, "block_count"),
        KEY("block_count", AS_NUMBER, 2, NULL, EMO_E_NOT_FOUND, "blk.1.attn_norm.weight"),
        KEY("embedding_length", AS_LIST, 64, NULL, EMO_E_FORMAT, "embedding_length\" is no integer"),
        KEY("embedding_length", AS_NUMBER, INT32_MAX, NULL, EMO_E_UNSUPPORTED, "heads"),
        KEY("embedding_length", AS_NUMBER, 128, NULL, EMO_E_UNSUPPORTED, "heads"),
        KEY("context_length", AS_NUMBER, 0, NULL, EMO_E_FORMAT, "\"max_position_embeddings\" is"),
        KEY("attention.head_count", AS_NUMBER, 0, NULL, EMO_E_RANGE, "head_count is 0"),
        KEY("attention.head_count_kv", AS_LIST, 1, NULL, EMO_E_FORMAT, "head_count_kv\" is no integer"),
        KEY("attention.head_count_kv", AS_NUMBER, 0, NULL, EMO_E_FORMAT, "\"num_key_value_heads\" is"),
        KEY("attention.head_count_kv", AS_NUMBER, 3, NULL, EMO_E_RANGE, "num_key_value_heads"),
        KEY("attention.key_length", AS_NUMBER, 64, NULL, EMO_E_UNSUPPORTED, "heads whose size"),
        KEY("attention.layer_norm_rms_epsilon", AS_FLAG, 1, NULL, EMO_E_FORMAT, "epsilon\" is no number"),
        KEY("attention.layer_norm_rms_epsilon", AS_REAL, 4000000000u, NULL, EMO_E_FORMAT, "\"rms_norm_eps\" is"),
        KEY("rope.freq_base", AS_REAL, 0, NULL, EMO_E_FORMAT, "\"rope_theta\" is"),
        KEY("rope.dimension_count", AS_NUMBER, 16, NULL, EMO_E_UNSUPPORTED, "rotate in part"),
        KEY("rope.scaling.type", AS_TEXT, 0, "yarn", EMO_E_UNSUPPORTED, "rope.scaling.type"),
        KEY("expert_count", AS_NUMBER, INT32_MAX, NULL, EMO_E_FORMAT, "\"num_experts\" is"),
        KEY("expert_count", AS_NUMBER, 3, NULL, EMO_E_MISMATCH, "ffn_gate_inp"),
        KEY("expert_used_count", DROPPED, 0, NULL, EMO_E_FORMAT, "expert_used_count"),
        KEY("expert_used_count", AS_NUMBER, INT32_MAX, NULL, EMO_E_FORMAT, "\"num_experts_per_tok\" is"),
        KEY("expert_shared_count", AS_NUMBER, 2, NULL, EMO_E_UNSUPPORTED, "more than one shared"),
        KEY("expert_shared_count", AS_NUMBER, 0, NULL, EMO_E_UNSUPPORTED, "no place for tensor"),
        KEY("expert_feed_forward_length", AS_NUMBER, 0, NULL, EMO_E_FORMAT, "\"intermediate_size\" is"),
        KEY("expert_feed_forward_length", AS_NUMBER, INT32_MAX, NULL, EMO_E_FORMAT, "\"intermediate_size\" is"),
        KEY("expert_feed_forward_length", AS_NUMBER, 1 << 24, NULL, EMO_E_MISMATCH, "ffn_gate_exps"),
        KEY("leading_dense_block_count", AS_NUMBER, 1, NULL, EMO_E_NOT_FOUND, "ffn_gate.weight"),
        KEY("expert_weights_scale", AS_REAL, 2, NULL, EMO_E_UNSUPPORTED, "expert_weights_scale"),
        KEY("expert_weights_norm", AS_FLAG, 1, NULL, EMO_E_UNSUPPORTED, "renormalised"),
        KEY("expert_weights_norm", AS_NUMBER, 1, NULL, EMO_E_FORMAT, "no truth value"),
        KEY("expert_gating_func", AS_NUMBER, 2, NULL, EMO_E_UNSUPPORTED, "softmax"),
        KEY("emo.no_shared_expert", AS_NUMBER, 1, NULL, EMO_E_FORMAT, "no truth value"),
        KEY("emo.train_seq_len", AS_TEXT, 0, "x", EMO_E_FORMAT, "no integer"),
        KEY("emo.pruning_metadata", AS_TEXT, 0, "{]", EMO_E_FORMAT, ""),
        KEY("emo.pruning_metadata", AS_NUMBER, 1, NULL, EMO_E_FORMAT, "no text"),
        KEY("tokenizer.ggml.eos_token_id", AS_TEXT, 0, "</s>", EMO_E_FORMAT, "no integer"),
        KEY("tokenizer.ggml.model", AS_NUMBER, 1, NULL, EMO_E_FORMAT, "no text"),
        KEY("tokenizer.huggingface.json", AS_TEXT, 0, "{\"model\":", EMO_E_FORMAT, "JSON"),
        /* a tokenizer of a kind that is not read leaves the model without one */
        KEY("tokenizer.ggml.model", AS_TEXT, 0, "llama", EMO_OK, ""),
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++)
        tell(&lies[i]);
}

static void tensors_that_lie(void **state) {
    (void)state;
#define TENSOR(key, d0, d1, d2, dtype, name, status, words)                                                            \
    { key, AS_IS, 0, NULL, {d0, d1, d2}, dtype, name, status, words }
    static const lie lies[] = {
        TENSOR("token_embd.weight", 0, 0, 0, 0, "token_embed.weight", EMO_E_NOT_FOUND, "token_embd.weight"),
        TENSOR("token_embd.weight", 64, 15, 0, 0, NULL, EMO_E_MISMATCH, "\"output.weight\" has shape"),
        TENSOR("token_embd.weight", 32, 16, 0, 0, NULL, EMO_E_MISMATCH, "token_embd.weight"),
        TENSOR("blk.0.attn_norm.weight", 64, 2, 0, 0, NULL, EMO_E_MISMATCH, "attn_norm"),
        TENSOR("blk.0.attn_q.weight", 64, 32, 2, 0, NULL, EMO_E_MISMATCH, "attn_q"),
        TENSOR("blk.0.attn_k.weight", 64, 64, 0, 0, NULL, EMO_E_MISMATCH, "attn_k"),
        TENSOR("blk.0.attn_v.weight", 64, 32, 0, EMO_DTYPE_I32, NULL, EMO_E_UNSUPPORTED, "element type i32"),
        TENSOR("blk.0.attn_output.weight", 0, 0, 0, EMO_DTYPE_F64, NULL, EMO_E_UNSUPPORTED, "element type f64"),
        TENSOR("blk.0.ffn_gate_inp.weight", 64, 3, 0, 0, NULL, EMO_E_MISMATCH, "ffn_gate_inp"),
        TENSOR("blk.0.ffn_gate_exps.weight", 64, 32, 3, 0, NULL, EMO_E_MISMATCH, "ffn_gate_exps"),
        TENSOR("blk.0.ffn_down_exps.weight", 64, 32, 2, 0, NULL, EMO_E_MISMATCH, "ffn_down_exps"),
        TENSOR("blk.0.ffn_up_shexp.weight", 0, 0, 0, 0, "blk.0.ffn_up_shexp.bias", EMO_E_NOT_FOUND, "ffn_up_shexp"),
        TENSOR("output.weight", 0, 0, 0, 0, "rope_freqs.weight", EMO_E_UNSUPPORTED, "no place for tensor"),
        {"blk.0.ffn_down_exps.weight", DROPPED, 0, NULL, {0}, 0, NULL, EMO_E_NOT_FOUND, "ffn_down_exps"},
        {"output_norm.weight", DROPPED, 0, NULL, {0}, 0, NULL, EMO_E_NOT_FOUND, "output_norm"},
        {"output.weight", DROPPED, 0, NULL, {0}, 0, NULL, EMO_OK, ""}, /* then the embedding is the head */
        /* any type that is read may stand anywhere */
        TENSOR("output_norm.weight", 0, 0, 0, EMO_DTYPE_Q8_0, NULL, EMO_OK, ""),
        TENSOR("blk.0.ffn_gate_inp.weight", 0, 0, 0, EMO_DTYPE_Q4_0, NULL, EMO_OK, ""),
        TENSOR("blk.0.ffn_down_exps.weight", 0, 0, 0, EMO_DTYPE_BF16, NULL, EMO_OK, ""),
    };
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++)
        tell(&lies[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(keys_that_lie), cmocka_unit_test(tensors_that_lie)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
