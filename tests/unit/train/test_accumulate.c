/* SPDX-License-Identifier: Apache-2.0 */
/* Micro-batches against one large batch: what is equal, and the balancing losses of docs/decisions/0009 where it is
 * not, worked out in double from the counts and scores of every micro-batch. */
#include <math.h>

#include "train_support.h"

enum { ROWS = 6, SEQ = 32, LAYERS = 2, N = 8, K = 2, MOST = 6, STEPS = TINY_STEPS };

/* What the router of every micro-batch counted. */
typedef struct record {
    emo_trainer *t;
    double c[STEPS + 1][MOST][LAYERS][N];
    double s[STEPS + 1][MOST][LAYERS][N];
    double document[STEPS + 1][LAYERS]; /* sum over documents of their own losses */
    int64_t documents[STEPS + 1];
    int next;
} record;

static int32_t after_forward(void *ctx, const emo_progress_info *info) {
    record *w = ctx;
    if (w->t == NULL || info->done + 1 < info->total)
        return 0;
    int64_t step = w->t->step + 1;
    int m = w->next++ % w->t->opt.accumulate;
    const int32_t *begin = emo__pass_document_begin(w->t->pass);
    w->documents[step] += w->t->micro.n_documents;
    for (int32_t l = 0; l < LAYERS; l++) {
        const emo__route_view *r = emo__pass_route(w->t->pass, l);
        for (int e = 0; e < N; e++) {
            w->c[step][m][l][e] = r->counts[e];
            w->s[step][m][l][e] = (double)r->score_sum[e];
        }
        for (int64_t d = 0; d < w->t->micro.n_documents; d++) {
            double tokens = (double)(begin[d + 1] - begin[d]);
            double count[N] = {0};
            double score[N] = {0};
            double sum = 0.0;
            int pool = 0;
            for (int64_t t = begin[d]; t < begin[d + 1]; t++) {
                double all = 0.0;
                for (int e = 0; e < N; e++)
                    all += r->allowed[d * N + e] ? exp((double)r->logits[t * r->columns + e]) : 0.0;
                for (int e = 0; e < N; e++)
                    score[e] += r->allowed[d * N + e] ? exp((double)r->logits[t * r->columns + e]) / all : 0.0;
                for (int j = 0; j < K; j++)
                    count[r->indices[t * r->k_total + j]] += 1.0;
            }
            for (int e = 0; e < N; e++) {
                pool += r->allowed[d * N + e];
                sum += count[e] / tokens * score[e] / tokens;
            }
            w->document[step][l] += (double)pool / K * sum;
        }
    }
    return 0;
}

static emo_status same_every_step(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    (void)ctx, (void)err;
    uint32_t x = (uint32_t)(row % ROWS) * 7919u + 17u;
    for (int i = 0; i < SEQ; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = i % 11 == 6 ? 1 : (int32_t)(2 + (x >> 10) % 48);
    }
    for (int i = 0; i < SEQ; i++)
        labels[i] = i + 1 < SEQ && i % 5 != 3 ? ids[i + 1] : -100;
    return EMO_OK;
}

static tiny_result run(emo_train_options o, const char *pool, int still, record *w) {
    tiny_result r = {0};
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_pool_policy *policy = NULL;
    emo_trainer *t = NULL;
    static record none;
    w = w != NULL ? w : &none;
    memset(w, 0, sizeof *w);
    EXPECT_OK(emo_pool_policy_parse(rt, pool, &policy, &err));
    o.pool = policy;
    o.progress = (emo_progress){w, after_forward};
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    w->t = t;
    if (still)
        t->rows = (emo__row_source){NULL, same_every_step};
    tiny_steps(t, &r);
    if (r.status != EMO_OK)
        fail_msg("the run failed: %s", r.err.message);
    emo_trainer_release(t);
    tiny_weights(model, &r);
    emo_pool_policy_release(policy);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return r;
}

static emo_train_options base(int32_t accumulate) {
    emo_train_options o = tiny_options();
    o.batch_rows = ROWS;
    o.accumulate = accumulate;
    return o;
}

/* The mean over the layers of the loss of a step, by the table of the decision. */
static double expected(const record *w, emo_balance_scope scope, int window, int accumulate, int step) {
    double labels = ROWS * (SEQ - 1);
    double tokens = ROWS * SEQ;
    double sum = 0.0;
    for (int l = 0; l < LAYERS; l++) {
        if (scope == EMO_BALANCE_DOCUMENT) {
            sum += w->document[step][l] / (double)w->documents[step];
            continue;
        }
        for (int m = 0; m < accumulate; m++) {
            for (int e = 0; e < N; e++) {
                double f = 0.0;
                double t = tokens;
                if (scope == EMO_BALANCE_MICROBATCH) {
                    f = w->c[step][m][l][e] / labels;
                    t = tokens / accumulate;
                } else {
                    for (int i = 0; i < accumulate; i++) {
                        if (i <= m)
                            f += w->c[step][i][l][e] / labels;
                        else if (step > 1)
                            f += w->c[step - 1][i][l][e] / labels;
                    }
                    f *= step == 1 ? (double)accumulate / (m + 1) : 1.0;
                    int past = 0;
                    for (; scope == EMO_BALANCE_WINDOW && past < window - 1 && step - 1 - past >= 1; past++) {
                        for (int i = 0; i < accumulate; i++)
                            f += w->c[step - 1 - past][i][l][e] / labels;
                    }
                    f /= 1 + past;
                }
                sum += (double)N / K * f * w->s[step][m][l][e] / t;
            }
        }
    }
    return sum / LAYERS;
}

static void scopes_follow_their_formulas(void **state) {
    (void)state;
    static record w;
    static const emo_balance_scope scopes[] = {EMO_BALANCE_MICROBATCH, EMO_BALANCE_BATCH, EMO_BALANCE_WINDOW,
                                               EMO_BALANCE_DOCUMENT};
    for (size_t i = 0; i < sizeof scopes / sizeof scopes[0]; i++) {
        for (int accumulate = 1; accumulate <= 6; accumulate += accumulate == 1 ? 1 : accumulate == 2 ? 1 : 3) {
            emo_train_options o = base(accumulate);
            o.balance_scope = scopes[i];
            o.balance_window = 3;
            tiny_result r = run(o, "uniform:3:8", 0, &w);
            for (int s = 1; s <= STEPS; s++) {
                double want = expected(&w, scopes[i], 3, accumulate, s);
                /* float32 sums of scores, of order 1 */
                if (!(fabs(r.metrics[s].balance_loss - want) < 3e-6))
                    fail_msg("scope %d, %d micro-batches, step %d: %.9g, by the formula %.9g", (int)scopes[i],
                             accumulate, s, r.metrics[s].balance_loss, want);
            }
            tiny_free(&r);
        }
    }
}

/* Losses of the language model, z-losses and, without balancing, everything. */
static void the_rest_is_equal(void **state) {
    (void)state;
    static record one;
    static record many;
    emo_train_options o = base(1);
    o.balance_weight = 0.0f;
    o.lr = 1e-4f; /* large steps would let rounding decide, sooner or later, between two experts */
    tiny_result a = run(o, "uniform:3:8", 0, &one);
    for (int accumulate = 2; accumulate <= 6; accumulate *= 3) {
        o.accumulate = accumulate;
        tiny_result b = run(o, "uniform:3:8", 0, &many);
        assert_int_equal(one.documents[1], many.documents[1]);
        for (int s = 1; s <= STEPS; s++) {
            const emo_step_metrics *x = &a.metrics[s];
            const emo_step_metrics *y = &b.metrics[s];
            double tolerance = s == 1 ? 2e-6 : 2e-4; /* the order of sums, later grown through Adam's division by |g| */
            if (!(fabs(x->loss - y->loss) < tolerance && fabs(x->lm_z_loss - y->lm_z_loss) < tolerance &&
                  fabs(x->router_z_loss - y->router_z_loss) < 2 * tolerance &&
                  fabs(x->total_loss - y->total_loss) < tolerance && fabs(x->grad_norm - y->grad_norm) < 5 * tolerance))
                fail_msg("%d micro-batches, step %d: %.9g %.9g %.9g, one batch %.9g %.9g %.9g", accumulate, s, y->loss,
                         y->router_z_loss, y->grad_norm, x->loss, x->router_z_loss, x->grad_norm);
        }
        tiny_free(&b);
    }
    tiny_free(&a);
}

/* Where the counts of a step are those of the step before, batch and window are exact too, gradient included. */
static void equal_where_the_counts_stand_still(void **state) {
    (void)state;
    static const emo_balance_scope scopes[] = {EMO_BALANCE_BATCH, EMO_BALANCE_WINDOW};
    for (int i = 0; i < 2; i++) {
        emo_train_options o = base(1);
        o.lr = 0.0f;
        o.balance_scope = scopes[i];
        o.balance_window = 4;
        o.balance_weight = 5.0f; /* so that its gradient shows */
        tiny_result one = run(o, "fixed:4", 1, NULL);
        o.accumulate = 3;
        tiny_result three = run(o, "fixed:4", 1, NULL);
        assert_true(fabs(one.metrics[1].balance_loss - three.metrics[1].balance_loss) > 1e-5); /* no past yet */
        for (int s = 2; s <= STEPS; s++) {
            assert_true(fabs(one.metrics[s].balance_loss - three.metrics[s].balance_loss) < 2e-6);
            assert_true(fabs(one.metrics[s].total_loss - three.metrics[s].total_loss) < 5e-6);
            assert_true(fabs(one.metrics[s].grad_norm - three.metrics[s].grad_norm) < 1e-5);
        }
        tiny_free(&one);
        tiny_free(&three);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scopes_follow_their_formulas),
        cmocka_unit_test(the_rest_is_equal),
        cmocka_unit_test(equal_where_the_counts_stand_still),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
