/* SPDX-License-Identifier: Apache-2.0 */
/* Models in GGUF files, in the form that llama.cpp runs as its "deepseek" architecture ("llama" for a dense model). */
#ifndef EMO_SRC_MODEL_GGUF_H
#define EMO_SRC_MODEL_GGUF_H

#include <emo/export.h>

#include "io/gguf.h"
#include "model/model.h"

/* Keys of this library's own in such a file. With the first one true, the shared expert in the file is all zeros and
 * stands for none. */
#define EMO__GGUF_NO_SHARED "emo.no_shared_expert"
#define EMO__GGUF_TRAIN_LEN "emo.train_seq_len"
#define EMO__GGUF_PRUNING "emo.pruning_metadata" /* the text of pruning_metadata.json */

/* Every expert is there. Options are checked; options->mask is not looked at. */
EMO_MUST_CHECK emo_status emo__model_export_gguf(const emo_model *model, const char *path,
                                                 const emo_export_options *options, emo_export_info *info,
                                                 emo_error *err);
/* EMO_E_UNSUPPORTED with the reason when a GGUF file cannot say what the model is. */
EMO_MUST_CHECK emo_status emo__gguf_can_say(const emo__config *config, emo_error *err);

EMO_MUST_CHECK emo_status emo__model_load_gguf(emo_runtime *rt, emo_source *source,
                                               const emo_model_load_options *options, emo_model **out, emo_error *err);
/* The configuration that the keys of a file give. Free it with emo__config_free in every case. */
EMO_MUST_CHECK emo_status emo__gguf_config(const emo__mem *mem, const emo__gguf *g, emo__config *config,
                                           emo_error *err);

/* ---- the tensors of a file ---- */

/* One tensor: a matrix or vector of the model, or a matrix of several experts, one after the other. */
typedef struct emo__gguf_item {
    char name[64];
    int32_t layer;  /* -1 outside the layers */
    int32_t which;  /* EMO__W_* in a layer, EMO_SLOT_* of experts; outside: 0 embedding, 1 last norm, 2 head */
    int32_t expert; /* the first of the experts, -1: none */
    int32_t slices; /* experts, or 1 */
    int64_t rows;   /* of a slice */
    int64_t cols;
    int32_t heads; /* > 0: in the file the rows of each head are interleaved: i, i + D/2 side by side */
    bool vector;
    bool exact; /* f32 whatever type is asked for: norms and routers */
    bool zero;  /* an expert of zeros, for a model without shared experts */
} emo__gguf_item;

/* All tensors of a model in the order of the file. *out [*count]; the caller frees it. */
EMO_MUST_CHECK emo_status emo__gguf_items(const emo__mem *mem, const emo__config *config, emo__gguf_item **out,
                                          size_t *count, emo_error *err);
/* The view of a slice; rows of a router are only those of the routed experts. */
emo_weight *emo__gguf_view(emo_model *model, const emo__gguf_item *item, int32_t slice);
/* The model's row that stands at row r of the file. */
static inline int64_t emo__gguf_row(const emo__gguf_item *item, int64_t r) {
    if (item->heads <= 0)
        return r;
    int64_t d = item->rows / item->heads;
    return r / d * d + r % 2 * (d / 2) + r % d / 2;
}

#endif
