/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a session. */
#include "infer/session.h"

#include "base/status.h"
#include "model/files.h"
#include "moe/mask.h"

/* ---- restrictions ---- */

static emo_status keep_of(const emo_session *s, const emo_mask *mask, const uint8_t *within, uint8_t *keep,
                          bool *restricted, emo_error *err) {
    const emo__config *c = &s->model->config;
    const emo__mem *mem = &s->rt->mem;
    size_t widest = emo__config_widest(c);
    emo__few_experts few = {0};
    emo_status status = EMO_OK;
    uint8_t *flags = emo__calloc(mem, widest, 1);
    if (flags == NULL)
        return emo__fail_memory(err, widest);
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        size_t routed = (size_t)emo__config_routed(c, l);
        size_t at = s->route_offset[l];
        size_t kept = 0;
        if (c->layer[l].experts == 0)
            continue;
        status = emo__model_keep(s->model, mask, l, flags, err);
        for (size_t e = 0; status == EMO_OK && e < routed; e++) {
            flags[e] = flags[e] != 0 && (within == NULL || within[at + e] != 0);
            keep[at + e] = flags[e];
            kept += flags[e] != 0;
        }
        *restricted = *restricted || kept < routed;
        if (status == EMO_OK)
            emo__few_experts_add(&few, c, l, flags);
    }
    if (status == EMO_OK)
        emo__few_experts_report(&few, s->model);
    emo__free(mem, flags);
    return status;
}

emo_status emo__session_keep(const emo_session *s, const emo_mask *mask, const uint8_t *within, uint8_t *keep,
                             bool *restricted, emo_error *err) {
    emo_mask *object = (emo_mask *)(uintptr_t)mask; /* only its guard is written */
    if (object != NULL && !emo__guard_try_read(&object->guard))
        return emo__fail(err, EMO_E_BUSY, "the mask is being changed by another thread");
    emo_status status = keep_of(s, mask, within, keep, restricted, err);
    if (object != NULL)
        emo__guard_end_read(&object->guard);
    return status;
}

static emo_status copy_mask(emo_session *s, const emo_mask *mask, emo_error *err) {
    const emo__config *c = &s->model->config;
    const emo__mem *mem = &s->rt->mem;
    s->route_offset = emo__calloc(mem, (size_t)c->layers + 1, sizeof *s->route_offset);
    if (s->route_offset == NULL)
        return emo__fail_memory(err, ((size_t)c->layers + 1) * sizeof *s->route_offset);
    for (int32_t l = 0; l < c->layers; l++)
        s->route_offset[l + 1] = s->route_offset[l] + (size_t)emo__config_routed(c, l);
    s->keep = emo__alloc(mem, emo__session_routed(s) + 1);
    if (s->keep == NULL)
        return emo__fail_memory(err, emo__session_routed(s) + 1);
    return emo__session_keep(s, mask, NULL, s->keep, &s->restricted, err);
}

/* A policy that cannot work says so before any work is done. */
static emo_status check_pool(const emo_session *s, emo_error *err) {
    const emo__config *c = &s->model->config;
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        emo__pool_request request = {0};
        emo__pool_rule rule;
        request.layer = l;
        request.routed = emo__config_routed(c, l);
        request.chosen = emo__config_chosen(c, l);
        request.documents = s->opt.sequences;
        status = emo__pool_sizes(s->pool, &request, s->b.pool_block, &rule, err);
        if (status != EMO_OK)
            status = emo__fail_prefix(err, status, "layer %d", (int)l);
    }
    return status;
}

/* ---- creation ---- */

static emo_status create_sequence(emo_session *s, emo__sequence *q, emo_error *err) {
    const emo__mem *mem = &s->rt->mem;
    emo__buf_init(&q->text, mem);
    emo__buf_init(&q->held, mem);
    emo_status status = emo__buf_reserve(&q->text, 1, err);
    if (status == EMO_OK && s->pool != NULL) {
        q->allowed = emo__alloc(mem, emo__session_routed(s) + 1);
        if (q->allowed == NULL)
            status = emo__fail_memory(err, emo__session_routed(s) + 1);
    }
    if (status == EMO_OK && s->tokenizer != NULL) {
        emo_decoder_options options = EMO_DECODER_OPTIONS_INIT;
        options.skip_special = 1;
        status = emo_decoder_create(s->tokenizer, &options, &q->decoder, err);
    }
    return status;
}

static emo_status fill(emo_session *s, const emo_session_options *o, emo_error *err) {
    const emo__mem *mem = &s->rt->mem;
    emo_status status;
    EMO_TRY(status = emo__stops_copy(mem, o->stop, o->n_stop, &s->stops, err));
    EMO_TRY(status = copy_mask(s, o->mask, err));
    size_t n = (size_t)o->sequences;
    s->sequences = emo__calloc(mem, n, sizeof *s->sequences);
    if (s->sequences == NULL)
        return emo__fail_memory(err, n * sizeof *s->sequences);
    for (size_t i = 0; i < n; i++)
        EMO_TRY(status = create_sequence(s, &s->sequences[i], err));
    EMO_TRY(status = emo__session_batch_create(s, err));
    EMO_TRY(status = emo__roster_create(s, err));
    status = check_pool(s, err);
done:
    return status;
}

emo_status emo__session_create(emo_model *model, const emo_session_options *o, emo_session **out, emo_error *err) {
    emo_status status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    emo_session *s = NULL;
    status = emo__session_check(model, o, err);
    if (status == EMO_OK) {
        s = emo__calloc(&model->rt->mem, 1, sizeof *s);
        if (s == NULL)
            status = emo__fail_memory(err, sizeof *s);
    }
    if (status != EMO_OK) {
        emo__model_end_read(model);
        return status;
    }
    emo__guard_init(&s->guard);
    s->rt = emo__runtime_retain(model->rt);
    s->model = emo__model_retain(model);
    s->opt = *o;
    s->opt.mask = NULL; /* copied below, like the strings */
    s->opt.stop = NULL;
    if (emo_pool_policy_kind(o->pool) != EMO_POOL_NONE)
        s->pool = emo__pool_retain((emo_pool_policy *)(uintptr_t)o->pool);
    s->tokenizer = model->tokenizer;
    s->eos = model->config.eos;
    if (s->eos < 0 && s->tokenizer != NULL)
        s->eos = emo_tokenizer_eos(s->tokenizer);
    s->capacity = (size_t)(o->capacity > 0 ? o->capacity : model->config.max_positions);
    status = emo__kv_init(&s->kv, model, o->sequences, (int64_t)s->capacity, o->page_tokens, o->cache_bytes, err);
    if (status == EMO_OK && (uint64_t)s->kv.most_pages * (uint64_t)s->kv.page_rows < s->capacity)
        s->capacity = (size_t)(s->kv.most_pages * s->kv.page_rows);
    if (status == EMO_OK)
        status = fill(s, o, err);
    if (status != EMO_OK) {
        emo__session_destroy(s);
        return status;
    }
    *out = s;
    return EMO_OK;
}

void emo__session_destroy(emo_session *s) {
    if (s == NULL)
        return;
    emo_runtime *rt = s->rt;
    emo_model *model = s->model;
    const emo__mem *mem = &rt->mem;
    emo__pass_destroy(s->pass);
    emo__kv_free(&s->kv);
    emo__session_batch_free(s);
    emo__roster_free(s);
    for (int32_t i = 0; s->sequences != NULL && i < s->opt.sequences; i++) {
        emo__sequence *q = &s->sequences[i];
        emo__free(mem, q->tokens);
        emo__free(mem, q->generated);
        emo__free(mem, q->logprobs);
        emo__free(mem, q->logits);
        emo__free(mem, q->allowed);
        emo__free(mem, q->keep);
        emo_decoder_release(q->decoder);
        emo__buf_free(&q->text);
        emo__buf_free(&q->held);
    }
    emo__free(mem, s->sequences);
    emo__free(mem, s->keep);
    emo__free(mem, s->route_offset);
    emo__stops_free(mem, &s->stops);
    emo__pool_release(s->pool);
    emo__free(mem, s);
    emo__model_end_read(model);
    emo_model_release(model);
    emo_runtime_release(rt);
}

const uint8_t *emo__session_allowed(const emo_session *s, int32_t sequence, int32_t layer) {
    const emo__sequence *q = &s->sequences[sequence];
    const uint8_t *keep = q->keep != NULL ? q->keep : s->keep;
    return (q->frozen ? q->allowed : keep) + s->route_offset[layer];
}
