/* SPDX-License-Identifier: Apache-2.0 */
/* One row of A against quantised weights, as in generation. Rows of the weight are read one after the other from their
 * first byte to their last, in the order that the hardware's prefetcher knows: then memory alone bounds the speed.
 * Whole numbers of sixteen blocks of a row come out as a register; after sixteen rows these are transposed, and each
 * lane adds its row's blocks in their order. */
#include <immintrin.h>
#include <stdint.h>

#define VL 16
#define INLINE static inline __attribute__((always_inline))
#include "cpu/gemm/gemm_quant_avx512.h"
#include "cpu/gemm/transpose_avx512.h"

enum {
    CHUNK = VL * BLOCK, /* elements of a row at a time: sixteen blocks */
    PARTS = CHUNK / 64, /* registers of bytes in a chunk */
    AHEAD = 4096        /* bytes: what is asked for while a chunk is read; it may lie past the matrix */
};

/* The row of A. */
typedef struct one_row {
    int8_t *plain; /* [k] */
    int8_t *q;     /* [chunks][PARTS][64]: in the order of the weight's bytes */
    int32_t *sum;  /* [blocks]: of q */
    int32_t *less; /* [blocks]: what dots of unsigned bytes have too much */
    float *scale;  /* [blocks] */
    int64_t chunks;
} one_row;

/* ---- the row of A ---- */

static void quantise_row(const emo__gemm_operand *a, int64_t row, const one_row *x) {
    const float *from = (const float *)(const void *)emo__stored_row(a, row, 4);
    const float times = a->scale != NULL ? a->scale[row] : 1.0f;
    for (int64_t b = 0; b < x->chunks * VL; b++)
        x->scale[b] = quantise_block(from + b * BLOCK, times, x->plain + b * BLOCK, x->sum + b) / 127.0f;
}

/* Which block of a chunk the 128-bit quarter `quarter` of part `part` is of, and whether it is its second half. */
static int block_of(emo_dtype dtype, int part, int quarter, int *second) {
    *second = quarter % 2;
    if (dtype == EMO_DTYPE_Q8_0)
        return part + quarter / 2 * PARTS;
    if (dtype == EMO_DTYPE_Q4_K) /* 64 bytes hold four groups: 0 and 2 in the low nibbles, 1 and 3 in the high ones */
        return part / 2 * 4 + part % 2 + quarter / 2 * 2;
    *second = part % 2; /* low nibbles, then high ones */
    return part / 2 + quarter * 4;
}

static void arrange(const one_row *x, emo_dtype dtype) {
    for (int64_t c = 0; c < x->chunks; c++)
        for (int part = 0; part < PARTS; part++)
            for (int quarter = 0; quarter < 4; quarter++) {
                int second, block = block_of(dtype, part, quarter, &second);
                memcpy(x->q + c * CHUNK + part * 64 + quarter * 16, x->plain + (c * VL + block) * BLOCK + second * 16,
                       16);
            }
    const int32_t shift = dtype == EMO_DTYPE_Q8_0 ? 128 : dtype == EMO_DTYPE_Q4_0 ? 8 : 0;
    for (int64_t b = 0; b < x->chunks * VL; b++)
        x->less[b] = (int32_t)((uint32_t)shift * (uint32_t)x->sum[b]);
}

/* ---- rows of the weight ---- */

/* Sums of the four words of each quarter: quarter l, word j is quarter l of z[j]. */
INLINE __m512i fold_quarters(const __m512i z[4]) {
    __m512i low = _mm512_add_epi32(_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[0], z[1]));
    __m512i high = _mm512_add_epi32(_mm512_unpacklo_epi32(z[2], z[3]), _mm512_unpackhi_epi32(z[2], z[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
}

/* Numbers of sixteen blocks at `at`, `bytes` apart: the 16-bit floats at their beginnings. */
INLINE __m512 scales_at(const uint8_t *at, const int32_t bytes) {
    const __m512i number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i index = _mm512_mullo_epi32(number, _mm512_set1_epi32(bytes));
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_i32gather_epi32(index, (const void *)at, 1)));
}

INLINE __m512i dots(__m512i sum, __m512i bytes, const int8_t *q) {
    return _mm512_dpbusd_epi32(sum, bytes, _mm512_load_si512((const void *)q));
}

INLINE __m512i dots_q8_0(const uint8_t *at, const int8_t *q) {
    const __m512i flip = _mm512_set1_epi8((char)0x80), none = _mm512_setzero_si512();
    __m512i z[PARTS];
#pragma GCC unroll 8
    for (int j = 0; j < PARTS; j++) {
        const __m256i *first = (const __m256i *)(const void *)(at + 2 + j * EMO__Q8_0_BYTES);
        const __m256i *second = (const __m256i *)(const void *)(at + 2 + (j + PARTS) * EMO__Q8_0_BYTES);
        __m512i bytes =
            _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(first)), _mm256_loadu_si256(second), 1);
        z[j] = dots(none, _mm512_xor_si512(bytes, flip), q + j * 64);
    }
    const __m512i low = fold_quarters(z), high = fold_quarters(z + 4);
    return _mm512_add_epi32(_mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), high),
                            _mm512_permutex2var_epi64(low, _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15), high));
}

INLINE __m512i dots_q4_0(const uint8_t *at, const int8_t *q) {
    __m512i z[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        const uint8_t *block = at + 2 + j * EMO__Q4_0_BYTES;
        __m512i bytes = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)block));
        bytes =
            _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i *)(const void *)(block + 4 * EMO__Q4_0_BYTES)), 1);
        bytes =
            _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i *)(const void *)(block + 8 * EMO__Q4_0_BYTES)), 2);
        bytes = _mm512_inserti32x4(bytes,
                                   _mm_loadu_si128((const __m128i *)(const void *)(block + 12 * EMO__Q4_0_BYTES)), 3);
        z[j] = dots(_mm512_setzero_si512(), low_nibbles(bytes), q + j * 128);
        z[j] = dots(z[j], high_nibbles(bytes), q + j * 128 + 64);
    }
    return fold_quarters(z);
}

INLINE __m512i dots_q4_k(const uint8_t *at, const int8_t *q) {
    const __m512i none = _mm512_setzero_si512();
    __m512i z[PARTS];
#pragma GCC unroll 4
    for (int j = 0; j < PARTS; j += 2) {
        const uint8_t *half = at + j / 4 * EMO__Q4_K_BYTES + 16 + j % 4 * BLOCK;
        __m512i bytes = _mm512_loadu_si512((const void *)half);
        z[j] = dots(none, low_nibbles(bytes), q + j * 64);
        z[j + 1] = dots(none, high_nibbles(bytes), q + (j + 1) * 64);
    }
    const __m512i low = fold_quarters(z), high = fold_quarters(z + 4);
    return _mm512_add_epi32(_mm512_permutex2var_epi64(low, _mm512_setr_epi64(0, 4, 1, 5, 8, 12, 9, 13), high),
                            _mm512_permutex2var_epi64(low, _mm512_setr_epi64(2, 6, 3, 7, 10, 14, 11, 15), high));
}

/* The scales of the sixteen groups of two q4_k blocks, and their offsets less than zero. */
INLINE void factors_q4_k(const uint8_t *at, __m512 *scale, __m512 *offset) {
    uint64_t s[2], t[2];
    float d[2], m[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++, at += EMO__Q4_K_BYTES) {
        uint32_t halves, low, high, rest;
        memcpy(&halves, at, sizeof halves);
        memcpy(&low, at + 4, sizeof low); /* six bits of s of groups 0 to 3, two of those of 4 to 7 */
        memcpy(&high, at + 8, sizeof high);
        memcpy(&rest, at + 12, sizeof rest); /* four bits of s and of t of groups 4 to 7 */
        s[i] = (low & 0x3F3F3F3Fu) | (uint64_t)((rest & 0x0F0F0F0Fu) | (low >> 2 & 0x30303030u)) << 32;
        t[i] = (high & 0x3F3F3F3Fu) | (uint64_t)((rest >> 4 & 0x0F0F0F0Fu) | (high >> 2 & 0x30303030u)) << 32;
        const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128((int32_t)halves));
        d[i] = both[0];
        m[i] = both[1];
    }
    const __m512 numbers = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((int64_t)s[1], (int64_t)s[0])));
    const __m512 offsets = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((int64_t)t[1], (int64_t)t[0])));
    *scale = _mm512_mul_ps(_mm512_mask_blend_ps(0xFF00, _mm512_set1_ps(d[0]), _mm512_set1_ps(d[1])), numbers);
    *offset = _mm512_mul_ps(_mm512_mask_blend_ps(0xFF00, _mm512_set1_ps(m[0]), _mm512_set1_ps(m[1])),
                            _mm512_sub_ps(_mm512_setzero_ps(), offsets));
}

/* What a row's blocks add, before it is multiplied by A's scales: parts[chunk][row][VL], for the row's place in it. */
INLINE void read_row(const uint8_t *row, const one_row *x, float *parts, const emo_dtype dtype) {
    const int64_t bytes = dtype == EMO_DTYPE_Q8_0   ? VL * EMO__Q8_0_BYTES
                          : dtype == EMO_DTYPE_Q4_0 ? VL * EMO__Q4_0_BYTES
                                                    : 2 * EMO__Q4_K_BYTES;
    for (int64_t c = 0; c < x->chunks; c++, row += bytes) {
        const int8_t *q = x->q + c * CHUNK;
        for (int64_t line = 0; line < bytes; line += 64)
            __builtin_prefetch((const void *)((uintptr_t)row + (uintptr_t)(AHEAD + line)), 0, 2);
        const __m512i less = _mm512_load_si512((const void *)(x->less + c * VL));
        __m512 v;
        if (dtype == EMO_DTYPE_Q4_K) {
            __m512 scale, offset;
            factors_q4_k(row, &scale, &offset);
            v = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots_q4_k(row, q)));
            v = _mm512_fmadd_ps(offset, _mm512_cvtepi32_ps(_mm512_load_si512((const void *)(x->sum + c * VL))), v);
        } else if (dtype == EMO_DTYPE_Q8_0) {
            v = _mm512_mul_ps(scales_at(row, EMO__Q8_0_BYTES),
                              _mm512_cvtepi32_ps(_mm512_sub_epi32(dots_q8_0(row, q), less)));
        } else {
            v = _mm512_mul_ps(scales_at(row, EMO__Q4_0_BYTES),
                              _mm512_cvtepi32_ps(_mm512_sub_epi32(dots_q4_0(row, q), less)));
        }
        _mm512_store_ps(parts + c * VL * VL, v);
    }
}

static void read_rows(const uint8_t *at, int64_t pitch, int rows, const one_row *x, float *parts, emo_dtype dtype) {
    for (int i = 0; i < rows; i++, at += pitch, parts += VL) {
        if (dtype == EMO_DTYPE_Q8_0)
            read_row(at, x, parts, EMO_DTYPE_Q8_0);
        else if (dtype == EMO_DTYPE_Q4_0)
            read_row(at, x, parts, EMO_DTYPE_Q4_0);
        else
            read_row(at, x, parts, EMO_DTYPE_Q4_K);
    }
}

static __m512 add_parts(__m512 sums, const float *parts, const one_row *x) {
    for (int64_t c = 0; c < x->chunks; c++) {
        __m512i block[VL];
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
            block[i] = _mm512_load_si512((const void *)(parts + (c * VL + i) * VL));
        emo__transpose_16(block);
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
            sums = _mm512_fmadd_ps(_mm512_set1_ps(x->scale[c * VL + i]), (__m512)block[i], sums);
    }
    return sums;
}

int emo__gemm_row_vnni(const emo__gemm *g, int64_t row, int64_t n0, int64_t n1, float *work, size_t floats) {
    const size_t blocks = (size_t)(g->k / BLOCK);
    if (g->k % CHUNK != 0 || blocks * (2 * BLOCK + (3 + VL) * sizeof(float)) > floats * sizeof(float))
        return 0; /* each part of the memory is whole lines */
    char *at = (char *)work;
    one_row x = {.chunks = g->k / CHUNK};
    x.plain = take(&at, (size_t)g->k);
    x.q = take(&at, (size_t)g->k);
    x.sum = take(&at, blocks * sizeof(int32_t));
    x.less = take(&at, blocks * sizeof(int32_t));
    x.scale = take(&at, blocks * sizeof(float));
    float *parts = take(&at, blocks * VL * sizeof(float));
    memset(parts, 0, blocks * VL * sizeof(float));
    quantise_row(&g->a[0], row, &x);
    for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++) {
        const emo__gemm_operand *b = &g->b[which];
        const int64_t pitch = (int64_t)emo__dtype_run(b->dtype, b->ld);
        if (which == 0 || b->dtype != g->b[0].dtype)
            arrange(&x, b->dtype);
        for (int64_t j = n0; j < n1; j += VL) {
            const int cols = n1 - j < VL ? (int)(n1 - j) : VL;
            const __mmask16 mask = (__mmask16)((1u << cols) - 1u);
            float *c = g->c[which] + row * g->ldc + j;
            read_rows((const uint8_t *)b->data + j * pitch, pitch, cols, &x, parts, b->dtype);
            const __m512 sums = g->beta == 1.0f ? _mm512_maskz_loadu_ps(mask, c) : _mm512_setzero_ps();
            _mm512_mask_storeu_ps(c, mask, add_parts(sums, parts, &x));
        }
    }
    return 1;
}
