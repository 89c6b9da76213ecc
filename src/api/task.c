/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/task.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "eval/results.h"
#include "model/files.h"

static emo_status missing(emo_error *err, const char *what) {
    return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", what);
}

/* ---- sets ---- */

static emo_status set_options(const emo_task_set_options *options, emo_task_set_options *o, emo_error *err) {
    emo_status status = emo__options_copy(o, sizeof *o, options, "emo_task_set_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o->reserved, "emo_task_set_options", err);
    if (status == EMO_OK && o->limit < 0)
        status = emo__fail(err, EMO_E_RANGE, "emo_task_set_options.limit is %lld; 0 means what the file says",
                           (long long)o->limit);
    return status;
}

emo_status emo_task_set_open(emo_runtime *rt, const char *path, const emo_task_set_options *options, emo_task_set **out,
                             emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (rt == NULL || path == NULL || out == NULL)
        return missing(err, rt == NULL ? "rt" : path == NULL ? "path" : "out");
    emo_task_set_options o = EMO_TASK_SET_OPTIONS_INIT;
    emo_status status = set_options(options, &o, err);
    return status == EMO_OK ? emo__task_set_open(rt, path, NULL, 0, &o, out, err) : status;
}

emo_status emo_task_set_from_json(emo_runtime *rt, const char *text, size_t length, const emo_task_set_options *options,
                                  emo_task_set **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (rt == NULL || text == NULL || out == NULL)
        return missing(err, rt == NULL ? "rt" : text == NULL ? "text" : "out");
    emo_task_set_options o = EMO_TASK_SET_OPTIONS_INIT;
    emo_status status = set_options(options, &o, err);
    return status == EMO_OK ? emo__task_set_open(rt, NULL, text, length, &o, out, err) : status;
}

void emo_task_set_release(emo_task_set *set) { emo__task_set_release(set); }

int32_t emo_task_set_tasks(const emo_task_set *set) { return set != NULL ? (int32_t)set->n_tasks : 0; }
int32_t emo_task_set_groups(const emo_task_set *set) { return set != NULL ? (int32_t)set->n_groups : 0; }

static bool has_task(const emo_task_set *set, int32_t task) { return task >= 0 && (size_t)task < set->n_tasks; }

static emo_status no_such(emo_error *err, const char *what, int64_t index, int64_t count) {
    return emo__fail(err, EMO_E_RANGE, "%s %lld; there are %lld", what, (long long)index, (long long)count);
}

emo_status emo_task_set_task(const emo_task_set *set, int32_t task, emo_task_info *out, emo_error *err) {
    emo__error_clear(err);
    if (set == NULL || out == NULL)
        return missing(err, set == NULL ? "set" : "out");
    memset(out, 0, sizeof *out);
    if (!has_task(set, task))
        return no_such(err, "task", task, (int64_t)set->n_tasks);
    const emo__task *t = &set->tasks[task];
    out->name = t->name;
    out->type = t->spec->type;
    out->metrics = t->spec->n_metrics;
    out->items = (int64_t)t->n_data;
    out->validation = (int64_t)t->n_validation;
    out->examples = t->spec->n_shots;
    out->most_choices = t->most_choices;
    out->lower_is_better = emo__metric_lower_is_better(t->spec->metrics[0]) ? 1 : 0;
    return EMO_OK;
}

const char *emo_task_set_metric(const emo_task_set *set, int32_t task, int32_t metric) {
    if (set == NULL || !has_task(set, task) || metric < 0 || metric >= set->tasks[task].spec->n_metrics)
        return NULL;
    return emo__metric_name(set->tasks[task].spec->metrics[metric]);
}

emo_status emo_task_set_group(const emo_task_set *set, int32_t group, emo_task_group *out, emo_error *err) {
    emo__error_clear(err);
    if (set == NULL || out == NULL)
        return missing(err, set == NULL ? "set" : "out");
    memset(out, 0, sizeof *out);
    if (group < 0 || (size_t)group >= set->n_groups)
        return no_such(err, "group", group, (int64_t)set->n_groups);
    const emo__group *g = &set->groups[group];
    out->name = g->name;
    out->members = g->members;
    out->count = (int32_t)g->count;
    out->by_items = g->by_items ? 1 : 0;
    return EMO_OK;
}

static emo_status find_item(const emo_task_set *set, int32_t task, int64_t item, int32_t choice,
                            const emo__task_item **out, emo_error *err) {
    if (!has_task(set, task))
        return no_such(err, "task", task, (int64_t)set->n_tasks);
    const emo__task *t = &set->tasks[task];
    if (item < 0 || (uint64_t)item >= t->n_data)
        return no_such(err, "item", item, (int64_t)t->n_data);
    *out = emo__task_item_at(t, (size_t)item);
    return choice >= 0 && choice < (*out)->n_choices ? EMO_OK : no_such(err, "choice", choice, (*out)->n_choices);
}

static emo_status give(const char *text, size_t length, char *buffer, size_t capacity, size_t *size, emo_error *err) {
    *size = length + 1;
    if (capacity == 0)
        return EMO_OK;
    if (capacity < *size)
        return emo__fail(err, EMO_E_LIMIT, "the text has %zu bytes with its NUL; the buffer has %zu", *size, capacity);
    memcpy(buffer, text, *size);
    return EMO_OK;
}

/* Checks the arguments of a call that gives a text of an item, and finds the item. */
static emo_status text_item(const emo_task_set *set, int32_t task, int64_t item, int32_t choice, const char *buffer,
                            size_t capacity, size_t *size, const emo__task_item **out, emo_error *err) {
    emo__error_clear(err);
    if (size != NULL)
        *size = 0;
    if (set == NULL || size == NULL || (buffer == NULL && capacity > 0))
        return missing(err, set == NULL ? "set" : size == NULL ? "size" : "buffer");
    return find_item(set, task, item, choice, out, err);
}

emo_status emo_task_set_prompt(const emo_task_set *set, int32_t task, int64_t item, int32_t choice, char *buffer,
                               size_t capacity, size_t *size, emo_error *err) {
    const emo__task_item *found = NULL;
    emo_status status = text_item(set, task, item, choice, buffer, capacity, size, &found, err);
    if (status != EMO_OK)
        return status;
    emo__buf text;
    emo__buf_init(&text, &set->rt->mem);
    status = emo__task_prompt(&set->tasks[task], found, (size_t)item, choice, &text, err);
    if (status == EMO_OK)
        status = give(text.data, text.size, buffer, capacity, size, err);
    emo__buf_free(&text);
    return status;
}

emo_status emo_task_set_continuation(const emo_task_set *set, int32_t task, int64_t item, int32_t choice, char *buffer,
                                     size_t capacity, size_t *size, emo_error *err) {
    const emo__task_item *found = NULL;
    emo_status status = text_item(set, task, item, choice, buffer, capacity, size, &found, err);
    if (status != EMO_OK)
        return status;
    const char *text = found->continuations[choice];
    return give(text, strlen(text), buffer, capacity, size, err);
}

/* ---- runs ---- */

emo_status emo_task_run(emo_model *model, const emo_task_set *set, const emo_task_run_options *options,
                        emo_task_results **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (model == NULL || set == NULL || out == NULL)
        return missing(err, model == NULL ? "model" : set == NULL ? "set" : "out");
    emo_task_run_options o = EMO_TASK_RUN_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_task_run_options", err);
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__task_run_all(model, set, &o, out, err);
    emo__model_end_read(model);
    return status;
}

void emo_task_results_release(emo_task_results *results) { emo__task_results_release(results); }

int32_t emo_task_results_columns(const emo_task_results *results) {
    return results != NULL ? (int32_t)results->n_columns : 0;
}

static emo_status check_results(const emo_task_results *results, const void *out, int32_t column, emo_error *err) {
    emo__error_clear(err);
    if (results == NULL || out == NULL)
        return missing(err, results == NULL ? "results" : "out");
    return column >= 0 && (size_t)column < results->n_columns
               ? EMO_OK
               : no_such(err, "column", column, (int64_t)results->n_columns);
}

emo_status emo_task_results_column(const emo_task_results *results, int32_t column, emo_task_column *out,
                                   emo_error *err) {
    if (out != NULL)
        memset(out, 0, sizeof *out);
    emo_status status = check_results(results, out, column, err);
    if (status == EMO_OK)
        *out = results->columns[column];
    return status;
}

emo_status emo_task_results_score(const emo_task_results *results, int32_t task, int32_t column, int32_t metric,
                                  emo_task_score *out, emo_error *err) {
    if (out != NULL)
        memset(out, 0, sizeof *out);
    emo_status status = check_results(results, out, column, err);
    if (status != EMO_OK)
        return status;
    if (!has_task(results->set, task))
        return no_such(err, "task", task, (int64_t)results->set->n_tasks);
    if (emo_task_set_metric(results->set, task, metric) == NULL)
        return no_such(err, "metric", metric, results->set->tasks[task].spec->n_metrics);
    emo__results_score(results, (size_t)task, (size_t)column, metric, out);
    return EMO_OK;
}

emo_status emo_task_results_group(const emo_task_results *results, int32_t group, int32_t column, emo_task_score *out,
                                  emo_error *err) {
    if (out != NULL)
        memset(out, 0, sizeof *out);
    emo_status status = check_results(results, out, column, err);
    if (status == EMO_OK && (group < 0 || (size_t)group >= results->set->n_groups))
        status = no_such(err, "group", group, (int64_t)results->set->n_groups);
    if (status == EMO_OK)
        emo__results_group(results, (size_t)group, (size_t)column, out);
    return status;
}

emo_status emo_task_results_item(const emo_task_results *results, int32_t task, int32_t column, int64_t item,
                                 emo_task_item *out, emo_error *err) {
    if (out != NULL)
        memset(out, 0, sizeof *out);
    emo_status status = check_results(results, out, column, err);
    const emo__task_item *found = NULL;
    if (status == EMO_OK)
        status = find_item(results->set, task, item, 0, &found, err);
    if (status != EMO_OK)
        return status;
    const emo__task_spec *spec = results->set->tasks[task].spec;
    const emo__cell *cell = emo__results_cell(results, (size_t)task, (size_t)column);
    const emo__item_result *result = &cell->items[item];
    bool scored = cell->logprobs != NULL;
    out->source = found->file;
    out->line = (int64_t)found->line;
    out->choices = scored ? found->n_choices : 0;
    out->answer = spec->type == EMO_TASK_CHOICE ? found->answer : -1;
    out->chosen = result->chosen;
    out->truncated = result->truncated;
    out->logprobs = scored ? cell->logprobs + result->at : NULL;
    out->unconditional = cell->unconditional != NULL ? cell->unconditional + result->at : NULL;
    out->tokens = scored ? cell->tokens + result->at : NULL;
    out->text = result->text;
    out->value = cell->values[(size_t)item * (size_t)spec->n_metrics];
    return EMO_OK;
}

emo_status emo_task_results_mask(const emo_task_results *results, int32_t task, int32_t column, emo_mask **out,
                                 emo_error *err) {
    if (out != NULL)
        *out = NULL;
    emo_status status = check_results(results, (const void *)out, column, err);
    if (status == EMO_OK && !has_task(results->set, task))
        status = no_such(err, "task", task, (int64_t)results->set->n_tasks);
    if (status != EMO_OK)
        return status;
    const emo_mask *mask = emo__results_cell(results, (size_t)task, (size_t)column)->mask;
    return mask != NULL ? emo_mask_clone(mask, out, err) : EMO_OK;
}
