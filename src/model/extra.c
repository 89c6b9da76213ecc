/* SPDX-License-Identifier: Apache-2.0 */
#include "model/extra.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

typedef struct list {
    emo__extra *items;
    size_t count;
    size_t capacity;
} list;

static int by_name(const void *name, const void *param) {
    return strcmp(name, ((const emo__named_param *)param)->name);
}

static int in_order(const void *a, const void *b) {
    return strcmp(((const emo__extra *)a)->entry->name, ((const emo__extra *)b)->entry->name);
}

static emo_status push(const emo_model *m, list *l, const emo__st *st, const emo__st_entry *entry, emo_error *err) {
    emo_status status = emo__grow(&m->rt->mem, (void **)&l->items, &l->capacity, l->count + 1, sizeof l->items[0], err);
    if (status == EMO_OK) {
        l->items[l->count].st = st;
        l->items[l->count++].entry = entry;
    }
    return status;
}

/* The first file that has a tensor gives it. */
static bool in_earlier_file(const emo_model *m, size_t file, const char *name) {
    for (size_t i = 0; i < file; i++) {
        if (emo__st_find(m->opened[i], name) != NULL)
            return true;
    }
    return false;
}

emo_status emo__model_extra(const emo_model *m, const emo__named_param *sorted, emo__extra **out, size_t *count,
                            emo_error *err) {
    list l = {NULL, 0, 0};
    emo_status status = EMO_OK;
    for (size_t i = 0; m->files != NULL && status == EMO_OK && i < emo__st_set_count(m->files); i++) {
        const char *name = emo__st_set_name(m->files, i);
        const emo__st *st = NULL;
        const emo__st_entry *entry = NULL;
        if (bsearch(name, sorted, m->n_params, sizeof *sorted, by_name) != NULL)
            continue;
        status = emo__st_set_find(m->files, name, &st, &entry, err);
        if (status == EMO_OK)
            status = push(m, &l, st, entry, err);
    }
    for (size_t f = 0; f < m->n_opened; f++) {
        for (size_t i = 0; status == EMO_OK && i < emo__st_count(m->opened[f]); i++) {
            const emo__st_entry *entry = emo__st_at(m->opened[f], i);
            if (bsearch(entry->name, sorted, m->n_params, sizeof *sorted, by_name) == NULL &&
                !in_earlier_file(m, f, entry->name))
                status = push(m, &l, m->opened[f], entry, err);
        }
    }
    if (status != EMO_OK) {
        emo__free(&m->rt->mem, l.items);
        l.items = NULL;
        l.count = 0;
    } else if (l.count > 1) {
        qsort(l.items, l.count, sizeof l.items[0], in_order);
    }
    *out = l.items;
    *count = l.count;
    return status;
}

emo_status emo__extra_write(const emo__extra *extra, emo__st_writer *w, void *scratch, size_t capacity,
                            emo_error *err) {
    emo_status status = EMO_OK;
    for (uint64_t at = 0; status == EMO_OK && at < extra->entry->bytes;) {
        size_t n = extra->entry->bytes - at < capacity ? (size_t)(extra->entry->bytes - at) : capacity;
        status = emo__st_read(extra->st, extra->entry, at, scratch, n, err);
        if (status == EMO_OK)
            status = emo__st_writer_write(w, extra->entry->name, scratch, n, err);
        at += n;
    }
    return status;
}
