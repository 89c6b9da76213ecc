/* SPDX-License-Identifier: Apache-2.0 */
/* The host's side of the CUDA back end: devices, memory, execs. Operators need exec.h alone. */
#ifndef EMO_CUDA_DEVICE_H
#define EMO_CUDA_DEVICE_H

#include "exec.h"

static inline emo_cuda_device *emo_cuda_device_of(emo_backend *backend) { return (emo_cuda_device *)backend; }

/* ---- the current device (device.cu) ---- */

/* Makes the device current; *previous goes to emo_cuda_leave, which restores what the host had. */
emo_status emo_cuda_enter(const emo_cuda_device *device, int *previous, emo_error *err);
void emo_cuda_leave(const emo_cuda_device *device, int previous);

emo_status emo_cuda_device_count(const emo_backend_services *services, int32_t *out, emo_error *err);
/* A device that nothing is known of yet: with its table and its lock. */
emo_status emo_cuda_device_make(const emo_backend_services *services, emo_cuda_device **out, emo_error *err);
emo_status emo_cuda_device_open(const emo_backend_services *services, int32_t index, emo_backend **out, emo_error *err);
/* A planner (see emo_backend_plugin_entry; planner.cu). */
emo_status emo_cuda_planner_open(const emo_backend_services *services, emo_backend **out, emo_error *err);
emo_status emo_cuda_planner(emo_backend *backend, emo_backend **out, emo_error *err);
emo_status emo_cuda_device_info(const emo_backend *backend, emo_backend_device_info *out, emo_error *err);
void emo_cuda_destroy(emo_backend *backend);

/* The table, with everything that this back end has (table.cu). */
void emo_cuda_fill_table(emo_backend_ops *out);

/* ---- memory (memory.cu); the device is current ---- */

emo_status emo_cuda_alloc(emo_cuda_device *device, size_t bytes, void **out, emo_error *err);
/* Work under way may still use the memory: it is handed out again or freed when that is done. */
void emo_cuda_free(emo_cuda_device *device, void *ptr);
/* A planner's answer where memory is asked for. */
void *emo_cuda_no_address(emo_cuda_device *device, size_t bytes);
emo_status emo_cuda_memory(emo_backend *backend, emo_backend_memory *out, emo_error *err);
/* From here on to the same number of settles, what is given back stays as it is: work that is not enqueued yet may use
 * it. */
void emo_cuda_memory_hold(emo_cuda_device *device);
void emo_cuda_memory_settle(emo_cuda_device *device);
/* A second exec begins: memory that waits for the first one's stream alone is guarded by events from now on. */
void emo_cuda_memory_shared(emo_cuda_device *device);
/* An exec goes, its work done. */
void emo_cuda_memory_forget(emo_cuda_device *device, const emo_cuda_exec *exec);
/* Frees all that was given back; no work is under way. */
void emo_cuda_memory_close(emo_cuda_device *device);

/* ---- memory beside the device (pinned.cu) ---- */

emo_status emo_cuda_pinned_alloc(emo_backend *backend, size_t bytes, void **out, emo_error *err);
void emo_cuda_pinned_free(emo_backend *backend, void *ptr);
emo_status emo_cuda_copy_pinned(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
emo_status emo_cuda_after(emo_exec *exec, emo_exec *other, emo_error *err);

/* ---- order between execs (events.cu) ---- */

emo_status emo_cuda_event_create(emo_backend *backend, emo_event **out, emo_error *err);
void emo_cuda_event_destroy(emo_backend *backend, emo_event *event);
emo_status emo_cuda_event_record(emo_exec *exec, emo_event *event, emo_error *err);
emo_status emo_cuda_event_order(emo_exec *exec, emo_event *event, emo_error *err);
emo_status emo_cuda_event_wait(emo_backend *backend, emo_event *event, emo_error *err);

/* ---- transfers (stage.cu) ---- */

emo_status emo_cuda_transfers_create(emo_cuda_exec *exec, emo_error *err);
void emo_cuda_transfers_destroy(emo_cuda_exec *exec);
emo_status emo_cuda_download(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
/* Waits for the stream and hands over what was downloaded. */
emo_status emo_cuda_synchronize(emo_exec *exec, emo_error *err);
emo_status emo_cuda_mark_work(emo_exec *exec, uint64_t *out, emo_error *err);
emo_status emo_cuda_wait(emo_exec *exec, uint64_t mark, emo_error *err);

/* ---- execs (exec.cu, arena.cu) ---- */

emo_status emo_cuda_exec_create(emo_backend *backend, const emo_exec_options *options, emo_exec **out, emo_error *err);
void emo_cuda_exec_destroy(emo_exec *exec);
emo_status emo_cuda_arena_reserve(emo_cuda_exec *exec, size_t bytes, emo_error *err);
size_t emo_cuda_exec_scratch(emo_exec *exec);
void emo_cuda_arena_destroy(emo_cuda_exec *exec);
/* Whether the exec's stream records a graph at the moment. */
int emo_cuda_capturing(const emo_cuda_exec *exec);

/* ---- lists of work (lists.cu) ---- */

void emo_cuda_lists_destroy(emo_cuda_exec *exec);

#endif
