/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix engine against a double-precision triple loop, in f32 and in bf16 (where the loop's operands are rounded,
 * too), and its promises: the same bits for any number of threads and for a row alone. */
#include <math.h>

#include "base/runtime.h"
#include "cpu/cpu.h"
#include "support/support.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

typedef struct way {
    emo_isa isa;
    emo_dtype compute;
} way;

static const way ways[] = {
    {EMO_ISA_SCALAR, EMO_DTYPE_F32},    {EMO_ISA_NEON, EMO_DTYPE_F32},         {EMO_ISA_AVX2, EMO_DTYPE_F32},
    {EMO_ISA_AVX512, EMO_DTYPE_F32},    {EMO_ISA_SCALAR, EMO_DTYPE_BF16},      {EMO_ISA_NEON, EMO_DTYPE_BF16},
    {EMO_ISA_NEON_DOT, EMO_DTYPE_BF16}, {EMO_ISA_NEON_BF16, EMO_DTYPE_BF16},   {EMO_ISA_AVX2, EMO_DTYPE_BF16},
    {EMO_ISA_AVX512, EMO_DTYPE_BF16},   {EMO_ISA_AVX512_VNNI, EMO_DTYPE_BF16}, {EMO_ISA_AVX512_BF16, EMO_DTYPE_BF16},
    {EMO_ISA_AMX, EMO_DTYPE_BF16}};
enum { WAYS = sizeof ways / sizeof ways[0] };
static const emo_dtype dtypes[] = {EMO_DTYPE_F32,  EMO_DTYPE_F16,  EMO_DTYPE_BF16,
                                   EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};
enum { PLAIN = 3, ALL = 6 }; /* how many of them are plain, and are there */

typedef struct machine {
    emo_runtime *rt;
    emo_backend *backend;
    emo_exec *exec;
    emo_dtype compute;
} machine;

static machine open_machine(int32_t threads, way how) {
    emo_error err = EMO_ERROR_INIT;
    machine m = {.rt = test_runtime(threads, how.isa), .compute = how.compute};
    emo_exec_options options = {.struct_size = sizeof options, .compute = how.compute};
    m.backend = m.rt->cpu;
    EXPECT_OK(m.backend->ops->exec_create(m.backend, &options, &m.exec, &err));
    return m;
}

static void close_machine(machine *m) {
    m->backend->ops->exec_destroy(m->exec);
    emo_runtime_release(m->rt);
}

static float *numbers(size_t n, uint64_t seed) {
    float *x = malloc((n + 1) * sizeof *x);
    assert_non_null(x);
    test_fill(x, n, seed, 1.0f);
    return x;
}

/* B rounded to dtype, and back to f32 in `exact`. */
static void *as_dtype(float *exact, size_t n, emo_dtype dtype) {
    void *b = malloc((n + 1) * 4);
    assert_non_null(b);
    if (emo__dtype_quantised(dtype)) {
        assert_true(emo__quantise(b, dtype, exact, n));
        emo__dequantise(exact, b, dtype, n);
        return b;
    }
    assert_true(emo__convert(b, dtype, exact, EMO_DTYPE_F32, n));
    assert_true(emo__convert(exact, EMO_DTYPE_F32, b, dtype, n));
    return b;
}

/* n numbers as a product in `compute` sees them; the caller frees them. */
static double *seen(const float *x, size_t n, emo_dtype compute) {
    double *out = malloc((n + 1) * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++) {
        float rounded = x[i];
        uint16_t half;
        if (compute == EMO_DTYPE_BF16) {
            assert_true(emo__convert(&half, EMO_DTYPE_BF16, &rounded, EMO_DTYPE_F32, 1));
            assert_true(emo__convert(&rounded, EMO_DTYPE_F32, &half, EMO_DTYPE_BF16, 1));
        }
        out[i] = (double)rounded;
    }
    return out;
}

static void check_product(machine *mc, int64_t m, int64_t n, int64_t k, int ta, int tb, emo_dtype dtype, float alpha,
                          float beta) {
    emo_error err = EMO_ERROR_INIT;
    int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 1, ldc = n + 2;
    size_t na = (size_t)((ta ? k : m) * lda), nb = (size_t)((tb ? n : k) * ldb), nc = (size_t)(m * ldc);
    float *a = numbers(na, 1), *b = numbers(nb, 2), *c = numbers(nc, 3), *want = numbers(nc, 3);
    void *typed = as_dtype(b, nb, dtype);
    if (beta == 0.0f)
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++)
                c[i * ldc + j] = NAN; /* must not be read */
    emo_gemm_args args = {ta, tb, m, n, k, alpha, a, lda, typed, dtype, ldb, beta, c, ldc};
    EXPECT_OK(mc->backend->ops->gemm(mc->exec, &args, &err));
    double *seen_a = seen(a, na, mc->compute), *seen_b = seen(b, nb, mc->compute);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double s = 0.0;
            for (int64_t p = 0; p < k; p++)
                s +=
                    (ta ? seen_a[p * lda + i] : seen_a[i * lda + p]) * (tb ? seen_b[j * ldb + p] : seen_b[p * ldb + j]);
            want[i * ldc + j] = (float)((double)alpha * s + (beta != 0.0f ? (double)beta * want[i * ldc + j] : 0.0));
        }
    /* |a|, |b| < 1: k products, each step rounds by at most 2^-24 of a sum that stays below sqrt(k) in practice */
    double tolerance = 1e-6 * (4.0 + (double)k / 8.0);
    double diff = test_max_diff(c, want, nc); /* also covers the padding columns: they must be untouched */
    if (!(diff <= tolerance))
        fail_msg("m %d n %d k %d ta %d tb %d dtype %d compute %d alpha %g beta %g: off by %g", (int)m, (int)n, (int)k,
                 ta, tb, (int)dtype, (int)mc->compute, (double)alpha, (double)beta, diff);
    free(a);
    free(b);
    free(c);
    free(want);
    free(typed);
    free(seen_a);
    free(seen_b);
}

static void test_against_double(void **state) {
    (void)state;
    static const int64_t sizes[] = {1, 3, 17, 33, 130};
    static const int64_t depths[] = {1, 5, 64, 256, 300};
    for (size_t level = 0; level < WAYS; level++) {
        if (!test_has_isa(ways[level].isa))
            continue;
        machine mc = open_machine(2, ways[level]);
        int turn = 0;
        for (size_t i = 0; i < 5; i++)
            for (size_t j = 0; j < 5; j++)
                for (size_t p = 0; p < 5; p++, turn++) {
                    emo_dtype dtype = dtypes[turn % PLAIN];
                    static const float alphas[] = {1.0f, -0.5f}, betas[] = {0.0f, 1.0f, 0.25f};
                    for (int t = 0; t < 4; t++)
                        check_product(&mc, sizes[i], sizes[j], depths[p], t & 1, t >> 1, dtype, alphas[turn / 2 % 2],
                                      betas[(turn + t) % 3]);
                }
        check_product(&mc, 500, 70, 520, 0, 1, EMO_DTYPE_F32, 1.0f, 1.0f); /* several k blocks, rows beyond a tile */
        check_product(&mc, 4, 5, 0, 0, 0, EMO_DTYPE_F32, 1.0f, 0.5f);
        close_machine(&mc);
    }
}

/* y = x W^T + bias on `rows` rows starting at `first`, by the given machine. */
static void linear(machine *mc, int64_t first, int64_t rows, const float *x, const emo_weight *w,
                   const emo_weight *bias, float *y) {
    emo_error err = EMO_ERROR_INIT;
    emo_linear_args args = {.tokens = rows,
                            .x = x + first * w->cols,
                            .x_stride = w->cols,
                            .weight = *w,
                            .bias = *bias,
                            .y = y + first * w->rows,
                            .y_stride = w->rows};
    EXPECT_OK(mc->backend->ops->linear_forward(mc->exec, &args, &err));
}

static void same_bits(const int64_t K) {
    enum { T = 37, N = 203 };
    float *x = numbers((size_t)(T * K), 4), *w = numbers((size_t)(N * K), 5), *b = numbers(N, 6);
    float *y = numbers(T * N, 7), *again = numbers(T * N, 8);
    for (size_t level = 0; level < WAYS; level++)
        for (size_t d = 0; d < (K % EMO__QUANT_MAX_BLOCK == 0 ? ALL : PLAIN); d++) {
            if (!test_has_isa(ways[level].isa))
                continue;
            void *typed = as_dtype(w, (size_t)(N * K), dtypes[d]);
            emo_weight weight = {.data = typed, .dtype = dtypes[d], .rows = N, .cols = K, .stride = K};
            emo_weight bias = {.data = b, .dtype = EMO_DTYPE_F32, .rows = 1, .cols = N, .stride = N};
            machine one = open_machine(1, ways[level]);
            linear(&one, 0, T, x, &weight, &bias, y);
            for (int32_t threads = 2; threads <= 4; threads += 2) {
                machine many = open_machine(threads, ways[level]);
                linear(&many, 0, T, x, &weight, &bias, again);
                assert_memory_equal(y, again, T * N * sizeof *y);
                close_machine(&many);
            }
            for (int64_t t = 0; t < T; t++)
                linear(&one, t, 1, x, &weight, &bias, again);
            assert_memory_equal(y, again, T * N * sizeof *y);
            linear(&one, 0, 5, x, &weight, &bias, again);
            linear(&one, 5, T - 5, x, &weight, &bias, again);
            assert_memory_equal(y, again, T * N * sizeof *y);
            /* and fewer columns: the first 40 outputs alone */
            float narrow[40];
            emo_weight part = weight;
            part.rows = 40;
            for (int64_t t = 0; t < T; t += 9) {
                emo_error err = EMO_ERROR_INIT;
                emo_linear_args args = {.tokens = 1,
                                        .x = x + t * K,
                                        .x_stride = K,
                                        .weight = part,
                                        .bias = bias,
                                        .y = narrow,
                                        .y_stride = 40};
                EXPECT_OK(one.backend->ops->linear_forward(one.exec, &args, &err));
                assert_memory_equal(narrow, y + t * N, sizeof narrow);
            }
            close_machine(&one);
            free(typed);
        }
    free(x);
    free(w);
    free(b);
    free(y);
    free(again);
}

/* A depth that no unit of a kernel divides, and one that all do: AMX reads weights where they lie then. */
static void test_same_bits(void **state) {
    (void)state;
    same_bits(777);
    same_bits(800);
    same_bits(768);
}

/* y (+)= x W^T on rows [first, first + rows). */
static void add_rows(machine *mc, int64_t first, int64_t rows, const float *x, const emo_weight *w, float *y) {
    emo_error err = EMO_ERROR_INIT;
    emo_linear_args args = {.tokens = rows,
                            .x = x + first * w->cols,
                            .x_stride = w->cols,
                            .weight = *w,
                            .y = y + first * w->rows,
                            .y_stride = w->rows,
                            .accumulate = 1};
    EXPECT_OK(mc->backend->ops->linear_forward(mc->exec, &args, &err));
}

/* AMX copies weights in bf16, or not, and packs rows at once, or not, by how many there are; weights in f32 it packs.
 * They lie anywhere in a file. */
static void test_many_rows(void **state) {
    (void)state;
    enum { T = 290, ODD = 3 };
    static const int64_t columns[] = {83, 19, 64}, depths[] = {544, 2048, 32};
    const way amx = {EMO_ISA_AMX, EMO_DTYPE_BF16};
    if (!test_has_isa(EMO_ISA_AMX))
        skip();
    machine one = open_machine(1, amx), two = open_machine(2, amx);
    for (size_t i = 0; i < 3; i++) {
        const int64_t n = columns[i], k = depths[i];
        const size_t weights = (size_t)(n * k), outputs = (size_t)(T * n);
        float *x = numbers((size_t)(T * k), 4), *w = numbers(weights + ODD, 5), *y[4];
        uint16_t *typed = as_dtype(w, weights + ODD, EMO_DTYPE_BF16); /* and w is what they are */
        emo_weight half = {.data = typed + ODD, .dtype = EMO_DTYPE_BF16, .rows = n, .cols = k, .stride = k};
        emo_weight whole = {.data = w + ODD, .dtype = EMO_DTYPE_F32, .rows = n, .cols = k, .stride = k};
        for (int j = 0; j < 4; j++)
            y[j] = numbers(outputs, 6);
        add_rows(&one, 0, T, x, &half, y[0]);
        add_rows(&one, 0, T, x, &whole, y[1]);
        add_rows(&two, 0, 70, x, &half, y[2]);
        add_rows(&two, 70, T - 70, x, &half, y[2]);
        for (int64_t t = 0; t < T; t += 17)
            add_rows(&one, t, T - t < 17 ? T - t : 17, x, &half, y[3]);
        for (int j = 1; j < 4; j++)
            assert_memory_equal(y[0], y[j], outputs * sizeof(float));
        for (int j = 0; j < 4; j++)
            free(y[j]);
        free(x);
        free(w);
        free(typed);
    }
    close_machine(&one);
    close_machine(&two);
}

/* In bf16 quantised weights meet activations in blocks of 32 signed bytes, at all levels but the scalar one, with the
 * same bits; elsewhere they become floats again. The loop does one or the other in double precision. */
static void test_quantised(void **state) {
    (void)state;
    enum { M = 37, N = 43, K = 1024, BLOCK = 32 }; /* three groups of tiles, the last one short */
    float *x = numbers(M * K, 9), *y = numbers(M * N, 10), *seen_x = numbers(M * K, 9), *few = numbers(M * N, 10);
    float *in_bytes[ALL] = {NULL}; /* by type */
    for (int i = 0; i < M * K / BLOCK; i++) {
        float most = 0.0f;
        for (int j = i * BLOCK; j < (i + 1) * BLOCK; j++)
            most = fmaxf(most, fabsf(x[j]));
        for (int j = i * BLOCK; j < (i + 1) * BLOCK; j++)
            seen_x[j] = rintf(x[j] * (127.0f / most)) * (most / 127.0f);
    }
    for (size_t level = 0; level < WAYS; level++)
        for (size_t d = PLAIN; d < ALL && test_has_isa(ways[level].isa); d++) {
            float *w = numbers(N * K, 11);
            void *typed = as_dtype(w, N * K, dtypes[d]);
            emo_weight weight = {.data = typed, .dtype = dtypes[d], .rows = N, .cols = K, .stride = K};
            emo_weight none = {0};
            machine mc = open_machine(2, ways[level]);
            int bytes = mc.compute == EMO_DTYPE_BF16 && ways[level].isa != EMO_ISA_SCALAR;
            double *left = seen(bytes ? seen_x : x, M * K, bytes ? EMO_DTYPE_F32 : mc.compute);
            double *right = seen(w, N * K, bytes ? EMO_DTYPE_F32 : mc.compute);
            linear(&mc, 0, M, x, &weight, &none, y);
            for (int rows = 1; rows < M; rows += rows < 5 ? 1 : 11) { /* 5, 16 and 27 on tiles */
                linear(&mc, 0, rows, x, &weight, &none, few);
                assert_memory_equal(few, y, (size_t)(rows * N) * sizeof *y);
            }
            if (bytes && in_bytes[d] == NULL) {
                in_bytes[d] = numbers(M * N, 10);
                memcpy(in_bytes[d], y, M * N * sizeof *y);
            } else if (bytes) {
                assert_memory_equal(in_bytes[d], y, M * N * sizeof *y);
            }
            for (int t = 0; t < M; t++)
                for (int n = 0; n < N; n++) {
                    double want = 0.0;
                    for (int k = 0; k < K; k++)
                        want += left[t * K + k] * right[n * K + k];
                    /* thirty-two sums of numbers of this size in f32, and the f32 products of scales */
                    if (!(fabs(want - (double)y[t * N + n]) < 2e-5))
                        fail_msg("level %zu, type %d: [%d, %d] is %.7f and not %.7f", level, (int)dtypes[d], t, n,
                                 (double)y[t * N + n], want);
                }
            close_machine(&mc);
            free(left);
            free(right);
            free(typed);
            free(w);
        }
    for (int d = 0; d < ALL; d++)
        free(in_bytes[d]);
    free(few);
    free(x);
    free(y);
    free(seen_x);
}

/* What is no number in one row of activations stays in that row, and is seen there. */
static void test_quantised_not_finite(void **state) {
    (void)state;
    enum { M = 6, N = 19, K = 256 };
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t level = 0; level < WAYS; level++)
        for (size_t d = PLAIN; d < ALL && test_has_isa(ways[level].isa); d++)
            for (int o = 0; o < 3; o++) {
                float *x = numbers(M * K, 9), *y = numbers(M * N, 10), *w = numbers(N * K, 11);
                void *typed = as_dtype(w, N * K, dtypes[d]);
                emo_weight weight = {.data = typed, .dtype = dtypes[d], .rows = N, .cols = K, .stride = K};
                emo_weight none = {0};
                machine mc = open_machine(1, ways[level]);
                x[2 * K + 100] = odd[o];
                linear(&mc, 0, M, x, &weight, &none, y);
                for (int t = 0; t < M; t++)
                    for (int n = 0; n < N; n++)
                        assert_int_equal(isfinite(y[t * N + n]) != 0, t != 2);
                close_machine(&mc);
                free(typed);
                free(w);
                free(x);
                free(y);
            }
}

/* Other code on the thread may have configured tiles for itself. */
static void test_tiles_of_others(void **state) {
    (void)state;
#if defined(__x86_64__)
    enum { M = 6, N = 35, K = 256 };
    if (!test_has_isa(EMO_ISA_AMX))
        skip();
    float *x = numbers(M * K, 9), *y = numbers(M * N, 10), *w = numbers(N * K, 11);
    emo_weight none = {0};
    machine mc = open_machine(1, (way){EMO_ISA_AMX, EMO_DTYPE_BF16}); /* the calling thread works */
    static const struct {
        uint8_t head[16];
        uint16_t colsb[16];
        uint8_t rows[16];
    } mine __attribute__((aligned(64))) = {.head = {1}, .colsb = {8, 16, 32}, .rows = {3, 5, 7}};
    unsigned char now[64] __attribute__((aligned(64)));
    for (size_t d = 0; d < ALL; d++) {
        void *typed = as_dtype(w, N * K, dtypes[d]);
        emo_weight weight = {.data = typed, .dtype = dtypes[d], .rows = N, .cols = K, .stride = K};
        __asm__ volatile("ldtilecfg %0" : : "m"(mine));
        linear(&mc, 0, M, x, &weight, &none, y);
        __asm__ volatile("sttilecfg %0" : "=m"(now));
        assert_memory_equal(now, &mine, sizeof now);
        __asm__ volatile("tilerelease");
        linear(&mc, 0, M, x, &weight, &none, y);
        __asm__ volatile("sttilecfg %0" : "=m"(now));
        assert_int_equal(now[0], 0); /* not in use, as it was */
        free(typed);
    }
    close_machine(&mc);
    free(x);
    free(y);
    free(w);
#else
    skip();
#endif
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_double),
                                       cmocka_unit_test(test_same_bits),
                                       cmocka_unit_test(test_many_rows),
                                       cmocka_unit_test(test_quantised),
                                       cmocka_unit_test(test_quantised_not_finite),
                                       cmocka_unit_test(test_tiles_of_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
