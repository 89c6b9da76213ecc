/* SPDX-License-Identifier: Apache-2.0 */
#include "infer/kv.h"

#include "base/checked.h"
#include "base/status.h"

static int64_t pages_for(const emo__kv *kv, int64_t rows) { return (rows + kv->page_rows - 1) / kv->page_rows; }

uint64_t emo__kv_page_bytes(const emo__kv *kv) {
    return 2 * sizeof(float) * (uint64_t)kv->layers * (uint64_t)kv->page_rows * (uint64_t)kv->width;
}

emo_status emo__kv_init(emo__kv *kv, emo_model *model, int64_t lanes, int64_t longest, int64_t page_rows,
                        uint64_t budget, emo_error *err) {
    *kv = (emo__kv){0};
    kv->model = model;
    kv->backend = model->backend;
    kv->mem = &model->rt->mem;
    kv->layers = model->config.layers;
    kv->width = (int64_t)model->config.kv_heads * model->config.head_dim;
    kv->tables = kv->backend->ops->supports(kv->backend, EMO_OP_ATTENTION_PAGES, EMO_DTYPE_F32) != 0;
    kv->page_rows = kv->tables ? page_rows : longest;
    int64_t each = pages_for(kv, longest);
    int64_t all = 0;
    if (!emo__mul_i64(each, lanes, &all))
        all = INT32_MAX;
    if (budget > 0 && budget / emo__kv_page_bytes(kv) < (uint64_t)all)
        all = (int64_t)(budget / emo__kv_page_bytes(kv));
    if (budget > 0 && all < 1)
        return emo__fail(err, EMO_E_LIMIT, "a budget of %llu bytes holds no page of the cache: one has %llu",
                         (unsigned long long)budget, (unsigned long long)emo__kv_page_bytes(kv));
    kv->most_pages = all < INT32_MAX ? all : INT32_MAX;
    kv->n_lanes = lanes;
    kv->lanes = emo__calloc(kv->mem, (size_t)lanes, sizeof *kv->lanes);
    return kv->lanes != NULL ? EMO_OK : emo__fail_memory(err, (size_t)lanes * sizeof *kv->lanes);
}

void emo__kv_free(emo__kv *kv) {
    if (kv->backend == NULL)
        return;
    kv->backend->ops->mem_free(kv->backend, kv->k);
    kv->backend->ops->mem_free(kv->backend, kv->v);
    for (int64_t i = 0; kv->lanes != NULL && i < kv->n_lanes; i++)
        emo__free(kv->mem, kv->lanes[i].pages);
    emo__free(kv->mem, kv->lanes);
    emo__free(kv->mem, kv->holders);
    emo__free(kv->mem, kv->table);
    *kv = (emo__kv){0};
}

/* ---- the store ---- */

static emo_status move_layers(const emo__kv *kv, emo_exec *exec, float *to, int64_t pages, const float *from,
                              emo_error *err) {
    int64_t page = kv->page_rows * kv->width;
    emo_status status = EMO_OK;
    for (int64_t l = 0; status == EMO_OK && l < kv->layers; l++)
        status = kv->backend->ops->copy(exec, to + l * pages * page, from + l * kv->pages * page,
                                        (size_t)(kv->pages * page) * sizeof(float), err);
    return status;
}

static emo_status move_both(emo__kv *kv, emo_exec *exec, float *k, float *v, int64_t pages, emo_error *err) {
    emo_exec *own = NULL;
    emo_status status = EMO_OK;
    if (kv->used == 0)
        return EMO_OK;
    if (exec == NULL)
        status = emo__model_exec(kv->model, &own, err);
    exec = exec != NULL ? exec : own;
    if (status == EMO_OK)
        status = move_layers(kv, exec, k, pages, kv->k, err);
    if (status == EMO_OK)
        status = move_layers(kv, exec, v, pages, kv->v, err);
    if (status == EMO_OK)
        status = kv->backend->ops->synchronize(exec, err); /* before the old blocks go */
    if (own != NULL)
        kv->backend->ops->exec_destroy(own);
    return status;
}

/* Doubles until there are `need` pages. On failure the store is as it was. */
static emo_status grow(emo__kv *kv, emo_exec *exec, int64_t need, emo_error *err) {
    const emo_backend_ops *ops = kv->backend->ops;
    int64_t pages = kv->pages > 0 ? kv->pages : 1;
    while (pages < need)
        pages *= 2;
    pages = pages < kv->most_pages ? pages : kv->most_pages;
    int64_t count = 0;
    size_t bytes = 0;
    if (!emo__mul_i64(kv->layers * kv->page_rows, pages, &count) || !emo__mul_i64(count, kv->width, &count) ||
        !emo__mul_size((size_t)count, sizeof(float), &bytes))
        return emo__fail(err, EMO_E_LIMIT, "a cache of %lld pages of %lld rows is larger than memory can be",
                         (long long)pages, (long long)kv->page_rows);
    void *k = NULL;
    void *v = NULL;
    int32_t *holders = emo__calloc(kv->mem, (size_t)pages, sizeof *holders);
    emo_status status = holders == NULL ? emo__fail_memory(err, (size_t)pages * sizeof *holders) : EMO_OK;
    if (status == EMO_OK)
        status = ops->mem_alloc(kv->backend, bytes, &k, err);
    if (status == EMO_OK)
        status = ops->mem_alloc(kv->backend, bytes, &v, err);
    if (status == EMO_OK)
        status = move_both(kv, exec, k, v, pages, err);
    if (status != EMO_OK) {
        ops->mem_free(kv->backend, k);
        ops->mem_free(kv->backend, v);
        emo__free(kv->mem, holders);
        return status;
    }
    for (int64_t i = 0; i < kv->pages; i++)
        holders[i] = kv->holders[i];
    ops->mem_free(kv->backend, kv->k);
    ops->mem_free(kv->backend, kv->v);
    emo__free(kv->mem, kv->holders);
    kv->k = k;
    kv->v = v;
    kv->holders = holders;
    kv->pages = pages;
    return EMO_OK;
}

/* ---- lanes ---- */

int64_t emo__kv_lacks(const emo__kv *kv, int64_t lane, int64_t rows) {
    int64_t lacks = pages_for(kv, rows) - (int64_t)kv->lanes[lane].n;
    return lacks > 0 ? lacks : 0;
}

static emo_status room_for(emo__kv *kv, emo__kv_lane *l, int64_t pages, emo_error *err) {
    return emo__grow(kv->mem, (void **)&l->pages, &l->cap, (size_t)pages, sizeof *l->pages, err);
}

emo_status emo__kv_reserve(emo__kv *kv, emo_exec *exec, int64_t lane, int64_t rows, emo_error *err) {
    emo__kv_lane *l = &kv->lanes[lane];
    int64_t lacks = emo__kv_lacks(kv, lane, rows);
    if (lacks == 0)
        return EMO_OK;
    if (lacks > emo__kv_available(kv))
        return emo__fail(err, EMO_E_INTERNAL, "%lld pages of the cache are wanted, %lld are there", (long long)lacks,
                         (long long)emo__kv_available(kv));
    emo_status status = room_for(kv, l, pages_for(kv, rows), err);
    if (status == EMO_OK && kv->used + lacks > kv->pages)
        status = grow(kv, exec, kv->used + lacks, err);
    for (; status == EMO_OK && lacks > 0; lacks--) {
        while (kv->holders[kv->lowest] != 0)
            kv->lowest++;
        kv->holders[kv->lowest] = 1;
        kv->used++;
        l->pages[l->n++] = (int32_t)kv->lowest;
    }
    return status;
}

void emo__kv_release(emo__kv *kv, int64_t lane) {
    emo__kv_lane *l = &kv->lanes[lane];
    for (size_t i = 0; i < l->n; i++) {
        int32_t page = l->pages[i];
        if (--kv->holders[page] > 0)
            continue;
        kv->used--;
        kv->lowest = page < kv->lowest ? page : kv->lowest;
    }
    l->n = 0;
}

emo_status emo__kv_share(emo__kv *kv, int64_t lane, int64_t from, int64_t rows, emo_error *err) {
    emo__kv_lane *l = &kv->lanes[lane];
    int64_t n = rows / kv->page_rows;
    emo_status status = room_for(kv, l, n, err);
    for (int64_t i = 0; status == EMO_OK && i < n; i++) {
        l->pages[i] = kv->lanes[from].pages[i];
        kv->holders[l->pages[i]]++;
        l->n++;
    }
    return status;
}

/* ---- tables ---- */

emo_status emo__kv_place(emo__kv *kv, int64_t lane, int64_t rows, int64_t *k_begin, emo_error *err) {
    const emo__kv_lane *l = &kv->lanes[lane];
    size_t n = (size_t)pages_for(kv, rows);
    if (!kv->tables) {
        *k_begin = l->pages[0] * kv->page_rows;
        return EMO_OK;
    }
    emo_status status =
        emo__grow(kv->mem, (void **)&kv->table, &kv->cap_table, kv->n_table + n, sizeof *kv->table, err);
    *k_begin = (int64_t)kv->n_table;
    for (size_t i = 0; status == EMO_OK && i < n; i++)
        kv->table[kv->n_table++] = l->pages[i];
    return status;
}

emo__kv_view emo__kv_view_of(const emo__kv *kv) {
    emo__kv_view view = {kv->k, kv->v, kv->pages * kv->page_rows * kv->width, 0, NULL};
    if (kv->tables) {
        view.page_rows = kv->page_rows;
        view.pages = kv->table;
    }
    return view;
}
