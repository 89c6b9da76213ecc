/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences cut into windows and packed into batches of a pass; what restricts them. For calibration and evaluation. */
#ifndef EMO_SRC_MODEL_WINDOWS_H
#define EMO_SRC_MODEL_WINDOWS_H

#include <emo/data.h>

#include "base/progress.h"
#include "model/pass.h"

/* A sequence: an optional first token (end-of-text), then `tokens`. Places count from the first of them all. */
typedef struct emo__sequence {
    const int32_t *tokens; /* must live as long as the windows */
    int64_t count;
    int32_t lead;         /* -1: none */
    int64_t labels_from;  /* the first place that is a label */
    int64_t owner;        /* index of the document or item it belongs to */
    bool drop_last_input; /* the last token is only a label */
} emo__sequence;

typedef struct emo__window {
    emo__sequence sequence;
    int64_t begin; /* place of its first input */
    int64_t count; /* inputs */
} emo__window;

typedef struct emo__windows {
    const emo__mem *mem;
    emo__window *items;
    size_t count;
    size_t capacity;
    size_t *batches; /* [n_batches + 1] the first window of each */
    size_t n_batches;
    int64_t tokens;      /* inputs in all */
    int64_t max_tokens;  /* of a batch */
    int64_t max_windows; /* of a batch */
} emo__windows;

void emo__windows_init(emo__windows *w, const emo__mem *mem);
void emo__windows_free(emo__windows *w);
/* Cuts a sequence into windows of at most seq_len inputs. */
EMO_MUST_CHECK emo_status emo__windows_add(emo__windows *w, const emo__sequence *sequence, int64_t seq_len,
                                           emo_error *err);
/* Every document of a dataset. `lead` -1: none. score: as inputs of a loss (the last token is only a label). */
EMO_MUST_CHECK emo_status emo__windows_documents(emo__windows *w, const emo_dataset *documents, int32_t lead,
                                                 int64_t seq_len, bool score, emo_error *err);
/* Packs the windows in order into batches of at most batch_tokens (a longer window is a batch of its own). */
EMO_MUST_CHECK emo_status emo__windows_pack(emo__windows *w, int64_t batch_tokens, emo_error *err);

/* Host arrays of one batch. */
typedef struct emo__packed {
    const emo__mem *mem;
    int32_t *ids;
    int32_t *positions;
    int32_t *labels;
    int32_t *document_begin;
    emo_attention_segment *attention;
} emo__packed;
EMO_MUST_CHECK emo_status emo__packed_create(const emo__windows *w, emo__packed *out, emo_error *err);
void emo__packed_free(emo__packed *packed);
/* Fills the arrays with a batch and *batch with what it says of them (labels included). */
void emo__packed_fill(emo__packed *packed, const emo__windows *w, size_t index, emo__batch *batch);

/* The same allowed set for every window, per layer. */
typedef struct emo__allowed {
    const emo__mem *mem;
    int32_t layers;
    int64_t windows;
    uint8_t **rows; /* [layers] -> [windows, routed]; NULL entries and NULL: everything */
} emo__allowed;
/* From a mask (NULL: all that is loaded). `force`: rows for every MoE layer even if nothing is restricted. */
EMO_MUST_CHECK emo_status emo__allowed_create(const emo_model *model, const emo_mask *mask, int64_t windows, bool force,
                                              emo__allowed *out, emo_error *err);
/* keep [routed] */
void emo__allowed_set(emo__allowed *allowed, int32_t layer, int32_t routed, const uint8_t *keep);
void emo__allowed_free(emo__allowed *allowed);

#endif
