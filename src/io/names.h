/* SPDX-License-Identifier: Apache-2.0 */
/* A hash index from names to numbers. */
#ifndef EMO_SRC_IO_NAMES_H
#define EMO_SRC_IO_NAMES_H

#include <stdbool.h>

#include "base/memory.h"

typedef struct emo__name_slot {
    const char *name; /* borrowed; NULL: free */
    uint64_t hash;
    uint32_t value;
} emo__name_slot;

typedef struct emo__name_index {
    const emo__mem *mem;
    emo__name_slot *slots;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
} emo__name_index;

void emo__name_index_init(emo__name_index *index, const emo__mem *mem);
void emo__name_index_free(emo__name_index *index);
/* *fresh is false, and nothing changes, when the name is there already. */
EMO_MUST_CHECK emo_status emo__name_index_add(emo__name_index *index, const char *name, uint32_t value, bool *fresh,
                                              emo_error *err);
bool emo__name_index_find(const emo__name_index *index, const char *name, uint32_t *value);

/* FNV-1a over bytes; `hash` continues an earlier run, EMO__HASH_START begins one. */
#define EMO__HASH_START 0xcbf29ce484222325u
uint64_t emo__hash_bytes(uint64_t hash, const void *data, size_t size);

#endif
