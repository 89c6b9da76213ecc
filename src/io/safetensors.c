/* SPDX-License-Identifier: Apache-2.0 */
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "io/json.h"
#include "io/names.h"
#include "tensor/dtype.h"

/* The format's own limit on the header. */
#define MAX_HEADER ((uint64_t)100000000)

struct emo__st {
    emo_runtime *rt;
    emo_source *source;
    const unsigned char *mapped; /* the whole source, or NULL */
    emo__json *header;           /* names live in it */
    const emo__json *metadata;
    emo__st_entry *entries;
    size_t count;
    emo__name_index index;
};

typedef struct dtype_row {
    const char *name;
    emo_dtype dtype; /* -1: listed only */
    uint8_t bits;    /* of one element; 0: not known, so the size is not checked */
} dtype_row;

static const dtype_row dtype_rows[] = {
    {"F32", EMO_DTYPE_F32, 32},
    {"F16", EMO_DTYPE_F16, 16},
    {"BF16", EMO_DTYPE_BF16, 16},
    {"U8", EMO_DTYPE_U8, 8},
    {"BOOL", EMO_DTYPE_U8, 8},
    {"I32", EMO_DTYPE_I32, 32},
    {"I64", EMO_DTYPE_I64, 64},
    {"F64", EMO_DTYPE_F64, 64},
    {"I8", -1, 8},
    {"I16", -1, 16},
    {"U16", -1, 16},
    {"U32", -1, 32},
    {"U64", -1, 64},
    {"F8_E4M3", -1, 8},
    {"F8_E5M2", -1, 8},
    {"C64", -1, 64},
};

static emo_status fail_entry(const emo__st *st, const char *name, emo_error *err, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: tensor \"%.120s\": %s",
                        emo__source_name(st->source), name, what);
}

static emo_status parse_shape(const emo__st *st, emo__st_entry *e, const emo__json *shape, emo_error *err) {
    if (emo__json_typeof(shape) != EMO__JSON_ARRAY)
        return fail_entry(st, e->name, err, "\"shape\" must be a list");
    size_t n = emo__json_size(shape);
    if (n > EMO__ST_MAX_DIMS)
        return fail_entry(st, e->name, err, "more than 8 dimensions");
    int64_t count = 1;
    bool empty = false;
    for (size_t d = 0; d < n; d++) {
        if (!emo__json_i64(emo__json_at(shape, d), &e->shape[d]) || e->shape[d] < 0)
            return fail_entry(st, e->name, err, "\"shape\" must hold integers that are not negative");
        if (e->shape[d] == 0)
            empty = true;
        else if (!emo__mul_i64(count, e->shape[d], &count))
            return fail_entry(st, e->name, err, "\"shape\" multiplies to more elements than can exist");
    }
    e->n_dims = (int32_t)n;
    e->count = empty ? 0 : (uint64_t)count;
    return EMO_OK;
}

static emo_status parse_dtype(const emo__st *st, emo__st_entry *e, const emo__json *dtype, unsigned *bits,
                              emo_error *err) {
    size_t length;
    const char *name = emo__json_string(dtype, &length);
    if (name == NULL || length == 0 || length >= sizeof e->dtype_name || strlen(name) != length)
        return fail_entry(st, e->name, err, "\"dtype\" must be a short string such as \"F32\"");
    memcpy(e->dtype_name, name, length + 1);
    e->dtype = -1;
    *bits = 0;
    for (size_t i = 0; i < sizeof dtype_rows / sizeof dtype_rows[0]; i++) {
        if (strcmp(dtype_rows[i].name, name) == 0) {
            e->dtype = dtype_rows[i].dtype;
            *bits = dtype_rows[i].bits;
        }
    }
    return EMO_OK;
}

static emo_status parse_entry(const emo__st *st, const char *name, const emo__json *node, uint64_t data_at,
                              uint64_t data_size, emo__st_entry *e, emo_error *err) {
    memset(e, 0, sizeof *e);
    e->name = name;
    if (emo__json_typeof(node) != EMO__JSON_OBJECT)
        return fail_entry(st, name, err, "its entry must be an object");
    unsigned bits = 0;
    emo_status status = parse_dtype(st, e, emo__json_get(node, "dtype"), &bits, err);
    if (status == EMO_OK)
        status = parse_shape(st, e, emo__json_get(node, "shape"), err);
    if (status != EMO_OK)
        return status;
    const emo__json *offsets = emo__json_get(node, "data_offsets");
    int64_t begin = 0;
    int64_t end = 0;
    if (emo__json_typeof(offsets) != EMO__JSON_ARRAY || emo__json_size(offsets) != 2 ||
        !emo__json_i64(emo__json_at(offsets, 0), &begin) || !emo__json_i64(emo__json_at(offsets, 1), &end))
        return fail_entry(st, name, err, "\"data_offsets\" must be two integers");
    if (begin < 0 || end < begin)
        return fail_entry(st, name, err, "\"data_offsets\" run backwards or are negative");
    if ((uint64_t)end > data_size)
        return fail_entry(st, name, err, "its data lie beyond the end of the file");
    e->offset = data_at + (uint64_t)begin;
    e->bytes = (uint64_t)(end - begin);
    if (bits != 0) {
        size_t want;
        if (!emo__mul_size((size_t)e->count, bits / 8, &want) || want != e->bytes)
            return fail_entry(st, name, err, "shape and dtype do not give the number of bytes of its data_offsets");
    }
    return EMO_OK;
}

static int by_offset(const void *a, const void *b) {
    const emo__st_entry *x = a;
    const emo__st_entry *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) /* empty tensors before the one that begins at the same byte */
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Entries in the order of their data, none overlapping. Gaps are harmless. */
static emo_status order_entries(emo__st *st, emo_error *err) {
    if (st->count > 1)
        qsort(st->entries, st->count, sizeof st->entries[0], by_offset);
    for (size_t i = 1; i < st->count; i++) {
        const emo__st_entry *a = &st->entries[i - 1];
        if (a->offset + a->bytes > st->entries[i].offset)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)st->entries[i].offset,
                                "%s: the data of tensors \"%.80s\" and \"%.80s\" overlap", emo__source_name(st->source),
                                a->name, st->entries[i].name);
    }
    for (size_t i = 0; i < st->count; i++) {
        bool fresh;
        emo_status status = emo__name_index_add(&st->index, st->entries[i].name, (uint32_t)i, &fresh, err);
        if (status != EMO_OK)
            return status;
        if (!fresh)
            return fail_entry(st, st->entries[i].name, err, "listed twice");
    }
    return EMO_OK;
}

static emo_status parse_header(emo__st *st, uint64_t header_size, emo_error *err) {
    const char *where = emo__source_name(st->source);
    char *text = emo__alloc(&st->rt->mem, (size_t)header_size);
    if (text == NULL)
        return emo__fail_memory(err, (size_t)header_size);
    emo_status status = emo__source_read_at(st->source, 8, text, (size_t)header_size, err);
    if (status == EMO_OK)
        status = emo__json_parse(&st->rt->mem, text, (size_t)header_size, where, &st->header, err);
    emo__free(&st->rt->mem, text);
    if (status != EMO_OK)
        return status;
    if (emo__json_typeof(st->header) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 8, "%s: the header must be a JSON object", where);
    size_t members = emo__json_size(st->header);
    if (members > UINT32_MAX)
        return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, 8, "%s: too many tensors", where);
    st->entries = emo__calloc(&st->rt->mem, members > 0 ? members : 1, sizeof st->entries[0]);
    if (st->entries == NULL)
        return emo__fail_memory(err, members * sizeof st->entries[0]);
    uint64_t data_at = 8 + header_size;
    uint64_t data_size = emo_source_size(st->source) - data_at;
    for (emo__json_iter it = emo__json_members(st->header); emo__json_next(&it);) {
        if (strcmp(it.key, "__metadata__") == 0) {
            if (emo__json_typeof(it.value) != EMO__JSON_OBJECT)
                return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 8, "%s: __metadata__ must be an object", where);
            st->metadata = it.value;
            continue;
        }
        status = parse_entry(st, it.key, it.value, data_at, data_size, &st->entries[st->count], err);
        if (status != EMO_OK)
            return status;
        st->count++;
    }
    return order_entries(st, err);
}

emo_status emo__st_open(emo_runtime *rt, emo_source *source, emo__st **out, emo_error *err) {
    *out = NULL;
    const char *where = emo__source_name(source);
    uint64_t size = emo_source_size(source);
    unsigned char raw[8];
    if (size < 8)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: %llu bytes are too few for a safetensors file (8 bytes of header length first)", where,
                            (unsigned long long)size);
    emo_status status = emo__source_read_at(source, 0, raw, sizeof raw, err);
    if (status != EMO_OK)
        return status;
    uint64_t header_size = 0;
    for (int i = 7; i >= 0; i--)
        header_size = header_size << 8 | raw[i];
    if (header_size > MAX_HEADER || header_size > size - 8)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                            "%s: the header claims %llu bytes, the file has %llu after its length: not a safetensors "
                            "file, or a truncated one",
                            where, (unsigned long long)header_size, (unsigned long long)(size - 8));
    emo__st *st = emo__calloc(&rt->mem, 1, sizeof *st);
    if (st == NULL)
        return emo__fail_memory(err, sizeof *st);
    st->rt = emo__runtime_retain(rt);
    st->source = emo__source_retain(source);
    emo__name_index_init(&st->index, &rt->mem);
    status = parse_header(st, header_size, err);
    if (status != EMO_OK) {
        emo__st_close(st);
        return status;
    }
    st->mapped = emo_source_map(source);
    *out = st;
    return EMO_OK;
}

void emo__st_close(emo__st *st) {
    if (st == NULL)
        return;
    emo_runtime *rt = st->rt;
    emo__name_index_free(&st->index);
    emo__free(&rt->mem, st->entries);
    if (st->header != NULL)
        emo__json_free(st->header);
    emo__source_release(st->source);
    emo__free(&rt->mem, st);
    emo_runtime_release(rt);
}

size_t emo__st_count(const emo__st *st) { return st->count; }

const emo__st_entry *emo__st_at(const emo__st *st, size_t index) {
    return index < st->count ? &st->entries[index] : NULL;
}

const emo__st_entry *emo__st_find(const emo__st *st, const char *name) {
    uint32_t at;
    return emo__name_index_find(&st->index, name, &at) ? &st->entries[at] : NULL;
}

const char *emo__st_metadata(const emo__st *st, const char *key) {
    return emo__json_string(emo__json_get(st->metadata, key), NULL);
}

emo_source *emo__st_source(const emo__st *st) { return st->source; }

const void *emo__st_data(const emo__st *st, const emo__st_entry *entry) {
    return st->mapped != NULL ? st->mapped + entry->offset : NULL;
}

emo_status emo__st_read(const emo__st *st, const emo__st_entry *entry, uint64_t begin, void *dst, size_t size,
                        emo_error *err) {
    if (begin > entry->bytes || size > entry->bytes - begin)
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": bytes %llu + %zu leave its %llu bytes", entry->name,
                         (unsigned long long)begin, size, (unsigned long long)entry->bytes);
    return emo__source_read_at(st->source, entry->offset + begin, dst, size, err);
}

emo_status emo__st_read_as(const emo__st *st, const emo__st_entry *entry, uint64_t first, uint64_t count,
                           emo_dtype dtype, void *dst, emo_error *err) {
    size_t from = entry->dtype >= 0 ? emo__dtype_size(entry->dtype) : 0;
    size_t to = emo__dtype_size(dtype);
    if (from == 0)
        return emo__fail(err, EMO_E_UNSUPPORTED, "tensor \"%.120s\" has dtype %s, which cannot be read", entry->name,
                         entry->dtype_name);
    if (to == 0 || (entry->dtype != dtype && !emo__convert(dst, dtype, dst, entry->dtype, 0)))
        return emo__fail(err, EMO_E_UNSUPPORTED, "tensor \"%.120s\" has dtype %s, which cannot be read as %s",
                         entry->name, entry->dtype_name, emo_dtype_name(dtype) ? emo_dtype_name(dtype) : "that type");
    if (first > entry->count || count > entry->count - first)
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": elements %llu + %llu leave its %llu", entry->name,
                         (unsigned long long)first, (unsigned long long)count, (unsigned long long)entry->count);
    if (entry->dtype == dtype)
        return emo__st_read(st, entry, first * from, dst, (size_t)count * from, err);
    unsigned char piece[16384];
    size_t most = sizeof piece / from;
    unsigned char *to_bytes = dst;
    while (count > 0) {
        size_t n = count < most ? (size_t)count : most;
        emo_status status = emo__st_read(st, entry, first * from, piece, n * from, err);
        if (status != EMO_OK)
            return status;
        (void)emo__convert(to_bytes, dtype, piece, entry->dtype, n);
        to_bytes += n * to;
        first += n;
        count -= n;
    }
    return EMO_OK;
}

static void shape_text(char *text, size_t capacity, const int64_t *shape, int32_t n_dims) {
    size_t used = 0;
    text[0] = '\0';
    for (int32_t d = 0; d < n_dims && used + 24 < capacity; d++) {
        char digits[24];
        size_t n = 0;
        uint64_t value = (uint64_t)shape[d];
        do {
            digits[n++] = (char)('0' + value % 10);
            value /= 10;
        } while (value > 0);
        if (d > 0) {
            text[used++] = ',';
            text[used++] = ' ';
        }
        while (n > 0)
            text[used++] = digits[--n];
        text[used] = '\0';
    }
}

emo_status emo__st_check_shape(const emo__st_entry *entry, const int64_t *shape, int32_t n_dims, emo_error *err) {
    bool same = entry->n_dims == n_dims;
    for (int32_t d = 0; d < n_dims && same; d++)
        same = entry->shape[d] == shape[d];
    if (same)
        return EMO_OK;
    char have[160];
    char want[160];
    shape_text(have, sizeof have, entry->shape, entry->n_dims);
    shape_text(want, sizeof want, shape, n_dims);
    return emo__fail_at(err, EMO_E_MISMATCH, EMO_DOMAIN_FILE, 0, "tensor \"%.120s\" has shape [%s]; [%s] is expected",
                        entry->name, have, want);
}
