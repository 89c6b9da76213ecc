/* SPDX-License-Identifier: Apache-2.0 */
/* Writing GGUF. */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "io/files.h"
#include "io/gguf.h"
#include "io/names.h"
#include "tensor/quant.h"

typedef struct planned {
    char *name;
    emo_dtype dtype;
    int32_t n_dims;
    int64_t dims[EMO__GGUF_MAX_DIMS];
    uint64_t bytes;
    uint64_t offset; /* from the start of the data */
} planned;

struct emo__gguf_writer {
    emo_runtime *rt;
    char *path;
    emo__buf keys; /* as they will stand in the file */
    uint64_t n_keys;
    uint64_t items; /* that the array begun last still lacks */
    emo__gguf_type item_type;
    planned *tensors;
    size_t count;
    size_t capacity;
    uint64_t total; /* bytes of the data with padding */
    emo__name_index names;
    bool begun;
    size_t current; /* tensor being written */
    uint64_t done;  /* its bytes so far */
    emo__atomic_file file;
};

emo_status emo__gguf_writer_create(emo_runtime *rt, const char *path, emo__gguf_writer **out, emo_error *err) {
    *out = NULL;
    emo__gguf_writer *w = emo__calloc(&rt->mem, 1, sizeof *w);
    if (w == NULL)
        return emo__fail_memory(err, sizeof *w);
    w->rt = emo__runtime_retain(rt);
    w->file.fd = -1;
    emo__buf_init(&w->keys, &rt->mem);
    emo__name_index_init(&w->names, &rt->mem);
    w->path = emo__strdup(&rt->mem, path);
    if (w->path == NULL) {
        emo__gguf_writer_destroy(w);
        return emo__fail_memory(err, strlen(path) + 1);
    }
    *out = w;
    return EMO_OK;
}

void emo__gguf_writer_destroy(emo__gguf_writer *w) {
    if (w == NULL)
        return;
    emo_runtime *rt = w->rt;
    emo__atomic_abort(&w->file);
    emo__buf_free(&w->keys);
    emo__name_index_free(&w->names);
    for (size_t i = 0; i < w->count; i++)
        emo__free(&rt->mem, w->tensors[i].name);
    emo__free(&rt->mem, w->tensors);
    emo__free(&rt->mem, w->path);
    emo__free(&rt->mem, w);
    emo_runtime_release(rt);
}

static emo_status put_little(emo__buf *out, uint64_t v, size_t bytes, emo_error *err) {
    unsigned char raw[8];
    for (size_t i = 0; i < bytes; i++)
        raw[i] = (unsigned char)(v >> (8 * i));
    return emo__buf_append(out, raw, bytes, err);
}

static emo_status put_text(emo__buf *out, const char *text, size_t length, emo_error *err) {
    emo_status status = put_little(out, length, 8, err);
    return status == EMO_OK ? emo__buf_append(out, text, length, err) : status;
}

static emo_status put_key(emo__gguf_writer *w, const char *key, emo__gguf_type type, emo_error *err) {
    if (w->begun || w->items > 0)
        return emo__fail(err, EMO_E_INTERNAL, "key \"%s\" given at a place where none can stand", key);
    emo_status status = put_text(&w->keys, key, strlen(key), err);
    if (status == EMO_OK)
        status = put_little(&w->keys, (uint64_t)type, 4, err);
    w->n_keys++;
    return status;
}

emo_status emo__gguf_put_u32(emo__gguf_writer *w, const char *key, uint32_t value, emo_error *err) {
    emo_status status = put_key(w, key, EMO__GGUF_U32, err);
    return status == EMO_OK ? put_little(&w->keys, value, 4, err) : status;
}

emo_status emo__gguf_put_f32(emo__gguf_writer *w, const char *key, float value, emo_error *err) {
    emo_status status = put_key(w, key, EMO__GGUF_F32, err);
    return status == EMO_OK ? emo__buf_append(&w->keys, &value, sizeof value, err) : status;
}

emo_status emo__gguf_put_bool(emo__gguf_writer *w, const char *key, bool value, emo_error *err) {
    emo_status status = put_key(w, key, EMO__GGUF_BOOL, err);
    return status == EMO_OK ? put_little(&w->keys, value ? 1 : 0, 1, err) : status;
}

emo_status emo__gguf_put_string(emo__gguf_writer *w, const char *key, const char *text, size_t length, emo_error *err) {
    emo_status status = put_key(w, key, EMO__GGUF_STRING, err);
    return status == EMO_OK ? put_text(&w->keys, text, length, err) : status;
}

emo_status emo__gguf_put_array(emo__gguf_writer *w, const char *key, emo__gguf_type type, uint64_t count,
                               emo_error *err) {
    emo_status status = put_key(w, key, EMO__GGUF_ARRAY, err);
    if (status == EMO_OK)
        status = put_little(&w->keys, (uint64_t)type, 4, err);
    if (status == EMO_OK)
        status = put_little(&w->keys, count, 8, err);
    w->items = count;
    w->item_type = type;
    return status;
}

static emo_status take_item(emo__gguf_writer *w, emo__gguf_type type, emo_error *err) {
    if (w->items == 0 || w->item_type != type)
        return emo__fail(err, EMO_E_INTERNAL, "an item that no array waits for");
    w->items--;
    return EMO_OK;
}

emo_status emo__gguf_put_item_string(emo__gguf_writer *w, const char *text, size_t length, emo_error *err) {
    emo_status status = take_item(w, EMO__GGUF_STRING, err);
    return status == EMO_OK ? put_text(&w->keys, text, length, err) : status;
}

emo_status emo__gguf_put_item_i32(emo__gguf_writer *w, int32_t value, emo_error *err) {
    emo_status status = take_item(w, EMO__GGUF_I32, err);
    return status == EMO_OK ? put_little(&w->keys, (uint32_t)value, 4, err) : status;
}

static uint64_t padded(uint64_t bytes) {
    return (bytes + EMO__GGUF_ALIGNMENT - 1) / EMO__GGUF_ALIGNMENT * EMO__GGUF_ALIGNMENT;
}

emo_status emo__gguf_writer_add(emo__gguf_writer *w, const char *name, emo_dtype dtype, const int64_t *dims,
                                int32_t n_dims, emo_error *err) {
    int64_t count = 1;
    size_t bytes = 0;
    if (w->begun || emo__gguf_number(dtype) < 0 || n_dims < 1 || n_dims > EMO__GGUF_MAX_DIMS)
        return emo__fail(err, EMO_E_INTERNAL, "tensor \"%.120s\" cannot be declared", name);
    for (int32_t d = 0; d < n_dims; d++)
        if (dims[d] < 1 || !emo__mul_i64(count, dims[d], &count))
            return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": its shape is not possible", name);
    if (dims[0] % emo__dtype_block(dtype) != 0)
        return emo__fail(err, EMO_E_UNSUPPORTED, "tensor \"%.120s\" has rows of %lld; %s needs a multiple of %lld",
                         name, (long long)dims[0], emo_dtype_name(dtype), (long long)emo__dtype_block(dtype));
    size_t end;
    if (!emo__dtype_bytes(dtype, count, &bytes) || !emo__add_size((size_t)w->total, bytes, &end) ||
        !emo__add_size(end, EMO__GGUF_ALIGNMENT, &end))
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": the file would be too large", name);
    emo_status status =
        emo__grow(&w->rt->mem, (void **)&w->tensors, &w->capacity, w->count + 1, sizeof w->tensors[0], err);
    if (status != EMO_OK)
        return status;
    planned *t = &w->tensors[w->count];
    *t = (planned){.dtype = dtype, .n_dims = n_dims, .bytes = bytes, .offset = w->total};
    memcpy(t->dims, dims, (size_t)n_dims * sizeof dims[0]);
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
    w->total += padded(bytes);
    return EMO_OK;
}

static const char zeros[EMO__GGUF_ALIGNMENT];

static emo_status header(const emo__gguf_writer *w, emo__buf *out, emo_error *err) {
    emo_status status;
    EMO_TRY(status = emo__buf_append(out, "GGUF", 4, err));
    EMO_TRY(status = put_little(out, 3, 4, err));
    EMO_TRY(status = put_little(out, w->count, 8, err));
    EMO_TRY(status = put_little(out, w->n_keys, 8, err));
    EMO_TRY(status = emo__buf_append(out, w->keys.data, w->keys.size, err));
    for (size_t i = 0; i < w->count; i++) {
        const planned *t = &w->tensors[i];
        EMO_TRY(status = put_text(out, t->name, strlen(t->name), err));
        EMO_TRY(status = put_little(out, (uint32_t)t->n_dims, 4, err));
        for (int32_t d = 0; d < t->n_dims; d++)
            EMO_TRY(status = put_little(out, (uint64_t)t->dims[d], 8, err));
        EMO_TRY(status = put_little(out, (uint32_t)emo__gguf_number(t->dtype), 4, err));
        EMO_TRY(status = put_little(out, t->offset, 8, err));
    }
    status = emo__buf_append(out, zeros, (size_t)(padded(out->size) - out->size), err);
done:
    return status;
}

emo_status emo__gguf_writer_begin(emo__gguf_writer *w, emo_error *err) {
    emo__buf text;
    if (w->begun || w->items > 0)
        return emo__fail(err, EMO_E_INTERNAL, "the data cannot begin here");
    emo__buf_init(&text, &w->rt->mem);
    w->begun = true;
    emo_status status = header(w, &text, err);
    if (status == EMO_OK)
        status = emo__atomic_open(&w->file, &w->rt->mem, w->path, err);
    if (status == EMO_OK)
        status = emo__atomic_write(&w->file, text.data, text.size, err);
    emo__buf_free(&text);
    return status;
}

emo_status emo__gguf_writer_write(emo__gguf_writer *w, const char *name, const void *data, size_t size,
                                  emo_error *err) {
    const planned *t = w->current < w->count ? &w->tensors[w->current] : NULL;
    if (w->file.fd < 0 || t == NULL || strcmp(t->name, name) != 0)
        return emo__fail(err, EMO_E_INTERNAL, "tensor \"%.120s\" written, but \"%.120s\" is next", name,
                         t != NULL ? t->name : "the end");
    if (size > t->bytes - w->done)
        return emo__fail(err, EMO_E_INTERNAL, "tensor \"%.120s\": more data than its shape holds", name);
    emo_status status = emo__atomic_write(&w->file, data, size, err);
    w->done += size;
    if (status == EMO_OK && w->done == t->bytes) {
        w->current++;
        w->done = 0;
        status = emo__atomic_write(&w->file, zeros, (size_t)(padded(t->bytes) - t->bytes), err);
    }
    return status;
}

emo_status emo__gguf_writer_finish(emo__gguf_writer *w, emo_error *err) {
    if (w->file.fd < 0 || w->current < w->count)
        return emo__fail(err, EMO_E_INTERNAL, "the file is not complete: \"%.120s\" is next",
                         w->current < w->count ? w->tensors[w->current].name : "the beginning");
    return emo__atomic_commit(&w->file, err);
}

uint64_t emo__gguf_writer_size(const emo__gguf_writer *w) { return w->file.written; }
