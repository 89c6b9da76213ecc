/* SPDX-License-Identifier: Apache-2.0 */
/* The table: every entry makes the exec's device current, does its work and puts the host's device back. */
#include <string.h>

#include "device.h"
#include "experts_table.h"
#include "kernel.h"
#include "ops.h"
#include "tape.h"

/* ---- memory ---- */

static emo_status mem_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    int previous;
    *out = NULL;
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_status status = emo_cuda_alloc(device, bytes, out, err);
    emo_cuda_leave(device, previous);
    return status;
}

static void mem_free(emo_backend *backend, void *ptr) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    int previous;
    if (ptr == NULL || emo_cuda_enter(device, &previous, NULL) != EMO_OK)
        return;
    emo_cuda_free(device, ptr);
    emo_cuda_leave(device, previous);
}

#define ENTER_DEVICE(exec, call)                                                                                       \
    const emo_cuda_device *device = emo_cuda_of(exec)->device;                                                         \
    int previous;                                                                                                      \
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));                                                              \
    emo_status status = call;                                                                                          \
    emo_cuda_leave(device, previous);                                                                                  \
    return status

static emo_status upload(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_send(exec, dst, src, bytes, err));
}
static emo_status download(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_download(exec, dst, src, bytes, err));
}
static emo_status copy(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_copy(exec, dst, src, bytes, err));
}
static emo_status zero(emo_exec *exec, void *dst, size_t bytes, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_clear(exec, dst, bytes, err));
}
static emo_status synchronize(emo_exec *exec, emo_error *err) { ENTER_DEVICE(exec, emo_cuda_synchronize(exec, err)); }
static emo_status exec_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    ENTER_DEVICE(exec, bytes > 0 ? emo_cuda_arena_reserve(emo_cuda_of(exec), bytes, err) : EMO_OK);
}

/* ---- what there is ---- */

static int32_t supports(const emo_backend *backend, int32_t op, emo_dtype weight_dtype) {
    (void)backend;
    return op >= EMO_OP_EMBED && op <= EMO_OP_ATTENTION_PAGES && emo_is_weight_type(weight_dtype) &&
           (!emo_is_quantised(weight_dtype) || op == EMO_OP_EMBED || op == EMO_OP_LINEAR || op == EMO_OP_EXPERTS ||
            op == EMO_OP_HEAD || op == EMO_OP_EXPERTS_PARTS); /* forward only */
}

/* ---- pieces of work, and waiting for a part of it ---- */

static emo_status replay_begin(emo_exec *exec, uint64_t key, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_replay_begin(exec, key, err));
}
static emo_status replay_reserve(emo_exec *exec, size_t bytes, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_replay_reserve(exec, bytes, err));
}
static emo_status replay_end(emo_exec *exec, emo_error *err) { ENTER_DEVICE(exec, emo_cuda_replay_end(exec, err)); }
static emo_status mark(emo_exec *exec, uint64_t *out, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_mark_work(exec, out, err));
}
static emo_status wait(emo_exec *exec, uint64_t mark, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_wait(exec, mark, err));
}
static emo_status event_record(emo_exec *exec, emo_event *event, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_event_record(exec, event, err));
}
static emo_status event_order(emo_exec *exec, emo_event *event, emo_error *err) {
    ENTER_DEVICE(exec, emo_cuda_event_order(exec, event, err));
}

/* ---- operators ---- */

/* What came before an operator that fails is done, as it would be without holding back. */
static emo_status failed(emo_exec *exec, emo_status status) {
    (void)emo_cuda_tape_issue(emo_cuda_of(exec), "an operator failed", NULL);
    return status;
}

#define ENTER(entry, type)                                                                                             \
    static emo_status enter_##entry(emo_exec *exec, const type *args, emo_error *err) {                                \
        const emo_cuda_device *device = emo_cuda_of(exec)->device;                                                     \
        int previous;                                                                                                  \
        EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));                                                          \
        emo_status status = emo_cuda_begin(exec, err);                                                                 \
        if (status == EMO_OK)                                                                                          \
            status = emo_cuda_##entry(exec, args, err);                                                                \
        if (status != EMO_OK)                                                                                          \
            status = failed(exec, status);                                                                             \
        emo_cuda_leave(device, previous);                                                                              \
        return status;                                                                                                 \
    }
EMO_OPERATORS(ENTER, ENTER)
#undef ENTER

void emo_cuda_fill_table(emo_backend_ops *out) {
    emo_backend_ops ops;
    memset(&ops, 0, sizeof ops);
    ops.struct_size = sizeof ops;
    ops.abi = EMO_BACKEND_ABI;
    ops.destroy = emo_cuda_destroy;
    ops.supports = supports;
    ops.mem_alloc = mem_alloc;
    ops.mem_free = mem_free;
    ops.upload = upload;
    ops.download = download;
    ops.copy = copy;
    ops.zero = zero;
    ops.synchronize = synchronize;
    ops.exec_create = emo_cuda_exec_create;
    ops.exec_destroy = emo_cuda_exec_destroy;
    ops.exec_reserve = exec_reserve;
    ops.table_sync = emo_cuda_table_sync;
    ops.table_free = emo_cuda_table_free;
    ops.device_info = emo_cuda_device_info;
    ops.memory = emo_cuda_memory;
    ops.exec_scratch = emo_cuda_exec_scratch;
    ops.planner = emo_cuda_planner;
    ops.pinned_alloc = emo_cuda_pinned_alloc;
    ops.pinned_free = emo_cuda_pinned_free;
    ops.stream = emo_cuda_copy_pinned;
    ops.after = emo_cuda_after;
    ops.event_create = emo_cuda_event_create;
    ops.event_destroy = emo_cuda_event_destroy;
    ops.event_record = event_record;
    ops.event_order = event_order;
    ops.event_wait = emo_cuda_event_wait;
    ops.table_update = emo_cuda_table_update;
    ops.replay_begin = replay_begin;
    ops.replay_end = replay_end;
    ops.replay_counts = emo_cuda_replay_counts;
    ops.replay_reserve = replay_reserve;
    ops.mark = mark;
    ops.wait = wait;
#define PUT(entry, type) ops.entry = enter_##entry;
    EMO_OPERATORS(PUT, PUT)
#undef PUT
    *out = ops;
}
