/* SPDX-License-Identifier: Apache-2.0 */
/* The load-balancing losses. */
#include "kernel.h"
#include "ops.h"
#include "shared.h"

enum { THREADS = 256, SOURCES = 64 };

typedef struct source {
    const void *data;
    double coef;
    int32_t is_float;
    int32_t reserved;
} source;

__global__ static void balance_kernel(emo_balance_args a, const source *sources) {
    EMO_SHARED(double, room, 32);
    double loss = 0.0;
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += THREADS) {
        double f = 0.0;
        for (int32_t s = 0; s < a.n_sources; s++)
            f += sources[s].coef * (sources[s].is_float ? (double)((const float *)sources[s].data)[e]
                                                        : (double)((const int32_t *)sources[s].data)[e]);
        if (a.f != NULL)
            a.f[e] = (float)f;
        if (a.score_sum != NULL)
            loss += f * (double)a.score_sum[e];
        if (a.grad != NULL)
            a.grad[e] = (float)(a.weight * a.scale * f);
    }
    loss = emo_block_sum(loss, room);
    if (a.loss != NULL && threadIdx.x == 0)
        *a.loss += a.scale * loss;
}

emo_status emo_cuda_balance(emo_exec *exec, const emo_balance_args *args, emo_error *err) {
    void *device;
    size_t item = sizeof(source);
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)args->n_sources * item, &device, err));
    for (int32_t first = 0; first < args->n_sources; first += SOURCES) {
        source part[SOURCES];
        int32_t n = 0;
        for (; n < SOURCES && first + n < args->n_sources; n++) {
            int32_t s = first + n;
            if (args->dtypes[s] != EMO_DTYPE_I32 && args->dtypes[s] != EMO_DTYPE_F32)
                return emo_cuda_fail(err, EMO_E_INTERNAL, "balance source %d has data type %d; i32 and f32 are right",
                                     (int)s, (int)args->dtypes[s]);
            source one = {args->sources[s], args->coef[s], args->dtypes[s] == EMO_DTYPE_F32, 0};
            part[n] = one;
        }
        EMO_CUDA_TRY(emo_cuda_send(exec, (char *)device + (size_t)first * item, part, (size_t)n * item, err));
    }
    return emo_cuda_launched(
        EMO_LAUNCH((balance_kernel), 1, THREADS, 0, emo_cuda_stream(exec), *args, (const source *)device), "balance",
        err);
}

/* A block per document. */
__global__ static void balance_documents_kernel(emo_balance_documents_args a, double *losses) {
    EMO_SHARED(double, room, 32);
    EMO_SHARED(int, counts_room, 32);
    int64_t d = blockIdx.x, at = d * a.experts;
    double tokens = (double)(a.segment_begin[d + 1] - a.segment_begin[d]);
    int pool = 0;
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += (int32_t)blockDim.x)
        pool += a.allowed[at + e] != 0;
    pool = emo_block_sum(pool, counts_room);
    double factor = (double)pool / (double)a.k / (tokens * tokens), loss = 0.0;
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += (int32_t)blockDim.x) {
        double f = a.allowed[at + e] != 0 ? factor * (double)a.segment_counts[at + e] : 0.0;
        loss += f * (double)a.segment_score_sum[at + e];
        if (a.grad != NULL)
            a.grad[at + e] = (float)(a.weight * a.scale * f);
    }
    loss = emo_block_sum(loss, room);
    if (threadIdx.x == 0)
        losses[d] = loss;
}

emo_status emo_cuda_balance_documents(emo_exec *exec, const emo_balance_documents_args *args, emo_error *err) {
    void *losses;
    if (args->n_segments <= 0)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)args->n_segments * sizeof(double), &losses, err));
    EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((balance_documents_kernel), (unsigned)args->n_segments, 128, 0,
                                              emo_cuda_stream(exec), *args, (double *)losses),
                                   "balance_documents", err));
    if (args->loss == NULL)
        return EMO_OK;
    return emo_cuda_total(exec, (const double *)losses, args->n_segments, args->scale, args->loss, err);
}
