/* SPDX-License-Identifier: Apache-2.0 */
/* Data files: a JSON object a line, rendered by the task's templates as it is read. */
#include <string.h>

#include "base/parse.h"
#include "base/status.h"
#include "eval/tasks.h"
#include "io/files.h"
#include "io/gzip.h"

/* One item while it is made. */
typedef struct draft {
    const emo__mem *mem;
    const emo__task_spec *spec;
    const emo__json *object;
    const char *where;
    char *choices[EMO__TASK_CHOICES_MAX];
    emo__values values;
    emo__task_item *item;
} draft;

static emo_status wrong(const draft *d, emo_error *err, const char *field, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%.80s\" %s", d->where, field, what);
}

static emo_status need(const draft *d, const char *field, const char *key, const emo__json **out, emo_error *err) {
    *out = emo__field(d->object, field);
    if (*out != NULL)
        return EMO_OK;
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                        "%s: there is no field \"%.80s\"; the task's \"%s\" names the field to look in", d->where,
                        field, key);
}

/* The buffer's text as a string of its own. */
static emo_status take(const draft *d, const emo__buf *text, char **out, emo_error *err) {
    *out = emo__strndup(d->mem, text->size > 0 ? text->data : "", text->size);
    return *out != NULL ? EMO_OK : emo__fail_memory(err, text->size + 1);
}

static emo_status render(draft *d, const emo__template *t, char **out, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, d->mem);
    emo_status status = emo__template_render(t, &d->values, &text, err);
    if (status == EMO_OK)
        status = take(d, &text, out, err);
    emo__buf_free(&text);
    return status;
}

static emo_status node_text(draft *d, const emo__json *node, const char *field, char **out, emo_error *err) {
    emo__buf text;
    emo__buf_init(&text, d->mem);
    emo_status status = EMO_OK;
    if (!emo__field_text(node, &text, &status, err))
        status = wrong(d, err, field, "must be text (without NULs), a number or a truth value");
    if (status == EMO_OK)
        status = take(d, &text, out, err);
    emo__buf_free(&text);
    return status;
}

/* ---- choices ---- */

static emo_status read_choices(draft *d, emo_error *err) {
    const emo__task_spec *spec = d->spec;
    emo_status status = EMO_OK;
    const emo__json *list = NULL;
    size_t n = spec->n_options;
    if (spec->options == NULL) {
        status = need(d, spec->choices_field, "choices", &list, err);
        n = emo__json_size(list);
        if (status == EMO_OK && (emo__json_typeof(list) != EMO__JSON_ARRAY || n < 2 || n > EMO__TASK_CHOICES_MAX))
            status = wrong(d, err, spec->choices_field, "must be a list of 2 to 26 choices");
    }
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        status = spec->options != NULL ? render(d, &spec->options[i], &d->choices[i], err)
                                       : node_text(d, emo__json_at(list, i), spec->choices_field, &d->choices[i], err);
    }
    if (status == EMO_OK)
        d->values.n_choices = (int32_t)n;
    d->values.choices = d->choices;
    return status;
}

static int32_t index_in(char *const *texts, int32_t n, const char *text) {
    for (int32_t i = 0; i < n; i++) {
        if (strcmp(texts[i], text) == 0)
            return i;
    }
    return -1;
}

static emo_status label_index(draft *d, const char *text, int32_t *out, emo_error *err) {
    const emo__json *list = NULL;
    emo_status status = need(d, d->spec->labels_field, "labels", &list, err);
    *out = -1;
    if (status == EMO_OK &&
        (emo__json_typeof(list) != EMO__JSON_ARRAY || emo__json_size(list) != (size_t)d->values.n_choices))
        return wrong(d, err, d->spec->labels_field, "must be a list with a label for each choice");
    for (int32_t i = 0; status == EMO_OK && *out < 0 && i < d->values.n_choices; i++) {
        char *label = NULL;
        status = node_text(d, emo__json_at(list, (size_t)i), d->spec->labels_field, &label, err);
        if (status == EMO_OK && strcmp(label, text) == 0)
            *out = i;
        emo__free(d->mem, label);
    }
    return status;
}

/* Truth values count as 0 and 1. */
static int64_t number_in(const emo__json *node, const char *text) {
    int64_t value = -1;
    bool truth = false;
    if (emo__json_bool(node, &truth))
        return truth ? 1 : 0;
    return emo__parse_i64(text, strlen(text), &value) ? value : -1;
}

static emo_status right_choice(draft *d, emo_error *err) {
    const emo__task_spec *spec = d->spec;
    const emo__json *node = NULL;
    char *text = NULL;
    int32_t n = d->values.n_choices;
    int64_t index = -1;
    int32_t found = -1;
    const char *want = "";
    emo_status status = need(d, spec->answer_field, "answer", &node, err);
    if (status == EMO_OK)
        status = node_text(d, node, spec->answer_field, &text, err);
    if (status != EMO_OK)
        return status;
    switch (spec->answer_is) {
    case EMO__ANSWER_INDEX:
        index = number_in(node, text);
        want = "must be the index of a choice, from 0 (other forms: \"answer_is\")";
        break;
    case EMO__ANSWER_NUMBER:
        index = number_in(node, text) - 1;
        want = "must be the number of a choice, from 1 (\"answer_is\": \"number\")";
        break;
    case EMO__ANSWER_LETTER:
        index = text[0] != '\0' && text[1] == '\0' ? (text[0] | 32) - 'a' : -1;
        want = "must be the letter of a choice (\"answer_is\": \"letter\")";
        break;
    case EMO__ANSWER_LABEL:
        status = label_index(d, text, &found, err);
        index = found;
        want = "must be one of the labels (\"answer_is\": \"label\")";
        break;
    default:
        index = index_in(d->choices, n, text);
        want = "must be the text of a choice (\"answer_is\": \"text\")";
        break;
    }
    emo__free(d->mem, text);
    if (status == EMO_OK && (index < 0 || index >= n))
        status = wrong(d, err, spec->answer_field, want);
    d->item->answer = (int32_t)index;
    return status;
}

/* ---- generation ---- */

static emo_status read_answers(draft *d, emo_error *err) {
    const emo__json *node = NULL;
    emo_status status = need(d, d->spec->answer_field, "answer", &node, err);
    if (status != EMO_OK)
        return status;
    bool list = emo__json_typeof(node) == EMO__JSON_ARRAY;
    size_t n = list ? emo__json_size(node) : 1;
    if (n == 0)
        return wrong(d, err, d->spec->answer_field, "has no answer in it");
    d->item->answers = emo__calloc(d->mem, n, sizeof *d->item->answers);
    if (d->item->answers == NULL)
        return emo__fail_memory(err, n * sizeof *d->item->answers);
    for (size_t i = 0; status == EMO_OK && i < n; i++, d->item->n_answers++)
        status = node_text(d, list ? emo__json_at(node, i) : node, d->spec->answer_field, &d->item->answers[i], err);
    d->values.answer = d->item->answers[0];
    return status;
}

/* ---- items ---- */

static void free_item(const emo__mem *mem, emo__task_item *item) {
    for (int32_t i = 0; item->prompts != NULL && i < item->n_choices; i++)
        emo__free(mem, item->prompts[i]);
    for (int32_t i = 0; item->continuations != NULL && i < item->n_choices; i++)
        emo__free(mem, item->continuations[i]);
    for (size_t i = 0; item->answers != NULL && i < item->n_answers; i++)
        emo__free(mem, item->answers[i]);
    emo__free(mem, item->prompts);
    emo__free(mem, item->continuations);
    emo__free(mem, item->answers);
    emo__free(mem, item->description);
    emo__free(mem, item->by);
}

static emo_status make_texts(draft *d, emo_error *err) {
    emo__task_item *item = d->item;
    const emo__task_spec *spec = d->spec;
    size_t n = (size_t)item->n_choices;
    emo_status status;
    item->prompts = emo__calloc(d->mem, n, sizeof *item->prompts); /* without prompt_each only the first is there */
    item->continuations = emo__calloc(d->mem, n, sizeof *item->continuations);
    if (item->prompts == NULL || item->continuations == NULL)
        return emo__fail_memory(err, n * sizeof *item->prompts);
    EMO_TRY(status = render(d, &spec->description, &item->description, err));
    for (int32_t i = 0; i < item->n_choices; i++) {
        d->values.choice = i;
        if (i == 0 || spec->prompt_each)
            EMO_TRY(status = render(d, &spec->prompt, &item->prompts[i], err));
        EMO_TRY(status = render(d, &spec->continuation, &item->continuations[i], err));
        if (item->continuations[i][0] == '\0' && spec->type != EMO_TASK_GENERATION)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                "%s: the continuation%s is empty; there must be something to score", d->where,
                                spec->type == EMO_TASK_CHOICE ? " of a choice" : "");
    }
    if (spec->by != NULL && item->line != 0) { /* examples in the task file are for all */
        const emo__json *node = NULL;
        EMO_TRY(status = need(d, spec->by, "by", &node, err));
        status = node_text(d, node, spec->by, &item->by, err);
    }
done:
    return status;
}

emo_status emo__task_split_add(const emo__mem *mem, const emo__task_spec *spec, const emo__json *object,
                               const char *file, uint64_t line, const char *where, emo__task_split *split,
                               emo_error *err) {
    draft d = {0};
    if (split->count >= EMO__TASK_ITEMS_MAX)
        return emo__fail(err, EMO_E_LIMIT, "%s: more than %d items", where, EMO__TASK_ITEMS_MAX);
    emo_status status =
        emo__grow(mem, (void **)&split->items, &split->capacity, split->count + 1, sizeof *split->items, err);
    if (status != EMO_OK)
        return status;
    emo__task_item *item = &split->items[split->count++];
    memset(item, 0, sizeof *item);
    item->file = file;
    item->line = line;
    item->n_choices = 1;
    d.mem = mem;
    d.spec = spec;
    d.object = object;
    d.where = where;
    d.item = item;
    d.values.item = object;
    d.values.where = where;
    d.values.row = &spec->row;
    if (emo__json_typeof(object) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: an item must be a JSON object", where);
    if (spec->type == EMO_TASK_CHOICE) {
        status = read_choices(&d, err);
        if (status == EMO_OK)
            status = right_choice(&d, err);
        if (status == EMO_OK)
            item->n_choices = d.values.n_choices;
    } else if (spec->type == EMO_TASK_GENERATION) {
        status = read_answers(&d, err);
    }
    if (status == EMO_OK)
        status = make_texts(&d, err);
    for (int32_t i = 0; i < EMO__TASK_CHOICES_MAX; i++)
        emo__free(mem, d.choices[i]);
    return status;
}

/* ---- files ---- */

static emo_status read_line(const emo__task_source *source, const emo__task_spec *spec, const char *file,
                            const char *text, size_t length, uint64_t line, emo__task_split *split, emo_error *err) {
    emo__json *object = NULL;
    emo__buf where;
    emo__buf_init(&where, source->mem);
    emo_status status = emo__buf_printf(&where, err, "%s:%llu", file, (unsigned long long)line);
    if (status == EMO_OK)
        status = emo__json_parse(source->mem, text, length, where.data, &object, err);
    if (status == EMO_OK)
        status = emo__task_split_add(source->mem, spec, object, file, line, where.data, split, err);
    if (status == EMO_E_FORMAT && err != NULL)
        err->number = (int64_t)line;
    emo__json_free(object);
    emo__buf_free(&where);
    return status;
}

static emo_status read_file(const emo__task_source *source, const emo__task_spec *spec, const char *file, size_t limit,
                            emo__task_split *split, emo_error *err) {
    emo__lines *lines = NULL;
    emo__buf path;
    emo__buf_init(&path, source->mem);
    emo_status status = emo__path_join(&path, source->root, file, err);
    if (status == EMO_OK)
        status = emo__lines_open(source->mem, path.data, EMO__TASK_LINE_MAX, &lines, err);
    while (status == EMO_OK && split->count < limit) {
        const char *text = NULL;
        size_t length = 0;
        bool end = false;
        status = emo__lines_next(lines, &text, &length, &end, err);
        if (status != EMO_OK || end)
            break;
        if (length > 0)
            status = read_line(source, spec, file, text, length, emo__lines_number(lines), split, err);
    }
    emo__lines_close(lines);
    emo__buf_free(&path);
    return status;
}

emo_status emo__task_split_read(const emo__task_source *source, const emo__task_spec *spec, int64_t limit,
                                emo__task_split *split, emo_error *err) {
    emo_status status = EMO_OK;
    size_t most = limit > 0 && limit < INT32_MAX ? (size_t)limit : SIZE_MAX;
    for (size_t i = 0; status == EMO_OK && i < split->n_files; i++)
        status = read_file(source, spec, split->files[i], most, split, err);
    if (status == EMO_OK && split->n_files > 0 && split->count == 0)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: %.200s holds no items", spec->where,
                              split->files[0]);
    return status == EMO_OK ? EMO_OK : emo__fail_prefix(err, status, "%.60s", spec->name);
}

void emo__task_split_free(const emo__mem *mem, emo__task_split *split) {
    for (size_t i = 0; i < split->count; i++)
        free_item(mem, &split->items[i]);
    for (size_t i = 0; i < split->n_files; i++)
        emo__free(mem, split->files[i]);
    emo__free(mem, split->items);
    emo__free(mem, split->files);
    memset(split, 0, sizeof *split);
}
