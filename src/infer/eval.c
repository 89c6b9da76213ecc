/* SPDX-License-Identifier: Apache-2.0 */
#include "infer/eval.h"

#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "moe/pool.h"

#define BATCH_TOKENS 4096

emo_status emo__eval_check(const emo_eval_options *o, emo_error *err) {
    if (o->seq_len < 0)
        return emo__fail(err, EMO_E_RANGE, "emo_eval_options.seq_len is %d; 0 means the model's", (int)o->seq_len);
    if (o->batch_tokens < 0)
        return emo__fail(err, EMO_E_RANGE, "emo_eval_options.batch_tokens is %d; 0 means %d", (int)o->batch_tokens,
                         BATCH_TOKENS);
    return EMO_OK;
}

emo_status emo__eval_seq_len(const emo_model *model, const emo_eval_options *o, int64_t *seq_len, emo_error *err) {
    const emo__config *c = &model->config;
    *seq_len = o->seq_len > 0 ? o->seq_len : c->train_seq_len > 0 ? c->train_seq_len : c->max_positions;
    if (o->seq_len > c->max_positions)
        return emo__fail(err, EMO_E_RANGE, "emo_eval_options.seq_len is %d; the model has %d positions",
                         (int)o->seq_len, (int)c->max_positions);
    if (*seq_len > c->max_positions)
        *seq_len = c->max_positions;
    return EMO_OK;
}

/* What restricts the windows of a run besides the mask. */
typedef struct pools {
    const emo__mem *mem;
    int32_t layers;
    int32_t **sizes; /* [layers] -> [windows]; NULL entries: none */
    int64_t *ids;    /* [windows] documents */
} pools;

static void pools_free(pools *p) {
    for (int32_t l = 0; p->sizes != NULL && l < p->layers; l++)
        emo__free(p->mem, p->sizes[l]);
    if (p->mem != NULL) {
        emo__free(p->mem, p->sizes);
        emo__free(p->mem, p->ids);
    }
}

static emo_status pools_create(const emo_model *model, int64_t windows, pools *p, emo_error *err) {
    p->mem = &model->rt->mem;
    p->layers = model->config.layers;
    p->sizes = emo__calloc(p->mem, (size_t)p->layers, sizeof *p->sizes);
    p->ids = emo__calloc(p->mem, (size_t)windows, sizeof *p->ids);
    if (p->sizes == NULL || p->ids == NULL)
        return emo__fail_memory(err, (size_t)windows * sizeof *p->ids);
    for (int32_t l = 0; l < p->layers; l++) {
        if (model->config.layer[l].experts == 0)
            continue;
        p->sizes[l] = emo__malloc_array(p->mem, (size_t)windows, sizeof **p->sizes);
        if (p->sizes[l] == NULL)
            return emo__fail_memory(err, (size_t)windows * sizeof **p->sizes);
    }
    return EMO_OK;
}

/* The pool rule of the batch's windows; p->ids is filled. */
static emo_status pools_set(const emo_model *model, const emo_pool_policy *policy, pools *p, emo__batch *batch,
                            emo_error *err) {
    bool restricts = false;
    for (int32_t l = 0; l < p->layers; l++) {
        if (p->sizes[l] == NULL)
            continue;
        emo__pool_request request = {0};
        emo__pool_rule rule = {0};
        request.layer = l;
        request.routed = emo__config_routed(&model->config, l);
        request.chosen = emo__config_chosen(&model->config, l);
        request.documents = batch->n_documents;
        request.ids = p->ids;
        emo_status status = emo__pool_sizes(policy, &request, p->sizes[l], &rule, err);
        if (status != EMO_OK)
            return status;
        batch->pool_mass = rule.mass;
        batch->pool_min = rule.min;
        batch->pool_max = rule.max;
        batch->forced = rule.forced;
        restricts = restricts || rule.restricts != 0;
    }
    batch->pool_size = restricts && batch->pool_mass <= 0.0f ? (const int32_t *const *)p->sizes : NULL;
    return EMO_OK;
}

typedef struct runner {
    emo_model *model;
    const emo_eval_options *options;
    emo__pass *pass;
    emo__packed packed;
    emo__allowed allowed;
    pools pools;
    float *loss; /* [max_tokens] */
    emo__phase phase;
} runner;

static emo_status runner_create(runner *r, const emo__windows *w, int64_t logits, emo_error *err) {
    emo__pass_config config = {0};
    config.max_tokens = w->max_tokens;
    config.max_documents = w->max_windows;
    config.max_logits = logits;
    config.token_loss = logits == 0;
    config.shared_mode = -1;
    emo_status status = emo__packed_create(w, &r->packed, err);
    if (status == EMO_OK)
        status = emo__allowed_create(r->model, r->options->mask, w->max_windows, false, &r->allowed, err);
    if (status == EMO_OK && r->options->pool != NULL)
        status = pools_create(r->model, w->max_windows, &r->pools, err);
    if (status == EMO_OK)
        status = emo__pass_create(r->model, &config, &r->pass, err);
    if (status == EMO_OK) {
        r->loss = emo__malloc_array(w->mem, (size_t)w->max_tokens, sizeof *r->loss);
        if (r->loss == NULL)
            status = emo__fail_memory(err, (size_t)w->max_tokens * sizeof *r->loss);
    }
    return status;
}

static void runner_free(runner *r) {
    emo__pass_destroy(r->pass);
    emo__packed_free(&r->packed);
    emo__allowed_free(&r->allowed);
    pools_free(&r->pools);
    emo__free(&r->model->rt->mem, r->loss);
}

static emo_status run_batch(runner *r, const emo__batch *batch, emo_error *err) {
    emo_progress inner = {&r->phase, emo__phase_report};
    emo__limit limit = {0};
    bool done = false;
    limit.progress = &inner;
    emo_status status = emo__pass_begin(r->pass, batch, err);
    if (status == EMO_OK)
        status = emo__pass_advance(r->pass, &limit, &done, err);
    return status;
}

static emo_status restrict_batch(runner *r, const emo__windows *w, size_t index, emo__batch *batch, emo_error *err) {
    batch->allowed = (const uint8_t *const *)r->allowed.rows;
    if (r->options->pool == NULL)
        return EMO_OK;
    for (size_t i = w->batches[index]; i < w->batches[index + 1]; i++)
        r->pools.ids[i - w->batches[index]] = w->items[i].sequence.owner;
    return pools_set(r->model, r->options->pool, &r->pools, batch, err);
}

static void add_scores(const runner *r, const emo__windows *w, size_t index, emo__score *scores) {
    size_t at = 0;
    for (size_t i = w->batches[index]; i < w->batches[index + 1]; i++) {
        emo__score *score = &scores[w->items[i].sequence.owner];
        for (int64_t t = 0; t < w->items[i].count; t++, at++) {
            if (r->packed.labels[at] < 0)
                continue;
            score->loss += (double)r->loss[at];
            score->tokens++;
        }
    }
}

emo_status emo__eval_windows(emo_model *model, emo__windows *w, const emo_eval_options *options, emo__score *scores,
                             emo_error *err) {
    runner r = {0};
    r.model = model;
    r.options = options;
    if (w->count == 0)
        return EMO_OK;
    emo_status status = emo__windows_pack(w, options->batch_tokens > 0 ? options->batch_tokens : BATCH_TOKENS, err);
    r.phase = (emo__phase){&options->progress, "evaluate", 0, (uint64_t)w->tokens, 0, 0};
    if (status == EMO_OK)
        status = runner_create(&r, w, 0, err);
    for (size_t b = 0; status == EMO_OK && b < w->n_batches; b++) {
        emo__batch batch;
        emo__packed_fill(&r.packed, w, b, &batch);
        status = restrict_batch(&r, w, b, &batch, err);
        if (status == EMO_OK)
            status = run_batch(&r, &batch, err);
        if (status == EMO_OK)
            status = emo__pass_download(r.pass, r.loss, emo__pass_token_loss(r.pass),
                                        (size_t)batch.tokens * sizeof *r.loss, err);
        if (status == EMO_OK)
            add_scores(&r, w, b, scores);
        r.phase.done += (uint64_t)batch.tokens;
    }
    runner_free(&r);
    return status;
}

emo_status emo__eval_logits(emo_model *model, const int32_t *tokens, size_t n, const emo_eval_options *options,
                            float *out, emo_error *err) {
    runner r = {0};
    emo__windows w;
    r.model = model;
    r.options = options;
    r.phase = (emo__phase){&options->progress, "evaluate", 0, n, 0, 0};
    emo__windows_init(&w, &model->rt->mem);
    emo__sequence sequence = {tokens, (int64_t)n, -1, INT64_MAX, 0, false};
    int32_t *rows = emo__malloc_array(w.mem, n, sizeof *rows);
    emo_status status = rows == NULL ? emo__fail_memory(err, n * sizeof *rows) : EMO_OK;
    if (status == EMO_OK)
        status = emo__windows_add(&w, &sequence, (int64_t)n, err);
    if (status == EMO_OK)
        status = emo__windows_pack(&w, (int64_t)n, err);
    if (status == EMO_OK)
        status = runner_create(&r, &w, (int64_t)n, err);
    if (status == EMO_OK) {
        emo__batch batch;
        emo__packed_fill(&r.packed, &w, 0, &batch);
        for (size_t i = 0; i < n; i++)
            rows[i] = (int32_t)i;
        batch.labels = NULL;
        batch.n_logits = (int64_t)n;
        batch.logit_rows = rows;
        status = restrict_batch(&r, &w, 0, &batch, err);
        if (status == EMO_OK)
            status = run_batch(&r, &batch, err);
        if (status == EMO_OK)
            status = emo__pass_download(r.pass, out, emo__pass_logits(r.pass),
                                        n * (size_t)model->config.vocab * sizeof *out, err);
    }
    runner_free(&r);
    emo__windows_free(&w);
    emo__free(&model->rt->mem, rows);
    return status;
}

static void add_result(emo_eval_result *to, const emo_eval_result *from) {
    to->documents += from->documents;
    to->tokens += from->tokens;
    to->bytes += from->bytes;
    to->loss_sum += from->loss_sum;
}

emo_status emo__eval_documents(emo_model *model, const emo_dataset *documents, const emo_eval_options *options,
                               emo_eval_result *total, emo_eval_result *per_domain, emo_eval_result *per_document,
                               emo_error *err) {
    emo__windows w;
    int64_t seq_len = 0;
    int64_t n = emo_dataset_count(documents);
    emo__windows_init(&w, &model->rt->mem);
    emo__score *scores = emo__calloc(w.mem, (size_t)n + 1, sizeof *scores);
    emo_status status = scores == NULL ? emo__fail_memory(err, (size_t)n * sizeof *scores) : EMO_OK;
    if (status == EMO_OK)
        status = emo__eval_seq_len(model, options, &seq_len, err);
    if (status == EMO_OK)
        status = emo__windows_documents(&w, documents, model->config.eos, seq_len, true, err);
    if (status == EMO_OK)
        status = emo__eval_windows(model, &w, options, scores, err);
    for (int64_t i = 0; status == EMO_OK && i < n; i++) {
        emo_document doc;
        status = emo_dataset_document(documents, i, &doc, err);
        if (status != EMO_OK)
            break;
        emo_eval_result one = {1, scores[i].tokens, doc.bytes - doc.prompt_bytes, scores[i].loss, 0, 0};
        add_result(total, &one);
        if (per_domain != NULL && doc.domain >= 0 && doc.domain < emo_dataset_domains(documents))
            add_result(&per_domain[doc.domain], &one);
        if (per_document != NULL)
            per_document[i] = one;
    }
    emo__windows_free(&w);
    emo__free(&model->rt->mem, scores);
    return status;
}
