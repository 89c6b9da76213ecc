/* SPDX-License-Identifier: Apache-2.0 */
/* What a training run would be, said without doing it. */
#ifndef EMO_CLI_DRY_RUN_H
#define EMO_CLI_DRY_RUN_H

#include "cli.h"

typedef struct dry_run {
    const char *name;  /* of the recipe; NULL: none */
    const char *model; /* where the shape comes from */
    const char *pool, *schedule, *balance_scope;
    const char *device; /* NULL: "cpu" */
    const emo_model_info *info;
    const emo_train_options *options;
    const emo_train_plan *plan;
} dry_run;

void dry_run_print(cli *c, const dry_run *d);

#endif
