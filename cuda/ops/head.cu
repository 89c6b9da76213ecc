/* SPDX-License-Identifier: Apache-2.0 */
/* The language-model head. Tokens go in chunks against the whole vocabulary: a chunk's logits are the only ones there
 * are, and its gradient takes their place. A label outside the vocabulary counts as ignored: labels lie on the device
 * and cannot be refused here. */
#include <math.h>

#include "ops.h"

#include "kernel.h"

enum { BLOCK = 512, CHUNK_LEAST = 128, CHUNK_MOST = 4096 };
#define CHUNK_FLOATS ((int64_t)48 << 20) /* 192 MB of logits: large enough for full products, small beside a model */

/* What changes from step to step. */
typedef struct head_now {
    float ce_scale, z_scale;
} head_now;

/* A block per row: one pass for the logsumexp, one more that leaves the gradient. */
__global__ static void __launch_bounds__(BLOCK)
    rows_k(emo_head_args a, const head_now *now, int64_t first, int64_t vocab, float *logits, float *loss, float *lse) {
    if (now != NULL) {
        a.ce_scale = now->ce_scale;
        a.z_scale = now->z_scale;
    }
    EMO_SHARED(float, room, 32);
    int64_t token = first + blockIdx.x;
    float *row = logits + (int64_t)blockIdx.x * vocab;
    int32_t label = a.labels[token];
    if (label < 0 || label >= vocab) {
        for (int64_t i = threadIdx.x; i < vocab && a.dx != NULL; i += BLOCK)
            row[i] = 0.0f;
        if (threadIdx.x == 0) {
            loss[token] = 0.0f;
            lse[token] = 0.0f;
            if (a.token_loss != NULL)
                a.token_loss[token] = 0.0f;
        }
        return;
    }
    float top = -INFINITY, sum = 0.0f, target = row[label];
    for (int64_t i = threadIdx.x; i < vocab; i += BLOCK) {
        float v = row[i];
        if (v > top) {
            sum = sum * expf(top - v) + 1.0f;
            top = v;
        } else {
            sum += expf(v - top); /* NaN comes this way and stays */
        }
    }
    float all = emo_block_max(top, room);
    sum = emo_block_sum(top == -INFINITY ? sum : sum * expf(top - all), room); /* its barriers follow every target */
    float total = all + logf(sum);
    if (threadIdx.x == 0) {
        loss[token] = total - target;
        lse[token] = total;
        if (a.token_loss != NULL)
            a.token_loss[token] = total - target;
    }
    if (a.dx == NULL)
        return;
    float scale = (a.ce_scale + 2.0f * a.z_scale * total) / sum;
    for (int64_t i = threadIdx.x; i < vocab; i += BLOCK) {
        float g = scale * expf(row[i] - all);
        row[i] = i == label ? g - a.ce_scale : g;
    }
}

/* ce_sum += sum of the losses, z_sum += sum of lse^2; one block, in a fixed order */
__global__ static void __launch_bounds__(BLOCK) totals_k(emo_head_args a, const float *loss, const float *lse) {
    EMO_SHARED(double, room, 32);
    double ce = 0.0, z = 0.0;
    for (int64_t t = threadIdx.x; t < a.tokens; t += BLOCK) {
        ce += (double)loss[t];
        z += (double)lse[t] * (double)lse[t];
    }
    ce = emo_block_sum(ce, room);
    z = emo_block_sum(z, room);
    if (threadIdx.x != 0)
        return;
    if (a.ce_sum != NULL)
        *a.ce_sum += ce;
    if (a.z_sum != NULL)
        *a.z_sum += z;
}

/* y = x W^T */
static emo_status product(emo_exec *exec, int64_t rows, int64_t hidden, const float *x, const emo_weight *w, float *y,
                          emo_error *err) {
    emo_linear_args l;
    memset(&l, 0, sizeof l);
    l.tokens = rows;
    l.x = x;
    l.x_stride = hidden;
    l.weight = *w;
    l.y = y;
    l.y_stride = w->rows;
    return emo_cuda_linear_forward(exec, &l, err);
}

static emo_status chunk(emo_exec *exec, const emo_head_args *a, const head_now *now, int64_t first, int64_t rows,
                        float *logits, float *loss, float *lse, emo_error *err) {
    const float *x = a->x + first * a->hidden;
    int64_t vocab = a->weight.rows;
    EMO_CUDA_TRY(product(exec, rows, a->hidden, x, &a->weight, logits, err));
    EMO_CUDA_TRY(emo_cuda_launched(
        EMO_LAUNCH(rows_k, (unsigned)rows, BLOCK, 0, emo_cuda_stream(exec), *a, now, first, vocab, logits, loss, lse),
        "head: rows", err));
    if (a->dx == NULL)
        return EMO_OK;
    emo_linear_args l;
    memset(&l, 0, sizeof l);
    l.tokens = rows;
    l.x = x;
    l.x_stride = a->hidden;
    l.weight = a->weight;
    l.y_stride = vocab;
    l.dy = logits;
    l.dx = a->dx + first * a->hidden;
    l.d_weight = a->d_weight;
    return emo_cuda_linear_backward(exec, &l, err);
}

emo_status emo_cuda_head_loss(emo_exec *exec, const emo_head_args *args, emo_error *err) {
    int64_t vocab = args->weight.rows, step = CHUNK_FLOATS / (vocab > 0 ? vocab : 1) / CHUNK_LEAST * CHUNK_LEAST;
    void *logits, *room;
    if (step < CHUNK_LEAST)
        step = CHUNK_LEAST;
    if (step > CHUNK_MOST)
        step = CHUNK_MOST;
    step = step < args->tokens ? step : args->tokens;
    if (args->tokens == 0)
        return EMO_OK;
    emo_head_args a = *args;
    head_now values = {a.ce_scale, a.z_scale};
    void *now;
    EMO_CUDA_TRY(emo_cuda_now(exec, &values, sizeof values, &now, err));
    if (now != NULL)
        a.ce_scale = a.z_scale = 0.0f;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(step * vocab) * sizeof(float), &logits, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(2 * args->tokens) * sizeof(float), &room, err));
    float *loss = (float *)room, *lse = loss + args->tokens;
    emo_cuda_mark before = emo_cuda_scratch_mark(exec);
    for (int64_t first = 0; first < args->tokens; first += step) {
        int64_t left = args->tokens - first;
        EMO_CUDA_TRY(
            chunk(exec, &a, (const head_now *)now, first, left < step ? left : step, (float *)logits, loss, lse, err));
        emo_cuda_scratch_release(exec, before);
    }
    if (args->ce_sum == NULL && args->z_sum == NULL)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH(totals_k, 1, BLOCK, 0, emo_cuda_stream(exec), a, (const float *)loss, (const float *)lse),
        "head: sums", err);
}

emo_status emo_cuda_head_logits(emo_exec *exec, const emo_head_logits_args *args, emo_error *err) {
    const float *x = args->x;
    if (args->n_rows == 0)
        return EMO_OK;
    if (args->rows != NULL) {
        void *chosen;
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(args->n_rows * args->hidden) * sizeof(float), &chosen, err));
        emo_gather_args g;
        memset(&g, 0, sizeof g);
        g.max_rows = args->n_rows;
        g.width = args->hidden;
        g.k_total = 1;
        g.order = args->rows;
        g.src = args->x;
        g.dst = (float *)chosen;
        EMO_CUDA_TRY(emo_cuda_gather(exec, &g, err));
        x = (const float *)chosen;
    }
    return product(exec, args->n_rows, args->hidden, x, &args->weight, args->logits, err);
}
