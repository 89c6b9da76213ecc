/* SPDX-License-Identifier: Apache-2.0 */
#include "infer/kv.h"

#include "base/checked.h"
#include "base/status.h"

#define FIRST_ROWS 64

void emo__kv_init(emo__kv *kv, const emo_model *model, int64_t sequences) {
    *kv = (emo__kv){0};
    kv->backend = model->backend;
    kv->layers = model->config.layers;
    kv->sequences = sequences;
    kv->width = (int64_t)model->config.kv_heads * model->config.head_dim;
}

void emo__kv_free(emo__kv *kv) {
    if (kv->backend == NULL)
        return;
    kv->backend->ops->mem_free(kv->backend, kv->k);
    kv->backend->ops->mem_free(kv->backend, kv->v);
    kv->k = NULL;
    kv->v = NULL;
    kv->rows = 0;
}

static emo_status move_rows(const emo__kv *kv, emo_exec *exec, float *to, int64_t rows, const float *from,
                            const int64_t *held, emo_error *err) {
    for (int64_t l = 0; l < kv->layers; l++) {
        for (int64_t s = 0; s < kv->sequences; s++) {
            if (held[s] == 0)
                continue;
            int64_t at = l * kv->sequences + s;
            emo_status status =
                kv->backend->ops->copy(exec, to + at * rows * kv->width, from + at * kv->rows * kv->width,
                                       (size_t)(held[s] * kv->width) * sizeof(float), err);
            if (status != EMO_OK)
                return status;
        }
    }
    return EMO_OK;
}

emo_status emo__kv_grow(emo__kv *kv, emo_exec *exec, int64_t need, int64_t limit, const int64_t *held, emo_error *err) {
    if (need <= kv->rows)
        return EMO_OK;
    const emo_backend_ops *ops = kv->backend->ops;
    int64_t rows = kv->rows > 0 ? kv->rows : FIRST_ROWS;
    while (rows < need)
        rows *= 2;
    rows = rows < limit ? rows : limit;
    int64_t count = 0;
    size_t bytes = 0;
    if (!emo__mul_i64(kv->layers * kv->sequences, rows, &count) || !emo__mul_i64(count, kv->width, &count) ||
        !emo__mul_size((size_t)count, sizeof(float), &bytes))
        return emo__fail(err, EMO_E_LIMIT, "a cache of %lld rows for %lld sequences is larger than memory can be",
                         (long long)rows, (long long)kv->sequences);
    void *k = NULL;
    void *v = NULL;
    emo_status status = ops->mem_alloc(kv->backend, bytes, &k, err);
    if (status == EMO_OK)
        status = ops->mem_alloc(kv->backend, bytes, &v, err);
    if (status == EMO_OK)
        status = move_rows(kv, exec, k, rows, kv->k, held, err);
    if (status == EMO_OK)
        status = move_rows(kv, exec, v, rows, kv->v, held, err);
    if (status == EMO_OK)
        status = ops->synchronize(exec, err); /* before the old blocks go */
    if (status != EMO_OK) {
        ops->mem_free(kv->backend, k);
        ops->mem_free(kv->backend, v);
        return status;
    }
    emo__kv_free(kv);
    kv->k = k;
    kv->v = v;
    kv->rows = rows;
    return EMO_OK;
}
