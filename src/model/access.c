/* SPDX-License-Identifier: Apache-2.0 */
#include "model/access.h"

#include <string.h>

#include "base/status.h"
#include "model/expert_cache.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

const emo__param *emo__model_quantised(const emo_model *model) {
    for (size_t i = 0; i < model->n_params; i++) {
        if (emo__param_loaded(model, &model->params[i]) && emo__dtype_quantised(model->params[i].view->dtype))
            return &model->params[i];
    }
    return NULL;
}

emo_status emo__access_begin(const emo_model *model, emo__access *access, emo_error *err) {
    memset(access, 0, sizeof *access);
    access->model = model;
    return emo__model_on_host(model) ? EMO_OK
                                     : model->backend->ops->exec_create(model->backend, NULL, &access->exec, err);
}

void emo__access_end(emo__access *access) {
    if (access->exec != NULL)
        access->model->backend->ops->exec_destroy(access->exec);
    if (access->model != NULL) {
        emo__free(&access->model->rt->mem, access->room);
        emo__free(&access->model->rt->mem, access->expert);
    }
    memset(access, 0, sizeof *access);
}

/* Room for as many bytes; what it held is lost. */
static emo_status make_room(const emo__mem *mem, void **room, size_t *capacity, size_t bytes, emo_error *err) {
    if (bytes <= *capacity)
        return EMO_OK;
    void *larger = emo__alloc(mem, bytes);
    if (larger == NULL)
        return emo__fail_memory(err, bytes);
    emo__free(mem, *room);
    *room = larger;
    *capacity = bytes;
    return EMO_OK;
}

emo_status emo__access_read(emo__access *access, const void *data, size_t bytes, const void **out, emo_error *err) {
    const emo_backend_ops *ops = access->model->backend->ops;
    *out = data;
    if (access->exec == NULL)
        return EMO_OK;
    *out = NULL;
    emo_status status = make_room(&access->model->rt->mem, &access->room, &access->capacity, bytes, err);
    if (status == EMO_OK)
        status = ops->download(access->exec, access->room, data, bytes, err);
    if (status == EMO_OK)
        status = ops->synchronize(access->exec, err);
    if (status == EMO_OK)
        *out = access->room;
    return status;
}

emo_status emo__access_fetch(emo__access *access, emo_weight *view, emo_error *err) {
    if (view->data == NULL)
        return EMO_OK;
    size_t bytes = emo__dtype_run(view->dtype, (view->rows - 1) * view->stride + view->cols);
    return emo__access_read(access, view->data, bytes, &view->data, err);
}

emo_status emo__access_view(emo__access *access, const emo__param *p, emo_weight *out, emo_error *err) {
    const emo_model *m = access->model;
    *out = *p->view;
    if (out->data != NULL || !emo__param_loaded(m, p))
        return EMO_OK;
    size_t bytes = emo__dtype_run(out->dtype, p->rows * p->cols);
    emo_status status = make_room(&m->rt->mem, &access->expert, &access->expert_capacity, bytes, err);
    if (status == EMO_OK)
        status = emo__expert_cache_read(m->cache, p->layer, p->expert, p->which, access->expert, err);
    out->data = status == EMO_OK ? access->expert : NULL;
    return status;
}

emo_status emo__access_write(emo__access *access, void *data, const void *src, size_t bytes, emo_error *err) {
    if (access->exec != NULL)
        return access->model->backend->ops->upload(access->exec, data, src, bytes, err);
    if (bytes > 0)
        memcpy(data, src, bytes);
    return EMO_OK;
}

emo_status emo__access_flush(emo__access *access, emo_error *err) {
    return access->exec != NULL ? access->model->backend->ops->synchronize(access->exec, err) : EMO_OK;
}

emo_status emo__access_f32(emo__access *access, const emo__param *p, int64_t first, int64_t n, float *out,
                           emo_error *err) {
    emo_weight held;
    const emo_weight *view = &held;
    emo_status status = emo__access_view(access, p, &held, err);
    int64_t run = view->stride == p->cols && !emo__dtype_quantised(view->dtype) ? n : 1; /* rows read at once */
    for (int64_t r = 0; status == EMO_OK && r < n; r += run) {
        const void *row = (const char *)view->data + emo__dtype_run(view->dtype, (first + r) * view->stride);
        size_t count = (size_t)(run * p->cols);
        status = emo__access_read(access, row, emo__dtype_run(view->dtype, (int64_t)count), &row, err);
        if (status == EMO_OK)
            (void)emo__convert(out + r * p->cols, EMO_DTYPE_F32, row, view->dtype, count);
    }
    return status;
}
