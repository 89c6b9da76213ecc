/* SPDX-License-Identifier: Apache-2.0 */
/* The trainer as its own files see it. */
#ifndef EMO_SRC_TRAIN_TRAINER_H
#define EMO_SRC_TRAIN_TRAINER_H

#include <emo/train.h>

#include "base/progress.h"
#include "data/pack.h"
#include "io/files.h"
#include "model/pass.h"
#include "model/profile.h"
#include "moe/balance.h"
#include "train/schedule.h"

/* Consecutive parameters that share everything adamw needs: one call. */
typedef struct emo__adam_run {
    float *p;
    int64_t offset; /* in the gradient, m and v blocks */
    int64_t count;
    float weight_decay;
} emo__adam_run;

/* The rows of one step of this rank, on the host. */
typedef struct emo__step_data {
    int32_t *ids;        /* [rows, S] */
    int32_t *labels;     /* [rows, S] */
    int32_t *positions;  /* [rows, S] */
    uint8_t *label_mask; /* [S] */
    int64_t n_labels;
    int64_t n_documents;
    int64_t n_filtered; /* rows without labels for their repetitions */
    /* over all ranks, once they have met */
    int64_t all_labels;
    int64_t all_documents;
    int64_t all_filtered;
} emo__step_data;

/* Where rows come from: the packed stream, or rows recorded elsewhere. Fills ids and labels [seq_len] of a global row.
 */
typedef struct emo__row_source {
    void *ctx;
    emo_status (*row)(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err);
} emo__row_source;

/* One micro-batch's documents, on the host. */
typedef struct emo__micro_data {
    emo_attention_segment *attention;
    int64_t n_attention;
    int32_t *begin; /* [documents + 1] router documents */
    int64_t n_documents;
    int64_t *document_id;
    int32_t **pool_size; /* [layers] -> [documents] */
    uint8_t **allowed;   /* [layers] -> [documents, routed]; NULL without a mask */
    int32_t *cut;        /* scratch: attention documents */
} emo__micro_data;

/* What steps take of an exec: reserved before the first one. */
typedef struct emo__step_room {
    int64_t scratch;
    int64_t arrays; /* host arrays of work that is replayed */
} emo__step_room;

/* A trainer that is made to be counted (plan.c): its device is a planner. */
typedef struct emo__planning {
    emo_train_plan *out;
    int64_t live;      /* bytes noted so far */
    bool one_document; /* rows are one document each, else every token is one */
    emo__step_room room;
} emo__planning;

/* A step whose work is enqueued, and what of it comes to the host: read when it is waited for. */
typedef struct emo__made_step {
    emo_step_metrics metrics; /* what is known without the device */
    double n_labels;          /* of the step, all ranks */
    uint64_t begin_ns;
    uint64_t mark; /* of the work */
    bool fetched;  /* what follows is on its way, or here */
    bool replayed; /* its pieces all ran by graphs that were there */
    emo_step_scalars scalars;
    double *sums;    /* [n_sums] */
    int32_t *counts; /* [n_counts] of every micro-batch and layer */
} emo__made_step;

/* Moments beside the device (offload.c). */
typedef struct emo__offload emo__offload;

struct emo_trainer {
    emo__ref ref;
    emo__offload *offload;   /* NULL: m and v are memory of the device, else of the host */
    emo__planning *planning; /* NULL: it is to train */
    emo__guard guard;
    emo_runtime *rt;
    emo_model *model; /* retained, its guard held */
    const emo_backend_ops *ops;
    emo_exec *exec;
    emo_train_options opt; /* strings and objects copied or retained below */
    char *out;
    emo_dataset *valid;
    emo_pool_policy *pool;
    emo_mask *mask;
    uint8_t **keep;  /* [layers] -> [experts] what the mask leaves; NULL without a mask */
    int32_t *choose; /* [layers] experts that a token chooses: fewer than top-k where the mask leaves fewer; 0: dense */
    struct {
        int32_t gating;
        bool score_bias;
        int32_t train_seq_len;
    } was;          /* the model's, for when the trainer cannot be made */
    bool made;      /* it could */
    emo_comm *comm; /* NULL: single rank */
    int32_t ranks;
    int32_t rank;
    emo__packer *packer;
    emo__row_source rows; /* row NULL: the packer */
    emo__lock lock;
    emo__profile profile; /* filled with opt.profile */

    int64_t micro_rows; /* rows of a micro-batch on this rank */
    int64_t rank_rows;  /* rows of a step on this rank */
    int64_t step;       /* finished steps */
    int64_t steps;      /* planned, 0: not known yet */
    int64_t warmup;
    int64_t decay;
    int64_t tokens;      /* trained, all ranks */
    double seconds_done; /* of training in earlier processes and this one */

    emo_step_metrics unrecorded[2]; /* of the last steps, not in metrics.jsonl yet; the earlier one first */
    int32_t n_unrecorded;
    int64_t saved; /* step of the newest complete checkpoint, -1: none */
    float *flat;   /* the weights, as one block */
    int64_t flat_count;
    int64_t *grad_offset; /* [n_params], -1: frozen */
    int64_t grad_count;
    float *g;
    float *m;
    float *v;
    emo__adam_run *runs;
    size_t n_runs;
    emo__grads grads;
    emo__pass *pass;
    emo__balance *balance;
    emo_step_scalars *scalars; /* device */
    double *sums; /* device: [accumulate][2] ce, z; then [layers] balance loss; then [accumulate][layers] z */
    size_t n_sums;
    double *exchange;    /* device: [EMO__EXCHANGE] numbers on their way to the other ranks */
    float **layer_grad;  /* device addresses per layer inside balance_grads */
    void *balance_grads; /* device block */
    emo__route_gradient *route;
    emo__step_data data;
    emo__micro_data micro;
    emo__made_step queue[2]; /* step s is queue[s % 2] */
    int64_t ahead;           /* enqueued steps that are not in `step` yet: 0, 1, or 2 for a moment */
    size_t n_counts;
    int64_t replayed; /* steps */
    uint64_t last_ns; /* when the last step was read */
    double *load;     /* [widest layer] tokens per expert in the step */
    float *host_bias; /* [widest layer] */
};

/* Bounds of every option (options.c). */
EMO_MUST_CHECK emo_status emo__train_options_check(const emo_train_options *options, emo_error *err);

/* Options are copied over the defaults already. Takes the model's guard for its life. planning NULL: to train; else
 * there are no data. */
EMO_MUST_CHECK emo_status emo__trainer_create(emo_model *model, const emo_dataset *data,
                                              const emo_train_options *options, emo__planning *planning,
                                              emo_trainer **out, emo_error *err);
void emo__trainer_destroy(emo_trainer *t);

/* Step data and documents (batch.c). */
EMO_MUST_CHECK emo_status emo__step_data_create(emo_trainer *t, emo_error *err);
void emo__step_data_destroy(emo_trainer *t);
EMO_MUST_CHECK emo_status emo__step_data_load(emo_trainer *t, int64_t step, emo_error *err);
/* Fills t->micro and *batch for micro-batch `index` of `step` (the step being made, from 1). */
EMO_MUST_CHECK emo_status emo__micro_prepare(emo_trainer *t, int64_t step, int32_t index, emo__batch *batch,
                                             emo_error *err);

/* One step (step.c). With `dry`, the compute alone: no weights, no state change. */
EMO_MUST_CHECK emo_status emo__trainer_step(emo_trainer *t, bool dry, emo_step_metrics *metrics, emo_error *err);
/* The same in two halves, for a device that works while the host goes on: the next step is enqueued (at most two are
 * ahead), and the oldest one is waited for and counts from then on, whatever fails. */
EMO_MUST_CHECK emo_status emo__trainer_enqueue(emo_trainer *t, emo_error *err);
EMO_MUST_CHECK emo_status emo__trainer_collect(emo_trainer *t, emo_step_metrics *metrics, emo_error *err);
/* The oldest enqueued step is made, whatever it gave. */
void emo__trainer_count(emo_trainer *t);
/* Whether a step may be enqueued while the one before it has not been read. */
bool emo__trainer_works_ahead(const emo_trainer *t);

/* Places in the sums of a step. */
static inline double *emo__sum_ce(const double *sums, int32_t m) { return (double *)(uintptr_t)sums + 2 * m; }
static inline double *emo__sum_balance(const emo_trainer *t, const double *sums, int32_t l) {
    return (double *)(uintptr_t)sums + 2 * t->opt.accumulate + l;
}
static inline double *emo__sum_z(const emo_trainer *t, const double *sums, int32_t m, int32_t l) {
    int32_t layers = t->model->config.layers;
    return (double *)(uintptr_t)sums + 2 * t->opt.accumulate + layers + m * layers + l;
}

/* Unscaled router losses of a MoE layer in the last step, summed over micro-batches, this rank. */
void emo__trainer_layer_losses(const emo_trainer *t, int32_t layer, double *balance, double *z);

/* Between the ranks (ranks.c); all of them no-ops with a single one. EMO__EXCHANGE doubles at most. */
#define EMO__EXCHANGE 8
/* Sums a few host numbers. */
EMO_MUST_CHECK emo_status emo__ranks_sum(emo_trainer *t, double *values, size_t count, emo_error *err);
/* A few bytes of the first rank's to all. */
EMO_MUST_CHECK emo_status emo__ranks_tell(emo_trainer *t, void *data, size_t bytes, emo_error *err);
/* `mine` when it is an error, EMO_E_COMM when another rank has one. */
EMO_MUST_CHECK emo_status emo__ranks_agree(emo_trainer *t, emo_status mine, emo_error *err);
/* Whether any rank wants to stop. */
EMO_MUST_CHECK emo_status emo__ranks_stop(emo_trainer *t, bool mine, bool *stop, emo_error *err);
/* Every rank starts from the first one's weights, moments, counts and step. */
EMO_MUST_CHECK emo_status emo__ranks_share_start(emo_trainer *t, emo_error *err);

/* The run folder (checkpoint.c, resume.c), on the first rank. */
/* Cancelled by the hook: the checkpoint before is as it was. */
EMO_MUST_CHECK emo_status emo__checkpoint_write(emo_trainer *t, const emo_progress *progress, emo_error *err);
EMO_MUST_CHECK emo_status emo__run_open(emo_trainer *t, emo_error *err);
/* A number that two trainers share when they do the same run. */
EMO_MUST_CHECK emo_status emo__run_hash(emo_trainer *t, uint64_t *hash, emo_error *err);
/* Stores the planned number of steps, so that a resume before the first checkpoint keeps it. */
EMO_MUST_CHECK emo_status emo__run_store_plan(emo_trainer *t, emo_error *err);
/* EMO_E_NOT_FOUND when the folder that was opened is no longer the one at its path: nothing may be written then. */
EMO_MUST_CHECK emo_status emo__run_check(emo_trainer *t, emo_error *err);
/* Appends what is in t->unrecorded to metrics.jsonl; what could not be written is tried again next time. */
EMO_MUST_CHECK emo_status emo__metrics_record(emo_trainer *t, emo_error *err);

/* The loop (run.c). */
EMO_MUST_CHECK emo_status emo__trainer_run(emo_trainer *t, emo_error *err);
/* One step with all that follows it: validation, metrics, checkpoint, on_step. */
EMO_MUST_CHECK emo_status emo__trainer_advance(emo_trainer *t, emo_step_metrics *metrics, emo_error *err);
EMO_MUST_CHECK emo_status emo__trainer_plan(emo_trainer *t, emo_error *err);

/* With optimizer_on 'host' (offload.c): m and v are made, zeroed. */
EMO_MUST_CHECK emo_status emo__offload_create(emo_trainer *t, emo_error *err);
void emo__offload_destroy(emo_trainer *t);
/* adamw with m and v on the host, enqueued. */
EMO_MUST_CHECK emo_status emo__offload_adamw(emo_trainer *t, const emo_adamw_args *args, emo_error *err);
/* Waits until m and v may be read or written. */
EMO_MUST_CHECK emo_status emo__offload_settle(emo_trainer *t, emo_error *err);

/* Memory (plan.c). */
/* What a trainer of this shape takes on the devices that `planner` stands for; room nullable. */
EMO_MUST_CHECK emo_status emo__train_plan(emo_runtime *rt, emo_backend *planner, const emo__config *config,
                                          emo_dtype compute, const emo_train_options *options, emo_train_plan *out,
                                          emo__step_room *room, emo_error *err);
/* What the planner has handed out since the last note belongs to *field. */
EMO_MUST_CHECK emo_status emo__planning_note(emo_trainer *t, int64_t *field, emo_error *err);
/* Plans, and refuses what the model's device has no room for. *room: what to reserve for steps. On the host, and where
 * the back end cannot say: 0. */
EMO_MUST_CHECK emo_status emo__trainer_check_memory(emo_trainer *t, emo__step_room *room, emo_error *err);
EMO_MUST_CHECK emo_status emo__trainer_reserve(emo_trainer *t, const emo__step_room *room, emo_error *err);

/* The trainer's profile; NULL when it keeps none. */
static inline emo__profile *emo__trainer_profile(emo_trainer *t) { return t->opt.profile ? &t->profile : NULL; }
/* Ends a lap of it. */
static inline void emo__trainer_lap(emo_trainer *t, emo_train_part part) {
    emo__profile_lap(emo__trainer_profile(t), t->exec, part, 0);
}

#endif
