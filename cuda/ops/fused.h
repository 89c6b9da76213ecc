/* SPDX-License-Identifier: Apache-2.0 */
/* The operators whose kernels do the work of several primitives: X(entry of the table, its arguments). */
#ifndef EMO_CUDA_OPS_FUSED_H
#define EMO_CUDA_OPS_FUSED_H

#define EMO_CUDA_FUSED(X)                                                                                              \
    X(route_forward, emo_route_args)                                                                                   \
    X(route_backward, emo_route_args)                                                                                  \
    X(plan, emo_plan_args)                                                                                             \
    X(experts_forward, emo_experts_args)                                                                               \
    X(experts_backward, emo_experts_args)                                                                              \
    X(attention_forward, emo_attention_args)                                                                           \
    X(attention_backward, emo_attention_args)                                                                          \
    X(head_loss, emo_head_args)                                                                                        \
    X(head_logits, emo_head_logits_args)                                                                               \
    X(sample, emo_sample_args)

#endif
