/* SPDX-License-Identifier: Apache-2.0 */
/* The operators that no composed default uses, and the primitives by themselves: CUDA against the CPU on random shapes.
 * Both sides get the same arrays, so that what must stay untouched is compared too. */
#include <math.h>

#define PARITY_ON_PLUGIN
#include "parity/parity.h"

/* Sums of some hundred terms of order 1 in another order: about sqrt(300) * 2^-24, some 1e-6. */
#define TOLERANCE 2e-5
enum { ROUNDS = 12 };

#define SIDE(out) (side == 0 ? (out).fused : (out).composed)
#define BOTH(entry, args)                                                                                              \
    EXPECT_OK((side == 0 ? p.fused : p.composed).ops->entry((side == 0 ? p.fused : p.composed).exec, args, &err))

static int32_t *draw_ints(uint64_t *rng, int64_t n, int64_t low, int64_t high) {
    int32_t *out = malloc((size_t)(n + 1) * sizeof *out);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++)
        out[i] = (int32_t)parity_draw(rng, low, high);
    return out;
}

static uint8_t *draw_flags(uint64_t *rng, int64_t n) {
    uint8_t *out = malloc((size_t)n + 1);
    assert_non_null(out);
    for (int64_t i = 0; i < n; i++)
        out[i] = parity_draw(rng, 0, 2) != 0;
    return out;
}

static void embeddings(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 11;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t tokens = parity_draw(&rng, 1, round == 3 ? 700 : 90), d = parity_draw(&rng, 1, 300);
        int64_t vocab = parity_draw(&rng, 1, 20); /* every id comes often, over blocks of tokens too */
        void *w;
        int32_t *ids = draw_ints(&rng, tokens, 0, vocab - 1);
        float *d_out = test_floats((size_t)(tokens * d), 1, 1.0f);
        parity_out out = parity_both(tokens * d, 2), dw = parity_both(vocab * d, 3);
        emo_embed_args a = {.tokens = tokens, .hidden = d, .ids = ids, .d_out = d_out};
        a.weight = parity_weight(parity_dtype(&rng), vocab, d, 4, &w);
        for (int side = 0; side < 2; side++) {
            a.out = SIDE(out);
            a.d_weight = SIDE(dw);
            BOTH(embed_forward, &a);
            BOTH(embed_backward, &a);
        }
        parity_close_enough("embed out", out, 0.0);
        parity_close_enough("embed d_weight", dw, 0.0); /* the same order: the same bits */
        free(ids), free(d_out), free(w);
    }
    parity_close(&p);
}

static void ropes(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 12;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t tokens = parity_draw(&rng, 1, 60), rows = parity_draw(&rng, 1, 40);
        int32_t heads = (int32_t)parity_draw(&rng, 1, 5), dim = 2 * (int32_t)parity_draw(&rng, 1, 20);
        int64_t stride = heads * dim + parity_draw(&rng, 0, 3);
        int32_t *positions = draw_ints(&rng, tokens, 0, rows - 1);
        float *c = test_floats((size_t)(rows * dim / 2), 1, 1.0f), *s = test_floats((size_t)(rows * dim / 2), 2, 1.0f);
        parity_out x = parity_both(tokens * stride, 3);
        emo_rope_args a = {tokens, heads, dim, stride, positions, c, s, NULL, round & 1};
        for (int side = 0; side < 2; side++) {
            a.x = SIDE(x);
            BOTH(rope, &a);
        }
        parity_close_enough("rope", x, 1e-6); /* two products and a sum; the device may fuse them */
        free(positions), free(c), free(s);
    }
    parity_close(&p);
}

static void optimizer(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 13;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t n = parity_draw(&rng, 1, round == 2 ? 20000 : 900);
        float *g = test_floats((size_t)n, 1, 1.0f);
        parity_out w = parity_both(n, 2), m = parity_both(n, 3), v = parity_both(n, 4);
        for (int64_t i = 0; i < n; i++)
            v.fused[i] = v.composed[i] = v.fused[i] * v.fused[i];
        if (round == 5)
            g[n / 2] = (float)NAN; /* then the step is left out */
        for (int side = 0; side < 2; side++) {
            emo_step_scalars s = {.lr = 0.01f, .bias1 = 0.1f, .bias2 = 0.05f};
            emo_sumsq_args sumsq = {n, g, &s.sumsq};
            emo_clip_args clip = {round % 3 == 0 ? 0.0f : 1.0f, &s};
            BOTH(sumsq, &sumsq);
            BOTH(clip, &clip);
            double want = 0.0;
            for (int64_t i = 0; i < n; i++)
                want += (double)g[i] * (double)g[i];
            assert_int_equal(s.skip, round == 5);
            if (round != 5) {
                assert_true(s.sumsq - want < 1e-12 * want && want - s.sumsq < 1e-12 * want);
                assert_true(s.clip_scale <= 1.0f && (round % 3 == 0 ? s.clip_scale == 1.0f : s.clip_scale > 0.0f));
            }
            emo_adamw_args a = {n, SIDE(w), g, SIDE(m), SIDE(v), 0.9f, 0.95f, 1e-8f, 0.1f, &s};
            BOTH(adamw, &a);
        }
        parity_close_enough("adamw p", w, 1e-6);
        parity_close_enough("adamw m", m, 1e-6);
        parity_close_enough("adamw v", v, 1e-6);
        free(g);
    }
    parity_close(&p);
}

static void balances(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 14;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int32_t n = (int32_t)parity_draw(&rng, 1, 300), sources = (int32_t)parity_draw(&rng, 0, 9);
        int64_t documents = parity_draw(&rng, 1, 7), cells = documents * n;
        const void *data[9];
        emo_dtype dtypes[9];
        double coef[9];
        for (int32_t s = 0; s < sources; s++) {
            dtypes[s] = s % 2 == 0 ? EMO_DTYPE_I32 : EMO_DTYPE_F32;
            data[s] = s % 2 == 0 ? (void *)draw_ints(&rng, n, 0, 90) : (void *)test_floats((size_t)n, 5, 9.0f);
            coef[s] = 0.1 * (double)(s + 1);
        }
        float *sum = test_floats((size_t)cells, 6, 1.0f);
        int32_t *counts = draw_ints(&rng, cells, 0, 40), begin[8] = {0};
        uint8_t *allowed = draw_flags(&rng, cells);
        for (int64_t i = 0; i < documents; i++)
            begin[i + 1] = begin[i] + (int32_t)parity_draw(&rng, 1, 50);
        parity_out f = parity_both(n, 7), grad = parity_both(n, 8), by_document = parity_both(cells, 9);
        double loss[2] = {1.0, 1.0}, document_loss[2] = {2.0, 2.0};
        for (int side = 0; side < 2; side++) {
            emo_balance_args a = {n,
                                  sources,
                                  data,
                                  dtypes,
                                  coef,
                                  SIDE(f),
                                  0.3,
                                  0.7,
                                  round % 4 == 0 ? NULL : sum,
                                  &loss[side],
                                  round % 3 == 0 ? NULL : SIDE(grad)};
            BOTH(balance, &a);
            emo_balance_documents_args d = {
                n, 3, documents, begin, allowed, counts, sum, 0.2, 0.6, &document_loss[side], SIDE(by_document)};
            BOTH(balance_documents, &d);
        }
        assert_true(loss[0] - loss[1] < 1e-9 && loss[1] - loss[0] < 1e-9); /* f64 sums of numbers up to some 1e4 */
        assert_true(document_loss[0] - document_loss[1] < 1e-9 && document_loss[1] - document_loss[0] < 1e-9);
        parity_close_enough("balance f", f, 1e-6);
        parity_close_enough("balance grad", grad, 1e-6);
        parity_close_enough("balance by document", by_document, 1e-6);
        for (int32_t s = 0; s < sources; s++)
            free((void *)(uintptr_t)data[s]);
        free(sum), free(counts), free(allowed);
    }
    parity_close(&p);
}

static void products(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 15;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < 3 * ROUNDS; round++) {
        int64_t m = parity_draw(&rng, 1, 70), n = parity_draw(&rng, 1, 70),
                k = round == 7 ? 0 : parity_draw(&rng, 1, 90);
        emo_gemm_args g = parity_product(&rng, round, m, n, k);
        void *b;
        float *a = test_floats((size_t)((g.trans_a ? k : m) * g.lda), 1, 1.0f);
        (void)parity_weight(g.b_dtype, g.trans_b ? n : k + 1, g.ldb, 2, &b);
        g.a = a;
        g.b = b;
        parity_out c = parity_both(m * g.ldc, 3);
        for (int side = 0; side < 2; side++) {
            g.c = SIDE(c);
            BOTH(gemm, &g);
        }
        parity_close_enough("gemm", c, TOLERANCE);
        free(a), free(b);
    }
    parity_close(&p);
}

static void rows(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 16;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t r = parity_draw(&rng, 1, 50), c = parity_draw(&rng, 1, 300), sets = parity_draw(&rng, 1, 4);
        int32_t k = (int32_t)parity_draw(&rng, 1, 6);
        float *x = test_floats((size_t)(r * c), 1, 2.0f), *y = test_floats((size_t)(r * k), 2, 1.0f);
        int32_t *indices = draw_ints(&rng, r * k, -1, c), *set_of = draw_ints(&rng, r, 0, sets - 1);
        uint8_t *allowed = draw_flags(&rng, sets * c);
        memset(allowed, round == 4 ? 0 : allowed[0], (size_t)c); /* a set with nothing, or all, allowed */
        double total[2] = {0.5, 0.5};
        parity_out dots = parity_both(r, 3), picked = parity_both(r * k, 4), added = parity_both(r * c, 5);
        parity_out probs = parity_both(r * c, 6), lse = parity_both(r, 7), values = parity_both(r * (k + 1), 8);
        parity_out segment = parity_both(sets * c, 9);
        int32_t *chosen[2], *counts[2], fixed[1] = {(int32_t)parity_draw(&rng, 0, c)};
        for (int side = 0; side < 2; side++) {
            uint64_t same = 99;
            chosen[side] = draw_ints(&same, r * (k + 1), 0, 9);
            counts[side] = draw_ints(&same, sets * c, 0, 9);
            emo_row_dot_args dot = {r, c, {x, c, 1}, {x, 0, 1}, SIDE(dots), &total[side]};
            BOTH(row_dot, &dot);
            emo_pick_args pick = {r, c, k, 0, 1.0f, indices, k, x, c, SIDE(picked), k};
            BOTH(pick, &pick);
            emo_pick_args add = {r, c, k, 1, 0.5f, indices, k, SIDE(added), c, y, k};
            BOTH(pick, &add);
            emo_softmax_args soft = {.rows = r, .cols = c, .x = x, .x_stride = c, .allowed = allowed};
            soft.set_of = set_of;
            soft.probs = SIDE(probs);
            soft.lse = SIDE(lse);
            soft.causal = round % 3 == 0 ? 1 : 0;
            soft.sigmoid = round % 4 == 1;
            soft.floor = 1e-7f;
            BOTH(softmax, &soft);
            emo_topk_args top = {r,           c, k, 1, fixed, x, c, round % 2 ? x : NULL, allowed, set_of, chosen[side],
                                 SIDE(values)};
            BOTH(topk, &top);
            emo_segment_sum_args sum = {r, c, set_of, x, SIDE(segment)};
            BOTH(segment_sum, &sum);
            emo_count_args count = {r, k, (int32_t)c, indices, set_of, counts[side]};
            BOTH(count, &count);
        }
        assert_true(total[0] - total[1] < 1e-9 && total[1] - total[0] < 1e-9);
        assert_memory_equal(chosen[0], chosen[1], (size_t)(r * (k + 1)) * sizeof(int32_t));
        assert_memory_equal(counts[0], counts[1], (size_t)(sets * c) * sizeof(int32_t));
        parity_close_enough("row_dot", dots, 1e-6);
        parity_close_enough("pick", picked, 0.0);
        parity_close_enough("pick add", added, 1e-6);
        parity_close_enough("softmax", probs, 1e-6);
        parity_close_enough("softmax lse", lse, 1e-6);
        parity_close_enough("topk", values, 0.0);
        parity_close_enough("segment_sum", segment, 1e-6);
        for (int side = 0; side < 2; side++)
            free(chosen[side]), free(counts[side]);
        free(x), free(y), free(indices), free(set_of), free(allowed);
    }
    parity_close(&p);
}

static void gathers(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 17;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int64_t tokens = parity_draw(&rng, 1, 40), w = parity_draw(&rng, 1, 90);
        int32_t k = (int32_t)parity_draw(&rng, 1, 5), some = (int32_t)parity_draw(&rng, 0, tokens * k);
        int64_t all = tokens * k;
        float *src = test_floats((size_t)(tokens * w), 1, 1.0f), *weights = test_floats((size_t)all, 2, 1.0f);
        float *from = test_floats((size_t)(all * w), 3, 1.0f);
        int32_t *order = draw_ints(&rng, all, 0, all - 1), *inverse = draw_ints(&rng, all, -1, all - 1);
        parity_out dst = parity_both(all * w, 4), sum = parity_both(tokens * w, 5), dw = parity_both(all, 6);
        for (int side = 0; side < 2; side++) {
            emo_gather_args g = {all, round % 2 ? &some : NULL, w, k, round % 3 ? order : NULL, src, SIDE(dst)};
            BOTH(gather, &g);
            emo_combine_args c = {tokens, w,         k,         inverse, round % 3 ? weights : NULL,
                                  from,   SIDE(sum), round & 1, src,     round % 4 ? SIDE(dw) : NULL};
            BOTH(combine, &c);
        }
        parity_close_enough("gather", dst, 0.0);
        parity_close_enough("combine", sum, 1e-6);
        parity_close_enough("combine d_weights", dw, TOLERANCE);
        free(src), free(weights), free(from), free(order), free(inverse);
    }
    parity_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embeddings), cmocka_unit_test(ropes), cmocka_unit_test(optimizer), cmocka_unit_test(balances),
        cmocka_unit_test(products),   cmocka_unit_test(rows),  cmocka_unit_test(gathers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
