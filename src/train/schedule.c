/* SPDX-License-Identifier: Apache-2.0 */
#include "train/schedule.h"

#include <math.h>

#define PI 3.14159265358979323846

int64_t emo__schedule_warmup(const emo_train_options *o, int64_t steps) {
    if (o->warmup >= 0)
        return o->warmup;
    int64_t warmup = steps / 20;
    return warmup > 2000 ? 2000 : warmup;
}

int64_t emo__schedule_decay(const emo_train_options *o, int64_t steps) {
    return o->decay >= 0 ? o->decay : (steps + 9) / 10;
}

static double warm(const emo_train_options *o, int64_t warmup, int64_t step) {
    double low = (double)o->warmup_min_lr;
    return low + ((double)o->lr - low) * (double)step / (double)warmup;
}

double emo__schedule_lr(const emo_train_options *o, int64_t steps, int64_t warmup, int64_t decay, int64_t step) {
    double peak = (double)o->lr;
    double final = (double)o->alpha_f * peak;
    double done = (double)(step - warmup) / (double)(steps - warmup);
    switch (o->schedule) {
    case EMO_SCHEDULE_LINEAR:
        if (step < warmup)
            return warm(o, warmup, step);
        return step >= steps ? final : peak - (peak - final) * done;
    case EMO_SCHEDULE_CONSTANT:
        return step <= warmup && warmup > 0 ? warm(o, warmup, step) : peak;
    case EMO_SCHEDULE_WSD:
        if (step <= warmup && warmup > 0)
            return warm(o, warmup, step);
        if (step >= steps - decay && decay > 0) {
            int64_t left = steps - step < decay ? steps - step : decay;
            double low = (double)o->decay_min_lr;
            return low + (peak - low) * (double)left / (double)decay; /* as the reference, also past the end */
        }
        return peak;
    default:
        if (step < warmup)
            return warm(o, warmup, step);
        return step >= steps ? final : final + (peak - final) * (1.0 + cos(PI * done)) / 2.0;
    }
}
