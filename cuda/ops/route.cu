/* SPDX-License-Identifier: Apache-2.0 */
/* The router, forward: logits and pools. Selection is in route_select.cu. */
#include "ops/pool.h"
#include "ops/route.h"

/* ---- logits ---- */

/* The noise of elements 4 b .. 4 b + 3 of a token. */
__device__ static inline void noise_of(const emo_route_args &a, int64_t token, int64_t b, float (&noise)[4]) {
    int64_t blocks = (a.hidden + 3) / 4;
    emo_cuda_philox r = emo_philox_draw(a.seed, EMO_CUDA_RNG_JITTER, a.step,
                                        (uint64_t)((a.first_token + token) * blocks + b), (uint32_t)a.layer);
#pragma unroll
    for (int j = 0; j < 4; j++)
        noise[j] = 1.0f + a.jitter * (2.0f * emo_uniform_f32(r.v[j]) - 1.0f);
}

/* to[t - first] (+)= from[t - skip] * noise[t], a thread per four elements */
__global__ static void __launch_bounds__(256) jitter_k(emo_route_args a, const emo_route_now *now, int64_t first,
                                                       int64_t last, const float *from, float *to, int32_t accumulate) {
    emo_route_take(a, now);
    int64_t blocks = (a.hidden + 3) / 4, i = (int64_t)blockIdx.x * 256 + threadIdx.x;
    if (i >= (last - first) * blocks)
        return;
    int64_t row = i / blocks, b = i % blocks;
    float noise[4];
    noise_of(a, first + row, b, noise);
    for (int64_t j = 0; j < 4 && b * 4 + j < a.hidden; j++) {
        int64_t at = row * a.hidden + b * 4 + j;
        float v = from[at] * noise[j];
        to[at] = accumulate ? to[at] + v : v;
    }
}

static emo_status jitter(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, int64_t first, int64_t last,
                         const float *from, float *to, int32_t accumulate, emo_error *err) {
    int64_t threads = (last - first) * ((a->hidden + 3) / 4);
    return emo_cuda_launched(EMO_LAUNCH(jitter_k, (unsigned)emo_ceil_div(threads, 256), 256, 0, emo_cuda_stream(exec),
                                        *a, now, first, last, from, to, accumulate),
                             "route: jitter", err);
}

emo_status emo_cuda_route_now(emo_exec *exec, const emo_route_args *args, emo_route_args *out,
                              const emo_route_now **now, emo_error *err) {
    emo_route_now values = {args->n_segments, args->first_token, args->step,
                            args->z_scale,    args->pool_mass,   args->pool_min,
                            args->pool_max,   args->forced,      0};
    void *device;
    *out = *args;
    EMO_CUDA_TRY(emo_cuda_now(exec, &values, sizeof values, &device, err));
    *now = (const emo_route_now *)device;
    if (device == NULL)
        return EMO_OK;
    out->n_segments = emo_cuda_capacity(exec, EMO_CUDA_CAPACITY_DOCUMENTS, args->n_segments);
    out->first_token = 0;
    out->step = 0;
    out->z_scale = 0.0f;
    out->pool_mass = 0.0f;
    out->pool_min = out->pool_max = out->forced = 0;
    return EMO_OK;
}

emo_status emo_cuda_route_jitter(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, int64_t first,
                                 int64_t last, const float **x, emo_error *err) {
    void *out;
    *x = a->x + first * a->hidden;
    if (!(a->jitter > 0.0f) || last <= first)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)((last - first) * a->hidden) * sizeof(float), &out, err));
    EMO_CUDA_TRY(jitter(exec, a, now, first, last, *x, (float *)out, 0, err));
    *x = (const float *)out;
    return EMO_OK;
}

emo_status emo_cuda_route_unjitter(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, const float *dxj,
                                   emo_error *err) {
    return jitter(exec, a, now, 0, a->tokens, dxj, a->dx, 1, err);
}

/* IEEE f32 whatever the exec computes in: a choice between experts must not hang on bf16 rounding. */
static emo_status logits_phase(emo_exec *exec, const emo_route_args *a, const emo_route_now *now, emo_error *err) {
    if (a->last <= a->first)
        return EMO_OK;
    emo_gemm_args g;
    memset(&g, 0, sizeof g);
    EMO_CUDA_TRY(emo_cuda_route_jitter(exec, a, now, a->first, a->last, &g.a, err));
    g.trans_b = 1;
    g.m = a->last - a->first;
    g.n = a->columns;
    g.k = a->hidden;
    g.alpha = 1.0f;
    g.lda = a->hidden;
    g.b = a->weight.data;
    g.b_dtype = a->weight.dtype;
    g.ldb = a->weight.stride;
    g.c = a->logits + a->first * a->columns;
    g.ldc = a->columns;
    return emo_cuda_gemm_f32(exec, &g, err);
}

/* ---- pools ---- */

/* sums[piece] = sum of the softmax rows of a piece: each warp its tokens in ascending order, then the warps. */
template <int PER>
__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK)
    usage_k(emo_route_args a, const emo_cuda_tile *pieces, float *sums) {
    EMO_DYN_SHARED(float, part); /* [warps, n] */
    emo_cuda_tile piece = pieces[blockIdx.x];
    if (piece.group < 0)
        return;
    int32_t n = a.experts;
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    const uint8_t *allowed = a.allowed_in != NULL ? a.allowed_in + (int64_t)piece.group * n : NULL;
    uint32_t bits = emo_route_bits<PER>(allowed, n, lane);
    float sum[PER], z[PER];
#pragma unroll
    for (int i = 0; i < PER; i++)
        sum[i] = 0.0f;
    if (__any_sync(EMO_FULL_WARP, bits != 0u)) {
        for (int32_t t = warp; t < piece.rows; t += EMO_ROUTE_WARPS) {
            (void)emo_route_softmax<PER>(a.logits + (int64_t)(piece.first + t) * a.columns, bits, lane, z);
#pragma unroll
            for (int i = 0; i < PER; i++)
                sum[i] += z[i];
        }
    }
#pragma unroll
    for (int i = 0; i < PER; i++) {
        if (lane + 32 * i < n)
            part[warp * n + lane + 32 * i] = sum[i];
    }
    __syncthreads();
    for (int32_t e = (int32_t)threadIdx.x; e < n; e += EMO_ROUTE_BLOCK) {
        float all = 0.0f;
        for (int w = 0; w < EMO_ROUTE_WARPS; w++)
            all += part[w * n + e];
        sums[(int64_t)blockIdx.x * n + e] = all;
    }
}

/* Does expert e stay whatever its usage? */
__device__ static inline int protects(const emo_route_args &a, int32_t e) {
    int yes = e >= a.experts - a.forced;
    for (int32_t j = 0; j < a.n_always; j++)
        yes |= a.always[j] == e;
    return yes;
}

/* One block per segment. */
__global__ static void __launch_bounds__(EMO_ROUTE_BLOCK)
    pool_k(emo_route_args a, const emo_route_now *now, const int32_t *piece_of, const float *sums) {
    emo_route_take(a, now);
    if ((int64_t)blockIdx.x >= a.n_segments)
        return;
    EMO_DYN_SHARED(uint64_t, keys); /* behind them [n] usages, [n] states */
    EMO_SHARED(int32_t, room, 33);
    EMO_SHARED(int64_t, wanted, 1);
    int32_t n = a.experts, s = (int32_t)blockIdx.x, tid = (int32_t)threadIdx.x;
    int64_t at = (int64_t)s * n;
    float *usage = (float *)(keys + emo_pool_keys(n));
    int32_t *state = (int32_t *)(usage + n);
    for (int32_t e = tid; e < n; e += EMO_ROUTE_BLOCK) {
        int stays = protects(a, e), in = a.allowed_in == NULL || a.allowed_in[at + e] != 0;
        for (int32_t j = 0; j < a.n_always; j++)
            in |= a.always[j] == e;
        state[e] = !in ? EMO_POOL_OUTSIDE : stays ? EMO_POOL_STAYS : EMO_POOL_COMPETES;
        a.allowed[at + e] = (uint8_t)in;
        if (a.segment_counts != NULL)
            a.segment_counts[at + e] = 0;
        if (a.segment_score_sum != NULL)
            a.segment_score_sum[at + e] = 0.0f;
        if (a.usage == NULL)
            continue;
        float sum = 0.0f;
        for (int32_t p = piece_of[s]; p < piece_of[s + 1]; p++)
            sum += sums[(int64_t)p * n + e];
        usage[e] = sum;
        a.usage[at + e] = sum;
    }
    int by_mass = a.pool_mass > 0.0f;
    if (a.usage == NULL || (!by_mass && a.pool_size == NULL))
        return;
    emo_pool_rule rule = {a.pool_mass, by_mass ? (double)(a.segment_begin[s + 1] - a.segment_begin[s]) : 0.0,
                          a.pool_min, a.pool_max, by_mass ? 0 : (int64_t)a.pool_size[s]};
    emo_pool_narrow(usage, state, n, rule, keys, room, wanted, a.allowed + at);
}

static emo_status pool_phase(emo_exec *exec, const emo_route_args *a, const emo_route_now *now,
                             const emo_cuda_tiles *pieces, emo_error *err) {
    emo_queue stream = emo_cuda_stream(exec);
    size_t row = (size_t)a->experts * sizeof(float);
    void *sums = NULL;
    if (a->usage != NULL) {
        EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)pieces->bound * row, &sums, err));
        cudaError_t launched = cudaSuccess;
        EMO_ROUTE_PER(a->experts, launched = EMO_LAUNCH((usage_k<PER>), (unsigned)pieces->bound, EMO_ROUTE_BLOCK,
                                                        EMO_ROUTE_WARPS * row, stream, *a,
                                                        (const emo_cuda_tile *)pieces->list, (float *)sums));
        EMO_CUDA_TRY(emo_cuda_launched(launched, "route: usage", err));
    }
    return emo_cuda_launched(EMO_LAUNCH(pool_k, (unsigned)a->n_segments, EMO_ROUTE_BLOCK, emo_pool_bytes(a->experts),
                                        stream, *a, now, (const int32_t *)pieces->of_group, (const float *)sums),
                             "route: pool", err);
}

emo_status emo_cuda_route_forward(emo_exec *exec, const emo_route_args *args, emo_error *err) {
    if (args->experts < 1 || args->experts > EMO_ROUTE_MOST)
        return emo_cuda_unsupported(err, "route to this many experts: it can to 1 to 1024");
    emo_route_args a;
    const emo_route_now *now;
    EMO_CUDA_TRY(emo_cuda_route_now(exec, args, &a, &now, err));
    if ((args->phases & EMO_ROUTE_LOGITS) != 0)
        EMO_CUDA_TRY(logits_phase(exec, &a, now, err));
    if ((args->phases & (EMO_ROUTE_POOL | EMO_ROUTE_SELECT)) == 0 || args->tokens == 0)
        return EMO_OK;
    emo_cuda_tiles pieces;
    EMO_CUDA_TRY(emo_cuda_tiles_make(exec, a.segment_begin, a.n_segments, now != NULL ? &now->n_segments : NULL,
                                     a.tokens, EMO_ROUTE_PIECE, &pieces, err));
    if ((args->phases & EMO_ROUTE_POOL) != 0)
        EMO_CUDA_TRY(pool_phase(exec, &a, now, &pieces, err));
    if ((args->phases & EMO_ROUTE_SELECT) != 0)
        EMO_CUDA_TRY(emo_cuda_route_select(exec, &a, now, &pieces, err));
    return EMO_OK;
}
