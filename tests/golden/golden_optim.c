/* SPDX-License-Identifier: Apache-2.0 */
/* Optim cases: AdamW with clipping on recorded gradients, through the back end's operators; learning-rate tables. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/runtime.h"
#include "golden/golden.h"
#include <emo/sys/backend.h>

#define TOL_PARAM 5e-6
#define TOL_NORM 1e-5
#define TOL_LR 1e-7 /* relative: the options are float32 */
#define MAX_PARAMS 16

typedef struct param {
    const char *name;
    int64_t count;
    int64_t offset;
    float weight_decay;
} param;

typedef struct job {
    const golden_case *c;
    golden_result *r;
    int64_t steps;
    param params[MAX_PARAMS];
    size_t n_params;
    int64_t total;
    float *p, *g, *m, *v; /* all parameters one behind the other */
    double beta1, beta2;
} job;

static void read_params(job *j) {
    const emo__json *names = emo__json_get(j->c->json, "params");
    const emo__json *spared = emo__json_get(j->c->json, "no_decay");
    float decay = (float)golden_number(j->c, j->r, "weight_decay");
    for (size_t i = 0; i < emo__json_size(names) && i < MAX_PARAMS; i++) {
        param *p = &j->params[j->n_params];
        p->name = golden_text(emo__json_at(names, i));
        const golden_tensor *init = golden_find(&j->c->file, "init.%s", p->name);
        if (init == NULL) {
            golden_fail(j->r, "no init.%s", p->name);
            return;
        }
        p->weight_decay = decay;
        for (size_t k = 0; k < emo__json_size(spared); k++) {
            if (strcmp(golden_text(emo__json_at(spared, k)), p->name) == 0)
                p->weight_decay = 0.0f;
        }
        p->count = init->count;
        p->offset = j->total;
        j->total += p->count;
        j->n_params++;
    }
}

static emo_status one_step(job *j, const emo_backend_ops *ops, emo_exec *exec, int64_t step, emo_step_scalars *s,
                           emo_error *err) {
    const emo__json *lr = emo__json_at(emo__json_get(j->c->json, "lr"), (size_t)(step - 1));
    *s = (emo_step_scalars){0};
    s->lr = (float)golden_real(lr);
    s->bias1 = (float)(1.0 - pow(j->beta1, (double)step));
    s->bias2 = (float)(1.0 - pow(j->beta2, (double)step));
    emo_sumsq_args sumsq = {j->total, j->g, &s->sumsq};
    emo_clip_args clip = {(float)golden_number(j->c, j->r, "max_grad_norm"), s};
    emo_status status = ops->sumsq(exec, &sumsq, err);
    if (status == EMO_OK)
        status = ops->clip(exec, &clip, err);
    for (size_t i = 0; status == EMO_OK && i < j->n_params; i++) {
        const param *p = &j->params[i];
        emo_adamw_args a = {0};
        a.count = p->count;
        a.p = j->p + p->offset;
        a.g = j->g + p->offset;
        a.m = j->m + p->offset;
        a.v = j->v + p->offset;
        a.beta1 = (float)j->beta1;
        a.beta2 = (float)j->beta2;
        a.eps = (float)golden_number(j->c, j->r, "eps");
        a.weight_decay = p->weight_decay;
        a.scalars = s;
        status = ops->adamw(exec, &a, err);
    }
    return status;
}

/* Row `step` of <prefix>.<name> [steps, ...], or the whole of a tensor without steps. */
static const float *row_of(job *j, const char *prefix, const param *p, int64_t step, int64_t steps) {
    const float *all = golden_need(j->c, j->r, "F32", p->count * steps, "%s.%s", prefix, p->name);
    return all != NULL ? all + step * p->count : NULL;
}

static void check_adamw(job *j, const emo_backend_ops *ops, emo_exec *exec) {
    emo_error err = EMO_ERROR_INIT;
    const float *norm = golden_need(j->c, j->r, "F32", j->steps, "grad_norm");
    for (size_t i = 0; i < j->n_params; i++) {
        const float *init = row_of(j, "init", &j->params[i], 0, 1);
        if (init != NULL)
            memcpy(j->p + j->params[i].offset, init, (size_t)j->params[i].count * sizeof(float));
    }
    for (int64_t s = 0; s < j->steps && !j->r->failed; s++) {
        for (size_t i = 0; i < j->n_params; i++) {
            const float *grad = row_of(j, "grad", &j->params[i], s, j->steps);
            if (grad != NULL)
                memcpy(j->g + j->params[i].offset, grad, (size_t)j->params[i].count * sizeof(float));
        }
        emo_step_scalars scalars;
        if (golden_call(j->r, one_step(j, ops, exec, s + 1, &scalars, &err), &err, "a step") != 0 || norm == NULL)
            return;
        golden_close_1(j->r, "grad_norm", (double)scalars.grad_norm, (double)norm[s], TOL_NORM);
        for (size_t i = 0; i < j->n_params; i++) {
            const param *p = &j->params[i];
            golden_close(j->r, "param", j->p + p->offset, row_of(j, "param", p, s, j->steps), p->count, TOL_PARAM);
        }
    }
    for (size_t i = 0; i < j->n_params; i++) {
        const param *p = &j->params[i];
        golden_close(j->r, "exp_avg", j->m + p->offset, row_of(j, "exp_avg", p, 0, 1), p->count, TOL_PARAM);
        golden_close(j->r, "exp_avg_sq", j->v + p->offset, row_of(j, "exp_avg_sq", p, 0, 1), p->count, TOL_PARAM);
    }
}

static int64_t steps_of(const emo__json *rule, const char *key, const char *fraction_key, double steps,
                        int64_t fallback) {
    const emo__json *count = emo__json_get(rule, key);
    const emo__json *fraction = emo__json_get(rule, fraction_key);
    if (emo__json_typeof(count) == EMO__JSON_INTEGER)
        return golden_whole(count);
    return golden_is_number(fraction) ? (int64_t)nearbyint(steps * golden_real(fraction)) : fallback;
}

static float number_of(const emo__json *rule, const char *key, double fallback) {
    const emo__json *value = emo__json_get(rule, key);
    return (float)(golden_is_number(value) ? golden_real(value) : fallback);
}

static void check_schedule(job *j, const emo__json *table) {
    static const struct {
        const char *name;
        emo_schedule schedule;
    } kinds[] = {{"cosine_with_warmup", EMO_SCHEDULE_COSINE},
                 {"linear_with_warmup", EMO_SCHEDULE_LINEAR},
                 {"constant_with_warmup", EMO_SCHEDULE_CONSTANT},
                 {"wsd", EMO_SCHEDULE_WSD}};
    const emo__json *rule = emo__json_get(table, "scheduler");
    const char *type = golden_text(emo__json_get(rule, "type"));
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.schedule = -1;
    for (size_t i = 0; type != NULL && i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(type, kinds[i].name) == 0)
            o.schedule = kinds[i].schedule;
    }
    o.max_steps = golden_whole(emo__json_get(table, "max_steps"));
    o.lr = (float)golden_real(emo__json_get(table, "initial_lr"));
    o.alpha_f = number_of(rule, "alpha_f", 0.1);
    o.warmup_min_lr = number_of(rule, "warmup_min_lr", 0.0);
    o.decay_min_lr = number_of(rule, "decay_min_lr", 0.0);
    o.warmup = steps_of(rule, "warmup", "warmup_fraction", (double)o.max_steps, 0);
    o.decay = steps_of(rule, "decay", "decay_fraction", (double)o.max_steps, 0);
    const emo__json *steps = emo__json_get(table, "steps");
    const emo__json *want = emo__json_get(table, "lr");
    if (emo__json_size(steps) == 0 || emo__json_size(steps) != emo__json_size(want))
        golden_fail(j->r, "a schedule without a table");
    for (size_t i = 0; i < emo__json_size(steps); i++) {
        emo_error err = EMO_ERROR_INIT;
        double lr = 0.0;
        double right = golden_real(emo__json_at(want, i));
        int64_t step = golden_whole(emo__json_at(steps, i));
        if (golden_call(j->r, emo_schedule_lr(&o, step, &lr, &err), &err, type) != 0)
            return;
        /* relative, also where a schedule ends in nothing */
        golden_close_1(j->r, type, lr, right, TOL_LR * (fabs(right) > 0.0 ? fabs(right) : (double)o.lr));
    }
}

void golden_optim(const golden_case *c, golden_result *r) {
    job j = {0};
    emo_error err = EMO_ERROR_INIT;
    emo_exec *exec = NULL;
    const emo__json *betas = emo__json_get(c->json, "betas");
    j.c = c;
    j.r = r;
    j.steps = golden_int(c, r, "steps");
    j.beta1 = golden_real(emo__json_at(betas, 0));
    j.beta2 = golden_real(emo__json_at(betas, 1));
    read_params(&j);
    if (r->failed || j.total == 0)
        return;
    float *block = calloc((size_t)j.total * 4, sizeof *block);
    const emo_backend_ops *ops = c->rt->cpu->ops;
    if (block != NULL && golden_call(r, ops->exec_create(c->rt->cpu, NULL, &exec, &err), &err, "the back end") == 0) {
        j.p = block;
        j.g = block + j.total;
        j.m = block + 2 * j.total;
        j.v = block + 3 * j.total;
        check_adamw(&j, ops, exec);
    }
    ops->exec_destroy(exec);
    free(block);
    const emo__json *schedules = emo__json_get(c->json, "schedules");
    if (emo__json_size(schedules) == 0)
        golden_fail(r, "no schedules");
    for (size_t i = 0; i < emo__json_size(schedules); i++)
        check_schedule(&j, emo__json_at(schedules, i));
}
