/* SPDX-License-Identifier: Apache-2.0 */
/* Who takes part in a batch.
 *
 * Sequences stand in the order of their waiting, then of the arrival of their work. A batch of B sequences, with a
 * bound of W batches on waiting, must take so many of the first that the rest can be taken in time: with c(j) sequences
 * that have at most j batches left, all but j * B of them. As long as there are at most B * (W + 1) sequences, nobody
 * waits more than W batches, whom else it takes besides. Those are chosen by what a batch reads of the experts.
 */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "infer/session.h"
#include "tensor/quant.h"

/* ---- memory ---- */

/* Bytes of what every batch reads, shared experts included, over the mean of a routed expert's. */
static double bytes_beside(const emo_model *model) {
    double routed = 0.0;
    double beside = 0.0;
    size_t matrices = 0;
    for (size_t i = 0; i < model->n_params; i++) {
        const emo__param *p = &model->params[i];
        if (p->view->data == NULL || p->group == EMO__P_EMBED)
            continue;
        double bytes = (double)emo__dtype_run(p->view->dtype, p->rows * p->cols);
        if (p->group == EMO__P_ROUTED) {
            routed += bytes;
            matrices++;
        } else {
            beside += bytes;
        }
    }
    return matrices > 0 ? beside / (routed / (double)matrices * 3.0) : 0.0;
}

emo_status emo__roster_create(emo_session *s, emo_error *err) {
    const emo__mem *mem = &s->rt->mem;
    emo__roster *r = &s->roster;
    size_t n = (size_t)s->opt.sequences;
    r->turns = emo__calloc(mem, n, sizeof *r->turns);
    r->group = emo__calloc(mem, n, sizeof *r->group);
    if (r->turns == NULL || r->group == NULL)
        return emo__fail_memory(err, n * sizeof *r->turns);
    if (s->opt.batching != EMO_BATCHING_POOL)
        return EMO_OK;
    r->words = emo__session_routed(s) / 64 + 1;
    r->beside = bytes_beside(s->model);
    r->reads = emo__calloc(mem, (3 * n + 1) * r->words, sizeof *r->reads);
    if (r->reads == NULL)
        return emo__fail_memory(err, (3 * n + 1) * r->words * sizeof *r->reads);
    for (size_t i = 0; i < n; i++) {
        s->sequences[i].set = r->reads + (3 * i + 1) * r->words;
        s->sequences[i].recent = s->sequences[i].set + r->words;
    }
    return EMO_OK;
}

void emo__roster_free(emo_session *s) {
    const emo__mem *mem = &s->rt->mem;
    emo__free(mem, s->roster.turns);
    emo__free(mem, s->roster.group);
    emo__free(mem, s->roster.reads);
}

/* ---- order ---- */

static int compare(const void *a, const void *b) {
    const emo__turn *x = a;
    const emo__turn *y = b;
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    if (x->second != y->second)
        return x->second < y->second ? -1 : 1;
    return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

void emo__turns_sort(emo__turn *turns, int32_t n) { qsort(turns, (size_t)n, sizeof *turns, compare); }

static void line_up(emo_session *s) {
    emo__roster *r = &s->roster;
    r->n_turns = 0;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        const emo__sequence *q = &s->sequences[i];
        if (emo__sequence_pending(q) > 0 && emo__session_ready(s, i))
            r->turns[r->n_turns++] = (emo__turn){UINT64_MAX - (uint64_t)q->waits, q->arrival, i};
    }
    emo__turns_sort(r->turns, r->n_turns);
}

/* How many of the first must be taken. */
static int32_t overdue(const emo_session *s, int32_t room) {
    const emo__roster *r = &s->roster;
    int64_t most = 0;
    for (int32_t i = 0; i < r->n_turns; i++) {
        int64_t left = (int64_t)s->opt.max_wait - s->sequences[r->turns[i].sequence].waits;
        int64_t must = i + 1 - (left > 0 ? left : 0) * room; /* c(left) is at least i + 1 */
        most = must > most ? must : most;
    }
    return most < room ? (int32_t)most : room;
}

/* ---- groups ---- */

static int count_bits(const uint64_t *set, const uint64_t *without, size_t words) {
    int n = 0;
    for (size_t i = 0; i < words; i++)
        n += __builtin_popcountll(set[i] & ~without[i]);
    return n;
}

/* Moves the candidate at `at` behind the group's members; the order of the others stays. */
static void join(emo_session *s, int32_t at, int *reads) {
    emo__roster *r = &s->roster;
    emo__turn turn = r->turns[at];
    const uint64_t *set = s->sequences[turn.sequence].set;
    memmove(r->turns + r->n_group + 1, r->turns + r->n_group, (size_t)(at - r->n_group) * sizeof *r->turns);
    r->turns[r->n_group] = turn;
    r->group[r->n_group++] = turn.sequence;
    *reads += count_bits(set, r->reads, r->words);
    for (size_t i = 0; i < r->words; i++)
        r->reads[i] |= set[i];
}

static void choose_alike(emo_session *s, int32_t room) {
    emo__roster *r = &s->roster;
    int32_t must = overdue(s, room);
    int reads = 0;
    memset(r->reads, 0, r->words * sizeof *r->reads);
    while (r->n_group < room && r->n_group < r->n_turns) {
        int32_t best = r->n_group;
        int fewest = count_bits(s->sequences[r->turns[best].sequence].set, r->reads, r->words);
        if (r->n_group > 0 && r->n_group >= must) {
            for (int32_t i = r->n_group + 1; fewest > 0 && i < r->n_turns; i++) {
                int adds = count_bits(s->sequences[r->turns[i].sequence].set, r->reads, r->words);
                best = adds < fewest ? i : best;
                fewest = adds < fewest ? adds : fewest;
            }
            if ((double)fewest * r->n_group > r->beside + reads)
                break;
        }
        join(s, best, &reads);
    }
}

void emo__roster_choose(emo_session *s) {
    emo__roster *r = &s->roster;
    int32_t room = s->opt.batch_sequences > 0 ? s->opt.batch_sequences : s->opt.sequences;
    line_up(s);
    r->n_group = 0;
    if (s->opt.batching == EMO_BATCHING_POOL && r->n_turns > room) {
        choose_alike(s, room);
        return;
    }
    for (int32_t i = 0; i < r->n_turns && i < room; i++)
        r->group[r->n_group++] = r->turns[i].sequence;
}

void emo__roster_begun(emo_session *s) {
    for (int32_t i = 0; i < s->roster.n_turns; i++) {
        int32_t sequence = s->roster.turns[i].sequence;
        emo__sequence *q = &s->sequences[sequence];
        q->waits = s->b.take[sequence] > 0 ? 0 : q->waits + 1;
        s->did.longest_wait = q->waits > s->did.longest_wait ? q->waits : s->did.longest_wait;
    }
}
