/* SPDX-License-Identifier: Apache-2.0 */
/* Device code that many kernels share: weights of any element type, sums over warps and blocks in a fixed order. */
#ifndef EMO_CUDA_KERNEL_H
#define EMO_CUDA_KERNEL_H

#include <cuda_fp16.h>
#include <emo/sys/backend.h>

#include "emo_gpu.h"
#include "quant.h"

/* ceil(n / d) for n >= 0, d > 0. */
__host__ __device__ static inline int64_t emo_ceil_div(int64_t n, int64_t d) { return (n + d - 1) / d; }

/* Blocks of `threads` for n > 0 pieces of work, one thread each. */
static inline unsigned emo_blocks(int64_t n, int threads) { return (unsigned)emo_ceil_div(n, threads); }
/* The number of this thread in the grid. */
__device__ static inline int64_t emo_index(void) {
    return (int64_t)blockIdx.x * (int64_t)blockDim.x + (int64_t)threadIdx.x;
}

/* A weight as kernels see it: passed by value. */
typedef struct emo_cuda_weight {
    const void *data;
    int64_t stride; /* elements from row to row */
    int32_t dtype;
} emo_cuda_weight;

static inline emo_cuda_weight emo_cuda_weight_of(const emo_weight *w) {
    emo_cuda_weight out = {w->data, w->stride, w->dtype};
    return out;
}

/* Of a float type. */
__device__ static inline float emo_plain_element(const void *data, int32_t dtype, int64_t i) {
    if (dtype == EMO_DTYPE_F32)
        return ((const float *)data)[i];
    if (dtype == EMO_DTYPE_BF16)
        return __bfloat162float(((const __nv_bfloat16 *)data)[i]);
    return __half2float(((const __half *)data)[i]);
}

/* Of any type a weight can have. */
__device__ static inline float emo_element(const void *data, int32_t dtype, int64_t i) {
    if (!emo_is_quantised(dtype))
        return emo_plain_element(data, dtype, i);
    float v[1];
    emo_dequantise<1>(data, dtype, i, v);
    return v[0];
}

__device__ static inline void emo_store_element(float *dst, int64_t i, float v) { dst[i] = v; }
__device__ static inline void emo_store_element(__nv_bfloat16 *dst, int64_t i, float v) {
    dst[i] = __float2bfloat16(v);
}

__device__ static inline float emo_weight_at(const emo_cuda_weight &w, int64_t row, int64_t col) {
    return emo_element(w.data, w.dtype, row * w.stride + col);
}

/* No overflow on either side of 0. */
__device__ static inline float emo_sigmoid(float x) {
    float e = expf(x > 0.0f ? -x : x);
    return (x > 0.0f ? 1.0f : e) / (1.0f + e);
}

/* Larger floats have larger keys; both zeros have the same. */
__device__ static inline uint32_t emo_order_key(float x) {
    uint32_t bits = __float_as_uint(x + 0.0f);
    return (bits & 0x80000000u) != 0u ? ~bits : bits | 0x80000000u;
}

/* emo_gpu.h has the sums over a warp for float and double. */
__device__ static inline int emo_warp_sum(int v) {
    for (int offset = 16; offset > 0; offset >>= 1)
        v += __shfl_xor_sync(EMO_FULL_WARP, v, offset);
    return v;
}

/* The sum over a block whose size is a multiple of 32, in every thread. `room`: 32 elements of shared memory, which may
 * be used again at once. Every thread of the block calls it. */
template <class T>
__device__ static inline T emo_block_sum(T v, T *room) {
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5), warps = (int)(blockDim.x >> 5);
    v = emo_warp_sum(v);
    if (lane == 0)
        room[warp] = v;
    __syncthreads();
    T sum = room[0];
    for (int i = 1; i < warps; i++)
        sum += room[i];
    __syncthreads();
    return sum;
}

__device__ static inline float emo_block_max(float v, float *room) {
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5), warps = (int)(blockDim.x >> 5);
    v = emo_warp_max(v);
    if (lane == 0)
        room[warp] = v;
    __syncthreads();
    float top = room[0];
    for (int i = 1; i < warps; i++)
        top = room[i] > top || room[i] != room[i] ? room[i] : top;
    __syncthreads();
    return top;
}

#endif
