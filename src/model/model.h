/* SPDX-License-Identifier: Apache-2.0 */
/* A model in memory: its configuration and its weights as views. */
#ifndef EMO_SRC_MODEL_MODEL_H
#define EMO_SRC_MODEL_MODEL_H

#include <emo/model.h>
#include <emo/sys/backend.h>

#include "base/runtime.h"
#include "io/safetensors.h"
#include "model/config.h"

/* The matrices and vectors of a layer besides its experts. One that the layer lacks has data NULL and rows 0. */
enum {
    EMO__W_ATTN_NORM = 0, /* [1, hidden] */
    EMO__W_Q,             /* [heads * head_dim, hidden] */
    EMO__W_K,             /* [kv_heads * head_dim, hidden] */
    EMO__W_V,
    EMO__W_O, /* [hidden, heads * head_dim] */
    EMO__W_Q_BIAS,
    EMO__W_K_BIAS,
    EMO__W_V_BIAS,
    EMO__W_O_BIAS,
    EMO__W_FFN_NORM,
    EMO__W_ROUTER,   /* [E, hidden]; MoE layers */
    EMO__W_MLP_GATE, /* [dense_inner, hidden]; dense layers */
    EMO__W_MLP_UP,
    EMO__W_MLP_DOWN,
    EMO__W_MLP_GATE_BIAS,
    EMO__W_MLP_UP_BIAS,
    EMO__W_MLP_DOWN_BIAS,
    EMO__W_SCORE_BIAS, /* [1, routed], always f32; MoE layers of a model with a score bias. Not trained by gradient */
    EMO__W_COUNT
};

typedef struct emo__layer {
    emo_weight w[EMO__W_COUNT];
    int32_t param[EMO__W_COUNT]; /* index into params, -1 when absent */
    emo_expert_slot *experts;    /* [E] by id; data NULL outside the load subset; no gradients here */
    int32_t expert_param;        /* params of expert e: expert_param + 3 e + EMO_SLOT_* */
    emo_expert_table table;      /* over `experts`, synced to the back end */
} emo__layer;

/* Where a parameter belongs. */
enum {
    EMO__P_EMBED,  /* token embedding */
    EMO__P_DENSE,  /* a layer's matrix or vector outside the experts and the router */
    EMO__P_ROUTER, /* a layer's gate, and its score bias */
    EMO__P_ROUTED, /* a matrix of a routed expert */
    EMO__P_SHARED, /* a matrix of a shared expert */
    EMO__P_FINAL   /* last norm, head */
};

/* One named tensor. The model's array holds every tensor of the file format in its canonical order. */
typedef struct emo__param {
    emo_weight *view;
    int32_t group;  /* EMO__P_* */
    int32_t layer;  /* -1 outside the layers */
    int32_t which;  /* EMO__W_* in a layer, EMO_SLOT_* in an expert, 0 norm / 1 head at the end */
    int32_t expert; /* -1 outside the experts */
    int64_t rows;
    int64_t cols;
    int32_t vector; /* 1: one-dimensional in files */
} emo__param;

struct emo_model {
    emo__ref ref;
    emo__guard guard;
    emo_runtime *rt;
    emo_backend *backend; /* where the weights are; the host reads and writes them through model/access.h */
    emo_dtype compute;    /* of passes from here on: F32 or BF16 */
    emo__config config;
    emo_weight embed; /* [vocab, hidden] */
    emo_weight norm;  /* [1, hidden] */
    emo_weight head;  /* [vocab, hidden]; the embedding's data when tied */
    int32_t norm_param;
    int32_t head_param; /* -1 when tied */
    emo__layer *layers;
    emo__param *params;
    size_t n_params;
    void **blocks; /* memory the weights lie in, owned (the back end's mem_alloc) */
    size_t n_blocks;
    size_t cap_blocks;
    emo__st_set *files;     /* mapped files the weights may point into, or NULL */
    struct emo__gguf *gguf; /* the file the weights may point into, or NULL */
    emo__st **opened;       /* files opened from sources */
    size_t n_opened;
    emo_mask *subset;                /* load subset, or NULL */
    struct emo__expert_cache *cache; /* experts that come and go; NULL: none */
    emo_tokenizer *tokenizer;
    bool told_few;      /* the holder of the write guard has warned of layers with fewer experts than top-k */
    char *prune_method; /* of a pruned model, for pruning_metadata.json; NULL otherwise */
};

/* A model of this configuration (moved into the model, also on failure) without data: layers, params. */
EMO_MUST_CHECK emo_status emo__model_new(emo_runtime *rt, emo__config *config, emo_model **out, emo_error *err);
static inline emo_model *emo__model_retain(emo_model *model) {
    emo__ref_get(&model->ref);
    return model;
}

/* The reference's name of a parameter. */
#define EMO__NAME_MAX 160
void emo__param_name(const emo__param *param, char buf[EMO__NAME_MAX]);
static inline int64_t emo__param_count(const emo__param *param) { return param->rows * param->cols; }

/* Score biases are kept as f32, whatever the other tensors are: their updates are tiny. */
static inline bool emo__param_is_score_bias(const emo__param *param) {
    return param->group == EMO__P_ROUTER && param->which == EMO__W_SCORE_BIAS;
}
/* Gives the gates of a model that has none a score bias of zeros. The parameters are numbered anew. */
EMO_MUST_CHECK emo_status emo__model_add_score_bias(emo_model *model, emo_error *err);
/* Takes that away again. */
void emo__model_drop_score_bias(emo_model *model);

/* An exec that computes as the model's passes do. */
static inline emo_status emo__model_exec(const emo_model *model, emo_exec **out, emo_error *err) {
    emo_exec_options options = {.struct_size = sizeof options, .compute = model->compute, .deterministic = 1};
    return model->backend->ops->exec_create(model->backend, &options, out, err);
}

/* Memory of the back end that lives as long as the model. */
EMO_MUST_CHECK emo_status emo__model_block(emo_model *model, size_t bytes, void **out, emo_error *err);
/* Points a parameter's view at dense rows of `dtype`. */
void emo__param_bind(emo__param *param, const void *data, emo_dtype dtype);
/* Whether an expert can be used: its matrices are in memory, or read when they are asked for. */
bool emo__expert_loaded(const emo_model *model, int32_t layer, int32_t expert);
bool emo__param_loaded(const emo_model *model, const emo__param *param);
/* EMO_E_UNSUPPORTED, in words, for a model under a memory budget; `what` is what needs all of it ("training"). */
EMO_MUST_CHECK emo_status emo__model_need_all(const emo_model *model, const char *what, emo_error *err);
/* To be called when the views are in place: ties the head, syncs the expert tables. */
EMO_MUST_CHECK emo_status emo__model_finish(emo_model *model, emo_error *err);
/* Moves every parameter that has data (`fill` 0: every parameter, uninitialised) into one f32 block, parameters in
 * order, each aligned to 16 floats, the gaps zero. offsets [n_params]: the place in floats, -1 for parameters without
 * data. Old memory is released. Cancelled or failed, nothing has changed. progress: phase "copy", tensors. */
EMO_MUST_CHECK emo_status emo__model_to_f32(emo_model *model, int fill, float **flat, int64_t *count, int64_t *offsets,
                                            const emo_progress *progress, emo_error *err);
/* Initial weights (golden 2.5): every matrix normal, cut at 3 std; norms 1, biases 0. A function of (seed, ordinal of
 * the parameter, element) alone. */
EMO_MUST_CHECK emo_status emo__model_init_weights(emo_model *model, uint64_t seed, const emo_progress *progress,
                                                  emo_error *err);

/* Copies a parameter, which has data, as f32. */
EMO_MUST_CHECK emo_status emo__param_read_f32(const emo_model *model, const emo__param *param, float *out,
                                              emo_error *err);

#endif
