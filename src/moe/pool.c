/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/pool.h"

#include <math.h>

#include "base/status.h"
#include "tensor/philox.h"

void emo__pool_release(emo_pool_policy *policy) {
    if (policy != NULL && emo__ref_put(&policy->ref)) {
        emo_runtime *rt = policy->rt;
        emo__free(&rt->mem, policy->table);
        emo__free(&rt->mem, policy);
        emo_runtime_release(rt);
    }
}

/* round(n - min(1, s / decay) * (n - min)), never below min; halves to even, whatever the rounding mode */
static int32_t scheduled(const emo_pool_policy *policy, const emo__pool_request *r) {
    if (policy->min >= r->routed)
        return policy->min;
    double part = (double)r->step / (double)policy->decay_steps;
    part = part > 1.0 ? 1.0 : part;
    double exact = (double)r->routed - part * (double)(r->routed - policy->min);
    double whole = floor(exact);
    double rest = exact - whole;
    int32_t size = (int32_t)whole;
    size += rest > 0.5 || (rest == 0.5 && size % 2 != 0);
    return size < policy->min ? policy->min : size;
}

/* The size for a document, before forced experts; -1: outside the table. */
static int32_t size_of(const emo_pool_policy *policy, const emo__pool_request *r, int64_t id) {
    if (!r->training && policy->eval_pool > 0)
        return policy->eval_pool;
    switch (policy->kind) {
    case EMO_POOL_FIXED:
        return policy->min;
    case EMO_POOL_UNIFORM: {
        if (!r->training)
            return (int32_t)(((int64_t)policy->min + policy->max) / 2);
        emo__philox draw = emo__philox_draw(r->seed, EMO__RNG_POOL, r->step, (uint64_t)id, (uint32_t)r->layer);
        uint64_t count = (uint64_t)(policy->max - policy->min) + 1;
        return policy->min + (int32_t)emo__uniform_below(draw.v[0], draw.v[1], count);
    }
    case EMO_POOL_SCHEDULED:
        return r->training ? scheduled(policy, r) : policy->min;
    case EMO_POOL_TABLE:
        if (r->layer < 0 || r->layer >= policy->table_layers || id < 0 || id >= policy->table_documents)
            return -1;
        return policy->table[(int64_t)r->layer * policy->table_documents + id];
    default:
        return r->routed;
    }
}

static emo_status too_small(int32_t size, const emo__pool_request *r, emo_error *err) {
    return emo__fail(err, EMO_E_RANGE, "a pool of %d experts is smaller than the %d that each token chooses", (int)size,
                     (int)r->chosen);
}

static emo_status sizes_of(const emo_pool_policy *policy, const emo__pool_request *request, int32_t *sizes,
                           emo__pool_rule *rule, emo_error *err) {
    const emo__pool_request *r = request;
    *rule = (emo__pool_rule){0, 0.0f, 0, 0, 0};
    int eval_pool = policy != NULL && !r->training && policy->eval_pool > 0;
    if (policy == NULL || (policy->kind == EMO_POOL_NONE && !eval_pool)) {
        for (int64_t d = 0; d < r->documents; d++)
            sizes[d] = r->routed;
        return EMO_OK;
    }
    rule->forced = policy->forced < r->routed ? policy->forced : r->routed;
    if (policy->kind == EMO_POOL_MASS && !eval_pool) {
        int32_t least = policy->min > rule->forced ? policy->min : rule->forced;
        if (least < r->chosen)
            return too_small(least, r, err);
        rule->restricts = 1;
        rule->mass = policy->mass;
        rule->min = policy->min;
        rule->max = policy->max;
        for (int64_t d = 0; d < r->documents; d++)
            sizes[d] = 0;
        return EMO_OK;
    }
    for (int64_t d = 0; d < r->documents; d++) {
        int64_t id = r->ids != NULL ? r->ids[d] : r->first_id + d;
        int32_t size = size_of(policy, r, id);
        if (size < 0)
            return emo__fail(
                err, EMO_E_RANGE, "document %lld of layer %d is outside the pool table of %lld documents and %d layers",
                (long long)id, (int)r->layer, (long long)policy->table_documents, (int)policy->table_layers);
        int32_t held = size > rule->forced ? size : rule->forced;
        if (held < r->chosen)
            return too_small(held, r, err);
        rule->restricts |= size < r->routed;
        sizes[d] = size;
    }
    return EMO_OK;
}

emo_status emo__pool_sizes(const emo_pool_policy *policy, const emo__pool_request *request, int32_t *sizes,
                           emo__pool_rule *rule, emo_error *err) {
    if (policy == NULL)
        return sizes_of(policy, request, sizes, rule, err);
    emo__guard *guard = (emo__guard *)(uintptr_t)&policy->guard;
    if (!emo__guard_try_read(guard))
        return emo__fail(err, EMO_E_BUSY, "the pool policy is being changed by another thread");
    emo_status status = sizes_of(policy, request, sizes, rule, err);
    emo__guard_end_read(guard);
    return status;
}
