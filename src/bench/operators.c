/* SPDX-License-Identifier: Apache-2.0 */
/* Operands of every operator that can be timed, in the memory of any device. Making them goes on after a failure, with
 * NULLs, and bench->status keeps the first one. */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "bench/bench.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

enum { RANDOM = 1 << 18, FEW_TOKENS = 8, POOL_TOKENS = 64 };
#define APART ((int64_t)256 << 20) /* bytes of weights that calls of few tokens go through before they meet again */

typedef struct maker {
    emo_bench *b;
    emo_error *err;
    char *staged; /* host: RANDOM numbers as `staged_dtype` */
    emo_dtype staged_dtype;
} maker;

/* ---- memory of the device ---- */

static void *room(maker *m, int64_t count, size_t item) {
    emo_bench *b = m->b;
    void *p = NULL;
    size_t bytes = 0;
    if (b->status != EMO_OK)
        return NULL;
    if (count < 0 || !emo__mul_size((size_t)count, item, &bytes) || b->n_blocks == EMO__BENCH_BLOCKS) {
        b->status = emo__fail(m->err, EMO_E_RANGE, "the shape is too large");
        return NULL;
    }
    b->status = b->ops->mem_alloc(b->backend, bytes > 0 ? bytes : 1, &p, m->err);
    if (b->status == EMO_OK)
        b->blocks[b->n_blocks++] = p;
    return p;
}

static void upload(maker *m, void *dst, const void *src, size_t bytes) {
    if (m->b->status == EMO_OK)
        m->b->status = m->b->ops->upload(m->b->exec, dst, src, bytes, m->err);
}

static void *zeros(maker *m, int64_t count, size_t item) {
    void *p = room(m, count, item);
    if (m->b->status == EMO_OK)
        m->b->status = m->b->ops->zero(m->b->exec, p, (size_t)count * item, m->err);
    return p;
}

/* Numbers in [-0.05, 0.05) of a type, one run of RANDOM after the other. */
static void fill(maker *m, void *dst, int64_t count, emo_dtype dtype) {
    emo_bench *b = m->b;
    if (b->status != EMO_OK)
        return;
    if (m->staged_dtype != dtype) {
        if (emo__dtype_quantised(dtype))
            (void)emo__quantise(m->staged, dtype, b->random, RANDOM);
        else
            (void)emo__convert(m->staged, dtype, b->random, EMO_DTYPE_F32, RANDOM);
        m->staged_dtype = dtype;
    }
    for (int64_t at = 0; b->status == EMO_OK && at < count; at += RANDOM)
        upload(m, (char *)dst + emo__dtype_run(dtype, at), m->staged,
               emo__dtype_run(dtype, count - at < RANDOM ? count - at : RANDOM));
}

static float *floats(maker *m, int64_t count) {
    float *p = room(m, count, sizeof *p);
    fill(m, p, count, EMO_DTYPE_F32);
    return p;
}

static int64_t weight_bytes(const emo_bench *b, int64_t count) { return (int64_t)emo__dtype_run(b->o.weights, count); }

static emo_weight view(const void *data, emo_dtype dtype, int64_t rows, int64_t cols) {
    return (emo_weight){.data = data, .dtype = dtype, .rows = rows, .cols = cols, .stride = cols};
}

static emo_weight weight(maker *m, int64_t rows, int64_t cols) {
    emo_dtype dtype = m->b->o.weights;
    void *data = room(m, weight_bytes(m->b, rows * cols), 1);
    fill(m, data, rows * cols, dtype);
    return view(data, dtype, rows, cols);
}

/* Whole numbers at(i), uploaded. */
static int32_t *numbers(maker *m, int64_t count, int32_t (*at)(const emo_bench *b, int64_t i)) {
    int32_t *dst = room(m, count, sizeof *dst), *src = emo__malloc_array(&m->b->rt->mem, (size_t)count, sizeof *src);
    if (src == NULL && m->b->status == EMO_OK)
        m->b->status = emo__fail_memory(m->err, (size_t)count * sizeof *src);
    for (int64_t i = 0; src != NULL && i < count; i++)
        src[i] = at(m->b, i);
    if (src != NULL)
        upload(m, dst, src, (size_t)count * sizeof *src);
    emo__free(&m->b->rt->mem, src);
    return dst;
}

/* ---- what the numbers are ---- */

static int64_t documents(const emo_bench *b) { return (b->o.tokens + b->o.document - 1) / b->o.document; }
static int64_t document_begin(const emo_bench *b, int64_t i) {
    return i * b->o.document < b->o.tokens ? i * b->o.document : b->o.tokens;
}
static int32_t token_id(const emo_bench *b, int64_t i) { return (int32_t)(i * 7919 % b->o.vocab); }
static int32_t position(const emo_bench *b, int64_t i) { return (int32_t)(i % b->o.document); }
static int32_t begin_of(const emo_bench *b, int64_t i) { return (int32_t)document_begin(b, i); }
static int32_t pool_of(const emo_bench *b, int64_t i) {
    (void)i;
    int32_t routed = b->o.experts - 1, pool = routed / 4;
    return pool < b->o.top_k - 1 ? b->o.top_k - 1 : pool > 0 ? pool : 1;
}
/* Expert j of a token: the shared one last, the others apart and moving on with the token. */
static int32_t chosen(const emo_bench *b, int64_t i) {
    int32_t k = b->o.top_k, routed = b->o.experts - 1, j = (int32_t)(i % k);
    int64_t t = i / k + b->turn; /* `turn`: which variant is being made */
    return j == k - 1 ? routed : (int32_t)((t * 7 + t / 5 + (int64_t)j * (routed / (k - 1))) % routed);
}

/* ---- operators ---- */

static void work(emo_bench *b, double operations, double bytes) {
    b->operations = operations;
    b->bytes = bytes;
}

/* How many weights of so many bytes calls use by turns. */
static int32_t variants_of(const emo_bench *b, int64_t bytes) {
    int64_t n = b->o.tokens > FEW_TOKENS ? 1 : (APART + bytes - 1) / bytes;
    return (int32_t)(n > EMO__BENCH_VARIANTS ? EMO__BENCH_VARIANTS : n);
}

static void make_rows(maker *m) { /* embed, norm, rope, swiglu, adamw, sumsq */
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int64_t n = o->tokens * o->hidden, wide = o->tokens * o->inner;
    double x = (double)n, w = (double)wide, item = (double)weight_bytes(b, 256) / 256;
    if (o->kind == EMO_BENCH_EMBED) {
        b->args.embed = (emo_embed_args){.tokens = o->tokens,
                                         .hidden = o->hidden,
                                         .ids = numbers(m, o->tokens, token_id),
                                         .weight = weight(m, o->vocab, o->hidden),
                                         .out = floats(m, n)};
        if (o->backward) {
            b->args.embed.d_out = b->args.embed.out;
            b->args.embed.d_weight = floats(m, o->vocab * o->hidden);
        }
        work(b, o->backward ? x : 0.0, o->backward ? 12 * x : (4 + item) * x);
    } else if (o->kind == EMO_BENCH_NORM) {
        b->args.norm = (emo_norm_args){.tokens = o->tokens,
                                       .hidden = o->hidden,
                                       .eps = 1e-5f,
                                       .x = floats(m, n),
                                       .weight = weight(m, 1, o->hidden),
                                       .y = floats(m, n),
                                       .rstd = floats(m, o->tokens)};
        if (o->backward) {
            b->args.norm.dy = b->args.norm.y;
            b->args.norm.dx = floats(m, n);
            b->args.norm.d_weight = floats(m, o->hidden);
        }
        work(b, o->backward ? 10 * x : 4 * x, o->backward ? 12 * x : 8 * x);
    } else if (o->kind == EMO_BENCH_ROPE) {
        int64_t half = o->hidden / o->heads / 2;
        b->args.rope = (emo_rope_args){.tokens = o->tokens,
                                       .heads = o->heads,
                                       .head_dim = (int32_t)(2 * half),
                                       .stride = o->hidden,
                                       .positions = numbers(m, o->tokens, position),
                                       .cos = floats(m, o->document * half),
                                       .sin = floats(m, o->document * half),
                                       .x = floats(m, n)};
        work(b, 3 * x, 8 * x);
    } else if (o->kind == EMO_BENCH_SWIGLU) {
        b->args.swiglu = (emo_swiglu_args){.tokens = o->tokens,
                                           .inner = o->inner,
                                           .gate = floats(m, wide),
                                           .up = floats(m, wide),
                                           .stride = o->inner,
                                           .y = floats(m, wide)};
        if (o->backward) {
            b->args.swiglu.dy = b->args.swiglu.y;
            b->args.swiglu.d_gate = floats(m, wide);
            b->args.swiglu.d_up = floats(m, wide);
        }
        work(b, o->backward ? 10 * w : 5 * w, o->backward ? 20 * w : 12 * w);
    } else if (o->kind == EMO_BENCH_ADAMW) {
        emo_step_scalars s = {.lr = 1e-4f, .bias1 = 0.1f, .bias2 = 0.1f, .clip_scale = 1.0f};
        emo_step_scalars *scalars = room(m, 1, sizeof s);
        upload(m, scalars, &s, sizeof s);
        b->args.adamw = (emo_adamw_args){n,    floats(m, n), floats(m, n), floats(m, n), zeros(m, n, 4),
                                         0.9f, 0.95f,        1e-8f,        0.1f,         scalars};
        work(b, 12 * x, 28 * x);
    } else {
        b->args.sumsq = (emo_sumsq_args){n, floats(m, n), zeros(m, 1, sizeof(double))};
        work(b, 2 * x, 4 * x);
    }
}

static void make_linear(maker *m) {
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int64_t in = o->tokens * o->hidden, out = o->tokens * o->inner, matrix = o->inner * o->hidden;
    emo_linear_args *a = &b->args.linear;
    *a = (emo_linear_args){
        .tokens = o->tokens, .x = floats(m, in), .x_stride = o->hidden, .y = floats(m, out), .y_stride = o->inner};
    b->variants = o->backward ? 1 : variants_of(b, weight_bytes(b, matrix));
    for (int32_t v = 0; v < b->variants; v++) {
        a->weight = weight(m, o->inner, o->hidden);
        b->weights[v] = a->weight.data;
    }
    double w = (double)weight_bytes(b, matrix), product = 2.0 * (double)in * (double)o->inner;
    if (o->backward) {
        a->dy = a->y;
        a->dx = floats(m, in);
        a->d_weight = floats(m, matrix);
        work(b, 2 * product, 8.0 * (double)in + 4.0 * (double)out + w + 8.0 * (double)matrix);
    } else {
        work(b, product, 4.0 * (double)(in + out) + w);
    }
}

static void make_attention(maker *m) {
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int64_t count = o->past > 0 ? 1 : documents(b), rows = o->tokens, keys = o->tokens + o->past;
    b->segments = emo__calloc(&b->rt->mem, (size_t)count, sizeof *b->segments);
    if (b->segments == NULL) {
        b->status = emo__fail_memory(m->err, (size_t)count * sizeof *b->segments);
        return;
    }
    double pairs = 0;
    for (int64_t i = 0; i < count; i++) {
        int64_t begin = o->past > 0 ? 0 : document_begin(b, i), end = o->past > 0 ? rows : document_begin(b, i + 1);
        b->segments[i] = (emo_attention_segment){begin, end - begin, begin, end - begin + o->past};
        pairs += (double)(end - begin) * ((double)o->past + (double)(end - begin + 1) / 2.0);
    }
    emo_attention_args *a = &b->args.attention;
    *a = (emo_attention_args){.n_segments = count,
                              .segments = b->segments,
                              .q_last = rows,
                              .heads = o->heads,
                              .kv_heads = o->heads,
                              .head_dim = (int32_t)(o->hidden / o->heads),
                              .scale = 0.1f,
                              .q = floats(m, rows * o->hidden),
                              .k = floats(m, keys * o->hidden),
                              .v = floats(m, keys * o->hidden),
                              .o = floats(m, rows * o->hidden)};
    a->q_stride = a->kv_stride = a->o_stride = o->hidden;
    double hidden = (double)o->hidden;
    if (o->backward) {
        a->lse = floats(m, rows * o->heads);
        a->d_o = floats(m, rows * o->hidden);
        a->dq = floats(m, rows * o->hidden);
        a->dk = floats(m, keys * o->hidden);
        a->dv = floats(m, keys * o->hidden);
        if (b->status == EMO_OK)
            b->status = b->ops->attention_forward(b->exec, a, m->err);
        work(b, 10.0 * pairs * hidden, 16.0 * hidden * (double)(rows + keys));
    } else {
        work(b, 4.0 * pairs * hidden, 8.0 * hidden * (double)(rows + keys));
    }
}

static void make_route(maker *m) {
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int32_t routed = o->experts - 1;
    int64_t n = o->tokens * o->hidden, each = o->tokens * routed, all = o->tokens * o->top_k;
    emo_route_args *a = &b->args.route;
    *a = (emo_route_args){.tokens = o->tokens,
                          .hidden = o->hidden,
                          .experts = routed,
                          .shared = 1,
                          .k = o->top_k - 1,
                          .columns = routed,
                          .phases = EMO_ROUTE_LOGITS | EMO_ROUTE_POOL | EMO_ROUTE_SELECT,
                          .last = o->tokens,
                          .x = floats(m, n),
                          .weight = weight(m, o->experts, o->hidden),
                          .n_segments = documents(b),
                          .segment_begin = numbers(m, documents(b) + 1, begin_of),
                          .logits = floats(m, each),
                          .allowed = zeros(m, documents(b) * routed, 1),
                          .indices = zeros(m, all, sizeof(int32_t)),
                          .weights = floats(m, all)};
    if (o->tokens >= POOL_TOKENS) {
        a->pool_size = numbers(m, documents(b), pool_of);
        a->usage = floats(m, documents(b) * routed);
    }
    double product = 2.0 * (double)n * routed, x = (double)n, w = (double)weight_bytes(b, o->experts * o->hidden);
    if (o->backward) {
        a->scores = floats(m, each);
        a->lse = floats(m, o->tokens);
        a->counts = zeros(m, o->experts, sizeof(int32_t));
        a->score_sum = zeros(m, routed, sizeof(float));
        a->z_sum = zeros(m, 1, sizeof(double));
        a->d_weights = floats(m, all);
        a->balance = floats(m, routed);
        a->z_scale = 1e-3f;
        a->d_logits = floats(m, each);
        a->dx = floats(m, n);
        a->d_weight = floats(m, o->experts * o->hidden);
        if (b->status == EMO_OK)
            b->status = b->ops->route_forward(b->exec, a, m->err);
        work(b, 2 * product, 12 * x + 12.0 * (double)each + 3 * w);
    } else {
        work(b, product, 4 * x + 8.0 * (double)each + w);
    }
}

/* The plan of each variant; returns how many different experts the calls use on average. */
static double make_plans(maker *m, emo_plan_args *a) {
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int64_t rows = o->tokens * o->top_k;
    double used = 0;
    for (b->turn = 0; b->turn < b->variants; b->turn++) {
        *a = (emo_plan_args){o->tokens,
                             o->top_k,
                             o->experts,
                             numbers(m, rows, chosen),
                             room(m, o->experts + 1, sizeof(int32_t)),
                             room(m, rows, sizeof(int32_t)),
                             room(m, rows, sizeof(int32_t))};
        if (b->status == EMO_OK)
            b->status = b->ops->plan(b->exec, a, m->err);
        b->offsets[b->turn] = a->offsets;
        b->order[b->turn] = a->order;
        b->inverse[b->turn] = a->inverse;
        char seen[EMO__BENCH_EXPERTS] = {0};
        for (int64_t i = 0; i < rows; i++) {
            int32_t e = chosen(b, i);
            used += seen[e] == 0;
            seen[e] = 1;
        }
    }
    b->turn = 0;
    return used / b->variants;
}

static void make_experts(maker *m) {
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int64_t matrix = o->inner * o->hidden, n = o->tokens * o->hidden, rows = o->tokens * o->top_k;
    emo_plan_args plan;
    b->slots = emo__calloc(&b->rt->mem, (size_t)o->experts, sizeof *b->slots);
    if (b->slots == NULL) {
        b->status = emo__fail_memory(m->err, (size_t)o->experts * sizeof *b->slots);
        return;
    }
    b->variants = o->tokens <= FEW_TOKENS ? EMO__BENCH_VARIANTS : 1;
    double used = make_plans(m, &plan);
    /* one block for all weights, one for their gradients */
    int64_t count = 3 * matrix * o->experts, step = weight_bytes(b, matrix);
    char *weights = room(m, weight_bytes(b, count), 1);
    float *gradients = o->backward ? zeros(m, count, sizeof(float)) : NULL;
    fill(m, weights, count, o->weights);
    for (int32_t e = 0; b->status == EMO_OK && e < o->experts; e++) {
        emo_expert_slot *slot = &b->slots[e];
        char *at = weights + 3 * step * e;
        slot->gate = view(at, o->weights, o->inner, o->hidden);
        slot->up = view(at + step, o->weights, o->inner, o->hidden);
        slot->down = view(at + 2 * step, o->weights, o->hidden, o->inner);
        if (gradients != NULL) {
            slot->d_gate = gradients + 3 * matrix * e;
            slot->d_up = slot->d_gate + matrix;
            slot->d_down = slot->d_up + matrix;
        }
    }
    emo_experts_args *a = &b->args.experts;
    *a = (emo_experts_args){.tokens = o->tokens,
                            .hidden = o->hidden,
                            .inner = o->inner,
                            .k_total = o->top_k,
                            .experts = o->experts,
                            .x = floats(m, n),
                            .offsets = plan.offsets,
                            .order = plan.order,
                            .inverse = plan.inverse,
                            .weights = floats(m, rows),
                            .table = {b->slots, o->experts, NULL},
                            .y = floats(m, n)};
    if (b->status == EMO_OK)
        b->status = b->ops->table_sync(b->exec, &a->table, m->err);
    double product = 6.0 * (double)rows * (double)matrix, w = used * 3.0 * (double)step;
    if (o->backward) {
        a->saved = floats(m, rows * 2 * o->inner);
        a->dy = floats(m, n);
        a->dx = floats(m, n);
        a->d_weights = floats(m, rows);
        if (b->status == EMO_OK)
            b->status = b->ops->experts_forward(b->exec, a, m->err);
        work(b, 2 * product, 16.0 * (double)n + w + used * 24.0 * (double)matrix + 8.0 * (double)(rows * o->inner));
    } else {
        work(b, product, 8.0 * (double)n + w);
    }
}

static void make_head(maker *m) {
    emo_bench *b = m->b;
    const emo_bench_options *o = &b->o;
    int64_t n = o->tokens * o->hidden, matrix = o->vocab * o->hidden;
    double product = 2.0 * (double)o->tokens * (double)matrix, w = (double)weight_bytes(b, matrix), x = (double)n;
    const float *rows = floats(m, n);
    if (o->kind == EMO_BENCH_HEAD_LOGITS) {
        b->args.logits = (emo_head_logits_args){
            .n_rows = o->tokens, .hidden = o->hidden, .x = rows, .logits = floats(m, o->tokens * o->vocab)};
        b->variants = variants_of(b, weight_bytes(b, matrix));
        for (int32_t v = 0; v < b->variants; v++) {
            b->args.logits.weight = weight(m, o->vocab, o->hidden);
            b->weights[v] = b->args.logits.weight.data;
        }
        work(b, product, 4 * x + w + 4.0 * (double)(o->tokens * o->vocab));
        return;
    }
    emo_head_args *a = &b->args.head;
    *a = (emo_head_args){.tokens = o->tokens,
                         .hidden = o->hidden,
                         .x = rows,
                         .weight = weight(m, o->vocab, o->hidden),
                         .labels = numbers(m, o->tokens, token_id),
                         .ce_sum = zeros(m, 1, sizeof(double)),
                         .z_sum = zeros(m, 1, sizeof(double)),
                         .ce_scale = 1e-3f,
                         .z_scale = 1e-5f};
    if (o->backward) {
        a->dx = floats(m, n);
        a->d_weight = floats(m, matrix);
    }
    work(b, o->backward ? 3 * product : product, o->backward ? 8 * x + w + 8.0 * (double)matrix : 4 * x + w);
}

static int32_t operator_of(emo_bench_kind kind) {
    static const int32_t of[] = {EMO_OP_EMBED, EMO_OP_NORM,  EMO_OP_LINEAR,  EMO_OP_ROPE,   EMO_OP_ATTENTION,
                                 EMO_OP_ROUTE, EMO_OP_PLAN,  EMO_OP_EXPERTS, EMO_OP_SWIGLU, EMO_OP_HEAD,
                                 EMO_OP_HEAD,  EMO_OP_ADAMW, EMO_OP_REDUCE};
    return of[kind - EMO_BENCH_EMBED];
}

void emo__bench_make_operator(emo_bench *b, emo_error *err) {
    const emo_bench_options *o = &b->o;
    emo_plan_args plan;
    maker m = {.b = b, .err = err, .staged_dtype = -1};
    b->o.document = o->document > 0 && o->document < o->tokens ? o->document : o->tokens;
    if (b->ops->supports(b->backend, operator_of(o->kind), o->weights) == 0) {
        b->status = emo__fail(err, EMO_E_UNSUPPORTED, "%s has no such operator for weights of %s", b->backend->name,
                              emo_dtype_name(o->weights));
        return;
    }
    b->random = emo__malloc_array(&b->rt->mem, RANDOM, sizeof *b->random);
    m.staged = emo__malloc_array(&b->rt->mem, RANDOM, sizeof(float));
    if (b->random == NULL || m.staged == NULL)
        b->status = emo__fail_memory(err, RANDOM * sizeof(float));
    uint32_t x = 12345;
    for (int i = 0; b->status == EMO_OK && i < RANDOM; i++) {
        x = x * 1664525u + 1013904223u;
        b->random[i] = ((float)(x >> 8) / 16777216.0f - 0.5f) * 0.1f;
    }
    if (b->status == EMO_OK) {
        switch (o->kind) {
        case EMO_BENCH_LINEAR:
            make_linear(&m);
            break;
        case EMO_BENCH_ATTENTION:
            make_attention(&m);
            break;
        case EMO_BENCH_ROUTE:
            make_route(&m);
            break;
        case EMO_BENCH_PLAN:
            (void)make_plans(&m, &plan);
            b->args.plan = plan;
            work(b, 0.0, 12.0 * (double)(o->tokens * o->top_k));
            break;
        case EMO_BENCH_EXPERTS:
            make_experts(&m);
            break;
        case EMO_BENCH_HEAD_LOSS:
        case EMO_BENCH_HEAD_LOGITS:
            make_head(&m);
            break;
        default:
            make_rows(&m);
            break;
        }
    }
    emo__free(&b->rt->mem, m.staged);
}

emo_status emo__bench_call_operator(emo_bench *b, emo_error *err) {
    const emo_backend_ops *ops = b->ops;
    int32_t v = (int32_t)(b->turn++ % b->variants);
    int back = b->o.backward;
    switch (b->o.kind) {
    case EMO_BENCH_EMBED:
        return (back ? ops->embed_backward : ops->embed_forward)(b->exec, &b->args.embed, err);
    case EMO_BENCH_NORM:
        return (back ? ops->norm_backward : ops->norm_forward)(b->exec, &b->args.norm, err);
    case EMO_BENCH_LINEAR:
        b->args.linear.weight.data = b->weights[v];
        return (back ? ops->linear_backward : ops->linear_forward)(b->exec, &b->args.linear, err);
    case EMO_BENCH_ROPE:
        return ops->rope(b->exec, &b->args.rope, err);
    case EMO_BENCH_ATTENTION:
        return (back ? ops->attention_backward : ops->attention_forward)(b->exec, &b->args.attention, err);
    case EMO_BENCH_ROUTE:
        return (back ? ops->route_backward : ops->route_forward)(b->exec, &b->args.route, err);
    case EMO_BENCH_PLAN:
        return ops->plan(b->exec, &b->args.plan, err);
    case EMO_BENCH_EXPERTS:
        b->args.experts.offsets = b->offsets[v];
        b->args.experts.order = b->order[v];
        b->args.experts.inverse = b->inverse[v];
        return (back ? ops->experts_backward : ops->experts_forward)(b->exec, &b->args.experts, err);
    case EMO_BENCH_SWIGLU:
        return (back ? ops->swiglu_backward : ops->swiglu_forward)(b->exec, &b->args.swiglu, err);
    case EMO_BENCH_HEAD_LOSS:
        return ops->head_loss(b->exec, &b->args.head, err);
    case EMO_BENCH_HEAD_LOGITS:
        b->args.logits.weight.data = b->weights[v];
        return ops->head_logits(b->exec, &b->args.logits, err);
    case EMO_BENCH_ADAMW:
        return ops->adamw(b->exec, &b->args.adamw, err);
    default:
        return ops->sumsq(b->exec, &b->args.sumsq, err);
    }
}
