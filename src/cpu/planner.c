/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU's planner: memory is addresses that nobody looks at. An operator that needs scratch is entered, gets none and
 * leaves with EMO_E_OUT_OF_MEMORY; what it asked for was noted. Arrays that it reads before that are given to it. */
#include <string.h>

#include "base/status.h"
#include "cpu/cpu.h"

#define BASE ((uint64_t)1 << 40) /* of the addresses; the first page is never one */

static emo__cpu_backend *of(emo_backend *backend) { return (emo__cpu_backend *)backend; }

/* Nothing is given back: what a trainer frees while it is made counts as held. */
static emo_status mem_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err) {
    (void)err;
    *out = (void *)(uintptr_t)(BASE + of(backend)->planned);
    of(backend)->planned += ((uint64_t)bytes + EMO__ALIGN - 1) / EMO__ALIGN * EMO__ALIGN;
    return EMO_OK;
}

static void mem_free(emo_backend *backend, void *ptr) {
    (void)backend;
    (void)ptr;
}

static emo_status move(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    (void)exec;
    (void)dst;
    (void)src;
    (void)bytes;
    (void)err;
    return EMO_OK;
}

static emo_status download(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    (void)exec;
    (void)src;
    (void)err;
    if (bytes > 0)
        memset(dst, 0, bytes);
    return EMO_OK;
}

static emo_status zero(emo_exec *exec, void *dst, size_t bytes, emo_error *err) {
    return move(exec, dst, NULL, bytes, err);
}

/* Both regions, as large as they have become. */
static emo_status exec_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    void *unused;
    (void)bytes;
    return mem_alloc(exec->backend, emo__cpu(exec)->scratch_size + emo__cpu(exec)->outer_size, &unused, err);
}

static size_t exec_scratch(emo_exec *exec) {
    size_t taken = emo__cpu(exec)->taken;
    emo__cpu(exec)->taken = 0;
    return taken;
}

static emo_status memory(emo_backend *backend, emo_backend_memory *out, emo_error *err) {
    (void)err;
    out->live_bytes = of(backend)->planned;
    return EMO_OK;
}

/* ---- operators ---- */

static const emo_backend_ops *real(const emo_exec *exec) { return emo__cpu((emo_exec *)(uintptr_t)exec)->rt->cpu->ops; }

/* The status of an operator that was entered for its scratch alone. */
static emo_status noted(emo_status status) { return status == EMO_E_OUT_OF_MEMORY ? EMO_OK : status; }

#define NOTHING(entry, type)                                                                                           \
    static emo_status entry(emo_exec *exec, const type *args, emo_error *err) {                                        \
        (void)exec;                                                                                                    \
        (void)args;                                                                                                    \
        (void)err;                                                                                                     \
        return EMO_OK;                                                                                                 \
    }
#define ENTERED(entry, type)                                                                                           \
    static emo_status entry(emo_exec *exec, const type *args, emo_error *err) {                                        \
        (void)err; /* out of memory is not what the caller is to hear */                                               \
        return noted(real(exec)->entry(exec, args, NULL));                                                             \
    }
NOTHING(embed_forward, emo_embed_args)
NOTHING(embed_backward, emo_embed_args)
NOTHING(rope, emo_rope_args)
NOTHING(balance, emo_balance_args)
NOTHING(swiglu_forward, emo_swiglu_args)
NOTHING(swiglu_backward, emo_swiglu_args)
NOTHING(adamw, emo_adamw_args)
NOTHING(clip, emo_clip_args)
ENTERED(norm_forward, emo_norm_args)
ENTERED(norm_backward, emo_norm_args)
ENTERED(linear_forward, emo_linear_args)
ENTERED(linear_backward, emo_linear_args)
ENTERED(attention_forward, emo_attention_args)
ENTERED(attention_backward, emo_attention_args)
ENTERED(balance_documents, emo_balance_documents_args)
ENTERED(plan, emo_plan_args)
ENTERED(sumsq, emo_sumsq_args)

/* Rows that a router multiplies with noise are copies, one of x and one of dx. */
static void note_noise(emo_exec *exec, const emo_route_args *a, int copies) {
    size_t bytes = (size_t)copies * ((size_t)a->tokens + 1) * (size_t)a->hidden * sizeof(float);
    emo__cpu_exec *cpu = emo__cpu(exec);
    if (!(a->jitter > 0.0f))
        return;
    cpu->outer_size = bytes > cpu->outer_size ? bytes : cpu->outer_size;
    cpu->taken = bytes > cpu->taken ? bytes : cpu->taken;
}

/* Segments of a row each: the most pieces there can be. */
static emo_status route_forward(emo_exec *exec, const emo_route_args *args, emo_error *err) {
    const emo__mem *mem = &emo__cpu(exec)->rt->mem;
    emo_route_args a = *args;
    int32_t *begin = emo__malloc_array(mem, (size_t)a.n_segments + 1, sizeof *begin);
    if (begin == NULL)
        return emo__fail_memory(err, ((size_t)a.n_segments + 1) * sizeof *begin);
    for (int64_t i = 0; i <= a.n_segments; i++)
        begin[i] = (int32_t)(i == a.n_segments ? a.tokens : i);
    a.segment_begin = begin;
    a.jitter = 0.0f;
    note_noise(exec, args, 1);
    emo_status status = EMO_OK;
    for (int32_t phase = EMO_ROUTE_LOGITS; status == EMO_OK && phase <= EMO_ROUTE_SELECT; phase *= 2) {
        a.phases = args->phases & phase;
        status = noted(real(exec)->route_forward(exec, &a, NULL));
    }
    emo__free(mem, begin);
    return status;
}

static emo_status route_backward(emo_exec *exec, const emo_route_args *args, emo_error *err) {
    (void)err;
    note_noise(exec, args, 2);
    return noted(real(exec)->route_backward(exec, args, NULL));
}

static emo_status experts(emo_exec *exec, const emo_experts_args *args, int backward, emo_error *err) {
    const emo__mem *mem = &emo__cpu(exec)->rt->mem;
    emo_experts_args a = *args;
    int64_t all = a.tokens * a.k_total;
    int32_t *offsets = emo__malloc_array(mem, (size_t)a.experts + 1, sizeof *offsets);
    if (offsets == NULL)
        return emo__fail_memory(err, ((size_t)a.experts + 1) * sizeof *offsets);
    emo_status status = EMO_OK;
    for (int spread = 0; status == EMO_OK && spread < 2; spread++) { /* all with the first expert; evenly shared out */
        for (int32_t e = 0; e <= a.experts; e++)
            offsets[e] = (int32_t)(spread != 0 ? all * e / a.experts : e > 0 ? all : 0);
        a.offsets = offsets;
        status = noted(backward != 0 ? real(exec)->experts_backward(exec, &a, NULL)
                                     : real(exec)->experts_forward(exec, &a, NULL));
    }
    emo__free(mem, offsets);
    return status;
}

static emo_status experts_forward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    return experts(exec, args, 0, err);
}

static emo_status experts_backward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    return experts(exec, args, 1, err);
}

static emo_status head_loss(emo_exec *exec, const emo_head_args *args, emo_error *err) {
    const emo__mem *mem = &emo__cpu(exec)->rt->mem;
    emo_head_args a = *args;
    int32_t *labels = emo__calloc(mem, (size_t)a.tokens, sizeof *labels);
    if (labels == NULL)
        return emo__fail_memory(err, (size_t)a.tokens * sizeof *labels);
    a.labels = labels;
    emo_status status = noted(real(exec)->head_loss(exec, &a, NULL));
    emo__free(mem, labels);
    return status;
}

emo_status emo__cpu_planner(emo_backend *backend, emo_backend **out, emo_error *err) {
    const emo_runtime *rt = of(backend)->rt;
    emo__cpu_backend *cpu = emo__calloc(&rt->mem, 1, sizeof *cpu);
    *out = NULL;
    if (cpu == NULL)
        return emo__fail_memory(err, sizeof *cpu);
    cpu->rt = rt;
    cpu->planning = true;
    cpu->base.ops = &cpu->ops;
    emo_backend_ops *ops = &cpu->ops;
    const emo_backend_ops *own = rt->cpu->ops;
    ops->struct_size = sizeof *ops;
    ops->abi = EMO_BACKEND_ABI;
    ops->destroy = own->destroy;
    ops->supports = own->supports;
    ops->synchronize = own->synchronize;
    ops->exec_create = own->exec_create;
    ops->exec_destroy = own->exec_destroy;
    ops->table_sync = own->table_sync;
    ops->table_free = own->table_free;
    ops->mem_alloc = mem_alloc;
    ops->mem_free = mem_free;
    ops->upload = move;
    ops->download = download;
    ops->copy = move;
    ops->zero = zero;
    ops->exec_reserve = exec_reserve;
    ops->memory = memory;
    ops->exec_scratch = exec_scratch;
#define PUT(entry) ops->entry = entry;
    PUT(embed_forward)
    PUT(embed_backward)
    PUT(norm_forward)
    PUT(norm_backward)
    PUT(linear_forward)
    PUT(linear_backward)
    PUT(rope)
    PUT(attention_forward)
    PUT(attention_backward)
    PUT(route_forward)
    PUT(route_backward)
    PUT(balance)
    PUT(balance_documents)
    PUT(plan)
    PUT(experts_forward)
    PUT(experts_backward)
    PUT(swiglu_forward)
    PUT(swiglu_backward)
    PUT(head_loss)
    PUT(adamw)
    PUT(sumsq)
    PUT(clip)
#undef PUT
    *out = &cpu->base;
    return EMO_OK;
}
