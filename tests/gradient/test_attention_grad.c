/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients of attention over several segments with grouped queries, by central differences. */
#include <math.h>

#include "support/gradient.h"
#include "support/ops.h"

enum { HEADS = 4, KV_HEADS = 2, DIM = 12, QUERIES = 90, KEY_ROWS = 120 };
/* one block and more, one query, more keys than queries */
static const emo_attention_segment segments[] = {{0, 70, 0, 70}, {70, 1, 70, 1}, {71, 19, 71, 49}};

typedef struct attention_case {
    test_device *d;
    emo_attention_args a;
} attention_case;

static double attention_loss(void *context) {
    emo_error err = EMO_ERROR_INIT;
    attention_case *c = context;
    double sum = 0.0;
    EXPECT_OK(c->d->ops->attention_forward(c->d->exec, &c->a, &err));
    for (size_t i = 0; i < QUERIES * HEADS * DIM; i++)
        sum += (double)c->a.o[i] * (double)c->a.d_o[i];
    return sum;
}

static void attention(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { NQ = QUERIES * HEADS * DIM, NK = KEY_ROWS * KV_HEADS * DIM };
    float *q = test_floats(NQ, 1, 1.0f), *k = test_floats(NK, 2, 1.0f), *v = test_floats(NK, 3, 1.0f);
    float *o = test_floats(NQ, 4, 1.0f), *d_o = test_floats(NQ, 5, 1.0f), *lse = test_floats(QUERIES * HEADS, 6, 1.0f);
    float *dq = test_floats(NQ, 7, 1.0f), *dk = test_floats(NK, 8, 1.0f), *dv = test_floats(NK, 9, 1.0f);
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t l = 0; l < n_levels; l++) {
        test_device d = test_device_open(2, levels[l]);
        attention_case c = {&d, {.n_segments = 3, .segments = segments, .q_last = QUERIES, .heads = HEADS}};
        c.a.kv_heads = KV_HEADS;
        c.a.head_dim = DIM;
        c.a.scale = 0.6f;
        c.a.q = q;
        c.a.k = k;
        c.a.v = v;
        c.a.q_stride = c.a.o_stride = HEADS * DIM;
        c.a.kv_stride = KV_HEADS * DIM;
        c.a.o = o;
        c.a.lse = lse;
        c.a.d_o = d_o;
        c.a.dq = dq;
        c.a.dk = dk;
        c.a.dv = dv;
        (void)attention_loss(&c);
        EXPECT_OK(d.ops->attention_backward(d.exec, &c.a, &err));
        /* steps of 1e-2 on scores of size 2: about 1e-4 from the cubic term, f32 rounding below that */
        test_gradient(attention_loss, &c, q, dq, NQ, 1e-2, 3e-3);
        test_gradient(attention_loss, &c, k, dk, NK, 1e-2, 3e-3);
        test_gradient(attention_loss, &c, v, dv, NK, 1e-2, 3e-3);
        test_device_close(&d);
    }
    float *blocks[] = {q, k, v, o, d_o, lse, dq, dk, dv};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        free(blocks[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
