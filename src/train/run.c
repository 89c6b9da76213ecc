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

/* Whether this rank keeps the run's folder. */
static bool has_folder(const emo_trainer *t) { return t->out != NULL && t->rank == 0; }

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
    return status == EMO_OK && has_folder(t) ? emo__run_store_plan(t, err) : status;
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

static bool folder_due(const emo_trainer *t, int64_t step) {
    return has_folder(t) && due(t->opt.checkpoint_every, step, t->steps);
}
static bool validation_due(const emo_trainer *t, int64_t step) {
    return t->valid != NULL && due(t->opt.valid_every, step, t->steps);
}

/* All that follows a step once it has been read. */
static emo_status follow(emo_trainer *t, emo_step_metrics *metrics, emo_error *err) {
    emo_status status;
    bool stop = false;
    emo_step_metrics *record = &t->unrecorded[t->n_unrecorded < 2 ? t->n_unrecorded++ : 1];
    *record = *metrics;
    if (validation_due(t, t->step)) {
        status = validate(t, &metrics->valid_loss, err);
        emo__trainer_lap(t, EMO_TRAIN_PART_VALIDATION);
        stop = status == EMO_E_CANCELLED; /* the step itself is done and goes on record */
        if (status != EMO_OK && !stop)
            goto done;
        *record = *metrics;
    }
    if (has_folder(t)) {
        EMO_TRY(status = emo__metrics_record(t, err));
        emo__trainer_lap(t, EMO_TRAIN_PART_OTHER);
        if (folder_due(t, t->step)) {
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

/* What could not be written after the last step must be on record before another one is made. */
static emo_status record_first(emo_trainer *t, emo_error *err) {
    return has_folder(t) ? emo__metrics_record(t, err) : EMO_OK;
}

emo_status emo__trainer_advance(emo_trainer *t, emo_step_metrics *metrics, emo_error *err) {
    emo_status status = record_first(t, err);
    if (status == EMO_OK)
        status = emo__trainer_step(t, false, metrics, err);
    return status == EMO_OK ? follow(t, metrics, err) : status;
}

static emo_status read_and_follow(emo_trainer *t, emo_error *err) {
    emo_step_metrics metrics;
    emo_status status = emo__trainer_collect(t, &metrics, err);
    return status == EMO_OK ? follow(t, &metrics, err) : status;
}

/* The oldest step that is under way, read after the next one was enqueued, so that the device has work meanwhile. What
 * looks at the weights or ends the run finds no step ahead. */
static emo_status advance_ahead(emo_trainer *t, emo_error *err) {
    emo_status status = record_first(t, err);
    if (status == EMO_OK && t->ahead == 0)
        status = emo__trainer_enqueue(t, err);
    int64_t reading = t->step + 1;
    if (status == EMO_OK && reading < t->steps && !validation_due(t, reading) && !folder_due(t, reading))
        status = emo__trainer_enqueue(t, err);
    return status == EMO_OK ? read_and_follow(t, err) : status;
}

emo_status emo__trainer_run(emo_trainer *t, emo_error *err) {
    emo_status status = emo__trainer_plan(t, err);
    bool ahead = emo__trainer_works_ahead(t);
    while (status == EMO_OK && t->step < t->steps) {
        emo_step_metrics metrics;
        status = ahead ? advance_ahead(t, err) : emo__trainer_advance(t, &metrics, err);
    }
    while (t->ahead > 0) { /* a run that ends early: what is under way is made, and told */
        emo_error other = EMO_ERROR_INIT;
        emo_status last = read_and_follow(t, &other);
        if (status == EMO_OK || (status == EMO_E_CANCELLED && last == EMO_E_CANCELLED)) { /* a later step's number */
            status = last;
            if (err != NULL && last != EMO_OK)
                *err = other;
        }
    }
    if (status == EMO_OK && has_folder(t))
        status = emo__checkpoint_write(t, t->ranks > 1 ? NULL : &t->opt.progress,
                                       err); /* had the last one failed; else there is nothing to do */
    return status;
}
