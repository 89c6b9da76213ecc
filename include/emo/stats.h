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
    const emo_mask *mask; /**< run-time restriction; NULL: none (with a load subset: that) */
    int32_t seq_len;      /**< window of tokens a document is cut into; 0: whole documents up to max_positions */
    int32_t prepend_eos;  /**< 1: each document begins with eos, as in training rows (default) */
    emo_progress progress;
} emo_stats_options;
#define EMO_STATS_OPTIONS_INIT                                                                                         \
    {                                                                                                                  \
        sizeof(emo_stats_options), 0, 0, 0, 1, { 0, 0 }                                                                \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_stats_options_init(emo_stats_options *options);
#define emo_stats_options_init(object) EMO_STRUCT_INIT(emo_stats_options, object)

/**
 * Runs the documents through the model and sums over all tokens what the router of every layer gives its experts: the
 * softmax over the routed experts (those of the mask), and a softmax of their own over the shared ones. Sums are kept
 * in double and do not depend on the number of threads. With easy_ep also the EASY-EP score, the sum over the tokens
 * routed to an expert of weight * |its output| * max(0, 1 - cos(x, x + y)), x the normed input and y the output of the
 * block.
 * @return EMO_E_INVALID_ARGUMENT (no tokens), EMO_E_RANGE (an option, a token id), EMO_E_UNSUPPORTED (EASY-EP with
 *         always-active experts), EMO_E_MISMATCH (the mask), EMO_E_NUMERIC (a router says what is not finite, by
 * layer), EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_stats_collect(emo_model *model, const emo_dataset *documents,
                                                    const emo_stats_options *options, emo_stats **out, emo_error *err);
/** Releases the caller's reference; NULL is a no-op. */
EMO_API void emo_stats_release(emo_stats *stats);
/** Tokens the sums are over, end-of-text tokens included; 0 for NULL. */
EMO_API int64_t emo_stats_tokens(const emo_stats *stats);
/** Layers, dense ones included; 0 for NULL. */
EMO_API int32_t emo_stats_layers(const emo_stats *stats);

/** Mean router probability of each expert of a layer [experts]; *count = number of experts (size query: capacity 0). */
EMO_API EMO_MUST_CHECK emo_status emo_stats_probs(const emo_stats *stats, int32_t layer, double *out, size_t capacity,
                                                  size_t *count, emo_error *err);
/** EASY-EP score of each expert of a layer; EMO_E_NOT_FOUND when they were not collected. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_easy_ep(const emo_stats *stats, int32_t layer, double *out, size_t capacity,
                                                    size_t *count, emo_error *err);
/** The statistics of both sets of documents together. EMO_E_MISMATCH: other shapes, or EASY-EP scores in one only. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_merge(const emo_stats *a, const emo_stats *b, emo_stats **out,
                                                  emo_error *err);
/** Writes JSON, replacing the file in one step. EMO_E_IO. */
EMO_API EMO_MUST_CHECK emo_status emo_stats_save(const emo_stats *stats, const char *path, emo_error *err);
/** Reads it. EMO_E_NOT_FOUND, EMO_E_FORMAT (the message says where), EMO_E_UNSUPPORTED (a later version). */
EMO_API EMO_MUST_CHECK emo_status emo_stats_load(emo_runtime *rt, const char *path, emo_stats **out, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
