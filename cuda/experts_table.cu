/* SPDX-License-Identifier: Apache-2.0 */
#include "experts_table.h"

#include "device.h"
#include "kernel.h"

static int aligned(const emo_weight *w) {
    return w->data == NULL || (w->dtype == EMO_DTYPE_BF16 && ((uintptr_t)w->data & 15u) == 0 && w->stride % 8 == 0);
}

static void look_at(emo_cuda_table *t, const emo_expert_slot *slot) {
    const emo_weight *const matrices[3] = {&slot->gate, &slot->up, &slot->down}; /* in the order of EMO_SLOT_* */
    for (int i = 0; i < 3; i++) {
        const emo_weight *w = matrices[i];
        t->fast &= aligned(w);
        t->quantised |= emo_is_quantised(w->dtype);
        t->rows[i] = w->rows > t->rows[i] ? w->rows : t->rows[i];
        t->cols[i] = w->cols > t->cols[i] ? w->cols : t->cols[i];
    }
    t->up_grads |= slot->d_gate != NULL || slot->d_up != NULL;
    t->down_grads |= slot->d_down != NULL;
}

void emo_cuda_table_free(emo_backend *backend, emo_expert_table *table) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    emo_cuda_table *t = (emo_cuda_table *)table->device;
    int previous;
    if (t == NULL)
        return;
    if (emo_cuda_enter(device, &previous, NULL) == EMO_OK) {
        emo_cuda_free(device, (void *)(uintptr_t)t->slots);
        emo_cuda_leave(device, previous);
    }
    device->services.free(device->services.ctx, t);
    table->device = NULL;
}

/* What launches ask of the slots, found out. */
static void look_at_all(emo_cuda_table *t, const emo_expert_table *table) {
    const emo_expert_slot *slots = t->slots;
    memset(t, 0, sizeof *t);
    t->slots = slots;
    t->count = table->count > 0 ? table->count : 0;
    t->fast = 1;
    for (int32_t e = 0; e < t->count; e++)
        look_at(t, &table->slots[e]);
}

static emo_status make(emo_exec *exec, const emo_expert_table *table, emo_cuda_table *t, emo_error *err) {
    emo_cuda_device *device = emo_cuda_of(exec)->device;
    size_t bytes = (size_t)t->count * sizeof *table->slots;
    void *slots;
    EMO_CUDA_TRY(emo_cuda_alloc(device, bytes, &slots, err));
    t->slots = (const emo_expert_slot *)slots;
    return emo_cuda_send(exec, slots, table->slots, bytes, err);
}

/* Work under way may still read the old table, and its size may have been another: a new one takes its place. */
emo_status emo_cuda_table_sync(emo_exec *exec, emo_expert_table *table, emo_error *err) {
    emo_cuda_device *device = emo_cuda_of(exec)->device;
    int previous;
    emo_cuda_table *t = (emo_cuda_table *)device->services.alloc(device->services.ctx, sizeof *t);
    if (t == NULL)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a table of experts");
    t->slots = NULL;
    look_at_all(t, table);
    emo_expert_table fresh = *table;
    fresh.device = t;
    emo_status status = emo_cuda_enter(device, &previous, err);
    if (status == EMO_OK) {
        status = make(exec, table, t, err);
        emo_cuda_leave(device, previous);
    }
    emo_cuda_table_free(exec->backend, status == EMO_OK ? table : &fresh);
    if (status == EMO_OK)
        table->device = t;
    return status;
}

/* The exec's stream orders the new slots behind the work that reads the old ones. */
emo_status emo_cuda_table_update(emo_exec *exec, emo_expert_table *table, emo_error *err) {
    const emo_cuda_device *device = emo_cuda_of(exec)->device;
    emo_cuda_table *t = (emo_cuda_table *)table->device;
    int previous;
    if (t == NULL || t->count != table->count)
        return emo_cuda_table_sync(exec, table, err);
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_status status =
        emo_cuda_send(exec, (void *)(uintptr_t)t->slots, table->slots, (size_t)t->count * sizeof *table->slots, err);
    emo_cuda_leave(device, previous);
    if (status == EMO_OK)
        look_at_all(t, table);
    return status;
}
