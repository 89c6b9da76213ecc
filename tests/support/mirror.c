/* SPDX-License-Identifier: Apache-2.0 */
#include "support/mirror.h"

#include <dlfcn.h>
#include <emo/device.h>
#include <pthread.h>

#include "backend/registry.h"
#include "cudasim/control.h"
#include "tensor/dtype.h"

enum { MAX_RANGES = 512 };

typedef struct range {
    char *host;
    size_t bytes;
    int written;
    char *device; /* of the block it became */
} range;

/* One call: its ranges are collected first, overlapping ones become one block, then pointers are exchanged. */
typedef struct call {
    const emo_backend_ops *ops;
    emo_exec *exec;
    emo_error *err;
    int translating;
    int n;
    range ranges[MAX_RANGES];
    emo_expert_slot *slots; /* copy with device pointers */
} call;

static int by_address(const void *a, const void *b) {
    const range *x = a, *y = b;
    return x->host < y->host ? -1 : x->host > y->host;
}

static void merge(call *c) {
    int kept = 0;
    qsort(c->ranges, (size_t)c->n, sizeof *c->ranges, by_address);
    for (int i = 0; i < c->n; i++) {
        range *last = kept > 0 ? &c->ranges[kept - 1] : NULL;
        range r = c->ranges[i];
        if (last != NULL && (r.host < last->host + last->bytes || r.host == last->host)) {
            size_t end = (size_t)(r.host - last->host) + r.bytes;
            last->bytes = end > last->bytes ? end : last->bytes;
            last->written |= r.written;
        } else {
            c->ranges[kept++] = r;
        }
    }
    c->n = kept;
}

static void *exchange(call *c, const void *host, size_t bytes, int written) {
    char *p = (char *)(uintptr_t)host;
    if (p == NULL)
        return NULL;
    if (!c->translating) {
        assert_true(c->n < MAX_RANGES);
        c->ranges[c->n++] = (range){p, bytes, written, NULL};
        return p;
    }
    for (int i = 0; i < c->n; i++)
        if (p >= c->ranges[i].host && p + bytes <= c->ranges[i].host + c->ranges[i].bytes)
            return c->ranges[i].device + (p - c->ranges[i].host);
    fail_msg("a range of a mirrored call was not collected");
    return NULL;
}

static emo_status to_device(call *c) {
    emo_status status = EMO_OK;
    merge(c);
    for (int i = 0; i < c->n && status == EMO_OK; i++) {
        void *device = NULL;
        status = c->ops->mem_alloc(c->exec->backend, c->ranges[i].bytes, &device, c->err);
        c->ranges[i].device = device;
        if (status == EMO_OK)
            status = c->ops->upload(c->exec, device, c->ranges[i].host, c->ranges[i].bytes, c->err);
    }
    c->translating = 1;
    return status;
}

static emo_status to_host(call *c, emo_status status) {
    for (int i = 0; i < c->n && status == EMO_OK; i++)
        if (c->ranges[i].written)
            status = c->ops->download(c->exec, c->ranges[i].host, c->ranges[i].device, c->ranges[i].bytes, c->err);
    emo_status waited = c->ops->synchronize(c->exec, status == EMO_OK ? c->err : NULL);
    for (int i = 0; i < c->n; i++)
        c->ops->mem_free(c->exec->backend, c->ranges[i].device);
    free(c->slots);
    return status == EMO_OK ? waited : status;
}

/* ---- the arrays of every operator ---- */

#define IN(field, count) a->field = exchange(c, a->field, (size_t)(count) * sizeof *a->field, 0)
#define OUT(field, count) a->field = exchange(c, a->field, (size_t)(count) * sizeof *a->field, 1)

/* Elements of `rows` rows of `cols`, `stride` apart. */
static int64_t strided(int64_t rows, int64_t cols, int64_t stride) { return rows > 0 ? (rows - 1) * stride + cols : 0; }

static int32_t largest(const int32_t *values, int64_t n, int32_t least) {
    for (int64_t i = 0; values != NULL && i < n; i++)
        least = values[i] > least ? values[i] : least;
    return least;
}

static void weight(call *c, emo_weight *w) {
    size_t item = emo__dtype_size(w->dtype);
    w->data = exchange(c, w->data, (size_t)strided(w->rows, w->cols, w->stride) * item, 0);
}

static void map_embed(call *c, emo_embed_args *a) {
    IN(ids, a->tokens);
    weight(c, &a->weight);
    OUT(out, a->tokens * a->hidden);
    IN(d_out, a->tokens * a->hidden);
    OUT(d_weight, a->weight.rows * a->hidden);
}

static void map_norm(call *c, emo_norm_args *a) {
    int64_t n = a->tokens * a->hidden;
    IN(x, n);
    weight(c, &a->weight);
    OUT(y, n);
    OUT(rstd, a->tokens);
    IN(dy, n);
    OUT(dx, n);
    OUT(d_weight, a->hidden);
}

static void map_linear(call *c, emo_linear_args *a) {
    int64_t xs = strided(a->tokens, a->weight.cols, a->x_stride), ys = strided(a->tokens, a->weight.rows, a->y_stride);
    IN(x, xs);
    weight(c, &a->weight);
    weight(c, &a->bias);
    OUT(y, ys);
    IN(dy, ys);
    OUT(dx, xs);
    OUT(d_weight, a->weight.rows * a->weight.cols);
    OUT(d_bias, a->weight.rows);
}

static void map_rope(call *c, emo_rope_args *a) {
    static int64_t rows; /* what arrays say is read while they are the host's */
    if (!c->translating)
        rows = largest(a->positions, a->tokens, -1) + 1;
    IN(positions, a->tokens);
    IN(cos, rows * (a->head_dim / 2));
    IN(sin, rows * (a->head_dim / 2));
    OUT(x, strided(a->tokens, a->heads * a->head_dim, a->stride));
}

static void map_attention(call *c, emo_attention_args *a) {
    int64_t queries = 0, keys = 0, width = a->heads * a->head_dim, kv_width = a->kv_heads * a->head_dim;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        queries = s->q_begin + s->q_count > queries ? s->q_begin + s->q_count : queries;
        keys = s->k_begin + s->k_count > keys ? s->k_begin + s->k_count : keys;
    }
    IN(q, strided(queries, width, a->q_stride));
    IN(k, strided(keys, kv_width, a->kv_stride));
    IN(v, strided(keys, kv_width, a->kv_stride));
    OUT(o, strided(queries, width, a->o_stride));
    OUT(lse, queries * a->heads);
    IN(d_o, strided(queries, width, a->o_stride));
    OUT(dq, strided(queries, width, a->q_stride));
    OUT(dk, strided(keys, kv_width, a->kv_stride));
    OUT(dv, strided(keys, kv_width, a->kv_stride));
}

static void map_route(call *c, emo_route_args *a) {
    int64_t n = a->experts, cells = a->n_segments * n, all = n + a->shared;
    int64_t chosen = a->tokens * (a->k + (a->n_always > 0 ? a->n_always : a->shared));
    IN(x, a->tokens * a->hidden);
    weight(c, &a->weight);
    IN(segment_begin, a->n_segments + 1);
    IN(allowed_in, cells);
    IN(pool_size, a->n_segments);
    IN(always, a->n_always);
    IN(score_bias, n);
    OUT(logits, a->tokens * a->columns);
    OUT(usage, cells);
    OUT(allowed, cells);
    OUT(scores, a->tokens * n);
    OUT(indices, chosen);
    OUT(weights, chosen);
    OUT(lse, a->tokens);
    OUT(counts, all);
    OUT(score_sum, n);
    OUT(z_sum, 1);
    OUT(segment_counts, cells);
    OUT(segment_score_sum, cells);
    IN(d_weights, chosen);
    IN(balance, a->balance_by_segment ? cells : n);
    OUT(d_logits, a->tokens * a->columns);
    OUT(dx, a->tokens * a->hidden);
    OUT(d_weight, all * a->hidden);
}

static void map_balance(call *c, emo_balance_args *a) {
    static const void *sources[64];
    assert_true(a->n_sources <= 64);
    for (int32_t s = 0; s < a->n_sources; s++) {
        const void *p = exchange(c, a->sources[s], (size_t)a->experts * 4, 0);
        if (c->translating)
            sources[s] = p;
    }
    if (c->translating)
        a->sources = sources;
    OUT(f, a->experts);
    IN(score_sum, a->experts);
    OUT(loss, 1);
    OUT(grad, a->experts);
}

static void map_balance_documents(call *c, emo_balance_documents_args *a) {
    int64_t cells = a->n_segments * a->experts;
    IN(segment_begin, a->n_segments + 1);
    IN(allowed, cells);
    IN(segment_counts, cells);
    IN(segment_score_sum, cells);
    OUT(loss, 1);
    OUT(grad, cells);
}

static void map_plan(call *c, emo_plan_args *a) {
    IN(indices, a->tokens * a->k_total);
    OUT(offsets, a->experts + 1);
    OUT(order, a->tokens * a->k_total);
    OUT(inverse, a->tokens * a->k_total);
}

static void table(call *c, emo_expert_table *t) {
    emo_expert_slot *copy = c->translating ? c->slots : malloc(((size_t)t->count + 1) * sizeof *copy);
    assert_non_null(copy);
    c->slots = copy;
    for (int32_t e = 0; e < t->count; e++) {
        emo_expert_slot s = t->slots[e];
        size_t in = (size_t)(s.gate.rows * s.gate.cols) * sizeof(float);
        weight(c, &s.gate);
        weight(c, &s.up);
        weight(c, &s.down);
        s.d_gate = exchange(c, s.d_gate, in, 1);
        s.d_up = exchange(c, s.d_up, in, 1);
        s.d_down = exchange(c, s.d_down, in, 1);
        copy[e] = s;
    }
    if (c->translating)
        *t = (emo_expert_table){copy, t->count, NULL};
}

static void map_experts(call *c, emo_experts_args *a) {
    int64_t rows = a->tokens * a->k_total, n = a->tokens * a->hidden;
    IN(x, n);
    IN(offsets, a->experts + 1);
    IN(order, rows);
    IN(inverse, rows);
    IN(weights, rows);
    table(c, &a->table);
    OUT(saved, rows * 2 * a->inner);
    OUT(y, n);
    IN(dy, n);
    OUT(dx, n);
    OUT(d_weights, rows);
    OUT(out_norm, rows);
}

static void map_swiglu(call *c, emo_swiglu_args *a) {
    int64_t n = strided(a->tokens, a->inner, a->stride);
    IN(gate, n);
    IN(up, n);
    OUT(y, a->tokens * a->inner);
    IN(dy, a->tokens * a->inner);
    OUT(d_gate, n);
    OUT(d_up, n);
}

static void map_head(call *c, emo_head_args *a) {
    IN(x, a->tokens * a->hidden);
    weight(c, &a->weight);
    IN(labels, a->tokens);
    OUT(token_loss, a->tokens);
    OUT(ce_sum, 1);
    OUT(z_sum, 1);
    OUT(dx, a->tokens * a->hidden);
    OUT(d_weight, a->weight.rows * a->hidden);
}

static void map_head_logits(call *c, emo_head_logits_args *a) {
    static int64_t rows;
    if (!c->translating)
        rows = a->rows != NULL ? largest(a->rows, a->n_rows, -1) + 1 : a->n_rows;
    IN(rows, a->n_rows);
    IN(x, rows * a->hidden);
    weight(c, &a->weight);
    OUT(logits, a->n_rows * a->weight.rows);
}

static void map_adamw(call *c, emo_adamw_args *a) {
    OUT(p, a->count);
    IN(g, a->count);
    OUT(m, a->count);
    OUT(v, a->count);
    IN(scalars, 1);
}

static void map_sumsq(call *c, emo_sumsq_args *a) {
    IN(x, a->count);
    OUT(out, 1);
}

static void map_clip(call *c, emo_clip_args *a) { OUT(scalars, 1); }

static void map_sample(call *c, emo_sample_args *a) {
    IN(logits, a->rows * a->vocab);
    OUT(ids, a->rows);
    OUT(logprobs, a->rows);
}

static void map_gemm(call *c, emo_gemm_args *a) {
    int64_t n = a->trans_b ? strided(a->n, a->k, a->ldb) : strided(a->k, a->n, a->ldb);
    IN(a, a->trans_a ? strided(a->k, a->m, a->lda) : strided(a->m, a->k, a->lda));
    a->b = exchange(c, a->b, (size_t)n * emo__dtype_size(a->b_dtype), 0);
    OUT(c, strided(a->m, a->n, a->ldc));
}

static void map_grouped_gemm(call *c, emo_grouped_gemm_args *a) {
    static int64_t used, left, right;
    if (!c->translating) {
        const emo_expert_slot *s = &a->table.slots[0];
        const emo_weight *w = a->slot == EMO_SLOT_GATE ? &s->gate : a->slot == EMO_SLOT_UP ? &s->up : &s->down;
        used = a->offsets[a->groups];
        left = a->mode == EMO_GROUPED_FORWARD ? w->cols : w->rows;
        right = a->mode == EMO_GROUPED_FORWARD ? w->rows : w->cols;
    }
    IN(offsets, a->groups + 1);
    IN(a, strided(used, left, a->lda));
    IN(b, strided(used, right, a->ldb));
    OUT(c, strided(used, right, a->ldc));
    table(c, &a->table);
}

static void map_gather(call *c, emo_gather_args *a) {
    static int64_t rows, from;
    if (!c->translating) {
        rows = a->count != NULL ? *a->count : a->max_rows;
        from = (a->order != NULL ? largest(a->order, rows, -1) : rows - 1) / a->k_total + 1;
    }
    IN(count, 1);
    IN(order, rows);
    IN(src, from * a->width);
    OUT(dst, rows * a->width);
}

static void map_combine(call *c, emo_combine_args *a) {
    static int64_t rows;
    int64_t all = a->tokens * a->k_total;
    if (!c->translating)
        rows = largest(a->inverse, all, -1) + 1;
    IN(inverse, all);
    IN(weights, all);
    IN(src, rows * a->width);
    OUT(dst, a->tokens * a->width);
    IN(dy, a->tokens * a->width);
    OUT(d_weights, all);
}

static void map_softmax(call *c, emo_softmax_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, 0) + 1;
    IN(x, strided(a->rows, a->cols, a->x_stride));
    IN(allowed, sets * a->cols);
    IN(set_of, a->rows);
    OUT(probs, a->rows * a->cols);
    OUT(lse, a->rows);
}

static void array(call *c, emo_array *a, int64_t rows, int64_t cols, int written) {
    int64_t n = (rows - 1) * a->row + (cols - 1) * a->col + 1;
    a->data = exchange(c, a->data, (size_t)n * sizeof(float), written);
}

static void map_elementwise(call *c, emo_elementwise_args *a) {
    array(c, &a->x, a->rows, a->cols, 0);
    array(c, &a->y, a->rows, a->cols, 0);
    array(c, &a->out, a->rows, a->cols, 1);
}

static void map_row_dot(call *c, emo_row_dot_args *a) {
    array(c, &a->x, a->rows, a->cols, 0);
    array(c, &a->y, a->rows, a->cols, 0);
    OUT(out, a->rows);
    OUT(total, 1);
}

static void map_pick(call *c, emo_pick_args *a) {
    IN(indices, strided(a->rows, a->k, a->index_stride));
    OUT(x, strided(a->rows, a->cols, a->x_stride));
    OUT(values, strided(a->rows, a->k, a->value_stride));
}

static void map_topk(call *c, emo_topk_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, 0) + 1;
    IN(fixed, a->n_fixed);
    IN(x, strided(a->rows, a->cols, a->x_stride));
    IN(bias, a->cols);
    IN(allowed, sets * a->cols);
    IN(set_of, a->rows);
    OUT(indices, a->rows * (a->k + a->n_fixed));
    OUT(values, a->rows * (a->k + a->n_fixed));
}

static void map_keep_top(call *c, emo_keep_top_args *a) {
    IN(x, a->rows * a->cols);
    IN(allowed_in, a->rows * a->cols);
    OUT(allowed, a->rows * a->cols);
    IN(size, a->rows);
    IN(row_begin, a->rows + 1);
    IN(fixed, a->n_fixed);
}

static void map_segment_ids(call *c, emo_segment_ids_args *a) {
    IN(begin, a->n_segments + 1);
    OUT(set_of, a->tokens);
}

static void map_segment_sum(call *c, emo_segment_sum_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, -1) + 1;
    IN(set_of, a->rows);
    IN(x, a->rows * a->cols);
    OUT(out, sets * a->cols);
}

static void map_count(call *c, emo_count_args *a) {
    static int64_t sets;
    if (!c->translating)
        sets = largest(a->set_of, a->rows, 0) + 1;
    IN(indices, a->rows * a->k);
    IN(set_of, a->rows);
    OUT(counts, sets * a->bins);
}

/* ---- the table ---- */

static emo_expert_table *table_of_experts(emo_experts_args *a) { return &a->table; }
static emo_expert_table *table_of_grouped(emo_grouped_gemm_args *a) { return &a->table; }

#define MIRROR_AS(entry, type, map, find_table)                                                                        \
    static emo_status mirror_##entry(emo_exec *exec, const type *args, emo_error *err) {                               \
        call c = {.ops = exec->backend->ops, .exec = exec, .err = err};                                                \
        type a = *args;                                                                                                \
        map(&c, &a);                                                                                                   \
        a = *args;                                                                                                     \
        emo_status status = to_device(&c);                                                                             \
        emo_expert_table *found = NULL;                                                                                \
        if (status == EMO_OK) {                                                                                        \
            map(&c, &a);                                                                                               \
            found = find_table;                                                                                        \
            if (found != NULL)                                                                                         \
                status = c.ops->table_sync(exec, found, err);                                                          \
        }                                                                                                              \
        if (status == EMO_OK)                                                                                          \
            status = c.ops->entry(exec, &a, err);                                                                      \
        if (found != NULL)                                                                                             \
            c.ops->table_free(exec->backend, found);                                                                   \
        return to_host(&c, status);                                                                                    \
    }
#define OPERATORS(X, WITH_TABLE)                                                                                       \
    X(embed_forward, emo_embed_args, map_embed)                                                                        \
    X(embed_backward, emo_embed_args, map_embed)                                                                       \
    X(norm_forward, emo_norm_args, map_norm)                                                                           \
    X(norm_backward, emo_norm_args, map_norm)                                                                          \
    X(linear_forward, emo_linear_args, map_linear)                                                                     \
    X(linear_backward, emo_linear_args, map_linear)                                                                    \
    X(rope, emo_rope_args, map_rope)                                                                                   \
    X(attention_forward, emo_attention_args, map_attention)                                                            \
    X(attention_backward, emo_attention_args, map_attention)                                                           \
    X(route_forward, emo_route_args, map_route)                                                                        \
    X(route_backward, emo_route_args, map_route)                                                                       \
    X(balance, emo_balance_args, map_balance)                                                                          \
    X(balance_documents, emo_balance_documents_args, map_balance_documents)                                            \
    X(plan, emo_plan_args, map_plan)                                                                                   \
    WITH_TABLE(experts_forward, emo_experts_args, map_experts, table_of_experts)                                       \
    WITH_TABLE(experts_backward, emo_experts_args, map_experts, table_of_experts)                                      \
    X(swiglu_forward, emo_swiglu_args, map_swiglu)                                                                     \
    X(swiglu_backward, emo_swiglu_args, map_swiglu)                                                                    \
    X(head_loss, emo_head_args, map_head)                                                                              \
    X(head_logits, emo_head_logits_args, map_head_logits)                                                              \
    X(adamw, emo_adamw_args, map_adamw)                                                                                \
    X(sumsq, emo_sumsq_args, map_sumsq)                                                                                \
    X(clip, emo_clip_args, map_clip)                                                                                   \
    X(sample, emo_sample_args, map_sample)                                                                             \
    X(gemm, emo_gemm_args, map_gemm)                                                                                   \
    WITH_TABLE(grouped_gemm, emo_grouped_gemm_args, map_grouped_gemm, table_of_grouped)                                \
    X(gather, emo_gather_args, map_gather)                                                                             \
    X(combine, emo_combine_args, map_combine)                                                                          \
    X(softmax, emo_softmax_args, map_softmax)                                                                          \
    X(elementwise, emo_elementwise_args, map_elementwise)                                                              \
    X(row_dot, emo_row_dot_args, map_row_dot)                                                                          \
    X(pick, emo_pick_args, map_pick)                                                                                   \
    X(topk, emo_topk_args, map_topk)                                                                                   \
    X(keep_top, emo_keep_top_args, map_keep_top)                                                                       \
    X(segment_ids, emo_segment_ids_args, map_segment_ids)                                                              \
    X(segment_sum, emo_segment_sum_args, map_segment_sum)                                                              \
    X(count, emo_count_args, map_count)

#define MIRROR(entry, type, map) MIRROR_AS(entry, type, map, NULL)
#define MIRROR_TABLE(entry, type, map, find) MIRROR_AS(entry, type, map, find(&a))
OPERATORS(MIRROR, MIRROR_TABLE)

const char *mirror_plugin(void) {
    const char *path = getenv("EMO_CUDA_PLUGIN");
    return path != NULL && path[0] != '\0' ? path : NULL;
}

test_device mirror_open_as(const char *plugin, int32_t threads, emo_dtype compute) {
    static emo_backend_ops ops;
    emo_error err = EMO_ERROR_INIT;
    test_device d = {test_runtime(threads, EMO_ISA_AUTO), NULL, NULL};
    emo_backend *backend = NULL;
    emo_exec_options options = {.struct_size = sizeof options, .compute = compute, .deterministic = 1};
    EXPECT_OK(emo_runtime_load_backend(d.rt, plugin, &err));
    backend = emo__registry_get(d.rt->registry, 1);
    assert_non_null(backend);
    EXPECT_OK(backend->ops->exec_create(backend, &options, &d.exec, &err));
    ops = *backend->ops;
#define PUT(entry, type, map) ops.entry = mirror_##entry;
#define PUT_TABLE(entry, type, map, find) ops.entry = mirror_##entry;
    OPERATORS(PUT, PUT_TABLE)
    d.ops = &ops;
    return d;
}

test_device mirror_open(const char *plugin, int32_t threads) { return mirror_open_as(plugin, threads, EMO_DTYPE_F32); }

const cudasim_control_table *mirror_simulator(const char *plugin) {
    void *library = dlopen(plugin, RTLD_NOW | RTLD_NOLOAD);
    const cudasim_control_table *control = library != NULL ? dlsym(library, CUDASIM_CONTROL_SYMBOL) : NULL;
    if (library != NULL)
        (void)dlclose(library); /* the library itself stays */
    return control;
}

void mirror_expect_clean(const char *plugin) {
    const cudasim_control_table *control = mirror_simulator(plugin);
    static char text[4096];
    if (control == NULL || control->findings() == 0)
        return;
    (void)control->take(text, sizeof text);
    fail_msg("the simulator found: %s", text);
}

void mirror_close(test_device *d, const char *plugin) {
    mirror_expect_clean(plugin);
    d->exec->backend->ops->exec_destroy(d->exec);
    emo_runtime_release(d->rt);
}

/* ---- the CPU's operators on the device ---- */

static struct {
    pthread_mutex_t lock;
    emo_exec *exec;
    const emo_backend_ops *own;
    emo_backend_ops table;
} installed = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define REDIRECT(entry, type, map)                                                                                     \
    static emo_status redirect_##entry(emo_exec *exec, const type *args, emo_error *err) {                             \
        (void)exec;                                                                                                    \
        (void)pthread_mutex_lock(&installed.lock);                                                                     \
        emo_status status = mirror_##entry(installed.exec, args, err);                                                 \
        (void)pthread_mutex_unlock(&installed.lock);                                                                   \
        return status;                                                                                                 \
    }
#define REDIRECT_TABLE(entry, type, map, find) REDIRECT(entry, type, map)
OPERATORS(REDIRECT, REDIRECT_TABLE)

void mirror_install(emo_runtime *rt, const char *plugin) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_runtime_load_backend(rt, plugin, &err));
    emo_backend *backend = emo__registry_get(rt->registry, 1);
    assert_non_null(backend);
    EXPECT_OK(backend->ops->exec_create(backend, NULL, &installed.exec, &err));
    installed.own = rt->cpu->ops;
    installed.table = *rt->cpu->ops;
#define SEND(entry, type, map) installed.table.entry = redirect_##entry;
#define SEND_TABLE(entry, type, map, find) installed.table.entry = redirect_##entry;
    OPERATORS(SEND, SEND_TABLE)
    rt->cpu->ops = &installed.table;
}

void mirror_remove(emo_runtime *rt) {
    installed.exec->backend->ops->exec_destroy(installed.exec);
    installed.exec = NULL;
    rt->cpu->ops = installed.own;
}
