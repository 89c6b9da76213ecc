/* SPDX-License-Identifier: Apache-2.0 */
/* The gradient of the whole model: forward, losses and backward as the trainer puts them together, against differences
 * of the loss it reports.
 *
 * The loss is a float32 number near 4 with an error near 1e-6 (sums of many tokens are in double), so single elements
 * cannot be checked by differences; a direction over many parameters can: along v, (L(p + h v) - L(p - h v)) / 2h must
 * be the gradient's product with v. With |v| = 1 drawn within a group of parameters and h = 0.01, rounding contributes
 * 1e-6 / 0.02 = 5e-5, the third derivative a few times 1e-4 of the slope. To lift the slope far above that, v is the
 * group's own gradient with random weights in [0.5, 1.5]; the slope is then about the norm of the group's gradient.
 * Pools and top-k choices must stay the same at the three points: where they do not the difference says nothing, and a
 * smaller h is tried. */
#include <math.h>

#include <emo/emo.h>

#include "model/model.h"
#include "support/support.h"
#include "train/trainer.h"

#define TOLERANCE 6e-3 /* relative to the slope, see above; a wrong term changes it by 1e-1 and more */
#define NOISE 2e-4     /* absolute */

enum { SEQ = 24, ROWS = 4, VOCAB = 40 };

typedef struct setting {
    const char *name;
    const char *more; /* of the configuration */
    const char *pool;
    emo_balance_scope scope;
    int32_t accumulate;
    int masked; /* 1: two routed experts are out; 2: one is left, fewer than are chosen; 3: none is */
    float jitter;
} setting;

static emo_status fixed_row(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    (void)ctx;
    (void)err;
    uint32_t x = (uint32_t)(row % ROWS) * 7919u + 17u;
    for (int i = 0; i < SEQ; i++) {
        x = x * 1664525u + 1013904223u;
        ids[i] = i % 7 == 5 ? 1 : (int32_t)(2 + (x >> 10) % (VOCAB - 2));
    }
    for (int i = 0; i < SEQ; i++)
        labels[i] = i + 1 < SEQ && i % 5 != 3 ? ids[i + 1] : -100;
    return EMO_OK;
}

typedef struct bench {
    emo_runtime *rt;
    emo_model *model;
    emo_dataset *data;
    emo_pool_policy *pool;
    emo_mask *mask;
    emo_trainer *t;
    uint64_t choices;
} bench;

static bench open_bench(const setting *s) {
    bench b = {0};
    emo_error err = EMO_ERROR_INIT;
    char config[1024];
    int32_t token = 5;
    size_t one = 1;
    (void)snprintf(config, sizeof config,
                   "{\"model_type\":\"emo\",\"vocab_size\":%d,\"hidden_size\":16,\"intermediate_size\":8,"
                   "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
                   "\"max_position_embeddings\":64,\"num_experts_per_tok\":3,\"num_experts_per_layer\":[0,9],"
                   "\"num_shared_experts_per_layer\":[0,%d],\"dense_intermediate_size\":12,\"eos_token_id\":1%s}",
                   VOCAB, strstr(s->more, "norm_topk") != NULL ? 0 : 1, s->more);
    b.rt = test_runtime(2, EMO_ISA_AUTO);
    EXPECT_OK(emo_model_create_json(b.rt, config, strlen(config), NULL, &b.model, &err));
    EXPECT_OK(emo_dataset_from_tokens(b.rt, &token, &one, NULL, 1, 1, &b.data, &err));
    if (s->pool != NULL)
        EXPECT_OK(emo_pool_policy_parse(b.rt, s->pool, &b.pool, &err));
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.pool = b.pool;
    o.balance_scope = s->scope;
    o.balance_window = 3;
    o.balance_weight = 1.0f; /* all parts of the loss weigh enough to be seen */
    o.z_weight = 0.1f;
    o.lm_z_weight = 0.2f;
    o.lr = 0.0f; /* steps leave the weights alone */
    o.weight_decay = 0.0f;
    o.max_steps = 1000;
    o.batch_rows = ROWS;
    o.accumulate = s->accumulate;
    o.seq_len = SEQ;
    if (s->masked) {
        EXPECT_OK(emo_model_mask(b.model, &b.mask, &err));
        int n = strstr(s->more, "norm_topk") != NULL ? 9 : 8;
        for (int e = 0; e < n; e++) {
            if (s->masked == 1 ? e == 2 || e == 5 : s->masked == 3 || e != 4)
                EXPECT_OK(emo_mask_set(b.mask, 1, e, 0, &err));
        }
        o.mask = b.mask;
    }
    o.jitter = s->jitter;
    EXPECT_OK(emo_trainer_create(b.model, b.data, &o, &b.t, &err));
    b.t->rows = (emo__row_source){NULL, fixed_row};
    for (size_t i = 0; i < b.model->n_params; i++) { /* larger weights than at the start of a run: curved everywhere */
        const emo__param *p = &b.model->params[i];
        float *data = (float *)(uintptr_t)p->view->data;
        size_t n = (size_t)emo__param_count(p);
        test_fill(data, n, 100 + i, emo__param_is_score_bias(p) ? 0.1f : p->group == EMO__P_ROUTER ? 1.0f : 0.4f);
        for (size_t k = 0; (p->which == EMO__W_ATTN_NORM || p->which == EMO__W_FFN_NORM) && p->vector &&
                           p->group == EMO__P_DENSE && k < n;
             k++)
            data[k] += 1.0f;
    }
    return b;
}

static void close_bench(bench *b) {
    emo_trainer_release(b->t);
    emo_mask_release(b->mask);
    emo_pool_policy_release(b->pool);
    emo_dataset_release(b->data);
    emo_model_release(b->model);
    emo_runtime_release(b->rt);
}

/* What the tokens chose, and their pools, as one number. Taken at the last step of every forward pass. */
static int32_t gather(void *ctx, const emo_progress_info *info) {
    bench *b = ctx;
    if (info->done + 1 < info->total)
        return 0;
    const emo__route_view *r = emo__pass_route(b->t->pass, 1);
    int64_t tokens = b->t->micro_rows * SEQ;
    for (int64_t i = 0; i < tokens * r->k_total; i++)
        b->choices = (b->choices ^ (uint64_t)r->indices[i]) * 1099511628211u;
    for (int64_t i = 0; i < b->t->micro.n_documents * r->routed; i++)
        b->choices = (b->choices ^ r->allowed[i]) * 1099511628211u;
    return 0;
}

/* The loss at the present weights, always as the same step: the pools are a function of it. */
static double loss_at(bench *b, uint64_t *chosen) {
    emo_error err = EMO_ERROR_INIT;
    emo_step_metrics m;
    b->t->step = 5;
    b->choices = 1469598103934665603u;
    b->t->opt.progress = (emo_progress){b, gather};
    EXPECT_OK(emo__trainer_step(b->t, false, &m, &err));
    assert_int_equal(m.skipped, 0);
    *chosen = b->choices;
    return m.total_loss;
}

/* Groups of parameters, each checked by itself. */
static int group_of(const emo__param *p) {
    if (p->group != EMO__P_DENSE)
        return p->group;
    return 10 + p->layer * 32 + p->which;
}

static void restore(bench *b, int group, const float *start) {
    for (size_t i = 0; i < b->model->n_params; i++) {
        const emo__param *p = &b->model->params[i];
        int64_t at = b->t->grad_offset[i];
        if (at >= 0 && group_of(p) == group)
            memcpy((float *)(uintptr_t)p->view->data, start + at, (size_t)emo__param_count(p) * sizeof(float));
    }
}

/* 1 when a difference could be taken; a wrong gradient fails the test. */
static int check_group(bench *b, int group, const float *grad, uint64_t at_rest, const char *name) {
    emo_model *model = b->model;
    size_t n = (size_t)b->t->grad_count;
    float *start = malloc(n * sizeof *start);
    float *way = calloc(n, sizeof *way);
    double norm = 0.0;
    char sample[EMO__NAME_MAX] = "";
    assert_true(start != NULL && way != NULL);
    for (size_t i = 0; i < model->n_params; i++) {
        const emo__param *p = &model->params[i];
        int64_t at = b->t->grad_offset[i];
        if (at < 0 || group_of(p) != group)
            continue;
        size_t count = (size_t)emo__param_count(p);
        emo__param_name(p, sample);
        memcpy(start + at, p->view->data, count * sizeof(float));
        test_fill(way + at, count, 7 + i, 0.5f);
        for (size_t k = 0; k < count; k++) {
            way[at + (int64_t)k] = grad[at + (int64_t)k] * (1.0f + way[at + (int64_t)k]);
            norm += (double)way[at + (int64_t)k] * (double)way[at + (int64_t)k];
        }
    }
    norm = sqrt(norm);
    int checked = 0;
    /* without a gradient there is no way to go: the k bias, which shifts all scores of a query alike */
    for (double h = 0.01; norm > 1e-6 && !checked && h > 5e-4; h *= 0.5) {
        double value[2], slope = 0.0;
        uint64_t chosen[2];
        for (int side = 0; side < 2; side++) {
            for (size_t i = 0; i < model->n_params; i++) {
                int64_t at = b->t->grad_offset[i];
                if (at < 0 || group_of(&model->params[i]) != group)
                    continue;
                float *data = (float *)(uintptr_t)model->params[i].view->data;
                for (int64_t k = 0; k < emo__param_count(&model->params[i]); k++) {
                    data[k] = start[at + k] + (float)((side ? -h : h) / norm * (double)way[at + k]);
                    /* as far as float32 really went */
                    slope += (double)grad[at + k] * ((double)data[k] - (double)start[at + k]) * (side ? -1.0 : 1.0);
                }
            }
            value[side] = loss_at(b, &chosen[side]);
        }
        restore(b, group, start);
        if (chosen[0] != at_rest || chosen[1] != at_rest) {
            for (int i = 0; i < 3; i++) /* the counts that later steps look back on */
                (void)loss_at(b, &chosen[0]);
            continue;
        }
        double got = (value[0] - value[1]) / (2.0 * h);
        double want = slope / (2.0 * h);
        checked = 1;
        if (!(fabs(got - want) <= TOLERANCE * fabs(want) + NOISE * 0.01 / h))
            fail_msg("%s, the group of %s: slope %.7g by differences, %.7g by the gradient (h %g)", name, sample, got,
                     want, h);
    }
    free(start);
    free(way);
    return checked;
}

static void check(const setting *s) {
    bench b = open_bench(s);
    uint64_t at_rest = 0;
    int checked = 0;
    int groups = 0;
    uint8_t seen[256] = {0};
    (void)loss_at(&b, &at_rest); /* a past, for the scopes that have one; always the same afterwards */
    (void)loss_at(&b, &at_rest);
    (void)loss_at(&b, &at_rest);
    float *grad = malloc((size_t)b.t->grad_count * sizeof *grad);
    assert_non_null(grad);
    memcpy(grad, b.t->g, (size_t)b.t->grad_count * sizeof *grad);
    for (size_t i = 0; i < b.model->n_params; i++) {
        int group = group_of(&b.model->params[i]);
        assert_in_range(group, 0, 255);
        if (seen[group] || b.t->grad_offset[i] < 0)
            continue;
        seen[group] = 1;
        groups++;
        checked += check_group(&b, group, grad, at_rest, s->name);
    }
    if (checked < groups - 2) /* k biases, and one that always flips a choice */
        fail_msg("%s: only %d of %d groups could be checked", s->name, checked, groups);
    free(grad);
    close_bench(&b);
}

#define BIAS ",\"attention_bias\":true,\"dense_mlp_bias\":true"
#define SIGMOID ",\"emo_router_gating\":\"sigmoid\""
#define BIASED ",\"emo_router_score_bias\":true"
#define TIED ",\"tie_word_embeddings\":true"

static void pools_and_scopes(void **state) {
    (void)state;
    static const setting settings[] = {
        {"no pool, microbatch", "", NULL, EMO_BALANCE_MICROBATCH, 1, 0, 0},
        {"pool, microbatch", "", "uniform:2:7", EMO_BALANCE_MICROBATCH, 1, 0, 0},
        {"pool, two microbatches", "", "uniform:2:7", EMO_BALANCE_MICROBATCH, 2, 0, 0},
        {"pool, document", "", "uniform:2:7", EMO_BALANCE_DOCUMENT, 1, 0, 0},
        {"pool, document, four microbatches", "", "uniform:2:7", EMO_BALANCE_DOCUMENT, 4, 0, 0},
        {"pool by mass", "", "mass:0.7:2:7", EMO_BALANCE_MICROBATCH, 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        check(&settings[i]);
}

/* The counts of earlier steps weigh like this one's: they are constant here, as the weights and so the choices are. */
static void scopes_with_a_past(void **state) {
    (void)state;
    static const setting settings[] = {
        {"batch", "", "uniform:2:7", EMO_BALANCE_BATCH, 1, 0, 0},
        {"batch, two microbatches", "", "uniform:2:7", EMO_BALANCE_BATCH, 2, 0, 0},
        {"window", "", "uniform:2:7", EMO_BALANCE_WINDOW, 2, 0, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        check(&settings[i]);
}

static void shapes(void **state) {
    (void)state;
    static const setting settings[] = {
        {"biases", BIAS, "fixed:4", EMO_BALANCE_BATCH, 1, 0, 0},
        {"tied", TIED, "fixed:4", EMO_BALANCE_BATCH, 1, 0, 0},
        {"tied with biases", TIED BIAS, NULL, EMO_BALANCE_BATCH, 1, 0, 0},
        {"normalised weights", ",\"norm_topk_prob\":true", "fixed:4", EMO_BALANCE_BATCH, 1, 0, 0},
        {"mask", "", NULL, EMO_BALANCE_BATCH, 1, 1, 0},
        {"mask and pool", "", "fixed:4", EMO_BALANCE_DOCUMENT, 1, 1, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        check(&settings[i]);
}

/* Tokens choose what is left: one expert of two, or only the shared one. */
static void masks_below_top_k(void **state) {
    (void)state;
    static const setting settings[] = {
        {"one is left", "", NULL, EMO_BALANCE_BATCH, 2, 2, 0},
        {"one is left, pool, document", "", "fixed:3", EMO_BALANCE_DOCUMENT, 1, 2, 0},
        {"one is left, sigmoid, normalised", SIGMOID ",\"norm_topk_prob\":true", NULL, EMO_BALANCE_MICROBATCH, 1, 2, 0},
        {"none is left", "", NULL, EMO_BALANCE_BATCH, 1, 3, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        check(&settings[i]);
}

/* A bias changes who is chosen and nothing else; the jitter is the same wherever the step is made again. */
static void routers(void **state) {
    (void)state;
    static const setting settings[] = {
        {"sigmoid", SIGMOID, "uniform:2:7", EMO_BALANCE_MICROBATCH, 1, 0, 0},
        {"sigmoid, normalised, document", SIGMOID ",\"norm_topk_prob\":true", "uniform:3:7", EMO_BALANCE_DOCUMENT, 1, 0,
         0},
        {"bias", BIASED, "uniform:2:7", EMO_BALANCE_BATCH, 1, 0, 0},
        {"jitter, two microbatches", "", "uniform:2:7", EMO_BALANCE_MICROBATCH, 2, 0, 0.2f},
        {"all of it, document", SIGMOID BIASED, "mass:0.7:2:7", EMO_BALANCE_DOCUMENT, 2, 0, 0.1f},
        {"scheduled", "", "scheduled:3:12", EMO_BALANCE_DOCUMENT, 1, 0, 0},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
        check(&settings[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pools_and_scopes), cmocka_unit_test(scopes_with_a_past),
        cmocka_unit_test(shapes),           cmocka_unit_test(masks_below_top_k),
        cmocka_unit_test(routers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
