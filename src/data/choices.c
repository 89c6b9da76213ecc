/* SPDX-License-Identifier: Apache-2.0 */
#include "data/choices.h"

#include <string.h>

#include "base/status.h"
#include "io/gzip.h"
#include "io/json.h"

#define MAX_CHOICES 64

static void free_text(const emo__mem *mem, const char *text) { emo__free(mem, (char *)(uintptr_t)text); }

static void free_item(const emo__mem *mem, emo_choice_item *item) {
    free_text(mem, item->id);
    free_text(mem, item->domain);
    free_text(mem, item->kind);
    free_text(mem, item->context);
    for (int32_t i = 0; item->choices != NULL && i < item->count; i++)
        free_text(mem, item->choices[i]);
    emo__free(mem, (void *)(uintptr_t)item->choices);
}

void emo__choices_release(emo_choices *choices) {
    if (choices == NULL || !emo__ref_put(&choices->ref))
        return;
    emo_runtime *rt = choices->rt;
    for (size_t i = 0; i < choices->count; i++)
        free_item(&rt->mem, &choices->items[i]);
    emo__free(&rt->mem, choices->items);
    emo__free(&rt->mem, choices);
    emo_runtime_release(rt);
}

static emo_status copy_text(const emo__mem *mem, const char *text, const char **out, emo_error *err) {
    *out = emo__strdup(mem, text);
    return *out != NULL ? EMO_OK : emo__fail_memory(err, strlen(text) + 1);
}

static emo_status take_text(const emo__mem *mem, const emo__json *root, const char *key, const char *where,
                            const char **out, emo_error *err) {
    const char *text;
    emo_status status = emo__json_opt_string(root, key, where, "", &text, err);
    return status == EMO_OK ? copy_text(mem, text, out, err) : status;
}

static emo_status take_choices(const emo__mem *mem, const emo__json *root, const char *where, emo_choice_item *item,
                               emo_error *err) {
    const emo__json *list = emo__json_get(root, "choices");
    size_t n = emo__json_size(list);
    if (emo__json_typeof(list) != EMO__JSON_ARRAY || n < 2 || n > MAX_CHOICES)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"choices\" must be a list of 2 to %d strings",
                            where, MAX_CHOICES);
    const char **texts = emo__calloc(mem, n, sizeof *texts);
    if (texts == NULL)
        return emo__fail_memory(err, n * sizeof *texts);
    item->choices = texts;
    item->count = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        size_t length;
        const char *text = emo__json_string(emo__json_at(list, i), &length);
        if (text == NULL || length == 0 || strlen(text) != length)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)i,
                                "%s: \"choices\"[%zu] must be a string that is not empty", where, i);
        emo_status status = copy_text(mem, text, &texts[i], err);
        if (status != EMO_OK)
            return status;
    }
    return emo__json_need_i32(root, "answer", where, 0, (int32_t)n - 1, &item->answer, err);
}

static emo_status take_item(const emo__mem *mem, const char *line, size_t length, const char *where,
                            emo_choice_item *item, emo_error *err) {
    emo__json *root = NULL;
    const char *context;
    emo_status status = emo__json_parse(mem, line, length, where, &root, err);
    if (status != EMO_OK)
        return status;
    if (emo__json_typeof(root) != EMO__JSON_OBJECT)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: must be a JSON object", where);
    if (status == EMO_OK)
        status = emo__json_need_string(root, "context", where, &context, err);
    if (status == EMO_OK)
        status = copy_text(mem, context, &item->context, err);
    if (status == EMO_OK)
        status = take_text(mem, root, "id", where, &item->id, err);
    if (status == EMO_OK)
        status = take_text(mem, root, "domain", where, &item->domain, err);
    if (status == EMO_OK)
        status = take_text(mem, root, "kind", where, &item->kind, err);
    if (status == EMO_OK)
        status = take_choices(mem, root, where, item, err);
    emo__json_free(root);
    return status;
}

static emo_status read_items(emo_choices *choices, const char *path, emo__lines *lines, emo_error *err) {
    const emo__mem *mem = &choices->rt->mem;
    emo__buf where;
    emo__buf_init(&where, mem);
    emo_status status = EMO_OK;
    for (;;) {
        const char *line;
        size_t length;
        bool end;
        status = emo__lines_next(lines, &line, &length, &end, err);
        if (status != EMO_OK || end)
            break;
        if (length == 0)
            continue;
        where.size = 0;
        status = emo__buf_printf(&where, err, "%s:%llu", path, (unsigned long long)emo__lines_number(lines));
        if (status == EMO_OK)
            status = emo__grow(mem, (void **)&choices->items, &choices->capacity, choices->count + 1,
                               sizeof choices->items[0], err);
        if (status != EMO_OK)
            break;
        emo_choice_item *item = &choices->items[choices->count++];
        memset(item, 0, sizeof *item);
        status = take_item(mem, line, length, where.data, item, err);
        if (status != EMO_OK)
            break;
    }
    emo__buf_free(&where);
    if (status == EMO_OK && choices->count == 0)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: holds no items", path);
    return status;
}

emo_status emo__choices_open(emo_runtime *rt, const char *path, emo_choices **out, emo_error *err) {
    *out = NULL;
    emo_choices *choices = emo__calloc(&rt->mem, 1, sizeof *choices);
    if (choices == NULL)
        return emo__fail_memory(err, sizeof *choices);
    emo__ref_init(&choices->ref);
    choices->rt = emo__runtime_retain(rt);
    emo__lines *lines = NULL;
    emo_status status = emo__lines_open(&rt->mem, path, 0, &lines, err);
    if (status == EMO_OK)
        status = read_items(choices, path, lines, err);
    emo__lines_close(lines);
    if (status != EMO_OK) {
        emo__choices_release(choices);
        return status;
    }
    *out = choices;
    return EMO_OK;
}
