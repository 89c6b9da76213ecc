/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on AMX and VNNI, as gemm_quant.h says. One row on VNNI and many rows on tiles have the same bits.
 */
#include <stdint.h>

#include "cpu/gemm/gemm_amx.h"
#include "cpu/gemm/gemm_quant_avx512.h"

enum { WEIGHT_BYTES = WORDS * 64, FEW_ROWS = 4 };

/* Sixteen rows of the weight, for all of k. Word j of a block holds elements 4 j to 4 j + 3 of each row. */
typedef struct weight_rows {
    int8_t *q;     /* [blocks][WORDS][16 rows][4] */
    float *scale;  /* [blocks][16] */
    float *offset; /* [blocks][16]; NULL: none */
} weight_rows;

/* Rows of A. */
typedef struct activations {
    int8_t *q;    /* [rows padded to 16][k] */
    float *scale; /* [blocks][rows padded] */
    int32_t *sum; /* the same: sums of q */
    int64_t padded;
} activations;

/* ---- activations ---- */

static void quantise_row(const emo__gemm_operand *a, int64_t row, int64_t at, int64_t blocks, activations *x) {
    const float *from = (const float *)(const void *)emo__stored_row(a, row, 4);
    const float times = a->scale != NULL ? a->scale[row] : 1.0f;
    for (int64_t b = 0; b < blocks; b++) {
        int8_t *to = x->q + (at * blocks + b) * BLOCK;
        x->scale[b * x->padded + at] =
            quantise_block(from + b * BLOCK, times, to, x->sum + b * x->padded + at) / 127.0f;
    }
}

/* Rows of a tile that are not there: what they give is not looked at, but it should be numbers. */
static void clear_rows(const activations *x, int64_t first, int64_t blocks) {
    memset(x->q + first * blocks * BLOCK, 0, (size_t)((x->padded - first) * blocks * BLOCK));
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t row = first; row < x->padded; row++) {
            x->scale[b * x->padded + row] = 0.0f;
            x->sum[b * x->padded + row] = 0;
        }
}

/* ---- weights ---- */

INLINE void put(int8_t *q, const __m512i *words, int count) {
    for (int j = 0; j < count; j++)
        _mm512_store_si512(q + j * 64, words[j]);
}

/* One block of the two small formats. */
INLINE void read_block(stored_rows rows, int64_t b, __m512i words[WORDS], __m512 *scale, const emo_dtype dtype) {
    if (dtype == EMO_DTYPE_Q8_0) {
        words_of_32(rows, b * EMO__Q8_0_BYTES + 2, words);
        *scale = halves_at(rows, b * EMO__Q8_0_BYTES);
        return;
    }
    __m512i packed[4];
    words_of_16(rows, b * EMO__Q4_0_BYTES + 2, packed);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
        words[j] = minus_8(low_nibbles(packed[j]));
        words[j + 4] = minus_8(high_nibbles(packed[j]));
    }
    *scale = halves_at(rows, b * EMO__Q4_0_BYTES);
}

INLINE void read_small(stored_rows rows, int64_t blocks, const weight_rows *w, const emo_dtype dtype) {
    for (int64_t b = 0; b < blocks; b++) {
        __m512i words[WORDS];
        __m512 scale;
        read_block(rows, b, words, &scale, dtype);
        put(w->q + b * WEIGHT_BYTES, words, WORDS);
        _mm512_store_ps(w->scale + b * VL, scale);
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
            __m512i packed[WORDS], low[WORDS], high[WORDS];
            words_of_32(rows, at + 16 + pair * 32, packed);
            for (int j = 0; j < WORDS; j++) {
                low[j] = low_nibbles(packed[j]);
                high[j] = high_nibbles(packed[j]);
            }
            put(w->q + (b + 2 * pair) * WEIGHT_BYTES, low, WORDS);
            put(w->q + (b + 2 * pair + 1) * WEIGHT_BYTES, high, WORDS);
        }
    }
}

/* ---- products ---- */

/* What one block adds for one row of A: dots are whole numbers of sixteen columns. */
INLINE __m512 add_block(__m512 sum, __m512i dots, __m512 scale, __m512 shift, int64_t b, const activations *x,
                        int64_t row, const int offset) {
    __m512 v = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dots));
    if (offset)
        v = _mm512_fmadd_ps(shift, _mm512_set1_ps((float)x->sum[b * x->padded + row]), v);
    return _mm512_fmadd_ps(_mm512_set1_ps(x->scale[b * x->padded + row]), v, sum);
}

/* A block of one row of A, on VNNI: bytes of the weight plus 128 are unsigned, and 128 times the sum of q is taken off
 * again. */
INLINE __m512i dots_of(const __m512i words[WORDS], const activations *x, int64_t row, int64_t b, int64_t blocks) {
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    const int8_t *q = x->q + (row * blocks + b) * BLOCK;
    __m512i even = _mm512_set1_epi32(-128 * x->sum[b * x->padded + row]), odd = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int j = 0; j < WORDS; j += 2) {
        int32_t four[2];
        memcpy(four, q + j * 4, sizeof four);
        even = _mm512_dpbusd_epi32(even, _mm512_xor_si512(words[j], flip), _mm512_set1_epi32(four[0]));
        odd = _mm512_dpbusd_epi32(odd, _mm512_xor_si512(words[j + 1], flip), _mm512_set1_epi32(four[1]));
    }
    return _mm512_add_epi32(even, odd);
}

/* Few rows of A against weights that are read once, block by block. */
INLINE void few_small(__m512 sums[FEW_ROWS], stored_rows from, const activations *x, int64_t rows, int64_t blocks,
                      const emo_dtype dtype) {
    for (int64_t b = 0; b < blocks; b++) {
        __m512i words[WORDS];
        __m512 scale;
        read_block(from, b, words, &scale, dtype);
        ask_for_next(from, b, dtype == EMO_DTYPE_Q8_0 ? EMO__Q8_0_BYTES : EMO__Q4_0_BYTES);
#pragma GCC unroll 4
        for (int64_t row = 0; row < FEW_ROWS; row++)
            if (row < rows)
                sums[row] = add_block(sums[row], dots_of(words, x, row, b, blocks), scale, scale, b, x, row, 0);
    }
}

static void few_q4_k(__m512 sums[FEW_ROWS], const weight_rows *w, const activations *x, int64_t rows, int64_t blocks) {
    for (int64_t b = 0; b < blocks; b++) {
        __m512i words[WORDS];
        for (int j = 0; j < WORDS; j++)
            words[j] = _mm512_load_si512(w->q + b * WEIGHT_BYTES + j * 64);
        for (int64_t row = 0; row < rows; row++)
            sums[row] = add_block(sums[row], dots_of(words, x, row, b, blocks), _mm512_load_ps(w->scale + b * VL),
                                  _mm512_load_ps(w->offset + b * VL), b, x, row, 1);
    }
}

/* Sixteen rows of A from `row` on, on tiles. */
INLINE void sixteen_rows(__m512 sums[VL], const weight_rows *w, const activations *x, int64_t row, int64_t blocks,
                         const int offset) {
    int32_t dots[VL * VL] __attribute__((aligned(64)));
    const int8_t *q = x->q + row * blocks * BLOCK;
    for (int64_t b = 0; b < blocks; b++, q += BLOCK) {
        _tile_zero(0);
        _tile_loadd(1, q, (size_t)(blocks * BLOCK));
        _tile_loadd(2, w->q + b * WEIGHT_BYTES, 64);
        _tile_dpbssd(0, 1, 2);
        _tile_stored(0, dots, 64);
#pragma GCC unroll 16
        for (int i = 0; i < VL; i++)
            sums[i] =
                add_block(sums[i], _mm512_load_si512(dots + i * VL), _mm512_load_ps(w->scale + b * VL),
                          offset ? _mm512_load_ps(w->offset + b * VL) : _mm512_setzero_ps(), b, x, row + i, offset);
    }
}

/* What a call works on: sixteen columns from `j` on (or fewer) of one product, for a chunk of rows. */
typedef struct column_block {
    const emo__gemm *g;
    int which;
    int64_t m0;
    int64_t rows;
    int64_t j;
    int cols;
    int64_t blocks;
} column_block;

static float *place(const column_block *c, int64_t row) { return c->g->c[c->which] + (c->m0 + row) * c->g->ldc + c->j; }

static void read_sums(const column_block *c, int64_t row, int count, __m512 *sums) {
    const __mmask16 mask = (__mmask16)mask_of(c->cols, VL);
    for (int i = 0; i < count; i++)
        sums[i] = row + i < c->rows && c->g->beta == 1.0f ? _mm512_maskz_loadu_ps(mask, place(c, row + i))
                                                          : _mm512_setzero_ps();
}

static void write_sums(const column_block *c, int64_t row, int count, const __m512 *sums) {
    const __mmask16 mask = (__mmask16)mask_of(c->cols, VL);
    for (int i = 0; i < count && row + i < c->rows; i++)
        _mm512_mask_storeu_ps(place(c, row + i), mask, sums[i]);
}

static void few_rows(const column_block *c, emo_dtype dtype, stored_rows from, const weight_rows *w,
                     const activations *x) {
    __m512 sums[FEW_ROWS];
    read_sums(c, 0, FEW_ROWS, sums);
    if (dtype == EMO_DTYPE_Q8_0 && c->rows == 1)
        few_small(sums, from, x, 1, c->blocks, EMO_DTYPE_Q8_0);
    else if (dtype == EMO_DTYPE_Q8_0)
        few_small(sums, from, x, c->rows, c->blocks, EMO_DTYPE_Q8_0);
    else if (dtype == EMO_DTYPE_Q4_0 && c->rows == 1)
        few_small(sums, from, x, 1, c->blocks, EMO_DTYPE_Q4_0);
    else if (dtype == EMO_DTYPE_Q4_0)
        few_small(sums, from, x, c->rows, c->blocks, EMO_DTYPE_Q4_0);
    else {
        read_q4_k(from, c->blocks, w);
        few_q4_k(sums, w, x, c->rows, c->blocks);
    }
    write_sums(c, 0, FEW_ROWS, sums);
}

static void many_rows(const column_block *c, emo_dtype dtype, stored_rows from, const weight_rows *w,
                      const activations *x) {
    if (dtype == EMO_DTYPE_Q8_0)
        read_small(from, c->blocks, w, EMO_DTYPE_Q8_0);
    else if (dtype == EMO_DTYPE_Q4_0)
        read_small(from, c->blocks, w, EMO_DTYPE_Q4_0);
    else
        read_q4_k(from, c->blocks, w);
    for (int64_t row = 0; row < c->rows; row += VL) {
        __m512 sums[VL];
        read_sums(c, row, VL, sums);
        if (dtype == EMO_DTYPE_Q4_K)
            sixteen_rows(sums, w, x, row, c->blocks, 1);
        else
            sixteen_rows(sums, w, x, row, c->blocks, 0);
        write_sums(c, row, VL, sums);
    }
}

/* C 16 x 16 words, A 16 rows of 32 bytes, B 8 rows of 16 words. */
static const tile_config quant_config
    __attribute__((aligned(64))) = {.palette = 1, .colsb = {64, BLOCK, 64}, .rows = {VL, VL, WORDS}};

int emo__gemm_amx_quantised(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                            size_t floats) {
    int64_t blocks = g->k / BLOCK, most = chunk_rows(g->k, floats, VL);
    if (!emo__gemm_plain(g, BLOCK) || most == 0)
        return 0;
    _tile_loadconfig(&quant_config);
    for (int64_t begin = m0; begin < m1; begin += most) {
        int64_t rows = m1 - begin < most ? m1 - begin : most;
        size_t padded = (size_t)(rows + VL - 1) / VL * VL, count = (size_t)blocks;
        char *at = (char *)work;
        activations x = {.padded = (int64_t)padded};
        x.q = take(&at, padded * count * BLOCK);
        x.scale = take(&at, padded * count * sizeof(float));
        x.sum = take(&at, padded * count * sizeof(int32_t));
        weight_rows w;
        w.q = take(&at, count * WEIGHT_BYTES);
        w.scale = take(&at, count * VL * sizeof(float));
        w.offset = take(&at, count * VL * sizeof(float));
        uint8_t *spare = take(&at, count * VL * EMO__Q8_0_BYTES);
        for (int64_t i = 0; i < rows; i++)
            quantise_row(&g->a[0], begin + i, i, blocks, &x);
        if (rows > FEW_ROWS)
            clear_rows(&x, rows, blocks);
        for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++) {
            const emo__gemm_operand *b = &g->b[which];
            const size_t pitch = emo__dtype_run(b->dtype, b->ld);
            for (int64_t j = n0; j < n1; j += VL) {
                int cols = n1 - j < VL ? (int)(n1 - j) : VL;
                stored_rows from = {(const uint8_t *)b->data + (size_t)j * pitch, (int64_t)pitch};
                if (cols < VL)
                    from = repeat_last(from, cols, b->dtype, g->k, spare);
                column_block c = {g, which, begin, rows, j, cols, blocks};
                if (rows <= FEW_ROWS)
                    few_rows(&c, b->dtype, from, &w, &x);
                else
                    many_rows(&c, b->dtype, from, &w, &x);
            }
        }
    }
    return 1;
}
