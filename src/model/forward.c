/* SPDX-License-Identifier: Apache-2.0 */
/* The body of every forward step: one operator, or a few, on the rows [first, last). backward.c mirrors this file. */
#include "base/status.h"
#include "model/pass_state.h"

bool emo__step_sliceable(const emo__step *step) { return step->stage != EMO__STAGE_ROUTE_POOL; }

/* Those whose operators heed emo_backend_ops.window. Experts that come and go are not there for a second call. */
bool emo__step_has_tasks(const emo__pass *p, const emo__step *step) {
    switch (step->stage) {
    case EMO__STAGE_EXPERTS:
        return p->lease == NULL;
    case EMO__STAGE_QKV:
    case EMO__STAGE_ATTENTION:
    case EMO__STAGE_ATTN_OUT:
    case EMO__STAGE_DENSE:
    case EMO__STAGE_HEAD_LOGITS:
        return true;
    default:
        return false;
    }
}

int64_t emo__step_rows(const emo__pass *p, const emo__step *step) {
    switch (step->stage) {
    case EMO__STAGE_ANGLES:
        return p->rope_need > p->rope_first ? p->rope_need - p->rope_first : 0;
    case EMO__STAGE_HEAD_LOSS:
        return p->batch.labels != NULL ? p->batch.tokens : 0;
    case EMO__STAGE_HEAD_LOGITS:
        return p->batch.n_logits;
    default:
        return p->batch.tokens;
    }
}

int64_t emo__step_row_work(const emo__pass *p, const emo__step *step) {
    const emo__config *c = &p->model->config;
    int64_t hidden = c->hidden;
    int64_t heads = (int64_t)c->heads * c->head_dim;
    switch (step->stage) {
    case EMO__STAGE_QKV:
        return hidden * (heads + 2 * (int64_t)c->kv_heads * c->head_dim);
    case EMO__STAGE_ANGLES: /* a cosine and a sine each */
        return 64 * (int64_t)c->head_dim;
    case EMO__STAGE_ROPE: /* in and out, and into the cache */
        return 4 * heads;
    case EMO__STAGE_ATTENTION:
        return 2 * heads * p->longest;
    case EMO__STAGE_ATTN_OUT:
        return hidden * heads;
    case EMO__STAGE_ROUTE_LOGITS:
        return hidden * p->layers[step->layer].route.columns;
    case EMO__STAGE_ROUTE_SELECT: /* exponentials */
        return 16 * (int64_t)p->layers[step->layer].route.routed + 1;
    case EMO__STAGE_EXPERTS:
        return 3 * hidden * c->inner * c->top_k;
    case EMO__STAGE_DENSE:
        return 3 * hidden * c->dense_inner;
    case EMO__STAGE_HEAD_LOSS:
    case EMO__STAGE_HEAD_LOGITS:
        return hidden * c->vocab;
    default:
        return hidden;
    }
}

emo_train_part emo__step_part(const emo__step *step) {
    switch (step->stage) {
    case EMO__STAGE_EMBED:
        return EMO_TRAIN_PART_EMBED;
    case EMO__STAGE_QKV:
    case EMO__STAGE_ATTN_OUT:
        return EMO_TRAIN_PART_LINEAR;
    case EMO__STAGE_ANGLES:
    case EMO__STAGE_ROPE:
        return EMO_TRAIN_PART_ROPE;
    case EMO__STAGE_ATTENTION:
        return EMO_TRAIN_PART_ATTENTION;
    case EMO__STAGE_ROUTE_LOGITS:
    case EMO__STAGE_ROUTE_POOL:
    case EMO__STAGE_ROUTE_SELECT:
        return EMO_TRAIN_PART_ROUTING;
    case EMO__STAGE_EXPERTS:
        return EMO_TRAIN_PART_EXPERTS;
    case EMO__STAGE_DENSE:
        return EMO_TRAIN_PART_DENSE;
    case EMO__STAGE_HEAD_LOSS:
    case EMO__STAGE_HEAD_LOGITS:
        return EMO_TRAIN_PART_HEAD;
    default:
        return EMO_TRAIN_PART_NORM;
    }
}

static emo_status norm(emo__pass *p, const float *x, const emo_weight *w, float *rstd, int64_t first, int64_t last,
                       emo_error *err) {
    int64_t d = p->model->config.hidden;
    emo_norm_args a = {0};
    a.tokens = last - first;
    a.hidden = d;
    a.eps = p->model->config.eps;
    a.x = x + first * d;
    a.weight = *w;
    a.y = p->x + first * d;
    a.rstd = rstd + first;
    return p->ops->norm_forward(p->exec, &a, err);
}

static emo_status linear(emo__pass *p, const float *x, int64_t x_stride, const emo_weight *w, const emo_weight *bias,
                         float *y, int64_t y_stride, int32_t accumulate, int64_t first, int64_t last, emo_error *err) {
    emo_linear_args a = {0};
    a.tokens = last - first;
    a.x = x + first * x_stride;
    a.x_stride = x_stride;
    a.weight = *w;
    if (bias->data != NULL)
        a.bias = *bias;
    a.y = y + first * y_stride;
    a.y_stride = y_stride;
    a.accumulate = accumulate;
    return p->ops->linear_forward(p->exec, &a, err);
}

static emo_status embed(emo__pass *p, int64_t first, int64_t last, emo_error *err) {
    emo_embed_args a = {0};
    a.tokens = last - first;
    a.hidden = p->model->config.hidden;
    a.ids = p->ids + first;
    a.weight = p->model->embed;
    a.out = p->layers[0].h_in + first * a.hidden;
    return p->ops->embed_forward(p->exec, &a, err);
}

static emo_status qkv(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    const emo_weight *w = p->model->layers[l].w;
    emo__layer_state *s = &p->layers[l];
    int64_t qd = (int64_t)c->heads * c->head_dim;
    int64_t kd = (int64_t)c->kv_heads * c->head_dim;
    emo_status status = linear(p, p->x, c->hidden, &w[EMO__W_Q], &w[EMO__W_Q_BIAS], s->q, qd, 0, first, last, err);
    if (status == EMO_OK)
        status = linear(p, p->x, c->hidden, &w[EMO__W_K], &w[EMO__W_K_BIAS], s->k, kd, 0, first, last, err);
    if (status == EMO_OK)
        status = linear(p, p->x, c->hidden, &w[EMO__W_V], &w[EMO__W_V_BIAS], s->v, kd, 0, first, last, err);
    return status;
}

static emo_status store_kv(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    emo_store_kv_args a = {0};
    a.n_segments = p->batch.n_attention;
    a.segments = p->batch.attention;
    a.first = first;
    a.last = last;
    a.width = (int64_t)c->kv_heads * c->head_dim;
    a.k = p->layers[l].k;
    a.v = p->layers[l].v;
    a.cache_k = p->batch.kv.k + l * p->batch.kv.layer_stride;
    a.cache_v = p->batch.kv.v + l * p->batch.kv.layer_stride;
    a.page_rows = p->batch.kv.page_rows;
    a.pages = p->batch.kv.pages;
    return p->ops->store_kv(p->exec, &a, err);
}

static emo_status rope(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    emo__layer_state *s = &p->layers[l];
    emo_rope_args a = {0};
    a.tokens = last - first;
    a.heads = c->heads;
    a.head_dim = c->head_dim;
    a.stride = (int64_t)c->heads * c->head_dim;
    a.positions = p->positions + first;
    a.cos = p->cos;
    a.sin = p->sin;
    a.x = s->q + first * a.stride;
    emo_status status = p->ops->rope(p->exec, &a, err);
    if (status == EMO_OK) {
        a.heads = c->kv_heads;
        a.stride = (int64_t)c->kv_heads * c->head_dim;
        a.x = s->k + first * a.stride;
        status = p->ops->rope(p->exec, &a, err);
    }
    if (status == EMO_OK && p->cfg.kv)
        status = store_kv(p, l, first, last, err);
    return status;
}

static emo_status attention(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    emo__layer_state *s = &p->layers[l];
    emo_attention_args a = {0};
    a.n_segments = p->batch.n_attention;
    a.segments = p->batch.attention;
    a.q_first = first;
    a.q_last = last;
    a.heads = c->heads;
    a.kv_heads = c->kv_heads;
    a.head_dim = c->head_dim;
    a.scale = 1.0f / __builtin_sqrtf((float)c->head_dim);
    a.q = s->q;
    a.q_stride = (int64_t)c->heads * c->head_dim;
    a.k = p->cfg.kv ? p->batch.kv.k + l * p->batch.kv.layer_stride : s->k;
    a.v = p->cfg.kv ? p->batch.kv.v + l * p->batch.kv.layer_stride : s->v;
    a.kv_stride = (int64_t)c->kv_heads * c->head_dim;
    if (p->cfg.kv) {
        a.page_rows = p->batch.kv.page_rows;
        a.pages = p->batch.kv.pages;
    }
    a.o = s->o;
    a.o_stride = a.q_stride;
    a.lse = s->lse;
    return p->ops->attention_forward(p->exec, &a, err);
}

/* Rows of the residual stream move on to the next buffer (a no-op without save, where it is one buffer). */
static emo_status carry(emo__pass *p, float *to, const float *from, int64_t first, int64_t last, emo_error *err) {
    int64_t d = p->model->config.hidden;
    if (to == from)
        return EMO_OK;
    return p->ops->copy(p->exec, to + first * d, from + first * d, (size_t)((last - first) * d) * sizeof(float), err);
}

static emo_status attn_out(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    const emo_weight *w = p->model->layers[l].w;
    emo__layer_state *s = &p->layers[l];
    return linear(p, s->o, (int64_t)c->heads * c->head_dim, &w[EMO__W_O], &w[EMO__W_O_BIAS], s->h_mid, c->hidden, 1,
                  first, last, err);
}

void emo__route_args_of(const emo__pass *p, int32_t l, emo_route_args *a) {
    const emo__config *c = &p->model->config;
    const emo__layer_config *layer = &c->layer[l];
    const emo__layer_state *s = &p->layers[l];
    const emo__route_view *r = &s->route;
    const emo__batch *b = &p->batch;
    *a = (emo_route_args){0};
    a->tokens = b->tokens;
    a->hidden = c->hidden;
    a->experts = r->routed;
    a->shared = r->shared;
    a->k = r->k;
    a->columns = r->columns;
    a->last = b->tokens;
    a->x = p->x;
    a->weight = p->model->layers[l].w[EMO__W_ROUTER];
    a->n_segments = b->n_documents;
    a->segment_begin = p->document_begin;
    a->allowed_in = b->allowed != NULL && b->allowed[l] != NULL ? s->allowed_in : NULL;
    a->pool_size = b->pool_size != NULL && b->pool_size[l] != NULL ? s->pool_size : NULL;
    a->pool_mass = b->pool_mass;
    a->pool_min = b->pool_min;
    a->pool_max = b->pool_max;
    a->forced = b->forced;
    a->n_always = layer->n_always;
    a->always = layer->n_always > 0 ? s->always : NULL;
    a->gating = c->gating;
    a->score_bias = p->model->layers[l].w[EMO__W_SCORE_BIAS].data; /* f32 */
    a->shared_mode = p->cfg.shared_mode >= 0 ? p->cfg.shared_mode : c->shared_mode;
    if (r->shared <= 1)
        a->shared_mode = EMO_SHARED_ONE; /* a softmax over one logit is 1 */
    a->norm_p = c->norm_topk ? 1.0f : 0.0f;
    a->jitter = b->jitter;
    a->seed = b->seed;
    a->step = b->step;
    a->first_token = b->first_token;
    a->layer = l;
    a->logits = r->logits;
    a->usage = r->usage;
    a->allowed = r->allowed;
    a->scores = r->scores;
    a->indices = r->indices;
    a->weights = r->weights;
    a->lse = r->lse;
    a->counts = r->counts;
    a->score_sum = r->score_sum;
    a->z_sum = r->z_sum;
    a->segment_counts = r->segment_counts;
    a->segment_score_sum = r->segment_score_sum;
}

static emo_status route(emo__pass *p, int32_t l, int32_t phase, int64_t first, int64_t last, emo_error *err) {
    emo_route_args a;
    emo__route_args_of(p, l, &a);
    if (p->remaking) {
        a.counts = NULL;
        a.score_sum = NULL;
        a.z_sum = NULL;
        a.segment_counts = NULL;
        a.segment_score_sum = NULL;
    }
    a.phases = phase;
    a.first = first;
    a.last = last;
    emo_status status = p->ops->route_forward(p->exec, &a, err);
    if (status == EMO_OK && p->lease != NULL && phase == EMO_ROUTE_POOL)
        status = emo__pools_on_demand(p, l, err);
    return status;
}

emo_status emo__plan_rows(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    emo__layer_state *s = &p->layers[l];
    emo_plan_args plan = {0};
    plan.tokens = last - first;
    plan.k_total = c->top_k;
    plan.experts = c->layer[l].experts;
    plan.indices = s->route.indices + first * c->top_k;
    plan.offsets = s->plan_offsets;
    plan.order = s->plan_order;
    plan.inverse = s->plan_inverse;
    return p->ops->plan(p->exec, &plan, err);
}

void emo__experts_args_of(const emo__pass *p, int32_t l, int64_t first, int64_t last, emo_experts_args *a) {
    const emo__config *c = &p->model->config;
    const emo__layer_state *s = &p->layers[l];
    *a = (emo_experts_args){0};
    a->tokens = last - first;
    a->hidden = c->hidden;
    a->inner = c->inner;
    a->k_total = c->top_k;
    a->experts = c->layer[l].experts;
    a->x = p->x + first * c->hidden;
    a->offsets = s->plan_offsets;
    a->order = s->plan_order;
    a->inverse = s->plan_inverse;
    a->weights = s->route.weights + first * c->top_k;
    a->table = p->model->layers[l].table;
    a->saved = s->saved;
}

/* With a plan of these very rows. */
static emo_status planned_experts(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__layer_state *s = &p->layers[l];
    emo_experts_args a;
    emo__experts_args_of(p, l, first, last, &a);
    a.y = emo__h_out(p, l) + first * a.hidden;
    a.accumulate = 1;
    a.out_norm = s->route.out_norm != NULL ? s->route.out_norm + first * a.k_total : NULL;
    return p->lease != NULL ? emo__experts_on_demand(p, l, last, &a, err) : p->ops->experts_forward(p->exec, &a, err);
}

static emo_status experts(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    if (p->lease == NULL)
        return planned_experts(p, l, first, last, err);
    emo_status status = EMO_OK;
    for (int64_t at = first; status == EMO_OK && at < last; at += EMO__ON_DEMAND_ROWS) {
        int64_t end = last - at < EMO__ON_DEMAND_ROWS ? last : at + EMO__ON_DEMAND_ROWS;
        status = emo__plan_rows(p, l, at, end, err);
        emo__pass_lap(p, EMO_TRAIN_PART_ROUTING, 0);
        if (status == EMO_OK)
            status = planned_experts(p, l, at, end, err);
    }
    return status;
}

emo_status emo__dense_inputs(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    const emo_weight *w = p->model->layers[l].w;
    float *saved = p->layers[l].saved;
    int64_t inner = c->dense_inner;
    emo_status status = linear(p, p->x, c->hidden, &w[EMO__W_MLP_GATE], &w[EMO__W_MLP_GATE_BIAS], saved, 2 * inner, 0,
                               first, last, err);
    if (status == EMO_OK)
        status = linear(p, p->x, c->hidden, &w[EMO__W_MLP_UP], &w[EMO__W_MLP_UP_BIAS], saved + inner, 2 * inner, 0,
                        first, last, err);
    return status;
}

static emo_status dense(emo__pass *p, int32_t l, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    const emo_weight *w = p->model->layers[l].w;
    emo__layer_state *s = &p->layers[l];
    int64_t inner = c->dense_inner;
    emo_status status;
    EMO_TRY(status = emo__dense_inputs(p, l, first, last, err));
    emo_swiglu_args a = {0};
    a.tokens = last - first;
    a.inner = inner;
    a.gate = s->saved + first * 2 * inner;
    a.up = a.gate + inner;
    a.stride = 2 * inner;
    a.y = p->dense_h + first * inner;
    EMO_TRY(status = p->ops->swiglu_forward(p->exec, &a, err));
    status = linear(p, p->dense_h, inner, &w[EMO__W_MLP_DOWN], &w[EMO__W_MLP_DOWN_BIAS], emo__h_out(p, l), c->hidden, 1,
                    first, last, err);
done:
    return status;
}

static emo_status head_loss(emo__pass *p, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    int64_t d = c->hidden;
    emo_head_args a = {0};
    a.tokens = last - first;
    a.hidden = d;
    a.x = p->x + first * d;
    a.weight = p->model->head;
    a.labels = p->labels + first;
    a.token_loss = p->token_loss != NULL ? p->token_loss + first : NULL;
    a.ce_sum = &p->sums[0];
    a.z_sum = &p->sums[1];
    if (p->cfg.save) {
        int32_t head = p->model->head_param >= 0 ? p->model->head_param : 0; /* parameter 0 is the embedding */
        a.ce_scale = p->batch.ce_scale;
        a.z_scale = p->batch.lm_z_scale;
        a.dx = p->dx_head + first * d;
        a.d_weight = p->grads != NULL ? p->grads->of[head] : NULL;
    }
    return p->ops->head_loss(p->exec, &a, err);
}

static emo_status head_logits(emo__pass *p, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    emo_head_logits_args a = {0};
    a.n_rows = last - first;
    a.hidden = c->hidden;
    a.rows = p->logit_rows + first;
    a.x = p->x;
    a.weight = p->model->head;
    a.logits = p->logits + first * c->vocab;
    return p->ops->head_logits(p->exec, &a, err);
}

emo_status emo__step_begin(emo__pass *p, const emo__step *step, int64_t first, int64_t last, emo_error *err) {
    int32_t l = step->layer;
    emo_status status = EMO_OK;
    if (step->stage == EMO__STAGE_EXPERTS && p->lease == NULL) {
        status = emo__plan_rows(p, l, first, last, err);
        emo__pass_lap(p, EMO_TRAIN_PART_ROUTING, 0);
    }
    if (status == EMO_OK && (step->stage == EMO__STAGE_EXPERTS || step->stage == EMO__STAGE_DENSE))
        status = carry(p, emo__h_out(p, l), p->layers[l].h_mid, first, last, err);
    if (status == EMO_OK && step->stage == EMO__STAGE_ATTN_OUT)
        status = carry(p, p->layers[l].h_mid, p->layers[l].h_in, first, last, err);
    return status;
}

emo_status emo__step_run(emo__pass *p, const emo__step *step, int64_t first, int64_t last, emo_error *err) {
    int32_t l = step->layer;
    switch (step->stage) {
    case EMO__STAGE_ANGLES:
        return emo__pass_angles(p, first, last, err);
    case EMO__STAGE_EMBED:
        return embed(p, first, last, err);
    case EMO__STAGE_ATTN_NORM:
        return norm(p, p->layers[l].h_in, &p->model->layers[l].w[EMO__W_ATTN_NORM], p->layers[l].rstd1, first, last,
                    err);
    case EMO__STAGE_QKV:
        return qkv(p, l, first, last, err);
    case EMO__STAGE_ROPE:
        return rope(p, l, first, last, err);
    case EMO__STAGE_ATTENTION:
        return attention(p, l, first, last, err);
    case EMO__STAGE_ATTN_OUT:
        return attn_out(p, l, first, last, err);
    case EMO__STAGE_FFN_NORM:
        return norm(p, p->layers[l].h_mid, &p->model->layers[l].w[EMO__W_FFN_NORM], p->layers[l].rstd2, first, last,
                    err);
    case EMO__STAGE_ROUTE_LOGITS:
        return route(p, l, EMO_ROUTE_LOGITS, first, last, err);
    case EMO__STAGE_ROUTE_POOL:
        return route(p, l, EMO_ROUTE_POOL, first, last, err);
    case EMO__STAGE_ROUTE_SELECT:
        return route(p, l, EMO_ROUTE_SELECT, first, last, err);
    case EMO__STAGE_EXPERTS:
        return experts(p, l, first, last, err);
    case EMO__STAGE_DENSE:
        return dense(p, l, first, last, err);
    case EMO__STAGE_FINAL_NORM:
        return norm(p, p->h, &p->model->norm, p->rstd, first, last, err);
    case EMO__STAGE_HEAD_LOSS:
        return head_loss(p, first, last, err);
    case EMO__STAGE_HEAD_LOGITS:
        return head_logits(p, first, last, err);
    default:
        return emo__fail(err, EMO_E_INTERNAL, "unknown step %d", (int)step->stage);
    }
}
