/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "io/files.h"
#include "io/json.h"
#include "io/names.h"
#include "io/safetensors.h"
#include "tensor/dtype.h"

typedef struct planned {
    char *name;
    char dtype[16]; /* the format's word */
    int32_t n_dims;
    int64_t shape[EMO__ST_MAX_DIMS];
    uint64_t bytes;
    size_t shard;
} planned;

typedef struct pair {
    char *key;
    char *value;
} pair;

struct emo__st_writer {
    emo_runtime *rt;
    char *path;
    uint64_t shard_bytes; /* 0: path is the file */
    planned *tensors;
    size_t count;
    size_t capacity;
    pair *metadata;
    size_t metadata_count;
    size_t metadata_capacity;
    emo__name_index names;
    uint64_t total;
    size_t shards;
    bool begun;
    bool finished;
    size_t current;    /* tensor being written */
    uint64_t done;     /* its bytes so far */
    size_t open_shard; /* valid while file.fd >= 0 */
    emo__atomic_file file;
};

static const char *dtype_word(emo_dtype dtype) {
    switch (dtype) {
    case EMO_DTYPE_F32:
        return "F32";
    case EMO_DTYPE_F16:
        return "F16";
    case EMO_DTYPE_BF16:
        return "BF16";
    case EMO_DTYPE_U8:
        return "U8";
    case EMO_DTYPE_I32:
        return "I32";
    case EMO_DTYPE_I64:
        return "I64";
    case EMO_DTYPE_F64:
        return "F64";
    default:
        return NULL;
    }
}

emo_status emo__st_writer_create(emo_runtime *rt, const char *path, uint64_t shard_bytes, emo__st_writer **out,
                                 emo_error *err) {
    *out = NULL;
    emo__st_writer *w = emo__calloc(&rt->mem, 1, sizeof *w);
    if (w == NULL)
        return emo__fail_memory(err, sizeof *w);
    w->rt = emo__runtime_retain(rt);
    w->shard_bytes = shard_bytes;
    w->file.fd = -1;
    emo__name_index_init(&w->names, &rt->mem);
    w->path = emo__strdup(&rt->mem, path);
    if (w->path == NULL) {
        emo__st_writer_destroy(w);
        return emo__fail_memory(err, strlen(path) + 1);
    }
    *out = w;
    return EMO_OK;
}

void emo__st_writer_destroy(emo__st_writer *w) {
    if (w == NULL)
        return;
    emo_runtime *rt = w->rt;
    emo__atomic_abort(&w->file);
    emo__name_index_free(&w->names);
    for (size_t i = 0; i < w->count; i++)
        emo__free(&rt->mem, w->tensors[i].name);
    for (size_t i = 0; i < w->metadata_count; i++) {
        emo__free(&rt->mem, w->metadata[i].key);
        emo__free(&rt->mem, w->metadata[i].value);
    }
    emo__free(&rt->mem, w->tensors);
    emo__free(&rt->mem, w->metadata);
    emo__free(&rt->mem, w->path);
    emo__free(&rt->mem, w);
    emo_runtime_release(rt);
}

static emo_status add(emo__st_writer *w, const char *name, const char *dtype, int64_t bytes, const int64_t *shape,
                      int32_t n_dims, emo_error *err) {
    if (w->begun)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "tensor \"%.120s\" declared after the writing began", name);
    if (n_dims < 0 || n_dims > EMO__ST_MAX_DIMS)
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\" has %d dimensions; at most %d are possible", name,
                         (int)n_dims, EMO__ST_MAX_DIMS);
    emo_status status =
        emo__grow(&w->rt->mem, (void **)&w->tensors, &w->capacity, w->count + 1, sizeof w->tensors[0], err);
    if (status != EMO_OK)
        return status;
    planned *t = &w->tensors[w->count];
    memset(t, 0, sizeof *t);
    memcpy(t->dtype, dtype, strlen(dtype) + 1);
    t->n_dims = n_dims;
    for (int32_t d = 0; d < n_dims; d++)
        t->shape[d] = shape[d];
    t->bytes = (uint64_t)bytes;
    int64_t total;
    if (!emo__add_i64((int64_t)w->total, bytes, &total))
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": the file would be too large", name);
    t->name = emo__strdup(&w->rt->mem, name);
    if (t->name == NULL)
        return emo__fail_memory(err, strlen(name) + 1);
    bool fresh = false;
    status = emo__name_index_add(&w->names, t->name, (uint32_t)w->count, &fresh, err);
    if (status == EMO_OK && !fresh)
        status = emo__fail(err, EMO_E_EXISTS, "tensor \"%.120s\" declared twice", name);
    if (status != EMO_OK) {
        emo__free(&w->rt->mem, t->name);
        return status;
    }
    w->count++;
    w->total = (uint64_t)total;
    return EMO_OK;
}

emo_status emo__st_writer_add(emo__st_writer *w, const char *name, emo_dtype dtype, const int64_t *shape,
                              int32_t n_dims, emo_error *err) {
    if (dtype_word(dtype) == NULL)
        return emo__fail(err, EMO_E_UNSUPPORTED, "tensor \"%.120s\": safetensors has no such dtype", name);
    int64_t bytes = (int64_t)emo__dtype_size(dtype);
    for (int32_t d = 0; d < n_dims; d++) {
        if (shape[d] < 0 || !emo__mul_i64(bytes, shape[d], &bytes))
            return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": its shape is not possible", name);
    }
    return add(w, name, dtype_word(dtype), bytes, shape, n_dims, err);
}

emo_status emo__st_writer_add_like(emo__st_writer *w, const emo__st_entry *entry, emo_error *err) {
    if (entry->bytes > INT64_MAX)
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": the file would be too large", entry->name);
    return add(w, entry->name, entry->dtype_name, (int64_t)entry->bytes, entry->shape, entry->n_dims, err);
}

emo_status emo__st_writer_metadata(emo__st_writer *w, const char *key, const char *value, emo_error *err) {
    if (w->begun)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "metadata declared after the writing began");
    const emo__mem *mem = &w->rt->mem;
    emo_status status =
        emo__grow(mem, (void **)&w->metadata, &w->metadata_capacity, w->metadata_count + 1, sizeof w->metadata[0], err);
    if (status != EMO_OK)
        return status;
    pair *p = &w->metadata[w->metadata_count];
    p->key = emo__strdup(mem, key);
    p->value = emo__strdup(mem, value);
    w->metadata_count++; /* destroy frees a half pair too */
    return p->key != NULL && p->value != NULL ? EMO_OK : emo__fail_memory(err, strlen(key) + strlen(value) + 2);
}

/* Name of a shard inside the folder. */
static emo_status shard_name(const emo__st_writer *w, size_t shard, emo__buf *name, emo_error *err) {
    name->size = 0;
    if (w->shards <= 1)
        return emo__buf_printf(name, err, "model.safetensors");
    return emo__buf_printf(name, err, "model-%05zu-of-%05zu.safetensors", shard + 1, w->shards);
}

static emo_status header_text(const emo__st_writer *w, size_t shard, emo__buf *text, emo_error *err) {
    static const char lengths[8] = {0};
    emo_status status = emo__buf_append(text, lengths, sizeof lengths, err);
    if (status != EMO_OK)
        return status;
    emo__jw jw;
    emo__jw_begin(&jw, text, 0, err);
    emo__jw_object(&jw, NULL);
    emo__jw_object(&jw, "__metadata__");
    emo__jw_string(&jw, "format", "pt");
    for (size_t i = 0; i < w->metadata_count; i++)
        emo__jw_string(&jw, w->metadata[i].key, w->metadata[i].value);
    emo__jw_object_end(&jw);
    uint64_t at = 0;
    for (size_t i = 0; i < w->count; i++) {
        const planned *t = &w->tensors[i];
        if (t->shard != shard)
            continue;
        emo__jw_object(&jw, t->name);
        emo__jw_string(&jw, "dtype", t->dtype);
        emo__jw_array(&jw, "shape");
        for (int32_t d = 0; d < t->n_dims; d++)
            emo__jw_i64(&jw, NULL, t->shape[d]);
        emo__jw_array_end(&jw);
        emo__jw_array(&jw, "data_offsets");
        emo__jw_i64(&jw, NULL, (int64_t)at);
        at += t->bytes;
        emo__jw_i64(&jw, NULL, (int64_t)at);
        emo__jw_array_end(&jw);
        emo__jw_object_end(&jw);
    }
    emo__jw_object_end(&jw);
    status = emo__jw_end(&jw);
    /* Data begin at a multiple of 64, so that a mapped file is aligned for every dtype. */
    while (status == EMO_OK && text->size % 64 != 0)
        status = emo__buf_append(text, " ", 1, err);
    if (status == EMO_OK) {
        uint64_t size = text->size - 8;
        for (int i = 0; i < 8; i++)
            text->data[i] = (char)(unsigned char)(size >> (8 * i));
    }
    return status;
}

static emo_status open_shard(emo__st_writer *w, size_t shard, emo_error *err) {
    const emo__mem *mem = &w->rt->mem;
    emo__buf name;
    emo__buf path;
    emo__buf header;
    emo__buf_init(&name, mem);
    emo__buf_init(&path, mem);
    emo__buf_init(&header, mem);
    emo_status status = EMO_OK;
    if (w->shard_bytes == 0) {
        status = emo__path_join(&path, "", w->path, err);
    } else {
        status = shard_name(w, shard, &name, err);
        if (status == EMO_OK)
            status = emo__path_join(&path, w->path, name.data, err);
    }
    if (status == EMO_OK)
        status = header_text(w, shard, &header, err);
    if (status == EMO_OK)
        status = emo__atomic_open(&w->file, mem, path.data, err);
    if (status == EMO_OK)
        status = emo__atomic_write(&w->file, header.data, header.size, err);
    w->open_shard = shard;
    emo__buf_free(&name);
    emo__buf_free(&path);
    emo__buf_free(&header);
    return status;
}

emo_status emo__st_writer_begin(emo__st_writer *w, emo_error *err) {
    if (w->begun)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the writing began already");
    uint64_t in_shard = 0;
    size_t shard = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (w->shard_bytes > 0 && in_shard > 0 && w->tensors[i].bytes > w->shard_bytes - in_shard) {
            shard++;
            in_shard = 0;
        }
        w->tensors[i].shard = shard;
        in_shard += w->tensors[i].bytes;
        if (w->shard_bytes > 0 && in_shard > w->shard_bytes)
            in_shard = w->shard_bytes; /* one tensor larger than a shard */
    }
    w->shards = shard + 1;
    w->begun = true;
    if (w->shard_bytes > 0 && !emo__path_is_dir(w->path)) {
        emo_status status = emo__mkdir(w->path, err); /* not its parents: a run folder that went away stays away */
        if (status != EMO_OK)
            return status;
    }
    return open_shard(w, 0, err);
}

/* Goes on to the next tensor while the current one is complete. */
static emo_status advance(emo__st_writer *w, emo_error *err) {
    while (w->current < w->count && w->done == w->tensors[w->current].bytes) {
        w->current++;
        w->done = 0;
        if (w->current < w->count && w->tensors[w->current].shard != w->open_shard) {
            emo_status status = emo__atomic_commit(&w->file, err);
            if (status == EMO_OK)
                status = open_shard(w, w->open_shard + 1, err);
            if (status != EMO_OK)
                return status;
        }
    }
    return EMO_OK;
}

emo_status emo__st_writer_write(emo__st_writer *w, const char *name, const void *data, size_t size, emo_error *err) {
    if (!w->begun || w->finished || w->file.fd < 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "tensor \"%.120s\": the file is not open for data", name);
    if (size == 0)
        return EMO_OK;
    emo_status status = advance(w, err);
    if (status != EMO_OK)
        return status;
    if (w->current == w->count || strcmp(w->tensors[w->current].name, name) != 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "tensor \"%.120s\" written, but \"%.120s\" is next", name,
                         w->current < w->count ? w->tensors[w->current].name : "the end");
    if (size > w->tensors[w->current].bytes - w->done)
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": more data than its shape holds", name);
    status = emo__atomic_write(&w->file, data, size, err);
    w->done += size;
    return status;
}

static emo_status write_index(const emo__st_writer *w, emo_error *err) {
    const emo__mem *mem = &w->rt->mem;
    emo__buf text;
    emo__buf path;
    emo__buf name;
    emo__buf_init(&text, mem);
    emo__buf_init(&path, mem);
    emo__buf_init(&name, mem);
    emo_status status = EMO_OK;
    emo__jw jw;
    emo__jw_begin(&jw, &text, 2, err);
    emo__jw_object(&jw, NULL);
    emo__jw_object(&jw, "metadata");
    emo__jw_i64(&jw, "total_size", (int64_t)w->total);
    emo__jw_object_end(&jw);
    emo__jw_object(&jw, "weight_map");
    for (size_t i = 0; i < w->count && status == EMO_OK; i++) {
        status = shard_name(w, w->tensors[i].shard, &name, err);
        if (status == EMO_OK)
            emo__jw_string(&jw, w->tensors[i].name, name.data);
    }
    emo__jw_object_end(&jw);
    emo__jw_object_end(&jw);
    emo_status written = emo__jw_end(&jw);
    if (status == EMO_OK)
        status = written;
    if (status == EMO_OK)
        status = emo__path_join(&path, w->path, "model.safetensors.index.json", err);
    if (status == EMO_OK)
        status = emo__file_write(mem, path.data, text.data, text.size, err);
    emo__buf_free(&text);
    emo__buf_free(&path);
    emo__buf_free(&name);
    return status;
}

/* A folder written before under the other layout must not shadow the new one: readers prefer model.safetensors. */
static emo_status remove_other_layout(const emo__st_writer *w, emo_error *err) {
    emo__buf path;
    emo__buf_init(&path, &w->rt->mem);
    emo_status status =
        emo__path_join(&path, w->path, w->shards > 1 ? "model.safetensors" : "model.safetensors.index.json", err);
    if (status == EMO_OK)
        status = emo__remove_tree(&w->rt->mem, path.data, err);
    emo__buf_free(&path);
    return status;
}

emo_status emo__st_writer_finish(emo__st_writer *w, emo_error *err) {
    if (!w->begun || w->finished || w->file.fd < 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the file is not open for data");
    emo_status status = advance(w, err);
    if (status != EMO_OK)
        return status;
    if (w->current < w->count)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "tensor \"%.120s\": %llu of %llu bytes were written",
                         w->tensors[w->current].name, (unsigned long long)w->done,
                         (unsigned long long)w->tensors[w->current].bytes);
    status = emo__atomic_commit(&w->file, err);
    if (status == EMO_OK && w->shard_bytes > 0 && w->shards > 1)
        status = write_index(w, err);
    if (status == EMO_OK && w->shard_bytes > 0)
        status = remove_other_layout(w, err);
    w->finished = status == EMO_OK;
    return status;
}
