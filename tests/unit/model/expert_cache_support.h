/* SPDX-License-Identifier: Apache-2.0 */
/* What a model says, to be compared to the bit with what another one says, and what its expert cache counted. */
#ifndef EMO_TESTS_EXPERT_CACHE_SUPPORT_H
#define EMO_TESTS_EXPERT_CACHE_SUPPORT_H

#include <emo/emo.h>

#include "infer/session.h"
#include "support/meter.h"
#include "support/stages.h"
#include "support/support.h"

enum { TOKENS = 6, MOST_SEQUENCES = 2, MOST_VOCAB = 300 };

static inline emo_cache_stats stats_of(const emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo_cache_stats stats = EMO_CACHE_STATS_INIT;
    EXPECT_OK(emo_model_get_cache_stats(model, &stats, &err));
    return stats;
}

typedef struct outcome {
    int32_t ids[MOST_SEQUENCES][TOKENS];
    float logprobs[MOST_SEQUENCES][TOKENS];
    float logits[MOST_SEQUENCES][MOST_VOCAB];
} outcome;

/* Of a session that is done, and is released. */
static inline outcome take(emo_session *session) {
    emo_error err = EMO_ERROR_INIT;
    outcome out;
    memset(&out, 0, sizeof out);
    assert_in_range(session->opt.sequences, 1, MOST_SEQUENCES);
    for (int32_t s = 0; s < session->opt.sequences; s++) {
        const int32_t *ids = NULL;
        const float *logprobs = NULL;
        assert_int_equal(emo_session_generated(session, s, &ids, &logprobs), TOKENS);
        memcpy(out.ids[s], ids, sizeof out.ids[s]);
        memcpy(out.logprobs[s], logprobs, sizeof out.logprobs[s]);
        EXPECT_OK(emo_session_logits(session, s, out.logits[s], MOST_VOCAB, &err));
    }
    emo_session_release(session);
    return out;
}

/* Goes on to the end, without a failure. */
static inline outcome finish(emo_session *session) {
    emo_error err = EMO_ERROR_INIT;
    emo_state state = EMO_STATE_PENDING;
    while (state != EMO_STATE_DONE)
        EXPECT_OK(emo_session_advance(session, NULL, &state, &err));
    return take(session);
}

/* A report of progress that cancels every third time; ctx: an int that counts. */
static inline int32_t cancel_often(void *ctx, const emo_progress_info *info) {
    (void)info;
    return ++*(int *)ctx % 3 == 0;
}

/* The same for a session whose progress is cancelled often, and must have been. */
static inline outcome finish_though_cancelled(emo_session *session) {
    emo_error err = EMO_ERROR_INIT;
    emo_state state = EMO_STATE_PENDING;
    int cancelled = 0;
    while (state != EMO_STATE_DONE) {
        emo_status status = emo_session_advance(session, NULL, &state, &err);
        assert_true(status == EMO_OK || status == EMO_E_CANCELLED);
        cancelled += status == EMO_E_CANCELLED;
    }
    assert_true(cancelled > 3);
    return take(session);
}

static inline void expect_same(const outcome *a, const outcome *b) { assert_memory_equal(a, b, sizeof *a); }

/* ---- on a thread of its own ---- */

typedef struct talker {
    emo_model *model;
    const emo_session_options *options;
    outcome (*say)(emo_model *model, const emo_session_options *options);
    outcome got;
} talker;

static inline void *talk(void *arg) {
    talker *t = arg;
    t->got = t->say(t->model, t->options);
    return NULL;
}

/* ---- allocations of the host that fail ---- */

/* Makes a model, lets it generate, gives all back; allocation fail_at (-1: none) of the meter's is refused. */
typedef emo_status (*metered_life)(meter *memory, long fail_at, outcome *out);

/* At about `times` of its allocations, one a life, of which there are more than `least`: a status, or a way without
 * that memory and the same outcome; nothing is left. */
static inline void fail_allocations(metered_life life, long least, int times) {
    meter healthy = METER_INIT;
    outcome want, got;
    assert_int_equal(life(&healthy, -1, &want), EMO_OK);
    long calls = atomic_load(&healthy.calls);
    assert_true(calls > least);
    for (long n = 0; n < calls; n += stages_stride(calls, times)) {
        meter failing = METER_INIT;
        emo_status status = life(&failing, n, &got);
        if (status == EMO_OK)
            expect_same(&got, &want);
        else
            assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
        meter_check(&failing, "a model under a budget");
    }
}

#endif
