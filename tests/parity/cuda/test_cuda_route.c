/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA router and dispatch plan against the CPU's on random shapes: the same choices, the same numbers within
 * rounding. */
#include "parity/cuda/sides.h"
#include "parity/routers.h"

/* Sums of at most a few hundred terms of order 1 in another order, and another exp: relative error about
 * sqrt(300) 2^-24, some 1e-6. A choice between two experts whose scores are a rounding error apart could differ; scores
 * are spread over [0, 1], so that 1e4 choices meet a gap below 1e-7 about once in a thousand seeds, and the seeds are
 * fixed. */
#define TOLERANCE 2e-5
enum { ROUNDS = 26 };

/* Experts in one and in several registers of a lane. */
static int32_t experts_of(uint64_t *rng, int round) {
    if (round == 3)
        return 1024;
    if (round == 8)
        return 300;
    return (int32_t)(round % 5 == 1 ? parity_draw(rng, 60, 130) : parity_draw(rng, 3, 37));
}

static void one_round(sides *side, uint64_t *rng, int round) {
    emo_error err = EMO_ERROR_INIT;
    router_shape s = router_draw(rng, experts_of(rng, round));
    int64_t cells = s.n_segments * s.n, weights = s.tokens * s.k_total;
    void *w;
    float *x = test_floats((size_t)(s.tokens * s.hidden), 1, 2.0f), *dw = test_floats((size_t)weights, 2, 1.0f);
    float *bias = test_floats((size_t)s.n, 3, 0.1f), *balance = test_floats((size_t)cells, 4, 1.0f);
    emo_weight weight = parity_weight(parity_dtype(rng), s.n + s.shared, s.hidden, 5, &w);
    int sizes = parity_draw(rng, 0, 2) != 0, biased = parity_draw(rng, 0, 1) != 0;
    int want_weights = parity_draw(rng, 0, 5) != 0, balanced = parity_draw(rng, 0, 3) != 0;
    emo_route_args a = router_args(rng, &s);
    a.first_token = 5;
    sides_out logits = sides_floats(s.tokens * s.columns, 6), usage = sides_floats(cells, 7);
    sides_out scores = sides_floats(s.tokens * s.n, 8), chosen = sides_floats(weights, 9);
    sides_out lse = sides_floats(s.tokens, 10), sum = sides_floats(s.n, 11), parts = sides_floats(cells, 12);
    sides_out dl = sides_floats(s.tokens * s.columns, 13), dx = sides_floats(s.tokens * s.hidden, 14);
    sides_out dgate = sides_floats((s.n + s.shared) * s.hidden, 15);
    sides_bytes allowed = sides_exact((size_t)cells), indices = sides_exact((size_t)weights * 4);
    sides_bytes counts = sides_exact((size_t)(s.n + s.shared) * 4), segment_counts = sides_exact((size_t)cells * 4);
    double z[SIDES_COUNT] = {3.0, 3.0, 3.0};
    int bare = round % 7 == 6; /* a forward pass for inference: no sums */
    for (side->side = 0; side->side < SIDES_COUNT; side->side++) {
        a.x = sides_in(side, x, (size_t)(s.tokens * s.hidden) * 4);
        a.weight = sides_weight(side, weight);
        a.segment_begin = sides_in(side, s.begin, (size_t)(s.n_segments + 1) * 4);
        a.allowed_in = sides_in(side, s.allowed_in, (size_t)cells);
        a.pool_size = sizes ? sides_in(side, s.pool_size, sizeof s.pool_size) : NULL;
        a.always = sides_in(side, s.always, sizeof s.always);
        a.score_bias = biased ? sides_in(side, bias, (size_t)s.n * 4) : NULL;
        a.d_weights = want_weights ? sides_in(side, dw, (size_t)weights * 4) : NULL;
        a.balance = balanced ? sides_in(side, balance, (size_t)cells * 4) : NULL;
        a.logits = sides_io(side, &logits), a.usage = sides_io(side, &usage), a.scores = sides_io(side, &scores);
        a.weights = sides_io(side, &chosen), a.lse = sides_io(side, &lse), a.score_sum = sides_io(side, &sum);
        a.segment_score_sum = sides_io(side, &parts), a.d_logits = sides_io(side, &dl), a.dx = sides_io(side, &dx);
        a.d_weight = sides_io(side, &dgate), a.allowed = sides_io_bytes(side, &allowed);
        a.indices = sides_io_bytes(side, &indices), a.counts = sides_io_bytes(side, &counts);
        a.segment_counts = sides_io_bytes(side, &segment_counts);
        a.z_sum = sides_put(side, &z[side->side], sizeof z[0], 1);
        if (bare) {
            a.usage = NULL, a.scores = NULL, a.lse = NULL, a.score_sum = NULL, a.segment_score_sum = NULL;
            a.counts = NULL, a.segment_counts = NULL, a.z_sum = NULL;
        }
        for (int call = 0; call < ROUTER_CALLS; call++) {
            router_slice(&a, call);
            SIDES_RUN(side, route_forward, &a);
        }
        SIDES_RUN(side, route_backward, &a);
        sides_finish(side, "route");
    }
    sides_equal("route allowed", allowed);
    sides_equal("route indices", indices);
    sides_equal("route counts", counts);
    sides_equal("route segment_counts", segment_counts);
    assert_true(fabs(z[0] - z[1]) < TOLERANCE * z[0] && z[1] == z[2]);
    sides_close_enough("route logits", logits, TOLERANCE);
    sides_close_enough("route usage", usage, TOLERANCE);
    sides_close_enough("route scores", scores, TOLERANCE);
    sides_close_enough("route weights", chosen, TOLERANCE);
    sides_close_enough("route lse", lse, TOLERANCE);
    sides_close_enough("route score_sum", sum, TOLERANCE);
    sides_close_enough("route segment_score_sum", parts, TOLERANCE);
    sides_close_enough("route d_logits", dl, TOLERANCE);
    sides_close_enough("route dx", dx, TOLERANCE);
    sides_close_enough("route d_weight", dgate, TOLERANCE);
    free(x), free(dw), free(bias), free(balance), free(w), free(s.allowed_in);
}

static void routers(void **state) {
    (void)state;
    uint64_t rng = 5;
    sides side = sides_open(EMO_DTYPE_F32);
    for (int round = 0; round < ROUNDS; round++)
        one_round(&side, &rng, round);
    sides_close(&side);
}

/* What the exec computes in does not touch the choice of experts. */
static void routers_of_a_bf16_exec(void **state) {
    (void)state;
    uint64_t rng = 9;
    sides side = sides_open(EMO_DTYPE_BF16);
    for (int round = 0; round < 5; round++)
        one_round(&side, &rng, round);
    sides_close(&side);
}

/* Mostly equal logits: ties go to the lower id, in pools and in choices. */
static void ties_go_to_the_lower_id(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 70, N = 70, K = 4 };
    int32_t begin[3] = {0, 40, TOKENS}, pool_size[2] = {K, 9};
    float *values = test_floats(TOKENS * N, 1, 1.0f);
    for (int i = 0; i < TOKENS * N; i++)
        values[i] = i % N % 3 == 0 ? 1.0f : 0.5f;
    sides side = sides_open(EMO_DTYPE_F32);
    sides_bytes allowed = sides_exact((size_t)2 * N), indices = sides_exact((size_t)TOKENS * K * 4);
    sides_out logits = sides_floats(TOKENS * N, 6), usage = sides_floats(2 * N, 7),
              chosen = sides_floats(TOKENS * K, 8);
    for (int i = 0; i < SIDES_COUNT; i++)
        memcpy(logits.of[i], values, sizeof(float) * TOKENS * N);
    emo_route_args a = {.tokens = TOKENS,
                        .hidden = 1,
                        .experts = N,
                        .k = K,
                        .columns = N,
                        .phases = EMO_ROUTE_POOL | EMO_ROUTE_SELECT,
                        .last = TOKENS,
                        .n_segments = 2};
    for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
        a.segment_begin = sides_in(&side, begin, sizeof begin);
        a.pool_size = sides_in(&side, pool_size, sizeof pool_size);
        a.logits = sides_io(&side, &logits), a.usage = sides_io(&side, &usage), a.weights = sides_io(&side, &chosen);
        a.allowed = sides_io_bytes(&side, &allowed), a.indices = sides_io_bytes(&side, &indices);
        SIDES_RUN(&side, route_forward, &a);
        sides_finish(&side, "route with ties");
    }
    const int32_t *ids = indices.of[1];
    for (int j = 0; j < K; j++)
        assert_int_equal(ids[j], 3 * j);
    sides_equal("allowed", allowed);
    sides_equal("indices", indices);
    sides_close_enough("weights", chosen, TOLERANCE);
    sides_free(&logits), sides_free(&usage);
    free(values);
    sides_close(&side);
}

/* One block's worth of assignments and many; experts nobody chose; entries that are left out. */
static void plans(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 3;
    sides side = sides_open(EMO_DTYPE_F32);
    for (int round = 0; round < 12; round++) {
        int32_t n = (int32_t)parity_draw(&rng, 1, 40), k = (int32_t)parity_draw(&rng, 1, 8);
        int64_t tokens = round == 0 ? 0 : parity_draw(&rng, 1, round % 3 == 0 ? 900 : 100);
        if (round == 4)
            n = 1024;
        if (round == 5)
            tokens = 2048 / k; /* whole pieces */
        int64_t all = tokens * k;
        int32_t *ids = malloc((size_t)(all + 1) * sizeof *ids);
        assert_non_null(ids);
        for (int64_t i = 0; i < all; i++)
            ids[i] = (int32_t)parity_draw(&rng, -1, round % 2 ? n - 1 : n / 2);
        sides_bytes offsets = sides_exact((size_t)(n + 1) * 4), order = sides_exact((size_t)all * 4);
        sides_bytes inverse = sides_exact((size_t)all * 4);
        for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
            emo_plan_args a = {.tokens = tokens, .k_total = k, .experts = n};
            a.indices = sides_in(&side, ids, (size_t)all * 4);
            a.offsets = sides_io_bytes(&side, &offsets), a.order = sides_io_bytes(&side, &order);
            a.inverse = sides_io_bytes(&side, &inverse);
            SIDES_RUN(&side, plan, &a);
            sides_finish(&side, "plan");
        }
        sides_equal("plan offsets", offsets);
        sides_equal("plan order", order);
        sides_equal("plan inverse", inverse);
        free(ids);
    }
    sides_close(&side);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plans), cmocka_unit_test(ties_go_to_the_lower_id),
                                       cmocka_unit_test(routers), cmocka_unit_test(routers_of_a_bf16_exec)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
