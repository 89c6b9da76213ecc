/* SPDX-License-Identifier: Apache-2.0 */
#include "io/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/status.h"
#include "io/files.h"

struct emo_source {
    emo__ref ref;
    emo_runtime *rt;
    char *name;
    uint64_t size;
    const unsigned char *bytes; /* memory, or the mapping of a path; NULL otherwise */
    int fd;                     /* -1 unless a path */
    emo_source_vtable vtable;   /* read_at NULL unless the host's */
    void *ctx;
};

/* Linux copies at most this much in one call; asking for less is safe everywhere. */
#define LARGEST_READ ((size_t)1 << 30)

static emo_status create(emo_runtime *rt, const char *name, emo_source **out, emo_error *err) {
    *out = NULL;
    emo_source *source = emo__calloc(&rt->mem, 1, sizeof *source);
    if (source == NULL)
        return emo__fail_memory(err, sizeof *source);
    source->name = emo__strdup(&rt->mem, name);
    if (source->name == NULL) {
        emo__free(&rt->mem, source);
        return emo__fail_memory(err, strlen(name) + 1);
    }
    emo__ref_init(&source->ref);
    source->rt = emo__runtime_retain(rt);
    source->fd = -1;
    *out = source;
    return EMO_OK;
}

static void destroy(emo_source *source) {
    if (source->fd >= 0) {
        if (source->bytes != NULL)
            (void)munmap((void *)(uintptr_t)source->bytes, (size_t)source->size);
        (void)close(source->fd);
    }
    if (source->vtable.release != NULL)
        source->vtable.release(source->ctx);
    emo_runtime *rt = source->rt;
    emo__free(&rt->mem, source->name);
    emo__free(&rt->mem, source);
    emo_runtime_release(rt);
}

emo_status emo__source_open_path(emo_runtime *rt, const char *path, emo_source **out, emo_error *err) {
    *out = NULL;
    emo_source *source = NULL;
    emo_status status = create(rt, path, &source, err);
    if (status != EMO_OK)
        return status;
    do {
        source->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    } while (source->fd < 0 && errno == EINTR);
    struct stat st = {0};
    if (source->fd < 0 || fstat(source->fd, &st) != 0)
        status = emo__fail_errno(err, path, "cannot open");
    else if (!S_ISREG(st.st_mode))
        status = emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_FILE, 0, "%s: not a regular file", path);
    if (status != EMO_OK) {
        destroy(source);
        return status;
    }
    source->size = (uint64_t)st.st_size;
    if (source->size > 0 && source->size <= SIZE_MAX) {
        /* A refused mapping is no error: read_at still works. */
        void *bytes = mmap(NULL, (size_t)source->size, PROT_READ, MAP_PRIVATE, source->fd, 0);
        if (bytes != MAP_FAILED)
            source->bytes = bytes;
    }
    *out = source;
    return EMO_OK;
}

emo_status emo__source_from_memory(emo_runtime *rt, const void *data, size_t size, emo_source **out, emo_error *err) {
    static const unsigned char none[1] = {0};
    emo_status status = create(rt, "memory", out, err);
    if (status == EMO_OK) {
        (*out)->bytes = size > 0 ? data : none;
        (*out)->size = size;
    }
    return status;
}

emo_status emo__source_create(emo_runtime *rt, const emo_source_vtable *vtable, void *ctx, emo_source **out,
                              emo_error *err) {
    emo_source *source = NULL;
    emo_status status = create(rt, "host source", &source, err);
    if (status != EMO_OK)
        return status;
    status = vtable->size(ctx, &source->size);
    if (status != EMO_OK) {
        status = emo__fail_at(err, status < 0 ? status : EMO_E_IO, EMO_DOMAIN_SYSTEM, status,
                              "the host's source could not tell its size (it returned %d)", (int)status);
        destroy(source);
        return status;
    }
    source->vtable = *vtable;
    source->ctx = ctx;
    if (vtable->map != NULL)
        source->bytes = vtable->map(ctx);
    *out = source;
    return EMO_OK;
}

emo_source *emo__source_retain(emo_source *source) {
    emo__ref_get(&source->ref);
    return source;
}

void emo__source_release(emo_source *source) {
    if (source != NULL && emo__ref_put(&source->ref))
        destroy(source);
}

const char *emo__source_name(const emo_source *source) { return source->name; }

emo_runtime *emo__source_runtime(const emo_source *source) { return source->rt; }

uint64_t emo_source_size(const emo_source *source) { return source != NULL ? source->size : 0; }

const void *emo_source_map(const emo_source *source) {
    if (source == NULL)
        return NULL;
    if (source->fd >= 0) {
        /* Touching a mapping beyond the end of its file kills the process; do not hand out one that has shrunk. */
        struct stat st;
        if (fstat(source->fd, &st) != 0 || (uint64_t)st.st_size < source->size)
            return NULL;
    }
    return source->bytes;
}

static emo_status read_path(const emo_source *source, uint64_t offset, unsigned char *data, size_t size,
                            emo_error *err) {
    while (size > 0) {
        ssize_t n = pread(source->fd, data, size < LARGEST_READ ? size : LARGEST_READ, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_SYSTEM, errno, "%s: reading at byte %llu failed",
                                source->name, (unsigned long long)offset);
        if (n == 0)
            return emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_FILE, (int64_t)offset,
                                "%s: ends at byte %llu, but had %llu bytes when it was opened", source->name,
                                (unsigned long long)offset, (unsigned long long)source->size);
        data += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return EMO_OK;
}

void emo__source_forget(const emo_source *source, uint64_t offset, size_t size) {
    if (source->fd >= 0)
        (void)posix_fadvise(source->fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
}

emo_status emo__source_read_at(const emo_source *source, uint64_t offset, void *data, size_t size, emo_error *err) {
    if (offset > source->size || size > source->size - offset)
        return emo__fail_at(err, EMO_E_RANGE, EMO_DOMAIN_FILE, (int64_t)offset,
                            "%s: %zu bytes at byte %llu leave the source of %llu bytes", source->name, size,
                            (unsigned long long)offset, (unsigned long long)source->size);
    if (size == 0)
        return EMO_OK;
    if (source->fd >= 0)
        return read_path(source, offset, data, size, err);
    if (source->bytes != NULL && source->vtable.read_at == NULL) {
        memcpy(data, source->bytes + offset, size);
        return EMO_OK;
    }
    emo_status status = source->vtable.read_at(source->ctx, offset, data, size);
    if (status != EMO_OK)
        return emo__fail_at(err, status < 0 ? status : EMO_E_IO, EMO_DOMAIN_SYSTEM, status,
                            "the host's source failed to read %zu bytes at byte %llu (it returned %d)", size,
                            (unsigned long long)offset, (int)status);
    return EMO_OK;
}
