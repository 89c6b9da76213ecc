/* SPDX-License-Identifier: Apache-2.0 */
/* Completing a back end's table. */
#include "backend/composed.h"
#include "base/status.h"

/* Every operator: EMO__DEFAULT has a composed default, EMO__REQUIRED has none and then says what is missing. */
#define EMO__OPERATORS(DEFAULT, REQUIRED)                                                                              \
    REQUIRED(embed_forward, emo_embed_args)                                                                            \
    REQUIRED(embed_backward, emo_embed_args)                                                                           \
    DEFAULT(norm_forward, emo_norm_args)                                                                               \
    DEFAULT(norm_backward, emo_norm_args)                                                                              \
    DEFAULT(linear_forward, emo_linear_args)                                                                           \
    DEFAULT(linear_backward, emo_linear_args)                                                                          \
    REQUIRED(rope, emo_rope_args)                                                                                      \
    DEFAULT(attention_forward, emo_attention_args)                                                                     \
    DEFAULT(attention_backward, emo_attention_args)                                                                    \
    DEFAULT(route_forward, emo_route_args)                                                                             \
    DEFAULT(route_backward, emo_route_args)                                                                            \
    REQUIRED(balance, emo_balance_args)                                                                                \
    REQUIRED(balance_documents, emo_balance_documents_args)                                                            \
    REQUIRED(plan, emo_plan_args)                                                                                      \
    DEFAULT(experts_forward, emo_experts_args)                                                                         \
    DEFAULT(experts_backward, emo_experts_args)                                                                        \
    DEFAULT(swiglu_forward, emo_swiglu_args)                                                                           \
    DEFAULT(swiglu_backward, emo_swiglu_args)                                                                          \
    DEFAULT(head_loss, emo_head_args)                                                                                  \
    DEFAULT(head_logits, emo_head_logits_args)                                                                         \
    REQUIRED(adamw, emo_adamw_args)                                                                                    \
    REQUIRED(sumsq, emo_sumsq_args)                                                                                    \
    REQUIRED(clip, emo_clip_args)                                                                                      \
    REQUIRED(sample, emo_sample_args)                                                                                  \
    REQUIRED(gemm, emo_gemm_args)                                                                                      \
    REQUIRED(grouped_gemm, emo_grouped_gemm_args)                                                                      \
    REQUIRED(gather, emo_gather_args)                                                                                  \
    REQUIRED(combine, emo_combine_args)                                                                                \
    REQUIRED(softmax, emo_softmax_args)                                                                                \
    REQUIRED(elementwise, emo_elementwise_args)                                                                        \
    REQUIRED(row_dot, emo_row_dot_args)                                                                                \
    REQUIRED(pick, emo_pick_args)                                                                                      \
    REQUIRED(topk, emo_topk_args)                                                                                      \
    REQUIRED(keep_top, emo_keep_top_args)                                                                              \
    REQUIRED(segment_ids, emo_segment_ids_args)                                                                        \
    REQUIRED(segment_sum, emo_segment_sum_args)                                                                        \
    REQUIRED(count, emo_count_args)

static emo_status missing(const emo_exec *exec, const char *name, emo_error *err) {
    return emo__fail(err, EMO_E_UNSUPPORTED, "back end '%s' has no operator '%s'",
                     exec->backend->name != NULL ? exec->backend->name : "?", name);
}

#define DEFINE_NOTHING(entry, type)
#define DEFINE_MISSING(entry, type)                                                                                    \
    static emo_status missing_##entry(emo_exec *exec, const type *args, emo_error *err) {                              \
        (void)args;                                                                                                    \
        return missing(exec, #entry, err);                                                                             \
    }
EMO__OPERATORS(DEFINE_NOTHING, DEFINE_MISSING)

void emo__backend_complete(emo_backend_ops *ops) {
#define FILL_COMPOSED(entry, type)                                                                                     \
    if (ops->entry == NULL)                                                                                            \
        ops->entry = emo__composed_##entry;
#define FILL_MISSING(entry, type)                                                                                      \
    if (ops->entry == NULL)                                                                                            \
        ops->entry = missing_##entry;
    EMO__OPERATORS(FILL_COMPOSED, FILL_MISSING)
#undef FILL_COMPOSED
#undef FILL_MISSING
}
