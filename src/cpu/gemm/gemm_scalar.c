/* SPDX-License-Identifier: Apache-2.0 */
/* Portable kernels: four-float vectors by the compiler's extension, which every target has in some form. */
#include "tensor/dtype.h"

#define VL 4
#define MR 4
#define NRV 2
#define KERNELS emo__gemm_scalar
#define KERNELS_BF16 emo__gemm_scalar_bf16
#define QUANTISED NULL

typedef float vec __attribute__((vector_size(16)));

static inline vec load_f32(const void *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline vec load_bf16(const void *p) {
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return (vec){emo__bf16_to_f32(h[0]), emo__bf16_to_f32(h[1]), emo__bf16_to_f32(h[2]), emo__bf16_to_f32(h[3])};
}
static inline vec load_f16(const void *p) {
    uint16_t h[4];
    memcpy(h, p, sizeof h);
    return (vec){emo__f16_to_f32(h[0]), emo__f16_to_f32(h[1]), emo__f16_to_f32(h[2]), emo__f16_to_f32(h[3])};
}
static inline void store(float *p, vec v) { memcpy(p, &v, sizeof v); }

static inline void transpose(vec r[VL]) {
    vec t[VL];
    for (int i = 0; i < VL; i++)
        t[i] = (vec){r[0][i], r[1][i], r[2][i], r[3][i]};
    memcpy(r, t, sizeof t);
}

#define V_ZERO ((vec){0})
#define V_SET1(x) ((vec){(x), (x), (x), (x)})
#define V_LOAD(p) load_f32(p)
#define V_STORE(p, v) store((p), (v))
#define V_ADD(a, b) ((a) + (b))
#define V_MUL(a, b) ((a) * (b))
#define V_FMA(a, b, c) ((c) + (a) * (b))

#include "cpu/gemm/gemm_body.h"
