/* SPDX-License-Identifier: Apache-2.0 */
/* The router forward: logits by the linear layer, pools and scores by softmax over allowed sets, the choice by top-k.
 */
#include "backend/composed/route.h"

#include "base/status.h"
#include "tensor/philox.h"

int32_t *emo__composed_segments(emo__composed *c, const emo_route_args *a) {
    int32_t *set_of = emo__composed_ints(c, a->tokens, 1);
    EMO__RUN(c, segment_ids, emo_segment_ids_args, .tokens = a->tokens, .n_segments = a->n_segments,
             .begin = a->segment_begin, .set_of = set_of);
    return set_of;
}

emo_weight emo__composed_route_weight(const emo_route_args *a) {
    emo_weight w = a->weight;
    if (w.rows != a->columns) {
        w.rows = a->columns;
        w.packed = NULL; /* packed for all rows */
    }
    return w;
}

/* The noise is a function of host numbers alone: made here in pieces and uploaded. */
void emo__composed_jitter(emo__composed *c, const emo_route_args *a, int64_t first, int64_t rows, const float *x,
                          float *out) {
    enum { PIECE = 1024 };
    float noise[PIECE];
    int64_t blocks = (a->hidden + 3) / 4;
    for (int64_t r = 0; r < rows && c->status == EMO_OK; r++)
        for (int64_t h = 0; h < a->hidden && c->status == EMO_OK; h += PIECE) {
            int64_t n = a->hidden - h < PIECE ? a->hidden - h : PIECE;
            for (int64_t i = 0; i < n; i += 4) {
                emo__philox draw = emo__philox_draw(a->seed, EMO__RNG_JITTER, a->step,
                                                    (uint64_t)((a->first_token + first + r) * blocks + (h + i) / 4),
                                                    (uint32_t)a->layer);
                for (int64_t j = 0; j < 4 && i + j < n; j++)
                    noise[i + j] = 1.0f + a->jitter * (2.0f * emo__uniform_f32(draw.v[j]) - 1.0f);
            }
            c->status = c->ops->upload(c->exec, out + r * a->hidden + h, noise, (size_t)n * sizeof(float), c->err);
        }
    emo__composed_mul(c, rows, a->hidden, 1.0f, emo__dense(out, a->hidden), emo__dense(x, a->hidden),
                      emo__dense(out, a->hidden));
}

static void logits(emo__composed *c, const emo_route_args *a) {
    int64_t rows = a->last - a->first;
    const float *x = a->x + a->first * a->hidden;
    if (rows <= 0)
        return;
    if (a->jitter > 0.0f) {
        float *noisy = emo__composed_floats(c, rows, a->hidden);
        emo__composed_jitter(c, a, a->first, rows, x, noisy);
        x = noisy;
    }
    EMO__RUN(c, linear_forward, emo_linear_args, .tokens = rows, .x = x, .x_stride = a->hidden,
             .weight = emo__composed_route_weight(a), .y = a->logits + a->first * a->columns, .y_stride = a->columns);
}

static void zero(emo__composed *c, void *data, int64_t count) {
    if (data != NULL && c->status == EMO_OK)
        c->status = c->ops->zero(c->exec, data, (size_t)count * sizeof(float), c->err);
}

static void pools(emo__composed *c, const emo_route_args *a, const int32_t *set_of) {
    int64_t n = a->experts, cells = a->n_segments * n;
    zero(c, a->segment_counts, cells);
    zero(c, a->segment_score_sum, cells);
    if (a->usage != NULL) {
        float *probs = emo__composed_floats(c, a->tokens, n);
        zero(c, a->usage, cells);
        EMO__RUN(c, softmax, emo_softmax_args, .rows = a->tokens, .cols = n, .x = a->logits, .x_stride = a->columns,
                 .allowed = a->allowed_in, .set_of = set_of, .probs = probs);
        EMO__RUN(c, segment_sum, emo_segment_sum_args, .rows = a->tokens, .cols = n, .set_of = set_of, .x = probs,
                 .out = a->usage);
    }
    EMO__RUN(c, keep_top, emo_keep_top_args, .rows = a->n_segments, .cols = n, .x = a->usage,
             .allowed_in = a->allowed_in, .allowed = a->allowed, .size = a->pool_size, .mass = a->pool_mass,
             .min = a->pool_min, .max = a->pool_max, .row_begin = a->segment_begin, .forced = a->forced,
             .n_fixed = a->n_always, .fixed = a->always);
}

/* Device array of the ids n .. n + shared - 1. */
static int32_t *shared_ids(emo__composed *c, const emo_route_args *a) {
    enum { PIECE = 64 };
    int32_t ids[PIECE], *out = emo__composed_ints(c, 1, a->shared);
    for (int32_t at = 0; at < a->shared && c->status == EMO_OK; at += PIECE) {
        int32_t count = a->shared - at < PIECE ? a->shared - at : PIECE;
        for (int32_t i = 0; i < count; i++)
            ids[i] = a->experts + at + i;
        c->status = c->ops->upload(c->exec, out + at, ids, (size_t)count * sizeof *ids, c->err);
    }
    return out;
}

/* weights of the chosen /= (sum weights^p)^(1/p) */
static void normalise(emo__composed *c, const emo_route_args *a, int64_t rows, float *weights) {
    emo_array w = emo__dense(weights, emo__composed_k_total(a)), power = w;
    float *norm = emo__composed_floats(c, rows, 1);
    if (a->norm_p != 1.0f) {
        power = emo__dense(emo__composed_floats(c, rows, a->k), a->k);
        emo__composed_pow(c, rows, a->k, w, a->norm_p, power);
    }
    emo__composed_dot(c, rows, a->k, power, emo__no_array(), norm);
    if (a->norm_p != 1.0f)
        emo__composed_pow(c, rows, 1, emo__per_row(norm), 1.0f / a->norm_p, emo__per_row(norm));
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_DIV, .rows = rows, .cols = a->k, .alpha = 1.0f,
             .x = w, .y = emo__per_row(norm), .out = w);
}

static void sums(emo__composed *c, const emo_route_args *a, int64_t rows, const int32_t *set_of, const int32_t *indices,
                 const float *scores, const float *lse) {
    int32_t n = a->experts, k_total = emo__composed_k_total(a);
    if (a->counts != NULL)
        EMO__RUN(c, count, emo_count_args, .rows = rows, .k = k_total, .bins = n + a->shared, .indices = indices,
                 .counts = a->counts);
    if (a->segment_counts != NULL)
        EMO__RUN(c, count, emo_count_args, .rows = rows, .k = k_total, .bins = n, .indices = indices, .set_of = set_of,
                 .counts = a->segment_counts);
    if (a->score_sum != NULL || a->segment_score_sum != NULL) {
        const float *part = scores;
        if (a->gating == EMO_GATING_SIGMOID) {
            float *total = emo__composed_floats(c, rows, 1), *normal = emo__composed_floats(c, rows, n);
            emo__composed_dot(c, rows, n, emo__dense(scores, n), emo__no_array(), total);
            EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_DIV, .rows = rows, .cols = n,
                     .alpha = 1.0f, .x = emo__dense(scores, n), .y = emo__per_row(total), .out = emo__dense(normal, n));
            part = normal;
        }
        float *ones = emo__composed_ones(c, rows);
        if (a->score_sum != NULL)
            EMO__RUN(c, gemm, emo_gemm_args, .m = 1, .n = n, .k = rows, .alpha = 1.0f, .a = ones, .lda = rows,
                     .b = part, .b_dtype = EMO_DTYPE_F32, .ldb = n, .beta = 1.0f, .c = a->score_sum, .ldc = n);
        if (a->segment_score_sum != NULL)
            EMO__RUN(c, segment_sum, emo_segment_sum_args, .rows = rows, .cols = n, .set_of = set_of, .x = part,
                     .out = a->segment_score_sum);
    }
    if (a->z_sum != NULL)
        EMO__RUN(c, row_dot, emo_row_dot_args, .rows = rows, .cols = 1, .x = emo__per_row(lse), .y = emo__per_row(lse),
                 .total = a->z_sum);
}

static void select_rows(emo__composed *c, const emo_route_args *a, const int32_t *all_sets) {
    int64_t rows = a->last - a->first, n = a->experts;
    int32_t k_total = emo__composed_k_total(a);
    if (rows <= 0)
        return;
    float *scores = a->scores != NULL ? a->scores + a->first * n : emo__composed_floats(c, rows, n);
    float *lse = a->lse != NULL ? a->lse + a->first : emo__composed_floats(c, rows, 1);
    const int32_t *fixed = a->n_always > 0 ? a->always : shared_ids(c, a);
    if (c->status != EMO_OK)
        return;
    const int32_t *set_of = all_sets + a->first;
    const float *x = a->logits + a->first * a->columns;
    int32_t *indices = a->indices + a->first * k_total;
    float *weights = a->weights + a->first * k_total;
    EMO__RUN(c, softmax, emo_softmax_args, .rows = rows, .cols = n, .x = x, .x_stride = a->columns,
             .allowed = a->allowed, .set_of = set_of, .probs = scores, .lse = lse,
             .sigmoid = a->gating == EMO_GATING_SIGMOID, .floor = EMO__ROUTE_FLOOR);
    EMO__RUN(c, topk, emo_topk_args, .rows = rows, .cols = n, .k = a->k, .n_fixed = k_total - a->k, .fixed = fixed,
             .x = scores, .x_stride = n, .bias = a->score_bias, .allowed = a->allowed, .set_of = set_of,
             .indices = indices, .values = weights);
    if (a->norm_p > 0.0f)
        normalise(c, a, rows, weights);
    if (a->n_always == 0 && a->shared_mode == EMO_SHARED_SOFTMAX && a->shared > 1) {
        float *own = emo__composed_floats(c, rows, a->shared);
        EMO__RUN(c, softmax, emo_softmax_args, .rows = rows, .cols = a->shared, .x = x + n, .x_stride = a->columns,
                 .probs = own);
        emo__composed_add(c, rows, a->shared, 1.0f, emo__dense(own, a->shared), 0.0f, emo__no_array(),
                          emo__dense(weights + a->k, k_total));
    }
    sums(c, a, rows, set_of, indices, scores, lse);
}

emo_status emo__composed_route_forward(emo_exec *exec, const emo_route_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    if ((a->phases & EMO_ROUTE_LOGITS) != 0)
        logits(&c, a);
    if ((a->phases & (EMO_ROUTE_POOL | EMO_ROUTE_SELECT)) != 0 && a->tokens > 0) {
        int32_t *set_of = emo__composed_segments(&c, a);
        if ((a->phases & EMO_ROUTE_POOL) != 0)
            pools(&c, a, set_of);
        if ((a->phases & EMO_ROUTE_SELECT) != 0)
            select_rows(&c, a, set_of);
    }
    return emo__composed_end(&c);
}
