/* SPDX-License-Identifier: Apache-2.0 */
/* Composed and fused block operators on random shapes: the same numbers within float rounding. */
#include "parity/parity.h"
#include "support/pages.h"

/* Sums have at most a few hundred terms of order 1, added in another order: relative error about sqrt(300) * 2^-24,
 * some 1e-6; two products in a row and gradients sum over rows as well. A wrong formula is off by 1e-3 and more. */
#define TOLERANCE 2e-5
enum { ROUNDS = 12 };

static void linear_layers(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 1;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t tokens = parity_draw(&rng, 1, 70), in = parity_draw(&rng, 1, 90), out = parity_draw(&rng, 1, 90);
        int64_t xs = in + parity_draw(&rng, 0, 5), ys = out + parity_draw(&rng, 0, 5);
        void *w, *b;
        float *x = test_floats((size_t)(tokens * xs), 3, 1.0f), *dy = test_floats((size_t)(tokens * ys), 4, 1.0f);
        emo_linear_args a = {.tokens = tokens,
                             .x = x,
                             .x_stride = xs,
                             .weight = parity_weight(parity_dtype(&rng), out, in, 1, &w),
                             .bias = parity_weight(parity_dtype(&rng), 1, out, 2, &b),
                             .y_stride = ys,
                             .accumulate = round & 1,
                             .dy = dy,
                             .dx_accumulate = (round >> 1) & 1};
        if (round % 3 == 2)
            a.bias.data = NULL;
        parity_out y = parity_both(tokens * ys, 5), dx = parity_both(tokens * xs, 6), dw = parity_both(out * in, 7);
        parity_out db = parity_both(out, 8);
        a.y = y.fused, a.dx = dx.fused, a.d_weight = dw.fused, a.d_bias = db.fused;
        EXPECT_OK(p.fused.ops->linear_forward(p.fused.exec, &a, &err));
        EXPECT_OK(p.fused.ops->linear_backward(p.fused.exec, &a, &err));
        a.y = y.composed, a.dx = dx.composed, a.d_weight = dw.composed, a.d_bias = db.composed;
        EXPECT_OK(p.composed.ops->linear_forward(p.composed.exec, &a, &err));
        EXPECT_OK(p.composed.ops->linear_backward(p.composed.exec, &a, &err));
        parity_close_enough("linear y", y, TOLERANCE);
        parity_close_enough("linear dx", dx, TOLERANCE);
        parity_close_enough("linear d_weight", dw, TOLERANCE);
        parity_close_enough("linear d_bias", db, TOLERANCE);
        free(x), free(dy), free(w), free(b);
    }
    parity_close(&p);
}

static void norms_and_swiglu(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 2;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t tokens = parity_draw(&rng, 1, 60), n = parity_draw(&rng, 1, 70), stride = 2 * n + 1;
        void *w;
        float *x = test_floats((size_t)(tokens * n), 3, 1.0f), *dy = test_floats((size_t)(tokens * n), 4, 1.0f);
        float *both = test_floats((size_t)(tokens * stride), 5, 3.0f);
        emo_norm_args norm = {.tokens = tokens,
                              .hidden = n,
                              .eps = 1e-6f,
                              .x = x,
                              .weight = parity_weight(parity_dtype(&rng), 1, n, 1, &w),
                              .dy = dy,
                              .dx_accumulate = round & 1};
        parity_out y = parity_both(tokens * n, 6), r = parity_both(tokens, 7), dx = parity_both(tokens * n, 8);
        parity_out dw = parity_both(n, 9), h = parity_both(tokens * n, 10), dg = parity_both(tokens * stride, 11);
        emo_swiglu_args glu = {
            .tokens = tokens, .inner = n, .gate = both, .up = both + n, .stride = stride, .y = h.fused, .dy = dy};
        norm.y = y.fused, norm.rstd = r.fused, norm.dx = dx.fused, norm.d_weight = dw.fused;
        glu.d_gate = dg.fused, glu.d_up = dg.fused + n;
        EXPECT_OK(p.fused.ops->norm_forward(p.fused.exec, &norm, &err));
        EXPECT_OK(p.fused.ops->norm_backward(p.fused.exec, &norm, &err));
        EXPECT_OK(p.fused.ops->swiglu_forward(p.fused.exec, &glu, &err));
        EXPECT_OK(p.fused.ops->swiglu_backward(p.fused.exec, &glu, &err));
        norm.y = y.composed, norm.rstd = r.composed, norm.dx = dx.composed, norm.d_weight = dw.composed;
        glu.y = h.composed, glu.d_gate = dg.composed, glu.d_up = dg.composed + n;
        EXPECT_OK(p.composed.ops->norm_forward(p.composed.exec, &norm, &err));
        EXPECT_OK(p.composed.ops->norm_backward(p.composed.exec, &norm, &err));
        EXPECT_OK(p.composed.ops->swiglu_forward(p.composed.exec, &glu, &err));
        EXPECT_OK(p.composed.ops->swiglu_backward(p.composed.exec, &glu, &err));
        parity_close_enough("norm y", y, TOLERANCE);
        parity_close_enough("norm rstd", r, TOLERANCE);
        parity_close_enough("norm dx", dx, TOLERANCE);
        parity_close_enough("norm d_weight", dw, TOLERANCE);
        parity_close_enough("swiglu y", h, TOLERANCE);
        parity_close_enough("swiglu d_gate, d_up", dg, TOLERANCE);
        free(x), free(dy), free(both), free(w);
    }
    parity_close(&p);
}

static void attentions(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 3;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t n_segments = parity_draw(&rng, 1, 4), queries = 0, keys = 0;
        emo_attention_segment segments[4];
        for (int64_t i = 0; i < n_segments; i++) {
            /* one-token documents, a cache (fewer queries than keys), more than one block of queries */
            int64_t k = i == 0 ? 1 : parity_draw(&rng, 1, round == 5 ? 300 : 60);
            int64_t q = round % 3 == 0 ? parity_draw(&rng, 1, k) : k;
            segments[i] = (emo_attention_segment){queries, q, keys, k};
            queries += q;
            keys += k;
        }
        int32_t kv_heads = (int32_t)parity_draw(&rng, 1, 2), heads = kv_heads * (int32_t)parity_draw(&rng, 1, 3);
        int32_t dim = (int32_t)parity_draw(&rng, 1, 17) * 2;
        int64_t qs = heads * dim + 3, ks = kv_heads * dim + 1, os = heads * dim + 2;
        float *q = test_floats((size_t)(queries * qs), 1, 1.0f), *k = test_floats((size_t)(keys * ks), 2, 1.0f);
        float *v = test_floats((size_t)(keys * ks), 3, 1.0f), *d_o = test_floats((size_t)(queries * os), 4, 1.0f);
        parity_out o = parity_both(queries * os, 5), lse = parity_both(queries * heads, 6);
        parity_out dq = parity_both(queries * qs, 7), dk = parity_both(keys * ks, 8), dv = parity_both(keys * ks, 9);
        emo_attention_args a = {.n_segments = n_segments,
                                .segments = segments,
                                .q_first = round % 4 == 1 ? queries / 3 : 0,
                                .q_last = round % 4 == 1 ? queries * 2 / 3 : queries,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .head_dim = dim,
                                .scale = 0.3f,
                                .q = q,
                                .q_stride = qs,
                                .k = k,
                                .v = v,
                                .kv_stride = ks,
                                .o_stride = os,
                                .d_o = d_o};
        a.o = o.fused, a.lse = lse.fused, a.dq = dq.fused, a.dk = dk.fused, a.dv = dv.fused;
        EXPECT_OK(p.fused.ops->attention_forward(p.fused.exec, &a, &err));
        a.o = o.composed, a.lse = lse.composed, a.dq = dq.composed, a.dk = dk.composed, a.dv = dv.composed;
        emo_attention_args paged = a;
        test_pages pages = test_pages_make(&paged, k, v, 16);
        paged.segments = pages.segments;
        EXPECT_OK(p.composed.ops->attention_forward(p.composed.exec, round % 2 == 0 ? &paged : &a, &err));
        test_pages_free(&pages);
        if (round % 4 != 1 && round % 3 != 0) { /* training: whole documents */
            EXPECT_OK(p.composed.ops->attention_backward(p.composed.exec, &a, &err));
            a.o = o.fused, a.lse = lse.fused, a.dq = dq.fused, a.dk = dk.fused, a.dv = dv.fused;
            EXPECT_OK(p.fused.ops->attention_backward(p.fused.exec, &a, &err));
        }
        parity_close_enough("attention o", o, TOLERANCE);
        parity_close_enough("attention lse", lse, TOLERANCE);
        parity_close_enough("attention dq", dq, TOLERANCE);
        parity_close_enough("attention dk", dk, TOLERANCE);
        parity_close_enough("attention dv", dv, TOLERANCE);
        free(q), free(k), free(v), free(d_o);
    }
    parity_close(&p);
}

static void heads(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 4;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t tokens = round == 3 ? 300 : parity_draw(&rng, 1, 60), d = parity_draw(&rng, 1, 40);
        int64_t vocab = parity_draw(&rng, 2, 200);
        void *w;
        float *x = test_floats((size_t)(tokens * d), 1, 1.0f);
        int32_t labels[300], rows[7];
        for (int64_t t = 0; t < tokens; t++)
            labels[t] = parity_draw(&rng, 0, 3) == 0 ? -100 : (int32_t)parity_draw(&rng, 0, vocab - 1);
        for (int i = 0; i < 7; i++)
            rows[i] = (int32_t)parity_draw(&rng, 0, tokens - 1);
        parity_out loss = parity_both(tokens, 2), dx = parity_both(tokens * d, 3), dw = parity_both(vocab * d, 4);
        parity_out logits = parity_both(7 * vocab, 5);
        double ce[2] = {1.0, 1.0}, z[2] = {2.0, 2.0};
        emo_head_args a = {.tokens = tokens,
                           .hidden = d,
                           .x = x,
                           .weight = parity_weight(parity_dtype(&rng), vocab, d, 6, &w),
                           .labels = labels,
                           .ce_scale = 0.7f,
                           .z_scale = 0.01f};
        emo_head_logits_args l = {.n_rows = 7, .hidden = d, .rows = rows, .x = x, .weight = a.weight};
        for (int side = 0; side < 2; side++) {
            test_device *device = side == 0 ? &p.fused : &p.composed;
            a.token_loss = side == 0 ? loss.fused : loss.composed;
            a.dx = round % 4 == 0 ? NULL : side == 0 ? dx.fused : dx.composed;
            a.d_weight = side == 0 ? dw.fused : dw.composed;
            a.ce_sum = &ce[side];
            a.z_sum = &z[side];
            l.logits = side == 0 ? logits.fused : logits.composed;
            EXPECT_OK(device->ops->head_loss(device->exec, &a, &err));
            EXPECT_OK(device->ops->head_logits(device->exec, &l, &err));
        }
        assert_true(ce[0] - ce[1] < TOLERANCE * ce[0] && ce[1] - ce[0] < TOLERANCE * ce[0]);
        assert_true(z[0] - z[1] < TOLERANCE * z[0] && z[1] - z[0] < TOLERANCE * z[0]);
        parity_close_enough("head token_loss", loss, TOLERANCE);
        parity_close_enough("head dx", dx, TOLERANCE);
        parity_close_enough("head d_weight", dw, TOLERANCE);
        parity_close_enough("head_logits", logits, TOLERANCE);
        free(x), free(w);
    }
    parity_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_layers),
        cmocka_unit_test(norms_and_swiglu),
        cmocka_unit_test(attentions),
        cmocka_unit_test(heads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
