/* SPDX-License-Identifier: Apache-2.0 */
/* JSON in and out. */
#ifndef EMO_SRC_IO_JSON_H
#define EMO_SRC_IO_JSON_H

#include <stdbool.h>

#include "base/memory.h"

/* A node of a parsed document. Nodes and strings live until the root is freed. Functions that read accept NULL. */
typedef struct emo__json emo__json;

typedef enum emo__json_type {
    EMO__JSON_NONE = 0, /* no node */
    EMO__JSON_NULL,
    EMO__JSON_BOOL,
    EMO__JSON_INTEGER,
    EMO__JSON_REAL,
    EMO__JSON_STRING,
    EMO__JSON_ARRAY,
    EMO__JSON_OBJECT
} emo__json_type;

#define EMO__JSON_MAX_DEPTH 64u

/* Parses text[0..size) as RFC 8259 has it: any value at the top, valid UTF-8, at most EMO__JSON_MAX_DEPTH levels; keys
 * of an object that are equal, integers beyond 64 bits and reals beyond a double are refused. `where` names the
 * document in messages. EMO_E_FORMAT with line and column, EMO_E_LIMIT beyond 4 GiB. `mem` must live as long as the
 * document. */
EMO_MUST_CHECK emo_status emo__json_parse(const emo__mem *mem, const char *text, size_t size, const char *where,
                                          emo__json **root, emo_error *err);
/* Reads a file of at most max_bytes and parses it. */
EMO_MUST_CHECK emo_status emo__json_load(const emo__mem *mem, const char *path, size_t max_bytes, emo__json **root,
                                         emo_error *err);
void emo__json_free(emo__json *root); /* NULL is a no-op */

emo__json_type emo__json_typeof(const emo__json *node);
const emo__json *emo__json_get(const emo__json *object, const char *key); /* NULL if absent, null, or no object */
bool emo__json_has(const emo__json *object, const char *key);             /* true also for null */
size_t emo__json_size(const emo__json *node);                             /* members or elements; else 0 */
const emo__json *emo__json_at(const emo__json *array, size_t index);      /* NULL if out of range */

/* Members of an object, in the order of the file:
 * for (emo__json_iter it = emo__json_members(obj); emo__json_next(&it);) use(it.key, it.value); */
typedef struct emo__json_iter {
    const emo__json *object;
    size_t at;
    const char *key;
    const emo__json *value;
} emo__json_iter;
emo__json_iter emo__json_members(const emo__json *object);
bool emo__json_next(emo__json_iter *it);

/* Values of a node; false / NULL when it is of another type. `length` is nullable; strings may hold NUL bytes. */
const char *emo__json_string(const emo__json *node, size_t *length);
bool emo__json_i64(const emo__json *node, int64_t *out);
bool emo__json_f64(const emo__json *node, double *out); /* integers too */
bool emo__json_bool(const emo__json *node, bool *out);

/* Typed members of an object. `where` is the document and path for messages ("config.json", "config.json: rope").
 * _opt: absent or null gives the fallback; _need: absent is EMO_E_FORMAT. A wrong type or a value outside [min, max] is
 * EMO_E_FORMAT. */
EMO_MUST_CHECK emo_status emo__json_opt_i64(const emo__json *object, const char *key, const char *where,
                                            int64_t fallback, int64_t min, int64_t max, int64_t *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__json_need_i64(const emo__json *object, const char *key, const char *where, int64_t min,
                                             int64_t max, int64_t *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__json_opt_i32(const emo__json *object, const char *key, const char *where,
                                            int32_t fallback, int32_t min, int32_t max, int32_t *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__json_need_i32(const emo__json *object, const char *key, const char *where, int32_t min,
                                             int32_t max, int32_t *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__json_opt_f64(const emo__json *object, const char *key, const char *where,
                                            double fallback, double min, double max, double *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__json_opt_bool(const emo__json *object, const char *key, const char *where, bool fallback,
                                             bool *out, emo_error *err);
/* Strings are views; one that holds a NUL byte is refused. The fallback may be NULL. */
EMO_MUST_CHECK emo_status emo__json_opt_string(const emo__json *object, const char *key, const char *where,
                                               const char *fallback, const char **out, emo_error *err);
EMO_MUST_CHECK emo_status emo__json_need_string(const emo__json *object, const char *key, const char *where,
                                                const char **out, emo_error *err);
/* Arrays of integers within [min, max]; *out is allocated from mem (NULL and 0 when absent or empty). */
EMO_MUST_CHECK emo_status emo__json_opt_i32s(const emo__json *object, const char *key, const char *where, int32_t min,
                                             int32_t max, const emo__mem *mem, int32_t **out, size_t *count,
                                             emo_error *err);
EMO_MUST_CHECK emo_status emo__json_opt_i64s(const emo__json *object, const char *key, const char *where, int64_t min,
                                             int64_t max, const emo__mem *mem, int64_t **out, size_t *count,
                                             emo_error *err);

/* Writer: appends to a buffer; the first failure sticks and is returned by emo__jw_end(). `key` is NULL inside arrays
 * and at the top. indent 0: one line; else that many spaces a level (arrays of numbers stay on one line when begun with
 * emo__jw_row). */
typedef struct emo__jw {
    emo__buf *buf;
    emo_error *err;
    emo_status status;
    int indent;
    unsigned depth;
    bool fresh;        /* nothing written yet at this level */
    uint64_t row_bits; /* bit d: the level d is a one-line array */
    emo__buf *keys;    /* set after emo__jw_begin(), for emo__jw_has(): keeps the outermost object's keys */
} emo__jw;
void emo__jw_begin(emo__jw *w, emo__buf *buf, int indent, emo_error *err);
emo_status emo__jw_end(emo__jw *w);
/* Whether the outermost object has the key already; w->keys must have been set. */
bool emo__jw_has(const emo__jw *w, const char *key);
void emo__jw_object(emo__jw *w, const char *key);
void emo__jw_object_end(emo__jw *w);
void emo__jw_array(emo__jw *w, const char *key);
void emo__jw_row(emo__jw *w, const char *key);
void emo__jw_array_end(emo__jw *w);                                 /* ends array and row */
void emo__jw_string(emo__jw *w, const char *key, const char *text); /* NULL text: null */
void emo__jw_string_n(emo__jw *w, const char *key, const char *text, size_t length);
void emo__jw_i64(emo__jw *w, const char *key, int64_t value);
void emo__jw_f64(emo__jw *w, const char *key, double value); /* not finite: null */
void emo__jw_f32(emo__jw *w, const char *key, float value);
void emo__jw_bool(emo__jw *w, const char *key, bool value);
void emo__jw_null(emo__jw *w, const char *key);
/* Copies a parsed node as it is. */
void emo__jw_node(emo__jw *w, const char *key, const emo__json *node);

#endif
