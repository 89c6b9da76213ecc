/* SPDX-License-Identifier: Apache-2.0 */
/* Experts that come and go: a model under a memory budget has fewer places for them than experts.
 *
 * A pass holds a lease. For each layer it tells the lease which experts its tokens chose, and gets them in groups, as
 * they are there: each group pinned until the pass says that its operator is done with it.
 *
 *   emo__lease_pass -> per layer { emo__lease_pool -> emo__lease_begin -> emo__lease_next, emo__lease_done ...
 *                                  -> emo__lease_end }
 */
#ifndef EMO_SRC_MODEL_EXPERT_CACHE_H
#define EMO_SRC_MODEL_EXPERT_CACHE_H

#include <stdbool.h>

#include "model/expert_places.h"
#include "model/model.h"

typedef struct emo__expert_cache emo__expert_cache;
typedef struct emo__lease emo__lease;

/* ---- the cache of a model ---- */

/* For the experts of the load subset that are neither shared nor always active. *out NULL: there are none, or no
 * budget. */
EMO_MUST_CHECK emo_status emo__expert_cache_create(emo_model *model, const emo_model_load_options *options,
                                                   emo__expert_cache **out, emo_error *err);
/* Waits for a read that is under way. */
void emo__expert_cache_destroy(emo__expert_cache *cache);
/* Whether an expert comes and goes. The cache may be NULL. */
bool emo__expert_cache_holds(const emo__expert_cache *cache, int32_t layer, int32_t expert);
/* Where a matrix of such an expert is read from (borrowed), and as what it is held. Its view gets the type. */
void emo__expert_cache_place(emo__expert_cache *cache, int32_t layer, int32_t expert, int32_t which, emo_source *source,
                             uint64_t offset, emo_dtype file, emo_dtype held);
/* When all are placed: takes the memory and starts to read on demand. EMO_E_RANGE when the budget does not hold what
 * one token chooses in a layer. */
EMO_MUST_CHECK emo_status emo__expert_cache_open(emo__expert_cache *cache, emo_error *err);
/* Whether the cache, which may be NULL, can be held on the devices of `to`. */
EMO_MUST_CHECK emo_status emo__expert_cache_can_move(const emo__expert_cache *cache, const emo_backend *to,
                                                     emo_error *err);
/* Places on another device; no lease is there. The cache, which may be NULL, goes on with them, empty, when they are
 * handed to expert_cache_moved, which closes the old ones; else expert_cache_not_moved closes them. */
EMO_MUST_CHECK emo_status emo__expert_cache_move(const emo__expert_cache *cache, emo_backend *to, emo__places *places,
                                                 emo_error *err);
void emo__expert_cache_moved(emo__expert_cache *cache, emo__places *places);
void emo__expert_cache_not_moved(const emo__expert_cache *cache, emo__places *places);
/* A matrix of an expert as it is held, beside the cache. */
EMO_MUST_CHECK emo_status emo__expert_cache_read(const emo__expert_cache *cache, int32_t layer, int32_t expert,
                                                 int32_t which, void *dst, emo_error *err);
void emo__expert_cache_stats(emo__expert_cache *cache, emo_cache_stats *out);

/* ---- of a pass ---- */

EMO_MUST_CHECK emo_status emo__lease_create(const emo_model *model, emo__lease **out, emo_error *err);
void emo__lease_destroy(emo__lease *lease);
/* A new batch. `allowed` [layers] -> [documents, routed] in host memory, or NULL: what it may use; these experts are
 * read ahead when they all fit. */
void emo__lease_pass(emo__lease *lease, const uint8_t *const *allowed, int64_t documents);
/* Room for [documents, routed] flags of a layer in host memory, for lease_pool; NULL: no memory (then leave it out). */
uint8_t *emo__lease_flags(emo__lease *lease, int64_t documents);
/* The pools chosen in a layer: its experts are read ahead. */
void emo__lease_pool(emo__lease *lease, int32_t layer, const uint8_t *allowed, int64_t documents);
/* Host memory for the plan's offsets [E + 1] of a layer, for lease_begin. */
int32_t *emo__lease_offsets(emo__lease *lease);
/* The experts with rows in the plan are wanted. `rest`: the layer goes on with other rows afterwards. */
void emo__lease_begin(emo__lease *lease, int32_t layer, bool rest);
/* The next group of them, pinned; *more false: there are none left. *whole: it is all of them. Unless it is, slots of
 * other experts have no data. The table is the lease's. On a failure the lease is as before begin. */
EMO_MUST_CHECK emo_status emo__lease_next(emo__lease *lease, emo_expert_table *table, bool *whole, bool *more,
                                          emo_error *err);
/* Between the two the exec, always the same one for a lease, works with the group's table: bring makes it known there,
 * and its experts come before what is enqueued next; used says that all that reads them is enqueued. */
EMO_MUST_CHECK emo_status emo__lease_bring(emo__lease *lease, emo_exec *exec, emo_expert_table *table, emo_error *err);
EMO_MUST_CHECK emo_status emo__lease_used(emo__lease *lease, emo_exec *exec, emo_error *err);
/* The operator is done with the group, or will be before its places are filled anew. */
void emo__lease_done(emo__lease *lease);
/* Nothing is wanted any more, and the group that was not given back is; also in the middle. */
void emo__lease_end(emo__lease *lease);

#endif
