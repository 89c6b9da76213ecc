/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file session.h
 * @brief Inference: a KV cache, one or several sequences, sampling, and work in bounded slices.
 *
 * Tokens are appended to sequences; emo_session_advance() brings what is pending through the model and draws the next
 * tokens. How the work is cut (budgets, cancellation, other sequences, threads) never changes a result: every row is
 * computed by the same operations in the same order, and draws depend on (seed, sequence, position) alone.
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
    uint64_t
        ns; /**< wall-clock nanoseconds; looked at between slices of operators, of a quarter of a millisecond or less */
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
    emo_progress progress; /**< also called during long prompts and the encoding of long texts; non-zero cancels that
                              call, not the session */
} emo_session_options;
#define EMO_SESSION_OPTIONS_INIT                                                                                       \
    {                                                                                                                  \
        sizeof(emo_session_options), 1, 0, 0, 0, 0, 0.0f, 0, 1.0f, 0.0f, 1.0f, 0, 0, 0, 1, 0, 0, { 0, 0 }              \
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
/** Appends token ids to a sequence, as they are, also while an advance has work left. EMO_E_RANGE for an id outside the
 *  vocabulary (its index is in err->number) or no such sequence; EMO_E_LIMIT when the sequence would exceed its
 *  capacity; nothing is appended then. */
EMO_API EMO_MUST_CHECK emo_status emo_session_append_tokens(emo_session *session, int32_t sequence,
                                                            const int32_t *tokens, size_t n, emo_error *err);

/**
 * Does prompt and generation work until something is there or the budget is used up. All sequences with pending tokens
 * share each batch; a long prompt goes in pieces (whole when its pool is to be chosen).
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

/** Tokens generated since the session began or was reset (eos included), and their log-probabilities under the model
 *  (with its mask and pool, before temperature, penalty and filters). Views, valid until the next non-const call;
 * either may be NULL. Returns their number, 0 outside. */
EMO_API size_t emo_session_generated(const emo_session *session, int32_t sequence, const int32_t **tokens,
                                     const float **logprobs);
/** Why a sequence stopped. */
typedef int32_t emo_stop_reason;
enum {
    EMO_STOP_NONE = 0,   /**< it has not */
    EMO_STOP_EOS = 1,    /**< it generated eos */
    EMO_STOP_LENGTH = 2, /**< max_tokens or the capacity */
    EMO_STOP_STRING = 3  /**< a stop string; the tokens that spell it remain in the sequence */
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
/** Forgets everything but the options; the session starts anew and keeps its memory. */
EMO_API EMO_MUST_CHECK emo_status emo_session_reset(emo_session *session, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
