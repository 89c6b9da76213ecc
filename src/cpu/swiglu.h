/* SPDX-License-Identifier: Apache-2.0 */
/* Row kernels of SwiGLU and of the experts' combine step, one table per instruction-set level. An element's bits do not
 * depend on its place in a vector: the last, partial vector is padded, not treated apart. */
#ifndef EMO_SRC_CPU_SWIGLU_H
#define EMO_SRC_CPU_SWIGLU_H

#include "cpu/cpu.h"

typedef struct emo__swiglu_kernels {
    /* y = silu(gate) * up */
    void (*forward)(int64_t n, const float *gate, const float *up, float *y);
    /* With dh = weight * dy: d_gate = dh * up * silu'(gate), d_up = dh * silu(gate), and h = silu(gate) * up when h is
     * not NULL. Returns dot(h, dy). h may be dy; d_gate and d_up may be gate and up. */
    float (*backward)(int64_t n, const float *gate, const float *up, const float *dy, float weight, float *h,
                      float *d_gate, float *d_up);
    /* dst (+)= sum_j weights[j] * src[inverse[j]], j ascending, inverse -1 skipped; weights NULL: 1 */
    void (*combine)(int64_t n, int32_t k_total, const int32_t *inverse, const float *weights, const float *src,
                    int accumulate, float *dst);
    float (*dot)(int64_t n, const float *a, const float *b);
} emo__swiglu_kernels;

extern const emo__swiglu_kernels emo__swiglu_scalar;
extern const emo__swiglu_kernels emo__swiglu_neon;
extern const emo__swiglu_kernels emo__swiglu_avx2;
extern const emo__swiglu_kernels emo__swiglu_avx512;

const emo__swiglu_kernels *emo__swiglu_kernels_of(emo_isa isa);

#endif
