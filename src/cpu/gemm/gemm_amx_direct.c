/* SPDX-License-Identifier: Apache-2.0 */
/* Few rows against bf16 weights, as in generation and in the experts of a prompt: the weights' rows are loaded into
 * tiles where they lie, as the left operand, and the rows of A are packed as the right one. So C comes out transposed,
 * and its elements have the same bits as by packing: they add the same products in the same order. */
#include "cpu/gemm/gemm_amx.h"
#include "tensor/quant.h"

enum { MOST_ROWS = 64 };

/* One block of up to 32 columns (rows of the weight) by up to 32 rows of A. */
typedef struct direct_block {
    const char *w; /* [cols] rows `pitch` bytes apart */
    size_t pitch;
    const char *x; /* packed as a panel of B */
    int64_t k;
    float *c; /* [rows, cols] */
    int64_t ldc;
    int rows;
    int cols;
    int from_c;
} direct_block;

/* c^T: columns [first, first + 16) of rows [row, row + 16), as 16 rows of a tile; what lies outside is 0. */
static void read_transposed(const direct_block *d, int first, int row, float *tile) {
    __m512i block[VL];
    __mmask16 mask = (__mmask16)mask_of(d->cols - first, VL);
    for (int i = 0; i < VL; i++)
        block[i] = row + i < d->rows ? (__m512i)_mm512_maskz_loadu_ps(mask, d->c + (row + i) * d->ldc + first)
                                     : _mm512_setzero_si512();
    emo__transpose_16(block);
    store_tile((char *)tile, block);
}

static void write_transposed(const direct_block *d, int first, int row, const float *tile) {
    __m512i block[VL];
    __mmask16 mask = (__mmask16)mask_of(d->cols - first, VL);
    for (int i = 0; i < VL; i++)
        block[i] = _mm512_load_si512(tile + i * VL);
    emo__transpose_16(block);
    for (int i = 0; i < VL && row + i < d->rows; i++)
        _mm512_mask_storeu_ps(d->c + (row + i) * d->ldc + first, mask, (__m512)block[i]);
}

/* `low`: columns 16 to 31 are there, too; `right`: rows 16 to 31. */
INLINE void multiply(const direct_block *d, float *part, const int low, const int right) {
    const char *w = d->w, *x = d->x;
    const size_t pitch = d->pitch, below = VL * pitch;
    enum { TILE = VL * VL };
    if (d->from_c) {
        read_transposed(d, 0, 0, part);
        _tile_loadd(C00, part, 64);
        if (right) {
            read_transposed(d, 0, VL, part + TILE);
            _tile_loadd(C01, part + TILE, 64);
        }
        if (low) {
            read_transposed(d, VL, 0, part + 2 * TILE);
            _tile_loadd(C10, part + 2 * TILE, 64);
        }
        if (low && right) {
            read_transposed(d, VL, VL, part + 3 * TILE);
            _tile_loadd(C11, part + 3 * TILE, 64);
        }
    } else {
        _tile_zero(C00);
        _tile_zero(C01);
        _tile_zero(C10);
        _tile_zero(C11);
    }
    for (int64_t kk = 0; kk < d->k; kk += UNIT, w += 64, x += UNIT_BYTES) {
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
    write_transposed(d, 0, 0, part);
    if (right) {
        _tile_stored(C01, part + TILE, 64);
        write_transposed(d, 0, VL, part + TILE);
    }
    if (low) {
        _tile_stored(C10, part + 2 * TILE, 64);
        write_transposed(d, VL, 0, part + 2 * TILE);
    }
    if (low && right) {
        _tile_stored(C11, part + 3 * TILE, 64);
        write_transposed(d, VL, VL, part + 3 * TILE);
    }
}

static void multiply_block(const direct_block *d) {
    float part[4 * VL * VL] __attribute__((aligned(64)));
    if (d->cols > VL && d->rows > VL)
        multiply(d, part, 1, 1);
    else if (d->cols > VL)
        multiply(d, part, 1, 0);
    else if (d->rows > VL)
        multiply(d, part, 0, 1);
    else
        multiply(d, part, 0, 0);
}

static int fits(const emo__gemm *g, int64_t rows, size_t floats) {
    const emo__gemm_operand *b = g->b;
    if (rows > MOST_ROWS || !emo__gemm_plain(g, UNIT) ||
        ((rows + LANES - 1) / LANES + 1) * LANES * (g->k / 2) > (int64_t)floats)
        return 0;
    for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++)
        if (b[which].dtype != EMO_DTYPE_BF16 || !b[which].trans || b[which].order != NULL)
            return 0;
    return 1;
}

int emo__gemm_amx_direct(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work,
                         size_t floats) {
    if (emo__dtype_quantised(g->b[0].dtype))
        return emo__gemm_amx_quantised(g, m0, m1, n0, n1, work, floats);
    if (!fits(g, m1 - m0, floats))
        return 0;
    emo__gemm_operand rows = g->a[0];
    const int64_t panel = LANES * (g->k / 2);
    /* As B is packed from stored rows, but scaled as A is. */
    for (int64_t i = m0; i < m1; i += LANES)
        emo__gemm_amx_pack_right((char *)(work + (i - m0) / LANES * panel), &rows, i,
                                 m1 - i < LANES ? (int)(m1 - i) : LANES, g->k);
    char *spare = (char *)(work + (m1 - m0 + LANES - 1) / LANES * panel);
    for (int which = 0; which < (g->n_b == 2 ? 2 : 1); which++)
        for (int64_t j = n0; j < n1; j += LANES) {
            const emo__gemm_operand *b = &g->b[which];
            int cols = n1 - j < LANES ? (int)(n1 - j) : LANES;
            size_t pitch = (size_t)b->ld * 2, row = (size_t)g->k * 2;
            const char *w = (const char *)b->data + (size_t)j * pitch;
            if (cols % VL != 0) { /* whole tiles would reach beyond the matrix */
                for (int l = 0; l < LANES; l++) {
                    if (l < cols)
                        memcpy(spare + (size_t)l * row, w + (size_t)l * pitch, row);
                    else
                        memset(spare + (size_t)l * row, 0, row);
                }
                w = spare;
                pitch = row;
            }
            for (int64_t i = m0; i < m1; i += LANES) {
                direct_block d = {.w = w,
                                  .pitch = pitch,
                                  .x = (const char *)(work + (i - m0) / LANES * panel),
                                  .k = g->k,
                                  .c = g->c[which] + i * g->ldc + j,
                                  .ldc = g->ldc,
                                  .rows = m1 - i < LANES ? (int)(m1 - i) : LANES,
                                  .cols = cols,
                                  .from_c = g->beta == 1.0f};
                multiply_block(&d);
            }
        }
    return 1;
}
