/* SPDX-License-Identifier: Apache-2.0 */
/* Random cases of the router, for every pair of back ends that are compared. */
#ifndef EMO_TESTS_PARITY_ROUTERS_H
#define EMO_TESTS_PARITY_ROUTERS_H

#include "parity/parity.h"

enum { ROUTER_MAX_SEGMENTS = 6, ROUTER_CALLS = 5 };

typedef struct router_shape {
    int64_t tokens, hidden;
    int32_t n, shared, k, n_always, columns, k_total;
    int64_t n_segments;
    int32_t begin[ROUTER_MAX_SEGMENTS + 1], pool_size[ROUTER_MAX_SEGMENTS], always[2];
    uint8_t *allowed_in; /* freed by the caller */
} router_shape;

/* Documents of one token and longer; masks and pools smaller than k, so that rows have index -1. n experts. */
static inline router_shape router_draw(uint64_t *rng, int32_t n) {
    router_shape s = {.hidden = parity_draw(rng, 1, 40), .n = n};
    s.k = (int32_t)parity_draw(rng, 1, s.n < 6 ? s.n - 2 : 5);
    s.shared = (int32_t)parity_draw(rng, 0, 3);
    s.n_always = s.shared == 0 ? (int32_t)parity_draw(rng, 0, 2) : 0;
    s.columns = s.n + (parity_draw(rng, 0, 1) ? s.shared : 0);
    s.k_total = s.k + s.shared + s.n_always;
    s.n_segments = parity_draw(rng, 1, ROUTER_MAX_SEGMENTS);
    for (int64_t i = 0; i < s.n_segments; i++) {
        s.begin[i + 1] = s.begin[i] + (i == 1 ? 1 : (int32_t)parity_draw(rng, 1, 90));
        s.pool_size[i] = parity_draw(rng, 0, 2) == 0 ? s.k : (int32_t)parity_draw(rng, s.k, s.n + 1);
    }
    s.tokens = s.begin[s.n_segments];
    s.always[0] = (int32_t)parity_draw(rng, 0, s.n - 2);
    s.always[1] = s.n - 1;
    if (parity_draw(rng, 0, 1)) {
        s.allowed_in = malloc((size_t)(s.n_segments * s.n));
        assert_non_null(s.allowed_in);
        for (int64_t i = 0; i < s.n_segments * s.n; i++)
            s.allowed_in[i] = parity_draw(rng, 0, 2) != 0;
        if (parity_draw(rng, 0, 3) == 0) /* fewer than k are left */
            memset(s.allowed_in, 0, (size_t)s.n - 1);
    }
    return s;
}

/* What a router is asked for, but for the arrays; of the optional ones the caller leaves out some. */
static inline emo_route_args router_args(uint64_t *rng, const router_shape *s) {
    emo_route_args a = {.tokens = s->tokens,
                        .hidden = s->hidden,
                        .experts = s->n,
                        .shared = s->shared,
                        .k = s->k,
                        .columns = s->columns,
                        .n_segments = s->n_segments,
                        .pool_min = s->k,
                        .pool_max = s->n - 1 < s->k ? s->k : s->n - 1,
                        .n_always = s->n_always,
                        .shared_mode = s->columns > s->n ? EMO_SHARED_SOFTMAX : EMO_SHARED_ONE,
                        .seed = 7,
                        .step = 11,
                        .layer = 2,
                        .z_scale = 0.01f};
    a.pool_mass = parity_draw(rng, 0, 3) == 0 ? 0.6f : 0.0f;
    a.forced = (int32_t)parity_draw(rng, 0, 1);
    a.gating = parity_draw(rng, 0, 2) == 0 ? EMO_GATING_SIGMOID : EMO_GATING_SOFTMAX;
    a.norm_p = (float)parity_draw(rng, 0, 2);
    a.jitter = parity_draw(rng, 0, 2) == 0 ? 0.1f : 0.0f;
    a.balance_by_segment = (int32_t)parity_draw(rng, 0, 1);
    return a;
}

/* The slice of call i < ROUTER_CALLS of a forward pass: logits and selection in two parts. */
static inline void router_slice(emo_route_args *a, int i) {
    static const int32_t phase[ROUTER_CALLS] = {EMO_ROUTE_LOGITS, EMO_ROUTE_LOGITS, EMO_ROUTE_POOL, EMO_ROUTE_SELECT,
                                                EMO_ROUTE_SELECT};
    a->phases = phase[i];
    a->first = i == 1 || i == 4 ? a->tokens / 3 : 0;
    a->last = i == 0 || i == 3 ? a->tokens / 3 : a->tokens;
}

#endif
