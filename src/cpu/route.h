/* SPDX-License-Identifier: Apache-2.0 */
/* What the router's forward and backward share; the arithmetic of its rows is in route_kernels.inc.
 *
 * Rows are compacted to the allowed experts before any arithmetic: which lane an expert falls into then depends on the
 * allowed ones alone, so that a masked run and the pruned model give the same bits. */
#ifndef EMO_SRC_CPU_ROUTE_H
#define EMO_SRC_CPU_ROUTE_H

#include <math.h>
#include <string.h>

#include "cpu/ops_kernels.h"
#include "cpu/vmath.h"

#define EMO__ROUTE_PIECE 64 /* tokens per piece of work: a constant, so that sums do not depend on the threads */
#define EMO__SIGMOID_FLOOR 1e-7f

/* A run of tokens of one segment; pieces start at their segment's begin. */
typedef struct emo__route_piece {
    int32_t segment;
    int32_t begin;
    int32_t end;
} emo__route_piece;

/* ids of the experts of a row of `allowed` (NULL: all), ascending; returns how many. */
static inline size_t emo__route_allowed(const uint8_t *allowed, int32_t n, int32_t *ids) {
    size_t m = 0;
    for (int32_t e = 0; e < n; e++) {
        ids[m] = e;
        m += allowed == NULL || allowed[e] != 0;
    }
    return m;
}

/* The same as a row kernel wants them: NULL when all are there. */
static inline const int32_t *emo__route_gathered(const int32_t *ids, size_t m, int32_t n) {
    return m < (size_t)n ? ids : NULL;
}

/* row[ids[i]] = v[i] */
static inline void emo__route_scatter(const int32_t *ids, size_t m, int32_t n, const float *v, float *row) {
    if (m == (size_t)n)
        memcpy(row, v, m * sizeof *row);
    for (size_t i = 0; m < (size_t)n && i < m; i++)
        row[ids[i]] = v[i];
}

static inline int32_t emo__route_chosen(const emo_route_args *a) {
    return a->k + (a->n_always > 0 ? a->n_always : a->shared);
}

/* x times the noise of each token, in memory of its own (*owned, to be freed by the caller); args->x without jitter. */
emo_status emo__route_jitter(emo__cpu_exec *cpu, const emo_route_args *a, int64_t first, int64_t last, const float **x,
                             float **owned, emo_error *err);

/* The factor for element i of a token. */
void emo__route_noise(const emo_route_args *a, int64_t token, float *noise);

#endif
