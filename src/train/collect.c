/* SPDX-License-Identifier: Apache-2.0 */
/* Reading what a step gave: losses, norms, the experts' loads, and what the loads do to the biases. On a device this
 * may be a step late. */
#include <math.h>
#include <string.h>

#include "backend/replay.h"
#include "base/clock.h"
#include "base/status.h"
#include "train/trainer.h"

/* t->load: tokens per routed expert of a layer in the step, all micro-batches and ranks; *all their sum. `at`: experts
 * of the layers before. */
static void load_of(const emo_trainer *t, const emo__made_step *made, int32_t l, size_t at, double *all) {
    size_t routed = (size_t)emo__config_routed(&t->model->config, l);
    size_t per_micro = t->n_counts / (size_t)t->opt.accumulate;
    *all = 0.0;
    memset(t->load, 0, routed * sizeof *t->load);
    for (int32_t m = 0; m < t->opt.accumulate; m++) {
        const int32_t *counts = made->counts + (size_t)m * per_micro + at;
        for (size_t e = 0; e < routed; e++) {
            t->load[e] += counts[e];
            *all += counts[e];
        }
    }
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
static emo_status look_at_loads(emo_trainer *t, const emo__made_step *made, double *worst, emo_error *err) {
    const emo__config *c = &t->model->config;
    bool skipped = made->scalars.skip != 0;
    size_t at = 0;
    *worst = 0.0;
    for (int32_t l = 0; l < c->layers; l++) {
        int32_t routed = emo__config_routed(c, l);
        double all = 0.0;
        if (c->layer[l].experts == 0)
            continue;
        load_of(t, made, l, at, &all);
        at += (size_t)c->layer[l].experts;
        if (!skipped && t->opt.score_bias_rate > 0.0f) {
            emo_status status = move_bias(t, l, all, err);
            if (status != EMO_OK)
                return status;
        }
        for (int32_t e = 0; e < routed; e++) {
            double share = all > 0 ? t->load[e] * routed / all : 0.0;
            *worst = share > *worst ? share : *worst;
        }
    }
    return EMO_OK;
}

/* Sums over micro-batches, layers and ranks. */
static emo_status read_step(emo_trainer *t, const emo__made_step *made, emo_step_metrics *out, emo_error *err) {
    const emo__config *c = &t->model->config;
    const double *sums = made->sums;
    emo_status status;
    double n = made->n_labels;
    double values[4] = {0.0, 0.0, 0.0, 0.0}; /* loss, z-loss of the head, balance, z-loss of the router */
    int32_t moe = 0;
    for (int32_t m = 0; m < t->opt.accumulate; m++) {
        values[0] += emo__sum_ce(sums, m)[0] / n;
        values[1] += emo__sum_ce(sums, m)[1] / n * (double)t->opt.lm_z_weight;
    }
    for (int32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        moe++;
        values[2] += *emo__sum_balance(t, sums, l);
        for (int32_t m = 0; m < t->opt.accumulate; m++)
            values[3] += *emo__sum_z(t, sums, m, l) / n;
    }
    EMO_TRY(status = emo__ranks_sum(t, values, 4, err));
    out->loss = values[0];
    out->lm_z_loss = values[1];
    out->total_loss = out->loss + out->lm_z_loss + (double)t->opt.balance_weight / c->layers * values[2] +
                      (double)t->opt.z_weight / c->layers * values[3];
    out->balance_loss = moe > 0 ? values[2] / moe : 0.0;
    out->router_z_loss = moe > 0 ? values[3] / moe : 0.0;
    out->grad_norm = (double)made->scalars.grad_norm;
    out->skipped = made->scalars.skip;
    if (out->skipped != 0)
        emo__log(t->rt, EMO_LOG_WARNING, "the gradients of step %lld are not finite: the weights stay as they were",
                 (long long)t->step);
    status = look_at_loads(t, made, &out->max_load, err);
done:
    return status;
}

void emo__trainer_layer_losses(const emo_trainer *t, int32_t layer, double *balance, double *z) {
    const emo__made_step *made = &t->queue[t->step % 2];
    *balance = *emo__sum_balance(t, made->sums, layer);
    *z = 0.0;
    for (int32_t m = 0; m < t->opt.accumulate; m++)
        *z += *emo__sum_z(t, made->sums, m, layer) / made->n_labels;
}

void emo__trainer_count(emo_trainer *t) {
    bool worked = t->queue[(t->step + 1) % 2].n_labels > 0.0;
    t->ahead--;
    t->step++;
    t->tokens += worked ? (int64_t)t->opt.batch_rows * t->opt.seq_len : 0;
}

emo_status emo__trainer_collect(emo_trainer *t, emo_step_metrics *metrics, emo_error *err) {
    emo__made_step *made = &t->queue[(t->step + 1) % 2];
    emo_step_metrics *out = &made->metrics;
    emo_status status = EMO_OK;
    bool worked = made->n_labels > 0.0;
    emo__trainer_count(t);
    if (worked && !made->fetched)
        return emo__fail(err, EMO_E_BACKEND, "step %lld is made, but what it gave could not be read",
                         (long long)t->step);
    if (worked) {
        status = emo__works_ahead(t->exec) ? t->ops->wait(t->exec, made->mark, err) : t->ops->synchronize(t->exec, err);
        if (status == EMO_OK)
            status = read_step(t, made, out, err);
    } else {
        out->loss = (double)NAN;
        out->skipped = 1;
    }
    if (status != EMO_OK)
        return status;
    emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
    uint64_t now = emo__now_ns();
    uint64_t from = made->begin_ns > t->last_ns ? made->begin_ns : t->last_ns; /* it may have begun beside another */
    t->last_ns = now;
    t->replayed += made->replayed ? 1 : 0;
    out->struct_size = sizeof *out;
    out->step = t->step;
    out->steps = t->steps;
    out->tokens = t->tokens;
    out->seconds = (double)(now - from) * 1e-9;
    out->tokens_per_second = (double)t->opt.batch_rows * t->opt.seq_len / (out->seconds > 0 ? out->seconds : 1e-9);
    out->valid_loss = (double)NAN;
    t->seconds_done += out->seconds;
    if (metrics != NULL)
        *metrics = *out;
    return EMO_OK;
}
