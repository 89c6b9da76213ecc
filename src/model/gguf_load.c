/* SPDX-License-Identifier: Apache-2.0 */
/* A model from GGUF. Weights stay in the mapped file, quantised or not, wherever their rows stand as the model wants
 * them; only the query and key matrices (other order of rows), routers (a row for the shared expert) and norms move. */
#include <string.h>

#include "base/checked.h"
#include "base/progress.h"
#include "base/status.h"
#include "io/source.h"
#include "model/expert_cache.h"
#include "model/files.h"
#include "model/gguf.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "text/tokenizer_gguf.h"

#define ALIGN 64u

/* Where the slice of an item comes from, and how it will be held. */
typedef struct place {
    const emo__gguf_item *item;
    const emo__gguf_tensor *tensor;
    emo_weight *view;
    uint64_t begin; /* of the slice in the tensor */
    emo_dtype dtype;
    const void *data; /* in the mapped file; NULL: to be read */
    size_t bytes;     /* to be read, with rows that the file lacks */
} place;

typedef struct loader {
    emo_model *model;
    const emo_model_load_options *options;
    emo__gguf_item *items;
    size_t n_items;
    place *places;
    size_t n_places;
    size_t bytes;
    void *row; /* scratch: one row as in the file */
} loader;

static emo_status check_tensor(const emo__gguf_item *item, const emo__gguf_tensor *t, emo_error *err) {
    int64_t rows = item->vector ? 1 : item->rows;
    int64_t have = t->dims[2] * t->dims[3];
    if (t->dims[0] != item->cols || t->dims[1] != rows || have != item->slices)
        return emo__fail_at(err, EMO_E_MISMATCH, EMO_DOMAIN_FILE, 0,
                            "tensor \"%s\" has shape [%lld, %lld, %lld]; [%lld, %lld, %d] is expected (rows first)",
                            t->name, (long long)have, (long long)t->dims[1], (long long)t->dims[0],
                            (long long)item->slices, (long long)rows, (int)item->cols);
    if (!emo__dtype_float(t->dtype) && !emo__dtype_quantised(t->dtype))
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                            "tensor \"%s\" has element type %s; f32, f16, bf16, q8_0, q4_0 and q4_k are read", t->name,
                            t->type_name);
    return EMO_OK;
}

static emo_status place_slice(loader *ld, const emo__gguf *g, const emo__gguf_item *item, const emo__gguf_tensor *t,
                              int32_t slice, emo_error *err) {
    emo_weight *view = emo__gguf_view(ld->model, item, slice);
    place *at = &ld->places[ld->n_places];
    size_t slice_bytes = emo__dtype_run(t->dtype, item->rows * item->cols);
    *at = (place){.item = item, .tensor = t, .view = view, .begin = (uint64_t)slice_bytes * (uint64_t)slice};
    at->dtype = ld->options->dtype >= 0 ? ld->options->dtype : t->dtype;
    if (item->exact && !emo__dtype_float(at->dtype))
        at->dtype = EMO_DTYPE_F32;
    if (item->expert >= 0 && emo__expert_cache_holds(ld->model->cache, item->layer, item->expert + slice)) {
        emo__expert_cache_place(ld->model->cache, item->layer, item->expert + slice, item->which, emo__gguf_source(g),
                                t->offset + at->begin, t->dtype, at->dtype);
        return EMO_OK; /* read when it is asked for */
    }
    ld->n_places++;
    if (at->dtype == t->dtype && item->heads == 0 && view->rows == item->rows && ld->options->no_map == 0) {
        const char *data = emo__gguf_data(g, t);
        size_t unit = emo__dtype_float(t->dtype) ? emo__dtype_size(t->dtype) : 1;
        if (data != NULL && (uintptr_t)(data + at->begin) % unit == 0)
            at->data = data + at->begin;
    }
    if (at->data != NULL)
        return EMO_OK;
    if (!emo__dtype_bytes(at->dtype, view->rows * view->cols, &at->bytes) ||
        !emo__add_size(at->bytes, ALIGN - 1, &at->bytes) ||
        !emo__add_size(ld->bytes, at->bytes / ALIGN * ALIGN, &ld->bytes))
        return emo__fail_memory(err, SIZE_MAX);
    at->bytes = at->bytes / ALIGN * ALIGN;
    return EMO_OK;
}

static emo_status place_items(loader *ld, const emo__gguf *g, bool zero_shared, emo_error *err) {
    const emo_model *m = ld->model;
    size_t n_slices = 0, used = 0;
    for (size_t i = 0; i < ld->n_items; i++)
        n_slices += (size_t)ld->items[i].slices;
    ld->places = emo__calloc(&m->rt->mem, n_slices, sizeof *ld->places);
    if (ld->places == NULL)
        return emo__fail_memory(err, n_slices * sizeof *ld->places);
    for (size_t i = 0; i < ld->n_items; i++) {
        const emo__gguf_item *item = &ld->items[i];
        const emo__gguf_tensor *t = emo__gguf_find(g, item->name);
        if (item->zero && !zero_shared)
            continue; /* a file of others without shared experts: below, such a tensor has no place */
        if (t == NULL && m->config.tie && item->layer < 0 && item->which == 2)
            continue;
        if (t == NULL)
            return emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_FILE, 0, "%s has no tensor \"%s\"", emo__gguf_name(g),
                                item->name);
        used++;
        if (item->zero && zero_shared)
            continue;
        emo_status status = check_tensor(item, t, err);
        for (int32_t s = 0; status == EMO_OK && s < item->slices; s++) {
            bool wanted =
                item->expert < 0 || m->subset == NULL || emo_mask_get(m->subset, item->layer, item->expert + s) != 0;
            if (wanted)
                status = place_slice(ld, g, item, t, s, err);
        }
        if (status != EMO_OK)
            return status;
    }
    /* A bias or a table of rotation factors changes what the model computes: no tensor is passed over. */
    for (size_t i = 0; used < emo__gguf_count(g) && i < emo__gguf_count(g); i++) {
        const char *name = emo__gguf_at(g, i)->name;
        bool known = false;
        for (size_t k = 0; !known && k < ld->n_items; k++)
            known = strcmp(ld->items[k].name, name) == 0 && (zero_shared || !ld->items[k].zero);
        if (!known)
            return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                                "%s: this library's models have no place for tensor \"%s\"", emo__gguf_name(g), name);
    }
    return EMO_OK;
}

static emo_status read_slice(loader *ld, const emo__gguf *g, const place *at, char *block, emo_error *err) {
    const emo__gguf_item *item = at->item;
    size_t row_in = emo__dtype_run(at->tensor->dtype, item->cols);
    size_t row_out = emo__dtype_run(at->dtype, item->cols);
    size_t written = (size_t)item->rows * row_out;
    bool same = at->dtype == at->tensor->dtype;
    memset(block + written, 0, at->bytes - written);
    if (same && item->heads == 0)
        return emo__gguf_read(g, at->tensor, at->begin, block, written, err);
    for (int64_t r = 0; r < item->rows; r++) {
        char *to = block + (size_t)emo__gguf_row(item, r) * row_out;
        emo_status status =
            emo__gguf_read(g, at->tensor, at->begin + (uint64_t)r * row_in, same ? to : ld->row, row_in, err);
        if (status != EMO_OK)
            return status;
        if (!same)
            (void)emo__convert(to, at->dtype, ld->row, at->tensor->dtype, (size_t)item->cols);
    }
    return EMO_OK;
}

static emo_status read_places(loader *ld, const emo__gguf *g, emo_error *err) {
    emo_model *m = ld->model;
    char *block = NULL;
    size_t widest = 1;
    emo_status status;
    for (size_t i = 0; i < ld->n_items; i++)
        widest = (size_t)ld->items[i].cols > widest ? (size_t)ld->items[i].cols : widest;
    ld->row = emo__malloc_array(&m->rt->mem, widest, sizeof(float));
    if (ld->row == NULL)
        return emo__fail_memory(err, widest * sizeof(float));
    /* never of 0 bytes: the rows of the query matrices always move */
    status = emo__model_block(m, ld->bytes, (void **)&block, err);
    for (size_t i = 0; status == EMO_OK && i < ld->n_places; i++) {
        const place *at = &ld->places[i];
        const void *data = at->data;
        status = emo__report(&ld->options->progress, "load", i, ld->n_places, err);
        if (status != EMO_OK)
            return status;
        if (data == NULL) {
            status = read_slice(ld, g, at, block, err);
            data = block;
            block += at->bytes;
        }
        at->view->data = data;
        at->view->packed = NULL;
        at->view->dtype = at->dtype;
        at->view->stride = at->view->cols;
    }
    return status;
}

static emo_status load_weights(emo_model *m, const emo__gguf *g, const emo_model_load_options *options,
                               emo_error *err) {
    loader ld = {.model = m, .options = options};
    bool zero_shared = false;
    emo_status status = emo__gguf_bool(g, EMO__GGUF_NO_SHARED, false, &zero_shared, err);
    if (status == EMO_OK && options->subset != NULL)
        status = emo__model_set_subset(m, options->subset, err);
    if (status == EMO_OK)
        status = emo__expert_cache_create(m, options, &m->cache, err);
    if (status == EMO_OK)
        status = emo__gguf_items(&m->rt->mem, &m->config, &ld.items, &ld.n_items, err);
    if (status == EMO_OK)
        status = place_items(&ld, g, zero_shared, err);
    if (status == EMO_OK)
        status = read_places(&ld, g, err);
    if (status == EMO_OK && m->cache != NULL)
        status = emo__expert_cache_open(m->cache, err);
    if (status == EMO_OK)
        status = emo__model_finish(m, err);
    emo__free(&m->rt->mem, ld.items);
    emo__free(&m->rt->mem, ld.places);
    emo__free(&m->rt->mem, ld.row);
    return status;
}

emo_status emo__model_load_gguf(emo_runtime *rt, emo_source *source, const emo_model_load_options *options,
                                emo_model **out, emo_error *err) {
    emo__gguf *g = NULL;
    emo_model *m = NULL;
    emo__config c;
    const char *pruning = NULL;
    size_t length = 0;
    *out = NULL;
    memset(&c, 0, sizeof c);
    emo_status status = emo__gguf_open(rt, source, &g, err);
    if (status == EMO_OK)
        status = emo__gguf_config(&rt->mem, g, &c, err);
    if (status == EMO_OK)
        status = emo__gguf_string(g, EMO__GGUF_PRUNING, &pruning, &length, err);
    if (status == EMO_OK && options->pruning != NULL) {
        pruning = options->pruning;
        length = strlen(pruning);
    }
    if (status == EMO_OK && pruning != NULL)
        status = emo__config_read_pruning(&c, pruning, length, err);
    if (status == EMO_OK)
        status = emo__model_new(rt, &c, &m, err);
    else
        emo__config_free(&c);
    if (status == EMO_OK && pruning != NULL)
        status = emo__model_read_method(m, pruning, length, err);
    if (status == EMO_OK)
        status = load_weights(m, g, options, err);
    if (status == EMO_OK) {
        emo_tokenizer *tokenizer = NULL;
        emo_error why = EMO_ERROR_INIT;
        emo_status found = emo__tok_read_gguf(rt, g, &tokenizer, &why);
        status = emo__model_take_tokenizer(m, tokenizer, found, &why, emo__gguf_name(g), err);
    }
    if (status != EMO_OK) {
        emo_model_release(m);
        emo__gguf_close(g);
        return status;
    }
    m->gguf = g;
    *out = m;
    return EMO_OK;
}
