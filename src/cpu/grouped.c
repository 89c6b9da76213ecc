/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped products, gather and combine: the primitives behind the expert operators, and the task lists they share. */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "cpu/experts.h"
#include "tensor/quant.h"

void emo__tile_list_add(emo__tile_list *list, const emo__gemm_kernels *kernels, int32_t expert, int32_t kind, int64_t m,
                        int64_t n, int64_t want, int64_t max_rows, int64_t max_cols) {
    if (m <= 0 || n <= 0)
        return;
    int64_t rows, cols;
    emo__gemm_cut(kernels, m, n, want, max_rows, max_cols, &rows, &cols);
    for (int64_t j = 0; j < n; j += cols)
        for (int64_t i = 0; i < m; i += rows) {
            if (list->tiles != NULL)
                list->tiles[list->count] =
                    (emo__tile){expert, kind, i, i + rows < m ? i + rows : m, j, j + cols < n ? j + cols : n};
            list->count++;
        }
}

int64_t emo__active_groups(const int32_t *offsets, int32_t groups) {
    int64_t active = 0;
    for (int32_t e = 0; e < groups; e++)
        active += offsets[e + 1] > offsets[e];
    return active;
}

int64_t emo__tiles_per_group(const emo__cpu_exec *cpu, const int32_t *offsets, int32_t groups) {
    int64_t active = emo__active_groups(offsets, groups);
    if (cpu->workers <= 1 || active == 0)
        return 1;
    return (4 * (int64_t)cpu->workers + active - 1) / active;
}

int emo__fuse_rows(const emo__cpu_exec *cpu, const int32_t *offsets, int32_t experts, int64_t inner, int64_t max_inner,
                   int32_t kind, emo__tile_list *list) {
    if (inner > max_inner)
        return 0;
    emo__tile_list blocks = {0}; /* counted first: `list` may have room for another cut only */
    for (int pass = 0; pass < 2; pass++) {
        for (int32_t e = 0; e < experts; e++)
            emo__tile_list_add(&blocks, cpu->gemm, e, kind, offsets[e + 1] - offsets[e], inner, 1, EMO__FUSED_ROWS,
                               EMO__FUSED_INNER);
        if (pass == 0 && cpu->workers > 1 && blocks.count < 4 * cpu->workers)
            return 0;
        if (pass == 0)
            blocks = (emo__tile_list){list->tiles, 0};
    }
    *list = blocks;
    return 1;
}

void emo__assignment_rows(const emo_experts_args *args, int32_t *token, float *weight) {
    for (int32_t i = 0; i < args->offsets[args->experts]; i++) {
        token[i] = args->order[i] / args->k_total;
        if (weight != NULL)
            weight[i] = args->weights[args->order[i]];
    }
}

const emo_weight *emo__slot_weight(const emo_expert_slot *slot, int32_t which) {
    return which == EMO_SLOT_GATE ? &slot->gate : which == EMO_SLOT_UP ? &slot->up : &slot->down;
}

float *emo__slot_gradient(const emo_expert_slot *slot, int32_t which) {
    return which == EMO_SLOT_GATE ? slot->d_gate : which == EMO_SLOT_UP ? slot->d_up : slot->d_down;
}

emo__gemm_operand emo__weight_part(const emo_weight *weight, int trans, int64_t first) {
    emo__gemm_operand part = emo__gemm_weight(weight, trans);
    part.data = (const char *)weight->data + emo__dtype_run(weight->dtype, trans ? first * weight->stride : first);
    return part;
}

emo_status emo__experts_loaded(const emo_expert_table *table, const int32_t *offsets, int32_t groups, emo_error *err) {
    for (int32_t e = 0; e < groups; e++) {
        const emo_expert_slot *slot = e < table->count ? &table->slots[e] : NULL;
        if (offsets[e + 1] > offsets[e] &&
            (slot == NULL || slot->gate.data == NULL || slot->up.data == NULL || slot->down.data == NULL))
            return emo__fail(err, EMO_E_INTERNAL, "expert %d has %d rows but is not loaded", (int)e,
                             (int)(offsets[e + 1] - offsets[e]));
    }
    return EMO_OK;
}

/* ---- grouped products ---- */

typedef struct grouped_task {
    const emo_grouped_gemm_args *args;
    const emo__gemm_kernels *kernels;
    const emo__tile *tiles;
    char *work;
} grouped_task;

static void grouped_tile(void *arg, size_t index, size_t worker) {
    const grouped_task *task = arg;
    const emo_grouped_gemm_args *args = task->args;
    const emo__tile *tile = &task->tiles[index];
    const emo_weight *weight = emo__slot_weight(&args->table.slots[tile->expert], args->slot);
    int64_t first = args->offsets[tile->expert], rows = args->offsets[tile->expert + 1] - first;
    emo__gemm g = {.n_b = 1, .alpha = 1.0f, .beta = args->accumulate ? 1.0f : 0.0f};
    if (args->mode == EMO_GROUPED_WGRAD) {
        g.m = weight->rows;
        g.n = weight->cols;
        g.k = rows;
        g.a[0] = emo__gemm_matrix(args->a + first * args->lda, args->lda, 1);
        g.b[0] = emo__gemm_matrix(args->b + first * args->ldb, args->ldb, 0);
        g.c[0] = emo__slot_gradient(&args->table.slots[tile->expert], args->slot);
        g.ldc = weight->cols;
        g.beta = 1.0f;
    } else {
        int forward = args->mode == EMO_GROUPED_FORWARD;
        g.m = rows;
        g.n = forward ? weight->rows : weight->cols;
        g.k = forward ? weight->cols : weight->rows;
        g.a[0] = emo__gemm_matrix(args->a + first * args->lda, args->lda, 0);
        g.b[0] = emo__gemm_weight(weight, forward);
        g.c[0] = args->c + first * args->ldc;
        g.ldc = args->ldc;
    }
    emo__gemm_tile(task->kernels, &g, tile->m0, tile->m1, tile->n0, tile->n1,
                   (float *)(void *)(task->work + worker * emo__gemm_work_bytes(task->kernels)));
}

static void list_groups(const emo__cpu_exec *cpu, const emo_grouped_gemm_args *args, const emo__gemm_kernels *kernels,
                        emo__tile_list *list) {
    int64_t want = emo__tiles_per_group(cpu, args->offsets, args->groups);
    list->count = 0;
    for (int32_t e = 0; e < args->groups; e++) {
        int64_t rows = args->offsets[e + 1] - args->offsets[e];
        if (rows <= 0)
            continue;
        const emo_weight *w = emo__slot_weight(&args->table.slots[e], args->slot);
        if (args->mode == EMO_GROUPED_FORWARD)
            emo__tile_list_add(list, kernels, e, 0, rows, w->rows, want, 0, 0);
        else if (args->mode == EMO_GROUPED_DGRAD)
            emo__tile_list_add(list, kernels, e, 0, rows, w->cols, want, 0, 0);
        else if (emo__slot_gradient(&args->table.slots[e], args->slot) != NULL)
            emo__tile_list_add(list, kernels, e, 0, w->rows, w->cols, want, 0, 0);
    }
}

static emo_status grouped_gemm(emo_exec *exec, const emo_grouped_gemm_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    const emo__gemm_kernels *kernels = cpu->gemm;
    for (int32_t e = 0; e < args->groups; e++)
        if (args->offsets[e + 1] > args->offsets[e] && args->mode != EMO_GROUPED_WGRAD &&
            emo__slot_weight(&args->table.slots[e], args->slot)->data == NULL)
            return emo__fail(err, EMO_E_INTERNAL, "group %d has rows but its weight is not loaded", (int)e);
    emo__tile_list list = {0};
    list_groups(cpu, args, kernels, &list);
    size_t total = 0, tiles_at, work_at;
    if (!emo__scratch_add(&total, list.count, sizeof(emo__tile), &tiles_at) ||
        !emo__scratch_add(&total, cpu->workers, emo__gemm_work_bytes(cpu->gemm), &work_at))
        return emo__fail_memory(err, SIZE_MAX);
    char *base = emo__cpu_scratch(cpu, total, err);
    if (base == NULL)
        return EMO_E_OUT_OF_MEMORY;
    list.tiles = (emo__tile *)(void *)(base + tiles_at);
    list_groups(cpu, args, kernels, &list);
    grouped_task task = {args, kernels, list.tiles, base + work_at};
    emo__parallel_for(cpu->rt, list.count, grouped_tile, &task);
    return EMO_OK;
}

/* ---- gather and combine ---- */

enum { ROWS_PER_TASK = 16 };

static size_t row_tasks(int64_t rows) { return (size_t)((rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK); }

static void gather_rows(void *arg, size_t index, size_t worker) {
    const emo_gather_args *args = arg;
    (void)worker;
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    int64_t count = args->count != NULL ? *args->count : args->max_rows;
    end = end < count ? end : count;
    for (int64_t i = (int64_t)index * ROWS_PER_TASK; i < end; i++)
        memcpy(args->dst + i * args->width,
               args->src + (args->order != NULL ? args->order[i] : i) / args->k_total * args->width,
               (size_t)args->width * sizeof(float));
}

static emo_status gather(emo_exec *exec, const emo_gather_args *args, emo_error *err) {
    (void)err;
    emo_gather_args copy = *args;
    emo__parallel_for(emo__cpu(exec)->rt, row_tasks(args->count != NULL ? *args->count : args->max_rows), gather_rows,
                      &copy);
    return EMO_OK;
}

typedef struct combine_task {
    const emo_combine_args *args;
    const emo__swiglu_kernels *kernels;
} combine_task;

static void combine_rows(void *arg, size_t index, size_t worker) {
    const combine_task *task = arg;
    const emo_combine_args *a = task->args;
    (void)worker;
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    end = end < a->tokens ? end : a->tokens;
    for (int64_t t = (int64_t)index * ROWS_PER_TASK; t < end; t++) {
        const int32_t *inverse = a->inverse + t * a->k_total;
        if (a->dst != NULL)
            task->kernels->combine(a->width, a->k_total, inverse,
                                   a->weights != NULL ? a->weights + t * a->k_total : NULL, a->src, a->accumulate,
                                   a->dst + t * a->width);
        if (a->d_weights != NULL)
            for (int32_t j = 0; j < a->k_total; j++)
                a->d_weights[t * a->k_total + j] =
                    inverse[j] < 0 ? 0.0f
                                   : task->kernels->dot(a->width, a->dy + t * a->width, a->src + inverse[j] * a->width);
    }
}

static emo_status combine(emo_exec *exec, const emo_combine_args *args, emo_error *err) {
    (void)err;
    emo__cpu_exec *cpu = emo__cpu(exec);
    combine_task task = {args, emo__swiglu_kernels_of(cpu->isa)};
    emo__parallel_for(cpu->rt, row_tasks(args->tokens), combine_rows, &task);
    return EMO_OK;
}

void emo__cpu_register_experts(emo_backend_ops *ops) {
    ops->grouped_gemm = grouped_gemm;
    ops->gather = gather;
    ops->combine = combine;
    ops->experts_forward = emo__cpu_experts_forward;
    ops->experts_backward = emo__cpu_experts_backward;
}
