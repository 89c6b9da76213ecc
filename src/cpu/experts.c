/* SPDX-License-Identifier: Apache-2.0 */
/* Experts, forward, fused: gate and up with gathered rows, SwiGLU, down, weighted sum per token.
 *
 * Three passes over the workers: (1) tiles of gate|up and at once their part of h; (2) tiles of down into `out`, one
 * row per assignment; (3) per token, the sum over its assignments in the order of j. No step adds across threads.
 * In phases, RUN is (1) and (2) for the experts that are there, COMBINE is (3). */
#include <math.h>
#include <stdbool.h>

#include "base/status.h"
#include "cpu/experts.h"

/* Largest part of pass 1 when pre-activations are not saved but kept per worker. */
enum { TEMP_ROWS = 256, TEMP_COLS = 256 };

typedef struct forward_task {
    const emo_experts_args *args;
    const emo__gemm_kernels *gemm;
    const emo__swiglu_kernels *rows;
    const emo__tile *tiles;
    const int32_t *token; /* [assignments] */
    float *h;             /* [assignments, inner] */
    float *out;           /* [assignments, hidden] */
    char *temp;           /* per worker: [TEMP_ROWS, 2 TEMP_COLS], when nothing is saved */
    char *work;
    int fused;
} forward_task;

static float *work_of(const forward_task *t, size_t worker) {
    return (float *)(void *)(t->work + worker * emo__gemm_work_bytes(t->gemm));
}

/* out = h W_down^T on the tile's rows and the columns [n0, n1) */
static void down_part(const forward_task *t, const emo__tile *tile, int64_t n0, int64_t n1, size_t worker) {
    const emo_experts_args *args = t->args;
    int64_t first = args->offsets[tile->expert], rows = args->offsets[tile->expert + 1] - first;
    emo__gemm g = {.m = rows,
                   .n = args->hidden,
                   .k = args->inner,
                   .a = {emo__gemm_matrix(t->h + first * args->inner, args->inner, 0)},
                   .n_b = 1,
                   .b = {emo__gemm_weight(&args->table.slots[tile->expert].down, 1)},
                   .c = {t->out + first * args->hidden},
                   .ldc = args->hidden,
                   .alpha = 1.0f};
    emo__gemm_tile(t->gemm, &g, tile->m0, tile->m1, n0, n1, work_of(t, worker));
}

static void down_tile(void *arg, size_t index, size_t worker) {
    const forward_task *t = arg;
    down_part(t, &t->tiles[index], t->tiles[index].n0, t->tiles[index].n1, worker);
}

/* Columns [n0, n1) of gate, up and h; `again`: the rows are those of the worker's last call. */
static void gate_up_part(const forward_task *t, const emo__tile *tile, int64_t n0, int64_t n1, int again,
                         size_t worker) {
    const emo_experts_args *args = t->args;
    const emo_expert_slot *slot = &args->table.slots[tile->expert];
    int64_t first = args->offsets[tile->expert] + tile->m0; /* in plan order */
    emo__gemm g = {.m = tile->m1 - tile->m0,
                   .n = n1 - n0,
                   .k = args->hidden,
                   .a = {emo__gemm_matrix(args->x, args->hidden, 0)},
                   .n_b = 2,
                   .b = {emo__weight_part(&slot->gate, 1, n0), emo__weight_part(&slot->up, 1, n0)},
                   .alpha = 1.0f,
                   .again = again};
    g.a[0].order = t->token + first;
    if (args->saved != NULL) {
        g.ldc = 2 * args->inner;
        g.c[0] = args->saved + first * g.ldc + n0;
        g.c[1] = g.c[0] + args->inner;
    } else {
        g.ldc = 2 * TEMP_COLS;
        g.c[0] = (float *)(void *)(t->temp + worker * (TEMP_ROWS * 2 * TEMP_COLS * sizeof(float)));
        g.c[1] = g.c[0] + TEMP_COLS;
    }
    emo__gemm_tile(t->gemm, &g, 0, g.m, 0, g.n, work_of(t, worker));
    for (int64_t i = 0; i < g.m; i++)
        t->rows->forward(g.n, g.c[0] + i * g.ldc, g.c[1] + i * g.ldc, t->h + (first + i) * args->inner + n0);
}

static void gate_up_tile(void *arg, size_t index, size_t worker) {
    const forward_task *t = arg;
    const emo__tile *tile = &t->tiles[index];
    for (int64_t n = tile->n0; n < tile->n1; n += TEMP_COLS)
        gate_up_part(t, tile, n, n + TEMP_COLS < tile->n1 ? n + TEMP_COLS : tile->n1, n > tile->n0, worker);
    if (t->fused)
        down_part(t, tile, 0, t->args->hidden, worker);
}

enum { TOKENS_PER_TASK = 16 };

static void combine_tokens(void *arg, size_t index, size_t worker) {
    const forward_task *t = arg;
    const emo_experts_args *a = t->args;
    (void)worker;
    int64_t end = ((int64_t)index + 1) * TOKENS_PER_TASK;
    end = end < a->tokens ? end : a->tokens;
    for (int64_t token = (int64_t)index * TOKENS_PER_TASK; token < end; token++) {
        int64_t at = token * a->k_total;
        t->rows->combine(a->hidden, a->k_total, a->inverse + at, a->weights + at, t->out, a->accumulate,
                         a->y + token * a->hidden);
        if (a->out_norm != NULL)
            for (int32_t j = 0; j < a->k_total; j++) {
                const float *row = t->out + (a->inverse[at + j] < 0 ? 0 : a->inverse[at + j]) * a->hidden;
                a->out_norm[at + j] = a->inverse[at + j] < 0 ? 0.0f : sqrtf(t->rows->dot(a->hidden, row, row));
            }
    }
}

/* `rows` [E + 1]: differences are the rows of each expert that this call runs. */
static void list_tiles(const emo__cpu_exec *cpu, const emo_experts_args *args, const int32_t *rows, int down,
                       emo__tile_list *list) {
    const emo__gemm_kernels *kernels = cpu->gemm;
    int64_t want = emo__tiles_per_group(cpu, rows, args->experts);
    int limited = !down && args->saved == NULL;
    bool many = emo__active_groups(rows, args->experts) >= 16 * (int64_t)cpu->workers;
    list->count = 0;
    for (int32_t e = args->experts - 1; e >= 0; e--) { /* shared experts, which have the most rows, first */
        int64_t m = rows[e + 1] - rows[e], most_rows, most_cols;
        if (m == 0) /* most of them, where tokens are few */
            continue;
        emo__cpu_task_shape(cpu, m, down ? args->inner : args->hidden, down ? 1 : 2, &most_rows, &most_cols);
        if (many && cpu->window.work == 0) /* one of them is little */
            most_cols = 0;
        if (limited) {
            bool again = emo__gemm_rows_once(kernels, args->table.slots[e].gate.dtype, args->hidden) > 0;
            int64_t cols = again ? EMO__GEMM_NT : TEMP_COLS; /* in parts */
            most_rows = most_rows > 0 && most_rows < TEMP_ROWS ? most_rows : TEMP_ROWS;
            most_cols = most_cols > 0 && most_cols < cols ? most_cols : cols;
        }
        emo__tile_list_add(list, kernels, e, 0, m, down ? args->hidden : args->inner, want, most_rows, most_cols);
    }
}

/* The tiles of both passes; true when pass 1 does the work of pass 2. */
static int list_both(const emo__cpu_exec *cpu, const emo_experts_args *args, const int32_t *rows, emo__tile_list *up,
                     emo__tile_list *down) {
    down->count = 0;
    if (args->y == NULL && args->phases == 0) {
        list_tiles(cpu, args, rows, 0, up);
        return 0;
    }
    if (cpu->window.work == 0 && /* fused tasks are long */
        emo__fuse_rows(cpu, rows, args->experts, args->inner, args->saved != NULL ? EMO__FUSED_INNER : TEMP_COLS, 0,
                       up))
        return 1;
    list_tiles(cpu, args, rows, 0, up);
    list_tiles(cpu, args, rows, 1, down);
    return 0;
}

/* The plan's offsets without the rows of experts that are not there. */
static void rows_there(const emo_experts_args *args, int32_t *rows) {
    rows[0] = 0;
    for (int32_t e = 0; e < args->experts; e++) {
        const emo_expert_slot *slot = e < args->table.count ? &args->table.slots[e] : NULL;
        bool there = slot != NULL && slot->gate.data != NULL && slot->up.data != NULL && slot->down.data != NULL;
        rows[e + 1] = rows[e] + (there ? args->offsets[e + 1] - args->offsets[e] : 0);
    }
}

static void combine(emo__cpu_exec *cpu, forward_task *task) {
    emo__cpu_for(cpu, (size_t)((task->args->tokens + TOKENS_PER_TASK - 1) / TOKENS_PER_TASK),
                 task->args->tokens * task->args->k_total * task->args->hidden, combine_tokens, task);
}

emo_status emo__cpu_experts_forward(emo_exec *exec, const emo_experts_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    forward_task task = {.args = args, .gemm = cpu->gemm, .rows = emo__swiglu_kernels_of(cpu->isa), .out = args->out};
    if (args->phases == EMO_EXPERTS_COMBINE) {
        combine(cpu, &task);
        return EMO_OK;
    }
    bool part = args->phases == EMO_EXPERTS_RUN;
    bool whole = !part && args->y != NULL;
    emo_status status = part ? EMO_OK : emo__experts_loaded(&args->table, args->offsets, args->experts, err);
    if (status != EMO_OK)
        return status;
    size_t assignments = (size_t)args->offsets[args->experts];
    emo__tile_list up_list = {0}, down_list = {0};
    const int32_t *rows = args->offsets;
    if (part) {
        int32_t *there = emo__cpu_outer(cpu, ((size_t)args->experts + 1) * sizeof *there, err);
        if (there == NULL)
            return EMO_E_OUT_OF_MEMORY;
        rows_there(args, there);
        rows = there;
    }
    int64_t each = rows[args->experts] * args->hidden * args->inner;
    (void)list_both(cpu, args, rows, &up_list, &down_list);
    size_t total = 0, up_at, down_at, token_at, h_at, out_at, temp_at, work_at;
    if (!emo__scratch_add(&total, up_list.count, sizeof(emo__tile), &up_at) ||
        !emo__scratch_add(&total, down_list.count, sizeof(emo__tile), &down_at) ||
        !emo__scratch_add(&total, assignments, sizeof(int32_t), &token_at) ||
        !emo__scratch_add(&total, assignments, (size_t)args->inner * sizeof(float), &h_at) ||
        !emo__scratch_add(&total, whole ? assignments : 0, (size_t)args->hidden * sizeof(float), &out_at) ||
        !emo__scratch_add(&total, args->saved != NULL ? 0 : cpu->workers, TEMP_ROWS * 2 * TEMP_COLS * sizeof(float),
                          &temp_at) ||
        !emo__scratch_add(&total, cpu->workers, emo__gemm_work_bytes(cpu->gemm), &work_at))
        return emo__fail_memory(err, SIZE_MAX);
    char *base = emo__cpu_scratch(cpu, total, err);
    if (base == NULL)
        return EMO_E_OUT_OF_MEMORY;
    up_list.tiles = (emo__tile *)(void *)(base + up_at);
    down_list.tiles = (emo__tile *)(void *)(base + down_at);
    int fused = list_both(cpu, args, rows, &up_list, &down_list);
    int32_t *token = (int32_t *)(void *)(base + token_at);
    emo__assignment_rows(args, token, NULL);
    task.tiles = up_list.tiles;
    task.token = token;
    task.h = (float *)(void *)(base + h_at);
    task.temp = base + temp_at;
    task.work = base + work_at;
    task.fused = fused;
    if (!part)
        task.out = (float *)(void *)(base + out_at);
    emo__cpu_for(cpu, up_list.count, 2 * each, gate_up_tile, &task);
    task.tiles = down_list.tiles;
    emo__cpu_for(cpu, down_list.count, each, down_tile, &task);
    if (whole)
        combine(cpu, &task);
    return EMO_OK;
}
