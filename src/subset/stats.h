/* SPDX-License-Identifier: Apache-2.0 */
/* Router statistics: sums over calibration tokens. */
#ifndef EMO_SRC_SUBSET_STATS_H
#define EMO_SRC_SUBSET_STATS_H

#include <emo/stats.h>

#include "base/runtime.h"
#include "model/windows.h"

#define EMO__CALIBRATION_TOKENS 4096 /* of one pass */

struct emo_stats {
    emo__ref ref;
    emo_runtime *rt;
    int32_t layers;
    int32_t *experts; /* [layers] */
    size_t *offset;   /* [layers + 1] into the sums */
    int64_t tokens;
    double *probs; /* sums over tokens */
    double *easy;  /* EASY-EP sums, or NULL */
};

EMO_MUST_CHECK emo_status emo__stats_new(emo_runtime *rt, int32_t layers, const int32_t *experts, bool easy,
                                         emo_stats **out, emo_error *err);
/* Zeroed statistics of the model's shape. */
EMO_MUST_CHECK emo_status emo__stats_for(const emo_model *model, bool easy, emo_stats **out, emo_error *err);

/* What emo_stats_options and emo_select_options share. */
typedef struct emo__calibration {
    int32_t seq_len; /* 0: max_positions */
    int32_t prepend_eos;
    const emo_progress *progress;
} emo__calibration;

/* Cuts and packs calibration documents. EMO_E_INVALID_ARGUMENT when there is no token, EMO_E_RANGE for seq_len. */
EMO_MUST_CHECK emo_status emo__calibration_windows(const emo_model *model, const emo_dataset *documents,
                                                   const emo__calibration *how, emo__windows *out, emo_error *err);

/* A pass over such windows that keeps what statistics need. */
EMO_MUST_CHECK emo_status emo__calibration_pass(emo_model *model, const emo__windows *w, bool easy, emo__pass **out,
                                                emo_error *err);

/* Adds the router probabilities of a layer: softmax over the allowed routed experts (as the run had it), a softmax of
 * their own over the shared ones. The pass stands right before EMO__STAGE_EXPERTS of the layer. sums [E]. scratch
 * [tokens * E]. */
EMO_MUST_CHECK emo_status emo__stats_add_probs(emo__pass *pass, int32_t layer, int64_t tokens, double *sums,
                                               float *scratch, emo_error *err);
/* Floats of scratch that emo__stats_add_probs needs. */
size_t emo__stats_scratch(const emo_model *model, int64_t tokens);

/* Runs all windows and adds to `stats`. only_layer >= 0: nothing else, and nothing after it. allowed may be NULL. */
EMO_MUST_CHECK emo_status emo__stats_collect(emo_model *model, const emo__windows *w, const emo__allowed *allowed,
                                             int32_t only_layer, emo_stats *stats, const emo_progress *progress,
                                             emo_error *err);

#endif
