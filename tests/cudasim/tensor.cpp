/* SPDX-License-Identifier: Apache-2.0 */
/* mma.sync.m16n8k16, ldmatrix and cp.async. */
#include "cudasim/internal.h"

#include <algorithm>

namespace cudasim {

static float low(uint32_t v) { return from_bits<float>((uint64_t)(v << 16)); }
static float high(uint32_t v) { return from_bits<float>((uint64_t)(v & 0xffff0000u)); }

struct MmaArgs {
    float *acc;
    const uint32_t *a, *b;
    int mi, nj;
};
using Vec = float __attribute__((vector_size(32)));
constexpr int most_rows = 128, most_cols = 256;
static float tile_a[most_rows][16], tile_b[16][most_cols], tile_c[most_rows][most_cols];

/*
 * Fragments of lane l (g = l / 4, t = l % 4): a0 (g, 2t..), a1 (g+8, 2t..), a2 (g, 2t+8..), a3 (g+8, 2t+8..);
 * b0 (2t.., g), b1 (2t+8.., g); c0 c1 (g, 2t..), c2 c3 (g+8, 2t..).
 */
#if defined(__x86_64__) && !defined(__clang__)
__attribute__((target_clones("avx2,fma", "default")))
#endif
static void
mma_all(unsigned, void **arguments) {
    auto *first = (MmaArgs *)arguments[0];
    int mi = first->mi, nj = first->nj;
    for (int l = 0; l < 32; l++) {
        auto *m = (MmaArgs *)arguments[l];
        int g = l >> 2, t = (l & 3) * 2;
        for (int i = 0; i < mi; i++)
            for (int q = 0; q < 4; q++) {
                float *to = &tile_a[i * 16 + g + (q & 1) * 8][t + (q >> 1) * 8];
                to[0] = low(m->a[i * 4 + q]);
                to[1] = high(m->a[i * 4 + q]);
            }
        for (int j = 0; j < nj; j++)
            for (int q = 0; q < 2; q++) {
                tile_b[t + q * 8][j * 8 + g] = low(m->b[j * 2 + q]);
                tile_b[t + q * 8 + 1][j * 8 + g] = high(m->b[j * 2 + q]);
            }
        for (int i = 0; i < mi; i++)
            for (int j = 0; j < nj; j++)
                for (int h = 0; h < 2; h++)
                    memcpy(&tile_c[i * 16 + g + h * 8][j * 8 + t], m->acc + (i * nj + j) * 4 + 2 * h, 8);
    }
    for (int i = 0; i < mi * 16; i++)
        for (int j = 0; j < nj * 8; j += 8) {
            Vec sum, b;
            memcpy(&sum, &tile_c[i][j], sizeof sum);
            for (int k = 0; k < 16; k++) {
                memcpy(&b, &tile_b[k][j], sizeof b);
                sum += tile_a[i][k] * b;
            }
            memcpy(&tile_c[i][j], &sum, sizeof sum);
        }
    for (int l = 0; l < 32; l++) {
        auto *m = (MmaArgs *)arguments[l];
        int g = l >> 2, t = (l & 3) * 2;
        for (int i = 0; i < mi; i++)
            for (int j = 0; j < nj; j++)
                for (int h = 0; h < 2; h++)
                    memcpy(m->acc + (i * nj + j) * 4 + 2 * h, &tile_c[i * 16 + g + h * 8][j * 8 + t], 8);
    }
}

void mma_tile(float *acc, const uint32_t *a, const uint32_t *b, int mi, int nj, const char *file, int line) {
    if (mi * 16 > most_rows || nj * 8 > most_cols) {
        finding("mma tile of %d x %d fragments at %s:%d is larger than the simulator takes", mi, nj, file, line);
        block_abort(cudaErrorLaunchFailure);
    }
    MmaArgs m{acc, a, b, mi, nj};
    collective(~0u, mma_all, &m, false, file, line);
}

struct LdmatrixArgs {
    uint32_t *r;
    const char *row;
    int count;
    bool trans;
};

static void ldmatrix_all(unsigned, void **arguments) {
    auto *first = (LdmatrixArgs *)arguments[0];
    for (int q = 0; q < first->count; q++) {
        uint16_t m[8][8];
        for (int r = 0; r < 8; r++)
            memcpy(m[r], ((LdmatrixArgs *)arguments[q * 8 + r])->row, 16);
        for (int l = 0; l < 32; l++) {
            int r = l >> 2, c = (l & 3) * 2;
            uint16_t lower = first->trans ? m[c][r] : m[r][c], upper = first->trans ? m[c + 1][r] : m[r][c + 1];
            ((LdmatrixArgs *)arguments[l])->r[q] = lower | (uint32_t)upper << 16;
        }
    }
}

static bool is_shared(const void *p) { return (size_t)((const char *)p - block.shared) < shared_bytes; }

void ldmatrix(uint32_t *r, const void *row, int count, bool trans, const char *file, int line) {
    const void *pc = __builtin_return_address(0);
    if ((int)block.now->lane < count * 8) { /* the other lanes' addresses are not read */
        if (((uintptr_t)row & 15) != 0 || !is_shared(row)) {
            finding("ldmatrix at %s:%d in %s: row %p is %s", file, line, block.config->name, row,
                    is_shared(row) ? "not 16-byte aligned" : "not in shared memory");
            block_abort(cudaErrorMisalignedAddress);
        }
        check_access(row, 16, Access::read, pc);
    }
    LdmatrixArgs a{r, (const char *)row, count, trans};
    collective(~0u, ldmatrix_all, &a, false, file, line);
}

/* ---- cp.async: by default the destination holds NaN until the wait ---- */

static void land(const PendingCopy &c) {
    memcpy(c.dst, c.src, (size_t)c.valid);
    memset(c.dst + c.valid, 0, (size_t)(c.bytes - c.valid));
    check_async_landed(c.dst, c.bytes, c.pc);
}

void copies_land(Fiber *f, size_t count) {
    for (size_t i = 0; i < count; i++)
        land(f->copies[i]);
    f->copies.erase(f->copies.begin(), f->copies.begin() + (ptrdiff_t)count);
}

void copy_async(void *dst, const void *src, int bytes, int valid) {
    const void *pc = __builtin_return_address(0);
    uintptr_t both = (uintptr_t)dst | (valid > 0 ? (uintptr_t)src : 0);
    if ((both & (uintptr_t)(bytes - 1)) != 0 || !is_shared(dst) || valid < 0 || valid > bytes) {
        finding("cp.async in %s [%s]: %s", block.config->name, code_line(relative(pc)).c_str(),
                !is_shared(dst)              ? "the destination is not in shared memory"
                : valid < 0 || valid > bytes ? "more valid bytes than it copies"
                                             : "an address is not aligned to the size");
        block_abort(cudaErrorMisalignedAddress);
    }
    check_async(dst, src, bytes, valid, pc);
    Fiber *me = block.now;
    PendingCopy c{(char *)dst, (const char *)src, bytes, valid, me->group, pc};
    if (!me->late) {
        land(c);
        return;
    }
    memset(dst, 0xff, (size_t)bytes);
    me->copies.push_back(c);
}

void copy_commit() { block.now->group++; }

void copy_wait(int groups) {
    Fiber *me = block.now;
    size_t n = 0;
    while (n < me->copies.size() && me->copies[n].group < me->group - groups)
        n++;
    copies_land(me, n);
}

} // namespace cudasim
