/* SPDX-License-Identifier: Apache-2.0 */
/* Only files built for 64-bit Arm get anything from this. */
#ifndef EMO_SRC_CPU_GEMM_TRANSPOSE_NEON_H
#define EMO_SRC_CPU_GEMM_TRANSPOSE_NEON_H

#if defined(__aarch64__)
#include <arm_neon.h>

/* 4 x 4 words of 32 bits, whatever they hold. */
static inline __attribute__((always_inline)) void emo__transpose_4(int32x4_t r[4]) {
    int32x4_t low = vzip1q_s32(r[0], r[2]), high = vzip2q_s32(r[0], r[2]);
    int32x4_t low_odd = vzip1q_s32(r[1], r[3]), high_odd = vzip2q_s32(r[1], r[3]);
    r[0] = vzip1q_s32(low, low_odd);
    r[1] = vzip2q_s32(low, low_odd);
    r[2] = vzip1q_s32(high, high_odd);
    r[3] = vzip2q_s32(high, high_odd);
}

#endif
#endif
