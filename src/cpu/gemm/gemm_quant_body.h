/* SPDX-License-Identifier: Apache-2.0 */
/* gemm_quant.h's product for one level, VL rows of the weight at a time, one in each lane. The including file has
 * gemm_quant_rows_body.h and defines
 *   VL, KERNEL (the function's name), vecf and veci (VL floats, VL words of four bytes),
 *   words_of_32, words_of_16(rows, at, out): 32 or 16 bytes of every row as 8 or 4 vectors of one word of each,
 *   low_nibbles, high_nibbles, minus_8: of bytes;  halves_at(rows, at): a 16-bit float of every row;
 *   word_for_dots(w): what is computed once of a weight's word, of type `factor`;
 *   dot_four(sum, factor, q): sum + the products of four bytes of the weight and of A (q, broadcast), whole;
 *   quantise_block(x, times, q, sum): 32 floats times a factor to bytes; returns max |x| (NaN if one is in it);
 *   ONE_ROW, where there is one: another function with the same bits for one row of A;
 *   V_LOAD, V_STORE, V_SET1, V_MUL, V_FMA(a, b, c) = a b + c, W_ZERO,
 *   V_NUMBERS(dots, sum): dots as floats, without what dot_four adds too much, in terms of the sum of q. */

enum { ROWS = 4 }; /* of A at a time: their sums stay in registers */
/* And where there are as many, the including file may say: a level with more registers. */
#ifndef MANY_ROWS
#define MANY_ROWS ROWS
#endif

/* VL rows of the weight, for all of k, when more than ROWS rows of A want them. */
typedef struct weight_rows {
    veci *words;   /* [blocks][WORDS] */
    float *scale;  /* [blocks][VL] */
    float *offset; /* [blocks][VL] */
} weight_rows;

/* Rows of A. */
typedef struct activations {
    int8_t *q;    /* [rows][blocks * BLOCK] */
    float *scale; /* [rows][blocks] */
    float *sum;   /* [rows][blocks]: sums of q, which are whole */
    int64_t blocks;
} activations;

static void quantise_row(const emo__gemm_operand *a, int64_t row, int64_t at, const activations *x) {
    const float *from = (const float *)(const void *)emo__stored_row(a, row, 4);
    const float times = a->scale != NULL ? a->scale[row] : 1.0f;
    for (int64_t b = 0; b < x->blocks; b++) {
        int32_t sum;
        float most = quantise_block(from + b * BLOCK, times, x->q + (at * x->blocks + b) * BLOCK, &sum);
        x->scale[at * x->blocks + b] = most / 127.0f;
        x->sum[at * x->blocks + b] = (float)sum;
    }
}

/* ---- weights ---- */

/* One block of the two small formats. */
INLINE vecf read_block(stored_rows rows, int64_t b, veci words[WORDS], const emo_dtype dtype) {
    if (dtype == EMO_DTYPE_Q8_0) {
        words_of_32(rows, b * EMO__Q8_0_BYTES + 2, words);
        return halves_at(rows, b * EMO__Q8_0_BYTES);
    }
    veci packed[WORDS / 2];
    words_of_16(rows, b * EMO__Q4_0_BYTES + 2, packed);
#pragma GCC unroll 4
    for (int j = 0; j < WORDS / 2; j++) {
        words[j] = minus_8(low_nibbles(packed[j]));
        words[j + WORDS / 2] = minus_8(high_nibbles(packed[j]));
    }
    return halves_at(rows, b * EMO__Q4_0_BYTES);
}

INLINE void read_small(stored_rows rows, int64_t blocks, const weight_rows *w, const emo_dtype dtype) {
    for (int64_t b = 0; b < blocks; b++)
        V_STORE(w->scale + b * VL, read_block(rows, b, w->words + b * WORDS, dtype));
}

static void read_q4_k(stored_rows rows, int64_t blocks, const weight_rows *w) {
    for (int64_t b = 0; b < blocks; b += EMO__Q4_K_GROUPS) {
        const int64_t at = b / EMO__Q4_K_GROUPS * EMO__Q4_K_BYTES;
        float s[EMO__Q4_K_GROUPS][VL], t[EMO__Q4_K_GROUPS][VL];
        q4_k_scales(rows, at, s, t);
        const vecf d = halves_at(rows, at), m = halves_at(rows, at + 2);
        for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
            V_STORE(w->scale + (b + g) * VL, V_MUL(d, V_LOAD(s[g])));
            V_STORE(w->offset + (b + g) * VL, V_MUL(m, V_LOAD(t[g])));
        }
        for (int pair = 0; pair < EMO__Q4_K_GROUPS / 2; pair++) {
            veci packed[WORDS], *low = w->words + (b + 2 * pair) * WORDS;
            words_of_32(rows, at + 16 + pair * BLOCK, packed);
            for (int j = 0; j < WORDS; j++) {
                low[j] = low_nibbles(packed[j]);
                low[j + WORDS] = high_nibbles(packed[j]);
            }
        }
    }
}

/* ---- products ---- */

/* What one block adds for `rows` rows of A from `first` on; `rows` is a constant where it is inlined. */
INLINE void add_block(vecf *sums, const veci words[WORDS], vecf scale, vecf shift, int64_t b, const activations *x,
                      int64_t first, const int rows, const int offset) {
    veci dots[MANY_ROWS];
    for (int r = 0; r < rows; r++)
        dots[r] = W_ZERO;
#pragma GCC unroll 8
    for (int j = 0; j < WORDS; j++) {
        factor f = word_for_dots(words[j]);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x->q + ((first + r) * x->blocks + b) * BLOCK + j * 4, sizeof four);
            dots[r] = dot_four(dots[r], f, four);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        const int64_t at = (first + r) * x->blocks + b;
        vecf v = V_MUL(scale, V_NUMBERS(dots[r], x->sum[at]));
        if (offset)
            v = V_FMA(shift, V_SET1(x->sum[at]), v);
        sums[r] = V_FMA(V_SET1(x->scale[at]), v, sums[r]);
    }
}

/* Weights that are read once, block by block. */
INLINE void small_once(vecf *sums, stored_rows from, const activations *x, const int rows, const emo_dtype dtype) {
    for (int64_t b = 0; b < x->blocks; b++) {
        veci words[WORDS];
        vecf scale = read_block(from, b, words, dtype);
        ask_for_next(from, b, dtype == EMO_DTYPE_Q8_0 ? EMO__Q8_0_BYTES : EMO__Q4_0_BYTES);
        add_block(sums, words, scale, scale, b, x, 0, rows, 0);
    }
}

INLINE void from_memory(vecf *sums, const weight_rows *w, const activations *x, int64_t first, const int rows,
                        const int offset) {
    for (int64_t b = 0; b < x->blocks; b++) {
        vecf scale = V_LOAD(w->scale + b * VL);
        add_block(sums, w->words + b * WORDS, scale, offset ? V_LOAD(w->offset + b * VL) : scale, b, x, first, rows,
                  offset);
    }
}

/* ROWS rows of A or fewer. `stored`: the weight's rows as they are, when only these rows want them; else NULL. */
INLINE void some_rows(vecf *sums, const stored_rows *stored, const weight_rows *w, const activations *x, int64_t first,
                      const int rows, emo_dtype dtype) {
    if (stored != NULL && dtype == EMO_DTYPE_Q8_0)
        small_once(sums, *stored, x, rows, EMO_DTYPE_Q8_0);
    else if (stored != NULL)
        small_once(sums, *stored, x, rows, EMO_DTYPE_Q4_0);
    else if (dtype == EMO_DTYPE_Q4_K)
        from_memory(sums, w, x, first, rows, 1);
    else
        from_memory(sums, w, x, first, rows, 0);
}

/* VL columns of C from `c` on (or the first `cols` of them) for all rows of A. */
static void columns(float *c, int64_t ldc, int cols, int64_t rows, int from_c, stored_rows from, const weight_rows *w,
                    const activations *x, emo_dtype dtype) {
    const stored_rows *stored = rows <= ROWS && dtype != EMO_DTYPE_Q4_K ? &from : NULL;
    if (dtype == EMO_DTYPE_Q4_K)
        read_q4_k(from, x->blocks, w);
    else if (stored == NULL && dtype == EMO_DTYPE_Q8_0)
        read_small(from, x->blocks, w, EMO_DTYPE_Q8_0);
    else if (stored == NULL)
        read_small(from, x->blocks, w, EMO_DTYPE_Q4_0);
    for (int64_t first = 0; first < rows;) {
        /* up to three rows share one reading of the weight */
        const int count = rows - first >= MANY_ROWS ? MANY_ROWS
                          : rows - first >= ROWS    ? ROWS
                          : stored != NULL          ? (int)rows
                                                    : 1;
        float part[MANY_ROWS][VL] = {{0}};
        vecf sums[MANY_ROWS];
        for (int r = 0; r < count; r++) {
            if (from_c)
                memcpy(part[r], c + (first + r) * ldc, (size_t)cols * sizeof(float));
            sums[r] = V_LOAD(part[r]);
        }
        if (count > ROWS)
            some_rows(sums, NULL, w, x, first, MANY_ROWS, dtype);
        else if (count == ROWS)
            some_rows(sums, stored, w, x, first, ROWS, dtype);
        else if (count == 1)
            some_rows(sums, stored, w, x, first, 1, dtype);
        else if (count == 2)
            some_rows(sums, &from, w, x, 0, 2, dtype);
        else
            some_rows(sums, &from, w, x, 0, 3, dtype);
        for (int r = 0; r < count; r++) {
            V_STORE(part[r], sums[r]);
            memcpy(c + (first + r) * ldc, part[r], (size_t)cols * sizeof(float));
        }
        first += count;
    }
}

int KERNEL(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work, size_t floats) {
    if (!emo__dtype_quantised(g->b[0].dtype) || !emo__gemm_plain(g, BLOCK))
        return 0;
    const int64_t most = chunk_rows(g->k, floats, ROWS);
    if (most == 0)
        return 0;
#if defined(ONE_ROW)
    if (m1 - m0 == 1 && ONE_ROW(g, m0, n0, n1, work, floats))
        return 1;
#endif
    const size_t blocks = (size_t)(g->k / BLOCK);
    for (int64_t begin = m0; begin < m1; begin += most) {
        int64_t rows = m1 - begin < most ? m1 - begin : most;
        char *at = (char *)work;
        activations x = {.blocks = (int64_t)blocks};
        x.q = take(&at, (size_t)rows * blocks * BLOCK);
        x.scale = take(&at, (size_t)rows * blocks * sizeof(float));
        x.sum = take(&at, (size_t)rows * blocks * sizeof(float));
        weight_rows w;
        w.words = take(&at, blocks * WORDS * sizeof(veci));
        w.scale = take(&at, blocks * VL * sizeof(float));
        w.offset = take(&at, blocks * VL * sizeof(float));
        uint8_t *spare = take(&at, blocks * VL * EMO__Q8_0_BYTES);
        for (int64_t i = 0; i < rows; i++)
            quantise_row(&g->a[0], begin + i, i, &x);
        for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++) {
            const emo__gemm_operand *b = &g->b[which];
            const size_t pitch = emo__dtype_run(b->dtype, b->ld);
            for (int64_t j = n0; j < n1; j += VL) {
                int cols = n1 - j < VL ? (int)(n1 - j) : VL;
                stored_rows from = {(const uint8_t *)b->data + (size_t)j * pitch, (int64_t)pitch};
                if (cols < VL)
                    from = repeat_last(from, cols, b->dtype, g->k, spare);
                columns(g->c[which] + begin * g->ldc + j, g->ldc, cols, rows, g->beta == 1.0f, from, &w, &x, b->dtype);
            }
        }
    }
    return 1;
}
