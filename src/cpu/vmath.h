/* SPDX-License-Identifier: Apache-2.0 */
/* exp, sigmoid and silu for the CPU's operators: plain C at every level, and vectors in files built for AVX2 or
 * AVX-512, or that define EMO__NEON.
 *
 * exp(x): x = n ln2 + r with |r| <= ln2 / 2, exp(r) by its series up to r^7 (truncation below 0.1 ulp), times 2^n.
 * Total error at most 2 ulp over the whole range; results below FLT_MIN are denormal or 0, exp(-inf) is 0, exp of more
 * than 88.7228 is +inf, NaN stays NaN. No libm call, so that a level gives the same bits on every machine. The levels
 * differ from each other by fused multiply-add only. */
#ifndef EMO_SRC_CPU_VMATH_H
#define EMO_SRC_CPU_VMATH_H

#include "tensor/dtype.h"

#if defined(__AVX2__) || defined(__AVX512F__)
#include <immintrin.h>
#endif

#if defined(EMO__NEON)
#include <arm_neon.h>
#endif

#define EMO__LOG2E 1.44269504088896341f
#define EMO__LN2_HI 0.693359375f      /* nine bits, so that n * LN2_HI is exact */
#define EMO__LN2_LO (-2.12194440e-4f) /* ln2 - LN2_HI */
#define EMO__EXP_MIN (-105.0f)        /* gives 0 */
#define EMO__EXP_MAX 89.0f            /* gives +inf */
#define EMO__EXP_C2 0.5f
#define EMO__EXP_C3 1.66666666666666667e-1f
#define EMO__EXP_C4 4.16666666666666667e-2f
#define EMO__EXP_C5 8.33333333333333333e-3f
#define EMO__EXP_C6 1.38888888888888889e-3f
#define EMO__EXP_C7 1.98412698412698413e-4f

/* Branch-free, so that a loop over it vectorises. */
static inline float emo__exp(float x) {
    float c = x < EMO__EXP_MIN ? EMO__EXP_MIN : x; /* NaN passes both comparisons */
    c = c > EMO__EXP_MAX ? EMO__EXP_MAX : c;
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    float shifted = c * EMO__LOG2E + magic;
    float n = shifted - magic;
    float r = c - n * EMO__LN2_HI;
    r = r - n * EMO__LN2_LO;
    float p = EMO__EXP_C7;
    p = p * r + EMO__EXP_C6;
    p = p * r + EMO__EXP_C5;
    p = p * r + EMO__EXP_C4;
    p = p * r + EMO__EXP_C3;
    p = p * r + EMO__EXP_C2;
    p = p * (r * r) + r;
    p = p + 1.0f;
    /* 2^n in two factors: n reaches 128 and -151, beyond one float's exponent */
    int32_t whole = (int32_t)(emo__f32_bits(shifted) - 0x4B400000u);
    int32_t half = whole >> 1;
    float s1 = emo__bits_f32((uint32_t)(half + 127) << 23);
    float s2 = emo__bits_f32((uint32_t)(whole - half + 127) << 23);
    return p * s1 * s2;
}

static inline float emo__sigmoid(float x) { return 1.0f / (1.0f + emo__exp(-x)); }
static inline float emo__silu(float x) { return x / (1.0f + emo__exp(-x)); }

#if defined(__AVX2__) && defined(__FMA__)
static inline __m256 emo__exp8(__m256 x) {
    /* max and min return their second operand when one is NaN */
    __m256 c = _mm256_max_ps(_mm256_set1_ps(EMO__EXP_MIN), x);
    c = _mm256_min_ps(_mm256_set1_ps(EMO__EXP_MAX), c);
    __m256 n =
        _mm256_round_ps(_mm256_mul_ps(c, _mm256_set1_ps(EMO__LOG2E)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EMO__LN2_HI), c);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(EMO__LN2_LO), r);
    __m256 p = _mm256_set1_ps(EMO__EXP_C7);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EMO__EXP_C6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EMO__EXP_C5));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EMO__EXP_C4));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EMO__EXP_C3));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(EMO__EXP_C2));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r);
    p = _mm256_add_ps(p, _mm256_set1_ps(1.0f));
    __m256i whole = _mm256_cvtps_epi32(n);
    __m256i half = _mm256_srai_epi32(whole, 1);
    __m256i bias = _mm256_set1_epi32(127);
    __m256i s1 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    __m256i s2 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(s1)), _mm256_castsi256_ps(s2));
}

static inline __m256 emo__sigmoid8(__m256 x) {
    __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, emo__exp8(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)))));
}
static inline __m256 emo__silu8(__m256 x) {
    return _mm256_div_ps(x, _mm256_add_ps(_mm256_set1_ps(1.0f), emo__exp8(_mm256_xor_ps(x, _mm256_set1_ps(-0.0f)))));
}
#endif

#if defined(__AVX512F__) && defined(__AVX512DQ__)
static inline __m512 emo__exp16(__m512 x) {
    __m512 c = _mm512_max_ps(_mm512_set1_ps(EMO__EXP_MIN), x);
    c = _mm512_min_ps(_mm512_set1_ps(EMO__EXP_MAX), c);
    __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(c, _mm512_set1_ps(EMO__LOG2E)),
                                    _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EMO__LN2_HI), c);
    r = _mm512_fnmadd_ps(n, _mm512_set1_ps(EMO__LN2_LO), r);
    __m512 p = _mm512_set1_ps(EMO__EXP_C7);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EMO__EXP_C6));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EMO__EXP_C5));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EMO__EXP_C4));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EMO__EXP_C3));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(EMO__EXP_C2));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r);
    p = _mm512_add_ps(p, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

static inline __m512 emo__sigmoid16(__m512 x) {
    __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, emo__exp16(_mm512_xor_ps(x, _mm512_set1_ps(-0.0f)))));
}
static inline __m512 emo__silu16(__m512 x) {
    return _mm512_div_ps(x, _mm512_add_ps(_mm512_set1_ps(1.0f), emo__exp16(_mm512_xor_ps(x, _mm512_set1_ps(-0.0f)))));
}
#endif

#if defined(EMO__NEON)
static inline float32x4_t emo__exp4(float32x4_t x) {
    float32x4_t c = vmaxq_f32(vdupq_n_f32(EMO__EXP_MIN), x); /* a NaN stays in max and min */
    c = vminq_f32(vdupq_n_f32(EMO__EXP_MAX), c);
    float32x4_t n = vrndnq_f32(vmulq_f32(c, vdupq_n_f32(EMO__LOG2E)));
    float32x4_t r = vfmsq_f32(c, n, vdupq_n_f32(EMO__LN2_HI));
    r = vfmsq_f32(r, n, vdupq_n_f32(EMO__LN2_LO));
    float32x4_t p = vdupq_n_f32(EMO__EXP_C7);
    p = vfmaq_f32(vdupq_n_f32(EMO__EXP_C6), p, r);
    p = vfmaq_f32(vdupq_n_f32(EMO__EXP_C5), p, r);
    p = vfmaq_f32(vdupq_n_f32(EMO__EXP_C4), p, r);
    p = vfmaq_f32(vdupq_n_f32(EMO__EXP_C3), p, r);
    p = vfmaq_f32(vdupq_n_f32(EMO__EXP_C2), p, r);
    p = vfmaq_f32(r, p, vmulq_f32(r, r));
    p = vaddq_f32(p, vdupq_n_f32(1.0f));
    int32x4_t whole = vcvtnq_s32_f32(n);
    int32x4_t half = vshrq_n_s32(whole, 1);
    int32x4_t bias = vdupq_n_s32(127);
    int32x4_t s1 = vshlq_n_s32(vaddq_s32(half, bias), 23);
    int32x4_t s2 = vshlq_n_s32(vaddq_s32(vsubq_s32(whole, half), bias), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(s1)), vreinterpretq_f32_s32(s2));
}

static inline float32x4_t emo__sigmoid4(float32x4_t x) {
    float32x4_t one = vdupq_n_f32(1.0f);
    return vdivq_f32(one, vaddq_f32(one, emo__exp4(vnegq_f32(x))));
}
static inline float32x4_t emo__silu4(float32x4_t x) {
    return vdivq_f32(x, vaddq_f32(vdupq_n_f32(1.0f), emo__exp4(vnegq_f32(x))));
}
#endif

#endif
