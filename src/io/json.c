/* SPDX-License-Identifier: Apache-2.0 */
/* Looking at parsed JSON. */
#include "io/json.h"

#include <string.h>

#include "base/status.h"
#include "io/files.h"
#include "io/json_node.h"
#include "io/names.h"

emo_status emo__json_load(const emo__mem *mem, const char *path, size_t max_bytes, emo__json **root, emo_error *err) {
    *root = NULL;
    char *text = NULL;
    size_t size = 0;
    emo_status status = emo__file_read(mem, path, max_bytes, &text, &size, err);
    if (status == EMO_OK)
        status = emo__json_parse(mem, text, size, path, root, err);
    emo__free(mem, text);
    return status;
}

emo__json_type emo__json_typeof(const emo__json *node) {
    return node != NULL ? (emo__json_type)node->type : EMO__JSON_NONE;
}

uint32_t emo__json_slot(const char *key, size_t length, uint32_t capacity) {
    uint64_t hash = emo__hash_bytes(EMO__HASH_START, key, length);
    hash ^= hash >> 32;
    hash *= 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 32) & (capacity - 1);
}

static const emo__json *children(const emo__json *container) { return container - container->u.children; }

static const emo__json *find(const emo__json *object, const char *key) {
    if (emo__json_typeof(object) != EMO__JSON_OBJECT)
        return NULL;
    size_t length = strlen(key);
    const emo__json *members = children(object);
    if (object->count <= EMO__JSON_FEW) {
        for (uint32_t i = 0; i < object->count; i++) {
            if (members[i].key_length == length && memcmp(members[i].key, key, length) == 0)
                return &members[i];
        }
        return NULL;
    }
    const emo__json *index = members - 1;
    uint32_t at = emo__json_slot(key, length, index->count);
    for (; index->u.slots[at] != 0; at = (at + 1) & (index->count - 1)) {
        const emo__json *member = &members[index->u.slots[at] - 1];
        if (member->key_length == length && memcmp(member->key, key, length) == 0)
            return member;
    }
    return NULL;
}

const emo__json *emo__json_get(const emo__json *object, const char *key) {
    const emo__json *member = find(object, key);
    return member != NULL && member->type != EMO__JSON_NULL ? member : NULL;
}

bool emo__json_has(const emo__json *object, const char *key) { return find(object, key) != NULL; }

size_t emo__json_size(const emo__json *node) {
    emo__json_type type = emo__json_typeof(node);
    return type == EMO__JSON_OBJECT || type == EMO__JSON_ARRAY ? node->count : 0;
}

const emo__json *emo__json_at(const emo__json *array, size_t index) {
    if (emo__json_typeof(array) != EMO__JSON_ARRAY || index >= array->count)
        return NULL;
    return children(array) + index;
}

emo__json_iter emo__json_members(const emo__json *object) {
    emo__json_iter it = {object, 0, NULL, NULL};
    return it;
}

bool emo__json_next(emo__json_iter *it) {
    if (emo__json_typeof(it->object) != EMO__JSON_OBJECT || it->at >= it->object->count)
        return false;
    it->value = children(it->object) + it->at++;
    it->key = it->value->key;
    return true;
}

const char *emo__json_string(const emo__json *node, size_t *length) {
    bool is = emo__json_typeof(node) == EMO__JSON_STRING;
    if (length != NULL)
        *length = is ? node->count : 0;
    return is ? node->u.text : NULL;
}

bool emo__json_i64(const emo__json *node, int64_t *out) {
    if (emo__json_typeof(node) != EMO__JSON_INTEGER)
        return false;
    *out = node->u.integer;
    return true;
}

bool emo__json_f64(const emo__json *node, double *out) {
    emo__json_type type = emo__json_typeof(node);
    if (type != EMO__JSON_INTEGER && type != EMO__JSON_REAL)
        return false;
    *out = type == EMO__JSON_REAL ? node->u.real : (double)node->u.integer;
    return true;
}

bool emo__json_bool(const emo__json *node, bool *out) {
    if (emo__json_typeof(node) != EMO__JSON_BOOL)
        return false;
    *out = node->u.integer != 0;
    return true;
}

static emo_status fail_absent(const char *key, const char *where, emo_error *err) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" is missing", where, key);
}

emo_status emo__json_opt_i64(const emo__json *object, const char *key, const char *where, int64_t fallback, int64_t min,
                             int64_t max, int64_t *out, emo_error *err) {
    const emo__json *node = emo__json_get(object, key);
    int64_t value = fallback;
    if (node != NULL) {
        double real;
        if (!emo__json_i64(node, &value)) {
            /* 1e6 and 10000.0 are written by hand and by some exporters. */
            if (!emo__json_f64(node, &real) || !(real >= -9007199254740992.0 && real <= 9007199254740992.0) ||
                (double)(int64_t)real != real)
                return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" must be an integer", where, key);
            value = (int64_t)real;
        }
        if (value < min || value > max)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, value,
                                "%s: \"%s\" is %lld; it must be in [%lld, %lld]", where, key, (long long)value,
                                (long long)min, (long long)max);
    }
    *out = value;
    return EMO_OK;
}

emo_status emo__json_need_i64(const emo__json *object, const char *key, const char *where, int64_t min, int64_t max,
                              int64_t *out, emo_error *err) {
    if (emo__json_get(object, key) == NULL)
        return fail_absent(key, where, err);
    return emo__json_opt_i64(object, key, where, 0, min, max, out, err);
}

emo_status emo__json_opt_i32(const emo__json *object, const char *key, const char *where, int32_t fallback, int32_t min,
                             int32_t max, int32_t *out, emo_error *err) {
    int64_t value = fallback;
    emo_status status = emo__json_opt_i64(object, key, where, fallback, min, max, &value, err);
    if (status == EMO_OK)
        *out = (int32_t)value;
    return status;
}

emo_status emo__json_need_i32(const emo__json *object, const char *key, const char *where, int32_t min, int32_t max,
                              int32_t *out, emo_error *err) {
    if (emo__json_get(object, key) == NULL)
        return fail_absent(key, where, err);
    return emo__json_opt_i32(object, key, where, 0, min, max, out, err);
}

emo_status emo__json_opt_f64(const emo__json *object, const char *key, const char *where, double fallback, double min,
                             double max, double *out, emo_error *err) {
    const emo__json *node = emo__json_get(object, key);
    double value = fallback;
    if (node != NULL) {
        if (!emo__json_f64(node, &value))
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" must be a number", where, key);
        if (!(value >= min && value <= max))
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" is %g; it must be in [%g, %g]",
                                where, key, value, min, max);
    }
    *out = value;
    return EMO_OK;
}

emo_status emo__json_opt_bool(const emo__json *object, const char *key, const char *where, bool fallback, bool *out,
                              emo_error *err) {
    const emo__json *node = emo__json_get(object, key);
    bool value = fallback;
    if (node != NULL && !emo__json_bool(node, &value))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" must be true or false", where, key);
    *out = value;
    return EMO_OK;
}

emo_status emo__json_opt_string(const emo__json *object, const char *key, const char *where, const char *fallback,
                                const char **out, emo_error *err) {
    const emo__json *node = emo__json_get(object, key);
    const char *text = fallback;
    if (node != NULL) {
        size_t length;
        text = emo__json_string(node, &length);
        if (text == NULL || strlen(text) != length)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" must be a string%s", where, key,
                                text != NULL ? " without NUL characters" : "");
    }
    *out = text;
    return EMO_OK;
}

emo_status emo__json_need_string(const emo__json *object, const char *key, const char *where, const char **out,
                                 emo_error *err) {
    if (emo__json_get(object, key) == NULL)
        return fail_absent(key, where, err);
    return emo__json_opt_string(object, key, where, NULL, out, err);
}

emo_status emo__json_opt_i64s(const emo__json *object, const char *key, const char *where, int64_t min, int64_t max,
                              const emo__mem *mem, int64_t **out, size_t *count, emo_error *err) {
    *out = NULL;
    *count = 0;
    const emo__json *node = emo__json_get(object, key);
    if (node == NULL)
        return EMO_OK;
    if (emo__json_typeof(node) != EMO__JSON_ARRAY)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: \"%s\" must be a list of integers", where, key);
    size_t n = emo__json_size(node);
    if (n == 0)
        return EMO_OK;
    int64_t *values = emo__malloc_array(mem, n, sizeof *values);
    if (values == NULL)
        return emo__fail_memory(err, n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        if (!emo__json_i64(emo__json_at(node, i), &values[i]) || values[i] < min || values[i] > max) {
            emo__free(mem, values);
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)i,
                                "%s: \"%s\"[%zu] must be an integer in [%lld, %lld]", where, key, i, (long long)min,
                                (long long)max);
        }
    }
    *out = values;
    *count = n;
    return EMO_OK;
}

emo_status emo__json_opt_i32s(const emo__json *object, const char *key, const char *where, int32_t min, int32_t max,
                              const emo__mem *mem, int32_t **out, size_t *count, emo_error *err) {
    int64_t *wide = NULL;
    *out = NULL;
    emo_status status = emo__json_opt_i64s(object, key, where, min, max, mem, &wide, count, err);
    if (status != EMO_OK || *count == 0)
        return status;
    int32_t *values = emo__malloc_array(mem, *count, sizeof *values);
    if (values == NULL) {
        status = emo__fail_memory(err, *count * sizeof *values);
        *count = 0;
    } else {
        for (size_t i = 0; i < *count; i++)
            values[i] = (int32_t)wide[i];
        *out = values;
    }
    emo__free(mem, wide);
    return status;
}
