/* SPDX-License-Identifier: Apache-2.0 */
/* The arrays of every operator, and the operators over host memory that come of them. */
#include "support/mirror_call.h"
#include "tensor/dtype.h"

#define IN(field, count) a->field = mirror_exchange(c, a->field, (size_t)(count) * sizeof *a->field, 0)
#define OUT(field, count) a->field = mirror_exchange(c, a->field, (size_t)(count) * sizeof *a->field, 1)

/* Elements of `rows` rows of `cols`, `stride` apart. */
static int64_t strided(int64_t rows, int64_t cols, int64_t stride) { return rows > 0 ? (rows - 1) * stride + cols : 0; }

static int32_t largest(const int32_t *values, int64_t n, int32_t least) {
    for (int64_t i = 0; values != NULL && i < n; i++)
        least = values[i] > least ? values[i] : least;
    return least;
}

static void weight(mirror_call *c, emo_weight *w) {
    size_t item = emo__dtype_size(w->dtype);
    w->data = mirror_exchange(c, w->data, (size_t)strided(w->rows, w->cols, w->stride) * item, 0);
}

static void map_embed(mirror_call *c, emo_embed_args *a) {
    IN(ids, a->tokens);
    weight(c, &a->weight);
    OUT(out, a->tokens * a->hidden);
    IN(d_out, a->tokens * a->hidden);
    OUT(d_weight, a->weight.rows * a->hidden);
}

static void map_norm(mirror_call *c, emo_norm_args *a) {
    int64_t n = a->tokens * a->hidden;
    IN(x, n);
    weight(c, &a->weight);
    OUT(y, n);
    OUT(rstd, a->tokens);
    IN(dy, n);
    OUT(dx, n);
    OUT(d_weight, a->hidden);
}

static void map_linear(mirror_call *c, emo_linear_args *a) {
    int64_t xs = strided(a->tokens, a->weight.cols, a->x_stride), ys = strided(a->tokens, a->weight.rows, a->y_stride);
    IN(x, xs);
    weight(c, &a->weight);
    weight(c, &a->bias);
    OUT(y, ys);
    IN(dy, ys);
    OUT(dx, xs);
    OUT(d_weight, a->weight.rows * a->weight.cols);
    OUT(d_bias, a->weight.rows);
}

static void map_rope(mirror_call *c, emo_rope_args *a) {
    static int64_t rows; /* what arrays say is read while they are the host's */
    if (!c->translating)
        rows = largest(a->positions, a->tokens, -1) + 1;
    IN(positions, a->tokens);
    IN(cos, rows * (a->head_dim / 2));
    IN(sin, rows * (a->head_dim / 2));
    OUT(x, strided(a->tokens, a->heads * a->head_dim, a->stride));
}

/* Rows of queries and keys that the segments reach; the keys in pages of page_rows, if that is not 0. */
static void reach(int64_t n, const emo_attention_segment *segments, int64_t page_rows, const int32_t *pages,
                  int64_t *queries, int64_t *keys) {
    *queries = *keys = 0;
    for (int64_t i = 0; i < n; i++) {
        const emo_attention_segment *s = &segments[i];
        *queries = s->q_begin + s->q_count > *queries ? s->q_begin + s->q_count : *queries;
        for (int64_t j = 0; page_rows > 0 && j < s->k_count; j += page_rows) {
            int64_t last = (pages[s->k_begin + j / page_rows] + 1) * page_rows;
            *keys = last > *keys ? last : *keys;
        }
        if (page_rows == 0)
            *keys = s->k_begin + s->k_count > *keys ? s->k_begin + s->k_count : *keys;
    }
}

static void map_attention(mirror_call *c, emo_attention_args *a) {
    int64_t queries, keys, width = a->heads * a->head_dim, kv_width = a->kv_heads * a->head_dim;
    reach(a->n_segments, a->segments, a->page_rows, a->pages, &queries, &keys);
    IN(q, strided(queries, width, a->q_stride));
    IN(k, strided(keys, kv_width, a->kv_stride));
    IN(v, strided(keys, kv_width, a->kv_stride));
    OUT(o, strided(queries, width, a->o_stride));
    OUT(lse, queries * a->heads);
    if (a->page_rows > 0) /* forward alone; gradients have a row for each key, not for each place in a page */
        return;
    IN(d_o, strided(queries, width, a->o_stride));
    OUT(dq, strided(queries, width, a->q_stride));
    OUT(dk, strided(keys, kv_width, a->kv_stride));
    OUT(dv, strided(keys, kv_width, a->kv_stride));
}

static void map_store_kv(mirror_call *c, emo_store_kv_args *a) {
    int64_t rows, cached;
    reach(a->n_segments, a->segments, a->page_rows, a->pages, &rows, &cached);
    IN(k, rows * a->width);
    IN(v, rows * a->width);
    OUT(cache_k, cached * a->width);
    OUT(cache_v, cached * a->width);
}

static void map_route(mirror_call *c, emo_route_args *a) {
    int64_t n = a->experts, cells = a->n_segments * n, all = n + a->shared;
    int64_t chosen = a->tokens * (a->k + (a->n_always > 0 ? a->n_always : a->shared));
    IN(x, a->tokens * a->hidden);
    weight(c, &a->weight);
    IN(segment_begin, a->n_segments + 1);
    IN(allowed_in, cells);
    IN(pool_size, a->n_segments);
    IN(always, a->n_always);
    IN(score_bias, n);
    OUT(logits, a->tokens * a->columns);
    OUT(usage, cells);
    OUT(allowed, cells);
    OUT(scores, a->tokens * n);
    OUT(indices, chosen);
    OUT(weights, chosen);
    OUT(lse, a->tokens);
    OUT(counts, all);
    OUT(score_sum, n);
    OUT(z_sum, 1);
    OUT(segment_counts, cells);
    OUT(segment_score_sum, cells);
    IN(d_weights, chosen);
    IN(balance, a->balance_by_segment ? cells : n);
    OUT(d_logits, a->tokens * a->columns);
    OUT(dx, a->tokens * a->hidden);
    OUT(d_weight, all * a->hidden);
}

static void map_balance(mirror_call *c, emo_balance_args *a) {
    static const void *sources[64];
    assert_true(a->n_sources <= 64);
    for (int32_t s = 0; s < a->n_sources; s++) {
        const void *p = mirror_exchange(c, a->sources[s], (size_t)a->experts * 4, 0);
        if (c->translating)
            sources[s] = p;
    }
    if (c->translating)
        a->sources = sources;
    OUT(f, a->experts);
    IN(score_sum, a->experts);
    OUT(loss, 1);
    OUT(grad, a->experts);
}

static void map_balance_documents(mirror_call *c, emo_balance_documents_args *a) {
    int64_t cells = a->n_segments * a->experts;
    IN(segment_begin, a->n_segments + 1);
    IN(allowed, cells);
    IN(segment_counts, cells);
    IN(segment_score_sum, cells);
    OUT(loss, 1);
    OUT(grad, cells);
}

static void map_plan(mirror_call *c, emo_plan_args *a) {
    IN(indices, a->tokens * a->k_total);
    OUT(offsets, a->experts + 1);
    OUT(order, a->tokens * a->k_total);
    OUT(inverse, a->tokens * a->k_total);
}

static void table(mirror_call *c, emo_expert_table *t) {
    emo_expert_slot *copy = c->translating ? c->slots : malloc(((size_t)t->count + 1) * sizeof *copy);
    assert_non_null(copy);
    c->slots = copy;
    for (int32_t e = 0; e < t->count; e++) {
        emo_expert_slot s = t->slots[e];
        size_t in = (size_t)(s.gate.rows * s.gate.cols) * sizeof(float);
        weight(c, &s.gate);
        weight(c, &s.up);
        weight(c, &s.down);
        s.d_gate = mirror_exchange(c, s.d_gate, in, 1);
        s.d_up = mirror_exchange(c, s.d_up, in, 1);
        s.d_down = mirror_exchange(c, s.d_down, in, 1);
        copy[e] = s;
    }
    if (c->translating) {
        *t = (emo_expert_table){copy, t->count, NULL};
        c->table = t;
    }
}

static void map_experts(mirror_call *c, emo_experts_args *a) {
    int64_t rows = a->tokens * a->k_total, n = a->tokens * a->hidden;
    IN(x, n);
    IN(offsets, a->experts + 1);
    IN(order, rows);
    IN(inverse, rows);
    IN(weights, rows);
    table(c, &a->table);
    OUT(saved, rows * 2 * a->inner);
    OUT(y, n);
    IN(dy, n);
    OUT(dx, n);
    OUT(d_weights, rows);
    OUT(out_norm, rows);
}

static void map_swiglu(mirror_call *c, emo_swiglu_args *a) {
    int64_t n = strided(a->tokens, a->inner, a->stride);
    IN(gate, n);
    IN(up, n);
    OUT(y, a->tokens * a->inner);
    IN(dy, a->tokens * a->inner);
    OUT(d_gate, n);
    OUT(d_up, n);
}

static void map_head(mirror_call *c, emo_head_args *a) {
    IN(x, a->tokens * a->hidden);
    weight(c, &a->weight);
    IN(labels, a->tokens);
    OUT(token_loss, a->tokens);
    OUT(ce_sum, 1);
    OUT(z_sum, 1);
    OUT(dx, a->tokens * a->hidden);
    OUT(d_weight, a->weight.rows * a->hidden);
}

static void map_head_logits(mirror_call *c, emo_head_logits_args *a) {
    static int64_t rows;
    if (!c->translating)
        rows = a->rows != NULL ? largest(a->rows, a->n_rows, -1) + 1 : a->n_rows;
    IN(rows, a->n_rows);
    IN(x, rows * a->hidden);
    weight(c, &a->weight);
    OUT(logits, a->n_rows * a->weight.rows);
}

static void map_adamw(mirror_call *c, emo_adamw_args *a) {
    OUT(p, a->count);
    IN(g, a->count);
    OUT(m, a->count);
    OUT(v, a->count);
    IN(scalars, 1);
}

static void map_sumsq(mirror_call *c, emo_sumsq_args *a) {
    IN(x, a->count);
    OUT(out, 1);
}

static void map_clip(mirror_call *c, emo_clip_args *a) { OUT(scalars, 1); }

static void map_sample(mirror_call *c, emo_sample_args *a) {
    IN(logits, a->rows * a->vocab);
    OUT(ids, a->rows);
    OUT(logprobs, a->rows);
}

static void map_gemm(mirror_call *c, emo_gemm_args *a) {
    int64_t n = a->trans_b ? strided(a->n, a->k, a->ldb) : strided(a->k, a->n, a->ldb);
    IN(a, a->trans_a ? strided(a->k, a->m, a->lda) : strided(a->m, a->k, a->lda));
    a->b = mirror_exchange(c, a->b, (size_t)n * emo__dtype_size(a->b_dtype), 0);
    OUT(c, strided(a->m, a->n, a->ldc));
}

static void map_grouped_gemm(mirror_call *c, emo_grouped_gemm_args *a) {
    static int64_t used, left, right;
    if (!c->translating) {
        const emo_expert_slot *s = &a->table.slots[0];
        const emo_weight *w = a->slot == EMO_SLOT_GATE ? &s->gate : a->slot == EMO_SLOT_UP ? &s->up : &s->down;
        used = a->offsets[a->groups];
        left = a->mode == EMO_GROUPED_FORWARD ? w->cols : w->rows;
        right = a->mode == EMO_GROUPED_FORWARD ? w->rows : w->cols;
    }
    IN(offsets, a->groups + 1);
    IN(a, strided(used, left, a->lda));
    IN(b, strided(used, right, a->ldb));
    OUT(c, strided(used, right, a->ldc));
    table(c, &a->table);
}

static void map_gather(mirror_call *c, emo_gather_args *a) {
    static int64_t rows, from;
    if (!c->translating) {
        rows = a->count != NULL ? *a->count : a->max_rows;
        from = (a->order != NULL ? largest(a->order, rows, -1) : rows - 1) / a->k_total + 1;
    }
    IN(count, 1);
    IN(order, rows);
    IN(src, from * a->width);
    OUT(dst, rows * a->width);
}

static void map_combine(mirror_call *c, emo_combine_args *a) {
    static int64_t rows;
    int64_t all = a->tokens * a->k_total;
    if (!c->translating)
        rows = largest(a->inverse, all, -1) + 1;
    IN(inverse, all);
    IN(weights, all);
    IN(src, rows * a->width);
    OUT(dst, a->tokens * a->width);
    IN(dy, a->tokens * a->width);
    OUT(d_weights, all);
}

static void map_softmax(mirror_call *c, emo_softmax_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, 0) + 1;
    IN(x, strided(a->rows, a->cols, a->x_stride));
    IN(allowed, sets * a->cols);
    IN(set_of, a->rows);
    OUT(probs, a->rows * a->cols);
    OUT(lse, a->rows);
}

static void array(mirror_call *c, emo_array *a, int64_t rows, int64_t cols, int written) {
    int64_t n = (rows - 1) * a->row + (cols - 1) * a->col + 1;
    a->data = mirror_exchange(c, a->data, (size_t)n * sizeof(float), written);
}

static void map_elementwise(mirror_call *c, emo_elementwise_args *a) {
    array(c, &a->x, a->rows, a->cols, 0);
    array(c, &a->y, a->rows, a->cols, 0);
    array(c, &a->out, a->rows, a->cols, 1);
}

static void map_row_dot(mirror_call *c, emo_row_dot_args *a) {
    array(c, &a->x, a->rows, a->cols, 0);
    array(c, &a->y, a->rows, a->cols, 0);
    OUT(out, a->rows);
    OUT(total, 1);
}

static void map_pick(mirror_call *c, emo_pick_args *a) {
    IN(indices, strided(a->rows, a->k, a->index_stride));
    OUT(x, strided(a->rows, a->cols, a->x_stride));
    OUT(values, strided(a->rows, a->k, a->value_stride));
}

static void map_topk(mirror_call *c, emo_topk_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, 0) + 1;
    IN(fixed, a->n_fixed);
    IN(x, strided(a->rows, a->cols, a->x_stride));
    IN(bias, a->cols);
    IN(allowed, sets * a->cols);
    IN(set_of, a->rows);
    OUT(indices, a->rows * (a->k + a->n_fixed));
    OUT(values, a->rows * (a->k + a->n_fixed));
}

static void map_keep_top(mirror_call *c, emo_keep_top_args *a) {
    IN(x, a->rows * a->cols);
    IN(allowed_in, a->rows * a->cols);
    OUT(allowed, a->rows * a->cols);
    IN(size, a->rows);
    IN(row_begin, a->rows + 1);
    IN(fixed, a->n_fixed);
}

static void map_segment_ids(mirror_call *c, emo_segment_ids_args *a) {
    IN(begin, a->n_segments + 1);
    OUT(set_of, a->tokens);
}

static void map_segment_sum(mirror_call *c, emo_segment_sum_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, -1) + 1;
    IN(set_of, a->rows);
    IN(x, a->rows * a->cols);
    OUT(out, sets * a->cols);
}

static void map_count(mirror_call *c, emo_count_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, 0) + 1;
    IN(indices, a->rows * a->k);
    IN(set_of, a->rows);
    OUT(counts, sets * a->bins);
}

/* ---- the operators ---- */

/* Both directions of an operator share their arguments. */
#define map_embed_forward map_embed
#define map_embed_backward map_embed
#define map_norm_forward map_norm
#define map_norm_backward map_norm
#define map_linear_forward map_linear
#define map_linear_backward map_linear
#define map_attention_forward map_attention
#define map_attention_backward map_attention
#define map_route_forward map_route
#define map_route_backward map_route
#define map_experts_forward map_experts
#define map_experts_backward map_experts
#define map_swiglu_forward map_swiglu
#define map_swiglu_backward map_swiglu
#define map_head_loss map_head

#define MIRROR(entry, type)                                                                                            \
    emo_status mirror_##entry(emo_exec *exec, const type *args, emo_error *err) {                                      \
        mirror_call c = {.ops = exec->backend->ops, .exec = exec, .err = err};                                         \
        type a = *args;                                                                                                \
        map_##entry(&c, &a);                                                                                           \
        a = *args;                                                                                                     \
        emo_status status = mirror_to_device(&c);                                                                      \
        if (status == EMO_OK) {                                                                                        \
            map_##entry(&c, &a);                                                                                       \
            if (c.table != NULL)                                                                                       \
                status = c.ops->table_sync(exec, c.table, err);                                                        \
        }                                                                                                              \
        if (status == EMO_OK)                                                                                          \
            status = c.ops->entry(exec, &a, err);                                                                      \
        if (c.table != NULL)                                                                                           \
            c.ops->table_free(exec->backend, c.table);                                                                 \
        return mirror_to_host(&c, status);                                                                             \
    }
EMO_OPERATORS(MIRROR, MIRROR)
