/* SPDX-License-Identifier: Apache-2.0 */
/* AMX in bf16: 32 x 32 of C in four tiles of 16 x 16, k in units of 32.
 *
 * A packed unit of 16 lanes is a tile of 1 KB: for A 16 rows of 32 elements, for B 16 rows of 16 pairs that follow each
 * other in k. A panel holds, unit after unit, its lanes 0 to 15 and then 16 to 31. What is missing at the end of k is
 * zero on both sides. AMX machines have the conversions of AVX512-BF16, which these files may use. */
#include "cpu/gemm/gemm_amx.h"

/* ---- packing ---- */

enum { ROWS_AHEAD = 32 };

/* Lanes are stored rows. A keeps them as rows of its tile; B wants pairs of k as rows. */
INLINE void pack_rows_as_lanes(char *dst, const emo__gemm_operand *x, int64_t first, int lanes, int64_t k0, int64_t kc,
                               int is_b, emo_dtype dtype) {
    const int64_t size = size_of(dtype);
    const int scaled = x->scale != NULL;
    for (int group = 0; group < LANES && group < lanes; group += VL) {
        const char *rows[VL];
        __m512 scale[VL];
        for (int l = 0; l < VL; l++) {
            int lane = group + l < lanes ? group + l : lanes - 1;
            rows[l] = emo__stored_row(x, first + lane, size) + k0 * size;
            scale[l] = _mm512_set1_ps(scaled ? x->scale[first + lane] : 1.0f);
        }
        char *tile = dst + group / VL * TILE_BYTES;
        for (int64_t kk = 0; kk < kc; kk += UNIT, tile += UNIT_BYTES) {
            __m512i block[VL];
#pragma GCC unroll 16
            for (int l = 0; l < VL; l++) {
                block[l] = along(rows[l] + kk * size, kc - kk, scale[l], scaled, dtype);
                __builtin_prefetch(rows[l] + (kk + 4 * UNIT) * size, 0, 2);
            }
            if (is_b)
                emo__transpose_16(block);
            store_tile(tile, block);
        }
    }
}

/* Rows k and k + 1 (`have` of them there), 16 lanes under `mask`, as 16 pairs. */
INLINE __m512i pair_of(const emo__gemm_operand *x, int64_t k, int64_t have, int64_t lane, __mmask16 mask,
                       emo_dtype dtype) {
    const int64_t size = size_of(dtype);
    if (dtype != EMO_DTYPE_F32) {
        __m512i low =
            have > 0 ? across(emo__stored_row(x, k, size) + lane * size, mask, dtype) : _mm512_setzero_si512();
        __m512i high =
            have > 1 ? across(emo__stored_row(x, k + 1, size) + lane * size, mask, dtype) : _mm512_setzero_si512();
        return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    }
    const __m512i side_by_side = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                                  22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
    if (have > 0)
        low = _mm512_maskz_loadu_ps(mask, emo__stored_row(x, k, size) + lane * size);
    if (have > 1)
        high = _mm512_maskz_loadu_ps(mask, emo__stored_row(x, k + 1, size) + lane * size);
    if (x->scale != NULL) {
        low = have > 0 ? _mm512_mul_ps(low, _mm512_set1_ps(x->scale[k])) : low;
        high = have > 1 ? _mm512_mul_ps(high, _mm512_set1_ps(x->scale[k + 1])) : high;
    }
    return _mm512_permutexvar_epi16(side_by_side, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* k are stored rows. B's tile rows are pairs of them as they lie; A's lanes become rows. */
INLINE void pack_rows_as_k(char *dst, const emo__gemm_operand *x, int64_t first, int lanes, int64_t k0, int64_t kc,
                           int is_b, emo_dtype dtype) {
    const int64_t size = size_of(dtype);
    for (int64_t kk = 0; kk < kc; kk += UNIT, dst += UNIT_BYTES) {
        for (int64_t k = kk + ROWS_AHEAD; k < kk + ROWS_AHEAD + UNIT && k < kc; k++) {
            const char *row = emo__stored_row(x, k0 + k, size) + first * size;
            __builtin_prefetch(row, 0, 2);
            if (dtype == EMO_DTYPE_F32)
                __builtin_prefetch(row + 64, 0, 2);
        }
        for (int group = 0; group < LANES && group < lanes; group += VL) {
            const __mmask16 mask = (__mmask16)mask_of(lanes - group, VL);
            __m512i block[VL];
            if (kc - kk >= UNIT) {
#pragma GCC unroll 16
                for (int j = 0; j < VL; j++)
                    block[j] = pair_of(x, k0 + kk + 2 * j, 2, first + group, mask, dtype);
            } else {
                for (int j = 0; j < VL; j++)
                    block[j] = pair_of(x, k0 + kk + 2 * j, kc - kk - 2 * j, first + group, mask, dtype);
            }
            if (!is_b)
                emo__transpose_16(block);
            store_tile(dst + group / VL * TILE_BYTES, block);
        }
    }
}

void emo__gemm_amx_pack_right(char *dst, const emo__gemm_operand *a, int64_t first, int lanes, int64_t k) {
    pack_rows_as_lanes(dst, a, first, lanes, 0, k, 1, EMO_DTYPE_F32);
}

static int64_t panel_bytes(int64_t kc) { return (kc + UNIT - 1) / UNIT * UNIT_BYTES; }

static void pack_a(float *dst, const emo__gemm_operand *a, int64_t first, int64_t count, int64_t k0, int64_t kc) {
    char *out = (char *)dst;
    for (int64_t i = 0; i < count; i += LANES, out += panel_bytes(kc)) {
        int lanes = count - i < LANES ? (int)(count - i) : LANES;
        if (a->trans)
            pack_rows_as_k(out, a, first + i, lanes, k0, kc, 0, EMO_DTYPE_F32);
        else
            pack_rows_as_lanes(out, a, first + i, lanes, k0, kc, 0, EMO_DTYPE_F32);
    }
}

INLINE void pack_b_as(char *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc,
                      emo_dtype dtype) {
    if (b->trans)
        pack_rows_as_lanes(dst, b, first, lanes, k0, kc, 1, dtype);
    else
        pack_rows_as_k(dst, b, first, lanes, k0, kc, 1, dtype);
}

static void pack_b(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc) {
    if (b->dtype == EMO_DTYPE_F32)
        pack_b_as((char *)dst, b, first, lanes, k0, kc, EMO_DTYPE_F32);
    else if (b->dtype == EMO_DTYPE_BF16)
        pack_b_as((char *)dst, b, first, lanes, k0, kc, EMO_DTYPE_BF16);
    else
        pack_b_as((char *)dst, b, first, lanes, k0, kc, EMO_DTYPE_F16);
}

/* ---- the micro-kernel ---- */

static const tile_config config __attribute__((aligned(64))) = {
    .palette = 1, .colsb = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

static void begin(void *before) { begin_tiles(before, &config); }
static void end(const void *before) { end_tiles(before); }

/* c goes on from what it holds, or from zero; tiles outside `down` x `right` are left alone. */
INLINE void product(int64_t kc, const char *a, const char *b, float *c, int64_t ldc, const int from_c, const int down,
                    const int right) {
    const size_t stride = (size_t)ldc * sizeof(float);
    float *below = c + VL * ldc;
    if (from_c) {
        _tile_loadd(C00, c, stride);
        if (right)
            _tile_loadd(C01, c + VL, stride);
        if (down)
            _tile_loadd(C10, below, stride);
        if (down && right)
            _tile_loadd(C11, below + VL, stride);
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
        _tile_zero(C10);
        _tile_zero(C11);
    }
    uintptr_t next = (uintptr_t)c + LANES * stride; /* where the next rows' sums lie; past the end it does no harm */
    for (int64_t kk = 0; kk < kc; kk += UNIT, a += UNIT_BYTES, b += UNIT_BYTES) {
        if (kk < LANES / 4 * UNIT)
            for (int i = 0; i < 4; i++, next += stride) {
                __builtin_prefetch((const void *)next, 1);
                __builtin_prefetch((const void *)(next + 64), 1);
            }
        _tile_loadd(B0, b, 64);
        _tile_loadd(A0, a, 64);
        _tile_dpbf16ps(C00, A0, B0);
        if (right) {
            _tile_loadd(B1, b + TILE_BYTES, 64);
            _tile_dpbf16ps(C01, A0, B1);
        }
        if (down) {
            _tile_loadd(A1, a + TILE_BYTES, 64);
            _tile_dpbf16ps(C10, A1, B0);
            if (right)
                _tile_dpbf16ps(C11, A1, B1);
        }
    }
    _tile_stored(C00, c, stride);
    if (right)
        _tile_stored(C01, c + VL, stride);
    if (down)
        _tile_stored(C10, below, stride);
    if (down && right)
        _tile_stored(C11, below + VL, stride);
}

INLINE void product_from(int64_t kc, const char *a, const char *b, float *c, int64_t ldc, const int from_c, int down,
                         int right) {
    if (down && right)
        product(kc, a, b, c, ldc, from_c, 1, 1);
    else if (down)
        product(kc, a, b, c, ldc, from_c, 1, 0);
    else if (right)
        product(kc, a, b, c, ldc, from_c, 0, 1);
    else
        product(kc, a, b, c, ldc, from_c, 0, 0);
}

static void micro(int64_t kc, const float *a, const float *b, int rows, int cols, float *c, int64_t ldc, float alpha,
                  float beta) {
    const char *pa = (const char *)a, *pb = (const char *)b;
    int plain = alpha == 1.0f && (beta == 0.0f || beta == 1.0f);
    if (plain && rows == LANES && cols == LANES) {
        if (beta == 0.0f)
            product(kc, pa, pb, c, ldc, 0, 1, 1);
        else
            product(kc, pa, pb, c, ldc, 1, 1, 1);
        return;
    }
    float part[LANES * LANES] __attribute__((aligned(64)));
    uint32_t mask = mask_of(cols, LANES);
    __mmask16 low = (__mmask16)mask, high = (__mmask16)(mask >> VL);
    int from_c = plain && beta == 1.0f;
    if (from_c) {
        for (int i = 0; i < rows; i++) {
            _mm512_store_ps(part + i * LANES, _mm512_maskz_loadu_ps(low, c + i * ldc));
            _mm512_store_ps(part + i * LANES + VL, _mm512_maskz_loadu_ps(high, c + i * ldc + VL));
        }
        for (int i = rows; i < (rows > VL ? LANES : VL); i++) {
            _mm512_store_ps(part + i * LANES, _mm512_setzero_ps());
            _mm512_store_ps(part + i * LANES + VL, _mm512_setzero_ps());
        }
        product_from(kc, pa, pb, part, LANES, 1, rows > VL, cols > VL);
    } else {
        product_from(kc, pa, pb, part, LANES, 0, rows > VL, cols > VL);
    }
    const __m512 scale = _mm512_set1_ps(alpha), keep = _mm512_set1_ps(beta);
    for (int i = 0; i < rows; i++)
        for (int half = 0; half < 2; half++) {
            __mmask16 there = half ? high : low;
            __m512 value = _mm512_maskz_load_ps(there, part + i * LANES + half * VL);
            if (!plain)
                value = _mm512_mul_ps(scale, value);
            if (!plain && beta != 0.0f)
                value = _mm512_fmadd_ps(keep, _mm512_maskz_loadu_ps(there, c + i * ldc + half * VL), value);
            _mm512_mask_storeu_ps(c + i * ldc + half * VL, there, value);
        }
}

const emo__gemm_kernels emo__gemm_amx = {.mr = LANES,
                                         .nr = LANES,
                                         .k_unit = UNIT,
                                         .per_float = 2,
                                         .long_block = 2 * EMO__GEMM_KC,
                                         .begin = begin,
                                         .end = end,
                                         .pack_a = pack_a,
                                         .pack_b = pack_b,
                                         .micro = micro,
                                         .direct = emo__gemm_amx_direct,
                                         .packs = EMO__GEMM_DIRECT};
