/* SPDX-License-Identifier: Apache-2.0 */
/* Experts: gather the rows in plan order, three grouped products around SwiGLU, combine. Arrays have the plan's
 * capacity, tokens x K rows; rows past the plan's end are zeros that no grouped product touches. */
#include "backend/composed.h"

static emo_grouped_gemm_args grouped(const emo_experts_args *a, int32_t mode, int32_t slot, const float *x, int64_t ldx,
                                     float *out, int64_t ldc) {
    return (emo_grouped_gemm_args){.mode = mode,
                                   .slot = slot,
                                   .groups = a->experts,
                                   .offsets = a->offsets,
                                   .max_rows = a->tokens * a->k_total,
                                   .table = a->table,
                                   .a = x,
                                   .lda = ldx,
                                   .c = out,
                                   .ldc = ldc};
}

static void run_grouped(emo__composed *c, emo_grouped_gemm_args g) {
    if (c->status == EMO_OK)
        c->status = c->ops->grouped_gemm(c->exec, &g, c->err);
}

static void weight_gradient(emo__composed *c, const emo_experts_args *a, int32_t slot, const float *left, int64_t ldl,
                            const float *right, int64_t ldr) {
    emo_grouped_gemm_args g = grouped(a, EMO_GROUPED_WGRAD, slot, left, ldl, NULL, 0);
    g.b = right;
    g.ldb = ldr;
    run_grouped(c, g);
}

/* Rows of `src` in plan order; `k` = K for rows of tokens, 1 for rows of assignments. */
static float *in_plan_order(emo__composed *c, const emo_experts_args *a, const float *src, int64_t width, int32_t k) {
    int64_t rows = a->tokens * a->k_total;
    float *dst = emo__composed_floats(c, rows, width);
    EMO__RUN(c, gather, emo_gather_args, .max_rows = rows, .count = a->offsets + a->experts, .width = width,
             .k_total = k, .order = a->order, .src = src, .dst = dst);
    return dst;
}

/* One number per row of the plan back to [tokens, K]; 0 for left-out assignments. */
static void to_assignments(emo__composed *c, const emo_experts_args *a, const float *values, float *out) {
    EMO__RUN(c, combine, emo_combine_args, .tokens = a->tokens * a->k_total, .width = 1, .k_total = 1,
             .inverse = a->inverse, .src = values, .dst = out);
}

static float *hidden_rows(emo__composed *c, const emo_experts_args *a, const float *gate_up) {
    int64_t rows = a->tokens * a->k_total;
    float *h = emo__composed_floats(c, rows, a->inner);
    EMO__RUN(c, swiglu_forward, emo_swiglu_args, .tokens = rows, .inner = a->inner, .gate = gate_up,
             .up = gate_up != NULL ? gate_up + a->inner : NULL, .stride = 2 * a->inner, .y = h);
    return h;
}

emo_status emo__composed_experts_forward(emo_exec *exec, const emo_experts_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    int64_t rows = a->tokens * a->k_total, n = a->inner, d = a->hidden;
    if (rows == 0)
        return EMO_OK;
    float *x = in_plan_order(&c, a, a->x, d, a->k_total);
    float *pre = emo__composed_floats(&c, rows, 2 * n), *out = emo__composed_floats(&c, rows, d);
    if (c.status != EMO_OK)
        return emo__composed_end(&c);
    run_grouped(&c, grouped(a, EMO_GROUPED_FORWARD, EMO_SLOT_GATE, x, d, pre, 2 * n));
    run_grouped(&c, grouped(a, EMO_GROUPED_FORWARD, EMO_SLOT_UP, x, d, pre + n, 2 * n));
    if (a->y != NULL) {
        float *h = hidden_rows(&c, a, pre);
        run_grouped(&c, grouped(a, EMO_GROUPED_FORWARD, EMO_SLOT_DOWN, h, n, out, d));
        EMO__RUN(&c, combine, emo_combine_args, .tokens = a->tokens, .width = d, .k_total = a->k_total,
                 .inverse = a->inverse, .weights = a->weights, .src = out, .dst = a->y, .accumulate = a->accumulate);
    }
    if (a->saved != NULL && c.status == EMO_OK)
        c.status = c.ops->copy(exec, a->saved, pre, (size_t)(rows * 2 * n) * sizeof(float), err);
    if (a->out_norm != NULL) {
        float *square = emo__composed_floats(&c, rows, 1);
        emo__composed_dot(&c, rows, d, emo__dense(out, d), emo__dense(out, d), square);
        emo__composed_pow(&c, rows, 1, emo__per_row(square), 0.5f, emo__per_row(square));
        to_assignments(&c, a, square, a->out_norm);
    }
    return emo__composed_end(&c);
}

/* p = dy W_down per assignment: d_weights = dot(h, p), and through SwiGLU with w p the gradient of gate|up. */
emo_status emo__composed_experts_backward(emo_exec *exec, const emo_experts_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    int64_t rows = a->tokens * a->k_total, n = a->inner, d = a->hidden;
    if (rows == 0)
        return EMO_OK;
    float *x = in_plan_order(&c, a, a->x, d, a->k_total), *dy = in_plan_order(&c, a, a->dy, d, a->k_total);
    float *weight = in_plan_order(&c, a, a->weights, 1, 1);
    float *p = emo__composed_floats(&c, rows, n), *pre = emo__composed_floats(&c, rows, 2 * n);
    float *saved = emo__composed_floats(&c, rows, 2 * n);
    if (c.status != EMO_OK)
        return emo__composed_end(&c);
    /* only the plan's rows of `saved` are defined: zeros stand in for the others */
    EMO__RUN(&c, gather, emo_gather_args, .max_rows = rows, .count = a->offsets + a->experts, .width = 2 * n,
             .k_total = 1, .order = NULL, .src = a->saved, .dst = saved);
    float *h = hidden_rows(&c, a, saved);
    run_grouped(&c, grouped(a, EMO_GROUPED_DGRAD, EMO_SLOT_DOWN, dy, d, p, n));
    if (a->d_weights != NULL) {
        float *dots = emo__composed_floats(&c, rows, 1);
        emo__composed_dot(&c, rows, n, emo__dense(h, n), emo__dense(p, n), dots);
        to_assignments(&c, a, dots, a->d_weights);
    }
    emo__composed_mul(&c, rows, n, 1.0f, emo__dense(p, n), emo__per_row(weight), emo__dense(p, n));
    EMO__RUN(&c, swiglu_backward, emo_swiglu_args, .tokens = rows, .inner = n, .gate = saved, .up = saved + n,
             .stride = 2 * n, .dy = p, .d_gate = pre, .d_up = pre + n);
    if (a->dx != NULL) {
        float *dx = emo__composed_floats(&c, rows, d);
        run_grouped(&c, grouped(a, EMO_GROUPED_DGRAD, EMO_SLOT_GATE, pre, 2 * n, dx, d));
        emo_grouped_gemm_args up = grouped(a, EMO_GROUPED_DGRAD, EMO_SLOT_UP, pre + n, 2 * n, dx, d);
        up.accumulate = 1;
        run_grouped(&c, up);
        EMO__RUN(&c, combine, emo_combine_args, .tokens = a->tokens, .width = d, .k_total = a->k_total,
                 .inverse = a->inverse, .src = dx, .dst = a->dx, .accumulate = 1);
    }
    emo__composed_mul(&c, rows, d, 1.0f, emo__dense(dy, d), emo__per_row(weight), emo__dense(dy, d));
    weight_gradient(&c, a, EMO_SLOT_GATE, pre, 2 * n, x, d);
    weight_gradient(&c, a, EMO_SLOT_UP, pre + n, 2 * n, x, d);
    weight_gradient(&c, a, EMO_SLOT_DOWN, dy, d, h, n);
    return emo__composed_end(&c);
}
