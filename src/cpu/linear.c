/* SPDX-License-Identifier: Apache-2.0 */
/* The linear layer and the plain matrix product, on the matrix engine. */
#include "base/status.h"
#include "cpu/gemm/gemm.h"

static void *work_memory(emo__cpu_exec *cpu, emo_error *err) {
    size_t total = 0, at;
    if (!emo__scratch_add(&total, cpu->workers, emo__gemm_work_bytes(cpu->gemm), &at)) {
        (void)emo__fail_memory(err, SIZE_MAX);
        return NULL;
    }
    return emo__cpu_scratch(cpu, total, err);
}

/* y[tokens, rows] (+)= x[tokens, cols] W^T + bias */
emo_status emo__cpu_linear_forward(emo_exec *exec, const emo_linear_args *args, int exact, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    void *work = work_memory(cpu, err);
    if (work == NULL)
        return EMO_E_OUT_OF_MEMORY;
    emo__gemm g = {.m = args->tokens,
                   .n = args->weight.rows,
                   .k = args->weight.cols,
                   .a = {emo__gemm_matrix(args->x, args->x_stride, 0)},
                   .n_b = 1,
                   .b = {emo__gemm_weight(&args->weight, 1)},
                   .c = {args->y},
                   .ldc = args->y_stride,
                   .alpha = 1.0f,
                   .beta = args->accumulate ? 1.0f : 0.0f,
                   .bias = args->bias.data != NULL ? &args->bias : NULL,
                   .exact = exact};
    emo__gemm_run(cpu, &g, work);
    return EMO_OK;
}

static emo_status linear_forward(emo_exec *exec, const emo_linear_args *args, emo_error *err) {
    return emo__cpu_linear_forward(exec, args, 0, err);
}

enum { BIAS_COLUMNS = 64 };

/* d_bias[j] += sum of dy[t, j] over t ascending, for one group of columns */
static void bias_columns(void *arg, size_t index, size_t worker) {
    const emo_linear_args *args = arg;
    (void)worker;
    int64_t first = (int64_t)index * BIAS_COLUMNS;
    int64_t count = args->weight.rows - first < BIAS_COLUMNS ? args->weight.rows - first : BIAS_COLUMNS;
    float sum[BIAS_COLUMNS] = {0};
    for (int64_t t = 0; t < args->tokens; t++) {
        const float *row = args->dy + t * args->y_stride + first;
        for (int64_t j = 0; j < count; j++)
            sum[j] += row[j];
    }
    for (int64_t j = 0; j < count; j++)
        args->d_bias[first + j] += sum[j];
}

/* dx (+)= dy W; d_weight += dy^T x; d_bias += column sums of dy */
emo_status emo__cpu_linear_backward(emo_exec *exec, const emo_linear_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    void *work = work_memory(cpu, err);
    if (work == NULL)
        return EMO_E_OUT_OF_MEMORY;
    if (args->dx != NULL) {
        emo__gemm g = {.m = args->tokens,
                       .n = args->weight.cols,
                       .k = args->weight.rows,
                       .a = {emo__gemm_matrix(args->dy, args->y_stride, 0)},
                       .n_b = 1,
                       .b = {emo__gemm_weight(&args->weight, 0)},
                       .c = {args->dx},
                       .ldc = args->x_stride,
                       .alpha = 1.0f,
                       .beta = args->dx_accumulate ? 1.0f : 0.0f};
        emo__gemm_run(cpu, &g, work);
    }
    if (args->d_weight != NULL && args->tokens > 0) {
        emo__gemm g = {.m = args->weight.rows,
                       .n = args->weight.cols,
                       .k = args->tokens,
                       .a = {emo__gemm_matrix(args->dy, args->y_stride, 1)},
                       .n_b = 1,
                       .b = {emo__gemm_matrix(args->x, args->x_stride, 0)},
                       .c = {args->d_weight},
                       .ldc = args->weight.cols,
                       .alpha = 1.0f,
                       .beta = 1.0f};
        emo__gemm_run(cpu, &g, work);
    }
    if (args->d_bias != NULL) {
        emo_linear_args copy = *args;
        emo__parallel_for(cpu->rt, (size_t)((args->weight.rows + BIAS_COLUMNS - 1) / BIAS_COLUMNS), bias_columns,
                          &copy);
    }
    return EMO_OK;
}

static emo_status gemm(emo_exec *exec, const emo_gemm_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    void *work = work_memory(cpu, err);
    if (work == NULL)
        return EMO_E_OUT_OF_MEMORY;
    emo__gemm g = {.m = args->m,
                   .n = args->n,
                   .k = args->k,
                   .a = {emo__gemm_matrix(args->a, args->lda, args->trans_a != 0)},
                   .n_b = 1,
                   .b = {{.data = args->b, .ld = args->ldb, .dtype = args->b_dtype, .trans = args->trans_b != 0}},
                   .c = {args->c},
                   .ldc = args->ldc,
                   .alpha = args->alpha,
                   .beta = args->beta};
    emo__gemm_run(cpu, &g, work);
    return EMO_OK;
}

void emo__cpu_register_gemm(emo_backend_ops *ops) {
    ops->linear_forward = linear_forward;
    ops->linear_backward = emo__cpu_linear_backward;
    ops->gemm = gemm;
}
