/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/parse.h"
#include "base/status.h"
#include "io/json.h"

static void put(emo__jw *w, const char *text, size_t length) {
    if (w->status == EMO_OK)
        w->status = emo__buf_append(w->buf, text, length, w->err);
}

static void put_escaped(emo__jw *w, const char *text, size_t length) {
    static const char hex[] = "0123456789abcdef";
    put(w, "\"", 1);
    size_t begin = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        put(w, text + begin, i - begin);
        begin = i + 1;
        if (c == '"' || c == '\\') {
            const char pair[2] = {'\\', (char)c};
            put(w, pair, 2);
        } else if (c == '\n') {
            put(w, "\\n", 2);
        } else {
            const char code[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15u]};
            put(w, code, 6);
        }
    }
    put(w, text + begin, length - begin);
    put(w, "\"", 1);
}

static void new_line(emo__jw *w) {
    static const char blanks[] = "                                ";
    put(w, "\n", 1);
    for (size_t left = (size_t)w->indent * w->depth; left > 0;) {
        size_t n = left < sizeof blanks - 1 ? left : sizeof blanks - 1;
        put(w, blanks, n);
        left -= n;
    }
}

static bool in_row(const emo__jw *w) { return (w->row_bits >> w->depth & 1u) != 0; }

/* Comma, line and key before a value. */
static void lead(emo__jw *w, const char *key) {
    if (w->depth > 0) {
        if (!w->fresh)
            put(w, ",", 1);
        if (w->indent > 0 && !in_row(w))
            new_line(w);
        else if (!w->fresh)
            put(w, " ", 1);
    }
    w->fresh = false;
    if (key != NULL) {
        put_escaped(w, key, strlen(key));
        put(w, ": ", 2);
        if (w->keys != NULL && w->depth == 1 && w->status == EMO_OK)
            w->status = emo__buf_append(w->keys, key, strlen(key) + 1, w->err);
    }
}

bool emo__jw_has(const emo__jw *w, const char *key) {
    for (size_t at = 0; at < w->keys->size; at += strlen(w->keys->data + at) + 1) {
        if (strcmp(w->keys->data + at, key) == 0)
            return true;
    }
    return false;
}

static void open_level(emo__jw *w, const char *key, const char *bracket, bool row) {
    lead(w, key);
    put(w, bracket, 1);
    if (w->depth + 1 >= EMO__JSON_MAX_DEPTH) {
        if (w->status == EMO_OK)
            w->status = emo__fail(w->err, EMO_E_INTERNAL, "JSON written deeper than %u levels", EMO__JSON_MAX_DEPTH);
        return;
    }
    row = row || in_row(w);
    w->depth++;
    w->row_bits &= ~((uint64_t)1 << w->depth);
    w->row_bits |= (uint64_t)(row ? 1 : 0) << w->depth;
    w->fresh = true;
}

static void close_level(emo__jw *w, const char *bracket) {
    bool row = in_row(w);
    if (w->depth > 0)
        w->depth--;
    if (!w->fresh && w->indent > 0 && !row)
        new_line(w);
    put(w, bracket, 1);
    w->fresh = false;
}

void emo__jw_begin(emo__jw *w, emo__buf *buf, int indent, emo_error *err) {
    memset(w, 0, sizeof *w);
    w->buf = buf;
    w->err = err;
    w->indent = indent;
    w->fresh = true;
}

emo_status emo__jw_end(emo__jw *w) {
    if (w->status == EMO_OK && w->depth != 0)
        w->status = emo__fail(w->err, EMO_E_INTERNAL, "JSON left open");
    if (w->indent > 0)
        put(w, "\n", 1);
    return w->status;
}

void emo__jw_object(emo__jw *w, const char *key) { open_level(w, key, "{", false); }
void emo__jw_object_end(emo__jw *w) { close_level(w, "}"); }
void emo__jw_array(emo__jw *w, const char *key) { open_level(w, key, "[", false); }
void emo__jw_row(emo__jw *w, const char *key) { open_level(w, key, "[", true); }
void emo__jw_array_end(emo__jw *w) { close_level(w, "]"); }

void emo__jw_string_n(emo__jw *w, const char *key, const char *text, size_t length) {
    lead(w, key);
    put_escaped(w, text, length);
}

void emo__jw_string(emo__jw *w, const char *key, const char *text) {
    if (text == NULL)
        emo__jw_null(w, key);
    else
        emo__jw_string_n(w, key, text, strlen(text));
}

void emo__jw_i64(emo__jw *w, const char *key, int64_t value) {
    lead(w, key);
    if (w->status == EMO_OK)
        w->status = emo__buf_printf(w->buf, w->err, "%lld", (long long)value);
}

void emo__jw_f64(emo__jw *w, const char *key, double value) {
    char text[EMO__NUMBER_TEXT];
    lead(w, key);
    put(w, text, emo__format_f64(text, value));
}

void emo__jw_f32(emo__jw *w, const char *key, float value) {
    char text[EMO__NUMBER_TEXT];
    lead(w, key);
    put(w, text, emo__format_f32(text, value));
}

void emo__jw_bool(emo__jw *w, const char *key, bool value) {
    lead(w, key);
    put(w, value ? "true" : "false", value ? 4 : 5);
}

void emo__jw_null(emo__jw *w, const char *key) {
    lead(w, key);
    put(w, "null", 4);
}

/* Recursion is bounded: parsed documents have at most EMO__JSON_MAX_DEPTH levels. */
void emo__jw_node(emo__jw *w, const char *key, const emo__json *node) {
    size_t length;
    int64_t integer = 0;
    double real = 0.0;
    bool flag = false;
    switch (emo__json_typeof(node)) {
    case EMO__JSON_OBJECT:
        emo__jw_object(w, key);
        for (emo__json_iter it = emo__json_members(node); emo__json_next(&it);)
            emo__jw_node(w, it.key, it.value);
        emo__jw_object_end(w);
        break;
    case EMO__JSON_ARRAY: {
        emo__json_type first = emo__json_typeof(emo__json_at(node, 0));
        if (first == EMO__JSON_INTEGER || first == EMO__JSON_REAL)
            emo__jw_row(w, key);
        else
            emo__jw_array(w, key);
        for (size_t i = 0; i < emo__json_size(node); i++)
            emo__jw_node(w, NULL, emo__json_at(node, i));
        emo__jw_array_end(w);
        break;
    }
    case EMO__JSON_STRING: {
        const char *text = emo__json_string(node, &length);
        emo__jw_string_n(w, key, text, length);
        break;
    }
    case EMO__JSON_INTEGER:
        (void)emo__json_i64(node, &integer);
        emo__jw_i64(w, key, integer);
        break;
    case EMO__JSON_REAL:
        (void)emo__json_f64(node, &real);
        emo__jw_f64(w, key, real);
        break;
    case EMO__JSON_BOOL:
        (void)emo__json_bool(node, &flag);
        emo__jw_bool(w, key, flag);
        break;
    default:
        emo__jw_null(w, key);
        break;
    }
}
