/* SPDX-License-Identifier: Apache-2.0 */
/* One vector type whose width follows the flags of the including file, so that a kernel is written once and compiled
 * per instruction set. Only for files that are compiled per set (and the headers they share): everything is static. */
#ifndef EMO_SRC_CPU_VEC_H
#define EMO_SRC_CPU_VEC_H

#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

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
EMO__KERNEL emo__vf emo__vset(float x) { return (emo__vf){0} + x; }

/* a * b + c; one rounding where the set has FMA. */
EMO__KERNEL emo__vf emo__vfma(emo__vf a, emo__vf b, emo__vf c) {
#if defined(__AVX512F__)
    return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
    return _mm256_fmadd_ps(a, b, c);
#else
    return a * b + c;
#endif
}

/* mask lanes are 0 or -1 */
EMO__KERNEL emo__vf emo__vselect(emo__vi mask, emo__vf yes, emo__vf no) {
    return (emo__vf)(((emo__vi)yes & mask) | ((emo__vi)no & ~mask));
}
EMO__KERNEL emo__vf emo__vmax(emo__vf a, emo__vf b) { return emo__vselect(b > a, b, a); }

/* Sum and maximum over the lanes, in a fixed tree. */
EMO__KERNEL float emo__vsum(emo__vf v) {
    float lane[EMO__VW];
    memcpy(lane, &v, sizeof v);
    for (int half = EMO__VW / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    }
    return lane[0];
}
EMO__KERNEL float emo__vhmax(emo__vf v) {
    float lane[EMO__VW];
    memcpy(lane, &v, sizeof v);
    for (int half = EMO__VW / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++)
            lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
    }
    return lane[0];
}

/* e^x with a relative error below 2e-7; 0 below -87.3, exact at 0; large x saturates near 2^127; NaN stays NaN. */
EMO__KERNEL emo__vf emo__vexp(emo__vf x) {
    const emo__vf low = emo__vset(-87.3f), high = emo__vset(88.0f);
    emo__vi tiny = x < low;
    x = emo__vselect(tiny, low, x);
    x = emo__vselect(x > high, high, x);
    const emo__vf magic = emo__vset(12582912.0f); /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    emo__vf shifted = emo__vfma(x, emo__vset(1.44269504f), magic);
    emo__vf n = shifted - magic;
    emo__vf r = emo__vfma(n, emo__vset(-0.693359375f), x); /* ln 2 in two parts, the first with few bits */
    r = emo__vfma(n, emo__vset(2.12194440e-4f), r);
    emo__vf p = emo__vset(1.0f / 720.0f);
    p = emo__vfma(p, r, emo__vset(1.0f / 120.0f));
    p = emo__vfma(p, r, emo__vset(1.0f / 24.0f));
    p = emo__vfma(p, r, emo__vset(1.0f / 6.0f));
    p = emo__vfma(p, r, emo__vset(0.5f));
    p = emo__vfma(p, r, emo__vset(1.0f));
    p = emo__vfma(p, r, emo__vset(1.0f));
    emo__vi exponent = (((emo__vi)shifted << 23) + (127 << 23));
    p = p * (emo__vf)exponent;
    return emo__vselect(tiny, emo__vset(0.0f), p);
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
