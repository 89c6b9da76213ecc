/* SPDX-License-Identifier: Apache-2.0 */
#define _DEFAULT_SOURCE
#include "base/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/status.h"

/* The header in front of a block holds its whole size; one alignment unit keeps the block aligned. */
#define HEADER EMO__ALIGN

/* Large blocks (weights, activations, optimizer state) ask for huge pages where the system grants them on request:
 * operators walk rows that lie a page or more apart, and small pages would cost an address lookup a row. */
#define HUGE_PAGE ((size_t)2 << 20)
#define HUGE_BLOCK (2 * HUGE_PAGE) /* smaller ones would waste too much of their last page */

static void *default_alloc(void *ctx, size_t size, size_t alignment) {
    (void)ctx;
    void *ptr = NULL;
    if (posix_memalign(&ptr, size >= HUGE_BLOCK ? HUGE_PAGE : alignment, size) != 0)
        return NULL;
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_BLOCK)
        (void)madvise(ptr, size / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a wish: refusal does not matter */
#endif
    return ptr;
}

static void default_free(void *ctx, void *ptr, size_t size, size_t alignment) {
    (void)ctx;
    (void)size;
    (void)alignment;
    free(ptr);
}

void emo__mem_init(emo__mem *mem, const emo_allocator *hooks) {
    if (hooks != NULL && hooks->alloc != NULL) {
        mem->hooks = *hooks;
    } else {
        mem->hooks.ctx = NULL;
        mem->hooks.alloc = default_alloc;
        mem->hooks.free = default_free;
    }
}

void *emo__alloc(const emo__mem *mem, size_t size) {
    size_t whole;
    if (!emo__add_size(size, HEADER, &whole))
        return NULL;
    char *block = mem->hooks.alloc(mem->hooks.ctx, whole, EMO__ALIGN);
    if (block == NULL)
        return NULL;
    memcpy(block, &whole, sizeof whole);
    return block + HEADER;
}

void *emo__malloc_array(const emo__mem *mem, size_t count, size_t size) {
    size_t bytes;
    if (!emo__mul_size(count, size, &bytes))
        return NULL;
    return emo__alloc(mem, bytes);
}

void *emo__calloc(const emo__mem *mem, size_t count, size_t size) {
    void *ptr = emo__malloc_array(mem, count, size);
    if (ptr != NULL)
        memset(ptr, 0, count * size);
    return ptr;
}

static size_t block_size(const void *ptr) {
    size_t whole;
    memcpy(&whole, (const char *)ptr - HEADER, sizeof whole);
    return whole;
}

void *emo__realloc(const emo__mem *mem, void *ptr, size_t size) {
    if (ptr == NULL)
        return emo__alloc(mem, size);
    void *fresh = emo__alloc(mem, size);
    if (fresh == NULL)
        return NULL;
    size_t old = block_size(ptr) - HEADER;
    memcpy(fresh, ptr, old < size ? old : size);
    emo__free(mem, ptr);
    return fresh;
}

void emo__free(const emo__mem *mem, void *ptr) {
    if (ptr != NULL)
        mem->hooks.free(mem->hooks.ctx, (char *)ptr - HEADER, block_size(ptr), EMO__ALIGN);
}

char *emo__strndup(const emo__mem *mem, const char *text, size_t length) {
    if (length == SIZE_MAX)
        return NULL;
    char *copy = emo__alloc(mem, length + 1);
    if (copy != NULL) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}

char *emo__strdup(const emo__mem *mem, const char *text) { return emo__strndup(mem, text, strlen(text)); }

void emo__buf_init(emo__buf *buf, const emo__mem *mem) {
    buf->mem = mem;
    buf->data = NULL;
    buf->size = 0;
    buf->capacity = 0;
}

void emo__buf_free(emo__buf *buf) {
    emo__free(buf->mem, buf->data);
    buf->data = NULL;
    buf->size = 0;
    buf->capacity = 0;
}

emo_status emo__buf_reserve(emo__buf *buf, size_t extra, emo_error *err) {
    size_t need;
    if (!emo__add_size(buf->size, extra, &need) || !emo__add_size(need, 1, &need))
        return emo__fail_memory(err, SIZE_MAX);
    if (need <= buf->capacity)
        return EMO_OK;
    size_t capacity = buf->capacity < 64 ? 64 : buf->capacity;
    while (capacity < need)
        capacity = capacity > SIZE_MAX / 2 ? need : capacity * 2;
    char *data = emo__realloc(buf->mem, buf->data, capacity);
    if (data == NULL)
        return emo__fail_memory(err, capacity);
    buf->data = data;
    buf->capacity = capacity;
    buf->data[buf->size] = '\0';
    return EMO_OK;
}

emo_status emo__buf_append(emo__buf *buf, const void *data, size_t size, emo_error *err) {
    emo_status status = emo__buf_reserve(buf, size, err);
    if (status != EMO_OK)
        return status;
    if (size > 0)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
    return EMO_OK;
}

emo_status emo__buf_printf(emo__buf *buf, emo_error *err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (n < 0)
        return emo__fail(err, EMO_E_INTERNAL, "formatting failed");
    emo_status status = emo__buf_reserve(buf, (size_t)n, err);
    if (status != EMO_OK)
        return status;
    va_start(args, fmt);
    (void)vsnprintf(buf->data + buf->size, (size_t)n + 1, fmt, args);
    va_end(args);
    buf->size += (size_t)n;
    return EMO_OK;
}

emo_status emo__grow(const emo__mem *mem, void **ptr, size_t *capacity, size_t need, size_t item, emo_error *err) {
    if (need <= *capacity)
        return EMO_OK;
    size_t fresh = *capacity < 8 ? 8 : *capacity;
    while (fresh < need)
        fresh = fresh > SIZE_MAX / 2 ? need : fresh * 2;
    size_t bytes;
    if (!emo__mul_size(fresh, item, &bytes))
        return emo__fail_memory(err, SIZE_MAX);
    void *data = emo__realloc(mem, *ptr, bytes);
    if (data == NULL)
        return emo__fail_memory(err, bytes);
    *ptr = data;
    *capacity = fresh;
    return EMO_OK;
}
