/* SPDX-License-Identifier: Apache-2.0 */
/* A model's tensors over one file or several, opened when first needed. */
#include <pthread.h>
#include <string.h>

#include "base/status.h"
#include "io/files.h"
#include "io/json.h"
#include "io/names.h"
#include "io/safetensors.h"

#define MAX_INDEX ((size_t)256 << 20)

typedef struct shard {
    char *file; /* name inside the folder */
    emo__st *st;
} shard;

struct emo__st_set {
    emo_runtime *rt;
    char *folder;
    pthread_mutex_t lock; /* guards the opening of shards */
    emo__json *index;     /* names live in it; NULL for one file */
    shard *shards;
    size_t shard_count;
    const char **names;
    uint32_t *shard_of;
    size_t count;
    emo__name_index by_name;
};

void emo__st_set_close(emo__st_set *set) {
    if (set == NULL)
        return;
    emo_runtime *rt = set->rt;
    emo__name_index_free(&set->by_name);
    for (size_t i = 0; i < set->shard_count; i++) {
        emo__st_close(set->shards[i].st);
        emo__free(&rt->mem, set->shards[i].file);
    }
    emo__free(&rt->mem, set->shards);
    emo__free(&rt->mem, set->names);
    emo__free(&rt->mem, set->shard_of);
    emo__free(&rt->mem, set->folder);
    if (set->index != NULL)
        emo__json_free(set->index);
    (void)pthread_mutex_destroy(&set->lock);
    emo__free(&rt->mem, set);
    emo_runtime_release(rt);
}

static emo_status create(emo_runtime *rt, const char *folder, emo__st_set **out, emo_error *err) {
    emo__st_set *set = emo__calloc(&rt->mem, 1, sizeof *set);
    if (set == NULL)
        return emo__fail_memory(err, sizeof *set);
    if (pthread_mutex_init(&set->lock, NULL) != 0) {
        emo__free(&rt->mem, set);
        return emo__fail(err, EMO_E_OUT_OF_MEMORY, "cannot make a mutex");
    }
    set->rt = emo__runtime_retain(rt);
    emo__name_index_init(&set->by_name, &rt->mem);
    set->folder = emo__strdup(&rt->mem, folder);
    if (set->folder == NULL) {
        emo__st_set_close(set);
        return emo__fail_memory(err, strlen(folder) + 1);
    }
    *out = set;
    return EMO_OK;
}

static emo_status allocate(emo__st_set *set, size_t tensors, size_t shards, emo_error *err) {
    const emo__mem *mem = &set->rt->mem;
    set->names = emo__calloc(mem, tensors + 1, sizeof set->names[0]);
    set->shard_of = emo__calloc(mem, tensors + 1, sizeof set->shard_of[0]);
    set->shards = emo__calloc(mem, shards, sizeof set->shards[0]);
    if (set->names == NULL || set->shard_of == NULL || set->shards == NULL)
        return emo__fail_memory(err, (tensors + 1) * sizeof set->names[0]);
    return EMO_OK;
}

static emo_status add(emo__st_set *set, const char *name, uint32_t shard_index, emo_error *err) {
    bool fresh;
    emo_status status = emo__name_index_add(&set->by_name, name, (uint32_t)set->count, &fresh, err);
    if (status != EMO_OK)
        return status;
    set->names[set->count] = name;
    set->shard_of[set->count] = shard_index;
    set->count++;
    return EMO_OK;
}

/* One shard that is open already; takes st over. */
static emo_status adopt(emo__st_set *set, emo__st *st, emo_error *err) {
    size_t count = emo__st_count(st);
    emo_status status = allocate(set, count, 1, err);
    if (status != EMO_OK) {
        emo__st_close(st);
        return status;
    }
    set->shards[0].st = st;
    set->shard_count = 1;
    for (size_t i = 0; i < count && status == EMO_OK; i++)
        status = add(set, emo__st_at(st, i)->name, 0, err);
    return status;
}

static emo_status open_file(emo_runtime *rt, const char *folder, const char *file, emo__st **out, emo_error *err) {
    emo_source *source = NULL;
    emo__buf path;
    emo__buf_init(&path, &rt->mem);
    emo_status status = emo__path_join(&path, folder, file, err);
    if (status == EMO_OK)
        status = emo__source_open_path(rt, path.data, &source, err);
    if (status == EMO_OK)
        status = emo__st_open(rt, source, out, err);
    emo__source_release(source);
    emo__buf_free(&path);
    return status;
}

/* A shard's name must stay inside the folder. */
static bool plain_file_name(const char *name) {
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL && strlen(name) < 256;
}

static emo_status shard_number(emo__st_set *set, emo__name_index *files, const char *file, uint32_t *out,
                               emo_error *err) {
    if (emo__name_index_find(files, file, out))
        return EMO_OK;
    char *copy = emo__strdup(&set->rt->mem, file);
    if (copy == NULL)
        return emo__fail_memory(err, strlen(file) + 1);
    *out = (uint32_t)set->shard_count;
    set->shards[set->shard_count++].file = copy;
    bool fresh;
    return emo__name_index_add(files, copy, *out, &fresh, err);
}

static emo_status read_index(emo__st_set *set, const char *path, emo_error *err) {
    emo_status status = emo__json_load(&set->rt->mem, path, MAX_INDEX, &set->index, err);
    if (status != EMO_OK)
        return status;
    const emo__json *map = emo__json_get(set->index, "weight_map");
    if (emo__json_typeof(map) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"weight_map\" must be an object", path);
    size_t count = emo__json_size(map);
    if (count >= UINT32_MAX)
        return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 0, "%s: too many tensors", path);
    emo__name_index files;
    emo__name_index_init(&files, &set->rt->mem);
    status = allocate(set, count, count + 1, err);
    for (emo__json_iter it = emo__json_members(map); status == EMO_OK && emo__json_next(&it);) {
        size_t length;
        const char *file = emo__json_string(it.value, &length);
        uint32_t number;
        if (file == NULL || strlen(file) != length || !plain_file_name(file))
            status =
                emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                             "%s: the file of tensor \"%.120s\" must be a plain name in the same folder", path, it.key);
        else
            status = shard_number(set, &files, file, &number, err);
        if (status == EMO_OK)
            status = add(set, it.key, number, err);
    }
    emo__name_index_free(&files);
    return status;
}

emo_status emo__st_set_open(emo_runtime *rt, const char *folder, emo__st_set **out, emo_error *err) {
    *out = NULL;
    emo__st_set *set = NULL;
    emo__buf path;
    emo__buf_init(&path, &rt->mem);
    emo_status status = create(rt, folder, &set, err);
    if (status == EMO_OK)
        status = emo__path_join(&path, folder, "model.safetensors", err);
    bool there = false;
    if (status == EMO_OK)
        status = emo__path_probe(path.data, &there, err);
    if (there) {
        emo__st *st = NULL;
        status = open_file(rt, folder, "model.safetensors", &st, err);
        if (status == EMO_OK)
            status = adopt(set, st, err);
    } else if (status == EMO_OK) {
        status = emo__path_join(&path, folder, "model.safetensors.index.json", err);
        if (status == EMO_OK)
            status = emo__path_probe(path.data, &there, err);
        if (status == EMO_OK && !there)
            status = emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_FILE, 0,
                                  "%s: holds neither model.safetensors nor model.safetensors.index.json", folder);
        if (status == EMO_OK)
            status = read_index(set, path.data, err);
    }
    emo__buf_free(&path);
    if (status != EMO_OK) {
        emo__st_set_close(set);
        return status;
    }
    *out = set;
    return EMO_OK;
}

emo_status emo__st_set_from_source(emo_runtime *rt, emo_source *source, emo__st_set **out, emo_error *err) {
    *out = NULL;
    emo__st_set *set = NULL;
    emo__st *st = NULL;
    emo_status status = create(rt, "", &set, err);
    if (status == EMO_OK)
        status = emo__st_open(rt, source, &st, err);
    if (status == EMO_OK)
        status = adopt(set, st, err);
    if (status != EMO_OK) {
        emo__st_set_close(set);
        return status;
    }
    *out = set;
    return EMO_OK;
}

size_t emo__st_set_count(const emo__st_set *set) { return set->count; }

const char *emo__st_set_name(const emo__st_set *set, size_t index) {
    return index < set->count ? set->names[index] : NULL;
}

bool emo__st_set_has(const emo__st_set *set, const char *name) {
    uint32_t at;
    return emo__name_index_find(&set->by_name, name, &at);
}

emo_status emo__st_set_find(emo__st_set *set, const char *name, const emo__st **st, const emo__st_entry **entry,
                            emo_error *err) {
    uint32_t at;
    if (!emo__name_index_find(&set->by_name, name, &at))
        return emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_FILE, 0, "%s: there is no tensor \"%.120s\"",
                            set->folder[0] != '\0' ? set->folder : "the file", name);
    shard *s = &set->shards[set->shard_of[at]];
    emo_status status = EMO_OK;
    (void)pthread_mutex_lock(&set->lock);
    if (s->st == NULL)
        status = open_file(set->rt, set->folder, s->file, &s->st, err);
    (void)pthread_mutex_unlock(&set->lock);
    if (status != EMO_OK)
        return status;
    *st = s->st;
    *entry = emo__st_find(s->st, name);
    if (*entry == NULL)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s/%s: the index says that it holds tensor \"%.120s\", but it does not", set->folder,
                            s->file, name);
    return EMO_OK;
}
