/* SPDX-License-Identifier: Apache-2.0 */
/* The dispatch plan (a stable counting sort of assignments by expert) and the load-balancing losses on the CPU. */
#include <string.h>

#include "base/status.h"
#include "cpu/route_ops.h"

#define SORT_PIECE 16384 /* assignments per piece; a stable sort has one result whatever the pieces */

typedef struct plan_task {
    const emo_plan_args *a;
    int32_t *place; /* [pieces, experts]: counts, then the next place of each expert */
} plan_task;

static void count_piece(void *task, size_t index, size_t worker) {
    const plan_task *t = task;
    const emo_plan_args *a = t->a;
    int32_t *count = t->place + index * (size_t)a->experts;
    int64_t all = a->tokens * a->k_total;
    int64_t begin = (int64_t)index * SORT_PIECE;
    int64_t end = begin + SORT_PIECE < all ? begin + SORT_PIECE : all;
    memset(count, 0, (size_t)a->experts * sizeof *count);
    for (int64_t i = begin; i < end; i++) {
        int32_t e = a->indices[i];
        if (e >= 0 && e < a->experts)
            count[e]++;
    }
    (void)worker;
}

static void place_piece(void *task, size_t index, size_t worker) {
    const plan_task *t = task;
    const emo_plan_args *a = t->a;
    int32_t *place = t->place + index * (size_t)a->experts;
    int64_t all = a->tokens * a->k_total;
    int64_t begin = (int64_t)index * SORT_PIECE;
    int64_t end = begin + SORT_PIECE < all ? begin + SORT_PIECE : all;
    for (int64_t i = begin; i < end; i++) {
        int32_t e = a->indices[i];
        if (e >= 0 && e < a->experts) {
            a->inverse[i] = place[e];
            a->order[place[e]++] = (int32_t)i;
        } else {
            a->inverse[i] = -1;
        }
    }
    (void)worker;
}

emo_status emo__cpu_plan(emo_exec *exec, const emo_plan_args *a, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    size_t all = (size_t)a->tokens * (size_t)a->k_total;
    size_t pieces = (all + SORT_PIECE - 1) / SORT_PIECE;
    size_t experts = (size_t)a->experts;
    plan_task t = {a, NULL};
    if (pieces > 0) {
        t.place = emo__cpu_scratch(cpu, pieces * experts * sizeof *t.place, err);
        if (t.place == NULL)
            return EMO_E_OUT_OF_MEMORY;
        emo__parallel_for(cpu->rt, pieces, count_piece, &t);
    }
    int32_t next = 0;
    for (size_t e = 0; e < experts; e++) {
        a->offsets[e] = next;
        for (size_t p = 0; p < pieces; p++) {
            int32_t count = t.place[p * experts + e];
            t.place[p * experts + e] = next;
            next += count;
        }
    }
    a->offsets[experts] = next;
    emo__parallel_for(cpu->rt, pieces, place_piece, &t);
    return EMO_OK;
}

emo_status emo__cpu_balance(emo_exec *exec, const emo_balance_args *a, emo_error *err) {
    (void)exec;
    double loss = 0.0;
    for (int32_t e = 0; e < a->experts; e++) {
        double f = 0.0;
        for (int32_t s = 0; s < a->n_sources; s++) {
            if (a->dtypes[s] == EMO_DTYPE_I32)
                f += a->coef[s] * (double)((const int32_t *)a->sources[s])[e];
            else if (a->dtypes[s] == EMO_DTYPE_F32)
                f += a->coef[s] * (double)((const float *)a->sources[s])[e];
            else
                return emo__fail(err, EMO_E_INTERNAL, "balance source %d has data type %d", (int)s, (int)a->dtypes[s]);
        }
        if (a->f != NULL)
            a->f[e] = (float)f;
        if (a->score_sum != NULL)
            loss += f * (double)a->score_sum[e];
        if (a->grad != NULL)
            a->grad[e] = (float)(a->weight * a->scale * f);
    }
    if (a->loss != NULL)
        a->loss[0] += a->scale * loss;
    return EMO_OK;
}

typedef struct documents_task {
    const emo_balance_documents_args *a;
    double *loss; /* [n_segments] */
} documents_task;

static void balance_document(void *task, size_t index, size_t worker) {
    const documents_task *t = task;
    const emo_balance_documents_args *a = t->a;
    size_t n = (size_t)a->experts;
    const uint8_t *allowed = a->allowed + index * n;
    const int32_t *counts = a->segment_counts + index * n;
    const float *sums = a->segment_score_sum + index * n;
    double tokens = (double)(a->segment_begin[index + 1] - a->segment_begin[index]);
    double pool = 0.0;
    for (size_t e = 0; e < n; e++)
        pool += allowed[e] != 0 ? 1.0 : 0.0;
    double factor = pool / (double)a->k / (tokens * tokens);
    double loss = 0.0;
    for (size_t e = 0; e < n; e++) {
        double f = allowed[e] != 0 ? factor * (double)counts[e] : 0.0;
        loss += f * (double)sums[e];
        if (a->grad != NULL)
            a->grad[index * n + e] = (float)(a->weight * a->scale * f);
    }
    t->loss[index] = loss;
    (void)worker;
}

emo_status emo__cpu_balance_documents(emo_exec *exec, const emo_balance_documents_args *a, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    if (a->n_segments == 0)
        return EMO_OK;
    size_t segments = (size_t)a->n_segments;
    documents_task t = {a, emo__cpu_scratch(cpu, segments * sizeof(double), err)};
    if (t.loss == NULL)
        return EMO_E_OUT_OF_MEMORY;
    emo__parallel_for(cpu->rt, segments, balance_document, &t);
    double loss = 0.0;
    for (size_t s = 0; s < segments; s++)
        loss += t.loss[s];
    if (a->loss != NULL)
        a->loss[0] += a->scale * loss;
    return EMO_OK;
}

void emo__cpu_register_route(emo_backend_ops *ops) {
    ops->route_forward = emo__cpu_route_forward;
    ops->route_backward = emo__cpu_route_backward;
    ops->plan = emo__cpu_plan;
    ops->balance = emo__cpu_balance;
    ops->balance_documents = emo__cpu_balance_documents;
}
