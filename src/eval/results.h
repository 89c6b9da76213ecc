/* SPDX-License-Identifier: Apache-2.0 */
/* Scores from the sums of a run. */
#ifndef EMO_SRC_EVAL_RESULTS_H
#define EMO_SRC_EVAL_RESULTS_H

#include "eval/run.h"

void emo__results_score(const emo_task_results *results, size_t task, size_t column, int32_t metric,
                        emo_task_score *out);
void emo__results_group(const emo_task_results *results, size_t group, size_t column, emo_task_score *out);

#endif
