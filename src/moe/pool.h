/* SPDX-License-Identifier: Apache-2.0 */
/* Pool policies as the inside sees them: sizes for the documents of one layer. */
#ifndef EMO_SRC_MOE_POOL_H
#define EMO_SRC_MOE_POOL_H

#include <emo/pool.h>

#include "base/memory.h"
#include "base/runtime.h"

struct emo_pool_policy {
    emo__ref ref;
    emo__guard guard;
    emo_runtime *rt;
    emo_pool_kind kind;
    emo_pool_scope scope;
    int32_t min;
    int32_t max;
    float mass;
    int64_t decay_steps;
    int32_t forced;
    int32_t eval_pool;
    int32_t table_layers;
    int64_t table_documents;
    int32_t *table; /* [table_layers, table_documents] */
};

static inline emo_pool_policy *emo__pool_retain(emo_pool_policy *policy) {
    if (policy != NULL)
        emo__ref_get(&policy->ref);
    return policy;
}
void emo__pool_release(emo_pool_policy *policy); /* NULL is a no-op */

/* Appends the policy as text, with a final NUL (pool_text.c). EMO_E_BUSY. */
EMO_MUST_CHECK emo_status emo__pool_describe(const emo_pool_policy *policy, emo__buf *out, emo_error *err);
/* The same rule for the sizes of pools in training; scope and forced experts are not looked at. */
bool emo__pool_trains_alike(const emo_pool_policy *a, const emo_pool_policy *b);

typedef struct emo__pool_request {
    uint64_t seed;
    uint64_t step;
    int32_t layer;  /* key of the draws; row of a table */
    int32_t routed; /* n */
    int32_t chosen; /* k: smaller pools are refused */
    int32_t training;
    int64_t documents;
    const int64_t *ids; /* [documents] global document ids; NULL: first_id + i */
    int64_t first_id;
} emo__pool_request;

/* What goes into emo_route_args: without `restricts` no pool at all; mass > 0: by mass; else the sizes. */
typedef struct emo__pool_rule {
    int32_t restricts;
    float mass;
    int32_t min;
    int32_t max;
    int32_t forced;
} emo__pool_rule;

/* Fills sizes[documents] (n where nothing is left out, 0 when by mass). policy NULL: none. A pure function of its
 * arguments. EMO_E_RANGE: a pool smaller than k, or a document or layer outside the table. */
EMO_MUST_CHECK emo_status emo__pool_sizes(const emo_pool_policy *policy, const emo__pool_request *request,
                                          int32_t *sizes, emo__pool_rule *rule, emo_error *err);

#endif
