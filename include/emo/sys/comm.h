/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sys/comm.h
 * @brief What a communicator plug-in supplies. Stable per minor version; for plug-in authors only.
 */
#ifndef EMO_SYS_COMM_H
#define EMO_SYS_COMM_H

#include <emo/comm.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * The calls of one rank. `data` is an address of the memory of the back end in use, `stream` its stream (NULL on the
 * CPU): an implementation may enqueue and return. Sums must be the same bits on every rank. A call must never wait for
 * a rank that is gone: it returns EMO_E_COMM. Every entry is required.
 */
typedef struct emo_comm_vtable {
    uint32_t struct_size;
    int32_t reserved; /**< 0 */
    emo_status (*all_reduce_sum)(void *ctx, void *data, size_t count, emo_dtype dtype, void *stream, emo_error *err);
    emo_status (*broadcast)(void *ctx, void *data, size_t bytes, int32_t root, void *stream, emo_error *err);
    emo_status (*barrier)(void *ctx, emo_error *err);
    void (*abort)(void *ctx);   /**< any thread; makes all ranks fail from here on */
    void (*destroy)(void *ctx); /**< the rank leaves; called once, with the last release */
} emo_comm_vtable;

/**
 * Wraps a plug-in's rank. The table is copied. On success the handle owns ctx and ends it with `destroy`; on failure
 * ctx remains the caller's.
 * @param rank 0 .. size - 1.
 */
EMO_API EMO_MUST_CHECK emo_status emo_comm_create(emo_runtime *runtime, const emo_comm_vtable *vtable, void *ctx,
                                                  int32_t rank, int32_t size, emo_comm **out, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
