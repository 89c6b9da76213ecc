/* SPDX-License-Identifier: Apache-2.0 */
/* AdamW, the sum of squares and gradient clipping. The step's scalars stay in device memory. */
#include "kernel.h"
#include "ops.h"
#include "shared.h"

enum { THREADS = 256, PER_BLOCK = 16 * THREADS };

__global__ static void adamw_kernel(emo_adamw_args a) {
    int64_t i = emo_index();
    if (i >= a.count || a.scalars->skip)
        return;
    float lr = a.scalars->lr;
    float grad = a.g[i] * a.scalars->clip_scale;
    float mean = a.beta1 * a.m[i] + (1.0f - a.beta1) * grad;
    float square = a.beta2 * a.v[i] + (1.0f - a.beta2) * grad * grad;
    a.m[i] = mean;
    a.v[i] = square;
    a.p[i] = a.p[i] * (1.0f - lr * a.weight_decay) -
             lr / a.scalars->bias1 * (mean / (sqrtf(square) / sqrtf(a.scalars->bias2) + a.eps));
}

emo_status emo_cuda_adamw(emo_exec *exec, const emo_adamw_args *args, emo_error *err) {
    if (args->count <= 0)
        return EMO_OK;
    return emo_cuda_launched(
        EMO_LAUNCH((adamw_kernel), emo_blocks(args->count, THREADS), THREADS, 0, emo_cuda_stream(exec), *args), "adamw",
        err);
}

/* A block sums its own piece in f64, where squares of f32 are exact. */
__global__ static void sumsq_kernel(const float *x, int64_t count, double *parts) {
    EMO_SHARED(double, room, 32);
    int64_t first = (int64_t)blockIdx.x * PER_BLOCK;
    double sum = 0.0;
    for (int64_t i = first + (int64_t)threadIdx.x; i < first + PER_BLOCK && i < count; i += THREADS)
        sum += (double)x[i] * (double)x[i];
    sum = emo_block_sum(sum, room);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

emo_status emo_cuda_sumsq(emo_exec *exec, const emo_sumsq_args *args, emo_error *err) {
    void *parts;
    if (args->count <= 0)
        return EMO_OK;
    unsigned blocks = emo_blocks(args->count, PER_BLOCK);
    EMO_CUDA_TRY(emo_cuda_scratch(exec, blocks * sizeof(double), &parts, err));
    EMO_CUDA_TRY(emo_cuda_launched(
        EMO_LAUNCH((sumsq_kernel), blocks, THREADS, 0, emo_cuda_stream(exec), args->x, args->count, (double *)parts),
        "sumsq", err));
    return emo_cuda_total(exec, (const double *)parts, blocks, 1.0, NULL, args->out, err);
}

__global__ static void clip_kernel(float max_norm, emo_step_scalars *s) {
    double norm = sqrt(s->sumsq);
    float scale = 1.0f;
    if (max_norm > 0.0f) {
        double wanted = (double)max_norm / (norm + 1e-6);
        if (wanted < 1.0)
            scale = (float)wanted;
    }
    s->grad_norm = (float)norm;
    s->clip_scale = scale;
    s->skip = isfinite(norm) ? 0 : 1;
}

emo_status emo_cuda_clip(emo_exec *exec, const emo_clip_args *args, emo_error *err) {
    return emo_cuda_launched(EMO_LAUNCH((clip_kernel), 1, 1, 0, emo_cuda_stream(exec), args->max_norm, args->scalars),
                             "clip", err);
}
