/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file stats.h
 * @brief Router statistics over calibration documents: usage, and EASY-EP scores. Can be saved and merged.
 */
#ifndef EMO_STATS_H
#define EMO_STATS_H

#include <emo/data.h>
#include <emo/model.h>
#include <emo/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_stats emo_stats;

/** Options of emo_stats_collect(). */
typedef struct emo_stats_options {
    uint32_t struct_size;
    int32_t easy_ep;      /**< also collect EASY-EP scores (refused with always-active experts) */
    const emo_mask *mask; /**< NULL: all experts */
    int32_t seq_len;      /**< window of tokens a document is cut into; 0: whole documents up to max_positions */
    int32_t prepend_eos;  /**< 1: each document begins with eos, as in training rows (default) */
    emo_progress progress;
} emo_stats_options;
#define EMO_STATS_OPTIONS_INIT                                                                                         \
    {                                                                                                                  \
        (uint32_t)sizeof(emo_stats_options), 0, 0, 0, 1, { 0, 0 }                                                      \
    }

/** Runs the documents through the model and sums the router probabilities of every layer. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_collect(emo_model *model, const emo_dataset *documents,
                                                    const emo_stats_options *options, emo_stats **out, emo_error *err);
EMO_API void emo_stats_release(emo_stats *stats);
EMO_API int64_t emo_stats_tokens(const emo_stats *stats);
EMO_API int32_t emo_stats_layers(const emo_stats *stats);

/** Mean router probability of each expert of a layer [experts]; *count = number of experts (size query: capacity 0). */
EMO_API EMO_MUST_CHECK emo_status emo_stats_probs(const emo_stats *stats, int32_t layer, double *out, size_t capacity,
                                                  size_t *count, emo_error *err);
/** EASY-EP score of each expert of a layer; EMO_E_NOT_FOUND when they were not collected. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_easy_ep(const emo_stats *stats, int32_t layer, double *out, size_t capacity,
                                                    size_t *count, emo_error *err);
/** a + b, by tokens. EMO_E_MISMATCH for different shapes. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_merge(const emo_stats *a, const emo_stats *b, emo_stats **out,
                                                  emo_error *err);
/** JSON in and out. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_save(const emo_stats *stats, const char *path, emo_error *err);
EMO_API EMO_MUST_CHECK emo_status emo_stats_load(emo_runtime *rt, const char *path, emo_stats **out, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
