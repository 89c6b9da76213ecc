/* SPDX-License-Identifier: Apache-2.0 */
/* Options of the router and of the data through the trainer, each against its formula in double: pools by schedule and
 * by mass, sigmoid gating, the score bias, jitter, the repetition filter; and what is kept in files. */
#include <math.h>

#include "data/repetition.h"
#include "support/folder.h"
#include "train_support.h"

enum { ROWS = 4, SEQ = 32, LAYERS = 2, N = 8, K = 2 };

/* Looks into a run at the end of every forward pass, and after every step. */
typedef struct watcher {
    emo_trainer *t;
    const emo_model *model;
    const char *pool;
    int sigmoid;
    double rate;
    const uint8_t *keep; /* [N] of layer 1; NULL: all */
    int64_t count[LAYERS][N];
    double bias[LAYERS][N];
    double seen[N];
    int moves[N];           /* of the biases of layer 1, which may take them back */
    int64_t biased_choices; /* tokens that would have chosen otherwise without the bias */
    int64_t pools;
    int64_t sizes[N + 1];
} watcher;

static int expected_pool(const watcher *w, const float *usage, int64_t tokens) {
    double mass;
    int low;
    int high;
    long steps;
    if (w->pool == NULL)
        return N;
    if (sscanf(w->pool, "scheduled:%d:%ld", &low, &steps) == 2) {
        double done = (double)(w->t->step + 1) / (double)steps;
        return (int)nearbyint(N - (done < 1.0 ? done : 1.0) * (N - low));
    }
    assert_int_equal(sscanf(w->pool, "mass:%lf:%d:%d", &mass, &low, &high), 3);
    int size = 1;
    for (int e = 0; e < N; e++) { /* the mass of an expert and of all with more */
        double sum = 0.0;
        for (int o = 0; o < N; o++)
            sum += usage[o] >= usage[e] ? (double)usage[o] / (double)tokens : 0.0;
        size += sum < mass;
    }
    return size < low ? low : size > high ? high : size;
}

static void look_at_tokens(watcher *w, const emo__route_view *r, int32_t l, int64_t begin, int64_t end,
                           const uint8_t *allowed) {
    const float *bias = w->model->layers[l].w[EMO__W_SCORE_BIAS].data;
    for (int64_t t = begin; t < end; t++) {
        const float *logits = r->logits + t * r->columns;
        double sum = 0.0;
        double score[N];
        for (int e = 0; e < N; e++)
            sum += allowed[e] ? exp((double)logits[e]) : 0.0;
        for (int e = 0; e < N; e++)
            score[e] = !allowed[e]       ? 0.0
                       : w->sigmoid != 0 ? 1.0 / (1.0 + exp(-(double)logits[e])) + 1e-7
                                         : exp((double)logits[e]) / sum;
        int changed = 0;
        for (int j = 0; j < K; j++) {
            int32_t chosen = r->indices[t * r->k_total + j];
            assert_in_range(chosen, 0, N - 1);
            assert_true(allowed[chosen]);
            assert_true(fabs((double)r->weights[t * r->k_total + j] - score[chosen]) < 2e-6); /* without the bias */
            w->count[l][chosen]++;
            for (int e = 0; e < N; e++) {
                int taken = e == r->indices[t * r->k_total] || e == r->indices[t * r->k_total + 1];
                double rival = score[e] + (bias != NULL ? (double)bias[e] : 0.0);
                double mine = score[chosen] + (bias != NULL ? (double)bias[chosen] : 0.0);
                if (allowed[e] && !taken) {
                    assert_true(mine > rival - 1e-6);
                    changed |= score[e] > score[chosen] + 1e-6;
                }
            }
        }
        w->biased_choices += changed;
    }
}

static int32_t after_forward(void *ctx, const emo_progress_info *info) {
    watcher *w = ctx;
    if (w->t == NULL || info->done + 1 < info->total)
        return 0;
    for (int32_t l = 0; l < LAYERS; l++) {
        const emo__route_view *r = emo__pass_route(w->t->pass, l);
        const int32_t *begin = emo__pass_document_begin(w->t->pass);
        for (int64_t d = 0; d < w->t->micro.n_documents; d++) {
            int size = 0;
            for (int e = 0; e < N; e++)
                size += r->allowed[d * N + e];
            if (w->keep == NULL)
                assert_int_equal(size, expected_pool(w, r->usage + d * N, begin[d + 1] - begin[d]));
            w->sizes[size]++;
            w->pools++;
            look_at_tokens(w, r, l, begin[d], begin[d + 1], r->allowed + d * N);
        }
    }
    return 0;
}

/* The bias moves by the counts of the whole step, of the experts that may be chosen. */
static int32_t after_step(void *ctx, const emo_step_metrics *m) {
    watcher *w = ctx;
    for (int32_t l = 0; l < LAYERS; l++) {
        const float *bias = w->model->layers[l].w[EMO__W_SCORE_BIAS].data;
        const uint8_t *keep = l == 1 ? w->keep : NULL;
        double mean = 0.0;
        int kept = 0;
        for (int e = 0; e < N; e++) {
            mean += (double)w->count[l][e];
            kept += keep == NULL || keep[e];
        }
        mean /= kept;
        for (int e = 0; e < N; e++) {
            double c = (double)w->count[l][e];
            if (m->skipped == 0 && (keep == NULL || keep[e]))
                w->bias[l][e] += c < mean - 1e-9 ? w->rate : c > mean + 1e-9 ? -w->rate : 0.0;
            w->moves[e] += l == 1 && bias != NULL && !(fabs((double)bias[e] - w->seen[e]) < 1e-6);
            w->seen[e] = l == 1 && bias != NULL ? (double)bias[e] : w->seen[e];
            if (bias != NULL) /* a few float32 sums below 1 */
                assert_true(fabs((double)bias[e] - w->bias[l][e]) < 1e-6);
        }
    }
    memset(w->count, 0, sizeof w->count);
    return 0;
}

typedef emo_status (*row_fn)(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err);

/* A run under a watcher; `pool`, `rows`, `mask_out` (of layer 1, -1: none) as wanted. */
static tiny_result watched(int32_t threads, emo_train_options o, const char *pool, row_fn rows, int32_t mask_out,
                           watcher *w) {
    tiny_result r = {0};
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(threads, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_pool_policy *policy = NULL;
    emo_mask *mask = NULL;
    emo_trainer *t = NULL;
    uint8_t keep[N];
    if (pool != NULL)
        EXPECT_OK(emo_pool_policy_parse(rt, pool, &policy, &err));
    o.pool = policy;
    if (mask_out >= 0) {
        memset(keep, 1, sizeof keep);
        keep[mask_out] = 0;
        EXPECT_OK(emo_model_mask(model, &mask, &err));
        EXPECT_OK(emo_mask_set(mask, 1, mask_out, 0, &err));
        o.mask = mask;
    }
    if (w != NULL) {
        memset(w, 0, sizeof *w);
        w->model = model;
        w->pool = pool;
        w->keep = mask_out >= 0 ? keep : NULL;
        w->sigmoid = o.gating == EMO_ROUTER_SIGMOID;
        w->rate = (double)o.score_bias_rate;
        o.progress = (emo_progress){w, after_forward};
        o.on_step = after_step;
        o.on_step_ctx = w;
    }
    r.status = emo_trainer_create(model, data, &o, &t, &r.err);
    if (r.status == EMO_OK) {
        if (w != NULL)
            w->t = t;
        if (rows != NULL)
            t->rows = (emo__row_source){NULL, rows};
        tiny_steps(t, &r);
    }
    emo_trainer_release(t);
    tiny_weights(model, &r);
    emo_mask_release(mask);
    emo_pool_policy_release(policy);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return r;
}

static tiny_result watched_ok(int32_t threads, emo_train_options o, const char *pool, row_fn rows, watcher *w) {
    tiny_result r = watched(threads, o, pool, rows, -1, w);
    if (r.status != EMO_OK)
        fail_msg("the run failed: %s: %s", emo_status_name(r.status), r.err.message);
    return r;
}

static void pools_follow_schedule_and_mass(void **state) {
    (void)state;
    static watcher w;
    emo_train_options o = tiny_options();
    o.accumulate = 2;
    tiny_result r = watched_ok(1, o, "scheduled:3:5", NULL, &w);
    for (int size = 3; size <= 7; size++) /* 7 6 5 4 3 3 at steps 1 to 6 */
        assert_true(w.sizes[size] > 0);
    tiny_free(&r);
    r = watched_ok(1, o, "mass:0.51:2:7", NULL, &w);
    assert_true(w.pools > 2 * TINY_STEPS * ROWS);
    int different = 0;
    for (int size = 2; size <= 7; size++)
        different += w.sizes[size] > 0;
    assert_true(different > 1);
    tiny_free(&r);
}

static void scores_by_sigmoid(void **state) {
    (void)state;
    static watcher w;
    emo_train_options o = tiny_options();
    tiny_result soft = watched_ok(1, o, NULL, NULL, &w);
    o.gating = EMO_ROUTER_SIGMOID;
    tiny_result one = watched_ok(1, o, "mass:0.9:3:8", NULL, &w);
    tiny_free(&one);
    one = watched_ok(1, o, NULL, NULL, &w);
    tiny_result three = watched_ok(3, o, NULL, NULL, &w);
    tiny_same(&one, &three, 1);
    assert_true(fabs(one.metrics[1].loss - soft.metrics[1].loss) > 1e-6);
    assert_true(one.metrics[TINY_STEPS].loss < one.metrics[1].loss);
    tiny_free(&soft);
    tiny_free(&one);
    tiny_free(&three);
}

static void the_bias_follows_the_counts(void **state) {
    (void)state;
    static watcher w;
    emo_train_options o = tiny_options();
    o.score_bias_rate = 0.02f;
    o.lr = 1e-4f;                           /* as below: rounding must not choose */
    o.balance_scope = EMO_BALANCE_DOCUMENT; /* the only one whose loss does not see the micro-batches */
    tiny_result one = watched_ok(1, o, "mass:0.9:3:8", NULL, &w);
    assert_true(w.biased_choices > 0);
    o.accumulate = 4; /* the counts of the step, not of the micro-batch */
    tiny_result four = watched_ok(2, o, "mass:0.9:3:8", NULL, &w);
    assert_true(w.biased_choices > 0);
    tiny_close(&one, &four, 2e-4); /* as in test_trainer: rounding, grown through Adam */
    o.gating = EMO_ROUTER_SIGMOID;
    tiny_free(&four);
    four = watched(2, o, NULL, NULL, 3, &w); /* an expert outside the mask has no count, and no bias */
    assert_int_equal(four.status, EMO_OK);
    assert_true(w.moves[3] == 0 && w.moves[4] > 0);
    tiny_free(&one);
    tiny_free(&four);
}

/* A skipped step moves nothing. */
static void a_skipped_step_moves_no_bias(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_trainer *t = NULL;
    emo_train_options o = tiny_options();
    o.score_bias_rate = 0.5f;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    float *norm = (float *)(uintptr_t)model->norm.data;
    norm[0] = (float)NAN;
    emo_step_metrics m = {0};
    m.struct_size = sizeof m;
    EXPECT_OK(emo_trainer_step(t, &m, &err));
    assert_int_equal(m.skipped, 1);
    const float *bias = model->layers[0].w[EMO__W_SCORE_BIAS].data;
    for (int e = 0; e < N; e++)
        assert_true(bias[e] == 0.0f);
    norm[0] = 1.0f;
    EXPECT_OK(emo_trainer_step(t, &m, &err));
    int moved = 0;
    for (int e = 0; e < N; e++)
        moved += bias[e] != 0.0f;
    assert_true(moved > 0);
    emo_trainer_release(t);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* A mask that leaves fewer experts than a token chooses trains as the model pruned to it: n/k of the balancing loss is
 * n over what is left, so that the pruned model, with fewer experts, needs a weight that much larger. */
static void masks_below_top_k_train_like_pruned(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    o.lr = 1e-4f; /* as above; choices cannot turn, but scores part */
    o.max_grad_norm = 0.0f;
    for (int scope = EMO_BALANCE_MICROBATCH; scope <= EMO_BALANCE_BATCH; scope++) {
        tiny_result got[2] = {{0}};
        for (int pruned = 0; pruned < 2; pruned++) {
            emo_error err = EMO_ERROR_INIT;
            emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
            emo_model *model = tiny_model(rt, TINY);
            emo_model *small = NULL;
            emo_dataset *data = tiny_data(rt);
            emo_mask *mask = NULL;
            emo_trainer *t = NULL;
            EXPECT_OK(emo_model_mask(model, &mask, &err));
            for (int32_t l = 0; l < LAYERS; l++) {
                for (int32_t e = 0; e < N; e++)
                    EXPECT_OK(emo_mask_set(mask, l, e, e == 2 + l, &err));
            }
            EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
            o.balance_scope = scope;
            o.accumulate = 1 + scope;
            o.mask = pruned ? NULL : mask;
            o.balance_weight = pruned ? 0.8f : 0.1f; /* 8 routed experts against one */
            EXPECT_OK(emo_trainer_create(pruned ? small : model, data, &o, &t, &err));
            tiny_steps(t, &got[pruned]);
            err = got[pruned].err;
            EXPECT_OK(got[pruned].status);
            emo_trainer_release(t);
            emo_mask_release(mask);
            emo_dataset_release(data);
            emo_model_release(small);
            emo_model_release(model);
            emo_runtime_release(rt);
        }
        for (int step = 1; step <= TINY_STEPS; step++) {
            const emo_step_metrics *a = &got[0].metrics[step];
            const emo_step_metrics *b = &got[1].metrics[step];
            /* float32 sums in another order, grown a little through Adam */
            if (!(fabs(a->loss - b->loss) < 2e-5 && fabs(a->balance_loss - 8.0 * b->balance_loss) < 2e-4 &&
                  fabs(a->router_z_loss - b->router_z_loss) < 2e-5 && fabs(a->grad_norm - b->grad_norm) < 2e-4))
                fail_msg("scope %d, step %d: loss %.9g and %.9g, balancing %.9g and 8 * %.9g, z %.9g and %.9g, "
                         "gradient %.9g and %.9g",
                         scope, step, a->loss, b->loss, a->balance_loss, b->balance_loss, a->router_z_loss,
                         b->router_z_loss, a->grad_norm, b->grad_norm);
        }
    }
}

static void jitter_depends_on_the_token_alone(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    o.balance_scope = EMO_BALANCE_DOCUMENT;
    o.lr = 1e-4f; /* large steps would let rounding decide, sooner or later, between two experts */
    tiny_result none = tiny_run_ok(1, TINY, "uniform:3:8", o);
    o.jitter = 0.3f;
    tiny_result one = tiny_run_ok(1, TINY, "uniform:3:8", o);
    tiny_result three = tiny_run_ok(3, TINY, "uniform:3:8", o);
    tiny_same(&one, &three, 1);
    assert_true(fabs(one.metrics[1].router_z_loss - none.metrics[1].router_z_loss) > 1e-6);
    /* Sums in another order differ by rounding. At the usual learning rate that turns a choice of experts within a few
     * steps, and the runs part; at this one the weights hardly move, so that every step can be compared. */
    o.lr = 1e-6f;
    tiny_result whole = tiny_run_ok(1, TINY, "uniform:3:8", o);
    o.accumulate = 4;
    tiny_result four = tiny_run_ok(1, TINY, "uniform:3:8", o);
    tiny_close(&whole, &four, 1e-5);
    tiny_free(&none);
    tiny_free(&one);
    tiny_free(&three);
    tiny_free(&whole);
    tiny_free(&four);
}

/* Every span of every period, looked at one by one. */
static bool repeats_by_hand(const int32_t *ids, int n, int max_period, int count) {
    for (int period = 1; period <= max_period; period++) {
        for (int first = 0; first + period * count <= n; first++) {
            bool all = true;
            for (int c = 1; c < count; c++)
                all = all && memcmp(ids + first, ids + first + c * period, (size_t)period * sizeof *ids) == 0;
            if (all)
                return true;
        }
    }
    return false;
}

static void repetitions_are_found(void **state) {
    (void)state;
    enum { LENGTH = 12 };
    int seen[2] = {0};
    for (int bits = 0; bits < 1 << LENGTH; bits++) {
        int32_t ids[LENGTH];
        for (int i = 0; i < LENGTH; i++)
            ids[i] = bits >> i & 1;
        for (int period = 1; period <= 5; period++) {
            for (int count = 2; count <= 5; count++) {
                bool want = repeats_by_hand(ids, LENGTH, period, count);
                if (emo__repeats(ids, LENGTH, period, count) != want)
                    fail_msg("bits %x, periods to %d, %d times: should be %d", (unsigned)bits, period, count, want);
                seen[want]++;
            }
        }
    }
    assert_true(seen[0] > 1000 && seen[1] > 1000);
    /* the reference's numbers: 13 tokens 32 times, and one time fewer */
    int32_t row[13 * 32];
    for (int i = 0; i < 13 * 32; i++)
        row[i] = i % 13;
    assert_true(emo__repeats(row, 13 * 32, 13, 32));
    assert_false(emo__repeats(row, 13 * 32 - 1, 13, 32));
    assert_false(emo__repeats(row, 13 * 32, 12, 32));
    assert_false(emo__repeats(row, 0, 13, 32));
}

/* Row 1 of each step says the same three tokens all the time. */
static emo_status some_repeat(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    (void)ctx, (void)err;
    for (int i = 0; i < SEQ; i++)
        ids[i] = row % ROWS == 1 && i >= 4 ? 5 + i % 3 : (int32_t)(2 + (row * 31 + i * i * 7) % 48);
    for (int i = 0; i < SEQ; i++)
        labels[i] = i + 1 < SEQ ? ids[i + 1] : -100;
    return EMO_OK;
}

static emo_status some_are_masked(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    emo_status status = some_repeat(ctx, row, ids, labels, err);
    for (int i = 0; i < SEQ && row % ROWS == 1; i++)
        labels[i] = -100;
    return status;
}

static emo_status all_repeat(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    return some_repeat(ctx, row * ROWS + 1, ids, labels, err);
}

static void filtered_rows_give_no_loss(void **state) {
    (void)state;
    emo_train_options o = tiny_options();
    tiny_result all = watched_ok(1, o, "fixed:4", some_repeat, NULL);
    tiny_result masked = watched_ok(1, o, "fixed:4", some_are_masked, NULL);
    o.repetition_count = 9; /* 28 tokens of period 3 */
    o.repetition_period = 3;
    tiny_result filtered = watched_ok(2, o, "fixed:4", some_repeat, NULL);
    tiny_same(&masked, &filtered, 1); /* the loss does not count them ... */
    assert_true(fabs(all.metrics[1].loss - filtered.metrics[1].loss) > 1e-6);
    for (int s = 1; s <= TINY_STEPS; s++) {
        assert_int_equal(filtered.metrics[s].filtered_rows, 1);
        assert_int_equal(masked.metrics[s].filtered_rows, 0);
        assert_int_equal(filtered.metrics[s].tokens, all.metrics[s].tokens); /* ... but their tokens count */
    }
    tiny_free(&filtered);
    o.repetition_count = 10;
    filtered = watched_ok(1, o, "fixed:4", some_repeat, NULL);
    tiny_same(&all, &filtered, 1);
    tiny_free(&filtered);
    o.repetition_count = 9;
    o.repetition_period = 2;
    filtered = watched_ok(1, o, "fixed:4", some_repeat, NULL);
    tiny_same(&all, &filtered, 1);
    tiny_free(&filtered);
    o.repetition_period = 13;
    filtered = watched_ok(1, o, "fixed:4", all_repeat, NULL); /* nothing left: steps without a change */
    assert_int_equal(filtered.metrics[1].skipped, 1);
    assert_int_equal(filtered.metrics[1].filtered_rows, ROWS);
    tiny_free(&all);
    tiny_free(&masked);
    tiny_free(&filtered);
}

static emo_train_options all_options(void) {
    emo_train_options o = tiny_options();
    o.gating = EMO_ROUTER_SIGMOID;
    o.score_bias_rate = 0.01f;
    o.jitter = 0.1f;
    o.repetition_count = 3;
    o.repetition_period = 2;
    o.balance_scope = EMO_BALANCE_DOCUMENT;
    return o;
}

static int32_t stop_at_four(void *ctx, const emo_step_metrics *m) {
    (void)ctx;
    return m->step == 4;
}

static void a_resumed_run_is_the_same(void **state) {
    (void)state;
    emo_train_options o = all_options();
    tiny_result whole = tiny_run_ok(1, TINY, "mass:0.8:3:8", o);
    o.out = test_path("run");
    o.checkpoint_every = 2;
    o.on_step = stop_at_four;
    tiny_result part = tiny_run(1, TINY, "mass:0.8:3:8", o);
    assert_int_equal(part.status, EMO_E_CANCELLED);
    tiny_free(&part);
    o.on_step = NULL;
    o.resume = 1;
#define OTHER(field, value)                                                                                            \
    do {                                                                                                               \
        emo_train_options other = o;                                                                                   \
        other.field = (value);                                                                                         \
        tiny_result r = tiny_run(1, TINY, "mass:0.8:3:8", other);                                                      \
        assert_int_equal(r.status, EMO_E_MISMATCH);                                                                    \
        if (strstr(r.err.message, #field) == NULL)                                                                     \
            fail_msg("\"%s\" does not name " #field, r.err.message);                                                   \
        tiny_free(&r);                                                                                                 \
    } while (0)
    OTHER(gating, EMO_ROUTER_SOFTMAX);
    OTHER(score_bias_rate, 0.02f);
    OTHER(score_bias_rate, 0.0f);
    OTHER(jitter, 0.0f);
    OTHER(repetition_count, 4);
    OTHER(repetition_period, 3);
    OTHER(warmup_min_lr, 0.001f);
    OTHER(decay_min_lr, 0.001f);
    part = tiny_run_ok(2, TINY, "mass:0.8:3:8", o);
    tiny_same(&whole, &part, 5);
    tiny_free(&whole);
    tiny_free(&part);
}

static float *tensor(const emo_model *model, const char *name, size_t *count) {
    emo_error err = EMO_ERROR_INIT;
    static float buffer[3][1024];
    static int next;
    float *to = buffer[next++ % 3];
    EXPECT_OK(emo_model_tensor_f32(model, name, to, 1024, count, &err));
    return to;
}

/* What the trainer leaves in its folder; saving for the reference; smaller models and back. */
static void files_keep_gating_and_bias(void **state) {
    (void)state;
    static const char name[] = "model.layers.1.mlp.gate.score_bias";
    emo_error err = EMO_ERROR_INIT;
    emo_train_options o = all_options();
    o.out = test_path("files");
    tiny_result r = tiny_run_ok(1, TINY, NULL, o);
    tiny_free(&r);
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = NULL;
    emo_model *again = NULL;
    emo_model *small = NULL;
    emo_model *merged = NULL;
    char text[4096];
    size_t size = 0;
    size_t n = 0;
    EXPECT_OK(emo_model_load_path(rt, test_path("files"), NULL, &model, &err));
    EXPECT_OK(emo_model_config_json(model, text, sizeof text, &size, &err));
    assert_non_null(strstr(text, "\"emo_router_gating\": \"sigmoid\""));
    assert_non_null(strstr(text, "\"emo_router_score_bias\": true"));
    assert_null(strstr(text, "\"model_type\": \"emo\"")); /* the reference's code must not take it for its own */
    const float *bias = tensor(model, name, &n);
    assert_int_equal(n, N);
    EXPECT_STATUS(emo_model_save(model, test_path("refused"), NULL, &err), EMO_E_UNSUPPORTED, "score bias");
    emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
    save.extended = 1;
    save.dtype = EMO_DTYPE_BF16;
    EXPECT_OK(emo_model_save(model, test_path("half"), &save, &err));
    EXPECT_OK(emo_model_load_path(rt, test_path("half"), NULL, &again, &err));
    assert_memory_equal(tensor(again, name, &n), bias, sizeof(float) * N); /* not rounded */
    /* both gate documents alike: evaluation knows the options too, and the f32 model is the trained one */
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 0, 0, &err));
    EXPECT_OK(emo_mask_set(mask, 1, 5, 0, &err));
    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    const float *less = tensor(small, name, &n);
    static const int kept[N - 2] = {1, 2, 3, 4, 6, 7};
    assert_int_equal(n, N - 2);
    for (int i = 0; i < N - 2; i++)
        assert_true(less[i] == bias[kept[i]]);
    emo_dataset *data = tiny_data(rt);
    emo_eval_options eval = EMO_EVAL_OPTIONS_INIT;
    emo_eval_result by_mask;
    emo_eval_result by_prune;
    eval.seq_len = SEQ;
    EXPECT_OK(emo_eval_documents(small, data, &eval, &by_prune, NULL, NULL, &err));
    eval.mask = mask;
    EXPECT_OK(emo_eval_documents(model, data, &eval, &by_mask, NULL, NULL, &err));
    assert_true(by_mask.loss_sum == by_prune.loss_sum);
    /* the bias of the small model, moved, comes back with its gates */
    float *moved = (float *)(uintptr_t)small->layers[1].w[EMO__W_SCORE_BIAS].data;
    for (int i = 0; i < N - 2; i++)
        moved[i] += 1.0f;
    emo_merge_options merge = EMO_MERGE_OPTIONS_INIT;
    EXPECT_OK(emo_model_merge(model, small, &merge, &merged, &err));
    assert_memory_equal(tensor(merged, name, &n), bias, sizeof(float) * N);
    emo_model_release(merged);
    merge.router = 1;
    EXPECT_OK(emo_model_merge(model, small, &merge, &merged, &err));
    const float *back = tensor(merged, name, &n);
    for (int e = 0; e < N; e++)
        assert_true(back[e] == (e == 0 || e == 5 ? bias[e] : bias[e] + 1.0f));
    emo_model_release(merged);
    emo_model_release(small);
    emo_model_release(again);
    emo_model_release(model);
    emo_mask_release(mask);
    emo_dataset_release(data);
    /* a softmax model is the reference's, and an impossible combination is refused by name */
    model = tiny_model(rt, TINY);
    EXPECT_OK(emo_model_save(model, test_path("plain"), NULL, &err));
    emo_model_release(model);
#define BAD(more) TINY_CONFIG("[9,9]", "[0,0]", more), strlen(TINY_CONFIG("[9,9]", "[0,0]", more))
    EXPECT_STATUS(emo_model_create_json(rt, BAD(",\"emo_router_gating\":\"tanh\""), NULL, &model, &err), EMO_E_FORMAT,
                  "emo_router_gating");
    EXPECT_STATUS(emo_model_create_json(rt, BAD(",\"emo_router_score_bias\":1"), NULL, &model, &err), EMO_E_FORMAT,
                  "emo_router_score_bias");
    EXPECT_STATUS(emo_model_create_json(rt, BAD(",\"emo_router_score_bias\":true,\"always_active_experts\":[1]"), NULL,
                                        &model, &err),
                  EMO_E_UNSUPPORTED, "emo_router_score_bias");
    EXPECT_STATUS(
        emo_model_create_json(rt, BAD(",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}"), NULL, &model, &err),
        EMO_E_UNSUPPORTED, "rope_scaling of type 'linear'");
    EXPECT_STATUS(emo_model_create_json(rt, BAD(",\"rope_scaling\":{\"rope_type\":\"yarn\"}"), NULL, &model, &err),
                  EMO_E_UNSUPPORTED, "rope_scaling of type 'yarn'");
    EXPECT_STATUS(emo_model_create_json(rt, BAD(",\"rope_scaling\":{\"factor\":2.0}"), NULL, &model, &err),
                  EMO_E_UNSUPPORTED, "rope_scaling");
    EXPECT_STATUS(emo_model_create_json(rt, BAD(",\"rope_scaling\":\"yarn\""), NULL, &model, &err), EMO_E_FORMAT,
                  "rope_scaling");
    EXPECT_OK(emo_model_create_json(rt, BAD(",\"rope_scaling\":{\"rope_type\":\"default\"}"), NULL, &model, &err));
    emo_model_release(model);
    emo_runtime_release(rt);
}

TEST_FOLDER

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_follow_schedule_and_mass),
        cmocka_unit_test(scores_by_sigmoid),
        cmocka_unit_test(the_bias_follows_the_counts),
        cmocka_unit_test(a_skipped_step_moves_no_bias),
        cmocka_unit_test(masks_below_top_k_train_like_pruned),
        cmocka_unit_test(jitter_depends_on_the_token_alone),
        cmocka_unit_test(repetitions_are_found),
        cmocka_unit_test(filtered_rows_give_no_loss),
        cmocka_unit_test(a_resumed_run_is_the_same),
        cmocka_unit_test(files_keep_gating_and_bias),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
