/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: begin a batch, work on it in slices, take its results, until there is output or the budget is used up. */
#include "base/clock.h"
#include "base/status.h"
#include "infer/session.h"

/* A slice takes a sixteenth of the time there is, but neither so little that looking at the clock counts, nor so much
 * that a frame feels it. Without a deadline a progress hook waits for so many multiply-adds, the same ones in every
 * run.
 */
#define LEAST_NS UINT64_C(20000)
#define MOST_NS UINT64_C(250000)
#define HOOK_WORK ((int64_t)1 << 27)

static void set_slices(emo__pass *pass, uint64_t ns, bool hook) {
    uint64_t slice = ns / 16 < MOST_NS ? ns / 16 : MOST_NS;
    if (ns > 0)
        emo__pass_set_slice_time(pass, slice > LEAST_NS ? slice : LEAST_NS);
    else
        emo__pass_set_slice_work(pass, hook ? HOOK_WORK : 0);
}

typedef struct spent {
    const emo_budget *budget; /* never NULL */
    uint64_t deadline;        /* 0: none */
    int32_t steps;            /* left; meaningful with budget->steps */
    bool worked;
} spent;

static bool used_up(const spent *u) {
    return u->worked && ((u->budget->steps > 0 && u->steps <= 0) || (u->deadline != 0 && emo__now_ns() >= u->deadline));
}

/* Works on the batch under way. */
static emo_status work_on(emo_session *s, spent *u, bool *done, emo_error *err) {
    emo__limit limit = {0};
    limit.deadline_ns = u->deadline;
    limit.slices = u->budget->steps > 0 ? u->steps : 0;
    limit.progress = s->opt.progress.report != NULL ? &s->opt.progress : NULL;
    set_slices(s->pass, u->budget->ns, limit.progress != NULL);
    uint64_t before = emo__pass_slices(s->pass);
    emo_status status = emo__pass_advance(s->pass, &limit, done, err);
    uint64_t slices = emo__pass_slices(s->pass) - before;
    u->worked = u->worked || slices > 0;
    if (u->budget->steps > 0)
        u->steps -= slices < (uint64_t)u->steps ? (int32_t)slices : u->steps;
    return status;
}

/* Takes the results of a finished pass; with a deadline a row for each worker at a time. */
static emo_status take_results(emo_session *s, spent *u, emo_error *err) {
    emo_status status = EMO_OK;
    if (!emo__session_drawn(s))
        status = emo__session_draw(s, u->deadline != 0 ? (int32_t)s->rt->executor.concurrency : 0, err);
    if (status == EMO_OK && emo__session_drawn(s))
        status = emo__session_finish(s, err);
    u->worked = true;
    return status;
}

/* Whether the call has given what it was asked for. */
static bool enough(const emo_session *s, const emo_budget *budget) {
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        const emo__sequence *q = &s->sequences[i];
        if (budget->tokens == 0 && q->unseen)
            return true;
        if (budget->tokens > 0 && q->n_generated - q->call >= (size_t)budget->tokens)
            return true;
    }
    return false;
}

static emo_status emit_all(emo_session *s, emo_error *err) {
    emo_status status = EMO_OK;
    for (int32_t i = 0; status == EMO_OK && i < s->opt.sequences; i++)
        status = emo__session_emit(s, &s->sequences[i], err);
    return status;
}

static emo_state report(emo_session *s, emo_state otherwise) {
    emo_state state = otherwise;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        if (s->sequences[i].unseen)
            state = EMO_STATE_TEXT;
        s->sequences[i].unseen = false;
    }
    return state;
}

static emo_status run(emo_session *s, spent *u, emo_state *state, emo_error *err) {
    for (;;) {
        bool ready = false;
        emo_status status = emit_all(s, err);
        if (status != EMO_OK)
            return status;
        if (enough(s, u->budget) || used_up(u)) {
            *state = report(s, EMO_STATE_PENDING);
            return EMO_OK;
        }
        if (!s->in_flight) {
            bool work = false;
            status = emo__session_begin(s, u->budget->ns == 0 && u->budget->steps == 0, &work, err);
            if (status != EMO_OK)
                return status;
            if (!work) {
                *state = report(s, EMO_STATE_DONE);
                return EMO_OK;
            }
        }
        status = work_on(s, u, &ready, err);
        if (status != EMO_OK || !ready || used_up(u))
            status = emo__session_interrupt(s, status, err);
        if (status == EMO_OK && ready && !used_up(u))
            status = take_results(s, u, err);
        if (status != EMO_OK)
            return status;
    }
}

emo_status emo__session_advance(emo_session *s, const emo_budget *budget, emo_state *state, emo_error *err) {
    static const emo_budget unlimited = {0, 0, 0};
    spent u = {0};
    u.budget = budget != NULL ? budget : &unlimited;
    if (u.budget->ns > 0) {
        uint64_t now = emo__now_ns();
        u.deadline = u.budget->ns < UINT64_MAX - now ? now + u.budget->ns : UINT64_MAX;
    }
    u.steps = u.budget->steps;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        emo__sequence *q = &s->sequences[i];
        q->call = q->n_generated;
        if (!s->keep_texts) {
            q->text.size = 0;
            q->text.data[0] = '\0';
        }
    }
    emo_status status = run(s, &u, state, err);
    s->keep_texts = status != EMO_OK;
    return status;
}
