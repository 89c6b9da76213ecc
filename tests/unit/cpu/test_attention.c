/* SPDX-License-Identifier: Apache-2.0 */
/* Attention forward and backward against sums in double; slices, decoding and threads to the bit. */
#include <math.h>

#include "support/ops.h"
#include "support/pages.h"

typedef struct shape {
    int32_t heads, kv_heads, dim;
    int64_t n_segments;
    emo_attention_segment segments[4];
    int64_t q_rows, k_rows;
} shape;

static const shape shapes[] = {
    {4, 4, 32, 3, {{0, 70, 0, 70}, {70, 1, 70, 1}, {71, 185, 71, 185}, {0, 0, 0, 0}}, 256, 256},
    {6, 2, 20, 2, {{0, 33, 0, 33}, {33, 100, 33, 100}, {0, 0, 0, 0}, {0, 0, 0, 0}}, 133, 133},
    {8, 2, 64, 3, {{0, 3, 0, 130}, {3, 1, 130, 67}, {4, 65, 197, 200}, {0, 0, 0, 0}}, 69, 397},
    {2, 1, 128, 1, {{0, 40, 0, 40}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}, 40, 40},
    {3, 3, 6, 1, {{0, 64, 0, 129}, {0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}}, 64, 129},
};

typedef struct buffers {
    emo_attention_args args;
    float *q, *k, *v, *o, *lse, *d_o, *dq, *dk, *dv;
    size_t n_q, n_k, n_lse;
} buffers;

static buffers make(const shape *s, uint64_t seed) {
    buffers b;
    int64_t qs = s->heads * s->dim + 3, ks = s->kv_heads * s->dim + 5;
    b.n_q = (size_t)(s->q_rows * qs);
    b.n_k = (size_t)(s->k_rows * ks);
    b.n_lse = (size_t)(s->q_rows * s->heads);
    b.q = test_floats(b.n_q, seed, 2.0f);
    b.k = test_floats(b.n_k, seed + 1, 2.0f);
    b.v = test_floats(b.n_k, seed + 2, 1.0f);
    b.d_o = test_floats(b.n_q, seed + 3, 1.0f);
    b.o = test_floats(b.n_q, seed + 4, 1.0f);
    b.lse = test_floats(b.n_lse, seed + 5, 1.0f);
    b.dq = test_floats(b.n_q, seed + 6, 1.0f);
    b.dk = test_floats(b.n_k, seed + 7, 1.0f);
    b.dv = test_floats(b.n_k, seed + 8, 1.0f);
    b.args = (emo_attention_args){.n_segments = s->n_segments,
                                  .segments = s->segments,
                                  .q_last = s->q_rows,
                                  .heads = s->heads,
                                  .kv_heads = s->kv_heads,
                                  .head_dim = s->dim,
                                  .scale = 1.0f / sqrtf((float)s->dim),
                                  .q = b.q,
                                  .q_stride = qs,
                                  .k = b.k,
                                  .v = b.v,
                                  .kv_stride = ks,
                                  .o = b.o,
                                  .o_stride = qs,
                                  .lse = b.lse,
                                  .d_o = b.d_o,
                                  .dq = b.dq,
                                  .dk = b.dk,
                                  .dv = b.dv};
    return b;
}

static void drop(buffers *b) {
    float *all[] = {b->q, b->k, b->v, b->o, b->lse, b->d_o, b->dq, b->dk, b->dv};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* How far the gradients may be from the definition when operands of products are bf16: each is off by 2^-8 of itself,
 * scores, which come from operands in two parts, by 3 * 2^-16 of their terms. */
typedef struct bounds {
    double *dq, *dk, *dv;
} bounds;

/* What one key adds to the bounds of a query's gradients and its own. */
static void add_bounds(const emo_attention_args *a, int64_t qo, int64_t at, double p, double dp, double delta,
                       const bounds *e) {
    const double both = ldexp(1.0, -7) + ldexp(1.0, -16), scale = (double)a->scale;
    double score = 0.0, size = 0.0;
    for (int32_t d = 0; d < a->head_dim; d++) {
        score += fabs((double)a->q[qo + d] * (double)a->k[at + d]) * scale * 3.0 * ldexp(1.0, -16);
        size += fabs((double)a->d_o[qo + d] * (double)a->v[at + d]);
    }
    const double off_p = p * (1.1 * score + 1e-5), ds = fabs(p * (dp - delta)) * scale;
    const double off_ds = (p * (size * both + 1e-5) + off_p * (fabs(dp - delta) + size * both)) * scale;
    for (int32_t d = 0; d < a->head_dim; d++) {
        e->dq[qo + d] += fabs((double)a->k[at + d]) * (ds * both + off_ds);
        e->dk[at + d] += fabs((double)a->q[qo + d]) * (ds * both + off_ds);
        e->dv[at + d] += fabs((double)a->d_o[qo + d]) * (p * both + off_p);
    }
}

/* Everything in double, from the definition. Elements outside rows * heads * dim keep what `b` holds. */
static void oracle(const shape *s, const buffers *b, float *o, float *lse, double *dq, double *dk, double *dv,
                   const bounds *e) {
    const emo_attention_args *a = &b->args;
    double *p = malloc(sizeof(double) * (size_t)s->k_rows * 2);
    assert_non_null(p);
    double *dp = p + s->k_rows;
    memset(dq, 0, sizeof(double) * b->n_q);
    memset(dk, 0, sizeof(double) * b->n_k);
    memset(dv, 0, sizeof(double) * b->n_k);
    for (int64_t g = 0; g < s->n_segments; g++) {
        const emo_attention_segment *part = &s->segments[g];
        for (int64_t i = 0; i < part->q_count; i++) {
            for (int32_t h = 0; h < s->heads; h++) {
                int64_t qo = (part->q_begin + i) * a->q_stride + h * s->dim,
                        seen = part->k_count - part->q_count + i + 1;
                int64_t ko = part->k_begin * a->kv_stride + h / (s->heads / s->kv_heads) * s->dim;
                double top = -INFINITY, sum = 0.0, delta = 0.0;
                for (int64_t j = 0; j < seen; j++) {
                    p[j] = 0.0;
                    for (int32_t d = 0; d < s->dim; d++)
                        p[j] += (double)b->q[qo + d] * (double)b->k[ko + j * a->kv_stride + d] * (double)a->scale;
                    top = fmax(top, p[j]);
                }
                for (int64_t j = 0; j < seen; j++)
                    sum += p[j] = exp(p[j] - top);
                lse[(part->q_begin + i) * s->heads + h] = (float)(top + log(sum));
                for (int64_t j = 0; j < seen; j++) {
                    p[j] /= sum;
                    dp[j] = 0.0;
                    for (int32_t d = 0; d < s->dim; d++)
                        dp[j] += (double)b->d_o[qo + d] * (double)b->v[ko + j * a->kv_stride + d];
                    delta += p[j] * dp[j];
                }
                for (int32_t d = 0; d < s->dim; d++) {
                    double out = 0.0;
                    for (int64_t j = 0; j < seen; j++) {
                        int64_t at = ko + j * a->kv_stride + d;
                        double ds = p[j] * (dp[j] - delta) * (double)a->scale;
                        out += p[j] * (double)b->v[at];
                        dq[qo + d] += ds * (double)b->k[at];
                        dk[at] += ds * (double)b->q[qo + d];
                        dv[at] += p[j] * (double)b->d_o[qo + d];
                    }
                    o[qo + d] = (float)out;
                }
                for (int64_t j = 0; j < seen && e != NULL; j++)
                    add_bounds(a, qo, ko + j * a->kv_stride, p[j], dp[j], delta, e);
            }
        }
    }
    free(p);
}

static double worst(const float *got, const double *want, int64_t rows, int64_t stride, int64_t width) {
    double most = 0.0;
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t d = 0; d < width; d++) {
            double diff = fabs((double)got[i * stride + d] - want[i * stride + d]);
            if (!(diff <= most))
                most = isnan(diff) ? INFINITY : diff;
        }
    }
    return most;
}

static void matches_the_definition(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
        const shape *s = &shapes[c];
        buffers b = make(s, 10 * c + 1);
        float *o = malloc(b.n_q * sizeof(float)), *lse = malloc(b.n_lse * sizeof(float));
        double *dq = malloc(b.n_q * sizeof(double)), *dk = malloc(b.n_k * sizeof(double));
        double *dv = malloc(b.n_k * sizeof(double));
        assert_true(o != NULL && lse != NULL && dq != NULL && dk != NULL && dv != NULL);
        memcpy(o, b.o, b.n_q * sizeof(float));
        oracle(s, &b, o, lse, dq, dk, dv, NULL);
        for (size_t l = 0; l < n_levels; l++) {
            test_device d = test_device_open(2, levels[l]);
            EXPECT_OK(d.ops->attention_forward(d.exec, &b.args, &err));
            /* sums of at most 200 terms of size below 1, in f32 */
            assert_true(test_max_diff(b.o, o, b.n_q) < 3e-6);
            assert_true(test_max_diff(b.lse, lse, b.n_lse) < 1e-5);
            EXPECT_OK(d.ops->attention_backward(d.exec, &b.args, &err));
            assert_true(worst(b.dq, dq, s->q_rows, b.args.q_stride, s->heads * s->dim) < 1e-5);
            /* up to 200 queries of 4 heads */
            assert_true(worst(b.dk, dk, s->k_rows, b.args.kv_stride, s->kv_heads * s->dim) < 3e-5);
            assert_true(worst(b.dv, dv, s->k_rows, b.args.kv_stride, s->kv_heads * s->dim) < 3e-5);
            test_device_close(&d);
        }
        free(o);
        free(lse);
        free(dq);
        free(dk);
        free(dv);
        drop(&b);
    }
}

static void within(const float *got, const double *want, const double *bound, int64_t rows, int64_t stride,
                   int64_t width) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < width; d++) {
            double diff = fabs((double)got[i * stride + d] - want[i * stride + d]);
            assert_true(diff <= bound[i * stride + d] + 3e-5); /* the sums in f32 */
        }
}

/* Where matrix units multiply, the backward's operands are bf16: within the bounds of that, the same for any number of
 * threads, and not what f32 gives. */
static void rounded_products_stay_close(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    if (!test_has_isa(EMO_ISA_AMX))
        skip();
    for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
        const shape *s = &shapes[c];
        const emo_exec_options options = {.struct_size = sizeof options, .compute = EMO_DTYPE_BF16};
        buffers b = make(s, 10 * c + 1);
        float *o = malloc(b.n_q * sizeof(float)), *lse = malloc(b.n_lse * sizeof(float));
        float *first = malloc((b.n_q + 2 * b.n_k) * sizeof(float));
        double *want = malloc((b.n_q + 2 * b.n_k) * sizeof(double));
        double *bound = calloc(b.n_q + 2 * b.n_k, sizeof(double));
        assert_true(o != NULL && lse != NULL && first != NULL && want != NULL && bound != NULL);
        double *dq = want, *dk = dq + b.n_q, *dv = dk + b.n_k;
        const bounds e = {bound, bound + b.n_q, bound + b.n_q + b.n_k};
        oracle(s, &b, o, lse, dq, dk, dv, &e);
        for (int32_t threads = 1; threads <= 3; threads += 2) {
            test_device d = test_device_open(threads, EMO_ISA_AMX);
            emo_exec *exec = NULL;
            EXPECT_OK(d.ops->exec_create(d.rt->cpu, &options, &exec, &err));
            EXPECT_OK(d.ops->attention_forward(d.exec, &b.args, &err)); /* in f32 */
            EXPECT_OK(d.ops->attention_backward(exec, &b.args, &err));
            within(b.dq, dq, e.dq, s->q_rows, b.args.q_stride, s->heads * s->dim);
            within(b.dk, dk, e.dk, s->k_rows, b.args.kv_stride, s->kv_heads * s->dim);
            within(b.dv, dv, e.dv, s->k_rows, b.args.kv_stride, s->kv_heads * s->dim);
            assert_true(worst(b.dv, dv, s->k_rows, b.args.kv_stride, s->kv_heads * s->dim) > 1e-4);
            if (threads == 1) {
                memcpy(first, b.dq, b.n_q * sizeof(float));
                memcpy(first + b.n_q, b.dk, b.n_k * sizeof(float));
                memcpy(first + b.n_q + b.n_k, b.dv, b.n_k * sizeof(float));
            }
            assert_memory_equal(first, b.dq, b.n_q * sizeof(float));
            assert_memory_equal(first + b.n_q, b.dk, b.n_k * sizeof(float));
            assert_memory_equal(first + b.n_q + b.n_k, b.dv, b.n_k * sizeof(float));
            d.ops->exec_destroy(exec);
            test_device_close(&d);
        }
        void *all[] = {o, lse, first, want, bound};
        for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
            free(all[i]);
        drop(&b);
    }
}

static void threads_do_not_matter(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
        buffers one = make(&shapes[c], 77), many = make(&shapes[c], 77);
        test_device d = test_device_open(1, EMO_ISA_AUTO);
        EXPECT_OK(d.ops->attention_forward(d.exec, &one.args, &err));
        EXPECT_OK(d.ops->attention_backward(d.exec, &one.args, &err));
        test_device_close(&d);
        for (int32_t threads = 2; threads <= 4; threads += 2) {
            d = test_device_open(threads, EMO_ISA_AUTO);
            EXPECT_OK(d.ops->attention_forward(d.exec, &many.args, &err));
            EXPECT_OK(d.ops->attention_backward(d.exec, &many.args, &err));
            test_device_close(&d);
            assert_memory_equal(one.o, many.o, one.n_q * sizeof(float));
            assert_memory_equal(one.lse, many.lse, one.n_lse * sizeof(float));
            assert_memory_equal(one.dq, many.dq, one.n_q * sizeof(float));
            assert_memory_equal(one.dk, many.dk, one.n_k * sizeof(float));
            assert_memory_equal(one.dv, many.dv, one.n_k * sizeof(float));
        }
        drop(&one);
        drop(&many);
    }
}

static void slices_do_not_matter(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
        buffers whole = make(&shapes[c], 5), cut = make(&shapes[c], 5);
        test_device d = test_device_open(2, EMO_ISA_AUTO);
        EXPECT_OK(d.ops->attention_forward(d.exec, &whole.args, &err));
        for (int64_t at = 0; at < shapes[c].q_rows; at += 29) {
            cut.args.q_first = at;
            cut.args.q_last = at + 29;
            EXPECT_OK(d.ops->attention_forward(d.exec, &cut.args, &err));
        }
        test_device_close(&d);
        assert_memory_equal(whole.o, cut.o, whole.n_q * sizeof(float));
        assert_memory_equal(whole.lse, cut.lse, whole.n_lse * sizeof(float));
        drop(&whole);
        drop(&cut);
    }
}

/* Keys in pages, shorter and longer than the kernels' blocks, give the bits of keys one after the other. */
static void pages_do_not_matter(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int64_t sizes[] = {1, 16, 64, 256};
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < sizeof shapes / sizeof shapes[0]; c++) {
        buffers rows = make(&shapes[c], 9), paged = make(&shapes[c], 9);
        for (size_t i = 0; i < n_levels * 4; i++) {
            test_device d = test_device_open(2, levels[i / 4]);
            emo_attention_args a = paged.args;
            test_pages pages = test_pages_make(&a, rows.k, rows.v, sizes[i % 4]);
            a.segments = pages.segments;
            EXPECT_OK(d.ops->attention_forward(d.exec, &rows.args, &err));
            for (size_t x = 0; x < paged.n_lse; x++)
                paged.lse[x] = NAN;
            EXPECT_OK(d.ops->attention_forward(d.exec, &a, &err));
            assert_memory_equal(rows.o, paged.o, rows.n_q * sizeof(float));
            assert_memory_equal(rows.lse, paged.lse, rows.n_lse * sizeof(float));
            a.page_rows = 24;
            EXPECT_STATUS(d.ops->attention_forward(d.exec, &a, &err), EMO_E_INVALID_ARGUMENT, "power of two");
            test_pages_free(&pages);
            test_device_close(&d);
        }
        drop(&rows);
        drop(&paged);
    }
}

/* A cache that holds a prefix, the rest NaN, gives the row that the whole prompt gave. */
static void decoding_equals_prefill(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    const int64_t n = 150;
    for (size_t l = 0; l < n_levels; l++) {
        for (int32_t dim = 20; dim <= 64; dim += 44) {
            shape all = {4, 2, dim, 1, {{0, n, 7, n}}, n, n + 7};
            buffers b = make(&all, 3), one = make(&all, 3);
            test_device d = test_device_open(2, levels[l]);
            EXPECT_OK(d.ops->attention_forward(d.exec, &b.args, &err));
            int64_t ks = b.args.kv_stride, width = 4 * dim;
            for (int64_t t = 0; t < n; t += t < 3 ? 1 : 21) {
                emo_attention_segment segment = {t, 1, 7, t + 1};
                memcpy(one.k, b.k, b.n_k * sizeof(float));
                memcpy(one.v, b.v, b.n_k * sizeof(float));
                for (int64_t i = (7 + t + 1) * ks; i < (n + 7) * ks; i++)
                    one.k[i] = one.v[i] = NAN;
                one.args.segments = &segment;
                EXPECT_OK(d.ops->attention_forward(d.exec, &one.args, &err));
                assert_memory_equal(one.o + t * b.args.o_stride, b.o + t * b.args.o_stride,
                                    (size_t)width * sizeof(float));
                assert_memory_equal(one.lse + t * 4, b.lse + t * 4, 4 * sizeof(float));
            }
            test_device_close(&d);
            drop(&b);
            drop(&one);
        }
    }
}

static void large_scores_stay_finite(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    shape s = {1, 1, 16, 1, {{0, 100, 0, 100}}, 100, 100};
    buffers b = make(&s, 9);
    for (size_t i = 0; i < b.n_q; i++)
        b.q[i] *= 1e4f;
    test_device d = test_device_open(1, EMO_ISA_AUTO);
    EXPECT_OK(d.ops->attention_forward(d.exec, &b.args, &err));
    EXPECT_OK(d.ops->attention_backward(d.exec, &b.args, &err));
    for (size_t i = 0; i < b.n_lse; i++)
        assert_true(isfinite(b.lse[i]));
    for (size_t i = 0; i < b.n_q; i++)
        assert_true(isfinite(b.o[i]) && isfinite(b.dq[i]));
    test_device_close(&d);
    drop(&b);
}

static void refuses_bad_shapes(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    shape s = {3, 2, 16, 1, {{0, 10, 0, 10}}, 10, 10};
    buffers b = make(&s, 9);
    test_device d = test_device_open(1, EMO_ISA_AUTO);
    EXPECT_STATUS(d.ops->attention_forward(d.exec, &b.args, &err), EMO_E_INVALID_ARGUMENT, "multiple of kv heads");
    emo_attention_segment more_queries = {0, 10, 0, 9};
    b.args.heads = 2;
    b.args.segments = &more_queries;
    EXPECT_STATUS(d.ops->attention_forward(d.exec, &b.args, &err), EMO_E_INVALID_ARGUMENT, "one query per key");
    test_device_close(&d);
    drop(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_definition),   cmocka_unit_test(rounded_products_stay_close),
        cmocka_unit_test(threads_do_not_matter),    cmocka_unit_test(slices_do_not_matter),
        cmocka_unit_test(pages_do_not_matter),      cmocka_unit_test(decoding_equals_prefill),
        cmocka_unit_test(large_scores_stay_finite), cmocka_unit_test(refuses_bad_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
