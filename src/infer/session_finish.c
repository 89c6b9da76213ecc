/* SPDX-License-Identifier: Apache-2.0 */
/* From finished passes to tokens and text. */
#include "base/status.h"
#include "infer/session.h"

/* ---- results of the pass ---- */

static emo_status fetch_pools(emo_session *s, emo_error *err) {
    const emo_backend_ops *ops = s->model->backend->ops;
    emo_status status = EMO_OK;
    for (int32_t l = 0; l < s->model->config.layers; l++) {
        const emo__route_view *route = emo__pass_route(s->pass, l);
        for (int32_t i = 0; status == EMO_OK && route != NULL && i < s->b.n_parts; i++) {
            if (!s->b.parts[i].chooses || !emo__session_same(s, &s->b.parts[i]))
                continue;
            status = ops->download(emo__pass_exec(s->pass),
                                   s->sequences[s->b.parts[i].sequence].allowed + s->route_offset[l],
                                   route->allowed + (size_t)i * (size_t)route->routed, (size_t)route->routed, err);
        }
    }
    return status;
}

/* Whether a token is to be drawn for a part: its sequence got no tokens meanwhile and has room. */
static bool wants(const emo_session *s, const emo__part *part) {
    const emo__sequence *q = &s->sequences[part->sequence];
    return part->logit_row >= 0 && emo__session_same(s, part) && part->after == q->n && q->opt.max_tokens >= 0 &&
           q->n < s->capacity;
}

static void how_to_draw(const emo_session *s, const emo__part *part, emo_sample_row *how) {
    const emo__sequence *q = &s->sequences[part->sequence];
    *how = (emo_sample_row){0};
    how->top_p = 1.0f;
    how->repetition_penalty = 1.0f;
    if (!wants(s, part))
        return; /* greedy, for nobody */
    size_t window = q->opt.repetition_window > 0 ? (size_t)q->opt.repetition_window : part->after;
    window = window < part->after ? window : part->after;
    how->temperature = q->opt.temperature;
    how->top_k = q->opt.top_k;
    how->top_p = q->opt.top_p;
    how->min_p = q->opt.min_p;
    how->repetition_penalty = q->opt.repetition_penalty;
    how->history = q->tokens + part->after - window;
    how->history_count = (int32_t)window;
    how->seed = q->opt.seed;
    how->sequence = q->draws_as;
    how->position = (uint64_t)part->after;
}

emo_status emo__session_draw(emo_session *s, int32_t rows, emo_error *err) {
    const emo_backend_ops *ops = s->model->backend->ops;
    emo__session_batch *b = &s->b;
    emo_exec *exec = emo__pass_exec(s->pass);
    size_t vocab = (size_t)s->model->config.vocab, first = (size_t)b->n_drawn;
    int32_t last = rows > 0 && rows < b->n_logits - b->n_drawn ? b->n_drawn + rows : b->n_logits;
    size_t count = (size_t)last - first;
    const float *logits = emo__pass_logits(s->pass);
    bool any = false;
    emo_status status;
    for (int32_t i = 0; i < b->n_parts; i++) {
        const emo__part *part = &b->parts[i];
        if (part->logit_row < b->n_drawn || part->logit_row >= last)
            continue;
        how_to_draw(s, part, &b->how[part->logit_row]);
        any = any || wants(s, part);
    }
    emo_sample_args args = {0};
    args.rows = (int64_t)count;
    args.vocab = (int64_t)vocab;
    args.logits = logits + first * vocab;
    args.how = b->how + first;
    args.ids = (int32_t *)b->device_drawn + first;
    args.logprobs = (float *)b->device_logprobs + first;
    status = any ? ops->sample(exec, &args, err) : EMO_OK;
    EMO_TRY(status = emo__session_interrupt(s, status, err)); /* what is downloaded is not part of a token's piece */
    for (int32_t i = 0; i < b->n_parts; i++) {
        const emo__part *part = &b->parts[i];
        if (part->logit_row >= b->n_drawn && part->logit_row < last && emo__session_same(s, part))
            EMO_TRY(status = ops->download(exec, s->sequences[part->sequence].logits,
                                           logits + (size_t)part->logit_row * vocab, vocab * sizeof(float), err));
    }
    if (any) {
        EMO_TRY(status = ops->download(exec, b->drawn + first, args.ids, count * sizeof *b->drawn, err));
        EMO_TRY(status = ops->download(exec, b->logprobs + first, args.logprobs, count * sizeof *b->logprobs, err));
    }
    b->n_drawn = last;
    status = EMO_OK;
done:
    return status;
}

static void take_token(emo_session *s, emo__sequence *q, int32_t id, float logprob) {
    q->tokens[q->n++] = id;
    q->generated[q->n_generated] = id;
    q->logprobs[q->n_generated++] = logprob;
    q->unseen = true;
    if (id == s->eos && q->opt.ignore_eos == 0)
        emo__sequence_stop(s, q, EMO_STOP_EOS);
    else if (q->n >= s->capacity || (q->opt.max_tokens > 0 && q->n_generated - q->turn >= (size_t)q->opt.max_tokens))
        emo__sequence_stop(s, q, EMO_STOP_LENGTH);
}

emo_status emo__session_finish(emo_session *s, emo_error *err) {
    emo__session_batch *b = &s->b;
    emo_status status;
    if (b->chooses_pools)
        EMO_TRY(status = fetch_pools(s, err));
    EMO_TRY(status = emo__session_fetch_experts(s, err));
    EMO_TRY(status = s->model->backend->ops->synchronize(emo__pass_exec(s->pass), err));
    for (int32_t i = 0; i < b->n_parts; i++) { /* nothing can fail from here on */
        const emo__part *part = &b->parts[i];
        emo__sequence *q = &s->sequences[part->sequence];
        bool draws = wants(s, part);
        if (!emo__session_same(s, part))
            continue;
        q->cached = part->after;
        q->frozen = q->frozen || part->chooses;
        q->has_logits = q->cached == q->n;
        if (draws)
            take_token(s, q, b->drawn[part->logit_row], b->logprobs[part->logit_row]);
        else if (q->has_logits)
            emo__sequence_stop(s, q, EMO_STOP_LENGTH);
    }
    emo__session_count(s);
    s->in_flight = false;
done:
    return status;
}

/* ---- text ---- */

static emo_status release_held(emo__sequence *q, size_t keep, emo_error *err) {
    size_t n = q->held.size - keep;
    if (n == 0)
        return EMO_OK;
    emo_status status = emo__buf_append(&q->text, q->held.data, n, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; i < keep; i++)
        q->held.data[i] = q->held.data[n + i];
    q->held.size = keep;
    q->unseen = true;
    return EMO_OK;
}

/* Moves on what cannot become a stop string any more; `last`: everything. */
static emo_status filter(emo_session *s, emo__sequence *q, bool last, emo_error *err) {
    size_t at = 0;
    bool found = emo__stops_find(&s->stops, q->held.data, q->held.size, &at);
    size_t keep = found ? q->held.size - at : 0;
    if (!found && !last)
        keep = emo__stops_held(&s->stops, q->held.data, q->held.size);
    emo_status status = release_held(q, keep, err);
    if (status == EMO_OK && found) {
        q->held.size = 0;
        emo__sequence_stop(s, q, EMO_STOP_STRING);
    }
    return status;
}

/* Text is handed out NUL-terminated: a NUL inside would hide what follows, and is left out. The room is there. */
static void hold(emo__sequence *q, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        if (text[i] != '\0')
            q->held.data[q->held.size++] = text[i];
    }
}

static emo_status take_text(const emo_session *s, emo__sequence *q, int32_t id, emo_error *err) {
    const char *bytes = NULL;
    size_t size = 0;
    const char *text = NULL;
    size_t length = 0;
    /* a padded vocabulary has rows without a token: they give no text */
    if (emo_tokenizer_id_to_token(s->tokenizer, id, &bytes, &size, NULL) != EMO_OK || id == s->eos)
        return EMO_OK;
    /* room first: a decoder that took the id cannot be asked again */
    emo_status status = emo__buf_reserve(&q->held, 3 * (size + 8), err);
    if (status == EMO_OK)
        status = emo_decoder_push(q->decoder, id, &text, &length, err);
    if (status == EMO_OK)
        hold(q, text, length);
    return status;
}

static emo_status flush_text(emo_session *s, emo__sequence *q, emo_error *err) {
    const char *text = NULL;
    size_t length = 0;
    emo_status status = emo__buf_reserve(&q->held, 16, err);
    if (status == EMO_OK)
        status = emo_decoder_flush(q->decoder, &text, &length, err);
    if (status == EMO_OK && q->stop != EMO_STOP_STRING)
        hold(q, text, length);
    if (status == EMO_OK)
        status = filter(s, q, true, err);
    return status;
}

emo_status emo__session_emit(emo_session *s, emo__sequence *q, emo_error *err) {
    if (s->tokenizer == NULL) {
        q->texted = q->n_generated;
        q->flush_due = false;
        return EMO_OK;
    }
    emo_status status;
    while (q->texted < q->n_generated) {
        if (q->stop != EMO_STOP_STRING)
            EMO_TRY(status = take_text(s, q, q->generated[q->texted], err));
        q->texted++;
    }
    if (q->held.size > 0)
        EMO_TRY(status = filter(s, q, false, err));
    if (q->flush_due) {
        EMO_TRY(status = flush_text(s, q, err));
        q->flush_due = false;
    }
    status = EMO_OK;
done:
    return status;
}
