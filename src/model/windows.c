/* SPDX-License-Identifier: Apache-2.0 */
#include "model/windows.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "model/files.h"

void emo__windows_init(emo__windows *w, const emo__mem *mem) {
    memset(w, 0, sizeof *w);
    w->mem = mem;
}

void emo__windows_free(emo__windows *w) {
    emo__free(w->mem, w->items);
    emo__free(w->mem, w->batches);
    emo__windows_init(w, w->mem);
}

emo_status emo__windows_add(emo__windows *w, const emo__sequence *s, int64_t seq_len, emo_error *err) {
    int64_t inputs = s->count + (s->lead >= 0 ? 1 : 0) - (s->drop_last_input ? 1 : 0);
    for (int64_t begin = 0; begin < inputs; begin += seq_len) {
        emo_status status = emo__grow(w->mem, (void **)&w->items, &w->capacity, w->count + 1, sizeof *w->items, err);
        if (status != EMO_OK)
            return status;
        emo__window *item = &w->items[w->count++];
        item->sequence = *s;
        item->begin = begin;
        item->count = inputs - begin < seq_len ? inputs - begin : seq_len;
        w->tokens += item->count;
    }
    return EMO_OK;
}

emo_status emo__windows_documents(emo__windows *w, const emo_dataset *documents, int32_t lead, int64_t seq_len,
                                  bool score, emo_error *err) {
    int64_t n = emo_dataset_count(documents);
    emo_status status = EMO_OK;
    for (int64_t i = 0; status == EMO_OK && i < n; i++) {
        emo_document doc;
        status = emo_dataset_document(documents, i, &doc, err);
        if (status != EMO_OK)
            break;
        int64_t offset = lead >= 0 ? 1 : 0;
        emo__sequence s = {doc.tokens, doc.count, lead, offset + doc.prompt_tokens, i, score};
        status = emo__windows_add(w, &s, seq_len, err);
    }
    return status;
}

emo_status emo__windows_pack(emo__windows *w, int64_t batch_tokens, emo_error *err) {
    w->batches = emo__malloc_array(w->mem, w->count + 1, sizeof *w->batches);
    if (w->batches == NULL)
        return emo__fail_memory(err, (w->count + 1) * sizeof *w->batches);
    int64_t tokens = 0;
    w->n_batches = 0;
    w->batches[0] = 0;
    for (size_t i = 0; i < w->count; i++) {
        if (tokens > 0 && tokens + w->items[i].count > batch_tokens) {
            w->batches[++w->n_batches] = i;
            tokens = 0;
        }
        tokens += w->items[i].count;
        int64_t windows = (int64_t)(i + 1 - w->batches[w->n_batches]);
        w->max_tokens = tokens > w->max_tokens ? tokens : w->max_tokens;
        w->max_windows = windows > w->max_windows ? windows : w->max_windows;
    }
    if (w->count > 0)
        w->batches[++w->n_batches] = w->count;
    return EMO_OK;
}

emo_status emo__packed_create(const emo__windows *w, emo__packed *out, emo_error *err) {
    size_t tokens = (size_t)w->max_tokens;
    size_t windows = (size_t)w->max_windows;
    memset(out, 0, sizeof *out);
    out->mem = w->mem;
    out->ids = emo__malloc_array(w->mem, tokens, sizeof *out->ids);
    out->positions = emo__malloc_array(w->mem, tokens, sizeof *out->positions);
    out->labels = emo__malloc_array(w->mem, tokens, sizeof *out->labels);
    out->document_begin = emo__malloc_array(w->mem, windows + 1, sizeof *out->document_begin);
    out->attention = emo__malloc_array(w->mem, windows, sizeof *out->attention);
    if (out->ids == NULL || out->positions == NULL || out->labels == NULL || out->document_begin == NULL ||
        out->attention == NULL)
        return emo__fail_memory(err, tokens * sizeof *out->ids);
    return EMO_OK;
}

void emo__packed_free(emo__packed *p) {
    if (p->mem == NULL)
        return;
    emo__free(p->mem, p->ids);
    emo__free(p->mem, p->positions);
    emo__free(p->mem, p->labels);
    emo__free(p->mem, p->document_begin);
    emo__free(p->mem, p->attention);
    memset(p, 0, sizeof *p);
}

static int32_t token_at(const emo__sequence *s, int64_t place) {
    if (s->lead < 0)
        return s->tokens[place];
    return place == 0 ? s->lead : s->tokens[place - 1];
}

void emo__packed_fill(emo__packed *p, const emo__windows *w, size_t index, emo__batch *batch) {
    int64_t at = 0;
    int64_t n = 0;
    for (size_t i = w->batches[index]; i < w->batches[index + 1]; i++, n++) {
        const emo__window *item = &w->items[i];
        const emo__sequence *s = &item->sequence;
        int64_t length = s->count + (s->lead >= 0 ? 1 : 0);
        p->document_begin[n] = (int32_t)at;
        p->attention[n] = (emo_attention_segment){at, item->count, at, item->count};
        for (int64_t t = 0; t < item->count; t++) {
            int64_t next = item->begin + t + 1;
            p->ids[at + t] = token_at(s, item->begin + t);
            p->positions[at + t] = (int32_t)t;
            p->labels[at + t] = next < length && next >= s->labels_from ? token_at(s, next) : -100;
        }
        at += item->count;
    }
    p->document_begin[n] = (int32_t)at;
    memset(batch, 0, sizeof *batch);
    batch->tokens = at;
    batch->ids = p->ids;
    batch->positions = p->positions;
    batch->n_attention = n;
    batch->attention = p->attention;
    batch->n_documents = n;
    batch->document_begin = p->document_begin;
    batch->labels = p->labels;
}

void emo__allowed_set(emo__allowed *a, int32_t layer, int32_t routed, const uint8_t *keep) {
    for (int64_t i = 0; i < a->windows; i++)
        memcpy(a->rows[layer] + i * routed, keep, (size_t)routed);
}

static emo_status allowed_layer(const emo_model *model, const emo_mask *mask, int32_t l, bool force, emo__allowed *a,
                                emo__few_experts *few, emo_error *err) {
    int32_t experts = model->config.layer[l].experts;
    int32_t routed = emo__config_routed(&model->config, l);
    size_t bytes;
    uint8_t *keep = emo__malloc_array(a->mem, (size_t)experts, 1);
    if (keep == NULL)
        return emo__fail_memory(err, (size_t)experts);
    emo_status status = emo__model_keep(model, mask, l, keep, err);
    bool all = true;
    for (int32_t e = 0; status == EMO_OK && e < routed; e++)
        all = all && keep[e] != 0;
    if (status == EMO_OK)
        emo__few_experts_add(few, &model->config, l, keep);
    if (status == EMO_OK && (force || !all)) {
        if (emo__mul_size((size_t)a->windows, (size_t)routed, &bytes))
            a->rows[l] = emo__alloc(a->mem, bytes);
        if (a->rows[l] == NULL)
            status = emo__fail_memory(err, (size_t)a->windows * (size_t)routed);
        else
            emo__allowed_set(a, l, routed, keep);
    }
    emo__free(a->mem, keep);
    return status;
}

emo_status emo__allowed_create(const emo_model *model, const emo_mask *mask, int64_t windows, bool force,
                               emo__allowed *out, emo_error *err) {
    memset(out, 0, sizeof *out);
    out->mem = &model->rt->mem;
    out->layers = model->config.layers;
    out->windows = windows;
    out->rows = emo__calloc(out->mem, (size_t)out->layers, sizeof *out->rows);
    if (out->rows == NULL)
        return emo__fail_memory(err, (size_t)out->layers * sizeof *out->rows);
    emo_status status = EMO_OK;
    emo__few_experts few = {0};
    for (int32_t l = 0; status == EMO_OK && l < out->layers; l++) {
        if (model->config.layer[l].experts > 0)
            status = allowed_layer(model, mask, l, force, out, &few, err);
    }
    if (status == EMO_OK)
        emo__few_experts_report(&few, model);
    return status;
}

void emo__allowed_free(emo__allowed *a) {
    if (a->rows == NULL)
        return;
    for (int32_t l = 0; l < a->layers; l++)
        emo__free(a->mem, a->rows[l]);
    emo__free(a->mem, a->rows);
    a->rows = NULL;
}
