/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of an opened GGUF file, for the files that parse it and look values up. */
#ifndef EMO_SRC_IO_GGUF_PARTS_H
#define EMO_SRC_IO_GGUF_PARTS_H

#include "io/gguf.h"
#include "io/names.h"

typedef struct emo__gguf_value {
    emo__gguf_type type;
    emo__gguf_type item; /* of an array */
    uint64_t count;      /* items of an array, bytes of a string */
    uint64_t at;         /* of the first byte of the value, the string or the first item, from the start of the file */
} emo__gguf_value;

struct emo__gguf {
    emo_runtime *rt;
    emo_source *source;
    const unsigned char *mapped; /* the whole source, or NULL */
    uint64_t size;               /* of the source */
    char *read;                  /* the front of the source when it cannot be mapped */
    size_t have;                 /* bytes of the front that are there */
    uint64_t at;                 /* the place of parsing */
    char *names;                 /* keys and tensor names, NUL-terminated, one after the other */
    size_t names_size;
    size_t names_capacity;
    emo__gguf_value *values;
    size_t n_values;
    emo__gguf_tensor *tensors;
    size_t count;
    emo__name_index keys;
    emo__name_index index;
};

/* The bytes of the file from its start on, as far as they were read; the whole header is. */
static inline const unsigned char *emo__gguf_front(const emo__gguf *g) {
    return g->mapped != NULL ? g->mapped : (const unsigned char *)g->read;
}

/* Bytes of a value of a type that is neither a string nor an array; 0 for those and for no type. */
static inline size_t emo__gguf_scalar(uint64_t type) {
    static const uint8_t bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof bytes ? bytes[type] : 0;
}

static inline uint64_t emo__little(const unsigned char *p, size_t bytes) {
    uint64_t v = 0;
    for (size_t i = bytes; i > 0; i--)
        v = v << 8 | p[i - 1];
    return v;
}

#endif
