/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file export.h
 * @brief Writing models in formats of other programs.
 *
 * GGUF is read by llama.cpp and what is built on it. An EMO with one shared expert or none is, tensor for tensor, the
 * "deepseek" architecture there, a dense model the "llama" architecture; no change to those programs is needed.
 * docs/interop.md has the mapping.
 */
#ifndef EMO_EXPORT_H
#define EMO_EXPORT_H

#include <emo/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** File formats of emo_model_export(). */
typedef int32_t emo_export_format;
enum { EMO_EXPORT_GGUF = 1 };

/** Options of emo_model_export(). */
typedef struct emo_export_options {
    uint32_t struct_size;
    emo_export_format format; /**< EMO_EXPORT_GGUF */
    emo_dtype dtype;       /**< -1: as held; F32, F16, BF16, Q8_0, Q4_0 or Q4_K. Norms and routers are F32 in any case;
                              with a 4-bit type the head is Q8_0, and so is a matrix whose rows 256 does not divide */
    int32_t no_tokenizer;  /**< 1: without the tokenizer */
    const emo_mask *mask;  /**< only these experts, as emo_model_prune() keeps them; NULL: all that are loaded */
    const char *name;      /**< the model's name in the file; NULL: "emo" */
    emo_progress progress; /**< phase "export", tensors */
    emo_dtype head;      /**< type of the head instead of what `dtype` makes of it; -1: as `dtype` says. So the next */
    emo_dtype embedding; /**< the token embedding */
    emo_dtype attention; /**< the projections around attention */
    emo_dtype shared;    /**< the shared experts, which every token uses */
} emo_export_options;
#define EMO_EXPORT_OPTIONS_INIT                                                                                        \
    { sizeof(emo_export_options), EMO_EXPORT_GGUF, -1, 0, 0, 0, {0, 0}, -1, -1, -1, -1 }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_export_options_init(emo_export_options *options);
#define emo_export_options_init(object) EMO_STRUCT_INIT(emo_export_options, object)

/** What was written. The caller sets struct_size (use the INIT macro). */
typedef struct emo_export_info {
    uint32_t struct_size;
    int32_t tensors;
    int32_t fallbacks; /**< tensors in Q8_0 because their rows do not divide into the blocks that were asked for */
    int32_t reserved;
    uint64_t bytes; /**< of the file */
} emo_export_info;
#define EMO_EXPORT_INFO_INIT                                                                                           \
    { sizeof(emo_export_info), 0, 0, 0, 0 }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_export_info_init(emo_export_info *info);
#define emo_export_info_init(object) EMO_STRUCT_INIT(emo_export_info, object)

/**
 * Writes a model (or, with a mask, the smaller model of its experts) to one file, which appears when it is complete.
 * `info` may be NULL.
 * @return EMO_E_UNSUPPORTED with the reason when the format cannot say what the model is (two or more shared experts,
 *         always-active experts, layers with different numbers of experts, biases, heads * head_dim other than hidden,
 *         norm_topk_prob, a tokenizer with other rules than the format knows, rows that 32 does not divide for a
 *         quantised type, by name); EMO_E_NUMERIC (a weight that the type cannot hold, by tensor), EMO_E_MISMATCH (the
 *         mask), EMO_E_RANGE (an option), EMO_E_IO, EMO_E_CANCELLED, EMO_E_BUSY, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_model_export(const emo_model *model, const char *path,
                                                   const emo_export_options *options, emo_export_info *info,
                                                   emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
