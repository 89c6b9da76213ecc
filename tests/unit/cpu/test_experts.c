/* SPDX-License-Identifier: Apache-2.0 */
/* The expert operators against a plain loop in double, and that oracle's gradients against finite differences. */
#include <math.h>

#include "base/runtime.h"
#include "cpu/cpu.h"
#include "support/support.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

enum { EXPERTS = 5, K = 3, HIDDEN = 37, INNER = 21, TOKENS = 45 };
enum { W = INNER * HIDDEN };

static const emo_isa levels[] = {EMO_ISA_SCALAR, EMO_ISA_NEON, EMO_ISA_AVX2, EMO_ISA_AVX512};

typedef struct problem {
    float x[TOKENS * HIDDEN], dy[TOKENS * HIDDEN], weights[TOKENS * K];
    int32_t indices[TOKENS * K], offsets[EXPERTS + 1], order[TOKENS * K], inverse[TOKENS * K];
    float gate[EXPERTS][W], up[EXPERTS][W], down[EXPERTS][W];
    emo_expert_slot slots[EXPERTS];
} problem;

typedef struct result {
    float y[TOKENS * HIDDEN], norm[TOKENS * K], saved[TOKENS * K * 2 * INNER];
    float dx[TOKENS * HIDDEN], d_weights[TOKENS * K];
    float d_gate[EXPERTS][W], d_up[EXPERTS][W], d_down[EXPERTS][W];
} result;

/* Expert 3 gets no token; every seventh assignment is left out; token 0 has none at all. */
static problem *make_problem(void) {
    problem *p = calloc(1, sizeof *p);
    assert_non_null(p);
    test_fill(p->x, TOKENS * HIDDEN, 1, 1.0f);
    test_fill(p->dy, TOKENS * HIDDEN, 2, 1.0f);
    test_fill(p->weights, TOKENS * K, 3, 1.0f);
    test_fill(p->gate[0], EXPERTS * W, 4, 0.5f);
    test_fill(p->up[0], EXPERTS * W, 5, 0.5f);
    test_fill(p->down[0], EXPERTS * W, 6, 0.5f);
    static const int32_t used[] = {0, 1, 2, 4};
    for (int32_t t = 0; t < TOKENS; t++)
        for (int32_t j = 0; j < K; j++) {
            int32_t i = t * K + j;
            p->indices[i] = t == 0 || i % 7 == 0 ? -1 : used[(t * 5 + j) % 4];
        }
    int32_t place = 0;
    for (int32_t e = 0; e < EXPERTS; e++) {
        p->offsets[e] = place;
        for (int32_t i = 0; i < TOKENS * K; i++)
            if (p->indices[i] == e)
                p->order[place++] = i;
    }
    p->offsets[EXPERTS] = place;
    for (int32_t i = 0; i < TOKENS * K; i++)
        p->inverse[i] = -1;
    for (int32_t i = 0; i < place; i++)
        p->inverse[p->order[i]] = i;
    for (int32_t e = 0; e < EXPERTS; e++) {
        p->slots[e].gate = (emo_weight){p->gate[e], NULL, EMO_DTYPE_F32, 0, INNER, HIDDEN, HIDDEN};
        p->slots[e].up = (emo_weight){p->up[e], NULL, EMO_DTYPE_F32, 0, INNER, HIDDEN, HIDDEN};
        p->slots[e].down = (emo_weight){p->down[e], NULL, EMO_DTYPE_F32, 0, HIDDEN, INNER, INNER};
    }
    return p;
}

/* The definition. `dot_dy`: sum over t of dy[t] y[t], the loss that the gradients belong to. */
static double oracle(const problem *p, double *y) {
    double loss = 0.0;
    for (int t = 0; t < TOKENS; t++)
        for (int j = 0; j < K; j++) {
            int e = p->indices[t * K + j];
            if (e < 0)
                continue;
            double h[INNER];
            for (int i = 0; i < INNER; i++) {
                double g = 0.0, u = 0.0;
                for (int c = 0; c < HIDDEN; c++) {
                    g += (double)p->gate[e][i * HIDDEN + c] * (double)p->x[t * HIDDEN + c];
                    u += (double)p->up[e][i * HIDDEN + c] * (double)p->x[t * HIDDEN + c];
                }
                h[i] = g / (1.0 + exp(-g)) * u;
            }
            for (int c = 0; c < HIDDEN; c++) {
                double o = 0.0;
                for (int i = 0; i < INNER; i++)
                    o += (double)p->down[e][c * INNER + i] * h[i];
                o *= (double)p->weights[t * K + j];
                if (y != NULL)
                    y[t * HIDDEN + c] += o;
                loss += o * (double)p->dy[t * HIDDEN + c];
            }
        }
    return loss;
}

static emo_experts_args args_of(problem *p, result *r, int with_gradients) {
    for (int e = 0; e < EXPERTS; e++) {
        p->slots[e].d_gate = with_gradients ? r->d_gate[e] : NULL;
        p->slots[e].d_up = with_gradients ? r->d_up[e] : NULL;
        p->slots[e].d_down = with_gradients ? r->d_down[e] : NULL;
    }
    return (emo_experts_args){.tokens = TOKENS,
                              .hidden = HIDDEN,
                              .inner = INNER,
                              .k_total = K,
                              .experts = EXPERTS,
                              .x = p->x,
                              .offsets = p->offsets,
                              .order = p->order,
                              .inverse = p->inverse,
                              .weights = p->weights,
                              .table = {p->slots, EXPERTS, NULL},
                              .saved = r->saved,
                              .y = r->y,
                              .dy = p->dy,
                              .dx = r->dx,
                              .d_weights = r->d_weights,
                              .out_norm = r->norm};
}

/* Forward and backward at one level with so many threads. Gradients start from 1 (they are added to). */
static result *run(problem *p, emo_isa isa, int32_t threads, int save) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(threads, isa);
    emo_backend *backend = rt->cpu;
    emo_exec *exec = NULL;
    EXPECT_OK(backend->ops->exec_create(backend, NULL, &exec, &err));
    result *r = malloc(sizeof *r);
    assert_non_null(r);
    for (size_t i = 0; i < sizeof *r / sizeof(float); i++)
        ((float *)r)[i] = 1.0f;
    emo_experts_args args = args_of(p, r, 1);
    if (!save)
        args.saved = NULL;
    EXPECT_OK(backend->ops->experts_forward(exec, &args, &err));
    if (save)
        EXPECT_OK(backend->ops->experts_backward(exec, &args, &err));
    backend->ops->exec_destroy(exec);
    emo_runtime_release(rt);
    return r;
}

static void test_forward(void **state) {
    (void)state;
    problem *p = make_problem();
    double *y = calloc(TOKENS * HIDDEN, sizeof *y);
    assert_non_null(y);
    (void)oracle(p, y);
    for (size_t l = 0; l < 3; l++) {
        if (!test_has_isa(levels[l]))
            continue;
        result *r = run(p, levels[l], 1, 1), *unsaved = run(p, levels[l], 2, 0);
        /* values below 30, sums of 37 and 21 products: 3e-5 leaves a factor of about 5 */
        for (size_t i = 0; i < TOKENS * HIDDEN; i++)
            assert_true(fabs(y[i] - (double)r->y[i]) <= 3e-5);
        assert_memory_equal(r->y, unsaved->y, sizeof r->y);
        assert_memory_equal(r->norm, unsaved->norm, sizeof r->norm);
        for (size_t i = 0; i < TOKENS * K; i++) {
            if (p->indices[i] < 0)
                assert_true(r->norm[i] == 0.0f);
            else
                assert_true(r->norm[i] > 0.0f);
        }
        free(r);
        free(unsaved);
    }
    free(y);
    free(p);
}

/* d(loss)/d(*value) by central differences of the double oracle; the step is a power of two so that it is exact. */
static double slope(const problem *p, float *value) {
    float old = *value, step = 0.0009765625f;
    *value = old + step;
    double hi_at = (double)*value, hi = oracle(p, NULL);
    *value = old - step;
    double lo_at = (double)*value, lo = oracle(p, NULL);
    *value = old;
    return (hi - lo) / (hi_at - lo_at);
}

static void expect_slope(const char *what, size_t i, double want, double got) {
    /* central differences: step^2 / 6 times the third derivative, about 1e-6 here; f32 arithmetic about 1e-5 relative
     */
    if (!(fabs(want - got) <= 2e-4 + 2e-5 * fabs(want)))
        fail_msg("%s[%zu]: %g, differences say %g", what, i, got, want);
}

static void test_gradients(void **state) {
    (void)state;
    problem *p = make_problem();
    for (size_t l = 0; l < 3; l++) {
        if (!test_has_isa(levels[l]))
            continue;
        result *r = run(p, levels[l], 2, 1);
        for (size_t i = 0; i < TOKENS * HIDDEN; i += 53)
            expect_slope("dx", i, slope(p, &p->x[i]) + 1.0, (double)r->dx[i]);
        for (size_t i = 0; i < TOKENS * K; i += 4)
            expect_slope("d_weights", i, slope(p, &p->weights[i]), (double)r->d_weights[i]);
        for (size_t e = 0; e < EXPERTS; e++)
            for (size_t i = e; i < W; i += 97) {
                expect_slope("d_gate", i, slope(p, &p->gate[e][i]) + 1.0, (double)r->d_gate[e][i]);
                expect_slope("d_up", i, slope(p, &p->up[e][i]) + 1.0, (double)r->d_up[e][i]);
                expect_slope("d_down", i, slope(p, &p->down[e][i]) + 1.0, (double)r->d_down[e][i]);
            }
        free(r);
    }
    free(p);
}

static void test_threads(void **state) {
    (void)state;
    problem *p = make_problem();
    for (size_t l = 0; l < 3; l++) {
        if (!test_has_isa(levels[l]))
            continue;
        result *one = run(p, levels[l], 1, 1), *two = run(p, levels[l], 2, 1), *four = run(p, levels[l], 4, 1);
        assert_memory_equal(one, two, sizeof *one);
        assert_memory_equal(one, four, sizeof *one);
        free(one);
        free(two);
        free(four);
    }
    free(p);
}

/* The experts once more from the primitives: gather, grouped products, SwiGLU, combine, and their backward. */
static void test_primitives(void **state) {
    (void)state;
    problem *p = make_problem();
    enum { N = TOKENS * K };
    float *gathered = malloc(N * HIDDEN * sizeof(float)), *pre = malloc(N * 2 * INNER * sizeof(float));
    float *h = malloc(N * INNER * sizeof(float)), *out = malloc(N * HIDDEN * sizeof(float));
    float *dy_rows = malloc(N * HIDDEN * sizeof(float)), *dh = malloc(N * INNER * sizeof(float));
    float *y = malloc(TOKENS * HIDDEN * sizeof(float)), *d_weights = malloc(N * sizeof(float));
    assert_true(gathered && pre && h && out && dy_rows && dh && y && d_weights);
    for (size_t l = 0; l < 3; l++) {
        if (!test_has_isa(levels[l]))
            continue;
        result *r = run(p, levels[l], 1, 1);
        result *again = calloc(1, sizeof *again);
        assert_non_null(again);
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = test_runtime(2, levels[l]);
        const emo_backend_ops *ops = rt->cpu->ops;
        emo_exec *exec = NULL;
        EXPECT_OK(ops->exec_create(rt->cpu, NULL, &exec, &err));
        (void)args_of(p, again, 1); /* gradients to `again` */
        int32_t rows = p->offsets[EXPERTS];
        emo_gather_args gather = {N, &p->offsets[EXPERTS], HIDDEN, K, p->order, p->x, gathered};
        EXPECT_OK(ops->gather(exec, &gather, &err));
        emo_grouped_gemm_args grouped = {.mode = EMO_GROUPED_FORWARD,
                                         .slot = EMO_SLOT_GATE,
                                         .groups = EXPERTS,
                                         .offsets = p->offsets,
                                         .max_rows = N,
                                         .table = {p->slots, EXPERTS, NULL},
                                         .a = gathered,
                                         .lda = HIDDEN,
                                         .c = pre,
                                         .ldc = 2 * INNER};
        EXPECT_OK(ops->grouped_gemm(exec, &grouped, &err));
        grouped.slot = EMO_SLOT_UP;
        grouped.c = pre + INNER;
        EXPECT_OK(ops->grouped_gemm(exec, &grouped, &err));
        assert_memory_equal(pre, r->saved, (size_t)rows * 2 * INNER * sizeof(float));
        emo_swiglu_args swiglu = {
            .tokens = rows, .inner = INNER, .gate = pre, .up = pre + INNER, .stride = 2 * INNER, .y = h};
        EXPECT_OK(ops->swiglu_forward(exec, &swiglu, &err));
        grouped.slot = EMO_SLOT_DOWN;
        grouped.a = h;
        grouped.lda = INNER;
        grouped.c = out;
        grouped.ldc = HIDDEN;
        EXPECT_OK(ops->grouped_gemm(exec, &grouped, &err));
        emo_combine_args combine = {.tokens = TOKENS,
                                    .width = HIDDEN,
                                    .k_total = K,
                                    .inverse = p->inverse,
                                    .weights = p->weights,
                                    .src = out,
                                    .dst = y,
                                    .dy = p->dy,
                                    .d_weights = d_weights};
        EXPECT_OK(ops->combine(exec, &combine, &err));
        assert_memory_equal(y, r->y, sizeof r->y);
        /* another order of the same sums: values below 100 */
        assert_true(test_max_diff(d_weights, r->d_weights, N) <= 1e-4);
        /* weight gradients: of down with unweighted rows of dy, checked against a loop; then accumulation doubles it */
        gather.src = p->dy;
        gather.dst = dy_rows;
        EXPECT_OK(ops->gather(exec, &gather, &err));
        grouped.mode = EMO_GROUPED_WGRAD;
        grouped.a = dy_rows;
        grouped.lda = HIDDEN;
        grouped.b = h;
        grouped.ldb = INNER;
        for (int turn = 1; turn <= 2; turn++) {
            EXPECT_OK(ops->grouped_gemm(exec, &grouped, &err));
            for (int e = 0; e < EXPERTS; e++)
                for (int i = 0; i < W; i += 31) {
                    double want = 0.0;
                    for (int32_t row = p->offsets[e]; row < p->offsets[e + 1]; row++)
                        want += (double)dy_rows[row * HIDDEN + i / INNER] * (double)h[row * INNER + i % INNER];
                    assert_true(fabs(want * turn - (double)again->d_down[e][i]) <= 1e-4);
                }
        }
        grouped.mode = EMO_GROUPED_DGRAD;
        grouped.c = dh;
        grouped.ldc = INNER;
        EXPECT_OK(ops->grouped_gemm(exec, &grouped, &err));
        for (int e = 0; e < EXPERTS; e++)
            for (int32_t row = p->offsets[e]; row < p->offsets[e + 1]; row++)
                for (int i = 0; i < INNER; i++) {
                    double want = 0.0;
                    for (int c = 0; c < HIDDEN; c++)
                        want += (double)dy_rows[row * HIDDEN + c] * (double)p->down[e][c * INNER + i];
                    assert_true(fabs(want - (double)dh[row * INNER + i]) <= 1e-5);
                }
        ops->exec_destroy(exec);
        emo_runtime_release(rt);
        free(r);
        free(again);
    }
    free(gathered);
    free(pre);
    free(h);
    free(out);
    free(dy_rows);
    free(dh);
    free(y);
    free(d_weights);
    free(p);
}

/* A token alone gets the bits that it gets in the batch, so one that is decoded agrees with one that was prefilled. */
static void test_token_alone(void **state) {
    (void)state;
    problem *p = make_problem();
    for (size_t l = 0; l < 3; l++) {
        if (!test_has_isa(levels[l]))
            continue;
        result *r = run(p, levels[l], 2, 1);
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = test_runtime(2, levels[l]);
        emo_exec *exec = NULL;
        EXPECT_OK(rt->cpu->ops->exec_create(rt->cpu, NULL, &exec, &err));
        for (int32_t t = 0; t < TOKENS; t += 4) {
            int32_t offsets[EXPERTS + 1], order[K], inverse[K], place = 0;
            float y[HIDDEN];
            for (int32_t j = 0; j < K; j++)
                inverse[j] = -1;
            for (int32_t e = 0; e < EXPERTS; e++) {
                offsets[e] = place;
                for (int32_t j = 0; j < K; j++)
                    if (p->indices[t * K + j] == e) {
                        order[place] = j;
                        inverse[j] = place++;
                    }
            }
            offsets[EXPERTS] = place;
            emo_experts_args args = {.tokens = 1,
                                     .hidden = HIDDEN,
                                     .inner = INNER,
                                     .k_total = K,
                                     .experts = EXPERTS,
                                     .x = p->x + t * HIDDEN,
                                     .offsets = offsets,
                                     .order = order,
                                     .inverse = inverse,
                                     .weights = p->weights + t * K,
                                     .table = {p->slots, EXPERTS, NULL},
                                     .y = y};
            EXPECT_OK(rt->cpu->ops->experts_forward(exec, &args, &err));
            assert_memory_equal(y, r->y + t * HIDDEN, sizeof y);
        }
        rt->cpu->ops->exec_destroy(exec);
        emo_runtime_release(rt);
        free(r);
    }
    free(p);
}

/* With weights of this type on AMX, tasks take more columns than one part of gate and up has. */
static void wide(emo_dtype dtype) {
    enum { T = 150, H = 64, I = 608, N = I * H };
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AMX);
    emo_exec *exec = NULL;
    emo_exec_options options = {.struct_size = sizeof options, .compute = EMO_DTYPE_BF16};
    EXPECT_OK(rt->cpu->ops->exec_create(rt->cpu, &options, &exec, &err));
    float *x = calloc(T * H, sizeof *x), *y = calloc(2 * T * H, sizeof *y), *w = calloc(3 * N, sizeof *w);
    const size_t bytes = emo__dtype_quantised(dtype) ? emo__dtype_run(dtype, N) : N * emo__dtype_size(dtype);
    char *half = calloc(3, bytes);
    assert_true(x != NULL && y != NULL && w != NULL && half != NULL);
    test_fill(x, T * H, 1, 1.0f);
    test_fill(w, 3 * N, 2, 0.5f);
    assert_true(emo__dtype_quantised(dtype) ? emo__quantise(half, dtype, w, 3 * N)
                                            : emo__convert(half, dtype, w, EMO_DTYPE_F32, 3 * N));
    emo_expert_slot slot = {.gate = {half, NULL, dtype, 0, I, H, H},
                            .up = {half + bytes, NULL, dtype, 0, I, H, H},
                            .down = {half + 2 * bytes, NULL, dtype, 0, H, I, I}};
    int32_t place[T];
    float ones[T];
    for (int32_t t = 0; t < T; t++) {
        place[t] = t;
        ones[t] = 1.0f;
    }
    for (int alone = 0; alone < 2; alone++)
        for (int32_t t = 0; t < T; t += alone ? 1 : T) {
            const int32_t count = alone ? 1 : T, offsets[2] = {0, count};
            emo_experts_args args = {.tokens = count,
                                     .hidden = H,
                                     .inner = I,
                                     .k_total = 1,
                                     .experts = 1,
                                     .x = x + t * H,
                                     .offsets = offsets,
                                     .order = place,
                                     .inverse = place,
                                     .weights = ones,
                                     .table = {&slot, 1, NULL},
                                     .y = y + (alone * T + t) * H};
            EXPECT_OK(rt->cpu->ops->experts_forward(exec, &args, &err));
        }
    assert_memory_equal(y, y + T * H, T * H * sizeof *y);
    double want = 0.0; /* of the last token's first output; h has 608 terms that were rounded to 8 bits */
    for (int i = 0; i < I; i++) {
        double g = 0.0, u = 0.0;
        for (int c = 0; c < H; c++) {
            g += (double)w[i * H + c] * (double)x[(T - 1) * H + c];
            u += (double)w[N + i * H + c] * (double)x[(T - 1) * H + c];
        }
        want += g / (1.0 + exp(-g)) * u * (double)w[2 * N + i];
    }
    assert_true(fabs((double)y[(T - 1) * H] - want) < 0.05 * (1.0 + fabs(want)));
    rt->cpu->ops->exec_destroy(exec);
    emo_runtime_release(rt);
    free(x);
    free(y);
    free(w);
    free(half);
}

static void test_wide(void **state) {
    (void)state;
    if (!test_has_isa(EMO_ISA_AMX))
        skip();
    wide(EMO_DTYPE_BF16);
    wide(EMO_DTYPE_Q8_0);
}

static void test_not_loaded_and_frozen(void **state) {
    (void)state;
    problem *p = make_problem();
    result *r = run(p, EMO_ISA_SCALAR, 1, 1), *frozen = malloc(sizeof *frozen);
    assert_non_null(frozen);
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    const emo_backend_ops *ops = rt->cpu->ops;
    emo_exec *exec = NULL;
    EXPECT_OK(ops->exec_create(rt->cpu, NULL, &exec, &err));
    for (size_t i = 0; i < sizeof *frozen / sizeof(float); i++)
        ((float *)frozen)[i] = 1.0f;
    emo_experts_args args = args_of(p, frozen, 0);
    p->slots[3].gate.data = NULL; /* expert 3 has no token: it need not be loaded */
    EXPECT_OK(ops->experts_forward(exec, &args, &err));
    EXPECT_OK(ops->experts_backward(exec, &args, &err));
    assert_memory_equal(frozen->y, r->y, sizeof r->y);
    assert_memory_equal(frozen->dx, r->dx, sizeof r->dx);
    assert_memory_equal(frozen->d_weights, r->d_weights, sizeof r->d_weights);
    for (int i = 0; i < W; i++)
        assert_true(frozen->d_gate[0][i] == 1.0f && frozen->d_down[4][i] == 1.0f);
    args.accumulate = 1; /* y was y, so now twice y */
    EXPECT_OK(ops->experts_forward(exec, &args, &err));
    for (int i = 0; i < TOKENS * HIDDEN; i++)
        assert_true(fabsf(frozen->y[i] - 2.0f * r->y[i]) <= 1e-5f * (1.0f + fabsf(r->y[i])));
    p->slots[2].up.data = NULL;
    EXPECT_STATUS(ops->experts_forward(exec, &args, &err), EMO_E_INTERNAL, "expert 2");
    ops->exec_destroy(exec);
    emo_runtime_release(rt);
    free(r);
    free(frozen);
    free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward),
                                       cmocka_unit_test(test_gradients),
                                       cmocka_unit_test(test_threads),
                                       cmocka_unit_test(test_primitives),
                                       cmocka_unit_test(test_token_alone),
                                       cmocka_unit_test(test_wide),
                                       cmocka_unit_test(test_not_loaded_and_frozen)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
