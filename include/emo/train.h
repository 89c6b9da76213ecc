/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file train.h
 * @brief Training with document pools: losses, AdamW, schedules, accumulation, checkpoints and resume.
 */
#ifndef EMO_TRAIN_H
#define EMO_TRAIN_H

#include <emo/comm.h>
#include <emo/data.h>
#include <emo/model.h>
#include <emo/pool.h>
#include <emo/router.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_trainer emo_trainer;

typedef int32_t emo_schedule;
enum { EMO_SCHEDULE_COSINE = 0, EMO_SCHEDULE_LINEAR = 1, EMO_SCHEDULE_CONSTANT = 2, EMO_SCHEDULE_WSD = 3 };

typedef int32_t emo_train_only;
enum { EMO_TRAIN_ALL = 0, EMO_TRAIN_EXPERTS = 1 /**< the routed experts alone */ };

/** What the backward pass makes again instead of keeping it from the forward: less memory for more time, the same bits.
 */
typedef int32_t emo_recompute;
enum {
    EMO_RECOMPUTE_NONE = 0,    /**< only what is cheap: normed inputs, activations of experts */
    EMO_RECOMPUTE_EXPERTS = 1, /**< the products before the activations, of experts and dense MLPs */
    EMO_RECOMPUTE_LAYER = 2    /**< each layer from its input */
};

/** Where the moments of AdamW lie. */
typedef int32_t emo_optimizer_on;
enum {
    EMO_OPTIMIZER_DEVICE = 0, /**< with the weights */
    EMO_OPTIMIZER_HOST = 1    /**< in host memory, from where they come to the device in pieces: the same bits. For
                                 weights that are in host memory themselves there is no difference */
};

/** What a step did. */
typedef struct emo_step_metrics {
    uint32_t struct_size;
    int32_t skipped;      /**< the weights stayed: the gradients were not finite, or no token counted */
    int64_t step;         /**< from 1 */
    int64_t steps;        /**< planned in all, 0 if not known yet */
    int64_t tokens;       /**< trained so far, all ranks */
    double loss;          /**< cross-entropy, nats a token */
    double lm_z_loss;     /**< with its weight */
    double balance_loss;  /**< unscaled, mean over the MoE layers */
    double router_z_loss; /**< unscaled, mean over the MoE layers */
    double total_loss;
    double grad_norm; /**< before clipping */
    double lr;
    double seconds; /**< of this step */
    double tokens_per_second;
    double valid_loss;     /**< NaN when there was no validation at this step */
    double max_load;       /**< largest share of an expert over its fair share, worst layer */
    int64_t filtered_rows; /**< rows of the step that the repetition filter kept out of the loss, all ranks */
} emo_step_metrics;

/** Parts of training that take time, see emo_trainer_profile(). */
typedef int32_t emo_train_part;
enum {
    EMO_TRAIN_PART_DATA = 0,        /**< rows of the next step: reading, packing, labels */
    EMO_TRAIN_PART_EMBED = 1,       /**< token embedding */
    EMO_TRAIN_PART_NORM = 2,        /**< RMSNorm */
    EMO_TRAIN_PART_LINEAR = 3,      /**< the projections around attention */
    EMO_TRAIN_PART_ROPE = 4,        /**< rotary positions */
    EMO_TRAIN_PART_ATTENTION = 5,   /**< attention itself */
    EMO_TRAIN_PART_ROUTING = 6,     /**< router, pools, top-k, dispatch plan, balancing: what EMO adds to the experts */
    EMO_TRAIN_PART_EXPERTS = 7,     /**< expert products, with the gathering and summing of their rows */
    EMO_TRAIN_PART_DENSE = 8,       /**< dense MLPs */
    EMO_TRAIN_PART_HEAD = 9,        /**< logits and loss, with their gradient: all counted as forward */
    EMO_TRAIN_PART_OPTIMIZER = 10,  /**< gradients to zero, norm, clipping, AdamW */
    EMO_TRAIN_PART_RANKS = 11,      /**< sums over ranks, and waiting for them */
    EMO_TRAIN_PART_VALIDATION = 12, /**< loss on the validation data */
    EMO_TRAIN_PART_CHECKPOINT = 13, /**< checkpoints and the exported model */
    EMO_TRAIN_PART_OTHER = 14       /**< metrics, callbacks, bookkeeping */
};
/** "data", "embed" ...; NULL for a number that is none. Lives as long as the library. */
EMO_API const char *emo_train_part_name(emo_train_part part);

/** Time of one part in one direction, summed over the steps this trainer has made. */
typedef struct emo_train_profile_entry {
    uint32_t struct_size; /**< set by the caller */
    emo_train_part part;
    int32_t backward; /**< 1: of the backward pass */
    int32_t reserved; /**< 0 */
    uint64_t calls;   /**< how often the part was met */
    double seconds;   /**< wall time */
} emo_train_profile_entry;
#define EMO_TRAIN_PROFILE_ENTRY_INIT                                                                                   \
    { sizeof(emo_train_profile_entry), 0, 0, 0, 0, 0 }

/** Options of emo_trainer_create(). */
typedef struct emo_train_options {
    uint32_t struct_size;
    emo_schedule schedule;           /**< EMO_SCHEDULE_COSINE */
    const emo_pool_policy *pool;     /**< NULL: none, a standard MoE */
    emo_balance_scope balance_scope; /**< EMO_BALANCE_BATCH */
    int32_t balance_window;          /**< steps, for EMO_BALANCE_WINDOW; 30 */
    float balance_weight;            /**< 0.1, divided by the number of layers */
    float z_weight;                  /**< 0.001, divided by the number of layers */
    float lm_z_weight;               /**< 1e-5 */
    float lr;                        /**< peak, 4e-3 */
    float beta1;                     /**< 0.9 */
    float beta2;                     /**< 0.95 */
    float eps;                       /**< 1e-8 */
    float weight_decay;              /**< 0.1, on everything but the token embedding */
    float max_grad_norm;             /**< 1; 0: no clipping */
    float alpha_f;                   /**< final learning rate over peak, 0.1 */
    float warmup_min_lr;             /**< 0 */
    float decay_min_lr;              /**< wsd: 0 */
    int64_t warmup;                  /**< steps; -1: 5 % of the run, at most 2000 */
    int64_t decay;                   /**< wsd: steps of the final decay; -1: 10 % of the run */
    int64_t max_steps;               /**< one of max_steps, max_tokens, max_minutes is required for emo_trainer_run() */
    int64_t max_tokens;
    double max_minutes;            /**< a short calibration turns it into a number of steps, which is stored */
    int32_t batch_rows;            /**< rows a step over all ranks, 12 */
    int32_t accumulate;            /**< micro-batches a step, 1; divides batch_rows / ranks */
    int32_t seq_len;               /**< tokens a row, 256 */
    emo_train_only train_only;     /**< EMO_TRAIN_ALL */
    uint64_t seed;                 /**< order of documents, pools */
    int64_t checkpoint_every;      /**< steps; 0: only at the end */
    int32_t keep_checkpoints;      /**< 2 */
    emo_optimizer_on optimizer_on; /**< EMO_OPTIMIZER_DEVICE */
    int64_t valid_every;           /**< steps; 0: at the end only */
    const char *out;               /**< folder of the run; NULL: nothing is written */
    int32_t resume;                /**< continue from `out`; a folder without a run starts fresh */
    int32_t profile;               /**< 1: keep the time of each part for emo_trainer_profile(); 0 */
    const emo_dataset *valid;      /**< NULL: no validation */
    const emo_mask *mask;          /**< train the model restricted to these experts (see emo_mask); NULL: all */
    emo_comm *comm;                /**< NULL: a single rank */
    emo_progress progress; /**< non-zero cancels: the creation, between micro-batches, a validation, a checkpoint
                              (phase "checkpoint", tensors; the one before stays) */
    void *on_step_ctx;
    int32_t (*on_step)(void *ctx,
                       const emo_step_metrics *metrics); /**< after each step; non-zero stops with EMO_E_CANCELLED */
    emo_router_gating gating;  /**< how scores are made from logits; -1: as the model does. Else the model does so from
                                  here on, also when it is saved, loaded and run */
    float score_bias_rate;     /**< > 0: after each step, bias += rate * sign(mean(counts) - counts) over the experts of
                                  the mask; the model gets a score bias if it has none. 0: no update */
    float jitter;              /**< the router's input times uniform noise in [1 - jitter, 1 + jitter]; 0: none */
    int32_t repetition_count;  /**< a row that holds some span of up to repetition_period tokens so often in a row is
                                  left out of the loss, though its tokens count as trained; 0: no filter, else 2 or more
                                  (the reference: 32) */
    int32_t repetition_period; /**< 13 */
    emo_recompute recompute;   /**< EMO_RECOMPUTE_NONE */
    int32_t no_graph;          /**< 1: a device launches every step anew, also where it could replay a graph of it; 0 */
    int32_t reserved;          /**< 0 */
} emo_train_options;
#define EMO_TRAIN_OPTIONS_INIT                                                                                         \
    {                                                                                                                  \
        sizeof(emo_train_options), EMO_SCHEDULE_COSINE, 0, EMO_BALANCE_BATCH, 30, 0.1f, 0.001f, 1e-5f, 4e-3f, 0.9f,    \
            0.95f, 1e-8f, 0.1f, 1.0f, 0.1f, 0.0f, 0.0f, -1, -1, 0, 0, 0.0, 12, 1, 256, EMO_TRAIN_ALL, 0, 0, 2, 0, 0,   \
            0, 0, 0, 0, 0, 0, {0, 0}, 0, 0, -1, 0.0f, 0.0f, 0, 13, 0, 0, 0                                             \
    }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_train_options_init(emo_train_options *options);
#define emo_train_options_init(object) EMO_STRUCT_INIT(emo_train_options, object)

/**
 * A trainer of `model` (retained, and exclusively used until the trainer is released) on `data` (retained).
 * The weights become f32 masters. @return EMO_E_RANGE (an option, by name), EMO_E_EXISTS (a run is in `out` and resume
 * is 0), EMO_E_MISMATCH (the run in `out` was started with other options, by name), EMO_E_BUSY (another process works
 * on `out`; the lock of a process that has died does not count), EMO_E_IO (`out` cannot be written), EMO_E_CANCELLED
 * (phases "copy" and "resume"). Where it fails the model is as it was, but perhaps in f32; while a checkpoint was read
 * ("resume") its weights may be partly those of the checkpoint: create the trainer again, or load the model anew.
 */
EMO_API EMO_MUST_CHECK emo_status emo_trainer_create(emo_model *model, const emo_dataset *data,
                                                     const emo_train_options *options, emo_trainer **out,
                                                     emo_error *err);
/**
 * Trains until the end. On a device that works while the host goes on, a step is enqueued before the one ahead of it is
 * read: options.on_step hears of every step in its order, but one more may be under way, and is told of, when it asks
 * for the end. EMO_E_CANCELLED leaves everything usable: checkpoint, run again, or release. So do EMO_E_IO (a
 * full disk, say; the last checkpoint is as it was) and EMO_E_NOT_FOUND (`out` was removed, moved or replaced under the
 * run; nothing is written into what is there now): run again once the reason is gone.
 */
EMO_API EMO_MUST_CHECK emo_status emo_trainer_run(emo_trainer *trainer, emo_error *err);
/** One optimizer step. @param metrics nullable. */
EMO_API EMO_MUST_CHECK emo_status emo_trainer_step(emo_trainer *trainer, emo_step_metrics *metrics, emo_error *err);
/** Writes a checkpoint into the run folder now. The progress hook is asked (phase "checkpoint"): one that cancelled the
 * run and still says so cancels this too, with EMO_E_CANCELLED; the checkpoint before stays. */
EMO_API EMO_MUST_CHECK emo_status emo_trainer_checkpoint(emo_trainer *trainer, emo_error *err);
/** The step the trainer is at, 0 before the first. */
EMO_API int64_t emo_trainer_at(const emo_trainer *trainer);
/** The planned number of steps, 0 if not known yet. */
EMO_API int64_t emo_trainer_steps(const emo_trainer *trainer);
/** How many of the steps made so far a device replayed from graphs that it had recorded of earlier ones; 0 on the CPU,
 * with options.no_graph, and for NULL. */
EMO_API int64_t emo_trainer_replayed(const emo_trainer *trainer);
/** What planning is for; see emo_train_plan_json(). */
typedef struct emo_train_plan_options {
    uint32_t struct_size;
    emo_dtype compute;  /**< as of the model that would be trained: EMO_DTYPE_F32 or EMO_DTYPE_BF16 */
    const char *device; /**< "cuda", "cuda:1"; NULL: "cpu" */
    const char *plugin; /**< absolute path of the device's plug-in, where it is not loaded: then neither a device nor a
                           driver needs to be there; NULL: the device is loaded */
} emo_train_plan_options;
#define EMO_TRAIN_PLAN_OPTIONS_INIT                                                                                    \
    { sizeof(emo_train_plan_options), 0, 0, 0 }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_train_plan_options_init(emo_train_plan_options *options);
#define emo_train_plan_options_init(object) EMO_STRUCT_INIT(emo_train_plan_options, object)

/** The memory that training takes, in bytes: of the device, but for `pinned`. */
typedef struct emo_train_plan {
    uint32_t struct_size;
    int32_t fits;        /**< 1: there is room, 0: there is not, -1: how much is free is not known */
    int64_t parameters;  /**< of the model */
    int64_t trained;     /**< of those, the ones with gradients */
    int64_t tokens;      /**< of a micro-batch on this rank */
    int64_t weights;     /**< f32 masters, which passes compute with */
    int64_t gradients;   /**< f32 */
    int64_t moments;     /**< of AdamW: two of f32; with optimizer_on host the room for pieces of them */
    int64_t saved;       /**< activations that the forward keeps for the backward */
    int64_t activations; /**< the other arrays of a micro-batch */
    int64_t workspace;   /**< scratch, shared by all operators: what the largest of them needs */
    int64_t tables;      /**< expert tables, rotary tables, balancing counts, sums */
    int64_t total;       /**< all of the above: what a device that has this much free trains with */
    int64_t
        micro_batch;   /**< of the total, what grows with the tokens of a micro-batch: saved, activations, workspace */
    int64_t pinned;    /**< host memory for transfers, and the moments with optimizer_on host */
    int64_t available; /**< free on the device at the moment; 0: not known */
    int64_t workspaces[16]; /**< scratch by emo_train_part */
} emo_train_plan;
#define EMO_TRAIN_PLAN_INIT                                                                                            \
    {                                                                                                                  \
        sizeof(emo_train_plan), -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0 }                                    \
    }

/**
 * The memory that a trainer of a model with this config.json would take with these options, found by running the
 * trainer's own code on a device that only counts: nothing is allocated there, and the shape may be one that no machine
 * at hand could hold. Of the options, `valid`, `out` and hooks play no part; pools, masks, balancing and ranks do.
 * A trainer on a device plans so before it allocates anything, and refuses what does not fit.
 * @return EMO_E_FORMAT, EMO_E_RANGE and the like as emo_model_create_json() and emo_trainer_create(), EMO_E_NOT_FOUND
 * (no such device or plug-in), EMO_E_UNSUPPORTED (a back end that cannot plan).
 */
EMO_API EMO_MUST_CHECK emo_status emo_train_plan_json(emo_runtime *rt, const char *config, size_t length,
                                                      const emo_train_options *options,
                                                      const emo_train_plan_options *plan_options, emo_train_plan *out,
                                                      emo_error *err);

/**
 * Where the time went so far, for a trainer with options.profile: entry `index` (from 0) of those that were met, in the
 * order of emo_train_part, forward before backward. The seconds of all entries add up to the time spent in steps and
 * what follows them. A few hundred readings of the clock a step; a device is waited for at each. @param out its
 * struct_size is set. @return EMO_E_NOT_FOUND past the last entry (without options.profile there is none), EMO_E_BUSY
 * during a step (so not from its callback).
 */
EMO_API EMO_MUST_CHECK emo_status emo_trainer_profile(const emo_trainer *trainer, size_t index,
                                                      emo_train_profile_entry *out, emo_error *err);
/** The learning rate of a step (from 1) under given options with `max_steps` set: the schedules by themselves. */
EMO_API EMO_MUST_CHECK emo_status emo_schedule_lr(const emo_train_options *options, int64_t step, double *lr,
                                                  emo_error *err);
/** Ends the training; the model stays and can be used again. NULL is a no-op. */
EMO_API void emo_trainer_release(emo_trainer *trainer);

#ifdef __cplusplus
}
#endif
#endif
