/* SPDX-License-Identifier: Apache-2.0 */
/* A model's shape and settings: what config.json says, checked. */
#ifndef EMO_SRC_MODEL_CONFIG_H
#define EMO_SRC_MODEL_CONFIG_H

#include <stdbool.h>

#include "base/memory.h"
#include "io/json.h"
#include "model/beside.h"

/* One layer's feed-forward block. */
typedef struct emo__layer_config {
    int32_t experts;  /* E, shared ones included; 0: dense */
    int32_t shared;   /* H, the last ids */
    int32_t n_always; /* always-active experts (then H is 0) */
    int32_t *always;
    int32_t *original;        /* [E] ids in the model this one was pruned from; NULL: its own */
    int32_t original_experts; /* E of that model */
    int32_t original_shared;
} emo__layer_config;

typedef struct emo__config {
    const emo__mem *mem;
    int32_t layers;
    int32_t hidden;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
    bool head_dim_given; /* the key was there: it is written again */
    int32_t vocab;
    int32_t inner;       /* of one expert */
    int32_t dense_inner; /* of a dense layer */
    int32_t top_k;       /* K: shared ones included */
    int32_t max_positions;
    int32_t eos; /* -1: none */
    int32_t bos;
    int32_t pad;
    float eps;
    double rope_theta;
    double initializer_range;
    double aux_coef;
    bool tie;
    bool norm_topk;
    bool attention_bias;
    bool dense_bias;
    bool output_router_logits;
    bool dense_model;      /* model_type of the reference's dense baseline */
    bool experts_listed;   /* num_experts_per_layer was given */
    bool always_listed;    /* always_active_experts_per_layer was given */
    int32_t gating;        /* EMO_GATING_SOFTMAX or EMO_GATING_SIGMOID; key emo_router_gating */
    bool score_bias;       /* each gate has a bias for the choice; key emo_router_score_bias */
    int32_t shared_mode;   /* EMO_SHARED_ONE or EMO_SHARED_SOFTMAX; key emo_shared_expert_weights */
    int32_t train_seq_len; /* rows the model was trained on, 0: unknown; key emo_train_seq_len */
    emo__layer_config *layer;
    emo__beside *beside; /* what config.json and the folder say besides; NULL: nothing is known */
} emo__config;

/* Parses and checks the text of a config.json. *config is zeroed first; free it with emo__config_free in every case. */
EMO_MUST_CHECK emo_status emo__config_parse(const emo__mem *mem, const char *text, size_t length, emo__config *config,
                                            emo_error *err);
/* Reads pruning_metadata.json's kept ids into layer[].original. */
EMO_MUST_CHECK emo_status emo__config_read_pruning(emo__config *config, const char *text, size_t length,
                                                   emo_error *err);
/* A deep copy; free *to in every case. */
EMO_MUST_CHECK emo_status emo__config_copy(const emo__config *from, emo__config *to, emo_error *err);
/* Checks the relations between fields. */
EMO_MUST_CHECK emo_status emo__config_check(const emo__config *config, emo_error *err);
void emo__config_free(emo__config *config);

/* Appends the JSON text. */
EMO_MUST_CHECK emo_status emo__config_write(const emo__config *config, emo_dtype dtype, emo__buf *out, emo_error *err);

/* Whether the reference's configuration has no word for this model: it is saved under a model_type of our own. */
static inline bool emo__config_extended(const emo__config *config) { return config->gating != 0 || config->score_bias; }

/* Routed experts of a layer: all that are not shared. */
static inline int32_t emo__config_routed(const emo__config *config, int32_t layer) {
    return config->layer[layer].experts - config->layer[layer].shared;
}
/* Experts of the widest layer, at least 1: room for the flags or numbers of any. */
static inline size_t emo__config_widest(const emo__config *config) {
    int32_t widest = 1;
    for (int32_t l = 0; l < config->layers; l++)
        widest = config->layer[l].experts > widest ? config->layer[l].experts : widest;
    return (size_t)widest;
}
/* Chosen per token besides the shared or always-active ones. */
static inline int32_t emo__config_chosen(const emo__config *config, int32_t layer) {
    const emo__layer_config *l = &config->layer[layer];
    return config->top_k - (l->n_always > 0 ? l->n_always : l->shared);
}

#endif
