/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mask.h
 * @brief Expert masks: which experts of each layer may be used.
 *
 * A mask is a set of expert ids per layer, with the ids of the original model. It restricts the router at run time
 * (*mask*), says which experts are read from disk (*load subset*), and which remain in a smaller checkpoint (*pruned
 * model*). Three kinds of experts of a layer with E experts: the routed ones 0 .. E - H - 1, which a mask turns on and
 * off; the H shared ones, the last ids; and always-active ones. Shared and always-active experts are members of every
 * mask and cannot be switched off.
 *
 * Thread rule: calls that take `const emo_mask *` may run concurrently; emo_mask_set() needs exclusive use, and a
 * violation gives EMO_E_BUSY.
 */
#ifndef EMO_MASK_H
#define EMO_MASK_H

#include <emo/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * A set of experts for every layer. A mask that leaves fewer routed experts in a layer than a token chooses reduces
 * top-k there to what is left, down to the shared experts alone. Sessions, evaluations, trainers and the router alone
 * say so with a warning to the log hook, a pruned model in its emo_model_info.top_k.
 */
typedef struct emo_mask emo_mask;

/** Shape and start value of a mask with always-active experts; see emo_mask_create_with(). */
typedef struct emo_mask_options {
    uint32_t struct_size;
    int32_t layers;                /**< number of layers, 1 to 65536, dense ones included */
    const int32_t *experts;        /**< [layers] experts, shared ones included; 0: a dense layer; at most 1048576 */
    const int32_t *shared;         /**< [layers] shared experts, at most `experts`; NULL: none */
    const int32_t *always_offsets; /**< [layers + 1] ascending from 0, into `always`; NULL: no always-active experts */
    const int32_t *always;         /**< ids of always-active experts, layer after layer */
    int32_t full;                  /**< non-zero: start with every expert on; 0: only shared and always-active ones */
    int32_t reserved;              /**< 0 */
} emo_mask_options;

#define EMO_MASK_OPTIONS_INIT                                                                                          \
    { sizeof(emo_mask_options), 0, 0, 0, 0, 0, 0, 0 }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_mask_options_init(emo_mask_options *options);
#define emo_mask_options_init(object) EMO_STRUCT_INIT(emo_mask_options, object)

/**
 * Creates a mask.
 * @param experts [layers] experts per layer, shared ones included; 0 for a dense layer.
 * @param shared [layers] shared experts per layer; NULL: none.
 * @param full non-zero: every expert on; 0: only the shared ones.
 * @param out the mask; the caller owns it and releases it with emo_mask_release().
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT, EMO_E_RANGE, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_mask_create(emo_runtime *runtime, int32_t layers, const int32_t *experts,
                                                  const int32_t *shared, int32_t full, emo_mask **out, emo_error *err);

/** As emo_mask_create(), with always-active experts. `options` may not be NULL: a mask has no default shape. */
EMO_API EMO_MUST_CHECK emo_status emo_mask_create_with(emo_runtime *runtime, const emo_mask_options *options,
                                                       emo_mask **out, emo_error *err);

/** An independent copy. */
EMO_API EMO_MUST_CHECK emo_status emo_mask_clone(const emo_mask *mask, emo_mask **out, emo_error *err);

/** Releases the caller's reference. NULL is a no-op. */
EMO_API void emo_mask_release(emo_mask *mask);

/** Number of layers; 0 for NULL. */
EMO_API int32_t emo_mask_layers(const emo_mask *mask);

/** Experts of a layer, shared ones included; 0 for a dense layer, a layer out of range or NULL. */
EMO_API int32_t emo_mask_experts(const emo_mask *mask, int32_t layer);

/** Shared experts of a layer (its last ids); 0 as above. */
EMO_API int32_t emo_mask_shared(const emo_mask *mask, int32_t layer);

/** 1 when the expert is in the mask, 0 when not or out of range. */
EMO_API int32_t emo_mask_get(const emo_mask *mask, int32_t layer, int32_t expert);

/** 1 when the expert stays in every mask of this shape (shared or always-active), else 0. */
EMO_API int32_t emo_mask_is_always(const emo_mask *mask, int32_t layer, int32_t expert);

/**
 * Switches an expert on (non-zero) or off (0).
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT (no such layer or expert, or switching off a shared or always-active one),
 *         EMO_E_BUSY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_mask_set(emo_mask *mask, int32_t layer, int32_t expert, int32_t on,
                                               emo_error *err);

/** Kept experts of a layer, shared ones included; 0 for a dense layer, a layer out of range or NULL. */
EMO_API int32_t emo_mask_count(const emo_mask *mask, int32_t layer);

/**
 * The kept ids of a layer, ascending, shared ones included.
 * @param ids [capacity] may be NULL when capacity is 0 (to ask for the count).
 * @param count the number of kept ids, also when they do not fit.
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT, EMO_E_LIMIT (capacity > 0 and too small; nothing is written to ids).
 */
EMO_API EMO_MUST_CHECK emo_status emo_mask_list(const emo_mask *mask, int32_t layer, int32_t *ids, int32_t capacity,
                                                int32_t *count, emo_error *err);

/**
 * Set algebra, layer by layer, into a new mask. Both masks need the same layers, experts and shared experts, else
 * EMO_E_MISMATCH. Always-active experts of either stay in a union and an intersection, those of `a` in a difference
 * and a complement; shared experts always stay.
 */
EMO_API EMO_MUST_CHECK emo_status emo_mask_union(const emo_mask *a, const emo_mask *b, emo_mask **out, emo_error *err);
/** What both keep; as emo_mask_union(). */
EMO_API EMO_MUST_CHECK emo_status emo_mask_intersect(const emo_mask *a, const emo_mask *b, emo_mask **out,
                                                     emo_error *err);
/** What `a` keeps and `b` does not; as emo_mask_union(). */
EMO_API EMO_MUST_CHECK emo_status emo_mask_subtract(const emo_mask *a, const emo_mask *b, emo_mask **out,
                                                    emo_error *err);
/** What `a` does not keep; as emo_mask_union(). */
EMO_API EMO_MUST_CHECK emo_status emo_mask_complement(const emo_mask *a, emo_mask **out, emo_error *err);

/** 1 when both have the same shape and keep the same experts; two NULLs are equal. */
EMO_API int32_t emo_mask_equal(const emo_mask *a, const emo_mask *b);

/**
 * Reads a mask from JSON text:
 * `{"format":"emo-mask","version":1,"layers":[{"experts":33,"shared":1,"keep":[0,5,32]},...]}`
 * A layer may have `"always":[ids]`; a dense layer has `"experts":0`. Shared and always-active experts are kept whether
 * listed or not. Unknown keys are ignored.
 * @return EMO_OK, EMO_E_FORMAT (the message says where), EMO_E_UNSUPPORTED (a later version), EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_mask_from_json(emo_runtime *runtime, const char *text, size_t length,
                                                     emo_mask **out, emo_error *err);

/**
 * Writes the JSON, with ids ascending and a final NUL.
 * @param buffer may be NULL when capacity is 0.
 * @param size bytes needed, the NUL included, also when they do not fit.
 * @return EMO_OK, EMO_E_LIMIT (capacity > 0 and too small).
 */
EMO_API EMO_MUST_CHECK emo_status emo_mask_to_json(const emo_mask *mask, char *buffer, size_t capacity, size_t *size,
                                                   emo_error *err);

/** emo_mask_from_json() on a file; also EMO_E_NOT_FOUND, EMO_E_IO, EMO_E_LIMIT (over 256 MiB). */
EMO_API EMO_MUST_CHECK emo_status emo_mask_load(emo_runtime *runtime, const char *path, emo_mask **out, emo_error *err);

/** Writes the JSON to a file, replacing it in one step. EMO_E_IO. */
EMO_API EMO_MUST_CHECK emo_status emo_mask_save(const emo_mask *mask, const char *path, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
