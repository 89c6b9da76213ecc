/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors: reading a file, reading a folder of shards, writing. */
#ifndef EMO_SRC_IO_SAFETENSORS_H
#define EMO_SRC_IO_SAFETENSORS_H

#include <stdbool.h>

#include "io/source.h"

#define EMO__ST_MAX_DIMS 8

typedef struct emo__st_entry {
    const char *name;
    char dtype_name[16]; /* as in the file, such as "BF16" */
    emo_dtype dtype;     /* -1: a type this library does not know; such an entry can be listed but not read */
    int32_t n_dims;
    int64_t shape[EMO__ST_MAX_DIMS];
    uint64_t offset; /* from the start of the source */
    uint64_t bytes;
    uint64_t count; /* elements */
} emo__st_entry;

typedef struct emo__st emo__st;

/* Parses and validates the header. Keeps a reference to the source. EMO_E_FORMAT when hostile. */
EMO_MUST_CHECK emo_status emo__st_open(emo_runtime *rt, emo_source *source, emo__st **out, emo_error *err);
void emo__st_close(emo__st *st);
size_t emo__st_count(const emo__st *st);
const emo__st_entry *emo__st_at(const emo__st *st, size_t index);       /* in the order of the data */
const emo__st_entry *emo__st_find(const emo__st *st, const char *name); /* NULL if absent */
const char *emo__st_metadata(const emo__st *st, const char *key);       /* __metadata__; NULL if absent */
emo_source *emo__st_source(const emo__st *st);                          /* borrowed */
/* The tensor's bytes inside the mapped source (any alignment); NULL when the source cannot map. */
const void *emo__st_data(const emo__st *st, const emo__st_entry *entry);
/* Copies bytes [begin, begin + size) of the tensor. */
EMO_MUST_CHECK emo_status emo__st_read(const emo__st *st, const emo__st_entry *entry, uint64_t begin, void *dst,
                                       size_t size, emo_error *err);
/* Copies elements [first, first + count) as `dtype`, converting between F32, F16 and BF16. */
EMO_MUST_CHECK emo_status emo__st_read_as(const emo__st *st, const emo__st_entry *entry, uint64_t first, uint64_t count,
                                          emo_dtype dtype, void *dst, emo_error *err);
/* EMO_E_MISMATCH, naming the tensor and both shapes, unless the shape is this one. */
EMO_MUST_CHECK emo_status emo__st_check_shape(const emo__st_entry *entry, const int64_t *shape, int32_t n_dims,
                                              emo_error *err);

/* A model's tensors: one file, or shards named by model.safetensors.index.json and opened when first needed. */
typedef struct emo__st_set emo__st_set;
EMO_MUST_CHECK emo_status emo__st_set_open(emo_runtime *rt, const char *folder, emo__st_set **out, emo_error *err);
EMO_MUST_CHECK emo_status emo__st_set_from_source(emo_runtime *rt, emo_source *source, emo__st_set **out,
                                                  emo_error *err);
void emo__st_set_close(emo__st_set *set);
size_t emo__st_set_count(const emo__st_set *set);
const char *emo__st_set_name(const emo__st_set *set, size_t index);
bool emo__st_set_has(const emo__st_set *set, const char *name);
/* EMO_E_NOT_FOUND, naming the tensor, when absent. Views live as long as the set. Thread-safe. */
EMO_MUST_CHECK emo_status emo__st_set_find(emo__st_set *set, const char *name, const emo__st **st,
                                           const emo__st_entry **entry, emo_error *err);

/* Writer. Declare every tensor, begin, write the data in the declared order (each tensor in as many pieces as wanted),
 * finish. shard_bytes 0: `path` is the file. Else `path` is a folder that gets model.safetensors, or shards and an
 * index when the data exceed shard_bytes. Nothing appears under its final name before it is complete. */
typedef struct emo__st_writer emo__st_writer;
EMO_MUST_CHECK emo_status emo__st_writer_create(emo_runtime *rt, const char *path, uint64_t shard_bytes,
                                                emo__st_writer **out, emo_error *err);
EMO_MUST_CHECK emo_status emo__st_writer_add(emo__st_writer *w, const char *name, emo_dtype dtype, const int64_t *shape,
                                             int32_t n_dims, emo_error *err);
/* A tensor of the name, type (also one this library does not know), shape and size of another file's. */
EMO_MUST_CHECK emo_status emo__st_writer_add_like(emo__st_writer *w, const emo__st_entry *entry, emo_error *err);
/* Extra __metadata__ strings, beside "format": "pt". Before begin. */
EMO_MUST_CHECK emo_status emo__st_writer_metadata(emo__st_writer *w, const char *key, const char *value,
                                                  emo_error *err);
EMO_MUST_CHECK emo_status emo__st_writer_begin(emo__st_writer *w, emo_error *err);
EMO_MUST_CHECK emo_status emo__st_writer_write(emo__st_writer *w, const char *name, const void *data, size_t size,
                                               emo_error *err);
EMO_MUST_CHECK emo_status emo__st_writer_finish(emo__st_writer *w, emo_error *err); /* then still destroy */
void emo__st_writer_destroy(emo__st_writer *w);                                     /* drops what is unfinished */

#endif
