/* SPDX-License-Identifier: Apache-2.0 */
#include "subset/prune.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "model/expert_cache.h"
#include "model/files.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

#define ALIGN 64u

void emo__keep_free(emo__keep_lists *lists) {
    if (lists->mem == NULL)
        return;
    emo__free(lists->mem, lists->offsets);
    emo__free(lists->mem, lists->ids);
    memset(lists, 0, sizeof *lists);
}

static emo_status keep_new(const emo_model *model, emo__keep_lists *out, emo_error *err) {
    const emo__config *c = &model->config;
    size_t total = 1;
    for (int32_t l = 0; l < c->layers; l++)
        total += (size_t)c->layer[l].experts;
    memset(out, 0, sizeof *out);
    out->mem = &model->rt->mem;
    out->layers = c->layers;
    out->offsets = emo__calloc(out->mem, (size_t)c->layers + 1, sizeof *out->offsets);
    out->ids = emo__malloc_array(out->mem, total, sizeof *out->ids);
    if (out->offsets == NULL || out->ids == NULL)
        return emo__fail_memory(err, total * sizeof *out->ids);
    return EMO_OK;
}

emo_status emo__keep_from_mask(const emo_model *model, const emo_mask *mask, emo__keep_lists *out, emo_error *err) {
    emo_status status = keep_new(model, out, err);
    int32_t n = 0;
    for (int32_t l = 0; status == EMO_OK && l < model->config.layers; l++) {
        int32_t experts = model->config.layer[l].experts;
        uint8_t *keep = emo__malloc_array(out->mem, (size_t)experts + 1, 1);
        status = keep != NULL ? emo__model_keep(model, mask, l, keep, err) : emo__fail_memory(err, (size_t)experts + 1);
        for (int32_t e = 0; status == EMO_OK && e < experts; e++) {
            if (keep[e] != 0)
                out->ids[n++] = e;
        }
        emo__free(out->mem, keep);
        out->offsets[l + 1] = n;
    }
    return status;
}

emo_status emo__keep_from_ids(const emo_model *model, const int32_t *ids, const int32_t *offsets, emo__keep_lists *out,
                              emo_error *err) {
    emo_status status = keep_new(model, out, err);
    int32_t n = 0;
    for (int32_t l = 0; status == EMO_OK && l < model->config.layers; l++) {
        int32_t experts = model->config.layer[l].experts;
        int32_t first = n;
        if (offsets[l] < 0 || offsets[l + 1] < offsets[l] || offsets[l + 1] - offsets[l] > experts)
            return emo__fail(err, EMO_E_RANGE, "keep_offsets gives layer %d the ids %d to %d; it has %d experts",
                             (int)l, (int)offsets[l], (int)offsets[l + 1], (int)experts);
        for (int32_t i = offsets[l]; status == EMO_OK && i < offsets[l + 1]; i++) {
            if (ids[i] < 0 || ids[i] >= experts)
                return emo__fail(err, EMO_E_RANGE, "keep has expert %d in layer %d, which has %d", (int)ids[i], (int)l,
                                 (int)experts);
            if (!emo__expert_loaded(model, l, ids[i]))
                return emo__fail(err, EMO_E_MISMATCH,
                                 "keep has expert %d of layer %d, which was left out when the model was loaded",
                                 (int)ids[i], (int)l);
            int32_t at = n++; /* insertion keeps them ascending; ascending puts the shared ones last */
            while (at > first && out->ids[at - 1] > ids[i]) {
                out->ids[at] = out->ids[at - 1];
                at--;
            }
            if (at > first && out->ids[at - 1] == ids[i])
                return emo__fail(err, EMO_E_RANGE, "keep has expert %d of layer %d twice", (int)ids[i], (int)l);
            out->ids[at] = ids[i];
        }
        out->offsets[l + 1] = n;
    }
    return status;
}

static int32_t place_of(const int32_t *ids, int32_t n, int32_t id) {
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] == id)
            return i;
    }
    return -1;
}

/* The configuration of one layer after pruning; `from` is the parent's. */
static emo_status prune_layer(const emo__config *parent, emo__config *c, int32_t l, const int32_t *ids, int32_t n,
                              emo_error *err) {
    const emo__layer_config *from = &parent->layer[l];
    emo__layer_config *to = &c->layer[l];
    int32_t routed = from->experts - from->shared;
    int32_t shared = 0;
    for (int32_t i = 0; i < n; i++)
        shared += ids[i] >= routed ? 1 : 0;
    if (n - shared < 1)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "layer %d would keep no routed expert; keep at least one",
                         (int)l);
    for (int32_t i = 0; i < from->n_always; i++) {
        to->always[i] = place_of(ids, n, from->always[i]);
        if (to->always[i] < 0)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "layer %d would lose its always-active expert %d", (int)l,
                             (int)from->always[i]);
    }
    int32_t *original = emo__malloc_array(c->mem, (size_t)n, sizeof *original);
    if (original == NULL)
        return emo__fail_memory(err, (size_t)n * sizeof *original);
    for (int32_t i = 0; i < n; i++)
        original[i] = from->original != NULL ? from->original[ids[i]] : ids[i];
    emo__free(c->mem, to->original);
    to->original = original;
    to->experts = n;
    to->shared = shared;
    c->top_k = c->top_k > n ? n : c->top_k;
    return EMO_OK;
}

static emo_status prune_config(const emo_model *model, const emo__keep_lists *keep, emo__config *c, emo_error *err) {
    emo_status status = emo__config_copy(&model->config, c, err);
    c->output_router_logits = true;
    for (int32_t l = 0; status == EMO_OK && l < keep->layers; l++) {
        if (model->config.layer[l].experts > 0)
            status = prune_layer(&model->config, c, l, keep->ids + keep->offsets[l],
                                 keep->offsets[l + 1] - keep->offsets[l], err);
    }
    if (status == EMO_OK)
        status = emo__config_check(c, err);
    return status;
}

/* Points a view at another model's data; the shape is the same. */
static void borrow_view(emo_weight *to, const emo_weight *from) {
    to->data = from->data;
    to->packed = NULL;
    to->dtype = from->dtype;
    to->layout = from->layout;
    to->stride = from->stride;
}

static void borrow_views(emo_model *m, const emo_model *from, const emo__keep_lists *keep) {
    borrow_view(&m->embed, &from->embed);
    borrow_view(&m->norm, &from->norm);
    borrow_view(&m->head, &from->head);
    for (int32_t l = 0; l < m->config.layers; l++) {
        for (int32_t which = 0; which < EMO__W_COUNT; which++) {
            if (m->layers[l].param[which] >= 0 && which != EMO__W_ROUTER && which != EMO__W_SCORE_BIAS)
                borrow_view(&m->layers[l].w[which], &from->layers[l].w[which]);
        }
        for (int32_t e = 0; e < m->config.layer[l].experts; e++) {
            const emo_expert_slot *slot = &from->layers[l].experts[keep->ids[keep->offsets[l] + e]];
            borrow_view(&m->layers[l].experts[e].gate, &slot->gate);
            borrow_view(&m->layers[l].experts[e].up, &slot->up);
            borrow_view(&m->layers[l].experts[e].down, &slot->down);
        }
    }
}

/* The kept rows of a layer's gate, in the type they are held in, and their score bias. */
static emo_status copy_router(emo_model *m, emo_exec *exec, const emo_model *from, int32_t l, const int32_t *ids,
                              emo_error *err) {
    const emo_weight *gate = &from->layers[l].w[EMO__W_ROUTER];
    emo__param *p = &m->params[m->layers[l].param[EMO__W_ROUTER]];
    size_t item = emo__dtype_size(gate->dtype);
    size_t row = (size_t)p->cols * item;
    char *block = NULL;
    emo_status status = emo__model_block(m, (size_t)p->rows * row, (void **)&block, err);
    for (int64_t r = 0; status == EMO_OK && r < p->rows; r++)
        status = m->backend->ops->copy(exec, block + (size_t)r * row,
                                       (const char *)gate->data + (size_t)(ids[r] * gate->stride) * item, row, err);
    if (status != EMO_OK)
        return status;
    emo__param_bind(p, block, gate->dtype);
    if (m->layers[l].param[EMO__W_SCORE_BIAS] < 0)
        return EMO_OK;
    const float *from_bias = from->layers[l].w[EMO__W_SCORE_BIAS].data;
    float *bias = NULL;
    p = &m->params[m->layers[l].param[EMO__W_SCORE_BIAS]];
    status = emo__model_block(m, (size_t)p->cols * sizeof *bias, (void **)&bias, err);
    for (int64_t e = 0; status == EMO_OK && e < p->cols; e++) /* the routed ones come first */
        status = m->backend->ops->copy(exec, bias + e, from_bias + ids[e], sizeof *bias, err);
    if (status == EMO_OK)
        emo__param_bind(p, bias, EMO_DTYPE_F32);
    return status;
}

/* A parameter's rows, one after the other, to `block` of the same device. */
static emo_status copy_rows(const emo_model *m, emo_exec *exec, const emo__param *p, char *block, emo_error *err) {
    const emo_weight *view = p->view;
    size_t row = emo__dtype_run(view->dtype, p->cols);
    emo_status status = EMO_OK;
    if (view->stride == p->cols)
        return m->backend->ops->copy(exec, block, view->data, (size_t)p->rows * row, err);
    for (int64_t r = 0; status == EMO_OK && r < p->rows; r++)
        status =
            m->backend->ops->copy(exec, block + (size_t)r * row,
                                  (const char *)view->data + emo__dtype_run(view->dtype, r * view->stride), row, err);
    return status;
}

/* The id in `from` of the expert a parameter belongs to, when it comes and goes there; else -1. */
static int32_t on_demand(const emo_model *from, const emo__keep_lists *keep, const emo__param *p) {
    if (p->expert < 0)
        return -1;
    int32_t id = keep != NULL ? keep->ids[keep->offsets[p->layer] + p->expert] : p->expert;
    return emo__expert_cache_holds(from->cache, p->layer, id) ? id : -1;
}

emo_status emo__model_own(emo_model *m, const emo_model *from, const emo__keep_lists *keep,
                          const emo_progress *progress, emo_error *err) {
    size_t total = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        const emo__param *p = &m->params[i];
        size_t bytes = emo__dtype_run(p->view->dtype, emo__param_count(p));
        if ((p->view->data != NULL || on_demand(from, keep, p) >= 0) &&
            !emo__add_size(total, (bytes + ALIGN - 1) / ALIGN * ALIGN, &total))
            return emo__fail_memory(err, SIZE_MAX);
    }
    char *block = NULL;
    emo_exec *exec = NULL;
    emo_status status = emo__model_block(m, total, (void **)&block, err);
    if (status == EMO_OK)
        status = m->backend->ops->exec_create(m->backend, NULL, &exec, err);
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        emo__param *p = &m->params[i];
        status = emo__report(progress, "copy", i, m->n_params, err);
        int32_t id = on_demand(from, keep, p);
        if (status != EMO_OK || (p->view->data == NULL && id < 0))
            continue;
        status = id >= 0 ? emo__expert_cache_read(from->cache, p->layer, id, p->which, block, err)
                         : copy_rows(m, exec, p, block, err);
        size_t row = emo__dtype_run(p->view->dtype, p->cols);
        emo__param_bind(p, block, p->view->dtype);
        block += ((size_t)p->rows * row + ALIGN - 1) / ALIGN * ALIGN;
    }
    m->backend->ops->exec_destroy(exec); /* waits */
    return status == EMO_OK ? emo__report(progress, "copy", m->n_params, m->n_params, err) : status;
}

emo_status emo__prune(const emo_model *model, const emo__keep_lists *keep, const char *method, bool borrow,
                      const emo_progress *progress, emo_model **out, emo_error *err) {
    *out = NULL;
    emo__config c;
    emo_model *m = NULL;
    emo_status status = borrow ? emo__model_need_all(model, "choosing experts without all shared ones", err) : EMO_OK;
    if (status != EMO_OK)
        return status;
    status = prune_config(model, keep, &c, err);
    if (status != EMO_OK)
        emo__config_free(&c);
    else
        status = emo__model_new(model->rt, &c, &m, err);
    if (status == EMO_OK) {
        m->backend = model->backend;
        m->compute = model->compute;
        borrow_views(m, model, keep);
        m->prune_method = emo__strdup(&model->rt->mem, method);
        if (m->prune_method == NULL)
            status = emo__fail_memory(err, strlen(method) + 1);
    }
    emo_exec *exec = NULL;
    if (status == EMO_OK)
        status = model->backend->ops->exec_create(model->backend, NULL, &exec, err);
    for (int32_t l = 0; status == EMO_OK && l < keep->layers; l++) {
        if (model->config.layer[l].experts > 0)
            status = copy_router(m, exec, model, l, keep->ids + keep->offsets[l], err);
    }
    model->backend->ops->exec_destroy(exec); /* waits */
    if (status == EMO_OK && !borrow)
        status = emo__model_own(m, model, keep, progress, err);
    if (status == EMO_OK && model->tokenizer != NULL)
        status = emo__model_set_tokenizer(m, model->tokenizer, err);
    if (status == EMO_OK)
        status = emo__model_finish(m, err);
    if (status == EMO_OK)
        *out = m;
    else
        emo_model_release(m);
    return status;
}
