/* SPDX-License-Identifier: Apache-2.0 */
#include "model/config.h"

#include <emo/sys/backend.h>
#include <string.h>

#include "base/status.h"

/* Larger values are no model; they would only make size arithmetic overflow. */
#define MAX_LAYERS 4096
#define MAX_EXPERTS 65536
#define MAX_ALL_EXPERTS (1 << 20)
#define MAX_WIDTH (1 << 24)
#define MAX_VOCAB (1 << 27)
#define MAX_POSITIONS (1 << 30)

static const char *const where = "config.json";

static emo_status read_scalars(const emo__json *root, emo__config *c, emo_error *err) {
    emo_status status;
    double value;
    int64_t positions = 0;
    /* The two configurations of the reference have defaults of their own. */
    bool dense = c->dense_model;
    int32_t pad_default = emo__json_has(root, "pad_token_id") ? -1 : dense ? 1 : 100277;
#define INT(key, fallback, min, max, field)                                                                            \
    EMO_TRY(status = emo__json_opt_i32(root, key, where, fallback, min, max, &c->field, err))
#define BOOL(key, field) EMO_TRY(status = emo__json_opt_bool(root, key, where, false, &c->field, err))
    INT("vocab_size", dense ? 50304 : 100352, 1, MAX_VOCAB, vocab);
    INT("hidden_size", 4096, 1, MAX_WIDTH, hidden);
    INT("intermediate_size", 11008, 1, MAX_WIDTH, inner);
    INT("dense_intermediate_size", c->inner, 1, MAX_WIDTH, dense_inner);
    INT("num_hidden_layers", 32, 1, MAX_LAYERS, layers);
    INT("num_attention_heads", 32, 1, MAX_WIDTH, heads);
    INT("num_key_value_heads", c->heads, 1, MAX_WIDTH, kv_heads);
    c->head_dim_given = emo__json_get(root, "head_dim") != NULL;
    INT("head_dim", 1, 1, MAX_WIDTH, head_dim);
    /* The reference's converter writes -1 where it does not know. */
    c->max_positions = dense ? 2048 : 4096;
    if (!emo__json_i64(emo__json_get(root, "max_position_embeddings"), &positions) || positions != -1)
        INT("max_position_embeddings", c->max_positions, 1, MAX_POSITIONS, max_positions);
    INT("num_experts_per_tok", 5, 1, MAX_EXPERTS, top_k);
    INT("bos_token_id", -1, -1, INT32_MAX, bos);
    INT("pad_token_id", pad_default, -1, INT32_MAX, pad);
    /* The reference's default lies in its own vocabulary only, and its embedding refuses an id outside of it. */
    if (c->pad >= c->vocab)
        c->pad = -1;
    INT("emo_train_seq_len", 0, 0, MAX_POSITIONS, train_seq_len);
    EMO_TRY(status = emo__json_opt_f64(root, "rms_norm_eps", where, dense ? 1e-5 : 1e-6, 0.0, 1.0, &value, err));
    c->eps = (float)value;
    EMO_TRY(status = emo__json_opt_f64(root, "rope_theta", where, dense ? 10000.0 : 500000.0, 1e-3, 1e15,
                                       &c->rope_theta, err));
    EMO_TRY(status = emo__json_opt_f64(root, "initializer_range", where, 0.02, 0.0, 1e3, &c->initializer_range, err));
    EMO_TRY(status = emo__json_opt_f64(root, "router_aux_loss_coef", where, 0.01, -1e9, 1e9, &c->aux_coef, err));
    BOOL("tie_word_embeddings", tie);
    BOOL("norm_topk_prob", norm_topk);
    BOOL("attention_bias", attention_bias);
    BOOL("dense_mlp_bias", dense_bias);
    BOOL("output_router_logits", output_router_logits);
    BOOL("emo_router_score_bias", score_bias);
#undef INT
#undef BOOL
done:
    return status;
}

/* An eos list (some folders have one) counts with its first entry. An absent key is the reference's default. */
static emo_status read_eos(const emo__json *root, emo__config *c, emo_error *err) {
    const emo__json *node = emo__json_get(root, "eos_token_id");
    if (emo__json_typeof(node) == EMO__JSON_ARRAY)
        node = emo__json_at(node, 0);
    int64_t eos = emo__json_has(root, "eos_token_id") ? -1 : c->dense_model ? 50279 : 100257;
    if (node != NULL && !emo__json_i64(node, &eos))
        return emo__fail(err, EMO_E_FORMAT, "%s: eos_token_id must be an integer, or a list that begins with one",
                         where);
    if (eos < -1 || eos >= c->vocab)
        return emo__fail(err, EMO_E_RANGE, "%s: eos_token_id is %lld, outside the vocabulary (vocab_size %d)", where,
                         (long long)eos, (int)c->vocab);
    c->eos = (int32_t)eos;
    return EMO_OK;
}

static emo_status read_rope_scaling(const emo__json *root, emo_error *err) {
    const emo__json *scaling = emo__json_get(root, "rope_scaling");
    if (scaling == NULL)
        return EMO_OK;
    if (emo__json_typeof(scaling) != EMO__JSON_OBJECT)
        return emo__fail(err, EMO_E_FORMAT, "%s: rope_scaling must be an object or null", where);
    const char *type = emo__json_size(scaling) == 0 ? "default" : "unnamed"; /* numbers alone scale something */
    emo_status status = emo__json_opt_string(scaling, "type", where, type, &type, err);
    if (status == EMO_OK)
        status = emo__json_opt_string(scaling, "rope_type", where, type, &type, err);
    if (status == EMO_OK && strcmp(type, "default") != 0 && strcmp(type, "none") != 0)
        status =
            emo__fail(err, EMO_E_UNSUPPORTED,
                      "%s: rope_scaling of type '%s' is not supported; only 'default' and 'none' are", where, type);
    return status;
}

static emo_status read_kind(const emo__json *root, emo__config *c, emo_error *err) {
    const char *type = NULL;
    const char *act = NULL;
    const char *shared = NULL;
    const char *gating = NULL;
    emo_status status;
    EMO_TRY(status = emo__json_opt_string(root, "model_type", where, "emo", &type, err));
    EMO_TRY(status = emo__json_opt_string(root, "hidden_act", where, "silu", &act, err));
    EMO_TRY(status = emo__json_opt_string(root, "emo_shared_expert_weights", where, "softmax", &shared, err));
    EMO_TRY(status = emo__json_opt_string(root, "emo_router_gating", where, "softmax", &gating, err));
    c->dense_model = strcmp(type, "olmo2_noqknorm_prenorm") == 0;
    if (strcmp(type, "emo") != 0 && strcmp(type, "emo_extended") != 0 &&
        strcmp(type, "flex_olmo_noqknorm_prenorm") != 0 && !c->dense_model)
        return emo__fail(err, EMO_E_UNSUPPORTED, "%s: model_type '%s'; this library runs 'emo' and the dense baseline",
                         where, type);
    if (strcmp(act, "silu") != 0)
        return emo__fail(err, EMO_E_UNSUPPORTED, "%s: hidden_act '%s'; only 'silu' is supported", where, act);
    if (strcmp(shared, "one") != 0 && strcmp(shared, "softmax") != 0)
        return emo__fail(err, EMO_E_FORMAT, "%s: emo_shared_expert_weights is '%s'; it must be 'one' or 'softmax'",
                         where, shared);
    if (strcmp(gating, "softmax") != 0 && strcmp(gating, "sigmoid") != 0)
        return emo__fail(err, EMO_E_FORMAT, "%s: emo_router_gating is '%s'; it must be 'softmax' or 'sigmoid'", where,
                         gating);
    c->gating = strcmp(gating, "sigmoid") == 0 ? EMO_GATING_SIGMOID : EMO_GATING_SOFTMAX;
    c->shared_mode = strcmp(shared, "one") == 0 ? EMO_SHARED_ONE : EMO_SHARED_SOFTMAX;
    status = read_rope_scaling(root, err);
done:
    return status;
}

/* seen[id] becomes 1 for the ids of a layer's list, which go to layer->always. */
static emo_status read_always_layer(const emo__json *ids, emo__layer_config *layer, int32_t l, uint8_t *seen,
                                    emo_error *err) {
    for (size_t i = 0; i < emo__json_size(ids); i++) {
        int64_t id = -1;
        if (!emo__json_i64(emo__json_at(ids, i), &id) || id < 0 || id >= layer->experts)
            return emo__fail(err, EMO_E_RANGE,
                             "%s: always_active_experts: expert %lld of layer %d; the layer has %d experts", where,
                             (long long)id, (int)l, (int)layer->experts);
        if (seen[id] != 0)
            return emo__fail(err, EMO_E_FORMAT, "%s: always_active_experts: expert %lld of layer %d is listed twice",
                             where, (long long)id, (int)l);
        seen[id] = 1;
        layer->always[i] = (int32_t)id;
    }
    return EMO_OK;
}

/* always_active_experts_per_layer wins over the global list; both win over shared experts. */
static emo_status read_always(const emo__json *root, emo__config *c, emo_error *err) {
    const emo__json *per_layer = emo__json_get(root, "always_active_experts_per_layer");
    c->always_listed = per_layer != NULL;
    if (per_layer != NULL &&
        (emo__json_typeof(per_layer) != EMO__JSON_ARRAY || emo__json_size(per_layer) != (size_t)c->layers))
        return emo__fail(err, EMO_E_FORMAT, "%s: always_active_experts_per_layer must list %d layers", where,
                         (int)c->layers);
    for (int32_t l = 0; l < c->layers; l++) {
        emo__layer_config *layer = &c->layer[l];
        const emo__json *ids =
            per_layer != NULL ? emo__json_at(per_layer, (size_t)l) : emo__json_get(root, "always_active_experts");
        size_t n = emo__json_size(ids);
        bool list = ids == NULL || emo__json_typeof(ids) == EMO__JSON_ARRAY;
        if (list && (layer->experts == 0 || n == 0))
            continue;
        if (!list || n > (size_t)layer->experts)
            return emo__fail(err, EMO_E_FORMAT,
                             "%s: always_active_experts of layer %d must be a list of at most %d expert ids", where,
                             (int)l, (int)layer->experts);
        layer->always = emo__malloc_array(c->mem, n, sizeof *layer->always);
        if (layer->always == NULL)
            return emo__fail_memory(err, n * sizeof *layer->always);
        uint8_t *seen = emo__calloc(c->mem, (size_t)layer->experts, 1);
        if (seen == NULL)
            return emo__fail_memory(err, (size_t)layer->experts);
        emo_status status = read_always_layer(ids, layer, l, seen, err);
        emo__free(c->mem, seen);
        if (status != EMO_OK)
            return status;
        layer->n_always = (int32_t)n;
        layer->shared = 0;
    }
    return EMO_OK;
}

static emo_status check_list(size_t n, const char *key, const emo__config *c, emo_error *err) {
    if (n > 0 && n != (size_t)c->layers)
        return emo__fail(err, EMO_E_RANGE, "%s: %s has %zu entries; num_hidden_layers is %d", where, key, n,
                         (int)c->layers);
    return EMO_OK;
}

static emo_status read_layers(const emo__json *root, emo__config *c, emo_error *err) {
    int32_t experts = 0;
    int32_t shared = 0;
    int32_t *experts_list = NULL;
    int32_t *shared_list = NULL;
    size_t n_experts = 0;
    size_t n_shared = 0;
    emo_status status;
    c->layer = emo__calloc(c->mem, (size_t)c->layers, sizeof *c->layer);
    if (c->layer == NULL)
        return emo__fail_memory(err, (size_t)c->layers * sizeof *c->layer);
    EMO_TRY(status =
                emo__json_opt_i32(root, "num_experts", where, c->dense_model ? 0 : 7, 0, MAX_EXPERTS, &experts, err));
    EMO_TRY(status = emo__json_opt_i32(root, "num_shared_experts", where, 0, 0, MAX_EXPERTS, &shared, err));
    EMO_TRY(status = emo__json_opt_i32s(root, "num_experts_per_layer", where, 0, MAX_EXPERTS, c->mem, &experts_list,
                                        &n_experts, err));
    EMO_TRY(status = emo__json_opt_i32s(root, "num_shared_experts_per_layer", where, 0, MAX_EXPERTS, c->mem,
                                        &shared_list, &n_shared, err));
    EMO_TRY(status = check_list(n_experts, "num_experts_per_layer", c, err));
    EMO_TRY(status = check_list(n_shared, "num_shared_experts_per_layer", c, err));
    c->experts_listed = n_experts > 0;
    for (int32_t l = 0; l < c->layers; l++) {
        emo__layer_config *layer = &c->layer[l];
        layer->experts = n_experts > 0 ? experts_list[l] : experts;
        layer->shared = n_shared > 0 ? shared_list[l] : shared;
        if (n_experts > 0 && n_shared == 0 && layer->shared > layer->experts)
            layer->shared = layer->experts;
        if (layer->experts == 0)
            layer->shared = 0;
    }
    status = read_always(root, c, err);
    for (int32_t l = 0; l < c->layers; l++) {
        c->layer[l].original_experts = c->layer[l].experts;
        c->layer[l].original_shared = c->layer[l].shared;
    }
done:
    emo__free(c->mem, experts_list);
    emo__free(c->mem, shared_list);
    return status;
}

static emo_status check_layer(const emo__config *c, int32_t l, emo_error *err) {
    const emo__layer_config *layer = &c->layer[l];
    if (layer->experts == 0)
        return EMO_OK;
    if (layer->shared >= layer->experts)
        return emo__fail(err, EMO_E_RANGE, "%s: layer %d has %d shared of %d experts; at least one must be routed",
                         where, (int)l, (int)layer->shared, (int)layer->experts);
    int32_t fixed = layer->n_always > 0 ? layer->n_always : layer->shared;
    if (c->top_k <= fixed)
        return emo__fail(
            err, EMO_E_RANGE, "%s: num_experts_per_tok %d must exceed the %d experts of layer %d that %s names", where,
            (int)c->top_k, (int)fixed, (int)l, layer->n_always > 0 ? "always_active_experts" : "num_shared_experts");
    if (c->top_k > layer->experts)
        return emo__fail(err, EMO_E_RANGE, "%s: num_experts_per_tok %d is above the %d experts of layer %d", where,
                         (int)c->top_k, (int)layer->experts, (int)l);
    if (layer->n_always > 0 && emo__config_extended(c))
        return emo__fail(err, EMO_E_UNSUPPORTED, "%s: %s cannot be combined with always-active experts (layer %d)",
                         where, c->score_bias ? "emo_router_score_bias" : "emo_router_gating 'sigmoid'", (int)l);
    if (c->norm_topk && fixed > 0)
        return emo__fail(err, EMO_E_RANGE,
                         "%s: norm_topk_prob cannot be combined with shared or always-active experts (layer %d)", where,
                         (int)l);
    return EMO_OK;
}

emo_status emo__config_check(const emo__config *c, emo_error *err) {
    if (c->heads % c->kv_heads != 0)
        return emo__fail(err, EMO_E_RANGE, "%s: num_attention_heads %d is no multiple of num_key_value_heads %d", where,
                         (int)c->heads, (int)c->kv_heads);
    if (c->head_dim % 2 != 0)
        return emo__fail(err, EMO_E_RANGE, "%s: the head dimension is %d; RoPE needs an even one", where,
                         (int)c->head_dim);
    if ((int64_t)c->heads * c->head_dim > MAX_WIDTH)
        return emo__fail(err, EMO_E_RANGE, "%s: %d heads of %d are too wide", where, (int)c->heads, (int)c->head_dim);
    int64_t experts = 0;
    for (int32_t l = 0; l < c->layers; l++) {
        emo_status status = check_layer(c, l, err);
        if (status != EMO_OK)
            return status;
        experts += c->layer[l].experts;
    }
    if (experts > MAX_ALL_EXPERTS)
        return emo__fail(err, EMO_E_RANGE, "%s: num_experts: %lld experts over all layers; at most %d are possible",
                         where, (long long)experts, MAX_ALL_EXPERTS);
    return EMO_OK;
}

static emo_status parse_root(const emo__json *root, emo__config *c, emo_error *err) {
    if (emo__json_typeof(root) != EMO__JSON_OBJECT)
        return emo__fail(err, EMO_E_FORMAT, "%s: the top is not an object", where);
    emo_status status;
    EMO_TRY(status = read_kind(root, c, err));
    EMO_TRY(status = read_scalars(root, c, err));
    EMO_TRY(status = read_eos(root, c, err));
    if (!c->head_dim_given) {
        c->head_dim = c->hidden / c->heads;
        if (c->hidden % c->heads != 0)
            return emo__fail(err, EMO_E_RANGE, "%s: hidden_size %d is no multiple of num_attention_heads %d", where,
                             (int)c->hidden, (int)c->heads);
    }
    EMO_TRY(status = read_layers(root, c, err));
    status = emo__config_check(c, err);
done:
    return status;
}

emo_status emo__config_parse(const emo__mem *mem, const char *text, size_t length, emo__config *config,
                             emo_error *err) {
    memset(config, 0, sizeof *config);
    config->mem = mem;
    emo__json *root = NULL;
    emo_status status = emo__json_parse(mem, text, length, where, &root, err);
    if (status == EMO_OK)
        status = parse_root(root, config, err);
    if (status == EMO_OK)
        status = emo__beside_new(mem, text, length, &config->beside, err);
    emo__json_free(root);
    return status;
}

static emo_status read_original(emo__config *c, int32_t l, const emo__json *ids, const char *name, emo_error *err) {
    emo__layer_config *layer = &c->layer[l];
    size_t n = emo__json_size(ids);
    if (n != (size_t)layer->experts)
        return emo__fail(err, EMO_E_FORMAT, "%s: layer %d keeps %zu experts; the model has %d there", name, (int)l, n,
                         (int)layer->experts);
    layer->original = emo__malloc_array(c->mem, n, sizeof *layer->original);
    if (layer->original == NULL)
        return emo__fail_memory(err, n * sizeof *layer->original);
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        int64_t id = -1;
        if (!emo__json_i64(emo__json_at(ids, i), &id) || id < 0 || id >= MAX_EXPERTS)
            return emo__fail(err, EMO_E_FORMAT, "%s: layer %d: entry %zu is no expert id", name, (int)l, i);
        layer->original[i] = (int32_t)id;
        if (id > largest)
            largest = (int32_t)id;
    }
    /* The reference does not record the parent's shape: it had at least this many experts. */
    if (layer->original_experts <= largest)
        layer->original_experts = largest + 1;
    return EMO_OK;
}

emo_status emo__config_read_pruning(emo__config *c, const char *text, size_t length, emo_error *err) {
    static const char *const name = "pruning_metadata.json";
    emo__json *root = NULL;
    emo_status status = emo__json_parse(c->mem, text, length, name, &root, err);
    if (status != EMO_OK)
        return status;
    const emo__json *kept = emo__json_get(root, "experts_kept_per_layer");
    const emo__json *parent = emo__json_get(root, "emo_parent_experts");
    const emo__json *parent_shared = emo__json_get(root, "emo_parent_shared");
    if (kept != NULL && emo__json_size(kept) != (size_t)c->layers)
        status = emo__fail(err, EMO_E_FORMAT, "%s: experts_kept_per_layer lists %zu layers; the model has %d", name,
                           emo__json_size(kept), (int)c->layers);
    for (int32_t l = 0; kept != NULL && status == EMO_OK && l < c->layers; l++) {
        emo__layer_config *layer = &c->layer[l];
        int64_t value = 0;
        if (layer->experts == 0)
            continue;
        if (emo__json_i64(emo__json_at(parent, (size_t)l), &value) && value > 0 && value <= MAX_EXPERTS)
            layer->original_experts = (int32_t)value;
        if (emo__json_i64(emo__json_at(parent_shared, (size_t)l), &value) && value >= 0 &&
            value < layer->original_experts)
            layer->original_shared = (int32_t)value;
        status = read_original(c, l, emo__json_at(kept, (size_t)l), name, err);
    }
    emo__json_free(root);
    return status;
}

static emo_status copy_ids(const emo__mem *mem, const int32_t *from, int32_t count, int32_t **to, emo_error *err) {
    if (from == NULL || count == 0)
        return EMO_OK;
    *to = emo__malloc_array(mem, (size_t)count, sizeof **to);
    if (*to == NULL)
        return emo__fail_memory(err, (size_t)count * sizeof **to);
    memcpy(*to, from, (size_t)count * sizeof **to);
    return EMO_OK;
}

emo_status emo__config_copy(const emo__config *from, emo__config *to, emo_error *err) {
    *to = *from;
    (void)emo__beside_retain(to->beside);
    to->layer = emo__calloc(from->mem, (size_t)from->layers, sizeof *to->layer);
    if (to->layer == NULL)
        return emo__fail_memory(err, (size_t)from->layers * sizeof *to->layer);
    for (int32_t l = 0; l < from->layers; l++) {
        to->layer[l] = from->layer[l];
        to->layer[l].always = NULL;
        to->layer[l].original = NULL;
    }
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < from->layers; l++) {
        const emo__layer_config *layer = &from->layer[l];
        status = copy_ids(from->mem, layer->always, layer->n_always, &to->layer[l].always, err);
        if (status == EMO_OK)
            status = copy_ids(from->mem, layer->original, layer->experts, &to->layer[l].original, err);
    }
    return status;
}

void emo__config_free(emo__config *c) {
    emo__beside_release(c->beside);
    c->beside = NULL;
    if (c->layer == NULL)
        return;
    for (int32_t l = 0; l < c->layers; l++) {
        emo__free(c->mem, c->layer[l].always);
        emo__free(c->mem, c->layer[l].original);
    }
    emo__free(c->mem, c->layer);
    c->layer = NULL;
}
