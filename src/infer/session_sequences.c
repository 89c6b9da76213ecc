/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences come, grow, stop and go. */
#include <string.h>

#include "base/status.h"
#include "infer/session.h"
#include "model/files.h"
#include "text/encode.h"

/* ---- coming and going ---- */

/* Without options of its own a sequence has the session's. */
static void take(emo_session *s, int32_t sequence, const emo_sequence_options *o) {
    emo__sequence *q = &s->sequences[sequence];
    q->taken = true;
    q->draws_as = o != NULL ? 0 : (uint64_t)sequence;
    if (o != NULL) {
        q->opt = *o;
    } else {
        q->opt = (emo_sequence_options)EMO_SEQUENCE_OPTIONS_INIT;
        emo__sequence_defaults(&s->opt, &q->opt);
    }
    q->opt.mask = NULL; /* copied */
    if (q->recent != NULL)
        memset(q->recent, 0, 2 * s->roster.words * sizeof *q->recent);
    q->n_recent = 0;
    emo__session_expect(s, sequence);
}

emo_status emo__session_add(emo_session *s, const emo_sequence_options *o, int32_t *sequence, emo_error *err) {
    const emo__mem *mem = &s->rt->mem;
    int32_t i = 0;
    while (i < s->opt.sequences && s->sequences[i].taken)
        i++;
    if (i == s->opt.sequences)
        return emo__fail(err, EMO_E_LIMIT, "all %d sequences of the session are taken: remove one first",
                         (int)s->opt.sequences);
    emo__sequence *q = &s->sequences[i];
    emo_status status = o != NULL ? emo__sequence_check(o, err) : EMO_OK;
    if (status == EMO_OK && o != NULL && o->mask != NULL) {
        bool restricted = false;
        uint8_t *keep = emo__alloc(mem, emo__session_routed(s) + 1);
        status = keep != NULL ? emo__session_keep(s, o->mask, s->keep, keep, &restricted, err)
                              : emo__fail_memory(err, emo__session_routed(s) + 1);
        if (status != EMO_OK)
            emo__free(mem, keep);
        else
            q->keep = keep; /* a free sequence has none */
    }
    if (status != EMO_OK)
        return status;
    take(s, i, o);
    *sequence = i;
    return EMO_OK;
}

void emo__sequence_stop(emo_session *s, emo__sequence *q, emo_stop_reason reason) {
    q->stop = reason;
    q->flush_due = true;
    q->ended = s->did.batches;
}

void emo__session_cancel(emo_session *s, int32_t sequence) {
    emo__sequence *q = &s->sequences[sequence];
    if (!q->taken)
        return;
    if (q->stop == EMO_STOP_NONE)
        emo__sequence_stop(s, q, EMO_STOP_CANCELLED);
    emo__session_give_back(s, sequence);
}

emo_status emo__session_remove(emo_session *s, int32_t sequence, emo_error *err) {
    emo__sequence *q = &s->sequences[sequence];
    const char *text;
    size_t length;
    if (q->decoder != NULL) {
        emo_status status = emo_decoder_flush(q->decoder, &text, &length, err);
        if (status != EMO_OK)
            return status;
    }
    emo__session_give_back(s, sequence);
    emo__free(&s->rt->mem, q->keep);
    q->keep = NULL;
    q->n = q->n_generated = q->turn = q->texted = q->call = 0;
    q->text.size = q->held.size = 0;
    q->text.data[0] = '\0';
    q->taken = q->has_logits = q->flush_due = q->unseen = q->frozen = false;
    q->stop = EMO_STOP_NONE;
    q->waits = 0;
    return EMO_OK;
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
        emo_status status = emo__session_remove(s, i, err);
        if (status != EMO_OK)
            return status;
    }
    s->did = (emo_session_statistics){0};
    s->arrivals = 0;
    return EMO_OK;
}

void emo__session_statistics(const emo_session *s, emo_session_statistics *out) {
    *out = s->did;
    for (int32_t i = 0; i < s->opt.sequences; i++)
        out->sequences += s->sequences[i].taken;
    out->page_tokens = (int32_t)s->kv.page_rows;
    out->page_bytes = emo__kv_page_bytes(&s->kv);
    out->pages_most = s->kv.most_pages;
    out->pages_used = s->kv.used;
    for (int64_t i = 0; i < s->kv.pages; i++)
        out->pages_shared += s->kv.holders[i] > 1;
}

/* ---- tokens ---- */

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
    if (!q->taken)
        take(s, sequence, NULL);
    memcpy(q->tokens + q->n, tokens, n * sizeof *tokens);
    if (emo__sequence_pending(q) == 0) {
        q->arrival = s->arrivals++;
        q->waits = 0;
    }
    q->n += n;
    q->flush_due = q->flush_due || q->n_generated > q->turn;
    q->turn = q->n_generated;
    q->stop = EMO_STOP_NONE;
    q->has_logits = false;
    return EMO_OK;
}

/* eos in front of an empty sequence, then the text. */
emo_status emo__session_append_text(emo_session *s, int32_t sequence, const char *text, emo_error *err) {
    if (s->tokenizer == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "the model has no tokenizer: append token ids, or attach one before the session is created");
    const emo__mem *mem = &s->rt->mem;
    size_t length = strlen(text);
    size_t first = s->sequences[sequence].n == 0 && s->opt.prepend_eos != 0 && s->eos >= 0 ? 1 : 0;
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
    status = emo__session_append(s, sequence, all, first + count, err);
done:
    emo__free(mem, all);
    emo__free(mem, ids);
    return status;
}
