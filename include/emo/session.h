/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file session.h
 * @brief Inference: a KV cache, one or several sequences, sampling, and work in bounded slices.
 *
 * A session belongs to one thread at a time; several sessions of one model may run at once.
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
    EMO_STATE_TEXT = 1,    /**< new output of at least one sequence */
    EMO_STATE_DONE = 2     /**< every sequence has stopped */
};

/** How much work one emo_session_advance() may do. The first limit reached ends it; 0 means no such limit. */
typedef struct emo_budget {
    uint64_t ns;    /**< wall-clock nanoseconds; checked between slices of operators */
    int32_t steps;  /**< operator steps */
    int32_t tokens; /**< generated tokens per sequence */
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
    int32_t max_tokens;          /**< generated per sequence; 0: up to the capacity */
    const emo_mask *mask;        /**< copied; NULL: every loaded expert */
    const emo_pool_policy *pool; /**< a prompt-scope policy: the pool is chosen per layer from the whole prompt inside
                                      the mask, then frozen; NULL: none */
    float temperature;           /**< 0: greedy; 0 */
    int32_t top_k;               /**< 0: off */
    float top_p;                 /**< (0, 1]; 1: off */
    float min_p;                 /**< [0, 1]; 0: off */
    float repetition_penalty;    /**< > 0; 1: off */
    int32_t repetition_window;   /**< last tokens the penalty looks at; 0: all */
    uint64_t seed;
    int32_t ignore_eos;
    int32_t prepend_eos; /**< 1: an empty sequence begins with eos when text is appended, as in training (default) */
    const char *const *stop; /**< stop strings, copied; output ends before the first one */
    size_t n_stop;
    emo_progress progress; /**< also called during long prompts; non-zero cancels the advance, not the session */
} emo_session_options;
#define EMO_SESSION_OPTIONS_INIT                                                                                       \
    {                                                                                                                  \
        sizeof(emo_session_options), 1, 0, 0, 0, 0, 0.0f, 0, 1.0f, 0.0f, 1.0f, 0, 0, 0, 1, 0, 0, { 0, 0 }              \
    }

/** Fills in the defaults, for languages that cannot use the macro. */
EMO_API void emo_session_options_init(emo_session_options *options);

/** A session of a model (retained). The caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_session_create(emo_model *model, const emo_session_options *options,
                                                     emo_session **out, emo_error *err);
EMO_API void emo_session_release(emo_session *session);

/** Appends to the prompt of sequence 0 (text: needs a tokenizer, UTF-8, NUL-terminated). */
EMO_API EMO_MUST_CHECK emo_status emo_session_append_text(emo_session *session, const char *text, emo_error *err);
/** Appends token ids to the prompt of a sequence. EMO_E_RANGE for an id outside the vocabulary; EMO_E_LIMIT when the
 *  sequence would exceed its capacity. */
EMO_API EMO_MUST_CHECK emo_status emo_session_append_tokens(emo_session *session, int32_t sequence,
                                                            const int32_t *tokens, size_t n, emo_error *err);

/**
 * Does prompt and generation work until something is there or the budget is used up.
 * @param budget NULL: no limit. A call makes at least one step of progress.
 * @return EMO_E_CANCELLED when the progress hook asked for it: the session stays usable and resumes where it was.
 */
EMO_API EMO_MUST_CHECK emo_status emo_session_advance(emo_session *session, const emo_budget *budget, emo_state *state,
                                                      emo_error *err);

/** Text of sequence 0 that is new since the last advance: whole UTF-8 characters; valid until the next call. */
EMO_API const char *emo_session_text(const emo_session *session);
/** The same for any sequence; "" outside. */
EMO_API const char *emo_session_text_of(const emo_session *session, int32_t sequence);

/** Tokens generated so far, and their log-probabilities under the model (masked, before sampling filters). Views, valid
 *  until the next non-const call. */
EMO_API size_t emo_session_generated(const emo_session *session, int32_t sequence, const int32_t **tokens,
                                     const float **logprobs);
/** Why a sequence stopped. */
typedef int32_t emo_stop_reason;
enum { EMO_STOP_NONE = 0, EMO_STOP_EOS = 1, EMO_STOP_LENGTH = 2, EMO_STOP_STRING = 3 };
EMO_API emo_stop_reason emo_session_stop_reason(const emo_session *session, int32_t sequence);

/** Logits of the last position of a sequence once its prompt is done: out [vocab]. EMO_E_NOT_FOUND before that. */
EMO_API EMO_MUST_CHECK emo_status emo_session_logits(const emo_session *session, int32_t sequence, float *out,
                                                     size_t capacity, emo_error *err);
/** The experts a sequence may use in a layer: its mask narrowed by its frozen pool. The caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_session_pool(const emo_session *session, int32_t sequence, emo_mask **out,
                                                   emo_error *err);
/** Forgets everything but the options; the session starts anew. */
EMO_API EMO_MUST_CHECK emo_status emo_session_reset(emo_session *session, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
