/* SPDX-License-Identifier: Apache-2.0 */
/* What the levels of gemm_quant.h's product share: where rows of the weight and the memory of a call lie. The including
 * file defines VL (rows of the weight at a time) and INLINE before it. */
#include <string.h>

#include "cpu/gemm/gemm_quant.h"

enum { BLOCK = EMO__Q_SMALL, WORDS = BLOCK / 4 };

/* VL rows of the weight as they are stored, `pitch` bytes apart. */
typedef struct stored_rows {
    const uint8_t *at;
    int64_t pitch;
} stored_rows;

/* Four rows and a distance reach them all: few registers, where i is a constant. */
INLINE const uint8_t *row_of(stored_rows rows, int i) {
    return rows.at + i / 4 * (4 * rows.pitch) + i % 4 * rows.pitch;
}

/* VL rows, of which only `cols` are there, for all of k: a copy at `spare`, in which the last one repeats. */
INLINE stored_rows repeat_last(stored_rows from, int cols, emo_dtype dtype, int64_t k, uint8_t *spare) {
    const size_t row = emo__dtype_run(dtype, k);
    for (int i = 0; i < VL; i++)
        memcpy(spare + (size_t)i * row, row_of(from, i < cols ? i : cols - 1), row);
    return (stored_rows){spare, (int64_t)row};
}

/* The next VL rows lie behind these: asking for them bit by bit keeps the memory busy, which rows too short for the
 * hardware's prefetcher would not. The address may lie past the matrix, which a prefetch ignores. */
INLINE void ask_for_next(stored_rows from, int64_t b, const int64_t bytes) {
    uintptr_t next = (uintptr_t)from.at + (uintptr_t)(VL * (from.pitch + b * bytes));
    for (int64_t line = 0; line < VL * bytes; line += 64)
        __builtin_prefetch((const void *)(next + (uintptr_t)line), 0, 2);
}

/* Scales s and offsets -t of the groups of every row's q4_k block at `at`, before they are multiplied by d and m. */
INLINE void q4_k_scales(stored_rows rows, int64_t at, float s[][VL], float t[][VL]) {
    for (int i = 0; i < VL; i++) {
        uint8_t scales[EMO__Q4_K_GROUPS], offsets[EMO__Q4_K_GROUPS];
        emo__q4_k_unpack(row_of(rows, i) + at + 4, scales, offsets);
        for (int g = 0; g < EMO__Q4_K_GROUPS; g++) {
            s[g][i] = (float)scales[g];
            t[g][i] = -(float)offsets[g];
        }
    }
}

/* Rows of A at a time. */
INLINE int64_t chunk_rows(int64_t k, size_t floats, int unit) { return emo__gemm_quant_rows(k, floats, VL, unit); }

/* The next `bytes` of a call's memory, in whole lines. */
INLINE void *take(char **at, size_t bytes) {
    void *here = *at;
    *at += (bytes + EMO__ALIGN - 1) / EMO__ALIGN * EMO__ALIGN;
    return here;
}
