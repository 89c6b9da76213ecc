/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of one level, in terms of a vector of VL floats. The including file defines VL, MR, NRV (vectors per
 * panel row of B), vec, V_ZERO, V_SET1(x), V_LOAD(p), V_STORE(p, v), V_FMA(a, b, c), V_ADD, V_MUL, load_f32, load_bf16,
 * load_f16 (VL elements as floats), transpose(vec[VL]), where cheap PAIR_LOW(v) and PAIR_HIGH(v) (the halves of each
 * 32-bit word, as bf16), QUANTISED (the product with quantised weights, or NULL), and the names of two tables, KERNELS
 * and KERNELS_BF16. ROUNDED_KERNELS makes more like the second. */
#include "cpu/gemm/gemm_lanes_body.h"

#define PER_STEP 1
#define V_STEP(a, b, c) V_FMA((a), (b), (c))
#include "cpu/gemm/gemm_micro_body.h"

/* ---- packing ---- */

/* Stored rows are the panel's lanes: transpose blocks of VL x VL. A width that VL does not divide has one group whose
 * stores overlap; they go up in k, so that the surplus is overwritten. */
INLINE void pack_lanes(float *dst, int width, const emo__gemm_operand *x, int64_t first, int lanes, int64_t more,
                       int64_t k0, int64_t kc, emo_dtype dtype) {
    const int64_t size = dtype == EMO_DTYPE_F32 ? 4 : 2;
    for (int group = 0; group < width; group += VL) {
        lane_group g;
        find_lanes(&g, group, width, x, first, lanes, more, k0, kc, size);
        float *out = dst + group;
        int64_t kk = 0;
#ifdef PAIR_LOW
        /* bf16: transposing pairs as 32-bit words halves the shuffles */
        for (; dtype == EMO_DTYPE_BF16 && kk + 2 * VL <= kc; kk += 2 * VL) {
            vec block[VL];
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) {
                block[l] = load_f32(g.rows[l] + kk * size);
                PREFETCH(g.next[l] + (uintptr_t)(kk * size));
            }
            transpose(block);
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) {
                V_STORE(out + (kk + 2 * l) * width, PAIR_LOW(block[l]));
                V_STORE(out + (kk + 2 * l + 1) * width, PAIR_HIGH(block[l]));
            }
        }
#endif
        for (; kk + VL <= kc; kk += VL) {
            vec block[VL];
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) {
                block[l] = load_some(g.rows[l] + kk * size, dtype);
                PREFETCH(g.next[l] + (uintptr_t)(kk * size));
            }
            transpose(block);
            if (x->scale != NULL) {
                vec s = V_LOAD(g.scale);
#pragma GCC unroll 16
                for (int l = 0; l < VL; l++)
                    block[l] = V_MUL(block[l], s);
            }
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++)
                V_STORE(out + (kk + l) * width, block[l]);
        }
        for (; kk < kc; kk++)
            for (int l = 0; l < g.have; l++) {
                float value = load_one(g.rows[l] + kk * size, dtype);
                out[kk * width + l] = x->scale != NULL ? value * g.scale[l] : value;
            }
    }
}

/* B with k as stored rows: lanes lie side by side already. */
INLINE void pack_b_along(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc,
                         emo_dtype dtype) {
    const int64_t size = dtype == EMO_DTYPE_F32 ? 4 : 2;
    for (int64_t kk = 0; kk < kc; kk++, dst += NR) {
        const char *row = emo__stored_row(b, k0 + kk, size) + first * size;
        if (kk + ROWS_AHEAD < kc) {
            const char *next = emo__stored_row(b, k0 + kk + ROWS_AHEAD, size) + first * size;
            PREFETCH(next);
            PREFETCH(next + NR / 2 * size);
        }
        if (lanes == NR) {
#pragma GCC unroll 4
            for (int l = 0; l < NR; l += VL)
                V_STORE(dst + l, load_some(row + l * size, dtype));
        } else {
            for (int l = 0; l < NR; l++)
                dst[l] = l < lanes ? load_one(row + l * size, dtype) : 0.0f;
        }
    }
}

/* A with k as stored rows: a visit to a row fills PANELS panels, because rows may lie a page or more apart. Whole
 * vectors are stored where the surplus lands on the panel's next k, which comes later, and where they can be read. */
INLINE void pack_a_along(float *dst, const emo__gemm_operand *a, int64_t first, int64_t count, int64_t k0, int64_t kc) {
    enum { PANELS = 8 };
    for (int64_t begin = 0; begin < count; begin += PANELS * MR) {
        int64_t end = begin + PANELS * MR < count ? begin + PANELS * MR : count;
        for (int64_t kk = 0; kk < kc; kk++) {
            const float *row = (const float *)(const void *)emo__stored_row(a, k0 + kk, 4) + first;
            float s = a->scale != NULL ? a->scale[k0 + kk] : 1.0f;
            float *out = dst + begin * kc + kk * MR;
            if (kk + ROWS_AHEAD < kc) {
                const char *next = emo__stored_row(a, k0 + kk + ROWS_AHEAD, 4) + (first + begin) * 4;
                for (int line = 0; line < PANELS * MR / 16; line++)
                    PREFETCH(next + line * 64);
            }
            for (int64_t i = begin; i < end; i += MR, out += MR * kc) {
                if (kk + 1 < kc && i + VL <= count && VL >= MR) {
                    V_STORE(out, V_MUL(V_LOAD(row + i), V_SET1(s)));
                } else if (MR % VL == 0 && i + MR <= count) {
#pragma GCC unroll 4
                    for (int l = 0; l < MR; l += VL)
                        V_STORE(out + l, V_MUL(V_LOAD(row + i + l), V_SET1(s)));
                } else {
                    for (int l = 0; l < MR; l++)
                        out[l] = i + l < count ? row[i + l] * s : 0.0f;
                }
            }
        }
    }
}

static void pack_a(float *dst, const emo__gemm_operand *a, int64_t first, int64_t count, int64_t k0, int64_t kc) {
    if (a->trans) {
        pack_a_along(dst, a, first, count, k0, kc);
        return;
    }
    for (int64_t i = 0; i < count; i += MR)
        pack_lanes(dst + i * kc, MR, a, first + i, count - i < MR ? (int)(count - i) : MR, count - i - MR, k0, kc,
                   EMO_DTYPE_F32);
}

#include "cpu/gemm/gemm_pack_b_body.h"

const emo__gemm_kernels KERNELS = {
    .mr = MR, .nr = NR, .k_unit = 1, .per_float = 1, .pack_a = pack_a, .pack_b = pack_b, .micro = micro};

/* ---- the same with operands rounded to bf16 ---- */

/* To nearest, ties to even; NaN stays NaN. In place over what a panel holds. */
static void round_bf16(float *x, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u;
        bits = (bits & 0x7FFFFFFFu) > 0x7F800000u ? bits | 0x00400000u : rounded;
        memcpy(x + i, &bits, sizeof bits);
    }
}

static void pack_a_bf16(float *dst, const emo__gemm_operand *a, int64_t first, int64_t count, int64_t k0, int64_t kc) {
    pack_a(dst, a, first, count, k0, kc);
    round_bf16(dst, (count + MR - 1) / MR * MR * kc);
}

static void pack_b_bf16(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc) {
    pack_b(dst, b, first, lanes, k0, kc);
    if (b->dtype != EMO_DTYPE_BF16)
        round_bf16(dst, NR * kc);
}

/* A table of them, with one of gemm_quant.h's products (or NULL). */
#define ROUNDED_KERNELS(name, quantised)                                                                               \
    const emo__gemm_kernels name = {.mr = MR,                                                                          \
                                    .nr = NR,                                                                          \
                                    .k_unit = 1,                                                                       \
                                    .per_float = 1,                                                                    \
                                    .pack_a = pack_a_bf16,                                                             \
                                    .pack_b = pack_b_bf16,                                                             \
                                    .micro = micro,                                                                    \
                                    .direct = (quantised)}
ROUNDED_KERNELS(KERNELS_BF16, QUANTISED);
