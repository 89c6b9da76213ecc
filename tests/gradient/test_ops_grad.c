/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of norm, RoPE, embedding and the head by central differences. */
#include <math.h>

#include "support/gradient.h"
#include "support/ops.h"

/* Steps of 1e-2 on inputs of size 1: the cubic term leaves about 1e-4, f32 rounding of the outputs less. */
#define STEP 1e-2
#define TOLERANCE 2e-3

static double weighted(const float *y, const float *c, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += (double)y[i] * (double)c[i];
    return sum;
}

typedef struct norm_case {
    test_device *d;
    emo_norm_args a;
} norm_case;

static double norm_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    norm_case *c = context;
    EXPECT_OK(c->d->ops->norm_forward(c->d->exec, &c->a, &err));
    return weighted(c->a.y, c->a.dy, (size_t)(c->a.tokens * c->a.hidden));
}

static void norm(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 70, HIDDEN = 21, N = TOKENS * HIDDEN };
    float *x = test_floats(N, 1, 1.0f), *w = test_floats(HIDDEN, 2, 1.0f), *dy = test_floats(N, 3, 1.0f);
    float *y = test_floats(N, 4, 1.0f), *dx = test_floats(N, 5, 1.0f), dw[HIDDEN] = {0}, rstd[TOKENS];
    test_device d = test_device_open(2, EMO_ISA_AUTO);
    norm_case c = {&d, {TOKENS, HIDDEN, 1e-6f, x, test_weight(w, EMO_DTYPE_F32, 1, HIDDEN), y, rstd, dy, dx, 0, dw}};
    (void)norm_loss(&c);
    EXPECT_OK(d.ops->norm_backward(d.exec, &c.a, &err));
    test_gradient(norm_loss, &c, x, dx, N, STEP, TOLERANCE);
    test_gradient(norm_loss, &c, w, dw, HIDDEN, STEP, TOLERANCE);
    test_device_close(&d);
    free(x);
    free(w);
    free(dy);
    free(y);
    free(dx);
}

/* RoPE is linear: <c, R x> = <R^T c, x>, and R^T is the inverse. */
static void rope_inverse_is_the_transpose(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 9, HEADS = 2, DIM = 12, N = TOKENS * HEADS * DIM };
    float *x = test_floats(N, 1, 1.0f), *c = test_floats(N, 2, 1.0f), *rx = test_floats(N, 1, 1.0f);
    float *rc = test_floats(N, 2, 1.0f), cosine[TOKENS * DIM / 2], sine[TOKENS * DIM / 2];
    int32_t positions[TOKENS];
    for (int i = 0; i < TOKENS * DIM / 2; i++) {
        cosine[i] = (float)cos(0.37 * i);
        sine[i] = (float)sin(0.37 * i);
    }
    for (int i = 0; i < TOKENS; i++)
        positions[i] = TOKENS - 1 - i;
    test_device d = test_device_open(1, EMO_ISA_AUTO);
    emo_rope_args a = {TOKENS, HEADS, DIM, HEADS * DIM, positions, cosine, sine, rx, 0};
    EXPECT_OK(d.ops->rope(d.exec, &a, &err));
    a.x = rc;
    a.inverse = 1;
    EXPECT_OK(d.ops->rope(d.exec, &a, &err));
    assert_true(fabs(weighted(rx, c, N) - weighted(rc, x, N)) < 1e-5); /* f32 rounding of 216 terms */
    assert_true(test_max_diff(rx, x, N) > 0.1);
    test_device_close(&d);
    free(x);
    free(c);
    free(rx);
    free(rc);
}

typedef struct embed_case {
    test_device *d;
    emo_embed_args a;
} embed_case;

static double embed_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    embed_case *c = context;
    EXPECT_OK(c->d->ops->embed_forward(c->d->exec, &c->a, &err));
    return weighted(c->a.out, c->a.d_out, (size_t)(c->a.tokens * c->a.hidden));
}

static void embed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 40, HIDDEN = 9, VOCAB = 13 };
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i * i % VOCAB;
    float *w = test_floats(VOCAB * HIDDEN, 1, 1.0f), *c = test_floats(TOKENS * HIDDEN, 2, 1.0f);
    float *out = test_floats(TOKENS * HIDDEN, 3, 1.0f), *dw = calloc(VOCAB * HIDDEN, sizeof(float));
    assert_non_null(dw);
    test_device d = test_device_open(2, EMO_ISA_AUTO);
    embed_case e = {&d, {TOKENS, HIDDEN, ids, test_weight(w, EMO_DTYPE_F32, VOCAB, HIDDEN), out, c, dw}};
    EXPECT_OK(d.ops->embed_backward(d.exec, &e.a, &err));
    test_gradient(embed_loss, &e, w, dw, VOCAB * HIDDEN, STEP, TOLERANCE);
    test_device_close(&d);
    free(w);
    free(c);
    free(out);
    free(dw);
}

typedef struct head_case {
    test_device *d;
    emo_head_args a;
} head_case;

static double head_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    head_case *c = context;
    double ce = 0.0, z = 0.0;
    emo_head_args a = c->a;
    a.ce_sum = &ce;
    a.z_sum = &z;
    a.dx = a.d_weight = NULL;
    EXPECT_OK(c->d->ops->head_loss(c->d->exec, &a, &err));
    return (double)a.ce_scale * ce + (double)a.z_scale * z;
}

static void head(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 30, HIDDEN = 16, VOCAB = 41 };
    int32_t labels[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        labels[i] = i % 5 == 2 ? -100 : i * 11 % VOCAB;
    float *x = test_floats(TOKENS * HIDDEN, 1, 1.0f), *w = test_floats(VOCAB * HIDDEN, 2, 1.0f);
    float *dx = test_floats(TOKENS * HIDDEN, 3, 1.0f), *dw = calloc(VOCAB * HIDDEN, sizeof(float));
    assert_non_null(dw);
    test_device d = test_device_open(2, EMO_ISA_AUTO);
    head_case c = {&d, {.tokens = TOKENS, .hidden = HIDDEN, .x = x, .labels = labels, .ce_scale = 0.7f}};
    c.a.weight = test_weight(w, EMO_DTYPE_F32, VOCAB, HIDDEN);
    c.a.z_scale = 0.3f; /* large, so that the term shows */
    c.a.dx = dx;
    c.a.d_weight = dw;
    EXPECT_OK(d.ops->head_loss(d.exec, &c.a, &err));
    test_gradient(head_loss, &c, x, dx, TOKENS * HIDDEN, STEP, TOLERANCE);
    test_gradient(head_loss, &c, w, dw, VOCAB * HIDDEN, STEP, TOLERANCE);
    test_device_close(&d);
    free(x);
    free(w);
    free(dx);
    free(dw);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norm),
        cmocka_unit_test(rope_inverse_is_the_transpose),
        cmocka_unit_test(embed),
        cmocka_unit_test(head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
