/* SPDX-License-Identifier: Apache-2.0 */
/* Multiple choice: every choice is a sequence of its own, scored after the context. */
#include <string.h>

#include "base/checked.h"
#include "base/progress.h"
#include "base/status.h"
#include "infer/eval.h"

#define ITEMS_AT_ONCE 16 /* between two reports */

typedef struct option {
    size_t begin;    /* of its tokens */
    int64_t context; /* tokens of the context in it */
    int64_t count;
    int64_t bytes; /* of the choice */
    bool lead;     /* end-of-text before it: not when the context was cut */
} option;

typedef struct choices {
    const emo_model *model;
    const emo__mem *mem;
    int32_t *tokens;
    size_t n_tokens;
    size_t cap_tokens;
    option *options;
    size_t n_options;
    size_t cap_options;
} choices;

/* Appends the tokens of a text. */
static emo_status encode(choices *c, const char *text, int64_t *count, emo_error *err) {
    size_t length = strlen(text);
    size_t n = 0;
    emo_status status = emo_tokenizer_encode(c->model->tokenizer, text, length, NULL, 0, &n, err);
    if (status == EMO_OK)
        status = emo__grow(c->mem, (void **)&c->tokens, &c->cap_tokens, c->n_tokens + n, sizeof *c->tokens, err);
    if (status == EMO_OK && n > 0)
        status = emo_tokenizer_encode(c->model->tokenizer, text, length, c->tokens + c->n_tokens, n, &n, err);
    if (status == EMO_OK)
        c->n_tokens += n;
    *count = (int64_t)n;
    return status;
}

/* Context and choice are encoded by themselves; a context too long loses its beginning. */
static emo_status add_option(choices *c, const emo_choice_item *item, int32_t index, int64_t seq_len, emo_error *err) {
    option o = {c->n_tokens, 0, 0, 0, c->model->config.eos >= 0};
    int64_t choice = 0;
    emo_status status =
        emo__grow(c->mem, (void **)&c->options, &c->cap_options, c->n_options + 1, sizeof *c->options, err);
    if (status == EMO_OK)
        status = encode(c, item->context, &o.context, err);
    if (status == EMO_OK)
        status = encode(c, item->choices[index], &choice, err);
    if (status != EMO_OK)
        return status;
    int64_t inputs = o.context + choice - 1 + (o.lead ? 1 : 0);
    if (inputs > seq_len) {
        int64_t cut = o.context + choice - 1 - seq_len; /* end-of-text goes first */
        if (cut >= o.context)
            return emo__fail(err, EMO_E_LIMIT, "choice %d of item '%s' has %lld tokens; the window has %lld",
                             (int)index, item->id, (long long)choice, (long long)seq_len);
        o.lead = false;
        o.begin += (size_t)(cut > 0 ? cut : 0);
        o.context -= cut > 0 ? cut : 0;
    }
    o.count = o.context + choice;
    o.bytes = (int64_t)strlen(item->choices[index]);
    c->options[c->n_options++] = o;
    return EMO_OK;
}

static emo_status gather(choices *c, const emo_choices *items, int64_t seq_len, const emo_progress *progress,
                         emo_error *err) {
    emo_status status = EMO_OK;
    for (int64_t i = 0; status == EMO_OK && i < emo_choices_count(items); i++) {
        emo_choice_item item;
        if (i % ITEMS_AT_ONCE == 0)
            status = emo__report(progress, "tokenize", (uint64_t)i, (uint64_t)emo_choices_count(items), err);
        if (status == EMO_OK)
            status = emo_choices_item(items, i, &item, err);
        for (int32_t j = 0; status == EMO_OK && j < item.count; j++)
            status = add_option(c, &item, j, seq_len, err);
    }
    return status;
}

static emo_status make_windows(const choices *c, int64_t seq_len, emo__windows *w, emo_error *err) {
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < c->n_options; i++) {
        const option *o = &c->options[i];
        emo__sequence s = {c->tokens + o->begin,           o->count,   o->lead ? c->model->config.eos : -1,
                           o->context + (o->lead ? 1 : 0), (int64_t)i, true};
        status = emo__windows_add(w, &s, seq_len, err);
    }
    return status;
}

static double per_byte(const emo__score *score, const option *o) {
    return -score->loss / (double)(o->bytes > 0 ? o->bytes : 1);
}

static emo_status count_right(const choices *c, const emo_choices *items, const emo__score *scores,
                              emo_eval_result *total, int32_t *answers, emo_error *err) {
    size_t at = 0;
    emo_status status = EMO_OK;
    if (c->options == NULL) /* no items */
        return status;
    for (int64_t i = 0; status == EMO_OK && i < emo_choices_count(items); i++) {
        emo_choice_item item;
        status = emo_choices_item(items, i, &item, err);
        int32_t best = 0;
        double most = 0.0;
        for (int32_t j = 0; status == EMO_OK && j < item.count; j++) {
            const emo__score *score = &scores[at + (size_t)j];
            const option *o = &c->options[at + (size_t)j];
            double value = per_byte(score, o);
            if (j == 0 || value > most) {
                best = j;
                most = value;
            }
            total->tokens += score->tokens;
            total->bytes += o->bytes;
            total->loss_sum += score->loss;
        }
        if (status != EMO_OK)
            break;
        at += (size_t)item.count;
        total->items++;
        total->correct += best == item.answer ? 1 : 0;
        if (answers != NULL)
            answers[i] = best;
    }
    return status;
}

emo_status emo__eval_choices(emo_model *model, const emo_choices *items, const emo_eval_options *options,
                             emo_eval_result *total, int32_t *answers, emo_error *err) {
    choices c = {0};
    emo__windows w;
    emo__score *scores = NULL;
    int64_t seq_len = 0;
    c.model = model;
    c.mem = &model->rt->mem;
    emo__windows_init(&w, c.mem);
    if (model->tokenizer == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the model has no tokenizer; attach one");
    emo_status status = emo__eval_seq_len(model, options, &seq_len, err);
    if (status == EMO_OK)
        status = gather(&c, items, seq_len, &options->progress, err);
    if (status == EMO_OK)
        status = make_windows(&c, seq_len, &w, err);
    if (status == EMO_OK) {
        scores = emo__calloc(c.mem, c.n_options + 1, sizeof *scores);
        if (scores == NULL)
            status = emo__fail_memory(err, c.n_options * sizeof *scores);
    }
    if (status == EMO_OK)
        status = emo__eval_windows(model, &w, options, scores, err);
    if (status == EMO_OK)
        status = count_right(&c, items, scores, total, answers, err);
    emo__free(c.mem, scores);
    emo__windows_free(&w);
    emo__free(c.mem, c.tokens);
    emo__free(c.mem, c.options);
    return status;
}
