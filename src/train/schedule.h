/* SPDX-License-Identifier: Apache-2.0 */
/* Learning-rate schedules, golden/README.md 2.6. */
#ifndef EMO_SRC_TRAIN_SCHEDULE_H
#define EMO_SRC_TRAIN_SCHEDULE_H

#include <emo/train.h>

/* Learning rate of `step` (from 1) in a run of `steps`, warmup and decay in steps. */
double emo__schedule_lr(const emo_train_options *options, int64_t steps, int64_t warmup, int64_t decay, int64_t step);
/* The -1 of warmup and decay made definite for a run of `steps`. */
int64_t emo__schedule_warmup(const emo_train_options *options, int64_t steps);
int64_t emo__schedule_decay(const emo_train_options *options, int64_t steps);

#endif
