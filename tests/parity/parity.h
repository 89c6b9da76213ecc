/* SPDX-License-Identifier: Apache-2.0 */
/* Two runtimes that differ in their table alone: as the CPU back end fills it, and with every block operator that has a
 * composed default taken out and completed. With PARITY_ON_PLUGIN the second one's is a plug-in's device instead. */
#ifndef EMO_TESTS_PARITY_H
#define EMO_TESTS_PARITY_H

#include "backend/composed.h"
#include "support/mirror.h"
#include "support/ops.h"
#include "tensor/dtype.h"

typedef struct parity {
    test_device fused;
    test_device composed;
    emo_backend_ops table;
    const emo_backend_ops *own;
} parity;

#ifdef PARITY_ON_PLUGIN

static inline void parity_open(parity *p, int32_t threads) {
    if (mirror_plugin() == NULL)
        skip();
    p->fused = test_device_open(threads, EMO_ISA_AUTO);
    p->composed = mirror_open(mirror_plugin(), threads);
}

static inline void parity_close(parity *p) {
    mirror_close(&p->composed, mirror_plugin());
    test_device_close(&p->fused);
}

#else

static inline void parity_open(parity *p, int32_t threads) {
    p->fused = test_device_open(threads, EMO_ISA_AUTO);
    p->composed = test_device_open(threads, EMO_ISA_AUTO);
    p->own = p->composed.ops;
    p->table = *p->own;
    emo_backend_ops *t = &p->table;
    t->linear_forward = t->linear_backward = NULL;
    t->norm_forward = t->norm_backward = NULL;
    t->swiglu_forward = t->swiglu_backward = NULL;
    t->attention_forward = t->attention_backward = NULL;
    t->experts_forward = t->experts_backward = NULL;
    t->route_forward = t->route_backward = NULL;
    t->head_loss = NULL;
    t->head_logits = NULL;
    emo__backend_complete(t);
    p->composed.rt->cpu->ops = t;
    p->composed.ops = t;
}

static inline void parity_close(parity *p) {
    p->composed.rt->cpu->ops = p->own;
    test_device_close(&p->composed);
    test_device_close(&p->fused);
}

#endif

/* A number in [low, high], from a state of the test's own. */
static inline int64_t parity_draw(uint64_t *state, int64_t low, int64_t high) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return low + (int64_t)((*state >> 33) % (uint64_t)(high - low + 1));
}

/* Random weights of a data type; *bytes is freed by the caller. */
static inline emo_weight parity_weight(emo_dtype dtype, int64_t rows, int64_t cols, uint64_t seed, void **bytes) {
    size_t n = (size_t)(rows * cols);
    float *x = test_floats(n, seed, 0.5f);
    *bytes = malloc((n + 1) * sizeof(float));
    assert_non_null(*bytes);
    assert_true(emo__convert(*bytes, dtype, x, EMO_DTYPE_F32, n));
    free(x);
    return test_weight(*bytes, dtype, rows, cols);
}

static inline emo_dtype parity_dtype(uint64_t *state) {
    static const emo_dtype all[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16, EMO_DTYPE_F16};
    return all[parity_draw(state, 0, 2)];
}

/* A product of these sizes, but for its arrays: the transposes of the round, strides with room or without. */
static inline emo_gemm_args parity_product(uint64_t *rng, int round, int64_t m, int64_t n, int64_t k) {
    emo_gemm_args g = {.trans_a = round & 1, .trans_b = (round >> 1) & 1, .m = m, .n = n, .k = k};
    g.lda = (g.trans_a ? m : k) + parity_draw(rng, 0, 3);
    g.ldb = (g.trans_b ? k : n) + parity_draw(rng, 0, 3);
    g.ldc = n + parity_draw(rng, 0, 3);
    g.alpha = 0.5f;
    g.beta = round % 3 == 0 ? 0.0f : round % 3 == 1 ? 1.0f : 0.25f;
    g.b_dtype = parity_dtype(rng);
    return g;
}

/* Both sides start from the same numbers, so that what is added to, and what must stay untouched, is compared too. */
typedef struct parity_out {
    float *fused;
    float *composed;
    size_t n;
} parity_out;

static inline parity_out parity_both(int64_t n, uint64_t seed) {
    return (parity_out){test_floats((size_t)n, seed, 1.0f), test_floats((size_t)n, seed, 1.0f), (size_t)n};
}

/* |difference| <= tolerance * max(1, largest value), then both are freed. */
static inline void parity_close_enough(const char *what, parity_out out, double tolerance) {
    double largest = 1.0;
    for (size_t i = 0; i < out.n; i++) {
        double v = out.fused[i] < 0.0f ? -(double)out.fused[i] : (double)out.fused[i];
        largest = v > largest ? v : largest;
    }
    double difference = test_max_diff(out.fused, out.composed, out.n);
    if (!(difference <= tolerance * largest))
        fail_msg("%s: composed and fused differ by %g, allowed are %g of %g", what, difference, tolerance, largest);
    free(out.fused);
    free(out.composed);
}

#endif
