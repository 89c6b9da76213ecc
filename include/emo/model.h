/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model.h
 * @brief Models: create, load (all or a subset of the experts), save, prune, merge.
 *
 * A model is a decoder-only transformer: EMO, a standard mixture of experts (the same without pools) or dense.
 * Its experts are 0 .. E - 1 of each layer, the shared ones last. A pruned model has numbers of its own and remembers
 * the ids in the model it came from (emo_model_original_expert()); wherever it takes a mask, the mask may have its own
 * shape or, with the original ids, that of the model it was pruned from.
 *
 * Thread rule: calls with `const emo_model *` may run concurrently; the others need exclusive use, and a violation
 * gives EMO_E_BUSY. A model keeps its runtime, its sources and its tokenizer alive.
 */
#ifndef EMO_MODEL_H
#define EMO_MODEL_H

#include <emo/cache.h>
#include <emo/mask.h>
#include <emo/runtime.h>
#include <emo/source.h>
#include <emo/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_model emo_model;

/** Options of emo_model_create_json(). */
typedef struct emo_model_create_options {
    uint32_t struct_size;
    emo_dtype compute;     /**< as in emo_model_load_options; EMO_DTYPE_F32 */
    uint64_t seed;         /**< of the initial weights: normal, std initializer_range, cut at 3 std */
    emo_progress progress; /**< phase "initialise", tensors */
} emo_model_create_options;
#define EMO_MODEL_CREATE_OPTIONS_INIT                                                                                  \
    {                                                                                                                  \
        sizeof(emo_model_create_options), 0, 0, { 0, 0 }                                                               \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_model_create_options_init(emo_model_create_options *options);
#define emo_model_create_options_init(object) EMO_STRUCT_INIT(emo_model_create_options, object)

/** Options of the load functions. */
typedef struct emo_model_load_options {
    uint32_t struct_size;
    emo_dtype dtype;        /**< -1: keep the file's (weights stay in the mapped file where possible); else convert */
    const emo_mask *subset; /**< load subset: other experts are never read; NULL: all. Copied. The model's mask from
                               then on; shared and always-active experts are loaded in any case */
    int32_t no_map;         /**< 1: read into memory instead of using the mapped file */
    emo_dtype compute;      /**< EMO_DTYPE_F32, EMO_DTYPE_BF16: see emo_model_set_compute(); -1: BF16 when matrices stay
                               quantised (they are several times as fast in it), else F32 */
    emo_progress progress;
    const char *pruning; /**< text of a pruning_metadata.json (the original ids of a pruned model), for sources; NULL:
                            none, or the folder's */
    uint64_t memory_budget; /**< bytes for experts that not every token uses, see cache.h; 0: no budget, all of them */
    emo_cache_policy cache_policy; /**< with memory_budget; EMO_CACHE_POOL */
    int32_t no_prefetch;           /**< 1: with memory_budget, no thread that reads ahead */
    int32_t drop_source; /**< 1: with memory_budget, the system is told to forget a file's bytes once they were read, so
                            that they take no memory besides; 0: it keeps them while it has room */
    int32_t reserved;    /**< 0 */
    emo_cache_worth cache_worth; /**< with EMO_CACHE_HOST; ctx must live as long as the model */
} emo_model_load_options;
#define EMO_MODEL_LOAD_OPTIONS_INIT                                                                                    \
    {                                                                                                                  \
        sizeof(emo_model_load_options), -1, 0, 0, -1, {0, 0}, 0, 0, EMO_CACHE_POOL, 0, 0, 0, { 0, 0 }                  \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_model_load_options_init(emo_model_load_options *options);
#define emo_model_load_options_init(object) EMO_STRUCT_INIT(emo_model_load_options, object)

/** Options of emo_model_save(). */
typedef struct emo_model_save_options {
    uint32_t struct_size;
    emo_dtype dtype;      /**< -1: as held; F32, BF16 or F16 */
    uint64_t shard_bytes; /**< largest shard; 0: 5 GB */
    emo_progress progress;
    int32_t extended; /**< 1: also what the reference's configuration has no key for (sigmoid gating, a score bias),
                         under a model_type that its code does not take for its own; 0: such models are refused */
    int32_t reserved; /**< 0 */
} emo_model_save_options;
#define EMO_MODEL_SAVE_OPTIONS_INIT                                                                                    \
    { sizeof(emo_model_save_options), -1, 0, {0, 0}, 0, 0 }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_model_save_options_init(emo_model_save_options *options);
#define emo_model_save_options_init(object) EMO_STRUCT_INIT(emo_model_save_options, object)

/** What a model is. Filled by emo_model_get_info(); the caller sets struct_size (use the INIT macro). */
typedef struct emo_model_info {
    uint32_t struct_size;
    int32_t layers;
    int32_t hidden;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_dim;
    int32_t vocab;
    int32_t expert_inner; /**< intermediate size of one expert */
    int32_t top_k;        /**< experts per token, the shared ones included */
    int32_t max_positions;
    int32_t eos;        /**< -1: none */
    emo_dtype dtype;    /**< of the matrices as held */
    int64_t parameters; /**< of the whole model */
    int64_t loaded;     /**< parameters in memory or mapped (smaller with a load subset) */
    int64_t active;     /**< parameters used per token */
    int64_t non_finite; /**< loaded weights that are NaN or infinite; counted only when the caller sets it to non-zero
                           (every weight is read then), else 0. Such weights are accepted. */
    int64_t embedding;  /**< parameters of the token embedding and the head, which `parameters` and `active` contain */
    emo_progress progress; /**< set by the caller, and left as it was: phase "count" (parameters) while non-finite
                              weights are counted, which a hook can end */
} emo_model_info;
#define EMO_MODEL_INFO_INIT                                                                                            \
    {                                                                                                                  \
        sizeof(emo_model_info), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0, 0 }                               \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_model_info_init(emo_model_info *info);
#define emo_model_info_init(object) EMO_STRUCT_INIT(emo_model_info, object)

/**
 * A new model with random weights from the text of a config.json (the reference's keys; missing ones take the
 * reference's defaults). The caller owns *out.
 * @return EMO_E_FORMAT (no JSON, or a wrong type), EMO_E_RANGE (an impossible shape, by key), EMO_E_UNSUPPORTED
 *         (rope_scaling, an activation other than silu ...), EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_create_json(emo_runtime *rt, const char *config, size_t length,
                                                        const emo_model_create_options *options, emo_model **out,
                                                        emo_error *err);

/**
 * Loads a GGUF file (see emo/export.h), or a folder: config.json, model.safetensors or its shards, and where they are
 * there pruning_metadata.json (the original ids of a pruned model) and tokenizer.json (one of an unsupported kind is
 * passed over with a warning). Files are mapped, and a tensor is used where it lies if its element type is kept; the
 * files must not change while the model lives. Tensors that the model has no place for are named in warnings.
 * @return EMO_E_NOT_FOUND (no such folder or file, or a missing tensor, by name), EMO_E_MISMATCH (a tensor of another
 *         shape, with both shapes; a mask or tokenizer that does not fit), EMO_E_FORMAT, EMO_E_UNSUPPORTED (an element
 *         type), EMO_E_RANGE (an option, a key of config.json), EMO_E_IO, EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY.
 *         The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_load_path(emo_runtime *rt, const char *folder,
                                                      const emo_model_load_options *options, emo_model **out,
                                                      emo_error *err);

/**
 * Loads from sources: the text of config.json, and the safetensors files in any order (retained). Of each file the
 * header is read, then only the tensors that are wanted; the first file that has a tensor gives it. The model is bit
 * for bit that of the folder, but for the tokenizer (emo_model_set_tokenizer()) and the ids of a pruned model (option
 * `pruning`). With `config` NULL the one source must be a GGUF file, which says all of it. Errors as above.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_load_sources(emo_runtime *rt, const char *config, size_t config_length,
                                                         emo_source *const *weights, size_t n_weights,
                                                         const emo_model_load_options *options, emo_model **out,
                                                         emo_error *err);

/** Releases the caller's reference; NULL is a no-op. */
EMO_API void emo_model_release(emo_model *model);

/**
 * Moves the weights to a device: "cpu", or one that a plug-in brought (emo/device.h), "cuda" its first, "cuda:1" its
 * second. Sessions, trainers, evaluations and statistics made of the model from then on run there. Only what is loaded
 * goes: of a model loaded with a mask, the mask's experts; with a memory budget experts go when they are used
 * (cache.h). Saving works from anywhere; merging and exporting need "cpu". On a failure the model is as it was.
 * @return EMO_E_NOT_FOUND (no such device; the message names those that are there), EMO_E_BUSY (a session or trainer
 * holds the model), EMO_E_UNSUPPORTED (weights of a type that the device does not compute with, or a memory budget that
 * it cannot keep), EMO_E_OUT_OF_MEMORY, EMO_E_BACKEND. One thread at a time.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_to_device(emo_model *model, const char *device, emo_error *err);

/** Fills in *info up to its struct_size. */
EMO_API EMO_MUST_CHECK emo_status emo_model_get_info(const emo_model *model, emo_model_info *info, emo_error *err);

/** The same for the text of a config.json alone: what a model of that shape would be, without making it. `loaded` is 0.
 * @return as emo_model_create_json(). */
EMO_API EMO_MUST_CHECK emo_status emo_model_info_json(emo_runtime *rt, const char *config, size_t length,
                                                      emo_model_info *info, emo_error *err);

/** What the expert cache did, up to the struct's size; all zero for a model that was loaded without a memory budget.
 *  Also while sessions run. */
EMO_API EMO_MUST_CHECK emo_status emo_model_get_cache_stats(const emo_model *model, emo_cache_stats *stats,
                                                            emo_error *err);

/** Experts of a layer, shared ones included; 0: a dense layer; -1: no such layer. */
EMO_API int32_t emo_model_experts(const emo_model *model, int32_t layer);
/** How many of them are shared; -1: no such layer. */
EMO_API int32_t emo_model_shared(const emo_model *model, int32_t layer);
/** The id an expert had in the model this one was pruned from, through all prunings; its own id when there was none; -1
 *  outside. */
EMO_API int32_t emo_model_original_expert(const emo_model *model, int32_t layer, int32_t expert);

/** The config.json the model would be saved with. Size query: capacity 0; *size excludes the final NUL. EMO_E_LIMIT
 *  when the text and its NUL do not fit; nothing is written then. */
EMO_API EMO_MUST_CHECK emo_status emo_model_config_json(const emo_model *model, char *buffer, size_t capacity,
                                                        size_t *size, emo_error *err);

/** The tokenizer found beside the model or attached, or NULL. Borrowed: valid until another is attached or the model
 *  goes; release nothing. */
EMO_API const emo_tokenizer *emo_model_tokenizer(const emo_model *model);
/** Attaches a tokenizer (retained) in place of the one before; NULL: none. EMO_E_MISMATCH when its ids do not fit the
 *  vocabulary. */
EMO_API EMO_MUST_CHECK emo_status emo_model_set_tokenizer(emo_model *model, emo_tokenizer *tokenizer, emo_error *err);

/**
 * What the products of this model's matrices are computed in. Pruned and merged models take it over; it is not saved.
 * F32 (the default) is exact as the reference is in f32. With BF16 both operands of a product are rounded to bf16 and
 * summed in f32; the router's logits and all that is made of them, attention scores, norms, losses and the optimizer
 * stay in f32 (on AMX the backward of attention makes its scores again from operands of 16 bits), and so do weights,
 * gradients and moments: faster where the processor multiplies bf16 (AMX), about as fast elsewhere, and a little less
 * exact. Quantised matrices become floats in F32; in BF16 they stay whole numbers and meet activations rounded to
 * blocks of 32 signed bytes (not on the scalar level). Single, batched, masked and resumed runs agree bit for bit in
 * either.
 * @return EMO_E_UNSUPPORTED (another type, or one that the model's device does not compute in), EMO_E_BUSY (a session
 * or a trainer works on the model).
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_set_compute(emo_model *model, emo_dtype compute, emo_error *err);
/** The same, asked; EMO_DTYPE_F32 for NULL. */
EMO_API emo_dtype emo_model_compute(const emo_model *model);

/** A mask with every expert of this model on. With a load subset: that subset. The caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_model_mask(const emo_model *model, emo_mask **out, emo_error *err);

/** A copy of one tensor as f32, row-major; *count is its number of elements (size query: capacity 0). Names are the
 *  reference's, such as "model.layers.0.mlp.gate.weight"; with tied embeddings there is no "lm_head.weight".
 * @return EMO_E_NOT_FOUND (no such tensor, or an expert that was not loaded), EMO_E_LIMIT (too small a buffer). */
EMO_API EMO_MUST_CHECK emo_status emo_model_tensor_f32(const emo_model *model, const char *name, float *out,
                                                       size_t capacity, size_t *count, emo_error *err);

/**
 * Writes model.safetensors (or shards with an index), generation_config.json, tokenizer.json if one is attached,
 * pruning_metadata.json for a pruned model (else one that is there is removed) and at last config.json into `folder`
 * (created), each file atomically. Tensors are in the byte order of their names.
 * @return EMO_E_INVALID_ARGUMENT for a model of which only some experts were loaded (emo_model_prune() it to its mask
 *         first), EMO_E_UNSUPPORTED (see emo_model_save_options.extended), EMO_E_IO, EMO_E_RANGE (an option),
 *         EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_save(const emo_model *model, const char *folder,
                                                 const emo_model_save_options *options, emo_error *err);

/** Options of emo_model_prune(). */
typedef struct emo_prune_options {
    uint32_t struct_size;
    int32_t reserved;            /**< 0 */
    const char *method;          /**< recorded in pruning_metadata.json; NULL: "mask" */
    const int32_t *keep;         /**< instead of a mask (then NULL): ids to keep, layer after layer; unlike a mask they
                                    may leave shared experts out (then more routed ones are used per token) */
    const int32_t *keep_offsets; /**< [layers + 1] into keep; an empty range for a dense layer */
    emo_progress progress;       /**< phase "copy", units are tensors */
} emo_prune_options;
#define EMO_PRUNE_OPTIONS_INIT                                                                                         \
    {                                                                                                                  \
        sizeof(emo_prune_options), 0, 0, 0, 0, { 0, 0 }                                                                \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_prune_options_init(emo_prune_options *options);
#define emo_prune_options_init(object) EMO_STRUCT_INIT(emo_prune_options, object)

/**
 * A smaller model with the mask's experts only, renumbered in ascending order (routed first, shared last) per layer;
 * it remembers the original ids (pruning_metadata.json when saved). top_k becomes min(top_k, kept in any MoE layer).
 * It has its own memory, in the types the weights are held in, and the same tokenizer.
 * @return EMO_E_MISMATCH (a mask of another shape, or with an expert that was not loaded), EMO_E_INVALID_ARGUMENT (a
 *         layer without routed expert, or without an always-active one), EMO_E_RANGE (keep), EMO_E_CANCELLED,
 *         EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_prune(const emo_model *model, const emo_mask *mask,
                                                  const emo_prune_options *options, emo_model **out, emo_error *err);

/** Options of emo_model_merge(): what a tuned subset gives back to its parent. */
typedef struct emo_merge_options {
    uint32_t struct_size;
    int32_t router; /**< also the gate rows of all kept experts */
    int32_t shared; /**< also the shared experts */
    int32_t rest;   /**< also every tensor outside the MoE blocks */
    float average;  /**< weight a of the child: parent = (1 - a) parent + a child, in [0, 1]; 1 replaces (default) */
    int32_t reserved;
    emo_progress progress; /**< phases "copy" (tensors) and "merge" (layers) */
} emo_merge_options;
#define EMO_MERGE_OPTIONS_INIT                                                                                         \
    {                                                                                                                  \
        sizeof(emo_merge_options), 0, 0, 0, 1.0f, 0, { 0, 0 }                                                          \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_merge_options_init(emo_merge_options *options);
#define emo_merge_options_init(object) EMO_STRUCT_INIT(emo_merge_options, object)

/**
 * Puts the routed experts of a pruned (and tuned) child back to their original ids in a copy of the parent, in the
 * types the parent is held in.
 * @return EMO_E_MISMATCH naming the first thing that does not fit, EMO_E_INVALID_ARGUMENT (one of them is loaded in
 *         part), EMO_E_RANGE (average), EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_merge(const emo_model *parent, const emo_model *child,
                                                  const emo_merge_options *options, emo_model **out, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
