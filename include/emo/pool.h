/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file pool.h
 * @brief Document pools: how many experts the tokens of one document may share.
 *
 * A policy says how large the pool of a document is; which experts are in it, the router decides: those with the
 * largest router probability, summed over the document (EMO, arXiv 2605.06663). Sizes count routed experts only.
 * Random sizes are a pure function of (seed, step, global document id, layer): neither threads nor ranks nor gradient
 * accumulation change them.
 *
 * Thread rule: calls that take `const emo_pool_policy *` may run concurrently. A policy is immutable apart from its
 * setters, which need exclusive use (EMO_E_BUSY otherwise) and act on later passes.
 */
#ifndef EMO_POOL_H
#define EMO_POOL_H

#include <emo/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_pool_policy emo_pool_policy;

/** Whose tokens share a pool. */
typedef int32_t emo_pool_scope;
enum {
    EMO_POOL_SCOPE_DOCUMENT = 0, /**< each document of a packed row; the default */
    EMO_POOL_SCOPE_ROW = 1,      /**< each row, whatever documents it holds */
    EMO_POOL_SCOPE_PROMPT = 2    /**< the prompt chooses, and the generated tokens keep the choice */
};

/** What kind of policy it is. */
typedef int32_t emo_pool_kind;
enum {
    EMO_POOL_NONE = 0,      /**< no pool: every expert */
    EMO_POOL_FIXED = 1,     /**< `min` experts */
    EMO_POOL_UNIFORM = 2,   /**< uniform in [min, max], both included */
    EMO_POOL_MASS = 3,      /**< by probability mass, clamped to [min, max] */
    EMO_POOL_SCHEDULED = 4, /**< from all experts down to `min` over decay_steps */
    EMO_POOL_TABLE = 5      /**< sizes given one by one */
};

/** No pool. The caller owns *out and releases it with emo_pool_policy_release(); as for all constructors below. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_create_none(emo_runtime *runtime, emo_pool_policy **out,
                                                              emo_error *err);

/** Always `pool` experts (1 to 1048576; a pool of at least the routed experts keeps all). EMO_E_RANGE otherwise. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_create_fixed(emo_runtime *runtime, int32_t pool,
                                                               emo_pool_policy **out, emo_error *err);

/** Uniform in [min, max] per document and layer (training); (min + max) / 2 rounded down in evaluation. 1 <= min <=
 * max. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_create_uniform(emo_runtime *runtime, int32_t min, int32_t max,
                                                                 emo_pool_policy **out, emo_error *err);

/**
 * Experts sorted by the document's mean probability; the pool has (number with cumulative probability < mass) + 1 of
 * them, clamped to [min, max]. 0 < mass <= 1.
 */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_create_mass(emo_runtime *runtime, float mass, int32_t min,
                                                              int32_t max, emo_pool_policy **out, emo_error *err);

/** At step s, round(n - min(1, s / decay_steps) * (n - min)) of n routed experts; `min` in evaluation. decay_steps > 0.
 */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_create_scheduled(emo_runtime *runtime, int32_t min,
                                                                   int64_t decay_steps, emo_pool_policy **out,
                                                                   emo_error *err);

/**
 * Explicit sizes, for tests and research: global document d in layer l has sizes[l * documents + d]. The sizes are
 * copied. Using a document or layer outside the table is EMO_E_RANGE then.
 */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_create_table(emo_runtime *runtime, int32_t layers, int64_t documents,
                                                               const int32_t *sizes, emo_pool_policy **out,
                                                               emo_error *err);

/** `pool` experts chosen by the prompt and kept for what is generated: a fixed policy with EMO_POOL_SCOPE_PROMPT. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_from_prompt(emo_runtime *runtime, int32_t pool, emo_pool_policy **out,
                                                              emo_error *err);

/**
 * From text: `none`, `fixed:P`, `uniform:MIN:MAX`, `mass:M:MIN:MAX`, `scheduled:MIN:STEPS`, `prompt:P` (fixed, with
 * EMO_POOL_SCOPE_PROMPT), `table:LAYERS:DOCUMENTS:SIZE:...`; behind it, in any order, what the setters set:
 * `,forced:N`,
 * `,eval:N`, `,scope:document`, `,scope:row` or `,scope:prompt`.
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT (the message lists the forms), EMO_E_RANGE, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_parse(emo_runtime *runtime, const char *text, emo_pool_policy **out,
                                                        emo_error *err);

/**
 * All of the policy as text, with a final NUL; emo_pool_policy_parse() reads the same policy back.
 * @param buffer may be NULL when capacity is 0.
 * @param size bytes needed, the NUL included.
 * @return EMO_OK, EMO_E_LIMIT (capacity > 0 and too small), EMO_E_BUSY, EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_describe(const emo_pool_policy *policy, char *buffer, size_t capacity,
                                                           size_t *size, emo_error *err);

/** Whose tokens share a pool. EMO_E_RANGE for an unknown scope. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_set_scope(emo_pool_policy *policy, emo_pool_scope scope,
                                                            emo_error *err);

/** The last `forced` routed experts are in every pool. 0 (the default) to 1048576. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_set_forced(emo_pool_policy *policy, int32_t forced, emo_error *err);

/** The pool in evaluation, instead of the policy's own rule; 0: the policy's own. */
EMO_API EMO_MUST_CHECK emo_status emo_pool_policy_set_eval_pool(emo_pool_policy *policy, int32_t pool, emo_error *err);

/** The kind; EMO_POOL_NONE for NULL. */
EMO_API emo_pool_kind emo_pool_policy_kind(const emo_pool_policy *policy);

/** The scope; EMO_POOL_SCOPE_DOCUMENT for NULL. */
EMO_API emo_pool_scope emo_pool_policy_scope(const emo_pool_policy *policy);

/** Releases the caller's reference. NULL is a no-op. */
EMO_API void emo_pool_policy_release(emo_pool_policy *policy);

#ifdef __cplusplus
}
#endif
#endif
