/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators as the inside sees them. NULL stands for a single rank everywhere. */
#ifndef EMO_SRC_BASE_COMM_H
#define EMO_SRC_BASE_COMM_H

#include <emo/sys/comm.h>

#include "base/runtime.h"

struct emo_comm {
    emo__ref ref;
    emo__guard guard;
    emo_runtime *rt;
    emo_comm_vtable calls;
    void *ctx;
    int32_t rank;
    int32_t size;
};

static inline emo_comm *emo__comm_retain(emo_comm *comm) {
    if (comm != NULL)
        emo__ref_get(&comm->ref);
    return comm;
}
void emo__comm_release(emo_comm *comm); /* NULL is a no-op */

/* Takes ctx on success. */
EMO_MUST_CHECK emo_status emo__comm_new(emo_runtime *rt, const emo_comm_vtable *calls, void *ctx, int32_t rank,
                                        int32_t size, emo_comm **out, emo_error *err);
/* Ranks of this process (comm_local.c). */
EMO_MUST_CHECK emo_status emo__comm_local(emo_runtime *rt, int32_t ranks, emo_comm **out, emo_error *err);

/* Seconds a collective of a process's ranks waits for the last one, unless told otherwise. */
#define EMO__COMM_PATIENCE 1800.0
/* In [0, 1e9]; 0: for ever. EMO_E_UNSUPPORTED for other communicators. */
EMO_MUST_CHECK emo_status emo__comm_local_patience(emo_comm *comm, double seconds, emo_error *err);

/* Collectives on memory of the back end in use; `stream` as in emo_comm_vtable. */
EMO_MUST_CHECK emo_status emo__comm_all_reduce(emo_comm *comm, void *data, size_t count, emo_dtype dtype, void *stream,
                                               emo_error *err);
EMO_MUST_CHECK emo_status emo__comm_broadcast(emo_comm *comm, void *data, size_t bytes, int32_t root, void *stream,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__comm_barrier(emo_comm *comm, emo_error *err);

#endif
