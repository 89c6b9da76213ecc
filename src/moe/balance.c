/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/balance.h"

#include <string.h>

#include "base/status.h"

#define STATE_HEADER 4 /* words: magic, steps in the ring, next place of the ring, micro-batches of the last step */
#define STATE_MAGIC 0x656D6231

struct emo__balance {
    emo_runtime *rt;
    emo_backend *backend;
    emo_balance_scope scope;
    int32_t layers;
    int32_t ring; /* steps kept: window - 1 */
    int32_t *experts;
    int32_t *routed;
    size_t *offset; /* [layers + 1] experts before each layer */
    int32_t *now;   /* device [capacity, total experts] counts of this step's micro-batches */
    int32_t *past;  /* device, the same of the previous step; batch and window only */
    int32_t capacity;
    int32_t past_capacity;
    int32_t microbatches;
    int32_t past_microbatches; /* 0: none */
    float *history;            /* device [ring, total experts] counts / N of earlier steps */
    int32_t held;              /* steps in the ring */
    int32_t next;              /* where the next one goes */
    double n_all;
    double tokens;
    const void **sources; /* [max_sources] arguments handed out */
    emo_dtype *dtypes;
    double *coef;
    int32_t max_sources;
};

static int keeps_past(const emo__balance *b) { return b->scope == EMO_BALANCE_BATCH || b->scope == EMO_BALANCE_WINDOW; }

static size_t total(const emo__balance *b) { return b->offset[b->layers]; }

void emo__balance_destroy(emo__balance *balance) {
    if (balance == NULL)
        return;
    emo__balance *b = balance;
    const emo__mem *mem = &b->rt->mem;
    if (b->now != NULL)
        b->backend->ops->mem_free(b->backend, b->now);
    if (b->past != NULL)
        b->backend->ops->mem_free(b->backend, b->past);
    if (b->history != NULL)
        b->backend->ops->mem_free(b->backend, b->history);
    emo__free(mem, b->experts);
    emo__free(mem, b->routed);
    emo__free(mem, b->offset);
    emo__free(mem, b->sources);
    emo__free(mem, b->dtypes);
    emo__free(mem, b->coef);
    emo_runtime *rt = b->rt;
    emo__free(mem, b);
    emo_runtime_release(rt);
}

static emo_status grow_sources(emo__balance *b, int32_t need, emo_error *err) {
    if (need <= b->max_sources)
        return EMO_OK;
    const emo__mem *mem = &b->rt->mem;
    size_t count = (size_t)need;
    const void **sources = emo__malloc_array(mem, count, sizeof *sources);
    emo_dtype *dtypes = emo__malloc_array(mem, count, sizeof *dtypes);
    double *coef = emo__malloc_array(mem, count, sizeof *coef);
    if (sources == NULL || dtypes == NULL || coef == NULL) {
        emo__free(mem, sources);
        emo__free(mem, dtypes);
        emo__free(mem, coef);
        return emo__fail_memory(err, count * sizeof *coef);
    }
    emo__free(mem, b->sources);
    emo__free(mem, b->dtypes);
    emo__free(mem, b->coef);
    b->sources = sources;
    b->dtypes = dtypes;
    b->coef = coef;
    b->max_sources = need;
    return EMO_OK;
}

emo_status emo__balance_create(emo_runtime *rt, emo_backend *backend, int32_t layers, const int32_t *experts,
                               const int32_t *shared, emo_balance_scope scope, int32_t window, emo__balance **out,
                               emo_error *err) {
    *out = NULL;
    if (scope < EMO_BALANCE_MICROBATCH || scope > EMO_BALANCE_DOCUMENT)
        return emo__fail(err, EMO_E_RANGE, "balance_scope is %d, which is no scope", (int)scope);
    if (scope == EMO_BALANCE_WINDOW && (window < 1 || window > EMO__BALANCE_MAX_WINDOW))
        return emo__fail(err, EMO_E_RANGE, "balance_window is %d; it must be 1 to %d steps", (int)window,
                         EMO__BALANCE_MAX_WINDOW);
    const emo__mem *mem = &rt->mem;
    emo__balance *b = emo__calloc(mem, 1, sizeof *b);
    if (b == NULL)
        return emo__fail_memory(err, sizeof *b);
    b->rt = emo__runtime_retain(rt);
    b->backend = backend;
    b->scope = scope;
    b->layers = layers;
    b->ring = scope == EMO_BALANCE_WINDOW ? window - 1 : 0;
    size_t count = (size_t)layers;
    b->experts = emo__malloc_array(mem, count, sizeof *b->experts);
    b->routed = emo__malloc_array(mem, count, sizeof *b->routed);
    b->offset = emo__malloc_array(mem, count + 1, sizeof *b->offset);
    emo_status status = EMO_OK;
    if (b->experts == NULL || b->routed == NULL || b->offset == NULL)
        status = emo__fail_memory(err, count * sizeof *b->offset);
    size_t at = 0;
    for (int32_t l = 0; status == EMO_OK && l < layers; l++) {
        b->experts[l] = experts[l];
        b->routed[l] = experts[l] - shared[l];
        b->offset[l] = at;
        at += (size_t)experts[l];
        b->offset[l + 1] = at;
    }
    if (status == EMO_OK && b->ring > 0) {
        size_t bytes = (size_t)b->ring * total(b) * sizeof *b->history;
        void *memory = NULL;
        if (bytes > 0)
            status = backend->ops->mem_alloc(backend, bytes, &memory, err);
        b->history = memory;
    }
    if (status == EMO_OK)
        status = grow_sources(b, b->ring + 1, err);
    if (status != EMO_OK) {
        emo__balance_destroy(b);
        return status;
    }
    *out = b;
    return EMO_OK;
}

/* Room for `need` micro-batches in one of the two count arrays; contents are lost when it grows. */
static emo_status room(emo__balance *b, int32_t need, int32_t **counts, int32_t *capacity, emo_error *err) {
    if (need <= *capacity || total(b) == 0)
        return EMO_OK;
    void *memory = NULL;
    emo_status status = b->backend->ops->mem_alloc(b->backend, (size_t)need * total(b) * sizeof **counts, &memory, err);
    if (status != EMO_OK)
        return status;
    if (*counts != NULL)
        b->backend->ops->mem_free(b->backend, *counts);
    *counts = memory;
    *capacity = need;
    return EMO_OK;
}

emo_status emo__balance_reserve(emo__balance *b, int32_t microbatches, emo_error *err) {
    emo_status status = grow_sources(b, b->ring + microbatches, err);
    if (status == EMO_OK)
        status = room(b, microbatches, &b->now, &b->capacity, err);
    if (status == EMO_OK && keeps_past(b) && b->past_microbatches == 0) /* so that the end of the step needs none */
        status = room(b, microbatches, &b->past, &b->past_capacity, err);
    return status;
}

emo_status emo__balance_begin_step(emo__balance *balance, emo_exec *exec, int32_t microbatches, double n_all,
                                   double tokens, emo_error *err) {
    emo__balance *b = balance;
    if (microbatches < 1 || microbatches > EMO__BALANCE_MAX_MICROBATCHES)
        return emo__fail(err, EMO_E_RANGE, "%d micro-batches; a step has 1 to %d", (int)microbatches,
                         EMO__BALANCE_MAX_MICROBATCHES);
    if (!(n_all > 0.0) || !(tokens > 0.0))
        return emo__fail(err, EMO_E_RANGE, "the loss divisor is %g and the step has %g tokens; both must be positive",
                         n_all, tokens);
    emo_status status = emo__balance_reserve(b, microbatches, err);
    if (status != EMO_OK)
        return status;
    b->microbatches = microbatches;
    b->n_all = n_all;
    b->tokens = tokens;
    size_t bytes = (size_t)microbatches * total(b) * sizeof *b->now;
    return bytes > 0 ? b->backend->ops->zero(exec, b->now, bytes, err) : EMO_OK;
}

int32_t *emo__balance_counts(emo__balance *balance, int32_t layer, int32_t microbatch) {
    const emo__balance *b = balance;
    if (b->experts[layer] == 0)
        return NULL;
    return b->now + (size_t)microbatch * total(b) + b->offset[layer];
}

const int32_t *emo__balance_step_counts(const emo__balance *balance) { return balance->now; }

void emo__balance_assume_full(emo__balance *balance) { balance->held = balance->ring; }

static void add_source(emo__balance *b, int32_t *count, const void *source, emo_dtype dtype, double coef) {
    b->sources[*count] = source;
    b->dtypes[*count] = dtype;
    b->coef[*count] = coef;
    (*count)++;
}

void emo__balance_args(emo__balance *balance, int32_t layer, int32_t microbatch, int32_t k, double tokens,
                       emo_balance_args *args) {
    emo__balance *b = balance;
    int32_t count = 0;
    double n = b->routed[layer];
    size_t stride = total(b);
    size_t at = b->offset[layer];
    if (!keeps_past(b)) {
        add_source(b, &count, b->now + (size_t)microbatch * stride + at, EMO_DTYPE_I32, 1.0 / b->n_all);
        args->scale = n / (double)k / tokens;
    } else {
        int full = b->past_microbatches == b->microbatches;
        int32_t last = full ? b->microbatches : microbatch + 1;
        double steps = 1.0 + (double)b->held;
        double coef = 1.0 / (b->n_all * steps);
        if (!full)
            coef *= (double)b->microbatches / (double)last;
        for (int32_t m = 0; m < last; m++) {
            const int32_t *from = m <= microbatch ? b->now : b->past;
            add_source(b, &count, from + (size_t)m * stride + at, EMO_DTYPE_I32, coef);
        }
        for (int32_t s = 0; s < b->held; s++)
            add_source(b, &count, b->history + (size_t)s * stride + at, EMO_DTYPE_F32, 1.0 / steps);
        args->scale = n / (double)k / b->tokens;
    }
    args->experts = b->routed[layer];
    args->n_sources = count;
    args->sources = b->sources;
    args->dtypes = b->dtypes;
    args->coef = b->coef;
}

emo_status emo__balance_end_step(emo__balance *balance, emo_exec *exec, emo_error *err) {
    emo__balance *b = balance;
    if (!keeps_past(b) || b->microbatches == 0)
        return EMO_OK;
    emo_status status = room(b, b->capacity, &b->past, &b->past_capacity, err);
    for (int32_t l = 0; status == EMO_OK && b->ring > 0 && l < b->layers; l++) {
        if (b->experts[l] == 0)
            continue;
        for (int32_t m = 0; m < b->microbatches; m++) {
            b->sources[m] = emo__balance_counts(b, l, m);
            b->dtypes[m] = EMO_DTYPE_I32;
            b->coef[m] = 1.0 / b->n_all;
        }
        emo_balance_args args;
        memset(&args, 0, sizeof args);
        args.experts = b->experts[l];
        args.n_sources = b->microbatches;
        args.sources = b->sources;
        args.dtypes = b->dtypes;
        args.coef = b->coef;
        args.f = b->history + (size_t)b->next * total(b) + b->offset[l];
        status = b->backend->ops->balance(exec, &args, err);
    }
    if (status != EMO_OK)
        return status;
    if (b->ring > 0) {
        b->next = (b->next + 1) % b->ring;
        b->held = b->held < b->ring ? b->held + 1 : b->held;
    }
    int32_t *counts = b->past;
    int32_t capacity = b->past_capacity;
    b->past = b->now;
    b->past_capacity = b->capacity;
    b->past_microbatches = b->microbatches;
    b->now = counts;
    b->capacity = capacity;
    b->microbatches = 0;
    return EMO_OK;
}

/* ---- checkpoints ---- */

size_t emo__balance_state_words(const emo__balance *balance) {
    const emo__balance *b = balance;
    return STATE_HEADER + ((size_t)b->held + (size_t)b->past_microbatches) * total(b);
}

emo_status emo__balance_export(const emo__balance *balance, emo_exec *exec, int32_t *words, emo_error *err) {
    const emo__balance *b = balance;
    const emo_backend_ops *ops = b->backend->ops;
    words[0] = STATE_MAGIC;
    words[1] = b->held;
    words[2] = b->next;
    words[3] = b->past_microbatches;
    size_t ring = (size_t)b->held * total(b);
    size_t past = (size_t)b->past_microbatches * total(b);
    emo_status status = EMO_OK;
    if (ring > 0)
        status = ops->download(exec, words + STATE_HEADER, b->history, ring * sizeof *words, err);
    if (status == EMO_OK && past > 0)
        status = ops->download(exec, words + STATE_HEADER + ring, b->past, past * sizeof *words, err);
    return status == EMO_OK ? ops->synchronize(exec, err) : status;
}

emo_status emo__balance_import(emo__balance *balance, emo_exec *exec, const int32_t *words, size_t count,
                               emo_error *err) {
    emo__balance *b = balance;
    const emo_backend_ops *ops = b->backend->ops;
    if (count < STATE_HEADER || words[0] != STATE_MAGIC)
        return emo__fail(err, EMO_E_FORMAT, "the load-balancing state is not one of this library");
    int32_t held = words[1];
    int32_t next = words[2];
    int32_t microbatches = words[3];
    int fits = held >= 0 && held <= b->ring && next >= 0 && (next < b->ring || next == 0) &&
               (held == b->ring || next == held) && microbatches >= 0 &&
               microbatches <= (keeps_past(b) ? EMO__BALANCE_MAX_MICROBATCHES : 0);
    if (!fits || count != STATE_HEADER + ((size_t)held + (size_t)microbatches) * total(b))
        return emo__fail(err, EMO_E_MISMATCH,
                         "the load-balancing state (%d steps, %d micro-batches, %zu words) does not fit this scope, "
                         "window and model",
                         (int)held, (int)microbatches, count);
    size_t ring = (size_t)held * total(b);
    size_t past = (size_t)microbatches * total(b);
    emo_status status = room(b, microbatches, &b->past, &b->past_capacity, err);
    if (status == EMO_OK && ring > 0)
        status = ops->upload(exec, b->history, words + STATE_HEADER, ring * sizeof *words, err);
    if (status == EMO_OK && past > 0)
        status = ops->upload(exec, b->past, words + STATE_HEADER + ring, past * sizeof *words, err);
    if (status != EMO_OK)
        return status;
    b->held = held;
    b->next = next;
    b->past_microbatches = microbatches;
    b->microbatches = 0;
    return EMO_OK;
}
