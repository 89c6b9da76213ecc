/* SPDX-License-Identifier: Apache-2.0 */
/* Values of an opened GGUF file, by key. */
#include <string.h>

#include "base/status.h"
#include "io/gguf_parts.h"

static const emo__gguf_value *find_value(const emo__gguf *g, const char *key) {
    uint32_t at;
    return emo__name_index_find(&g->keys, key, &at) ? &g->values[at] : NULL;
}

bool emo__gguf_has(const emo__gguf *g, const char *key) { return find_value(g, key) != NULL; }

static emo_status fail_key(const emo__gguf *g, emo_error *err, const char *key, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: key \"%.120s\" %s", emo__gguf_name(g), key, what);
}

/* False: no integer, or one beyond int64_t. */
static bool integer_at(const unsigned char *p, emo__gguf_type type, int64_t *out) {
    uint64_t v = emo__little(p, emo__gguf_scalar(type));
    switch (type) {
    case EMO__GGUF_I8:
        *out = (int64_t)(v & 0x7f) - (int64_t)(v & 0x80);
        return true;
    case EMO__GGUF_I16:
        *out = (int16_t)v;
        return true;
    case EMO__GGUF_I32:
        *out = (int32_t)v;
        return true;
    case EMO__GGUF_U8:
    case EMO__GGUF_U16:
    case EMO__GGUF_U32:
    case EMO__GGUF_I64:
        *out = (int64_t)v;
        return true;
    case EMO__GGUF_U64:
        *out = (int64_t)v;
        return v <= INT64_MAX;
    default:
        return false;
    }
}

emo_status emo__gguf_i64(const emo__gguf *g, const char *key, int64_t fallback, int64_t min, int64_t max, int64_t *out,
                         emo_error *err) {
    const emo__gguf_value *v = find_value(g, key);
    *out = fallback;
    if (v == NULL)
        return EMO_OK;
    if (!integer_at(emo__gguf_front(g) + v->at, v->type, out))
        return fail_key(g, err, key, "is no integer");
    if (*out < min || *out > max)
        return emo__fail_at(err, EMO_E_RANGE, EMO_DOMAIN_FILE, 0,
                            "%s: key \"%.120s\" is %lld; it must be in [%lld, %lld]", emo__gguf_name(g), key,
                            (long long)*out, (long long)min, (long long)max);
    return EMO_OK;
}

emo_status emo__gguf_f64(const emo__gguf *g, const char *key, double fallback, double min, double max, double *out,
                         emo_error *err) {
    const emo__gguf_value *v = find_value(g, key);
    *out = fallback;
    if (v == NULL)
        return EMO_OK;
    const unsigned char *p = emo__gguf_front(g) + v->at;
    int64_t whole;
    if (v->type == EMO__GGUF_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        *out = (double)f;
    } else if (v->type == EMO__GGUF_F64) {
        memcpy(out, p, sizeof *out);
    } else if (integer_at(p, v->type, &whole)) {
        *out = (double)whole;
    } else {
        return fail_key(g, err, key, "is no number");
    }
    if (!(*out >= min && *out <= max))
        return emo__fail_at(err, EMO_E_RANGE, EMO_DOMAIN_FILE, 0, "%s: key \"%.120s\" is %g; it must be in [%g, %g]",
                            emo__gguf_name(g), key, *out, min, max);
    return EMO_OK;
}

emo_status emo__gguf_bool(const emo__gguf *g, const char *key, bool fallback, bool *out, emo_error *err) {
    const emo__gguf_value *v = find_value(g, key);
    *out = fallback;
    if (v == NULL)
        return EMO_OK;
    if (v->type != EMO__GGUF_BOOL)
        return fail_key(g, err, key, "is no truth value");
    *out = emo__gguf_front(g)[v->at] != 0;
    return EMO_OK;
}

emo_status emo__gguf_string(const emo__gguf *g, const char *key, const char **text, size_t *length, emo_error *err) {
    const emo__gguf_value *v = find_value(g, key);
    *text = NULL;
    *length = 0;
    if (v == NULL)
        return EMO_OK;
    if (v->type != EMO__GGUF_STRING)
        return fail_key(g, err, key, "is no text");
    *text = (const char *)emo__gguf_front(g) + v->at;
    *length = (size_t)v->count;
    return EMO_OK;
}

emo_status emo__gguf_array_open(const emo__gguf *g, const char *key, emo__gguf_array *out, emo_error *err) {
    const emo__gguf_value *v = find_value(g, key);
    memset(out, 0, sizeof *out);
    if (v == NULL)
        return EMO_OK;
    if (v->type != EMO__GGUF_ARRAY)
        return fail_key(g, err, key, "is no array");
    *out = (emo__gguf_array){key, v->item, v->count, emo__gguf_front(g) + v->at};
    return EMO_OK;
}

emo_status emo__gguf_array_string(emo__gguf_array *a, const char **text, size_t *length, emo_error *err) {
    if (a->count == 0 || a->type != EMO__GGUF_STRING)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "key \"%.120s\" is no array of texts", a->key);
    *length = (size_t)emo__little(a->at, 8);
    *text = (const char *)a->at + 8;
    a->at += 8 + *length;
    a->count--;
    return EMO_OK;
}

emo_status emo__gguf_array_i64(emo__gguf_array *a, int64_t *out, emo_error *err) {
    if (a->count == 0 || a->type == EMO__GGUF_STRING || !integer_at(a->at, a->type, out))
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "key \"%.120s\" is no array of integers", a->key);
    a->at += emo__gguf_scalar(a->type);
    a->count--;
    return EMO_OK;
}
