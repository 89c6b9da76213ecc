/* SPDX-License-Identifier: Apache-2.0 */
/* The language-model head. Tokens go in chunks against the whole vocabulary: the logits of a chunk are the only ones
 * that exist at a time, and its gradient takes their place. */
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "cpu/gemm/gemm.h"
#include "cpu/ops_kernels.h"

/* Rows of a chunk: multiples of EMO__GEMM_KC, so that d_weight is summed in the same order whatever the chunk. Large
 * chunks pack the weight and walk through its gradient less often; a large vocabulary has to be content with less. */
enum { CHUNK_LEAST = EMO__GEMM_KC, CHUNK_MOST = 4 * EMO__GEMM_KC, HEAD_IGNORED = -100 };
#define CHUNK_FLOATS ((int64_t)8 << 20)

typedef struct head_task {
    const emo_head_args *args;
    const emo__ops_kernels *kernels;
    int64_t first; /* token of the chunk's row 0 */
    int64_t vocab;
    int64_t stride; /* floats from row to row of the logits */
    float *logits;  /* [chunk, vocab] */
    float *loss;    /* [chunk] */
    float *lse;     /* [chunk] */
} head_task;

/* Loss of a row; with dx, its logits become ce_scale * (p - onehot) + 2 * z_scale * lse * p. */
static void head_row(void *task, size_t index, size_t worker) {
    const head_task *t = task;
    const emo_head_args *a = t->args;
    float *row = t->logits + (int64_t)index * t->stride;
    int32_t label = a->labels[t->first + (int64_t)index];
    (void)worker;
    t->loss[index] = 0.0f;
    t->lse[index] = 0.0f;
    if (label == HEAD_IGNORED) {
        if (a->dx != NULL)
            memset(row, 0, (size_t)t->vocab * sizeof(float));
        return;
    }
    float top = t->kernels->max(t->vocab, row), target = row[label];
    float sum = t->kernels->exp_sum(t->vocab, row, top, a->dx != NULL ? row : NULL);
    float lse = top + logf(sum);
    t->lse[index] = lse;
    t->loss[index] = lse - target;
    if (a->dx != NULL) {
        t->kernels->scale(t->vocab, (a->ce_scale + 2.0f * a->z_scale * lse) / sum, row);
        row[label] -= a->ce_scale;
    }
}

static emo_status head_chunk(emo_exec *exec, head_task *t, int64_t n, emo_error *err) {
    const emo_head_args *a = t->args;
    const emo_weight *w = &a->weight;
    const emo_backend_ops *ops = exec->backend->ops;
    const float *x = a->x + t->first * a->hidden;
    emo_linear_args forward = {
        .tokens = n, .x = x, .x_stride = a->hidden, .weight = *w, .y = t->logits, .y_stride = t->stride};
    emo_status status = ops->linear_forward(exec, &forward, err);
    if (status != EMO_OK)
        return status;
    emo__parallel_for(emo__cpu(exec)->rt, (size_t)n, head_row, t);
    for (int64_t i = 0; i < n; i++) {
        if (a->token_loss != NULL)
            a->token_loss[t->first + i] = t->loss[i];
        if (a->ce_sum != NULL)
            *a->ce_sum += (double)t->loss[i];
        if (a->z_sum != NULL)
            *a->z_sum += (double)t->lse[i] * (double)t->lse[i];
    }
    if (a->dx == NULL)
        return EMO_OK;
    emo_linear_args backward = {.tokens = n,
                                .x = x,
                                .x_stride = a->hidden,
                                .weight = *w,
                                .y_stride = t->stride,
                                .dy = t->logits,
                                .dx = a->dx + t->first * a->hidden,
                                .d_weight = a->d_weight};
    return ops->linear_backward(exec, &backward, err);
}

static int64_t chunk_rows(int64_t stride) {
    int64_t rows = CHUNK_MOST;
    while (rows > CHUNK_LEAST && rows * stride > CHUNK_FLOATS)
        rows /= 2;
    return rows;
}

/* An odd number of cache lines: a column of the logits then spreads over all sets of a cache, where a power of two
 * would keep it in one. */
static int64_t row_stride(int64_t vocab) { return (vocab + 15) / 16 * 16 / 32 * 32 + 16; }

static emo_status head_loss(emo_exec *exec, const emo_head_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    int64_t vocab = args->weight.rows;
    for (int64_t i = 0; i < args->tokens; i++) {
        int32_t label = args->labels[i];
        if (label != HEAD_IGNORED && (label < 0 || label >= vocab))
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "label %d of token %lld is outside the vocabulary of %lld and is not -100", (int)label,
                             (long long)i, (long long)vocab);
    }
    int64_t stride = row_stride(vocab), step = chunk_rows(stride);
    int64_t chunk = args->tokens < step ? args->tokens : step;
    size_t floats = 0, bytes = 0;
    if (!emo__mul_size((size_t)chunk, (size_t)stride + 2, &floats) || !emo__mul_size(floats, sizeof(float), &bytes))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "logits of a vocabulary of %lld do not fit in memory",
                         (long long)vocab);
    if (chunk == 0)
        return EMO_OK;
    float *region = emo__cpu_outer(cpu, bytes, err);
    if (region == NULL)
        return EMO_E_OUT_OF_MEMORY;
    head_task t = {args, emo__ops_kernels_of(cpu), 0, vocab, stride, region, region + chunk * stride, NULL};
    t.lse = t.loss + chunk;
    for (; t.first < args->tokens; t.first += step) {
        int64_t left = args->tokens - t.first;
        emo_status status = head_chunk(exec, &t, left < step ? left : step, err);
        if (status != EMO_OK)
            return status;
    }
    return EMO_OK;
}

static emo_status head_logits(emo_exec *exec, const emo_head_logits_args *args, emo_error *err) {
    const float *x = args->x;
    if (args->n_rows == 0)
        return EMO_OK;
    if (args->rows != NULL) {
        size_t row = (size_t)args->hidden * sizeof(float), bytes = 0;
        if (!emo__mul_size((size_t)args->n_rows, row, &bytes))
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "logits of %lld rows do not fit in memory",
                             (long long)args->n_rows);
        float *chosen = emo__cpu_outer(emo__cpu(exec), bytes, err);
        if (chosen == NULL)
            return EMO_E_OUT_OF_MEMORY;
        for (int64_t i = 0; i < args->n_rows; i++)
            memcpy(chosen + i * args->hidden, args->x + args->rows[i] * args->hidden, row);
        x = chosen;
    }
    emo_linear_args forward = {.tokens = args->n_rows,
                               .x = x,
                               .x_stride = args->hidden,
                               .weight = args->weight,
                               .y = args->logits,
                               .y_stride = args->weight.rows};
    return exec->backend->ops->linear_forward(exec, &forward, err);
}

void emo__cpu_register_head(emo_backend_ops *ops) {
    ops->head_loss = head_loss;
    ops->head_logits = head_logits;
}
