/* SPDX-License-Identifier: Apache-2.0 */
/* Routing that no golden case covers: masks against pruned routers, threads, few experts, pools, documents, plans. */
#include <math.h>

#include <emo/router.h>
#include <emo/sys/backend.h>

#include "base/runtime.h"
#include "moe/balance.h"
#include "moe/documents.h"
#include "moe/pool.h"
#include "support/support.h"

enum { T = 300, D = 20, E = 21, K = 4 };

static void forward(emo_router *router, const float *x, int64_t rows, const emo_pool_policy *pool, const emo_mask *mask,
                    emo_routing *g) {
    emo_error err = EMO_ERROR_INIT;
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    b.rows = rows;
    b.seq_len = T / rows;
    b.x = x;
    EXPECT_OK(emo_router_forward(router, &b, pool, mask, g, &err));
}

static emo_router *make(emo_runtime *rt, int32_t experts, const float *w) {
    emo_error err = EMO_ERROR_INIT;
    emo_router_options o = EMO_ROUTER_OPTIONS_INIT;
    o.hidden = D;
    o.experts = experts;
    o.shared = 1;
    o.top_k = K;
    emo_router *router = NULL;
    EXPECT_OK(emo_router_create(rt, &o, &router, &err));
    EXPECT_OK(emo_router_set_weights(router, w, (size_t)experts * D, &err));
    return router;
}

/* A masked router and the router made of the kept rows agree bit for bit, at every level. */
static void masked_equals_pruned(void **state) {
    (void)state;
    static const emo_isa levels[] = {EMO_ISA_SCALAR, EMO_ISA_NEON, EMO_ISA_AVX2, EMO_ISA_AVX512};
    static const int32_t kept[8] = {1, 2, 5, 9, 13, 14, 19, 20};
    static float x[T * D];
    float w[E * D];
    float small_w[8 * D];
    test_fill(x, T * D, 1, 1.0f);
    test_fill(w, E * D, 2, 1.0f);
    for (int i = 0; i < 8; i++)
        memcpy(small_w + i * D, w + kept[i] * D, D * sizeof(float));
    for (size_t l = 0; l < 3; l++) {
        emo_error err = EMO_ERROR_INIT;
        if (!test_has_isa(levels[l]))
            continue;
        emo_runtime *rt = test_runtime(2, levels[l]);
        emo_router *big = make(rt, E, w);
        emo_router *small = make(rt, 8, small_w);
        emo_pool_policy *pool = NULL;
        emo_mask *mask = NULL;
        const int32_t experts = E;
        const int32_t shared = 1;
        EXPECT_OK(emo_pool_policy_create_fixed(rt, 5, &pool, &err));
        EXPECT_OK(emo_mask_create(rt, 1, &experts, &shared, 0, &mask, &err));
        for (int i = 0; i < 7; i++)
            EXPECT_OK(emo_mask_set(mask, 0, kept[i], 1, &err));
        emo_routing a = EMO_ROUTING_INIT;
        emo_routing b = EMO_ROUTING_INIT;
        forward(big, x, 3, pool, mask, &a);
        forward(small, x, 3, pool, NULL, &b);
        for (int i = 0; i < T * K; i++)
            assert_int_equal(a.indices[i], kept[b.indices[i]]);
        assert_memory_equal(a.weights, b.weights, sizeof(float) * T * K);
        for (int d = 0; d < 3; d++) {
            for (int e = 0; e < 7; e++) {
                assert_int_equal(a.allowed[d * (E - 1) + kept[e]], b.allowed[d * 7 + e]);
                assert_true(a.usage[d * (E - 1) + kept[e]] == b.usage[d * 7 + e]);
            }
        }
        emo_mask_release(mask);
        emo_pool_policy_release(pool);
        emo_router_release(big);
        emo_router_release(small);
        emo_runtime_release(rt);
    }
}

static void threads_change_nothing(void **state) {
    (void)state;
    static float x[T * D];
    static float kept[T * (E - 1)];
    float w[E * D];
    static float dx[2][T * D];
    double loss = 0.0;
    float sum[E];
    test_fill(x, T * D, 1, 1.0f);
    test_fill(w, E * D, 2, 1.0f);
    for (int i = 0; i < 2; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = test_runtime(i == 0 ? 1 : 3, EMO_ISA_AUTO);
        emo_router *router = make(rt, E, w);
        emo_pool_policy *pool = NULL;
        EXPECT_OK(emo_pool_policy_create_uniform(rt, 4, 12, &pool, &err));
        emo_routing g = EMO_ROUTING_INIT;
        forward(router, x, 3, pool, NULL, &g);
        float dw[E * D] = {0};
        memset(dx[i], 0, sizeof dx[i]);
        EXPECT_OK(emo_router_backward(router, &g, g.weights, dx[i], dw, &err));
        if (i == 0) {
            memcpy(kept, g.scores, sizeof kept);
            memcpy(sum, g.score_sum, sizeof(float) * (E - 1));
            loss = g.loss;
        } else {
            assert_memory_equal(kept, g.scores, sizeof kept);
            assert_memory_equal(sum, g.score_sum, sizeof(float) * (E - 1));
            assert_memory_equal(dx[0], dx[1], sizeof dx[0]);
            assert_true(loss == g.loss);
        }
        emo_pool_policy_release(pool);
        emo_router_release(router);
        emo_runtime_release(rt);
    }
}

static void too_few_experts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    static float x[T * D];
    float w[E * D];
    test_fill(x, T * D, 1, 1.0f);
    test_fill(w, E * D, 2, 1.0f);
    emo_router *router = make(rt, E, w);
    const int32_t experts = E;
    const int32_t shared = 1;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_mask_create(rt, 1, &experts, &shared, 0, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 0, 11, 1, &err));
    emo_routing g = EMO_ROUTING_INIT;
    forward(router, x, 1, NULL, mask, &g);
    assert_int_equal(g.indices[0], 11);
    assert_true(fabsf(g.weights[0] - 1.0f) < 1e-6f); /* a softmax over one */
    assert_int_equal(g.indices[1], -1);
    assert_int_equal(g.indices[2], -1);
    assert_true(g.weights[2] == 0.0f);
    assert_int_equal(g.indices[3], E - 1);
    assert_int_equal(g.counts[11], T);
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_create_fixed(rt, 2, &pool, &err));
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    b.rows = 1;
    b.seq_len = T;
    b.x = x;
    EXPECT_STATUS(emo_router_forward(router, &b, pool, NULL, &g, &err), EMO_E_RANGE, "smaller than the 3");
    EXPECT_STATUS(emo_router_backward(router, &g, NULL, NULL, NULL, &err), EMO_E_MISMATCH, "last forward");
    emo_pool_policy_release(pool);
    emo_mask_release(mask);
    emo_router_release(router);
    emo_runtime_release(rt);
}

static void pool_draws(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_parse(rt, "uniform:4:8", &pool, &err));
    enum { N = 10000 };
    static int32_t sizes[N];
    static int32_t again[N];
    int seen[9] = {0};
    emo__pool_rule rule;
    emo__pool_request r = {.seed = 7, .step = 3, .layer = 1, .routed = 8, .chosen = 2, .training = 1, .documents = N};
    EXPECT_OK(emo__pool_sizes(pool, &r, sizes, &rule, &err));
    for (int i = 0; i < N; i++)
        seen[sizes[i]]++;
    for (int i = 4; i <= 8; i++)
        assert_in_range(seen[i], 1840, 2160); /* 2000 expected, four standard deviations of 40 */
    r.first_id = 5000;                        /* a document's size does not depend on where it stands */
    EXPECT_OK(emo__pool_sizes(pool, &r, again, &rule, &err));
    assert_memory_equal(again, sizes + 5000, 5000 * sizeof *sizes);
    r.first_id = 0;
    r.layer = 2;
    EXPECT_OK(emo__pool_sizes(pool, &r, again, &rule, &err));
    assert_memory_not_equal(again, sizes, sizeof sizes);
    r.training = 0;
    EXPECT_OK(emo__pool_sizes(pool, &r, again, &rule, &err));
    assert_int_equal(again[17], 6);
    emo_pool_policy_release(pool);
    EXPECT_OK(emo_pool_policy_parse(rt, "scheduled:2:10", &pool, &err));
    static const int want[] = {8, 7, 7, 6, 6, 5, 4, 4, 3, 3, 2, 2}; /* 8 - 0.6 s, rounded */
    r.training = 1;
    r.documents = 1;
    for (int s = 0; s < 12; s++) {
        r.step = (uint64_t)s;
        EXPECT_OK(emo__pool_sizes(pool, &r, again, &rule, &err));
        assert_int_equal(again[0], want[s]);
    }
    emo_pool_policy_release(pool);
    static const char *const good[] = {"none",          "fixed:5",          "uniform:2:9",
                                       "mass:0.85:2:9", "scheduled:3:1000", "prompt:32"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char text[64];
        size_t size = 0;
        EXPECT_OK(emo_pool_policy_parse(rt, good[i], &pool, &err));
        EXPECT_OK(emo_pool_policy_describe(pool, text, sizeof text, &size, &err));
        assert_string_equal(text, good[i]);
        emo_pool_policy_release(pool);
    }
    static const char *const bad[] = {"",          "fixed",    "fixed:",   "fixed:1.5",
                                      "uniform:3", "fixed:3x", "nonesuch", "mass:1:2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        EXPECT_STATUS(emo_pool_policy_parse(rt, bad[i], &pool, &err), EMO_E_INVALID_ARGUMENT, "uniform:MIN:MAX");
    EXPECT_STATUS(emo_pool_policy_parse(rt, "uniform:9:2", &pool, &err), EMO_E_RANGE, "largest");
    EXPECT_STATUS(emo_pool_policy_parse(rt, "fixed:0", &pool, &err), EMO_E_RANGE, "1 to");
    emo_runtime_release(rt);
}

/* The size of a pool by mass against the definition, from the usage that the router reports. */
static void pools_by_mass(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    static float x[T * D];
    float w[E * D];
    test_fill(x, T * D, 1, 1.0f);
    test_fill(w, E * D, 2, 2.0f);
    emo_router *router = make(rt, E, w);
    int sizes_seen[E] = {0};
    static const char *const policies[] = {"mass:0.5:3:18", "mass:0.8:3:18", "mass:0.99:3:15", "mass:0.05:6:18"};
    for (size_t i = 0; i < sizeof policies / sizeof policies[0]; i++) {
        static const double mass[] = {0.5, 0.8, 0.99, 0.05};
        static const int low[] = {3, 3, 3, 6};
        static const int high[] = {18, 18, 15, 18};
        emo_pool_policy *pool = NULL;
        EXPECT_OK(emo_pool_policy_parse(rt, policies[i], &pool, &err));
        emo_routing g = EMO_ROUTING_INIT;
        forward(router, x, 30, pool, NULL, &g);
        for (int d = 0; d < 30; d++) {
            const float *usage = g.usage + d * (E - 1);
            int below = 0;
            int size = 0;
            for (int e = 0; e < E - 1; e++) {
                double before = 0.0; /* mass of this expert and all better ones */
                for (int o = 0; o < E - 1; o++)
                    before += usage[o] >= usage[e] ? (double)usage[o] : 0.0;
                below += before < mass[i] * (T / 30);
                size += g.allowed[d * (E - 1) + e];
            }
            int want = below + 1 < low[i] ? low[i] : below + 1 > high[i] ? high[i] : below + 1;
            assert_int_equal(size, want);
            sizes_seen[size]++;
        }
        emo_pool_policy_release(pool);
    }
    assert_true(sizes_seen[6] >= 30 && sizes_seen[15] > 0); /* both clamps were met */
    emo_router_release(router);
    emo_runtime_release(rt);
}

static void documents(void **state) {
    (void)state;
    /* eos 9: at the row's begin, in the middle twice in a row, at the row's end */
    static const int32_t ids[12] = {9, 1, 9, 9, 2, 9, 1, 2, 9, 3, 4, 5};
    int32_t begin[13];
    static const int32_t router[6] = {0, 2, 3, 5, 6, 8};
    assert_int_equal(emo__router_documents(ids, 2, 6, 9, begin), 6);
    assert_memory_equal(begin, router, sizeof router);
    assert_int_equal(begin[6], 12);
    static const int32_t attention[6] = {0, 1, 3, 4, 6, 9};
    assert_int_equal(emo__attention_documents(ids, 2, 6, 9, begin), 6);
    assert_memory_equal(begin, attention, sizeof attention);
    assert_int_equal(emo__router_documents(ids, 2, 6, -1, begin), 2);
    assert_int_equal(begin[1], 6);
}

/* Two steps of two micro-batches of one layer, against the scope's definition by hand. */
static void balance_scopes(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    const emo_backend_ops *ops = rt->cpu->ops;
    emo_exec *exec = NULL;
    EXPECT_OK(ops->exec_create(rt->cpu, NULL, &exec, &err));
    const int32_t experts = 2;
    const int32_t shared = 0;
    static const int32_t counts[2][2][2] = {{{6, 2}, {1, 7}}, {{3, 5}, {4, 4}}};
    static const float scores[2] = {3.0f, 1.0f};
    /* F[0] for step 0: 6 * 2, 6 + 1; step 1: 3 + 1 (old), 3 + 4; N = 10; window 2 averages with 7 / 10 */
    static const double batch[2][2] = {{1.2, 0.7}, {0.4, 0.7}};
    static const double window[2][2] = {{1.2, 0.7}, {(0.4 + 0.7) / 2, (0.7 + 0.7) / 2}};
    for (int scope = EMO_BALANCE_MICROBATCH; scope <= EMO_BALANCE_WINDOW; scope++) {
        emo__balance *b = NULL;
        EXPECT_OK(emo__balance_create(rt, rt->cpu, 1, &experts, &shared, scope, 2, &b, &err));
        for (int s = 0; s < 2; s++) {
            EXPECT_OK(emo__balance_begin_step(b, exec, 2, 10.0, 16.0, &err));
            for (int m = 0; m < 2; m++) {
                memcpy(emo__balance_counts(b, 0, m), counts[s][m], sizeof counts[s][m]);
                emo_balance_args a;
                memset(&a, 0, sizeof a);
                float f[2];
                double loss = 0.0;
                emo__balance_args(b, 0, m, 1, 8.0, &a);
                a.f = f;
                a.score_sum = scores;
                a.loss = &loss;
                EXPECT_OK(ops->balance(exec, &a, &err));
                double want = scope == EMO_BALANCE_MICROBATCH ? counts[s][m][0] / 10.0
                              : scope == EMO_BALANCE_BATCH    ? batch[s][m]
                                                              : window[s][m];
                assert_true(fabs((double)f[0] - want) < 1e-6);
                double tokens = scope == EMO_BALANCE_MICROBATCH ? 8.0 : 16.0;
                assert_true(fabs(loss - 2.0 * (3.0 * (double)f[0] + (double)f[1]) / tokens) < 1e-6);
            }
            EXPECT_OK(emo__balance_end_step(b, exec, &err));
        }
        /* the state survives a round trip, and a damaged one is refused */
        size_t words = emo__balance_state_words(b);
        int32_t saved[64];
        int32_t back[64];
        assert_in_range(words, 4, 64);
        EXPECT_OK(emo__balance_export(b, exec, saved, &err));
        EXPECT_STATUS(emo__balance_import(b, exec, saved, words - 1, &err), words == 4 ? EMO_E_FORMAT : EMO_E_MISMATCH,
                      "state");
        EXPECT_OK(emo__balance_import(b, exec, saved, words, &err));
        EXPECT_OK(emo__balance_export(b, exec, back, &err));
        assert_memory_equal(saved, back, words * sizeof *saved);
        emo__balance_destroy(b);
    }
    ops->exec_destroy(exec);
    emo_runtime_release(rt);
}

static void plan_sorts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(3, EMO_ISA_AUTO);
    const emo_backend_ops *ops = rt->cpu->ops;
    emo_exec *exec = NULL;
    EXPECT_OK(ops->exec_create(rt->cpu, NULL, &exec, &err));
    enum { N = 20000, EXPERTS = 37 };
    static int32_t indices[N * 2];
    static int32_t order[N * 2];
    static int32_t inverse[N * 2];
    static float noise[N * 2];
    int32_t offsets[EXPERTS + 1];
    test_fill(noise, N * 2, 5, 1.0f);
    int32_t kept = 0;
    for (int i = 0; i < N * 2; i++) {
        indices[i] = (int32_t)((noise[i] + 1.0f) * 0.5f * (EXPERTS + 1)) - 1; /* -1 now and then */
        kept += indices[i] >= 0;
    }
    emo_plan_args a = {N, 2, EXPERTS, indices, offsets, order, inverse};
    EXPECT_OK(ops->plan(exec, &a, &err));
    assert_int_equal(offsets[0], 0);
    assert_int_equal(offsets[EXPERTS], kept);
    for (int e = 0; e < EXPERTS; e++) {
        for (int32_t i = offsets[e]; i < offsets[e + 1]; i++) {
            assert_int_equal(indices[order[i]], e);
            assert_int_equal(inverse[order[i]], i);
            if (i > offsets[e])
                assert_true(order[i] > order[i - 1]);
        }
    }
    for (int i = 0; i < N * 2; i++)
        assert_int_equal(inverse[i] < 0, indices[i] < 0);
    ops->exec_destroy(exec);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masked_equals_pruned),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(too_few_experts),
        cmocka_unit_test(pool_draws),
        cmocka_unit_test(documents),
        cmocka_unit_test(pools_by_mass),
        cmocka_unit_test(balance_scopes),
        cmocka_unit_test(plan_sorts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
