/* SPDX-License-Identifier: Apache-2.0 */
/* The row kernels of one level, in terms of a vector of VL floats. The including file defines VL, vec, V_ZERO, V_SET1,
 * V_LOAD, V_STORE, V_ADD, V_SUB, V_MUL, V_FMA(a, b, c) = a b + c, V_SIGMOID and KERNELS, the table's name. */
#include <string.h>

#include "cpu/swiglu.h"

/* Loads and stores `have` floats (VL or fewer, the rest 0). */
static inline vec load(const float *p, int64_t have) {
    if (have >= VL)
        return V_LOAD(p);
    float part[VL] = {0};
    memcpy(part, p, (size_t)have * sizeof(float));
    return V_LOAD(part);
}
static inline void put(float *p, vec v, int64_t have) {
    if (have >= VL) {
        V_STORE(p, v);
    } else {
        float part[VL];
        V_STORE(part, v);
        memcpy(p, part, (size_t)have * sizeof(float));
    }
}

static inline float sum_of(vec v) {
    float part[VL], total = 0.0f;
    V_STORE(part, v);
    for (int i = 0; i < VL; i++)
        total += part[i];
    return total;
}

static void forward(int64_t n, const float *gate, const float *up, float *y) {
    for (int64_t i = 0; i < n; i += VL) {
        vec g = load(gate + i, n - i);
        put(y + i, V_MUL(V_MUL(g, V_SIGMOID(g)), load(up + i, n - i)), n - i);
    }
}

static float backward(int64_t n, const float *gate, const float *up, const float *dy, float weight, float *h,
                      float *d_gate, float *d_up) {
    vec one = V_SET1(1.0f), w = V_SET1(weight), dots = V_ZERO;
    for (int64_t i = 0; i < n; i += VL) {
        vec g = load(gate + i, n - i), u = load(up + i, n - i), d = load(dy + i, n - i);
        vec sigma = V_SIGMOID(g);
        vec silu = V_MUL(g, sigma);
        vec out = V_MUL(silu, u);
        dots = V_FMA(out, d, dots);
        vec dh = V_MUL(w, d);
        /* silu' = sigma (1 + g (1 - sigma)) */
        vec slope = V_MUL(sigma, V_FMA(g, V_SUB(one, sigma), one));
        if (h != NULL)
            put(h + i, out, n - i);
        put(d_gate + i, V_MUL(V_MUL(dh, u), slope), n - i);
        put(d_up + i, V_MUL(dh, silu), n - i);
    }
    return sum_of(dots);
}

static void combine(int64_t n, int32_t k_total, const int32_t *inverse, const float *weights, const float *src,
                    int accumulate, float *dst) {
    for (int64_t i = 0; i < n; i += VL) {
        vec sum = accumulate ? load(dst + i, n - i) : V_ZERO;
        for (int32_t j = 0; j < k_total; j++) {
            if (inverse[j] < 0)
                continue;
            vec w = V_SET1(weights != NULL ? weights[j] : 1.0f);
            sum = V_FMA(w, load(src + inverse[j] * n + i, n - i), sum);
        }
        put(dst + i, sum, n - i);
    }
}

static float dot(int64_t n, const float *a, const float *b) {
    vec sum = V_ZERO;
    for (int64_t i = 0; i < n; i += VL)
        sum = V_FMA(load(a + i, n - i), load(b + i, n - i), sum);
    return sum_of(sum);
}

const emo__swiglu_kernels KERNELS = {forward, backward, combine, dot};
