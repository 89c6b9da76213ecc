/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as a server has them, and what each gives alone. */
#ifndef EMO_TESTS_SERVING_SUPPORT_H
#define EMO_TESTS_SERVING_SUPPORT_H

#include "infer_support.h"

enum { REQUESTS = 9, LONGEST = 40 };

typedef struct request {
    int32_t prompt[LONGEST];
    size_t n;
    emo_sequence_options options;
    int32_t tokens[LONGEST]; /* what it gives alone, with log-probabilities */
    float logprobs[LONGEST];
    size_t n_tokens;
    emo_stop_reason stop;
} request;

static inline void test_request(request *r, int i) {
    *r = (request){0};
    r->n = (size_t)(5 + i * 11 % (LONGEST - 6));
    test_prompt(r->prompt, r->n, (uint64_t)i);
    r->options = (emo_sequence_options)EMO_SEQUENCE_OPTIONS_INIT;
    r->options.max_tokens = 4 + i * 5 % 9;
    r->options.seed = (uint64_t)i * 7;
    r->options.temperature = i % 3 == 0 ? 0.0f : 1.5f;
    r->options.top_k = i % 3 == 1 ? 20 : 0;
    r->options.repetition_penalty = i % 4 == 2 ? 1.3f : 1.0f;
}

/* In a session of its own, with the session options that a sequence cannot have. */
static inline void test_alone(emo_model *model, const emo_session_options *session, request *r) {
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.pool = session->pool;
    o.mask = r->options.mask != NULL ? r->options.mask : session->mask;
    o.max_tokens = r->options.max_tokens;
    o.seed = r->options.seed;
    o.temperature = r->options.temperature;
    o.top_k = r->options.top_k;
    o.repetition_penalty = r->options.repetition_penalty;
    emo_session *s = test_session(model, &o);
    EXPECT_OK(emo_session_append_tokens(s, 0, r->prompt, r->n, &err));
    (void)test_finish(s, NULL);
    const int32_t *tokens;
    const float *logprobs;
    r->n_tokens = emo_session_generated(s, 0, &tokens, &logprobs);
    assert_in_range(r->n_tokens, 1, LONGEST);
    memcpy(r->tokens, tokens, r->n_tokens * sizeof *tokens);
    memcpy(r->logprobs, logprobs, r->n_tokens * sizeof *logprobs);
    r->stop = emo_session_stop_reason(s, 0);
    emo_session_release(s);
}

/* Adds a request; its sequence. */
static inline int32_t test_submit(emo_session *s, const request *r) {
    emo_error err = EMO_ERROR_INIT;
    int32_t sequence = -1;
    EXPECT_OK(emo_session_add(s, &r->options, &sequence, &err));
    EXPECT_OK(emo_session_append_tokens(s, sequence, r->prompt, r->n, &err));
    return sequence;
}

static inline void test_as_alone(const emo_session *s, int32_t sequence, const request *r) {
    const int32_t *tokens;
    const float *logprobs;
    assert_int_equal(emo_session_generated(s, sequence, &tokens, &logprobs), r->n_tokens);
    assert_memory_equal(tokens, r->tokens, r->n_tokens * sizeof *tokens);
    assert_memory_equal(logprobs, r->logprobs, r->n_tokens * sizeof *logprobs);
    assert_int_equal(emo_session_stop_reason(s, sequence), r->stop);
}

static inline emo_session_statistics test_statistics(const emo_session *s) {
    emo_error err = EMO_ERROR_INIT;
    emo_session_statistics statistics = EMO_SESSION_STATISTICS_INIT;
    EXPECT_OK(emo_session_get_statistics(s, &statistics, &err));
    return statistics;
}

#endif
