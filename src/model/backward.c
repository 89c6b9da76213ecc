/* SPDX-License-Identifier: Apache-2.0 */
/* The backward pass, step by step the mirror of forward.c. dh holds the gradient of the residual stream throughout. */
#include <string.h>

#include "base/status.h"
#include "model/pass_state.h"

emo_status emo__grads_create(emo_model *model, float *base, const int64_t *offsets, emo__grads *grads, emo_error *err) {
    const emo__mem *mem = &model->rt->mem;
    int32_t layers = model->config.layers;
    memset(grads, 0, sizeof *grads);
    grads->model = model;
    grads->of = emo__calloc(mem, model->n_params, sizeof *grads->of);
    grads->slots = emo__calloc(mem, (size_t)layers, sizeof(emo_expert_slot *));
    grads->tables = emo__calloc(mem, (size_t)layers, sizeof *grads->tables);
    emo_exec *exec = NULL;
    emo_status status = EMO_OK;
    if (grads->of == NULL || grads->slots == NULL || grads->tables == NULL)
        status = emo__fail_memory(err, model->n_params * sizeof *grads->of);
    for (size_t i = 0; status == EMO_OK && i < model->n_params; i++)
        grads->of[i] = offsets[i] >= 0 ? base + offsets[i] : NULL;
    if (status == EMO_OK)
        status = model->backend->ops->exec_create(model->backend, NULL, &exec, err);
    for (int32_t l = 0; status == EMO_OK && l < layers; l++) {
        int32_t experts = model->config.layer[l].experts;
        if (experts == 0)
            continue;
        emo_expert_slot *slots = emo__malloc_array(mem, (size_t)experts, sizeof *slots);
        if (slots == NULL) {
            status = emo__fail_memory(err, (size_t)experts * sizeof *slots);
            break;
        }
        grads->slots[l] = slots;
        for (int32_t e = 0; e < experts; e++) {
            float **of = grads->of + model->layers[l].expert_param + 3 * e;
            slots[e] = model->layers[l].experts[e];
            slots[e].d_gate = of[EMO_SLOT_GATE];
            slots[e].d_up = of[EMO_SLOT_UP];
            slots[e].d_down = of[EMO_SLOT_DOWN];
        }
        grads->tables[l].slots = slots;
        grads->tables[l].count = experts;
        status = model->backend->ops->table_sync(exec, &grads->tables[l], err);
    }
    if (exec != NULL)
        model->backend->ops->exec_destroy(exec);
    if (status != EMO_OK)
        emo__grads_free(grads);
    return status;
}

void emo__grads_free(emo__grads *grads) {
    emo_model *model = grads->model;
    if (model == NULL)
        return;
    const emo__mem *mem = &model->rt->mem;
    for (int32_t l = 0; grads->slots != NULL && l < model->config.layers; l++) {
        if (grads->slots[l] != NULL && grads->tables != NULL)
            model->backend->ops->table_free(model->backend, &grads->tables[l]);
        emo__free(mem, grads->slots[l]);
    }
    emo__free(mem, grads->of);
    emo__free(mem, grads->slots);
    emo__free(mem, grads->tables);
    memset(grads, 0, sizeof *grads);
}

static float *grad_of(const emo__pass *p, const emo__grads *g, int32_t l, int32_t which) {
    int32_t param = p->model->layers[l].param[which];
    return param >= 0 ? g->of[param] : NULL;
}

static emo_status norm_back(emo__pass *p, const float *x, const emo_weight *w, float *rstd, const float *dy, float *dx,
                            int32_t accumulate, float *d_weight, emo_error *err) {
    emo_norm_args a = {0};
    a.tokens = p->batch.tokens;
    a.hidden = p->model->config.hidden;
    a.eps = p->model->config.eps;
    a.x = x;
    a.weight = *w;
    a.rstd = rstd;
    a.dy = dy;
    a.dx = dx;
    a.dx_accumulate = accumulate;
    a.d_weight = d_weight;
    emo_status status = p->ops->norm_backward(p->exec, &a, err);
    emo__pass_lap(p, EMO_TRAIN_PART_NORM, 1);
    return status;
}

static emo_status linear_back(emo__pass *p, const float *x, int64_t x_stride, const emo_weight *w, const float *dy,
                              int64_t y_stride, float *dx, int32_t accumulate, float *d_weight, float *d_bias,
                              emo_error *err) {
    emo_linear_args a = {0};
    a.tokens = p->batch.tokens;
    a.x = x;
    a.x_stride = x_stride;
    a.weight = *w;
    a.y_stride = y_stride;
    a.dy = dy;
    a.dx = dx;
    a.dx_accumulate = accumulate;
    a.d_weight = d_weight;
    a.d_bias = d_bias;
    return p->ops->linear_backward(p->exec, &a, err);
}

static emo_status experts_back(emo__pass *p, const emo__grads *g, const emo__route_gradient *route, int32_t l,
                               emo_error *err) {
    const emo__config *c = &p->model->config;
    emo__layer_state *s = &p->layers[l];
    emo_status status;
    EMO_TRY(status = p->ops->zero(p->exec, p->dx, (size_t)(p->batch.tokens * c->hidden) * sizeof(float), err));
    emo_experts_args a = {0};
    a.tokens = p->batch.tokens;
    a.hidden = c->hidden;
    a.inner = c->inner;
    a.k_total = c->top_k;
    a.experts = c->layer[l].experts;
    a.x = p->x;
    a.offsets = s->plan_offsets;
    a.order = s->plan_order;
    a.inverse = s->plan_inverse;
    a.weights = s->route.weights;
    a.table = g->tables[l];
    a.saved = s->saved;
    a.dy = p->dh;
    a.dx = p->dx;
    a.d_weights = p->d_weights;
    EMO_TRY(status = p->ops->experts_backward(p->exec, &a, err));
    emo__pass_lap(p, EMO_TRAIN_PART_EXPERTS, 1);
    emo_route_args r;
    emo__route_args_of(p, l, &r);
    r.d_weights = p->d_weights;
    r.balance = route != NULL ? route->balance : NULL;
    r.balance_by_segment = route != NULL ? route->by_document : 0;
    r.z_scale = route != NULL ? route->z_scale : 0.0f;
    r.d_logits = p->d_logits;
    r.dx = p->dx;
    r.d_weight = grad_of(p, g, l, EMO__W_ROUTER);
    status = p->ops->route_backward(p->exec, &r, err);
    emo__pass_lap(p, EMO_TRAIN_PART_ROUTING, 1);
done:
    return status;
}

static emo_status dense_back(emo__pass *p, const emo__grads *g, int32_t l, emo_error *err) {
    const emo__config *c = &p->model->config;
    const emo_weight *w = p->model->layers[l].w;
    emo__layer_state *s = &p->layers[l];
    int64_t inner = c->dense_inner;
    emo_swiglu_args a = {0};
    a.tokens = p->batch.tokens;
    a.inner = inner;
    a.gate = s->saved;
    a.up = s->saved + inner;
    a.stride = 2 * inner;
    a.y = p->dense_h;
    a.dy = p->d_dense;
    a.d_gate = p->d_pre;
    a.d_up = p->d_pre + inner;
    emo_status status;
    EMO_TRY(status = p->ops->swiglu_forward(p->exec, &a, err));
    EMO_TRY(status = linear_back(p, p->dense_h, inner, &w[EMO__W_MLP_DOWN], p->dh, c->hidden, p->d_dense, 0,
                                 grad_of(p, g, l, EMO__W_MLP_DOWN), grad_of(p, g, l, EMO__W_MLP_DOWN_BIAS), err));
    EMO_TRY(status = p->ops->swiglu_backward(p->exec, &a, err));
    EMO_TRY(status = linear_back(p, p->x, c->hidden, &w[EMO__W_MLP_GATE], a.d_gate, 2 * inner, p->dx, 0,
                                 grad_of(p, g, l, EMO__W_MLP_GATE), grad_of(p, g, l, EMO__W_MLP_GATE_BIAS), err));
    status = linear_back(p, p->x, c->hidden, &w[EMO__W_MLP_UP], a.d_up, 2 * inner, p->dx, 1,
                         grad_of(p, g, l, EMO__W_MLP_UP), grad_of(p, g, l, EMO__W_MLP_UP_BIAS), err);
    emo__pass_lap(p, EMO_TRAIN_PART_DENSE, 1);
done:
    return status;
}

static emo_status rope_back(emo__pass *p, float *x, int32_t heads, emo_error *err) {
    emo_rope_args a = {0};
    a.tokens = p->batch.tokens;
    a.heads = heads;
    a.head_dim = p->model->config.head_dim;
    a.stride = (int64_t)heads * a.head_dim;
    a.positions = p->positions;
    a.cos = p->cos;
    a.sin = p->sin;
    a.x = x;
    a.inverse = 1;
    return p->ops->rope(p->exec, &a, err);
}

static emo_status attention_back(emo__pass *p, const emo__grads *g, int32_t l, emo_error *err) {
    const emo__config *c = &p->model->config;
    const emo_weight *w = p->model->layers[l].w;
    emo__layer_state *s = &p->layers[l];
    int64_t qd = (int64_t)c->heads * c->head_dim;
    int64_t kd = (int64_t)c->kv_heads * c->head_dim;
    const emo__step norm = {EMO__STAGE_ATTN_NORM, l}; /* cheap, so its output was not kept */
    emo_status status;
    EMO_TRY(status = linear_back(p, s->o, qd, &w[EMO__W_O], p->dh, c->hidden, p->d_o, 0, grad_of(p, g, l, EMO__W_O),
                                 grad_of(p, g, l, EMO__W_O_BIAS), err));
    emo__pass_lap(p, EMO_TRAIN_PART_LINEAR, 1);
    emo_attention_args a = {0};
    a.n_segments = p->batch.n_attention;
    a.segments = p->batch.attention;
    a.q_last = p->batch.tokens;
    a.heads = c->heads;
    a.kv_heads = c->kv_heads;
    a.head_dim = c->head_dim;
    a.scale = 1.0f / __builtin_sqrtf((float)c->head_dim);
    a.q = s->q;
    a.q_stride = qd;
    a.k = s->k;
    a.v = s->v;
    a.kv_stride = kd;
    a.o = s->o;
    a.o_stride = qd;
    a.lse = s->lse;
    a.d_o = p->d_o;
    a.dq = p->dq;
    a.dk = p->dk;
    a.dv = p->dv;
    EMO_TRY(status = p->ops->attention_backward(p->exec, &a, err));
    emo__pass_lap(p, EMO_TRAIN_PART_ATTENTION, 1);
    EMO_TRY(status = rope_back(p, p->dq, c->heads, err));
    EMO_TRY(status = rope_back(p, p->dk, c->kv_heads, err));
    emo__pass_lap(p, EMO_TRAIN_PART_ROPE, 1);
    EMO_TRY(status = emo__pass_again(p, &norm, err));
    EMO_TRY(status = linear_back(p, p->x, c->hidden, &w[EMO__W_Q], p->dq, qd, p->dx, 0, grad_of(p, g, l, EMO__W_Q),
                                 grad_of(p, g, l, EMO__W_Q_BIAS), err));
    EMO_TRY(status = linear_back(p, p->x, c->hidden, &w[EMO__W_K], p->dk, kd, p->dx, 1, grad_of(p, g, l, EMO__W_K),
                                 grad_of(p, g, l, EMO__W_K_BIAS), err));
    EMO_TRY(status = linear_back(p, p->x, c->hidden, &w[EMO__W_V], p->dv, kd, p->dx, 1, grad_of(p, g, l, EMO__W_V),
                                 grad_of(p, g, l, EMO__W_V_BIAS), err));
    emo__pass_lap(p, EMO_TRAIN_PART_LINEAR, 1);
    status =
        norm_back(p, s->h_in, &w[EMO__W_ATTN_NORM], s->rstd1, p->dx, p->dh, 1, grad_of(p, g, l, EMO__W_ATTN_NORM), err);
done:
    return status;
}

emo_status emo__pass_backward(emo__pass *p, const emo__grads *g, const emo__route_gradient *route, emo_error *err) {
    const emo__config *c = &p->model->config;
    if (!p->cfg.save || !p->has_batch || p->at_step < p->n_steps || p->batch.labels == NULL)
        return emo__fail(err, EMO_E_INTERNAL, "backward needs a finished pass that saved its activations");
    emo_status status;
    EMO_TRY(status =
                norm_back(p, p->h, &p->model->norm, p->rstd, p->dx_head, p->dh, 0, g->of[p->model->norm_param], err));
    for (int32_t l = c->layers - 1; l >= 0; l--) {
        emo__layer_state *s = &p->layers[l];
        const emo_weight *w = p->model->layers[l].w;
        EMO_TRY(status = emo__pass_remake(p, l, err));
        if (emo__layer_is_moe(p, l))
            EMO_TRY(status = experts_back(p, g, route != NULL ? &route[l] : NULL, l, err));
        else
            EMO_TRY(status = dense_back(p, g, l, err));
        EMO_TRY(status = norm_back(p, s->h_mid, &w[EMO__W_FFN_NORM], s->rstd2, p->dx, p->dh, 1,
                                   grad_of(p, g, l, EMO__W_FFN_NORM), err));
        EMO_TRY(status = attention_back(p, g, l, err));
    }
    if (g->of[0] != NULL) {
        emo_embed_args a = {0};
        a.tokens = p->batch.tokens;
        a.hidden = c->hidden;
        a.ids = p->ids;
        a.weight = p->model->embed;
        a.d_out = p->dh;
        a.d_weight = g->of[0];
        status = p->ops->embed_backward(p->exec, &a, err);
        emo__pass_lap(p, EMO_TRAIN_PART_EMBED, 1);
    }
done:
    return status;
}
