/* SPDX-License-Identifier: Apache-2.0 */
/* emo_dataset as the inside sees it: a shared store of tokens, a list of documents in it, a table of domain names. */
#ifndef EMO_SRC_DATA_DATASET_H
#define EMO_SRC_DATA_DATASET_H

#include <emo/data.h>

#include "base/runtime.h"
#include "io/names.h"
#include "io/source.h"

/* As kept in cache files, so its layout is part of their format. */
typedef struct emo__doc {
    uint64_t offset; /* of the first token in the store */
    uint64_t count;
    uint64_t prompt;
    uint64_t bytes;
    uint64_t prompt_bytes;
    uint32_t domain;
    uint32_t reserved;
} emo__doc;

/* Tokens that several datasets share: owned memory, or a mapped cache file. */
typedef struct emo__store {
    emo__ref ref;
    emo_runtime *rt;
    const int32_t *tokens;
    int32_t *owned;     /* or NULL */
    emo_source *source; /* or NULL */
    uint64_t count;
} emo__store;

struct emo_dataset {
    emo__ref ref;
    emo_runtime *rt;
    emo__store *store;
    emo__doc *docs;
    size_t count;
    char **domains;
    size_t domain_count;
    int64_t tokens;
    int64_t bytes;
    int64_t skipped;
    int32_t eos;
    int32_t vocab_size;
};

/* The parts of a dataset while it is put together. */
typedef struct emo__dataset_draft {
    emo_runtime *rt;
    int32_t *tokens; /* NULL once they go to a file or into a store */
    size_t token_count;
    size_t token_capacity;
    emo__doc *docs;
    size_t doc_count;
    size_t doc_capacity;
    char **domains;
    size_t domain_count;
    size_t domain_capacity;
    emo__name_index domain_index;
    int64_t skipped;
    int32_t eos;
    int32_t vocab_size;
} emo__dataset_draft;

void emo__draft_init(emo__dataset_draft *draft, emo_runtime *rt);
void emo__draft_free(emo__dataset_draft *draft);
EMO_MUST_CHECK emo_status emo__draft_domain(emo__dataset_draft *draft, const char *name, uint32_t *out, emo_error *err);
/* Adds a document whose tokens are at [token_count, + count): the caller stores them and then advances token_count. */
EMO_MUST_CHECK emo_status emo__draft_document(emo__dataset_draft *draft, uint64_t count, uint64_t prompt,
                                              uint64_t bytes, uint64_t prompt_bytes, const char *domain,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__draft_tokens(emo__dataset_draft *draft, const int32_t *tokens, size_t count,
                                            emo_error *err);
/* Turns the draft (which is emptied) into a dataset, over `source`'s tokens at byte `offset` when source is not NULL.
 */
EMO_MUST_CHECK emo_status emo__draft_finish(emo__dataset_draft *draft, emo_source *source, uint64_t offset,
                                            uint64_t count, emo_dataset **out, emo_error *err);

emo_dataset *emo__dataset_retain(const emo_dataset *dataset);
void emo__dataset_release(emo_dataset *dataset);
EMO_MUST_CHECK emo_status emo__dataset_filter(const emo_dataset *dataset, const char *domain, int64_t examples,
                                              uint64_t seed, emo_dataset **out, emo_error *err);

#endif
