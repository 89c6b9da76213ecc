/* SPDX-License-Identifier: Apache-2.0 */
/* config.json as the reference's own code reads it. */
#include <emo/sys/backend.h>

#include "model/config.h"

static void optional_id(emo__jw *w, const char *key, int32_t id) {
    if (id >= 0)
        emo__jw_i64(w, key, id);
    else
        emo__jw_null(w, key);
}

static const char *dtype_text(emo_dtype dtype) {
    return dtype == EMO_DTYPE_BF16 ? "bfloat16" : dtype == EMO_DTYPE_F16 ? "float16" : "float32";
}

static void ids(emo__jw *w, const char *key, const int32_t *list, int32_t count) {
    emo__jw_row(w, key);
    for (int32_t i = 0; i < count; i++)
        emo__jw_i64(w, NULL, list[i]);
    emo__jw_array_end(w);
}

static void write_always(emo__jw *w, const emo__config *c) {
    bool any = false;
    bool same = true;
    for (int32_t l = 0; l < c->layers; l++) {
        const emo__layer_config *a = &c->layer[l];
        const emo__layer_config *b = &c->layer[0];
        any = any || a->n_always > 0;
        same = same && a->n_always == b->n_always;
        for (int32_t i = 0; same && i < a->n_always; i++)
            same = a->always[i] == b->always[i];
    }
    bool listed = any && (!same || c->always_listed);
    if (any && !listed)
        ids(w, "always_active_experts", c->layer[0].always, c->layer[0].n_always);
    else
        emo__jw_null(w, "always_active_experts");
    if (listed) {
        emo__jw_array(w, "always_active_experts_per_layer");
        for (int32_t l = 0; l < c->layers; l++)
            ids(w, NULL, c->layer[l].always, c->layer[l].n_always);
        emo__jw_array_end(w);
    } else {
        emo__jw_null(w, "always_active_experts_per_layer");
    }
}

static void write_experts(emo__jw *w, const emo__config *c) {
    bool listed = c->experts_listed;
    int32_t most = 0;
    int32_t most_shared = 0;
    for (int32_t l = 0; l < c->layers; l++) {
        const emo__layer_config *layer = &c->layer[l];
        listed = listed || layer->experts != c->layer[0].experts || layer->shared != c->layer[0].shared;
        most = layer->experts > most ? layer->experts : most;
        most_shared = layer->shared > most_shared ? layer->shared : most_shared;
    }
    emo__jw_i64(w, "num_experts", most);
    emo__jw_i64(w, "num_experts_per_tok", c->top_k);
    emo__jw_i64(w, "num_shared_experts", most_shared);
    if (!listed) {
        emo__jw_null(w, "num_experts_per_layer");
        emo__jw_null(w, "num_shared_experts_per_layer");
        return;
    }
    emo__jw_row(w, "num_experts_per_layer");
    for (int32_t l = 0; l < c->layers; l++)
        emo__jw_i64(w, NULL, c->layer[l].experts);
    emo__jw_array_end(w);
    emo__jw_row(w, "num_shared_experts_per_layer");
    for (int32_t l = 0; l < c->layers; l++)
        emo__jw_i64(w, NULL, c->layer[l].shared);
    emo__jw_array_end(w);
}

emo_status emo__config_write(const emo__config *c, emo_dtype dtype, emo__buf *out, emo_error *err) {
    emo__jw w;
    emo__buf keys;
    emo__buf_init(&keys, out->mem);
    emo__jw_begin(&w, out, 2, err);
    w.keys = &keys;
    emo__jw_object(&w, NULL);
    emo__jw_row(&w, "architectures");
    emo__jw_string(&w, NULL,
                   c->dense_model            ? "Olmo2NoQKNormPrenormForCausalLM"
                   : emo__config_extended(c) ? "EmoExtendedForCausalLM"
                                             : "EmoForCausalLM");
    emo__jw_array_end(&w);
    emo__jw_string(&w, "model_type",
                   c->dense_model            ? "olmo2_noqknorm_prenorm"
                   : emo__config_extended(c) ? "emo_extended"
                                             : "emo");
    write_always(&w, c);
    emo__jw_bool(&w, "attention_bias", c->attention_bias);
    emo__jw_f64(&w, "attention_dropout", 0.0);
    optional_id(&w, "bos_token_id", c->bos);
    if (c->dense_inner != c->inner)
        emo__jw_i64(&w, "dense_intermediate_size", c->dense_inner);
    else
        emo__jw_null(&w, "dense_intermediate_size");
    emo__jw_bool(&w, "dense_mlp_bias", c->dense_bias);
    emo__jw_string(&w, "dtype", dtype_text(dtype));
    emo__jw_string(&w, "torch_dtype", dtype_text(dtype));
    optional_id(&w, "eos_token_id", c->eos);
    if (c->head_dim_given)
        emo__jw_i64(&w, "head_dim", c->head_dim);
    emo__jw_string(&w, "hidden_act", "silu");
    emo__jw_i64(&w, "hidden_size", c->hidden);
    emo__jw_f64(&w, "initializer_range", c->initializer_range);
    emo__jw_i64(&w, "intermediate_size", c->inner);
    emo__jw_i64(&w, "max_position_embeddings", c->max_positions);
    emo__jw_bool(&w, "norm_topk_prob", c->norm_topk);
    emo__jw_i64(&w, "num_attention_heads", c->heads);
    write_experts(&w, c);
    emo__jw_i64(&w, "num_hidden_layers", c->layers);
    emo__jw_i64(&w, "num_key_value_heads", c->kv_heads);
    emo__jw_bool(&w, "output_router_logits", c->output_router_logits);
    optional_id(&w, "pad_token_id", c->pad);
    emo__jw_f32(&w, "rms_norm_eps", c->eps);
    emo__jw_null(&w, "rope_scaling");
    emo__jw_f64(&w, "rope_theta", c->rope_theta);
    emo__jw_f64(&w, "router_aux_loss_coef", c->aux_coef);
    emo__jw_bool(&w, "tie_word_embeddings", c->tie);
    emo__jw_bool(&w, "use_cache", true);
    emo__jw_i64(&w, "vocab_size", c->vocab);
    emo__jw_string(&w, "emo_shared_expert_weights", c->shared_mode == EMO_SHARED_ONE ? "one" : "softmax");
    if (c->gating == EMO_GATING_SIGMOID)
        emo__jw_string(&w, "emo_router_gating", "sigmoid");
    if (c->score_bias)
        emo__jw_bool(&w, "emo_router_score_bias", true);
    if (c->train_seq_len > 0)
        emo__jw_i64(&w, "emo_train_seq_len", c->train_seq_len);
    emo_status status = emo__beside_write_config(c->beside, &w, err);
    emo__jw_object_end(&w);
    emo_status written = emo__jw_end(&w);
    emo__buf_free(&keys);
    return status != EMO_OK ? status : written;
}
