/* SPDX-License-Identifier: Apache-2.0 */
/* Composed and fused router and experts on random shapes: the same choices, and the same numbers within rounding. */
#include "parity/routers.h"

/* As in test_composed.c: sums of at most a few hundred terms of order 1. A choice between two experts whose scores are
 * a rounding error apart could differ; scores are spread over [0, 1], so that 1e4 choices meet a gap below 1e-7 about
 * once in a thousand seeds, and the seeds are fixed. */
#define TOLERANCE 2e-5
enum { ROUNDS = 40 };

typedef struct choices {
    uint8_t *allowed;
    int32_t *indices, *counts, *segment_counts;
    double z_sum;
} choices;

static int32_t *ints(int64_t n) {
    int32_t *p = malloc((size_t)(n + 1) * sizeof *p);
    assert_non_null(p);
    for (int64_t i = 0; i < n; i++)
        p[i] = (int32_t)i;
    return p;
}

static choices make_choices(const router_shape *s) {
    choices c = {calloc((size_t)(s->n_segments * s->n), 1), ints(s->tokens * s->k_total), ints(s->n + s->shared),
                 ints(s->n_segments * s->n), 3.0};
    assert_non_null(c.allowed);
    return c;
}

static void free_choices(choices *c) { free(c->allowed), free(c->indices), free(c->counts), free(c->segment_counts); }

static void routers(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 5;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int32_t n = (int32_t)parity_draw(&rng, 3, 37);
        router_shape s = router_draw(&rng, n);
        int64_t cells = s.n_segments * s.n, weights = s.tokens * s.k_total;
        void *w;
        float *x = test_floats((size_t)(s.tokens * s.hidden), 1, 2.0f), *dw = test_floats((size_t)weights, 2, 1.0f);
        float *bias = test_floats((size_t)s.n, 3, 0.1f), *balance = test_floats((size_t)cells, 4, 1.0f);
        emo_route_args a = router_args(&rng, &s);
        a.x = x;
        a.weight = parity_weight(parity_dtype(&rng), s.n + s.shared, s.hidden, 5, &w);
        a.segment_begin = s.begin;
        a.allowed_in = s.allowed_in;
        a.pool_size = parity_draw(&rng, 0, 2) ? s.pool_size : NULL;
        a.always = s.always;
        a.score_bias = parity_draw(&rng, 0, 1) ? bias : NULL;
        a.d_weights = parity_draw(&rng, 0, 5) ? dw : NULL;
        a.balance = parity_draw(&rng, 0, 3) ? balance : NULL;
        parity_out logits = parity_both(s.tokens * s.columns, 6), usage = parity_both(cells, 7);
        parity_out scores = parity_both(s.tokens * s.n, 8), chosen = parity_both(weights, 9);
        parity_out lse = parity_both(s.tokens, 10), sum = parity_both(s.n, 11), parts = parity_both(cells, 12);
        parity_out dl = parity_both(s.tokens * s.columns, 13), dx = parity_both(s.tokens * s.hidden, 14);
        parity_out dgate = parity_both((s.n + s.shared) * s.hidden, 15);
        choices one = make_choices(&s), two = make_choices(&s);
        for (int side = 0; side < 2; side++) {
            test_device *device = side == 0 ? &p.fused : &p.composed;
            choices *c = side == 0 ? &one : &two;
#define SIDE(out) (side == 0 ? (out).fused : (out).composed)
            a.logits = SIDE(logits), a.usage = SIDE(usage), a.scores = SIDE(scores), a.weights = SIDE(chosen);
            a.lse = SIDE(lse), a.score_sum = SIDE(sum), a.segment_score_sum = SIDE(parts), a.d_logits = SIDE(dl);
            a.dx = SIDE(dx), a.d_weight = SIDE(dgate);
            a.allowed = c->allowed, a.indices = c->indices, a.counts = c->counts;
            a.segment_counts = c->segment_counts, a.z_sum = &c->z_sum;
            for (int call = 0; call < ROUTER_CALLS; call++) {
                router_slice(&a, call);
                EXPECT_OK(device->ops->route_forward(device->exec, &a, &err));
            }
            EXPECT_OK(device->ops->route_backward(device->exec, &a, &err));
        }
        assert_memory_equal(one.allowed, two.allowed, (size_t)cells);
        assert_memory_equal(one.indices, two.indices, (size_t)weights * sizeof(int32_t));
        assert_memory_equal(one.counts, two.counts, (size_t)(s.n + s.shared) * sizeof(int32_t));
        assert_memory_equal(one.segment_counts, two.segment_counts, (size_t)cells * sizeof(int32_t));
        assert_true(one.z_sum - two.z_sum < TOLERANCE * one.z_sum && two.z_sum - one.z_sum < TOLERANCE * one.z_sum);
        parity_close_enough("route logits", logits, TOLERANCE);
        parity_close_enough("route usage", usage, TOLERANCE);
        parity_close_enough("route scores", scores, TOLERANCE);
        parity_close_enough("route weights", chosen, TOLERANCE);
        parity_close_enough("route lse", lse, TOLERANCE);
        parity_close_enough("route score_sum", sum, TOLERANCE);
        parity_close_enough("route segment_score_sum", parts, TOLERANCE);
        parity_close_enough("route d_logits", dl, TOLERANCE);
        parity_close_enough("route dx", dx, TOLERANCE);
        parity_close_enough("route d_weight", dgate, TOLERANCE);
        free_choices(&one);
        free_choices(&two);
        free(x), free(dw), free(bias), free(balance), free(w), free(s.allowed_in);
    }
    parity_close(&p);
}

enum { MAX_EXPERTS = 12 };

static void make_slots(emo_expert_slot *slots, int32_t experts, int64_t hidden, int64_t inner, uint64_t *rng,
                       const int32_t *offsets, void *bytes[]) {
    emo_dtype dtype = parity_dtype(rng);
    memset(slots, 0, (size_t)experts * sizeof *slots);
    for (int32_t e = 0; e < experts; e++) {
        slots[e].gate = parity_weight(dtype, inner, hidden, 20 + (uint64_t)e, &bytes[3 * e]);
        slots[e].up = parity_weight(dtype, inner, hidden, 40 + (uint64_t)e, &bytes[3 * e + 1]);
        slots[e].down = parity_weight(dtype, hidden, inner, 60 + (uint64_t)e, &bytes[3 * e + 2]);
        if (offsets[e + 1] == offsets[e]) /* nobody chose it: it need not be loaded */
            slots[e].gate.data = slots[e].up.data = slots[e].down.data = NULL;
    }
}

static void experts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 6;
    parity p;
    parity_open(&p, 2);
    for (int round = 0; round < ROUNDS; round++) {
        int32_t n = (int32_t)parity_draw(&rng, 1, MAX_EXPERTS), k = (int32_t)parity_draw(&rng, 1, 5);
        int64_t tokens = parity_draw(&rng, 1, 90), d = parity_draw(&rng, 1, 50), inner = parity_draw(&rng, 1, 40);
        int64_t rows = tokens * k;
        int32_t *indices = ints(rows), *order = ints(rows), *inverse = ints(rows), offsets[MAX_EXPERTS + 1];
        for (int64_t i = 0; i < rows; i++) /* the last expert stays empty; some entries are left out */
            indices[i] = (int32_t)parity_draw(&rng, -1, n > 1 ? n - 2 : 0);
        emo_plan_args plan = {tokens, k, n, indices, offsets, order, inverse};
        EXPECT_OK(p.fused.ops->plan(p.fused.exec, &plan, &err));
        emo_expert_slot slots[2][MAX_EXPERTS];
        void *bytes[3 * MAX_EXPERTS];
        make_slots(slots[0], n, d, inner, &rng, offsets, bytes);
        memcpy(slots[1], slots[0], sizeof slots[0]);
        int64_t used = offsets[n];
        float *x = test_floats((size_t)(tokens * d), 1, 1.0f), *dy = test_floats((size_t)(tokens * d), 2, 1.0f);
        float *weights = test_floats((size_t)rows, 3, 1.0f);
        emo_experts_args a = {.tokens = tokens,
                              .hidden = d,
                              .inner = inner,
                              .k_total = k,
                              .experts = n,
                              .x = x,
                              .offsets = offsets,
                              .order = order,
                              .inverse = inverse,
                              .weights = weights,
                              .accumulate = round & 1,
                              .dy = dy};
        parity_out saved = parity_both(rows * 2 * inner, 4), y = parity_both(tokens * d, 5);
        parity_out norm = parity_both(rows, 6), dx = parity_both(tokens * d, 7), dw = parity_both(rows, 8);
        parity_out grads = parity_both(3 * n * inner * d, 9);
        for (int side = 0; side < 2; side++) {
            test_device *device = side == 0 ? &p.fused : &p.composed;
            for (int32_t e = 0; e < n; e++) {
                if (round % 5 == 4 && e % 2 == 0)
                    continue; /* gradients of some experts are not wanted */
                slots[side][e].d_gate = SIDE(grads) + 3 * e * inner * d;
                slots[side][e].d_up = slots[side][e].d_gate + inner * d;
                slots[side][e].d_down = slots[side][e].d_up + inner * d;
            }
            a.table = (emo_expert_table){slots[side], n, NULL};
            a.saved = SIDE(saved), a.y = SIDE(y), a.out_norm = SIDE(norm), a.d_weights = SIDE(dw);
            a.dx = round % 7 == 3 ? NULL : SIDE(dx);
            EXPECT_OK(device->ops->experts_forward(device->exec, &a, &err));
            EXPECT_OK(device->ops->experts_backward(device->exec, &a, &err));
        }
        /* rows past the plan's end are undefined */
        for (int64_t i = used * 2 * inner; i < rows * 2 * inner; i++)
            saved.composed[i] = saved.fused[i];
        parity_close_enough("experts saved", saved, TOLERANCE);
        parity_close_enough("experts y", y, TOLERANCE);
        parity_close_enough("experts out_norm", norm, TOLERANCE);
        parity_close_enough("experts dx", dx, TOLERANCE);
        parity_close_enough("experts d_weights", dw, TOLERANCE);
        parity_close_enough("experts gradients", grads, TOLERANCE);
        for (int32_t i = 0; i < 3 * n; i++)
            free(bytes[i]);
        free(indices), free(order), free(inverse), free(x), free(dy), free(weights);
    }
    parity_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(routers), cmocka_unit_test(experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
