/* SPDX-License-Identifier: Apache-2.0 */
/* emo generate: what both its ways share, and --prompts: many prompts in one session. */
#ifndef EMO_CLI_PROMPTS_H
#define EMO_CLI_PROMPTS_H

#include "cli.h"

/* The name of a stop reason, as the results have it. */
const char *stop_name(emo_stop_reason reason);

/* Text as it comes; the owner frees data, which is NULL as long as there is none. */
typedef struct growing_text {
    char *data;
    size_t length;
} growing_text;

emo_status text_add(cli *c, growing_text *text, const char *more);

/* Continues every document of a file or folder; one JSON object a line on standard output, as each is done. The options
 * are those of each prompt, and of batches; draws of prompt i have the seed options->seed + i. */
emo_status generate_many(cli *c, emo_model *model, const emo_session_options *options, const char *path);

#endif
