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

/* A block per token. The first token of an id owns its row: it gathers the places of the id in token order and adds
 * them up in that order, a thread per column; all other blocks leave. No float atomics. */
__global__ static void embed_backward_kernel(const int32_t *ids, int64_t tokens, int64_t hidden, const float *d_out,
                                             float *d_weight) {
    EMO_SHARED(int32_t, found, THREADS);
    EMO_SHARED(int, per_warp, THREADS / 32);
    int64_t own = blockIdx.x;
    int32_t id = ids[own];
    int earlier = 0;
    for (int64_t t0 = 0; t0 < own && !earlier; t0 += THREADS) {
        int64_t t = t0 + (int64_t)threadIdx.x;
        earlier = __syncthreads_or(t < own && ids[t] == id);
    }
    if (earlier)
        return;
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    for (int64_t t0 = own; t0 < tokens; t0 += THREADS) {
        int64_t t = t0 + (int64_t)threadIdx.x;
        int hit = t < tokens && ids[t] == id;
        unsigned hits = __ballot_sync(EMO_FULL_WARP, hit);
        if (lane == 0)
            per_warp[warp] = __popc(hits);
        __syncthreads();
        int place = __popc(hits & ((1u << lane) - 1u)), all = 0;
        for (int w = 0; w < THREADS / 32; w++) {
            place += w < warp ? per_warp[w] : 0;
            all += per_warp[w];
        }
        if (hit)
            found[place] = (int32_t)threadIdx.x;
        __syncthreads();
        for (int64_t c = threadIdx.x; c < hidden && all > 0; c += THREADS) {
            float sum = d_weight[id * hidden + c];
            for (int i = 0; i < all; i++)
                sum += d_out[(t0 + found[i]) * hidden + c];
            d_weight[id * hidden + c] = sum;
        }
        __syncthreads();
    }
}

emo_status emo_cuda_embed_backward(emo_exec *exec, const emo_embed_args *args, emo_error *err) {
    if (args->tokens <= 0 || args->hidden <= 0)
        return EMO_OK;
    return emo_cuda_launched(EMO_LAUNCH((embed_backward_kernel), (unsigned)args->tokens, THREADS, 0,
                                        emo_cuda_stream(exec), args->ids, args->tokens, args->hidden, args->d_out,
                                        args->d_weight),
                             "embed_backward", err);
}
