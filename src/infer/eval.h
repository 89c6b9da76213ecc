/* SPDX-License-Identifier: Apache-2.0 */
/* Losses of many sequences, windows packed into passes. */
#ifndef EMO_SRC_INFER_EVAL_H
#define EMO_SRC_INFER_EVAL_H

#include <emo/eval.h>

#include "model/windows.h"

/* Sums of one owner (document or choice). */
typedef struct emo__score {
    double loss; /* nats */
    int64_t tokens;
} emo__score;

/* The window length that the options ask for. EMO_E_RANGE. */
EMO_MUST_CHECK emo_status emo__eval_seq_len(const emo_model *model, const emo_eval_options *options, int64_t *seq_len,
                                            emo_error *err);
/* Options are copied over the defaults and checked. */
EMO_MUST_CHECK emo_status emo__eval_check(const emo_eval_options *options, emo_error *err);

/* Packs the windows, runs them and adds every labelled token's loss to its owner's score. */
EMO_MUST_CHECK emo_status emo__eval_windows(emo_model *model, emo__windows *w, const emo_eval_options *options,
                                            emo__score *scores, emo_error *err);
EMO_MUST_CHECK emo_status emo__eval_logits(emo_model *model, const int32_t *tokens, size_t n,
                                           const emo_eval_options *options, float *out, emo_error *err);

EMO_MUST_CHECK emo_status emo__eval_documents(emo_model *model, const emo_dataset *documents,
                                              const emo_eval_options *options, emo_eval_result *total,
                                              emo_eval_result *per_domain, emo_eval_result *per_document,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__eval_choices(emo_model *model, const emo_choices *items, const emo_eval_options *options,
                                            emo_eval_result *total, int32_t *answers, emo_error *err);

#endif
