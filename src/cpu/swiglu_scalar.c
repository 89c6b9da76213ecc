/* SPDX-License-Identifier: Apache-2.0 */
/* Portable row kernels on four-float vectors. */
#include "cpu/vmath.h"

#define VL 4
#define KERNELS emo__swiglu_scalar

typedef float vec __attribute__((vector_size(16)));

static inline vec load_vec(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store_vec(float *p, vec v) { memcpy(p, &v, sizeof v); }
static inline vec sigmoid_vec(vec v) {
    return (vec){emo__sigmoid(v[0]), emo__sigmoid(v[1]), emo__sigmoid(v[2]), emo__sigmoid(v[3])};
}

#define V_ZERO ((vec){0})
#define V_SET1(x) ((vec){(x), (x), (x), (x)})
#define V_LOAD(p) load_vec(p)
#define V_STORE(p, v) store_vec((p), (v))
#define V_ADD(a, b) ((a) + (b))
#define V_SUB(a, b) ((a) - (b))
#define V_MUL(a, b) ((a) * (b))
#define V_FMA(a, b, c) ((c) + (a) * (b))
#define V_SIGMOID(v) sigmoid_vec(v)

#include "cpu/swiglu_body.h"
