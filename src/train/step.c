/* SPDX-License-Identifier: Apache-2.0 */
/* One optimizer step: micro-batches forward and backward, sums over ranks, clipping, AdamW. What it gave is read in
 * collect.c. */
#include <math.h>
#include <string.h>

#include "backend/replay.h"
#include "base/clock.h"
#include "base/status.h"
#include "train/trainer.h"

/* N: the labels of the step over all ranks, never 0 while a step is made. */
static double label_count(const emo_trainer *t) { return (double)t->data.all_labels; }

static emo_status reduce(emo_trainer *t, void *data, size_t count, emo_dtype dtype, emo_error *err) {
    return t->ranks > 1 ? emo_comm_all_reduce_sum(t->comm, data, count, dtype, err) : EMO_OK;
}

/* The load-balancing loss of a layer and its gradient with respect to the scores. */
static emo_status balance_layer(emo_trainer *t, int32_t m, int32_t l, emo_error *err) {
    const emo__config *c = &t->model->config;
    const emo__route_view *r = emo__pass_route(t->pass, l);
    int32_t k = t->choose[l] > 0 ? t->choose[l] : 1; /* without experts to choose from there are no counts */
    double weight = (double)t->opt.balance_weight / c->layers;
    double *loss = emo__sum_balance(t, t->sums, l);
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
            status = t->ops->copy(t->exec, emo__sum_z(t, t->sums, m, l), r->z_sum, sizeof(double), err);
    }
    return status;
}

/* Sums over ranks and laps of a profile wait for the device in the middle of a step. Planning knows of both. */
static bool replays(const emo_trainer *t) {
    return !t->opt.no_graph && (t->planning != NULL || (t->ranks == 1 && !t->opt.profile));
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
    if (replays(t))
        EMO_TRY(status = emo__replay_begin(t->exec, EMO__PIECE_MICROBATCH, err));
    EMO_TRY(status = emo__pass_begin(t->pass, &batch, err));
    emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
    EMO_TRY(status = emo__pass_advance(t->pass, &limit, &done, err));
    if (t->ranks > 1) {
        EMO_TRY(status = emo__ranks_stop(t, note.wanted != 0, &stop, err));
        emo__trainer_lap(t, EMO_TRAIN_PART_RANKS);
        if (stop)
            EMO_TRY(status = emo__fail(err, EMO_E_CANCELLED, "cancelled by the progress hook of a rank"));
    }
    EMO_TRY(status = keep_counts(t, m, err));
    EMO_TRY(status =
                t->ops->copy(t->exec, emo__sum_ce(t->sums, m), emo__pass_ce_sum(t->pass), 2 * sizeof(double), err));
    for (int32_t l = 0; l < t->model->config.layers; l++) {
        if (emo__pass_route(t->pass, l) == NULL)
            continue;
        EMO_TRY(status = balance_layer(t, m, l, err));
        t->route[l].z_scale = (float)((double)t->opt.z_weight / t->model->config.layers / label_count(t));
    }
    emo__trainer_lap(t, EMO_TRAIN_PART_ROUTING);
    status = emo__pass_backward(t->pass, &t->grads, t->route, err);
done:
    return emo__replay_end(t->exec, status, err);
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
    if (replays(t) && t->offload == NULL) /* moments beside the device come and go on other execs */
        EMO_TRY(status = emo__replay_begin(t->exec, EMO__PIECE_UPDATE, err));
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
    return emo__replay_end(t->exec, status, err);
}

/* Begins to bring to the host what the step gave. */
static emo_status fetch(emo_trainer *t, emo__made_step *made, emo_error *err) {
    emo_status status;
    EMO_TRY(status = t->ops->download(t->exec, made->sums, t->sums, t->n_sums * sizeof *made->sums, err));
    EMO_TRY(status = t->ops->download(t->exec, &made->scalars, t->scalars, sizeof made->scalars, err));
    if (t->n_counts > 0)
        EMO_TRY(status = t->ops->download(t->exec, made->counts, emo__balance_step_counts(t->balance),
                                          t->n_counts * sizeof *made->counts, err));
    EMO_TRY(status = emo__balance_end_step(t->balance, t->exec, err));
    if (emo__works_ahead(t->exec))
        status = t->ops->mark(t->exec, &made->mark, err);
    made->fetched = status == EMO_OK;
done:
    return status;
}

bool emo__trainer_works_ahead(const emo_trainer *t) {
    return emo__works_ahead(t->exec) && t->ranks == 1 && !t->opt.profile && !(t->opt.score_bias_rate > 0.0f);
}

/* A dry one ends after the gradients. */
static emo_status enqueue(emo_trainer *t, bool dry, emo_error *err) {
    int64_t step = t->step + t->ahead + 1;
    int64_t misses = emo__replay_misses(t->exec);
    emo__made_step *made = &t->queue[step % 2];
    emo_step_metrics *out = &made->metrics;
    emo_status status;
    memset(out, 0, sizeof *out);
    made->begin_ns = emo__now_ns();
    made->fetched = false;
    made->replayed = false;
    emo__profile_start(emo__trainer_profile(t));
    EMO_TRY(status = emo__step_data_load(t, step, err));
    emo__trainer_lap(t, EMO_TRAIN_PART_DATA);
    double all[3] = {(double)t->data.n_labels, (double)t->data.n_documents, (double)t->data.n_filtered};
    EMO_TRY(status = emo__ranks_sum(t, all, 3, err));
    t->data.all_labels = (int64_t)all[0];
    t->data.all_documents = (int64_t)all[1];
    t->data.all_filtered = (int64_t)all[2];
    double n_all = all[0];
    made->n_labels = n_all;
    out->filtered_rows = t->data.all_filtered;
    if (!(n_all > 0.0)) {
        emo__log(t->rt, EMO_LOG_WARNING, "no token of step %lld counts for the loss: it is left out", (long long)step);
        t->ahead += dry ? 0 : 1;
        goto done;
    }
    if (t->ranks > 1)
        emo__trainer_lap(t, EMO_TRAIN_PART_RANKS);
    EMO_TRY(status = t->ops->zero(t->exec, t->g, (size_t)t->grad_count * sizeof(float), err));
    emo__trainer_lap(t, EMO_TRAIN_PART_OPTIMIZER);
    EMO_TRY(status = t->ops->zero(t->exec, t->sums, t->n_sums * sizeof(double), err));
    EMO_TRY(status = emo__balance_begin_step(t->balance, t->exec, t->opt.accumulate, n_all,
                                             (double)(t->rank_rows * t->opt.seq_len), err));
    for (int32_t m = t->planning != NULL ? t->opt.accumulate - 1 : 0; m < t->opt.accumulate; m++)
        EMO_TRY(status = micro_step(t, step, m, err));
    if (dry)
        goto done;
    int64_t planned = step < t->steps ? step : t->steps; /* steps past the end keep the last rate */
    out->lr = emo__schedule_lr(&t->opt, t->steps, t->warmup, t->decay, planned);
    EMO_TRY(status = update(t, step, out->lr, err));
    t->ahead++; /* from here on it must not be made again, whatever fails */
    made->replayed = replays(t) && emo__works_ahead(t->exec) && emo__replay_misses(t->exec) == misses;
    status = fetch(t, made, err);
done:
    return status;
}

emo_status emo__trainer_enqueue(emo_trainer *t, emo_error *err) { return enqueue(t, false, err); }

static emo_status dry_step(emo_trainer *t, emo_step_metrics *metrics, emo_error *err) {
    emo_status status = enqueue(t, true, err);
    if (status == EMO_OK)
        status = t->ops->synchronize(t->exec, err);
    if (metrics == NULL || status != EMO_OK)
        return status;
    const emo__made_step *made = &t->queue[(t->step + 1) % 2];
    *metrics = made->metrics;
    metrics->struct_size = sizeof *metrics;
    metrics->seconds = (double)(emo__now_ns() - made->begin_ns) * 1e-9;
    return EMO_OK;
}

emo_status emo__trainer_step(emo_trainer *t, bool dry, emo_step_metrics *metrics, emo_error *err) {
    if (dry)
        return dry_step(t, metrics, err);
    emo_status status = enqueue(t, false, err);
    if (status == EMO_OK)
        return emo__trainer_collect(t, metrics, err);
    if (t->ahead > 0)
        emo__trainer_count(t);
    return status;
}
