/* SPDX-License-Identifier: Apache-2.0 */
/* The router, backward. The choice of pools and experts carries no gradient: scores are a softmax (or sigmoid) over a
 * fixed set. A warp per token computes d_logits; products with W and x follow in IEEE f32. */
#include "ops/route.h"

/* The last segment that begins at or before `token`. */
__device__ static inline int64_t segment_at(const emo_route_args &a, int64_t token) {
    int64_t low = 0, high = a.n_segments - 1;
    while (low < high) {
        int64_t middle = (low + high + 1) / 2;
        if (a.segment_begin[middle] <= token)
            low = middle;
        else
            high = middle - 1;
    }
    return low;
}

/* Shared experts with a softmax of their own; the other columns behind the routed ones get 0. */
__device__ static inline void shared_backward(const emo_route_args &a, const float *weights, const float *dw, int lane,
                                              float *d_logits) {
    int own = a.shared_mode == EMO_SHARED_SOFTMAX && a.n_always == 0 && a.shared > 1 && dw != NULL;
    float dot = 0.0f;
    for (int32_t h = 0; h < a.shared && own; h++)
        dot += weights[a.k + h] * dw[a.k + h];
    for (int32_t h = lane; h < a.columns - a.experts; h += 32)
        d_logits[a.experts + h] = own && h < a.shared ? weights[a.k + h] * (dw[a.k + h] - dot) : 0.0f;
}

/* ds[e] = gradient of the chosen weights with respect to the scores; ds is zero before. Lane j has choice j. */
__device__ static inline void weights_to_scores(const emo_route_args &a, const float *logits, float lse,
                                                const int32_t *indices, const float *weights, const float *dw, int lane,
                                                float *ds) {
    if (a.norm_p > 0.0f) {
        /* w_j = s_j / N, dN/ds_j = (s_j / N)^(p - 1) = w_j^(p - 1) */
        double dot = 0.0, norm = 0.0;
        float p = a.norm_p;
        for (int32_t j = lane; j < a.k; j += 32) {
            if (indices[j] < 0)
                continue;
            float v = logits[indices[j]];
            float s = a.gating == EMO_GATING_SIGMOID ? emo_sigmoid(v) + EMO_ROUTE_FLOOR : expf(v - lse);
            dot += (double)dw[j] * (double)weights[j];
            norm += (double)(p == 1.0f ? s : powf(s, p));
        }
        dot = emo_warp_sum(dot);
        norm = emo_warp_sum(norm);
        if (p != 1.0f)
            norm = (double)powf((float)norm, 1.0f / p);
        for (int32_t j = lane; j < a.k && norm > 0.0; j += 32) {
            double dn = p == 1.0f ? 1.0 : (double)powf(weights[j], p - 1.0f);
            if (indices[j] >= 0)
                ds[indices[j]] += (float)(((double)dw[j] - dot * dn) / norm);
        }
    } else {
        for (int32_t j = lane; j < a.k; j += 32) {
            if (indices[j] >= 0)
                ds[indices[j]] += dw[j];
        }
    }
    /* always-active experts do not compete: their ids are none of the above */
    for (int32_t j = lane; j < a.n_always; j += 32) {
        if (indices[a.k + j] >= 0)
            ds[indices[a.k + j]] += dw[a.k + j];
    }
}

template <int PER>
__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK, 1) d_logits_k(emo_route_args a, const emo_route_now *now) {
    emo_route_take(a, now);
    EMO_DYN_SHARED(float, all_ds); /* [warps, n] */
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    int64_t token = (int64_t)blockIdx.x * EMO_ROUTE_WARPS + warp;
    if (token >= a.tokens)
        return;
    int32_t n = a.experts, k_total = emo_route_chosen(a);
    int64_t segment = segment_at(a, token);
    const float *logits = a.logits + token * a.columns, *weights = a.weights + token * k_total;
    const float *dw = a.d_weights != NULL ? a.d_weights + token * k_total : NULL;
    float *d_logits = a.d_logits + token * a.columns, *ds = all_ds + warp * n;
    uint32_t bits = emo_route_bits<PER>(a.allowed + segment * n, n, lane);
    int sigmoid = a.gating == EMO_GATING_SIGMOID;
    float p[PER], lse = 0.0f;
    shared_backward(a, weights, dw, lane, d_logits);
    if (!__any_sync(EMO_FULL_WARP, bits != 0u)) {
        for (int32_t e = lane; e < n; e += 32)
            d_logits[e] = 0.0f;
        return;
    }
    lse = emo_route_softmax<PER>(logits, bits, lane, p);
    for (int32_t e = lane; e < n; e += 32)
        ds[e] = 0.0f;
    __syncwarp();
    if (dw != NULL)
        weights_to_scores(a, logits, lse, a.indices + token * k_total, weights, dw, lane, ds);
    __syncwarp();
    const float *b = a.balance != NULL ? a.balance + (a.balance_by_segment ? segment * n : 0) : NULL;
    double pull = 0.0, total = 1.0;
    if (b != NULL && sigmoid) { /* the loss sees scores divided by their sum */
        total = 0.0;
#pragma unroll
        for (int i = 0; i < PER; i++) {
            if ((bits >> i & 1u) != 0u) {
                double s = (double)(emo_sigmoid(logits[lane + 32 * i]) + EMO_ROUTE_FLOOR);
                pull += (double)b[lane + 32 * i] * s;
                total += s;
            }
        }
        total = emo_warp_sum(total);
        pull = emo_warp_sum(pull) / total;
    }
    float z = 2.0f * a.z_scale * lse, dot = 0.0f, g[PER];
#pragma unroll
    for (int i = 0; i < PER; i++) {
        g[i] = 0.0f;
        if ((bits >> i & 1u) != 0u) {
            int32_t e = lane + 32 * i;
            g[i] = ds[e];
            if (b != NULL)
                g[i] += sigmoid ? (float)(((double)b[e] - pull) / total) : b[e];
            dot += p[i] * g[i];
        }
    }
    dot = emo_warp_sum(dot);
#pragma unroll
    for (int i = 0; i < PER; i++) {
        int32_t e = lane + 32 * i;
        if (e >= n)
            continue;
        float out = 0.0f;
        if ((bits >> i & 1u) != 0u) {
            float s = sigmoid ? emo_sigmoid(logits[e]) : 0.0f;
            out = sigmoid ? g[i] * s * (1.0f - s) + z * p[i] : p[i] * (g[i] - dot + z);
        }
        d_logits[e] = out;
    }
}

/* dx += d_logits W and d_weight += d_logits^T x, through the noise of the forward pass */
static emo_status through_weight(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, emo_error *err) {
    const float *x;
    void *dxj = NULL;
    emo_gemm_args g;
    memset(&g, 0, sizeof g);
    g.alpha = 1.0f;
    g.a = a->d_logits;
    g.lda = a->columns;
    if (a->dx != NULL) {
        if (a->jitter > 0.0f)
            EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(a->tokens * a->hidden) * sizeof(float), &dxj, err));
        g.m = a->tokens;
        g.n = a->hidden;
        g.k = a->columns;
        g.b = a->weight.data;
        g.b_dtype = a->weight.dtype;
        g.ldb = a->weight.stride;
        g.beta = dxj != NULL ? 0.0f : 1.0f;
        g.c = dxj != NULL ? (float *)dxj : a->dx;
        g.ldc = a->hidden;
        EMO_CUDA_TRY(emo_cuda_gemm_f32(exec, &g, err));
        if (dxj != NULL)
            EMO_CUDA_TRY(emo_cuda_route_unjitter(exec, a, now, (const float *)dxj, err));
    }
    if (a->d_weight == NULL)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_route_jitter(exec, a, now, 0, a->tokens, &x, err));
    g.trans_a = 1;
    g.m = a->columns;
    g.n = a->hidden;
    g.k = a->tokens;
    g.b = x;
    g.b_dtype = EMO_DTYPE_F32;
    g.ldb = a->hidden;
    g.beta = 1.0f;
    g.c = a->d_weight;
    g.ldc = a->hidden;
    return emo_cuda_gemm_f32(exec, &g, err);
}

emo_status emo_cuda_route_backward(emo_exec *exec, const emo_route_args *args, emo_error *err) {
    if (args->experts < 1 || args->experts > EMO_ROUTE_MOST)
        return emo_cuda_unsupported(err, "route to this many experts: it can to 1 to 1024");
    if (args->tokens == 0)
        return EMO_OK;
    emo_route_args a;
    const emo_route_now *now;
    EMO_CUDA_TRY(emo_cuda_route_now(exec, args, &a, &now, err));
    size_t shared = EMO_ROUTE_WARPS * (size_t)args->experts * sizeof(float);
    cudaError_t launched = cudaSuccess;
    EMO_ROUTE_PER(args->experts,
                  launched = EMO_LAUNCH((d_logits_k<PER>), (unsigned)emo_ceil_div(args->tokens, EMO_ROUTE_WARPS),
                                        EMO_ROUTE_BLOCK, shared, emo_cuda_stream(exec), a, now));
    EMO_CUDA_TRY(emo_cuda_launched(launched, "route: gradient", err));
    return through_weight(exec, &a, now, err);
}
