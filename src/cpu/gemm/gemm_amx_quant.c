/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on AMX, as gemm_quant.h says; few rows are left to VNNI, with the same bits.
 *
 * The weight's rows are the left operand of tiles, which wants them as they lie, and rows of A the right one, sixteen
 * to a group. A block of k gives a tile of whole numbers, which become floats and are added to sums in registers while
 * the tiles of the blocks to come are under way: the conversion is what takes time. */
#include <stdint.h>

#include "cpu/gemm/gemm_amx.h"
#include "cpu/gemm/gemm_quant_avx512.h"

enum {
    FEW_ROWS = 4,              /* of A: VNNI has them done sooner than tiles */
    TILE_BYTES_A = VL * BLOCK, /* sixteen rows of the weight */
    TILE_BYTES_B = WORDS * 64, /* a group of A */
    RING = 4,                  /* blocks whose whole numbers are kept */
    AHEAD = 3 /* blocks from a tile's product to its conversion: stores of tiles are slow to come back */
};

/* Sixteen rows of the weight, for all of k. */
typedef struct weight_rows {
    const int8_t *q; /* row i of block b is at q + b * step + i * stride */
    int64_t step;
    int64_t stride;
    float *scale;  /* [blocks][16]: over what q is too large by */
    float *offset; /* [blocks][16], in q4_k */
    int8_t *room;  /* [blocks][16 rows][BLOCK] */
} weight_rows;

/* Rows of A in groups. */
typedef struct groups {
    int8_t *q;    /* [groups][blocks][WORDS][16 rows][4] */
    float *scale; /* [groups][blocks][16 rows] */
    float *sum;   /* the same */
    int64_t blocks;
} groups;

/* Rows of A as bytes. */
typedef struct byte_rows {
    int8_t *q;    /* [rows][blocks * BLOCK] */
    float *scale; /* [rows][blocks] */
    float *sum;   /* [rows][blocks]: sums of q, which are whole */
    int64_t blocks;
} byte_rows;

/* ---- activations ---- */

/* Lane l: the largest of the lanes of m[l], as numbers without sign. */
INLINE __m512i largest_of(__m512i m[VL]) {
    __m512i t[VL];
#pragma GCC unroll 8
    for (int i = 0; i < VL; i += 2)
        t[i / 2] = _mm512_max_epu32(_mm512_unpacklo_epi32(m[i], m[i + 1]), _mm512_unpackhi_epi32(m[i], m[i + 1]));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) /* quarters of t[i] have lanes 4 i to 4 i + 3, each of one quarter */
        t[i] = _mm512_max_epu32(_mm512_unpacklo_epi64(t[2 * i], t[2 * i + 1]),
                                _mm512_unpackhi_epi64(t[2 * i], t[2 * i + 1]));
    __m512i a = _mm512_max_epu32(_mm512_shuffle_i32x4(t[0], t[1], 0x88), _mm512_shuffle_i32x4(t[0], t[1], 0xDD));
    __m512i b = _mm512_max_epu32(_mm512_shuffle_i32x4(t[2], t[3], 0x88), _mm512_shuffle_i32x4(t[2], t[3], 0xDD));
    return _mm512_max_epu32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
}

/* Sixteen blocks at once, with the bits of quantise_block. */
static void quantise_blocks(const float *from, __m512 times, int8_t *q, float *scale, float *sum, int sums) {
    const __m512i size = _mm512_set1_epi32(0x7FFFFFFF);
    __m512i m[VL];
#pragma GCC unroll 16
    for (int b = 0; b < VL; b++) /* sizes are ordered as whole numbers are, and what is no number is largest */
        m[b] = _mm512_max_epu32(
            _mm512_and_si512((__m512i)_mm512_mul_ps(_mm512_loadu_ps(from + b * BLOCK), times), size),
            _mm512_and_si512((__m512i)_mm512_mul_ps(_mm512_loadu_ps(from + b * BLOCK + VL), times), size));
    __m512 most = (__m512)largest_of(m);
    most = _mm512_mask_mov_ps(most, _mm512_cmp_ps_mask(most, most, _CMP_UNORD_Q), _mm512_set1_ps(__builtin_nanf("")));
    const __m512 top = _mm512_set1_ps(127.0f);
    float inverse[VL];
    _mm512_storeu_ps(inverse,
                     _mm512_maskz_div_ps(_mm512_cmp_ps_mask(most, _mm512_setzero_ps(), _CMP_GT_OQ), top, most));
    _mm512_storeu_ps(scale, _mm512_div_ps(most, top));
    for (int b = 0; b < VL; b++, from += BLOCK, q += BLOCK) {
        const __m512 by = _mm512_set1_ps(inverse[b]);
        __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(from), times), by));
        __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(from + VL), times), by));
        _mm_storeu_si128((__m128i *)(void *)q, _mm512_cvtsepi32_epi8(low));
        _mm_storeu_si128((__m128i *)(void *)(q + VL), _mm512_cvtsepi32_epi8(high));
        if (sums)
            sum[b] = (float)_mm512_reduce_add_epi32(_mm512_add_epi32(low, high));
    }
}

/* `sums`: whether x->sum is wanted. */
static void quantise_row(const emo__gemm_operand *a, int64_t row, int64_t at, const byte_rows *x, int sums) {
    const float *from = (const float *)(const void *)emo__stored_row(a, row, 4);
    const float times = a->scale != NULL ? a->scale[row] : 1.0f;
    int64_t b = at * x->blocks;
    const int64_t end = b + x->blocks;
    for (; b + VL <= end; b += VL, from += VL * BLOCK)
        quantise_blocks(from, _mm512_set1_ps(times), x->q + b * BLOCK, x->scale + b, x->sum + b, sums);
    for (; b < end; b++, from += BLOCK) {
        int32_t sum;
        x->scale[b] = quantise_block(from, times, x->q + b * BLOCK, &sum) / 127.0f;
        x->sum[b] = (float)sum;
    }
}

/* The first `rows` rows of x as group `at`; what is missing is 0. */
static void group_rows(const byte_rows *x, int64_t rows, int64_t at, const groups *to, int sums) {
    const int64_t blocks = x->blocks;
    const int8_t *q[VL];
    for (int i = 0; i < VL; i++)
        q[i] = x->q + (i < rows ? i : 0) * blocks * BLOCK;
    for (int64_t b = 0; b < blocks; b += 2) { /* a line of every row */
        __m512i line[VL];
        int8_t *out = to->q + (at * blocks + b) * TILE_BYTES_B;
        if (b + 1 < blocks) {
#pragma GCC unroll 16
            for (int i = 0; i < VL; i++)
                line[i] = _mm512_loadu_si512(q[i] + b * BLOCK);
        } else {
            for (int i = 0; i < VL; i++)
                line[i] = _mm512_maskz_loadu_epi8(0xFFFFFFFFu, q[i] + b * BLOCK);
        }
        emo__transpose_16(line);
#pragma GCC unroll 16
        for (int j = 0; j < VL; j++)
            if (j < WORDS || b + 1 < blocks)
                _mm512_store_si512(out + j * 64, line[j]);
    }
    for (int which = 0; which < (sums ? 2 : 1); which++) {
        const float *from = which == 0 ? x->scale : x->sum;
        float *out = (which == 0 ? to->scale : to->sum) + at * blocks * VL;
        for (int64_t b = 0; b < blocks; b += VL) {
            __m512i block[VL];
            const __mmask16 mask = (__mmask16)mask_of(blocks - b, VL);
            for (int i = 0; i < VL; i++)
                block[i] =
                    i < rows ? (__m512i)_mm512_maskz_loadu_ps(mask, from + i * blocks + b) : _mm512_setzero_si512();
            emo__transpose_16(block);
            for (int i = 0; i < VL && b + i < blocks; i++)
                _mm512_store_si512(out + (b + i) * VL, block[i]);
        }
    }
}

/* ---- weights ---- */

/* Rows i and i + 1 of the 16 bytes (or, with `whole`, 32) at `at`, each in its half; of 16 bytes there are two copies.
 */
INLINE __m512i two_rows(stored_rows rows, int i, int64_t at, const int whole) {
    const __m256i *first = (const __m256i *)(const void *)(row_of(rows, i) + at);
    const __m256i *second = (const __m256i *)(const void *)(row_of(rows, i + 1) + at);
    if (whole)
        return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(first)), _mm256_loadu_si256(second), 1);
    return _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)first)), 0xFF00,
                                       _mm_loadu_si128((const __m128i *)second));
}

static void scales_at(stored_rows rows, int64_t blocks, int64_t bytes, float by, float *scale) {
    for (int64_t b = 0; b < blocks; b++)
        _mm512_store_ps(scale + b * VL, _mm512_mul_ps(halves_at(rows, b * bytes), _mm512_set1_ps(by)));
}

/* Where they lie: tiles load them from there in less time than a copy in whole lines takes. */
static void read_q8_0(stored_rows rows, int64_t blocks, weight_rows *w) {
    scales_at(rows, blocks, EMO__Q8_0_BYTES, 1.0f, w->scale);
    w->q = (const int8_t *)rows.at + 2;
    w->step = EMO__Q8_0_BYTES;
    w->stride = rows.pitch;
}

/* Sixteen times what they are, which takes an instruction less; scales have a sixteenth, exactly. */
static void read_q4_0(stored_rows rows, int64_t blocks, const weight_rows *w) {
    const __m512i upper = _mm512_set1_epi8((char)0xF0), eight = _mm512_set1_epi8((char)0x80);
    const __m512i shift = _mm512_setr_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    scales_at(rows, blocks, EMO__Q4_0_BYTES, 0.0625f, w->scale);
    for (int64_t b = 0; b < blocks; b++)
#pragma GCC unroll 8
        for (int i = 0; i < VL; i += 2) {
            __m512i nibbles = _mm512_sllv_epi64(two_rows(rows, i, b * EMO__Q4_0_BYTES + 2, 0), shift);
            _mm512_store_si512(w->room + b * TILE_BYTES_A + i * BLOCK,
                               _mm512_ternarylogic_epi64(nibbles, upper, eight, 0x6A)); /* (n & upper) ^ eight */
        }
}

static void read_q4_k(stored_rows rows, int64_t blocks, const weight_rows *w) {
    for (int64_t b = 0; b < blocks; b += EMO__Q4_K_GROUPS) {
        const int64_t at = b / EMO__Q4_K_GROUPS * EMO__Q4_K_BYTES;
        float s[EMO__Q4_K_GROUPS][VL], t[EMO__Q4_K_GROUPS][VL];
        q4_k_scales(rows, at, s, t);
        const __m512 d = halves_at(rows, at), m = halves_at(rows, at + 2);
        for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
            _mm512_store_ps(w->scale + (b + g) * VL, _mm512_mul_ps(d, _mm512_loadu_ps(s[g])));
            _mm512_store_ps(w->offset + (b + g) * VL, _mm512_mul_ps(m, _mm512_loadu_ps(t[g])));
        }
        for (int pair = 0; pair < EMO__Q4_K_GROUPS / 2; pair++) {
            int8_t *to = w->room + (b + 2 * pair) * TILE_BYTES_A;
#pragma GCC unroll 8
            for (int i = 0; i < VL; i += 2) {
                __m512i bytes = two_rows(rows, i, at + 16 + pair * BLOCK, 1);
                _mm512_store_si512(to + i * BLOCK, low_nibbles(bytes));
                _mm512_store_si512(to + TILE_BYTES_A + i * BLOCK, high_nibbles(bytes));
            }
        }
    }
}

static void read_rows(stored_rows rows, int64_t blocks, emo_dtype dtype, weight_rows *w) {
    if (dtype == EMO_DTYPE_Q8_0) {
        read_q8_0(rows, blocks, w);
        return;
    }
    if (dtype == EMO_DTYPE_Q4_0)
        read_q4_0(rows, blocks, w);
    else
        read_q4_k(rows, blocks, w);
    w->q = w->room;
    w->step = TILE_BYTES_A;
    w->stride = BLOCK;
}

/* ---- products ---- */

/* Tile registers, by turns: a block's product does not wait for the block before to be stored. */
#define DOTS_EVEN 0
#define DOTS_ODD 1
#define W_EVEN 2
#define W_ODD 3
#define X_EVEN 4
#define X_ODD 5

static const tile_config quant_config __attribute__((aligned(64))) = {
    .palette = 1, .colsb = {64, 64, BLOCK, BLOCK, 64, 64}, .rows = {VL, VL, VL, VL, WORDS, WORDS}};

INLINE void multiply(int64_t b, const int8_t *w, int64_t stride, const int8_t *x) {
    if (b % 2 == 0) {
        _tile_zero(DOTS_EVEN);
        _tile_loadd(W_EVEN, w, stride);
        _tile_loadd(X_EVEN, x, 64);
        _tile_dpbssd(DOTS_EVEN, W_EVEN, X_EVEN);
    } else {
        _tile_zero(DOTS_ODD);
        _tile_loadd(W_ODD, w, stride);
        _tile_loadd(X_ODD, x, 64);
        _tile_dpbssd(DOTS_ODD, W_ODD, X_ODD);
    }
}

INLINE void store_dots(int64_t b, int32_t *dots) {
    if (b % 2 == 0)
        _tile_stored(DOTS_EVEN, dots, 64);
    else
        _tile_stored(DOTS_ODD, dots, 64);
}

/* Rows of the weight that lie behind those at work, `bytes` of them a block: asking for them bit by bit keeps the
 * memory busy, which rows too short for the hardware's prefetcher would not. They may lie past the matrix, which a
 * prefetch ignores. */
typedef struct ahead {
    uintptr_t at;
    int64_t bytes;
} ahead;

/* part[row of the weight][row of A] += for sixteen rows of the weight and a group. */
INLINE void one_group(float *part, const weight_rows *w, const groups *x, int64_t group, ahead next, const int offset) {
    int32_t dots[RING][VL * VL] __attribute__((aligned(64)));
    __m512 sums[VL];
    const int64_t blocks = x->blocks;
    const int8_t *q = x->q + group * blocks * TILE_BYTES_B;
    const float *scale = x->scale + group * blocks * VL, *sum = x->sum + group * blocks * VL;
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++)
        sums[i] = _mm512_load_ps(part + i * VL);
    for (int64_t now = 0; now < blocks + AHEAD; now++) {
        if (now < blocks)
            multiply(now, w->q + now * w->step, w->stride, q + now * TILE_BYTES_B);
        for (int64_t line = 0; line < next.bytes; line += 64)
            __builtin_prefetch((const void *)(next.at + (uintptr_t)(now * next.bytes + line)), 0, 2);
        if (now > 0 && now <= blocks)
            store_dots(now - 1, dots[(now - 1) % RING]);
        const int64_t b = now - AHEAD;
        if (b < 0)
            continue;
        const int32_t *whole = dots[b % RING];
        const float *by = w->scale + b * VL, *shift = w->offset + b * VL;
        const __m512 x_scale = _mm512_load_ps(scale + b * VL), x_sum = offset ? _mm512_load_ps(sum + b * VL) : x_scale;
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++) {
            __m512 v = _mm512_mul_ps(_mm512_set1_ps(by[i]), _mm512_cvtepi32_ps(_mm512_load_si512(whole + i * VL)));
            if (offset)
                v = _mm512_fmadd_ps(_mm512_set1_ps(shift[i]), x_sum, v);
            sums[i] = _mm512_fmadd_ps(x_scale, v, sums[i]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < VL; i++)
        _mm512_store_ps(part + i * VL, sums[i]);
}

/* What a call works on: sixteen columns from `j` on (or fewer) of one product, for a chunk of rows. */
typedef struct column_block {
    const emo__gemm *g;
    int which;
    int64_t m0;
    int64_t rows;
    int64_t j;
    int cols;
} column_block;

static float *place(const column_block *c, int64_t row) { return c->g->c[c->which] + (c->m0 + row) * c->g->ldc + c->j; }

/* C's columns of the rows of a group, as rows of sixteen. */
static void read_part(const column_block *c, int64_t row, float *part) {
    __m512i block[VL];
    const __mmask16 mask = (__mmask16)mask_of(c->cols, VL);
    if (c->g->beta != 1.0f) {
        memset(part, 0, VL * VL * sizeof(float));
        return;
    }
    for (int i = 0; i < VL; i++)
        block[i] = row + i < c->rows ? (__m512i)_mm512_maskz_loadu_ps(mask, place(c, row + i)) : _mm512_setzero_si512();
    emo__transpose_16(block);
    store_tile((char *)part, block);
}

static void write_part(const column_block *c, int64_t row, const float *part) {
    __m512i block[VL];
    const __mmask16 mask = (__mmask16)mask_of(c->cols, VL);
    for (int i = 0; i < VL; i++)
        block[i] = _mm512_load_si512(part + i * VL);
    emo__transpose_16(block);
    for (int i = 0; i < VL && row + i < c->rows; i++)
        _mm512_mask_storeu_ps(place(c, row + i), mask, (__m512)block[i]);
}

static void many_rows(const column_block *c, emo_dtype dtype, stored_rows from, weight_rows *w, const groups *x) {
    read_rows(from, x->blocks, dtype, w);
    const int64_t bytes = VL * from.pitch,
                  passes = c->rows > VL ? 2 : 1; /* of the product that ask for the next rows */
    for (int64_t row = 0; row < c->rows; row += VL) {
        float part[VL * VL] __attribute__((aligned(64)));
        read_part(c, row, part);
        __asm__ volatile("" ::: "memory"); /* gcc does not know what loads of tiles read */
        ahead next = {(uintptr_t)from.at + (uintptr_t)(bytes + row / VL * (bytes / passes)),
                      bytes / passes / x->blocks};
        if (row / VL >= passes)
            next.bytes = 0;
        if (dtype == EMO_DTYPE_Q4_K)
            one_group(part, w, x, row / VL, next, 1);
        else
            one_group(part, w, x, row / VL, next, 0);
        write_part(c, row, part);
    }
}

int emo__gemm_amx_quantised(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                            size_t floats) {
    int64_t blocks = g->k / BLOCK, most = chunk_rows(g->k, floats, EMO__GEMM_QUANT_GROUP);
    if (!emo__gemm_plain(g, BLOCK) || most == 0)
        return 0;
    if (m1 - m0 <= FEW_ROWS)
        return emo__gemm_quant_vnni(g, m0, m1, n0, n1, work, floats);
    const int sums = g->b[0].dtype == EMO_DTYPE_Q4_K || (g->n_b == 2 && g->b[1].dtype == EMO_DTYPE_Q4_K);
    _tile_loadconfig(&quant_config);
    for (int64_t begin = m0; begin < m1; begin += most) {
        int64_t rows = m1 - begin < most ? m1 - begin : most;
        size_t padded = (size_t)(rows + VL - 1) / VL * VL, count = (size_t)blocks;
        char *at = (char *)work;
        groups x = {.blocks = blocks};
        x.q = take(&at, padded * count * BLOCK);
        x.scale = take(&at, padded * count * sizeof(float));
        x.sum = take(&at, padded * count * sizeof(float));
        weight_rows w = {.room = take(&at, count * TILE_BYTES_A)};
        w.scale = take(&at, count * VL * sizeof(float));
        w.offset = take(&at, count * VL * sizeof(float));
        uint8_t *spare = take(&at, count * VL * EMO__Q8_0_BYTES);
        /* sixteen rows at a time, before weights need the room */
        byte_rows bytes = {w.room, w.scale, w.offset, blocks};
        const int there = g->again && most >= m1 - m0;
        for (int64_t i = 0; i < rows && !there; i++) {
            quantise_row(&g->a[0], begin + i, i % VL, &bytes, sums);
            if (i % VL == VL - 1 || i == rows - 1)
                group_rows(&bytes, i % VL + 1, i / VL, &x, sums);
        }
        for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++) {
            const emo__gemm_operand *b = &g->b[which];
            const size_t pitch = emo__dtype_run(b->dtype, b->ld);
            for (int64_t j = n0; j < n1; j += VL) {
                int cols = n1 - j < VL ? (int)(n1 - j) : VL;
                stored_rows from = {(const uint8_t *)b->data + (size_t)j * pitch, (int64_t)pitch};
                if (cols < VL)
                    from = repeat_last(from, cols, b->dtype, g->k, spare);
                column_block c = {g, which, begin, rows, j, cols};
                many_rows(&c, b->dtype, from, &w, &x);
            }
        }
    }
    return 1;
}
