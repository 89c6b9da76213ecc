/* SPDX-License-Identifier: Apache-2.0 */
/* Weights that are no numbers. */
#ifndef EMO_SRC_MODEL_FINITE_H
#define EMO_SRC_MODEL_FINITE_H

#include "model/model.h"

/* How many loaded weights are NaN or infinite. Reads every weight; progress (nullable): phase "count", parameters. */
EMO_MUST_CHECK emo_status emo__model_non_finite(const emo_model *model, const emo_progress *progress, int64_t *count,
                                                emo_error *err);

#endif
