/* SPDX-License-Identifier: Apache-2.0 */
/* Smaller models from larger ones, and back. */
#ifndef EMO_SRC_SUBSET_PRUNE_H
#define EMO_SRC_SUBSET_PRUNE_H

#include "base/progress.h"
#include "model/model.h"

/* Experts to keep per layer: ids [offsets[l], offsets[l + 1]), the routed ones ascending, then the shared ones
 * ascending. Nothing for a dense layer. */
typedef struct emo__keep_lists {
    const emo__mem *mem;
    int32_t layers;
    int32_t *offsets; /* [layers + 1] */
    int32_t *ids;
} emo__keep_lists;

EMO_MUST_CHECK emo_status emo__keep_from_mask(const emo_model *model, const emo_mask *mask, emo__keep_lists *out,
                                              emo_error *err);
/* Explicit lists in any order inside a layer; checked, sorted, copied. */
EMO_MUST_CHECK emo_status emo__keep_from_ids(const emo_model *model, const int32_t *ids, const int32_t *offsets,
                                             emo__keep_lists *out, emo_error *err);
void emo__keep_free(emo__keep_lists *lists);

/* A model with these experts only. `borrow`: its views point into the parent's memory (which must outlive it), only the
 * router rows are its own; else everything is copied, in the type it is held in. `progress` may be NULL. */
EMO_MUST_CHECK emo_status emo__prune(const emo_model *model, const emo__keep_lists *keep, const char *method,
                                     bool borrow, const emo_progress *progress, emo_model **out, emo_error *err);

/* Options are checked already. */
EMO_MUST_CHECK emo_status emo__merge(const emo_model *parent, const emo_model *child, const emo_merge_options *options,
                                     emo_model **out, emo_error *err);

/* Copies every tensor that has data into memory of the model's own; views may have pointed anywhere. Experts that come
 * and go in `from` are read; `keep` says which of its experts the model's are, NULL: the same. */
EMO_MUST_CHECK emo_status emo__model_own(emo_model *model, const emo_model *from, const emo__keep_lists *keep,
                                         const emo_progress *progress, emo_error *err);

#endif
