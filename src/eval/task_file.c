/* SPDX-License-Identifier: Apache-2.0 */
/* A task file: its tasks, and groups of them. */
#include <stdio.h>
#include <string.h>

#include "base/progress.h"
#include "base/status.h"
#include "eval/tasks.h"
#include "io/files.h"

#define MAX_FILE ((size_t)64 << 20)

typedef struct reading {
    emo_task_set *set;
    emo__task_source source;
    const emo_task_set_options *options;
    const char *name; /* of the file, for messages */
} reading;

/* "tasks.json: tasks[2]" into where; returns its length. Names of files are cut. */
static size_t place_name(char *where, size_t capacity, const char *file, const char *list, size_t index) {
    int n = snprintf(where, capacity, "%.120s: %s[%zu]", file, list, index);
    return n > 0 ? (size_t)n : 0;
}

/* ---- groups ---- */

/* The members of a task or group of that name, as one member; false: there is none. */
static bool find_member(const emo_task_set *set, const char *name, int32_t *out) {
    for (size_t i = 0; i < set->n_groups; i++) {
        if (strcmp(set->groups[i].name, name) == 0) {
            *out = -1 - (int32_t)i;
            return true;
        }
    }
    for (size_t i = 0; i < set->n_tasks; i++) {
        if (strcmp(set->tasks[i].name, name) == 0) {
            *out = (int32_t)i;
            return true;
        }
    }
    return false;
}

/* The first metric of a member's first task: groups of groups have it through their own first member. */
static emo__metric metric_of(const emo_task_set *set, int32_t member) {
    while (member < 0)
        member = set->groups[-1 - member].members[0];
    return set->tasks[member].spec->metrics[0];
}

static emo_status read_members(const reading *r, const emo__json *list, const char *where, emo__group *group,
                               emo_error *err) {
    const emo__mem *mem = r->source.mem;
    emo_task_set *set = r->set;
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < emo__json_size(list); i++) {
        const char *name = emo__json_string(emo__json_at(list, i), NULL);
        int32_t member = 0;
        if (name == NULL || !find_member(set, name, &member))
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                "%s: \"tasks\"[%zu] (%.60s) must be the name of a task or of a group above", where, i,
                                name != NULL ? name : "no string");
        emo__metric own = metric_of(set, member);
        emo__metric first = i > 0 ? metric_of(set, group->members[0]) : own;
        if (own != first && (emo__metric_lower_is_better(own) || emo__metric_lower_is_better(first)))
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                "%s: %.60s is measured by %s, the tasks before it by %s: these have no mean", where,
                                name, emo__metric_name(own), emo__metric_name(first));
        status =
            emo__grow(mem, (void **)&group->members, &group->capacity, group->count + 1, sizeof *group->members, err);
        if (status == EMO_OK)
            group->members[group->count++] = member;
    }
    return status;
}

static emo_status read_group(const reading *r, const emo__json *object, size_t index, emo_error *err) {
    static const char *const keys[] = {"name", "tasks", "average", "comment"};
    const emo__mem *mem = r->source.mem;
    emo_task_set *set = r->set;
    char where[320];
    const char *name = NULL;
    const char *average = NULL;
    int32_t member = 0;
    emo__group group = {0};
    emo_status status;
    (void)place_name(where, sizeof where, r->name, "groups", index);
    for (emo__json_iter it = emo__json_members(object); emo__json_next(&it);) {
        size_t i = 0;
        while (i < sizeof keys / sizeof keys[0] && strcmp(it.key, keys[i]) != 0)
            i++;
        if (i == sizeof keys / sizeof keys[0])
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                "%s: unknown key \"%.60s\"; a group has name, tasks, average", where, it.key);
    }
    EMO_TRY(status = emo__json_need_string(object, "name", where, &name, err));
    EMO_TRY(status = emo__json_opt_string(object, "average", where, "tasks", &average, err));
    if (strcmp(average, "tasks") != 0 && strcmp(average, "items") != 0)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: \"average\" is \"%.60s\"; it may be tasks, items", where, average);
    if (name[0] == '\0' || find_member(set, name, &member))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: the name \"%.60s\" is %s", where, name,
                            name[0] == '\0' ? "empty" : "taken by a task or group above");
    const emo__json *list = emo__json_get(object, "tasks");
    if (emo__json_typeof(list) != EMO__JSON_ARRAY || emo__json_size(list) == 0)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"tasks\" must be a list of names", where);
    EMO_TRY(status =
                emo__grow(mem, (void **)&set->groups, &set->cap_groups, set->n_groups + 1, sizeof *set->groups, err));
    group.by_items = strcmp(average, "items") == 0;
    status = read_members(r, list, where, &group, err);
    group.name = emo__strdup(mem, name);
    if (status == EMO_OK && group.name == NULL)
        status = emo__fail_memory(err, strlen(name) + 1);
    set->groups[set->n_groups++] = group;
done:
    return status;
}

/* ---- tasks ---- */

static emo_status read_task(const reading *r, const emo__json *object, size_t index, emo_error *err) {
    const emo__mem *mem = r->source.mem;
    emo_task_set *set = r->set;
    char where[320];
    int32_t member = 0;
    const char *name = emo__json_string(emo__json_get(object, "name"), NULL);
    size_t at = place_name(where, sizeof where, r->name, "tasks", index);
    if (name != NULL && strlen(name) <= 64)
        (void)snprintf(where + at, sizeof where - at, " (%s)", name);
    if (name != NULL && find_member(set, name, &member))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: there is a task of this name above", where);
    emo_status status = emo__grow(mem, (void **)&set->specs, &set->cap_specs, set->n_specs + 1, sizeof(void *), err);
    if (status != EMO_OK)
        return status;
    emo__task_spec *spec = emo__calloc(mem, 1, sizeof *spec);
    if (spec == NULL)
        return emo__fail_memory(err, sizeof *spec);
    set->specs[set->n_specs++] = spec;
    status = emo__task_spec_read(&r->source, object, where, spec, err);
    return status == EMO_OK ? emo__task_set_add(set, spec, err) : status;
}

static emo_status read_all(const reading *r, const emo__json *root, emo_error *err) {
    const emo__json *tasks = emo__json_get(root, "tasks");
    const emo__json *groups = emo__json_get(root, "groups");
    size_t n = emo__json_size(tasks);
    emo_status status = EMO_OK;
    for (emo__json_iter it = emo__json_members(root); emo__json_next(&it);) {
        if (strcmp(it.key, "tasks") != 0 && strcmp(it.key, "groups") != 0 && strcmp(it.key, "comment") != 0)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                                "%s: unknown key \"%.60s\"; there are tasks, groups, comment", r->name, it.key);
    }
    if (emo__json_typeof(tasks) != EMO__JSON_ARRAY || n == 0)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: must be an object with \"tasks\", a list of one or more", r->name);
    if (groups != NULL && emo__json_typeof(groups) != EMO__JSON_ARRAY)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"groups\" must be a list", r->name);
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        status = emo__report(&r->options->progress, "read tasks", i, n, err);
        if (status == EMO_OK)
            status = read_task(r, emo__json_at(tasks, i), i, err);
    }
    if (status == EMO_OK)
        status = emo__report(&r->options->progress, "read tasks", n, n, err);
    for (size_t i = 0; status == EMO_OK && i < emo__json_size(groups); i++)
        status = read_group(r, emo__json_at(groups, i), i, err);
    return status;
}

/* ---- the set ---- */

/* The folder a file lies in; "" for the current one. */
static emo_status folder_of(const char *path, emo__buf *out, emo_error *err) {
    const char *base = emo__path_base(path);
    size_t length = (size_t)(base - path);
    emo_status status = emo__buf_reserve(out, 1, err);
    if (status == EMO_OK)
        status = emo__buf_append(out, path, length > 1 ? length - 1 : length, err);
    return status;
}

emo_status emo__task_set_open(emo_runtime *rt, const char *path, const char *text, size_t length,
                              const emo_task_set_options *options, emo_task_set **out, emo_error *err) {
    const emo__mem *mem = &rt->mem;
    emo__json *root = NULL;
    emo__buf folder;
    emo__buf_init(&folder, mem);
    emo_task_set *set = emo__calloc(mem, 1, sizeof *set);
    if (set == NULL)
        return emo__fail_memory(err, sizeof *set);
    emo__ref_init(&set->ref);
    set->rt = emo__runtime_retain(rt);
    const char *name = path != NULL ? emo__path_base(path) : "tasks";
    reading r = {set, {mem, "", options->limit}, options, name};
    emo_status status;
    EMO_TRY(status = folder_of(options->root == NULL && path != NULL ? path : "", &folder, err));
    r.source.root = options->root != NULL ? options->root : folder.data;
    if (path != NULL)
        status = emo__json_load(mem, path, MAX_FILE, &root, err);
    else
        status = length > MAX_FILE
                     ? emo__fail(err, EMO_E_LIMIT, "a task file of %zu bytes; at most %zu are read", length, MAX_FILE)
                     : emo__json_parse(mem, text, length, name, &root, err);
    if (status == EMO_OK)
        status = read_all(&r, root, err);
done:
    emo__json_free(root);
    emo__buf_free(&folder);
    if (status == EMO_OK)
        *out = set;
    else
        emo__task_set_release(set);
    return status;
}

emo_task_set *emo__task_set_retain(const emo_task_set *set) {
    emo_task_set *object = (emo_task_set *)(uintptr_t)set; /* only the count is written */
    emo__ref_get(&object->ref);
    return object;
}

void emo__task_set_release(emo_task_set *set) {
    if (set == NULL || !emo__ref_put(&set->ref))
        return;
    emo_runtime *rt = set->rt;
    const emo__mem *mem = &rt->mem;
    for (size_t i = 0; i < set->n_tasks; i++)
        emo__task_free(mem, &set->tasks[i]);
    for (size_t i = 0; i < set->n_specs; i++) {
        emo__task_spec_free(mem, set->specs[i]);
        emo__free(mem, set->specs[i]);
    }
    for (size_t i = 0; i < set->n_groups; i++) {
        emo__free(mem, set->groups[i].name);
        emo__free(mem, set->groups[i].members);
    }
    emo__free(mem, set->tasks);
    emo__free(mem, set->specs);
    emo__free(mem, set->groups);
    emo__free(mem, set);
    emo_runtime_release(rt);
}
