/* SPDX-License-Identifier: Apache-2.0 */
/* One forward pass over a packed batch as a list of steps with a cursor, and its backward pass.
 *
 * The same pass serves training (activations saved), evaluation, prefill and decode (KV cache). It can stop between
 * any two steps, and between slices of a step, and go on later.
 *
 *   emo__pass_create -> emo__pass_begin(batch) -> emo__pass_advance until done -> results -> begin again ...
 */
#ifndef EMO_SRC_MODEL_PASS_H
#define EMO_SRC_MODEL_PASS_H

#include <stdbool.h>

#include "model/model.h"
#include "model/profile.h"

typedef struct emo__pass emo__pass;

/* What a pass is for. Fixed at creation; sizes are capacities. */
typedef struct emo__pass_config {
    int64_t max_tokens;
    int64_t max_documents; /* router segments */
    int64_t max_logits;    /* rows whose logits are wanted */
    bool save;             /* keep what backward needs */
    int32_t recompute;     /* EMO_RECOMPUTE_*: of that, what backward makes again instead */
    bool kv;               /* k and v live in a cache of the caller's */
    bool all_logits;       /* router logits of all E experts, the shared ones too */
    bool token_loss;       /* CE of every token */
    bool document_balance; /* keep counts and score sums per document */
    bool expert_norms;     /* keep the output norm of every assignment (EASY-EP) */
    int32_t shared_mode;   /* EMO_SHARED_* , or -1: the model's */
    emo_exec *exec;        /* the caller's, whose own work is to stay in order with the pass's; NULL: one of its own */
} emo__pass_config;

/* Keys and values of one layer are rows of heads; layer l begins at k + l * layer_stride. In pages as
 * emo_attention_args has them: k_begin of a segment counts entries of the page table then. */
typedef struct emo__kv_view {
    float *k;
    float *v;
    int64_t layer_stride; /* floats */
    int64_t page_rows;    /* 0: no pages */
    const int32_t *pages; /* must live until the pass is done */
} emo__kv_view;

/* What one run works on. The arrays are host memory and must live until the pass is done; with save, until backward. */
typedef struct emo__batch {
    int64_t tokens;
    const int32_t *ids;       /* [tokens] */
    const int32_t *positions; /* [tokens], below max_positions */
    int64_t n_attention;
    const emo_attention_segment *attention; /* k_begin counts rows of the batch, or of the cache with kv */
    int64_t n_documents;
    const int32_t *document_begin;   /* [n_documents + 1] router documents = segments of the allowed sets */
    const uint8_t *const *allowed;   /* [layers] -> [n_documents, routed] or NULL entries; NULL: all */
    const int32_t *const *pool_size; /* [layers] -> [n_documents] or NULL entries; NULL: no pools */
    float pool_mass;                 /* > 0: by mass, between pool_min and pool_max */
    int32_t pool_min;
    int32_t pool_max;
    int32_t forced;
    emo__kv_view kv;       /* with kv: the new rows of a segment are written to the last q_count of its k_count keys */
    const int32_t *labels; /* [tokens] or NULL: no loss */
    float ce_scale;        /* of the gradient, with save and labels */
    float lm_z_scale;
    int64_t n_logits;          /* rows whose logits are wanted, 0: none */
    const int32_t *logit_rows; /* [n_logits] ascending */
    float jitter;              /* router input noise, training only */
    int64_t first_token;       /* number of token 0 in the step: the jitter's key */
    uint64_t seed;
    uint64_t step;
} emo__batch;

/* When to stop before the end. Zeroed: never. A call always finishes at least one slice. */
typedef struct emo__limit {
    uint64_t deadline_ns;         /* emo__now_ns() */
    int32_t slices;               /* number of slices */
    int32_t stop_layer;           /* with stop_stage */
    int32_t stop_stage;           /* 0: none; else stop BEFORE this stage of stop_layer */
    const emo_progress *progress; /* asked between slices */
} emo__limit;

/* Stages, in the order of a layer. */
enum {
    EMO__STAGE_ANGLES = 1, /* of positions that no batch had before */
    EMO__STAGE_EMBED,
    EMO__STAGE_ATTN_NORM,
    EMO__STAGE_QKV,
    EMO__STAGE_ROPE, /* and into the cache */
    EMO__STAGE_ATTENTION,
    EMO__STAGE_ATTN_OUT,
    EMO__STAGE_FFN_NORM,
    EMO__STAGE_ROUTE_LOGITS,
    EMO__STAGE_ROUTE_POOL,
    EMO__STAGE_ROUTE_SELECT,
    EMO__STAGE_EXPERTS,
    EMO__STAGE_DENSE,
    EMO__STAGE_FINAL_NORM,
    EMO__STAGE_HEAD_LOSS,
    EMO__STAGE_HEAD_LOGITS,
    EMO__STAGES
};

/* What the router of one layer left. Back end memory; layout as in emo_route_args. NULL for dense layers. */
typedef struct emo__route_view {
    int32_t routed;
    int32_t shared;
    int32_t k;       /* chosen */
    int32_t k_total; /* columns of indices and weights */
    int32_t columns; /* of logits */
    float *logits;
    float *scores;
    float *usage;
    uint8_t *allowed;
    int32_t *indices;
    float *weights;
    float *lse;
    int32_t *counts;         /* [E], zeroed at begin */
    float *score_sum;        /* [routed] */
    double *z_sum;           /* [1] */
    int32_t *segment_counts; /* with document_balance */
    float *segment_score_sum;
    float *out_norm; /* with expert_norms: [tokens, k_total] */
} emo__route_view;

EMO_MUST_CHECK emo_status emo__pass_create(emo_model *model, const emo__pass_config *config, emo__pass **out,
                                           emo_error *err);
void emo__pass_destroy(emo__pass *pass);
/* Slices from now on, also in the middle of a run: they do not change results. A slice is a part of a step's tasks,
 * where the back end can run operators in parts (and the exec is the pass's own), else at least a row of it. Ignored
 * with save.
 * By work: about so many multiply-adds, always the same ones. By time: as many as took about so long so far. 0: whole
 * steps, as in the beginning. */
void emo__pass_set_slice_work(emo__pass *pass, int64_t multiply_adds);
void emo__pass_set_slice_time(emo__pass *pass, uint64_t ns);
/* Slices run since creation. */
uint64_t emo__pass_slices(const emo__pass *pass);
/* The stream the pass works on: what is enqueued there comes after its steps. */
emo_exec *emo__pass_exec(const emo__pass *pass);
/* Bytes of activations that are kept from the forward for the backward. */
size_t emo__pass_kept_bytes(const emo__pass *pass);
/* Makes room for positions below `positions` now, so that begin need not. */
EMO_MUST_CHECK emo_status emo__pass_reserve(emo__pass *pass, int64_t positions, emo_error *err);

/* Checks the batch against the capacities and sets the cursor to the first step. */
EMO_MUST_CHECK emo_status emo__pass_begin(emo__pass *pass, const emo__batch *batch, emo_error *err);
/* Works from the cursor on. *done: the last step is finished. EMO_E_CANCELLED leaves the cursor where it is. */
EMO_MUST_CHECK emo_status emo__pass_advance(emo__pass *pass, const emo__limit *limit, bool *done, emo_error *err);
/* begin + advance to the end. */
EMO_MUST_CHECK emo_status emo__pass_run(emo__pass *pass, const emo__batch *batch, emo_error *err);
/* Runs ROUTE_SELECT of a layer anew with the batch's `allowed` of that layer (which the caller changed); the cursor
 * must stand before EMO__STAGE_EXPERTS of that layer. Counts, score sums and z are as if the first run had not been. */
EMO_MUST_CHECK emo_status emo__pass_reselect(emo__pass *pass, int32_t layer, emo_error *err);

/* Copies results to the host and waits for them. */
EMO_MUST_CHECK emo_status emo__pass_download(emo__pass *pass, void *dst, const void *src, size_t bytes, emo_error *err);

/* Results of the run. */
const emo__route_view *emo__pass_route(const emo__pass *pass, int32_t layer);
const float *emo__pass_logits(const emo__pass *pass);           /* [n_logits, vocab], back end memory */
const float *emo__pass_token_loss(const emo__pass *pass);       /* [tokens], back end memory */
const int32_t *emo__pass_document_begin(const emo__pass *pass); /* [n_documents + 1], back end memory */
/* Two device scalars: the sums of CE and of logsumexp^2 over labelled tokens. */
double *emo__pass_ce_sum(const emo__pass *pass);
/* Input and output of a layer's MoE block (EASY-EP): valid while the cursor stands right after EMO__STAGE_EXPERTS of
 * it. x [tokens, hidden] is the normed input; the residual stream after the block is h. */
const float *emo__pass_block_input(const emo__pass *pass);
const float *emo__pass_residual(const emo__pass *pass);

/* Gradients: one address per parameter (NULL: not wanted), and per MoE layer a table whose slots carry the same. */
typedef struct emo__grads {
    emo_model *model;
    float **of;              /* [n_params] */
    emo_expert_slot **slots; /* [layers] */
    emo_expert_table *tables;
} emo__grads;
/* `base` + offsets[i] is the gradient of parameter i; offsets[i] < 0: not wanted. */
EMO_MUST_CHECK emo_status emo__grads_create(emo_model *model, float *base, const int64_t *offsets, emo__grads *grads,
                                            emo_error *err);
void emo__grads_free(emo__grads *grads);

/* The router losses' part of the gradient, per MoE layer; device memory. */
typedef struct emo__route_gradient {
    const float *balance; /* [routed], or [n_documents, routed] with by_document; NULL: none */
    int32_t by_document;
    float z_scale;
} emo__route_gradient;

/* Backward of the last run (config.save, labels given, head gradient included in the forward with ce_scale and
 * lm_z_scale); adds to the gradients. route [layers] or NULL. */
EMO_MUST_CHECK emo_status emo__pass_backward(emo__pass *pass, const emo__grads *grads, const emo__route_gradient *route,
                                             emo_error *err);
/* Times of the steps of passes to come are kept there; NULL: not. */
void emo__pass_set_profile(emo__pass *pass, emo__profile *profile);
/* With save: the gradients of the head's weight go there; to be set before begin. NULL: losses only. */
void emo__pass_set_grads(emo__pass *pass, const emo__grads *grads);

#endif
