/* SPDX-License-Identifier: Apache-2.0 */
/* Drawing tokens, a block per row: the same filters, in the same order and with the same random numbers as the CPU's.
 *
 * Nothing is sorted. Tokens rank by their logit, ties by id; a prefix of the ranks is a threshold key and a number of
 * tokens at the threshold. Both top-k (a count), top-p (a mass) and the draw itself (a mass) ask for a shortest prefix,
 * which a bisection over the 32 bits of the key finds in at most 32 sums over the vocabulary. Without top-k and top-p
 * the draw walks ids instead of ranks, as the CPU's does. */
#include <math.h>

#include "ops.h"

#include "kernel.h"
#include "ops/philox.h"
#include "ops/tiles.h"

enum { BLOCK = 1024 };

/* One row's wishes on the device. */
typedef struct row_how {
    float temperature, top_p, min_p, penalty;
    int32_t top_k, history_count;
    int64_t history_first;
    uint64_t seed, sequence, position;
} row_how;

/* The tokens with a larger key than `key`, and the first `ties` with this one. */
typedef struct prefix {
    uint32_t key;
    int64_t ties;
} prefix;

typedef struct shared_room {
    double d[32];
    uint64_t u[32];
    int32_t i[33];
} shared_room;

/* The float of emo_order_key. */
__device__ static inline float of_key(uint32_t k) {
    return __uint_as_float((k & 0x80000000u) != 0u ? k & 0x7fffffffu : ~k);
}

/* Sum of the masses (or the number) of keys from `key` on. */
__device__ static double mass_from(const float *v, int64_t n, uint32_t key, int count_only, shared_room *room) {
    double sum = 0.0;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK) {
        float x = v[i];
        if (emo_order_key(x) >= key)
            sum += count_only ? 1.0 : (double)expf(x);
    }
    return emo_block_sum(sum, room->d);
}

__device__ static inline int reached(double sum, double target, int strict) {
    return strict ? sum > target : sum >= target;
}

/* The shortest prefix of `of` whose sum reaches the target; all of it when none does. top: key of the first rank. */
__device__ static prefix shortest(const float *v, int64_t n, prefix of, uint32_t top, double target, int strict,
                                  int count_only, shared_room *room) {
    uint32_t low = of.key, high = top;
    while (low < high) {
        uint32_t middle = low + (high - low + 1u) / 2u;
        if (reached(mass_from(v, n, middle, count_only, room), target, strict))
            low = middle;
        else
            high = middle - 1u;
    }
    double above = low == 0xffffffffu ? 0.0 : mass_from(v, n, low + 1u, count_only, room);
    double each = count_only ? 1.0 : (double)expf(of_key(low));
    int64_t most = of.ties;
    if (low != of.key || most == INT64_MAX)
        most =
            (int64_t)(mass_from(v, n, low, 1, room) - (low == 0xffffffffu ? 0.0 : mass_from(v, n, low + 1u, 1, room)));
    prefix out = {low, 1};
    while (out.ties < most && !reached(above + (double)out.ties * each, target, strict))
        out.ties++;
    return out;
}

__device__ static double mass_of(const float *v, int64_t n, prefix p, shared_room *room) {
    double above = p.key == 0xffffffffu ? 0.0 : mass_from(v, n, p.key + 1u, 0, room);
    if (p.ties == INT64_MAX)
        return mass_from(v, n, p.key, 0, room);
    return above + (double)p.ties * (double)expf(of_key(p.key));
}

/* The id of the ties-th token with the prefix's key, in the order of ids. */
__device__ static int32_t last_of(const float *v, int64_t n, prefix p, shared_room *room) {
    EMO_SHARED(int32_t, found, 1);
    int64_t each = emo_ceil_div(n, BLOCK), begin = (int64_t)threadIdx.x * each;
    int64_t end = begin + each < n ? begin + each : n;
    int32_t mine = 0, all;
    for (int64_t i = begin; i < end; i++)
        mine += emo_order_key(v[i]) == p.key;
    int64_t before = emo_block_scan(mine, room->i, &all);
    if (before < p.ties && p.ties <= before + mine) {
        for (int64_t i = begin; i < end; i++) {
            before += emo_order_key(v[i]) == p.key;
            if (before == p.ties) {
                found[0] = (int32_t)i;
                break;
            }
        }
    }
    __syncthreads();
    return found[0];
}

/* By ids: the first whose running mass exceeds u total, among those with at least min_p. */
__device__ static int32_t draw_by_id(const float *v, int64_t n, float min_p, double u, shared_room *room) {
    EMO_DYN_SHARED(double, parts); /* [BLOCK] */
    EMO_SHARED(int32_t, found, 1);
    EMO_SHARED(double, start, 2);
    int64_t each = emo_ceil_div(n, BLOCK), begin = (int64_t)threadIdx.x * each;
    int64_t end = begin + each < n ? begin + each : n;
    double mine = 0.0;
    for (int64_t i = begin; i < end; i++) {
        float m = expf(v[i]);
        mine += m >= min_p ? (double)m : 0.0;
    }
    parts[threadIdx.x] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
        double total = 0.0, sum = 0.0, before = 0.0;
        int32_t who = 0;
        for (int t = 0; t < BLOCK; t++)
            total += parts[t];
        for (int t = 0; t < BLOCK && sum <= u * total; t++) {
            if (parts[t] > 0.0) {
                who = t;
                before = sum;
                sum += parts[t];
            }
        }
        start[0] = before;
        start[1] = u * total;
        room->i[0] = who;
    }
    __syncthreads();
    if ((int32_t)threadIdx.x == room->i[0]) {
        double sum = start[0];
        int32_t last = 0;
        for (int64_t i = begin; i < end && sum <= start[1]; i++) {
            float m = expf(v[i]);
            if (m >= min_p && m > 0.0f) {
                sum += (double)m;
                last = (int32_t)i;
            }
        }
        found[0] = last;
    }
    __syncthreads();
    return found[0];
}

/* v: adjusted logits, the largest 0 */
__device__ static int32_t draw(const float *v, int64_t n, const row_how &how, shared_room *room) {
    emo_cuda_philox r = emo_philox_draw(how.seed, EMO_CUDA_RNG_SAMPLE, how.sequence, how.position, 0);
    double u = emo_uniform_f64(r.v[0], r.v[1]);
    int limited = how.top_k > 0 && how.top_k < n;
    if (!limited && !(how.top_p < 1.0f))
        return draw_by_id(v, n, how.min_p, u, room);
    uint32_t top = emo_order_key(0.0f);
    prefix kept = {0u, INT64_MAX};
    if (limited)
        kept = shortest(v, n, kept, top, (double)how.top_k, 0, 1, room);
    if (how.top_p < 1.0f)
        kept = shortest(v, n, kept, top, (double)how.top_p * mass_of(v, n, kept, room), 0, 0, room);
    if (how.min_p > 0.0f) { /* masses fall with the rank: the least key that has enough */
        uint32_t low = kept.key, high = top;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2u;
            if (expf(of_key(middle)) >= how.min_p)
                high = middle;
            else
                low = middle + 1u;
        }
        if (low > kept.key) {
            kept.key = low;
            kept.ties = INT64_MAX;
        }
        if (!(expf(of_key(top)) >= how.min_p)) { /* the first stays whatever it has */
            kept.key = top;
            kept.ties = 1;
        }
    }
    return last_of(v, n, shortest(v, n, kept, top, u * mass_of(v, n, kept, room), 1, 0, room), room);
}

/* id of the largest value, the lower of equals */
__device__ static int32_t argmax(const float *v, int64_t n, shared_room *room) {
    uint64_t best = 0;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK) {
        uint64_t mine = ((uint64_t)emo_order_key(v[i]) << 32) | (uint32_t)(0xffffffffu - (uint32_t)i);
        best = mine > best ? mine : best;
    }
    for (int offset = 16; offset > 0; offset >>= 1) {
        uint64_t other = __shfl_xor_sync(EMO_FULL_WARP, best, offset);
        best = other > best ? other : best;
    }
    if ((threadIdx.x & 31u) == 0)
        room->u[threadIdx.x >> 5] = best;
    __syncthreads();
    best = room->u[0];
    for (int w = 1; w < BLOCK / 32; w++)
        best = room->u[w] > best ? room->u[w] : best;
    __syncthreads();
    return (int32_t)(0xffffffffu - (uint32_t)best);
}

/* v: [rows, vocab] scratch. A row whose logits are not all finite gets id -1. */
__global__ static void __launch_bounds__(BLOCK)
    sample_k(emo_sample_args a, const row_how *rows, const int32_t *history, float *scratch) {
    EMO_SHARED(shared_room, room, 1);
    row_how how = rows[blockIdx.x];
    const float *logits = a.logits + (int64_t)blockIdx.x * a.vocab;
    float *v = scratch + (int64_t)blockIdx.x * a.vocab;
    int finite = 1;
    for (int64_t i = threadIdx.x; i < a.vocab; i += BLOCK) {
        v[i] = logits[i];
        finite &= fabsf(logits[i]) <= 3.402823466e+38f;
    }
    if (!__syncthreads_and(finite)) {
        if (threadIdx.x == 0)
            a.ids[blockIdx.x] = -1;
        return;
    }
    for (int32_t i = (int32_t)threadIdx.x; how.penalty != 1.0f && i < how.history_count; i += BLOCK) {
        int32_t id = history[how.history_first + i];
        if (id < 0 || id >= a.vocab)
            continue;
        /* From the raw logit, so that a token is punished once. The same id again stores the same bits: an exchange,
         * because plain stores of two threads would be a race. */
        float punished = logits[id] > 0.0f ? logits[id] / how.penalty : logits[id] * how.penalty;
        (void)atomicExch((unsigned *)&v[id], __float_as_uint(punished));
    }
    __syncthreads();
    int32_t id = argmax(v, a.vocab, room);
    if (how.temperature > 0.0f) {
        float top = v[id];
        __syncthreads();
        for (int64_t i = threadIdx.x; i < a.vocab;
             i += BLOCK) /* from the largest: a small temperature is no overflow */
            v[i] = (v[i] - top) / how.temperature;
        __syncthreads();
        id = draw(v, a.vocab, how, room);
    }
    if (threadIdx.x == 0)
        a.ids[blockIdx.x] = id;
    if (a.logprobs == NULL)
        return;
    float top = logits[argmax(logits, a.vocab, room)], sum = 0.0f;
    for (int64_t i = threadIdx.x; i < a.vocab; i += BLOCK)
        sum += expf(logits[i] - top);
    double total = emo_block_sum((double)sum, room->d);
    if (threadIdx.x == 0)
        a.logprobs[blockIdx.x] = logits[id] - top - logf((float)total);
}

/* The rows' wishes and their histories, one after the other, as device memory. */
static emo_status stage_rows(emo_exec *exec, const emo_sample_args *args, const row_how **how, const int32_t **history,
                             emo_error *err) {
    const emo_backend_services *services = &emo_cuda_of(exec)->device->services;
    size_t tokens = 0, rows = (size_t)args->rows;
    for (size_t i = 0; i < rows; i++)
        tokens += args->how[i].repetition_penalty != 1.0f && args->how[i].history_count > 0
                      ? (size_t)args->how[i].history_count
                      : 0;
    size_t bytes = rows * sizeof(row_how) + tokens * sizeof(int32_t);
    void *host = NULL;
    EMO_CUDA_TRY(emo_cuda_host_zeroed(emo_cuda_of(exec), bytes, &host, err));
    row_how *out = (row_how *)host;
    int32_t *ids = (int32_t *)(out + rows);
    size_t at = 0;
    for (size_t i = 0; i < rows; i++) {
        const emo_sample_row *row = &args->how[i];
        int32_t count = row->repetition_penalty != 1.0f && row->history_count > 0 ? row->history_count : 0;
        out[i].temperature = row->temperature;
        out[i].top_p = row->top_p;
        out[i].min_p = row->min_p;
        out[i].penalty = row->repetition_penalty;
        out[i].top_k = row->top_k;
        out[i].history_count = count;
        out[i].history_first = (int64_t)at;
        out[i].seed = row->seed;
        out[i].sequence = row->sequence;
        out[i].position = row->position;
        if (count > 0)
            memcpy(ids + at, row->history, (size_t)count * sizeof *ids);
        at += (size_t)count;
    }
    void *device = NULL;
    emo_status status = emo_cuda_stage(exec, host, bytes, &device, err);
    services->free(services->ctx, host);
    if (status != EMO_OK)
        return status;
    *how = (const row_how *)device;
    *history = (const int32_t *)((const char *)device + rows * sizeof(row_how));
    return EMO_OK;
}

emo_status emo_cuda_sample(emo_exec *exec, const emo_sample_args *args, emo_error *err) {
    const row_how *how = NULL;
    const int32_t *history = NULL;
    emo_sample_args a = *args;
    void *v;
    if (args->rows == 0)
        return EMO_OK;
    if (args->vocab < 1 || args->vocab > INT32_MAX)
        return emo_cuda_fail(err, EMO_E_INVALID_ARGUMENT, "cannot sample from a vocabulary of %lld",
                             (long long)args->vocab);
    a.how = NULL; /* the host's */
    EMO_CUDA_TRY(stage_rows(exec, args, &how, &history, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(args->rows * args->vocab) * sizeof(float), &v, err));
    return emo_cuda_launched(EMO_LAUNCH(sample_k, (unsigned)args->rows, BLOCK, BLOCK * sizeof(double),
                                        emo_cuda_stream(exec), a, how, history, (float *)v),
                             "sample", err);
}
