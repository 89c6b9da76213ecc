/* SPDX-License-Identifier: Apache-2.0 */
/* The router's backward pass on the CPU. The choice of pools and experts carries no gradient: scores are a softmax (or
 * sigmoid) over a fixed set. Formulas: emo/sys/backend.h. */
#include <string.h>

#include "base/status.h"
#include "cpu/route.h"
#include "cpu/route_ops.h"

typedef struct back_task {
    const emo_route_args *a;
    const emo__ops_kernels *kernels;
    char *space;
    size_t row; /* bytes of one row of a worker's space */
} back_task;

enum { BACK_ROWS = 5 };

/* First segment that does not end before `token`. */
static int64_t segment_at(const emo_route_args *a, int64_t token) {
    int64_t low = 0;
    int64_t high = a->n_segments - 1;
    while (low < high) {
        int64_t mid = (low + high) / 2;
        if (a->segment_begin[mid + 1] > token)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

/* ds += gradient of the chosen weights with respect to the scores; both are compact, expert e at place[e]. */
static void weights_to_scores(const emo_route_args *a, const int32_t *indices, const float *weights, const float *dw,
                              const int32_t *place, const float *score, float *ds) {
    int32_t k = a->k;
    if (a->norm_p > 0.0f) {
        /* w_j = s_j / N, dN/ds_j = (s_j / N)^(p - 1) = w_j^(p - 1) */
        double dot = 0.0;
        double norm = 0.0;
        for (int32_t j = 0; j < k; j++) {
            if (indices[j] < 0)
                continue;
            dot += (double)dw[j] * (double)weights[j];
            norm += a->norm_p == 1.0f ? (double)score[place[indices[j]]]
                                      : pow((double)score[place[indices[j]]], (double)a->norm_p);
        }
        if (a->norm_p != 1.0f)
            norm = pow(norm, 1.0 / (double)a->norm_p);
        for (int32_t j = 0; j < k && norm > 0.0; j++) {
            if (indices[j] < 0)
                continue;
            double dn = a->norm_p == 1.0f ? 1.0 : pow((double)weights[j], (double)a->norm_p - 1.0);
            ds[place[indices[j]]] += (float)(((double)dw[j] - dot * dn) / norm);
        }
    } else {
        for (int32_t j = 0; j < k; j++) {
            if (indices[j] >= 0)
                ds[place[indices[j]]] += dw[j];
        }
    }
    for (int32_t j = 0; j < a->n_always; j++) {
        if (indices[k + j] >= 0)
            ds[place[indices[k + j]]] += dw[k + j];
    }
}

static void shared_backward(const emo_route_args *a, const float *weights, const float *dw, float *d_logits) {
    if (a->columns <= a->experts)
        return;
    memset(d_logits + a->experts, 0, (size_t)(a->columns - a->experts) * sizeof *d_logits);
    if (a->shared_mode != EMO_SHARED_SOFTMAX || a->n_always > 0 || a->shared < 2 || dw == NULL)
        return;
    float dot = 0.0f;
    for (int32_t h = 0; h < a->shared; h++)
        dot += weights[a->k + h] * dw[a->k + h];
    for (int32_t h = 0; h < a->shared; h++)
        d_logits[a->experts + h] = weights[a->k + h] * (dw[a->k + h] - dot);
}

/* The allowed experts of a segment, compact. */
typedef struct back_rows {
    float *p;       /* softmax */
    float *score;   /* what weights are made of: p, or sigmoids */
    float *ds;      /* its gradient, then that of the logits */
    int32_t *ids;   /* [m] */
    int32_t *place; /* by expert id */
    size_t m;
} back_rows;

static void enter_segment(const emo_route_args *a, int64_t segment, back_rows *r) {
    r->m = emo__route_allowed(a->allowed + (size_t)segment * (size_t)a->experts, a->experts, r->ids);
    for (size_t i = 0; i < r->m; i++)
        r->place[r->ids[i]] = (int32_t)i;
}

/* Gradient of sigmoid scores; the loss sees them divided by their sum. */
static void sigmoid_back(const back_rows *r, const float *balance, float z) {
    double total = 0.0, dot = 0.0;
    for (size_t i = 0; i < r->m; i++)
        total += (double)r->score[i];
    if (balance != NULL) {
        for (size_t i = 0; i < r->m; i++)
            dot += (double)balance[r->ids[i]] * (double)r->score[i];
        dot /= total;
        for (size_t i = 0; i < r->m; i++)
            r->ds[i] += (float)(((double)balance[r->ids[i]] - dot) / total);
    }
    for (size_t i = 0; i < r->m; i++) {
        float s = r->score[i] - EMO__SIGMOID_FLOOR;
        r->ds[i] = r->ds[i] * s * (1.0f - s) + z * r->p[i];
    }
}

static void back_token(const back_task *t, const back_rows *r, int64_t segment, int64_t token) {
    const emo_route_args *a = t->a;
    const size_t n = (size_t)a->experts, m = r->m, at = (size_t)token * (size_t)emo__route_chosen(a);
    const float *logits = a->logits + (size_t)token * (size_t)a->columns;
    const float *weights = a->weights + at, *dw = a->d_weights != NULL ? a->d_weights + at : NULL;
    const float *balance = a->balance;
    float *d_logits = a->d_logits + (size_t)token * (size_t)a->columns;
    if (m < n)
        memset(d_logits, 0, n * sizeof *d_logits);
    shared_backward(a, weights, dw, d_logits);
    if (m == 0)
        return;
    if (balance != NULL && a->balance_by_segment)
        balance += (size_t)segment * n;
    const float lse = t->kernels->route_softmax(logits, emo__route_gathered(r->ids, m, a->experts), m, r->p);
    const float z = 2.0f * a->z_scale * lse;
    const int sigmoid = a->gating == EMO_GATING_SIGMOID;
    for (size_t i = 0; sigmoid && i < m; i++)
        r->score[i] = emo__sigmoid(logits[r->ids[i]]) + EMO__SIGMOID_FLOOR;
    if (balance == NULL || sigmoid)
        memset(r->ds, 0, emo__route_pad(m) * sizeof *r->ds);
    else if (m == n)
        memcpy(r->ds, balance, n * sizeof *r->ds);
    else
        for (size_t i = 0; i < m; i++)
            r->ds[i] = balance[r->ids[i]];
    for (size_t i = m; i < emo__route_pad(m); i++)
        r->ds[i] = 0.0f;
    if (dw != NULL)
        weights_to_scores(a, a->indices + at, weights, dw, r->place, sigmoid ? r->score : r->p, r->ds);
    if (sigmoid)
        sigmoid_back(r, balance, z);
    else
        t->kernels->route_back(m, r->p, z, r->ds);
    emo__route_scatter(r->ids, m, a->experts, r->ds, d_logits);
}

static void back_piece(void *task, size_t index, size_t worker) {
    const back_task *t = task;
    const emo_route_args *a = t->a;
    char *base = t->space + worker * BACK_ROWS * t->row;
    back_rows r = {.p = (float *)(void *)base,
                   .score = (float *)(void *)(base + t->row),
                   .ds = (float *)(void *)(base + 2 * t->row),
                   .ids = (int32_t *)(void *)(base + 3 * t->row),
                   .place = (int32_t *)(void *)(base + 4 * t->row)};
    int64_t begin = (int64_t)index * EMO__ROUTE_PIECE;
    int64_t end = begin + EMO__ROUTE_PIECE < a->tokens ? begin + EMO__ROUTE_PIECE : a->tokens;
    int64_t segment = segment_at(a, begin);
    enter_segment(a, segment, &r);
    for (int64_t token = begin; token < end; token++) {
        if (token >= a->segment_begin[segment + 1]) {
            while (token >= a->segment_begin[segment + 1])
                segment++;
            enter_segment(a, segment, &r);
        }
        back_token(t, &r, segment, token);
    }
}

/* dx of jittered rows goes through the noise of the forward pass. */
static void add_through_noise(const emo_route_args *a, const float *dxj, float *noise) {
    for (int64_t t = 0; t < a->tokens; t++) {
        emo__route_noise(a, t, noise);
        float *dx = a->dx + t * a->hidden;
        const float *from = dxj + t * a->hidden;
        for (int64_t h = 0; h < a->hidden; h++)
            dx[h] += from[h] * noise[h];
    }
}

static emo_status through_weight(emo__cpu_exec *cpu, const emo_route_args *a, emo_error *err) {
    const float *x;
    float *owned;
    float *dxj = NULL; /* [tokens + 1, hidden] with jitter: the last row is the noise */
    emo_status status = emo__route_jitter(cpu, a, 0, a->tokens, &x, &owned, err);
    if (status != EMO_OK)
        return status;
    if (owned != NULL && a->dx != NULL) {
        size_t count = (size_t)(a->tokens + 1) * (size_t)a->hidden;
        dxj = emo__malloc_array(&cpu->rt->mem, count, sizeof *dxj);
        if (dxj == NULL) {
            emo__free(&cpu->rt->mem, owned);
            return emo__fail_memory(err, count * sizeof *dxj);
        }
    }
    emo_linear_args linear;
    memset(&linear, 0, sizeof linear);
    linear.tokens = a->tokens;
    linear.x = x;
    linear.x_stride = a->hidden;
    linear.weight = a->weight;
    if (a->shared_mode != EMO_SHARED_SOFTMAX || a->n_always > 0 || a->shared < 2)
        linear.weight.rows = a->experts; /* the other columns carry no gradient */
    else
        linear.weight.rows = a->columns;
    linear.weight.packed = NULL; /* packed for all rows */
    linear.dy = a->d_logits;
    linear.y_stride = a->columns;
    linear.dx = dxj != NULL ? dxj : a->dx;
    linear.dx_accumulate = dxj == NULL;
    linear.d_weight = a->d_weight;
    status = emo__cpu_linear_backward(&cpu->base, &linear, err);
    if (status == EMO_OK && dxj != NULL)
        add_through_noise(a, dxj, dxj + a->tokens * a->hidden);
    emo__free(&cpu->rt->mem, dxj);
    emo__free(&cpu->rt->mem, owned);
    return status;
}

emo_status emo__cpu_route_backward(emo_exec *exec, const emo_route_args *a, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    if (a->tokens == 0)
        return EMO_OK;
    size_t row = emo__route_pad((size_t)a->experts) * sizeof(float);
    char *space = emo__cpu_scratch(cpu, cpu->workers * BACK_ROWS * row, err);
    if (space == NULL)
        return EMO_E_OUT_OF_MEMORY;
    back_task t = {a, emo__ops_kernels_of(cpu), space, row};
    size_t pieces = ((size_t)a->tokens + EMO__ROUTE_PIECE - 1) / EMO__ROUTE_PIECE;
    emo__parallel_for(cpu->rt, pieces, back_piece, &t);
    if (a->dx == NULL && a->d_weight == NULL)
        return EMO_OK;
    return through_weight(cpu, a, err);
}
