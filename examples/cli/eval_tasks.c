/* SPDX-License-Identifier: Apache-2.0 */
/* emo eval --tasks: scores of tasks and groups, for all experts and for subsets of several sizes. */
#include "eval_tasks.h"
#include "dataset.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- What a dry run shows ---- */

static const char *type_name(emo_task_type type) {
    return type == EMO_TASK_CHOICE ? "multiple_choice" : type == EMO_TASK_GENERATION ? "generation" : "perplexity";
}

typedef emo_status (*text_call)(const emo_task_set *, int32_t, int64_t, int32_t, char *, size_t, size_t *, emo_error *);

/* A text of the first item, allocated. */
static emo_status first_text(cli *c, text_call call, const emo_task_set *set, int32_t task, int32_t choice,
                             char **out) {
    size_t size = 0;
    *out = NULL;
    emo_status status = call(set, task, 0, choice, NULL, 0, &size, &c->err);
    if (status != EMO_OK)
        return status;
    *out = malloc(size);
    if (*out == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for a prompt");
    return call(set, task, 0, choice, *out, size, &size, &c->err);
}

static void json_task_info(json_writer *json, const emo_task_set *set, int32_t task, const emo_task_info *info) {
    json_string(json, "name", info->name);
    json_string(json, "type", type_name(info->type));
    json_integer(json, "items", info->items);
    json_integer(json, "validation", info->validation);
    json_integer(json, "examples", info->examples);
    json_open_array(json, "metrics");
    for (int32_t m = 0; m < info->metrics; m++)
        json_string(json, NULL, emo_task_set_metric(set, task, m));
    json_close_array(json);
}

/* Continuations that are the same for every choice are shown once; prompts that differ, all. */
static emo_status show_texts(cli *c, const emo_task_set *set, int32_t task, const emo_task_info *info,
                             json_writer *json) {
    char *text = NULL;
    emo_status status = first_text(c, emo_task_set_prompt, set, task, 0, &text);
    if (status == EMO_OK && json != NULL)
        json_string(json, "prompt", text);
    else if (status == EMO_OK)
        printf("%s", text);
    if (json != NULL && status == EMO_OK)
        json_open_array(json, "continuations");
    for (int32_t i = 0; status == EMO_OK && i < info->most_choices; i++) {
        free(text);
        status = first_text(c, emo_task_set_continuation, set, task, i, &text);
        if (status == EMO_E_RANGE && i > 1) { /* this item has fewer choices than others */
            c->err.code = EMO_OK;
            status = EMO_OK;
            break;
        }
        if (status != EMO_OK)
            break;
        if (json != NULL)
            json_string(json, NULL, text);
        else
            printf("%s[%s]", i == 0 ? "" : " ", text);
    }
    if (json != NULL && status == EMO_OK)
        json_close_array(json);
    free(text);
    return status;
}

static emo_status dry_run(cli *c, const emo_task_set *set) {
    json_writer json = {stdout, 0, {0}};
    emo_status status = EMO_OK;
    if (c->common.json) {
        json_open(&json, NULL);
        json_open_array(&json, "tasks");
    }
    for (int32_t t = 0; status == EMO_OK && t < emo_task_set_tasks(set); t++) {
        emo_task_info info;
        EMO_TRY(status = emo_task_set_task(set, t, &info, &c->err));
        if (c->common.json) {
            json_open(&json, NULL);
            json_task_info(&json, set, t, &info);
        } else {
            printf("%s%s: %s, %" PRId64 " items, %" PRId64 " validation items, %" PRId64 " examples in front, by %s\n"
                   "The first item's prompt, and in brackets what %s:\n----\n",
                   t == 0 ? "" : "\n", info.name, type_name(info.type), info.items, info.validation, info.examples,
                   emo_task_set_metric(set, t, 0),
                   info.type == EMO_TASK_GENERATION ? "an example would show" : "is scored");
        }
        EMO_TRY(status = show_texts(c, set, t, &info, c->common.json ? &json : NULL));
        if (c->common.json)
            json_close(&json);
        else
            printf("\n----\n");
    }
    if (c->common.json) {
        json_close_array(&json);
        json_open_array(&json, "groups");
    }
    for (int32_t g = 0; status == EMO_OK && g < emo_task_set_groups(set); g++) {
        emo_task_group group;
        EMO_TRY(status = emo_task_set_group(set, g, &group, &c->err));
        if (c->common.json)
            json_string(&json, NULL, group.name);
        else
            printf("\ngroup %s: %d members, the mean over %s\n", group.name, (int)group.count,
                   group.by_items ? "items" : "members");
    }
    if (c->common.json) {
        json_close_array(&json);
        json_close(&json);
    }
done:
    return status;
}

/* ---- Columns ---- */

emo_select_method select_method_of(const char *name) {
    if (strcmp(name, "usage") == 0)
        return EMO_SELECT_USAGE;
    if (strcmp(name, "easy-ep") == 0)
        return EMO_SELECT_EASY_EP;
    if (strcmp(name, "random") == 0)
        return EMO_SELECT_RANDOM;
    return EMO_SELECT_LAYERWISE;
}

/* Experts of the first MoE layer: routed and shared. */
static void model_experts(const emo_model *model, int32_t *routed, int32_t *shared) {
    *routed = *shared = 0;
    for (int32_t l = 0; emo_model_experts(model, l) >= 0; l++) {
        if (emo_model_experts(model, l) == 0)
            continue;
        *shared = emo_model_shared(model, l);
        *routed = emo_model_experts(model, l) - *shared;
        return;
    }
}

/* "all", "9" (experts, the shared ones included) or "25%" (of the routed ones, and the shared ones). */
static int parse_keep(const char *word, size_t length, int32_t routed, int32_t shared, int32_t *out) {
    char text[32];
    char *end = NULL;
    if (length == 0 || length >= sizeof(text))
        return 0;
    memcpy(text, word, length);
    text[length] = '\0';
    if (strcmp(text, "all") == 0) {
        *out = 0;
        return 1;
    }
    if (strspn(text, "0123456789.%") != length)
        return 0;
    double value = strtod(text, &end);
    if (end == text || !(value > 0))
        return 0;
    if (strcmp(end, "%") == 0 && value <= 100) {
        double experts = floor(value / 100 * routed + 0.5);
        *out = shared + (int32_t)(experts < 1 ? 1 : experts);
        return 1;
    }
    *out = (int32_t)value;
    return *end == '\0' && value <= 1048576 && value == floor(value);
}

static emo_status keep_list(cli *c, const char *words, const emo_model *model, int32_t **out, size_t *count) {
    int32_t routed = 0, shared = 0;
    size_t n = 1;
    for (const char *at = words; *at != '\0'; at++)
        n += *at == ',';
    *out = calloc(n, sizeof(**out));
    if (*out == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the list of subsets");
    model_experts(model, &routed, &shared);
    for (const char *at = words; *count < n; at += strcspn(at, ",") + 1) {
        if (!parse_keep(at, strcspn(at, ","), routed, shared, &(*out)[(*count)++]))
            return cli_fail(c, EMO_E_INVALID_ARGUMENT,
                            "--keep takes 'all', numbers of experts and shares such as 25%%, with commas between them, "
                            "not '%s'",
                            words);
    }
    return EMO_OK;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* "all", "layerwise 25 %", "random 25 %", or the mask's file. */
static emo_status column_name(cli *c, const emo_task_results *results, int32_t column, const tasks_request *r,
                              char *out, size_t capacity, emo_task_column *what) {
    emo_status status = emo_task_results_column(results, column, what, &c->err);
    if (status != EMO_OK)
        return status;
    if (what->kind == EMO_TASK_COLUMN_ALL)
        snprintf(out, capacity, "all");
    else if (what->kind == EMO_TASK_COLUMN_MASK)
        snprintf(out, capacity, "%s", base_name(r->masks->items[what->mask]));
    else
        snprintf(out, capacity, "%s %.4g %%", what->kind == EMO_TASK_COLUMN_RANDOM ? "random" : r->method,
                 100 * what->share);
    return EMO_OK;
}

/* ---- Results ---- */

/* A mean over items as a percentage, other measures as they are. */
static void score_cell(text_table *table, const emo_task_score *score, int lower_is_better) {
    if (lower_is_better)
        table_cell(table, "%.4f", score->value);
    else
        table_cell(table, "%.1f", 100 * score->value);
}

/* The first task of a group, whose metric is the group's. */
static int32_t first_member(const emo_task_set *set, int32_t member) {
    emo_task_group group;
    emo_error ignored = EMO_ERROR_INIT;
    while (member < 0 && emo_task_set_group(set, -1 - member, &group, &ignored) == EMO_OK)
        member = group.members[0];
    return member;
}

static emo_status print_table(cli *c, const tasks_request *r, const emo_task_set *set,
                              const emo_task_results *results) {
    int32_t columns = emo_task_results_columns(results);
    text_table table;
    emo_task_score score;
    emo_task_column what;
    emo_status status = EMO_OK;
    int64_t truncated = 0;
    table_begin(&table, 3 + (size_t)columns);
    table_cell(&table, "task");
    table_cell(&table, "metric");
    table_cell(&table, "items");
    for (int32_t i = 0; i < columns; i++) {
        char name[256];
        EMO_TRY(status = column_name(c, results, i, r, name, sizeof(name), &what));
        table_cell(&table, "%s", name);
    }
    for (int32_t t = 0; t < emo_task_set_tasks(set); t++) {
        emo_task_info info;
        EMO_TRY(status = emo_task_set_task(set, t, &info, &c->err));
        table_cell(&table, "%s", info.name);
        table_cell(&table, "%s", emo_task_set_metric(set, t, 0));
        table_cell(&table, "%" PRId64, info.items);
        for (int32_t i = 0; i < columns; i++) {
            EMO_TRY(status = emo_task_results_score(results, t, i, 0, &score, &c->err));
            score_cell(&table, &score, info.lower_is_better);
            truncated += i == 0 ? score.truncated : 0;
        }
    }
    for (int32_t g = 0; g < emo_task_set_groups(set); g++) {
        emo_task_group group;
        emo_task_info info;
        EMO_TRY(status = emo_task_set_group(set, g, &group, &c->err));
        EMO_TRY(status = emo_task_set_task(set, first_member(set, group.members[0]), &info, &c->err));
        EMO_TRY(status = emo_task_results_group(results, g, 0, &score, &c->err));
        table_cell(&table, "[%s]", group.name);
        table_cell(&table, "mean of %d", (int)group.count);
        table_cell(&table, "%" PRId64, score.items);
        for (int32_t i = 0; i < columns; i++) {
            EMO_TRY(status = emo_task_results_group(results, g, i, &score, &c->err));
            score_cell(&table, &score, info.lower_is_better);
        }
    }
done:
    table_print(&table, stdout);
    if (status == EMO_OK && truncated > 0 && !c->common.quiet)
        fprintf(stderr,
                "emo: warning: %" PRId64 " prompts were longer than the window and lost their beginning (--context)\n",
                truncated);
    return status;
}

static void json_score(json_writer *json, const emo_task_score *score) {
    json_open(json, NULL);
    json_number(json, "value", score->value);
    json_number(json, "error", score->error);
    json_integer(json, "items", score->items);
    json_integer(json, "truncated", score->truncated);
    json_close(json);
}

static emo_status json_columns(cli *c, json_writer *json, const tasks_request *r, const emo_task_results *results) {
    static const char *const kinds[] = {"all", "subset", "random", "mask"};
    emo_status status = EMO_OK;
    json_open_array(json, "columns");
    for (int32_t i = 0; status == EMO_OK && i < emo_task_results_columns(results); i++) {
        char name[256];
        emo_task_column what;
        status = column_name(c, results, i, r, name, sizeof(name), &what);
        if (status != EMO_OK)
            break;
        json_open(json, NULL);
        json_string(json, "name", name);
        json_string(json, "kind", kinds[what.kind]);
        json_number(json, "share", what.share);
        if (what.keep > 0)
            json_integer(json, "keep", what.keep);
        if (what.kind == EMO_TASK_COLUMN_SUBSET)
            json_string(json, "method", r->method);
        if (what.kind == EMO_TASK_COLUMN_RANDOM)
            json_integer(json, "draws", what.draws);
        json_close(json);
    }
    json_close_array(json);
    return status;
}

static emo_status print_json(cli *c, const tasks_request *r, const emo_task_set *set, const emo_task_results *results) {
    int32_t columns = emo_task_results_columns(results);
    json_writer json = {stdout, 0, {0}};
    emo_task_score score;
    emo_status status;
    json_open(&json, NULL);
    EMO_TRY(status = json_columns(c, &json, r, results));
    json_open_array(&json, "tasks");
    for (int32_t t = 0; t < emo_task_set_tasks(set); t++) {
        emo_task_info info;
        EMO_TRY(status = emo_task_set_task(set, t, &info, &c->err));
        json_open(&json, NULL);
        json_task_info(&json, set, t, &info);
        json_open(&json, "scores"); /* by metric, an entry for each column */
        for (int32_t m = 0; m < info.metrics; m++) {
            json_open_array(&json, emo_task_set_metric(set, t, m));
            for (int32_t i = 0; i < columns; i++) {
                EMO_TRY(status = emo_task_results_score(results, t, i, m, &score, &c->err));
                json_score(&json, &score);
            }
            json_close_array(&json);
        }
        json_close(&json);
        json_close(&json);
    }
    json_close_array(&json);
    json_open_array(&json, "groups");
    for (int32_t g = 0; g < emo_task_set_groups(set); g++) {
        emo_task_group group;
        EMO_TRY(status = emo_task_set_group(set, g, &group, &c->err));
        json_open(&json, NULL);
        json_string(&json, "name", group.name);
        json_open_array(&json, "scores");
        for (int32_t i = 0; i < columns; i++) {
            EMO_TRY(status = emo_task_results_group(results, g, i, &score, &c->err));
            json_score(&json, &score);
        }
        json_close_array(&json);
        json_close(&json);
    }
    json_close_array(&json);
    json_close(&json);
done:
    return status;
}

/* A line for each item of each task and column. */
static void write_item(FILE *file, const char *task, const char *column, const emo_task_item *item) {
    json_writer json = {file, 0, {0}};
    json_open(&json, NULL);
    json_string(&json, "task", task);
    json_string(&json, "column", column);
    json_string(&json, "source", item->source);
    json_integer(&json, "line", item->line);
    json_number(&json, "value", item->value);
    if (item->answer >= 0) {
        json_integer(&json, "answer", item->answer);
        json_integer(&json, "chosen", item->chosen);
    }
    if (item->truncated)
        json_boolean(&json, "truncated", 1);
    if (item->text != NULL)
        json_string(&json, "text", item->text);
    if (item->choices > 0) {
        json_open_array(&json, "logprobs");
        for (int32_t i = 0; i < item->choices; i++)
            json_number(&json, NULL, item->logprobs[i]);
        json_close_array(&json);
        json_open_array(&json, "tokens");
        for (int32_t i = 0; i < item->choices; i++)
            json_integer(&json, NULL, item->tokens[i]);
        json_close_array(&json);
    }
    json_close(&json);
}

static emo_status write_items(cli *c, const tasks_request *r, const emo_task_set *set,
                              const emo_task_results *results) {
    emo_status status = EMO_OK;
    FILE *file = fopen(r->items, "wb");
    if (file == NULL)
        return cli_fail(c, EMO_E_IO, "%s: cannot be written: %s", r->items, strerror(errno));
    for (int32_t t = 0; t < emo_task_set_tasks(set); t++) {
        emo_task_info info;
        EMO_TRY(status = emo_task_set_task(set, t, &info, &c->err));
        for (int32_t i = 0; i < emo_task_results_columns(results); i++) {
            char name[256];
            emo_task_column what;
            EMO_TRY(status = column_name(c, results, i, r, name, sizeof(name), &what));
            for (int64_t k = 0; k < info.items; k++) {
                emo_task_item item;
                EMO_TRY(status = emo_task_results_item(results, t, i, k, &item, &c->err));
                write_item(file, info.name, name, &item);
            }
        }
    }
done:
    if ((ferror(file) != 0) + (fclose(file) != 0) > 0 && status == EMO_OK)
        status = cli_fail(c, EMO_E_IO, "%s: writing failed", r->items);
    return status;
}

/* ---- All of it ---- */

static emo_status run(cli *c, const tasks_request *r, const emo_task_set *set, emo_model *model, emo_mask *const *masks,
                      emo_task_results **out) {
    emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
    int32_t *keep = NULL;
    size_t n_keep = 0;
    emo_status status = r->keep != NULL ? keep_list(c, r->keep, model, &keep, &n_keep) : EMO_OK;
    if (status == EMO_OK) {
        options.method = select_method_of(r->method);
        options.keep = keep;
        options.n_keep = n_keep;
        options.masks = (const emo_mask *const *)masks;
        options.n_masks = r->masks->count;
        options.random = r->random;
        options.seq_len = r->context;
        options.examples = r->examples;
        options.seed = r->seed;
        options.progress = cli_progress(c);
        status = emo_task_run(model, set, &options, out, &c->err);
    }
    free(keep);
    return status;
}

emo_status eval_tasks(cli *c, const tasks_request *r) {
    emo_task_set_options options = EMO_TASK_SET_OPTIONS_INIT;
    emo_task_set *set = NULL;
    emo_task_results *results = NULL;
    emo_model *model = NULL;
    const emo_tokenizer *tokenizer = NULL;
    emo_mask **masks = calloc(r->masks->count + 1, sizeof(void *));
    if (masks == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for the masks");
    options.limit = r->limit;
    options.progress = cli_progress(c);
    EMO_TRY(emo_task_set_open(c->rt, r->file, &options, &set, &c->err));
    progress_clear(&c->line);
    if (r->dry_run) {
        EMO_TRY(dry_run(c, set));
        goto done;
    }
    for (size_t i = 0; i < r->masks->count; i++)
        EMO_TRY(emo_mask_load(c->rt, r->masks->items[i], &masks[i], &c->err));
    EMO_TRY(cli_load_within(c, r->folder, NULL, r->cache, &model));
    EMO_TRY(model_tokenizer(c, model, r->folder, &tokenizer));
    EMO_TRY(run(c, r, set, model, masks, &results));
    progress_clear(&c->line);
    if (r->items != NULL)
        EMO_TRY(write_items(c, r, set, results));
    EMO_TRY(c->common.json ? print_json(c, r, set, results) : print_table(c, r, set, results));
done:
    for (size_t i = 0; i < r->masks->count; i++)
        emo_mask_release(masks[i]);
    free(masks);
    emo_task_results_release(results);
    emo_task_set_release(set);
    emo_model_release(model);
    return c->err.code;
}
