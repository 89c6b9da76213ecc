/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a pass: creation, the list of steps, the beginning of a run. pass_advance.c moves the cursor. */
#include "model/pass.h"

#include <string.h>

#include "base/status.h"
#include "model/pass_state.h"

/* Capacities beyond these are mistakes; below them the arena's arithmetic cannot overflow 63 bits. */
#define MAX_TOKENS ((int64_t)1 << 24)

static emo_status build_steps(emo__pass *p, emo_error *err) {
    static const int32_t attention[] = {EMO__STAGE_ATTN_NORM, EMO__STAGE_QKV,      EMO__STAGE_ROPE,
                                        EMO__STAGE_ATTENTION, EMO__STAGE_ATTN_OUT, EMO__STAGE_FFN_NORM};
    static const int32_t moe[] = {EMO__STAGE_ROUTE_LOGITS, EMO__STAGE_ROUTE_POOL, EMO__STAGE_ROUTE_SELECT,
                                  EMO__STAGE_EXPERTS};
    static const int32_t dense[] = {EMO__STAGE_DENSE};
    int32_t layers = p->model->config.layers;
    size_t most = 5 + (size_t)layers * 10;
    p->steps = emo__malloc_array(&p->model->rt->mem, most, sizeof *p->steps);
    if (p->steps == NULL)
        return emo__fail_memory(err, most * sizeof *p->steps);
    size_t n = 0;
    p->steps[n++] = (emo__step){EMO__STAGE_ANGLES, -1};
    p->steps[n++] = (emo__step){EMO__STAGE_EMBED, -1};
    for (int32_t l = 0; l < layers; l++) {
        for (size_t i = 0; i < sizeof attention / sizeof attention[0]; i++)
            p->steps[n++] = (emo__step){attention[i], l};
        const int32_t *ffn = emo__layer_is_moe(p, l) ? moe : dense;
        size_t n_ffn = emo__layer_is_moe(p, l) ? sizeof moe / sizeof moe[0] : 1;
        for (size_t i = 0; i < n_ffn; i++)
            p->steps[n++] = (emo__step){ffn[i], l};
    }
    p->steps[n++] = (emo__step){EMO__STAGE_FINAL_NORM, -1};
    p->steps[n++] = (emo__step){EMO__STAGE_HEAD_LOSS, -1};
    p->steps[n++] = (emo__step){EMO__STAGE_HEAD_LOGITS, -1};
    p->n_steps = n;
    return EMO_OK;
}

static emo_status upload_always(emo__pass *p, emo_error *err) {
    int32_t *at = p->always;
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < p->model->config.layers; l++) {
        const emo__layer_config *layer = &p->model->config.layer[l];
        p->layers[l].always = at;
        if (layer->n_always > 0)
            status = p->ops->upload(p->exec, at, layer->always, (size_t)layer->n_always * sizeof *at, err);
        at += layer->n_always;
    }
    return status;
}

emo_status emo__pass_create(emo_model *model, const emo__pass_config *config, emo__pass **out, emo_error *err) {
    *out = NULL;
    const emo__mem *mem = &model->rt->mem;
    if (config->max_tokens < 1 || config->max_tokens > MAX_TOKENS || config->max_documents < 1 ||
        config->max_documents > MAX_TOKENS || config->max_logits < 0 || config->max_logits > MAX_TOKENS)
        return emo__fail(err, EMO_E_RANGE, "a pass over %lld tokens and %lld documents; at most %lld are possible",
                         (long long)config->max_tokens, (long long)config->max_documents, (long long)MAX_TOKENS);
    emo__pass *p = emo__calloc(mem, 1, sizeof *p);
    if (p == NULL)
        return emo__fail_memory(err, sizeof *p);
    p->model = emo__model_retain(model);
    p->ops = model->backend->ops;
    p->cfg = *config;
    emo_status status = EMO_OK;
    p->layers = emo__calloc(mem, (size_t)model->config.layers, sizeof *p->layers);
    if (p->layers == NULL)
        status = emo__fail_memory(err, (size_t)model->config.layers * sizeof *p->layers);
    if (status == EMO_OK)
        status = build_steps(p, err);
    if (status == EMO_OK && p->cfg.save)
        status = emo__model_need_all(model, "training", err);
    if (status == EMO_OK && model->cache != NULL)
        status = emo__lease_create(model, &p->lease, err);
    p->exec = config->exec;
    if (status == EMO_OK && p->exec == NULL)
        status = emo__model_exec(model, &p->exec, err);
    if (status == EMO_OK) {
        status = p->ops->mem_alloc(model->backend, emo__pass_layout(p, NULL), &p->arena, err);
    }
    if (status == EMO_OK) {
        (void)emo__pass_layout(p, p->arena);
        status = upload_always(p, err);
    }
    if (status != EMO_OK) {
        emo__pass_destroy(p);
        return status;
    }
    *out = p;
    return EMO_OK;
}

void emo__pass_destroy(emo__pass *p) {
    if (p == NULL)
        return;
    emo_model *model = p->model;
    const emo__mem *mem = &model->rt->mem;
    p->ops->mem_free(model->backend, p->cos);
    p->ops->mem_free(model->backend, p->sin);
    p->ops->mem_free(model->backend, p->arena);
    if (p->cfg.exec == NULL)
        p->ops->exec_destroy(p->exec);
    emo__lease_destroy(p->lease);
    emo__free(mem, p->steps);
    emo__free(mem, p->layers);
    emo__free(mem, p);
    emo_model_release(model);
}

uint64_t emo__pass_slices(const emo__pass *p) { return p->slices; }
emo_exec *emo__pass_exec(const emo__pass *p) { return p->exec; }
size_t emo__pass_kept_bytes(const emo__pass *p) { return p->kept_bytes; }
emo_status emo__pass_reserve(emo__pass *p, int64_t positions, emo_error *err) {
    return emo__pass_angles_room(p, positions, err);
}

static emo_status check_batch(const emo__pass *p, const emo__batch *b, int64_t *positions, emo_error *err) {
    const emo__config *c = &p->model->config;
    if (b->tokens < 1 || b->tokens > p->cfg.max_tokens || b->n_documents < 1 || b->n_documents > p->cfg.max_documents ||
        b->n_logits > p->cfg.max_logits)
        return emo__fail(err, EMO_E_INTERNAL,
                         "a batch of %lld tokens, %lld documents and %lld logit rows exceeds the pass",
                         (long long)b->tokens, (long long)b->n_documents, (long long)b->n_logits);
    *positions = 0;
    for (int64_t t = 0; t < b->tokens; t++) {
        if (b->ids[t] < 0 || b->ids[t] >= c->vocab)
            return emo__fail(err, EMO_E_RANGE, "token id %d at place %lld is outside the vocabulary of %d",
                             (int)b->ids[t], (long long)t, (int)c->vocab);
        if (b->labels != NULL && b->labels[t] != -100 && (b->labels[t] < 0 || b->labels[t] >= c->vocab))
            return emo__fail(err, EMO_E_RANGE, "label %d at place %lld is outside the vocabulary of %d",
                             (int)b->labels[t], (long long)t, (int)c->vocab);
        if (b->positions[t] < 0 || b->positions[t] >= c->max_positions)
            return emo__fail(err, EMO_E_LIMIT, "position %d is outside the model's %d (max_position_embeddings)",
                             (int)b->positions[t], (int)c->max_positions);
        if (b->positions[t] >= *positions)
            *positions = b->positions[t] + 1;
    }
    return EMO_OK;
}

static emo_status upload_restrictions(emo__pass *p, int32_t l, emo_error *err) {
    const emo__batch *b = &p->batch;
    emo__layer_state *s = &p->layers[l];
    size_t n = (size_t)b->n_documents;
    emo_status status = EMO_OK;
    if (b->allowed != NULL && b->allowed[l] != NULL)
        status = p->ops->upload(p->exec, s->allowed_in, b->allowed[l], n * (size_t)s->route.routed, err);
    if (status == EMO_OK && b->pool_size != NULL && b->pool_size[l] != NULL)
        status = p->ops->upload(p->exec, s->pool_size, b->pool_size[l], n * sizeof(int32_t), err);
    return status;
}

emo_status emo__pass_begin(emo__pass *p, const emo__batch *batch, emo_error *err) {
    int64_t positions = 0;
    emo_status status;
    p->has_batch = false;
    EMO_TRY(status = check_batch(p, batch, &positions, err));
    EMO_TRY(status = emo__pass_angles_room(p, positions, err));
    if (batch->tokens != p->batch.tokens) /* what takes how long was learnt with others */
        memset(p->pace, 0, sizeof p->pace);
    p->batch = *batch;
    p->longest = 1;
    for (int64_t i = 0; i < batch->n_attention; i++)
        p->longest = batch->attention[i].k_count > p->longest ? batch->attention[i].k_count : p->longest;
    size_t ints = (size_t)batch->tokens * sizeof(int32_t);
    EMO_TRY(status = p->ops->upload(p->exec, p->ids, batch->ids, ints, err));
    EMO_TRY(status = p->ops->upload(p->exec, p->positions, batch->positions, ints, err));
    if (batch->labels != NULL)
        EMO_TRY(status = p->ops->upload(p->exec, p->labels, batch->labels, ints, err));
    if (batch->n_logits > 0)
        EMO_TRY(status = p->ops->upload(p->exec, p->logit_rows, batch->logit_rows,
                                        (size_t)batch->n_logits * sizeof(int32_t), err));
    EMO_TRY(status = p->ops->upload(p->exec, p->document_begin, batch->document_begin,
                                    ((size_t)batch->n_documents + 1) * sizeof(int32_t), err));
    EMO_TRY(status = p->ops->zero(p->exec, p->sums, p->sums_bytes, err));
    for (int32_t l = 0; l < p->model->config.layers; l++) {
        if (emo__layer_is_moe(p, l))
            EMO_TRY(status = upload_restrictions(p, l, err));
    }
    if (p->lease != NULL) /* pools to be chosen are not known yet */
        emo__lease_pass(p->lease, batch->pool_size == NULL && !(batch->pool_mass > 0.0f) ? batch->allowed : NULL,
                        batch->n_documents);
    p->at_step = 0;
    p->at_row = 0;
    p->at_task = 0;
    p->has_batch = true;
done:
    return status;
}

emo_status emo__pass_run(emo__pass *p, const emo__batch *batch, emo_error *err) {
    bool done = false;
    emo_status status = emo__pass_begin(p, batch, err);
    if (status == EMO_OK)
        status = emo__pass_advance(p, NULL, &done, err);
    return status;
}

emo_status emo__pass_reselect(emo__pass *p, int32_t layer, emo_error *err) {
    const emo__route_view *r = &p->layers[layer].route;
    emo_status status;
    EMO_TRY(status = upload_restrictions(p, layer, err));
    EMO_TRY(status = p->ops->zero(p->exec, r->counts, (size_t)((char *)(r->z_sum + 1) - (char *)r->counts), err));
    for (size_t i = 0; i < p->n_steps; i++) {
        const emo__step *step = &p->steps[i];
        if (step->layer != layer)
            continue;
        if (step->stage == EMO__STAGE_ROUTE_POOL || step->stage == EMO__STAGE_ROUTE_SELECT)
            EMO_TRY(status = emo__step_run(p, step, 0, emo__step_rows(p, step), err));
        if (step->stage == EMO__STAGE_EXPERTS) {
            p->at_step = i;
            p->at_row = 0;
            p->at_task = 0;
        }
    }
done:
    return status;
}

emo_status emo__pass_download(emo__pass *p, void *dst, const void *src, size_t bytes, emo_error *err) {
    emo_status status = p->ops->download(p->exec, dst, src, bytes, err);
    return status == EMO_OK ? p->ops->synchronize(p->exec, err) : status;
}

const emo__route_view *emo__pass_route(const emo__pass *p, int32_t layer) {
    return emo__layer_is_moe(p, layer) ? &p->layers[layer].route : NULL;
}
const float *emo__pass_logits(const emo__pass *p) { return p->logits; }
const float *emo__pass_token_loss(const emo__pass *p) { return p->token_loss; }
const int32_t *emo__pass_document_begin(const emo__pass *p) { return p->document_begin; }
double *emo__pass_ce_sum(const emo__pass *p) { return p->sums; }
const float *emo__pass_block_input(const emo__pass *p) { return p->x; }
const float *emo__pass_residual(const emo__pass *p) { return p->h; }
void emo__pass_set_profile(emo__pass *p, emo__profile *profile) { p->profile = profile; }
void emo__pass_set_grads(emo__pass *p, const emo__grads *grads) { p->grads = grads; }
