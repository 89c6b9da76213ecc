/* SPDX-License-Identifier: Apache-2.0 */
/* The load-balancing losses. */
#include "kernel.h"
#include "ops.h"
#include "shared.h"

enum { THREADS = 256 };

typedef struct source {
    const void *data;
    double coef;
    int64_t is_float;
} source;

/* In front of the sources: what changes from step to step. */
typedef struct balance_now {
    double scale;
    double weight;
    int64_t n_sources;
} balance_now;

__global__ static void balance_kernel(emo_balance_args a, const balance_now *now) {
    EMO_SHARED(double, room, 32);
    const source *sources = (const source *)(now + 1);
    double loss = 0.0;
    for (int32_t e = (int32_t)threadIdx.x; e < a.experts; e += THREADS) {
        double f = 0.0;
        for (int64_t s = 0; s < now->n_sources; s++)
            f += sources[s].coef * (sources[s].is_float ? (double)((const float *)sources[s].data)[e]
                                                        : (double)((const int32_t *)sources[s].data)[e]);
        if (a.f != NULL)
            a.f[e] = (float)f;
        if (a.score_sum != NULL)
            loss += f * (double)a.score_sum[e];
        if (a.grad != NULL)
            a.grad[e] = (float)(now->weight * now->scale * f);
    }
    loss = emo_block_sum(loss, room);
    if (a.loss != NULL && threadIdx.x == 0)
        *a.loss += now->scale * loss;
}

static emo_status describe(const emo_balance_args *args, balance_now *now, emo_error *err) {
    source *sources = (source *)(now + 1);
    now->scale = args->scale;
    now->weight = args->weight;
    now->n_sources = args->n_sources;
    for (int32_t s = 0; s < args->n_sources; s++) {
        if (args->dtypes[s] != EMO_DTYPE_I32 && args->dtypes[s] != EMO_DTYPE_F32)
            return emo_cuda_fail(err, EMO_E_INTERNAL, "balance source %d has data type %d; i32 and f32 are right",
                                 (int)s, (int)args->dtypes[s]);
        sources[s].data = args->sources[s];
        sources[s].coef = args->coef[s];
        sources[s].is_float = args->dtypes[s] == EMO_DTYPE_F32;
    }
    return EMO_OK;
}

emo_status emo_cuda_balance(emo_exec *exec, const emo_balance_args *args, emo_error *err) {
    const emo_backend_services *services = &emo_cuda_of(exec)->device->services;
    emo_balance_args a = *args;
    void *host = NULL, *device = NULL;
    int64_t room = emo_cuda_capacity(exec, EMO_CUDA_CAPACITY_SOURCES, args->n_sources);
    size_t bytes = sizeof(balance_now) + (size_t)room * sizeof(source);
    EMO_CUDA_TRY(emo_cuda_host_zeroed(emo_cuda_of(exec), bytes, &host, err));
    emo_status status = describe(args, (balance_now *)host, err);
    if (status == EMO_OK)
        status = emo_cuda_stage(exec, host, bytes, &device, err);
    services->free(services->ctx, host);
    EMO_CUDA_TRY(status);
    a.n_sources = 0; /* what the kernel reads on the device */
    a.sources = NULL;
    a.dtypes = NULL;
    a.coef = NULL;
    a.scale = a.weight = 0.0;
    return emo_cuda_launched(
        EMO_LAUNCH((balance_kernel), 1, THREADS, 0, emo_cuda_stream(exec), a, (const balance_now *)device), "balance",
        err);
}

/* A block per document. */
__global__ static void balance_documents_kernel(emo_balance_documents_args a, const emo_total_now *now,
                                                double *losses) {
    EMO_SHARED(double, room, 32);
    EMO_SHARED(int, counts_room, 32);
    int64_t d = blockIdx.x, at = d * a.experts;
    if (now != NULL) {
        a.n_segments = now->n;
        a.scale = now->scale;
    }
    if (d >= a.n_segments)
        return;
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
    emo_balance_documents_args a = *args;
    emo_total_now values = {args->n_segments, args->scale};
    void *losses, *device;
    if (args->n_segments <= 0)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_now(exec, &values, sizeof values, &device, err));
    const emo_total_now *now = (const emo_total_now *)device;
    if (now != NULL) {
        a.n_segments = emo_cuda_capacity(exec, EMO_CUDA_CAPACITY_DOCUMENTS, a.n_segments);
        a.scale = 0.0;
    }
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)a.n_segments * sizeof(double), &losses, err));
    EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((balance_documents_kernel), (unsigned)a.n_segments, 128, 0,
                                              emo_cuda_stream(exec), a, now, (double *)losses),
                                   "balance_documents", err));
    if (args->loss == NULL)
        return EMO_OK;
    return emo_cuda_total(exec, (const double *)losses, a.n_segments, a.scale, now, args->loss, err);
}
