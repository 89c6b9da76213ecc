/* SPDX-License-Identifier: Apache-2.0 */
/* Causal attention over segments: cutting the work into tiles. The arithmetic is in attention_kernels.inc. */
#include "base/checked.h"
#include "base/status.h"
#include "cpu/ops_kernels.h"

typedef struct attention_task {
    const emo_attention_args *args;
    const emo__ops_kernels *kernels;
    int64_t *starts; /* [n_segments + 1] first task of each segment (forward) */
    char *memory;
    size_t stride; /* bytes per worker */
} attention_task;

/* The segment's queries inside the asked slice, as numbers from q_begin. */
static void slice_of(const emo_attention_args *a, const emo_attention_segment *s, int64_t *first, int64_t *last) {
    *first = a->q_first > s->q_begin ? a->q_first - s->q_begin : 0;
    *last = a->q_last - s->q_begin < s->q_count ? a->q_last - s->q_begin : s->q_count;
}

static int64_t blocks_of(const emo_attention_args *a, const emo_attention_segment *s) {
    int64_t first, last;
    slice_of(a, s, &first, &last);
    if (last <= first)
        return 0;
    return ((last - first) * (a->heads / a->kv_heads) + EMO__ATTN_ROWS - 1) / EMO__ATTN_ROWS;
}

static void forward_one(void *task, size_t index, size_t worker) {
    const attention_task *t = task;
    const emo_attention_args *a = t->args;
    int64_t want = (int64_t)index, low = 0, high = a->n_segments - 1;
    while (low < high) { /* the last segment that starts at or before the task */
        int64_t middle = (low + high + 1) / 2;
        if (t->starts[middle] <= want)
            low = middle;
        else
            high = middle - 1;
    }
    const emo_attention_segment *s = &a->segments[low];
    int64_t blocks = blocks_of(a, s), local = want - t->starts[low], group = a->heads / a->kv_heads, first, last;
    slice_of(a, s, &first, &last);
    /* the longest rows first, so that the ends of the workers' lists are short */
    int64_t block = blocks - 1 - local / a->kv_heads;
    int64_t begin = first * group + block * EMO__ATTN_ROWS, left = last * group - begin;
    emo__attn_rows rows = {a, s, (int32_t)(local % a->kv_heads), begin, left < EMO__ATTN_ROWS ? left : EMO__ATTN_ROWS};
    t->kernels->attn_forward(&rows, t->memory + worker * t->stride);
}

static void backward_one(void *task, size_t index, size_t worker) {
    const attention_task *t = task;
    const emo_attention_args *a = t->args;
    int64_t segment = (int64_t)index / a->kv_heads;
    t->kernels->attn_backward(a, &a->segments[segment], (int32_t)((int64_t)index % a->kv_heads),
                              t->memory + worker * t->stride);
}

static emo_status check(const emo_attention_args *a, emo_error *err) {
    if (a->heads < 1 || a->kv_heads < 1 || a->heads % a->kv_heads != 0 || a->head_dim < 1)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "attention with %d heads, %d kv heads and head_dim %d: heads must be a multiple of kv heads",
                         (int)a->heads, (int)a->kv_heads, (int)a->head_dim);
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        if (s->q_count < 0 || s->q_count > s->k_count)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "attention segment %lld has %lld queries and %lld keys: at most one query per key",
                             (long long)i, (long long)s->q_count, (long long)s->k_count);
    }
    return EMO_OK;
}

/* One region: `extra` bytes for the starts, then a piece per worker. */
static emo_status prepare(emo__cpu_exec *cpu, attention_task *t, size_t per_worker, emo_error *err) {
    size_t starts = 0, pieces = 0, total = 0;
    t->stride = (per_worker + 63) / 64 * 64;
    if (!emo__mul_size((size_t)t->args->n_segments + 8, sizeof(int64_t), &starts) ||
        !emo__mul_size(t->stride, cpu->workers, &pieces) || !emo__add_size(starts, pieces + 64, &total))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "attention over %lld segments does not fit in memory",
                         (long long)t->args->n_segments);
    char *region = emo__cpu_scratch(cpu, total, err);
    if (region == NULL)
        return EMO_E_OUT_OF_MEMORY;
    t->starts = (int64_t *)(void *)region;
    t->memory = region + (starts + 63) / 64 * 64;
    return EMO_OK;
}

static emo_status attention_forward(emo_exec *exec, const emo_attention_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    attention_task t = {args, emo__ops_kernels_of(cpu), NULL, NULL, 0};
    emo_status status = check(args, err);
    if (status == EMO_OK)
        status = prepare(cpu, &t, t.kernels->attn_forward_bytes(args->head_dim), err);
    if (status != EMO_OK)
        return status;
    int64_t count = 0;
    for (int64_t i = 0; i < args->n_segments; i++) {
        t.starts[i] = count;
        count += blocks_of(args, &args->segments[i]) * args->kv_heads;
    }
    emo__parallel_for(cpu->rt, (size_t)count, forward_one, &t);
    return EMO_OK;
}

static emo_status attention_backward(emo_exec *exec, const emo_attention_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    attention_task t = {args, emo__ops_kernels_of(cpu), NULL, NULL, 0};
    emo_status status = check(args, err);
    if (status == EMO_OK)
        status = prepare(cpu, &t, t.kernels->attn_backward_bytes(args->head_dim), err);
    if (status != EMO_OK)
        return status;
    emo__parallel_for(cpu->rt, (size_t)(args->n_segments * args->kv_heads), backward_one, &t);
    return EMO_OK;
}

void emo__cpu_register_attention(emo_backend_ops *ops) {
    ops->attention_forward = attention_forward;
    ops->attention_backward = attention_backward;
}
