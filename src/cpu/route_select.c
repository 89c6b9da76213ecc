/* SPDX-License-Identifier: Apache-2.0 */
/* The router's choice on the CPU: scores inside the pool, top-k, weights, counts and sums. */
#include <string.h>

#include "cpu/route_task.h"

static float norm_of(const float *w, size_t k, float p) {
    double sum = 0.0;
    if (p == 1.0f) {
        for (size_t j = 0; j < k; j++)
            sum += w[j];
        return (float)sum;
    }
    for (size_t j = 0; j < k; j++)
        sum += pow((double)w[j], (double)p);
    return (float)pow(sum, 1.0 / (double)p);
}

/* Keys for the choice: scores, plus the bias; always-active experts do not compete. Returns the number of competitors;
 * `who` maps them to places in z. */
static size_t competitors(const emo_route_args *a, const float *z, const int32_t *ids, size_t m, float *key,
                          int32_t *who) {
    size_t c = 0;
    for (size_t i = 0; i < m; i++) {
        int32_t e = ids[i];
        int skip = 0;
        for (int32_t j = 0; j < a->n_always; j++)
            skip |= a->always[j] == e;
        if (skip)
            continue;
        key[c] = a->score_bias != NULL ? z[i] + a->score_bias[e] : z[i];
        who[c++] = (int32_t)i;
    }
    return c;
}

static void shared_part(const emo_route_args *a, const float *logits, const float *z, const int32_t *ids, size_t m,
                        int32_t *indices, float *weights) {
    if (a->n_always > 0) {
        for (int32_t j = 0; j < a->n_always; j++) {
            indices[j] = -1;
            weights[j] = 0.0f;
            for (size_t i = 0; i < m; i++) {
                if (ids[i] == a->always[j]) {
                    indices[j] = ids[i];
                    weights[j] = z[i];
                }
            }
        }
        return;
    }
    int32_t h = a->shared;
    for (int32_t j = 0; j < h; j++) {
        indices[j] = a->experts + j;
        weights[j] = 1.0f;
    }
    if (a->shared_mode == EMO_SHARED_SOFTMAX && h > 1) {
        const float *own = logits + a->experts;
        float top = own[0];
        for (int32_t j = 1; j < h; j++)
            top = own[j] > top ? own[j] : top;
        float sum = 0.0f;
        for (int32_t j = 0; j < h; j++) {
            weights[j] = emo__exp(own[j] - top);
            sum += weights[j];
        }
        for (int32_t j = 0; j < h; j++)
            weights[j] /= sum;
    }
}

void emo__route_select_piece(void *task, size_t index, size_t worker) {
    const emo__route_task *t = task;
    const emo_route_args *a = t->a;
    const emo__route_piece *piece = &t->pieces[index];
    emo__route_space s = emo__route_space_of(t, worker);
    int32_t n = a->experts;
    size_t k = (size_t)a->k;
    size_t k_total = (size_t)emo__route_chosen(a);
    float *sum = t->sums != NULL ? t->sums + index * (size_t)n : NULL;
    int32_t *counts = t->counts != NULL ? t->counts + index * (size_t)n : NULL;
    double z_sum = 0.0;
    if (counts != NULL)
        memset(counts, 0, (size_t)n * sizeof *counts);
    size_t m = emo__route_allowed(emo__route_set(t->sets, piece->segment, n), n, s.ids);
    if (sum != NULL)
        memset(s.sum, 0, emo__route_pad(m) * sizeof *s.sum);
    const int32_t *gathered = emo__route_gathered(s.ids, m, n);
    int64_t begin = piece->begin > a->first ? piece->begin : a->first;
    int64_t end = piece->end < a->last ? piece->end : a->last;
    int plain = a->n_always == 0 && a->score_bias == NULL;
    for (int64_t token = begin; token < end; token++) {
        const float *logits = a->logits + (size_t)token * (size_t)a->columns;
        int32_t *indices = a->indices + (size_t)token * k_total;
        float *weights = a->weights + (size_t)token * k_total;
        float lse = m > 0 ? t->kernels->route_softmax(logits, gathered, m, s.z) : 0.0f;
        float total = 1.0f;
        if (a->gating == EMO_GATING_SIGMOID && m > 0) {
            for (size_t i = 0; i < m; i++) {
                float v = logits[s.ids[i]];
                float e = emo__exp(v > 0.0f ? -v : v);
                s.z[i] = (v > 0.0f ? 1.0f : e) / (1.0f + e) + EMO__SIGMOID_FLOOR;
            }
            total = t->kernels->route_sum(m, s.z); /* the softmax left zeros in the padding */
        }
        size_t got;
        if (plain) {
            got = t->kernels->route_top(s.z, m, k, s.best, s.best_at);
        } else {
            size_t c = competitors(a, s.z, s.ids, m, s.key, s.who);
            got = t->kernels->route_top(s.key, c, k, s.best, s.best_at);
            for (size_t j = 0; j < got; j++)
                s.best_at[j] = s.who[s.best_at[j]];
        }
        for (size_t j = 0; j < k; j++) {
            indices[j] = j < got ? s.ids[s.best_at[j]] : -1;
            weights[j] = j < got ? s.z[s.best_at[j]] : 0.0f;
        }
        if (a->norm_p > 0.0f) {
            float norm = norm_of(weights, got, a->norm_p);
            for (size_t j = 0; j < got && norm > 0.0f; j++)
                weights[j] /= norm;
        }
        shared_part(a, logits, s.z, s.ids, m, indices + k, weights + k);
        if (counts != NULL) {
            for (size_t j = 0; j < k_total; j++) {
                if (indices[j] >= 0 && indices[j] < n)
                    counts[indices[j]]++;
            }
        }
        if (a->scores != NULL) {
            float *row = a->scores + (size_t)token * (size_t)n;
            if (m < (size_t)n)
                memset(row, 0, (size_t)n * sizeof *row);
            emo__route_scatter(s.ids, m, n, s.z, row);
        }
        if (sum != NULL && m > 0)
            t->kernels->route_add(m, 1.0f / total, s.z, s.sum);
        if (a->lse != NULL)
            a->lse[token] = lse;
        z_sum += (double)lse * (double)lse;
    }
    if (sum != NULL && m < (size_t)n)
        memset(sum, 0, (size_t)n * sizeof *sum);
    if (sum != NULL)
        emo__route_scatter(s.ids, m, n, s.sum, sum);
    if (t->z_sums != NULL)
        t->z_sums[index] = z_sum;
}

/* Ordered sums of the pieces that [first, last) touches. */
void emo__route_select_reduce(const emo__route_task *t, size_t pieces) {
    const emo_route_args *a = t->a;
    int32_t n = a->experts;
    int64_t rows = 0;
    for (size_t p = 0; p < pieces; p++) {
        const emo__route_piece *piece = &t->pieces[p];
        int64_t begin = piece->begin > a->first ? piece->begin : a->first;
        int64_t end = piece->end < a->last ? piece->end : a->last;
        if (begin >= end)
            continue;
        rows += end - begin;
        size_t at = (size_t)piece->segment * (size_t)n;
        for (int32_t e = 0; e < n && t->counts != NULL; e++) {
            int32_t c = t->counts[p * (size_t)n + (size_t)e];
            if (a->counts != NULL)
                a->counts[e] += c;
            if (a->segment_counts != NULL)
                a->segment_counts[at + (size_t)e] += c;
        }
        for (int32_t e = 0; e < n && t->sums != NULL; e++) {
            float v = t->sums[p * (size_t)n + (size_t)e];
            if (a->score_sum != NULL)
                a->score_sum[e] += v;
            if (a->segment_score_sum != NULL)
                a->segment_score_sum[at + (size_t)e] += v;
        }
        if (a->z_sum != NULL)
            a->z_sum[0] += t->z_sums[p];
    }
    if (a->counts != NULL) {
        for (int32_t h = 0; h < a->shared && a->n_always == 0; h++)
            a->counts[n + h] += (int32_t)rows;
    }
}
