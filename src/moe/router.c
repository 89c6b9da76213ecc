/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/router.h"

#include <string.h>

#include "base/checked.h"
#include "base/comm.h"
#include "base/status.h"
#include "moe/documents.h"
#include "moe/mask.h"
#include "moe/pool.h"

static void *room(emo_router *r, int which, size_t count, size_t item, emo_status *status, emo_error *err) {
    emo__room *room_ = &r->rooms[which];
    size_t bytes = 0;
    if (*status != EMO_OK)
        return NULL;
    if (!emo__mul_size(count, item, &bytes)) {
        *status = emo__fail_memory(err, SIZE_MAX);
        return NULL;
    }
    if (room_->data == NULL || bytes > room_->bytes) {
        emo__free(&r->rt->mem, room_->data);
        room_->bytes = 0;
        room_->data = emo__alloc(&r->rt->mem, bytes > 0 ? bytes : 1);
        if (room_->data == NULL) {
            *status = emo__fail_memory(err, bytes);
            return NULL;
        }
        room_->bytes = bytes;
    }
    return room_->data;
}

/* begin[D + 1] and ids[D] of the documents that are not empty. */
static int64_t cut(const emo_router_batch *b, int by_row, int32_t *begin, int64_t *ids) {
    int64_t count = 0;
    if (by_row || b->n_documents == 0) {
        count = emo__row_documents(b->rows, b->seq_len, begin);
        int given = b->n_documents == count && b->document_ids != NULL;
        for (int64_t d = 0; d < count; d++)
            ids[d] = given ? b->document_ids[d] : b->first_document + d;
        return count;
    }
    for (int64_t d = 0; d < b->n_documents; d++) {
        if (b->document_begin[d] == b->document_begin[d + 1])
            continue;
        begin[count] = (int32_t)b->document_begin[d];
        ids[count] = b->document_ids != NULL ? b->document_ids[d] : b->first_document + count;
        count++;
    }
    begin[count] = (int32_t)(b->rows * b->seq_len);
    return count;
}

/* What a token chooses under the mask: k, or what is left when that is less, as in a model pruned to the mask. Said
 * once, until another mask leaves another number. */
static void count_choices(emo_router *r, const uint8_t *row, int32_t layer) {
    int32_t left = -r->o.n_always; /* these come on top of the chosen ones */
    int32_t before = r->choose;
    for (int32_t e = 0; e < r->routed; e++)
        left += row == NULL || row[e] != 0;
    r->choose = left < r->chosen ? left : r->chosen;
    if (r->choose < r->chosen && r->choose != before)
        emo__log(r->rt, EMO_LOG_WARNING,
                 "layer %d: %d routed experts are left to choose from, fewer than the %d that each token chooses: "
                 "top-k is reduced to what is left",
                 (int)layer, (int)r->choose, (int)r->chosen);
}

static emo_status repeat_mask(emo_router *r, const emo_mask *mask, int64_t documents, const uint8_t **allowed,
                              emo_error *err) {
    *allowed = NULL;
    if (mask == NULL) {
        count_choices(r, NULL, r->o.layer);
        return EMO_OK;
    }
    int32_t layer = mask->layers == 1 ? 0 : r->o.layer;
    if (layer >= mask->layers || mask->experts[layer] != r->o.experts || mask->shared[layer] != r->o.shared)
        return emo__fail(err, EMO_E_MISMATCH,
                         "the mask's layer %d has %d experts (%d shared); the router has %d (%d shared)", (int)layer,
                         layer < mask->layers ? (int)mask->experts[layer] : 0,
                         layer < mask->layers ? (int)mask->shared[layer] : 0, (int)r->o.experts, (int)r->o.shared);
    emo_status status = EMO_OK;
    size_t n = (size_t)r->routed;
    uint8_t *rows = room(r, EMO__ROOM_MASK, (size_t)documents * n, 1, &status, err);
    for (int64_t d = 0; status == EMO_OK && d < documents; d++)
        memcpy(rows + (size_t)d * n, emo__mask_row(mask, layer), n);
    if (status == EMO_OK)
        count_choices(r, emo__mask_row(mask, layer), r->o.layer);
    *allowed = rows;
    return status;
}

/* Rooms of a forward over `tokens` tokens and `documents` documents, into the route's arguments. */
static emo_status outputs(emo_router *r, emo_route_args *a, emo_error *err) {
    emo_status status = EMO_OK;
    size_t tokens = (size_t)a->tokens;
    size_t n = (size_t)r->routed;
    size_t sets = (size_t)a->n_segments * n;
    size_t k = (size_t)r->o.top_k;
    a->logits = room(r, EMO__ROOM_LOGITS, tokens * (size_t)r->columns, sizeof(float), &status, err);
    a->usage = room(r, EMO__ROOM_USAGE, sets, sizeof(float), &status, err);
    a->allowed = room(r, EMO__ROOM_ALLOWED, sets, 1, &status, err);
    a->scores = room(r, EMO__ROOM_SCORES, tokens * n, sizeof(float), &status, err);
    a->indices = room(r, EMO__ROOM_INDICES, tokens * k, sizeof(int32_t), &status, err);
    a->weights = room(r, EMO__ROOM_WEIGHTS, tokens * k, sizeof(float), &status, err);
    a->lse = room(r, EMO__ROOM_LSE, tokens, sizeof(float), &status, err);
    a->counts = room(r, EMO__ROOM_COUNTS, (size_t)r->o.experts, sizeof(int32_t), &status, err);
    a->score_sum = room(r, EMO__ROOM_SCORE_SUM, n, sizeof(float), &status, err);
    if (r->o.balance_scope == EMO_BALANCE_DOCUMENT) {
        a->segment_counts = room(r, EMO__ROOM_SEGMENT_COUNTS, sets, sizeof(int32_t), &status, err);
        a->segment_score_sum = room(r, EMO__ROOM_SEGMENT_SCORES, sets, sizeof(float), &status, err);
    }
    if (status == EMO_OK) {
        memset(a->counts, 0, (size_t)r->o.experts * sizeof *a->counts);
        memset(a->score_sum, 0, n * sizeof *a->score_sum);
    }
    return status;
}

/* The counts over all ranks go into the balancing state; the loss and its gradient come out. */
static emo_status balance(emo_router *r, const emo_router_batch *b, double n_local, int64_t *counts_all, double *loss,
                          emo_error *err) {
    emo_route_args *a = &r->args;
    const emo_backend_ops *ops = r->rt->cpu->ops;
    int32_t k = r->choose > 0 ? r->choose : 1; /* without experts to choose from there are no counts */
    emo_status status = EMO_OK;
    if (b->microbatch == 0) {
        double n_all = n_local;
        status = emo__comm_all_reduce(r->o.comm, &n_all, 1, EMO_DTYPE_F64, NULL, err);
        if (status == EMO_OK)
            status = emo__balance_begin_step(r->balance, r->exec, b->microbatches, n_all,
                                             (double)a->tokens * b->microbatches, err);
        r->microbatches = b->microbatches;
    }
    if (status != EMO_OK)
        return status;
    int32_t *shared_counts = emo__balance_counts(r->balance, 0, b->microbatch);
    memcpy(shared_counts, a->counts, (size_t)r->o.experts * sizeof *shared_counts);
    status = emo__comm_all_reduce(r->o.comm, shared_counts, (size_t)r->o.experts, EMO_DTYPE_I32, NULL, err);
    for (int32_t e = 0; e < r->routed; e++)
        counts_all[e] = shared_counts[e];

    if (status == EMO_OK && r->o.balance_scope == EMO_BALANCE_DOCUMENT) {
        emo_balance_documents_args args;
        memset(&args, 0, sizeof args);
        args.experts = r->routed;
        args.k = k;
        args.n_segments = a->n_segments;
        args.segment_begin = a->segment_begin;
        args.allowed = a->allowed;
        args.segment_counts = a->segment_counts;
        args.segment_score_sum = a->segment_score_sum;
        args.scale = 1.0 / ((double)a->n_segments * b->microbatches);
        args.weight = (double)r->o.balance_weight;
        args.loss = loss;
        args.grad = room(r, EMO__ROOM_BALANCE, (size_t)a->n_segments * (size_t)r->routed, sizeof(float), &status, err);
        a->balance = args.grad;
        a->balance_by_segment = 1;
        if (status == EMO_OK)
            status = ops->balance_documents(r->exec, &args, err);
    } else if (status == EMO_OK) {
        emo_balance_args args;
        memset(&args, 0, sizeof args);
        emo__balance_args(r->balance, 0, b->microbatch, k, (double)a->tokens, &args);
        args.weight = (double)r->o.balance_weight;
        args.score_sum = a->score_sum;
        args.loss = loss;
        args.grad = room(r, EMO__ROOM_BALANCE, (size_t)r->routed, sizeof(float), &status, err);
        a->balance = args.grad;
        if (status == EMO_OK)
            status = ops->balance(r->exec, &args, err);
    }
    if (status != EMO_OK)
        return status;
    r->next_microbatch = b->microbatch + 1 < b->microbatches ? b->microbatch + 1 : 0;
    return r->next_microbatch == 0 ? emo__balance_end_step(r->balance, r->exec, err) : EMO_OK;
}

static emo_status prepare(emo_router *r, const emo_router_batch *b, const emo_pool_policy *pool, const emo_mask *mask,
                          emo_error *err) {
    emo_route_args *a = &r->args;
    emo_status status = EMO_OK;
    int64_t tokens = b->rows * b->seq_len;
    int by_row = pool != NULL && pool->scope == EMO_POOL_SCOPE_ROW;
    size_t most = (size_t)(b->n_documents > b->rows ? b->n_documents : b->rows);
    int32_t *begin = room(r, EMO__ROOM_BEGIN, most + 1, sizeof(int32_t), &status, err);
    int64_t *ids = room(r, EMO__ROOM_IDS, most, sizeof(int64_t), &status, err);
    int32_t *sizes = room(r, EMO__ROOM_SIZES, most, sizeof(int32_t), &status, err);
    if (status != EMO_OK)
        return status;
    a->n_segments = cut(b, by_row, begin, ids);
    a->segment_begin = begin;
    a->hidden = r->o.hidden;
    a->experts = r->routed;
    a->shared = r->o.shared;
    a->k = r->chosen;
    a->columns = r->columns;
    a->phases = EMO_ROUTE_LOGITS | EMO_ROUTE_POOL | EMO_ROUTE_SELECT;
    a->x = b->x;
    a->weight.data = r->w;
    a->weight.dtype = EMO_DTYPE_F32;
    a->weight.rows = r->o.experts;
    a->weight.cols = r->o.hidden;
    a->weight.stride = r->o.hidden;
    a->n_always = r->o.n_always;
    a->always = r->always;
    a->gating = r->o.gating;
    a->shared_mode = r->o.shared_mode;
    a->norm_p = r->o.norm_p;
    a->score_bias = r->bias;
    a->jitter = b->mode == EMO_ROUTER_TRAIN ? r->o.jitter : 0.0f;
    a->seed = r->o.seed;
    a->step = b->step;
    a->first_token = b->first_token;
    a->layer = r->o.layer;

    emo__pool_request request;
    memset(&request, 0, sizeof request);
    request.seed = r->o.seed;
    request.step = b->step;
    request.layer = r->o.layer;
    request.routed = r->routed;
    request.chosen = r->chosen + r->o.n_always;
    request.training = b->mode == EMO_ROUTER_TRAIN;
    request.documents = a->n_segments;
    request.ids = ids;
    emo__pool_rule rule;
    status = emo__pool_sizes(pool, &request, sizes, &rule, err);
    if (status == EMO_OK)
        status = repeat_mask(r, mask, a->n_segments, &a->allowed_in, err);
    if (status != EMO_OK)
        return status;
    a->pool_size = rule.restricts && !(rule.mass > 0.0f) ? sizes : NULL;
    a->pool_mass = rule.mass;
    a->pool_min = rule.min;
    a->pool_max = rule.max;
    a->forced = rule.forced;
    a->tokens = tokens;
    a->last = tokens;
    return outputs(r, a, err);
}

emo_status emo__router_forward(emo_router *r, const emo_router_batch *b, const emo_pool_policy *pool,
                               const emo_mask *mask, emo_routing *routing, emo_error *err) {
    emo_route_args *a = &r->args;
    double z_sum = 0.0;
    double balance_loss = 0.0;
    memset(a, 0, sizeof *a);
    r->serial++;
    emo_status status = prepare(r, b, pool, mask, err);
    int64_t *counts_all = room(r, EMO__ROOM_COUNTS_ALL, (size_t)r->routed, sizeof(int64_t), &status, err);
    a->z_sum = &z_sum;
    if (status == EMO_OK)
        status = r->rt->cpu->ops->route_forward(r->exec, a, err);
    a->z_sum = NULL;
    int training = b->mode == EMO_ROUTER_TRAIN;
    double n_local = b->loss_div_factor > 0.0 ? b->loss_div_factor : (double)a->tokens * b->microbatches;
    if (status == EMO_OK && training)
        status = balance(r, b, n_local, counts_all, &balance_loss, err);
    if (status != EMO_OK) {
        a->tokens = 0;
        r->next_microbatch = 0;
        return status;
    }
    for (int32_t e = 0; !training && e < r->routed; e++)
        counts_all[e] = a->counts[e];
    a->z_scale = training ? (float)((double)r->o.z_weight / n_local) : 0.0f;

    routing->experts = r->o.experts;
    routing->routed = r->routed;
    routing->top_k = r->o.top_k;
    routing->tokens = a->tokens;
    routing->documents = a->n_segments;
    routing->serial = r->serial;
    routing->indices = a->indices;
    routing->weights = a->weights;
    routing->logits = a->logits;
    routing->logits_stride = a->columns;
    routing->scores = a->scores;
    routing->score_sum = a->score_sum;
    routing->counts = a->counts;
    routing->counts_all = counts_all;
    routing->document_begin = a->segment_begin;
    routing->pool_size = r->rooms[EMO__ROOM_SIZES].data;
    routing->usage = a->usage;
    routing->allowed = a->allowed;
    routing->balance_loss = balance_loss;
    routing->z_loss = training ? z_sum / n_local : 0.0;
    routing->loss = (double)r->o.balance_weight * balance_loss + (double)r->o.z_weight * routing->z_loss;
    return EMO_OK;
}

emo_status emo__router_backward(emo_router *r, const float *d_weights, float *dx, float *dw, emo_error *err) {
    emo_status status = EMO_OK;
    emo_route_args args = r->args;
    args.d_weights = d_weights;
    args.dx = dx;
    args.d_weight = dw;
    args.d_logits =
        room(r, EMO__ROOM_D_LOGITS, (size_t)args.tokens * (size_t)args.columns, sizeof(float), &status, err);
    return status == EMO_OK ? r->rt->cpu->ops->route_backward(r->exec, &args, err) : status;
}
