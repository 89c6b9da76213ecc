/* SPDX-License-Identifier: Apache-2.0 */
/* Train cases: the trainer on recorded rows, labels and pool sizes for a few steps; every loss, the counts, the first
 * gradients, the final weights, and the logits of an evaluation pass before the first step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"
#include "model/model.h"
#include "moe/documents.h"
#include "train/trainer.h"

/* Tolerances: several times the float32 error of the reference, far below the effect of a wrong formula. */
#define TOL_CE 1e-5
#define TOL_LM_Z 5e-9
#define TOL_LB 5e-6
#define TOL_Z 5e-5
#define TOL_NORM 1e-5
#define TOL_LR 1e-7 /* relative: the options are float32 */
#define TOL_LOGITS 2e-5
#define TOL_GRAD 2e-5
#define TOL_WEIGHTS 3e-6 /* 99.9 % of them */
#define TOL_WEIGHT 1e-4  /* every one: Adam divides by |g|, so a gradient near zero magnifies rounding */

typedef struct job {
    const golden_case *c;
    golden_result *r;
    emo_model *model;
    emo_trainer *trainer;
    int64_t steps, batch, seq, accumulate, documents;
    int32_t moe;
    const int64_t *ids;
    const int64_t *labels;
    const int64_t *docs; /* router */
} job;

static emo_status recorded_row(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    const job *j = ctx;
    (void)err;
    for (int64_t i = 0; i < j->seq; i++) {
        ids[i] = (int32_t)j->ids[row * j->seq + i];
        labels[i] = (int32_t)j->labels[row * j->seq + i];
    }
    return EMO_OK;
}

/* The place in the stream where a recorded document begins. */
static int64_t place(const job *j, const int64_t *doc) { return (doc[0] * j->batch + doc[1]) * j->seq + doc[2]; }

static void check_documents(job *j, const char *name,
                            int64_t (*cut)(const int32_t *, int64_t, int64_t, int32_t, int32_t *)) {
    const golden_tensor *want = golden_find(&j->c->file, "%s", name);
    const int64_t *d = want != NULL ? golden_need(j->c, j->r, "I64", want->count, "%s", name) : NULL;
    int64_t tokens = j->steps * j->batch * j->seq;
    int32_t *ids = calloc((size_t)tokens, sizeof *ids);
    int32_t *begin = calloc((size_t)tokens + 1, sizeof *begin);
    if (d != NULL && ids != NULL && begin != NULL) {
        for (int64_t i = 0; i < tokens; i++)
            ids[i] = (int32_t)j->ids[i];
        int64_t count = cut(ids, j->steps * j->batch, j->seq, j->model->config.eos, begin);
        if (count != want->shape[0])
            golden_fail(j->r, "%s: %lld documents, not %lld", name, (long long)count, (long long)want->shape[0]);
        for (int64_t i = 0; i < count && i < want->shape[0]; i++) {
            int64_t end = place(j, d + 4 * i) - d[4 * i + 2] + d[4 * i + 3];
            if (begin[i] != place(j, d + 4 * i) || begin[i + 1] != end)
                golden_fail(j->r, "%s: document %lld is elsewhere", name, (long long)i);
        }
    } else {
        golden_fail(j->r, "%s: nothing to compare", name);
    }
    free(ids);
    free(begin);
}

/* The recorded sizes by layer and by the place of the document's first token: the trainer's document ids. */
static emo_status make_pool(job *j, emo_pool_policy **pool, emo_error *err) {
    const emo__config *config = &j->model->config;
    int64_t places = j->steps * j->batch * j->seq;
    const int64_t *sizes = golden_need(j->c, j->r, "I64", j->moe * j->documents, "pool_sizes");
    int32_t *table = calloc((size_t)(config->layers * places), sizeof *table);
    emo_status status = EMO_E_OUT_OF_MEMORY;
    if (sizes != NULL && table != NULL) {
        int64_t row = 0;
        for (int64_t i = 0; i < config->layers * places; i++)
            table[i] = 1; /* where no document begins */
        for (int32_t l = 0; l < config->layers; l++) {
            if (config->layer[l].experts == 0)
                continue;
            for (int64_t d = 0; d < j->documents; d++)
                table[l * places + place(j, j->docs + 4 * d)] = (int32_t)sizes[row * j->documents + d];
            row++;
        }
        status = emo_pool_policy_create_table(j->c->rt, config->layers, places, table, pool, err);
    }
    free(table);
    return status;
}

static double nested(const golden_case *c, golden_result *r, const char *object, const char *key) {
    const emo__json *value = emo__json_get(emo__json_get(c->json, object), key);
    if (!golden_is_number(value))
        golden_fail(r, "case.json has no %s.%s", object, key);
    return golden_real(value);
}

static void make_trainer(job *j) {
    const golden_case *c = j->c;
    golden_result *r = j->r;
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *pool = NULL;
    emo_dataset *data = NULL;
    int32_t token = 0;
    size_t length = 1;
    const emo__json *betas = emo__json_get(emo__json_get(c->json, "optimizer"), "betas");
    emo_train_options o = EMO_TRAIN_OPTIONS_INIT;
    o.schedule = EMO_SCHEDULE_COSINE;
    o.balance_scope = EMO_BALANCE_MICROBATCH;
    o.balance_weight = (float)golden_number(c, r, "lb_loss_weight");
    o.z_weight = (float)golden_number(c, r, "router_z_loss_weight");
    o.lm_z_weight = (float)golden_number(c, r, "lm_z_loss_multiplier");
    o.lr = (float)nested(c, r, "optimizer", "lr");
    o.beta1 = (float)golden_real(emo__json_at(betas, 0));
    o.beta2 = (float)golden_real(emo__json_at(betas, 1));
    o.eps = (float)nested(c, r, "optimizer", "eps");
    o.weight_decay = (float)nested(c, r, "optimizer", "weight_decay");
    o.max_grad_norm = (float)golden_number(c, r, "max_grad_norm");
    o.alpha_f = (float)nested(c, r, "scheduler", "alpha_f");
    o.warmup_min_lr = (float)nested(c, r, "scheduler", "warmup_min_lr");
    o.warmup = (int64_t)nested(c, r, "scheduler", "warmup_steps");
    o.max_steps = (int64_t)nested(c, r, "scheduler", "max_steps");
    o.batch_rows = (int32_t)j->batch;
    o.accumulate = (int32_t)j->accumulate;
    o.seq_len = (int32_t)j->seq;
    emo_status status = make_pool(j, &pool, &err);
    o.pool = pool;
    if (status == EMO_OK)
        status = emo_dataset_from_tokens(c->rt, &token, &length, NULL, 1, j->model->config.eos, &data, &err);
    if (status == EMO_OK)
        status = emo_trainer_create(j->model, data, &o, &j->trainer, &err);
    (void)golden_call(r, status, &err, "creating the trainer");
    if (j->trainer != NULL)
        j->trainer->rows = (emo__row_source){j, recorded_row};
    emo_pool_policy_release(pool);
    emo_dataset_release(data);
}

/* With the scope of these cases the counts of a step stay until the next one begins. */
static void check_counts(job *j, int64_t step, int32_t layer, int32_t row) {
    int32_t routed = emo__config_routed(&j->model->config, layer);
    const int64_t *want = golden_need(j->c, j->r, "I64", j->steps * j->moe * routed, "tokens_per_expert");
    int64_t got[256] = {0};
    if (want == NULL || routed > 256)
        return;
    for (int32_t m = 0; m < (int32_t)j->accumulate; m++) {
        const int32_t *counts = emo__balance_counts(j->trainer->balance, layer, m);
        for (int32_t e = 0; e < routed; e++)
            got[e] += counts[e];
    }
    golden_same_i64(j->r, "tokens_per_expert", got, want + (step * j->moe + row) * routed, routed);
}

static void check_step(job *j, int64_t step) {
    const golden_case *c = j->c;
    golden_result *r = j->r;
    emo_error err = EMO_ERROR_INIT;
    emo_step_metrics m;
    if (golden_call(r, emo__trainer_step(j->trainer, false, &m, &err), &err, "a step") != 0)
        return;
    const float *ce = golden_need(c, r, "F32", j->steps, "ce_loss");
    const float *lm_z = golden_need(c, r, "F32", j->steps, "lm_z_loss");
    const float *total = golden_need(c, r, "F32", j->steps, "total_loss");
    const float *norm = golden_need(c, r, "F32", j->steps, "grad_norm");
    const float *lb = golden_need(c, r, "F32", j->steps * j->moe, "router_lb_loss");
    const float *z = golden_need(c, r, "F32", j->steps * j->moe, "router_z_loss");
    const emo__json *lr = emo__json_at(emo__json_get(c->json, "lr"), (size_t)step);
    if (ce == NULL || lm_z == NULL || total == NULL || norm == NULL || lb == NULL || z == NULL ||
        !golden_is_number(lr)) {
        golden_fail(r, "the case lacks results of step %lld", (long long)step);
        return;
    }
    golden_close_1(r, "ce", m.loss, (double)ce[step], TOL_CE);
    golden_close_1(r, "lm_z", m.lm_z_loss, (double)lm_z[step], TOL_LM_Z);
    golden_close_1(r, "total", m.total_loss, (double)total[step], TOL_CE);
    golden_close_1(r, "grad_norm", m.grad_norm, (double)norm[step], TOL_NORM);
    golden_close_1(r, "lr", m.lr / golden_real(lr), 1.0, TOL_LR);
    int32_t row = 0;
    for (int32_t l = 0; l < j->model->config.layers; l++) {
        if (j->model->config.layer[l].experts == 0)
            continue;
        double balance = 0.0;
        double router_z = 0.0;
        emo__trainer_layer_losses(j->trainer, l, &balance, &router_z);
        golden_close_1(r, "router_lb_loss", balance, (double)lb[step * j->moe + row], TOL_LB);
        golden_close_1(r, "router_z_loss", router_z, (double)z[step * j->moe + row], TOL_Z);
        check_counts(j, step, l, row);
        row++;
    }
}

/* Numbers of the trainer's device, malloc'ed; NULL and the case has failed, if not. */
static float *fetch(job *j, const float *device, int64_t count) {
    const emo_trainer *t = j->trainer;
    emo_error err = EMO_ERROR_INIT;
    size_t bytes = (size_t)count * sizeof(float);
    float *host = malloc(bytes);
    emo_status status = host != NULL ? t->ops->download(t->exec, host, device, bytes, &err) : EMO_E_OUT_OF_MEMORY;
    if (status == EMO_OK)
        status = t->ops->synchronize(t->exec, &err);
    if (golden_call(j->r, status, &err, "reading from the device") != 0) {
        free(host);
        return NULL;
    }
    return host;
}

static void check_gradients(job *j) {
    for (size_t i = 0; i < j->model->n_params; i++) {
        const emo__param *p = &j->model->params[i];
        char name[EMO__NAME_MAX];
        char what[EMO__NAME_MAX + 8];
        emo__param_name(p, name);
        (void)snprintf(what, sizeof what, "grad1.%s", name);
        int64_t count = emo__param_count(p);
        float *got = fetch(j, j->trainer->g + j->trainer->grad_offset[i], count);
        if (got != NULL)
            golden_relative(j->r, what, got, golden_need(j->c, j->r, "F32", count, "%s", what), count, TOL_GRAD);
        free(got);
    }
}

static int descending(const void *a, const void *b) {
    float x = *(const float *)a;
    float y = *(const float *)b;
    return x > y ? -1 : x < y ? 1 : 0;
}

static void check_weights(job *j) {
    int64_t all = 0;
    int64_t n = 0;
    for (size_t i = 0; i < j->model->n_params; i++)
        all += emo__param_count(&j->model->params[i]);
    float *off = calloc((size_t)all, sizeof *off);
    for (size_t i = 0; off != NULL && i < j->model->n_params; i++) {
        const emo__param *p = &j->model->params[i];
        char name[EMO__NAME_MAX];
        emo__param_name(p, name);
        int64_t count = emo__param_count(p);
        const float *want = golden_need(j->c, j->r, "F32", count, "final.%s", name);
        float *got = fetch(j, p->view->data, count);
        for (int64_t k = 0; want != NULL && got != NULL && k < count; k++) {
            float d = fabsf(got[k] - want[k]);
            off[n++] = isnan(d) ? INFINITY : d;
        }
        free(got);
    }
    if (off == NULL || n != all) {
        golden_fail(j->r, "final weights: nothing to compare");
    } else {
        qsort(off, (size_t)n, sizeof *off, descending);
        golden_close_1(j->r, "final weights (99.9 %)", (double)off[n / 1000], 0.0, TOL_WEIGHTS);
        golden_close_1(j->r, "final weights (maximum)", (double)off[0], 0.0, TOL_WEIGHT);
    }
    free(off);
}

/* Evaluation of the first step's rows with the initial weights. */
static void check_eval(job *j) {
    const golden_case *c = j->c;
    const emo__config *config = &j->model->config;
    int64_t tokens = j->batch * j->seq;
    int32_t size = (int32_t)golden_int(c, j->r, "eval_document_expert_pool");
    emo_error err = EMO_ERROR_INIT;
    emo__pass *pass = NULL;
    emo__pass_config pc = {0};
    pc.max_tokens = pc.max_documents = pc.max_logits = tokens;
    pc.shared_mode = EMO_SHARED_ONE;
    int32_t *ints = calloc((size_t)(tokens * 6 + 2), sizeof *ints);
    emo_attention_segment *segments = calloc((size_t)tokens, sizeof *segments);
    const int32_t **sizes = calloc((size_t)config->layers, sizeof *sizes);
    if (ints == NULL || segments == NULL || sizes == NULL ||
        golden_call(j->r, emo__pass_create(j->model, &pc, &pass, &err), &err, "creating a pass") != 0) {
        golden_fail(j->r, "no memory");
        goto done;
    }
    int32_t *ids = ints, *at = ints + tokens, *rows = at + tokens, *pools = rows + tokens, *cut = pools + tokens;
    int32_t *begin = cut + tokens + 1;
    for (int64_t i = 0; i < tokens; i++) {
        ids[i] = (int32_t)j->ids[i];
        at[i] = (int32_t)(i % j->seq);
        rows[i] = (int32_t)i;
        pools[i] = size;
    }
    emo__batch b = {0};
    b.tokens = b.n_logits = tokens;
    b.ids = ids;
    b.positions = at;
    b.logit_rows = rows;
    b.n_attention = emo__attention_documents(ids, j->batch, j->seq, config->eos, cut);
    for (int64_t i = 0; i < b.n_attention; i++)
        segments[i] = (emo_attention_segment){cut[i], cut[i + 1] - cut[i], cut[i], cut[i + 1] - cut[i]};
    b.attention = segments;
    b.n_documents = emo__router_documents(ids, j->batch, j->seq, config->eos, begin);
    b.document_begin = begin;
    for (int32_t l = 0; l < config->layers; l++)
        sizes[l] = config->layer[l].experts > 0 ? pools : NULL;
    b.pool_size = sizes;
    if (golden_call(j->r, emo__pass_run(pass, &b, &err), &err, "the evaluation pass") == 0) {
        int64_t count = tokens * config->vocab;
        float *logits = malloc((size_t)count * sizeof(float));
        if (logits != NULL &&
            golden_call(j->r,
                        emo__pass_download(pass, logits, emo__pass_logits(pass), (size_t)count * sizeof(float), &err),
                        &err, "the logits") == 0)
            golden_close(j->r, "eval.logits", logits, golden_need(c, j->r, "F32", count, "eval.logits"), count,
                         TOL_LOGITS);
        free(logits);
    }
done:
    emo__pass_destroy(pass);
    free(ints);
    free(segments);
    free(sizes);
}

void golden_train(const golden_case *c, golden_result *r) {
    job j = {0};
    j.c = c;
    j.r = r;
    j.steps = golden_int(c, r, "steps");
    j.batch = golden_int(c, r, "batch");
    j.seq = golden_int(c, r, "seq_len");
    j.moe = (int32_t)golden_int(c, r, "num_moe_layers");
    int64_t rows = golden_int(c, r, "microbatch_instances");
    const golden_tensor *docs = golden_find(&c->file, "router_docs");
    j.documents = docs != NULL && docs->dims == 2 ? docs->shape[0] : 0;
    int64_t tokens = j.steps * j.batch * j.seq;
    j.docs = golden_need(c, r, "I64", j.documents * 4, "router_docs");
    j.ids = golden_need(c, r, "I64", tokens, "input_ids");
    j.labels = golden_need(c, r, "I64", tokens, "labels");
    if (r->failed || rows < 1 || j.steps < 1)
        return;
    j.accumulate = j.batch / rows;
    if (golden_model(c, r, &j.model) != 0)
        return;
    j.model->config.shared_mode = EMO_SHARED_ONE; /* these cases follow training */
    check_documents(&j, "router_docs", emo__router_documents);
    check_documents(&j, "attention_docs", emo__attention_documents);
    check_eval(&j);
    make_trainer(&j);
    for (int64_t s = 0; !r->failed && s < j.steps; s++) {
        check_step(&j, s);
        if (s == 0 && !r->failed)
            check_gradients(&j);
    }
    if (!r->failed)
        check_weights(&j);
    emo_trainer_release(j.trainer);
    emo_model_release(j.model);
}
