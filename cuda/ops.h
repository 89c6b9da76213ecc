/* SPDX-License-Identifier: Apache-2.0 */
/* The operators of the CUDA back end: X(entry of the table, its arguments). An operator that is not in the list is left
 * to the composed default. */
#ifndef EMO_CUDA_OPS_H
#define EMO_CUDA_OPS_H

#include "exec.h"

#define EMO_CUDA_OPERATORS(X)                                                                                          \
    X(route_forward, emo_route_args)                                                                                   \
    X(route_backward, emo_route_args)                                                                                  \
    X(plan, emo_plan_args)                                                                                             \
    X(experts_forward, emo_experts_args)                                                                               \
    X(experts_backward, emo_experts_args)                                                                              \
    X(attention_forward, emo_attention_args)                                                                           \
    X(attention_backward, emo_attention_args)                                                                          \
    X(head_loss, emo_head_args)                                                                                        \
    X(head_logits, emo_head_logits_args)                                                                               \
    X(sample, emo_sample_args)                                                                                         \
    X(embed_forward, emo_embed_args)                                                                                   \
    X(embed_backward, emo_embed_args)                                                                                  \
    X(norm_forward, emo_norm_args)                                                                                     \
    X(norm_backward, emo_norm_args)                                                                                    \
    X(linear_forward, emo_linear_args)                                                                                 \
    X(linear_backward, emo_linear_args)                                                                                \
    X(rope, emo_rope_args)                                                                                             \
    X(balance, emo_balance_args)                                                                                       \
    X(balance_documents, emo_balance_documents_args)                                                                   \
    X(swiglu_forward, emo_swiglu_args)                                                                                 \
    X(swiglu_backward, emo_swiglu_args)                                                                                \
    X(adamw, emo_adamw_args)                                                                                           \
    X(sumsq, emo_sumsq_args)                                                                                           \
    X(clip, emo_clip_args)                                                                                             \
    X(gemm, emo_gemm_args)                                                                                             \
    X(grouped_gemm, emo_grouped_gemm_args)                                                                             \
    X(gather, emo_gather_args)                                                                                         \
    X(combine, emo_combine_args)                                                                                       \
    X(softmax, emo_softmax_args)                                                                                       \
    X(elementwise, emo_elementwise_args)                                                                               \
    X(row_dot, emo_row_dot_args)                                                                                       \
    X(pick, emo_pick_args)                                                                                             \
    X(topk, emo_topk_args)                                                                                             \
    X(keep_top, emo_keep_top_args)                                                                                     \
    X(segment_ids, emo_segment_ids_args)                                                                               \
    X(segment_sum, emo_segment_sum_args)                                                                               \
    X(count, emo_count_args)

#define EMO_CUDA_DECLARE(entry, type) emo_status emo_cuda_##entry(emo_exec *exec, const type *args, emo_error *err);
EMO_CUDA_OPERATORS(EMO_CUDA_DECLARE)
#undef EMO_CUDA_DECLARE

#endif
