/* SPDX-License-Identifier: Apache-2.0 */
/* The loop: begin a batch, work on it in slices, take its results, until there is output or the budget is used up. */
#include "base/clock.h"
#include "base/status.h"
#include "infer/session.h"

/* Multiply-adds between two looks at the clock: about a millisecond or two on one core. */
#define SLICE_WORK 16777216

/* Rows of the dearest operator that make up a slice. */
static int64_t slice_rows(const emo_session *s) {
    const emo__config *c = &s->model->config;
    int64_t heads = (int64_t)c->heads * c->head_dim;
    int64_t longest = 1;
    for (int32_t i = 0; i < s->b.n_parts; i++)
        longest = (int64_t)s->b.parts[i].after > longest ? (int64_t)s->b.parts[i].after : longest;
    int64_t work[] = {
        (heads + 2 * (int64_t)c->kv_heads * c->head_dim) * c->hidden,
        2 * heads * longest,
        3 * (int64_t)c->top_k * c->inner * c->hidden,
        3 * (int64_t)c->dense_inner * c->hidden,
        (int64_t)c->vocab * c->hidden,
    };
    int64_t most = 1;
    for (size_t i = 0; i < sizeof work / sizeof work[0]; i++)
        most = work[i] > most ? work[i] : most;
    int64_t rows = SLICE_WORK / most;
    return rows > 1 ? rows : 1;
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
    emo__pass_set_slice(s->pass, u->deadline != 0 || limit.progress != NULL ? slice_rows(s) : 0);
    uint64_t before = emo__pass_slices(s->pass);
    emo_status status = emo__pass_advance(s->pass, &limit, done, err);
    uint64_t slices = emo__pass_slices(s->pass) - before;
    u->worked = u->worked || slices > 0;
    if (u->budget->steps > 0)
        u->steps -= slices < (uint64_t)u->steps ? (int32_t)slices : u->steps;
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
            status = emo__session_begin(s, &work, err);
            if (status != EMO_OK)
                return status;
            if (!work) {
                *state = report(s, EMO_STATE_DONE);
                return EMO_OK;
            }
        }
        status = work_on(s, u, &ready, err);
        if (status == EMO_OK && ready)
            status = emo__session_finish(s, err);
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
