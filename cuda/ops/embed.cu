/* SPDX-License-Identifier: Apache-2.0 */
/* Token embedding. */
#include "kernel.h"
#include "ops.h"

enum { THREADS = 256 };

__global__ static void embed_forward_kernel(const int32_t *ids, emo_cuda_weight weight, int64_t tokens, int64_t hidden,
                                            float *out) {
    int64_t i = emo_index();
    if (i < tokens * hidden)
        out[i] = emo_weight_at(weight, ids[i / hidden], i % hidden);
}

emo_status emo_cuda_embed_forward(emo_exec *exec, const emo_embed_args *args, emo_error *err) {
    if (!emo_is_weight_type(args->weight.dtype))
        return emo_cuda_unsupported(err, "look up an embedding of this data type");
    int64_t n = args->tokens * args->hidden;
    if (n <= 0)
        return EMO_OK;
    return emo_cuda_launched(EMO_LAUNCH((embed_forward_kernel), emo_blocks(n, THREADS), THREADS, 0,
                                        emo_cuda_stream(exec), args->ids, emo_cuda_weight_of(&args->weight),
                                        args->tokens, args->hidden, args->out),
                             "embed_forward", err);
}

/* ---- backward: tokens sorted by id, stably; a block per id adds its tokens in their order ---- */

enum { DIGIT = 10, DIGITS = 1 << DIGIT, COLUMNS = 4 }; /* bits sorted by in a pass; columns of a thread */

/* The digit of each token's id, in the order so far (NULL: as they come). */
__global__ static void digits_kernel(const int32_t *ids, const int32_t *order, int64_t tokens, int shift,
                                     int32_t *digits) {
    int64_t i = emo_index();
    if (i < tokens)
        digits[i] = ids[order != NULL ? order[i] : i] >> shift & (DIGITS - 1);
}

/* The order so far, put into the order of the last digit; `sorted` gets the ids. */
__global__ static void reorder_kernel(const int32_t *ids, const int32_t *order, const int32_t *by_digit, int64_t tokens,
                                      int32_t *out, int32_t *sorted) {
    int64_t i = emo_index();
    if (i >= tokens)
        return;
    int32_t t = order != NULL ? order[by_digit[i]] : by_digit[i];
    out[i] = t;
    sorted[i] = ids[t];
}

/* Ascending in [from, count): the first place whose id is another than the one at `from`. */
__device__ static int64_t run_end(const int32_t *sorted, int64_t from, int64_t count) {
    int32_t id = sorted[from];
    int64_t low = from, step = 1; /* sorted[low] == id */
    while (low + step < count && sorted[low + step] == id) {
        low += step;
        step *= 2;
    }
    for (; step > 0; step /= 2)
        if (low + step < count && sorted[low + step] == id)
            low += step;
    return low + 1;
}

/* A block per place and part of the columns; those whose id begins before it leave. */
__global__ static void __launch_bounds__(THREADS)
    embed_backward_kernel(const int32_t *order, const int32_t *sorted, int64_t tokens, int64_t hidden,
                          const float *d_out, float *d_weight) {
    int64_t begin = blockIdx.x, c0 = (int64_t)blockIdx.y * THREADS * COLUMNS + threadIdx.x;
    int32_t id = sorted[begin];
    if (begin > 0 && sorted[begin - 1] == id)
        return;
    int64_t end = run_end(sorted, begin, tokens);
    float *to = d_weight + id * hidden;
    float sum[COLUMNS];
#pragma unroll
    for (int q = 0; q < COLUMNS; q++)
        sum[q] = c0 + q * THREADS < hidden ? to[c0 + q * THREADS] : 0.0f;
#pragma unroll 4
    for (int64_t i = begin; i < end; i++) {
        const float *from = d_out + order[i] * hidden;
#pragma unroll
        for (int q = 0; q < COLUMNS; q++)
            sum[q] += c0 + q * THREADS < hidden ? from[c0 + q * THREADS] : 0.0f;
    }
#pragma unroll
    for (int q = 0; q < COLUMNS; q++)
        if (c0 + q * THREADS < hidden)
            to[c0 + q * THREADS] = sum[q];
}

static emo_status ints(emo_exec *exec, int64_t count, int32_t **out, emo_error *err) {
    void *room;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)count * sizeof(int32_t), &room, err));
    *out = (int32_t *)room;
    return EMO_OK;
}

emo_status emo_cuda_embed_backward(emo_exec *exec, const emo_embed_args *args, emo_error *err) {
    int64_t tokens = args->tokens;
    int32_t *digits, *offsets, *by_digit, *inverse, *order[2], *sorted;
    emo_queue stream = emo_cuda_stream(exec);
    if (tokens <= 0 || args->hidden <= 0)
        return EMO_OK;
    if (tokens > INT32_MAX)
        return emo_cuda_unsupported(err, "add up the gradients of more than 2^31 - 1 tokens");
    EMO_CUDA_TRY(ints(exec, tokens, &digits, err));
    EMO_CUDA_TRY(ints(exec, DIGITS + 1, &offsets, err));
    EMO_CUDA_TRY(ints(exec, tokens, &by_digit, err));
    EMO_CUDA_TRY(ints(exec, tokens, &inverse, err));
    EMO_CUDA_TRY(ints(exec, tokens, &order[0], err));
    EMO_CUDA_TRY(ints(exec, tokens, &order[1], err));
    EMO_CUDA_TRY(ints(exec, tokens, &sorted, err));
    unsigned blocks = emo_blocks(tokens, THREADS);
    const int32_t *so_far = NULL;
    int pass = 0;
    for (int shift = 0; shift == 0 || (args->weight.rows - 1) >> shift > 0; shift += DIGIT, pass++) {
        int64_t left =
            emo_ceil_div(args->weight.rows, (int64_t)1 << shift); /* values that are left above the digits so far */
        EMO_CUDA_TRY(emo_cuda_launched(
            EMO_LAUNCH((digits_kernel), blocks, THREADS, 0, stream, args->ids, so_far, tokens, shift, digits),
            "embed_backward: digits", err));
        emo_plan_args plan = {tokens, 1, left < DIGITS ? (int32_t)left : DIGITS, digits, offsets, by_digit, inverse};
        EMO_CUDA_TRY(emo_cuda_plan(exec, &plan, err));
        EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((reorder_kernel), blocks, THREADS, 0, stream, args->ids, so_far,
                                                  (const int32_t *)by_digit, tokens, order[pass & 1], sorted),
                                       "embed_backward: order", err));
        so_far = order[pass & 1];
    }
    dim3 grid((unsigned)tokens, (unsigned)emo_ceil_div(args->hidden, THREADS * COLUMNS));
    return emo_cuda_launched(EMO_LAUNCH((embed_backward_kernel), grid, THREADS, 0, stream, so_far,
                                        (const int32_t *)sorted, tokens, args->hidden, args->d_out, args->d_weight),
                             "embed_backward", err);
}
