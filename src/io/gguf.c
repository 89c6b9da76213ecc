/* SPDX-License-Identifier: Apache-2.0 */
/* Reading GGUF. Nothing in the file is trusted: every count and length is held against the bytes that are there before
 * anything is allocated or skipped. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "io/gguf_parts.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

#define VERSION 3
#define MAX_HEADER ((uint64_t)1 << 30)
#define MAX_NAME 512
#define MAX_ALIGNMENT (1 << 20)
#define FIRST_READ ((size_t)1 << 16)

typedef struct type_row {
    const char *name;
    int32_t number;
    emo_dtype dtype; /* -1: listed only */
    int32_t block;
    int32_t bytes;
} type_row;

static const type_row type_rows[] = {
    {"f32", 0, EMO_DTYPE_F32, 1, 4},
    {"f16", 1, EMO_DTYPE_F16, 1, 2},
    {"bf16", 30, EMO_DTYPE_BF16, 1, 2},
    {"q8_0", 8, EMO_DTYPE_Q8_0, 32, 34},
    {"q4_0", 2, EMO_DTYPE_Q4_0, 32, 18},
    {"q4_k", 12, EMO_DTYPE_Q4_K, 256, 144},
    {"q4_1", 3, -1, 32, 20},
    {"q5_0", 6, -1, 32, 22},
    {"q5_1", 7, -1, 32, 24},
    {"q8_1", 9, -1, 32, 36},
    {"q2_k", 10, -1, 256, 84},
    {"q3_k", 11, -1, 256, 110},
    {"q5_k", 13, -1, 256, 176},
    {"q6_k", 14, -1, 256, 210},
    {"q8_k", 15, -1, 256, 292},
    {"i8", 24, -1, 1, 1},
    {"i16", 25, -1, 1, 2},
    {"i32", 26, EMO_DTYPE_I32, 1, 4},
    {"i64", 27, EMO_DTYPE_I64, 1, 8},
    {"f64", 28, EMO_DTYPE_F64, 1, 8},
};
enum { TYPES = sizeof type_rows / sizeof type_rows[0] };

int32_t emo__gguf_number(emo_dtype dtype) {
    for (size_t i = 0; dtype >= 0 && i < TYPES; i++)
        if (type_rows[i].dtype == dtype)
            return type_rows[i].number;
    return -1;
}

static emo_status fail_here(const emo__gguf *g, emo_error *err, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, (int64_t)g->at, "%s: byte %llu: %s", emo__gguf_name(g),
                        (unsigned long long)g->at, what);
}

/* ---- the front of the file ---- */

/* Makes bytes [at, at + n) of the file available. */
static emo_status need(emo__gguf *g, uint64_t n, emo_error *err) {
    if (n > g->size - g->at)
        return fail_here(g, err, "the file ends inside its header, or a length in it is too large");
    if (g->at + n <= g->have)
        return EMO_OK;
    if (g->at + n > MAX_HEADER)
        return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_FILE, (int64_t)g->at, "%s: a header of more than 1 GiB",
                            emo__gguf_name(g));
    uint64_t want = 2 * (uint64_t)g->have > FIRST_READ ? 2 * (uint64_t)g->have : FIRST_READ;
    want = want < g->at + n ? g->at + n : want;
    want = want > g->size ? g->size : want;
    char *more = emo__realloc(&g->rt->mem, g->read, (size_t)want);
    if (more == NULL)
        return emo__fail_memory(err, (size_t)want);
    g->read = more;
    emo_status status = emo__source_read_at(g->source, g->have, more + g->have, (size_t)want - g->have, err);
    if (status == EMO_OK)
        g->have = (size_t)want;
    return status;
}

static emo_status take(emo__gguf *g, size_t bytes, uint64_t *out, emo_error *err) {
    emo_status status = need(g, bytes, err);
    if (status != EMO_OK)
        return status;
    *out = emo__little(emo__gguf_front(g) + g->at, bytes);
    g->at += bytes;
    return EMO_OK;
}

/* A key or a name: kept with a NUL. *place is its offset in `names`. */
static emo_status take_name(emo__gguf *g, size_t *place, emo_error *err) {
    uint64_t length;
    emo_status status = take(g, 8, &length, err);
    if (status != EMO_OK)
        return status;
    if (length == 0 || length > MAX_NAME)
        return fail_here(g, err, "a name must have 1 to 512 bytes");
    status = need(g, length, err);
    if (status != EMO_OK)
        return status;
    const unsigned char *text = emo__gguf_front(g) + g->at;
    if (memchr(text, 0, (size_t)length) != NULL)
        return fail_here(g, err, "a name holds a NUL byte");
    *place = g->names_size;
    status = emo__grow(&g->rt->mem, (void **)&g->names, &g->names_capacity, g->names_size + (size_t)length + 1, 1, err);
    if (status != EMO_OK)
        return status;
    memcpy(g->names + g->names_size, text, (size_t)length);
    g->names_size += (size_t)length;
    g->names[g->names_size++] = '\0';
    g->at += length;
    return EMO_OK;
}

/* ---- keys ---- */

static emo_status skip_string(emo__gguf *g, emo_error *err) {
    uint64_t length;
    emo_status status = take(g, 8, &length, err);
    if (status == EMO_OK)
        status = need(g, length, err);
    if (status == EMO_OK)
        g->at += length;
    return status;
}

static emo_status skip_scalars(emo__gguf *g, emo__gguf_type type, uint64_t count, emo_error *err) {
    size_t item = emo__gguf_scalar(type), bytes;
    if (!emo__mul_size((size_t)count, item, &bytes))
        return fail_here(g, err, "an array is longer than the file");
    emo_status status = need(g, bytes, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; type == EMO__GGUF_BOOL && i < bytes; i++)
        if (emo__gguf_front(g)[g->at + i] > 1)
            return fail_here(g, err, "a truth value is neither 0 nor 1");
    g->at += bytes;
    return EMO_OK;
}

static emo_status take_value(emo__gguf *g, emo__gguf_value *v, emo_error *err) {
    uint64_t type;
    emo_status status = take(g, 4, &type, err);
    if (status != EMO_OK)
        return status;
    if (type > EMO__GGUF_F64)
        return fail_here(g, err, "a value of a type that does not exist");
    v->type = (emo__gguf_type)type;
    v->at = g->at;
    if (v->type == EMO__GGUF_STRING) {
        status = skip_string(g, err);
        v->at += 8;
        v->count = g->at - v->at;
        return status;
    }
    if (v->type != EMO__GGUF_ARRAY)
        return skip_scalars(g, v->type, 1, err);
    status = take(g, 4, &type, err);
    if (status == EMO_OK)
        status = take(g, 8, &v->count, err);
    if (status != EMO_OK)
        return status;
    if (type > EMO__GGUF_F64 || type == EMO__GGUF_ARRAY)
        return fail_here(g, err, "an array of a type that cannot be in one");
    v->item = (emo__gguf_type)type;
    v->at = g->at;
    if (v->item != EMO__GGUF_STRING)
        return skip_scalars(g, v->item, v->count, err);
    if (v->count > (g->size - g->at) / 8)
        return fail_here(g, err, "an array has more strings than the file has room for");
    for (uint64_t i = 0; status == EMO_OK && i < v->count; i++)
        status = skip_string(g, err);
    return status;
}

/* The smallest an entry can be: 8 bytes of length, a byte of name, a type, and a value or one dimension and a place. */
#define MOST_ENTRIES ((uint64_t)1 << 22)
#define LEAST_KEY 14
#define LEAST_TENSOR 33

static emo_status parse_keys(emo__gguf *g, uint64_t count, size_t *places, emo_error *err) {
    emo_status status = EMO_OK;
    for (; status == EMO_OK && g->n_values < count; g->n_values++) {
        status = take_name(g, &places[g->n_values], err);
        if (status == EMO_OK)
            status = take_value(g, &g->values[g->n_values], err);
        if (status != EMO_OK)
            return status;
    }
    return status;
}

/* ---- tensors ---- */

static emo_status fail_tensor(const emo__gguf *g, const char *name, emo_error *err, const char *what) {
    return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: tensor \"%.120s\": %s", emo__gguf_name(g), name,
                        what);
}

static emo_status set_type(const emo__gguf *g, emo__gguf_tensor *t, const char *name, uint64_t number, emo_error *err) {
    const type_row *row = NULL;
    for (size_t i = 0; i < TYPES; i++)
        if ((uint64_t)type_rows[i].number == number)
            row = &type_rows[i];
    t->dtype = row != NULL ? row->dtype : -1;
    if (row == NULL) {
        memcpy(t->type_name, "unknown", 8);
        return EMO_OK;
    }
    memcpy(t->type_name, row->name, strlen(row->name) + 1);
    int64_t count = 1;
    size_t bytes;
    for (int d = 0; d < EMO__GGUF_MAX_DIMS; d++)
        if (!emo__mul_i64(count, t->dims[d], &count))
            return fail_tensor(g, name, err, "its dimensions multiply to more elements than can exist");
    if (t->dims[0] % row->block != 0)
        return fail_tensor(g, name, err, "its rows are no whole number of blocks");
    if (!emo__mul_size((size_t)(count / row->block), (size_t)row->bytes, &bytes))
        return fail_tensor(g, name, err, "it has more bytes than can exist");
    t->bytes = bytes;
    return EMO_OK;
}

static emo_status parse_tensor(emo__gguf *g, emo__gguf_tensor *t, size_t *place, emo_error *err) {
    uint64_t n = 0, number = 0;
    emo_status status = take_name(g, place, err);
    if (status == EMO_OK)
        status = take(g, 4, &n, err);
    if (status != EMO_OK)
        return status;
    if (n < 1 || n > EMO__GGUF_MAX_DIMS)
        return fail_tensor(g, g->names + *place, err, "it must have 1 to 4 dimensions");
    t->n_dims = (int32_t)n;
    for (int d = 0; d < EMO__GGUF_MAX_DIMS; d++)
        t->dims[d] = 1;
    for (int32_t d = 0; status == EMO_OK && d < t->n_dims; d++) {
        uint64_t dim = 1;
        status = take(g, 8, &dim, err);
        if (status == EMO_OK && (dim < 1 || dim > INT64_MAX))
            return fail_tensor(g, g->names + *place, err, "a dimension is 0 or negative");
        t->dims[d] = (int64_t)dim;
    }
    if (status == EMO_OK)
        status = take(g, 4, &number, err);
    if (status == EMO_OK)
        status = take(g, 8, &t->offset, err);
    return status == EMO_OK ? set_type(g, t, g->names + *place, number, err) : status;
}

static int by_offset(const void *a, const void *b) {
    const emo__gguf_tensor *x = a;
    const emo__gguf_tensor *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Places in the file, in order, none overlapping. */
static emo_status place_tensors(emo__gguf *g, uint64_t alignment, emo_error *err) {
    uint64_t rest = g->at % alignment;
    uint64_t begin = rest == 0 ? g->at : g->at + (alignment - rest);
    uint64_t room = begin < g->size ? g->size - begin : 0;
    for (size_t i = 0; i < g->count; i++) {
        emo__gguf_tensor *t = &g->tensors[i];
        if (t->offset % alignment != 0)
            return fail_tensor(g, t->name, err, "its data are not aligned as general.alignment says");
        if (t->offset > room || t->bytes > room - t->offset)
            return fail_tensor(g, t->name, err, "its data lie beyond the end of the file");
        t->offset += begin;
    }
    if (g->count > 1)
        qsort(g->tensors, g->count, sizeof g->tensors[0], by_offset);
    for (size_t i = 0; i < g->count; i++) {
        bool fresh;
        if (i > 0 && g->tensors[i - 1].offset + g->tensors[i - 1].bytes > g->tensors[i].offset)
            return fail_tensor(g, g->tensors[i].name, err, "its data overlap those of another tensor");
        emo_status status = emo__name_index_add(&g->index, g->tensors[i].name, (uint32_t)i, &fresh, err);
        if (status != EMO_OK)
            return status;
        if (!fresh)
            return fail_tensor(g, g->tensors[i].name, err, "listed twice");
    }
    return EMO_OK;
}

/* ---- the whole header ---- */

static emo_status index_keys(emo__gguf *g, const size_t *places, emo_error *err) {
    for (size_t i = 0; i < g->n_values; i++) {
        bool fresh;
        const char *key = g->names + places[i];
        emo_status status = emo__name_index_add(&g->keys, key, (uint32_t)i, &fresh, err);
        if (status != EMO_OK)
            return status;
        if (!fresh)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: key \"%.120s\" is there twice",
                                emo__gguf_name(g), key);
    }
    return EMO_OK;
}

/* `places` [keys + tensors]: of the names, which move while they are gathered. */
static emo_status parse_entries(emo__gguf *g, uint64_t n_keys, uint64_t n_tensors, size_t *places, emo_error *err) {
    int64_t alignment = EMO__GGUF_ALIGNMENT;
    emo_status status = parse_keys(g, n_keys, places, err);
    for (; status == EMO_OK && g->count < n_tensors; g->count++) {
        status = parse_tensor(g, &g->tensors[g->count], &places[n_keys + g->count], err);
        if (status != EMO_OK)
            return status;
    }
    for (size_t i = 0; i < g->count; i++)
        g->tensors[i].name = g->names + places[n_keys + i];
    if (status == EMO_OK)
        status = index_keys(g, places, err);
    if (status == EMO_OK)
        status = emo__gguf_i64(g, "general.alignment", EMO__GGUF_ALIGNMENT, 1, MAX_ALIGNMENT, &alignment, err);
    if (status == EMO_OK && (alignment & (alignment - 1)) != 0)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: general.alignment %lld is no power of two",
                              emo__gguf_name(g), (long long)alignment);
    return status == EMO_OK ? place_tensors(g, (uint64_t)alignment, err) : status;
}

static emo_status parse(emo__gguf *g, emo_error *err) {
    uint64_t magic = 0, version = 0, n_tensors = 0, n_keys = 0;
    emo_status status;
    EMO_TRY(status = take(g, 4, &magic, err));
    EMO_TRY(status = take(g, 4, &version, err));
    if (magic != 0x46554747u)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0, "%s: not a GGUF file", emo__gguf_name(g));
    if (version != VERSION)
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 4, "%s: GGUF version %llu; version 3 is read",
                            emo__gguf_name(g), (unsigned long long)version);
    EMO_TRY(status = take(g, 8, &n_tensors, err));
    EMO_TRY(status = take(g, 8, &n_keys, err));
    uint64_t room = g->size - g->at;
    if (n_keys > room / LEAST_KEY || n_tensors > room / LEAST_TENSOR || n_keys > MOST_ENTRIES ||
        n_tensors > MOST_ENTRIES)
        return fail_here(g, err, "more keys or tensors than the file has room for");
    const emo__mem *mem = &g->rt->mem;
    size_t *places = emo__malloc_array(mem, (size_t)(n_keys + n_tensors + 1), sizeof *places);
    g->values = emo__calloc(mem, (size_t)n_keys + 1, sizeof *g->values);
    g->tensors = emo__calloc(mem, (size_t)n_tensors + 1, sizeof *g->tensors);
    if (places == NULL || g->values == NULL || g->tensors == NULL)
        status = emo__fail_memory(err, (size_t)(n_keys + n_tensors) * sizeof *g->tensors);
    else
        status = parse_entries(g, n_keys, n_tensors, places, err);
    emo__free(mem, places);
done:
    return status;
}

bool emo__gguf_detect(const emo_source *source) {
    unsigned char magic[4];
    return emo_source_size(source) >= 24 && emo__source_read_at(source, 0, magic, 4, NULL) == EMO_OK &&
           memcmp(magic, "GGUF", 4) == 0;
}

emo_status emo__gguf_open(emo_runtime *rt, emo_source *source, emo__gguf **out, emo_error *err) {
    *out = NULL;
    emo__gguf *g = emo__calloc(&rt->mem, 1, sizeof *g);
    if (g == NULL)
        return emo__fail_memory(err, sizeof *g);
    g->rt = emo__runtime_retain(rt);
    g->source = emo__source_retain(source);
    g->size = emo_source_size(source);
    g->mapped = emo_source_map(source);
    g->have = g->mapped != NULL ? (size_t)g->size : 0;
    emo__name_index_init(&g->keys, &rt->mem);
    emo__name_index_init(&g->index, &rt->mem);
    emo_status status = parse(g, err);
    if (status == EMO_OK)
        *out = g;
    else
        emo__gguf_close(g);
    return status;
}

void emo__gguf_close(emo__gguf *g) {
    if (g == NULL)
        return;
    emo_runtime *rt = g->rt;
    emo__name_index_free(&g->keys);
    emo__name_index_free(&g->index);
    emo__free(&rt->mem, g->values);
    emo__free(&rt->mem, g->tensors);
    emo__free(&rt->mem, g->names);
    emo__free(&rt->mem, g->read);
    emo__source_release(g->source);
    emo__free(&rt->mem, g);
    emo_runtime_release(rt);
}

const char *emo__gguf_name(const emo__gguf *g) { return emo__source_name(g->source); }
emo_source *emo__gguf_source(const emo__gguf *g) { return g->source; }
size_t emo__gguf_count(const emo__gguf *g) { return g->count; }

const emo__gguf_tensor *emo__gguf_at(const emo__gguf *g, size_t index) {
    return index < g->count ? &g->tensors[index] : NULL;
}

const emo__gguf_tensor *emo__gguf_find(const emo__gguf *g, const char *name) {
    uint32_t at;
    return emo__name_index_find(&g->index, name, &at) ? &g->tensors[at] : NULL;
}

const void *emo__gguf_data(const emo__gguf *g, const emo__gguf_tensor *t) {
    return g->mapped != NULL ? g->mapped + t->offset : NULL;
}

emo_status emo__gguf_read(const emo__gguf *g, const emo__gguf_tensor *t, uint64_t begin, void *dst, size_t size,
                          emo_error *err) {
    if (begin > t->bytes || size > t->bytes - begin)
        return emo__fail(err, EMO_E_RANGE, "tensor \"%.120s\": bytes %llu + %zu leave its %llu bytes", t->name,
                         (unsigned long long)begin, size, (unsigned long long)t->bytes);
    return emo__source_read_at(g->source, t->offset + begin, dst, size, err);
}
