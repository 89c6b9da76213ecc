/* SPDX-License-Identifier: Apache-2.0 */
/* A session as the inside sees it.
 *
 * There is one kind of work: batches of tokens whose keys and values are not in the cache yet, be they of prompts or
 * just generated. session.c is its life, session_sequences.c what goes into sequences and out of them,
 * session_pages.c gives them pages of the cache, session_schedule.c chooses who takes part in a batch, session_batch.c
 * makes it, session_finish.c takes its results, session_experts.c counts the experts, session_advance.c is the loop.
 */
#ifndef EMO_SRC_INFER_SESSION_H
#define EMO_SRC_INFER_SESSION_H

#include <emo/session.h>

#include "infer/kv.h"
#include "infer/stop.h"
#include "moe/pool.h"

typedef struct emo__sequence {
    bool taken;
    emo_sequence_options opt; /* mask NULL */
    uint64_t draws_as;        /* number of the sequence in the keys of draws */
    uint8_t *keep;            /* [total routed] own mask inside the session's; NULL: the session's */
    uint32_t epoch;           /* a batch under way that began in another one gives it nothing */
    uint64_t arrival;         /* of its work, counted over the session */
    uint64_t ended;           /* batches when it stopped */
    int32_t waits;            /* batches in a row that it was left out of */
    int32_t *tokens;          /* [n] prompt and generated */
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
    uint64_t *set;    /* [words] experts it is expected to use next; NULL unless the schedule asks */
    uint64_t *recent; /* [2][words] experts that its last tokens used: older ones, newer ones */
    int32_t n_recent; /* tokens in the newer ones */
} emo__sequence;

/* One sequence's part of a batch. */
typedef struct emo__part {
    int32_t sequence;
    int32_t logit_row; /* place among the logits; -1: none */
    size_t count;      /* tokens */
    size_t after;      /* cached + count */
    uint32_t epoch;    /* of the sequence */
    bool chooses;      /* its pool */
    bool decodes;      /* its one token was generated */
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
    uint8_t **allowed;               /* [layers] -> [parts, routed]; NULL for dense layers */
    int32_t **pool_size;             /* [layers] -> [parts] */
    uint8_t *allowed_block;
    int32_t *pool_block;
    emo_sample_row *how; /* [sequences] */
    int32_t *drawn;      /* [sequences] */
    float *logprobs;     /* [sequences] */
    void *device_drawn;  /* back end memory */
    void *device_logprobs;
    int32_t *indices; /* [layers] -> [tokens, top-k] experts chosen, dense layers too */
    size_t cap_indices;
    int32_t *counts; /* [layers, most experts of a layer] */
    size_t most_experts;
    int32_t n_parts;
    int32_t n_logits;
    int32_t n_drawn; /* logits that are fetched and tokens that are drawn, of a finished pass */
    bool chooses_pools;
    emo__batch batch;
} emo__session_batch;

/* A sequence and what it is sorted by. */
typedef struct emo__turn {
    uint64_t first;
    uint64_t second;
    int32_t sequence;
} emo__turn;

/* Who is to take part in the next batch. */
typedef struct emo__roster {
    emo__turn *turns; /* [sequences] those with work and pages, who waits longest first */
    int32_t *group;   /* [sequences] chosen among them */
    int32_t n_turns;
    int32_t n_group;
    uint64_t *reads; /* [words] experts that the group is expected to read */
    size_t words;    /* of a set of routed experts of all layers */
    double beside;   /* bytes read by every batch, in bytes of a routed expert */
} emo__roster;

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
    emo__roster roster;
    emo_session_statistics did;
    uint64_t arrivals;
    bool in_flight;   /* a batch has begun */
    bool keep_texts;  /* the last advance failed: its texts are still unseen */
    bool piece;       /* the batch's work is one piece for the device */
    int64_t misses;   /* pieces that were not replayed, before it */
    int64_t replayed; /* batches that were */
};

/* ---- session.c ---- */

/* Options are copied over the defaults; everything in them is checked here. */
EMO_MUST_CHECK emo_status emo__session_create(emo_model *model, const emo_session_options *options, emo_session **out,
                                              emo_error *err);
void emo__session_destroy(emo_session *session);
/* The routed experts that a mask (NULL: all that are loaded) and `within` (NULL: no more) allow. */
EMO_MUST_CHECK emo_status emo__session_keep(const emo_session *session, const emo_mask *mask, const uint8_t *within,
                                            uint8_t *keep, bool *restricted, emo_error *err);
/* The routed experts a sequence may use in a layer. */
const uint8_t *emo__session_allowed(const emo_session *session, int32_t sequence, int32_t layer);
static inline size_t emo__session_routed(const emo_session *session) {
    return session->route_offset[session->model->config.layers];
}

/* ---- session_sequences.c ---- */

EMO_MUST_CHECK emo_status emo__session_add(emo_session *session, const emo_sequence_options *options, int32_t *sequence,
                                           emo_error *err);
void emo__session_cancel(emo_session *session, int32_t sequence);
EMO_MUST_CHECK emo_status emo__session_remove(emo_session *session, int32_t sequence, emo_error *err);
EMO_MUST_CHECK emo_status emo__session_append(emo_session *session, int32_t sequence, const int32_t *tokens, size_t n,
                                              emo_error *err);
EMO_MUST_CHECK emo_status emo__session_append_text(emo_session *session, int32_t sequence, const char *text,
                                                   emo_error *err);
EMO_MUST_CHECK emo_status emo__session_reset(emo_session *session, emo_error *err);
void emo__session_statistics(const emo_session *session, emo_session_statistics *out);
void emo__sequence_stop(emo_session *session, emo__sequence *sequence, emo_stop_reason reason);
/* Tokens whose keys and values are to come. */
static inline size_t emo__sequence_pending(const emo__sequence *q) {
    return q->stop == EMO_STOP_NONE ? q->n - q->cached : 0;
}

/* ---- session_pages.c ---- */

/* Gives pages to the sequences with work, or waiting room: a sequence is ready when it lacks none for its tokens. */
EMO_MUST_CHECK emo_status emo__session_pages(emo_session *session, emo_error *err);
bool emo__session_ready(const emo_session *session, int32_t sequence);
/* Its pages go, and what a batch under way has of it is not looked at. */
void emo__session_give_back(emo_session *session, int32_t sequence);

/* ---- session_schedule.c ---- */

EMO_MUST_CHECK emo_status emo__roster_create(emo_session *session, emo_error *err);
void emo__roster_free(emo_session *session);
/* Chooses the group of the next batch among those that are ready. */
void emo__roster_choose(emo_session *session);
/* The batch has begun: who was left out has waited. */
void emo__roster_begun(emo_session *session);
void emo__turns_sort(emo__turn *turns, int32_t n);

/* ---- session_experts.c ---- */

/* What a sequence is expected to use, from its pool or mask, or from what it used: when that changed. */
void emo__session_expect(const emo_session *session, int32_t sequence);
/* After a pass: brings what the routers chose to the host, there after a wait; then counts it. */
EMO_MUST_CHECK emo_status emo__session_fetch_experts(emo_session *session, emo_error *err);
void emo__session_count(emo_session *session);

/* ---- session_options.c ---- */

EMO_MUST_CHECK emo_status emo__session_check(const emo_model *model, const emo_session_options *options,
                                             emo_error *err);
/* What every sequence has without options of its own. */
void emo__sequence_defaults(const emo_session_options *session, emo_sequence_options *options);
EMO_MUST_CHECK emo_status emo__sequence_check(const emo_sequence_options *options, emo_error *err);

/* ---- session_batch.c ---- */

EMO_MUST_CHECK emo_status emo__session_batch_create(emo_session *session, emo_error *err);
void emo__session_batch_free(emo_session *session);
/* Makes a batch of pending tokens and begins its pass. *work false: nothing is pending. at_once: no budget will stop
 * the pass, so that a device may take a token's work as one piece: it ends in session_draw, or by session_interrupt.
 */
EMO_MUST_CHECK emo_status emo__session_begin(emo_session *session, bool at_once, bool *work, emo_error *err);

/* The pass stopped before its end, or failed: what it has done so far goes to the device. */
EMO_MUST_CHECK emo_status emo__session_interrupt(emo_session *session, emo_status status, emo_error *err);

/* ---- session_finish.c ---- */

/* Whether the sequence is still the one that the batch began with. */
static inline bool emo__session_same(const emo_session *session, const emo__part *part) {
    return part->epoch == session->sequences[part->sequence].epoch;
}
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
