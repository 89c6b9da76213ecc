/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a session, and what goes into its sequences. */
#include "infer/session.h"

#include <string.h>

#include "base/status.h"
#include "model/files.h"
#include "moe/mask.h"
#include "text/encode.h"

/* ---- restrictions ---- */

static emo_status copy_mask(emo_session *s, const emo_mask *mask, emo_error *err) {
    const emo__config *c = &s->model->config;
    const emo__mem *mem = &s->rt->mem;
    size_t widest = 1;
    emo__few_experts few = {0};
    s->route_offset = emo__calloc(mem, (size_t)c->layers + 1, sizeof *s->route_offset);
    if (s->route_offset == NULL)
        return emo__fail_memory(err, ((size_t)c->layers + 1) * sizeof *s->route_offset);
    for (int32_t l = 0; l < c->layers; l++) {
        size_t experts = (size_t)c->layer[l].experts;
        s->route_offset[l + 1] = s->route_offset[l] + (size_t)emo__config_routed(c, l);
        widest = experts > widest ? experts : widest;
    }
    uint8_t *flags = emo__alloc(mem, widest);
    s->keep = emo__alloc(mem, emo__session_routed(s) + 1);
    emo_status status = flags == NULL || s->keep == NULL ? emo__fail_memory(err, widest) : EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        size_t routed = (size_t)emo__config_routed(c, l);
        size_t kept = 0;
        if (c->layer[l].experts == 0)
            continue;
        status = emo__model_keep(s->model, mask, l, flags, err);
        for (size_t e = 0; status == EMO_OK && e < routed; e++) {
            s->keep[s->route_offset[l] + e] = flags[e];
            kept += flags[e] != 0;
        }
        s->restricted = s->restricted || kept < routed;
        if (status == EMO_OK)
            emo__few_experts_add(&few, c, l, flags);
    }
    if (status == EMO_OK)
        emo__few_experts_report(&few, s->model);
    emo__free(mem, flags);
    return status;
}

static emo_status copy_mask_guarded(emo_session *s, const emo_mask *mask, emo_error *err) {
    emo_mask *object = (emo_mask *)(uintptr_t)mask; /* only its guard is written */
    if (object != NULL && !emo__guard_try_read(&object->guard))
        return emo__fail(err, EMO_E_BUSY, "the mask is being changed by another thread");
    emo_status status = copy_mask(s, mask, err);
    if (object != NULL)
        emo__guard_end_read(&object->guard);
    return status;
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
    EMO_TRY(status = copy_mask_guarded(s, o->mask, err));
    size_t n = (size_t)o->sequences;
    s->sequences = emo__calloc(mem, n, sizeof *s->sequences);
    if (s->sequences == NULL)
        return emo__fail_memory(err, n * sizeof *s->sequences);
    for (size_t i = 0; i < n; i++)
        EMO_TRY(status = create_sequence(s, &s->sequences[i], err));
    EMO_TRY(status = emo__session_batch_create(s, err));
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
    emo__kv_init(&s->kv, model, o->sequences);
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
    for (int32_t i = 0; s->sequences != NULL && i < s->opt.sequences; i++) {
        emo__sequence *q = &s->sequences[i];
        emo__free(mem, q->tokens);
        emo__free(mem, q->generated);
        emo__free(mem, q->logprobs);
        emo__free(mem, q->logits);
        emo__free(mem, q->allowed);
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

/* ---- sequences ---- */

const uint8_t *emo__session_allowed(const emo_session *s, int32_t sequence, int32_t layer) {
    const emo__sequence *q = &s->sequences[sequence];
    return (q->frozen ? q->allowed : s->keep) + s->route_offset[layer];
}

emo_status emo__session_append(emo_session *s, int32_t sequence, const int32_t *tokens, size_t n, emo_error *err) {
    emo__sequence *q = &s->sequences[sequence];
    if (n > s->capacity - q->n)
        return emo__fail(err, EMO_E_LIMIT, "sequence %d holds %zu tokens; %zu more exceed its capacity of %zu",
                         (int)sequence, q->n, n, s->capacity);
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab)
            return emo__fail_at(err, EMO_E_RANGE, EMO_DOMAIN_ARGUMENT, (int64_t)i,
                                "token id %d at index %zu is outside the vocabulary of %d", (int)tokens[i], i,
                                (int)s->model->config.vocab);
    }
    if (n == 0)
        return EMO_OK;
    emo_status status = emo__grow(&s->rt->mem, (void **)&q->tokens, &q->cap_tokens, q->n + n, sizeof *q->tokens, err);
    if (status != EMO_OK)
        return status;
    memcpy(q->tokens + q->n, tokens, n * sizeof *tokens);
    q->n += n;
    q->flush_due = q->flush_due || q->n_generated > q->turn;
    q->turn = q->n_generated;
    q->stop = EMO_STOP_NONE;
    q->has_logits = false;
    return EMO_OK;
}

/* eos in front of an empty sequence 0, then the text. */
emo_status emo__session_append_text(emo_session *s, const char *text, emo_error *err) {
    if (s->tokenizer == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "the model has no tokenizer: append token ids, or attach one before the session is created");
    const emo__mem *mem = &s->rt->mem;
    size_t length = strlen(text);
    size_t first = s->sequences[0].n == 0 && s->opt.prepend_eos != 0 && s->eos >= 0 ? 1 : 0;
    size_t count = 0;
    int32_t *ids = NULL;
    int32_t *all = NULL;
    emo_status status;
    EMO_TRY(status = emo__encode_text(mem, s->tokenizer, text, length, &s->opt.progress, &ids, &count, err));
    all = emo__malloc_array(mem, count + 1, sizeof *all);
    if (all == NULL) {
        status = emo__fail_memory(err, (count + 1) * sizeof *all);
        goto done;
    }
    if (first > 0)
        all[0] = s->eos;
    if (count > 0)
        memcpy(all + first, ids, count * sizeof *ids);
    status = emo__session_append(s, 0, all, first + count, err);
done:
    emo__free(mem, all);
    emo__free(mem, ids);
    return status;
}

emo_status emo__session_reset(emo_session *s, emo_error *err) {
    if (s->pass != NULL) {
        emo_status status = s->model->backend->ops->synchronize(emo__pass_exec(s->pass), err);
        if (status != EMO_OK)
            return status;
    }
    s->in_flight = false;
    s->keep_texts = false;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        emo__sequence *q = &s->sequences[i];
        const char *text;
        size_t length;
        if (q->decoder != NULL) {
            emo_status status = emo_decoder_flush(q->decoder, &text, &length, err);
            if (status != EMO_OK)
                return status;
        }
        q->n = q->cached = q->n_generated = q->turn = q->texted = q->call = 0;
        q->text.size = q->held.size = 0;
        q->text.data[0] = '\0';
        q->has_logits = q->flush_due = q->unseen = q->frozen = false;
        q->stop = EMO_STOP_NONE;
    }
    return EMO_OK;
}
