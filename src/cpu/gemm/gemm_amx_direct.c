/* SPDX-License-Identifier: Apache-2.0 */
/* bf16 weights are the left operand and the rows of A are packed as the right one. So C comes out transposed, and its
 * elements have the same bits as by packing B: they add the same products in the same order. Where rows are few, as in
 * generation and in most experts of a prompt, the weights' rows are loaded into tiles where they lie; where they are
 * many, gemm_amx_staged.c copies them first. */
#include "cpu/gemm/gemm_amx.h"
#include "tensor/quant.h"

enum {
    STAGED = 3, /* panels of rows that are worth a copy of the weights */
    HEADS = 8   /* units of the next weights that are asked for */
};

/* One block of up to 32 columns (rows of the weight) by up to 32 rows of A. */
typedef struct direct_block {
    const char *w; /* [cols] rows `pitch` bytes apart */
    size_t pitch;
    const char *x; /* packed as a panel of B */
    int64_t k;
    c_block c;
    int from_c;
    const char *next; /* as many rows `next_pitch` bytes apart, which are read after these; NULL: none */
    size_t next_pitch;
} direct_block;

/* `low`: columns 16 to 31 are there, too; `right`: rows 16 to 31. */
INLINE void multiply(const direct_block *d, float *part, const int low, const int right) {
    const char *w = d->w, *x = d->x;
    const size_t pitch = d->pitch, below = VL * pitch;
    enum { TILE = VL * VL };
    if (d->from_c) {
        read_transposed(&d->c, 0, 0, part);
        _tile_loadd(C00, part, 64);
        if (right) {
            read_transposed(&d->c, 0, VL, part + TILE);
            _tile_loadd(C01, part + TILE, 64);
        }
        if (low) {
            read_transposed(&d->c, VL, 0, part + 2 * TILE);
            _tile_loadd(C10, part + 2 * TILE, 64);
        }
        if (low && right) {
            read_transposed(&d->c, VL, VL, part + 3 * TILE);
            _tile_loadd(C11, part + 3 * TILE, 64);
        }
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
        _tile_zero(C10);
        _tile_zero(C11);
    }
    const int64_t heads = d->next != NULL && d->k > HEADS * UNIT ? d->k - HEADS * UNIT : d->k;
    for (int64_t kk = 0; kk < d->k; kk += UNIT, w += 64, x += UNIT_BYTES) {
        if (kk >= heads) {
            const char *line = d->next + (kk - heads) * 2;
            for (int l = 0; l < (low ? LANES : VL); l++, line += d->next_pitch)
                __builtin_prefetch(line, 0, 2);
        }
        _tile_loadd(B0, x, 64);
        _tile_loadd(A0, w, pitch);
        _tile_dpbf16ps(C00, A0, B0);
        if (right) {
            _tile_loadd(B1, x + TILE_BYTES, 64);
            _tile_dpbf16ps(C01, A0, B1);
        }
        if (low) {
            _tile_loadd(A1, w + below, pitch);
            _tile_dpbf16ps(C10, A1, B0);
            if (right)
                _tile_dpbf16ps(C11, A1, B1);
        }
    }
    _tile_stored(C00, part, 64);
    write_transposed(&d->c, 0, 0, part);
    if (right) {
        _tile_stored(C01, part + TILE, 64);
        write_transposed(&d->c, 0, VL, part + TILE);
    }
    if (low) {
        _tile_stored(C10, part + 2 * TILE, 64);
        write_transposed(&d->c, VL, 0, part + 2 * TILE);
    }
    if (low && right) {
        _tile_stored(C11, part + 3 * TILE, 64);
        write_transposed(&d->c, VL, VL, part + 3 * TILE);
    }
}

static void multiply_block(const direct_block *d) {
    float part[4 * VL * VL] __attribute__((aligned(64)));
    if (d->c.cols > VL && d->c.rows > VL)
        multiply(d, part, 1, 1);
    else if (d->c.cols > VL)
        multiply(d, part, 1, 0);
    else if (d->c.rows > VL)
        multiply(d, part, 0, 1);
    else
        multiply(d, part, 0, 0);
}

/* Rows of A that are packed at a time, a multiple of a panel's; 0: not even one panel fits. */
static int64_t rows_at_once(int64_t m, int64_t k, int64_t floats) {
    const int64_t fixed = LANES * k / 2 + (int64_t)(emo__gemm_amx_staged_bytes(0) / sizeof(float));
    const int64_t panel = LANES * k / 2 + (int64_t)(emo__gemm_amx_staged_bytes(LANES) / sizeof(float));
    const int64_t most = (floats - fixed) / panel * LANES;
    if (floats < fixed || most < LANES)
        return 0;
    const int64_t parts = (m + most - 1) / most; /* equal ones */
    return ((m + parts - 1) / parts + LANES - 1) / LANES * LANES;
}

static int fits(const emo__gemm *g) {
    if (!emo__gemm_plain(g, UNIT))
        return 0;
    for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++)
        if (g->b[which].dtype != EMO_DTYPE_BF16 || !g->b[which].trans || g->b[which].order != NULL)
            return 0;
    return 1;
}

/* The last columns where whole tiles would reach beyond the matrix: a copy with zeros behind it. */
static const char *fill_up(const char *w, size_t pitch, int cols, int64_t k, char *spare) {
    const size_t row = (size_t)k * 2;
    for (int l = 0; l < LANES; l++) {
        if (l < cols)
            memcpy(spare + (size_t)l * row, w + (size_t)l * pitch, row);
        else
            memset(spare + (size_t)l * row, 0, row);
    }
    return spare;
}

/* Rows [m0, m1) of A, packed at x, against columns [j, j + 32) of one B; `next`: the rows that are read after it. */
static void multiply_rows(const emo__gemm *g, int which, int64_t m0, int64_t m1, int64_t j, int cols, const char *next,
                          const char *x, char *spare) {
    const emo__gemm_operand *b = &g->b[which];
    direct_block d = {.pitch = (size_t)b->ld * 2, .k = g->k, .from_c = g->beta == 1.0f};
    d.w = (const char *)b->data + (size_t)j * d.pitch;
    d.c.ldc = g->ldc;
    d.c.cols = cols;
    d.next_pitch = d.pitch;
    if (cols % VL != 0) {
        d.w = fill_up(d.w, d.pitch, cols, g->k, spare);
        d.pitch = (size_t)g->k * 2;
    }
    for (int64_t i = m0; i < m1; i += LANES) {
        d.x = x + (i - m0) / LANES * (g->k / UNIT * UNIT_BYTES);
        d.c.c = g->c[which] + i * g->ldc + j;
        d.c.rows = m1 - i < LANES ? (int)(m1 - i) : LANES;
        d.next = i + LANES < m1 ? NULL : next;
        multiply_block(&d);
    }
}

static void few_rows(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const char *x, char *spare) {
    const int n_b = g->n_b == 2 ? 2 : 1;
    for (int64_t j = n0; j < n1; j += LANES)
        for (int which = 0; which < n_b; which++) {
            const emo__gemm_operand *b = &g->b[(which + 1) % n_b];
            const int64_t next = which + 1 < n_b ? j : j + LANES;
            multiply_rows(g, which, m0, m1, j, n1 - j < LANES ? (int)(n1 - j) : LANES,
                          next + LANES <= n1 ? (const char *)b->data + next * b->ld * 2 : NULL, x, spare);
        }
}

int emo__gemm_amx_direct(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                         size_t floats) {
    if (emo__dtype_quantised(g->b[0].dtype))
        return emo__gemm_amx_quantised(g, m0, m1, n0, n1, work, floats);
    const int64_t most = fits(g) ? rows_at_once(m1 - m0, g->k, (int64_t)floats) : 0;
    const int64_t panel = LANES * (g->k / 2); /* floats */
    char *spare = (char *)(work + most / LANES * panel);
    for (int64_t begin = m0; begin < m1 && most > 0; begin += most) {
        const int64_t end = m1 - begin < most ? m1 : begin + most;
        const int there = g->again && most >= m1 - m0;
        for (int64_t i = begin; i < end && !there; i += LANES)
            emo__gemm_amx_pack_right((char *)(work + (i - begin) / LANES * panel), &g->a[0], i,
                                     end - i < LANES ? (int)(end - i) : LANES, g->k);
        if (end - begin > (STAGED - 1) * LANES)
            emo__gemm_amx_staged(g, begin, end, n0, n1, (const char *)work, spare);
        else
            few_rows(g, begin, end, n0, n1, (const char *)work, spare);
    }
    return most > 0;
}
