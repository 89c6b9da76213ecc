/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the router that no golden case covers, against plain double-precision code written from their formulas:
 * sigmoid gating, the score bias and its update, jitter, pools by mass and by schedule, balancing per document. */
#include <math.h>

#include <emo/router.h>

#include "support/support.h"

enum { T = 60, D = 8, E = 14, DOCS = 5, MAX_K = 6 };

static const int64_t begins[DOCS + 1] = {0, 7, 8, 25, 40, T};

typedef struct setting {
    const char *name;
    emo_router_gating gating;
    int32_t shared;
    int32_t top_k;
    float norm_p;
    int bias;
    float jitter;
    const char *pool;
    int32_t forced;
    emo_balance_scope scope;
    emo_router_mode mode;
    uint64_t step;
    int left; /* routed experts that a mask leaves; -1: none of them; 0: no mask */
} setting;

typedef struct expected {
    double usage[DOCS][E];
    int allowed[DOCS][E];
    int32_t index[T][MAX_K];
    double weight[T][MAX_K];
    double score[T][E];
    int32_t count[E];
    double balance;
    double z;
    double margin; /* smallest distance of a choice from its runner-up */
} expected;

/* Experts 1, 4, 7 ... are in the mask, as many as are left. */
static int in_mask(const setting *s, int e) { return s->left == 0 || (e % 3 == 1 && e / 3 < s->left); }

static void inputs(float *x, float *w, float *bias) {
    test_fill(x, T * D, 11, 1.5f);
    test_fill(w, E * D, 12, 1.0f);
    test_fill(bias, E, 13, 0.15f);
}

static emo_router *make(emo_runtime *rt, const setting *s) {
    emo_error err = EMO_ERROR_INIT;
    emo_router_options o = EMO_ROUTER_OPTIONS_INIT;
    emo_router *router = NULL;
    o.hidden = D;
    o.experts = E;
    o.shared = s->shared;
    o.top_k = s->top_k;
    o.gating = s->gating;
    o.norm_p = s->norm_p;
    o.jitter = s->jitter;
    o.balance_scope = s->scope;
    o.layer = 3;
    o.seed = 21;
    EXPECT_OK(emo_router_create(rt, &o, &router, &err));
    return router;
}

static emo_router_batch whole(const setting *s, const float *x) {
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    b.mode = s->mode;
    b.rows = 1;
    b.seq_len = T;
    b.x = x;
    b.n_documents = DOCS;
    b.document_begin = begins;
    b.step = s->step;
    b.loss_div_factor = 47.0;
    return b;
}

/* The noise on its own: a router whose weights are the identity, fed with ones, has it for logits. Its keys are those
 * of `make`, whatever its experts. */
static void noise_of(emo_runtime *rt, const setting *s, double noise[T][D]) {
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
    o.jitter = s->jitter;
    o.layer = 3;
    o.seed = 21;
    EXPECT_OK(emo_router_create(rt, &o, &router, &err));
    EXPECT_OK(emo_router_set_weights(router, w, D * D, &err));
    emo_router_batch b = whole(s, ones);
    emo_routing g = EMO_ROUTING_INIT;
    EXPECT_OK(emo_router_forward(router, &b, NULL, NULL, &g, &err));
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < D; h++)
            noise[t][h] = (double)g.logits[t * D + h];
    }
    emo_router_release(router);
}

/* Experts in a document's pool by the policy's own definition; `drawn`: a uniform draw. */
static int pool_size(const setting *s, const double *usage, int n, int tokens, int drawn) {
    double mass;
    int low;
    int high;
    long steps;
    if (s->pool == NULL)
        return n;
    if (sscanf(s->pool, "fixed:%d", &low) == 1)
        return low;
    if (sscanf(s->pool, "uniform:%d:%d", &low, &high) == 2) {
        int size = s->mode == EMO_ROUTER_TRAIN ? drawn : (low + high) / 2;
        assert_in_range(size, low, high);
        return size;
    }
    if (sscanf(s->pool, "scheduled:%d:%ld", &low, &steps) == 2) {
        double part = s->step < (uint64_t)steps ? (double)s->step / (double)steps : 1.0;
        return s->mode == EMO_ROUTER_TRAIN ? (int)nearbyint(n - part * (n - low)) : low;
    }
    assert_int_equal(sscanf(s->pool, "mass:%lf:%d:%d", &mass, &low, &high), 3);
    double sorted[E];
    memcpy(sorted, usage, (size_t)n * sizeof *sorted);
    for (int i = 0; i < n; i++) {
        for (int j = i + 1; j < n; j++) {
            if (sorted[j] > sorted[i]) {
                double keep = sorted[i];
                sorted[i] = sorted[j];
                sorted[j] = keep;
            }
        }
    }
    double sum = 0.0;
    int size = 1;
    for (int i = 0; i < n; i++) {
        sum += sorted[i] / tokens;
        size += sum < mass;
    }
    return size < low ? low : size > high ? high : size;
}

static void expect(const setting *s, const float *x, const float *w, const float *bias, double noise[T][D],
                   const int32_t *drawn, expected *out) {
    int n = E - s->shared;
    int most = s->top_k - s->shared;
    int k = s->left < 0 ? 0 : s->left > 0 && s->left < most ? s->left : most; /* chosen per token */
    int kept = s->left == 0 ? n : s->left > 0 ? s->left : 0;
    double logits[T][E];
    double score_sum[E] = {0};
    memset(out, 0, sizeof *out);
    out->margin = 1.0;
    for (int t = 0; t < T; t++) {
        for (int e = 0; e < n; e++) {
            logits[t][e] = 0.0;
            for (int h = 0; h < D; h++)
                logits[t][e] += (double)x[t * D + h] * noise[t][h] * (double)w[e * D + h];
        }
    }
    for (int d = 0; d < DOCS; d++) {
        int tokens = (int)(begins[d + 1] - begins[d]);
        double doc_sum[E] = {0};
        int32_t doc_count[E] = {0};
        for (int t = (int)begins[d]; t < begins[d + 1]; t++) {
            double sum = 0.0;
            for (int e = 0; e < n; e++)
                sum += in_mask(s, e) ? exp(logits[t][e]) : 0.0;
            for (int e = 0; e < n; e++)
                out->usage[d][e] += in_mask(s, e) ? exp(logits[t][e]) / sum : 0.0;
        }
        int size = pool_size(s, out->usage[d], n, tokens, drawn[d]);
        int pooled = 0;
        for (int e = 0; e < n; e++) { /* the competitors with more usage are counted; forced ones do not compete */
            int better = 0;
            int rivals = kept - s->forced; /* forced experts and masks are not tested together */
            int out_of_pool = kept - size < rivals ? kept - size : rivals;
            for (int o = 0; o < n - s->forced; o++)
                better += in_mask(s, o) && out->usage[d][o] > out->usage[d][e];
            out->allowed[d][e] = s->forced > 0 ? e >= rivals || better < rivals - out_of_pool : better < size;
            out->allowed[d][e] = out->allowed[d][e] && in_mask(s, e);
            pooled += out->allowed[d][e];
        }
        for (int t = (int)begins[d]; t < begins[d + 1]; t++) {
            double sum = 0.0;
            double all = 0.0;
            double norm = 0.0;
            int used[E] = {0};
            for (int e = 0; e < n; e++)
                sum += out->allowed[d][e] ? exp(logits[t][e]) : 0.0;
            for (int e = 0; e < n; e++) {
                double masked = out->allowed[d][e] ? logits[t][e] : -INFINITY;
                out->score[t][e] = s->gating == EMO_ROUTER_SIGMOID ? 1.0 / (1.0 + exp(-masked)) + 1e-7
                                   : sum > 0.0                     ? exp(masked) / sum
                                                                   : 0.0;
                all += out->score[t][e];
            }
            for (int j = 0; j <= k; j++) {
                double best = -INFINITY;
                int who = -1;
                for (int e = 0; e < n; e++) {
                    double key = out->score[t][e] + (s->bias ? (double)bias[e] : 0.0);
                    if (!used[e] && out->allowed[d][e] && key > best) {
                        best = key;
                        who = e;
                    }
                }
                if (j > 0 && who >= 0) { /* the one before was better by so much */
                    int before = out->index[t][j - 1];
                    double key = out->score[t][before] + (s->bias ? (double)bias[before] : 0.0);
                    out->margin = key - best < out->margin ? key - best : out->margin;
                }
                if (j == k)
                    break;
                used[who] = 1;
                out->index[t][j] = who;
                out->weight[t][j] = out->score[t][who];
                norm += pow(out->score[t][who], s->norm_p > 0.0f ? (double)s->norm_p : 1.0);
                out->count[who]++;
                doc_count[who]++;
            }
            for (int j = 0; j < k && s->norm_p > 0.0f; j++)
                out->weight[t][j] /= pow(norm, 1.0 / (double)s->norm_p);
            for (int j = k; j < most; j++)
                out->index[t][j] = -1; /* with weight 0 */
            for (int h = 0; h < s->shared; h++) {
                out->index[t][most + h] = n + h;
                out->weight[t][most + h] = 1.0;
                out->count[n + h]++;
            }
            for (int e = 0; e < n; e++) {
                double share = s->gating == EMO_ROUTER_SIGMOID ? out->score[t][e] / all : out->score[t][e];
                score_sum[e] += share;
                doc_sum[e] += share;
            }
            out->z += sum > 0.0 ? log(sum) * log(sum) / 47.0 : 0.0;
        }
        for (int e = 0; e < n && k > 0 && s->scope == EMO_BALANCE_DOCUMENT; e++)
            out->balance += (double)pooled / k * doc_count[e] * (doc_sum[e] / tokens) / tokens / DOCS;
    }
    for (int e = 0; e < n && k > 0 && s->scope != EMO_BALANCE_DOCUMENT; e++)
        out->balance += (double)n / k * out->count[e] * (score_sum[e] / T) / 47.0;
    if (s->mode == EMO_ROUTER_EVAL)
        out->balance = out->z = 0.0;
}

static void check(const setting *s) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_pool_policy *pool = NULL;
    emo_mask *mask = NULL;
    const int32_t experts = E;
    float x[T * D];
    float w[E * D];
    float bias[E];
    static double noise[T][D];
    static expected want;
    int n = E - s->shared;
    inputs(x, w, bias);
    emo_router *router = make(rt, s);
    EXPECT_OK(emo_router_set_weights(router, w, E * D, &err));
    if (s->bias)
        EXPECT_OK(emo_router_set_score_bias(router, bias, (size_t)n, &err));
    if (s->pool != NULL)
        EXPECT_OK(emo_pool_policy_parse(rt, s->pool, &pool, &err));
    if (s->forced > 0)
        EXPECT_OK(emo_pool_policy_set_forced(pool, s->forced, &err));
    if (s->left != 0) {
        EXPECT_OK(emo_mask_create(rt, 1, &experts, &s->shared, 0, &mask, &err));
        for (int e = 0; e < n; e++)
            EXPECT_OK(emo_mask_set(mask, 0, e, in_mask(s, e), &err));
    }
    emo_router_batch b = whole(s, x);
    emo_routing g = EMO_ROUTING_INIT;
    EXPECT_OK(emo_router_forward(router, &b, pool, mask, &g, &err));
    noise_of(rt, s, noise);
    expect(s, x, w, bias, noise, g.pool_size, &want);
    assert_true(want.margin > 1e-5); /* the data leave no choice to rounding */
    assert_int_equal(g.documents, DOCS);
    for (int d = 0; d < DOCS; d++) {
        for (int e = 0; e < n; e++) {
            if (g.allowed[d * n + e] != want.allowed[d][e])
                fail_msg("%s: document %d, expert %d: in the pool %d, should be %d", s->name, d, e,
                         g.allowed[d * n + e], want.allowed[d][e]);
            assert_true(fabs((double)g.usage[d * n + e] - want.usage[d][e]) < 2e-5); /* sums of up to 20 tokens */
        }
    }
    for (int t = 0; t < T; t++) {
        for (int j = 0; j < s->top_k; j++) {
            double got = (double)g.weights[t * s->top_k + j];
            if (g.indices[t * s->top_k + j] != want.index[t][j] || !(fabs(got - want.weight[t][j]) < 2e-6))
                fail_msg("%s: token %d, place %d: expert %d with %.9g, should be %d with %.9g", s->name, t, j,
                         g.indices[t * s->top_k + j], got, want.index[t][j], want.weight[t][j]);
        }
        for (int e = 0; e < n; e++)
            assert_true(fabs((double)g.scores[t * n + e] - want.score[t][e]) < 2e-6);
    }
    for (int e = 0; e < E; e++)
        assert_int_equal(g.counts[e], want.count[e]);
    /* float32 scores, and what lies outside the pool scores 0 instead of 1e-7 */
    if (!(fabs(g.balance_loss - want.balance) < 3e-6 * (1.0 + want.balance) && fabs(g.z_loss - want.z) < 2e-5))
        fail_msg("%s: losses %.9g and %.9g, should be %.9g and %.9g", s->name, g.balance_loss, g.z_loss, want.balance,
                 want.z);
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
    emo_router_release(router);
    emo_runtime_release(rt);
}

#define BATCH EMO_BALANCE_MICROBATCH
#define DOC EMO_BALANCE_DOCUMENT
#define SOFT EMO_ROUTER_SOFTMAX
#define SIG EMO_ROUTER_SIGMOID
#define TRAIN EMO_ROUTER_TRAIN
#define EVAL EMO_ROUTER_EVAL

static void options_follow_their_formulas(void **state) {
    (void)state;
    static const setting settings[] = {
        {"softmax", SOFT, 1, 4, 0, 0, 0, "fixed:6", 0, BATCH, TRAIN, 0, 0},
        {"sigmoid", SIG, 1, 4, 0, 0, 0, "fixed:6", 0, BATCH, TRAIN, 0, 0},
        {"sigmoid, no pool", SIG, 0, 3, 0, 0, 0, NULL, 0, BATCH, TRAIN, 0, 0},
        {"sigmoid, 1-norm", SIG, 2, 5, 1, 0, 0, "uniform:4:9", 0, BATCH, TRAIN, 5, 0},
        {"sigmoid, 2-norm", SIG, 0, 5, 2, 0, 0, "uniform:5:9", 0, BATCH, TRAIN, 5, 0},
        {"bias", SOFT, 1, 4, 0, 1, 0, "fixed:6", 0, BATCH, TRAIN, 0, 0},
        {"bias and sigmoid", SIG, 1, 4, 0, 1, 0, "fixed:6", 0, BATCH, TRAIN, 0, 0},
        {"bias, evaluation", SIG, 1, 4, 0, 1, 0.3f, "uniform:3:8", 0, BATCH, EVAL, 0, 0},
        {"jitter", SOFT, 1, 4, 0, 0, 0.2f, "fixed:6", 0, BATCH, TRAIN, 9, 0},
        {"jitter, bias and sigmoid", SIG, 1, 4, 0, 1, 0.5f, "uniform:4:9", 0, BATCH, TRAIN, 9, 0},
        {"mass", SOFT, 1, 4, 0, 0, 0, "mass:0.7:3:11", 0, BATCH, TRAIN, 0, 0},
        {"mass, clamped", SIG, 1, 4, 0, 0, 0, "mass:0.99:3:8", 0, BATCH, TRAIN, 0, 0},
        {"mass, one expert says it all", SOFT, 1, 4, 0, 0, 0, "mass:0.01:3:8", 0, BATCH, TRAIN, 0, 0},
        {"schedule, at its begin", SOFT, 1, 4, 0, 0, 0, "scheduled:4:10", 0, BATCH, TRAIN, 0, 0},
        {"schedule, in between", SOFT, 1, 4, 0, 0, 0, "scheduled:4:10", 0, BATCH, TRAIN, 4, 0},
        {"schedule, past its end", SOFT, 1, 4, 0, 0, 0, "scheduled:4:10", 0, BATCH, TRAIN, 25, 0},
        {"schedule, evaluation", SOFT, 1, 4, 0, 0, 0, "scheduled:4:10", 0, BATCH, EVAL, 2, 0},
        {"forced", SOFT, 1, 4, 0, 0, 0, "fixed:6", 2, BATCH, TRAIN, 0, 0},
        {"forced fill the pool", SOFT, 0, 2, 0, 0, 0, "fixed:3", 5, BATCH, TRAIN, 0, 0},
        {"per document", SOFT, 1, 4, 0, 0, 0, "uniform:4:9", 0, DOC, TRAIN, 2, 0},
        {"per document, no pool", SOFT, 0, 3, 0, 0, 0, NULL, 0, DOC, TRAIN, 2, 0},
        {"per document, sigmoid, bias, jitter", SIG, 1, 4, 0, 1, 0.1f, "mass:0.8:4:9", 0, DOC, TRAIN, 2, 0},
        {"mask", SOFT, 1, 4, 0, 0, 0, NULL, 0, BATCH, TRAIN, 0, 4},
        {"mask and pool", SOFT, 0, 3, 0, 0, 0, "fixed:3", 0, DOC, TRAIN, 0, 4},
        {"mask below top-k", SOFT, 1, 4, 0, 0, 0, NULL, 0, BATCH, TRAIN, 0, 2},
        {"mask below top-k, per document, pool", SOFT, 1, 4, 0, 0, 0, "uniform:3:8", 0, DOC, TRAIN, 0, 1},
        {"mask below top-k, sigmoid, bias, 1-norm", SIG, 0, 5, 1, 1, 0, "mass:0.8:5:9", 0, BATCH, TRAIN, 0, 3},
        {"mask below top-k, evaluation", SOFT, 2, 5, 0, 0, 0, "fixed:4", 0, BATCH, EVAL, 0, 2},
        {"only shared experts are left", SOFT, 1, 4, 0, 0, 0, NULL, 0, BATCH, TRAIN, 0, -1},
        {"nothing is left", SIG, 0, 3, 2, 0, 0, NULL, 0, DOC, TRAIN, 0, -1},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        check(&settings[i]);
}

/* bias += rate * sign(mean(counts) - counts), step after step, and its effect on the next counts. */
static void the_bias_follows_the_counts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const setting s = {"update", SIG, 1, 4, 0, 0, 0, NULL, 0, BATCH, TRAIN, 0, 0};
    enum { N = E - 1, K = 3 };
    float x[T * D];
    float w[E * D];
    float unused[E];
    double bias[N] = {0};
    int32_t first = 0;
    int32_t last = 0;
    inputs(x, w, unused);
    emo_router *router = make(rt, &s);
    EXPECT_OK(emo_router_set_weights(router, w, E * D, &err));
    for (int step = 0; step < 30; step++) {
        emo_router_batch b = whole(&s, x);
        emo_routing g = EMO_ROUTING_INIT;
        int32_t most = 0;
        EXPECT_OK(emo_router_forward(router, &b, NULL, NULL, &g, &err));
        for (int e = 0; e < N; e++) {
            double mean = (double)(T * K) / N;
            bias[e] += 0.02 * ((mean > g.counts[e]) - (mean < g.counts[e]));
            most = g.counts[e] > most ? g.counts[e] : most;
        }
        first = step == 0 ? most : first;
        last = most;
        EXPECT_OK(emo_router_update_score_bias(router, 0.02f, &err));
        for (int e = 0; e < N; e++) /* 30 float32 sums of numbers below 1 */
            assert_true(fabs((double)emo_router_score_bias(router)[e] - bias[e]) < 2e-6);
    }
    assert_true(last < first); /* the fullest expert has less to do */
    emo_router_release(router);
    emo_runtime_release(rt);
}

/* The noise: its law, and that a token's is its own, whatever call, micro-batch or thread it comes in. */
static void jitter_is_a_function_of_the_token(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static double noise[T][D];
    static double other[T][D];
    setting s = {"noise", SOFT, 0, 1, 0, 0, 0.25f, NULL, 0, BATCH, TRAIN, 7, 0};
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_runtime *three = test_runtime(3, EMO_ISA_AUTO);
    double sum = 0.0;
    double squares = 0.0;
    noise_of(rt, &s, noise);
    for (int t = 0; t < T; t++) {
        for (int h = 0; h < D; h++) {
            assert_true(noise[t][h] >= 0.75 && noise[t][h] <= 1.25);
            sum += noise[t][h] - 1.0;
            squares += (noise[t][h] - 1.0) * (noise[t][h] - 1.0);
        }
    }
    /* 480 draws of variance 0.25^2 / 3: the mean within four of its standard deviations of 0.0066, the variance within
     * four of its own of 0.00085 */
    assert_true(fabs(sum / (T * D)) < 0.0264);
    assert_true(fabs(squares / (T * D) - 0.25 * 0.25 / 3.0) < 0.0034);
    noise_of(three, &s, other);
    assert_memory_equal(noise, other, sizeof noise);
    s.step = 8;
    noise_of(rt, &s, other);
    assert_memory_not_equal(noise, other, sizeof noise);
    s.step = 7;
    s.mode = EMO_ROUTER_EVAL;
    noise_of(rt, &s, other);
    for (int t = 0; t < T; t++)
        assert_true(other[t][t % D] == 1.0);
    /* the second half by itself, as a micro-batch of another rank would bring it */
    float x[T * D];
    float w[E * D];
    float bias[E];
    static float logits[T * E];
    inputs(x, w, bias);
    s.mode = EMO_ROUTER_TRAIN;
    emo_router *router = make(rt, &s);
    EXPECT_OK(emo_router_set_weights(router, w, E * D, &err));
    emo_router_batch b = whole(&s, x);
    emo_routing g = EMO_ROUTING_INIT;
    EXPECT_OK(emo_router_forward(router, &b, NULL, NULL, &g, &err));
    memcpy(logits, g.logits, sizeof logits);
    b.n_documents = 0;
    b.seq_len = T / 2;
    b.x = x + T / 2 * D;
    EXPECT_OK(emo_router_forward(router, &b, NULL, NULL, &g, &err));
    assert_memory_not_equal(logits + T / 2 * E, g.logits, sizeof logits / 2);
    b.first_token = T / 2;
    EXPECT_OK(emo_router_forward(router, &b, NULL, NULL, &g, &err));
    assert_memory_equal(logits + T / 2 * E, g.logits, sizeof logits / 2);
    emo_router_release(router);
    emo_runtime_release(three);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_follow_their_formulas),
        cmocka_unit_test(the_bias_follows_the_counts),
        cmocka_unit_test(jitter_is_a_function_of_the_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
