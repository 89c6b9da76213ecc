/* SPDX-License-Identifier: Apache-2.0 */
/* The list of a model's tensors, their names, their memory. */
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/progress.h"
#include "base/status.h"
#include "io/gguf.h"
#include "model/access.h"
#include "model/expert_cache.h"
#include "model/model.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

static const char *const layer_names[EMO__W_COUNT] = {
    [EMO__W_ATTN_NORM] = "pre_attention_layernorm.weight",
    [EMO__W_Q] = "self_attn.q_proj.weight",
    [EMO__W_K] = "self_attn.k_proj.weight",
    [EMO__W_V] = "self_attn.v_proj.weight",
    [EMO__W_O] = "self_attn.o_proj.weight",
    [EMO__W_Q_BIAS] = "self_attn.q_proj.bias",
    [EMO__W_K_BIAS] = "self_attn.k_proj.bias",
    [EMO__W_V_BIAS] = "self_attn.v_proj.bias",
    [EMO__W_O_BIAS] = "self_attn.o_proj.bias",
    [EMO__W_FFN_NORM] = "pre_feedforward_layernorm.weight",
    [EMO__W_ROUTER] = "mlp.gate.weight",
    [EMO__W_MLP_GATE] = "mlp.gate_proj.weight",
    [EMO__W_MLP_UP] = "mlp.up_proj.weight",
    [EMO__W_MLP_DOWN] = "mlp.down_proj.weight",
    [EMO__W_MLP_GATE_BIAS] = "mlp.gate_proj.bias",
    [EMO__W_MLP_UP_BIAS] = "mlp.up_proj.bias",
    [EMO__W_MLP_DOWN_BIAS] = "mlp.down_proj.bias",
    [EMO__W_SCORE_BIAS] = "mlp.gate.score_bias",
};
static const char *const slot_names[3] = {"gate_proj", "up_proj", "down_proj"};

void emo__param_name(const emo__param *p, char buf[EMO__NAME_MAX]) {
    if (p->group == EMO__P_EMBED)
        (void)snprintf(buf, EMO__NAME_MAX, "model.embed_tokens.weight");
    else if (p->group == EMO__P_FINAL)
        (void)snprintf(buf, EMO__NAME_MAX, "%s", p->which == 0 ? "model.norm.weight" : "lm_head.weight");
    else if (p->expert >= 0)
        (void)snprintf(buf, EMO__NAME_MAX, "model.layers.%d.mlp.experts.%d.%s.weight", (int)p->layer, (int)p->expert,
                       slot_names[p->which]);
    else
        (void)snprintf(buf, EMO__NAME_MAX, "model.layers.%d.%s", (int)p->layer, layer_names[p->which]);
}

/* Shape of a layer's matrix `which`; rows 0 when the layer lacks it. */
static void layer_shape(const emo__config *c, int32_t l, int32_t which, int64_t *rows, int64_t *cols) {
    int64_t q = (int64_t)c->heads * c->head_dim;
    int64_t kv = (int64_t)c->kv_heads * c->head_dim;
    int64_t dense = c->layer[l].experts == 0 ? 1 : 0;
    int64_t bias = c->attention_bias ? 1 : 0;
    int64_t dense_bias = dense != 0 && c->dense_bias ? 1 : 0;
    *cols = c->hidden;
    switch (which) {
    case EMO__W_ATTN_NORM:
    case EMO__W_FFN_NORM:
        *rows = 1;
        break;
    case EMO__W_Q:
        *rows = q;
        break;
    case EMO__W_K:
    case EMO__W_V:
        *rows = kv;
        break;
    case EMO__W_O:
        *rows = c->hidden;
        *cols = q;
        break;
    case EMO__W_Q_BIAS:
        *rows = bias;
        *cols = q;
        break;
    case EMO__W_K_BIAS:
    case EMO__W_V_BIAS:
        *rows = bias;
        *cols = kv;
        break;
    case EMO__W_O_BIAS:
        *rows = bias;
        break;
    case EMO__W_ROUTER:
        *rows = c->layer[l].experts;
        break;
    case EMO__W_MLP_GATE:
    case EMO__W_MLP_UP:
        *rows = dense * c->dense_inner;
        break;
    case EMO__W_MLP_DOWN:
        *rows = dense * c->hidden;
        *cols = c->dense_inner;
        break;
    case EMO__W_MLP_GATE_BIAS:
    case EMO__W_MLP_UP_BIAS:
        *rows = dense_bias;
        *cols = c->dense_inner;
        break;
    case EMO__W_SCORE_BIAS:
        *rows = c->score_bias && c->layer[l].experts > 0 ? 1 : 0;
        *cols = emo__config_routed(c, l);
        break;
    default: /* EMO__W_MLP_DOWN_BIAS */
        *rows = dense_bias;
        break;
    }
}

static int is_vector(int32_t which) {
    return which == EMO__W_ATTN_NORM || which == EMO__W_FFN_NORM ||
           (which >= EMO__W_Q_BIAS && which <= EMO__W_O_BIAS) || which >= EMO__W_MLP_GATE_BIAS;
}

/* Appends one parameter; counts only when model->params is NULL. */
static void add_param(emo_model *m, emo_weight *view, int32_t group, int32_t layer, int32_t which, int32_t expert,
                      int64_t rows, int64_t cols, int vector) {
    if (m->params != NULL) {
        emo__param *p = &m->params[m->n_params];
        p->view = view;
        p->group = group;
        p->layer = layer;
        p->which = which;
        p->expert = expert;
        p->rows = rows;
        p->cols = cols;
        p->vector = vector;
        view->rows = rows;
        view->cols = cols;
        view->stride = cols;
        view->layout = EMO_LAYOUT_ROWS;
    }
    m->n_params++;
}

static void list_layer(emo_model *m, int32_t l) {
    const emo__config *c = &m->config;
    emo__layer *layer = &m->layers[l];
    for (int32_t which = 0; which < EMO__W_COUNT; which++) {
        int64_t rows;
        int64_t cols;
        layer_shape(c, l, which, &rows, &cols);
        layer->param[which] = rows > 0 ? (int32_t)m->n_params : -1;
        if (rows > 0)
            add_param(m, &layer->w[which],
                      which == EMO__W_ROUTER || which == EMO__W_SCORE_BIAS ? EMO__P_ROUTER : EMO__P_DENSE, l, which, -1,
                      rows, cols, is_vector(which));
    }
    layer->expert_param = (int32_t)m->n_params;
    int32_t routed = emo__config_routed(c, l);
    for (int32_t e = 0; e < c->layer[l].experts; e++) {
        int32_t group = e < routed ? EMO__P_ROUTED : EMO__P_SHARED;
        emo_expert_slot *slot = &layer->experts[e];
        add_param(m, &slot->gate, group, l, EMO_SLOT_GATE, e, c->inner, c->hidden, 0);
        add_param(m, &slot->up, group, l, EMO_SLOT_UP, e, c->inner, c->hidden, 0);
        add_param(m, &slot->down, group, l, EMO_SLOT_DOWN, e, c->hidden, c->inner, 0);
    }
}

static void list_params(emo_model *m) {
    const emo__config *c = &m->config;
    m->n_params = 0;
    add_param(m, &m->embed, EMO__P_EMBED, -1, 0, -1, c->vocab, c->hidden, 0);
    for (int32_t l = 0; l < c->layers; l++)
        list_layer(m, l);
    m->norm_param = (int32_t)m->n_params;
    add_param(m, &m->norm, EMO__P_FINAL, -1, 0, -1, 1, c->hidden, 1);
    m->head_param = c->tie ? -1 : (int32_t)m->n_params;
    if (!c->tie)
        add_param(m, &m->head, EMO__P_FINAL, -1, 1, -1, c->vocab, c->hidden, 0);
}

emo_status emo__model_new(emo_runtime *rt, emo__config *config, emo_model **out, emo_error *err) {
    *out = NULL;
    emo_model *m = emo__calloc(&rt->mem, 1, sizeof *m);
    if (m == NULL) {
        emo__config_free(config);
        return emo__fail_memory(err, sizeof *m);
    }
    emo__ref_init(&m->ref);
    emo__guard_init(&m->guard);
    m->rt = emo__runtime_retain(rt);
    m->backend = rt->cpu;
    m->config = *config;
    memset(config, 0, sizeof *config);
    const emo__config *c = &m->config;
    m->layers = emo__calloc(&rt->mem, (size_t)c->layers, sizeof *m->layers);
    if (m->layers == NULL)
        goto memory;
    for (int32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        m->layers[l].experts = emo__calloc(&rt->mem, (size_t)c->layer[l].experts, sizeof *m->layers[l].experts);
        if (m->layers[l].experts == NULL)
            goto memory;
        m->layers[l].table.slots = m->layers[l].experts;
        m->layers[l].table.count = c->layer[l].experts;
    }
    list_params(m);
    m->params = emo__calloc(&rt->mem, m->n_params, sizeof *m->params);
    if (m->params == NULL)
        goto memory;
    list_params(m);
    *out = m;
    return EMO_OK;
memory:
    emo_model_release(m);
    return emo__fail_memory(err, sizeof *m);
}

static void free_blocks(emo_model *m) {
    for (size_t i = 0; i < m->n_blocks; i++)
        m->backend->ops->mem_free(m->backend, m->blocks[i]);
    m->n_blocks = 0;
    for (size_t i = 0; i < m->n_opened; i++)
        emo__st_close(m->opened[i]);
    emo__free(&m->rt->mem, m->opened);
    m->opened = NULL;
    m->n_opened = 0;
    emo__st_set_close(m->files);
    m->files = NULL;
    emo__gguf_close(m->gguf);
    m->gguf = NULL;
}

void emo_model_release(emo_model *m) {
    if (m == NULL || !emo__ref_put(&m->ref))
        return;
    emo_runtime *rt = m->rt;
    emo__expert_cache_destroy(m->cache); /* reads from the files that go next */
    free_blocks(m);
    emo__free(&rt->mem, m->blocks);
    if (m->layers != NULL) {
        for (int32_t l = 0; l < m->config.layers; l++) {
            if (m->layers[l].experts != NULL)
                m->backend->ops->table_free(m->backend, &m->layers[l].table);
            emo__free(&rt->mem, m->layers[l].experts);
        }
    }
    emo__free(&rt->mem, m->layers);
    emo__free(&rt->mem, m->params);
    emo__free(&rt->mem, m->prune_method);
    emo_mask_release(m->subset);
    emo_tokenizer_release(m->tokenizer);
    emo__config_free(&m->config);
    emo__free(&rt->mem, m);
    emo_runtime_release(rt);
}

emo_status emo__model_block(emo_model *m, size_t bytes, void **out, emo_error *err) {
    emo_status status =
        emo__grow(&m->rt->mem, (void **)&m->blocks, &m->cap_blocks, m->n_blocks + 1, sizeof *m->blocks, err);
    if (status == EMO_OK)
        status = m->backend->ops->mem_alloc(m->backend, bytes, out, err);
    if (status == EMO_OK)
        m->blocks[m->n_blocks++] = *out;
    return status;
}

void emo__param_bind(emo__param *p, const void *data, emo_dtype dtype) {
    p->view->data = data;
    p->view->packed = NULL;
    p->view->dtype = dtype;
    p->view->stride = p->cols;
}

bool emo__expert_loaded(const emo_model *m, int32_t l, int32_t e) {
    return m->layers[l].experts[e].gate.data != NULL || emo__expert_cache_holds(m->cache, l, e);
}

bool emo__param_loaded(const emo_model *m, const emo__param *p) {
    return p->view->data != NULL || emo__expert_cache_holds(m->cache, p->layer, p->expert);
}

emo_status emo__model_need_all(const emo_model *m, const char *what, emo_error *err) {
    if (m->cache == NULL)
        return EMO_OK;
    return emo__fail(err, EMO_E_UNSUPPORTED,
                     "%s needs all of the model at once: load it without emo_model_load_options.memory_budget", what);
}

emo_status emo__model_finish(emo_model *m, emo_error *err) {
    if (m->config.tie)
        m->head = m->embed;
    emo_exec *exec = NULL;
    const emo_backend_ops *ops = m->backend->ops;
    emo_status status = ops->exec_create(m->backend, NULL, &exec, err);
    for (int32_t l = 0; status == EMO_OK && l < m->config.layers; l++) {
        if (m->layers[l].experts != NULL)
            status = ops->table_sync(exec, &m->layers[l].table, err);
    }
    ops->exec_destroy(exec);
    return status;
}

emo_status emo__param_read_f32(const emo_model *m, const emo__param *p, float *out, emo_error *err) {
    emo__access access;
    emo_status status = emo__access_begin(m, &access, err);
    if (status == EMO_OK)
        status = emo__access_f32(&access, p, 0, p->rows, out, err);
    emo__access_end(&access);
    return status;
}

static emo_status write_zeros(const emo_model *m, void *data, size_t bytes, emo_error *err) {
    emo_exec *exec = NULL;
    emo_status status = m->backend->ops->exec_create(m->backend, NULL, &exec, err);
    if (status == EMO_OK)
        status = m->backend->ops->zero(exec, data, bytes, err);
    m->backend->ops->exec_destroy(exec); /* waits */
    return status;
}

emo_status emo__model_add_score_bias(emo_model *m, emo_error *err) {
    emo__config *c = &m->config;
    if (c->score_bias)
        return EMO_OK;
    size_t count = 0;
    for (int32_t l = 0; l < c->layers; l++)
        count += c->layer[l].experts > 0 ? ((size_t)emo__config_routed(c, l) + 15) / 16 * 16 : 0;
    if (count == 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "the model has no routed experts, and so no place for a score bias");
    emo__param *params = emo__calloc(&m->rt->mem, m->n_params + (size_t)c->layers, sizeof *params);
    if (params == NULL)
        return emo__fail_memory(err, (m->n_params + (size_t)c->layers) * sizeof *params);
    float *data = NULL;
    c->score_bias = true;
    emo_status status = emo__config_check(c, err);
    if (status == EMO_OK)
        status = emo__model_block(m, count * sizeof *data, (void **)&data, err);
    if (status == EMO_OK)
        status = write_zeros(m, data, count * sizeof *data, err);
    if (status != EMO_OK) {
        c->score_bias = false;
        emo__free(&m->rt->mem, params);
        return status;
    }
    emo__free(&m->rt->mem, m->params);
    m->params = params;
    list_params(m); /* the views keep what they point at */
    for (size_t i = 0; i < m->n_params; i++) {
        if (!emo__param_is_score_bias(&m->params[i]))
            continue;
        emo__param_bind(&m->params[i], data, EMO_DTYPE_F32);
        data += (emo__param_count(&m->params[i]) + 15) / 16 * 16;
    }
    return EMO_OK;
}

void emo__model_drop_score_bias(emo_model *m) {
    m->config.score_bias = false;
    for (int32_t l = 0; l < m->config.layers; l++)
        m->layers[l].w[EMO__W_SCORE_BIAS].data = NULL;
    list_params(m); /* its memory goes with the model's other blocks */
}

/* Places of the parameters in one flat block, and its size in floats. */
static int64_t place_params(const emo_model *m, int fill, int64_t *offsets) {
    int64_t at = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        bool present = fill == 0 || m->params[i].view->data != NULL;
        offsets[i] = present ? at : -1;
        if (present)
            at += (emo__param_count(&m->params[i]) + 15) / 16 * 16;
    }
    return at;
}

#define PIECE ((int64_t)1 << 20) /* elements that go through the host at a time */

/* A parameter to its place in the flat block. */
static emo_status flatten(emo__access *access, const emo__param *p, float *to, emo_error *err) {
    const emo__mem *mem = &access->model->rt->mem;
    if (access->exec == NULL)
        return emo__access_f32(access, p, 0, p->rows, to, err);
    int64_t most = PIECE / p->cols > 0 ? PIECE / p->cols : 1;
    most = most < p->rows ? most : p->rows;
    float *host = emo__malloc_array(mem, (size_t)(most * p->cols), sizeof *host);
    emo_status status = host != NULL ? EMO_OK : emo__fail_memory(err, (size_t)(most * p->cols) * sizeof *host);
    for (int64_t r = 0; status == EMO_OK && r < p->rows; r += most) {
        int64_t n = p->rows - r < most ? p->rows - r : most;
        status = emo__access_f32(access, p, r, n, host, err);
        if (status == EMO_OK)
            status = emo__access_write(access, to + r * p->cols, host, (size_t)(n * p->cols) * sizeof *host, err);
    }
    emo__free(mem, host);
    return status;
}

static emo_status fill_flat(const emo_model *m, const int64_t *offsets, float *data, const emo_progress *progress,
                            emo_error *err) {
    emo__access access;
    emo_status status = emo__access_begin(m, &access, err);
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        status = emo__report(progress, "copy", i, m->n_params, err);
        if (status == EMO_OK && offsets[i] >= 0)
            status = flatten(&access, &m->params[i], data + offsets[i], err);
    }
    if (status == EMO_OK)
        status = emo__access_flush(&access, err);
    emo__access_end(&access);
    return status;
}

emo_status emo__model_to_f32(emo_model *m, int fill, float **flat, int64_t *count, int64_t *offsets,
                             const emo_progress *progress, emo_error *err) {
    int64_t total = place_params(m, fill, offsets);
    size_t bytes;
    if (!emo__mul_size((size_t)total, sizeof(float), &bytes))
        return emo__fail_memory(err, SIZE_MAX);
    void *block = NULL;
    emo_status status = m->backend->ops->mem_alloc(m->backend, bytes, &block, err);
    if (status != EMO_OK)
        return status;
    float *data = block;
    status = write_zeros(m, data, bytes, err);
    if (status == EMO_OK && fill != 0)
        status = fill_flat(m, offsets, data, progress, err);
    if (status == EMO_OK)
        status = emo__grow(&m->rt->mem, (void **)&m->blocks, &m->cap_blocks, 1, sizeof *m->blocks, err);
    if (status != EMO_OK) { /* nothing has changed yet */
        m->backend->ops->mem_free(m->backend, block);
        return status;
    }
    free_blocks(m);
    m->blocks[m->n_blocks++] = block;
    for (size_t i = 0; i < m->n_params; i++) {
        if (offsets[i] >= 0)
            emo__param_bind(&m->params[i], data + offsets[i], EMO_DTYPE_F32);
    }
    *flat = data;
    *count = total;
    return emo__model_finish(m, err);
}
