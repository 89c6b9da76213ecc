/* SPDX-License-Identifier: Apache-2.0 */
/* The training loop, and the number of steps of a run that is limited by time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"
#include "infer/eval.h"
#include "train/trainer.h"

#define CALIBRATION_STEPS 7

static int compare(const void *a, const void *b) {
    double x = *(const double *)a;
    double y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Measures a few steps without their update; the median gives the number of steps that fit. */
static emo_status calibrate(emo_trainer *t, emo_error *err) {
    double seconds[CALIBRATION_STEPS];
    double budget = t->opt.max_minutes * 60.0;
    uint64_t begin = emo__now_ns();
    int32_t enough = 0;
    int n = 0;
    for (int i = 0; i < CALIBRATION_STEPS && enough == 0; i++) {
        emo_step_metrics metrics;
        emo_status status = emo__trainer_step(t, true, &metrics, err);
        if (status != EMO_OK)
            return status;
        if (i > 0) /* the first one touches memory for the first time */
            seconds[n++] = metrics.seconds;
        enough = (double)(emo__now_ns() - begin) * 1e-9 > budget * 0.05 && n > 0;
        status = emo__ranks_tell(t, &enough, sizeof enough, err);
        if (status != EMO_OK)
            return status;
    }
    qsort(seconds, (size_t)n, sizeof seconds[0], compare);
    double left = budget - (double)(emo__now_ns() - begin) * 1e-9;
    double each = seconds[n / 2] > 1e-9 ? seconds[n / 2] : 1e-9;
    double steps = floor(left / each);
    t->steps = steps < 1.0 ? 1 : steps > 1e12 ? (int64_t)1e12 : (int64_t)steps;
    memset(&t->profile, 0, sizeof t->profile); /* of the run alone */
    return EMO_OK;
}

emo_status emo__trainer_plan(emo_trainer *t, emo_error *err) {
    if (t->steps > 0)
        return EMO_OK;
    if (!(t->opt.max_minutes > 0.0))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "one of max_steps, max_tokens and max_minutes must be set");
    emo_status status = calibrate(t, err);
    if (status == EMO_OK) /* all ranks must plan the same: the first one's number counts */
        status = emo__ranks_tell(t, &t->steps, sizeof t->steps, err);
    t->warmup = emo__schedule_warmup(&t->opt, t->steps);
    t->decay = emo__schedule_decay(&t->opt, t->steps);
    return status == EMO_OK && t->out != NULL && t->rank == 0 ? emo__run_store_plan(t, err) : status;
}

/* Mean loss a token over the validation data: all experts (those of the mask), no pools. The first rank measures. */
static emo_status validate(emo_trainer *t, double *loss, emo_error *err) {
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    emo_eval_result sum = {0};
    emo_status status = EMO_OK;
    o.seq_len = t->opt.seq_len;
    o.mask = t->mask;
    if (t->ranks == 1) /* with more of them, leaving must be agreed on */
        o.progress = t->opt.progress;
    if (t->rank == 0)
        status = emo__eval_documents(t->model, t->valid, &o, &sum, NULL, NULL, err);
    status = emo__ranks_agree(t, status, err);
    if (status == EMO_OK && sum.tokens > 0)
        *loss = sum.loss_sum / (double)sum.tokens;
    return status == EMO_OK ? emo__ranks_tell(t, loss, sizeof *loss, err) : status;
}

static bool due(int64_t every, int64_t step, int64_t steps) {
    return step == steps || (every > 0 && step % every == 0);
}

/* One step with all that follows it. */
emo_status emo__trainer_advance(emo_trainer *t, emo_step_metrics *metrics, emo_error *err) {
    emo_status status;
    bool stop = false;
    bool folder = t->out != NULL && t->rank == 0;
    if (folder) /* what could not be written after the last step must be on record before another one is made */
        EMO_TRY(status = emo__metrics_record(t, err));
    EMO_TRY(status = emo__trainer_step(t, false, metrics, err));
    t->unrecorded = *metrics;
    if (t->valid != NULL && due(t->opt.valid_every, t->step, t->steps)) {
        status = validate(t, &metrics->valid_loss, err);
        emo__trainer_lap(t, EMO_TRAIN_PART_VALIDATION);
        stop = status == EMO_E_CANCELLED; /* the step itself is done and goes on record */
        if (status != EMO_OK && !stop)
            goto done;
        t->unrecorded = *metrics;
    }
    if (folder) {
        EMO_TRY(status = emo__metrics_record(t, err));
        emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
        if (due(t->opt.checkpoint_every, t->step, t->steps)) {
            /* with several ranks, leaving must be agreed on: the checkpoint is finished first */
            emo__note note = {&t->opt.progress, 0};
            emo_progress noting = {&note, emo__note_report};
            status = emo__checkpoint_write(t, t->ranks > 1 ? &noting : &t->opt.progress, err);
            emo__trainer_lap(t, EMO_TRAIN_PART_CHECKPOINT);
            stop = stop || note.wanted != 0 || status == EMO_E_CANCELLED;
            if (status != EMO_OK && status != EMO_E_CANCELLED)
                goto done;
        }
    }
    if (t->opt.on_step != NULL) {
        stop = t->opt.on_step(t->opt.on_step_ctx, metrics) != 0 || stop;
        emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
    }
    EMO_TRY(status = emo__ranks_stop(t, stop, &stop, err));
    if (stop)
        status = emo__fail(err, EMO_E_CANCELLED, "stopped after step %lld", (long long)t->step);
done:
    return status;
}

emo_status emo__trainer_run(emo_trainer *t, emo_error *err) {
    emo_status status = emo__trainer_plan(t, err);
    while (status == EMO_OK && t->step < t->steps) {
        emo_step_metrics metrics;
        status = emo__trainer_advance(t, &metrics, err);
    }
    if (status == EMO_OK && t->out != NULL && t->rank == 0)
        status = emo__checkpoint_write(t, t->ranks > 1 ? NULL : &t->opt.progress,
                                       err); /* had the last one failed; else there is nothing to do */
    return status;
}
