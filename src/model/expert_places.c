/* SPDX-License-Identifier: Apache-2.0 */
#include "model/expert_places.h"

#include <string.h>

#include "base/status.h"

emo_status emo__places_check(const emo_backend *backend, emo_error *err) {
    const emo_backend_ops *ops = backend->ops;
    if (ops->supports(backend, EMO_OP_EXPERTS_PARTS, EMO_DTYPE_F32) != 0 && ops->pinned_alloc != NULL &&
        ops->stream != NULL && ops->event_create != NULL)
        return EMO_OK;
    return emo__fail(err, EMO_E_UNSUPPORTED,
                     "the devices of '%s' cannot hold fewer experts than the model has: load it without "
                     "emo_model_load_options.memory_budget",
                     backend->name);
}

/* ---- memory ---- */

static emo_status open_lanes(emo__places *p, emo_error *err) {
    const emo_backend_ops *ops = p->backend->ops;
    emo_status status = ops->exec_create(p->backend, NULL, &p->exec, err);
    for (size_t i = 0; status == EMO_OK && i < p->capacity; i++) {
        status = ops->event_create(p->backend, &p->order[i].filled, err);
        if (status == EMO_OK)
            status = ops->event_create(p->backend, &p->order[i].used, err);
    }
    for (int i = 0; status == EMO_OK && i < EMO__LANES; i++) {
        status = ops->pinned_alloc(p->backend, p->bytes, (void **)&p->lanes[i].host, err);
        if (status == EMO_OK)
            status = ops->event_create(p->backend, &p->lanes[i].copied, err);
    }
    return status;
}

emo_status emo__places_open(emo__places *p, const emo__mem *mem, emo_backend *backend, bool device, size_t capacity,
                            size_t bytes, emo_error *err) {
    *p = (emo__places){.backend = backend, .bytes = bytes, .capacity = capacity};
    emo_status status = backend->ops->mem_alloc(backend, capacity * bytes, (void **)&p->memory, err);
    if (status == EMO_OK && device) {
        p->order = emo__calloc(mem, capacity, sizeof *p->order);
        status = p->order != NULL ? open_lanes(p, err) : emo__fail_memory(err, capacity * sizeof *p->order);
    }
    if (status != EMO_OK)
        emo__places_close(p, mem);
    return status;
}

void emo__places_close(emo__places *p, const emo__mem *mem) {
    if (p->backend == NULL)
        return;
    const emo_backend_ops *ops = p->backend->ops;
    if (p->exec != NULL)
        ops->exec_destroy(p->exec); /* waits */
    for (int i = 0; i < EMO__LANES; i++) {
        if (p->lanes[i].copied != NULL)
            ops->event_destroy(p->backend, p->lanes[i].copied);
        if (p->lanes[i].host != NULL)
            ops->pinned_free(p->backend, p->lanes[i].host);
    }
    for (size_t i = 0; p->order != NULL && i < p->capacity; i++) {
        if (p->order[i].filled != NULL)
            ops->event_destroy(p->backend, p->order[i].filled);
        if (p->order[i].used != NULL)
            ops->event_destroy(p->backend, p->order[i].used);
    }
    emo__free(mem, p->order);
    ops->mem_free(p->backend, p->memory);
    memset(p, 0, sizeof *p);
}

/* ---- copies ---- */

emo__lane *emo__places_lane(emo__places *p) {
    for (int i = 0; i < EMO__LANES; i++) {
        if (p->lanes[i].busy)
            continue;
        p->lanes[i].busy = true;
        return &p->lanes[i];
    }
    return NULL;
}

emo_status emo__places_lane_ready(const emo__places *p, const emo__lane *lane, emo_error *err) {
    return p->backend->ops->event_wait(p->backend, lane->copied, err);
}

emo_status emo__places_copy(emo__places *p, int32_t place, const emo__lane *lane, size_t bytes, emo_error *err) {
    const emo_backend_ops *ops = p->backend->ops;
    emo__place *o = &p->order[place];
    emo_status status = o->user != 0 ? ops->event_order(p->exec, o->used, err) : EMO_OK;
    if (status == EMO_OK)
        status = ops->stream(p->exec, emo__places_at(p, place), lane->host, bytes, err);
    if (status == EMO_OK)
        status = ops->event_record(p->exec, o->filled, err);
    if (status == EMO_OK)
        status = ops->event_record(p->exec, lane->copied, err);
    if (status != EMO_OK) {
        (void)ops->synchronize(p->exec, NULL);
        return status;
    }
    o->fill = ++p->fills;
    o->user = 0;
    return EMO_OK;
}

emo_status emo__places_used(emo__places *p, int32_t place, emo_exec *exec, uint64_t user, emo_error *err) {
    const emo_backend_ops *ops = p->backend->ops;
    emo__place *o = &p->order[place];
    /* One event stands for all who read the place: another's work is to be done when this one's is. */
    emo_status status = o->user != 0 && o->user != user ? ops->event_order(exec, o->used, err) : EMO_OK;
    if (status == EMO_OK)
        status = ops->event_record(exec, o->used, err);
    if (status == EMO_OK)
        o->user = user;
    return status;
}
