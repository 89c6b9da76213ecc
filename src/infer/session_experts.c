/* SPDX-License-Identifier: Apache-2.0 */
/* Which experts sequences use and batches read. */
#include <string.h>

#include "infer/session.h"
#include "tensor/quant.h"

enum { RECENT = 8 /* tokens whose experts are remembered at least, and at most twice as many */ };

static void set_bit(uint64_t *set, size_t i) { set[i / 64] |= UINT64_C(1) << (i % 64); }

/* Whether the experts used lately say more than what is allowed. */
static bool by_use(const emo_session *s, const emo__sequence *q) {
    return q->set != NULL && s->pool == NULL && q->keep == NULL;
}

void emo__session_expect(const emo_session *s, int32_t sequence) {
    emo__sequence *q = &s->sequences[sequence];
    size_t words = s->roster.words;
    if (q->set == NULL)
        return;
    memset(q->set, 0, words * sizeof *q->set);
    if (by_use(s, q)) {
        uint64_t any = 0;
        for (size_t i = 0; i < words; i++)
            any |= q->set[i] = q->recent[i] | q->recent[words + i];
        if (any != 0)
            return;
    }
    for (int32_t l = 0; l < s->model->config.layers; l++) {
        const uint8_t *allowed = emo__session_allowed(s, sequence, l);
        size_t begin = s->route_offset[l];
        for (size_t e = 0; e < s->route_offset[l + 1] - begin; e++)
            if (allowed[e] != 0)
                set_bit(q->set, begin + e);
    }
}

emo_status emo__session_fetch_experts(emo_session *s, emo_error *err) {
    emo__session_batch *b = &s->b;
    const emo_backend_ops *ops = s->model->backend->ops;
    emo_exec *exec = emo__pass_exec(s->pass);
    bool used = s->opt.batching == EMO_BATCHING_POOL && s->pool == NULL;
    size_t row = (size_t)b->batch.tokens * (size_t)s->model->config.top_k;
    int32_t layers = s->model->config.layers;
    emo_status status = EMO_OK;
    if (used)
        status = emo__grow(&s->rt->mem, (void **)&b->indices, &b->cap_indices, row * (size_t)layers, sizeof *b->indices,
                           err);
    for (int32_t l = 0; status == EMO_OK && l < layers; l++) {
        const emo__route_view *route = emo__pass_route(s->pass, l);
        if (route == NULL)
            continue;
        if (s->opt.count_experts != 0)
            status = ops->download(exec, b->counts + (size_t)l * b->most_experts, route->counts,
                                   ((size_t)route->routed + (size_t)route->shared) * sizeof *b->counts, err);
        if (status == EMO_OK && used)
            status = ops->download(exec, b->indices + (size_t)l * row, route->indices,
                                   (size_t)b->batch.tokens * (size_t)route->k_total * sizeof *b->indices, err);
    }
    return status;
}

/* The last tokens of a part become what its sequence used lately. */
static void remember(emo_session *s, const emo__part *part, int64_t begin) {
    emo__sequence *q = &s->sequences[part->sequence];
    size_t words = s->roster.words;
    size_t row = (size_t)s->b.batch.tokens * (size_t)s->model->config.top_k;
    int32_t n = part->count < RECENT ? (int32_t)part->count : RECENT;
    if (q->n_recent + n > RECENT) {
        memcpy(q->recent, q->recent + words, words * sizeof *q->recent);
        memset(q->recent + words, 0, words * sizeof *q->recent);
        q->n_recent = 0;
    }
    q->n_recent += n;
    for (int32_t l = 0; l < s->model->config.layers; l++) {
        const emo__route_view *route = emo__pass_route(s->pass, l);
        for (int32_t i = 0; route != NULL && i < n * route->k_total; i++) {
            int64_t last = begin + (int64_t)part->count - n;
            int32_t e = s->b.indices[(size_t)l * row + (size_t)(last * route->k_total + i)];
            if (e >= 0 && e < route->routed)
                set_bit(q->recent + words, s->route_offset[l] + (size_t)e);
        }
    }
}

static uint64_t expert_bytes(const emo_expert_slot *slot) {
    const emo_weight *matrices[] = {&slot->gate, &slot->up, &slot->down};
    uint64_t bytes = 0;
    for (int i = 0; i < 3; i++)
        bytes += emo__dtype_run(matrices[i]->dtype, matrices[i]->rows * matrices[i]->cols);
    return bytes;
}

void emo__session_count(emo_session *s) {
    const emo__session_batch *b = &s->b;
    emo_session_statistics *did = &s->did;
    bool decodes = true;
    did->last_experts = 0;
    did->last_expert_bytes = 0;
    for (int32_t i = 0; i < b->n_parts; i++) {
        const emo__part *part = &b->parts[i];
        bool used = by_use(s, &s->sequences[part->sequence]);
        decodes = decodes && part->decodes;
        if (!emo__session_same(s, part))
            continue;
        if (used)
            remember(s, part, b->segments[i].q_begin);
        if (used || part->chooses)
            emo__session_expect(s, part->sequence);
    }
    for (int32_t l = 0; s->opt.count_experts != 0 && l < s->model->config.layers; l++) {
        const emo__route_view *route = emo__pass_route(s->pass, l);
        for (int32_t e = 0; route != NULL && e < route->routed + route->shared; e++) {
            if (b->counts[(size_t)l * b->most_experts + (size_t)e] == 0)
                continue;
            did->last_experts++;
            did->last_expert_bytes += expert_bytes(&s->model->layers[l].experts[e]);
        }
    }
    did->last_sequences = b->n_parts;
    did->batches++;
    did->batch_sequences += (uint64_t)b->n_parts;
    did->batch_tokens += (uint64_t)b->batch.tokens;
    did->batch_experts += (uint64_t)did->last_experts;
    did->batch_expert_bytes += did->last_expert_bytes;
    if (!decodes)
        return;
    did->decode_batches++;
    did->decode_sequences += (uint64_t)b->n_parts;
    did->decode_experts += (uint64_t)did->last_experts;
    did->decode_expert_bytes += did->last_expert_bytes;
}
