/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of a pass: one arena, laid out before the first step. */
#include "model/pass_state.h"

typedef struct bump {
    char *base;
    size_t at;
} bump;

/* Sizes are products of checked configuration values and capacities; the sum is checked by the caller's allocation. */
static void *take(bump *b, int64_t count, size_t item) {
    size_t bytes = ((size_t)count * item + 63) / 64 * 64;
    void *place = b->base != NULL ? b->base + b->at : NULL;
    b->at += bytes;
    return place;
}
static float *floats(bump *b, int64_t count) { return take(b, count, sizeof(float)); }
static int32_t *ints(bump *b, int64_t count) { return take(b, count, sizeof(int32_t)); }

static int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }

/* Largest sizes over the layers, for buffers that layers share. */
typedef struct widest {
    int64_t routed;
    int64_t columns;
    int64_t experts;
    bool dense;
    bool moe;
} widest;

static int32_t columns_of(const emo__pass *p, int32_t l) {
    const emo__layer_config *layer = &p->model->config.layer[l];
    int32_t mode = p->cfg.shared_mode >= 0 ? p->cfg.shared_mode : p->model->config.shared_mode;
    bool all = p->cfg.all_logits || (mode == EMO_SHARED_SOFTMAX && layer->shared > 1);
    return all ? layer->experts : emo__config_routed(&p->model->config, l);
}

static widest widest_of(const emo__pass *p) {
    widest w = {0};
    const emo__config *c = &p->model->config;
    for (int32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].experts == 0) {
            w.dense = true;
            continue;
        }
        w.moe = true;
        w.routed = max64(w.routed, emo__config_routed(c, l));
        w.columns = max64(w.columns, columns_of(p, l));
        w.experts = max64(w.experts, c->layer[l].experts);
    }
    return w;
}

/* The large per-token arrays of routing and dispatch, for `routed`, `columns`, `experts` of one layer or the widest. */
static void take_route(bump *b, const emo__pass *p, emo__layer_state *s, int64_t routed, int64_t columns,
                       int64_t experts) {
    const emo__config *c = &p->model->config;
    int64_t t = p->cfg.max_tokens;
    int64_t k = c->top_k;
    s->route.logits = floats(b, t * columns);
    s->route.scores = floats(b, t * routed);
    s->route.usage = floats(b, p->cfg.max_documents * routed);
    s->route.indices = ints(b, t * k);
    s->route.weights = floats(b, t * k);
    s->route.lse = floats(b, t);
    s->route.out_norm = p->cfg.expert_norms ? floats(b, t * k) : NULL;
    s->plan_offsets = ints(b, experts + 1);
    s->plan_order = ints(b, t * k);
    s->plan_inverse = ints(b, t * k);
}

static void take_attention(bump *b, const emo__pass *p, emo__layer_state *s) {
    const emo__config *c = &p->model->config;
    int64_t t = p->cfg.max_tokens;
    s->rstd1 = floats(b, t);
    s->rstd2 = floats(b, t);
    s->q = floats(b, t * c->heads * c->head_dim);
    s->k = floats(b, t * c->kv_heads * c->head_dim);
    s->v = floats(b, t * c->kv_heads * c->head_dim);
    s->o = floats(b, t * c->heads * c->head_dim);
    s->lse = p->cfg.save ? floats(b, t * c->heads) : NULL;
}

/* What a run counts and sums up, in one piece, to be zeroed at once. */
static void take_sums(bump *b, emo__pass *p) {
    size_t before = b->at;
    p->sums = take(b, 2, sizeof(double));
    for (int32_t l = 0; l < p->model->config.layers; l++) {
        emo__route_view *r = &p->layers[l].route;
        if (!emo__layer_is_moe(p, l))
            continue;
        r->counts = ints(b, p->model->config.layer[l].experts);
        r->score_sum = floats(b, emo__config_routed(&p->model->config, l));
        r->z_sum = take(b, 1, sizeof(double));
    }
    p->sums_bytes = b->at - before;
}

/* What every layer has to itself. */
static void take_layer_own(bump *b, emo__pass *p, int32_t l) {
    emo__layer_state *s = &p->layers[l];
    const emo__layer_config *layer = &p->model->config.layer[l];
    int64_t docs = p->cfg.max_documents;
    int32_t routed = emo__config_routed(&p->model->config, l);
    s->route.routed = routed;
    s->route.shared = layer->shared;
    s->route.k = emo__config_chosen(&p->model->config, l);
    s->route.k_total = p->model->config.top_k;
    s->route.columns = columns_of(p, l);
    s->route.allowed = take(b, docs * routed, 1);
    s->route.segment_counts = p->cfg.document_balance ? ints(b, docs * routed) : NULL;
    s->route.segment_score_sum = p->cfg.document_balance ? floats(b, docs * routed) : NULL;
    s->allowed_in = take(b, docs * routed, 1);
    s->pool_size = ints(b, docs);
}

static void share(emo__layer_state *to, const emo__layer_state *from) {
    to->h_in = from->h_in;
    to->h_mid = from->h_mid;
    to->rstd1 = from->rstd1;
    to->rstd2 = from->rstd2;
    to->q = from->q;
    to->k = from->k;
    to->v = from->v;
    to->o = from->o;
    to->lse = from->lse;
    to->route.logits = from->route.logits;
    to->route.scores = from->route.scores;
    to->route.usage = from->route.usage;
    to->route.indices = from->route.indices;
    to->route.weights = from->route.weights;
    to->route.lse = from->route.lse;
    to->route.out_norm = from->route.out_norm;
    to->plan_offsets = from->plan_offsets;
    to->plan_order = from->plan_order;
    to->plan_inverse = from->plan_inverse;
    to->saved = from->saved;
}

/* Pre-activations of a layer's experts or of its dense MLP. */
static int64_t saved_floats(const emo__pass *p, bool moe) {
    const emo__config *c = &p->model->config;
    int64_t t = p->cfg.max_tokens;
    return moe ? t * c->top_k * 2 * c->inner : t * 2 * c->dense_inner;
}

/* What layers share: without save nearly all, with recomputation what it makes again. */
static void take_common(bump *b, emo__pass *p, const widest *w, emo__layer_state *common) {
    const emo__config *c = &p->model->config;
    bool again = p->cfg.save && p->cfg.recompute != EMO_RECOMPUTE_NONE;
    if (!p->cfg.save || p->cfg.recompute == EMO_RECOMPUTE_LAYER) {
        common->h_in = p->h;
        common->h_mid = p->cfg.save ? floats(b, p->cfg.max_tokens * c->hidden) : p->h;
        take_attention(b, p, common);
        if (w->moe)
            take_route(b, p, common, w->routed, w->columns, w->experts);
    }
    int64_t dense = w->dense && (again || !p->cfg.save) ? saved_floats(p, false) : 0;
    int64_t moe = w->moe && again ? saved_floats(p, true) : 0;
    common->saved = dense + moe > 0 ? floats(b, max64(dense, moe)) : NULL;
}

/* What a layer keeps for itself until its backward. */
static void take_kept(bump *b, emo__pass *p, int32_t l, const emo__layer_state *common) {
    const emo__config *c = &p->model->config;
    emo__layer_state *s = &p->layers[l];
    int64_t stream = p->cfg.max_tokens * c->hidden;
    bool moe = emo__layer_is_moe(p, l);
    if (p->cfg.recompute == EMO_RECOMPUTE_LAYER) {
        share(s, common);
        s->h_in = floats(b, stream);
        return;
    }
    s->h_in = floats(b, stream);
    s->h_mid = floats(b, stream);
    take_attention(b, p, s);
    if (moe)
        take_route(b, p, s, emo__config_routed(c, l), columns_of(p, l), c->layer[l].experts);
    s->saved = p->cfg.recompute == EMO_RECOMPUTE_NONE ? floats(b, saved_floats(p, moe)) : common->saved;
}

static void take_layers(bump *b, emo__pass *p, const widest *w) {
    const emo__config *c = &p->model->config;
    emo__layer_state common = {0};
    p->h = floats(b, p->cfg.max_tokens * c->hidden);
    take_common(b, p, w, &common);
    size_t before = b->at;
    for (int32_t l = 0; l < c->layers; l++) {
        if (p->cfg.save) {
            take_kept(b, p, l, &common);
            continue;
        }
        share(&p->layers[l], &common);
        if (emo__layer_is_moe(p, l))
            p->layers[l].saved = NULL; /* the common buffer has the size of dense layers */
    }
    p->kept_bytes = b->at - before;
    for (int32_t l = 0; l < c->layers; l++) {
        if (emo__layer_is_moe(p, l))
            take_layer_own(b, p, l);
    }
}

static void take_backward(bump *b, emo__pass *p, const widest *w) {
    const emo__config *c = &p->model->config;
    int64_t t = p->cfg.max_tokens;
    p->dx_head = floats(b, t * c->hidden);
    p->dh = floats(b, t * c->hidden);
    p->dx = floats(b, t * c->hidden);
    p->d_o = floats(b, t * c->heads * c->head_dim);
    p->dq = floats(b, t * c->heads * c->head_dim);
    p->dk = floats(b, t * c->kv_heads * c->head_dim);
    p->dv = floats(b, t * c->kv_heads * c->head_dim);
    if (w->moe) {
        p->d_weights = floats(b, t * c->top_k);
        p->d_logits = floats(b, t * w->columns);
    }
    if (w->dense) {
        p->d_pre = floats(b, t * 2 * c->dense_inner);
        p->d_dense = floats(b, t * c->dense_inner);
    }
}

size_t emo__pass_layout(emo__pass *p, char *base) {
    bump b = {base, 0};
    const emo__config *c = &p->model->config;
    widest w = widest_of(p);
    int64_t t = p->cfg.max_tokens;
    int64_t n_always = 0;
    for (int32_t l = 0; l < c->layers; l++)
        n_always += c->layer[l].n_always;
    p->always = ints(&b, n_always + 1);
    p->ids = ints(&b, t);
    p->positions = ints(&b, t);
    p->labels = ints(&b, t);
    p->logit_rows = ints(&b, p->cfg.max_logits + 1);
    p->document_begin = ints(&b, p->cfg.max_documents + 1);
    p->x = floats(&b, t * c->hidden);
    p->rstd = floats(&b, t);
    p->dense_h = w.dense ? floats(&b, t * c->dense_inner) : NULL;
    p->logits = floats(&b, p->cfg.max_logits * c->vocab);
    p->token_loss = p->cfg.token_loss ? floats(&b, t) : NULL;
    take_sums(&b, p);
    int64_t rows = t < EMO__ON_DEMAND_ROWS ? t : EMO__ON_DEMAND_ROWS;
    p->expert_rows = p->lease != NULL ? floats(&b, rows * c->top_k * ((c->hidden + 3) / 4 * 4)) : NULL;
    take_layers(&b, p, &w);
    if (p->cfg.save)
        take_backward(&b, p, &w);
    return b.at;
}
