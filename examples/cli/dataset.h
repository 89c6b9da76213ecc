/* SPDX-License-Identifier: Apache-2.0 */
/* Documents from the paths of a command line. */
#ifndef EMO_CLI_DATASET_H
#define EMO_CLI_DATASET_H

#include "cli.h"

typedef struct dataset_request {
    const string_list *paths;
    const emo_tokenizer *tokenizer;
    const char *cache;  /* folder for tokenised shards; NULL: none is kept */
    const char *domain; /* only this one; NULL: all */
    int32_t skip_broken;
    const char *mix_root, *mix_tokenizer; /* for mix files; NULL: the library's defaults */
} dataset_request;

/* Opens the documents with the progress line. EMO_E_NOT_FOUND when there is none (of the domain). */
emo_status dataset_open(cli *c, const dataset_request *request, emo_dataset **out);

/* The documents as bytes: a token for each. */
emo_status dataset_open_bytes(cli *c, const string_list *paths, int32_t skip_broken, emo_dataset **out);

/* The tokenizer beside a model, borrowed; fails where there is none. */
emo_status model_tokenizer(cli *c, const emo_model *model, const char *folder, const emo_tokenizer **out);

#endif
