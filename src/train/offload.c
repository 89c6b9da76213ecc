/* SPDX-License-Identifier: Apache-2.0 */
/* Moments beside the device: they lie in host memory and come to the device in pieces, where the optimizer works on
 * them as ever, so that every bit is the same. Two lanes take turns: while one piece is worked on, the next one comes
 * and the one before goes back. */
#include "base/status.h"
#include "model/access.h"
#include "train/trainer.h"

enum { LANES = 2 };
#define PIECE ((int64_t)16 << 20) /* floats of each moment */

struct emo__offload {
    int64_t piece;
    int32_t turn;
    struct {
        emo_exec *exec; /* copies alone */
        float *m;       /* [piece], on the device */
        float *v;
    } lanes[LANES];
};

static emo_status make_lanes(emo_trainer *t, emo__offload *o, emo_error *err) {
    emo_backend *device = t->model->backend;
    size_t bytes = (size_t)o->piece * sizeof(float);
    emo_status status = EMO_OK;
    for (int i = 0; status == EMO_OK && i < LANES; i++) {
        status = emo__model_exec(t->model, &o->lanes[i].exec, err);
        if (status == EMO_OK)
            status = t->ops->mem_alloc(device, bytes, (void **)&o->lanes[i].m, err);
        if (status == EMO_OK)
            status = t->ops->mem_alloc(device, bytes, (void **)&o->lanes[i].v, err);
    }
    return status;
}

emo_status emo__offload_create(emo_trainer *t, emo_error *err) {
    emo_backend *device = t->model->backend;
    size_t bytes = (size_t)t->grad_count * sizeof(float);
    if (t->ops->pinned_alloc == NULL || t->ops->pinned_free == NULL || t->ops->stream == NULL || t->ops->after == NULL)
        return emo__fail(err, EMO_E_UNSUPPORTED, "optimizer_on 'host': back end '%s' keeps no state beside its devices",
                         device->name);
    t->offload = emo__calloc(&t->rt->mem, 1, sizeof *t->offload);
    if (t->offload == NULL)
        return emo__fail_memory(err, sizeof *t->offload);
    t->offload->piece = t->grad_count < PIECE ? t->grad_count : PIECE;
    emo_status status = make_lanes(t, t->offload, err);
    if (status == EMO_OK)
        status = t->ops->pinned_alloc(device, bytes, (void **)&t->m, err);
    if (status == EMO_OK)
        status = t->ops->pinned_alloc(device, bytes, (void **)&t->v, err);
    return status;
}

void emo__offload_destroy(emo_trainer *t) {
    emo__offload *o = t->offload;
    emo_backend *device = t->model->backend;
    if (o == NULL)
        return;
    for (int i = 0; i < LANES; i++) {
        t->ops->exec_destroy(o->lanes[i].exec); /* waits */
        t->ops->mem_free(device, o->lanes[i].m);
        t->ops->mem_free(device, o->lanes[i].v);
    }
    if (t->m != NULL)
        t->ops->pinned_free(device, t->m);
    if (t->v != NULL)
        t->ops->pinned_free(device, t->v);
    t->m = NULL;
    t->v = NULL;
    emo__free(&t->rt->mem, o);
    t->offload = NULL;
}

/* One piece on the lane whose turn it is. A lane's own order keeps its room: the piece before has gone back. */
static emo_status run_piece(emo_trainer *t, const emo_adamw_args *whole, int64_t at, int64_t count, emo_error *err) {
    emo__offload *o = t->offload;
    int32_t turn = o->turn;
    emo_exec *lane = o->lanes[turn].exec;
    size_t bytes = (size_t)count * sizeof(float);
    emo_adamw_args a = *whole;
    o->turn = (turn + 1) % LANES;
    a.count = count;
    a.p += at;
    a.g += at;
    a.m = o->lanes[turn].m;
    a.v = o->lanes[turn].v;
    emo_status status;
    EMO_TRY(status = t->ops->stream(lane, a.m, whole->m + at, bytes, err));
    EMO_TRY(status = t->ops->stream(lane, a.v, whole->v + at, bytes, err));
    EMO_TRY(status = t->ops->after(t->exec, lane, err));
    EMO_TRY(status = t->ops->adamw(t->exec, &a, err));
    EMO_TRY(status = t->ops->after(lane, t->exec, err));
    EMO_TRY(status = t->ops->stream(lane, whole->m + at, a.m, bytes, err));
    status = t->ops->stream(lane, whole->v + at, a.v, bytes, err);
done:
    return status;
}

emo_status emo__offload_adamw(emo_trainer *t, const emo_adamw_args *args, emo_error *err) {
    emo_status status = EMO_OK;
    for (int64_t at = 0; status == EMO_OK && at < args->count; at += t->offload->piece) {
        int64_t left = args->count - at;
        status = run_piece(t, args, at, left < t->offload->piece ? left : t->offload->piece, err);
    }
    return status;
}

emo_status emo__offload_settle(emo_trainer *t, emo_error *err) {
    emo_status status = EMO_OK;
    for (int i = 0; status == EMO_OK && t->offload != NULL && i < LANES; i++)
        status = t->ops->synchronize(t->offload->lanes[i].exec, err);
    return status;
}
