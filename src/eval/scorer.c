/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/scorer.h"

#include <math.h>
#include <string.h>

#include "base/status.h"

#define CACHE_BYTES ((int64_t)256 << 20)
#define SLICE_WORK ((int64_t)1 << 27) /* multiply-adds between two looks at the progress hook */
#define NO_ITEM SIZE_MAX

typedef struct lane {
    size_t index; /* of the item; NO_ITEM: none */
    emo__likelihoods item;
    size_t at;      /* sequence of the item */
    int64_t cached; /* inputs of that sequence whose rows are in the cache */
    int64_t held;   /* tokens of `holds` whose rows are in the cache */
    int32_t *holds; /* [held] */
    size_t cap_holds;
} lane;

typedef struct scorer {
    emo_model *model;
    const emo__mem *mem;
    const emo__score_hooks *hooks;
    const emo__scorer_options *options;
    lane *lanes;
    int32_t n_lanes;
    int64_t batch_tokens;
    size_t next; /* item not begun */
    size_t count;
    emo__kv kv;
    emo__pass *pass;
    emo__allowed allowed;
    int32_t *ids; /* [batch_tokens], as the next three */
    int32_t *positions;
    int32_t *labels;
    float *loss;
    int32_t *document_begin;         /* [n_lanes + 1] */
    emo_attention_segment *segments; /* [n_lanes] */
    int32_t *lane_of;                /* [n_lanes] of each segment */
    uint64_t computed;
} scorer;

static const emo__likelihood *sequence(const lane *l) { return &l->item.items[l->at]; }
static const int32_t *tokens_of(const lane *l) { return l->item.tokens + sequence(l)->begin; }
static bool busy(const lane *l) { return l->index != NO_ITEM; }
static int64_t inputs(const emo__likelihood *s) { return s->count - 1; } /* the last token is only a label */

/* ---- lanes ---- */

/* What the lane's cache has of its sequence already; the input before the first scored token is computed anew. */
static void reuse(lane *l) {
    const emo__likelihood *s = sequence(l);
    const int32_t *tokens = tokens_of(l);
    int64_t most = s->from - 1 < l->held ? s->from - 1 : l->held;
    l->cached = 0;
    while (l->cached < most && l->holds[l->cached] == tokens[l->cached])
        l->cached++;
    l->held = l->cached;
}

static emo_status begin_sequence(scorer *r, lane *l, emo_error *err) {
    const emo__likelihood *s = sequence(l);
    if (s->count < 2 || s->from < 1 || s->from >= s->count || inputs(s) > r->options->seq_len)
        return emo__fail(err, EMO_E_INTERNAL, "a sequence of %lld tokens, scored from %lld on", (long long)s->count,
                         (long long)s->from);
    emo_status status = emo__grow(r->mem, (void **)&l->holds, &l->cap_holds, (size_t)inputs(s), sizeof *l->holds, err);
    if (status == EMO_OK)
        reuse(l);
    return status;
}

/* Gives the lane its next sequence; leaves it without one when there are no more items. */
static emo_status refill(scorer *r, lane *l, emo_error *err) {
    emo_status status = EMO_OK;
    while (status == EMO_OK && !busy(l) && r->next < r->count) {
        l->item.n_tokens = 0;
        l->item.count = 0;
        l->at = 0;
        size_t index = r->next++;
        status = r->hooks->make(r->hooks->ctx, index, &l->item, err);
        if (status != EMO_OK)
            break;
        if (l->item.count == 0) {
            status = r->hooks->done(r->hooks->ctx, index, &l->item, err);
            continue;
        }
        l->index = index;
        status = begin_sequence(r, l, err);
    }
    return status;
}

static emo_status next_sequence(scorer *r, lane *l, emo_error *err) {
    emo_status status = EMO_OK;
    if (!isfinite(sequence(l)->logprob))
        return emo__fail(err, EMO_E_NUMERIC, "a log-likelihood is not finite: the model's weights may be damaged");
    if (++l->at < l->item.count)
        return begin_sequence(r, l, err);
    status = r->hooks->done(r->hooks->ctx, l->index, &l->item, err);
    l->index = NO_ITEM;
    return status;
}

/* ---- batches ---- */

/* Inputs of a lane that belong to a batch of this kind: contexts, which give no loss, or what is scored. */
static int64_t pending(const lane *l, bool contexts) {
    if (!busy(l))
        return 0;
    const emo__likelihood *s = sequence(l);
    int64_t border = s->from - 1;
    if (contexts)
        return l->cached < border ? border - l->cached : 0;
    return l->cached >= border ? inputs(s) - l->cached : 0;
}

/* Adds n inputs of a lane. Rows of the cache are set by cache_rows(). */
static void add_segment(scorer *r, int32_t index, int64_t n, emo__batch *batch) {
    lane *l = &r->lanes[index];
    const int32_t *tokens = tokens_of(l);
    int64_t at = batch->tokens;
    int64_t from = sequence(l)->from;
    for (int64_t i = 0; i < n; i++) {
        int64_t place = l->cached + i;
        r->ids[at + i] = tokens[place];
        r->positions[at + i] = (int32_t)place;
        r->labels[at + i] = place + 1 >= from ? tokens[place + 1] : -100;
    }
    r->document_begin[batch->n_documents] = (int32_t)at;
    r->segments[batch->n_documents] = (emo_attention_segment){at, n, 0, l->cached + n};
    r->lane_of[batch->n_documents] = index;
    batch->n_documents++;
    batch->tokens += n;
    r->document_begin[batch->n_documents] = (int32_t)batch->tokens;
}

static emo_status cache_rows(scorer *r, emo__batch *batch, emo_error *err) {
    emo_exec *exec = emo__pass_exec(r->pass);
    emo_status status = EMO_OK;
    emo__kv_begin(&r->kv);
    for (int64_t i = 0; status == EMO_OK && i < batch->n_documents; i++) {
        emo_attention_segment *segment = &r->segments[i];
        status = emo__kv_reserve(&r->kv, exec, r->lane_of[i], segment->k_count, err);
        if (status == EMO_OK)
            status = emo__kv_place(&r->kv, r->lane_of[i], segment->k_count, &segment->k_begin, err);
    }
    batch->kv = emo__kv_view_of(&r->kv);
    return status;
}

static emo_status fill(scorer *r, bool contexts, emo__batch *batch, emo_error *err) {
    *batch = (emo__batch){0};
    for (int32_t i = 0; i < r->n_lanes && batch->tokens < r->batch_tokens; i++) {
        int64_t n = pending(&r->lanes[i], contexts);
        int64_t room = r->batch_tokens - batch->tokens;
        if (n > 0)
            add_segment(r, i, n < room ? n : room, batch);
    }
    if (batch->tokens == 0)
        return EMO_OK;
    batch->ids = r->ids;
    batch->positions = r->positions;
    batch->n_attention = batch->n_documents;
    batch->attention = r->segments;
    batch->document_begin = r->document_begin;
    batch->allowed = (const uint8_t *const *)r->allowed.rows;
    batch->labels = contexts ? NULL : r->labels;
    return cache_rows(r, batch, err);
}

/* The batch has been run: rows are held, losses counted. */
static emo_status take(scorer *r, const emo__batch *batch, emo_error *err) {
    emo_status status = EMO_OK;
    if (batch->labels != NULL)
        status = emo__pass_download(r->pass, r->loss, emo__pass_token_loss(r->pass),
                                    (size_t)batch->tokens * sizeof *r->loss, err);
    for (int64_t i = 0; status == EMO_OK && i < batch->n_documents; i++) {
        const emo_attention_segment *segment = &r->segments[i];
        lane *l = &r->lanes[r->lane_of[i]];
        emo__likelihood *s = &l->item.items[l->at];
        for (int64_t t = 0; t < segment->q_count; t++) {
            l->holds[l->cached + t] = r->ids[segment->q_begin + t];
            if (batch->labels != NULL && r->labels[segment->q_begin + t] >= 0)
                s->logprob -= (double)r->loss[segment->q_begin + t];
        }
        l->cached += segment->q_count;
        l->held = l->cached;
        if (l->cached == inputs(s))
            status = next_sequence(r, l, err);
    }
    r->computed += (uint64_t)batch->tokens;
    return status;
}

static emo_status run(scorer *r, emo_error *err) {
    emo__limit limit = {0};
    limit.progress = r->options->progress;
    for (;;) {
        emo__batch batch = {0};
        emo_status status = EMO_OK;
        bool ready = false;
        for (int32_t i = 0; status == EMO_OK && i < r->n_lanes; i++)
            status = refill(r, &r->lanes[i], err);
        if (status == EMO_OK)
            status = fill(r, true, &batch, err);
        if (status == EMO_OK && batch.tokens == 0)
            status = fill(r, false, &batch, err);
        if (status != EMO_OK || batch.tokens == 0)
            return status;
        status = emo__pass_begin(r->pass, &batch, err);
        if (status == EMO_OK)
            status = emo__pass_advance(r->pass, &limit, &ready, err);
        if (status == EMO_OK)
            status = take(r, &batch, err);
        if (status != EMO_OK)
            return status;
    }
}

/* ---- life ---- */

int32_t emo__scorer_lanes(const emo_model *model, const emo__scorer_options *o, size_t count) {
    int64_t width = (int64_t)model->config.kv_heads * model->config.head_dim;
    int64_t row = 2 * (int64_t)sizeof(float) * width * model->config.layers;
    int64_t n = CACHE_BYTES / row / o->seq_len;
    if (o->lanes > 0)
        n = o->lanes;
    else
        n = n < 1 ? 1 : n > EMO__SCORER_LANES ? EMO__SCORER_LANES : n;
    return (int32_t)((size_t)n < count ? n : (int64_t)count);
}

static emo_status create(scorer *r, emo_error *err) {
    size_t lanes = (size_t)r->n_lanes;
    size_t tokens = (size_t)r->batch_tokens;
    r->lanes = emo__calloc(r->mem, lanes, sizeof *r->lanes);
    r->ids = emo__malloc_array(r->mem, tokens, sizeof *r->ids);
    r->positions = emo__malloc_array(r->mem, tokens, sizeof *r->positions);
    r->labels = emo__malloc_array(r->mem, tokens, sizeof *r->labels);
    r->loss = emo__malloc_array(r->mem, tokens, sizeof *r->loss);
    r->document_begin = emo__calloc(r->mem, lanes + 1, sizeof *r->document_begin);
    r->segments = emo__calloc(r->mem, lanes, sizeof *r->segments);
    r->lane_of = emo__calloc(r->mem, lanes, sizeof *r->lane_of);
    if (r->lanes == NULL || r->ids == NULL || r->positions == NULL || r->labels == NULL || r->loss == NULL ||
        r->document_begin == NULL || r->segments == NULL || r->lane_of == NULL)
        return emo__fail_memory(err, tokens * 4 * sizeof(int32_t));
    for (size_t i = 0; i < lanes; i++) {
        r->lanes[i].index = NO_ITEM;
        r->lanes[i].item.mem = r->mem;
    }
    emo__pass_config config = {0};
    config.max_tokens = r->batch_tokens;
    config.max_documents = r->n_lanes;
    config.token_loss = true;
    config.kv = true;
    config.shared_mode = -1;
    emo_status status = emo__allowed_create(r->model, r->options->mask, r->n_lanes, false, &r->allowed, err);
    if (status == EMO_OK)
        status = emo__pass_create(r->model, &config, &r->pass, err);
    if (status == EMO_OK && r->options->progress != NULL && r->options->progress->report != NULL)
        emo__pass_set_slice_work(r->pass, SLICE_WORK);
    return status;
}

static void destroy(scorer *r) {
    emo__pass_destroy(r->pass);
    emo__kv_free(&r->kv);
    emo__allowed_free(&r->allowed);
    for (int32_t i = 0; r->lanes != NULL && i < r->n_lanes; i++) {
        emo__free(r->mem, r->lanes[i].item.tokens);
        emo__free(r->mem, r->lanes[i].item.items);
        emo__free(r->mem, r->lanes[i].holds);
    }
    void *blocks[] = {r->lanes, r->ids, r->positions, r->labels, r->loss, r->document_begin, r->segments, r->lane_of};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        emo__free(r->mem, blocks[i]);
}

emo_status emo__score_items(emo_model *model, size_t count, const emo__score_hooks *hooks,
                            const emo__scorer_options *options, uint64_t *computed, emo_error *err) {
    scorer r = {0};
    if (count == 0)
        return EMO_OK;
    r.model = model;
    r.mem = &model->rt->mem;
    r.hooks = hooks;
    r.options = options;
    r.count = count;
    r.n_lanes = emo__scorer_lanes(model, options, count);
    r.batch_tokens = options->batch_tokens > 0 ? options->batch_tokens : EMO__SCORER_TOKENS;
    if (r.batch_tokens > options->seq_len * r.n_lanes) /* there is never more pending */
        r.batch_tokens = options->seq_len * r.n_lanes;
    emo_status status = emo__kv_init(&r.kv, model, r.n_lanes, options->seq_len, EMO__KV_PAGE_ROWS, 0, err);
    if (status == EMO_OK)
        status = create(&r, err);
    if (status == EMO_OK)
        status = run(&r, err);
    if (computed != NULL)
        *computed += r.computed;
    destroy(&r);
    return status;
}
