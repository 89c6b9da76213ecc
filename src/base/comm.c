/* SPDX-License-Identifier: Apache-2.0 */
#include "base/comm.h"

#include "base/status.h"

emo_status emo__comm_new(emo_runtime *rt, const emo_comm_vtable *calls, void *ctx, int32_t rank, int32_t size,
                         emo_comm **out, emo_error *err) {
    *out = NULL;
    emo_comm *comm = emo__calloc(&rt->mem, 1, sizeof *comm);
    if (comm == NULL)
        return emo__fail_memory(err, sizeof *comm);
    emo__ref_init(&comm->ref);
    emo__guard_init(&comm->guard);
    comm->rt = emo__runtime_retain(rt);
    comm->calls = *calls;
    comm->ctx = ctx;
    comm->rank = rank;
    comm->size = size;
    *out = comm;
    return EMO_OK;
}

void emo__comm_release(emo_comm *comm) {
    if (comm != NULL && emo__ref_put(&comm->ref)) {
        emo_runtime *rt = comm->rt;
        if (comm->calls.destroy != NULL)
            comm->calls.destroy(comm->ctx);
        emo__free(&rt->mem, comm);
        emo_runtime_release(rt);
    }
}

static emo_status busy(const emo_comm *comm, emo_error *err) {
    return emo__fail(err, EMO_E_BUSY, "rank %d's communicator is in use by another thread", (int)comm->rank);
}

emo_status emo__comm_all_reduce(emo_comm *comm, void *data, size_t count, emo_dtype dtype, void *stream,
                                emo_error *err) {
    if (comm == NULL || comm->size == 1)
        return EMO_OK;
    if (!emo__guard_try_write(&comm->guard))
        return busy(comm, err);
    emo_status status = comm->calls.all_reduce_sum(comm->ctx, data, count, dtype, stream, err);
    emo__guard_end_write(&comm->guard);
    return status;
}

emo_status emo__comm_broadcast(emo_comm *comm, void *data, size_t bytes, int32_t root, void *stream, emo_error *err) {
    if (comm == NULL || comm->size == 1)
        return EMO_OK;
    if (!emo__guard_try_write(&comm->guard))
        return busy(comm, err);
    emo_status status = comm->calls.broadcast(comm->ctx, data, bytes, root, stream, err);
    emo__guard_end_write(&comm->guard);
    return status;
}

emo_status emo__comm_barrier(emo_comm *comm, emo_error *err) {
    if (comm == NULL || comm->size == 1)
        return EMO_OK;
    if (!emo__guard_try_write(&comm->guard))
        return busy(comm, err);
    emo_status status = comm->calls.barrier(comm->ctx, err);
    emo__guard_end_write(&comm->guard);
    return status;
}
