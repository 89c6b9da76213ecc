/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing tokens. The order of the filters is: repetition penalty, temperature, top-k, top-p, min-p. Each works on what
 * the one before left; top-p keeps the shortest list of most probable tokens whose mass among them reaches p, min-p
 * those with at least min_p times the largest probability. Equal logits rank by id. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "cpu/ops_kernels.h"
#include "tensor/philox.h"

typedef struct sample_task {
    const emo_sample_args *args;
    const emo__ops_kernels *kernels;
    float *values;  /* [workers, 2, vocab] adjusted logits and their exponentials */
    int32_t *order; /* [workers, vocab] ids, a heap and behind it what was taken */
} sample_task;

/* Does id a come before id b? */
static int before(const float *v, int32_t a, int32_t b) { return v[a] > v[b] || (v[a] == v[b] && a < b); }

static void sift_down(const float *v, int32_t *heap, int64_t size, int64_t at) {
    int32_t id = heap[at];
    for (int64_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
        if (child + 1 < size && before(v, heap[child + 1], heap[child]))
            child++;
        if (!before(v, heap[child], id))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = id;
}

/* The first of the largest. */
static int32_t argmax(const emo__ops_kernels *kernels, const float *v, int64_t n) {
    float top = kernels->max(n, v);
    int64_t i = 0;
    while (i + 1 < n && v[i] != top)
        i++;
    return (int32_t)i;
}

/* Takes ids in rank order, at most `limit`, and then as many of them as top-p and min-p keep; returns how many.
 * mass[id] is the id's probability over that of the most probable one. Taken ids end up at order[vocab - 1],
 * order[vocab - 2], ... */
static int64_t take_ranked(const float *v, const float *mass, int32_t *order, int64_t vocab, int64_t limit, float top_p,
                           float min_p) {
    for (int64_t i = 0; i < vocab; i++)
        order[i] = (int32_t)i;
    for (int64_t i = vocab / 2 - 1; i >= 0; i--)
        sift_down(v, order, vocab, i);
    double total = 0.0, sum = 0.0;
    for (int64_t i = 0; limit >= vocab && i < vocab; i++)
        total += (double)mass[i];
    int64_t taken = 0;
    while (taken < limit && taken < vocab) {
        int32_t id = order[0];
        if (limit >= vocab && top_p < 1.0f && taken > 0 && sum >= (double)top_p * total)
            break;
        sum += (double)mass[id];
        int64_t size = vocab - taken - 1;
        order[0] = order[size];
        if (size > 0)
            sift_down(v, order, size, 0);
        order[size] = id;
        taken++;
    }
    int64_t kept = taken;
    if (limit < vocab && top_p < 1.0f) { /* the mass of the top-k is known only now */
        total = sum;
        sum = 0.0;
        kept = 0;
        while (kept < taken && (kept == 0 || sum < (double)top_p * total)) {
            sum += (double)mass[order[vocab - 1 - kept]];
            kept++;
        }
    }
    while (kept > 1 && mass[order[vocab - kept]] < min_p)
        kept--;
    return kept;
}

/* v are the adjusted logits, the largest 0; mass takes their exponentials. */
static int32_t draw(const emo__ops_kernels *kernels, const emo_sample_row *how, const float *v, float *mass,
                    int32_t *order, int64_t vocab) {
    int64_t limit = how->top_k > 0 && how->top_k < vocab ? how->top_k : vocab;
    emo__philox r = emo__philox_draw(how->seed, EMO__RNG_SAMPLE, how->sequence, how->position, 0);
    double u = emo__uniform_f64(r.v[0], r.v[1]), total = 0.0, sum = 0.0;
    (void)kernels->exp_sum(vocab, v, 0.0f, mass);
    if (limit < vocab || how->top_p < 1.0f) {
        int64_t kept = take_ranked(v, mass, order, vocab, limit, how->top_p, how->min_p);
        for (int64_t i = 0; i < kept; i++)
            total += (double)mass[order[vocab - 1 - i]];
        for (int64_t i = 0; i + 1 < kept; i++) {
            sum += (double)mass[order[vocab - 1 - i]];
            if (sum > u * total)
                return order[vocab - 1 - i];
        }
        return order[vocab - kept];
    }
    for (int64_t i = 0; i < vocab; i++)
        total += mass[i] >= how->min_p ? (double)mass[i] : 0.0;
    int32_t last = 0;
    for (int64_t i = 0; i < vocab && sum <= u * total; i++) {
        if (mass[i] >= how->min_p && mass[i] > 0.0f) {
            sum += (double)mass[i];
            last = (int32_t)i;
        }
    }
    return last;
}

static void sample_row(void *task, size_t index, size_t worker) {
    const sample_task *t = task;
    const emo_sample_args *a = t->args;
    const emo_sample_row *how = &a->how[index];
    const float *logits = a->logits + (int64_t)index * a->vocab;
    float *v = t->values + 2 * (int64_t)worker * a->vocab;
    int finite = 1;
    for (int64_t i = 0; i < a->vocab; i++)
        finite &= fabsf(logits[i]) <= FLT_MAX;
    a->ids[index] = -1;
    if (!finite)
        return;
    memcpy(v, logits, (size_t)a->vocab * sizeof(float));
    for (int32_t i = 0; how->repetition_penalty != 1.0f && i < how->history_count; i++) {
        int32_t id = how->history[i];
        if (id >= 0 && id < a->vocab) /* from the raw logit, so that a token is punished once */
            v[id] = logits[id] > 0.0f ? logits[id] / how->repetition_penalty : logits[id] * how->repetition_penalty;
    }
    int32_t id = argmax(t->kernels, v, a->vocab);
    if (how->temperature > 0.0f) {
        float top = v[id];
        for (int64_t i = 0; i < a->vocab; i++) /* from the largest, so that a small temperature cannot overflow */
            v[i] = (v[i] - top) / how->temperature;
        id = draw(t->kernels, how, v, v + a->vocab, t->order + (int64_t)worker * a->vocab, a->vocab);
    }
    a->ids[index] = id;
    if (a->logprobs != NULL) {
        float top = t->kernels->max(a->vocab, logits);
        a->logprobs[index] = logits[id] - top - logf(t->kernels->exp_sum(a->vocab, logits, top, NULL));
    }
}

static emo_status sample(emo_exec *exec, const emo_sample_args *args, emo_error *err) {
    emo__cpu_exec *cpu = emo__cpu(exec);
    size_t values = 0, bytes = 0;
    if (args->rows == 0)
        return EMO_OK;
    if (args->vocab < 1 || !emo__mul_size((size_t)args->vocab, cpu->workers, &values) ||
        !emo__mul_size(values, 2 * sizeof(float) + sizeof(int32_t), &bytes))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "cannot sample from a vocabulary of %lld",
                         (long long)args->vocab);
    float *region = emo__cpu_scratch(cpu, bytes, err);
    if (region == NULL)
        return EMO_E_OUT_OF_MEMORY;
    sample_task t = {args, emo__ops_kernels_of(cpu), region, (int32_t *)(void *)(region + 2 * values)};
    emo__parallel_for(cpu->rt, (size_t)args->rows, sample_row, &t);
    for (int64_t i = 0; i < args->rows; i++) {
        if (args->ids[i] < 0)
            return emo__fail(err, EMO_E_NUMERIC, "the logits of row %lld are not all finite: nothing can be drawn",
                             (long long)i);
    }
    return EMO_OK;
}

void emo__cpu_register_sample(emo_backend_ops *ops) { ops->sample = sample; }
