/* SPDX-License-Identifier: Apache-2.0 */
/* The router that stands alone: one layer's W, buffers of the last forward, and the balancing state. On the CPU. */
#ifndef EMO_SRC_MOE_ROUTER_H
#define EMO_SRC_MOE_ROUTER_H

#include <emo/router.h>
#include <emo/sys/backend.h>

#include "base/runtime.h"
#include "moe/balance.h"

typedef struct emo__room {
    void *data;
    size_t bytes;
} emo__room;

enum {
    EMO__ROOM_BEGIN = 0, /* i32 [D + 1] */
    EMO__ROOM_IDS,       /* i64 [D] */
    EMO__ROOM_SIZES,     /* i32 [D] */
    EMO__ROOM_MASK,      /* u8 [D, n] */
    EMO__ROOM_LOGITS,
    EMO__ROOM_USAGE,
    EMO__ROOM_ALLOWED,
    EMO__ROOM_SCORES,
    EMO__ROOM_INDICES,
    EMO__ROOM_WEIGHTS,
    EMO__ROOM_LSE,
    EMO__ROOM_COUNTS,
    EMO__ROOM_COUNTS_ALL,
    EMO__ROOM_SCORE_SUM,
    EMO__ROOM_SEGMENT_COUNTS,
    EMO__ROOM_SEGMENT_SCORES,
    EMO__ROOM_BALANCE,
    EMO__ROOM_D_LOGITS,
    EMO__ROOMS
};

struct emo_router {
    emo__ref ref;
    emo__guard guard;
    emo_runtime *rt;
    emo_router_options o; /* `always` points to `always` below */
    int32_t *always;
    int32_t routed;
    int32_t chosen; /* k */
    int32_t choose; /* in the last forward: less than k where its mask left less */
    int32_t columns;
    float *w;
    float *bias; /* [n] or NULL */
    emo_exec *exec;
    emo__balance *balance;
    int32_t next_microbatch; /* expected in a step that has begun, else 0 */
    int32_t microbatches;
    emo__room rooms[EMO__ROOMS];
    emo_route_args args; /* of the last forward; tokens 0: none */
    uint64_t serial;
};

/* Arguments are checked by the caller. */
EMO_MUST_CHECK emo_status emo__router_forward(emo_router *router, const emo_router_batch *batch,
                                              const emo_pool_policy *pool, const emo_mask *mask, emo_routing *routing,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__router_backward(emo_router *router, const float *d_weights, float *dx, float *dw,
                                               emo_error *err);

#endif
