/* SPDX-License-Identifier: Apache-2.0 */
#include <immintrin.h>

#include "cpu/gemm/peak.h"

void emo__peak_int8_vnni(const void *memory, int loops) {
    enum { SUMS = 16, LINE = 64 };
    const char *from = memory;
    __m512i sums[SUMS];
    for (int i = 0; i < SUMS; i++)
        sums[i] = _mm512_set1_epi32(i); /* sums that are alike would be made once */
    for (int loop = 0; loop < loops; loop++)
        for (size_t at = 0; at < EMO__PEAK_INT8_BYTES; at += LINE) {
            const __m512i line = _mm512_load_si512(from + at);
#pragma GCC unroll 16
            for (int i = 0; i < SUMS; i++)
                sums[i] = _mm512_dpbusd_epi32(sums[i], line, line);
        }
#pragma GCC unroll 16
    for (int i = 0; i < SUMS; i++)
        __asm__ volatile("" : : "v"(sums[i]));
}
