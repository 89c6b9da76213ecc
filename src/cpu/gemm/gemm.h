/* SPDX-License-Identifier: Apache-2.0 */
/* The matrix engine of the CPU back end. Operators describe a product, cut it into tiles and run the tiles.
 *
 * The order of summation is the same everywhere, whatever m, n, the tile cut, the thread or the operand's layout: k is
 * cut into blocks of EMO__GEMM_KC; inside a block one chain s = s + a * b (fused on AVX2 and AVX-512) runs over
 * ascending k from s = 0; then c = beta c (first block, or 0) + alpha s, block after block. So an element depends on
 * its row of A, its column of B and the instruction-set level alone: single, batched and masked runs agree bit for bit.
 *
 * In bf16 both operands are rounded to bf16 (to nearest, ties to even) while they are packed, and sums stay f32. The
 * levels without instructions of their own for it keep the order above. Those that add two products at once take k in
 * steps of two in that order, with what the instruction makes of two. AMX takes k in steps of 32 and goes on from
 * what C holds, block after block; the end of a block that is no multiple of 32 counts as zeros. There, too, an element
 * depends on its row and its column alone.
 */
#ifndef EMO_SRC_CPU_GEMM_GEMM_H
#define EMO_SRC_CPU_GEMM_GEMM_H

#include "cpu/cpu.h"

#define EMO__GEMM_KC 256           /* k per block: part of the results' definition */
#define EMO__GEMM_MT 518           /* most rows of a tile: packed, they take a quarter of a 2 MB cache */
#define EMO__GEMM_NT 4096          /* most columns of a tile */
#define EMO__GEMM_DIRECT (1 << 19) /* elements of A in bf16 that fit half of such a cache */
#define EMO__GEMM_STATE 64         /* bytes of `before` */

/* An operand as stored: `trans` tells how to read it (A: stored [k, m] when set, else [m, k]; B: [n, k] when set, else
 * [k, n]). With `order`, stored row i is row order[i] of `data`; `scale` (A only) multiplies stored row i by scale[i].
 * B may be quantised when trans is set: its rows become floats panel by panel. */
typedef struct emo__gemm_operand {
    const void *data;
    int64_t ld;
    emo_dtype dtype; /* A: F32 */
    int trans;
    const int32_t *order; /* NULL: rows as they stand. B: only when not trans */
    const float *scale;
} emo__gemm_operand;

/* Where stored row i of an operand with plain elements of `size` bytes lies. */
static inline const char *emo__stored_row(const emo__gemm_operand *x, int64_t i, int64_t size) {
    int64_t row = x->order != NULL ? x->order[i] : i;
    return (const char *)x->data + row * x->ld * size;
}

/* C_i = alpha op(A_i) op(B_i) + beta C_i (+ bias): one product, or two that share what is packed of the operand they
 * have in common. */
typedef struct emo__gemm {
    int64_t m;
    int64_t n;
    int64_t k;
    int n_a; /* 2: two A and one B, tiles of at most EMO__GEMM_MT / 2 rows; else 0 or 1 */
    emo__gemm_operand a[2];
    int n_b; /* 1; 2: two B and one A */
    emo__gemm_operand b[2];
    int64_t joined; /* > 0, with one A and n_b = 1: B's k from here on is b[1]'s from 0 on */
    float *c[2];
    int64_t ldc;
    float alpha;
    float beta;
    int again;              /* the last emo__gemm_tile with this memory had the same rows of the same A */
    const emo_weight *bias; /* NULL or [1, n], added to every C_i */
    int exact;              /* emo__gemm_run in f32, whatever the exec computes in */
} emo__gemm;

/* Whether it has the form that `direct` (below) takes: one A in rows, k in whole units, alpha 1 and beta 0 or 1. */
static inline int emo__gemm_plain(const emo__gemm *g, int64_t unit) {
    return g->n_a != 2 && !g->a[0].trans && g->joined <= 0 && g->k % unit == 0 && g->alpha == 1.0f &&
           (g->beta == 0.0f || g->beta == 1.0f);
}

/* Kernels of one level. Packed operands are panels of mr rows (nr columns) with k outermost inside a panel. */
typedef struct emo__gemm_kernels {
    int mr;
    int nr;
    int k_unit;     /* packed k comes in multiples of this */
    int per_float;  /* packed elements in the room of a float: 1, or 2 for bf16 */
    int long_block; /* > 0: sums go on from what C holds, so that a block of k may be as long as this without the
                     * results changing; KC otherwise. */
    /* On a thread, before and after it uses the others; NULL: nothing to do. `before` keeps what the thread had set up
     * for itself: other code in the process may use tiles, too. */
    void (*begin)(void *before);
    void (*end)(const void *before);
    /* Panels of A's rows [first, first + count), one after the other: dst[kk][lane] = element (lane, k0 + kk). */
    void (*pack_a)(float *dst, const emo__gemm_operand *a, int64_t first, int64_t count, int64_t k0, int64_t kc);
    /* One panel of B's columns [first, first + lanes). Both fill missing lanes with anything, and may write up to 16
     * floats past the end. With bf16, elements are pairs in the room of a float, in the kernel's own order. */
    void (*pack_b)(float *dst, const emo__gemm_operand *b, int64_t first, int lanes, int64_t k0, int64_t kc);
    /* c[rows, cols] = beta c + alpha a b over one k block */
    void (*micro)(int64_t kc, const float *a, const float *b, int rows, int cols, float *c, int64_t ldc, float alpha,
                  float beta);
    /* The whole tile at once without packing B, with the same bits; 0: not in this case. NULL: never. Between begin and
     * end; `floats`: how many `work` has room for. */
    int (*direct)(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1, float *work, size_t floats);
    /* Elements of A that direct packs at a time where B is bf16: tiles with no more of them read B once, and their
     * packed rows serve calls with `again`, as do those for quantised B. 0: it does not. */
    int64_t packs;
} emo__gemm_kernels;

extern const emo__gemm_kernels emo__gemm_scalar;
extern const emo__gemm_kernels emo__gemm_neon;
extern const emo__gemm_kernels emo__gemm_avx2;
extern const emo__gemm_kernels emo__gemm_avx512;
extern const emo__gemm_kernels emo__gemm_scalar_bf16;
extern const emo__gemm_kernels emo__gemm_neon_bf16;
extern const emo__gemm_kernels emo__gemm_avx2_bf16;
extern const emo__gemm_kernels emo__gemm_avx512_bf16;
extern const emo__gemm_kernels emo__gemm_avx512_vnni; /* bf16 */
extern const emo__gemm_kernels emo__gemm_neon_dot;    /* bf16 */
extern const emo__gemm_kernels emo__gemm_pairs_neon;
extern const emo__gemm_kernels emo__gemm_pairs_avx512;
extern const emo__gemm_kernels emo__gemm_amx;

/* Most rows of a tile against a weight of this type, over k; 0: the engine's own limit. */
int64_t emo__gemm_rows_once(const emo__gemm_kernels *kernels, emo_dtype weight, int64_t k);

/* The kernels of a level for products in f32 or bf16. */
const emo__gemm_kernels *emo__gemm_kernels_of(emo_isa isa, emo_dtype compute);

/* Bytes of packing memory for one worker (a multiple of 64); what serves products that are rounded serves exact ones.
 */
size_t emo__gemm_work_bytes(const emo__gemm_kernels *kernels);

/* Tile sizes, multiples of the kernel's, that cut an m x n product into `want` tiles or more where that is sensible; a
 * tile has at most max_rows and max_cols (0: the engine's own limits). Speed alone depends on them. */
void emo__gemm_cut(const emo__gemm_kernels *kernels, int64_t m, int64_t n, int64_t want, int64_t max_rows,
                   int64_t max_cols, int64_t *tile_rows, int64_t *tile_cols);

/* Computes C[m0..m1, n0..n1) on the calling thread; m1 - m0 <= EMO__GEMM_MT. `work`: 64-byte aligned, work_bytes. */
void emo__gemm_tile(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0,
                    int64_t n1, float *work);

/* Computes all of C on the exec's workers, or what its window says. `work`: work_bytes for each worker. */
void emo__gemm_run(emo__cpu_exec *cpu, const emo__gemm *g, void *work);

/* An operand from a weight, read as stored rows (trans: the weight's rows are the product's n). */
static inline emo__gemm_operand emo__gemm_weight(const emo_weight *w, int trans) {
    return (emo__gemm_operand){.data = w->data, .ld = w->stride, .dtype = w->dtype, .trans = trans};
}

static inline emo__gemm_operand emo__gemm_matrix(const float *data, int64_t ld, int trans) {
    return (emo__gemm_operand){.data = data, .ld = ld, .dtype = EMO_DTYPE_F32, .trans = trans};
}

/* Adds `count` items of `item` bytes to a scratch layout: *offset gets the 64-byte aligned place, *total grows. False
 * on overflow. */
int emo__scratch_add(size_t *total, size_t count, size_t item, size_t *offset);

#endif
