/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding, norm, RoPE, softmax and the optimiser against their formulas in double, at every level. */
#include <math.h>

#include "support/ops.h"
#include "tensor/dtype.h"

static const emo_dtype dtypes[] = {EMO_DTYPE_F32, EMO_DTYPE_F16, EMO_DTYPE_BF16};

/* x rounded to the type, in place, and its encoded form (to be freed). */
static void *encode(float *x, size_t n, emo_dtype dtype) {
    void *data = malloc(n * emo__dtype_size(dtype) + 1);
    assert_non_null(data);
    assert_true(emo__convert(data, dtype, x, EMO_DTYPE_F32, n));
    assert_true(emo__convert(x, EMO_DTYPE_F32, data, dtype, n));
    return data;
}

static void embedding_looks_up_and_adds_back(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { TOKENS = 150, HIDDEN = 37, VOCAB = 41 };
    int32_t ids[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        ids[i] = i * i % VOCAB;
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t l = 0; l < n_levels; l++) {
        for (size_t k = 0; k < 3; k++) {
            float *w = test_floats(VOCAB * HIDDEN, 1, 1.0f), *d_out = test_floats(TOKENS * HIDDEN, 2, 1.0f);
            float *out = test_floats(TOKENS * HIDDEN, 3, 1.0f), *d_w = test_floats(VOCAB * HIDDEN, 4, 1.0f);
            float *want = test_floats(VOCAB * HIDDEN, 4, 1.0f);
            void *data = encode(w, VOCAB * HIDDEN, dtypes[k]);
            emo_embed_args a = {TOKENS, HIDDEN, ids, test_weight(data, dtypes[k], VOCAB, HIDDEN), out, d_out, d_w};
            test_device d = test_device_open(1 + (int32_t)k, levels[l]);
            EXPECT_OK(d.ops->embed_forward(d.exec, &a, &err));
            EXPECT_OK(d.ops->embed_backward(d.exec, &a, &err));
            test_device_close(&d);
            for (int t = 0; t < TOKENS; t++) {
                assert_memory_equal(out + t * HIDDEN, w + ids[t] * HIDDEN, HIDDEN * sizeof(float));
                for (int i = 0; i < HIDDEN; i++)
                    want[ids[t] * HIDDEN + i] += d_out[t * HIDDEN + i];
            }
            /* the order is promised, hence the bits */
            assert_memory_equal(d_w, want, VOCAB * HIDDEN * sizeof(float));
            free(w);
            free(d_out);
            free(out);
            free(d_w);
            free(want);
            free(data);
        }
    }
}

static void norm_matches_the_formula(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int64_t widths[] = {1, 7, 32, 67, 256};
    enum { TOKENS = 131 };
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < 5 * n_levels * 3; c++) {
        int64_t n = widths[c % 5];
        emo_dtype dtype = dtypes[c / 5 % 3];
        size_t all = (size_t)(TOKENS * n);
        float *x = test_floats(all, 1, 2.0f), *w = test_floats((size_t)n, 2, 1.5f), *dy = test_floats(all, 3, 1.0f);
        float *y = test_floats(all, 4, 1.0f), *dx = test_floats(all, 5, 1.0f), *base = test_floats(all, 5, 1.0f);
        float *dw = test_floats((size_t)n, 6, 1.0f), *dw_base = test_floats((size_t)n, 6, 1.0f), rstd[TOKENS];
        void *data = encode(w, (size_t)n, dtype);
        int accumulate = (int)(c % 2);
        emo_norm_args a = {TOKENS, n, 1e-6f, x, test_weight(data, dtype, 1, n), y, rstd, dy, dx, accumulate, dw};
        test_device d = test_device_open(2, levels[c / 15]);
        EXPECT_OK(d.ops->norm_forward(d.exec, &a, &err));
        EXPECT_OK(d.ops->norm_backward(d.exec, &a, &err));
        double *dw_want = calloc((size_t)n, sizeof(double));
        assert_non_null(dw_want);
        for (int64_t t = 0; t < TOKENS; t++) {
            double square = 0.0, dot = 0.0;
            for (int64_t i = 0; i < n; i++)
                square += (double)x[t * n + i] * (double)x[t * n + i];
            double r = 1.0 / sqrt(square / (double)n + 1e-6);
            for (int64_t i = 0; i < n; i++)
                dot += (double)w[i] * (double)dy[t * n + i] * (double)x[t * n + i];
            for (int64_t i = 0; i < n; i++) {
                int64_t at = t * n + i;
                double want = (double)w[i] * (double)x[at] * r;
                double grad = r * (double)w[i] * (double)dy[at] - (double)x[at] * r * r * r * dot / (double)n;
                grad += accumulate ? (double)base[at] : 0.0;
                dw_want[i] += (double)dy[at] * (double)x[at] * r;
                /* relative rounding of a handful of f32 operations; r can be large for width 1 */
                assert_true(fabs((double)y[at] - want) < 1e-6 * (1.0 + fabs(want)));
                assert_true(fabs((double)dx[at] - grad) < 2e-6 * (2.0 + r * 3.0));
            }
            assert_true(fabs((double)rstd[t] - r) < 1e-6 * r);
        }
        for (int64_t i = 0; i < n; i++)
            assert_true(fabs((double)dw[i] - (double)dw_base[i] - dw_want[i]) < 5e-5);
        /* other thread counts give the same bits */
        float *again = test_floats((size_t)n, 6, 1.0f), *y2 = test_floats(all, 9, 1.0f);
        test_device four = test_device_open(4, levels[c / 15]);
        a.d_weight = again;
        a.y = y2;
        EXPECT_OK(four.ops->norm_forward(four.exec, &a, &err));
        EXPECT_OK(four.ops->norm_backward(four.exec, &a, &err));
        assert_memory_equal(again, dw, (size_t)n * sizeof(float));
        assert_memory_equal(y2, y, all * sizeof(float));
        test_device_close(&d);
        test_device_close(&four);
        float *blocks[] = {x, w, dy, y, dx, base, dw, dw_base, again, y2};
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
            free(blocks[i]);
        free(data);
        free(dw_want);
    }
}

static void rope_rotates_and_rotates_back(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int32_t dims[] = {2, 20, 32, 128};
    enum { TOKENS = 70, POSITIONS = 300, HEADS = 3 };
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < 4 * n_levels; c++) {
        int32_t dim = dims[c % 4], half = dim / 2, positions[TOKENS];
        int64_t stride = HEADS * dim + 5;
        size_t all = (size_t)(TOKENS * stride);
        float *cosine = test_floats((size_t)(POSITIONS * half), 1, 1.0f);
        float *sine = test_floats((size_t)(POSITIONS * half), 1, 1.0f);
        for (int32_t p = 0; p < POSITIONS; p++) {
            for (int32_t i = 0; i < half; i++) {
                double angle = p * pow(10000.0, -2.0 * i / dim);
                cosine[p * half + i] = (float)cos(angle);
                sine[p * half + i] = (float)sin(angle);
            }
        }
        for (int32_t i = 0; i < TOKENS; i++)
            positions[i] = i * 37 % POSITIONS;
        float *x = test_floats(all, 7, 1.0f), *start = test_floats(all, 7, 1.0f);
        emo_rope_args a = {TOKENS, HEADS, dim, stride, positions, cosine, sine, x, 0};
        test_device d = test_device_open(2, levels[c / 4]);
        EXPECT_OK(d.ops->rope(d.exec, &a, &err));
        for (int64_t t = 0; t < TOKENS; t++) {
            for (int64_t i = 0; i < stride; i++) {
                double want = (double)start[t * stride + i];
                if (i < HEADS * dim) {
                    int64_t e = i % dim, j = e % half;
                    double angle = positions[t] * pow(10000.0, -2.0 * (double)j / dim);
                    double pair = (double)start[t * stride + i + (e < half ? half : -half)];
                    want = want * cos(angle) + (e < half ? -pair : pair) * sin(angle);
                }
                assert_true(fabs((double)x[t * stride + i] - want) < 5e-7);
            }
        }
        a.inverse = 1;
        EXPECT_OK(d.ops->rope(d.exec, &a, &err));
        assert_true(test_max_diff(x, start, all) < 5e-7); /* two roundings of numbers below 1.5 */
        test_device_close(&d);
        free(cosine);
        free(sine);
        free(x);
        free(start);
    }
}

static void softmax_keeps_to_the_allowed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { ROWS = 70, COLS = 45, STRIDE = 50 };
    uint8_t allowed[3 * COLS];
    int32_t set_of[ROWS];
    for (int i = 0; i < 3 * COLS; i++)
        allowed[i] = i < COLS || i % 3 == 0;
    memset(allowed + 2 * COLS, 0, COLS);
    for (int i = 0; i < ROWS; i++)
        set_of[i] = i % 3;
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t l = 0; l < n_levels; l++) {
        float *x = test_floats(ROWS * STRIDE, 1, 20.0f), *p = test_floats(ROWS * COLS, 2, 1.0f), lse[ROWS];
        emo_softmax_args a = {.rows = ROWS,
                              .cols = COLS,
                              .x = x,
                              .x_stride = STRIDE,
                              .allowed = allowed,
                              .set_of = set_of,
                              .probs = p,
                              .lse = lse};
        test_device d = test_device_open(2, levels[l]);
        EXPECT_OK(d.ops->softmax(d.exec, &a, &err));
        test_device_close(&d);
        for (int r = 0; r < ROWS; r++) {
            double sum = 0.0;
            for (int j = 0; j < COLS; j++)
                sum += allowed[set_of[r] * COLS + j] ? exp((double)x[r * STRIDE + j]) : 0.0;
            for (int j = 0; j < COLS; j++) {
                double e = allowed[set_of[r] * COLS + j] ? exp((double)x[r * STRIDE + j]) / sum : 0.0;
                assert_true(fabs((double)p[r * COLS + j] - e) < 1e-6);
            }
            if (sum > 0.0)
                assert_true(fabs((double)lse[r] - log(sum)) < 3e-6);
            else
                assert_true(lse[r] == 0.0f);
        }
        free(x);
        free(p);
    }
}

static void adamw_follows_the_formula(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { N = 40001 };
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t l = 0; l < n_levels; l++) {
        float *p = test_floats(N, 1, 1.0f), *g = test_floats(N, 2, 1.0f), *m = test_floats(N, 3, 0.1f);
        float *v = test_floats(N, 4, 0.01f), *p0 = test_floats(N, 1, 1.0f), *m0 = test_floats(N, 3, 0.1f);
        for (int i = 0; i < N; i++)
            v[i] = fabsf(v[i]);
        float *v0 = malloc(N * sizeof(float));
        assert_non_null(v0);
        memcpy(v0, v, N * sizeof(float));
        emo_step_scalars s = {.lr = 0.01f, .bias1 = 0.271f, .bias2 = 0.142625f, .clip_scale = 0.5f, .skip = 1};
        emo_adamw_args a = {N, p, g, m, v, 0.9f, 0.95f, 1e-8f, 0.1f, &s};
        test_device d = test_device_open(2, levels[l]);
        EXPECT_OK(d.ops->adamw(d.exec, &a, &err));
        assert_memory_equal(p, p0, N * sizeof(float)); /* skipped */
        s.skip = 0;
        EXPECT_OK(d.ops->adamw(d.exec, &a, &err));
        test_device_close(&d);
        for (int i = 0; i < N; i++) {
            double grad = (double)g[i] * 0.5, mean = 0.9 * (double)m0[i] + 0.1 * grad;
            double square = 0.95 * (double)v0[i] + 0.05 * grad * grad;
            double want =
                (double)p0[i] * (1.0 - 0.01 * 0.1) - 0.01 / 0.271 * mean / (sqrt(square) / sqrt(0.142625) + 1e-8);
            /* f32 roundings; 0.95f and 1 - 0.95f are off by up to 3e-7 relative to 0.05 */
            assert_true(fabs((double)m[i] - mean) < 1e-7 && fabs((double)v[i] - square) < 1e-7 * (1.0 + square));
            assert_true(fabs((double)p[i] - want) < 1e-6);
        }
        float *blocks[] = {p, g, m, v, p0, m0, v0};
        for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
            free(blocks[i]);
    }
}

static void sumsq_and_clip(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { N = 50003 };
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    float *x = test_floats(N, 1, 1.0f);
    double want = 1.0;
    for (int i = 0; i < N; i++)
        want += (double)x[i] * (double)x[i];
    for (size_t l = 0; l < n_levels; l++) {
        double first = 0.0;
        for (int32_t threads = 1; threads <= 4; threads *= 2) {
            test_device d = test_device_open(threads, levels[l]);
            emo_step_scalars s = {.sumsq = 1.0};
            emo_sumsq_args a = {N, x, &s.sumsq};
            EXPECT_OK(d.ops->sumsq(d.exec, &a, &err));
            assert_true(fabs(s.sumsq - want) < 1e-9 * want);
            if (threads == 1)
                first = s.sumsq;
            assert_true(s.sumsq == first);
            emo_clip_args c = {2.0f, &s};
            EXPECT_OK(d.ops->clip(d.exec, &c, &err));
            assert_true(fabs((double)s.grad_norm - sqrt(want)) < 1e-4);
            assert_true(fabs((double)s.clip_scale - 2.0 / (sqrt(want) + 1e-6)) < 1e-8);
            assert_int_equal(s.skip, 0);
            c.max_norm = 1e6f;
            EXPECT_OK(d.ops->clip(d.exec, &c, &err));
            assert_true(s.clip_scale == 1.0f);
            c.max_norm = 0.0f;
            EXPECT_OK(d.ops->clip(d.exec, &c, &err));
            assert_true(s.clip_scale == 1.0f);
            s.sumsq = NAN;
            EXPECT_OK(d.ops->clip(d.exec, &c, &err));
            assert_int_equal(s.skip, 1);
            s.sumsq = INFINITY;
            EXPECT_OK(d.ops->clip(d.exec, &c, &err));
            assert_int_equal(s.skip, 1);
            test_device_close(&d);
        }
    }
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding_looks_up_and_adds_back), cmocka_unit_test(norm_matches_the_formula),
        cmocka_unit_test(rope_rotates_and_rotates_back),    cmocka_unit_test(softmax_keeps_to_the_allowed),
        cmocka_unit_test(adamw_follows_the_formula),        cmocka_unit_test(sumsq_and_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
