/* SPDX-License-Identifier: Apache-2.0 */
/* The golden cases' own reader, independent of the library's. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"

const emo__mem *golden_mem(void) {
    static emo__mem mem;
    emo__mem_init(&mem, NULL);
    return &mem;
}

const char *golden_text(const emo__json *node) { return emo__json_string(node, NULL); }

int64_t golden_whole(const emo__json *node) {
    int64_t value = 0;
    (void)emo__json_i64(node, &value);
    return value;
}

double golden_real(const emo__json *node) {
    double value = 0.0;
    (void)emo__json_f64(node, &value);
    return value;
}

bool golden_is_number(const emo__json *node) {
    double value;
    return emo__json_f64(node, &value);
}

bool golden_is_true(const emo__json *node) {
    bool value = false;
    return emo__json_bool(node, &value) && value;
}

static char *slurp(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    if (f == NULL)
        return NULL;
    size_t capacity = 1 << 16;
    char *data = malloc(capacity);
    *size = 0;
    while (data != NULL) {
        size_t got = fread(data + *size, 1, capacity - *size, f);
        *size += got;
        if (*size < capacity)
            break;
        capacity *= 2;
        char *more = realloc(data, capacity);
        if (more == NULL) {
            free(data);
            data = NULL;
        } else {
            data = more;
        }
    }
    if (ferror(f)) {
        free(data);
        data = NULL;
    }
    (void)fclose(f);
    return data;
}

static size_t item_size(const char *dtype) {
    if (strcmp(dtype, "F32") == 0)
        return 4;
    if (strcmp(dtype, "I64") == 0)
        return 8;
    return strcmp(dtype, "U8") == 0 ? 1 : 0;
}

/* One entry of the header; the data is copied so that it is aligned. */
static int read_entry(const emo__json *entry, const char *body, size_t body_size, golden_tensor *t) {
    const char *dtype = golden_text(emo__json_get(entry, "dtype"));
    const emo__json *shape = emo__json_get(entry, "shape");
    const emo__json *offsets = emo__json_get(entry, "data_offsets");
    if (dtype == NULL || item_size(dtype) == 0 || emo__json_typeof(shape) != EMO__JSON_ARRAY ||
        emo__json_size(shape) > 8 || emo__json_size(offsets) != 2)
        return -1;
    memcpy(t->dtype, dtype, strlen(dtype) + 1);
    t->dims = (int)emo__json_size(shape);
    t->count = 1;
    for (int i = 0; i < t->dims; i++) {
        int64_t d = golden_whole(emo__json_at(shape, (size_t)i));
        if (d < 0 || d > 1 << 30 || t->count > ((int64_t)1 << 40) / (d > 0 ? d : 1))
            return -1;
        t->shape[i] = d;
        t->count *= d;
    }
    int64_t begin = golden_whole(emo__json_at(offsets, 0));
    int64_t end = golden_whole(emo__json_at(offsets, 1));
    if (begin < 0 || end < begin || (uint64_t)end > body_size ||
        (uint64_t)(end - begin) != (uint64_t)t->count * item_size(dtype))
        return -1;
    size_t bytes = (size_t)(end - begin);
    void *data = malloc(bytes > 0 ? bytes : 1);
    if (data == NULL)
        return -1;
    memcpy(data, body + begin, bytes);
    t->data = data;
    return 0;
}

int golden_read(const char *path, golden_file *out, char *why, size_t capacity) {
    memset(out, 0, sizeof *out);
    size_t size = 0;
    char *bytes = slurp(path, &size);
    if (bytes == NULL) {
        (void)snprintf(why, capacity, "%s: cannot be read", path);
        return -1;
    }
    uint64_t length = 0;
    for (size_t i = 0; i < 8 && i < size; i++)
        length |= (uint64_t)(unsigned char)bytes[i] << (8 * i);
    emo__json *header = NULL;
    int status = -1;
    if (size >= 8 && length <= size - 8)
        (void)!emo__json_parse(golden_mem(), bytes + 8, (size_t)length, path, &header, NULL);
    if (emo__json_typeof(header) != EMO__JSON_OBJECT) {
        (void)snprintf(why, capacity, "%s: no safetensors header", path);
    } else {
        out->tensors = calloc(emo__json_size(header) + 1, sizeof *out->tensors);
        status = out->tensors != NULL ? 0 : -1;
        for (emo__json_iter it = emo__json_members(header); emo__json_next(&it);) {
            const char *key = it.key;
            if (status != 0 || strcmp(key, "__metadata__") == 0)
                continue;
            golden_tensor *t = &out->tensors[out->count];
            size_t n = strlen(key) + 1;
            t->name = malloc(n);
            if (t->name == NULL || read_entry(it.value, bytes + 8 + length, size - 8 - (size_t)length, t) != 0) {
                (void)snprintf(why, capacity, "%s: tensor %.80s is damaged", path, key);
                free(t->name);
                t->name = NULL;
                status = -1;
                continue;
            }
            memcpy(t->name, key, n);
            out->count++;
        }
    }
    emo__json_free(header);
    free(bytes);
    if (status != 0)
        golden_free(out);
    return status;
}

void golden_free(golden_file *file) {
    for (size_t i = 0; i < file->count; i++) {
        free(file->tensors[i].name);
        free((void *)(uintptr_t)file->tensors[i].data);
    }
    free(file->tensors);
    memset(file, 0, sizeof *file);
}

static const golden_tensor *find(const golden_file *file, const char *name) {
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    }
    return NULL;
}

const golden_tensor *golden_find(const golden_file *file, const char *name, ...) {
    char text[256];
    va_list args;
    va_start(args, name);
    (void)vsnprintf(text, sizeof text, name, args);
    va_end(args);
    return find(file, text);
}

const void *golden_need(const golden_case *c, golden_result *r, const char *dtype, int64_t count, const char *name,
                        ...) {
    char text[256];
    va_list args;
    va_start(args, name);
    (void)vsnprintf(text, sizeof text, name, args);
    va_end(args);
    const golden_tensor *t = find(&c->file, text);
    if (t == NULL)
        golden_fail(r, "tensor %s is missing", text);
    else if (strcmp(t->dtype, dtype) != 0 || (count >= 0 && t->count != count))
        golden_fail(r, "tensor %s is %s with %lld elements, not %s with %lld", text, t->dtype, (long long)t->count,
                    dtype, (long long)count);
    else
        return t->data;
    return NULL;
}

int64_t golden_int(const golden_case *c, golden_result *r, const char *key) {
    const emo__json *v = emo__json_get(c->json, key);
    if (emo__json_typeof(v) != EMO__JSON_INTEGER)
        golden_fail(r, "case.json: %s is not an integer", key);
    return golden_whole(v);
}

double golden_number(const golden_case *c, golden_result *r, const char *key) {
    const emo__json *v = emo__json_get(c->json, key);
    if (!golden_is_number(v))
        golden_fail(r, "case.json: %s is not a number", key);
    return golden_real(v);
}

int64_t golden_int_or(const golden_case *c, const char *key, int64_t fallback) {
    const emo__json *v = emo__json_get(c->json, key);
    return emo__json_typeof(v) == EMO__JSON_INTEGER ? golden_whole(v) : fallback;
}

double golden_number_or(const golden_case *c, const char *key, double fallback) {
    const emo__json *v = emo__json_get(c->json, key);
    return golden_is_number(v) ? golden_real(v) : fallback;
}
