/* SPDX-License-Identifier: Apache-2.0 */
/* The router's gradient against finite differences of its own formulas in double, with the chosen experts held fixed
 * (their choice carries no gradient). */
#include <math.h>

#include <emo/router.h>

#include "support/support.h"

enum { T = 13, D = 6, MAX_E = 12 };

typedef struct setting {
    const char *name;
    emo_router_options o;
    int32_t pool;
    int bias;
} setting;

typedef struct point {
    double x[T * D];
    double w[MAX_E * D];
} point;

typedef struct fixed {
    const setting *s;
    int32_t indices[T * MAX_E];
    uint8_t allowed[2 * MAX_E];
    float dw[T * MAX_E];
    int32_t counts[MAX_E];
    double noise[T * D]; /* of the jitter; 1 without */
    double divisor;
} fixed;

static const int64_t documents[3] = {0, 8, T};

/* sum(dw * weights) + loss, in double */
static double objective(const fixed *f, const point *p) {
    const emo_router_options *o = &f->s->o;
    int n = o->experts - o->shared;
    int k = o->top_k - o->shared - o->n_always;
    double total = 0.0;
    double score_sum[2][MAX_E] = {{0}};
    int32_t chosen[2][MAX_E] = {{0}};
    double z = 0.0;
    for (int t = 0; t < T; t++) {
        int doc = t >= documents[1];
        const uint8_t *allowed = f->allowed + (doc ? n : 0);
        double logit[MAX_E];
        double score[MAX_E] = {0};
        double sum = 0.0;
        for (int e = 0; e < o->experts; e++) {
            logit[e] = 0.0;
            for (int h = 0; h < D; h++)
                logit[e] += p->x[t * D + h] * f->noise[t * D + h] * p->w[e * D + h];
        }
        for (int e = 0; e < n; e++)
            sum += allowed[e] ? exp(logit[e]) : 0.0;
        double norm_all = 0.0;
        for (int e = 0; e < n; e++) {
            if (allowed[e])
                score[e] = o->gating == EMO_ROUTER_SIGMOID ? 1.0 / (1.0 + exp(-logit[e])) + 1e-7 : exp(logit[e]) / sum;
            norm_all += score[e];
        }
        for (int e = 0; e < n; e++)
            score_sum[doc][e] += o->gating == EMO_ROUTER_SIGMOID ? score[e] / norm_all : score[e];
        z += log(sum) * log(sum);
        const int32_t *index = f->indices + t * o->top_k;
        double norm = 0.0;
        for (int j = 0; j < k; j++)
            norm += pow(score[index[j]], o->norm_p > 0.0f ? (double)o->norm_p : 1.0);
        norm = o->norm_p > 0.0f ? pow(norm, 1.0 / (double)o->norm_p) : 1.0;
        double shared_sum = 0.0;
        for (int e = n; e < o->experts; e++)
            shared_sum += exp(logit[e]);
        for (int j = 0; j < o->top_k; j++) {
            double weight;
            chosen[doc][index[j]] += j < k;
            if (j < k)
                weight = score[index[j]] / norm;
            else if (o->n_always > 0)
                weight = score[index[j]];
            else
                weight = o->shared_mode == EMO_ROUTER_SHARED_SOFTMAX ? exp(logit[index[j]]) / shared_sum : 1.0;
            total += (double)f->dw[t * o->top_k + j] * weight;
        }
    }
    double lb = 0.0;
    if (o->balance_scope == EMO_BALANCE_DOCUMENT) {
        for (int d = 0; d < 2; d++) { /* over its own pool, its tokens in place of N; then the mean of the two */
            double tokens = (double)(documents[d + 1] - documents[d]);
            int pool = 0;
            double sum = 0.0;
            for (int e = 0; e < n; e++) {
                pool += f->allowed[d * n + e];
                sum += chosen[d][e] * score_sum[d][e] / tokens;
            }
            lb += (double)pool / k * sum / tokens / 2.0;
        }
    } else {
        for (int e = 0; e < n; e++)
            lb += f->counts[e] * (score_sum[0][e] + score_sum[1][e]) / T;
        lb *= (double)n / k / f->divisor;
    }
    return total + (double)o->balance_weight * lb + (double)o->z_weight * z / f->divisor;
}

/* What the jitter makes of ones, through a router whose weights are the identity. */
static void find_noise(emo_runtime *rt, const emo_router_options *like, double noise[T * D]) {
    emo_error err = EMO_ERROR_INIT;
    emo_router_options o = EMO_ROUTER_OPTIONS_INIT;
    emo_router *router = NULL;
    float ones[T * D];
    float w[D * D] = {0};
    for (int i = 0; i < T * D; i++)
        ones[i] = 1.0f;
    for (int i = 0; i < D; i++)
        w[i * D + i] = 1.0f;
    o.hidden = D;
    o.experts = D;
    o.top_k = 1;
    o.jitter = like->jitter;
    EXPECT_OK(emo_router_create(rt, &o, &router, &err));
    EXPECT_OK(emo_router_set_weights(router, w, D * D, &err));
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    b.rows = 1;
    b.seq_len = T;
    b.x = ones;
    emo_routing g = EMO_ROUTING_INIT;
    EXPECT_OK(emo_router_forward(router, &b, NULL, NULL, &g, &err));
    for (int i = 0; i < T * D; i++)
        noise[i] = (double)g.logits[i];
    emo_router_release(router);
}

static void check(const setting *s) {
    emo_error err = EMO_ERROR_INIT;
    const emo_router_options *o = &s->o;
    int n = o->experts - o->shared;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_router *router = NULL;
    emo_pool_policy *pool = NULL;
    static float x[T * D];
    float w[MAX_E * D];
    float bias[MAX_E];
    test_fill(x, T * D, 1, 1.5f);
    test_fill(w, MAX_E * D, 2, 1.0f);
    test_fill(bias, MAX_E, 4, 0.2f);
    EXPECT_OK(emo_router_create(rt, o, &router, &err));
    EXPECT_OK(emo_router_set_weights(router, w, (size_t)o->experts * D, &err));
    if (s->bias)
        EXPECT_OK(emo_router_set_score_bias(router, bias, (size_t)n, &err));
    EXPECT_OK(emo_pool_policy_create_fixed(rt, s->pool, &pool, &err));
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    b.rows = 1;
    b.seq_len = T;
    b.x = x;
    b.n_documents = 2;
    b.document_begin = documents;
    b.loss_div_factor = 11.0;
    emo_routing g = EMO_ROUTING_INIT;
    EXPECT_OK(emo_router_forward(router, &b, pool, NULL, &g, &err));

    static fixed f;
    static point p;
    memset(&f, 0, sizeof f);
    f.s = s;
    f.divisor = 11.0;
    find_noise(rt, o, f.noise);
    size_t chosen = (size_t)(T * o->top_k);
    memcpy(f.indices, g.indices, chosen * sizeof *f.indices);
    memcpy(f.allowed, g.allowed, (size_t)(2 * n));
    memcpy(f.counts, g.counts, (size_t)o->experts * sizeof *f.counts);
    test_fill(f.dw, chosen, 3, 1.0f);
    for (int i = 0; i < T * D; i++)
        p.x[i] = (double)x[i];
    for (int i = 0; i < o->experts * D; i++)
        p.w[i] = (double)w[i];
    /* the value itself ties the formula above to the library: f32 sums of some hundred terms of order one */
    double value = g.loss;
    for (size_t i = 0; i < chosen; i++)
        value += (double)f.dw[i] * (double)g.weights[i];
    if (fabs(value - objective(&f, &p)) > 2e-5)
        fail_msg("%s: value %.9g, in double %.9g", s->name, value, objective(&f, &p));

    static float dx[T * D];
    float dw[MAX_E * D] = {0};
    memset(dx, 0, sizeof dx);
    EXPECT_OK(emo_router_backward(router, &g, f.dw, dx, dw, &err));
    /* central differences in double: error of order step^2 = 1e-10; the rest is f32 rounding of the gradient */
    const double step = 1e-5;
    for (int i = 0; i < T * D + o->experts * D; i++) {
        double *at = i < T * D ? &p.x[i] : &p.w[i - T * D];
        double got = i < T * D ? (double)dx[i] : (double)dw[i - T * D];
        double keep = *at;
        *at = keep + step;
        double high = objective(&f, &p);
        *at = keep - step;
        double low = objective(&f, &p);
        *at = keep;
        double want = (high - low) / (2.0 * step);
        if (!(fabs(got - want) <= 1e-5))
            fail_msg("%s: d%s[%d] is %.9g, by differences %.9g", s->name, i < T * D ? "x" : "W", i, got, want);
    }
    emo_pool_policy_release(pool);
    emo_router_release(router);
    emo_runtime_release(rt);
}

static setting base(const char *name) {
    setting s = {name, EMO_ROUTER_OPTIONS_INIT, 6, 0};
    s.o.hidden = D;
    s.o.experts = 10;
    s.o.shared = 2;
    s.o.top_k = 5;
    s.o.z_weight = 0.02f; /* larger than usual, so that every term shows */
    return s;
}

static void softmax_gating(void **state) {
    (void)state;
    setting s = base("softmax");
    check(&s);
}

static void shared_softmax(void **state) {
    (void)state;
    setting s = base("shared softmax");
    s.o.shared_mode = EMO_ROUTER_SHARED_SOFTMAX;
    check(&s);
}

static void normalised(void **state) {
    (void)state;
    setting s = base("1-norm");
    s.o.norm_p = 1.0f;
    check(&s);
    s.name = "2-norm";
    s.o.norm_p = 2.0f;
    check(&s);
}

static void sigmoid_and_bias(void **state) {
    (void)state;
    setting s = base("sigmoid with bias");
    s.o.gating = EMO_ROUTER_SIGMOID;
    s.bias = 1;
    check(&s);
    s.name = "sigmoid, 1-norm";
    s.o.norm_p = 1.0f;
    check(&s);
}

static void always_active(void **state) {
    (void)state;
    static const int32_t always[2] = {1, 7};
    setting s = base("always active");
    s.o.shared = 0;
    s.o.n_always = 2;
    s.o.always = always;
    check(&s);
}

static void jitter(void **state) {
    (void)state;
    setting s = base("jitter");
    s.o.jitter = 0.4f;
    check(&s);
    s.name = "jitter, sigmoid with bias";
    s.o.gating = EMO_ROUTER_SIGMOID;
    s.bias = 1;
    check(&s);
    s.name = "jitter, shared softmax";
    s.o.gating = EMO_ROUTER_SOFTMAX;
    s.o.shared_mode = EMO_ROUTER_SHARED_SOFTMAX;
    check(&s);
}

static void per_document(void **state) {
    (void)state;
    setting s = base("per document");
    s.o.balance_scope = EMO_BALANCE_DOCUMENT;
    s.o.balance_weight = 1.0f;
    check(&s);
    s.name = "per document, sigmoid with bias";
    s.o.gating = EMO_ROUTER_SIGMOID;
    s.bias = 1;
    check(&s);
    s.name = "per document, sigmoid with jitter, 1-norm";
    s.o.jitter = 0.2f;
    s.o.norm_p = 1.0f;
    check(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_gating),   cmocka_unit_test(shared_softmax), cmocka_unit_test(normalised),
        cmocka_unit_test(sigmoid_and_bias), cmocka_unit_test(always_active),  cmocka_unit_test(jitter),
        cmocka_unit_test(per_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
