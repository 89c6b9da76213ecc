/* SPDX-License-Identifier: Apache-2.0 */
/* SwiGLU of a dense MLP: the elementwise part between its linear layers. */
#include "cpu/swiglu.h"

const emo__swiglu_kernels *emo__swiglu_kernels_of(emo_isa isa) {
#if defined(__x86_64__)
    if (isa >= EMO_ISA_AVX512)
        return &emo__swiglu_avx512;
    if (isa >= EMO_ISA_AVX2)
        return &emo__swiglu_avx2;
#elif defined(__aarch64__)
    if (isa >= EMO_ISA_NEON)
        return &emo__swiglu_neon;
#endif
    (void)isa;
    return &emo__swiglu_scalar;
}

enum { ROWS_PER_TASK = 16 };

typedef struct swiglu_task {
    const emo_swiglu_args *args;
    const emo__swiglu_kernels *kernels;
} swiglu_task;

static int64_t last_row(const swiglu_task *task, size_t index) {
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    return end < task->args->tokens ? end : task->args->tokens;
}

static void forward_rows(void *arg, size_t index, size_t worker) {
    const swiglu_task *task = arg;
    const emo_swiglu_args *a = task->args;
    (void)worker;
    for (int64_t t = (int64_t)index * ROWS_PER_TASK; t < last_row(task, index); t++)
        task->kernels->forward(a->inner, a->gate + t * a->stride, a->up + t * a->stride, a->y + t * a->inner);
}

static void backward_rows(void *arg, size_t index, size_t worker) {
    const swiglu_task *task = arg;
    const emo_swiglu_args *a = task->args;
    (void)worker;
    for (int64_t t = (int64_t)index * ROWS_PER_TASK; t < last_row(task, index); t++) {
        int64_t at = t * a->stride;
        (void)task->kernels->backward(a->inner, a->gate + at, a->up + at, a->dy + t * a->inner, 1.0f, NULL,
                                      a->d_gate + at, a->d_up + at);
    }
}

enum { EXP_WORK = 16 }; /* an exponential, in multiply-adds */

static void run(emo_exec *exec, const emo_swiglu_args *args, emo_task_fn fn) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    swiglu_task task = {args, emo__swiglu_kernels_of(cpu->isa)};
    emo__cpu_for(cpu, (size_t)((args->tokens + ROWS_PER_TASK - 1) / ROWS_PER_TASK),
                 EXP_WORK * args->tokens * args->inner, fn, &task);
}

static emo_status swiglu_forward(emo_exec *exec, const emo_swiglu_args *args, emo_error *err) {
    (void)err;
    run(exec, args, forward_rows);
    return EMO_OK;
}

static emo_status swiglu_backward(emo_exec *exec, const emo_swiglu_args *args, emo_error *err) {
    (void)err;
    run(exec, args, backward_rows);
    return EMO_OK;
}

void emo__cpu_register_swiglu(emo_backend_ops *ops) {
    ops->swiglu_forward = swiglu_forward;
    ops->swiglu_backward = swiglu_backward;
}
