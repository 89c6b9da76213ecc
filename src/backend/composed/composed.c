/* SPDX-License-Identifier: Apache-2.0 */
/* Temporary arrays and short forms for the composed operators. */
#include "backend/composed.h"

#include "base/checked.h"
#include "base/status.h"

emo__composed emo__composed_begin(emo_exec *exec, emo_error *err) {
    return (emo__composed){.exec = exec, .ops = exec->backend->ops, .err = err, .status = EMO_OK};
}

emo_status emo__composed_end(emo__composed *c) {
    for (int32_t i = 0; i < c->count; i++)
        c->ops->mem_free(c->exec->backend, c->blocks[i]);
    c->count = 0;
    return c->status;
}

static void *take(emo__composed *c, int64_t rows, int64_t cols, size_t item) {
    size_t bytes = 0;
    void *block = NULL;
    if (c->status != EMO_OK)
        return NULL;
    if (rows < 0 || cols < 0 || !emo__mul_size((size_t)rows, (size_t)cols, &bytes) ||
        !emo__mul_size(bytes, item, &bytes) || !emo__add_size(bytes, item, &bytes)) {
        c->status = emo__fail_memory(c->err, SIZE_MAX);
        return NULL;
    }
    if (c->count == EMO__COMPOSED_BLOCKS) {
        c->status = emo__fail(c->err, EMO_E_INTERNAL, "a composed operator wants more than %d arrays",
                              (int)EMO__COMPOSED_BLOCKS);
        return NULL;
    }
    c->status = c->ops->mem_alloc(c->exec->backend, bytes, &block, c->err);
    if (c->status != EMO_OK)
        return NULL;
    c->blocks[c->count++] = block;
    c->status = c->ops->zero(c->exec, block, bytes, c->err);
    return c->status == EMO_OK ? block : NULL;
}

float *emo__composed_floats(emo__composed *c, int64_t rows, int64_t cols) { return take(c, rows, cols, sizeof(float)); }

int32_t *emo__composed_ints(emo__composed *c, int64_t rows, int64_t cols) {
    return take(c, rows, cols, sizeof(int32_t));
}

float *emo__composed_ones(emo__composed *c, int64_t count) {
    float *ones = emo__composed_floats(c, 1, count);
    emo__composed_add(c, 1, count, 0.0f, emo__no_array(), 1.0f, emo__no_array(), emo__dense(ones, count));
    return ones;
}

void emo__composed_add(emo__composed *c, int64_t rows, int64_t cols, float alpha, emo_array x, float beta, emo_array y,
                       emo_array out) {
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_ADD, .rows = rows, .cols = cols, .alpha = alpha,
             .beta = beta, .x = x, .y = y, .out = out);
}

void emo__composed_mul(emo__composed *c, int64_t rows, int64_t cols, float alpha, emo_array x, emo_array y,
                       emo_array out) {
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_MUL, .rows = rows, .cols = cols, .alpha = alpha,
             .x = x, .y = y, .out = out);
}

void emo__composed_pow(emo__composed *c, int64_t rows, int64_t cols, emo_array x, float power, emo_array out) {
    EMO__RUN(c, elementwise, emo_elementwise_args, .op = EMO_ELEMENT_POW, .rows = rows, .cols = cols, .alpha = power,
             .x = x, .out = out);
}

void emo__composed_dot(emo__composed *c, int64_t rows, int64_t cols, emo_array x, emo_array y, float *out) {
    EMO__RUN(c, row_dot, emo_row_dot_args, .rows = rows, .cols = cols, .x = x, .y = y, .out = out);
}

float *emo__composed_row(emo__composed *c, const emo_weight *weight) {
    float *one = emo__composed_ones(c, 1), *row = emo__composed_floats(c, 1, weight->cols);
    EMO__RUN(c, gemm, emo_gemm_args, .m = 1, .n = weight->cols, .k = 1, .alpha = 1.0f, .a = one, .lda = 1,
             .b = weight->data, .b_dtype = weight->dtype, .ldb = weight->stride, .c = row, .ldc = weight->cols);
    return row;
}
