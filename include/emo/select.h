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
    int32_t keep_shared; /**< how many of them are shared: -1 all (default); fewer: the best ones (prune only) */
    uint64_t seed;       /**< of EMO_SELECT_RANDOM */
    int32_t seq_len;     /**< as emo_stats_options */
    int32_t prepend_eos; /**< as emo_stats_options */
    emo_progress progress;
} emo_select_options;
#define EMO_SELECT_OPTIONS_INIT                                                                                        \
    {                                                                                                                  \
        (uint32_t)sizeof(emo_select_options), EMO_SELECT_USAGE, 0, -1, 0, 0, 1, { 0, 0 }                               \
    }

/**
 * Chooses `keep` experts per MoE layer. The caller owns *out.
 * @param calibration one document or many; may be NULL for EMO_SELECT_RANDOM.
 * @return EMO_E_RANGE (keep above the experts or not above the shared ones), EMO_E_INVALID_ARGUMENT (no tokens).
 */
EMO_API EMO_MUST_CHECK emo_status emo_select(emo_model *model, const emo_dataset *calibration,
                                             const emo_select_options *options, emo_mask **out, emo_error *err);

/** Usage or EASY-EP selection from statistics collected before (the layerwise method needs the model). */
EMO_API EMO_MUST_CHECK emo_status emo_select_from_stats(const emo_model *model, const emo_stats *stats,
                                                        const emo_select_options *options, emo_mask **out,
                                                        emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
