/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer, RMSNorm and SwiGLU from matrix products and elementwise work. */
#include "backend/composed.h"

/* y[tokens, rows] (+)= x[tokens, cols] W^T + ones bias */
emo_status emo__composed_linear_forward(emo_exec *exec, const emo_linear_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    const emo_weight *w = &a->weight;
    EMO__RUN(&c, gemm, emo_gemm_args, .trans_b = 1, .m = a->tokens, .n = w->rows, .k = w->cols, .alpha = 1.0f,
             .a = a->x, .lda = a->x_stride, .b = w->data, .b_dtype = w->dtype, .ldb = w->stride,
             .beta = a->accumulate ? 1.0f : 0.0f, .c = a->y, .ldc = a->y_stride);
    if (a->bias.data != NULL) {
        float *ones = emo__composed_ones(&c, a->tokens);
        EMO__RUN(&c, gemm, emo_gemm_args, .m = a->tokens, .n = w->rows, .k = 1, .alpha = 1.0f, .a = ones, .lda = 1,
                 .b = a->bias.data, .b_dtype = a->bias.dtype, .ldb = a->bias.stride, .beta = 1.0f, .c = a->y,
                 .ldc = a->y_stride);
    }
    return emo__composed_end(&c);
}

/* dx (+)= dy W; d_weight += dy^T x; d_bias += ones^T dy */
emo_status emo__composed_linear_backward(emo_exec *exec, const emo_linear_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    const emo_weight *w = &a->weight;
    if (a->dx != NULL)
        EMO__RUN(&c, gemm, emo_gemm_args, .m = a->tokens, .n = w->cols, .k = w->rows, .alpha = 1.0f, .a = a->dy,
                 .lda = a->y_stride, .b = w->data, .b_dtype = w->dtype, .ldb = w->stride,
                 .beta = a->dx_accumulate ? 1.0f : 0.0f, .c = a->dx, .ldc = a->x_stride);
    if (a->d_weight != NULL && a->tokens > 0)
        EMO__RUN(&c, gemm, emo_gemm_args, .trans_a = 1, .m = w->rows, .n = w->cols, .k = a->tokens, .alpha = 1.0f,
                 .a = a->dy, .lda = a->y_stride, .b = a->x, .b_dtype = EMO_DTYPE_F32, .ldb = a->x_stride, .beta = 1.0f,
                 .c = a->d_weight, .ldc = w->cols);
    if (a->d_bias != NULL && a->tokens > 0) {
        float *ones = emo__composed_ones(&c, a->tokens);
        EMO__RUN(&c, gemm, emo_gemm_args, .m = 1, .n = w->rows, .k = a->tokens, .alpha = 1.0f, .a = ones,
                 .lda = a->tokens, .b = a->dy, .b_dtype = EMO_DTYPE_F32, .ldb = a->y_stride, .beta = 1.0f,
                 .c = a->d_bias, .ldc = w->rows);
    }
    return emo__composed_end(&c);
}

/* sigma = sigmoid(gate), dense [tokens, inner] */
static float *gate_sigmoid(emo__composed *c, const emo_swiglu_args *a) {
    float *sigma = emo__composed_floats(c, a->tokens, a->inner);
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_SIGMOID, .rows = a->tokens, .cols = a->inner,
             .x = emo__dense(a->gate, a->stride), .out = emo__dense(sigma, a->inner));
    return sigma;
}

/* y = gate sigma up */
emo_status emo__composed_swiglu_forward(emo_exec *exec, const emo_swiglu_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    emo_array sigma = emo__dense(gate_sigmoid(&c, a), a->inner);
    emo__composed_mul(&c, a->tokens, a->inner, 1.0f, sigma, emo__dense(a->gate, a->stride), sigma);
    emo__composed_mul(&c, a->tokens, a->inner, 1.0f, sigma, emo__dense(a->up, a->stride), emo__dense(a->y, a->inner));
    return emo__composed_end(&c);
}

/* d_up = dy gate sigma; d_gate = dy up (sigma + gate sigma (1 - sigma)) */
emo_status emo__composed_swiglu_backward(emo_exec *exec, const emo_swiglu_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    int64_t n = a->inner;
    emo_array sigma = emo__dense(gate_sigmoid(&c, a), n), silu = emo__dense(emo__composed_floats(&c, a->tokens, n), n);
    emo_array slope = emo__dense(emo__composed_floats(&c, a->tokens, n), n), dy = emo__dense(a->dy, n);
    emo__composed_mul(&c, a->tokens, n, 1.0f, sigma, emo__dense(a->gate, a->stride), silu);
    emo__composed_mul(&c, a->tokens, n, -1.0f, silu, sigma, slope);
    emo__composed_add(&c, a->tokens, n, 1.0f, slope, 1.0f, silu, slope);
    emo__composed_add(&c, a->tokens, n, 1.0f, slope, 1.0f, sigma, slope);
    emo__composed_mul(&c, a->tokens, n, 1.0f, slope, emo__dense(a->up, a->stride), slope);
    emo__composed_mul(&c, a->tokens, n, 1.0f, silu, dy, emo__dense(a->d_up, a->stride));
    emo__composed_mul(&c, a->tokens, n, 1.0f, slope, dy, emo__dense(a->d_gate, a->stride));
    return emo__composed_end(&c);
}

/* y = x rstd w, rstd = (dot(x, x) / n + eps)^(-1/2) */
emo_status emo__composed_norm_forward(emo_exec *exec, const emo_norm_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    int64_t n = a->hidden;
    float *rstd = a->rstd != NULL ? a->rstd : emo__composed_floats(&c, a->tokens, 1);
    emo_array x = emo__dense(a->x, n), y = emo__dense(a->y, n), r = emo__per_row(rstd);
    emo__composed_dot(&c, a->tokens, n, x, x, rstd);
    emo__composed_add(&c, a->tokens, 1, 1.0f / (float)n, r, a->eps, emo__no_array(), r);
    emo__composed_pow(&c, a->tokens, 1, r, -0.5f, r);
    emo__composed_mul(&c, a->tokens, n, 1.0f, x, r, y);
    emo__composed_mul(&c, a->tokens, n, 1.0f, y, emo__one_row(emo__composed_row(&c, &a->weight)), y);
    return emo__composed_end(&c);
}

/* g = w dy: dx (+)= rstd (g - x rstd^2 dot(g, x) / n); d_weight += column sums of dy x rstd */
emo_status emo__composed_norm_backward(emo_exec *exec, const emo_norm_args *a, emo_error *err) {
    emo__composed c = emo__composed_begin(exec, err);
    int64_t n = a->hidden, tokens = a->tokens;
    emo_array x = emo__dense(a->x, n), r = emo__per_row(a->rstd), dy = emo__dense(a->dy, n);
    emo_array g = emo__dense(emo__composed_floats(&c, tokens, n), n), dx = emo__dense(a->dx, n);
    emo_array unit = emo__dense(emo__composed_floats(&c, tokens, n), n);
    float *pull = emo__composed_floats(&c, tokens, 1);
    emo__composed_mul(&c, tokens, n, 1.0f, x, r, unit); /* x rstd */
    emo__composed_mul(&c, tokens, n, 1.0f, dy, emo__one_row(emo__composed_row(&c, &a->weight)), g);
    emo__composed_dot(&c, tokens, n, g, unit, pull);
    if (a->d_weight != NULL && tokens > 0) {
        emo_array part = emo__dense(emo__composed_floats(&c, tokens, n), n);
        float *ones = emo__composed_ones(&c, tokens);
        emo__composed_mul(&c, tokens, n, 1.0f, dy, unit, part);
        EMO__RUN(&c, gemm, emo_gemm_args, .m = 1, .n = n, .k = tokens, .alpha = 1.0f, .a = ones, .lda = tokens,
                 .b = part.data, .b_dtype = EMO_DTYPE_F32, .ldb = n, .beta = 1.0f, .c = a->d_weight, .ldc = n);
    }
    emo__composed_mul(&c, tokens, n, -1.0f / (float)n, unit, emo__per_row(pull), unit);
    emo__composed_add(&c, tokens, n, 1.0f, g, 1.0f, unit, g);
    EMO__RUN(&c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_MUL, .accumulate = a->dx_accumulate,
             .rows = tokens, .cols = n, .alpha = 1.0f, .x = g, .y = r, .out = dx);
    return emo__composed_end(&c);
}
