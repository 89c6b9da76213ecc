/* SPDX-License-Identifier: Apache-2.0 */
/* The router's row kernels against their formulas in double, pools with ties, and what bf16 changes, at every level. */
#include <math.h>

#include "cpu/ops_kernels.h"
#include "support/ops.h"

static const size_t lengths[] = {1, 5, 16, 17, 33, 127, 128, 512};
enum { MOST = 512, LENGTHS = 8 };

/* Softmax and the gradient through it, gathered and not. */
static void rows_match_the_formulas(void **state) {
    (void)state;
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < n_levels * LENGTHS * 2; c++) {
        const size_t m = lengths[c / 2 % LENGTHS], padded = emo__route_pad(m);
        test_device d = test_device_open(1, levels[c / 2 / LENGTHS]);
        const emo__ops_kernels *kernels = emo__ops_kernels_of(emo__cpu(d.exec));
        float *logits = test_floats(2 * MOST, 1, 6.0f), *g = test_floats(MOST, 2, 1.0f),
              *grad = test_floats(MOST, 2, 1.0f);
        float z[MOST], acc[MOST];
        int32_t ids[MOST];
        for (size_t i = 0; i < m; i++)
            ids[i] = (int32_t)(c % 2 == 0 ? i : 2 * i + i % 2);
        for (size_t i = m; i < padded; i++)
            grad[i] = 0.0f;
        float lse = kernels->route_softmax(logits, c % 2 == 0 ? NULL : ids, m, z);
        double top = -INFINITY, sum = 0.0, dot = 0.0, size = 0.0;
        for (size_t i = 0; i < m; i++)
            top = fmax(top, (double)logits[ids[i]]);
        for (size_t i = 0; i < m; i++)
            sum += exp((double)logits[ids[i]] - top);
        /* exp is 2 ulp and its argument half of one of at most 12, a sum of 512 in 16 lanes 36 additions */
        const double bound = (2.0 + 12.0 + 40.0) * ldexp(1.0, -24);
        assert_true(fabs((double)lse - (top + log(sum))) < 20.0 * bound);
        for (size_t i = 0; i < m; i++) {
            double want = exp((double)logits[ids[i]] - top) / sum;
            assert_true(fabs((double)z[i] - want) <= want * bound);
            dot += (double)z[i] * (double)g[i];
            size += fabs((double)z[i] * (double)g[i]);
        }
        for (size_t i = m; i < padded; i++)
            assert_true(z[i] == 0.0f);
        memset(acc, 0, sizeof acc);
        kernels->route_add(m, 2.0f, z, acc);
        assert_true(fabs((double)kernels->route_sum(m, acc) - 2.0) < 4.0 * bound);
        kernels->route_back(m, z, 0.5f, grad);
        for (size_t i = 0; i < m; i++) {
            double want = (double)z[i] * ((double)g[i] - dot + 0.5);
            assert_true(fabs((double)grad[i] - want) <= (double)z[i] * (2.0 + size) * bound);
        }
        test_device_close(&d);
        free(logits);
        free(g);
        free(grad);
    }
}

/* The largest keys in order, the lower place first among equals. */
static void the_largest_in_order(void **state) {
    (void)state;
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < n_levels * LENGTHS * 3; c++) {
        static const size_t ks[] = {1, 8, 40};
        const size_t m = lengths[c / 3 % LENGTHS], k = ks[c % 3];
        test_device d = test_device_open(1, levels[c / 3 / LENGTHS]);
        const emo__ops_kernels *kernels = emo__ops_kernels_of(emo__cpu(d.exec));
        float *keys = test_floats(MOST, 3 + (uint32_t)c, 1.0f), best[40];
        int32_t at[40];
        for (size_t i = 0; i < m; i++)
            keys[i] = floorf(keys[i] * 20.0f); /* many are equal */
        size_t have = kernels->route_top(keys, m, k, best, at);
        assert_int_equal(have, k < m ? k : m);
        for (size_t j = 0; j < have; j++) {
            assert_true(best[j] == keys[at[j]]);
            assert_true(j == 0 || best[j - 1] > best[j] || (best[j - 1] == best[j] && at[j - 1] < at[j]));
            size_t before = 0;
            for (size_t i = 0; i < m; i++)
                before += keys[i] > best[j] || (keys[i] == best[j] && (int32_t)i < at[j]);
            assert_int_equal(before, j);
        }
        test_device_close(&d);
        free(keys);
    }
}

enum { TOKENS = 70, HIDDEN = 40, EXPERTS = 300, CHOSEN = 6 };

typedef struct routed {
    emo_route_args a;
    float logits[TOKENS * EXPERTS], usage[2 * EXPERTS], weights[TOKENS * CHOSEN], d_logits[TOKENS * EXPERTS];
    float dx[TOKENS * HIDDEN], d_weight[EXPERTS * HIDDEN];
    uint8_t allowed[2 * EXPERTS];
    int32_t indices[TOKENS * CHOSEN];
} routed;

static const int32_t begins[3] = {0, 30, TOKENS}, sizes[2] = {37, 150};

/* Two documents with pools, forward and backward. */
static routed *route(emo_isa level, emo_dtype compute, const float *x, const float *w, const float *d_weights) {
    emo_error err = EMO_ERROR_INIT;
    routed *r = calloc(1, sizeof *r);
    assert_non_null(r);
    r->a = (emo_route_args){.tokens = TOKENS,
                            .hidden = HIDDEN,
                            .experts = EXPERTS,
                            .k = CHOSEN,
                            .columns = EXPERTS,
                            .phases = EMO_ROUTE_LOGITS | EMO_ROUTE_POOL | EMO_ROUTE_SELECT,
                            .last = TOKENS,
                            .x = x,
                            .weight = test_weight((void *)(uintptr_t)w, EMO_DTYPE_F32, EXPERTS, HIDDEN),
                            .n_segments = 2,
                            .segment_begin = begins,
                            .pool_size = sizes,
                            .logits = r->logits,
                            .usage = r->usage,
                            .allowed = r->allowed,
                            .indices = r->indices,
                            .weights = r->weights,
                            .d_weights = d_weights,
                            .z_scale = 0.01f,
                            .d_logits = r->d_logits,
                            .dx = r->dx,
                            .d_weight = r->d_weight};
    test_device d = test_device_open(2, level);
    emo_exec_options options = {.struct_size = sizeof options, .compute = compute};
    emo_exec *exec = NULL;
    EXPECT_OK(d.ops->exec_create(d.exec->backend, &options, &exec, &err));
    EXPECT_OK(d.ops->route_forward(exec, &r->a, &err));
    EXPECT_OK(d.ops->route_backward(exec, &r->a, &err));
    d.ops->exec_destroy(exec);
    test_device_close(&d);
    return r;
}

/* Experts whose rows are equal are used equally: pools take the lower ids of them. */
static void pools_take_the_lower_of_equals(void **state) {
    (void)state;
    float *x = test_floats(TOKENS * HIDDEN, 1, 1.0f), *w = test_floats(EXPERTS * HIDDEN, 2, 1.0f);
    float *dw = test_floats(TOKENS * CHOSEN, 3, 1.0f);
    for (int e = 0; e < EXPERTS; e++)
        memcpy(w + e * HIDDEN, w + e % 20 * HIDDEN, HIDDEN * sizeof *w);
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t l = 0; l < n_levels; l++) {
        routed *r = route(levels[l], EMO_DTYPE_F32, x, w, dw);
        for (int s = 0; s < 2; s++) {
            const float *usage = r->usage + s * EXPERTS;
            for (int e = 0; e < EXPERTS; e++) {
                int better = 0;
                for (int i = 0; i < EXPERTS; i++)
                    better += usage[i] > usage[e] || (usage[i] == usage[e] && i < e);
                assert_int_equal(r->allowed[s * EXPERTS + e], better < sizes[s]);
            }
        }
        free(r);
    }
    free(x);
    free(w);
    free(dw);
}

static void within_rounding(const float *exact, const float *rounded, const float *a, int64_t a_row, int64_t a_col,
                            const float *b, int64_t b_row, int64_t b_col, int rows, int cols, int k) {
    int differ = 0;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            double size = 0.0, off = (double)rounded[i * cols + j] - (double)exact[i * cols + j];
            for (int p = 0; p < k; p++)
                size += fabs((double)a[i * a_row + p * a_col] * (double)b[p * b_row + j * b_col]);
            /* 2^-8 of each operand, which has 8 bits; sums of k in f32 on both sides */
            assert_true(fabs(off) <= size * (ldexp(1.0, -7) + ldexp(1.0, -16) + 2.0 * k * ldexp(1.0, -24)));
            differ += off != 0.0;
        }
    assert_true(differ > rows * cols / 2);
}

/* In bf16 the choice, its weights and the gradient of the logits keep their bits; the two gradient products round. */
static void bf16_rounds_gradient_products_alone(void **state) {
    (void)state;
    float *x = test_floats(TOKENS * HIDDEN, 4, 1.0f), *w = test_floats(EXPERTS * HIDDEN, 5, 1.0f);
    float *dw = test_floats(TOKENS * CHOSEN, 6, 1.0f);
    emo_isa levels[6];
    size_t n_levels = test_levels(levels);
    if (test_has_isa(EMO_ISA_AMX))
        levels[n_levels++] = EMO_ISA_AMX;
    for (size_t l = 0; l < n_levels; l++) {
        routed *f32 = route(levels[l], EMO_DTYPE_F32, x, w, dw), *bf16 = route(levels[l], EMO_DTYPE_BF16, x, w, dw);
        assert_memory_equal(f32->logits, bf16->logits, sizeof f32->logits);
        assert_memory_equal(f32->allowed, bf16->allowed, sizeof f32->allowed);
        assert_memory_equal(f32->indices, bf16->indices, sizeof f32->indices);
        assert_memory_equal(f32->weights, bf16->weights, sizeof f32->weights);
        assert_memory_equal(f32->d_logits, bf16->d_logits, sizeof f32->d_logits);
        within_rounding(f32->dx, bf16->dx, f32->d_logits, EXPERTS, 1, w, HIDDEN, 1, TOKENS, HIDDEN, EXPERTS);
        within_rounding(f32->d_weight, bf16->d_weight, f32->d_logits, 1, EXPERTS, x, HIDDEN, 1, EXPERTS, HIDDEN,
                        TOKENS);
        free(f32);
        free(bf16);
    }
    free(x);
    free(w);
    free(dw);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_match_the_formulas),
        cmocka_unit_test(the_largest_in_order),
        cmocka_unit_test(pools_take_the_lower_of_equals),
        cmocka_unit_test(bf16_rounds_gradient_products_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
