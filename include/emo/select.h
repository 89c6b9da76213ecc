/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file select.h
 * @brief Choosing an expert subset for a few documents.
 */
#ifndef EMO_SELECT_H
#define EMO_SELECT_H

#include <emo/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t emo_select_method;
enum {
    EMO_SELECT_USAGE = 0,     /**< largest mean router probability, all layers from one pass of the full model */
    EMO_SELECT_LAYERWISE = 1, /**< the same, each layer in the model whose earlier layers are already restricted */
    EMO_SELECT_EASY_EP = 2,   /**< EASY-EP: gate * output norm * how much the block turns the token */
    EMO_SELECT_RANDOM = 3     /**< the control */
};

/** Options of emo_select(). */
typedef struct emo_select_options {
    uint32_t struct_size;
    emo_select_method method;
    int32_t keep;        /**< experts kept per MoE layer, the shared ones included; required */
    int32_t keep_shared; /**< how many of them are shared: -1 all (default); fewer: the best ones (a mask cannot say
                            that: emo_select_experts() only) */
    uint64_t seed;       /**< of EMO_SELECT_RANDOM */
    int32_t seq_len;     /**< as emo_stats_options */
    int32_t prepend_eos; /**< as emo_stats_options */
    emo_progress progress;
} emo_select_options;
#define EMO_SELECT_OPTIONS_INIT                                                                                        \
    {                                                                                                                  \
        sizeof(emo_select_options), EMO_SELECT_USAGE, 0, -1, 0, 0, 1, { 0, 0 }                                         \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_select_options_init(emo_select_options *options);
#define emo_select_options_init(object) EMO_STRUCT_INIT(emo_select_options, object)

/**
 * Chooses `keep` experts per MoE layer: the best routed ones and the shared ones, ties to the lower id; always-active
 * experts are kept and count. Of a model loaded in part, among the experts that are there. The caller owns *out.
 * The layerwise method runs the calibration documents once where they fit into eight passes of some thousand tokens.
 * @param calibration one document or many; may be NULL for EMO_SELECT_RANDOM.
 * @return EMO_E_RANGE (keep above the experts or not above the shared ones; another option), EMO_E_INVALID_ARGUMENT (no
 *         tokens, a dense model, fewer shared experts than a mask must have), EMO_E_UNSUPPORTED (EASY-EP with
 *         always-active experts), EMO_E_NUMERIC (a router says what is not finite, by layer), EMO_E_CANCELLED,
 *         EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_select(emo_model *model, const emo_dataset *calibration,
                                             const emo_select_options *options, emo_mask **out, emo_error *err);

/**
 * The same choice as lists of ids for emo_prune_options, which may leave shared experts out.
 * @param ids     layer after layer, ascending; size query: capacity 0 (calibration is not looked at then).
 * @param count   the number of ids; may be NULL.
 * @param offsets [layers + 1] where each layer's ids begin and end.
 * @return as emo_select(), and EMO_E_LIMIT (capacity > 0 and too small).
 */
EMO_API EMO_MUST_CHECK emo_status emo_select_experts(emo_model *model, const emo_dataset *calibration,
                                                     const emo_select_options *options, int32_t *ids, size_t capacity,
                                                     size_t *count, int32_t *offsets, emo_error *err);

/**
 * Usage or EASY-EP selection from statistics collected before (the others need the model to run).
 * @return as emo_select(); EMO_E_MISMATCH (statistics of another shape), EMO_E_NOT_FOUND (no EASY-EP scores in them).
 */
EMO_API EMO_MUST_CHECK emo_status emo_select_from_stats(const emo_model *model, const emo_stats *stats,
                                                        const emo_select_options *options, emo_mask **out,
                                                        emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
