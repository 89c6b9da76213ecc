/* SPDX-License-Identifier: Apache-2.0 */
/* GGUF, version 3: reading and writing. A file is a header of keys with typed values and of tensor descriptions, and
 * behind it the data of the tensors. */
#ifndef EMO_SRC_IO_GGUF_H
#define EMO_SRC_IO_GGUF_H

#include <stdbool.h>

#include "io/source.h"

#define EMO__GGUF_MAX_DIMS 4
#define EMO__GGUF_ALIGNMENT 32

/* Types of values, by the format's numbers. */
typedef enum emo__gguf_type {
    EMO__GGUF_U8 = 0,
    EMO__GGUF_I8 = 1,
    EMO__GGUF_U16 = 2,
    EMO__GGUF_I16 = 3,
    EMO__GGUF_U32 = 4,
    EMO__GGUF_I32 = 5,
    EMO__GGUF_F32 = 6,
    EMO__GGUF_BOOL = 7,
    EMO__GGUF_STRING = 8,
    EMO__GGUF_ARRAY = 9,
    EMO__GGUF_U64 = 10,
    EMO__GGUF_I64 = 11,
    EMO__GGUF_F64 = 12
} emo__gguf_type;

typedef struct emo__gguf_tensor {
    const char *name;
    char type_name[16]; /* such as "q6_k" */
    emo_dtype dtype;    /* -1: a type this library does not read; then bytes is 0 when its size is not known either */
    int32_t n_dims;
    int64_t dims[EMO__GGUF_MAX_DIMS]; /* as in the file: the length of a row first; 1 beyond n_dims */
    uint64_t offset;                  /* from the start of the source */
    uint64_t bytes;
} emo__gguf_tensor;

typedef struct emo__gguf emo__gguf;

/* True when the source begins as a GGUF file does. */
bool emo__gguf_detect(const emo_source *source);
/* Parses and validates the header. Keeps a reference to the source. EMO_E_FORMAT when hostile, EMO_E_UNSUPPORTED for
 * another version. */
EMO_MUST_CHECK emo_status emo__gguf_open(emo_runtime *rt, emo_source *source, emo__gguf **out, emo_error *err);
void emo__gguf_close(emo__gguf *g);
const char *emo__gguf_name(const emo__gguf *g);   /* of the source, for messages */
emo_source *emo__gguf_source(const emo__gguf *g); /* borrowed */

size_t emo__gguf_count(const emo__gguf *g);
const emo__gguf_tensor *emo__gguf_at(const emo__gguf *g, size_t index); /* in the order of the data */
const emo__gguf_tensor *emo__gguf_find(const emo__gguf *g, const char *name);
/* The tensor's bytes inside the mapped source; NULL when the source cannot map. */
const void *emo__gguf_data(const emo__gguf *g, const emo__gguf_tensor *tensor);
/* Copies bytes [begin, begin + size) of a tensor. */
EMO_MUST_CHECK emo_status emo__gguf_read(const emo__gguf *g, const emo__gguf_tensor *tensor, uint64_t begin, void *dst,
                                         size_t size, emo_error *err);

/* Values by key. An absent key gives the fallback; one of another type or outside the range is EMO_E_FORMAT or
 * EMO_E_RANGE, by key. Integers of any width are one type here. */
bool emo__gguf_has(const emo__gguf *g, const char *key);
EMO_MUST_CHECK emo_status emo__gguf_i64(const emo__gguf *g, const char *key, int64_t fallback, int64_t min, int64_t max,
                                        int64_t *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_f64(const emo__gguf *g, const char *key, double fallback, double min, double max,
                                        double *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_bool(const emo__gguf *g, const char *key, bool fallback, bool *out, emo_error *err);
/* A view into the file's header, not NUL-terminated; *text NULL when absent. */
EMO_MUST_CHECK emo_status emo__gguf_string(const emo__gguf *g, const char *key, const char **text, size_t *length,
                                           emo_error *err);

/* An array, read from the front. count 0 and key NULL when absent. */
typedef struct emo__gguf_array {
    const char *key;
    emo__gguf_type type;
    uint64_t count;
    const unsigned char *at;
} emo__gguf_array;
EMO_MUST_CHECK emo_status emo__gguf_array_open(const emo__gguf *g, const char *key, emo__gguf_array *out,
                                               emo_error *err);
/* The next item; count says how many are left, and must not be 0. The array's type is checked: EMO_E_FORMAT. */
EMO_MUST_CHECK emo_status emo__gguf_array_string(emo__gguf_array *array, const char **text, size_t *length,
                                                 emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_array_i64(emo__gguf_array *array, int64_t *out, emo_error *err);

/* Writer: keys and tensors in any order, begin, the data of the tensors in the declared order (each in as many pieces
 * as wanted), finish. The file appears under its name when it is complete. */
typedef struct emo__gguf_writer emo__gguf_writer;
EMO_MUST_CHECK emo_status emo__gguf_writer_create(emo_runtime *rt, const char *path, emo__gguf_writer **out,
                                                  emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_put_u32(emo__gguf_writer *w, const char *key, uint32_t value, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_put_f32(emo__gguf_writer *w, const char *key, float value, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_put_bool(emo__gguf_writer *w, const char *key, bool value, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_put_string(emo__gguf_writer *w, const char *key, const char *text, size_t length,
                                               emo_error *err);
/* An array: its head, then exactly `count` items of the type. */
EMO_MUST_CHECK emo_status emo__gguf_put_array(emo__gguf_writer *w, const char *key, emo__gguf_type type, uint64_t count,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_put_item_string(emo__gguf_writer *w, const char *text, size_t length,
                                                    emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_put_item_i32(emo__gguf_writer *w, int32_t value, emo_error *err);
/* dims: the length of a row first. */
EMO_MUST_CHECK emo_status emo__gguf_writer_add(emo__gguf_writer *w, const char *name, emo_dtype dtype,
                                               const int64_t *dims, int32_t n_dims, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_writer_begin(emo__gguf_writer *w, emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_writer_write(emo__gguf_writer *w, const char *name, const void *data, size_t size,
                                                 emo_error *err);
EMO_MUST_CHECK emo_status emo__gguf_writer_finish(emo__gguf_writer *w, emo_error *err); /* then still destroy */
uint64_t emo__gguf_writer_size(const emo__gguf_writer *w); /* bytes of the whole file, after finish */
void emo__gguf_writer_destroy(emo__gguf_writer *w);        /* drops what is unfinished */

/* The format's number of an element type; -1: none. */
int32_t emo__gguf_number(emo_dtype dtype);

#endif
