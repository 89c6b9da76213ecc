/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file comm.h
 * @brief Communicators: what the ranks of a data-parallel run sum over.
 *
 * Every rank holds one handle. Collective calls must be made by all ranks, in the same order; they block until all have
 * arrived. Sums are in rank order, so that all ranks get the same bits, on every run. When a rank fails, is aborted or
 * releases its handle, every other rank gets EMO_E_COMM from its present or next collective call: none waits for ever.
 * Nor for a rank that never comes: see emo_comm_set_timeout(). A communicator that has failed stays failed.
 *
 * Thread rule: a handle belongs to one thread at a time (EMO_E_BUSY otherwise); emo_comm_abort(), emo_comm_rank() and
 * emo_comm_size() may be called from any thread.
 */
#ifndef EMO_COMM_H
#define EMO_COMM_H

#include <emo/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_comm emo_comm;

/** One rank: every collective is a no-op. The caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_comm_create_single(emo_runtime *runtime, emo_comm **out, emo_error *err);

/**
 * `ranks` (1 to 1024) communicators of one process, for host memory; each is to be used by a thread of its own.
 * @param out [ranks] handles, out[r] of rank r; the caller releases each of them.
 */
EMO_API EMO_MUST_CHECK emo_status emo_comm_create_local(emo_runtime *runtime, int32_t ranks, emo_comm **out,
                                                        emo_error *err);

/**
 * How long a collective call of a process's ranks (emo_comm_create_local()) waits for the others; then all ranks get
 * EMO_E_COMM. It holds for all of its ranks, from their next call on.
 * @param seconds 0 to 1e9; 0: for ever. Default 1800: rank 0 alone validates and writes checkpoints meanwhile.
 * @return EMO_E_RANGE, EMO_E_UNSUPPORTED (a plug-in's communicator); a single rank has nobody to wait for.
 */
EMO_API EMO_MUST_CHECK emo_status emo_comm_set_timeout(emo_comm *comm, double seconds, emo_error *err);

/** Releases the caller's reference; with the last one the rank leaves. NULL is a no-op. Any thread. */
EMO_API void emo_comm_release(emo_comm *comm);

/** This handle's rank, from 0; 0 for NULL. */
EMO_API int32_t emo_comm_rank(const emo_comm *comm);

/** The number of ranks; 1 for NULL. */
EMO_API int32_t emo_comm_size(const emo_comm *comm);

/**
 * data[i] = sum over the ranks of their data[i].
 * @param dtype EMO_DTYPE_F32, EMO_DTYPE_F64, EMO_DTYPE_I32 or EMO_DTYPE_I64; the same on every rank, as is `count`.
 * @return EMO_OK, EMO_E_INVALID_ARGUMENT, EMO_E_MISMATCH (the ranks disagree on the call; all ranks get it),
 *         EMO_E_COMM, EMO_E_BUSY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_comm_all_reduce_sum(emo_comm *comm, void *data, size_t count, emo_dtype dtype,
                                                          emo_error *err);

/** data of rank `root` to all ranks. Errors as above. */
EMO_API EMO_MUST_CHECK emo_status emo_comm_broadcast(emo_comm *comm, void *data, size_t bytes, int32_t root,
                                                     emo_error *err);

/** Returns when all ranks have called it. */
EMO_API EMO_MUST_CHECK emo_status emo_comm_barrier(emo_comm *comm, emo_error *err);

/** Makes the present and every later collective call of all ranks return EMO_E_COMM. Any thread; NULL is a no-op. */
EMO_API void emo_comm_abort(emo_comm *comm);

#ifdef __cplusplus
}
#endif
#endif
