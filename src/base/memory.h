/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation through the host's hooks. Blocks are 64-byte aligned and remember their size, so that
 * the allocator's free gets it back without every caller keeping it. */
#ifndef EMO_SRC_BASE_MEMORY_H
#define EMO_SRC_BASE_MEMORY_H

#include <emo/hooks.h>

#define EMO__ALIGN 64u

typedef struct emo__mem {
    emo_allocator hooks;
} emo__mem;

/* Uses malloc and friends when hooks->alloc is NULL. */
void emo__mem_init(emo__mem *mem, const emo_allocator *hooks);

void *emo__alloc(const emo__mem *mem, size_t size);                      /* contents undefined; NULL on failure */
void *emo__calloc(const emo__mem *mem, size_t count, size_t size);       /* zeroed; NULL on failure or overflow */
void *emo__malloc_array(const emo__mem *mem, size_t count, size_t size); /* contents undefined, overflow checked */
void *emo__realloc(const emo__mem *mem, void *ptr, size_t size); /* ptr may be NULL; old block kept on failure */
void emo__free(const emo__mem *mem, void *ptr);                  /* NULL is a no-op */
char *emo__strdup(const emo__mem *mem, const char *text);        /* NULL on failure */
char *emo__strndup(const emo__mem *mem, const char *text, size_t length);

/* A growable byte buffer, also used as string builder (always NUL-terminated when data != NULL). */
typedef struct emo__buf {
    const emo__mem *mem;
    char *data;
    size_t size;
    size_t capacity;
} emo__buf;

void emo__buf_init(emo__buf *buf, const emo__mem *mem);
void emo__buf_free(emo__buf *buf);
EMO_MUST_CHECK emo_status emo__buf_reserve(emo__buf *buf, size_t extra, emo_error *err);
EMO_MUST_CHECK emo_status emo__buf_append(emo__buf *buf, const void *data, size_t size, emo_error *err);
EMO_MUST_CHECK emo_status emo__buf_printf(emo__buf *buf, emo_error *err, const char *fmt, ...) EMO_PRINTF(3, 4);

/* Grows *ptr (elements of `item` bytes) so that `need` elements fit; doubles. *capacity is in elements. */
EMO_MUST_CHECK emo_status emo__grow(const emo__mem *mem, void **ptr, size_t *capacity, size_t need, size_t item,
                                    emo_error *err);

#endif
