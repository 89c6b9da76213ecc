/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/run.h"

#include <string.h>

#include "base/progress.h"
#include "base/status.h"
#include "infer/eval.h"

#define MAX_COLUMNS 1024

/* ---- cells ---- */

void emo__cell_free(const emo__mem *mem, emo__cell *cell) {
    emo_mask_release(cell->mask);
    emo__free(mem, cell->values);
    emo__free(mem, cell->logprobs);
    emo__free(mem, cell->unconditional);
    emo__free(mem, cell->tokens);
    emo__free(mem, cell->items);
    memset(cell, 0, sizeof *cell);
}

static void free_items(const emo__mem *mem, const emo__task *task, emo__cell *cell) {
    for (size_t i = 0; cell->items != NULL && i < task->n_data; i++)
        emo__free(mem, cell->items[i].text);
    emo__cell_free(mem, cell);
}

static emo_status cell_create(const emo__mem *mem, const emo__task *task, emo__cell *cell, emo_error *err) {
    const emo__task_spec *spec = task->spec;
    size_t n = task->n_data + 1;
    size_t scores = 1;
    cell->items = emo__calloc(mem, n, sizeof *cell->items);
    if (cell->items == NULL)
        return emo__fail_memory(err, n * sizeof *cell->items);
    for (size_t i = 0; i < task->n_data; i++) {
        cell->items[i].at = scores - 1;
        cell->items[i].chosen = -1;
        scores += (size_t)emo__task_item_at(task, i)->n_choices;
    }
    cell->values = emo__calloc(mem, n * EMO__TASK_METRICS, sizeof *cell->values);
    if (spec->type != EMO_TASK_GENERATION) {
        cell->logprobs = emo__calloc(mem, scores, sizeof *cell->logprobs);
        cell->tokens = emo__calloc(mem, scores, sizeof *cell->tokens);
    }
    if (spec->type == EMO_TASK_CHOICE && spec->unconditional != NULL)
        cell->unconditional = emo__calloc(mem, scores, sizeof *cell->unconditional);
    if (cell->values == NULL ||
        (spec->type != EMO_TASK_GENERATION && (cell->logprobs == NULL || cell->tokens == NULL)) ||
        (spec->type == EMO_TASK_CHOICE && spec->unconditional != NULL && cell->unconditional == NULL))
        return emo__fail_memory(err, scores * sizeof(double));
    return EMO_OK;
}

/* Adds a draw to the sums, item after item, so that no order of work shows. */
static void add_up(const emo__task *task, const emo__cell *draw, emo__cell *cell) {
    const emo__task_spec *spec = task->spec;
    for (size_t i = 0; i < task->n_data; i++) {
        const emo__item_result *result = &draw->items[i];
        for (int32_t m = 0; m < spec->n_metrics; m++) {
            double value = draw->values[i * (size_t)spec->n_metrics + (size_t)m];
            cell->sum[m] += value;
            cell->square[m] += value * value;
        }
        cell->loss += result->loss;
        cell->n_tokens += result->tokens;
        cell->n_bytes += (int64_t)strlen(emo__task_item_at(task, i)->continuations[0]);
        cell->n_truncated += result->truncated;
        cell->n_items++;
    }
}

static emo_status run_type(emo__task_run *run, const emo__task *task, const emo_mask *mask, emo__cell *cell,
                           emo_error *err) {
    switch (task->spec->type) {
    case EMO_TASK_CHOICE:
        return emo__run_choices(run, task, mask, cell, err);
    case EMO_TASK_GENERATION:
        return emo__run_generation(run, task, mask, cell, err);
    default:
        return emo__run_perplexity(run, task, mask, cell, err);
    }
}

/* The first draw's items become the cell's. */
static emo_status run_draw(emo__task_run *run, const emo__task *task, const emo_task_column *column, int32_t draw,
                           emo__chooser *chooser, emo__cell *cell, emo_error *err) {
    const emo__mem *mem = &run->model->rt->mem;
    emo__cell one = {0};
    emo_status status = emo__choose_experts(run, task, column, draw, chooser, &one.mask, err);
    if (status == EMO_OK)
        status = cell_create(mem, task, &one, err);
    if (status == EMO_OK)
        status = run_type(run, task, one.mask, &one, err);
    if (status == EMO_OK)
        add_up(task, &one, cell);
    if (status == EMO_OK && draw == 0) {
        cell->mask = one.mask;
        cell->items = one.items;
        cell->values = one.values;
        cell->logprobs = one.logprobs;
        cell->unconditional = one.unconditional;
        cell->tokens = one.tokens;
    } else {
        free_items(mem, task, &one);
    }
    return status;
}

/* ---- columns ---- */

static void add_column(emo_task_results *r, emo_task_column_kind kind, int32_t keep, int32_t mask, int32_t draws) {
    r->columns[r->n_columns++] = (emo_task_column){kind, keep, mask, draws, 1.0};
}

static emo_status make_columns(const emo__task_run *run, emo_task_results *r, emo_error *err) {
    const emo_task_run_options *o = run->options;
    bool only_random = o->method == EMO_SELECT_RANDOM;
    size_t most = 2 * o->n_keep + o->n_masks + 1;
    emo_status status = EMO_OK;
    r->columns = emo__calloc(&r->rt->mem, most, sizeof *r->columns);
    if (r->columns == NULL)
        return emo__fail_memory(err, most * sizeof *r->columns);
    for (size_t i = 0; i < o->n_keep; i++) {
        if (o->keep[i] == 0)
            add_column(r, EMO_TASK_COLUMN_ALL, 0, -1, 1);
        else if (only_random)
            add_column(r, EMO_TASK_COLUMN_RANDOM, o->keep[i], -1, o->random > 0 ? o->random : 1);
        else
            add_column(r, EMO_TASK_COLUMN_SUBSET, o->keep[i], -1, 1);
        if (o->keep[i] != 0 && !only_random && o->random > 0)
            add_column(r, EMO_TASK_COLUMN_RANDOM, o->keep[i], -1, o->random);
    }
    for (size_t i = 0; i < o->n_masks; i++)
        add_column(r, EMO_TASK_COLUMN_MASK, 0, (int32_t)i, 1);
    if (r->n_columns == 0)
        add_column(r, EMO_TASK_COLUMN_ALL, 0, -1, 1);
    for (size_t i = 0; status == EMO_OK && i < r->n_columns; i++)
        status = emo__check_column(run, &r->columns[i], err);
    for (size_t i = 0; status == EMO_OK && i < r->n_columns; i++) {
        for (size_t t = 0; r->columns[i].kind == EMO_TASK_COLUMN_SUBSET && t < run->set->n_tasks; t++) {
            if (run->set->tasks[t].n_validation == 0)
                return emo__fail(
                    err, EMO_E_INVALID_ARGUMENT,
                    "%s: the task has no \"validation\" items to choose experts from; name a file of them, "
                    "or choose at random",
                    run->set->tasks[t].spec->where);
        }
    }
    return status;
}

/* ---- options ---- */

static emo_status in_range(const char *field, int64_t value, int64_t low, int64_t high, emo_error *err) {
    if (value >= low && value <= high)
        return EMO_OK;
    return emo__fail(err, EMO_E_RANGE, "emo_task_run_options.%s is %lld; it must be in [%lld, %lld]", field,
                     (long long)value, (long long)low, (long long)high);
}

static emo_status check(emo__task_run *run, emo_error *err) {
    const emo_task_run_options *o = run->options;
    emo_eval_options like = EMO_EVAL_OPTIONS_INIT;
    emo_status status;
    EMO_TRY(status = in_range("method", o->method, EMO_SELECT_USAGE, EMO_SELECT_RANDOM, err));
    EMO_TRY(status = in_range("n_keep", o->n_keep < MAX_COLUMNS ? (int64_t)o->n_keep : MAX_COLUMNS + 1, 0, MAX_COLUMNS,
                              err));
    EMO_TRY(status = in_range("n_masks", o->n_masks < MAX_COLUMNS ? (int64_t)o->n_masks : MAX_COLUMNS + 1, 0,
                              MAX_COLUMNS, err));
    EMO_TRY(status = in_range("random", o->random, 0, 1000, err));
    EMO_TRY(status = in_range("seq_len", o->seq_len, 0, run->model->config.max_positions, err));
    EMO_TRY(status = in_range("examples", o->examples, 0, INT64_MAX, err));
    EMO_TRY(status = in_range("sequences", o->sequences, 0, 1024, err));
    EMO_TRY(status = in_range("batch_tokens", o->batch_tokens, 0, 1 << 20, err));
    if ((o->keep == NULL && o->n_keep > 0) || (o->masks == NULL && o->n_masks > 0))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "emo_task_run_options.%s is NULL while its count is not 0",
                         o->keep == NULL && o->n_keep > 0 ? "keep" : "masks");
    for (size_t i = 0; i < o->n_keep; i++)
        EMO_TRY(status = in_range("keep", o->keep[i], 0, INT32_MAX, err));
    for (size_t i = 0; i < o->n_masks; i++) {
        if (o->masks[i] == NULL)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "emo_task_run_options.masks[%zu] is NULL", i);
    }
    if (run->model->tokenizer == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the model has no tokenizer; attach one");
    like.seq_len = o->seq_len;
    status = emo__eval_seq_len(run->model, &like, &run->seq_len, err);
    if (status == EMO_OK && run->seq_len < 2)
        status = emo__fail(err, EMO_E_RANGE, "emo_task_run_options.seq_len is %lld; it must be at least 2",
                           (long long)run->seq_len);
done:
    return status;
}

/* ---- the run ---- */

static emo_status run_tasks(emo__task_run *run, emo_task_results *r, emo_error *err) {
    emo_status status = EMO_OK;
    for (size_t t = 0; status == EMO_OK && t < run->set->n_tasks; t++) {
        const emo__task *task = &run->set->tasks[t];
        emo__chooser chooser = {0};
        for (size_t c = 0; status == EMO_OK && c < r->n_columns; c++) {
            for (int32_t d = 0; status == EMO_OK && d < r->columns[c].draws; d++)
                status = run_draw(run, task, &r->columns[c], d, &chooser, emo__results_cell(r, t, c), err);
        }
        emo__chooser_free(&chooser);
        if (status != EMO_OK && status != EMO_E_CANCELLED)
            status = emo__fail_prefix(err, status, "%.100s", task->name);
    }
    return status;
}

emo_status emo__task_run_all(emo_model *model, const emo_task_set *set, const emo_task_run_options *options,
                             emo_task_results **out, emo_error *err) {
    emo__task_run run = {0};
    run.model = model;
    run.set = set;
    run.options = options;
    run.phase = (emo__phase){&options->progress, "evaluate tasks", 0, 0, 0, 0};
    run.inner.ctx = &run.phase;
    run.inner.report = options->progress.report != NULL ? emo__phase_report : NULL;
    emo_status status = check(&run, err);
    if (status != EMO_OK)
        return status;
    const emo__mem *mem = &model->rt->mem;
    emo_task_results *r = emo__calloc(mem, 1, sizeof *r);
    if (r == NULL)
        return emo__fail_memory(err, sizeof *r);
    emo__ref_init(&r->ref);
    r->rt = emo__runtime_retain(model->rt);
    r->set = emo__task_set_retain(set);
    status = make_columns(&run, r, err);
    if (status == EMO_OK) {
        r->cells = emo__calloc(mem, set->n_tasks * r->n_columns, sizeof *r->cells);
        if (r->cells == NULL)
            status = emo__fail_memory(err, set->n_tasks * r->n_columns * sizeof *r->cells);
    }
    for (size_t t = 0; status == EMO_OK && t < set->n_tasks; t++) {
        for (size_t c = 0; c < r->n_columns; c++)
            run.phase.total += set->tasks[t].n_data * (uint64_t)r->columns[c].draws;
    }
    if (status == EMO_OK)
        status = run_tasks(&run, r, err);
    if (status == EMO_OK)
        status = emo__report(&options->progress, run.phase.name, run.phase.total, run.phase.total, err);
    if (status == EMO_OK)
        *out = r;
    else
        emo__task_results_release(r);
    return status;
}

void emo__task_results_release(emo_task_results *r) {
    if (r == NULL || !emo__ref_put(&r->ref))
        return;
    emo_runtime *rt = r->rt;
    for (size_t t = 0; r->cells != NULL && t < r->set->n_tasks; t++) {
        for (size_t c = 0; c < r->n_columns; c++)
            free_items(&rt->mem, &r->set->tasks[t], emo__results_cell(r, t, c));
    }
    emo__free(&rt->mem, r->cells);
    emo__free(&rt->mem, r->columns);
    emo__task_set_release(r->set);
    emo__free(&rt->mem, r);
    emo_runtime_release(rt);
}
