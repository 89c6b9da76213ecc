/* SPDX-License-Identifier: Apache-2.0 */
/* Steps on experts that come and go: which ones, the host has to know. */
#include "base/status.h"
#include "model/pass_state.h"

emo_status emo__pools_on_demand(emo__pass *p, int32_t l, emo_error *err) {
    const emo__batch *b = &p->batch;
    const emo__route_view *r = &p->layers[l].route;
    bool chosen = (b->pool_size != NULL && b->pool_size[l] != NULL) || b->pool_mass > 0.0f;
    uint8_t *flags = chosen ? emo__lease_flags(p->lease, b->n_documents) : NULL;
    if (flags == NULL) /* no pool, or no memory: then nothing is read ahead */
        return EMO_OK;
    emo_status status = emo__pass_download(p, flags, r->allowed, (size_t)b->n_documents * (size_t)r->routed, err);
    if (status == EMO_OK)
        emo__lease_pool(p->lease, l, flags, b->n_documents);
    return status;
}

static emo_status run_group(emo__pass *p, emo_experts_args *a, emo_expert_table *table, emo_error *err) {
    emo_status status = emo__lease_bring(p->lease, p->exec, table, err);
    a->table = *table;
    if (status == EMO_OK)
        status = p->ops->experts_forward(p->exec, a, err);
    emo_status used = emo__lease_used(p->lease, p->exec, status == EMO_OK ? err : NULL);
    return status == EMO_OK ? used : status;
}

emo_status emo__experts_on_demand(emo__pass *p, int32_t l, int64_t last, emo_experts_args *a, emo_error *err) {
    emo__lease *lease = p->lease;
    bool more = true;
    bool parts = true; /* also of nothing */
    size_t bytes = ((size_t)a->experts + 1) * sizeof(int32_t);
    emo_status status = emo__pass_download(p, emo__lease_offsets(lease), a->offsets, bytes, err);
    if (status != EMO_OK)
        return status;
    a->out = p->expert_rows;
    emo__lease_begin(lease, l, last < p->batch.tokens);
    while (more) {
        emo_expert_table table = {0};
        bool whole = false;
        status = emo__lease_next(lease, &table, &whole, &more, err);
        if (status != EMO_OK)
            return status;
        if (!more)
            break;
        parts = !whole;
        a->phases = whole ? 0 : EMO_EXPERTS_RUN;
        status = run_group(p, a, &table, err);
        if (status != EMO_OK || whole)
            break;
        emo__lease_done(lease);
    }
    emo__lease_end(lease);
    if (status == EMO_OK && parts) {
        a->phases = EMO_EXPERTS_COMBINE;
        status = p->ops->experts_forward(p->exec, a, err);
    }
    return status;
}
