/* SPDX-License-Identifier: Apache-2.0 */
/* Many rows against bf16 weights. The weights are the left operand, as where rows are few (gemm_amx_direct.c), but used
 * so often that a copy pays: 32 rows by as much of k as the first-level cache holds, in whole lines, whatever the
 * alignment of the file they are mapped from. What sums are reached waits in memory from one part of k to the next,
 * which changes no bit. */
#include "cpu/gemm/gemm_amx.h"

enum {
    PART = 8, /* units of k in a copy */
    TILE = VL * VL,
    SUMS = 4 * TILE, /* of a panel */
    C_LINES = 2 * LANES / PART
};

size_t emo__gemm_amx_staged_bytes(int64_t rows) {
    return PART * UNIT_BYTES + (size_t)((rows + LANES - 1) / LANES) * SUMS * sizeof(float);
}

/* `units` of 32 rows (`cols` of them there, then zeros) as tiles. */
static void copy_part(const char *w, size_t pitch, int cols, int64_t units, char *to) {
    for (int l = 0; l < LANES; l++, w += pitch)
        for (int64_t u = 0; u < units; u++)
            _mm512_store_si512(to + u * UNIT_BYTES + l * 64,
                               l < cols ? _mm512_loadu_si512(w + u * 64) : _mm512_setzero_si512());
}

INLINE void load_sums(const float *sums, const int right) {
    _tile_loadd(C00, sums, 64);
    _tile_loadd(C10, sums + 2 * TILE, 64);
    if (right) {
        _tile_loadd(C01, sums + TILE, 64);
        _tile_loadd(C11, sums + 3 * TILE, 64);
    }
}

/* Part of k for a panel of rows; `right`: rows 16 to 31 are there. */
INLINE void multiply(const char *w, const char *x, int64_t units, float *sums, const c_block *c, const int right) {
    load_sums(sums, right);
    for (int64_t u = 0; u < units; u++, w += UNIT_BYTES, x += UNIT_BYTES) {
        for (int64_t i = 0; c != NULL && i < C_LINES; i++) {
            const int64_t line = u * C_LINES + i;
            if (line < 2 * c->rows)
                __builtin_prefetch(c->c + line / 2 * c->ldc + line % 2 * VL, 1, 2);
        }
        _tile_loadd(B0, x, 64);
        _tile_loadd(A0, w, 64);
        _tile_dpbf16ps(C00, A0, B0);
        _tile_loadd(A1, w + TILE_BYTES, 64);
        _tile_dpbf16ps(C10, A1, B0);
        if (right) {
            _tile_loadd(B1, x + TILE_BYTES, 64);
            _tile_dpbf16ps(C01, A0, B1);
            _tile_dpbf16ps(C11, A1, B1);
        }
    }
    _tile_stored(C00, sums, 64);
    _tile_stored(C10, sums + 2 * TILE, 64);
    if (right) {
        _tile_stored(C01, sums + TILE, 64);
        _tile_stored(C11, sums + 3 * TILE, 64);
    }
}

static void begin_sums(const c_block *c, int from_c, float *sums) {
    if (!from_c) {
        memset(sums, 0, SUMS * sizeof(float));
        return;
    }
    for (int tile = 0; tile < 4; tile++)
        read_transposed(c, tile / 2 * VL, tile % 2 * VL, sums + tile * TILE);
}

static void put_sums(const c_block *c, const float *sums) {
    for (int tile = 0; tile < 4; tile++)
        if (tile / 2 * VL < c->cols && tile % 2 * VL < c->rows)
            write_transposed(c, tile / 2 * VL, tile % 2 * VL, sums + tile * TILE);
}

/* The columns [j, j + 32) of one B. */
static void columns(const emo__gemm *g, int which, int64_t m0, int64_t m1, int64_t j, int cols, const char *x,
                    char *memory) {
    const emo__gemm_operand *b = &g->b[which];
    const size_t pitch = (size_t)b->ld * 2;
    const int64_t units = g->k / UNIT;
    const char *w = (const char *)b->data + (size_t)j * pitch;
    float *sums = (float *)(void *)(memory + PART * UNIT_BYTES);
    c_block c = {.ldc = g->ldc, .cols = cols};
    for (int64_t first = 0; first < units; first += PART) {
        const int64_t count = units - first < PART ? units - first : PART;
        const int last = first + count == units;
        copy_part(w + first * 64, pitch, cols, count, memory);
        for (int64_t i = m0; i < m1; i += LANES) {
            const int64_t panel = (i - m0) / LANES;
            const char *from = x + (panel * units + first) * UNIT_BYTES;
            float *of_panel = sums + panel * SUMS;
            c.c = g->c[which] + i * g->ldc + j;
            c.rows = m1 - i < LANES ? (int)(m1 - i) : LANES;
            if (first == 0)
                begin_sums(&c, g->beta == 1.0f, of_panel);
            if (c.rows > VL)
                multiply(memory, from, count, of_panel, last ? &c : NULL, 1);
            else
                multiply(memory, from, count, of_panel, last ? &c : NULL, 0);
            if (last)
                put_sums(&c, of_panel);
        }
    }
}

void emo__gemm_amx_staged(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, const char *x,
                          char *memory) {
    for (int64_t j = n0; j < n1; j += LANES)
        for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++)
            columns(g, which, m0, m1, j, n1 - j < LANES ? (int)(n1 - j) : LANES, x, memory);
}
