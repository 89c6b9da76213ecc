/* SPDX-License-Identifier: Apache-2.0 */
/* The bounds of every training option, each refused by its name. */
#include "base/options.h"
#include "base/status.h"
#include "train/trainer.h"

static emo_status check_floats(const emo_train_options *o, emo_error *err) {
    const struct {
        const char *name;
        float value;
        float min;
        float max;
    } fields[] = {
        {"balance_weight", o->balance_weight, 0.0f, 1e6f},
        {"z_weight", o->z_weight, 0.0f, 1e6f},
        {"lm_z_weight", o->lm_z_weight, 0.0f, 1e6f},
        {"lr", o->lr, 0.0f, 1e3f},
        {"beta1", o->beta1, 0.0f, 0.9999999f},
        {"beta2", o->beta2, 0.0f, 0.9999999f},
        {"eps", o->eps, 0.0f, 1.0f},
        {"weight_decay", o->weight_decay, 0.0f, 1e3f},
        {"max_grad_norm", o->max_grad_norm, 0.0f, 1e30f},
        {"alpha_f", o->alpha_f, 0.0f, 1.0f},
        {"warmup_min_lr", o->warmup_min_lr, 0.0f, 1e3f},
        {"decay_min_lr", o->decay_min_lr, 0.0f, 1e3f},
        {"score_bias_rate", o->score_bias_rate, 0.0f, 1.0f},
        {"jitter", o->jitter, 0.0f, 0.999f},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        /* a NaN is in no range */
        if (!(fields[i].value >= fields[i].min && fields[i].value <= fields[i].max))
            return emo__fail(err, EMO_E_RANGE, "%s is %g; it must be in [%g, %g]", fields[i].name,
                             (double)fields[i].value, (double)fields[i].min, (double)fields[i].max);
    }
    if (!(o->max_minutes >= 0.0 && o->max_minutes <= 1e7))
        return emo__fail(err, EMO_E_RANGE, "max_minutes is %g; it must be in [0, 1e7]", o->max_minutes);
    return EMO_OK;
}

static emo_status check_ints(const emo_train_options *o, emo_error *err) {
    const struct {
        const char *name;
        int64_t value;
        int64_t min;
        int64_t max;
    } fields[] = {
        {"schedule", o->schedule, 0, EMO_SCHEDULE_WSD},
        {"balance_scope", o->balance_scope, 0, EMO_BALANCE_DOCUMENT},
        {"balance_window", o->balance_window, 1, EMO__BALANCE_MAX_WINDOW},
        {"warmup", o->warmup, -1, INT64_MAX / 4},
        {"decay", o->decay, -1, INT64_MAX / 4},
        {"max_steps", o->max_steps, 0, (int64_t)1 << 40},
        {"max_tokens", o->max_tokens, 0, INT64_MAX / 4},
        {"batch_rows", o->batch_rows, 1, 1 << 20},
        {"accumulate", o->accumulate, 1, EMO__BALANCE_MAX_MICROBATCHES},
        {"seq_len", o->seq_len, 2, 1 << 20},
        {"train_only", o->train_only, 0, EMO_TRAIN_EXPERTS},
        {"checkpoint_every", o->checkpoint_every, 0, INT64_MAX / 4},
        {"keep_checkpoints", o->keep_checkpoints, 1, 1 << 20},
        {"valid_every", o->valid_every, 0, INT64_MAX / 4},
        {"resume", o->resume, 0, 1},
        {"gating", o->gating, -1, EMO_ROUTER_SIGMOID},
        {"repetition_count", o->repetition_count, 0, 1 << 20},
        {"repetition_period", o->repetition_period, 1, 1 << 20},
        {"profile", o->profile, 0, 1},
        {"optimizer_on", o->optimizer_on, 0, EMO_OPTIMIZER_HOST},
        {"recompute", o->recompute, 0, EMO_RECOMPUTE_LAYER},
        {"no_graph", o->no_graph, 0, 1},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (fields[i].value < fields[i].min || fields[i].value > fields[i].max)
            return emo__fail(err, EMO_E_RANGE, "%s is %lld; it must be in [%lld, %lld]", fields[i].name,
                             (long long)fields[i].value, (long long)fields[i].min, (long long)fields[i].max);
    }
    if (o->repetition_count == 1)
        return emo__fail(err, EMO_E_RANGE, "repetition_count is 1, which every row has; it must be 0 or 2 and more");
    return EMO_OK;
}

emo_status emo__train_options_check(const emo_train_options *options, emo_error *err) {
    emo_status status = emo__options_reserved(options->reserved, "emo_train_options", err);
    if (status == EMO_OK)
        status = check_ints(options, err);
    if (status == EMO_OK)
        status = check_floats(options, err);
    if (status == EMO_OK && options->score_bias_rate > 0.0f && options->train_only == EMO_TRAIN_EXPERTS)
        status =
            emo__fail(err, EMO_E_INVALID_ARGUMENT,
                      "score_bias_rate is %g, but with train_only 'experts' the router stays as it is; it must be 0",
                      (double)options->score_bias_rate);
    return status;
}
