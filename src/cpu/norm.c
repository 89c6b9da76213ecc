/* SPDX-License-Identifier: Apache-2.0 */
/* RMSNorm and RoPE. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "cpu/ops_kernels.h"
#include "tensor/dtype.h"

/* rows per task; also the unit in which weight gradients are summed, hence part of the result */
enum { ROWS_PER_TASK = 64, COLUMNS_PER_TASK = 256 };

static size_t tasks_for(int64_t count, int64_t per_task) { return (size_t)((count + per_task - 1) / per_task); }

typedef struct norm_task {
    const emo_norm_args *args;
    const emo__ops_kernels *kernels;
    const float *weight;
    float *partial; /* [tasks, hidden] */
    int64_t tasks;
} norm_task;

static void norm_rows(void *task, size_t index, size_t worker) {
    const norm_task *t = task;
    const emo_norm_args *a = t->args;
    int64_t first = (int64_t)index * ROWS_PER_TASK, n = a->hidden;
    (void)worker;
    for (int64_t i = first; i < first + ROWS_PER_TASK && i < a->tokens; i++) {
        float rstd = t->kernels->norm(n, a->eps, a->x + i * n, t->weight, a->y + i * n);
        if (a->rstd != NULL)
            a->rstd[i] = rstd;
    }
}

/* The weight as f32, converted into the front of a region of `extra` more floats. */
static emo_status norm_prepare(emo__cpu_exec *cpu, norm_task *t, size_t extra, emo_error *err) {
    const emo_norm_args *a = t->args;
    size_t floats = 0, bytes = 0;
    if (!emo__add_size((size_t)a->hidden, extra, &floats) || !emo__mul_size(floats, sizeof(float), &bytes))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "a norm over %lld x %lld does not fit in memory",
                         (long long)a->tokens, (long long)a->hidden);
    float *region = emo__cpu_scratch(cpu, bytes, err);
    if (region == NULL)
        return EMO_E_OUT_OF_MEMORY;
    t->weight = a->weight.data;
    t->partial = region + a->hidden;
    if (a->weight.dtype != EMO_DTYPE_F32) {
        if (!emo__convert(region, EMO_DTYPE_F32, a->weight.data, a->weight.dtype, (size_t)a->hidden))
            return emo__fail(err, EMO_E_UNSUPPORTED, "a norm weight cannot be %s; f32, f16 and bf16 are supported",
                             emo_dtype_name(a->weight.dtype) != NULL ? emo_dtype_name(a->weight.dtype) : "this type");
        t->weight = region;
    }
    return EMO_OK;
}

static emo_status norm_forward(emo_exec *exec, const emo_norm_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    norm_task t = {args, emo__ops_kernels_of(cpu), NULL, NULL, (int64_t)tasks_for(args->tokens, ROWS_PER_TASK)};
    emo_status status = norm_prepare(cpu, &t, 0, err);
    if (status == EMO_OK)
        emo__parallel_for(cpu->rt, (size_t)t.tasks, norm_rows, &t);
    return status;
}

static void norm_back_rows(void *task, size_t index, size_t worker) {
    const norm_task *t = task;
    const emo_norm_args *a = t->args;
    int64_t first = (int64_t)index * ROWS_PER_TASK, n = a->hidden;
    float *sum = a->d_weight != NULL ? t->partial + (int64_t)index * n : NULL;
    (void)worker;
    if (sum != NULL)
        memset(sum, 0, (size_t)n * sizeof(float));
    for (int64_t i = first; i < first + ROWS_PER_TASK && i < a->tokens; i++)
        t->kernels->norm_back(n, a->x + i * n, t->weight, a->rstd[i], a->dy + i * n, a->dx + i * n, a->dx_accumulate,
                              sum);
}

static void norm_sum_columns(void *task, size_t index, size_t worker) {
    const norm_task *t = task;
    int64_t n = t->args->hidden, first = (int64_t)index * COLUMNS_PER_TASK;
    int64_t width = n - first < COLUMNS_PER_TASK ? n - first : COLUMNS_PER_TASK;
    (void)worker;
    for (int64_t i = 0; i < t->tasks; i++)
        t->kernels->add(width, t->partial + i * n + first, t->args->d_weight + first);
}

static emo_status norm_backward(emo_exec *exec, const emo_norm_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    norm_task t = {args, emo__ops_kernels_of(cpu), NULL, NULL, (int64_t)tasks_for(args->tokens, ROWS_PER_TASK)};
    size_t extra = 0;
    if (args->d_weight != NULL && !emo__mul_size((size_t)t.tasks, (size_t)args->hidden, &extra))
        extra = SIZE_MAX;
    emo_status status = norm_prepare(cpu, &t, extra, err);
    if (status != EMO_OK)
        return status;
    emo__parallel_for(cpu->rt, (size_t)t.tasks, norm_back_rows, &t);
    if (args->d_weight != NULL)
        emo__parallel_for(cpu->rt, tasks_for(args->hidden, COLUMNS_PER_TASK), norm_sum_columns, &t);
    return EMO_OK;
}

typedef struct rope_task {
    const emo_rope_args *args;
    const emo__ops_kernels *kernels;
} rope_task;

static void rope_rows(void *task, size_t index, size_t worker) {
    const rope_task *t = task;
    const emo_rope_args *a = t->args;
    int64_t first = (int64_t)index * ROWS_PER_TASK, half = a->head_dim / 2;
    float sign = a->inverse ? -1.0f : 1.0f;
    (void)worker;
    for (int64_t i = first; i < first + ROWS_PER_TASK && i < a->tokens; i++) {
        const float *cosine = a->cos + a->positions[i] * half, *sine = a->sin + a->positions[i] * half;
        for (int64_t h = 0; h < a->heads; h++)
            t->kernels->rope(half, cosine, sine, sign, a->x + i * a->stride + h * a->head_dim);
    }
}

static emo_status rope(emo_exec *exec, const emo_rope_args *args, emo_error *err) {
    if (args->head_dim < 2 || args->head_dim % 2 != 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "RoPE needs an even head_dim, not %d", (int)args->head_dim);
    rope_task t = {args, emo__ops_kernels_of(emo__cpu(exec))};
    emo__parallel_for(emo__cpu(exec)->rt, tasks_for(args->tokens, ROWS_PER_TASK), rope_rows, &t);
    return EMO_OK;
}

void emo__cpu_register_norm(emo_backend_ops *ops) {
    ops->norm_forward = norm_forward;
    ops->norm_backward = norm_backward;
    ops->rope = rope;
}
