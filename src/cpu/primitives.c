/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives on rows: elementwise work, dot products, softmax, picking columns. They are what the composed operators
 * stand on, and serve as oracles: plain loops in the C library's functions, cut into rows for the workers. */
#include <math.h>

#include "base/status.h"
#include "cpu/cpu.h"

enum { ROWS_PER_TASK = 16 };

typedef struct rows_task {
    const void *args;
    void (*row)(const void *args, int64_t r);
    int64_t rows;
} rows_task;

static void some_rows(void *arg, size_t index, size_t worker) {
    const rows_task *t = arg;
    (void)worker;
    int64_t end = ((int64_t)index + 1) * ROWS_PER_TASK;
    end = end < t->rows ? end : t->rows;
    for (int64_t r = (int64_t)index * ROWS_PER_TASK; r < end; r++)
        t->row(t->args, r);
}

void emo__cpu_each_row(emo_exec *exec, int64_t rows, void (*row)(const void *args, int64_t r), const void *args) {
    rows_task t = {args, row, rows};
    if (rows > 0)
        emo__parallel_for(emo__cpu(exec)->rt, (size_t)((rows + ROWS_PER_TASK - 1) / ROWS_PER_TASK), some_rows, &t);
}

static float at(const emo_array *a, int64_t r, int64_t c) { return a->data[r * a->row + c * a->col]; }

static float sigmoid(float x) {
    float e = expf(x > 0.0f ? -x : x);
    return (x > 0.0f ? 1.0f : e) / (1.0f + e);
}

static void elementwise_row(const void *args, int64_t r) {
    const emo_elementwise_args *a = args;
    for (int64_t c = 0; c < a->cols; c++) {
        float x = a->x.data != NULL ? at(&a->x, r, c) : 0.0f;
        float y = a->y.data != NULL ? at(&a->y, r, c) : 1.0f;
        float v = 0.0f;
        switch (a->op) {
        case EMO_ELEMENT_ADD:
            v = a->alpha * x + a->beta * y;
            break;
        case EMO_ELEMENT_MUL:
            v = a->alpha * x * y;
            break;
        case EMO_ELEMENT_DIV:
            v = y != 0.0f ? a->alpha * x / y : 0.0f;
            break;
        case EMO_ELEMENT_POW:
            v = powf(x, a->alpha);
            break;
        default:
            v = sigmoid(x);
            break;
        }
        float *out = &a->out.data[r * a->out.row + c * a->out.col];
        *out = a->accumulate ? *out + v : v;
    }
}

static emo_status elementwise(emo_exec *exec, const emo_elementwise_args *args, emo_error *err) {
    if (args->op < EMO_ELEMENT_ADD || args->op > EMO_ELEMENT_SIGMOID)
        return emo__fail(err, EMO_E_UNSUPPORTED, "the CPU back end has no elementwise operation %d", (int)args->op);
    emo__cpu_each_row(exec, args->rows, elementwise_row, args);
    return EMO_OK;
}

static double dot_of(const emo_row_dot_args *a, int64_t r) {
    double sum = 0.0;
    for (int64_t c = 0; c < a->cols; c++)
        sum += (double)at(&a->x, r, c) * (a->y.data != NULL ? (double)at(&a->y, r, c) : 1.0);
    return sum;
}

static void dot_row(const void *args, int64_t r) {
    const emo_row_dot_args *a = args;
    a->out[r] = (float)dot_of(a, r);
}

static emo_status row_dot(emo_exec *exec, const emo_row_dot_args *args, emo_error *err) {
    (void)err;
    if (args->out != NULL)
        emo__cpu_each_row(exec, args->rows, dot_row, args);
    for (int64_t r = 0; args->total != NULL && r < args->rows; r++)
        *args->total += dot_of(args, r);
    return EMO_OK;
}

static void softmax_row(const void *args, int64_t r) {
    const emo_softmax_args *a = args;
    const float *x = a->x + r * a->x_stride;
    float *probs = a->probs + r * a->cols;
    const uint8_t *set = a->allowed;
    if (set != NULL && a->set_of != NULL)
        set += a->set_of[r] * a->cols;
    int64_t seen = a->causal > 0 && a->causal + r < a->cols ? a->causal + r : a->cols;
    float top = -INFINITY;
    int64_t allowed = 0;
    for (int64_t c = 0; c < seen; c++)
        if (set == NULL || set[c] != 0) {
            top = x[c] > top ? x[c] : top;
            allowed++;
        }
    double sum = 0.0;
    for (int64_t c = 0; c < seen; c++)
        if (set == NULL || set[c] != 0)
            sum += (double)expf(x[c] - top);
    for (int64_t c = 0; c < a->cols; c++) {
        if (c >= seen || (set != NULL && set[c] == 0))
            probs[c] = 0.0f;
        else if (a->sigmoid)
            probs[c] = sigmoid(x[c]) + a->floor;
        else
            probs[c] = (float)((double)expf(x[c] - top) / sum);
    }
    if (a->lse != NULL)
        a->lse[r] = allowed > 0 ? top + (float)log(sum) : 0.0f;
}

static emo_status softmax(emo_exec *exec, const emo_softmax_args *args, emo_error *err) {
    (void)err;
    emo__cpu_each_row(exec, args->rows, softmax_row, args);
    return EMO_OK;
}

static void pick_row(const void *args, int64_t r) {
    const emo_pick_args *a = args;
    for (int32_t j = 0; j < a->k; j++) {
        int32_t i = a->indices[r * a->index_stride + j];
        int inside = i >= 0 && i < a->cols;
        if (!a->add)
            a->values[r * a->value_stride + j] = !inside ? 0.0f : a->x != NULL ? a->x[r * a->x_stride + i] : 1.0f;
        else if (inside)
            a->x[r * a->x_stride + i] += a->alpha * (a->values != NULL ? a->values[r * a->value_stride + j] : 1.0f);
    }
}

static emo_status pick(emo_exec *exec, const emo_pick_args *args, emo_error *err) {
    (void)err;
    emo__cpu_each_row(exec, args->rows, pick_row, args);
    return EMO_OK;
}

void emo__cpu_register_primitives(emo_backend_ops *ops) {
    ops->elementwise = elementwise;
    ops->row_dot = row_dot;
    ops->softmax = softmax;
    ops->pick = pick;
    emo__cpu_register_sets(ops);
}
