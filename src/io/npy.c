/* SPDX-License-Identifier: Apache-2.0 */
#include "io/npy.h"

#include <stdbool.h>
#include <string.h>

#include "base/parse.h"
#include "base/status.h"

#define MAX_HEADER 65536u

static const uint8_t type_size[] = {2, 4, 4, 8};
static const char *const type_text[] = {"u2", "u4", "i4", "i8"};

static emo_status fail_header(const emo_source *source, emo_error *err, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: .npy header: %s", emo__source_name(source), what);
}

/* The text behind 'key': in the Python dict that the header is; NULL if absent. */
static const char *value_of(const char *header, const char *key) {
    const char *at = strstr(header, key);
    if (at == NULL)
        return NULL;
    at += strlen(key);
    while (*at == ' ')
        at++;
    if (*at++ != ':')
        return NULL;
    while (*at == ' ')
        at++;
    return at;
}

static emo_status parse_header(emo_source *source, const char *header, emo__npy *npy, emo_error *err) {
    const char *descr = value_of(header, "'descr'");
    const char *order = value_of(header, "'fortran_order'");
    const char *shape = value_of(header, "'shape'");
    if (descr == NULL || order == NULL || shape == NULL)
        return fail_header(source, err, "'descr', 'fortran_order' or 'shape' is missing");
    bool known = false;
    if (descr[0] == '\'' && (descr[1] == '<' || descr[1] == '=') && strlen(descr) > 4 && descr[4] == '\'') {
        for (unsigned i = 0; i < 4; i++) {
            if (memcmp(descr + 2, type_text[i], 2) == 0) {
                npy->type = (emo__npy_type)i;
                known = true;
            }
        }
    }
    if (!known)
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                            "%s: .npy dtype %.12s; tokens must be little-endian u2, u4, i4 or i8",
                            emo__source_name(source), descr);
    size_t digits = 0;
    int64_t count = 0;
    if (shape[0] == '(') {
        const char *p = shape + 1;
        while (p[digits] >= '0' && p[digits] <= '9')
            digits++;
        if (digits > 0 && emo__parse_i64(p, digits, &count)) {
            p += digits;
            if (*p == ',')
                p++;
            while (*p == ' ')
                p++;
            if (*p == ')') {
                npy->count = (uint64_t)count;
                return EMO_OK;
            }
        }
    }
    return fail_header(source, err, "'shape' must be one dimension, such as (1000,)");
}

static emo_status open_npy(emo_source *source, emo__npy *out, emo_error *err) {
    unsigned char lead[12];
    uint64_t size = emo_source_size(source);
    size_t lead_size = size < sizeof lead ? (size_t)size : sizeof lead;
    emo_status status = emo__source_read_at(source, 0, lead, lead_size, err);
    if (status != EMO_OK)
        return status;
    if (lead_size < 10 || lead[6] < 1 || lead[6] > 3 || (lead[6] > 1 && lead_size < 12))
        return fail_header(source, err, "unknown version, or the file is truncated");
    uint32_t length = (uint32_t)lead[8] | (uint32_t)lead[9] << 8;
    uint64_t begin = 10;
    if (lead[6] > 1) {
        length |= (uint32_t)lead[10] << 16 | (uint32_t)lead[11] << 24;
        begin = 12;
    }
    if (length > MAX_HEADER || length > size - begin)
        return fail_header(source, err, "its length leaves the file");
    emo_runtime *rt = emo__source_runtime(source);
    char *header = emo__alloc(&rt->mem, (size_t)length + 1);
    if (header == NULL)
        return emo__fail_memory(err, (size_t)length + 1);
    status = emo__source_read_at(source, begin, header, length, err);
    header[length] = '\0';
    if (status == EMO_OK)
        status = parse_header(source, header, out, err);
    emo__free(&rt->mem, header);
    out->offset = begin + length;
    if (status == EMO_OK && out->count > (size - out->offset) / type_size[out->type])
        status = fail_header(source, err, "'shape' is larger than the file: truncated?");
    return status;
}

emo_status emo__npy_open(emo_source *source, emo__npy_type raw_type, emo__npy *out, emo_error *err) {
    unsigned char magic[6] = {0};
    uint64_t size = emo_source_size(source);
    memset(out, 0, sizeof *out);
    out->source = source;
    if (size >= sizeof magic) {
        emo_status status = emo__source_read_at(source, 0, magic, sizeof magic, err);
        if (status != EMO_OK)
            return status;
        if (memcmp(magic, "\x93NUMPY", sizeof magic) == 0)
            return open_npy(source, out, err);
    }
    out->type = raw_type;
    if (size % type_size[raw_type] != 0)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)size,
                            "%s: no .npy header, and %llu bytes are no whole number of %u-byte tokens",
                            emo__source_name(source), (unsigned long long)size, (unsigned)type_size[raw_type]);
    out->count = size / type_size[raw_type];
    return EMO_OK;
}

static int64_t element(const unsigned char *p, emo__npy_type type) {
    uint64_t v = 0;
    for (unsigned i = type_size[type]; i-- > 0;)
        v = v << 8 | p[i];
    return type == EMO__NPY_I32 ? (int64_t)(int32_t)(uint32_t)v : (int64_t)v;
}

emo_status emo__npy_read(const emo__npy *npy, uint64_t first, size_t count, int32_t limit, int32_t *dst,
                         emo_error *err) {
    unsigned char piece[8192];
    size_t width = type_size[npy->type];
    if (first > npy->count || count > npy->count - first)
        return emo__fail(err, EMO_E_RANGE, "%s: tokens %llu + %zu leave its %llu", emo__source_name(npy->source),
                         (unsigned long long)first, count, (unsigned long long)npy->count);
    for (size_t done = 0; done < count;) {
        size_t n = count - done < sizeof piece / width ? count - done : sizeof piece / width;
        emo_status status =
            emo__source_read_at(npy->source, npy->offset + (first + done) * width, piece, n * width, err);
        if (status != EMO_OK)
            return status;
        for (size_t i = 0; i < n; i++) {
            int64_t value = element(piece + i * width, npy->type);
            if (value < 0 || value >= limit)
                return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)(first + done + i),
                                    "%s: token %llu is %lld; the vocabulary has %d entries: another tokenizer, or "
                                    "another element type?",
                                    emo__source_name(npy->source), (unsigned long long)(first + done + i),
                                    (long long)value, (int)limit);
            dst[done + i] = (int32_t)value;
        }
        done += n;
    }
    return EMO_OK;
}
