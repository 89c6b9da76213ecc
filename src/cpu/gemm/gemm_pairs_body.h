/* SPDX-License-Identifier: Apache-2.0 */
/* Products in bf16 for levels with an instruction that adds two products to a float. Two neighbours in k of a lane
 * share a word of 32 bits, the earlier one in the low half; panels are those of gemm_body.h with such words in place of
 * floats and half as many of them along k. An odd k ends with a zero.
 * The including file defines MR, NRV, KERNELS (the table's name), QUANTISED, what vec_avx512.h has, and
 *   halves: VL numbers in bf16;  V_HALVES(v): a vec rounded, to nearest, ties to even;  load_halves(p): as stored;
 *   V_JOIN(even, odd): VL words of two halves each, as a vec;
 *   V_ALONG(low, high): 2 VL floats of one lane, in order, as VL words;
 *   V_DOT(a, b, c): c + both products of each word. */
#include "cpu/gemm/gemm_lanes_body.h"

#define PER_STEP 2
#define V_STEP(a, b, c) V_DOT((a), (b), (c))
#include "cpu/gemm/gemm_micro_body.h"

/* 2 VL elements at p, times s, as words of pairs. */
INLINE vec pairs_along(const char *p, vec s, int scaled, emo_dtype dtype) {
    if (dtype == EMO_DTYPE_BF16)
        return load_f32(p);
    const int64_t size = dtype == EMO_DTYPE_F32 ? 4 : 2;
    vec low = load_some(p, dtype), high = load_some(p + VL * size, dtype);
    return scaled ? V_ALONG(V_MUL(low, s), V_MUL(high, s)) : V_ALONG(low, high);
}

/* Stored rows are the panel's lanes: VL words of each of VL rows are transposed at a time. Stores that overlap go up in
 * k, as in gemm_body.h. */
INLINE void pack_lanes(float *dst, int width, const emo__gemm_operand *x, int64_t first, int lanes, int64_t more,
                       int64_t k0, int64_t kc, emo_dtype dtype) {
    const int64_t size = dtype == EMO_DTYPE_F32 ? 4 : 2;
    const int scaled = x->scale != NULL;
    for (int group = 0; group < width; group += VL) {
        lane_group g;
        find_lanes(&g, group, width, x, first, lanes, more, k0, kc, size);
        float *out = dst + group;
        int64_t kk = 0;
        vec block[VL];
        for (; kk + 2 * VL <= kc; kk += 2 * VL, out += VL * width) {
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) {
                block[l] = pairs_along(g.rows[l] + kk * size, V_SET1(g.scale[l]), scaled, dtype);
                PREFETCH(g.next[l] + (uintptr_t)(kk * size));
                if (size == 4)
                    PREFETCH(g.next[l] + (uintptr_t)((kk + VL) * size));
            }
            transpose(block);
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++)
                V_STORE(out + l * width, block[l]);
        }
        if (kk == kc)
            continue;
        for (int l = 0; l < VL; l++) {
            char rest[2 * VL * sizeof(float)] = {0};
            memcpy(rest, g.rows[l] + kk * size, (size_t)((kc - kk) * size));
            block[l] = pairs_along(rest, V_SET1(g.scale[l]), scaled, dtype);
        }
        transpose(block);
        for (int l = 0; 2 * l < kc - kk; l++) {
            float words[VL];
            V_STORE(words, block[l]);
            memcpy(out + l * width, words, (size_t)g.have * sizeof *words);
        }
    }
}

/* Lanes from p on, `have` of them or VL. */
INLINE halves across(const char *p, int64_t have, float s, int scaled, emo_dtype dtype) {
    char rest[VL * sizeof(float)];
    if (have < VL) {
        memset(rest, 0, sizeof rest);
        memcpy(rest, p, (size_t)have * (dtype == EMO_DTYPE_F32 ? 4 : 2));
        p = rest;
    }
    if (dtype == EMO_DTYPE_BF16)
        return load_halves(p);
    vec v = load_some(p, dtype);
    return V_HALVES(scaled ? V_MUL(v, V_SET1(s)) : v);
}

/* k are stored rows: two of them at a time, over `panels` panels of `width` lanes. */
INLINE void pack_along(float *dst, int width, int panels, const emo__gemm_operand *x, int64_t first, int64_t count,
                       int64_t k0, int64_t kc, emo_dtype dtype) {
    const int64_t size = dtype == EMO_DTYPE_F32 ? 4 : 2, panel = (kc + 1) / 2 * width;
    const int scaled = x->scale != NULL;
    for (int64_t begin = 0; begin < count; begin += panels * width) {
        const int64_t end = begin + panels * width < count ? begin + panels * width : count;
        for (int64_t kk = 0; kk < kc; kk += 2) {
            const int both = kk + 1 < kc;
            const char *even = emo__stored_row(x, k0 + kk, size) + first * size;
            const char *odd = both ? emo__stored_row(x, k0 + kk + 1, size) + first * size : even;
            const float s = scaled ? x->scale[k0 + kk] : 1.0f, t = scaled && both ? x->scale[k0 + kk + 1] : 1.0f;
            for (int ahead = ROWS_AHEAD; ahead < ROWS_AHEAD + 2 && kk + ahead < kc; ahead++) {
                const char *next = emo__stored_row(x, k0 + kk + ahead, size) + (first + begin) * size;
                for (int64_t line = 0; line < (end - begin) * size; line += 64)
                    PREFETCH(next + line);
            }
            float *out = dst + begin / width * panel + kk / 2 * width;
            for (int64_t i = begin; i < end; i += width, out += panel)
                for (int l = 0; l < width && i + l < end; l += VL) {
                    int64_t have = end - i - l < VL ? end - i - l : VL;
                    halves low = across(even + (i + l) * size, have, s, scaled, dtype);
                    halves high = both ? across(odd + (i + l) * size, have, t, scaled, dtype) : V_HALVES(V_ZERO);
                    if (l + VL <= width || kk + 2 < kc) { /* what is too much lands on the panel's next k */
                        V_STORE(out + l, V_JOIN(low, high));
                    } else {
                        float words[VL];
                        V_STORE(words, V_JOIN(low, high));
                        memcpy(out + l, words, (size_t)(width - l) * sizeof *words);
                    }
                }
        }
    }
}

static void pack_a(float *dst, const emo__gemm_operand *a, int64_t first, int64_t count, int64_t k0, int64_t kc) {
    enum { PANELS = 8 };
    if (a->trans) {
        pack_along(dst, MR, PANELS, a, first, count, k0, kc, EMO_DTYPE_F32);
        return;
    }
    for (int64_t i = 0; i < count; i += MR, dst += (kc + 1) / 2 * MR)
        pack_lanes(dst, MR, a, first + i, count - i < MR ? (int)(count - i) : MR, count - i - MR, k0, kc,
                   EMO_DTYPE_F32);
}

INLINE void pack_b_along(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc,
                         emo_dtype dtype) {
    pack_along(dst, NR, 1, b, first, lanes, k0, kc, dtype);
}

#include "cpu/gemm/gemm_pack_b_body.h"

const emo__gemm_kernels KERNELS = {.mr = MR,
                                   .nr = NR,
                                   .k_unit = 2,
                                   .per_float = 2,
                                   .pack_a = pack_a,
                                   .pack_b = pack_b,
                                   .micro = micro,
                                   .direct = QUANTISED};
