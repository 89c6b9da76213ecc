/* SPDX-License-Identifier: Apache-2.0 */
/* A table of experts on the device: the slots for kernels, and what launches ask of them, found out once when the table
 * is made. It is what emo_expert_table.device points to. */
#ifndef EMO_CUDA_EXPERTS_TABLE_H
#define EMO_CUDA_EXPERTS_TABLE_H

#include "exec.h"

typedef struct emo_cuda_table {
    const emo_expert_slot *slots; /* device memory */
    int32_t count;
    int32_t fast;      /* every loaded matrix is bf16 and aligned for 16-byte copies */
    int32_t quantised; /* some matrix is */
    int32_t up_grads;  /* some expert wants the gradient of gate or up */
    int32_t down_grads;
    int64_t rows[3]; /* by EMO_SLOT_*: the largest matrix */
    int64_t cols[3];
} emo_cuda_table;

static inline const emo_cuda_table *emo_cuda_table_of(const emo_expert_table *table) {
    return (const emo_cuda_table *)table->device;
}

emo_status emo_cuda_table_sync(emo_exec *exec, emo_expert_table *table, emo_error *err);
/* The same for a table that the work of this exec alone uses. */
emo_status emo_cuda_table_update(emo_exec *exec, emo_expert_table *table, emo_error *err);
void emo_cuda_table_free(emo_backend *backend, emo_expert_table *table);

#endif
