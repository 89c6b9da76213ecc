/* SPDX-License-Identifier: Apache-2.0 */
/* A session as the inside sees it.
 *
 * There is one kind of work: batches of tokens whose keys and values are not in the cache yet, be they of prompts or
 * just generated. session.c keeps sequences, session_batch.c makes batches, session_finish.c takes their results,
 * session_advance.c is the loop.
 */
#ifndef EMO_SRC_INFER_SESSION_H
#define EMO_SRC_INFER_SESSION_H

#include <emo/session.h>

#include "infer/kv.h"
#include "infer/stop.h"
#include "moe/pool.h"

#define EMO__SESSION_CHUNK 512 /* tokens in a batch */

typedef struct emo__sequence {
    int32_t *tokens; /* [n] prompt and generated */
    size_t n;
    size_t cap_tokens;
    size_t cached; /* of them in the cache; the rest is pending */
    int32_t *generated;
    float *logprobs;
    size_t n_generated;
    size_t cap_generated;
    size_t cap_logprobs;
    size_t turn;   /* n_generated at the last append: max_tokens counts from there */
    size_t texted; /* generated tokens that went through the decoder */
    size_t call;   /* n_generated when the running advance began */
    emo_decoder *decoder;
    emo__buf text; /* new since the last advance */
    emo__buf held; /* may become a stop string */
    float *logits; /* [vocab] of the last position; NULL until wanted */
    bool has_logits;
    bool flush_due; /* the decoder and `held` are to be emptied into `text` */
    bool unseen;    /* output that no advance has reported yet */
    bool frozen;    /* its pool is chosen */
    emo_stop_reason stop;
    uint8_t *allowed; /* [total routed] frozen pool, all layers; NULL without a pool policy */
} emo__sequence;

/* One sequence's part of a batch. */
typedef struct emo__part {
    int32_t sequence;
    int32_t logit_row; /* place among the logits; -1: none */
    size_t count;      /* tokens */
    size_t after;      /* cached + count */
} emo__part;

/* The batch under way. Every array is the session's own, so that sequences may change meanwhile. */
typedef struct emo__session_batch {
    int32_t *ids; /* [cap_tokens] */
    int32_t *positions;
    size_t cap_ids;
    size_t cap_positions;
    emo_attention_segment *segments; /* [sequences] */
    int32_t *document_begin;         /* [sequences + 1] */
    int32_t *logit_rows;             /* [sequences] */
    emo__part *parts;                /* [sequences] */
    size_t *take;                    /* [sequences] tokens of each sequence */
    int64_t *held;                   /* [sequences] rows in the cache, for growing */
    int64_t *ids_of;                 /* [sequences] document ids for the pool policy */
    uint8_t **allowed;               /* [layers] -> [parts, routed]; NULL for dense layers */
    int32_t **pool_size;             /* [layers] -> [parts] */
    uint8_t *allowed_block;
    int32_t *pool_block;
    emo_sample_row *how; /* [sequences] */
    int32_t *drawn;      /* [sequences] */
    float *logprobs;     /* [sequences] */
    void *device_drawn;  /* back end memory */
    void *device_logprobs;
    int32_t n_parts;
    int32_t n_logits;
    int32_t n_drawn; /* logits that are fetched and tokens that are drawn, of a finished pass */
    bool chooses_pools;
    emo__batch batch;
} emo__session_batch;

struct emo_session {
    emo__guard guard;
    emo_runtime *rt;
    emo_model *model; /* retained, and its reader */
    emo_session_options opt;
    emo_pool_policy *pool; /* retained */
    const emo_tokenizer *tokenizer;
    int32_t eos; /* -1: none */
    size_t capacity;
    emo__stops stops;
    size_t *route_offset; /* [layers + 1] into rows of routed experts */
    uint8_t *keep;        /* [total routed] */
    bool restricted;      /* keep has a zero */
    emo__kv kv;
    emo__sequence *sequences;
    emo__pass *pass;
    emo__pass_config pass_config; /* of `pass` */
    emo__session_batch b;
    bool in_flight;  /* a batch has begun */
    bool keep_texts; /* the last advance failed: its texts are still unseen */
};

/* ---- session.c ---- */

/* Options are copied over the defaults; everything in them is checked here. */
EMO_MUST_CHECK emo_status emo__session_create(emo_model *model, const emo_session_options *options, emo_session **out,
                                              emo_error *err);
void emo__session_destroy(emo_session *session);
EMO_MUST_CHECK emo_status emo__session_append(emo_session *session, int32_t sequence, const int32_t *tokens, size_t n,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__session_append_text(emo_session *session, const char *text, emo_error *err);
EMO_MUST_CHECK emo_status emo__session_reset(emo_session *session, emo_error *err);
/* The routed experts a sequence may use in a layer. */
const uint8_t *emo__session_allowed(const emo_session *session, int32_t sequence, int32_t layer);
static inline size_t emo__session_routed(const emo_session *session) {
    return session->route_offset[session->model->config.layers];
}

/* ---- session_options.c ---- */

EMO_MUST_CHECK emo_status emo__session_check(const emo_model *model, const emo_session_options *options,
                                             emo_error *err);

/* ---- session_batch.c ---- */

EMO_MUST_CHECK emo_status emo__session_batch_create(emo_session *session, emo_error *err);
void emo__session_batch_free(emo_session *session);
/* Makes a batch of pending tokens and begins its pass. *work false: nothing is pending. */
EMO_MUST_CHECK emo_status emo__session_begin(emo_session *session, bool *work, emo_error *err);

/* ---- session_finish.c ---- */

/* Draws the next tokens of a finished pass, at most `rows` of them (0: all). */
EMO_MUST_CHECK emo_status emo__session_draw(emo_session *session, int32_t rows, emo_error *err);
static inline bool emo__session_drawn(const emo_session *session) { return session->b.n_drawn >= session->b.n_logits; }
/* When all are drawn: takes them, and frozen pools. May be called again after a failure. */
EMO_MUST_CHECK emo_status emo__session_finish(emo_session *session, emo_error *err);
/* Turns generated tokens into text, and finds stop strings. May be called again after a failure. */
EMO_MUST_CHECK emo_status emo__session_emit(emo_session *session, emo__sequence *sequence, emo_error *err);

/* ---- session_advance.c ---- */

EMO_MUST_CHECK emo_status emo__session_advance(emo_session *session, const emo_budget *budget, emo_state *state,
                                               emo_error *err);

#endif
