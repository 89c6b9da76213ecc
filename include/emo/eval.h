/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file eval.h
 * @brief Measuring a model: loss per domain on documents, accuracy on multiple-choice items.
 */
#ifndef EMO_EVAL_H
#define EMO_EVAL_H

#include <emo/data.h>
#include <emo/model.h>
#include <emo/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Options of emo_eval_documents() and emo_eval_choices(). */
typedef struct emo_eval_options {
    uint32_t struct_size;
    int32_t seq_len;      /**< window in tokens; 0: the training row length stored with the model, else max_positions */
    const emo_mask *mask; /**< run-time restriction; NULL: none */
    const emo_pool_policy *pool; /**< pool chosen from each window of a document; NULL: none */
    int32_t batch_tokens;        /**< tokens per forward pass; 0: 4096 */
    int32_t reserved;            /**< 0 */
    emo_progress progress;
} emo_eval_options;
#define EMO_EVAL_OPTIONS_INIT                                                                                          \
    {                                                                                                                  \
        sizeof(emo_eval_options), 0, 0, 0, 0, 0, { 0, 0 }                                                              \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_eval_options_init(emo_eval_options *options);
#define emo_eval_options_init(object) EMO_STRUCT_INIT(emo_eval_options, object)

/** Sums over documents (or items). */
typedef struct emo_eval_result {
    int64_t documents;
    int64_t tokens;  /**< scored tokens */
    int64_t bytes;   /**< UTF-8 bytes of the texts that are scored: documents without their prompts */
    double loss_sum; /**< nats; loss = loss_sum / tokens, perplexity = exp(loss), bits per byte = loss_sum / ln 2 /
                        bytes */
    int64_t items;   /**< multiple choice */
    int64_t correct;
} emo_eval_result;

/**
 * Each document is scored as eos + text in disjoint windows of seq_len tokens: every token of the text exactly once,
 * but for those of a prompt (and the first token, where the model has no eos). A window sees nothing of the others, and
 * its result does not depend on what else is in the pass.
 * @param total        the sums; may be NULL.
 * @param per_domain   [domains of the dataset] or NULL.
 * @param per_document [count of documents] or NULL: the result of each.
 * @return EMO_E_RANGE (an option, a token id, a pool below the chosen experts), EMO_E_MISMATCH (the mask),
 *         EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_eval_documents(emo_model *model, const emo_dataset *documents,
                                                     const emo_eval_options *options, emo_eval_result *total,
                                                     emo_eval_result *per_domain, emo_eval_result *per_document,
                                                     emo_error *err);

/**
 * Each choice is scored by its log-likelihood after the context, divided by its bytes; the highest wins (ties: first).
 * Context and choice are encoded each by itself with the model's tokenizer and follow each other after eos; what is
 * longer than seq_len loses its beginning. tokens, bytes and loss_sum of the result are sums over all choices.
 * @param answers [items] or NULL: the index chosen for each item.
 * @return as above; EMO_E_INVALID_ARGUMENT (no tokenizer), EMO_E_LIMIT (a choice longer than the window, by item).
 */
EMO_API EMO_MUST_CHECK emo_status emo_eval_choices(emo_model *model, const emo_choices *items,
                                                   const emo_eval_options *options, emo_eval_result *total,
                                                   int32_t *answers, emo_error *err);

/**
 * Logits of every position of one sequence: out [n, vocab] f32, computed without a cache. seq_len is not looked at; a
 * pool is chosen from the whole sequence.
 * @return as emo_eval_documents(); EMO_E_LIMIT (n is 0 or above max_positions, or the buffer is too small).
 */
EMO_API EMO_MUST_CHECK emo_status emo_eval_logits(emo_model *model, const int32_t *tokens, size_t n,
                                                  const emo_eval_options *options, float *out, size_t capacity,
                                                  emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
