/* SPDX-License-Identifier: Apache-2.0 */
/* Experts for a task, from its validation items. */
#include <string.h>

#include "base/status.h"
#include "eval/run.h"
#include "model/files.h"
#include "tensor/philox.h"

void emo__chooser_free(emo__chooser *chooser) {
    emo_stats_release(chooser->stats);
    emo_dataset_release(chooser->documents);
    chooser->stats = NULL;
    chooser->documents = NULL;
}

/* ---- documents: prompts with their right answers ---- */

typedef struct documents {
    int32_t *tokens;
    size_t *lengths;
    size_t n_tokens;
    size_t cap_tokens;
    size_t count;
} documents;

static emo_status add_document(const emo__task_run *run, const emo__task *task, size_t place, documents *d,
                               emo_error *err) {
    const emo__mem *mem = &run->model->rt->mem;
    const emo__task_item *item = &task->spec->validation.items[task->validation[place]];
    size_t lead = run->model->config.eos >= 0 ? 1 : 0; /* the statistics put it there themselves */
    emo__pair pair = {0};
    emo__buf prompt;
    emo__buf_init(&prompt, mem);
    /* The place counts on behind the items, so that examples drawn for each item differ from theirs. */
    emo_status status = emo__task_prompt(task, item, task->n_data + place, item->answer, &prompt, err);
    if (status == EMO_OK)
        status = emo__pair_make(run, task->spec, prompt.data, item->continuations[item->answer], &pair, err);
    size_t n = status == EMO_OK && pair.count > lead ? pair.count - lead : 0;
    if (status == EMO_OK)
        status = emo__grow(mem, (void **)&d->tokens, &d->cap_tokens, d->n_tokens + n + 1, sizeof *d->tokens, err);
    if (status == EMO_OK && n > 0) {
        memcpy(d->tokens + d->n_tokens, pair.tokens + lead, n * sizeof *d->tokens);
        d->n_tokens += n;
        d->lengths[d->count++] = n;
    }
    emo__pair_free(run, &pair);
    emo__buf_free(&prompt);
    return status;
}

static emo_status make_documents(const emo__task_run *run, const emo__task *task, emo_dataset **out, emo_error *err) {
    const emo__mem *mem = &run->model->rt->mem;
    int64_t wanted = run->options->examples;
    size_t n = task->n_validation;
    bool drawn = wanted > 0 && (uint64_t)wanted < n;
    documents d = {0};
    uint32_t *order = NULL;
    emo_status status = EMO_OK;
    d.lengths = emo__malloc_array(mem, n + 1, sizeof *d.lengths);
    order = emo__malloc_array(mem, n + 1, sizeof *order);
    if (d.lengths == NULL || order == NULL)
        status = emo__fail_memory(err, (n + 1) * sizeof *d.lengths);
    else if (drawn)
        emo__permutation(run->options->seed, EMO__RNG_EXAMPLE, 0, order, n);
    size_t take = drawn ? (size_t)wanted : n;
    for (size_t i = 0; status == EMO_OK && i < take; i++)
        status = add_document(run, task, drawn ? order[i] : i, &d, err);
    if (status == EMO_OK && d.count == 0)
        status = emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s: its validation items have no tokens", task->name);
    if (status == EMO_OK)
        status = emo_dataset_from_tokens(run->model->rt, d.tokens, d.lengths, NULL, d.count, run->model->config.eos,
                                         out, err);
    emo__free(mem, d.tokens);
    emo__free(mem, d.lengths);
    emo__free(mem, order);
    return status;
}

/* ---- choosing ---- */

static emo_status from_items(const emo__task_run *run, const emo__task *task, const emo_select_options *select,
                             emo__chooser *chooser, emo_mask **out, emo_error *err) {
    emo_status status = EMO_OK;
    if (chooser->documents == NULL)
        status = make_documents(run, task, &chooser->documents, err);
    if (status != EMO_OK)
        return status;
    if (select->method == EMO_SELECT_LAYERWISE)
        return emo_select(run->model, chooser->documents, select, out, err);
    if (chooser->stats == NULL) { /* one pass serves subsets of every size */
        emo_stats_options o = EMO_STATS_OPTIONS_INIT;
        o.easy_ep = select->method == EMO_SELECT_EASY_EP ? 1 : 0;
        o.progress = run->inner;
        status = emo_stats_collect(run->model, chooser->documents, &o, &chooser->stats, err);
    }
    return status == EMO_OK ? emo_select_from_stats(run->model, chooser->stats, select, out, err) : status;
}

emo_status emo__choose_experts(const emo__task_run *run, const emo__task *task, const emo_task_column *column,
                               int32_t draw, emo__chooser *chooser, emo_mask **out, emo_error *err) {
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;
    *out = NULL;
    select.keep = column->keep;
    select.seed = run->options->seed + (uint64_t)draw;
    select.progress = run->inner;
    switch (column->kind) {
    case EMO_TASK_COLUMN_SUBSET:
        select.method = run->options->method;
        return from_items(run, task, &select, chooser, out, err);
    case EMO_TASK_COLUMN_RANDOM:
        select.method = EMO_SELECT_RANDOM;
        return emo_select(run->model, NULL, &select, out, err);
    case EMO_TASK_COLUMN_MASK:
        return emo_mask_clone(run->options->masks[column->mask], out, err);
    default:
        return EMO_OK;
    }
}

/* ---- checking ---- */

static emo_status check_mask(const emo__task_run *run, const emo_mask *mask, double *share, emo_error *err) {
    const emo__config *c = &run->model->config;
    int64_t kept = 0;
    int64_t all = 0;
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        uint8_t *keep = emo__calloc(&run->model->rt->mem, (size_t)c->layer[l].experts, 1);
        if (keep == NULL)
            return emo__fail_memory(err, (size_t)c->layer[l].experts);
        status = emo__model_keep(run->model, mask, l, keep, err);
        int32_t routed = emo__config_routed(c, l);
        for (int32_t e = 0; status == EMO_OK && e < routed; e++)
            kept += keep[e] != 0 ? 1 : 0;
        all += routed;
        emo__free(&run->model->rt->mem, keep);
    }
    *share = all > 0 ? (double)kept / (double)all : 1.0;
    return status;
}

emo_status emo__check_column(const emo__task_run *run, emo_task_column *column, emo_error *err) {
    emo_task_column like = *column;
    emo_mask *mask = NULL;
    emo_status status = EMO_OK;
    if (column->kind == EMO_TASK_COLUMN_MASK)
        return check_mask(run, run->options->masks[column->mask], &column->share, err);
    if (column->kind != EMO_TASK_COLUMN_ALL) { /* any choice of this size */
        like.kind = EMO_TASK_COLUMN_RANDOM;
        status = emo__choose_experts(run, NULL, &like, 0, NULL, &mask, err);
    }
    if (status == EMO_OK)
        status = check_mask(run, mask, &column->share, err);
    emo_mask_release(mask);
    return status;
}
