/* SPDX-License-Identifier: Apache-2.0 */
/* The steps around the products of experts: rows in plan order, bf16 copies, sums per token. */
#include "ops/experts.h"

enum { BLOCK = 256 };

/* Token and weight of every row in plan order; the last block makes the list of tiles. One launch, since decoding waits
 * for launches more than for anything else. */
__global__ static void __launch_bounds__(BLOCK) lists_k(emo_experts_args a, int32_t step, int32_t *token, float *weight,
                                                        emo_cuda_tiles tiles, const emo_expert_slot *slots) {
    EMO_SHARED(int32_t, room, 33);
    if (blockIdx.x == gridDim.x - 1) {
        emo_cuda_tiles_fill(a.offsets, a.experts, step, tiles, room, slots);
        return;
    }
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= a.offsets[a.experts])
        return;
    int32_t assignment = a.order[i];
    token[i] = assignment / a.k_total;
    weight[i] = a.weights[assignment];
}

emo_status emo_cuda_experts_lists(emo_exec *exec, const emo_experts_args *args, int32_t step, int32_t **token,
                                  float **weight, emo_cuda_tiles *tiles, emo_error *err) {
    int64_t all = args->tokens * args->k_total;
    const emo_expert_slot *slots = args->phases == EMO_EXPERTS_RUN ? emo_cuda_table_of(&args->table)->slots : NULL;
    void *room;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)all * sizeof(int32_t), &room, err));
    *token = (int32_t *)room;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)all * sizeof(float), &room, err));
    *weight = (float *)room;
    EMO_CUDA_TRY(emo_cuda_tiles_room(exec, args->experts, all, step, tiles, err));
    return emo_cuda_launched(EMO_LAUNCH(lists_k, emo_blocks(all, BLOCK) + 1, BLOCK, 0, emo_cuda_stream(exec), *args,
                                        step, *token, *weight, *tiles, slots),
                             "experts: lists", err);
}

/* Eight elements a thread; the stride is a multiple of eight. */
__global__ static void __launch_bounds__(BLOCK)
    narrow_k(const float *x, int64_t rows, int64_t cols, int64_t stride, __nv_bfloat16 *out) {
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x, row = i / (stride / 8), col = i % (stride / 8) * 8;
    if (row >= rows)
        return;
    const float *from = x + row * cols + col;
    float v[8];
    if (col + 8 <= cols && ((uintptr_t)from & 15u) == 0) {
        float4 p = ((const float4 *)from)[0], q = ((const float4 *)from)[1];
        v[0] = p.x, v[1] = p.y, v[2] = p.z, v[3] = p.w;
        v[4] = q.x, v[5] = q.y, v[6] = q.z, v[7] = q.w;
    } else {
        for (int j = 0; j < 8; j++)
            v[j] = col + j < cols ? from[j] : 0.0f;
    }
    uint4 packed;
    packed.x = emo_pack_bf16(v[0], v[1]);
    packed.y = emo_pack_bf16(v[2], v[3]);
    packed.z = emo_pack_bf16(v[4], v[5]);
    packed.w = emo_pack_bf16(v[6], v[7]);
    *(uint4 *)(out + row * stride + col) = packed;
}

emo_status emo_cuda_experts_narrow(emo_exec *exec, const float *x, int64_t rows, int64_t cols, int64_t stride,
                                   __nv_bfloat16 *out, emo_error *err) {
    int64_t threads = rows * (stride / 8);
    return emo_cuda_launched(EMO_LAUNCH(narrow_k, (unsigned)emo_ceil_div(threads, BLOCK), BLOCK, 0,
                                        emo_cuda_stream(exec), x, rows, cols, stride, out),
                             "experts: bf16 rows", err);
}

/* ---- sums per token ---- */

__device__ static inline void get4(const float *p, float (&v)[4]) {
#pragma unroll
    for (int q = 0; q < 4; q++)
        v[q] = p[q];
}
__device__ static inline void get4(const __nv_bfloat16 *p, float (&v)[4]) {
    uint2 bits = *(const uint2 *)p;
    v[0] = __uint_as_float(bits.x << 16), v[1] = __uint_as_float(bits.x & 0xffff0000u);
    v[2] = __uint_as_float(bits.y << 16), v[3] = __uint_as_float(bits.y & 0xffff0000u);
}

/* A block has a token and 1024 columns of it; a thread adds up four of them over the token's experts, in the order of
 * j. Where the rows of src have no stride of their own the last columns are taken one by one. */
template <class T>
__global__ static void __launch_bounds__(BLOCK)
    combine_k(emo_experts_args a, const float *weights, const T *src, int64_t stride, float *y, int32_t accumulate) {
    int64_t parts = emo_ceil_div(a.hidden, 4 * BLOCK), t = (int64_t)blockIdx.x / parts;
    int64_t col = ((int64_t)blockIdx.x % parts * BLOCK + threadIdx.x) * 4;
    if (col >= a.hidden)
        return;
    int count = a.hidden - col < 4 ? (int)(a.hidden - col) : 4;
    int whole = count == 4 || sizeof(T) == 2; /* bf16 rows are padded */
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int q = 0; q < 4; q++) {
        if (accumulate && q < count)
            sum[q] = y[t * a.hidden + col + q];
    }
    for (int32_t j = 0; j < a.k_total; j++) {
        int32_t row = a.inverse[t * a.k_total + j];
        if (row < 0)
            continue;
        float w = weights != NULL ? weights[t * a.k_total + j] : 1.0f, v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        const T *from = src + (int64_t)row * stride + col;
        if (whole) {
            get4(from, v);
        } else {
#pragma unroll
            for (int q = 0; q < 4; q++)
                v[q] = q < count ? emo_get(from + q) : 0.0f;
        }
#pragma unroll
        for (int q = 0; q < 4; q++)
            sum[q] = fmaf(w, v[q], sum[q]);
    }
#pragma unroll
    for (int q = 0; q < 4; q++) {
        if (q < count)
            y[t * a.hidden + col + q] = sum[q];
    }
}

emo_status emo_cuda_experts_combine(emo_exec *exec, const emo_experts_args *args, const float *weights, const void *src,
                                    int narrow, int64_t stride, float *y, int32_t accumulate, emo_error *err) {
    unsigned blocks = (unsigned)(args->tokens * emo_ceil_div(args->hidden, 4 * BLOCK));
    emo_queue stream = emo_cuda_stream(exec);
    cudaError_t launched = narrow ? EMO_LAUNCH((combine_k<__nv_bfloat16>), blocks, BLOCK, 0, stream, *args, weights,
                                               (const __nv_bfloat16 *)src, stride, y, accumulate)
                                  : EMO_LAUNCH((combine_k<float>), blocks, BLOCK, 0, stream, *args, weights,
                                               (const float *)src, stride, y, accumulate);
    return emo_cuda_launched(launched, "experts: sum", err);
}

/* out_norm, a warp per assignment */
template <class T>
__global__ static void __launch_bounds__(BLOCK) norms_k(emo_experts_args a, const T *src, int64_t stride) {
    int64_t i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / 32;
    int lane = (int)(threadIdx.x & 31u);
    if (i >= a.tokens * a.k_total)
        return;
    int32_t row = a.inverse[i];
    float sum = 0.0f;
    for (int64_t c = lane; c < a.hidden && row >= 0; c += 32) {
        float v = emo_get(src + (int64_t)row * stride + c);
        sum = fmaf(v, v, sum);
    }
    sum = emo_warp_sum(sum);
    if (lane == 0)
        a.out_norm[i] = sqrtf(sum);
}

emo_status emo_cuda_experts_norms(emo_exec *exec, const emo_experts_args *args, const void *src, int narrow,
                                  int64_t stride, emo_error *err) {
    unsigned blocks = (unsigned)emo_ceil_div(args->tokens * args->k_total, BLOCK / 32);
    emo_queue stream = emo_cuda_stream(exec);
    cudaError_t launched =
        narrow
            ? EMO_LAUNCH((norms_k<__nv_bfloat16>), blocks, BLOCK, 0, stream, *args, (const __nv_bfloat16 *)src, stride)
            : EMO_LAUNCH((norms_k<float>), blocks, BLOCK, 0, stream, *args, (const float *)src, stride);
    return emo_cuda_launched(launched, "experts: norms", err);
}

__global__ static void __launch_bounds__(BLOCK)
    dots_k(emo_experts_args a, const float *partial, int64_t columns, int64_t capacity) {
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    if (i >= a.tokens * a.k_total)
        return;
    int32_t row = a.inverse[i];
    float sum = 0.0f;
    for (int64_t c = 0; c < columns && row >= 0; c++)
        sum += partial[c * capacity + row];
    a.d_weights[i] = sum;
}

emo_status emo_cuda_experts_dots(emo_exec *exec, const emo_experts_args *args, const float *partial, int64_t columns,
                                 int64_t capacity, emo_error *err) {
    unsigned blocks = (unsigned)emo_ceil_div(args->tokens * args->k_total, BLOCK);
    return emo_cuda_launched(
        EMO_LAUNCH(dots_k, blocks, BLOCK, 0, emo_cuda_stream(exec), *args, partial, columns, capacity),
        "experts: gradient of the routing weights", err);
}

/* ---- shape ---- */

emo_cuda_experts_shape emo_cuda_experts_shape_of(emo_exec *exec, const emo_experts_args *args) {
    emo_cuda_experts_shape s;
    s.narrow = emo_cuda_of(exec)->compute == EMO_DTYPE_BF16;
    s.rows = args->tokens * args->k_total;
    s.hidden_stride = s.narrow ? emo_ceil_div(args->hidden, 8) * 8 : args->hidden;
    s.inner_stride = s.narrow ? emo_ceil_div(args->inner, 8) * 8 : args->inner;
    s.large = s.rows >= 64 * (int64_t)args->experts && args->hidden >= 128 && args->inner >= 128;
    s.fast = args->phases == EMO_EXPERTS_COMBINE || emo_cuda_table_of(&args->table)->fast;
    return s;
}
