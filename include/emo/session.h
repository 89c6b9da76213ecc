/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file session.h
 * @brief Inference: a KV cache, one or several sequences, sampling, and work in bounded slices.
 *
 * Tokens are appended to sequences; emo_session_advance() brings what is pending through the model and draws the next
 * tokens. How the work is cut (budgets, cancellation, other sequences, threads) never changes a result: every row is
 * computed by the same operations in the same order, and draws depend on (seed, sequence, position) alone.
 *
 * A session serves many sequences by continuous batching: each batch is one step of the model over some of the
 * sequences that have work, generated tokens beside pieces of prompts. Sequences come, are cancelled and go between
 * calls while others go on (emo_session_add(), emo_session_cancel(), emo_session_remove()). Their keys and values lie
 * in pages from one store, which a budget may bound.
 *
 *     emo_session_append_text(session, "Once upon a time", &err);
 *     do {
 *         emo_session_advance(session, &budget, &state, &err);
 *         fputs(emo_session_text(session), stdout);
 *     } while (state != EMO_STATE_DONE);
 *
 * Thread rule: a session belongs to one thread at a time; a call while another one runs gives EMO_E_BUSY (views are
 * empty then). Several sessions of one model may run at once. While a session lives it reads its model: changing the
 * model (training it, attaching a tokenizer) is EMO_E_BUSY.
 */
#ifndef EMO_SESSION_H
#define EMO_SESSION_H

#include <emo/model.h>
#include <emo/pool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_session emo_session;

/** How far emo_session_advance() came. */
typedef int32_t emo_state;
enum {
    EMO_STATE_PENDING = 0, /**< the budget is used up; call again */
    EMO_STATE_TEXT = 1,    /**< new output of at least one sequence: tokens, and text unless it is held back */
    EMO_STATE_DONE = 2     /**< nothing is left to do and all output was reported; appending starts it again */
};

/** How much work one emo_session_advance() may do. The first limit reached ends it; 0 means no such limit. */
typedef struct emo_budget {
    uint64_t ns;    /**< wall-clock nanoseconds; looked at between slices of about a quarter of a millisecond or less */
    int32_t steps;  /**< operator steps, or slices of them where `ns` or a progress hook asks for slices */
    int32_t tokens; /**< return when a sequence has generated so many in this call; 0: after each drawn token */
} emo_budget;

static inline emo_budget emo_budget_ms(uint32_t milliseconds) {
    emo_budget budget = {UINT64_C(1000000) * milliseconds, 0, 0};
    return budget;
}
static inline emo_budget emo_budget_unlimited(void) {
    emo_budget budget = {0, 0, 0};
    return budget;
}

/** Which sequences a batch takes, when more have work than fit. Results are the same with each. */
typedef int32_t emo_batching;
enum {
    EMO_BATCHING_ARRIVAL = 0, /**< those that have waited longest, in the order in which their work came */
    EMO_BATCHING_POOL = 1 /**< the one that has waited longest, then one after the other the one that adds the fewest
                               experts to what the batch reads (by the pools and masks of sequences, else by the
                               experts they used lately), as long as the bytes read per sequence do not grow */
};

/** Options of emo_session_create(). */
typedef struct emo_session_options {
    uint32_t struct_size;
    int32_t sequences;           /**< 1..1024; 1 */
    int32_t capacity;            /**< tokens per sequence, prompt included; 0: max_positions (grown on demand) */
    int32_t max_tokens;          /**< generated per sequence after each append; 0: up to the capacity; -1: none */
    const emo_mask *mask;        /**< copied; NULL: every loaded expert */
    const emo_pool_policy *pool; /**< a policy of EMO_POOL_SCOPE_PROMPT (retained): per layer, the pool is chosen inside
                                      the mask from all tokens of a sequence that are there when its work begins, then
                                      frozen until the session is reset; NULL: none */
    float temperature;           /**< 0: greedy; 0 */
    int32_t top_k;               /**< 0: off */
    float top_p;                 /**< (0, 1]; 1: off */
    float min_p;                 /**< [0, 1]; 0: off */
    float repetition_penalty;    /**< > 0; 1: off */
    int32_t repetition_window;   /**< last tokens the penalty looks at; 0: all */
    uint64_t seed;
    int32_t ignore_eos;
    int32_t prepend_eos; /**< 1: an empty sequence begins with eos when text is appended, as in training (default) */
    const char *const *stop; /**< stop strings (UTF-8, 1..4096 bytes, at most 256), copied: text ends before the one
                                that is complete first; text that may become one is held back */
    size_t n_stop;
    emo_progress progress;   /**< also called during long prompts and the encoding of long texts; non-zero cancels that
                                call, not the session */
    int32_t batch_sequences; /**< 0..1024, sequences in a batch; 0: all that have work */
    int32_t batch_tokens;    /**< 1..65536, tokens in a batch, at least one of each of its sequences; more only for a
                                prompt that is to choose its pool; 512 */
    emo_batching batching;
    int32_t max_wait;    /**< 1..1048576, batches that a sequence with work is left out of at most, one after the other;
                            more only where the sequences with work are more than so many batches hold, while no page is
                            free for it, and for prompts that choose their pools, which go whole; 16 */
    int32_t page_tokens; /**< tokens of a page of the cache, a power of two, 1..4096; 64 */
    int32_t share_prefix;  /**< 1: without a pool policy, a sequence that begins like another one, and may use the same
                              experts, reads that one's pages as far as they are full (default) */
    int32_t count_experts; /**< 1: the statistics count the experts that batches read; 0 */
    int32_t no_graph;      /**< 1: a device launches every batch anew, also where it could replay a graph of it; 0 */
    uint64_t cache_bytes;  /**< bytes of all pages; no sequence gets longer than they hold. Sequences wait for pages;
                              those that came last give theirs back, when older ones need them, and are computed anew
                              later. 0: as many as all sequences need at most (grown on demand) */
} emo_session_options;
#define EMO_SESSION_OPTIONS_INIT                                                                                       \
    {                                                                                                                  \
        sizeof(emo_session_options), 1, 0, 0, 0, 0, 0.0f, 0, 1.0f, 0.0f, 1.0f, 0, 0, 0, 1, 0, 0, {0, 0}, 0, 512, 0,    \
            16, 64, 1, 0, 0, 0                                                                                         \
    }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_session_options_init(emo_session_options *options);
#define emo_session_options_init(object) EMO_STRUCT_INIT(emo_session_options, object)

/**
 * A session of a model (retained). Its memory grows with the tokens it holds. Any thread. The caller owns *out.
 * @param options NULL for the defaults.
 * @return EMO_E_RANGE or EMO_E_INVALID_ARGUMENT (an option, by name; a pool smaller than what a token chooses),
 *         EMO_E_MISMATCH (a mask of another shape, or with an expert that was not loaded), EMO_E_BUSY (the model is
 *         being changed), EMO_E_OUT_OF_MEMORY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_session_create(emo_model *model, const emo_session_options *options,
                                                     emo_session **out, emo_error *err);
/** Releases the session, at any time between its calls; NULL is a no-op. */
EMO_API void emo_session_release(emo_session *session);

/**
 * Appends text to sequence 0: UTF-8, NUL-terminated; special tokens it spells out are plain text. An empty sequence
 * begins with eos first (option prepend_eos). After a stop the sequence goes on; what it generated stays part of it.
 * @return EMO_E_INVALID_ARGUMENT (the model has no tokenizer), EMO_E_LIMIT (the capacity), EMO_E_OUT_OF_MEMORY,
 *         EMO_E_BUSY; nothing is appended then.
 */
EMO_API EMO_MUST_CHECK emo_status emo_session_append_text(emo_session *session, const char *text, emo_error *err);
/** The same for any sequence of the session. EMO_E_RANGE for no such sequence. */
EMO_API EMO_MUST_CHECK emo_status emo_session_append_text_to(emo_session *session, int32_t sequence, const char *text,
                                                             emo_error *err);
/** Appends token ids to a sequence, as they are, also while an advance has work left. EMO_E_RANGE for an id outside the
 *  vocabulary (its index is in err->number) or no such sequence; EMO_E_LIMIT when the sequence would exceed its
 *  capacity; nothing is appended then. */
EMO_API EMO_MUST_CHECK emo_status emo_session_append_tokens(emo_session *session, int32_t sequence,
                                                            const int32_t *tokens, size_t n, emo_error *err);

/** What a sequence has of its own. */
typedef struct emo_sequence_options {
    uint32_t struct_size;
    int32_t max_tokens;   /**< this field and the next ones: as in emo_session_options */
    const emo_mask *mask; /**< copied; the sequence uses what both it and the session's mask allow; NULL: the latter */
    float temperature;
    int32_t top_k;
    float top_p;
    float min_p;
    float repetition_penalty;
    int32_t repetition_window;
    uint64_t seed; /**< draws are those of sequence 0 in a session of its own with this seed */
    int32_t ignore_eos;
    int32_t reserved; /**< 0 */
} emo_sequence_options;
#define EMO_SEQUENCE_OPTIONS_INIT                                                                                      \
    { sizeof(emo_sequence_options), 0, 0, 0.0f, 0, 1.0f, 0.0f, 1.0f, 0, 0, 0, 0 }

/**
 * Takes a sequence that is free, the first one: nothing was appended to it since the session began, was reset, or the
 * sequence was removed. Appending to a free sequence takes it, too, with the session's options. Also while an advance
 * has work left, as the next two functions.
 * @param options NULL: the session's options; draws depend on its seed and the number of the sequence then.
 * @param sequence receives its number; -1 on an error.
 * @return EMO_E_LIMIT (none of the session's sequences is free), EMO_E_RANGE, EMO_E_MISMATCH (see
 *         emo_session_create()), EMO_E_OUT_OF_MEMORY, EMO_E_BUSY.
 */
EMO_API EMO_MUST_CHECK emo_status emo_session_add(emo_session *session, const emo_sequence_options *options,
                                                  int32_t *sequence, emo_error *err);
/** Stops a sequence where it is (EMO_STOP_CANCELLED, unless it had stopped) and gives its pages back. What it generated
 *  can be read; appending lets it go on, and everything is computed anew then. EMO_E_RANGE, EMO_E_BUSY. */
EMO_API EMO_MUST_CHECK emo_status emo_session_cancel(emo_session *session, int32_t sequence, emo_error *err);
/** Forgets a sequence, which is free then, and gives its pages back. EMO_E_RANGE, EMO_E_OUT_OF_MEMORY, EMO_E_BUSY. */
EMO_API EMO_MUST_CHECK emo_status emo_session_remove(emo_session *session, int32_t sequence, emo_error *err);

/**
 * Does prompt and generation work until something is there or the budget is used up. The sequences with pending tokens
 * share each batch (option batch_sequences); a long prompt goes in pieces (whole when its pool is to be chosen).
 * @param budget NULL: no limit. A call makes at least one step of progress.
 * @param state see emo_state; EMO_STATE_PENDING on an error.
 * @return EMO_E_CANCELLED when the progress hook asked for it, EMO_E_OUT_OF_MEMORY, EMO_E_NUMERIC (logits that are not
 *         finite), EMO_E_RANGE (a negative budget), EMO_E_BUSY, EMO_E_BACKEND. The session stays usable: the next call
 *         resumes where this one was, and no output is lost.
 */
EMO_API EMO_MUST_CHECK emo_status emo_session_advance(emo_session *session, const emo_budget *budget, emo_state *state,
                                                      emo_error *err);

/** Text of sequence 0 that is new since the last advance: whole UTF-8 characters, U+FFFD for bytes that are none; NULs,
 *  eos and other special tokens give no text. A view, valid until the next non-const call. Without tokenizer "". */
EMO_API const char *emo_session_text(const emo_session *session);
/** The same for any sequence; "" outside. */
EMO_API const char *emo_session_text_of(const emo_session *session, int32_t sequence);

/** How many batches of tokens a device replayed from graphs that it had recorded of earlier ones; 0 on the CPU, with
 * options.no_graph, and for NULL. */
EMO_API int64_t emo_session_replayed(const emo_session *session);

/** Tokens generated since the session began or was reset (eos included), and their log-probabilities under the model
 *  (with its mask and pool, before temperature, penalty and filters). Views, valid until the next non-const call;
 * either may be NULL. Returns their number, 0 outside. */
EMO_API size_t emo_session_generated(const emo_session *session, int32_t sequence, const int32_t **tokens,
                                     const float **logprobs);
/** Why a sequence stopped. */
typedef int32_t emo_stop_reason;
enum {
    EMO_STOP_NONE = 0,     /**< it has not */
    EMO_STOP_EOS = 1,      /**< it generated eos */
    EMO_STOP_LENGTH = 2,   /**< max_tokens or the capacity */
    EMO_STOP_STRING = 3,   /**< a stop string; the tokens that spell it remain in the sequence */
    EMO_STOP_CANCELLED = 4 /**< emo_session_cancel() */
};
/** EMO_STOP_NONE outside. */
EMO_API emo_stop_reason emo_session_stop_reason(const emo_session *session, int32_t sequence);

/** Logits from which the last token of a sequence was drawn, or would be: out [vocab], capacity in floats.
 * EMO_E_NOT_FOUND until all that was appended is done, EMO_E_LIMIT when out is too small, EMO_E_RANGE for no such
 * sequence. */
EMO_API EMO_MUST_CHECK emo_status emo_session_logits(const emo_session *session, int32_t sequence, float *out,
                                                     size_t capacity, emo_error *err);
/** The experts a sequence may use: the session's mask narrowed by its frozen pool, with the ids of this model. The
 * caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_session_pool(const emo_session *session, int32_t sequence, emo_mask **out,
                                                   emo_error *err);
/** What a session did since it was created or reset. Filled by emo_session_get_statistics(); the caller sets
 * struct_size (use the INIT macro). Experts are counted where the option count_experts asks for it: each once for every
 * batch and layer that reads it, shared ones included. */
typedef struct emo_session_statistics {
    uint32_t struct_size;
    int32_t sequences;           /**< taken now */
    uint64_t batches;            /**< finished */
    uint64_t batch_sequences;    /**< sum of their sequences */
    uint64_t batch_tokens;       /**< sum of their tokens */
    uint64_t batch_experts;      /**< sum of the experts they read */
    uint64_t batch_expert_bytes; /**< sum of the bytes of those experts' weights */
    uint64_t decode_batches;     /**< of these, batches of one token for each sequence; the next four likewise */
    uint64_t decode_sequences;
    uint64_t decode_experts;
    uint64_t decode_expert_bytes;
    int32_t last_sequences; /**< of the last batch; the next two likewise */
    int32_t last_experts;
    uint64_t last_expert_bytes;
    int32_t longest_wait;   /**< batches that a sequence with work was left out of, one after the other */
    int32_t page_tokens;    /**< tokens of a page */
    uint64_t page_bytes;    /**< bytes of a page, all layers */
    int64_t pages_most;     /**< there may be at most */
    int64_t pages_used;     /**< hold something now, be it of sequences that stopped, which give it up if need be */
    int64_t pages_shared;   /**< of these, in more than one sequence */
    uint64_t preempted;     /**< times a sequence had to give its pages back */
    uint64_t shared_tokens; /**< of prompts, whose keys and values were there already */
} emo_session_statistics;
#define EMO_SESSION_STATISTICS_INIT                                                                                    \
    { sizeof(emo_session_statistics), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
/** EMO_E_INVALID_ARGUMENT (struct_size), EMO_E_BUSY. */
EMO_API EMO_MUST_CHECK emo_status emo_session_get_statistics(const emo_session *session,
                                                             emo_session_statistics *statistics, emo_error *err);
/** Forgets everything but the options; the session starts anew and keeps its memory. */
EMO_API EMO_MUST_CHECK emo_status emo_session_reset(emo_session *session, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
