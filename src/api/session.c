/* SPDX-License-Identifier: Apache-2.0 */
#include "infer/session.h"

#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "model/files.h"

/* Constant arguments are read under their guard, which is not part of the object's value. */
static bool begin_read(const emo_session *session) {
    return emo__guard_try_read(&((emo_session *)(uintptr_t)session)->guard);
}
static void end_read(const emo_session *session) { emo__guard_end_read(&((emo_session *)(uintptr_t)session)->guard); }

static emo_status is_null(const char *name, emo_error *err) {
    return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", name);
}
static emo_status busy(emo_error *err) { return emo__fail(err, EMO_E_BUSY, "the session is in use by another thread"); }
static bool has_sequence(const emo_session *session, int32_t sequence) {
    return sequence >= 0 && sequence < session->opt.sequences;
}
static emo_status no_sequence(const emo_session *session, int32_t sequence, emo_error *err) {
    return emo__fail(err, EMO_E_RANGE, "sequence %d is outside the session's %d", (int)sequence,
                     (int)session->opt.sequences);
}

/* A call that changes the session, and one that names a sequence of it. */
static emo_status begin_write(emo_session *session, emo_error *err) {
    return emo__guard_try_write(&session->guard) ? EMO_OK : busy(err);
}
static emo_status begin_write_of(emo_session *session, int32_t sequence, emo_error *err) {
    return has_sequence(session, sequence) ? begin_write(session, err) : no_sequence(session, sequence, err);
}
static emo_status end_write(emo_session *session, emo_status status) {
    emo__guard_end_write(&session->guard);
    return status;
}

emo_status emo_session_create(emo_model *model, const emo_session_options *options, emo_session **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (model == NULL || out == NULL)
        return is_null(model == NULL ? "model" : "out", err);
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_session_options", err);
    return status == EMO_OK ? emo__session_create(model, &o, out, err) : status;
}

void emo_session_release(emo_session *session) { emo__session_destroy(session); }

emo_status emo_session_append_text(emo_session *session, const char *text, emo_error *err) {
    return emo_session_append_text_to(session, 0, text, err);
}

emo_status emo_session_append_text_to(emo_session *session, int32_t sequence, const char *text, emo_error *err) {
    emo__error_clear(err);
    if (session == NULL || text == NULL)
        return is_null(session == NULL ? "session" : "text", err);
    emo_status status = begin_write_of(session, sequence, err);
    return status == EMO_OK ? end_write(session, emo__session_append_text(session, sequence, text, err)) : status;
}

emo_status emo_session_add(emo_session *session, const emo_sequence_options *options, int32_t *sequence,
                           emo_error *err) {
    emo__error_clear(err);
    if (sequence != NULL)
        *sequence = -1;
    if (session == NULL || sequence == NULL)
        return is_null(session == NULL ? "session" : "sequence", err);
    emo_sequence_options o = EMO_SEQUENCE_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_sequence_options", err);
    if (status == EMO_OK)
        status = begin_write(session, err);
    return status == EMO_OK ? end_write(session, emo__session_add(session, options != NULL ? &o : NULL, sequence, err))
                            : status;
}

emo_status emo_session_cancel(emo_session *session, int32_t sequence, emo_error *err) {
    emo__error_clear(err);
    if (session == NULL)
        return is_null("session", err);
    emo_status status = begin_write_of(session, sequence, err);
    if (status != EMO_OK)
        return status;
    emo__session_cancel(session, sequence);
    return end_write(session, EMO_OK);
}

emo_status emo_session_remove(emo_session *session, int32_t sequence, emo_error *err) {
    emo__error_clear(err);
    if (session == NULL)
        return is_null("session", err);
    emo_status status = begin_write_of(session, sequence, err);
    return status == EMO_OK ? end_write(session, emo__session_remove(session, sequence, err)) : status;
}

emo_status emo_session_append_tokens(emo_session *session, int32_t sequence, const int32_t *tokens, size_t n,
                                     emo_error *err) {
    emo__error_clear(err);
    if (session == NULL || (tokens == NULL && n > 0))
        return is_null(session == NULL ? "session" : "tokens", err);
    emo_status status = begin_write_of(session, sequence, err);
    return status == EMO_OK ? end_write(session, emo__session_append(session, sequence, tokens, n, err)) : status;
}

emo_status emo_session_advance(emo_session *session, const emo_budget *budget, emo_state *state, emo_error *err) {
    emo__error_clear(err);
    if (state != NULL)
        *state = EMO_STATE_PENDING;
    if (session == NULL || state == NULL)
        return is_null(session == NULL ? "session" : "state", err);
    if (budget != NULL && (budget->steps < 0 || budget->tokens < 0))
        return emo__fail(err, EMO_E_RANGE, "emo_budget.%s is %d; it must not be negative",
                         budget->steps < 0 ? "steps" : "tokens",
                         (int)(budget->steps < 0 ? budget->steps : budget->tokens));
    emo_status status = begin_write(session, err);
    return status == EMO_OK ? end_write(session, emo__session_advance(session, budget, state, err)) : status;
}

const char *emo_session_text(const emo_session *session) { return emo_session_text_of(session, 0); }

const char *emo_session_text_of(const emo_session *session, int32_t sequence) {
    if (session == NULL || !has_sequence(session, sequence) || !begin_read(session))
        return "";
    const char *text = session->sequences[sequence].text.data;
    end_read(session);
    return text;
}

int64_t emo_session_replayed(const emo_session *session) { return session != NULL ? session->replayed : 0; }

size_t emo_session_generated(const emo_session *session, int32_t sequence, const int32_t **tokens,
                             const float **logprobs) {
    if (tokens != NULL)
        *tokens = NULL;
    if (logprobs != NULL)
        *logprobs = NULL;
    if (session == NULL || !has_sequence(session, sequence) || !begin_read(session))
        return 0;
    const emo__sequence *q = &session->sequences[sequence];
    size_t n = q->n_generated;
    if (tokens != NULL)
        *tokens = q->generated;
    if (logprobs != NULL)
        *logprobs = q->logprobs;
    end_read(session);
    return n;
}

emo_stop_reason emo_session_stop_reason(const emo_session *session, int32_t sequence) {
    if (session == NULL || !has_sequence(session, sequence) || !begin_read(session))
        return EMO_STOP_NONE;
    emo_stop_reason reason = session->sequences[sequence].stop;
    end_read(session);
    return reason;
}

emo_status emo_session_logits(const emo_session *session, int32_t sequence, float *out, size_t capacity,
                              emo_error *err) {
    emo__error_clear(err);
    if (session == NULL || out == NULL)
        return is_null(session == NULL ? "session" : "out", err);
    if (!has_sequence(session, sequence))
        return no_sequence(session, sequence, err);
    if (!begin_read(session))
        return busy(err);
    const emo__sequence *q = &session->sequences[sequence];
    size_t vocab = (size_t)session->model->config.vocab;
    emo_status status = EMO_OK;
    if (capacity < vocab)
        status = emo__fail(err, EMO_E_LIMIT, "room for %zu logits; the vocabulary has %zu", capacity, vocab);
    else if (!q->has_logits)
        status = emo__fail(err, EMO_E_NOT_FOUND, "the prompt of sequence %d is not done: advance the session first",
                           (int)sequence);
    else
        memcpy(out, q->logits, vocab * sizeof *out);
    end_read(session);
    return status;
}

static emo_status pool_mask(const emo_session *session, int32_t sequence, emo_mask *mask, emo_error *err) {
    const emo__config *c = &session->model->config;
    emo_status status = EMO_OK;
    for (int32_t l = 0; l < c->layers; l++) {
        const uint8_t *allowed = emo__session_allowed(session, sequence, l);
        for (int32_t e = 0; status == EMO_OK && e < emo__config_routed(c, l); e++) {
            if (allowed[e] == 0 && emo_mask_is_always(mask, l, e) == 0)
                status = emo_mask_set(mask, l, e, 0, err);
        }
    }
    return status;
}

emo_status emo_session_pool(const emo_session *session, int32_t sequence, emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (session == NULL || out == NULL)
        return is_null(session == NULL ? "session" : "out", err);
    if (!has_sequence(session, sequence))
        return no_sequence(session, sequence, err);
    if (!begin_read(session))
        return busy(err);
    emo_mask *mask = NULL;
    emo_status status = emo__model_mask(session->model, &mask, err);
    if (status == EMO_OK)
        status = pool_mask(session, sequence, mask, err);
    if (status == EMO_OK)
        *out = mask;
    else
        emo_mask_release(mask);
    end_read(session);
    return status;
}

emo_status emo_session_get_statistics(const emo_session *session, emo_session_statistics *statistics, emo_error *err) {
    emo__error_clear(err);
    if (session == NULL || statistics == NULL)
        return is_null(session == NULL ? "session" : "statistics", err);
    emo_session_statistics full = EMO_SESSION_STATISTICS_INIT;
    emo_status status = emo__info_check(statistics, "emo_session_statistics", err);
    if (status != EMO_OK)
        return status;
    if (!begin_read(session))
        return busy(err);
    emo__session_statistics(session, &full);
    end_read(session);
    emo__info_give(statistics, &full, sizeof full);
    return EMO_OK;
}

emo_status emo_session_reset(emo_session *session, emo_error *err) {
    emo__error_clear(err);
    if (session == NULL)
        return is_null("session", err);
    emo_status status = begin_write(session, err);
    return status == EMO_OK ? end_write(session, emo__session_reset(session, err)) : status;
}
