/* SPDX-License-Identifier: Apache-2.0 */
/* The router backward. ds: gradient of the scores over a fixed choice and fixed sets; through softmax or sigmoid to the
 * logits; through the linear layer to x and W. */
#include "backend/composed/route.h"

typedef struct back {
    const emo_route_args *a;
    const int32_t *set_of;
    float *probs;  /* [tokens, n] softmax over the allowed */
    float *scores; /* [tokens, n] the same, or sigmoid + floor */
    float *ds;     /* [tokens, n] */
    float *lse;    /* [tokens] */
} back;

static void scatter(emo__composed *c, const back *b, int32_t from, int32_t k, const float *values, int64_t stride) {
    const emo_route_args *a = b->a;
    EMO__RUN(c, pick, emo_pick_args, .rows = a->tokens, .cols = a->experts, .k = k, .add = 1, .alpha = 1.0f,
             .indices = a->indices + from, .index_stride = emo__composed_k_total(a), .x = b->ds, .x_stride = a->experts,
             .values = (float *)(uintptr_t)values, .value_stride = stride);
}

/* w_j = s_j / N, N = (sum s^p)^(1/p), dN/ds_j = w_j^(p - 1): ds_j = (dw_j - dot(dw, w) w_j^(p - 1)) / N */
static void through_norm(emo__composed *c, const back *b) {
    const emo_route_args *a = b->a;
    int64_t k_total = emo__composed_k_total(a), tokens = a->tokens, k = a->k;
    float *dot = emo__composed_floats(c, tokens, 1), *norm = emo__composed_floats(c, tokens, 1);
    emo_array chosen = emo__dense(emo__composed_floats(c, tokens, k), k), dw = emo__dense(a->d_weights, k_total);
    emo_array slope = emo__dense(emo__composed_floats(c, tokens, k), k), w = emo__dense(a->weights, k_total);
    emo__composed_dot(c, tokens, k, dw, w, dot);
    EMO__RUN(c, pick, emo_pick_args, .rows = tokens, .cols = a->experts, .k = a->k, .indices = a->indices,
             .index_stride = k_total, .x = b->scores, .x_stride = a->experts, .values = chosen.data, .value_stride = k);
    emo__composed_pow(c, tokens, k, chosen, a->norm_p, chosen);
    emo__composed_dot(c, tokens, k, chosen, emo__no_array(), norm);
    emo__composed_pow(c, tokens, 1, emo__per_row(norm), 1.0f / a->norm_p, emo__per_row(norm));
    emo__composed_pow(c, tokens, k, w, a->norm_p - 1.0f, slope);
    emo__composed_mul(c, tokens, k, 1.0f, slope, emo__per_row(dot), slope);
    emo__composed_add(c, tokens, k, 1.0f, dw, -1.0f, slope, slope);
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_DIV, .rows = tokens, .cols = k, .alpha = 1.0f,
             .x = slope, .y = emo__per_row(norm), .out = slope);
    scatter(c, b, 0, a->k, slope.data, k);
}

static void from_balance(emo__composed *c, const back *b) {
    const emo_route_args *a = b->a;
    int64_t n = a->experts, tokens = a->tokens;
    emo_array grad = emo__one_row(a->balance), ds = emo__dense(b->ds, n);
    if (a->balance_by_segment) {
        grad = emo__dense(emo__composed_floats(c, tokens, n), n);
        EMO__RUN(c, gather, emo_gather_args, .max_rows = tokens, .width = n, .k_total = 1, .order = b->set_of,
                 .src = a->balance, .dst = grad.data);
    }
    if (a->gating != EMO_GATING_SIGMOID) {
        emo__composed_add(c, tokens, n, 1.0f, ds, 1.0f, grad, ds);
        return;
    }
    /* the loss sees scores divided by their sum: (grad - dot(grad, s) / sum) / sum */
    float *dot = emo__composed_floats(c, tokens, 1), *total = emo__composed_floats(c, tokens, 1);
    emo_array s = emo__dense(b->scores, n), part = emo__dense(emo__composed_floats(c, tokens, n), n);
    emo__composed_dot(c, tokens, n, grad, s, dot);
    emo__composed_dot(c, tokens, n, s, emo__no_array(), total);
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_DIV, .rows = tokens, .cols = 1, .alpha = 1.0f,
             .x = emo__per_row(dot), .y = emo__per_row(total), .out = emo__per_row(dot));
    emo__composed_add(c, tokens, n, 1.0f, grad, -1.0f, emo__per_row(dot), part);
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_DIV, .accumulate = 1, .rows = tokens, .cols = n,
             .alpha = 1.0f, .x = part, .y = emo__per_row(total), .out = ds);
}

/* softmax: p (ds - dot(p, ds)); sigmoid s: ds s (1 - s); both + 2 z_scale lse p */
static void to_logits(emo__composed *c, const back *b) {
    const emo_route_args *a = b->a;
    int64_t n = a->experts, tokens = a->tokens;
    emo_array ds = emo__dense(b->ds, n), p = emo__dense(b->probs, n), out = emo__dense(a->d_logits, a->columns);
    float *z = emo__composed_floats(c, tokens, 1);
    emo__composed_add(c, tokens, 1, 2.0f * a->z_scale, emo__per_row(b->lse), 0.0f, emo__no_array(), emo__per_row(z));
    if (a->gating == EMO_GATING_SIGMOID) {
        float *sigma = emo__composed_floats(c, tokens, n);
        EMO__RUN(c, softmax, emo_softmax_args, .rows = tokens, .cols = n, .x = a->logits, .x_stride = a->columns,
                 .allowed = a->allowed, .set_of = b->set_of, .probs = sigma, .sigmoid = 1);
        emo_array s = emo__dense(sigma, n);
        emo__composed_mul(c, tokens, n, 1.0f, ds, s, ds);
        emo__composed_mul(c, tokens, n, 1.0f, ds, s, s);
        emo__composed_add(c, tokens, n, 1.0f, ds, -1.0f, s, out);
    } else {
        float *dot = emo__composed_floats(c, tokens, 1);
        emo__composed_dot(c, tokens, n, p, ds, dot);
        emo__composed_add(c, tokens, n, 1.0f, ds, -1.0f, emo__per_row(dot), ds);
        emo__composed_mul(c, tokens, n, 1.0f, p, ds, out);
    }
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_MUL, .accumulate = 1, .rows = tokens, .cols = n,
             .alpha = 1.0f, .x = p, .y = emo__per_row(z), .out = out);
}

static void shared_columns(emo__composed *c, const back *b) {
    const emo_route_args *a = b->a;
    int64_t k_total = emo__composed_k_total(a), tokens = a->tokens, h = a->columns - a->experts;
    if (h <= 0)
        return;
    emo_array out = emo__dense(a->d_logits + a->experts, a->columns);
    emo__composed_add(c, tokens, h, 0.0f, emo__no_array(), 0.0f, emo__no_array(), out);
    if (a->shared_mode != EMO_SHARED_SOFTMAX || a->n_always > 0 || a->shared < 2 || a->d_weights == NULL)
        return;
    float *dot = emo__composed_floats(c, tokens, 1);
    emo_array w = emo__dense(a->weights + a->k, k_total), dw = emo__dense(a->d_weights + a->k, k_total);
    emo__composed_dot(c, tokens, a->shared, w, dw, dot);
    emo__composed_add(c, tokens, a->shared, 1.0f, dw, -1.0f, emo__per_row(dot), out);
    emo__composed_mul(c, tokens, a->shared, 1.0f, out, w, out);
}

static void through_weight(emo__composed *c, const emo_route_args *a) {
    const float *x = a->x;
    float *dx = a->dx;
    if (a->dx == NULL && a->d_weight == NULL)
        return;
    if (a->jitter > 0.0f) {
        float *noisy = emo__composed_floats(c, a->tokens, a->hidden);
        emo__composed_jitter(c, a, 0, a->tokens, a->x, noisy);
        x = noisy;
        dx = a->dx != NULL ? emo__composed_floats(c, a->tokens, a->hidden) : NULL;
    }
    EMO__RUN(c, linear_backward, emo_linear_args, .tokens = a->tokens, .x = x, .x_stride = a->hidden,
             .weight = emo__composed_route_weight(a), .dy = a->d_logits, .y_stride = a->columns, .dx = dx,
             .dx_accumulate = 1, .d_weight = a->d_weight);
    if (a->jitter > 0.0f && a->dx != NULL) {
        float *through = emo__composed_floats(c, a->tokens, a->hidden);
        emo__composed_jitter(c, a, 0, a->tokens, dx, through);
        emo__composed_add(c, a->tokens, a->hidden, 1.0f, emo__dense(a->dx, a->hidden), 1.0f,
                          emo__dense(through, a->hidden), emo__dense(a->dx, a->hidden));
    }
}

emo_status emo__composed_route_backward(emo_exec *exec, const emo_route_args *a, emo_error *err) {
    if (a->tokens == 0)
        return EMO_OK;
    emo__composed c = emo__composed_begin(exec, err);
    int64_t n = a->experts, k_total = emo__composed_k_total(a);
    back b = {.a = a, .set_of = emo__composed_segments(&c, a)};
    b.probs = emo__composed_floats(&c, a->tokens, n);
    b.ds = emo__composed_floats(&c, a->tokens, n);
    b.lse = emo__composed_floats(&c, a->tokens, 1);
    b.scores = b.probs;
    EMO__RUN(&c, softmax, emo_softmax_args, .rows = a->tokens, .cols = n, .x = a->logits, .x_stride = a->columns,
             .allowed = a->allowed, .set_of = b.set_of, .probs = b.probs, .lse = b.lse);
    if (a->gating == EMO_GATING_SIGMOID) {
        b.scores = emo__composed_floats(&c, a->tokens, n);
        EMO__RUN(&c, softmax, emo_softmax_args, .rows = a->tokens, .cols = n, .x = a->logits, .x_stride = a->columns,
                 .allowed = a->allowed, .set_of = b.set_of, .probs = b.scores, .sigmoid = 1, .floor = EMO__ROUTE_FLOOR);
    }
    if (a->d_weights != NULL) {
        if (a->norm_p > 0.0f)
            through_norm(&c, &b);
        else
            scatter(&c, &b, 0, a->k, a->d_weights, k_total);
        if (a->n_always > 0)
            scatter(&c, &b, a->k, a->n_always, a->d_weights + a->k, k_total);
    }
    if (a->balance != NULL)
        from_balance(&c, &b);
    to_logits(&c, &b);
    shared_columns(&c, &b);
    through_weight(&c, a);
    return emo__composed_end(&c);
}
