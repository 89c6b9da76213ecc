/* SPDX-License-Identifier: Apache-2.0 */
/* The scope of the load-balancing loss: which counts, of which micro-batches and steps, weigh the scores of a
 * micro-batch. Counts live in the back end's memory and never come to the host; this keeps them and says what the
 * `balance` operator is to sum.
 *
 * With F the fraction of tokens per expert, c_m the counts of micro-batch m summed over ranks, N the loss divisor
 * summed over ranks, S_m the score sums of micro-batch m on this rank, T_m its tokens and T those of the step:
 *   microbatch: n/k * sum_e c_m[e] / N * S_m[e] / T_m
 *   batch:      n/k * sum_e F[e] * S_m[e] / T,  F = (c_0 + ... + c_m + previous step's c_{m+1} + ...) / N;
 *               without a previous step of as many micro-batches: (c_0 + ... + c_m) * M / (m + 1) / N
 *   window:     the same with the mean of F and the last N - 1 steps' counts / N
 *   document:   not from here: the `balance_documents` operator, with scale 1 / (documents of the step)
 *
 * Order of calls in a step: begin_step; for every micro-batch: each layer's route adds to counts(layer, m), the caller
 * sums them over the ranks, then args(layer, m) -> balance; end_step. */
#ifndef EMO_SRC_MOE_BALANCE_H
#define EMO_SRC_MOE_BALANCE_H

#include <emo/router.h>
#include <emo/sys/backend.h>

#include "base/runtime.h"

#define EMO__BALANCE_MAX_MICROBATCHES 4096
#define EMO__BALANCE_MAX_WINDOW 65536

typedef struct emo__balance emo__balance;

/* experts, shared: [layers], as a mask's; layers with 0 experts are dense. window: steps, for EMO_BALANCE_WINDOW. */
EMO_MUST_CHECK emo_status emo__balance_create(emo_runtime *rt, emo_backend *backend, int32_t layers,
                                              const int32_t *experts, const int32_t *shared, emo_balance_scope scope,
                                              int32_t window, emo__balance **out, emo_error *err);
void emo__balance_destroy(emo__balance *balance); /* NULL is a no-op */

/* Makes room for steps of so many micro-batches now, so that begin_step need not. */
EMO_MUST_CHECK emo_status emo__balance_reserve(emo__balance *balance, int32_t microbatches, emo_error *err);
/* Zeroes this step's counts. n_all: N over all ranks; tokens: T of this rank. A step that was begun and not ended is
 * dropped. */
EMO_MUST_CHECK emo_status emo__balance_begin_step(emo__balance *balance, emo_exec *exec, int32_t microbatches,
                                                  double n_all, double tokens, emo_error *err);

/* [E] i32 counts of a layer in a micro-batch: what emo_route_args.counts points to. NULL for a dense layer. */
int32_t *emo__balance_counts(emo__balance *balance, int32_t layer, int32_t microbatch);

/* The counts of all micro-batches of the step and all layers, one block: micro-batch by micro-batch, layer by layer. */
const int32_t *emo__balance_step_counts(const emo__balance *balance);

/* As after a whole window of steps, for counting what that takes: nothing looks at the counts. */
void emo__balance_assume_full(emo__balance *balance);

/* Fills experts, n_sources, sources, dtypes, coef and scale of a `balance` call; the arrays are valid until the next
 * call on `balance`. k: chosen per token; tokens: T_m. Not for EMO_BALANCE_DOCUMENT. */
void emo__balance_args(emo__balance *balance, int32_t layer, int32_t microbatch, int32_t k, double tokens,
                       emo_balance_args *args);

/* Keeps the step's counts for the steps to come. */
EMO_MUST_CHECK emo_status emo__balance_end_step(emo__balance *balance, emo_exec *exec, emo_error *err);

/* The state between steps as 32-bit words, for checkpoints. Importing needs the same layers, scope and window. */
size_t emo__balance_state_words(const emo__balance *balance);
EMO_MUST_CHECK emo_status emo__balance_export(const emo__balance *balance, emo_exec *exec, int32_t *words,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__balance_import(emo__balance *balance, emo_exec *exec, const int32_t *words, size_t count,
                                              emo_error *err);

#endif
