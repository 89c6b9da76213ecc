/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW, the sum of squares and gradient clipping. Step scalars are read where the work is done, never before. */
#include <math.h>

#include "base/checked.h"
#include "base/status.h"
#include "cpu/ops_kernels.h"

/* elements per task; for the sum of squares also its unit of summation, hence part of the result */
enum { CHUNK = 16384 };

typedef struct optim_task {
    const emo__ops_kernels *kernels;
    const emo_adamw_args *adamw;
    const emo_sumsq_args *sumsq;
    double *partial; /* [chunks] */
} optim_task;

static size_t chunks_of(int64_t count) { return (size_t)((count + CHUNK - 1) / CHUNK); }

static void adamw_chunk(void *task, size_t index, size_t worker) {
    const optim_task *t = task;
    int64_t first = (int64_t)index * CHUNK, left = t->adamw->count - first;
    (void)worker;
    t->kernels->adamw(t->adamw, t->adamw->scalars, first, first + (left < CHUNK ? left : CHUNK));
}

static emo_status adamw(emo_exec *exec, const emo_adamw_args *args, emo_error *err) {
    (void)err;
    if (args->scalars->skip)
        return EMO_OK;
    optim_task t = {emo__ops_kernels_of(emo__cpu(exec)), args, NULL, NULL};
    emo__parallel_for(emo__cpu(exec)->rt, chunks_of(args->count), adamw_chunk, &t);
    return EMO_OK;
}

static void sumsq_chunk(void *task, size_t index, size_t worker) {
    const optim_task *t = task;
    int64_t first = (int64_t)index * CHUNK, left = t->sumsq->count - first;
    (void)worker;
    t->partial[index] = t->kernels->sumsq(left < CHUNK ? left : CHUNK, t->sumsq->x + first);
}

static emo_status sumsq(emo_exec *exec, const emo_sumsq_args *args, emo_error *err) {
    size_t chunks = chunks_of(args->count);
    if (chunks == 0)
        return EMO_OK;
    double *partial = emo__cpu_scratch(emo__cpu(exec), chunks * sizeof(double), err);
    if (partial == NULL)
        return EMO_E_OUT_OF_MEMORY;
    optim_task t = {emo__ops_kernels_of(emo__cpu(exec)), NULL, args, partial};
    emo__parallel_for(emo__cpu(exec)->rt, chunks, sumsq_chunk, &t);
    double sum = 0.0;
    for (size_t i = 0; i < chunks; i++)
        sum += partial[i];
    *args->out += sum;
    return EMO_OK;
}

static emo_status clip(emo_exec *exec, const emo_clip_args *args, emo_error *err) {
    (void)exec;
    (void)err;
    emo_step_scalars *s = args->scalars;
    double norm = sqrt(s->sumsq);
    s->grad_norm = (float)norm;
    s->clip_scale = 1.0f;
    if (args->max_norm > 0.0f) {
        double scale = (double)args->max_norm / (norm + 1e-6);
        if (scale < 1.0)
            s->clip_scale = (float)scale;
    }
    s->skip = isfinite(norm) ? 0 : 1;
    return EMO_OK;
}

void emo__cpu_register_optim(emo_backend_ops *ops) {
    ops->adamw = adamw;
    ops->sumsq = sumsq;
    ops->clip = clip;
}
