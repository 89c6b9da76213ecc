/* SPDX-License-Identifier: Apache-2.0 */
/* The layout of every public struct. A field that moves, or a struct that grows without a decision,
 * does not compile: fields are added at the end, where a hole is a named reserved field, and then this list is changed
 * with them. */
#include <float.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include <emo/emo.h>

/* What the library takes for granted of machine and compiler. Weights and token files are used where they lie in the
 * mapped file, so the machine's byte order must be theirs; -ffast-math would break NaN, infinities and the promise of
 * equal bits. */
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || UINTPTR_MAX != UINT64_MAX || CHAR_BIT != 8
#error "libemo needs a 64-bit little-endian machine"
#endif
#if defined(__FAST_MATH__) || defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "libemo cannot be built with -ffast-math or -ffinite-math-only"
#endif
_Static_assert(FLT_MANT_DIG == 24 && FLT_MAX_EXP == 128 && DBL_MANT_DIG == 53, "floats are IEEE 754");

#define SIZE(type, size) _Static_assert(sizeof(type) == (size), #type ": its size is part of the ABI")
#define AT(type, field, offset)                                                                                        \
    _Static_assert(offsetof(type, field) == (offset), #type "." #field ": its offset is part of the ABI")

SIZE(emo_error, 512);
AT(emo_error, code, 0);
AT(emo_error, domain, 4);
AT(emo_error, number, 8);
AT(emo_error, message, 16);

SIZE(emo_allocator, 24);
AT(emo_allocator, ctx, 0);
AT(emo_allocator, alloc, 8);
AT(emo_allocator, free, 16);

SIZE(emo_log_sink, 24);
AT(emo_log_sink, ctx, 0);
AT(emo_log_sink, log, 8);
AT(emo_log_sink, level, 16);
AT(emo_log_sink, reserved, 20);

SIZE(emo_progress_info, 24);
AT(emo_progress_info, phase, 0);
AT(emo_progress_info, done, 8);
AT(emo_progress_info, total, 16);

SIZE(emo_progress, 16);
AT(emo_progress, ctx, 0);
AT(emo_progress, report, 8);

SIZE(emo_executor, 24);
AT(emo_executor, ctx, 0);
AT(emo_executor, concurrency, 8);
AT(emo_executor, parallel_for, 16);

SIZE(emo_runtime_options, 88);
AT(emo_runtime_options, struct_size, 0);
AT(emo_runtime_options, threads, 4);
AT(emo_runtime_options, isa, 8);
AT(emo_runtime_options, reserved, 12);
AT(emo_runtime_options, allocator, 16);
AT(emo_runtime_options, log, 40);
AT(emo_runtime_options, executor, 64);

SIZE(emo_source_vtable, 40);
AT(emo_source_vtable, struct_size, 0);
AT(emo_source_vtable, reserved, 4);
AT(emo_source_vtable, size, 8);
AT(emo_source_vtable, read_at, 16);
AT(emo_source_vtable, map, 24);
AT(emo_source_vtable, release, 32);

SIZE(emo_tokenizer_encode_options, 32);
AT(emo_tokenizer_encode_options, struct_size, 0);
AT(emo_tokenizer_encode_options, parse_special, 4);
AT(emo_tokenizer_encode_options, add_special, 8);
AT(emo_tokenizer_encode_options, reserved, 12);
AT(emo_tokenizer_encode_options, progress, 16);

SIZE(emo_text_document, 32);
AT(emo_text_document, text, 0);
AT(emo_text_document, length, 8);
AT(emo_text_document, prompt_bytes, 16);
AT(emo_text_document, domain, 24);

SIZE(emo_decoder_options, 8);
AT(emo_decoder_options, struct_size, 0);
AT(emo_decoder_options, skip_special, 4);

SIZE(emo_text_reader, 16);
AT(emo_text_reader, ctx, 0);
AT(emo_text_reader, next, 8);

SIZE(emo_tokenizer_train_options, 56);
AT(emo_tokenizer_train_options, struct_size, 0);
AT(emo_tokenizer_train_options, vocab_size, 4);
AT(emo_tokenizer_train_options, min_frequency, 8);
AT(emo_tokenizer_train_options, max_bytes, 16);
AT(emo_tokenizer_train_options, eos, 24);
AT(emo_tokenizer_train_options, pattern, 32);
AT(emo_tokenizer_train_options, progress, 40);

SIZE(emo_dataset_options, 72);
AT(emo_dataset_options, struct_size, 0);
AT(emo_dataset_options, skip_broken, 4);
AT(emo_dataset_options, max_documents, 8);
AT(emo_dataset_options, domain, 16);
AT(emo_dataset_options, cache_dir, 24);
AT(emo_dataset_options, token_type, 32);
AT(emo_dataset_options, eos, 36);
AT(emo_dataset_options, progress, 40);
AT(emo_dataset_options, mix_root, 56);
AT(emo_dataset_options, mix_tokenizer, 64);

SIZE(emo_document, 48);
AT(emo_document, tokens, 0);
AT(emo_document, count, 8);
AT(emo_document, prompt_tokens, 16);
AT(emo_document, bytes, 24);
AT(emo_document, prompt_bytes, 32);
AT(emo_document, domain, 40);
AT(emo_document, reserved, 44);

SIZE(emo_choice_item, 48);
AT(emo_choice_item, id, 0);
AT(emo_choice_item, domain, 8);
AT(emo_choice_item, kind, 16);
AT(emo_choice_item, context, 24);
AT(emo_choice_item, choices, 32);
AT(emo_choice_item, count, 40);
AT(emo_choice_item, answer, 44);

SIZE(emo_mask_options, 48);
AT(emo_mask_options, struct_size, 0);
AT(emo_mask_options, layers, 4);
AT(emo_mask_options, experts, 8);
AT(emo_mask_options, shared, 16);
AT(emo_mask_options, always_offsets, 24);
AT(emo_mask_options, always, 32);
AT(emo_mask_options, full, 40);
AT(emo_mask_options, reserved, 44);

SIZE(emo_model_create_options, 32);
AT(emo_model_create_options, struct_size, 0);
AT(emo_model_create_options, compute, 4);
AT(emo_model_create_options, seed, 8);
AT(emo_model_create_options, progress, 16);

SIZE(emo_model_load_options, 48);
AT(emo_model_load_options, struct_size, 0);
AT(emo_model_load_options, dtype, 4);
AT(emo_model_load_options, subset, 8);
AT(emo_model_load_options, no_map, 16);
AT(emo_model_load_options, compute, 20);
AT(emo_model_load_options, progress, 24);
AT(emo_model_load_options, pruning, 40);

SIZE(emo_model_save_options, 40);
AT(emo_model_save_options, struct_size, 0);
AT(emo_model_save_options, dtype, 4);
AT(emo_model_save_options, shard_bytes, 8);
AT(emo_model_save_options, progress, 16);
AT(emo_model_save_options, extended, 32);
AT(emo_model_save_options, reserved, 36);

SIZE(emo_model_info, 104);
AT(emo_model_info, struct_size, 0);
AT(emo_model_info, layers, 4);
AT(emo_model_info, hidden, 8);
AT(emo_model_info, heads, 12);
AT(emo_model_info, kv_heads, 16);
AT(emo_model_info, head_dim, 20);
AT(emo_model_info, vocab, 24);
AT(emo_model_info, expert_inner, 28);
AT(emo_model_info, top_k, 32);
AT(emo_model_info, max_positions, 36);
AT(emo_model_info, eos, 40);
AT(emo_model_info, dtype, 44);
AT(emo_model_info, parameters, 48);
AT(emo_model_info, loaded, 56);
AT(emo_model_info, active, 64);
AT(emo_model_info, non_finite, 72);
AT(emo_model_info, embedding, 80);
AT(emo_model_info, progress, 88);

SIZE(emo_prune_options, 48);
AT(emo_prune_options, struct_size, 0);
AT(emo_prune_options, reserved, 4);
AT(emo_prune_options, method, 8);
AT(emo_prune_options, keep, 16);
AT(emo_prune_options, keep_offsets, 24);
AT(emo_prune_options, progress, 32);

SIZE(emo_merge_options, 40);
AT(emo_merge_options, struct_size, 0);
AT(emo_merge_options, router, 4);
AT(emo_merge_options, shared, 8);
AT(emo_merge_options, rest, 12);
AT(emo_merge_options, average, 16);
AT(emo_merge_options, reserved, 20);
AT(emo_merge_options, progress, 24);

SIZE(emo_router_options, 88);
AT(emo_router_options, struct_size, 0);
AT(emo_router_options, hidden, 4);
AT(emo_router_options, experts, 8);
AT(emo_router_options, shared, 12);
AT(emo_router_options, top_k, 16);
AT(emo_router_options, gating, 20);
AT(emo_router_options, shared_mode, 24);
AT(emo_router_options, norm_p, 28);
AT(emo_router_options, jitter, 32);
AT(emo_router_options, n_always, 36);
AT(emo_router_options, always, 40);
AT(emo_router_options, balance_weight, 48);
AT(emo_router_options, z_weight, 52);
AT(emo_router_options, balance_scope, 56);
AT(emo_router_options, balance_window, 60);
AT(emo_router_options, layer, 64);
AT(emo_router_options, reserved, 68);
AT(emo_router_options, seed, 72);
AT(emo_router_options, comm, 80);

SIZE(emo_router_batch, 96);
AT(emo_router_batch, struct_size, 0);
AT(emo_router_batch, mode, 4);
AT(emo_router_batch, rows, 8);
AT(emo_router_batch, seq_len, 16);
AT(emo_router_batch, x, 24);
AT(emo_router_batch, n_documents, 32);
AT(emo_router_batch, document_begin, 40);
AT(emo_router_batch, document_ids, 48);
AT(emo_router_batch, first_document, 56);
AT(emo_router_batch, step, 64);
AT(emo_router_batch, loss_div_factor, 72);
AT(emo_router_batch, microbatch, 80);
AT(emo_router_batch, microbatches, 84);
AT(emo_router_batch, first_token, 88);

SIZE(emo_routing, 160);
AT(emo_routing, struct_size, 0);
AT(emo_routing, experts, 4);
AT(emo_routing, routed, 8);
AT(emo_routing, top_k, 12);
AT(emo_routing, tokens, 16);
AT(emo_routing, documents, 24);
AT(emo_routing, serial, 32);
AT(emo_routing, indices, 40);
AT(emo_routing, weights, 48);
AT(emo_routing, logits, 56);
AT(emo_routing, logits_stride, 64);
AT(emo_routing, scores, 72);
AT(emo_routing, score_sum, 80);
AT(emo_routing, counts, 88);
AT(emo_routing, counts_all, 96);
AT(emo_routing, document_begin, 104);
AT(emo_routing, pool_size, 112);
AT(emo_routing, usage, 120);
AT(emo_routing, allowed, 128);
AT(emo_routing, balance_loss, 136);
AT(emo_routing, z_loss, 144);
AT(emo_routing, loss, 152);

SIZE(emo_stats_options, 40);
AT(emo_stats_options, struct_size, 0);
AT(emo_stats_options, easy_ep, 4);
AT(emo_stats_options, mask, 8);
AT(emo_stats_options, seq_len, 16);
AT(emo_stats_options, prepend_eos, 20);
AT(emo_stats_options, progress, 24);

SIZE(emo_select_options, 48);
AT(emo_select_options, struct_size, 0);
AT(emo_select_options, method, 4);
AT(emo_select_options, keep, 8);
AT(emo_select_options, keep_shared, 12);
AT(emo_select_options, seed, 16);
AT(emo_select_options, seq_len, 24);
AT(emo_select_options, prepend_eos, 28);
AT(emo_select_options, progress, 32);

SIZE(emo_eval_options, 48);
AT(emo_eval_options, struct_size, 0);
AT(emo_eval_options, seq_len, 4);
AT(emo_eval_options, mask, 8);
AT(emo_eval_options, pool, 16);
AT(emo_eval_options, batch_tokens, 24);
AT(emo_eval_options, reserved, 28);
AT(emo_eval_options, progress, 32);

SIZE(emo_eval_result, 48);
AT(emo_eval_result, documents, 0);
AT(emo_eval_result, tokens, 8);
AT(emo_eval_result, bytes, 16);
AT(emo_eval_result, loss_sum, 24);
AT(emo_eval_result, items, 32);
AT(emo_eval_result, correct, 40);

SIZE(emo_task_set_options, 40);
AT(emo_task_set_options, struct_size, 0);
AT(emo_task_set_options, reserved, 4);
AT(emo_task_set_options, limit, 8);
AT(emo_task_set_options, root, 16);
AT(emo_task_set_options, progress, 24);

SIZE(emo_task_info, 48);
AT(emo_task_info, name, 0);
AT(emo_task_info, type, 8);
AT(emo_task_info, metrics, 12);
AT(emo_task_info, items, 16);
AT(emo_task_info, validation, 24);
AT(emo_task_info, examples, 32);
AT(emo_task_info, most_choices, 40);
AT(emo_task_info, lower_is_better, 44);

SIZE(emo_task_group, 24);
AT(emo_task_group, name, 0);
AT(emo_task_group, members, 8);
AT(emo_task_group, count, 16);
AT(emo_task_group, by_items, 20);

SIZE(emo_task_run_options, 88);
AT(emo_task_run_options, struct_size, 0);
AT(emo_task_run_options, method, 4);
AT(emo_task_run_options, keep, 8);
AT(emo_task_run_options, n_keep, 16);
AT(emo_task_run_options, masks, 24);
AT(emo_task_run_options, n_masks, 32);
AT(emo_task_run_options, random, 40);
AT(emo_task_run_options, seq_len, 44);
AT(emo_task_run_options, examples, 48);
AT(emo_task_run_options, seed, 56);
AT(emo_task_run_options, sequences, 64);
AT(emo_task_run_options, batch_tokens, 68);
AT(emo_task_run_options, progress, 72);

SIZE(emo_task_column, 24);
AT(emo_task_column, kind, 0);
AT(emo_task_column, keep, 4);
AT(emo_task_column, mask, 8);
AT(emo_task_column, draws, 12);
AT(emo_task_column, share, 16);

SIZE(emo_task_score, 32);
AT(emo_task_score, value, 0);
AT(emo_task_score, error, 8);
AT(emo_task_score, items, 16);
AT(emo_task_score, truncated, 24);

SIZE(emo_task_item, 72);
AT(emo_task_item, source, 0);
AT(emo_task_item, line, 8);
AT(emo_task_item, choices, 16);
AT(emo_task_item, answer, 20);
AT(emo_task_item, chosen, 24);
AT(emo_task_item, truncated, 28);
AT(emo_task_item, logprobs, 32);
AT(emo_task_item, unconditional, 40);
AT(emo_task_item, tokens, 48);
AT(emo_task_item, text, 56);
AT(emo_task_item, value, 64);

SIZE(emo_budget, 16);
AT(emo_budget, ns, 0);
AT(emo_budget, steps, 8);
AT(emo_budget, tokens, 12);

SIZE(emo_session_options, 104);
AT(emo_session_options, struct_size, 0);
AT(emo_session_options, sequences, 4);
AT(emo_session_options, capacity, 8);
AT(emo_session_options, max_tokens, 12);
AT(emo_session_options, mask, 16);
AT(emo_session_options, pool, 24);
AT(emo_session_options, temperature, 32);
AT(emo_session_options, top_k, 36);
AT(emo_session_options, top_p, 40);
AT(emo_session_options, min_p, 44);
AT(emo_session_options, repetition_penalty, 48);
AT(emo_session_options, repetition_window, 52);
AT(emo_session_options, seed, 56);
AT(emo_session_options, ignore_eos, 64);
AT(emo_session_options, prepend_eos, 68);
AT(emo_session_options, stop, 72);
AT(emo_session_options, n_stop, 80);
AT(emo_session_options, progress, 88);

SIZE(emo_step_metrics, 128);
AT(emo_step_metrics, struct_size, 0);
AT(emo_step_metrics, skipped, 4);
AT(emo_step_metrics, step, 8);
AT(emo_step_metrics, steps, 16);
AT(emo_step_metrics, tokens, 24);
AT(emo_step_metrics, loss, 32);
AT(emo_step_metrics, lm_z_loss, 40);
AT(emo_step_metrics, balance_loss, 48);
AT(emo_step_metrics, router_z_loss, 56);
AT(emo_step_metrics, total_loss, 64);
AT(emo_step_metrics, grad_norm, 72);
AT(emo_step_metrics, lr, 80);
AT(emo_step_metrics, seconds, 88);
AT(emo_step_metrics, tokens_per_second, 96);
AT(emo_step_metrics, valid_loss, 104);
AT(emo_step_metrics, max_load, 112);
AT(emo_step_metrics, filtered_rows, 120);

SIZE(emo_train_profile_entry, 32);
AT(emo_train_profile_entry, struct_size, 0);
AT(emo_train_profile_entry, part, 4);
AT(emo_train_profile_entry, backward, 8);
AT(emo_train_profile_entry, reserved, 12);
AT(emo_train_profile_entry, calls, 16);
AT(emo_train_profile_entry, seconds, 24);

SIZE(emo_train_options, 256);
AT(emo_train_options, struct_size, 0);
AT(emo_train_options, schedule, 4);
AT(emo_train_options, pool, 8);
AT(emo_train_options, balance_scope, 16);
AT(emo_train_options, balance_window, 20);
AT(emo_train_options, balance_weight, 24);
AT(emo_train_options, z_weight, 28);
AT(emo_train_options, lm_z_weight, 32);
AT(emo_train_options, lr, 36);
AT(emo_train_options, beta1, 40);
AT(emo_train_options, beta2, 44);
AT(emo_train_options, eps, 48);
AT(emo_train_options, weight_decay, 52);
AT(emo_train_options, max_grad_norm, 56);
AT(emo_train_options, alpha_f, 60);
AT(emo_train_options, warmup_min_lr, 64);
AT(emo_train_options, decay_min_lr, 68);
AT(emo_train_options, warmup, 72);
AT(emo_train_options, decay, 80);
AT(emo_train_options, max_steps, 88);
AT(emo_train_options, max_tokens, 96);
AT(emo_train_options, max_minutes, 104);
AT(emo_train_options, batch_rows, 112);
AT(emo_train_options, accumulate, 116);
AT(emo_train_options, seq_len, 120);
AT(emo_train_options, train_only, 124);
AT(emo_train_options, seed, 128);
AT(emo_train_options, checkpoint_every, 136);
AT(emo_train_options, keep_checkpoints, 144);
AT(emo_train_options, reserved_2, 148);
AT(emo_train_options, valid_every, 152);
AT(emo_train_options, out, 160);
AT(emo_train_options, resume, 168);
AT(emo_train_options, profile, 172);
AT(emo_train_options, valid, 176);
AT(emo_train_options, mask, 184);
AT(emo_train_options, comm, 192);
AT(emo_train_options, progress, 200);
AT(emo_train_options, on_step_ctx, 216);
AT(emo_train_options, on_step, 224);
AT(emo_train_options, gating, 232);
AT(emo_train_options, score_bias_rate, 236);
AT(emo_train_options, jitter, 240);
AT(emo_train_options, repetition_count, 244);
AT(emo_train_options, repetition_period, 248);
AT(emo_train_options, reserved_3, 252);

SIZE(emo_export_options, 64);
AT(emo_export_options, struct_size, 0);
AT(emo_export_options, format, 4);
AT(emo_export_options, dtype, 8);
AT(emo_export_options, no_tokenizer, 12);
AT(emo_export_options, mask, 16);
AT(emo_export_options, name, 24);
AT(emo_export_options, progress, 32);
AT(emo_export_options, head, 48);
AT(emo_export_options, embedding, 52);
AT(emo_export_options, attention, 56);
AT(emo_export_options, shared, 60);

SIZE(emo_export_info, 24);
AT(emo_export_info, struct_size, 0);
AT(emo_export_info, tensors, 4);
AT(emo_export_info, fallbacks, 8);
AT(emo_export_info, reserved, 12);
AT(emo_export_info, bytes, 16);

typedef int emo__layout_is_checked; /* a translation unit needs a declaration */
