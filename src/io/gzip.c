/* SPDX-License-Identifier: Apache-2.0 */
#include "io/gzip.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/status.h"

#define INPUT ((size_t)1 << 16)
#define OUTPUT ((size_t)1 << 18)

struct emo__lines {
    const emo__mem *mem;
    char *path;
    int fd;
    size_t max_line;
    bool gzip;
    bool inflating;   /* `stream` is initialised */
    bool in_member;   /* inside a gzip member: its end has not been seen */
    uint64_t members; /* finished ones */
    bool input_done;  /* the file has been read to its end */
    bool finished;    /* no more output will come */
    z_stream stream;
    unsigned char *input;
    size_t input_size; /* plain files: unused bytes begin at input_at */
    size_t input_at;
    emo__buf text; /* decoded bytes; the next line begins at `at` */
    size_t at;
    size_t scanned; /* no line end in text[at, scanned) */
    uint64_t number;
    uint64_t offset; /* bytes read from the file */
};

static voidpf zalloc(voidpf opaque, uInt items, uInt size) { return emo__malloc_array(opaque, items, size); }
static void zfree(voidpf opaque, voidpf address) { emo__free(opaque, address); }

static emo_status fill_input(emo__lines *lines, emo_error *err) {
    while (lines->input_at == lines->input_size && !lines->input_done) {
        ssize_t n = read(lines->fd, lines->input, INPUT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_SYSTEM, errno, "%s: cannot read (errno %d)", lines->path,
                                errno);
        lines->input_at = 0;
        lines->input_size = (size_t)n;
        lines->input_done = n == 0;
        lines->offset += (uint64_t)n;
    }
    return EMO_OK;
}

static emo_status start_inflate(emo__lines *lines, emo_error *err) {
    lines->stream.zalloc = zalloc;
    lines->stream.zfree = zfree;
    lines->stream.opaque = (voidpf)(uintptr_t)lines->mem;
    int rc = inflateInit2(&lines->stream, 15 + 16); /* gzip only */
    if (rc == Z_MEM_ERROR)
        return emo__fail_memory(err, 0);
    if (rc != Z_OK)
        return emo__fail(err, EMO_E_INTERNAL, "%s: zlib refused to start (%d)", lines->path, rc);
    lines->inflating = true;
    return EMO_OK;
}

emo_status emo__lines_open(const emo__mem *mem, const char *path, size_t max_line, emo__lines **out, emo_error *err) {
    *out = NULL;
    emo__lines *lines = emo__calloc(mem, 1, sizeof *lines);
    if (lines == NULL)
        return emo__fail_memory(err, sizeof *lines);
    lines->mem = mem;
    lines->fd = -1;
    lines->max_line = max_line > 0 ? max_line : EMO__LINE_MAX;
    emo__buf_init(&lines->text, mem);
    lines->path = emo__strdup(mem, path);
    lines->input = emo__alloc(mem, INPUT);
    emo_status status = EMO_OK;
    if (lines->path == NULL || lines->input == NULL)
        status = emo__fail_memory(err, INPUT);
    struct stat st;
    if (status == EMO_OK) {
        do {
            lines->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        } while (lines->fd < 0 && errno == EINTR);
        if (lines->fd < 0 || fstat(lines->fd, &st) != 0)
            status = emo__fail_at(err, errno == ENOENT || errno == ENOTDIR ? EMO_E_NOT_FOUND : EMO_E_IO,
                                  EMO_DOMAIN_SYSTEM, errno, "%s: cannot open (errno %d)", path, errno);
        else if (!S_ISREG(st.st_mode))
            status = emo__fail_at(err, EMO_E_IO, EMO_DOMAIN_FILE, 0, "%s: not a regular file", path);
    }
    if (status == EMO_OK)
        status = fill_input(lines, err);
    if (status == EMO_OK && lines->input_size >= 2 && lines->input[0] == 0x1f && lines->input[1] == 0x8b) {
        lines->gzip = true;
        status = start_inflate(lines, err);
    }
    if (status != EMO_OK) {
        emo__lines_close(lines);
        return status;
    }
    *out = lines;
    return EMO_OK;
}

void emo__lines_close(emo__lines *lines) {
    if (lines == NULL)
        return;
    if (lines->inflating)
        (void)inflateEnd(&lines->stream);
    if (lines->fd >= 0)
        (void)close(lines->fd);
    emo__buf_free(&lines->text);
    emo__free(lines->mem, lines->input);
    emo__free(lines->mem, lines->path);
    emo__free(lines->mem, lines);
}

static emo_status fail_gzip(const emo__lines *lines, emo_error *err, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)lines->number,
                        "%s: %s the gzip data after line %llu", lines->path, what, (unsigned long long)lines->number);
}

/* Decodes up to OUTPUT more bytes to the end of text, which has room for them. */
static emo_status inflate_some(emo__lines *lines, emo_error *err) {
    z_stream *z = &lines->stream;
    z->next_out = (Bytef *)lines->text.data + lines->text.size;
    z->avail_out = (uInt)OUTPUT;
    while (z->avail_out > 0) {
        emo_status status = fill_input(lines, err);
        if (status != EMO_OK)
            return status;
        if (lines->input_at == lines->input_size) { /* the end of the file */
            if (lines->in_member)
                return fail_gzip(lines, err, "the file ends inside");
            lines->finished = true;
            break;
        }
        if (!lines->in_member && lines->members > 0 && lines->input[lines->input_at] == 0) {
            lines->input_at++; /* zero padding behind a member, as tapes and some tools leave */
            continue;
        }
        lines->in_member = true;
        z->next_in = lines->input + lines->input_at;
        z->avail_in = (uInt)(lines->input_size - lines->input_at);
        int rc = inflate(z, Z_NO_FLUSH);
        lines->input_at = lines->input_size - z->avail_in;
        if (rc == Z_STREAM_END) {
            lines->in_member = false; /* another member may follow */
            lines->members++;
            if (inflateReset(z) != Z_OK)
                return fail_gzip(lines, err, "cannot decode");
        } else if (rc == Z_MEM_ERROR) {
            return emo__fail_memory(err, 0);
        } else if (rc != Z_OK && rc != Z_BUF_ERROR) {
            return fail_gzip(lines, err, "cannot decode");
        }
    }
    lines->text.size += OUTPUT - z->avail_out;
    return EMO_OK;
}

static emo_status more_text(emo__lines *lines, emo_error *err) {
    if (lines->at > 0) { /* drop the lines handed out before */
        memmove(lines->text.data, lines->text.data + lines->at, lines->text.size - lines->at);
        lines->text.size -= lines->at;
        lines->scanned -= lines->at;
        lines->at = 0;
    }
    emo_status status = emo__buf_reserve(&lines->text, OUTPUT, err);
    if (status != EMO_OK)
        return status;
    if (lines->gzip)
        return inflate_some(lines, err);
    status = fill_input(lines, err);
    if (status != EMO_OK)
        return status;
    size_t n = lines->input_size - lines->input_at;
    lines->finished = n == 0;
    status = emo__buf_append(&lines->text, lines->input + lines->input_at, n, err);
    lines->input_at = lines->input_size;
    return status;
}

emo_status emo__lines_next(emo__lines *lines, const char **line, size_t *length, bool *end, emo_error *err) {
    *line = "";
    *length = 0;
    *end = false;
    for (;;) {
        const char *text = lines->text.data;
        const char *found = lines->text.size > lines->scanned
                                ? memchr(text + lines->scanned, '\n', lines->text.size - lines->scanned)
                                : NULL;
        size_t stop = found != NULL ? (size_t)(found - text) : lines->text.size;
        if (stop - lines->at > lines->max_line)
            return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, (int64_t)lines->number + 1,
                                "%s:%llu: the line is longer than %zu bytes", lines->path,
                                (unsigned long long)lines->number + 1, lines->max_line);
        lines->scanned = stop;
        if (found != NULL || lines->finished) {
            if (found == NULL && stop == lines->at) {
                *end = true;
                return EMO_OK;
            }
            *line = text + lines->at;
            *length = stop - lines->at;
            if (*length > 0 && (*line)[*length - 1] == '\r')
                (*length)--;
            lines->at = found != NULL ? stop + 1 : stop;
            lines->scanned = lines->at;
            lines->number++;
            return EMO_OK;
        }
        emo_status status = more_text(lines, err);
        if (status != EMO_OK)
            return status;
    }
}

uint64_t emo__lines_number(const emo__lines *lines) { return lines->number; }

emo_status emo__lines_rest(emo__lines *lines, const char **text, size_t *length, emo_error *err) {
    while (!lines->finished) {
        emo_status status = more_text(lines, err);
        if (status != EMO_OK)
            return status;
        if (lines->text.size > lines->max_line)
            return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 0, "%s: the text is longer than %zu bytes",
                                lines->path, lines->max_line);
    }
    *text = lines->text.data + lines->at;
    *length = lines->text.size - lines->at;
    lines->at = lines->text.size;
    lines->scanned = lines->at;
    return EMO_OK;
}

uint64_t emo__lines_offset(const emo__lines *lines) { return lines->offset; }
