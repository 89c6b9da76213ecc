/* SPDX-License-Identifier: Apache-2.0 */
/* Texts, in disjoint windows. */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "eval/run.h"
#include "infer/eval.h"

#define CHUNK 64 /* items whose tokens are held at once */

static emo_status add_windows(const emo__task_run *run, const emo__task *task, size_t index, emo__pair *pair,
                              int64_t owner, emo__windows *w, emo_error *err) {
    const emo__task_item *item = emo__task_item_at(task, index);
    emo__buf prompt;
    emo__buf_init(&prompt, &run->model->rt->mem);
    emo_status status = emo__task_prompt(task, item, index, 0, &prompt, err);
    if (status == EMO_OK)
        status = emo__pair_make(run, task->spec, prompt.data, item->continuations[0], pair, err);
    emo__buf_free(&prompt);
    if (status != EMO_OK || pair->count < 2)
        return status;
    emo__sequence sequence = {pair->tokens, (int64_t)pair->count, -1, (int64_t)pair->from, owner, true};
    return emo__windows_add(w, &sequence, run->seq_len, err);
}

static emo_status run_chunk(emo__task_run *run, const emo__task *task, const emo_mask *mask, size_t first, size_t n,
                            emo__cell *cell, emo_error *err) {
    emo__pair pairs[CHUNK];
    emo__score scores[CHUNK];
    emo__windows w;
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    memset(pairs, 0, sizeof pairs);
    memset(scores, 0, sizeof scores);
    o.mask = mask;
    o.batch_tokens = run->options->batch_tokens;
    o.progress = run->inner;
    emo__windows_init(&w, &run->model->rt->mem);
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < n; i++)
        status = add_windows(run, task, first + i, &pairs[i], (int64_t)i, &w, err);
    if (status == EMO_OK)
        status = emo__eval_windows(run->model, &w, &o, scores, err);
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        emo__item_result *result = &cell->items[first + i];
        if (!isfinite(scores[i].loss))
            status = emo__fail(err, EMO_E_NUMERIC, "a loss is not finite: the model's weights may be damaged");
        result->loss = scores[i].loss;
        result->tokens = scores[i].tokens;
        cell->logprobs[result->at] = -scores[i].loss;
        cell->tokens[result->at] = (int32_t)scores[i].tokens;
    }
    run->phase.done += n;
    emo__windows_free(&w);
    for (size_t i = 0; i < n; i++)
        emo__pair_free(run, &pairs[i]);
    return status;
}

emo_status emo__run_perplexity(emo__task_run *run, const emo__task *task, const emo_mask *mask, emo__cell *cell,
                               emo_error *err) {
    emo_status status = EMO_OK;
    for (size_t first = 0; status == EMO_OK && first < task->n_data; first += CHUNK) {
        size_t left = task->n_data - first;
        status = run_chunk(run, task, mask, first, left < CHUNK ? left : CHUNK, cell, err);
    }
    for (size_t i = 0; status == EMO_OK && i < task->n_data; i++) {
        const emo__item_result *result = &cell->items[i];
        double loss = result->tokens > 0 ? result->loss / (double)result->tokens : 0.0;
        for (int32_t m = 0; m < task->spec->n_metrics; m++)
            cell->values[i * (size_t)task->spec->n_metrics + (size_t)m] = loss;
    }
    return status;
}
