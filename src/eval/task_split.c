/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks from what the file says of them: one, or one for each value of a field. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "eval/tasks.h"
#include "io/names.h"

void emo__task_free(const emo__mem *mem, emo__task *task) {
    emo__free(mem, task->name);
    emo__free(mem, task->data);
    emo__free(mem, task->shots);
    emo__free(mem, task->validation);
    memset(task, 0, sizeof *task);
}

/* The indices of a split's items that have the value (NULL: of all), at most `limit` of them (0: all). */
static emo_status indices(const emo__mem *mem, const emo__task_split *split, const char *value, int64_t limit,
                          size_t **out, size_t *count, emo_error *err) {
    size_t n = 0;
    *out = emo__malloc_array(mem, split->count + 1, sizeof **out);
    if (*out == NULL)
        return emo__fail_memory(err, (split->count + 1) * sizeof **out);
    for (size_t i = 0; i < split->count && (limit == 0 || n < (size_t)limit); i++) {
        const char *by = split->items[i].by;
        if (value == NULL || by == NULL || strcmp(by, value) == 0)
            (*out)[n++] = i;
    }
    *count = n;
    return EMO_OK;
}

static emo_status check_examples(const emo__task *task, emo_error *err) {
    const emo__task_spec *spec = task->spec;
    size_t spare = 0; /* an item that is among the examples is not shown to itself */
    for (size_t f = 0; f < spec->data.n_files; f++) {
        for (size_t g = 0; g < spec->shots.n_files; g++)
            spare = strcmp(spec->data.files[f], spec->shots.files[g]) == 0 ? 1 : spare;
    }
    if ((size_t)spec->n_shots + spare <= task->n_shots || spec->n_shots == 0)
        return EMO_OK;
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                        "%s: %d examples are to be shown%s%.80s; there are %zu%s", spec->where, (int)spec->n_shots,
                        task->spec->by != NULL ? " in " : "", task->spec->by != NULL ? task->name : "", task->n_shots,
                        spare > 0 ? ", and an item is not shown to itself" : "");
}

/* value NULL: all of the spec. */
static emo_status add_task(emo_task_set *set, emo__task_spec *spec, const char *value, emo_error *err) {
    const emo__mem *mem = &set->rt->mem;
    if (set->n_tasks >= EMO__TASKS_MAX)
        return emo__fail(err, EMO_E_LIMIT, "%s: more than %d tasks", spec->where, EMO__TASKS_MAX);
    emo_status status =
        emo__grow(mem, (void **)&set->tasks, &set->cap_tasks, set->n_tasks + 1, sizeof *set->tasks, err);
    if (status != EMO_OK)
        return status;
    emo__task *task = &set->tasks[set->n_tasks++];
    memset(task, 0, sizeof *task);
    task->spec = spec;
    emo__buf name;
    emo__buf_init(&name, mem);
    status = value != NULL ? emo__buf_printf(&name, err, "%s:%s", spec->name, value)
                           : emo__buf_printf(&name, err, "%s", spec->name);
    task->name = name.data; /* the buffer's memory is the task's now */
    if (status == EMO_OK)
        status = indices(mem, &spec->data, value, spec->limit, &task->data, &task->n_data, err);
    if (status == EMO_OK)
        status = indices(mem, &spec->shots, value, 0, &task->shots, &task->n_shots, err);
    if (status == EMO_OK)
        status = indices(mem, &spec->validation, value, 0, &task->validation, &task->n_validation, err);
    if (status == EMO_OK)
        status = check_examples(task, err);
    task->most_choices = 1;
    for (size_t i = 0; status == EMO_OK && i < task->n_data; i++) {
        int32_t n = emo__task_item_at(task, i)->n_choices;
        task->most_choices = n > task->most_choices ? n : task->most_choices;
    }
    return status;
}

static int compare(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The values of "by" in the data, in byte order. */
static emo_status values_of(const emo__mem *mem, const emo__task_split *split, const char ***out, size_t *count,
                            emo_error *err) {
    emo__name_index index;
    emo__name_index_init(&index, mem);
    emo_status status = EMO_OK;
    size_t capacity = 0;
    for (size_t i = 0; status == EMO_OK && i < split->count; i++) {
        bool fresh = false;
        status = emo__name_index_add(&index, split->items[i].by, 0, &fresh, err);
        if (status == EMO_OK && fresh)
            status = emo__grow(mem, (void **)out, &capacity, *count + 1, sizeof **out, err);
        if (status == EMO_OK && fresh)
            (*out)[(*count)++] = split->items[i].by;
    }
    emo__name_index_free(&index);
    if (status == EMO_OK && *count > 0)
        qsort(*out, *count, sizeof **out, compare);
    return status;
}

static emo_status add_group(emo_task_set *set, const emo__task_spec *spec, size_t first, emo_error *err) {
    const emo__mem *mem = &set->rt->mem;
    emo_status status =
        emo__grow(mem, (void **)&set->groups, &set->cap_groups, set->n_groups + 1, sizeof *set->groups, err);
    if (status != EMO_OK)
        return status;
    emo__group *group = &set->groups[set->n_groups++];
    memset(group, 0, sizeof *group);
    group->name = emo__strdup(mem, spec->name);
    if (group->name == NULL)
        return emo__fail_memory(err, strlen(spec->name) + 1);
    status =
        emo__grow(mem, (void **)&group->members, &group->capacity, set->n_tasks - first, sizeof *group->members, err);
    for (size_t i = first; status == EMO_OK && i < set->n_tasks; i++)
        group->members[group->count++] = (int32_t)i;
    return status;
}

emo_status emo__task_set_add(emo_task_set *set, emo__task_spec *spec, emo_error *err) {
    const emo__mem *mem = &set->rt->mem;
    const char **values = NULL;
    size_t n = 0;
    size_t first = set->n_tasks;
    if (spec->by == NULL)
        return add_task(set, spec, NULL, err);
    emo_status status = values_of(mem, &spec->data, &values, &n, err);
    for (size_t i = 0; status == EMO_OK && i < n; i++)
        status = add_task(set, spec, values[i], err);
    emo__free(mem, (void *)values);
    return status == EMO_OK ? add_group(set, spec, first, err) : status;
}
