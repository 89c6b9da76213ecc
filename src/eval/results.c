/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/results.h"

#include <math.h>

/* Mean and its standard error from sums over n values. */
static void mean_of(double sum, double square, int64_t n, emo_task_score *out) {
    double count = (double)n;
    out->value = n > 0 ? sum / count : 0.0;
    double variance = n > 1 ? (square - sum * out->value) / (count - 1.0) : 0.0;
    out->error = n > 1 && variance > 0.0 ? sqrt(variance / count) : 0.0;
}

void emo__results_score(const emo_task_results *results, size_t task, size_t column, int32_t metric,
                        emo_task_score *out) {
    const emo__cell *cell = emo__results_cell(results, task, column);
    double tokens = (double)(cell->n_tokens > 0 ? cell->n_tokens : 1);
    double bytes = (double)(cell->n_bytes > 0 ? cell->n_bytes : 1);
    *out = (emo_task_score){0.0, 0.0, cell->n_items, cell->n_truncated};
    switch (results->set->tasks[task].spec->metrics[metric]) {
    case EMO__METRIC_BITS:
        out->value = cell->loss / log(2.0) / bytes;
        break;
    case EMO__METRIC_LOSS:
        out->value = cell->loss / tokens;
        break;
    case EMO__METRIC_PERPLEXITY:
        out->value = exp(cell->loss / tokens);
        break;
    default:
        mean_of(cell->sum[metric], cell->square[metric], cell->n_items, out);
        break;
    }
}

/* A group has only groups above it as members, so this ends. Files nest them a level or two; each level is a group of
 * its own name, so the depth is at most the number of groups in the file. */
void emo__results_group(const emo_task_results *results, size_t group, size_t column, emo_task_score *out) {
    const emo__group *g = &results->set->groups[group];
    double weights = 0.0;
    double square = 0.0;
    *out = (emo_task_score){0};
    for (size_t i = 0; i < g->count; i++) {
        emo_task_score one;
        if (g->members[i] < 0)
            emo__results_group(results, (size_t)(-1 - g->members[i]), column, &one);
        else
            emo__results_score(results, (size_t)g->members[i], column, 0, &one);
        double weight = g->by_items ? (double)one.items : 1.0;
        out->value += weight * one.value;
        square += weight * weight * one.error * one.error;
        weights += weight;
        out->items += one.items;
        out->truncated += one.truncated;
    }
    out->value /= weights > 0.0 ? weights : 1.0;
    out->error = weights > 0.0 ? sqrt(square) / weights : 0.0;
}
