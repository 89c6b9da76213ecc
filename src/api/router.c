/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/router.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/comm.h"
#include "base/options.h"
#include "base/status.h"
#include "moe/mask.h"
#include "moe/pool.h"

#define MAX_HIDDEN 1048576
#define MAX_EXPERTS 65536

static emo_status range(const char *name, int32_t value, int32_t low, int32_t high, emo_error *err) {
    if (value < low || value > high)
        return emo__fail(err, EMO_E_RANGE, "%s is %d; it must be %d to %d", name, (int)value, (int)low, (int)high);
    return EMO_OK;
}

static emo_status range_f(const char *name, float value, float low, float high, emo_error *err) {
    if (!(value >= low && value <= high))
        return emo__fail(err, EMO_E_RANGE, "%s is %g; it must be %g to %g", name, (double)value, (double)low,
                         (double)high);
    return EMO_OK;
}

static emo_status check_options(const emo_router_options *o, emo_error *err) {
    emo_status status = range("hidden", o->hidden, 1, MAX_HIDDEN, err);
    if (status == EMO_OK)
        status = range("experts", o->experts, 1, MAX_EXPERTS, err);
    if (status == EMO_OK)
        status = range("shared", o->shared, 0, o->experts - 1, err);
    if (status == EMO_OK)
        status = range("n_always", o->n_always, 0, o->shared > 0 ? 0 : o->experts - 1, err);
    if (status == EMO_OK)
        status = range("top_k", o->top_k, o->shared + o->n_always + 1, o->experts, err);
    if (status == EMO_OK)
        status = range("gating", o->gating, EMO_ROUTER_SOFTMAX,
                       o->n_always > 0 ? EMO_ROUTER_SOFTMAX : EMO_ROUTER_SIGMOID, err);
    if (status == EMO_OK)
        status = range("shared_mode", o->shared_mode, EMO_ROUTER_SHARED_ONE, EMO_ROUTER_SHARED_SOFTMAX, err);
    if (status == EMO_OK)
        status = range_f("norm_p", o->norm_p, 0.0f, 64.0f, err);
    if (status == EMO_OK)
        status = range_f("jitter", o->jitter, 0.0f, 0.999f, err);
    if (status == EMO_OK)
        status = range_f("balance_weight", o->balance_weight, 0.0f, 1e6f, err);
    if (status == EMO_OK)
        status = range_f("z_weight", o->z_weight, 0.0f, 1e6f, err);
    if (status == EMO_OK)
        status = range("balance_scope", o->balance_scope, EMO_BALANCE_MICROBATCH, EMO_BALANCE_DOCUMENT, err);
    if (status == EMO_OK)
        status = range("balance_window", o->balance_window, 1, EMO__BALANCE_MAX_WINDOW, err);
    if (status == EMO_OK)
        status = range("layer", o->layer, 0, EMO__MASK_MAX_LAYERS - 1, err);
    if (status != EMO_OK)
        return status;
    if (o->n_always > 0 && o->always == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "always is NULL with n_always %d", (int)o->n_always);
    for (int32_t i = 0; i < o->n_always; i++) {
        if (o->always[i] < (i > 0 ? o->always[i - 1] + 1 : 0) || o->always[i] >= o->experts)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "always[%d] is %d; the ids ascend from 0 and stay below %d experts", (int)i,
                             (int)o->always[i], (int)o->experts);
    }
    return EMO_OK;
}

void emo_router_release(emo_router *router) {
    if (router == NULL || !emo__ref_put(&router->ref))
        return;
    emo_runtime *rt = router->rt;
    const emo__mem *mem = &rt->mem;
    for (int i = 0; i < EMO__ROOMS; i++)
        emo__free(mem, router->rooms[i].data);
    emo__balance_destroy(router->balance);
    rt->cpu->ops->exec_destroy(router->exec);
    emo__comm_release(router->o.comm);
    emo__free(mem, router->always);
    emo__free(mem, router->w);
    emo__free(mem, router->bias);
    emo__free(mem, router);
    emo_runtime_release(rt);
}

static emo_status build(emo_router *r, emo_error *err) {
    const emo__mem *mem = &r->rt->mem;
    size_t weights = (size_t)r->o.experts * (size_t)r->o.hidden;
    r->w = emo__calloc(mem, weights, sizeof *r->w);
    r->always = emo__malloc_array(mem, (size_t)r->o.n_always + 1, sizeof *r->always);
    if (r->w == NULL || r->always == NULL)
        return emo__fail_memory(err, weights * sizeof *r->w);
    if (r->o.n_always > 0)
        memcpy(r->always, r->o.always, (size_t)r->o.n_always * sizeof *r->always);
    r->o.always = r->always;
    emo_backend *cpu = r->rt->cpu;
    emo_status status = cpu->ops->exec_create(cpu, NULL, &r->exec, err);
    if (status != EMO_OK)
        return status;
    return emo__balance_create(r->rt, cpu, 1, &r->o.experts, &r->o.shared, r->o.balance_scope, r->o.balance_window,
                               &r->balance, err);
}

emo_status emo_router_create(emo_runtime *runtime, const emo_router_options *options, emo_router **out,
                             emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (runtime == NULL || options == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "options");
    emo_router_options o = EMO_ROUTER_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_router_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o.reserved, "emo_router_options", err);
    if (status == EMO_OK)
        status = check_options(&o, err);
    if (status != EMO_OK)
        return status;
    emo_router *r = emo__calloc(&runtime->mem, 1, sizeof *r);
    if (r == NULL)
        return emo__fail_memory(err, sizeof *r);
    emo__ref_init(&r->ref);
    emo__guard_init(&r->guard);
    r->rt = emo__runtime_retain(runtime);
    r->o = o;
    r->o.comm = emo__comm_retain(o.comm);
    r->routed = o.experts - o.shared;
    r->chosen = o.top_k - o.shared - o.n_always;
    r->choose = r->chosen;
    r->columns = o.shared > 0 && o.shared_mode == EMO_ROUTER_SHARED_SOFTMAX ? o.experts : r->routed;
    status = build(r, err);
    if (status != EMO_OK) {
        emo_router_release(r);
        return status;
    }
    *out = r;
    return EMO_OK;
}

static emo_status begin(emo_router *router, emo_error *err) {
    emo__error_clear(err);
    if (router == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "router is NULL");
    if (!emo__guard_try_write(&router->guard))
        return emo__fail(err, EMO_E_BUSY, "the router is in use by another thread");
    return EMO_OK;
}

static emo_status end(emo_router *router, emo_status status) {
    emo__guard_end_write(&router->guard);
    return status;
}

emo_status emo_router_set_weights(emo_router *router, const float *weights, size_t count, emo_error *err) {
    emo_status status = begin(router, err);
    if (status != EMO_OK)
        return status;
    size_t need = (size_t)router->o.experts * (size_t)router->o.hidden;
    if (weights == NULL || count != need)
        return end(router, emo__fail(err, EMO_E_INVALID_ARGUMENT, "weights has %zu values; the router needs %zu",
                                     weights != NULL ? count : 0, need));
    memcpy(router->w, weights, need * sizeof *weights);
    return end(router, EMO_OK);
}

const float *emo_router_weights(const emo_router *router) { return router != NULL ? router->w : NULL; }

const float *emo_router_score_bias(const emo_router *router) { return router != NULL ? router->bias : NULL; }

/* A bias of zeros when there is none yet. */
static emo_status need_bias(emo_router *r, emo_error *err) {
    if (r->o.n_always > 0)
        return emo__fail(err, EMO_E_UNSUPPORTED, "a score bias together with always-active experts");
    if (r->bias == NULL)
        r->bias = emo__calloc(&r->rt->mem, (size_t)r->routed, sizeof *r->bias);
    return r->bias != NULL ? EMO_OK : emo__fail_memory(err, (size_t)r->routed * sizeof *r->bias);
}

emo_status emo_router_set_score_bias(emo_router *router, const float *bias, size_t count, emo_error *err) {
    emo_status status = begin(router, err);
    if (status != EMO_OK)
        return status;
    if (count == 0) {
        emo__free(&router->rt->mem, router->bias);
        router->bias = NULL;
        return end(router, EMO_OK);
    }
    if (bias == NULL || count != (size_t)router->routed)
        return end(router, emo__fail(err, EMO_E_INVALID_ARGUMENT, "bias has %zu values; the router needs %d",
                                     bias != NULL ? count : 0, (int)router->routed));
    status = need_bias(router, err);
    if (status == EMO_OK)
        memcpy(router->bias, bias, count * sizeof *bias);
    return end(router, status);
}

emo_status emo_router_update_score_bias(emo_router *router, float rate, emo_error *err) {
    emo_status status = begin(router, err);
    if (status != EMO_OK)
        return status;
    if (!isfinite(rate))
        status = emo__fail(err, EMO_E_RANGE, "rate is not finite");
    else if (router->args.tokens == 0)
        status = emo__fail(err, EMO_E_INVALID_ARGUMENT, "there is no forward whose counts could be used");
    else
        status = need_bias(router, err);
    if (status != EMO_OK)
        return end(router, status);
    const int64_t *counts = router->rooms[EMO__ROOM_COUNTS_ALL].data;
    const uint8_t *in = router->args.allowed_in; /* the mask's row, the same for every document */
    int64_t sum = 0;
    int64_t kept = 0;
    for (int32_t e = 0; e < router->routed; e++) {
        sum += counts[e];
        kept += in == NULL || in[e] != 0;
    }
    for (int32_t e = 0; e < router->routed; e++) {
        int64_t scaled = counts[e] * kept; /* compare with the mean without division */
        if (in != NULL && in[e] == 0)
            continue;
        router->bias[e] += scaled < sum ? rate : scaled > sum ? -rate : 0.0f;
    }
    return end(router, EMO_OK);
}

static emo_status check_batch(const emo_router *r, const emo_router_batch *b, emo_error *err) {
    int64_t tokens = 0;
    if (b->mode != EMO_ROUTER_TRAIN && b->mode != EMO_ROUTER_EVAL)
        return emo__fail(err, EMO_E_RANGE, "batch.mode is %d", (int)b->mode);
    if (b->rows < 1 || b->seq_len < 1 || !emo__mul_i64(b->rows, b->seq_len, &tokens) || tokens > INT32_MAX / r->o.top_k)
        return emo__fail(err, EMO_E_RANGE, "batch has %lld rows of %lld tokens; 1 to %lld tokens in all are possible",
                         (long long)b->rows, (long long)b->seq_len, (long long)(INT32_MAX / r->o.top_k));
    if (b->x == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "batch.x is NULL");
    if (!isfinite(b->loss_div_factor) || b->loss_div_factor < 0.0)
        return emo__fail(err, EMO_E_RANGE, "batch.loss_div_factor is %g", b->loss_div_factor);
    if (b->microbatches < 1 || b->microbatches > EMO__BALANCE_MAX_MICROBATCHES || b->microbatch < 0 ||
        b->microbatch >= b->microbatches)
        return emo__fail(err, EMO_E_RANGE, "micro-batch %d of %d", (int)b->microbatch, (int)b->microbatches);
    if (b->mode == EMO_ROUTER_TRAIN && b->microbatch > 0 &&
        (b->microbatch != r->next_microbatch || b->microbatches != r->microbatches))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "micro-batch %d of %d does not follow the last one; expected %d",
                         (int)b->microbatch, (int)b->microbatches, (int)r->next_microbatch);
    if (b->n_documents < 0 || b->n_documents > INT32_MAX)
        return emo__fail(err, EMO_E_RANGE, "batch.n_documents is %lld", (long long)b->n_documents);
    if (b->n_documents > 0 && b->document_begin == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "batch.document_begin is NULL with %lld documents",
                         (long long)b->n_documents);
    for (int64_t d = 0; b->n_documents > 0 && d <= b->n_documents; d++) {
        int64_t at = b->document_begin[d];
        int64_t before = d > 0 ? b->document_begin[d - 1] : 0;
        if (at < before || (d == 0 && at != 0) || (d == b->n_documents && at != tokens))
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "batch.document_begin[%lld] is %lld; offsets ascend from 0 to %lld", (long long)d,
                             (long long)at, (long long)tokens);
    }
    return EMO_OK;
}

emo_status emo_router_forward(emo_router *router, const emo_router_batch *batch, const emo_pool_policy *pool,
                              const emo_mask *mask, emo_routing *routing, emo_error *err) {
    emo_status status = begin(router, err);
    if (status != EMO_OK)
        return status;
    if (batch == NULL || routing == NULL)
        return end(router, emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", batch == NULL ? "batch" : "routing"));
    uint32_t size = routing->struct_size;
    if (size < sizeof size || size > 65536)
        return end(router, emo__fail(err, EMO_E_INVALID_ARGUMENT,
                                     "routing.struct_size is %u; start from EMO_ROUTING_INIT", (unsigned)size));
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    emo_routing result = EMO_ROUTING_INIT;
    status = emo__options_copy(&b, sizeof b, batch, "emo_router_batch", err);
    if (status == EMO_OK)
        status = check_batch(router, &b, err);
    emo__guard *of_pool = pool != NULL ? &((emo_pool_policy *)(uintptr_t)pool)->guard : NULL;
    emo__guard *of_mask = mask != NULL ? &((emo_mask *)(uintptr_t)mask)->guard : NULL;
    int has_pool = of_pool != NULL && emo__guard_try_read(of_pool);
    int has_mask = of_mask != NULL && emo__guard_try_read(of_mask);
    if (status == EMO_OK && ((of_pool != NULL && !has_pool) || (of_mask != NULL && !has_mask)))
        status = emo__fail(err, EMO_E_BUSY, "the %s is being changed by another thread", has_pool ? "mask" : "pool");
    if (status == EMO_OK)
        status = emo__router_forward(router, &b, pool, mask, &result, err);
    if (has_mask)
        emo__guard_end_read(of_mask);
    if (has_pool)
        emo__guard_end_read(of_pool);
    if (status == EMO_OK) {
        memcpy(routing, &result, size < sizeof result ? size : sizeof result);
        routing->struct_size = size;
    } else if (b.mode == EMO_ROUTER_TRAIN && emo_comm_size(router->o.comm) > 1) {
        emo_comm_abort(router->o.comm); /* the other ranks wait for this one's counts */
    }
    return end(router, status);
}

emo_status emo_router_backward(emo_router *router, const emo_routing *routing, const float *d_weights, float *dx,
                               float *dw, emo_error *err) {
    emo_status status = begin(router, err);
    if (status != EMO_OK)
        return status;
    if (routing == NULL)
        status = emo__fail(err, EMO_E_INVALID_ARGUMENT, "routing is NULL");
    else if (router->args.tokens == 0 || routing->serial != router->serial)
        status = emo__fail(err, EMO_E_MISMATCH, "routing is not of this router's last forward");
    else
        status = emo__router_backward(router, d_weights, dx, dw, err);
    return end(router, status);
}
