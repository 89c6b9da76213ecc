/* SPDX-License-Identifier: Apache-2.0 */
/* Experts, backward. Only the pre-activations were saved: h is computed again, and the routing weights' gradient is
 * dot(h, dy W_down), which needs no expert output.
 *
 * Passes: (1) p = dy W_down, per assignment; (2) per assignment: h over p, d_weights, d_gate|d_up of the
 * pre-activations; (3) input gradients per assignment, and the three weight gradients of each expert; (4) dx per token,
 * in the order of j. Three ways to run (1) to (3), with the same results: a task per expert that takes blocks of rows
 * through all of them while they are in the cache; a task per block of rows for all but the weight gradients; a task
 * per tile of each product. */
#include "base/checked.h"
#include "base/status.h"
#include "cpu/experts.h"

enum { DOWN_INPUT, INPUT_GRADIENT, GATE_UP_GRADIENT, DOWN_GRADIENT };
enum { BY_TILE, BY_ROWS, BY_EXPERT };
enum { ROWS_PER_TASK = 16 };

/* The rows that weight gradients sum as one chain, so that blocks add up as one product over all rows would. */
enum { BLOCK_ROWS = EMO__GEMM_KC };
/* A matrix of at most this many elements stays in the cache with its gradient, and the other two with theirs. */
enum { SMALL_MATRIX = 65536 };

typedef struct backward_task {
    const emo_experts_args *args;
    const emo__gemm_kernels *gemm;
    const emo__swiglu_kernels *rows;
    const emo__tile *tiles;
    const int32_t *token; /* [assignments], in plan order, as is the weight */
    const float *weight;
    float *h;      /* [assignments, inner]: dy W_down, then h; by expert: [BLOCK_ROWS, inner] for each worker */
    float *d_pre;  /* [the same, 2 inner] gradient of gate|up */
    float *d_rows; /* [assignments, hidden] gradient of each assignment's input */
    int64_t assignments;
    char *work;
    int fused;
} backward_task;

/* Rows of one expert, all or some. */
typedef struct block {
    int32_t expert;
    int64_t first; /* in plan order */
    int64_t rows;
    float *h; /* of the block's first row */
    float *d_pre;
} block;

static block whole_expert(const backward_task *t, int32_t expert) {
    const emo_experts_args *args = t->args;
    int64_t first = args->offsets[expert];
    return (block){.expert = expert,
                   .first = first,
                   .rows = args->offsets[expert + 1] - first,
                   .h = t->h + first * args->inner,
                   .d_pre = t->d_pre + first * 2 * args->inner};
}

/* The product of one kind on a block: m, n, operands. */
static emo__gemm product_of(const backward_task *t, const block *b, int32_t kind) {
    const emo_experts_args *args = t->args;
    const emo_expert_slot *slot = &args->table.slots[b->expert];
    int64_t inner = args->inner, hidden = args->hidden;
    emo__gemm g = {.n_b = 1, .alpha = 1.0f};
    if (kind == DOWN_INPUT) {
        g.m = b->rows;
        g.n = inner;
        g.k = hidden;
        g.a[0] = emo__gemm_matrix(args->dy, hidden, 0);
        g.a[0].order = t->token + b->first;
        g.b[0] = emo__gemm_weight(&slot->down, 0);
        g.c[0] = b->h;
        g.ldc = inner;
    } else if (kind == INPUT_GRADIENT) { /* d_pre [gate over up] */
        g.m = b->rows;
        g.n = hidden;
        g.k = 2 * inner;
        g.a[0] = emo__gemm_matrix(b->d_pre, 2 * inner, 0);
        g.b[0] = emo__gemm_weight(&slot->gate, 0);
        g.b[1] = emo__gemm_weight(&slot->up, 0);
        g.joined = inner;
        g.c[0] = t->d_rows + b->first * hidden;
        g.ldc = hidden;
    } else if (kind == DOWN_GRADIENT) { /* (weight dy)^T h */
        g.m = hidden;
        g.n = inner;
        g.k = b->rows;
        g.a[0] = emo__gemm_matrix(args->dy, hidden, 1);
        g.a[0].order = t->token + b->first;
        g.a[0].scale = t->weight + b->first;
        g.b[0] = emo__gemm_matrix(b->h, inner, 0);
        g.c[0] = slot->d_down;
        g.ldc = inner;
        g.beta = 1.0f;
    } else { /* d_pre^T x, for gate and up or for the one that is trained */
        emo__gemm_operand gate = emo__gemm_matrix(b->d_pre, 2 * inner, 1);
        emo__gemm_operand up = emo__gemm_matrix(b->d_pre + inner, 2 * inner, 1);
        int both = slot->d_gate != NULL && slot->d_up != NULL;
        g.m = inner;
        g.n = hidden;
        g.k = b->rows;
        g.n_a = both ? 2 : 1;
        g.a[0] = slot->d_gate != NULL ? gate : up;
        g.a[1] = up;
        g.b[0] = emo__gemm_matrix(args->x, hidden, 0);
        g.b[0].order = t->token + b->first;
        g.c[0] = slot->d_gate != NULL ? slot->d_gate : slot->d_up;
        g.c[1] = slot->d_up;
        g.ldc = hidden;
        g.beta = 1.0f;
    }
    return g;
}

static float *work_of(const backward_task *t, size_t worker) {
    return (float *)(void *)(t->work + worker * emo__gemm_work_bytes(t->gemm));
}

/* Most rows of a tile; 0: the engine's own limit. */
static int64_t most_rows(int32_t kind) { return kind == GATE_UP_GRADIENT ? EMO__GEMM_MT / 2 : 0; }

static void whole_product(const backward_task *t, const block *b, int32_t kind, size_t worker) {
    emo__gemm g = product_of(t, b, kind);
    int64_t rows, cols;
    emo__gemm_cut(t->gemm, g.m, g.n, 1, most_rows(kind), 0, &rows, &cols);
    for (int64_t i = 0; i < g.m; i += rows)
        emo__gemm_tile(t->gemm, &g, i, i + rows < g.m ? i + rows : g.m, 0, g.n, work_of(t, worker));
}

/* Rows [begin, end) of a block. */
static void activations(const backward_task *t, const block *b, int64_t begin, int64_t end) {
    const emo_experts_args *args = t->args;
    int64_t inner = args->inner;
    for (int64_t i = begin; i < end; i++) {
        const float *gate = args->saved + (b->first + i) * 2 * inner;
        float *d_gate = b->d_pre + i * 2 * inner, *h = b->h + i * inner;
        for (int64_t c = 0; i + 4 < end && c < 2 * inner; c += 16)
            __builtin_prefetch(gate + 8 * inner + c); /* four rows ahead */
        float dot = t->rows->backward(inner, gate, gate + inner, h, t->weight[b->first + i], h, d_gate, d_gate + inner);
        if (args->d_weights != NULL)
            args->d_weights[args->order[b->first + i]] = dot;
    }
}

static void activation_rows(void *arg, size_t index, size_t worker) {
    const backward_task *t = arg;
    block all = {.h = t->h, .d_pre = t->d_pre};
    (void)worker;
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    activations(t, &all, (int64_t)index * ROWS_PER_TASK, end < t->assignments ? end : t->assignments);
}

static void backward_tile(void *arg, size_t index, size_t worker) {
    const backward_task *t = arg;
    const emo__tile *tile = &t->tiles[index];
    block b = whole_expert(t, tile->expert);
    emo__gemm g = product_of(t, &b, tile->kind);
    emo__gemm_tile(t->gemm, &g, tile->m0, tile->m1, tile->n0, tile->n1, work_of(t, worker));
    if (!t->fused)
        return;
    activations(t, &b, tile->m0, tile->m1);
    if (t->args->dx != NULL) {
        g = product_of(t, &b, INPUT_GRADIENT);
        emo__gemm_tile(t->gemm, &g, tile->m0, tile->m1, 0, g.n, work_of(t, worker));
    }
}

/* All of one expert. The last come first: shared experts, which have the most rows. */
static void backward_expert(void *arg, size_t index, size_t worker) {
    const backward_task *t = arg;
    const emo_experts_args *args = t->args;
    int32_t expert = args->experts - 1 - (int32_t)index;
    const emo_expert_slot *slot = &args->table.slots[expert];
    int64_t end = args->offsets[expert + 1];
    for (int64_t first = args->offsets[expert]; first < end; first += BLOCK_ROWS) {
        block b = {.expert = expert,
                   .first = first,
                   .rows = end - first < BLOCK_ROWS ? end - first : BLOCK_ROWS,
                   .h = t->h + (int64_t)worker * BLOCK_ROWS * args->inner,
                   .d_pre = t->d_pre + (int64_t)worker * BLOCK_ROWS * 2 * args->inner};
        whole_product(t, &b, DOWN_INPUT, worker);
        activations(t, &b, 0, b.rows);
        if (args->dx != NULL)
            whole_product(t, &b, INPUT_GRADIENT, worker);
        if (slot->d_gate != NULL || slot->d_up != NULL)
            whole_product(t, &b, GATE_UP_GRADIENT, worker);
        if (slot->d_down != NULL)
            whole_product(t, &b, DOWN_GRADIENT, worker);
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

/* Whether tasks of one expert each keep all workers busy and their matrices in the cache. */
static int by_expert(const emo__cpu_exec *cpu, const emo_experts_args *args) {
    int64_t most = 0;
    for (int32_t e = 0; e < args->experts; e++) {
        int64_t rows = args->offsets[e + 1] - args->offsets[e];
        most = rows > most ? rows : most;
    }
    return args->inner <= SMALL_MATRIX / args->hidden &&
           (cpu->workers <= 1 || most <= args->offsets[args->experts] / (int64_t)cpu->workers);
}

/* The tiles of pass 1 and how they run: BY_ROWS when they go on to pass 2 and to the input gradients. */
static int list_first(const emo__cpu_exec *cpu, const emo_experts_args *args, emo__tile_list *list) {
    list->count = 0;
    if (by_expert(cpu, args))
        return BY_EXPERT;
    if (emo__fuse_rows(cpu, args->offsets, args->experts, args->inner, EMO__FUSED_INNER, DOWN_INPUT, list))
        return BY_ROWS;
    int64_t want = emo__tiles_per_group(cpu, args->offsets, args->experts);
    list->count = 0;
    for (int32_t e = 0; e < args->experts; e++)
        emo__tile_list_add(list, cpu->gemm, e, DOWN_INPUT, args->offsets[e + 1] - args->offsets[e], args->inner, want,
                           0, 0);
    return BY_TILE;
}

static void list_second(const emo__cpu_exec *cpu, const emo_experts_args *args, int way, emo__tile_list *list) {
    const emo__gemm_kernels *kernels = cpu->gemm;
    int64_t want = emo__tiles_per_group(cpu, args->offsets, args->experts);
    list->count = 0;
    for (int32_t e = 0; e < args->experts && way != BY_EXPERT; e++) {
        int64_t rows = args->offsets[e + 1] - args->offsets[e];
        if (rows <= 0)
            continue;
        const emo_expert_slot *slot = &args->table.slots[e];
        if (args->dx != NULL && way == BY_TILE)
            emo__tile_list_add(list, kernels, e, INPUT_GRADIENT, rows, args->hidden, want, 0, 0);
        if (slot->d_gate != NULL || slot->d_up != NULL)
            emo__tile_list_add(list, kernels, e, GATE_UP_GRADIENT, args->inner, args->hidden, want,
                               most_rows(GATE_UP_GRADIENT), 0);
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
    int way = list_first(cpu, args, &first);
    list_second(cpu, args, way, &second);
    size_t rows = way == BY_EXPERT ? cpu->workers * BLOCK_ROWS : assignments;
    size_t total = 0, first_at, second_at, token_at, weight_at, h_at, pre_at, rows_at, work_at;
    if (!emo__scratch_add(&total, first.count, sizeof(emo__tile), &first_at) ||
        !emo__scratch_add(&total, second.count, sizeof(emo__tile), &second_at) ||
        !emo__scratch_add(&total, assignments, sizeof(int32_t), &token_at) ||
        !emo__scratch_add(&total, assignments, sizeof(float), &weight_at) ||
        !emo__scratch_add(&total, rows, inner_bytes, &h_at) ||
        !emo__scratch_add(&total, rows, 2 * inner_bytes, &pre_at) ||
        !emo__scratch_add(&total, args->dx != NULL ? assignments : 0, hidden_bytes, &rows_at) ||
        !emo__scratch_add(&total, cpu->workers, emo__gemm_work_bytes(cpu->gemm), &work_at))
        return emo__fail_memory(err, SIZE_MAX);
    char *base = emo__cpu_scratch(cpu, total, err);
    if (base == NULL)
        return EMO_E_OUT_OF_MEMORY;
    first.tiles = (emo__tile *)(void *)(base + first_at);
    second.tiles = (emo__tile *)(void *)(base + second_at);
    (void)list_first(cpu, args, &first);
    list_second(cpu, args, way, &second);
    int32_t *token = (int32_t *)(void *)(base + token_at);
    float *weight = (float *)(void *)(base + weight_at);
    emo__assignment_rows(args, token, weight);
    backward_task task = {.args = args,
                          .gemm = cpu->gemm,
                          .rows = emo__swiglu_kernels_of(cpu->isa),
                          .tiles = first.tiles,
                          .token = token,
                          .weight = weight,
                          .h = (float *)(void *)(base + h_at),
                          .d_pre = (float *)(void *)(base + pre_at),
                          .d_rows = (float *)(void *)(base + rows_at),
                          .assignments = (int64_t)assignments,
                          .work = base + work_at,
                          .fused = way == BY_ROWS};
    if (way == BY_EXPERT)
        emo__parallel_for(cpu->rt, (size_t)args->experts, backward_expert, &task);
    emo__parallel_for(cpu->rt, first.count, backward_tile, &task);
    if (way == BY_TILE)
        emo__parallel_for(cpu->rt, (assignments + ROWS_PER_TASK - 1) / ROWS_PER_TASK, activation_rows, &task);
    task.fused = 0;
    task.tiles = second.tiles;
    emo__parallel_for(cpu->rt, second.count, backward_tile, &task);
    emo__parallel_for(cpu->rt, (size_t)((args->tokens + ROWS_PER_TASK - 1) / ROWS_PER_TASK), token_rows, &task);
    return EMO_OK;
}
