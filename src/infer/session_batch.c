/* SPDX-License-Identifier: Apache-2.0 */
/* Batches of pending tokens. */
#include <string.h>

#include "backend/replay.h"
#include "base/status.h"
#include "infer/session.h"

/* ---- memory ---- */

emo_status emo__session_batch_create(emo_session *s, emo_error *err) {
    const emo__mem *mem = &s->rt->mem;
    const emo__config *c = &s->model->config;
    emo__session_batch *b = &s->b;
    size_t n = (size_t)s->opt.sequences;
    size_t layers = (size_t)c->layers;
    size_t routed = emo__session_routed(s);
    b->segments = emo__calloc(mem, n, sizeof *b->segments);
    b->document_begin = emo__calloc(mem, n + 1, sizeof *b->document_begin);
    b->logit_rows = emo__calloc(mem, n, sizeof *b->logit_rows);
    b->parts = emo__calloc(mem, n, sizeof *b->parts);
    b->take = emo__calloc(mem, n, sizeof *b->take);
    b->how = emo__calloc(mem, n, sizeof *b->how);
    b->drawn = emo__calloc(mem, n, sizeof *b->drawn);
    b->logprobs = emo__calloc(mem, n, sizeof *b->logprobs);
    b->allowed = emo__calloc(mem, layers, sizeof *b->allowed);
    b->pool_size = emo__calloc(mem, layers, sizeof *b->pool_size);
    for (size_t l = 0; l < layers; l++)
        b->most_experts = (size_t)c->layer[l].experts > b->most_experts ? (size_t)c->layer[l].experts : b->most_experts;
    b->counts = emo__calloc(mem, layers, (b->most_experts + 1) * sizeof *b->counts);
    b->allowed_block = emo__calloc(mem, n, routed + 1);
    b->pool_block = emo__calloc(mem, n, layers * sizeof *b->pool_block);
    if (b->segments == NULL || b->document_begin == NULL || b->logit_rows == NULL || b->parts == NULL ||
        b->take == NULL || b->how == NULL || b->drawn == NULL || b->logprobs == NULL || b->counts == NULL ||
        b->allowed == NULL || b->pool_size == NULL || b->allowed_block == NULL || b->pool_block == NULL)
        return emo__fail_memory(err, n * (routed + layers * sizeof(int32_t)));
    for (size_t l = 0; l < layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        b->allowed[l] = b->allowed_block + n * s->route_offset[l];
        b->pool_size[l] = b->pool_block + n * l;
    }
    emo_backend *backend = s->model->backend;
    emo_status status = backend->ops->mem_alloc(backend, n * sizeof(int32_t), &b->device_drawn, err);
    if (status == EMO_OK)
        status = backend->ops->mem_alloc(backend, n * sizeof(float), &b->device_logprobs, err);
    return status;
}

void emo__session_batch_free(emo_session *s) {
    const emo__mem *mem = &s->rt->mem;
    emo__session_batch *b = &s->b;
    emo_backend *backend = s->model->backend;
    backend->ops->mem_free(backend, b->device_drawn);
    backend->ops->mem_free(backend, b->device_logprobs);
    void *blocks[] = {b->ids,       b->positions,  b->segments, b->document_begin, b->logit_rows, b->parts,
                      b->take,      b->how,        b->drawn,    b->logprobs,       b->allowed,    b->allowed_block,
                      b->pool_size, b->pool_block, b->counts,   b->indices};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        emo__free(mem, blocks[i]);
    *b = (emo__session_batch){0};
}

/* A power of two up to `most`; beyond it the very size. */
static int64_t round_up(int64_t need, int64_t most) {
    int64_t size = 1;
    while (size < need)
        size *= 2;
    if (need > most)
        return need;
    return size < most ? size : most;
}

/* Tokens of a batch, but for whole prompts. */
static size_t most_tokens(const emo_session *s) {
    size_t n = (size_t)(s->opt.batch_sequences > 0 ? s->opt.batch_sequences : s->opt.sequences);
    return n > (size_t)s->opt.batch_tokens ? n : (size_t)s->opt.batch_tokens;
}

/* The pass is kept from batch to batch. One made for a long prompt whose pool had to be chosen is given back. */
static emo_status ensure_pass(emo_session *s, int64_t tokens, int64_t documents, int64_t logits, emo_error *err) {
    const emo__pass_config *have = &s->pass_config;
    int64_t n = s->opt.sequences;
    int64_t chunk = (int64_t)most_tokens(s);
    if (s->pass != NULL && have->max_tokens >= tokens && have->max_documents >= documents &&
        have->max_logits >= logits && (have->max_tokens <= chunk || tokens > chunk))
        return EMO_OK;
    emo__pass_config config = {0};
    config.max_tokens = round_up(tokens, chunk);
    config.max_documents = round_up(documents, n);
    config.max_logits = round_up(logits, n);
    if (s->pass != NULL) { /* what it held for good reason is likely wanted again */
        int64_t old = have->max_tokens < chunk ? have->max_tokens : chunk;
        config.max_tokens = config.max_tokens > old ? config.max_tokens : old;
        config.max_documents = config.max_documents > have->max_documents ? config.max_documents : have->max_documents;
        config.max_logits = config.max_logits > have->max_logits ? config.max_logits : have->max_logits;
    }
    config.kv = true;
    config.shared_mode = -1;
    emo__pass_destroy(s->pass);
    s->pass = NULL;
    s->pass_config = config;
    return emo__pass_create(s->model, &config, &s->pass, err);
}

/* ---- what goes in ---- */

static bool chooses(const emo_session *s, const emo__sequence *q) { return s->pool != NULL && !q->frozen; }

/* Whole prompts of the group, as many as fit a batch and at least one: a pool is chosen from all of its prompt. */
static size_t take_prompts(emo_session *s, size_t chunk) {
    size_t total = 0;
    for (int32_t i = 0; i < s->roster.n_group; i++) {
        int32_t sequence = s->roster.group[i];
        size_t want = emo__sequence_pending(&s->sequences[sequence]);
        if (!chooses(s, &s->sequences[sequence]) || (total > 0 && total + want > chunk))
            continue;
        s->b.take[sequence] = want;
        total += want;
    }
    return total;
}

/* The others of the group get equal shares of what is left, at least a token each, the first ones what the others
 * leave. */
static size_t take_shares(emo_session *s, size_t room) {
    size_t active = 0;
    size_t total = 0;
    for (int32_t i = 0; i < s->roster.n_group; i++)
        active += !chooses(s, &s->sequences[s->roster.group[i]]);
    size_t share = active > 0 && room > active ? room / active : 1;
    for (int round = 0; round < 2; round++) {
        for (int32_t i = 0; i < s->roster.n_group; i++) {
            int32_t sequence = s->roster.group[i];
            size_t *take = &s->b.take[sequence];
            size_t more = emo__sequence_pending(&s->sequences[sequence]) - *take;
            size_t most = round == 0 ? share : room > total ? room - total : 0;
            if (chooses(s, &s->sequences[sequence]))
                continue;
            more = more < most ? more : most;
            *take += more;
            total += more;
        }
    }
    return total;
}

/* Chooses who takes part, and with how many tokens. */
static emo_status take_turns(emo_session *s, size_t *total, emo_error *err) {
    size_t chunk = most_tokens(s);
    emo_status status = emo__session_pages(s, err);
    if (status != EMO_OK)
        return status;
    emo__roster_choose(s);
    for (int32_t i = 0; i < s->opt.sequences; i++)
        s->b.take[i] = 0;
    *total = take_prompts(s, chunk);
    s->b.chooses_pools = *total > 0;
    /* by mass a pool narrows what is allowed, and would narrow pools that are chosen already */
    if (*total == 0 || s->pool->kind != EMO_POOL_MASS)
        *total += take_shares(s, *total < chunk ? chunk - *total : 0);
    return EMO_OK;
}

/* Room for what finishing the batch will write, so that it cannot fail half-way. */
static emo_status reserve_results(emo_session *s, emo__sequence *q, emo_error *err) {
    const emo__mem *mem = &s->rt->mem;
    emo_status status;
    EMO_TRY(status = emo__grow(mem, (void **)&q->tokens, &q->cap_tokens, q->n + 1, sizeof *q->tokens, err));
    EMO_TRY(status = emo__grow(mem, (void **)&q->generated, &q->cap_generated, q->n_generated + 1, sizeof *q->generated,
                               err));
    EMO_TRY(status =
                emo__grow(mem, (void **)&q->logprobs, &q->cap_logprobs, q->n_generated + 1, sizeof *q->logprobs, err));
    if (q->logits == NULL) {
        q->logits = emo__malloc_array(mem, (size_t)s->model->config.vocab, sizeof *q->logits);
        if (q->logits == NULL)
            return emo__fail_memory(err, (size_t)s->model->config.vocab * sizeof *q->logits);
    }
done:
    return status;
}

/* ---- the arrays ---- */

static emo_status lay_out(emo_session *s, size_t total, emo_error *err) {
    emo__session_batch *b = &s->b;
    const emo__mem *mem = &s->rt->mem;
    emo_status status;
    EMO_TRY(status = emo__grow(mem, (void **)&b->ids, &b->cap_ids, total, sizeof *b->ids, err));
    EMO_TRY(status = emo__grow(mem, (void **)&b->positions, &b->cap_positions, total, sizeof *b->positions, err));
    b->n_parts = 0;
    b->n_logits = 0;
    size_t at = 0;
    for (int32_t i = 0; i < s->opt.sequences; i++) {
        emo__sequence *q = &s->sequences[i];
        size_t count = b->take[i];
        if (count == 0)
            continue;
        emo__part *part = &b->parts[b->n_parts];
        *part = (emo__part){i, -1, count, q->cached + count, q->epoch, chooses(s, q), false};
        part->decodes = count == 1 && q->n_generated > q->turn && part->after == q->n;
        memcpy(b->ids + at, q->tokens + q->cached, count * sizeof *b->ids);
        for (size_t t = 0; t < count; t++)
            b->positions[at + t] = (int32_t)(q->cached + t);
        b->segments[b->n_parts] = (emo_attention_segment){(int64_t)at, (int64_t)count, 0, (int64_t)part->after};
        b->document_begin[b->n_parts] = (int32_t)at;
        at += count;
        if (part->after == q->n) {
            part->logit_row = b->n_logits;
            b->logit_rows[b->n_logits++] = (int32_t)at - 1;
            EMO_TRY(status = reserve_results(s, q, err));
        }
        b->n_parts++;
    }
    b->document_begin[b->n_parts] = (int32_t)at;
done:
    return status;
}

static void restrict_experts(emo_session *s) {
    emo__session_batch *b = &s->b;
    bool restricts = s->restricted || s->pool != NULL;
    for (int32_t i = 0; i < b->n_parts; i++)
        restricts = restricts || s->sequences[b->parts[i].sequence].keep != NULL;
    if (!restricts)
        return;
    for (int32_t l = 0; l < s->model->config.layers; l++) {
        size_t routed = s->route_offset[l + 1] - s->route_offset[l];
        for (int32_t i = 0; b->allowed[l] != NULL && i < b->n_parts; i++)
            memcpy(b->allowed[l] + (size_t)i * routed, emo__session_allowed(s, b->parts[i].sequence, l), routed);
    }
    b->batch.allowed = (const uint8_t *const *)b->allowed;
}

/* Sizes of the pools of a layer: of parts whose pool is chosen already, all that is allowed to them. */
static emo_status size_pools(emo_session *s, int32_t layer, emo__pool_rule *rule, emo_error *err) {
    emo__session_batch *b = &s->b;
    const emo__config *c = &s->model->config;
    emo_status status = EMO_OK;
    for (int32_t i = 0; status == EMO_OK && i < b->n_parts; i++) {
        const emo__sequence *q = &s->sequences[b->parts[i].sequence];
        emo__pool_request request = {0};
        int64_t id = (int64_t)q->draws_as;
        request.seed = q->opt.seed;
        request.layer = layer;
        request.routed = emo__config_routed(c, layer);
        request.chosen = emo__config_chosen(c, layer);
        request.documents = 1;
        request.ids = &id;
        b->pool_size[layer][i] = request.routed;
        if (b->parts[i].chooses)
            status = emo__pool_sizes(s->pool, &request, &b->pool_size[layer][i], rule, err);
    }
    return status;
}

static emo_status choose_pools(emo_session *s, emo_error *err) {
    emo__session_batch *b = &s->b;
    if (!emo__guard_try_read(&s->pool->guard))
        return emo__fail(err, EMO_E_BUSY, "the pool policy is being changed by another thread");
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < s->model->config.layers; l++) {
        emo__pool_rule rule = {0};
        if (s->model->config.layer[l].experts == 0)
            continue;
        status = size_pools(s, l, &rule, err);
        if (status != EMO_OK || !rule.restricts)
            continue;
        b->batch.pool_size = (const int32_t *const *)b->pool_size;
        b->batch.pool_mass = rule.mass;
        b->batch.pool_min = rule.min;
        b->batch.pool_max = rule.max;
        b->batch.forced = rule.forced > b->batch.forced ? rule.forced : b->batch.forced;
    }
    emo__guard_end_read(&s->pool->guard);
    return status;
}

/* Where what every part has after the batch lies in the cache. */
static emo_status place_parts(emo_session *s, emo_error *err) {
    emo__session_batch *b = &s->b;
    emo_status status = EMO_OK;
    emo__kv_begin(&s->kv);
    for (int32_t i = 0; status == EMO_OK && i < b->n_parts; i++) {
        const emo__part *part = &b->parts[i];
        status = emo__kv_place(&s->kv, part->sequence, (int64_t)part->after, &b->segments[i].k_begin, err);
    }
    return status;
}

emo_status emo__session_interrupt(emo_session *s, emo_status status, emo_error *err) {
    if (!s->piece)
        return status;
    emo_exec *exec = emo__pass_exec(s->pass);
    s->piece = false;
    status = emo__replay_end(exec, status, err);
    s->replayed += status == EMO_OK && emo__works_ahead(exec) && emo__replay_misses(exec) == s->misses ? 1 : 0;
    return status;
}

emo_status emo__session_begin(emo_session *s, bool at_once, bool *work, emo_error *err) {
    emo__session_batch *b = &s->b;
    size_t total = 0;
    emo_status status;
    *work = false;
    EMO_TRY(status = take_turns(s, &total, err));
    *work = total > 0;
    if (total == 0)
        return EMO_OK;
    EMO_TRY(status = lay_out(s, total, err));
    EMO_TRY(status = ensure_pass(s, (int64_t)total, b->n_parts, b->n_logits, err));
    EMO_TRY(status = place_parts(s, err));
    b->batch = (emo__batch){0};
    b->batch.tokens = (int64_t)total;
    b->batch.ids = b->ids;
    b->batch.positions = b->positions;
    b->batch.n_attention = b->n_parts;
    b->batch.attention = b->segments;
    b->batch.n_documents = b->n_parts;
    b->batch.document_begin = b->document_begin;
    b->batch.n_logits = b->n_logits;
    b->batch.logit_rows = b->logit_rows;
    b->batch.kv = emo__kv_view_of(&s->kv);
    restrict_experts(s);
    if (b->chooses_pools)
        EMO_TRY(status = choose_pools(s, err));
    /* Batches of prompts are all of different sizes, and a cache of experts asks the host in every layer. */
    if (at_once && s->model->cache == NULL && s->opt.no_graph == 0 && total == (size_t)b->n_parts &&
        !b->chooses_pools) {
        s->misses = emo__replay_misses(emo__pass_exec(s->pass));
        EMO_TRY(status = emo__replay_begin(emo__pass_exec(s->pass), EMO__PIECE_TOKEN, err));
        s->piece = true;
    }
    status = emo__pass_begin(s->pass, &b->batch, err);
    b->n_drawn = 0;
    s->in_flight = status == EMO_OK;
    if (status != EMO_OK)
        status = emo__session_interrupt(s, status, err);
    if (s->in_flight)
        emo__roster_begun(s);
done:
    return status;
}
