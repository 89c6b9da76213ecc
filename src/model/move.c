/* SPDX-License-Identifier: Apache-2.0 */
#include "model/move.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "model/access.h"
#include "model/expert_cache.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

#define ALIGN ((size_t)256)
#define PIECE ((size_t)16 << 20) /* bytes read from a device at a time */

/* A move under way: where every parameter was and will be. */
typedef struct mover {
    emo_model *model;
    emo_backend *to;
    emo_exec *exec; /* of `to` */
    emo__access from;
    char *block;
    emo__places places;       /* for the experts that come and go */
    emo_weight *old;          /* [n_params] views as they were */
    emo_expert_table *tables; /* [layers] of the new device */
} mover;

static size_t bytes_of(const emo__param *p) { return emo__dtype_run(p->view->dtype, p->rows * p->cols); }

static emo_status check(const emo_model *m, const emo_backend *to, emo_error *err) {
    if (atomic_load(&m->ref.count) > 1)
        return emo__fail(err, EMO_E_BUSY,
                         "the model is in use: release the sessions, trainers and passes that hold it, then move it");
    emo_status status = emo__expert_cache_can_move(m->cache, to, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; i < m->n_params; i++) {
        const emo__param *p = &m->params[i];
        char name[EMO__NAME_MAX];
        int32_t op = p->view->data != NULL ? EMO_OP_LINEAR : EMO_OP_EXPERTS_PARTS;
        if (!emo__param_loaded(m, p) || to->ops->supports(to, op, p->view->dtype) != 0)
            continue;
        emo__param_name(p, name);
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "tensor \"%s\" is held as %s, which the devices of '%s' do not compute with; load the model "
                         "with a float type",
                         name, emo_dtype_name(p->view->dtype), to->name);
    }
    return EMO_OK;
}

static emo_status total_bytes(const emo_model *m, size_t *total, emo_error *err) {
    *total = 0;
    for (size_t i = 0; i < m->n_params; i++) {
        size_t bytes = m->params[i].view->data != NULL ? bytes_of(&m->params[i]) : 0;
        if (!emo__add_size(bytes, ALIGN - 1, &bytes) || !emo__add_size(*total, bytes / ALIGN * ALIGN, total))
            return emo__fail_memory(err, SIZE_MAX);
    }
    return EMO_OK;
}

static emo_status carry(mover *mv, char *dst, const char *src, size_t bytes, emo_error *err) {
    emo_status status = EMO_OK;
    for (size_t at = 0; status == EMO_OK && at < bytes; at += PIECE) {
        size_t n = bytes - at < PIECE ? bytes - at : PIECE;
        const void *host = NULL;
        status = emo__access_read(&mv->from, src + at, n, &host, err);
        if (status == EMO_OK)
            status = mv->to->ops->upload(mv->exec, dst + at, host, n, err);
    }
    return status;
}

/* Copies every parameter and points its view at the copy. */
static emo_status carry_all(mover *mv, emo_error *err) {
    emo_model *m = mv->model;
    char *at = mv->block;
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        emo__param *p = &m->params[i];
        const emo_weight *was = &mv->old[i];
        if (was->data == NULL)
            continue;
        size_t row = emo__dtype_run(was->dtype, p->cols);
        if (was->stride == p->cols) {
            status = carry(mv, at, was->data, bytes_of(p), err);
        } else {
            for (int64_t r = 0; status == EMO_OK && r < p->rows; r++)
                status = carry(mv, at + (size_t)r * row,
                               (const char *)was->data + emo__dtype_run(was->dtype, r * was->stride), row, err);
        }
        emo__param_bind(p, at, was->dtype);
        at += (bytes_of(p) + ALIGN - 1) / ALIGN * ALIGN;
    }
    return status;
}

static emo_status sync_tables(mover *mv, emo_error *err) {
    emo_model *m = mv->model;
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < m->config.layers; l++) {
        if (m->layers[l].experts == NULL)
            continue;
        mv->tables[l] = (emo_expert_table){m->layers[l].experts, m->layers[l].table.count, NULL};
        status = mv->to->ops->table_sync(mv->exec, &mv->tables[l], err);
    }
    return status == EMO_OK ? mv->to->ops->synchronize(mv->exec, err) : status;
}

/* The new memory takes the place of the old. */
static void commit(mover *mv) {
    emo_model *m = mv->model;
    const emo_backend_ops *ops = m->backend->ops;
    for (size_t i = 0; i < m->n_blocks; i++)
        ops->mem_free(m->backend, m->blocks[i]);
    m->n_blocks = 0;
    m->blocks[m->n_blocks++] = mv->block;
    for (int32_t l = 0; l < m->config.layers; l++) {
        if (m->layers[l].experts == NULL)
            continue;
        ops->table_free(m->backend, &m->layers[l].table);
        m->layers[l].table = mv->tables[l];
    }
    if (m->config.tie)
        m->head = m->embed;
    emo__expert_cache_moved(m->cache, &mv->places);
    m->backend = mv->to;
}

static void undo(mover *mv) {
    emo_model *m = mv->model;
    for (size_t i = 0; i < m->n_params; i++)
        *m->params[i].view = mv->old[i];
    for (int32_t l = 0; mv->tables != NULL && l < m->config.layers; l++) {
        if (mv->tables[l].slots != NULL)
            mv->to->ops->table_free(mv->to, &mv->tables[l]);
    }
    mv->to->ops->mem_free(mv->to, mv->block);
    emo__expert_cache_not_moved(m->cache, &mv->places);
}

emo_status emo__model_move(emo_model *m, emo_backend *to, emo_error *err) {
    const emo__mem *mem = &m->rt->mem;
    mover mv = {.model = m, .to = to};
    size_t total = 0;
    if (to == m->backend)
        return EMO_OK;
    emo_status status = check(m, to, err);
    if (status != EMO_OK)
        return status;
    mv.old = emo__calloc(mem, m->n_params, sizeof *mv.old);
    mv.tables = emo__calloc(mem, (size_t)m->config.layers + 1, sizeof *mv.tables);
    if (mv.old == NULL || mv.tables == NULL) {
        status = emo__fail_memory(err, m->n_params * sizeof *mv.old);
        goto done;
    }
    for (size_t i = 0; i < m->n_params; i++)
        mv.old[i] = *m->params[i].view;
    EMO_TRY(status = total_bytes(m, &total, err));
    EMO_TRY(status = emo__grow(mem, (void **)&m->blocks, &m->cap_blocks, 1, sizeof *m->blocks, err));
    EMO_TRY(status = emo__access_begin(m, &mv.from, err));
    EMO_TRY(status = to->ops->exec_create(to, NULL, &mv.exec, err));
    EMO_TRY(status = to->ops->mem_alloc(to, total, (void **)&mv.block, err));
    status = emo__expert_cache_move(m->cache, to, &mv.places, err);
    if (status == EMO_OK)
        status = carry_all(&mv, err);
    if (status == EMO_OK)
        status = sync_tables(&mv, err);
    if (status == EMO_OK) {
        emo__access_end(&mv.from); /* its exec is the old device's */
        commit(&mv);
    } else {
        if (mv.exec != NULL)
            (void)to->ops->synchronize(mv.exec, NULL);
        undo(&mv);
    }
done:
    to->ops->exec_destroy(mv.exec);
    emo__access_end(&mv.from);
    emo__free(mem, mv.old);
    emo__free(mem, mv.tables);
    return status;
}
