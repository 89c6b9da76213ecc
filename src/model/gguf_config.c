/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a GGUF file as a configuration. They become the text of a config.json, so that one parser checks both. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "model/gguf.h"

typedef struct keys {
    const emo__gguf *g;
    const char *arch;
    int64_t layers, hidden, heads, kv_heads, inner, dense_inner, positions, vocab;
    int64_t experts, used, shared, dense, train_len, eos, bos, pad;
    double eps, theta;
    bool no_shared;
} keys;

static emo_status unsupported(const keys *k, emo_error *err, const char *what) {
    return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0, "%s: %s", emo__gguf_name(k->g), what);
}

static emo_status number(const keys *k, const char *key, int64_t fallback, int64_t *out, emo_error *err) {
    char buf[80];
    (void)snprintf(buf, sizeof buf, "%s.%s", k->arch, key);
    if (fallback < 0 && !emo__gguf_has(k->g, buf))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s has no key \"%s\"", emo__gguf_name(k->g), buf);
    return emo__gguf_i64(k->g, buf, fallback, 0, INT32_MAX, out, err);
}

static emo_status real(const keys *k, const char *key, double fallback, double *out, emo_error *err) {
    char buf[80];
    (void)snprintf(buf, sizeof buf, "%s.%s", k->arch, key);
    return emo__gguf_f64(k->g, buf, fallback, -1e30, 1e30, out, err);
}

static emo_status read_arch(keys *k, emo_error *err) {
    const char *text;
    size_t length;
    emo_status status = emo__gguf_string(k->g, "general.architecture", &text, &length, err);
    if (status != EMO_OK)
        return status;
    k->arch = length == 8 && memcmp(text, "deepseek", 8) == 0 ? "deepseek"
              : length == 5 && memcmp(text, "llama", 5) == 0  ? "llama"
                                                              : NULL;
    if (k->arch == NULL)
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                            "%s: general.architecture is '%.*s'; 'deepseek' and (dense) 'llama' are read",
                            emo__gguf_name(k->g), (int)(length < 40 ? length : 40), text != NULL ? text : "");
    return EMO_OK;
}

/* Keys that would make the model compute something else. */
static emo_status refuse_others(const keys *k, emo_error *err) {
    char buf[80];
    const char *text;
    size_t length;
    double scale;
    int64_t gating, rotated, width;
    bool norm;
    emo_status status;
    (void)snprintf(buf, sizeof buf, "%s.rope.scaling.type", k->arch);
    EMO_TRY(status = emo__gguf_string(k->g, buf, &text, &length, err));
    if (text != NULL && !(length == 4 && memcmp(text, "none", 4) == 0))
        return unsupported(k, err, "rope.scaling.type is not 'none'");
    EMO_TRY(status = real(k, "expert_weights_scale", 1.0, &scale, err));
    if (scale != 1.0 && scale != 0.0)
        return unsupported(k, err, "expert_weights_scale is neither 1 nor absent");
    (void)snprintf(buf, sizeof buf, "%s.expert_weights_norm", k->arch);
    EMO_TRY(status = emo__gguf_bool(k->g, buf, false, &norm, err));
    if (norm)
        return unsupported(k, err, "the weights of the chosen experts are renormalised (expert_weights_norm)");
    EMO_TRY(status = number(k, "expert_gating_func", 1, &gating, err));
    if (gating > 1)
        return unsupported(k, err, "expert_gating_func is not softmax");
    EMO_TRY(status = number(k, "rope.dimension_count", k->hidden / k->heads, &rotated, err));
    EMO_TRY(status = number(k, "attention.key_length", k->hidden / k->heads, &width, err));
    if (k->hidden % k->heads != 0 || rotated != k->hidden / k->heads || width != rotated)
        return unsupported(k, err, "heads whose size is not embedding_length / head_count, or that rotate in part");
done:
    return status;
}

static emo_status read_keys(keys *k, emo_error *err) {
    emo_status status;
    EMO_TRY(status = read_arch(k, err));
    EMO_TRY(status = number(k, "block_count", -1, &k->layers, err));
    EMO_TRY(status = number(k, "embedding_length", -1, &k->hidden, err));
    EMO_TRY(status = number(k, "attention.head_count", -1, &k->heads, err));
    EMO_TRY(status = number(k, "attention.head_count_kv", k->heads, &k->kv_heads, err));
    EMO_TRY(status = number(k, "context_length", -1, &k->positions, err));
    EMO_TRY(status = number(k, "feed_forward_length", 1, &k->dense_inner, err));
    EMO_TRY(status = real(k, "attention.layer_norm_rms_epsilon", 1e-6, &k->eps, err));
    EMO_TRY(status = real(k, "rope.freq_base", 10000.0, &k->theta, err));
    if (k->heads < 1)
        return emo__fail_at(err, EMO_E_RANGE, EMO_DOMAIN_FILE, 0, "%s: attention.head_count is 0",
                            emo__gguf_name(k->g));
    EMO_TRY(status = refuse_others(k, err));
    EMO_TRY(status = number(k, "expert_count", 0, &k->experts, err));
    if (k->experts > 0) {
        if (strcmp(k->arch, "llama") == 0)
            return unsupported(k, err, "a mixture of experts of the architecture 'llama'");
        EMO_TRY(status = number(k, "expert_used_count", -1, &k->used, err));
        EMO_TRY(status = number(k, "expert_feed_forward_length", -1, &k->inner, err));
        EMO_TRY(status = number(k, "expert_shared_count", 0, &k->shared, err));
        EMO_TRY(status = number(k, "leading_dense_block_count", 0, &k->dense, err));
        EMO_TRY(status = emo__gguf_bool(k->g, EMO__GGUF_NO_SHARED, false, &k->no_shared, err));
        if (k->shared > 1)
            return unsupported(k, err, "more than one shared expert");
        k->shared = k->no_shared ? 0 : k->shared;
    }
    const emo__gguf_tensor *embed = emo__gguf_find(k->g, "token_embd.weight");
    if (embed == NULL || embed->dims[1] > INT32_MAX)
        return emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_FILE, 0, "%s has no tensor \"token_embd.weight\"",
                            emo__gguf_name(k->g));
    k->vocab = embed->dims[1];
    EMO_TRY(status = emo__gguf_i64(k->g, EMO__GGUF_TRAIN_LEN, 0, 0, INT32_MAX, &k->train_len, err));
    EMO_TRY(status = emo__gguf_i64(k->g, "tokenizer.ggml.eos_token_id", -1, 0, INT32_MAX, &k->eos, err));
    EMO_TRY(status = emo__gguf_i64(k->g, "tokenizer.ggml.bos_token_id", -1, 0, INT32_MAX, &k->bos, err));
    status = emo__gguf_i64(k->g, "tokenizer.ggml.padding_token_id", -1, 0, INT32_MAX, &k->pad, err);
done:
    return status;
}

static void put_id(emo__jw *w, const char *key, int64_t id) {
    if (id >= 0)
        emo__jw_i64(w, key, id);
    else
        emo__jw_null(w, key);
}

static void put_list(emo__jw *w, const char *key, const keys *k, int64_t value) {
    emo__jw_row(w, key);
    for (int64_t l = 0; l < k->layers; l++)
        emo__jw_i64(w, NULL, l < k->dense ? 0 : value);
    emo__jw_array_end(w);
}

static emo_status write_config(const keys *k, emo__buf *out, emo_error *err) {
    emo__jw w;
    emo__jw_begin(&w, out, 0, err);
    emo__jw_object(&w, NULL);
    emo__jw_string(&w, "model_type", k->experts > 0 ? "emo" : "olmo2_noqknorm_prenorm");
    emo__jw_i64(&w, "hidden_size", k->hidden);
    emo__jw_i64(&w, "num_hidden_layers", k->layers);
    emo__jw_i64(&w, "num_attention_heads", k->heads);
    emo__jw_i64(&w, "num_key_value_heads", k->kv_heads);
    emo__jw_i64(&w, "max_position_embeddings", k->positions);
    emo__jw_i64(&w, "vocab_size", k->vocab);
    emo__jw_f32(&w, "rms_norm_eps", (float)k->eps);
    emo__jw_f64(&w, "rope_theta", k->theta);
    emo__jw_i64(&w, "intermediate_size", k->experts > 0 ? k->inner : k->dense_inner);
    put_id(&w, "eos_token_id", k->eos);
    put_id(&w, "bos_token_id", k->bos);
    put_id(&w, "pad_token_id", k->pad);
    emo__jw_bool(&w, "tie_word_embeddings", emo__gguf_find(k->g, "output.weight") == NULL);
    if (k->train_len > 0)
        emo__jw_i64(&w, "emo_train_seq_len", k->train_len);
    if (k->experts > 0) {
        emo__jw_i64(&w, "dense_intermediate_size", k->dense_inner);
        emo__jw_i64(&w, "num_experts_per_tok", k->used + k->shared);
        emo__jw_i64(&w, "num_experts", k->experts + k->shared);
        emo__jw_i64(&w, "num_shared_experts", k->shared);
        emo__jw_string(&w, "emo_shared_expert_weights", "one");
        if (k->dense > 0 && k->layers <= 4096) {
            put_list(&w, "num_experts_per_layer", k, k->experts + k->shared);
            put_list(&w, "num_shared_experts_per_layer", k, k->shared);
        }
    }
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}

emo_status emo__gguf_config(const emo__mem *mem, const emo__gguf *g, emo__config *config, emo_error *err) {
    keys k = {.g = g, .eos = -1, .bos = -1, .pad = -1};
    emo__buf text;
    memset(config, 0, sizeof *config);
    emo__buf_init(&text, mem);
    emo_status status = read_keys(&k, err);
    if (status == EMO_OK)
        status = write_config(&k, &text, err);
    if (status == EMO_OK && (status = emo__config_parse(mem, text.data, text.size, config, err)) != EMO_OK)
        status = emo__fail_prefix(err, status, "%s, as", emo__gguf_name(g));
    emo__buf_free(&text);
    return status == EMO_OK ? emo__gguf_can_say(config, err) : status;
}
