/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised blocks on the device: q8_0, q4_0 and q4_k in the byte layouts of src/tensor/quant.h. Rows are whole blocks
 * and may begin at any address, so they are read byte by byte. */
#ifndef EMO_CUDA_QUANT_H
#define EMO_CUDA_QUANT_H

#include <cuda_fp16.h>
#include <emo/base.h>

#include "emo_gpu.h"

__host__ __device__ static inline int emo_is_quantised(int32_t dtype) {
    return dtype == EMO_DTYPE_Q8_0 || dtype == EMO_DTYPE_Q4_0 || dtype == EMO_DTYPE_Q4_K;
}
__host__ __device__ static inline int emo_is_weight_type(int32_t dtype) {
    return dtype == EMO_DTYPE_F32 || dtype == EMO_DTYPE_F16 || dtype == EMO_DTYPE_BF16 || emo_is_quantised(dtype);
}

/* Bytes of a run of elements, whole blocks of a quantised type. */
__host__ __device__ static inline int64_t emo_run_bytes(int32_t dtype, int64_t elements) {
    if (dtype == EMO_DTYPE_Q8_0)
        return elements / 32 * 34;
    if (dtype == EMO_DTYPE_Q4_0)
        return elements / 32 * 18;
    if (dtype == EMO_DTYPE_Q4_K)
        return elements / 256 * 144;
    return elements * (dtype == EMO_DTYPE_F32 ? 4 : 2);
}

__device__ static inline float emo_half_at(const unsigned char *p) {
    __half_raw bits;
    bits.x = (unsigned short)(p[0] | p[1] << 8);
    return __half2float(__half(bits));
}

/* N elements from element `at` on; N divides 32 and `at` is a multiple of N, so that they share one scale. The products
 * are those of the CPU, bit by bit. */
template <int N>
__device__ static inline void emo_dequantise(const void *data, int32_t dtype, int64_t at, float (&v)[N]) {
    if (dtype == EMO_DTYPE_Q8_0) {
        const unsigned char *block = (const unsigned char *)data + at / 32 * 34;
        float d = emo_half_at(block);
#pragma unroll
        for (int j = 0; j < N; j++)
            v[j] = d * (float)(signed char)block[2 + at % 32 + j];
    } else if (dtype == EMO_DTYPE_Q4_0) {
        const unsigned char *block = (const unsigned char *)data + at / 32 * 18;
        float d = emo_half_at(block);
        int high = at % 32 >= 16;
#pragma unroll
        for (int j = 0; j < N; j++) {
            int q = block[2 + at % 16 + j];
            v[j] = d * (float)((high ? q >> 4 : q & 15) - 8);
        }
    } else {
        const unsigned char *block = (const unsigned char *)data + at / 256 * 144, *packed = block + 4;
        int g = (int)(at % 256) / 32, s, t;
        if (g < 4) {
            s = packed[g] & 63;
            t = packed[g + 4] & 63;
        } else {
            s = (packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4;
            t = (packed[g + 4] >> 4) | (packed[g] >> 6) << 4;
        }
        float scale = emo_half_at(block) * (float)s, offset = emo_half_at(block + 2) * (float)t;
#pragma unroll
        for (int j = 0; j < N; j++) {
            int q = block[16 + 32 * (g / 2) + at % 32 + j];
            v[j] = scale * (float)((g & 1) != 0 ? q >> 4 : q & 15) - offset;
        }
    }
}

#endif
