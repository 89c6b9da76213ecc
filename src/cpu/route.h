/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax rows of the router, shared by its forward and backward.
 *
 * Rows are compacted to the allowed experts before any arithmetic: which lane an expert falls into then depends on the
 * allowed ones alone, so that a masked run and the pruned model give the same bits. */
#ifndef EMO_SRC_CPU_ROUTE_H
#define EMO_SRC_CPU_ROUTE_H

#include <math.h>

#include "cpu/cpu.h"
#include "cpu/vmath.h"

#define EMO__ROUTE_LANES 16
#define EMO__ROUTE_PIECE 64 /* tokens per piece of work: a constant, so that sums do not depend on the threads */
#define EMO__SIGMOID_FLOOR 1e-7f

/* A run of tokens of one segment; pieces start at their segment's begin. */
typedef struct emo__route_piece {
    int32_t segment;
    int32_t begin;
    int32_t end;
} emo__route_piece;

static inline size_t emo__route_pad(size_t n) {
    return (n + EMO__ROUTE_LANES - 1) / EMO__ROUTE_LANES * EMO__ROUTE_LANES;
}

/* Sum of m values, padded with zeros to whole lanes. */
static inline float emo__route_sum(const float *v, size_t padded) {
    float lane[EMO__ROUTE_LANES] = {0};
    for (size_t i = 0; i < padded; i += EMO__ROUTE_LANES) {
        for (size_t l = 0; l < EMO__ROUTE_LANES; l++)
            lane[l] += v[i + l];
    }
    for (size_t w = EMO__ROUTE_LANES / 2; w > 0; w /= 2) {
        for (size_t l = 0; l < w; l++)
            lane[l] += lane[l + w];
    }
    return lane[0];
}

/* z (room for pad(m)) = softmax of logits[ids[0..m)], m > 0; returns the logsumexp. */
static inline float emo__route_softmax(const float *logits, const int32_t *ids, size_t m, float *z) {
    size_t padded = emo__route_pad(m);
    float top = logits[ids[0]];
    for (size_t i = 0; i < m; i++) {
        z[i] = logits[ids[i]];
        top = z[i] > top ? z[i] : top;
    }
    for (size_t i = m; i < padded; i++)
        z[i] = -INFINITY;
    for (size_t i = 0; i < padded; i++)
        z[i] = emo__exp(z[i] - top);
    float sum = emo__route_sum(z, padded);
    float scale = 1.0f / sum;
    for (size_t i = 0; i < padded; i++)
        z[i] *= scale;
    return top + logf(sum);
}

/* ids of the experts of a row of `allowed` (NULL: all), ascending; returns how many. */
static inline size_t emo__route_allowed(const uint8_t *allowed, int32_t n, int32_t *ids) {
    size_t m = 0;
    for (int32_t e = 0; e < n; e++) {
        ids[m] = e;
        m += allowed == NULL || allowed[e] != 0;
    }
    return m;
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
