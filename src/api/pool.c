/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/pool.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"

#define MAX_POOL 1048576

static emo_status create(emo_runtime *runtime, emo_pool_kind kind, int32_t min, int32_t max, emo_pool_policy **out,
                         emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (runtime == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "runtime is NULL");
    int sized = kind != EMO_POOL_NONE && kind != EMO_POOL_TABLE;
    if (sized && (min < 1 || min > MAX_POOL))
        return emo__fail(err, EMO_E_RANGE, "a pool of %d experts; it must be 1 to %d", (int)min, MAX_POOL);
    if (sized && (max < min || max > MAX_POOL))
        return emo__fail(err, EMO_E_RANGE, "the largest pool is %d; it must be %d (the smallest) to %d", (int)max,
                         (int)min, MAX_POOL);
    emo_pool_policy *policy = emo__calloc(&runtime->mem, 1, sizeof *policy);
    if (policy == NULL)
        return emo__fail_memory(err, sizeof *policy);
    emo__ref_init(&policy->ref);
    emo__guard_init(&policy->guard);
    policy->rt = emo__runtime_retain(runtime);
    policy->kind = kind;
    policy->scope = EMO_POOL_SCOPE_DOCUMENT;
    policy->min = min;
    policy->max = max;
    *out = policy;
    return EMO_OK;
}

emo_status emo_pool_policy_create_none(emo_runtime *runtime, emo_pool_policy **out, emo_error *err) {
    return create(runtime, EMO_POOL_NONE, 0, 0, out, err);
}

emo_status emo_pool_policy_create_fixed(emo_runtime *runtime, int32_t pool, emo_pool_policy **out, emo_error *err) {
    return create(runtime, EMO_POOL_FIXED, pool, pool, out, err);
}

emo_status emo_pool_policy_create_uniform(emo_runtime *runtime, int32_t min, int32_t max, emo_pool_policy **out,
                                          emo_error *err) {
    return create(runtime, EMO_POOL_UNIFORM, min, max, out, err);
}

emo_status emo_pool_policy_create_mass(emo_runtime *runtime, float mass, int32_t min, int32_t max,
                                       emo_pool_policy **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (!(mass > 0.0f && mass <= 1.0f))
        return emo__fail(err, EMO_E_RANGE, "mass is %g; it must be above 0 and at most 1", (double)mass);
    emo_status status = create(runtime, EMO_POOL_MASS, min, max, out, err);
    if (status == EMO_OK)
        (*out)->mass = mass;
    return status;
}

emo_status emo_pool_policy_create_scheduled(emo_runtime *runtime, int32_t min, int64_t decay_steps,
                                            emo_pool_policy **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (decay_steps < 1)
        return emo__fail(err, EMO_E_RANGE, "decay_steps is %lld; it must be at least 1", (long long)decay_steps);
    emo_status status = create(runtime, EMO_POOL_SCHEDULED, min, min, out, err);
    if (status == EMO_OK)
        (*out)->decay_steps = decay_steps;
    return status;
}

emo_status emo_pool_policy_create_table(emo_runtime *runtime, int32_t layers, int64_t documents, const int32_t *sizes,
                                        emo_pool_policy **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    int64_t count = 0;
    if (layers < 1 || documents < 1 || !emo__mul_i64(layers, documents, &count) || count > ((int64_t)1 << 40))
        return emo__fail(err, EMO_E_RANGE, "a table of %d layers and %lld documents", (int)layers,
                         (long long)documents);
    if (sizes == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "sizes is NULL");
    for (int64_t i = 0; i < count; i++) {
        if (sizes[i] < 1 || sizes[i] > MAX_POOL)
            return emo__fail(err, EMO_E_RANGE, "sizes[%lld] is %d; it must be 1 to %d", (long long)i, (int)sizes[i],
                             MAX_POOL);
    }
    emo_status status = create(runtime, EMO_POOL_TABLE, 0, 0, out, err);
    if (status != EMO_OK)
        return status;
    emo_pool_policy *policy = *out;
    policy->table = emo__malloc_array(&runtime->mem, (size_t)count, sizeof *sizes);
    if (policy->table == NULL) {
        emo__pool_release(policy);
        *out = NULL;
        return emo__fail_memory(err, (size_t)count * sizeof *sizes);
    }
    memcpy(policy->table, sizes, (size_t)count * sizeof *sizes);
    policy->table_layers = layers;
    policy->table_documents = documents;
    return EMO_OK;
}

emo_status emo_pool_policy_from_prompt(emo_runtime *runtime, int32_t pool, emo_pool_policy **out, emo_error *err) {
    emo_status status = create(runtime, EMO_POOL_FIXED, pool, pool, out, err);
    if (status == EMO_OK)
        (*out)->scope = EMO_POOL_SCOPE_PROMPT;
    return status;
}

void emo_pool_policy_release(emo_pool_policy *policy) { emo__pool_release(policy); }

/* ---- setters ---- */

static emo_status begin_write(emo_pool_policy *policy, emo_error *err) {
    emo__error_clear(err);
    if (policy == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "policy is NULL");
    if (!emo__guard_try_write(&policy->guard))
        return emo__fail(err, EMO_E_BUSY, "the pool policy is in use by another thread");
    return EMO_OK;
}

static emo_status set(emo_pool_policy *policy, int32_t *field, int32_t value, int32_t max, const char *name,
                      emo_error *err) {
    emo_status status = begin_write(policy, err);
    if (status != EMO_OK)
        return status;
    if (value < 0 || value > max)
        status = emo__fail(err, EMO_E_RANGE, "%s is %d; it must be 0 to %d", name, (int)value, (int)max);
    else
        *field = value;
    emo__guard_end_write(&policy->guard);
    return status;
}

emo_status emo_pool_policy_set_scope(emo_pool_policy *policy, emo_pool_scope scope, emo_error *err) {
    return set(policy, policy != NULL ? &policy->scope : NULL, scope, EMO_POOL_SCOPE_PROMPT, "scope", err);
}

emo_status emo_pool_policy_set_forced(emo_pool_policy *policy, int32_t forced, emo_error *err) {
    return set(policy, policy != NULL ? &policy->forced : NULL, forced, MAX_POOL, "forced", err);
}

emo_status emo_pool_policy_set_eval_pool(emo_pool_policy *policy, int32_t pool, emo_error *err) {
    return set(policy, policy != NULL ? &policy->eval_pool : NULL, pool, MAX_POOL, "pool", err);
}

emo_pool_kind emo_pool_policy_kind(const emo_pool_policy *policy) {
    return policy != NULL ? policy->kind : EMO_POOL_NONE;
}

emo_pool_scope emo_pool_policy_scope(const emo_pool_policy *policy) {
    return policy != NULL ? policy->scope : EMO_POOL_SCOPE_DOCUMENT;
}
