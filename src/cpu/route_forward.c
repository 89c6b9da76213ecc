/* SPDX-License-Identifier: Apache-2.0 */
/* The router's forward pass on the CPU: its phases, the logits, the pools. Formulas: emo/sys/backend.h. */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "cpu/route_ops.h"
#include "cpu/route_task.h"
#include "tensor/philox.h"

/* ---- logits ---- */

void emo__route_noise(const emo_route_args *a, int64_t token, float *noise) {
    int64_t blocks = (a->hidden + 3) / 4;
    for (int64_t b = 0; b < blocks; b++) {
        emo__philox r = emo__philox_draw(a->seed, EMO__RNG_JITTER, a->step,
                                         (uint64_t)((a->first_token + token) * blocks + b), (uint32_t)a->layer);
        for (int64_t j = 0; j < 4 && b * 4 + j < a->hidden; j++)
            noise[b * 4 + j] = 1.0f + a->jitter * (2.0f * emo__uniform_f32(r.v[j]) - 1.0f);
    }
}

emo_status emo__route_jitter(emo__cpu_exec *cpu, const emo_route_args *a, int64_t first, int64_t last, const float **x,
                             float **owned, emo_error *err) {
    *owned = NULL;
    *x = a->x + first * a->hidden;
    if (!(a->jitter > 0.0f) || last <= first)
        return EMO_OK;
    size_t hidden = (size_t)a->hidden;
    size_t rows = (size_t)(last - first);
    float *out = emo__malloc_array(&cpu->rt->mem, rows * hidden, sizeof *out);
    if (out == NULL)
        return emo__fail_memory(err, rows * hidden * sizeof *out);
    for (size_t i = 0; i < rows; i++) {
        float *row = out + i * hidden;
        emo__route_noise(a, first + (int64_t)i, row);
        for (size_t h = 0; h < hidden; h++)
            row[h] *= a->x[((size_t)first + i) * hidden + h];
    }
    *x = out;
    *owned = out;
    return EMO_OK;
}

static emo_status logits_phase(emo__cpu_exec *cpu, const emo_route_args *a, emo_error *err) {
    if (a->last <= a->first)
        return EMO_OK;
    const float *x;
    float *owned;
    emo_status status = emo__route_jitter(cpu, a, a->first, a->last, &x, &owned, err);
    if (status != EMO_OK)
        return status;
    emo_linear_args linear;
    memset(&linear, 0, sizeof linear);
    linear.tokens = a->last - a->first;
    linear.x = x;
    linear.x_stride = a->hidden;
    linear.weight = a->weight;
    if (a->weight.rows != a->columns) {
        linear.weight.rows = a->columns;
        linear.weight.packed = NULL; /* packed for all rows */
    }
    linear.y = a->logits + a->first * a->columns;
    linear.y_stride = a->columns;
    status = emo__cpu_linear_forward(&cpu->base, &linear, 1, err);
    emo__free(&cpu->rt->mem, owned);
    return status;
}

/* ---- pools ---- */

static void usage_piece(void *task, size_t index, size_t worker) {
    const emo__route_task *t = task;
    const emo_route_args *a = t->a;
    const emo__route_piece *piece = &t->pieces[index];
    emo__route_space s = emo__route_space_of(t, worker);
    int32_t n = a->experts;
    float *sum = t->sums + index * (size_t)n;
    size_t m = emo__route_allowed(emo__route_set(t->sets, piece->segment, n), n, s.ids);
    if (n > 0 && m < (size_t)n)
        memset(sum, 0, (size_t)n * sizeof *sum);
    if (m == 0)
        return;
    memset(s.sum, 0, emo__route_pad(m) * sizeof *s.sum);
    for (int32_t token = piece->begin; token < piece->end; token++) {
        (void)t->kernels->route_softmax(a->logits + (size_t)token * (size_t)a->columns,
                                        emo__route_gathered(s.ids, m, n), m, s.z);
        t->kernels->route_add(m, 1.0f, s.z, s.sum);
    }
    emo__route_scatter(s.ids, m, n, s.sum, sum);
}

/* Number of experts with cumulative mean mass below pool_mass, plus one, clamped. usage over `tokens` tokens. */
static int32_t mass_size(const emo_route_args *a, const float *usage, const int32_t *ids, size_t m, int32_t tokens,
                         emo__route_space *s) {
    for (size_t i = 0; i < m; i++)
        s->key[i] = usage[ids[i]];
    double limit = (double)a->pool_mass * tokens;
    double sum = 0.0;
    int32_t size = 0;
    /* pools are small: repeated search for the largest costs little */
    for (size_t taken = 0; taken < m; taken++) {
        size_t best = 0;
        for (size_t i = 1; i < m; i++) {
            if (s->key[i] > s->key[best])
                best = i;
        }
        sum += s->key[best];
        if (!(sum < limit))
            break;
        s->key[best] = -1.0f;
        size++;
        if (size >= a->pool_max)
            break;
    }
    size += 1;
    size = size < a->pool_min ? a->pool_min : size;
    return size > a->pool_max ? a->pool_max : size;
}

/* Removes the least used unprotected experts until `size` are left; ties keep the lower id. */
static void narrow(const emo_route_args *a, const float *usage, const int32_t *ids, size_t m, int32_t size,
                   uint8_t *allowed, emo__route_space *s) {
    int32_t n = a->experts;
    size_t competing = 0;
    int32_t *who = s->who;
    for (size_t i = 0; i < m; i++) {
        int32_t e = ids[i];
        int protect = e >= n - a->forced;
        for (int32_t j = 0; j < a->n_always; j++)
            protect |= a->always[j] == e;
        if (!protect)
            who[competing++] = e;
    }
    size_t out = m - (size_t)(size < 0 ? 0 : size);
    if (size >= 0 && (size_t)size >= m)
        return;
    if (out > competing)
        out = competing;
    /* The order of bits is the order of floats that are not negative. `low` becomes the largest value that `room` or
     * more reach; those above it stay, and of those at it as many as still have room, the first ones. */
    size_t room = competing - out, above = 0;
    uint32_t *bits = (uint32_t *)(void *)s->key, low = 0;
    for (size_t i = 0; i < competing; i++)
        bits[i] = emo__f32_bits(usage[who[i]]);
    for (uint32_t step = UINT32_C(1) << 31; step > 0; step >>= 1) {
        size_t reach = 0;
        for (size_t i = 0; i < competing; i++)
            reach += bits[i] >= (low | step);
        low |= reach >= room ? step : 0;
    }
    for (size_t i = 0; i < competing; i++)
        above += bits[i] > low;
    for (size_t i = 0; i < competing; i++) {
        int stays = bits[i] > low;
        if (bits[i] == low && above < room) {
            stays = 1;
            above++;
        }
        if (!stays)
            allowed[who[i]] = 0;
    }
}

static void pool_segment(void *task, size_t index, size_t worker) {
    const emo__route_task *t = task;
    const emo_route_args *a = t->a;
    emo__route_space s = emo__route_space_of(t, worker);
    int32_t n = a->experts;
    size_t at = index * (size_t)n;
    uint8_t *allowed = a->allowed + at;
    if (a->allowed_in != NULL)
        memcpy(allowed, a->allowed_in + at, (size_t)n);
    else
        memset(allowed, 1, (size_t)n);
    for (int32_t j = 0; j < a->n_always; j++)
        allowed[a->always[j]] = 1;
    if (a->segment_counts != NULL)
        memset(a->segment_counts + at, 0, (size_t)n * sizeof *a->segment_counts);
    if (a->segment_score_sum != NULL)
        memset(a->segment_score_sum + at, 0, (size_t)n * sizeof *a->segment_score_sum);
    if (a->usage == NULL)
        return;
    float *usage = a->usage + at;
    memset(usage, 0, (size_t)n * sizeof *usage);
    for (int32_t p = t->first_piece[index]; p < t->first_piece[index + 1]; p++) {
        const float *sum = t->sums + (size_t)p * (size_t)n;
        for (int32_t e = 0; e < n; e++)
            usage[e] += sum[e];
    }
    size_t m = emo__route_allowed(allowed, n, s.ids);
    if (a->pool_mass > 0.0f) {
        int32_t tokens = a->segment_begin[index + 1] - a->segment_begin[index];
        narrow(a, usage, s.ids, m, mass_size(a, usage, s.ids, m, tokens, &s), allowed, &s);
    } else if (a->pool_size != NULL) {
        narrow(a, usage, s.ids, m, a->pool_size[index], allowed, &s);
    }
}

static size_t make_pieces(const emo_route_args *a, emo__route_piece *pieces, int32_t *first_piece) {
    size_t count = 0;
    for (int64_t s = 0; s < a->n_segments; s++) {
        if (first_piece != NULL)
            first_piece[s] = (int32_t)count;
        for (int32_t b = a->segment_begin[s]; b < a->segment_begin[s + 1]; b += EMO__ROUTE_PIECE) {
            if (pieces != NULL) {
                int32_t end = a->segment_begin[s + 1];
                pieces[count].segment = (int32_t)s;
                pieces[count].begin = b;
                pieces[count].end = end - b > EMO__ROUTE_PIECE ? b + EMO__ROUTE_PIECE : end;
            }
            count++;
        }
    }
    if (first_piece != NULL)
        first_piece[a->n_segments] = (int32_t)count;
    return count;
}

emo_status emo__cpu_route_forward(emo_exec *exec, const emo_route_args *a, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    if ((a->phases & EMO_ROUTE_LOGITS) != 0) {
        emo_status status = logits_phase(cpu, a, err);
        if (status != EMO_OK)
            return status;
    }
    if ((a->phases & (EMO_ROUTE_POOL | EMO_ROUTE_SELECT)) == 0 || a->tokens == 0)
        return EMO_OK;

    size_t n = (size_t)a->experts;
    size_t segments = (size_t)a->n_segments;
    size_t pieces = make_pieces(a, NULL, NULL);
    size_t workers = cpu->workers;
    size_t at_first = emo__route_align(pieces * sizeof(emo__route_piece));
    size_t at_sums = at_first + emo__route_align((segments + 1) * sizeof(int32_t));
    size_t at_counts = at_sums + emo__route_align(pieces * n * sizeof(float));
    size_t at_z = at_counts + emo__route_align(pieces * n * sizeof(int32_t));
    size_t at_space = at_z + emo__route_align(pieces * sizeof(double));
    size_t stride = emo__route_space_bytes(a->experts);
    char *scratch = emo__cpu_scratch(cpu, at_space + workers * stride, err);
    if (scratch == NULL)
        return EMO_E_OUT_OF_MEMORY;
    emo__route_task t;
    memset(&t, 0, sizeof t);
    t.a = a;
    t.kernels = emo__ops_kernels_of(cpu);
    t.pieces = (emo__route_piece *)(void *)scratch;
    t.first_piece = (int32_t *)(void *)(scratch + at_first);
    t.space = scratch + at_space;
    t.space_stride = stride;
    (void)make_pieces(a, (emo__route_piece *)(void *)scratch, (int32_t *)(void *)(scratch + at_first));

    if ((a->phases & EMO_ROUTE_POOL) != 0) {
        t.sums = (float *)(void *)(scratch + at_sums);
        t.sets = a->allowed_in;
        if (a->usage != NULL)
            emo__parallel_for(cpu->rt, pieces, usage_piece, &t);
        emo__parallel_for(cpu->rt, segments, pool_segment, &t);
    }
    if ((a->phases & EMO_ROUTE_SELECT) != 0) {
        int want_sums = a->score_sum != NULL || a->segment_score_sum != NULL;
        int want_counts = a->counts != NULL || a->segment_counts != NULL;
        t.sums = want_sums ? (float *)(void *)(scratch + at_sums) : NULL;
        t.counts = want_counts ? (int32_t *)(void *)(scratch + at_counts) : NULL;
        t.z_sums = (double *)(void *)(scratch + at_z);
        t.sets = a->allowed;
        emo__parallel_for(cpu->rt, pieces, emo__route_select_piece, &t);
        emo__route_select_reduce(&t, pieces);
    }
    return EMO_OK;
}
