/* SPDX-License-Identifier: Apache-2.0 */
#include "io/json.h"

#include <jansson.h>
#include <string.h>

#include "base/status.h"
#include "io/files.h"

/* A node is a json_t; the struct emo__json is never defined. */
static json_t *raw(const emo__json *node) { return (json_t *)(uintptr_t)node; }
static const emo__json *wrap(const json_t *node) { return (const emo__json *)node; }

/* The parser recurses; measure first so that hostile input never does. */
static bool too_deep(const char *text, size_t size) {
    unsigned depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            if (++depth > EMO__JSON_MAX_DEPTH)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

emo_status emo__json_parse(const char *text, size_t size, const char *where, emo__json **root, emo_error *err) {
    *root = NULL;
    if (too_deep(text, size))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: JSON nested deeper than %u levels", where,
                            EMO__JSON_MAX_DEPTH);
    json_error_t detail;
    json_t *parsed =
        json_loadb(size > 0 ? text : "", size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &detail);
    if (parsed == NULL) {
        /* Where an allocation fails inside the parser it mostly says nothing at all. */
        if (json_error_code(&detail) == json_error_out_of_memory || detail.text[0] == '\0')
            return emo__fail_memory(err, size);
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, detail.line, "%s: invalid JSON, line %d column %d: %s",
                            where, detail.line, detail.column, detail.text);
    }
    *root = (emo__json *)parsed;
    return EMO_OK;
}

emo_status emo__json_load(const emo__mem *mem, const char *path, size_t max_bytes, emo__json **root, emo_error *err) {
    *root = NULL;
    char *text = NULL;
    size_t size = 0;
    emo_status status = emo__file_read(mem, path, max_bytes, &text, &size, err);
    if (status == EMO_OK)
        status = emo__json_parse(text, size, path, root, err);
    emo__free(mem, text);
    return status;
}

void emo__json_free(emo__json *root) { json_decref(raw(root)); }

emo__json_type emo__json_typeof(const emo__json *node) {
    if (node == NULL)
        return EMO__JSON_NONE;
    switch (json_typeof(raw(node))) {
    case JSON_OBJECT:
        return EMO__JSON_OBJECT;
    case JSON_ARRAY:
        return EMO__JSON_ARRAY;
    case JSON_STRING:
        return EMO__JSON_STRING;
    case JSON_INTEGER:
        return EMO__JSON_INTEGER;
    case JSON_REAL:
        return EMO__JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return EMO__JSON_BOOL;
    default:
        return EMO__JSON_NULL;
    }
}

const emo__json *emo__json_get(const emo__json *object, const char *key) {
    json_t *value = object != NULL ? json_object_get(raw(object), key) : NULL;
    return json_is_null(value) ? NULL : wrap(value);
}

bool emo__json_has(const emo__json *object, const char *key) {
    return object != NULL && json_object_get(raw(object), key) != NULL;
}

size_t emo__json_size(const emo__json *node) {
    switch (emo__json_typeof(node)) {
    case EMO__JSON_OBJECT:
        return json_object_size(raw(node));
    case EMO__JSON_ARRAY:
        return json_array_size(raw(node));
    default:
        return 0;
    }
}

const emo__json *emo__json_at(const emo__json *array, size_t index) {
    return array != NULL ? wrap(json_array_get(raw(array), index)) : NULL;
}

emo__json_iter emo__json_members(const emo__json *object) {
    emo__json_iter it = {object, NULL, false, NULL, NULL};
    return it;
}

bool emo__json_next(emo__json_iter *it) {
    if (it->object == NULL)
        return false;
    it->state = it->started ? json_object_iter_next(raw(it->object), it->state) : json_object_iter(raw(it->object));
    it->started = true;
    if (it->state == NULL) {
        it->object = NULL;
        return false;
    }
    it->key = json_object_iter_key(it->state);
    it->value = wrap(json_object_iter_value(it->state));
    return true;
}

const char *emo__json_string(const emo__json *node, size_t *length) {
    const char *text = node != NULL ? json_string_value(raw(node)) : NULL;
    if (length != NULL)
        *length = text != NULL ? json_string_length(raw(node)) : 0;
    return text;
}

bool emo__json_i64(const emo__json *node, int64_t *out) {
    if (emo__json_typeof(node) != EMO__JSON_INTEGER)
        return false;
    *out = (int64_t)json_integer_value(raw(node));
    return true;
}

bool emo__json_f64(const emo__json *node, double *out) {
    emo__json_type type = emo__json_typeof(node);
    if (type != EMO__JSON_INTEGER && type != EMO__JSON_REAL)
        return false;
    *out = json_number_value(raw(node));
    return true;
}

bool emo__json_bool(const emo__json *node, bool *out) {
    if (emo__json_typeof(node) != EMO__JSON_BOOL)
        return false;
    *out = json_is_true(raw(node));
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
