/* SPDX-License-Identifier: Apache-2.0 */
/* Which experts to keep. */
#ifndef EMO_SRC_SUBSET_SELECT_H
#define EMO_SRC_SUBSET_SELECT_H

#include <emo/select.h>

#include "subset/prune.h"
#include "subset/stats.h"

/* Options are copied over the defaults; `documents` may be NULL for a random choice. */
EMO_MUST_CHECK emo_status emo__select(emo_model *model, const emo_dataset *documents, const emo_select_options *options,
                                      emo__keep_lists *out, emo_error *err);
EMO_MUST_CHECK emo_status emo__select_from_stats(const emo_model *model, const emo_stats *stats,
                                                 const emo_select_options *options, emo__keep_lists *out,
                                                 emo_error *err);
/* The lists as a mask; EMO_E_INVALID_ARGUMENT when they leave shared experts out. */
EMO_MUST_CHECK emo_status emo__keep_to_mask(const emo_model *model, const emo__keep_lists *keep, emo_mask **out,
                                            emo_error *err);

/* Internal to selection: the keep set of one layer from its scores [E], written to ids [keep]; returns how many. */
int32_t emo__select_layer(const emo_model *model, int32_t layer, const double *scores,
                          const emo_select_options *options, int32_t *ids);
/* Lists with room for a selection: offsets set, ids to be filled. Checks keep and keep_shared. */
EMO_MUST_CHECK emo_status emo__select_begin(const emo_model *model, const emo_select_options *options,
                                            emo__keep_lists *out, emo_error *err);
/* Greedy layerwise selection (layerwise.c) into lists that emo__select_begin made. */
EMO_MUST_CHECK emo_status emo__select_layerwise(emo_model *model, const emo__windows *w,
                                                const emo_select_options *options, emo__keep_lists *out,
                                                emo_error *err);

#endif
