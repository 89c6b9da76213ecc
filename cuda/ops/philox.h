/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own Philox4x32-10 on the device: the same draws as src/tensor/philox.h, bit by bit. */
#ifndef EMO_CUDA_OPS_PHILOX_H
#define EMO_CUDA_OPS_PHILOX_H

#include "emo_gpu.h"

/* What a draw is for; numbers of src/tensor/philox.h. */
enum { EMO_CUDA_RNG_JITTER = 4, EMO_CUDA_RNG_SAMPLE = 5 };

typedef struct emo_cuda_philox {
    uint32_t v[4];
} emo_cuda_philox;

__device__ static inline emo_cuda_philox emo_philox_draw(uint64_t seed, uint32_t purpose, uint64_t a, uint64_t b,
                                                         uint32_t c) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    /* 128 counter bits: a 48, b 40, purpose 8, c 32 */
    uint32_t c0 = (uint32_t)a, c1 = (uint32_t)((a >> 32) & 0xFFFFu) | (uint32_t)((b & 0xFFFFu) << 16);
    uint32_t c2 = (uint32_t)((b >> 16) & 0xFFFFFFu) | (purpose << 24), c3 = c;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    emo_cuda_philox out = {{c0, c1, c2, c3}};
    return out;
}

/* [0, 1) with 24 bits, and with 53. */
__device__ static inline float emo_uniform_f32(uint32_t bits) { return (float)(bits >> 8) * (1.0f / 16777216.0f); }
__device__ static inline double emo_uniform_f64(uint32_t high, uint32_t low) {
    return (double)((((uint64_t)high << 32) | low) >> 11) * (1.0 / 9007199254740992.0);
}

#endif
