/* SPDX-License-Identifier: Apache-2.0 */
/* Multiple choice. */
#include <string.h>

#include "base/status.h"
#include "eval/run.h"

typedef struct choosing {
    emo__task_run *run;
    const emo__task *task;
    emo__cell *cell;
    bool unconditional; /* the second round: after the unconditional prompt */
} choosing;

/* Appends a pair as a sequence. */
static emo_status add(emo__likelihoods *out, const emo__pair *pair, emo_error *err) {
    emo_status status = emo__grow(out->mem, (void **)&out->tokens, &out->cap_tokens, out->n_tokens + pair->count,
                                  sizeof *out->tokens, err);
    if (status == EMO_OK)
        status = emo__grow(out->mem, (void **)&out->items, &out->capacity, out->count + 1, sizeof *out->items, err);
    if (status != EMO_OK)
        return status;
    if (pair->count > 0)
        memcpy(out->tokens + out->n_tokens, pair->tokens, pair->count * sizeof *pair->tokens);
    out->items[out->count++] = (emo__likelihood){out->n_tokens, (int64_t)pair->count, (int64_t)pair->from, 0.0};
    out->n_tokens += pair->count;
    return EMO_OK;
}

/* Choices that follow one prompt are scored from one place and lose the same of a prompt that is too long. */
static emo_status fit(const choosing *c, const emo__task_item *item, emo__likelihoods *out, int32_t *truncated,
                      emo_error *err) {
    bool together = c->unconditional || !c->task->spec->prompt_each;
    int64_t from = INT64_MAX;
    int64_t cut = 0;
    for (size_t i = 0; i < out->count; i++) {
        int64_t over = out->items[i].count - 1 - c->run->seq_len;
        from = out->items[i].from < from ? out->items[i].from : from;
        cut = over > cut ? over : cut;
    }
    for (size_t i = 0; i < out->count; i++) {
        emo__likelihood *s = &out->items[i];
        int64_t over = s->count - 1 - c->run->seq_len;
        int64_t gone = together ? cut : over > 0 ? over : 0;
        s->from = together ? from : s->from;
        if (s->count < 2)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)item->line,
                                "%s:%llu: choice %zu has no token that something stands in front of", item->file,
                                (unsigned long long)item->line, i);
        if (s->from - gone < 1)
            return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, (int64_t)item->line,
                                "%s:%llu: choice %zu has %lld tokens to score; the window has %lld", item->file,
                                (unsigned long long)item->line, i, (long long)(s->count - s->from),
                                (long long)c->run->seq_len);
        s->begin += (size_t)gone;
        s->count -= gone;
        s->from -= gone;
        *truncated |= gone > 0 ? 1 : 0;
    }
    return EMO_OK;
}

static emo_status make(void *ctx, size_t index, emo__likelihoods *out, emo_error *err) {
    const choosing *c = ctx;
    const emo__task_item *item = emo__task_item_at(c->task, index);
    const emo__task_spec *spec = c->task->spec;
    emo__buf prompt;
    int32_t truncated = 0;
    emo_status status = EMO_OK;
    emo__buf_init(&prompt, out->mem);
    for (int32_t i = 0; status == EMO_OK && i < item->n_choices; i++) {
        emo__pair pair = {0};
        if (!c->unconditional && (i == 0 || spec->prompt_each)) {
            prompt.size = 0;
            status = emo__task_prompt(c->task, item, index, i, &prompt, err);
        }
        if (status == EMO_OK)
            status = emo__pair_make(c->run, spec, c->unconditional ? spec->unconditional : prompt.data,
                                    item->continuations[i], &pair, err);
        if (status == EMO_OK)
            status = add(out, &pair, err);
        emo__pair_free(c->run, &pair);
    }
    if (status == EMO_OK)
        status = fit(c, item, out, &truncated, err);
    if (!c->unconditional)
        c->cell->items[index].truncated = truncated;
    emo__buf_free(&prompt);
    return status;
}

static emo_status done(void *ctx, size_t index, const emo__likelihoods *item, emo_error *err) {
    choosing *c = ctx;
    size_t at = c->cell->items[index].at;
    (void)err;
    for (size_t i = 0; i < item->count; i++) {
        if (c->unconditional) {
            c->cell->unconditional[at + i] = item->items[i].logprob;
            continue;
        }
        c->cell->logprobs[at + i] = item->items[i].logprob;
        c->cell->tokens[at + i] = (int32_t)(item->items[i].count - item->items[i].from);
    }
    c->run->phase.done += c->unconditional ? 0 : 1;
    return EMO_OK;
}

static double characters(const char *text) {
    double n = 0.0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80 ? 1.0 : 0.0;
    return n;
}

static double score_of(const emo__cell *cell, const emo__task_item *item, size_t at, int32_t choice,
                       emo__metric metric) {
    size_t i = at + (size_t)choice;
    const char *text = item->continuations[choice];
    switch (metric) {
    case EMO__METRIC_ACCURACY_TOKEN:
        return cell->logprobs[i] / (double)cell->tokens[i];
    case EMO__METRIC_ACCURACY_BYTE:
        return cell->logprobs[i] / (double)strlen(text);
    case EMO__METRIC_ACCURACY_CHARACTER:
        return cell->logprobs[i] / characters(text);
    case EMO__METRIC_ACCURACY_UNCONDITIONAL:
        return cell->logprobs[i] - cell->unconditional[i];
    default:
        return cell->logprobs[i];
    }
}

/* The highest score wins; of equal ones the first. */
static void decide(const choosing *c) {
    const emo__task_spec *spec = c->task->spec;
    for (size_t index = 0; index < c->task->n_data; index++) {
        const emo__task_item *item = emo__task_item_at(c->task, index);
        emo__item_result *result = &c->cell->items[index];
        for (int32_t m = 0; m < spec->n_metrics; m++) {
            int32_t best = 0;
            double most = 0.0;
            for (int32_t i = 0; i < item->n_choices; i++) {
                double score = score_of(c->cell, item, result->at, i, spec->metrics[m]);
                if (i == 0 || score > most) {
                    best = i;
                    most = score;
                }
            }
            result->chosen = m == 0 ? best : result->chosen;
            c->cell->values[index * (size_t)spec->n_metrics + (size_t)m] = best == item->answer ? 1.0 : 0.0;
        }
    }
}

emo_status emo__run_choices(emo__task_run *run, const emo__task *task, const emo_mask *mask, emo__cell *cell,
                            emo_error *err) {
    choosing c = {run, task, cell, false};
    emo__score_hooks hooks = {&c, make, done};
    emo__scorer_options o = {mask, run->seq_len, run->options->sequences, run->options->batch_tokens, &run->inner};
    emo_status status = emo__score_items(run->model, task->n_data, &hooks, &o, NULL, err);
    if (status == EMO_OK && cell->unconditional != NULL) {
        c.unconditional = true;
        status = emo__score_items(run->model, task->n_data, &hooks, &o, NULL, err);
    }
    if (status == EMO_OK)
        decide(&c);
    return status;
}
