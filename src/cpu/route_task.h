/* SPDX-License-Identifier: Apache-2.0 */
/* The work of one forward routing, cut into pieces of tokens: what its phases share. */
#ifndef EMO_SRC_CPU_ROUTE_TASK_H
#define EMO_SRC_CPU_ROUTE_TASK_H

#include "cpu/route.h"

/* What one worker needs for a row: compacted values and ids. */
typedef struct emo__route_space {
    float *z;
    float *key; /* selection keys: scores plus bias */
    int32_t *ids;
    float *best;
    int32_t *best_at;
    int32_t *who; /* places of the competitors */
    float *sum;
} emo__route_space;

typedef struct emo__route_task {
    const emo_route_args *a;
    const emo__ops_kernels *kernels;
    const emo__route_piece *pieces;
    float *sums;                /* [pieces, n] partial usage or score sums */
    int32_t *counts;            /* [pieces, n] */
    double *z_sums;             /* [pieces] */
    const uint8_t *sets;        /* [segments, n] allowed sets that the rows see, or NULL */
    const int32_t *first_piece; /* [segments + 1] */
    char *space;
    size_t space_stride;
} emo__route_task;

static inline size_t emo__route_align(size_t n) { return (n + 63u) & ~(size_t)63u; }

static inline size_t emo__route_space_bytes(int32_t n) {
    size_t row = emo__route_align(emo__route_pad((size_t)n) * sizeof(float));
    return 7 * row;
}

static inline emo__route_space emo__route_space_of(const emo__route_task *t, size_t worker) {
    char *base = t->space + worker * t->space_stride;
    size_t row = emo__route_align(emo__route_pad((size_t)t->a->experts) * sizeof(float));
    emo__route_space s;
    s.z = (float *)(void *)base;
    s.key = (float *)(void *)(base + row);
    s.ids = (int32_t *)(void *)(base + 2 * row);
    s.best = (float *)(void *)(base + 3 * row);
    s.best_at = (int32_t *)(void *)(base + 4 * row);
    s.who = (int32_t *)(void *)(base + 5 * row);
    s.sum = (float *)(void *)(base + 6 * row);
    return s;
}

static inline const uint8_t *emo__route_set(const uint8_t *sets, int32_t segment, int32_t n) {
    return sets != NULL ? sets + (size_t)segment * (size_t)n : NULL;
}

/* The choice for the tokens of a piece, and the ordered sums of the pieces afterwards (route_select.c). */
void emo__route_select_piece(void *task, size_t index, size_t worker);
void emo__route_select_reduce(const emo__route_task *t, size_t pieces);

#endif
