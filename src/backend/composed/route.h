/* SPDX-License-Identifier: Apache-2.0 */
/* What the composed router's forward and backward share. */
#ifndef EMO_SRC_BACKEND_COMPOSED_ROUTE_H
#define EMO_SRC_BACKEND_COMPOSED_ROUTE_H

#include "backend/composed.h"

#define EMO__ROUTE_FLOOR 1e-7f /* sigmoid gating adds it to every score */

static inline int32_t emo__composed_k_total(const emo_route_args *a) {
    return a->k + (a->n_always > 0 ? a->n_always : a->shared);
}

/* Segment of every token. */
int32_t *emo__composed_segments(emo__composed *c, const emo_route_args *a);

/* out[rows] of the tokens from `first` = x times the jitter noise (x dense [rows, hidden]). */
void emo__composed_jitter(emo__composed *c, const emo_route_args *a, int64_t first, int64_t rows, const float *x,
                          float *out);

/* The router's rows of the weight that give `columns` logits. */
emo_weight emo__composed_route_weight(const emo_route_args *a);

#endif
