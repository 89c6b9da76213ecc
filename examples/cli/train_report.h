/* SPDX-License-Identifier: Apache-2.0 */
/* What `emo train` shows while it works. */
#ifndef EMO_CLI_TRAIN_REPORT_H
#define EMO_CLI_TRAIN_REPORT_H

#include "cli.h"

typedef struct train_report {
    cli *c;
    emo_step_metrics last;
    double valid_loss;       /* the last one, NaN before */
    double printed;          /* when a line was last printed */
    double seconds_per_step; /* smoothed */
    int64_t steps_seen;
    int32_t skipped;
} train_report;

void train_report_begin(train_report *report, cli *c);
/* The trainer's hooks: `report` is their ctx. */
int32_t train_report_step(void *ctx, const emo_step_metrics *metrics);
int32_t train_report_progress(void *ctx, const emo_progress_info *info);

/* The settings of a run, all of them, as text or as a JSON object under "settings". */
typedef struct train_settings {
    const emo_train_options *options;
    const char *pool;  /* in words */
    const char *model; /* where it comes from */
    const char *mask;
    const emo_model_info *info;
    const emo_dataset *data, *valid;
    int32_t threads;
    emo_isa isa;
    emo_dtype compute;
} train_settings;
void print_settings(const train_settings *s);
void json_settings(json_writer *json, const train_settings *s);

/* Where the time went, as a table, or as a JSON array under "profile". */
void print_profile(const emo_trainer *trainer);
void json_profile(json_writer *json, const emo_trainer *trainer);

#endif
