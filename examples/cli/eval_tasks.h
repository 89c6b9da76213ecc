/* SPDX-License-Identifier: Apache-2.0 */
/* emo eval --tasks */
#ifndef EMO_CLI_EVAL_TASKS_H
#define EMO_CLI_EVAL_TASKS_H

#include "cli.h"

typedef struct tasks_request {
    const char *file;   /* the task file */
    const char *folder; /* of the model */
    const string_list *masks;
    const cache_arguments *cache;
    const char *keep;   /* "all,50%,9"; NULL: none */
    const char *method; /* as emo select has it */
    const char *items;  /* file for what came of each item; NULL: none */
    int64_t limit, examples;
    int32_t random, context, dry_run;
    uint64_t seed;
} tasks_request;

/* Runs the tasks, or with dry_run shows what would be run. */
emo_status eval_tasks(cli *c, const tasks_request *request);

/* The method of a name; layerwise where it is none. */
emo_select_method select_method_of(const char *name);

#endif
