/* SPDX-License-Identifier: Apache-2.0 */
/* A pass as its own files see it. */
#ifndef EMO_SRC_MODEL_PASS_STATE_H
#define EMO_SRC_MODEL_PASS_STATE_H

#include "model/expert_cache.h"
#include "model/pass.h"

/* Under a memory budget the experts work on so many rows at a time: what they leave for the sum stays small. */
enum { EMO__ON_DEMAND_ROWS = 512 };

typedef struct emo__step {
    int32_t stage;
    int32_t layer; /* -1 outside the layers */
} emo__step;

/* What one layer keeps. Without save most pointers are shared by all layers. */
typedef struct emo__layer_state {
    float *h_in;  /* [T, hidden] residual stream before the layer */
    float *h_mid; /* [T, hidden] after attention */
    float *rstd1; /* [T] */
    float *rstd2;
    float *q; /* [T, heads * D], after RoPE */
    float *k; /* [T, kv_heads * D] */
    float *v;
    float *o;   /* [T, heads * D] */
    float *lse; /* [T, heads]; NULL without save */
    /* MoE */
    emo__route_view route;
    uint8_t *allowed_in;   /* device copy of the batch's; NULL entry: all */
    int32_t *pool_size;    /* device copy */
    const int32_t *always; /* device copy of the configuration's */
    int32_t *plan_offsets; /* [E + 1] */
    int32_t *plan_order;   /* [T * K] */
    int32_t *plan_inverse; /* [T * K] */
    float *saved;          /* [T * K, 2 inner]; dense layers: [T, 2 dense_inner] */
} emo__layer_state;

struct emo__pass {
    emo_model *model;
    const emo_backend_ops *ops;
    emo_exec *exec;
    emo__pass_config cfg;
    emo__batch batch;
    bool has_batch;
    const emo__grads *grads;
    emo__profile *profile; /* NULL: not wanted */

    emo__step *steps;
    size_t n_steps;
    size_t at_step;            /* the cursor */
    int64_t at_row;            /* rows of the current step that are done */
    int64_t at_task;           /* tasks of the current step, over all its rows, that are done */
    int64_t task_work;         /* their multiply-adds, while at_task > 0 */
    int64_t slice_work;        /* multiply-adds of a slice; 0: not by work */
    uint64_t slice_ns;         /* what a slice should take; 0: not by time */
    int64_t pace[EMO__STAGES]; /* rows or tasks of a stage, at its beginning, that take so long; 0: not known yet */
    int64_t pace_here;         /* the same inside of the step under way */
    int64_t longest;           /* keys of the batch's longest attention segment */
    uint64_t slices;           /* run since creation */

    void *arena;
    size_t kept_bytes; /* of the arena, what layers keep for backward */
    int32_t *always;   /* device, all layers */
    emo__layer_state *layers;
    emo__lease *lease;  /* on the experts that come and go; NULL: the model has none */
    float *expert_rows; /* with lease: emo_experts_args.out for ON_DEMAND_ROWS rows */
    float *h;           /* without save: the residual stream; with save: after the last layer */
    float *x;           /* [T, hidden] normed input of the current block */
    float *rstd;        /* [T] of the final norm */
    float *dense_h;     /* [T, dense_inner] */
    float *dx_head;     /* [T, hidden] gradient of the final norm's output */
    float *logits;      /* [max_logits, vocab] */
    float *token_loss;
    double *sums;      /* ce, z; behind them what routers count and sum up, layer after layer */
    size_t sums_bytes; /* of it all */
    int32_t *ids;
    int32_t *positions;
    int32_t *labels;
    int32_t *logit_rows;
    int32_t *document_begin;
    float *cos; /* [rope_room, D / 2], own memory: grows with the positions */
    float *sin;
    int64_t rope_room;
    int64_t rope_rows;  /* filled in */
    int64_t rope_first; /* of those when the batch began */
    int64_t rope_need;  /* by the batch */
    /* backward */
    bool remaking; /* a layer is run once more: its counts stand already */
    float *dh;
    float *dx;
    float *d_o;
    float *dq;
    float *dk;
    float *dv;
    float *d_weights;
    float *d_logits;
    float *d_pre;   /* [T, 2 dense_inner] */
    float *d_dense; /* [T, dense_inner] */
};

static inline int emo__layer_is_moe(const emo__pass *p, int32_t l) { return p->model->config.layer[l].experts > 0; }
/* Residual stream after layer l. */
static inline float *emo__h_out(const emo__pass *p, int32_t l) {
    return l + 1 < p->model->config.layers ? p->layers[l + 1].h_in : p->h;
}

static inline void emo__pass_lap(emo__pass *p, emo_train_part part, int backward) {
    emo__profile_lap(p->profile, p->exec, part, backward);
}

/* ---- pass_angles.c ---- */

/* Room for the angles of so many positions. */
EMO_MUST_CHECK emo_status emo__pass_angles_room(emo__pass *pass, int64_t positions, emo_error *err);
/* Fills in rows [first, last), counted from those that were there when the batch began. */
EMO_MUST_CHECK emo_status emo__pass_angles(emo__pass *pass, int64_t first, int64_t last, emo_error *err);

/* Assigns every buffer of the arena; with base NULL only counts. Returns the bytes. */
size_t emo__pass_layout(emo__pass *pass, char *base);
/* What comes once before rows [first, last) of a step, however they are cut into tasks: the plan of experts. */
EMO_MUST_CHECK emo_status emo__step_begin(emo__pass *pass, const emo__step *step, int64_t first, int64_t last,
                                          emo_error *err);
/* Runs rows [first, last) of a step, or the tasks of them that the back end's window shows. */
EMO_MUST_CHECK emo_status emo__step_run(emo__pass *pass, const emo__step *step, int64_t first, int64_t last,
                                        emo_error *err);
/* The part of a profile that a step belongs to. */
emo_train_part emo__step_part(const emo__step *step);
/* The experts of a step in groups, as they come. args: as for a call with all of them, on rows before `last`. */
EMO_MUST_CHECK emo_status emo__experts_on_demand(emo__pass *pass, int32_t layer, int64_t last, emo_experts_args *args,
                                                 emo_error *err);
/* The pools of a layer have been chosen: their experts may come. */
EMO_MUST_CHECK emo_status emo__pools_on_demand(emo__pass *pass, int32_t layer, emo_error *err);
/* Rows a step has, and whether it may be sliced by them. */
int64_t emo__step_rows(const emo__pass *pass, const emo__step *step);
bool emo__step_sliceable(const emo__step *step);
/* Multiply-adds per row, roughly. */
int64_t emo__step_row_work(const emo__pass *pass, const emo__step *step);
/* Whether it may be sliced by tasks: a row of it may be long. */
bool emo__step_has_tasks(const emo__pass *pass, const emo__step *step);
/* The dispatch plan of rows [first, last) of a layer, and the arguments of its experts on them: without y, slices of
 * the model's own table. */
EMO_MUST_CHECK emo_status emo__plan_rows(emo__pass *pass, int32_t layer, int64_t first, int64_t last, emo_error *err);
void emo__experts_args_of(const emo__pass *pass, int32_t layer, int64_t first, int64_t last, emo_experts_args *args);
/* Pre-activations of a dense layer's MLP into its `saved`. */
EMO_MUST_CHECK emo_status emo__dense_inputs(emo__pass *pass, int32_t layer, int64_t first, int64_t last,
                                            emo_error *err);
/* Runs a step of the forward again, in the backward (remake.c). */
EMO_MUST_CHECK emo_status emo__pass_again(emo__pass *pass, const emo__step *step, emo_error *err);
/* Makes again what the forward did not keep of a layer; afterwards `x` is the normed input of its second
 * half. */
EMO_MUST_CHECK emo_status emo__pass_remake(emo__pass *pass, int32_t layer, emo_error *err);
/* The arguments of route for a layer, all phases and rows; the caller sets phases, first and last. */
void emo__route_args_of(const emo__pass *pass, int32_t layer, emo_route_args *args);

#endif
