/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting products into tiles, packing and running them. */
#include "cpu/gemm/gemm.h"

#include "base/checked.h"
#include "cpu/gemm/gemm_quant.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

#define A_FLOATS ((EMO__GEMM_MT + 16) * EMO__GEMM_KC) /* packed rows of a tile, one k block */
#define MAX_NR 32
#define B_FLOATS (MAX_NR * EMO__GEMM_KC)
#define SPARE 32 /* pack kernels may write past a panel */

const emo__gemm_kernels *emo__gemm_kernels_of(emo_isa isa, emo_dtype compute) {
    int bf16 = compute == EMO_DTYPE_BF16;
#if defined(__x86_64__)
    if (isa >= EMO_ISA_AMX && bf16)
        return &emo__gemm_amx;
    if (isa >= EMO_ISA_AVX512_BF16 && bf16)
        return &emo__gemm_pairs_avx512;
    if (isa >= EMO_ISA_AVX512_VNNI && bf16)
        return &emo__gemm_avx512_vnni;
    if (isa >= EMO_ISA_AVX512)
        return bf16 ? &emo__gemm_avx512_bf16 : &emo__gemm_avx512;
    if (isa >= EMO_ISA_AVX2)
        return bf16 ? &emo__gemm_avx2_bf16 : &emo__gemm_avx2;
#elif defined(__aarch64__)
    if (isa >= EMO_ISA_NEON_BF16 && bf16)
        return &emo__gemm_pairs_neon;
    if (isa >= EMO_ISA_NEON_DOT && bf16)
        return &emo__gemm_neon_dot;
    if (isa >= EMO_ISA_NEON)
        return bf16 ? &emo__gemm_neon_bf16 : &emo__gemm_neon;
#endif
    (void)isa;
    return bf16 ? &emo__gemm_scalar_bf16 : &emo__gemm_scalar;
}

/* packed A, packed B, and rows of B that were blocks */
#define PACKED_FLOATS (A_FLOATS + 2 * B_FLOATS + 3 * SPARE)
/* For direct products that pack: the rows of A, and a copy of B's and of what is summed up so far (gemm_amx_staged.c)
 */
#define DIRECT_FLOATS (EMO__GEMM_DIRECT / 2 + (1 << 16))
static size_t work_floats(const emo__gemm_kernels *kernels) {
    return kernels->packs > 0 && DIRECT_FLOATS > PACKED_FLOATS ? DIRECT_FLOATS : PACKED_FLOATS;
}
size_t emo__gemm_work_bytes(const emo__gemm_kernels *kernels) { return work_floats(kernels) * sizeof(float); }

int emo__scratch_add(size_t *total, size_t count, size_t item, size_t *offset) {
    size_t bytes;
    if (!emo__mul_size(count, item, &bytes) || !emo__add_size(bytes, EMO__ALIGN - 1, &bytes))
        return 0;
    *offset = *total;
    return emo__add_size(*total, bytes / EMO__ALIGN * EMO__ALIGN, total);
}

static int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }
static int64_t divide_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit; }

void emo__gemm_cut(const emo__gemm_kernels *kernels, int64_t m, int64_t n, int64_t want, int64_t max_rows,
                   int64_t max_cols, int64_t *tile_rows, int64_t *tile_cols) {
    int64_t mr = kernels->mr, nr = kernels->nr;
    int64_t most_rows = (max_rows > 0 && max_rows < EMO__GEMM_MT ? max_rows : EMO__GEMM_MT) / mr * mr;
    int64_t most_cols = max_cols > 0 && max_cols < EMO__GEMM_NT ? max_cols : EMO__GEMM_NT;
    most_rows = most_rows < mr ? mr : most_rows;
    most_cols = most_cols < nr ? nr : most_cols;
    /* equal parts rather than full tiles and a rest */
    int64_t rows = round_up(divide_up(m, divide_up(m, most_rows)), mr);
    int64_t cols = round_up(divide_up(n, divide_up(n, most_cols)), nr);
    rows = rows > most_rows ? most_rows : rows;
    while (divide_up(m, rows) * divide_up(n, cols) < want) {
        if (cols > nr && (cols >= rows || rows <= 4 * mr))
            cols = round_up(cols / 2, nr);
        else if (rows > 4 * mr)
            rows = round_up(rows / 2, mr);
        else
            break;
    }
    *tile_rows = rows;
    *tile_cols = cols;
}

int64_t emo__gemm_rows_once(const emo__gemm_kernels *kernels, emo_dtype weight, int64_t k) {
    int64_t rows = weight == EMO_DTYPE_BF16 && k > 0 ? kernels->packs / k : 0;
    if (kernels->packs > 0 && emo__dtype_quantised(weight))
        rows = emo__gemm_quant_rows(k, A_FLOATS, EMO__GEMM_QUANT_GROUP, EMO__GEMM_QUANT_GROUP);
    return rows > 0 && rows < EMO__GEMM_MT ? rows : 0;
}

static void add_bias(const emo_weight *bias, float *c, int64_t ldc, int64_t rows, int64_t n0, int64_t n1) {
    enum { COLUMNS = 64 };
    size_t size = emo__dtype_size(bias->dtype);
    for (int64_t j = n0; j < n1; j += COLUMNS) {
        float values[COLUMNS];
        int64_t count = n1 - j < COLUMNS ? n1 - j : COLUMNS;
        (void)emo__convert(values, EMO_DTYPE_F32, (const char *)bias->data + (size_t)j * size, bias->dtype,
                           (size_t)count);
        for (int64_t i = 0; i < rows; i++)
            for (int64_t l = 0; l < count; l++)
                c[i * ldc + j + l] += values[l];
    }
}

/* One k block of the quantised rows behind a panel of columns, as an operand of floats. The block of k is a whole
 * number of quantised blocks. */
static emo__gemm_operand unpack_rows(const emo__gemm_operand *b, int64_t j, int cols, int64_t k0, int64_t kc,
                                     float *rows) {
    for (int l = 0; l < cols; l++) {
        const char *row = (const char *)b->data + emo__dtype_run(b->dtype, (j + l) * b->ld);
        emo__dequantise(rows + l * kc, row + emo__dtype_run(b->dtype, k0), b->dtype, (size_t)kc);
    }
    return (emo__gemm_operand){.data = rows, .ld = kc, .dtype = EMO_DTYPE_F32, .trans = 1};
}

_Static_assert(EMO__GEMM_KC % EMO__QUANT_MAX_BLOCK == 0, "blocks of k begin at quantised blocks");

static int products_of(const emo__gemm *g) { return g->n_a == 2 || g->n_b == 2 ? 2 : 1; }

/* Floats that a lane takes of kc packed elements. */
static int64_t packed_length(const emo__gemm_kernels *kernels, int64_t kc) {
    return round_up(kc, kernels->k_unit) / kernels->per_float;
}

/* The longest block of k when `rows` rows of A are packed. */
static int64_t longest_block(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t rows) {
    if (kernels->long_block <= 0 || emo__dtype_quantised(g->b[0].dtype))
        return EMO__GEMM_KC;
    int64_t room = A_FLOATS * kernels->per_float / rows / EMO__GEMM_KC * EMO__GEMM_KC;
    return room > kernels->long_block ? kernels->long_block : room > EMO__GEMM_KC ? room : EMO__GEMM_KC;
}

/* Elements in the block of k that begins at k0. Where k is packed in units, none lies across a join. */
static int64_t block_length(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t k0, int64_t longest) {
    int64_t end = kernels->k_unit > 1 && k0 < g->joined ? g->joined : g->k;
    return end - k0 < longest ? end - k0 : longest;
}

/* Whether all of k fits into the memory for A, packed for `rows` rows; a join may round up twice. */
static int packs_whole(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t rows) {
    int64_t surplus = kernels->k_unit > 1 ? kernels->k_unit : 0;
    return packed_length(kernels, g->k) + surplus <= A_FLOATS / rows;
}

/* Columns [j, j + cols) of one k block of a B. */
static void pack_columns(const emo__gemm_kernels *kernels, const emo__gemm *g, int which, int64_t j, int cols,
                         int64_t k0, int64_t kc, float *packed) {
    if (emo__dtype_quantised(g->b[which].dtype)) { /* never joined: those are the backward pass's */
        emo__gemm_operand rows = unpack_rows(&g->b[which], j, cols, k0, kc, packed + B_FLOATS + SPARE);
        kernels->pack_b(packed, &rows, 0, cols, 0, kc);
        return;
    }
    int64_t first = g->joined <= 0 || g->joined - k0 >= kc ? kc : g->joined > k0 ? g->joined - k0 : 0;
    if (first > 0)
        kernels->pack_b(packed, &g->b[which], j, cols, k0, first);
    if (first < kc)
        kernels->pack_b(packed + packed_length(kernels, first) * kernels->nr, &g->b[1], j, cols, k0 + first - g->joined,
                        kc - first);
}

/* One k block of one panel of columns, for every product; `padded` rows of each A are packed one after the other. */
static void panel(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t m0, int64_t m1, int64_t j, int cols,
                  int64_t k0, int64_t kc, const float *packed_a, int64_t padded, float *packed_b) {
    int mr = kernels->mr;
    int64_t length = packed_length(kernels, kc);
    for (int which = 0; which < products_of(g); which++) {
        if (which == 0 || g->n_b == 2)
            pack_columns(kernels, g, which, j, cols, k0, kc, packed_b);
        const float *a = packed_a + (g->n_a == 2 ? which * padded * length : 0);
        for (int64_t i = m0; i < m1; i += mr, a += mr * length)
            kernels->micro(kc, a, packed_b, m1 - i < mr ? (int)(m1 - i) : mr, cols, g->c[which] + i * g->ldc + j,
                           g->ldc, g->alpha, k0 == 0 ? g->beta : 1.0f);
    }
}

static void scale_only(const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
    for (int which = 0; which < products_of(g); which++)
        for (int64_t i = m0; i < m1; i++)
            for (int64_t j = n0; j < n1; j++) {
                float *c = &g->c[which][i * g->ldc + j];
                *c = g->beta == 0.0f ? 0.0f : g->beta * *c;
            }
}

/* One k block of the rows of every A, each at a multiple of `padded` rows. */
static void pack_rows(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t m0, int64_t m1, int64_t k0,
                      int64_t kc, int64_t padded, float *packed) {
    for (int which = 0; which < (g->n_a == 2 ? 2 : 1); which++)
        kernels->pack_a(packed + which * padded * packed_length(kernels, kc), &g->a[which], m0, m1 - m0, k0, kc);
}

void emo__gemm_tile(const emo__gemm_kernels *kernels, const emo__gemm *g, int64_t m0, int64_t m1, int64_t n0,
                    int64_t n1, float *work) {
    if (m0 >= m1 || n0 >= n1)
        return;
    float *packed_a = work;
    float *packed_b = work + A_FLOATS + SPARE;
    int nr = kernels->nr;
    int64_t padded = round_up(m1 - m0, kernels->mr);
    int64_t rows = g->n_a == 2 ? 2 * padded : padded, longest = longest_block(kernels, g, rows);
    unsigned char before[EMO__GEMM_STATE] __attribute__((aligned(64)));
    if (kernels->begin != NULL)
        kernels->begin(before);
    if (g->k == 0) {
        scale_only(g, m0, m1, n0, n1);
    } else if (kernels->direct != NULL && kernels->direct(g, m0, m1, n0, n1, packed_a, work_floats(kernels))) {
        /* done: the weights were used as they lie */
    } else if (packs_whole(kernels, g, rows)) {
        /* few rows: pack them once over all of k, then stream B, each panel over all of k */
        float *a = packed_a;
        for (int64_t k0 = 0, kc; k0 < g->k; k0 += kc, a += rows * packed_length(kernels, kc)) {
            kc = block_length(kernels, g, k0, longest);
            pack_rows(kernels, g, m0, m1, k0, kc, padded, a);
        }
        for (int64_t j = n0; j < n1; j += nr) {
            a = packed_a;
            for (int64_t k0 = 0, kc; k0 < g->k; k0 += kc, a += rows * packed_length(kernels, kc)) {
                kc = block_length(kernels, g, k0, longest);
                panel(kernels, g, m0, m1, j, n1 - j < nr ? (int)(n1 - j) : nr, k0, kc, a, padded, packed_b);
            }
        }
    } else {
        for (int64_t k0 = 0, kc; k0 < g->k; k0 += kc) {
            kc = block_length(kernels, g, k0, longest);
            pack_rows(kernels, g, m0, m1, k0, kc, padded, packed_a);
            for (int64_t j = n0; j < n1; j += nr)
                panel(kernels, g, m0, m1, j, n1 - j < nr ? (int)(n1 - j) : nr, k0, kc, packed_a, padded, packed_b);
        }
    }
    if (kernels->end != NULL)
        kernels->end(before);
    if (g->bias != NULL)
        for (int which = 0; which < products_of(g); which++)
            add_bias(g->bias, g->c[which] + m0 * g->ldc, g->ldc, m1 - m0, n0, n1);
}

typedef struct run_task {
    const emo__gemm_kernels *kernels;
    const emo__gemm *g;
    int64_t tile_rows;
    int64_t tile_cols;
    int64_t down; /* tiles in a column */
    char *work;
} run_task;

static void run_tile(void *arg, size_t index, size_t worker) {
    const run_task *t = arg;
    int64_t i = (int64_t)index % t->down * t->tile_rows;
    int64_t j = (int64_t)index / t->down * t->tile_cols;
    int64_t m1 = i + t->tile_rows < t->g->m ? i + t->tile_rows : t->g->m;
    int64_t n1 = j + t->tile_cols < t->g->n ? j + t->tile_cols : t->g->n;
    emo__gemm_tile(t->kernels, t->g, i, m1, j, n1,
                   (float *)(void *)(t->work + worker * emo__gemm_work_bytes(t->kernels)));
}

void emo__gemm_run(emo__cpu_exec *cpu, const emo__gemm *g, void *work) {
    if (g->m <= 0 || g->n <= 0)
        return;
    run_task task = {
        .kernels = g->exact ? emo__gemm_kernels_of(cpu->isa, EMO_DTYPE_F32) : cpu->gemm, .g = g, .work = work};
    int64_t max_rows, max_cols;
    emo__cpu_task_shape(cpu, g->m, g->k, products_of(g), &max_rows, &max_cols);
    if (max_rows == 0)
        max_rows = emo__gemm_rows_once(task.kernels, g->b[0].dtype, g->k);
    emo__gemm_cut(task.kernels, g->m, g->n, cpu->workers > 1 ? 4 * (int64_t)cpu->workers : 1, max_rows, max_cols,
                  &task.tile_rows, &task.tile_cols);
    task.down = divide_up(g->m, task.tile_rows);
    emo__cpu_for(cpu, (size_t)(task.down * divide_up(g->n, task.tile_cols)), g->m * g->n * g->k, run_tile, &task);
}
