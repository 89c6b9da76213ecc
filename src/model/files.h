/* SPDX-License-Identifier: Apache-2.0 */
/* Models and the outside: making, loading, saving; masks over their experts; their tokenizer. */
#ifndef EMO_SRC_MODEL_FILES_H
#define EMO_SRC_MODEL_FILES_H

#include "model/model.h"

/* Readers and writers of a model. EMO_E_BUSY from the begin functions. */
EMO_MUST_CHECK emo_status emo__model_begin_read(const emo_model *model, emo_error *err);
void emo__model_end_read(const emo_model *model);
EMO_MUST_CHECK emo_status emo__model_begin_write(emo_model *model, emo_error *err);
void emo__model_end_write(emo_model *model);

/* Options are copied over the defaults and checked already. */
EMO_MUST_CHECK emo_status emo__model_create(emo_runtime *rt, const char *config, size_t length, uint64_t seed,
                                            const emo_progress *progress, emo_model **out, emo_error *err);
EMO_MUST_CHECK emo_status emo__model_load_path(emo_runtime *rt, const char *folder,
                                               const emo_model_load_options *options, emo_model **out, emo_error *err);
EMO_MUST_CHECK emo_status emo__model_load_sources(emo_runtime *rt, const char *config, size_t config_length,
                                                  emo_source *const *weights, size_t n_weights,
                                                  const emo_model_load_options *options, emo_model **out,
                                                  emo_error *err);
EMO_MUST_CHECK emo_status emo__model_save(const emo_model *model, const char *folder,
                                          const emo_model_save_options *options, emo_error *err);
/* The same into a folder that is there; it is not made when it is not. */
EMO_MUST_CHECK emo_status emo__model_save_into(const emo_model *model, const char *folder,
                                               const emo_model_save_options *options, emo_error *err);

/* The tokenizer's files, where the model has one. */
EMO_MUST_CHECK emo_status emo__save_tokenizer(const emo_model *model, const char *folder, emo_error *err);
/* The text of pruning_metadata.json: the reference's keys and the parent's shape. Appends. */
EMO_MUST_CHECK emo_status emo__pruning_text(const emo_model *model, emo__buf *out, emo_error *err);
/* prune_method from such a text. */
EMO_MUST_CHECK emo_status emo__model_read_method(emo_model *model, const char *text, size_t length, emo_error *err);
/* The load subset in the model's own shape. */
EMO_MUST_CHECK emo_status emo__model_set_subset(emo_model *model, const emo_mask *wish, emo_error *err);
/* Whether a parameter belongs to the load subset. */
bool emo__param_wanted(const emo_model *model, const emo__param *param);
/* Attaches a tokenizer found beside a model or in its file, with the model's end-of-text token; releases the caller's
 * reference. `status` and `why` are what reading it came to: one of an unsupported kind is passed over with a warning.
 */
EMO_MUST_CHECK emo_status emo__model_take_tokenizer(emo_model *model, emo_tokenizer *tokenizer, emo_status status,
                                                    const emo_error *why, const char *where, emo_error *err);

/* A reference more; replaces the one that was there. NULL: none. */
EMO_MUST_CHECK emo_status emo__model_set_tokenizer(emo_model *model, emo_tokenizer *tokenizer, emo_error *err);

/* Parameters by name, in byte order. */
typedef struct emo__named_param {
    char name[EMO__NAME_MAX];
    const emo__param *param;
} emo__named_param;
/* *out [n_params]; the caller frees it. */
EMO_MUST_CHECK emo_status emo__model_sorted(const emo_model *model, emo__named_param **out, emo_error *err);
/* NULL when the model has no such tensor. */
const emo__param *emo__model_find(const emo_model *model, const char *name);

/* ---- masks (restrict.c) ---- */

/* A mask of the model's shape with everything on that is loaded. */
EMO_MUST_CHECK emo_status emo__model_mask(const emo_model *model, emo_mask **out, emo_error *err);
/* keep[e] = 1 for the experts of a layer that a run under `mask` may use, [experts]. The mask has the model's own
 * shape, or that of the model it was pruned from (then with those ids). NULL: all that are loaded. EMO_E_MISMATCH for
 * another shape, or when an expert of the mask is not there. */
EMO_MUST_CHECK emo_status emo__model_keep(const emo_model *model, const emo_mask *mask, int32_t layer, uint8_t *keep,
                                          emo_error *err);

/* How many experts a token chooses in a layer of which `keep` [experts] is left: top-k, or what is left to choose from
 * when that is less. */
int32_t emo__choices(const emo__config *config, int32_t layer, const uint8_t *keep);
/* Layers in which a mask or a load subset leaves fewer routed experts than a token chooses: top-k is reduced there to
 * what is left. */
typedef struct emo__few_experts {
    int32_t layers; /* how many such layers */
    int32_t first;  /* the first of them */
    int32_t left;   /* and what is left there */
} emo__few_experts;
void emo__few_experts_add(emo__few_experts *few, const emo__config *config, int32_t layer, const uint8_t *keep);
/* One warning for all of them; nothing when there are none, or when the holder of the model has said it already. */
void emo__few_experts_report(const emo__few_experts *few, const emo_model *model);

#endif
