/* SPDX-License-Identifier: Apache-2.0 */
/* The golden cases' own reader, independent of the library's. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"

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
static int read_entry(const json_t *entry, const char *body, size_t body_size, golden_tensor *t) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (dtype == NULL || item_size(dtype) == 0 || !json_is_array(shape) || json_array_size(shape) > 8 ||
        json_array_size(offsets) != 2)
        return -1;
    memcpy(t->dtype, dtype, strlen(dtype) + 1);
    t->dims = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->dims; i++) {
        json_int_t d = json_integer_value(json_array_get(shape, (size_t)i));
        if (d < 0 || d > 1 << 30 || t->count > ((int64_t)1 << 40) / (d > 0 ? d : 1))
            return -1;
        t->shape[i] = d;
        t->count *= d;
    }
    json_int_t begin = json_integer_value(json_array_get(offsets, 0));
    json_int_t end = json_integer_value(json_array_get(offsets, 1));
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
    json_t *header = NULL;
    int status = -1;
    if (size >= 8 && length <= size - 8)
        header = json_loadb(bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(header)) {
        (void)snprintf(why, capacity, "%s: no safetensors header", path);
    } else {
        out->tensors = calloc(json_object_size(header) + 1, sizeof *out->tensors);
        status = out->tensors != NULL ? 0 : -1;
        const char *key;
        json_t *entry;
        json_object_foreach(header, key, entry) {
            if (status != 0 || strcmp(key, "__metadata__") == 0)
                continue;
            golden_tensor *t = &out->tensors[out->count];
            size_t n = strlen(key) + 1;
            t->name = malloc(n);
            if (t->name == NULL || read_entry(entry, bytes + 8 + length, size - 8 - (size_t)length, t) != 0) {
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
    json_decref(header);
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
    const json_t *v = json_object_get(c->json, key);
    if (!json_is_integer(v))
        golden_fail(r, "case.json: %s is not an integer", key);
    return json_integer_value(v);
}

double golden_number(const golden_case *c, golden_result *r, const char *key) {
    const json_t *v = json_object_get(c->json, key);
    if (!json_is_number(v))
        golden_fail(r, "case.json: %s is not a number", key);
    return json_number_value(v);
}

int64_t golden_int_or(const golden_case *c, const char *key, int64_t fallback) {
    const json_t *v = json_object_get(c->json, key);
    return json_is_integer(v) ? json_integer_value(v) : fallback;
}

double golden_number_or(const golden_case *c, const char *key, double fallback) {
    const json_t *v = json_object_get(c->json, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}
