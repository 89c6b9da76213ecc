/* SPDX-License-Identifier: Apache-2.0 */
/* One vector type whose width follows the flags of the including file, so that a kernel is written once and compiled
 * per instruction set. Only for files that are compiled per set (and the headers they share): everything is static. */
#ifndef EMO_SRC_CPU_VEC_H
#define EMO_SRC_CPU_VEC_H

#include <stdint.h>
#include <string.h>

#include "cpu/vmath.h"

#if defined(__AVX512F__)
#define EMO__VW 16
#elif defined(__AVX2__)
#define EMO__VW 8
#else
#define EMO__VW 4
#endif

typedef float emo__vf __attribute__((vector_size(EMO__VW * 4)));
typedef int32_t emo__vi __attribute__((vector_size(EMO__VW * 4)));

#define EMO__KERNEL static inline __attribute__((always_inline))

EMO__KERNEL emo__vf emo__vload(const float *p) {
    emo__vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
EMO__KERNEL void emo__vstore(float *p, emo__vf v) { memcpy(p, &v, sizeof v); }
/* Not by adding x to zeros: that is an addition in place of a load that broadcasts. */
EMO__KERNEL emo__vf emo__vset(float x) {
#if defined(__AVX512F__)
    return _mm512_set1_ps(x);
#elif defined(__AVX2__)
    return _mm256_set1_ps(x);
#elif defined(EMO__NEON)
    return vdupq_n_f32(x);
#else
    return (emo__vf){x, x, x, x};
#endif
}

/* a * b + c; one rounding where the set has FMA. */
EMO__KERNEL emo__vf emo__vfma(emo__vf a, emo__vf b, emo__vf c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(a, b, c);
#elif defined(EMO__NEON)
    return vfmaq_f32(c, a, b);
#else
    return a * b + c;
#endif
}

/* mask lanes are 0 or -1 */
EMO__KERNEL emo__vf emo__vselect(emo__vi mask, emo__vf yes, emo__vf no) {
    return (emo__vf)(((emo__vi)yes & mask) | ((emo__vi)no & ~mask));
}
/* The larger; a NaN in b is passed over. */
EMO__KERNEL emo__vf emo__vmax(emo__vf a, emo__vf b) {
#if defined(__AVX512F__)
    return _mm512_max_ps(b, a);
#elif defined(__AVX2__)
    return _mm256_max_ps(b, a);
#else
    return emo__vselect(b > a, b, a);
#endif
}

/* Lanes from number `keep` on become `fill`. */
EMO__KERNEL emo__vf emo__vkeep(emo__vf v, int64_t keep, float fill) {
    emo__vi lane;
    for (int32_t i = 0; i < EMO__VW; i++)
        lane[i] = i;
    return emo__vselect(lane < (int32_t)keep, v, emo__vset(fill));
}

/* The lanes with neighbouring groups of `half` lanes exchanged: the step of the trees below. */
EMO__KERNEL emo__vf emo__vfold(emo__vf v, int half) {
#if EMO__VW == 16
    __m512 x = v;
    return half == 8   ? (emo__vf)_mm512_shuffle_f32x4(x, x, 0x4E)
           : half == 4 ? (emo__vf)_mm512_shuffle_f32x4(x, x, 0xB1)
           : half == 2 ? (emo__vf)_mm512_permute_ps(x, 0x4E)
                       : (emo__vf)_mm512_permute_ps(x, 0xB1);
#elif EMO__VW == 8
    __m256 x = v;
    return half == 4   ? (emo__vf)_mm256_permute2f128_ps(x, x, 1)
           : half == 2 ? (emo__vf)_mm256_permute_ps(x, 0x4E)
                       : (emo__vf)_mm256_permute_ps(x, 0xB1);
#else
    return half == 2 ? __builtin_shufflevector(v, v, 2, 3, 0, 1) : __builtin_shufflevector(v, v, 1, 0, 3, 2);
#endif
}

/* Sum and maximum over the lanes, in a fixed tree: halves first. */
EMO__KERNEL float emo__vsum(emo__vf v) {
#if EMO__VW == 16
    v += emo__vfold(v, 8);
#endif
#if EMO__VW >= 8
    v += emo__vfold(v, 4);
#endif
    v += emo__vfold(v, 2);
    v += emo__vfold(v, 1);
    return v[0];
}
EMO__KERNEL float emo__vhmax(emo__vf v) {
#if EMO__VW == 16
    v = emo__vmax(v, emo__vfold(v, 8));
#endif
#if EMO__VW >= 8
    v = emo__vmax(v, emo__vfold(v, 4));
#endif
    v = emo__vmax(v, emo__vfold(v, 2));
    v = emo__vmax(v, emo__vfold(v, 1));
    return v[0];
}

/* e^x as vmath.h defines it: exactly 1 at 0, 0 at -inf, NaN stays NaN. */
EMO__KERNEL emo__vf emo__vexp(emo__vf x) {
#if defined(__AVX512F__)
    return emo__exp16(x);
#elif defined(__AVX2__)
    return emo__exp8(x);
#elif defined(EMO__NEON)
    return emo__exp4(x);
#else
    for (int i = 0; i < EMO__VW; i++)
        x[i] = emo__exp(x[i]);
    return x;
#endif
}

/* The first n lanes (n < EMO__VW) of p, `fill` in the others. */
EMO__KERNEL emo__vf emo__vload_part(const float *p, int64_t n, float fill) {
    float lane[EMO__VW];
    for (int64_t i = 0; i < EMO__VW; i++)
        lane[i] = i < n ? p[i] : fill;
    return emo__vload(lane);
}
EMO__KERNEL void emo__vstore_part(float *p, emo__vf v, int64_t n) {
    float lane[EMO__VW];
    emo__vstore(lane, v);
    for (int64_t i = 0; i < n; i++)
        p[i] = lane[i];
}

#endif
