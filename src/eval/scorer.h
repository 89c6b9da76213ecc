/* SPDX-License-Identifier: Apache-2.0 */
/* Log-likelihoods of many continuations over a KV cache.
 *
 * Work goes on in lanes, each with a part of the cache and one item at a time. A lane keeps the tokens whose keys and
 * values it holds: of the next sequence only what differs from them is computed. So a context is computed once for all
 * continuations of an item, and examples that many items begin with once for a lane. */
#ifndef EMO_SRC_EVAL_SCORER_H
#define EMO_SRC_EVAL_SCORER_H

#include "infer/kv.h"
#include "model/windows.h"

#define EMO__SCORER_LANES 16
#define EMO__SCORER_TOKENS 2048

/* tokens[begin, begin + count) of an item; scored are those from place `from` (at least 1) on. */
typedef struct emo__likelihood {
    size_t begin;
    int64_t count; /* at least 2 */
    int64_t from;
    double logprob; /* the result: the sum over the scored tokens, in nats */
} emo__likelihood;

/* The sequences of one item. */
typedef struct emo__likelihoods {
    const emo__mem *mem;
    int32_t *tokens;
    size_t n_tokens;
    size_t cap_tokens;
    emo__likelihood *items;
    size_t count;
    size_t capacity;
} emo__likelihoods;

/* Where items come from and results go to. Items are made in order; they end in any order. */
typedef struct emo__score_hooks {
    void *ctx;
    emo_status (*make)(void *ctx, size_t index, emo__likelihoods *out, emo_error *err); /* into an empty one */
    emo_status (*done)(void *ctx, size_t index, const emo__likelihoods *item, emo_error *err);
} emo__score_hooks;

typedef struct emo__scorer_options {
    const emo_mask *mask;
    int64_t seq_len;      /* most inputs of a sequence */
    int32_t lanes;        /* 0: as many as a quarter of a GiB of cache gives room for, up to EMO__SCORER_LANES */
    int64_t batch_tokens; /* 0: EMO__SCORER_TOKENS */
    const emo_progress *progress;
} emo__scorer_options;

/* How many items to work on at once. */
int32_t emo__scorer_lanes(const emo_model *model, const emo__scorer_options *options, size_t count);
/* Scores items 0 to count - 1. *computed (may be NULL): the tokens that went through the model. EMO_E_NUMERIC for a sum
 * that is not finite. */
EMO_MUST_CHECK emo_status emo__score_items(emo_model *model, size_t count, const emo__score_hooks *hooks,
                                           const emo__scorer_options *options, uint64_t *computed, emo_error *err);

#endif
