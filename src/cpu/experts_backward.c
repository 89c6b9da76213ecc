/* SPDX-License-Identifier: Apache-2.0 */
/* Experts, backward. Only the pre-activations were saved: h is computed again, and the routing weights' gradient is
 * dot(h, dy W_down), which needs no expert output.
 *
 * Passes: (1) p = dy W_down, per assignment; (2) per assignment: h over p, d_weights, d_gate|d_up of the
 * pre-activations; (3) in one list: input gradients per assignment, and the three weight gradients of each expert; (4)
 * dx per token, in the order of j. */
#include "base/checked.h"
#include "base/status.h"
#include "cpu/experts.h"

enum { DOWN_INPUT, INPUT_GRADIENT, GATE_GRADIENT, UP_GRADIENT, DOWN_GRADIENT };
enum { ROWS_PER_TASK = 16 };

typedef struct backward_task {
    const emo_experts_args *args;
    const emo__gemm_kernels *gemm;
    const emo__swiglu_kernels *rows;
    const emo__tile *tiles;
    float *h;      /* [assignments, inner]: dy W_down, then h */
    float *d_pre;  /* [assignments, 2 inner] gradient of gate|up */
    float *d_rows; /* [assignments, hidden] gradient of each assignment's input */
    int64_t assignments;
    char *work;
    int fused;
} backward_task;

static void one_tile(const backward_task *t, const emo__tile *tile, size_t worker) {
    const emo_experts_args *args = t->args;
    const emo_expert_slot *slot = &args->table.slots[tile->expert];
    int64_t first = args->offsets[tile->expert], rows = args->offsets[tile->expert + 1] - first;
    int64_t inner = args->inner, hidden = args->hidden;
    const int32_t *order = args->order + first;
    float *work = (float *)(void *)(t->work + worker * emo__gemm_work_bytes());
    emo__gemm g = {.n_b = 1, .alpha = 1.0f};
    if (tile->kind == DOWN_INPUT) {
        g.m = rows;
        g.n = inner;
        g.k = hidden;
        g.a = emo__gemm_matrix(args->dy, hidden, 0);
        g.a.order = order;
        g.a.divisor = args->k_total;
        g.b[0] = emo__gemm_weight(&slot->down, 0);
        g.c[0] = t->h + first * inner;
        g.ldc = inner;
    } else if (tile->kind == INPUT_GRADIENT) {
        g.m = rows;
        g.n = hidden;
        g.k = inner;
        g.a = emo__gemm_matrix(t->d_pre + first * 2 * inner, 2 * inner, 0);
        g.b[0] = emo__gemm_weight(&slot->gate, 0);
        g.c[0] = t->d_rows + first * hidden;
        g.ldc = hidden;
        emo__gemm_tile(t->gemm, &g, tile->m0, tile->m1, tile->n0, tile->n1, work);
        g.a.data = t->d_pre + first * 2 * inner + inner;
        g.b[0] = emo__gemm_weight(&slot->up, 0);
        g.beta = 1.0f;
    } else if (tile->kind == DOWN_GRADIENT) { /* (weight dy)^T h */
        g.m = hidden;
        g.n = inner;
        g.k = rows;
        g.a = emo__gemm_matrix(args->dy, hidden, 1);
        g.a.order = order;
        g.a.divisor = args->k_total;
        g.a.scale = args->weights;
        g.b[0] = emo__gemm_matrix(t->h + first * inner, inner, 0);
        g.c[0] = slot->d_down;
        g.ldc = inner;
        g.beta = 1.0f;
    } else { /* d_pre^T x */
        int up = tile->kind == UP_GRADIENT;
        g.m = inner;
        g.n = hidden;
        g.k = rows;
        g.a = emo__gemm_matrix(t->d_pre + first * 2 * inner + (up ? inner : 0), 2 * inner, 1);
        g.b[0] = emo__gemm_matrix(args->x, hidden, 0);
        g.b[0].order = order;
        g.b[0].divisor = args->k_total;
        g.c[0] = up ? slot->d_up : slot->d_gate;
        g.ldc = hidden;
        g.beta = 1.0f;
    }
    emo__gemm_tile(t->gemm, &g, tile->m0, tile->m1, tile->n0, tile->n1, work);
}

/* Assignments [begin, end), in plan order. */
static void activations(const backward_task *t, int64_t begin, int64_t end) {
    const emo_experts_args *args = t->args;
    int64_t inner = args->inner;
    for (int64_t i = begin; i < end; i++) {
        const float *gate = args->saved + i * 2 * inner;
        float *d_gate = t->d_pre + i * 2 * inner, *h = t->h + i * inner;
        for (int64_t c = 0; i + 4 < end && c < 2 * inner; c += 16)
            __builtin_prefetch(gate + 8 * inner + c); /* four rows ahead */
        float dot =
            t->rows->backward(inner, gate, gate + inner, h, args->weights[args->order[i]], h, d_gate, d_gate + inner);
        if (args->d_weights != NULL)
            args->d_weights[args->order[i]] = dot;
    }
}

static void activation_rows(void *arg, size_t index, size_t worker) {
    const backward_task *t = arg;
    (void)worker;
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    activations(t, (int64_t)index * ROWS_PER_TASK, end < t->assignments ? end : t->assignments);
}

static void backward_tile(void *arg, size_t index, size_t worker) {
    const backward_task *t = arg;
    emo__tile tile = t->tiles[index];
    one_tile(t, &tile, worker);
    if (!t->fused)
        return;
    int64_t first = t->args->offsets[tile.expert];
    activations(t, first + tile.m0, first + tile.m1);
    if (t->args->dx != NULL) {
        tile.kind = INPUT_GRADIENT;
        tile.n0 = 0;
        tile.n1 = t->args->hidden;
        one_tile(t, &tile, worker);
    }
}

/* dx += the assignments' input gradients; weights of left-out assignments get gradient 0. */
static void token_rows(void *arg, size_t index, size_t worker) {
    const backward_task *t = arg;
    const emo_experts_args *args = t->args;
    (void)worker;
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    end = end < args->tokens ? end : args->tokens;
    for (int64_t token = (int64_t)index * ROWS_PER_TASK; token < end; token++) {
        const int32_t *inverse = args->inverse + token * args->k_total;
        if (args->dx != NULL)
            t->rows->combine(args->hidden, args->k_total, inverse, NULL, t->d_rows, 1, args->dx + token * args->hidden);
        if (args->d_weights != NULL)
            for (int32_t j = 0; j < args->k_total; j++)
                if (inverse[j] < 0)
                    args->d_weights[token * args->k_total + j] = 0.0f;
    }
}

/* The tiles of pass 1; true when they go on to pass 2 and to the input gradients. */
static int list_first(const emo__cpu_exec *cpu, const emo_experts_args *args, emo__tile_list *list) {
    if (emo__fuse_rows(cpu, args->offsets, args->experts, args->inner, EMO__FUSED_INNER, DOWN_INPUT, list))
        return 1;
    int64_t want = emo__tiles_per_group(cpu, args->offsets, args->experts);
    list->count = 0;
    for (int32_t e = 0; e < args->experts; e++)
        emo__tile_list_add(list, emo__gemm_kernels_of(cpu->isa), e, DOWN_INPUT, args->offsets[e + 1] - args->offsets[e],
                           args->inner, want, 0, 0);
    return 0;
}

static void list_second(const emo__cpu_exec *cpu, const emo_experts_args *args, int fused, emo__tile_list *list) {
    const emo__gemm_kernels *kernels = emo__gemm_kernels_of(cpu->isa);
    int64_t want = emo__tiles_per_group(cpu, args->offsets, args->experts);
    list->count = 0;
    for (int32_t e = 0; e < args->experts; e++) {
        int64_t rows = args->offsets[e + 1] - args->offsets[e];
        if (rows <= 0)
            continue;
        const emo_expert_slot *slot = &args->table.slots[e];
        if (args->dx != NULL && !fused)
            emo__tile_list_add(list, kernels, e, INPUT_GRADIENT, rows, args->hidden, want, 0, 0);
        if (slot->d_gate != NULL)
            emo__tile_list_add(list, kernels, e, GATE_GRADIENT, args->inner, args->hidden, want, 0, 0);
        if (slot->d_up != NULL)
            emo__tile_list_add(list, kernels, e, UP_GRADIENT, args->inner, args->hidden, want, 0, 0);
        if (slot->d_down != NULL)
            emo__tile_list_add(list, kernels, e, DOWN_GRADIENT, args->hidden, args->inner, want, 0, 0);
    }
}

emo_status emo__cpu_experts_backward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    emo_status status = emo__experts_loaded(&args->table, args->offsets, args->experts, err);
    if (status != EMO_OK)
        return status;
    if (args->saved == NULL)
        return emo__fail(err, EMO_E_INTERNAL, "experts_backward needs the pre-activations that the forward saved");
    size_t assignments = (size_t)args->offsets[args->experts];
    size_t inner_bytes = (size_t)args->inner * sizeof(float), hidden_bytes = (size_t)args->hidden * sizeof(float);
    emo__tile_list first = {0}, second = {0};
    int fused = list_first(cpu, args, &first);
    list_second(cpu, args, fused, &second);
    size_t total = 0, first_at, second_at, h_at, pre_at, rows_at, work_at;
    if (!emo__scratch_add(&total, first.count, sizeof(emo__tile), &first_at) ||
        !emo__scratch_add(&total, second.count, sizeof(emo__tile), &second_at) ||
        !emo__scratch_add(&total, assignments, inner_bytes, &h_at) ||
        !emo__scratch_add(&total, assignments, 2 * inner_bytes, &pre_at) ||
        !emo__scratch_add(&total, args->dx != NULL ? assignments : 0, hidden_bytes, &rows_at) ||
        !emo__scratch_add(&total, cpu->workers, emo__gemm_work_bytes(), &work_at))
        return emo__fail_memory(err, SIZE_MAX);
    char *base = emo__cpu_scratch(cpu, total, err);
    if (base == NULL)
        return EMO_E_OUT_OF_MEMORY;
    first.tiles = (emo__tile *)(void *)(base + first_at);
    second.tiles = (emo__tile *)(void *)(base + second_at);
    (void)list_first(cpu, args, &first);
    list_second(cpu, args, fused, &second);
    backward_task task = {.args = args,
                          .gemm = emo__gemm_kernels_of(cpu->isa),
                          .rows = emo__swiglu_kernels_of(cpu->isa),
                          .tiles = first.tiles,
                          .h = (float *)(void *)(base + h_at),
                          .d_pre = (float *)(void *)(base + pre_at),
                          .d_rows = (float *)(void *)(base + rows_at),
                          .assignments = (int64_t)assignments,
                          .work = base + work_at,
                          .fused = fused};
    emo__parallel_for(cpu->rt, first.count, backward_tile, &task);
    if (!fused)
        emo__parallel_for(cpu->rt, (assignments + ROWS_PER_TASK - 1) / ROWS_PER_TASK, activation_rows, &task);
    task.fused = 0;
    task.tiles = second.tiles;
    emo__parallel_for(cpu->rt, second.count, backward_tile, &task);
    emo__parallel_for(cpu->rt, (size_t)((args->tokens + ROWS_PER_TASK - 1) / ROWS_PER_TASK), token_rows, &task);
    return EMO_OK;
}
