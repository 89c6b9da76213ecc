/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors of a model's files that the model has no place for: saving passes them on. */
#ifndef EMO_SRC_MODEL_EXTRA_H
#define EMO_SRC_MODEL_EXTRA_H

#include "model/files.h"

typedef struct emo__extra {
    const emo__st *st;
    const emo__st_entry *entry;
} emo__extra;

/* *out [*count] in the byte order of the names, to be freed; nothing once the model has let its files go (after
 * training, for one). sorted: emo__model_sorted(). */
EMO_MUST_CHECK emo_status emo__model_extra(const emo_model *model, const emo__named_param *sorted, emo__extra **out,
                                           size_t *count, emo_error *err);
/* Writes the bytes as they are. */
EMO_MUST_CHECK emo_status emo__extra_write(const emo__extra *extra, emo__st_writer *w, void *scratch, size_t capacity,
                                           emo_error *err);

#endif
