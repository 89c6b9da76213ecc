/* SPDX-License-Identifier: Apache-2.0 */
/* One optimizer step: micro-batches forward and backward, sums over ranks, clipping, AdamW, metrics. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "train/trainer.h"

/* N: the labels of the step over all ranks, never 0 while a step is made. */
static double label_count(const emo_trainer *t) { return (double)t->data.all_labels; }

/* Places in t->sums. */
static double *sum_ce(const emo_trainer *t, double *sums, int32_t m) { return sums + 2 * m; }
static double *sum_balance(const emo_trainer *t, double *sums, int32_t l) { return sums + 2 * t->opt.accumulate + l; }
static double *sum_z(const emo_trainer *t, double *sums, int32_t m, int32_t l) {
    int32_t layers = t->model->config.layers;
    return sums + 2 * t->opt.accumulate + layers + m * layers + l;
}

static emo_status reduce(emo_trainer *t, void *data, size_t count, emo_dtype dtype, emo_error *err) {
    return t->ranks > 1 ? emo_comm_all_reduce_sum(t->comm, data, count, dtype, err) : EMO_OK;
}

/* The load-balancing loss of a layer and its gradient with respect to the scores. */
static emo_status balance_layer(emo_trainer *t, int32_t m, int32_t l, emo_error *err) {
    const emo__config *c = &t->model->config;
    const emo__route_view *r = emo__pass_route(t->pass, l);
    int32_t k = t->choose[l] > 0 ? t->choose[l] : 1; /* without experts to choose from there are no counts */
    double weight = (double)t->opt.balance_weight / c->layers;
    double *loss = sum_balance(t, t->sums, l);
    t->route[l].balance = t->layer_grad[l];
    if (t->opt.balance_scope == EMO_BALANCE_DOCUMENT) {
        emo_balance_documents_args a = {0};
        a.experts = r->routed;
        a.k = k;
        a.n_segments = t->micro.n_documents;
        a.segment_begin = emo__pass_document_begin(t->pass);
        a.allowed = r->allowed;
        a.segment_counts = r->segment_counts;
        a.segment_score_sum = r->segment_score_sum;
        a.scale = 1.0 / (double)t->data.all_documents;
        a.weight = weight;
        a.loss = loss;
        a.grad = t->layer_grad[l];
        t->route[l].by_document = 1;
        return t->ops->balance_documents(t->exec, &a, err);
    }
    emo_balance_args a = {0};
    emo__balance_args(t->balance, l, m, k, (double)(t->micro_rows * t->opt.seq_len), &a);
    a.scale /= t->ranks; /* the mean score of a token, over the tokens of all ranks */
    a.weight = weight;
    a.score_sum = r->score_sum;
    a.loss = loss;
    a.grad = t->layer_grad[l];
    t->route[l].by_document = 0;
    return t->ops->balance(t->exec, &a, err);
}

/* Counts of a finished forward go to the balance, summed over the ranks. */
static emo_status keep_counts(emo_trainer *t, int32_t m, emo_error *err) {
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < t->model->config.layers; l++) {
        const emo__route_view *r = emo__pass_route(t->pass, l);
        if (r == NULL)
            continue;
        size_t experts = (size_t)r->routed + (size_t)r->shared;
        int32_t *counts = emo__balance_counts(t->balance, l, m);
        status = t->ops->copy(t->exec, counts, r->counts, experts * sizeof *counts, err);
        if (status == EMO_OK)
            status = reduce(t, counts, experts, EMO_DTYPE_I32, err);
        if (status == EMO_OK)
            status = t->ops->copy(t->exec, sum_z(t, t->sums, m, l), r->z_sum, sizeof(double), err);
    }
    return status;
}

static emo_status micro_step(emo_trainer *t, int64_t step, int32_t m, emo_error *err) {
    emo__batch batch;
    emo__limit limit = {0};
    bool done = false;
    bool stop = false;
    emo__note note = {&t->opt.progress, 0}; /* several ranks must leave the step at the same place */
    emo_progress noting = {&note, emo__note_report};
    if (t->opt.progress.report != NULL)
        limit.progress = t->ranks > 1 ? &noting : &t->opt.progress;
    emo_status status;
    EMO_TRY(status = emo__micro_prepare(t, step, m, &batch, err));
    emo__trainer_lap(t, EMO_TRAIN_PART_ROUTING); /* sizes of the documents' pools */
    EMO_TRY(status = emo__pass_begin(t->pass, &batch, err));
    emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
    EMO_TRY(status = emo__pass_advance(t->pass, &limit, &done, err));
    if (t->ranks > 1) {
        EMO_TRY(status = emo__ranks_stop(t, note.wanted != 0, &stop, err));
        emo__trainer_lap(t, EMO_TRAIN_PART_RANKS);
        if (stop)
            return emo__fail(err, EMO_E_CANCELLED, "cancelled by the progress hook of a rank");
    }
    EMO_TRY(status = keep_counts(t, m, err));
    EMO_TRY(status = t->ops->copy(t->exec, sum_ce(t, t->sums, m), emo__pass_ce_sum(t->pass), 2 * sizeof(double), err));
    for (int32_t l = 0; l < t->model->config.layers; l++) {
        if (emo__pass_route(t->pass, l) == NULL)
            continue;
        EMO_TRY(status = balance_layer(t, m, l, err));
        t->route[l].z_scale = (float)((double)t->opt.z_weight / t->model->config.layers / label_count(t));
    }
    emo__trainer_lap(t, EMO_TRAIN_PART_ROUTING);
    status = emo__pass_backward(t->pass, &t->grads, t->route, err);
done:
    return status;
}

static emo_status update(emo_trainer *t, int64_t step, double lr, emo_error *err) {
    emo_step_scalars s = {0};
    s.lr = (float)lr;
    s.bias1 = (float)(1.0 - pow((double)t->opt.beta1, (double)step));
    s.bias2 = (float)(1.0 - pow((double)t->opt.beta2, (double)step));
    emo_status status;
    EMO_TRY(status = reduce(t, t->g, (size_t)t->grad_count, EMO_DTYPE_F32, err));
    if (t->ranks > 1)
        emo__trainer_lap(t, EMO_TRAIN_PART_RANKS);
    EMO_TRY(status = t->ops->upload(t->exec, t->scalars, &s, sizeof s, err));
    emo_sumsq_args sumsq = {t->grad_count, t->g, &t->scalars->sumsq};
    EMO_TRY(status = t->ops->sumsq(t->exec, &sumsq, err));
    emo_clip_args clip = {t->opt.max_grad_norm, t->scalars};
    EMO_TRY(status = t->ops->clip(t->exec, &clip, err));
    for (size_t i = 0; i < t->n_runs; i++) {
        const emo__adam_run *run = &t->runs[i];
        emo_adamw_args a = {0};
        a.count = run->count;
        a.p = run->p;
        a.g = t->g + run->offset;
        a.m = t->m + run->offset;
        a.v = t->v + run->offset;
        a.beta1 = t->opt.beta1;
        a.beta2 = t->opt.beta2;
        a.eps = t->opt.eps;
        a.weight_decay = run->weight_decay;
        a.scalars = t->scalars;
        EMO_TRY(status = t->offload != NULL ? emo__offload_adamw(t, &a, err) : t->ops->adamw(t->exec, &a, err));
    }
    emo__trainer_lap(t, EMO_TRAIN_PART_OPTIMIZER);
done:
    return status;
}

/* t->load: tokens per routed expert of a layer in the step, all micro-batches and ranks; *all their sum. */
static emo_status load_of(emo_trainer *t, int32_t l, double *all, emo_error *err) {
    size_t routed = (size_t)emo__config_routed(&t->model->config, l);
    *all = 0.0;
    memset(t->load, 0, routed * sizeof *t->load);
    for (int32_t m = 0; m < t->opt.accumulate; m++) {
        emo_status status = t->ops->download(t->exec, t->host_counts, emo__balance_counts(t->balance, l, m),
                                             routed * sizeof *t->host_counts, err);
        if (status == EMO_OK)
            status = t->ops->synchronize(t->exec, err);
        if (status != EMO_OK)
            return status;
        for (size_t e = 0; e < routed; e++) {
            t->load[e] += t->host_counts[e];
            *all += t->host_counts[e];
        }
    }
    return EMO_OK;
}

/* bias += rate * sign(mean - load), over the experts that may be chosen. The same on every rank: so are the counts. */
static emo_status move_bias(emo_trainer *t, int32_t l, double all, emo_error *err) {
    int32_t routed = emo__config_routed(&t->model->config, l);
    const uint8_t *keep = t->keep != NULL ? t->keep[l] : NULL;
    float *bias = (float *)(uintptr_t)t->model->layers[l].w[EMO__W_SCORE_BIAS].data;
    size_t bytes = (size_t)routed * sizeof *bias;
    int32_t kept = 0;
    emo_status status = t->ops->download(t->exec, t->host_bias, bias, bytes, err);
    if (status == EMO_OK)
        status = t->ops->synchronize(t->exec, err);
    if (status != EMO_OK)
        return status;
    for (int32_t e = 0; e < routed; e++)
        kept += keep == NULL || keep[e] != 0 ? 1 : 0;
    for (int32_t e = 0; e < routed; e++) {
        double under = all - t->load[e] * kept; /* whole numbers: a tie is exact */
        if (keep != NULL && keep[e] == 0)
            continue;
        t->host_bias[e] += under > 0.0 ? t->opt.score_bias_rate : under < 0.0 ? -t->opt.score_bias_rate : 0.0f;
    }
    status = t->ops->upload(t->exec, bias, t->host_bias, bytes, err);
    return status == EMO_OK ? t->ops->synchronize(t->exec, err) : status; /* host_bias is used again */
}

/* Largest load of an expert over its fair share, over the layers of the step; and what the loads do to the biases. */
static emo_status look_at_loads(emo_trainer *t, bool skipped, double *worst, emo_error *err) {
    const emo__config *c = &t->model->config;
    *worst = 0.0;
    for (int32_t l = 0; l < c->layers; l++) {
        int32_t routed = emo__config_routed(c, l);
        double all = 0.0;
        if (c->layer[l].experts == 0)
            continue;
        emo_status status = load_of(t, l, &all, err);
        if (status == EMO_OK && !skipped && t->opt.score_bias_rate > 0.0f)
            status = move_bias(t, l, all, err);
        if (status != EMO_OK)
            return status;
        for (int32_t e = 0; e < routed; e++) {
            double share = all > 0 ? t->load[e] * routed / all : 0.0;
            *worst = share > *worst ? share : *worst;
        }
    }
    return EMO_OK;
}

/* Sums over micro-batches, layers and ranks; one download per step. */
static emo_status collect(emo_trainer *t, emo_step_metrics *out, emo_error *err) {
    const emo__config *c = &t->model->config;
    emo_step_scalars s;
    double *sums = t->host_sums;
    emo_status status;
    EMO_TRY(status = t->ops->download(t->exec, sums, t->sums, t->n_sums * sizeof *sums, err));
    EMO_TRY(status = t->ops->download(t->exec, &s, t->scalars, sizeof s, err));
    EMO_TRY(status = t->ops->synchronize(t->exec, err));
    double n = label_count(t);
    double lb = 0.0;
    double z = 0.0;
    int32_t moe = 0;
    out->loss = 0.0;
    out->lm_z_loss = 0.0;
    for (int32_t m = 0; m < t->opt.accumulate; m++) {
        out->loss += sum_ce(t, sums, m)[0] / n;
        out->lm_z_loss += sum_ce(t, sums, m)[1] / n * (double)t->opt.lm_z_weight;
    }
    for (int32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        moe++;
        lb += *sum_balance(t, sums, l);
        for (int32_t m = 0; m < t->opt.accumulate; m++)
            z += *sum_z(t, sums, m, l) / n;
    }
    double values[4] = {out->loss, out->lm_z_loss, lb, z};
    EMO_TRY(status = emo__ranks_sum(t, values, 4, err));
    out->loss = values[0];
    out->lm_z_loss = values[1];
    lb = values[2];
    z = values[3];
    out->total_loss = out->loss + out->lm_z_loss + (double)t->opt.balance_weight / c->layers * lb +
                      (double)t->opt.z_weight / c->layers * z;
    out->balance_loss = moe > 0 ? lb / moe : 0.0;
    out->router_z_loss = moe > 0 ? z / moe : 0.0;
    out->grad_norm = (double)s.grad_norm;
    out->skipped = s.skip;
    out->filtered_rows = t->data.all_filtered;
    status = look_at_loads(t, s.skip != 0, &out->max_load, err);
done:
    return status;
}

void emo__trainer_layer_losses(const emo_trainer *t, int32_t layer, double *balance, double *z) {
    *balance = *sum_balance(t, t->host_sums, layer);
    *z = 0.0;
    for (int32_t m = 0; m < t->opt.accumulate; m++)
        *z += *sum_z(t, t->host_sums, m, layer) / label_count(t);
}

emo_status emo__trainer_step(emo_trainer *t, bool dry, emo_step_metrics *metrics, emo_error *err) {
    uint64_t begin = emo__now_ns();
    int64_t step = t->step + 1;
    emo_step_metrics out = {0};
    out.struct_size = sizeof out;
    emo_status status;
    emo__profile_start(emo__trainer_profile(t));
    EMO_TRY(status = emo__step_data_load(t, step, err));
    emo__trainer_lap(t, EMO_TRAIN_PART_DATA);
    double all[3] = {(double)t->data.n_labels, (double)t->data.n_documents, (double)t->data.n_filtered};
    EMO_TRY(status = emo__ranks_sum(t, all, 3, err));
    t->data.all_labels = (int64_t)all[0];
    t->data.all_documents = (int64_t)all[1];
    t->data.all_filtered = (int64_t)all[2];
    double n_all = all[0];
    if (!(n_all > 0.0)) {
        emo__log(t->rt, EMO_LOG_WARNING, "no token of step %lld counts for the loss: it is left out", (long long)step);
        out.loss = (double)NAN;
        out.skipped = 1;
        out.filtered_rows = t->data.all_filtered;
        t->step = dry ? t->step : step;
        goto finish;
    }
    if (t->ranks > 1)
        emo__trainer_lap(t, EMO_TRAIN_PART_RANKS);
    EMO_TRY(status = t->ops->zero(t->exec, t->g, (size_t)t->grad_count * sizeof(float), err));
    emo__trainer_lap(t, EMO_TRAIN_PART_OPTIMIZER);
    EMO_TRY(status = t->ops->zero(t->exec, t->sums, t->n_sums * sizeof(double), err));
    EMO_TRY(status = emo__balance_begin_step(t->balance, t->exec, t->opt.accumulate, n_all,
                                             (double)(t->rank_rows * t->opt.seq_len), err));
    for (int32_t m = 0; m < t->opt.accumulate; m++)
        EMO_TRY(status = micro_step(t, step, m, err));
    if (!dry) {
        int64_t planned = step < t->steps ? step : t->steps; /* steps past the end keep the last rate */
        out.lr = emo__schedule_lr(&t->opt, t->steps, t->warmup, t->decay, planned);
        EMO_TRY(status = update(t, step, out.lr, err));
        t->step = step; /* from here on it must not be made again, whatever fails */
        t->tokens += (int64_t)t->opt.batch_rows * t->opt.seq_len;
        EMO_TRY(status = collect(t, &out, err));
        EMO_TRY(status = emo__balance_end_step(t->balance, t->exec, err));
    }
finish:
    emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
    out.step = t->step;
    out.steps = t->steps;
    out.tokens = t->tokens;
    out.seconds = (double)(emo__now_ns() - begin) * 1e-9;
    out.tokens_per_second = (double)t->opt.batch_rows * t->opt.seq_len / (out.seconds > 0 ? out.seconds : 1e-9);
    out.valid_loss = (double)NAN;
    if (!dry)
        t->seconds_done += out.seconds;
    if (metrics != NULL)
        *metrics = out;
done:
    return status;
}
