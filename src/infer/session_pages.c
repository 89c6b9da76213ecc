/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of the cache for sequences with work.
 *
 * A sequence begins when there are pages for all of its tokens, in the order of arrival; then it takes one more
 * whenever it needs it. Pages come from sequences that stopped, and for those that have begun also from sequences that
 * arrived later, which begin anew when there is room again. The first to arrive can always go on, since the pages hold
 * the longest sequence.
 */
#include <string.h>

#include "base/status.h"
#include "infer/session.h"

static bool begun(const emo_session *s, int32_t i) { return s->kv.lanes[i].n > 0; }

bool emo__session_ready(const emo_session *s, int32_t i) {
    return begun(s, i) && emo__kv_lacks(&s->kv, i, (int64_t)s->sequences[i].n) == 0;
}

void emo__session_give_back(emo_session *s, int32_t i) {
    emo__kv_release(&s->kv, i);
    s->sequences[i].cached = 0;
    s->sequences[i].epoch++;
}

/* Takes the pages of the sequence that stopped first. */
static bool reclaim(emo_session *s) {
    int32_t oldest = -1;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        const emo__sequence *q = &s->sequences[i];
        if (begun(s, i) && emo__sequence_pending(q) == 0 && (oldest < 0 || q->ended < s->sequences[oldest].ended))
            oldest = i;
    }
    if (oldest >= 0)
        emo__session_give_back(s, oldest);
    return oldest >= 0;
}

/* Takes the pages of the last arrival after sequence i. */
static bool preempt(emo_session *s, int32_t i) {
    int32_t last = i;
    for (int32_t j = 0; j < s->opt.sequences; j++)
        if (begun(s, j) && s->sequences[j].arrival > s->sequences[last].arrival)
            last = j;
    if (last == i)
        return false;
    emo__session_give_back(s, last);
    s->did.preempted++;
    return true;
}

static emo_status reserve(emo_session *s, int32_t i, bool others, emo_error *err) {
    int64_t rows = (int64_t)s->sequences[i].n;
    while (emo__kv_lacks(&s->kv, i, rows) > emo__kv_available(&s->kv)) {
        if (!reclaim(s) && !(others && preempt(s, i)))
            return EMO_OK; /* it waits */
    }
    return emo__kv_reserve(&s->kv, s->pass != NULL ? emo__pass_exec(s->pass) : NULL, i, rows, err);
}

/* ---- shared beginnings ---- */

static size_t common(const emo__sequence *a, const emo__sequence *b) {
    size_t most = a->n - 1 < b->cached ? a->n - 1 : b->cached; /* the last token is computed: its logits are wanted */
    size_t n = 0;
    while (n < most && a->tokens[n] == b->tokens[n])
        n++;
    return n;
}

static bool may_use_the_same(const emo_session *s, int32_t i, int32_t j) {
    return memcmp(emo__session_allowed(s, i, 0), emo__session_allowed(s, j, 0), emo__session_routed(s)) == 0;
}

/* The pages that are full of what sequence i begins with, from the sequence that has most of them. */
static emo_status share(emo_session *s, int32_t i, emo_error *err) {
    emo__sequence *q = &s->sequences[i];
    size_t page = (size_t)s->kv.page_rows;
    size_t most = page - 1;
    int32_t from = -1;
    if (s->opt.share_prefix == 0 || s->pool != NULL || !s->kv.tables)
        return EMO_OK;
    for (int32_t j = 0; j < s->opt.sequences; j++) {
        const emo__sequence *other = &s->sequences[j];
        size_t n = j != i && other->cached > most && may_use_the_same(s, i, j) ? common(q, other) : 0;
        if (n > most) {
            most = n;
            from = j;
        }
    }
    if (from < 0)
        return EMO_OK;
    size_t rows = most / page * page;
    emo_status status = emo__kv_share(&s->kv, i, from, (int64_t)rows, err);
    if (status == EMO_OK)
        q->cached = rows;
    return status;
}

static emo_status begin(emo_session *s, int32_t i, emo_error *err) {
    emo_status status = share(s, i, err);
    if (status == EMO_OK)
        status = reserve(s, i, false, err);
    if (status == EMO_OK && emo__session_ready(s, i))
        s->did.shared_tokens += s->sequences[i].cached;
    else
        emo__session_give_back(s, i);
    return status;
}

emo_status emo__session_pages(emo_session *s, emo_error *err) {
    emo__turn *turns = s->roster.turns;
    int32_t n = 0;
    emo_status status = EMO_OK;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        if (emo__sequence_pending(&s->sequences[i]) > 0)
            turns[n++] = (emo__turn){begun(s, i) ? 0 : 1, s->sequences[i].arrival, i};
    }
    emo__turns_sort(turns, n);
    bool room = true;
    for (int32_t i = 0; status == EMO_OK && i < n; i++) {
        int32_t sequence = turns[i].sequence;
        if (turns[i].first == 0 && begun(s, sequence)) { /* it may have been preempted since */
            status = reserve(s, sequence, true, err);
        } else if (turns[i].first == 1 && room) {
            status = begin(s, sequence, err);
            room = status == EMO_OK && emo__session_ready(s, sequence);
        }
    }
    return status;
}
