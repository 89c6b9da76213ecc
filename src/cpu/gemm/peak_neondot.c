/* SPDX-License-Identifier: Apache-2.0 */
#include <arm_neon.h>

#include "cpu/gemm/peak.h"

void emo__peak_int8_neon_dot(const void *memory, int loops) {
    enum { SUMS = 16, WORDS = 16 };
    const int8_t *from = memory;
    int32x4_t sums[SUMS];
    for (int i = 0; i < SUMS; i++)
        sums[i] = vdupq_n_s32(i); /* sums that are alike would be made once */
    for (int loop = 0; loop < loops; loop++)
        for (size_t at = 0; at < EMO__PEAK_INT8_BYTES; at += WORDS) {
            const int8x16_t words = vld1q_s8(from + at);
#pragma GCC unroll 16
            for (int i = 0; i < SUMS; i++)
                sums[i] = vdotq_s32(sums[i], words, words);
        }
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "w"(sums[i]));
}
