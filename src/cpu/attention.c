/* SPDX-License-Identifier: Apache-2.0 */
/* Causal attention over segments: cutting the work into tiles. The arithmetic is in attention_kernels.inc. */
#include "backend/composed.h"
#include "base/status.h"
#include "cpu/gemm/gemm.h"
#include "cpu/ops_kernels.h"

typedef struct attention_task {
    const emo_attention_args *args;
    const emo__ops_kernels *kernels;
    const emo__gemm_kernels *gemm; /* backward: with products in bf16; NULL: in f32 */
    int64_t *starts;               /* [n_segments + 1] first task of each segment (forward) */
    char *memory;
    size_t stride; /* bytes per worker */
    /* forward */
    char *states; /* per tile, where keys come in parts; NULL: behind the worker's memory */
    size_t state_stride;
    size_t state_at; /* there */
    int64_t key_first;
    int64_t key_last;
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
    emo__attn_rows rows = {a,
                           s,
                           (int32_t)(local % a->kv_heads),
                           begin,
                           left < EMO__ATTN_ROWS ? left : EMO__ATTN_ROWS,
                           t->key_first,
                           t->key_last};
    char *memory = t->memory + worker * t->stride;
    t->kernels->attn_forward(&rows, t->states != NULL ? t->states + index * t->state_stride : memory + t->state_at,
                             memory);
}

static void backward_one(void *task, size_t index, size_t worker) {
    const attention_task *t = task;
    const emo_attention_args *a = t->args;
    int64_t segment = (int64_t)index / a->kv_heads;
    int32_t kv_head = (int32_t)((int64_t)index % a->kv_heads);
    char *memory = t->memory + worker * t->stride;
    if (t->gemm != NULL)
        t->kernels->attn_backward_rounded(a, &a->segments[segment], kv_head, t->gemm, memory);
    else
        t->kernels->attn_backward(a, &a->segments[segment], kv_head, memory);
}

static size_t lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

/* One region: the starts, a piece per worker, the states of `tiles`. */
static emo_status prepare(emo__cpu_exec *cpu, attention_task *t, size_t per_worker, size_t tiles, emo_error *err) {
    size_t starts_at = 0, pieces_at = 0, states_at = 0, total = 0;
    t->stride = lines(per_worker);
    if (!emo__scratch_add(&total, (size_t)t->args->n_segments + 8, sizeof(int64_t), &starts_at) ||
        !emo__scratch_add(&total, cpu->workers, t->stride, &pieces_at) ||
        !emo__scratch_add(&total, tiles, t->state_stride, &states_at))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "attention over %lld segments does not fit in memory",
                         (long long)t->args->n_segments);
    char *region = emo__cpu_scratch(cpu, total, err);
    if (region == NULL)
        return EMO_E_OUT_OF_MEMORY;
    t->starts = (int64_t *)(void *)(region + starts_at);
    t->memory = region + pieces_at;
    t->states = tiles > 0 ? region + states_at : NULL;
    return EMO_OK;
}

/* Keys that a task works on: all, but with a window about as many as its multiply-adds allow. */
static int64_t keys_at_a_time(const emo__cpu_exec *cpu, const emo_attention_args *a) {
    int64_t rows = 1;
    if (cpu->window.work == 0)
        return INT64_MAX;
    for (int64_t i = 0; i < a->n_segments; i++) {
        int64_t first, last;
        slice_of(a, &a->segments[i], &first, &last);
        rows = (last - first) * (a->heads / a->kv_heads) > rows ? (last - first) * (a->heads / a->kv_heads) : rows;
    }
    int64_t max_rows, keys;
    emo__cpu_task_shape(cpu, rows < EMO__ATTN_ROWS ? rows : EMO__ATTN_ROWS, a->head_dim, 2, &max_rows, &keys);
    return keys / EMO__ATTN_KEYS > 0 ? keys / EMO__ATTN_KEYS * EMO__ATTN_KEYS : EMO__ATTN_KEYS;
}

static emo_status attention_forward(emo_exec *exec, const emo_attention_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    attention_task t = {.args = args, .kernels = emo__ops_kernels_of(cpu)};
    emo_status status = emo__attention_check(args, err);
    if (status != EMO_OK)
        return status;
    int64_t step = keys_at_a_time(cpu, args), count = 0, longest = 0, work = 0;
    for (int64_t i = 0; i < args->n_segments; i++) {
        const emo_attention_segment *s = &args->segments[i];
        int64_t blocks = blocks_of(args, s);
        count += blocks * args->kv_heads;
        work += blocks * args->heads * EMO__ATTN_ROWS * 2 * args->head_dim * s->k_count;
        longest = blocks > 0 && s->k_count > longest ? s->k_count : longest;
    }
    t.state_stride = lines(t.kernels->attn_state_bytes(args->head_dim));
    t.state_at = lines(t.kernels->attn_forward_bytes(args->head_dim));
    status = prepare(cpu, &t, t.state_at + t.state_stride, longest > step ? (size_t)count : 0, err);
    if (status != EMO_OK)
        return status;
    t.starts[0] = 0;
    for (int64_t i = 0; i + 1 < args->n_segments; i++)
        t.starts[i + 1] = t.starts[i] + blocks_of(args, &args->segments[i]) * args->kv_heads;
    for (int64_t first = 0; first < longest; first += step) {
        t.key_first = first;
        t.key_last = longest - first > step ? first + step : INT64_MAX;
        emo__cpu_for(cpu, (size_t)count, work, forward_one, &t);
        if (t.key_last == INT64_MAX)
            break;
    }
    return EMO_OK;
}

static emo_status attention_backward(emo_exec *exec, const emo_attention_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    attention_task t = {.args = args, .kernels = emo__ops_kernels_of(cpu)};
    emo_status status = emo__attention_check(args, err);
    /* Without matrix units bf16 is no faster here, and nothing is rounded. */
    if (cpu->gemm->long_block > 0 && EMO__ATTN_ROWS % cpu->gemm->mr == 0 && EMO__ATTN_KEYS % cpu->gemm->nr == 0)
        t.gemm = cpu->gemm;
    if (status == EMO_OK)
        status = prepare(cpu, &t,
                         t.gemm != NULL ? t.kernels->attn_rounded_bytes(t.gemm, args->head_dim)
                                        : t.kernels->attn_backward_bytes(args->head_dim),
                         0, err);
    if (status != EMO_OK)
        return status;
    emo__parallel_for(cpu->rt, (size_t)(args->n_segments * args->kv_heads), backward_one, &t);
    return EMO_OK;
}

void emo__cpu_register_attention(emo_backend_ops *ops) {
    ops->attention_forward = attention_forward;
    ops->attention_backward = attention_backward;
}
