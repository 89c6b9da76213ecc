/* SPDX-License-Identifier: Apache-2.0 */
/* How one operator's call is carried to a device: its arrays, each in memory of exactly its size, and back. A mapping
 * function names every array of an operator's arguments; it runs twice, first to collect them, then to exchange them
 * for the device's. */
#ifndef EMO_TESTS_MIRROR_CALL_H
#define EMO_TESTS_MIRROR_CALL_H

#include "support/ops.h"

enum { MIRROR_RANGES = 512 };

typedef struct mirror_range {
    char *host;
    size_t bytes;
    int written;
    char *device; /* of the block it became */
} mirror_range;

/* One call: its ranges are collected first, overlapping ones become one block, then pointers are exchanged. */
typedef struct mirror_call {
    const emo_backend_ops *ops;
    emo_exec *exec;
    emo_error *err;
    int translating;
    int n;
    mirror_range ranges[MIRROR_RANGES];
    emo_expert_slot *slots;  /* copy with device pointers */
    emo_expert_table *table; /* of the call's arguments, to be made on the device */
} mirror_call;

/* An array of `bytes` as the call will see it; NULL stays NULL. */
void *mirror_exchange(mirror_call *c, const void *host, size_t bytes, int written);
/* What was collected goes to the device; from now on arrays are exchanged. */
emo_status mirror_to_device(mirror_call *c);
/* What operators write comes back, unless `status` says that the call failed; everything is given back. */
emo_status mirror_to_host(mirror_call *c, emo_status status);

/* mirror_<entry>: every operator of the table over host memory (mirror_arrays.c). */
#define MIRROR_DECLARE(entry, type) emo_status mirror_##entry(emo_exec *exec, const type *args, emo_error *err);
EMO_OPERATORS(MIRROR_DECLARE, MIRROR_DECLARE)
#undef MIRROR_DECLARE

#endif
