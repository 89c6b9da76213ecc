/* SPDX-License-Identifier: Apache-2.0 */
#include "base/comm.h"

#include <string.h>

#include "base/status.h"

#define MAX_RANKS 1024

static void nothing(void *ctx) { (void)ctx; }
static emo_status alone_reduce(void *ctx, void *data, size_t count, emo_dtype dtype, void *stream, emo_error *err) {
    (void)ctx, (void)data, (void)count, (void)dtype, (void)stream, (void)err;
    return EMO_OK;
}
static emo_status alone_broadcast(void *ctx, void *data, size_t bytes, int32_t root, void *stream, emo_error *err) {
    (void)ctx, (void)data, (void)bytes, (void)root, (void)stream, (void)err;
    return EMO_OK;
}
static emo_status alone_barrier(void *ctx, emo_error *err) {
    (void)ctx, (void)err;
    return EMO_OK;
}

static emo_status check(const void *runtime, const void *out, emo_error *err) {
    if (runtime == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "runtime is NULL");
    return out != NULL ? EMO_OK : emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
}

emo_status emo_comm_create_single(emo_runtime *runtime, emo_comm **out, emo_error *err) {
    static const emo_comm_vtable calls = {sizeof calls,  0,       alone_reduce, alone_broadcast,
                                          alone_barrier, nothing, nothing};
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    emo_status status = check(runtime, out, err);
    return status == EMO_OK ? emo__comm_new(runtime, &calls, NULL, 0, 1, out, err) : status;
}

emo_status emo_comm_create_local(emo_runtime *runtime, int32_t ranks, emo_comm **out, emo_error *err) {
    emo__error_clear(err);
    emo_status status = check(runtime, out, err);
    if (status == EMO_OK && (ranks < 1 || ranks > MAX_RANKS))
        status = emo__fail(err, EMO_E_RANGE, "ranks is %d; it must be 1 to %d", (int)ranks, MAX_RANKS);
    return status == EMO_OK ? emo__comm_local(runtime, ranks, out, err) : status;
}

emo_status emo_comm_create(emo_runtime *runtime, const emo_comm_vtable *vtable, void *ctx, int32_t rank, int32_t size,
                           emo_comm **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    emo_status status = check(runtime, out, err);
    if (status != EMO_OK)
        return status;
    if (vtable == NULL || vtable->struct_size != sizeof *vtable)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the communicator's table is not of this version");
    if (vtable->all_reduce_sum == NULL || vtable->broadcast == NULL || vtable->barrier == NULL ||
        vtable->abort == NULL || vtable->destroy == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the communicator's table lacks an entry; all are required");
    if (size < 1 || rank < 0 || rank >= size)
        return emo__fail(err, EMO_E_RANGE, "rank %d of %d ranks", (int)rank, (int)size);
    return emo__comm_new(runtime, vtable, ctx, rank, size, out, err);
}

emo_status emo_comm_set_timeout(emo_comm *comm, double seconds, emo_error *err) {
    emo__error_clear(err);
    if (comm == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "comm is NULL");
    if (!(seconds >= 0.0 && seconds <= 1e9))
        return emo__fail(err, EMO_E_RANGE, "seconds is %g; it must be in [0, 1e9]", seconds);
    return comm->size == 1 ? EMO_OK : emo__comm_local_patience(comm, seconds, err);
}

void emo_comm_release(emo_comm *comm) { emo__comm_release(comm); }

int32_t emo_comm_rank(const emo_comm *comm) { return comm != NULL ? comm->rank : 0; }

int32_t emo_comm_size(const emo_comm *comm) { return comm != NULL ? comm->size : 1; }

emo_status emo_comm_all_reduce_sum(emo_comm *comm, void *data, size_t count, emo_dtype dtype, emo_error *err) {
    emo__error_clear(err);
    if (comm == NULL || (data == NULL && count > 0))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", comm == NULL ? "comm" : "data");
    if (dtype != EMO_DTYPE_F32 && dtype != EMO_DTYPE_F64 && dtype != EMO_DTYPE_I32 && dtype != EMO_DTYPE_I64)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "dtype is %d; sums are of f32, f64, i32 or i64", (int)dtype);
    return emo__comm_all_reduce(comm, data, count, dtype, NULL, err);
}

emo_status emo_comm_broadcast(emo_comm *comm, void *data, size_t bytes, int32_t root, emo_error *err) {
    emo__error_clear(err);
    if (comm == NULL || (data == NULL && bytes > 0))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", comm == NULL ? "comm" : "data");
    if (root < 0 || root >= comm->size)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "root is %d of %d ranks", (int)root, (int)comm->size);
    return emo__comm_broadcast(comm, data, bytes, root, NULL, err);
}

emo_status emo_comm_barrier(emo_comm *comm, emo_error *err) {
    emo__error_clear(err);
    if (comm == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "comm is NULL");
    return emo__comm_barrier(comm, err);
}

void emo_comm_abort(emo_comm *comm) {
    if (comm != NULL)
        comm->calls.abort(comm->ctx);
}
