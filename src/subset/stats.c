/* SPDX-License-Identifier: Apache-2.0 */
#include "subset/stats.h"

#include <math.h>
#include <string.h>

#include "base/checked.h"
#include "base/status.h"

emo_status emo__stats_new(emo_runtime *rt, int32_t layers, const int32_t *experts, bool easy, emo_stats **out,
                          emo_error *err) {
    *out = NULL;
    emo_stats *s = emo__calloc(&rt->mem, 1, sizeof *s);
    if (s == NULL)
        return emo__fail_memory(err, sizeof *s);
    emo__ref_init(&s->ref);
    s->rt = emo__runtime_retain(rt);
    s->layers = layers;
    s->experts = emo__malloc_array(&rt->mem, (size_t)layers, sizeof *s->experts);
    s->offset = emo__malloc_array(&rt->mem, (size_t)layers + 1, sizeof *s->offset);
    size_t total = 0;
    for (int32_t l = 0; s->experts != NULL && s->offset != NULL && l < layers; l++) {
        s->experts[l] = experts[l];
        s->offset[l] = total;
        total += (size_t)experts[l];
        s->offset[l + 1] = total;
    }
    s->probs = emo__calloc(&rt->mem, total + 1, sizeof *s->probs);
    if (easy)
        s->easy = emo__calloc(&rt->mem, total + 1, sizeof *s->easy);
    if (s->experts == NULL || s->offset == NULL || s->probs == NULL || (easy && s->easy == NULL)) {
        emo_stats_release(s);
        return emo__fail_memory(err, (total + 1) * sizeof *s->probs);
    }
    *out = s;
    return EMO_OK;
}

emo_status emo__stats_for(const emo_model *model, bool easy, emo_stats **out, emo_error *err) {
    const emo__config *c = &model->config;
    *out = NULL;
    int32_t *experts = emo__malloc_array(&model->rt->mem, (size_t)c->layers, sizeof *experts);
    if (experts == NULL)
        return emo__fail_memory(err, (size_t)c->layers * sizeof *experts);
    for (int32_t l = 0; l < c->layers; l++)
        experts[l] = c->layer[l].experts;
    emo_status status = emo__stats_new(model->rt, c->layers, experts, easy, out, err);
    emo__free(&model->rt->mem, experts);
    return status;
}

void emo_stats_release(emo_stats *s) {
    if (s == NULL || !emo__ref_put(&s->ref))
        return;
    emo_runtime *rt = s->rt;
    emo__free(&rt->mem, s->experts);
    emo__free(&rt->mem, s->offset);
    emo__free(&rt->mem, s->probs);
    emo__free(&rt->mem, s->easy);
    emo__free(&rt->mem, s);
    emo_runtime_release(rt);
}

emo_status emo__calibration_windows(const emo_model *model, const emo_dataset *documents, const emo__calibration *how,
                                    emo__windows *out, emo_error *err) {
    const emo__config *c = &model->config;
    emo__windows_init(out, &model->rt->mem);
    if (how->seq_len < 0 || how->seq_len > c->max_positions)
        return emo__fail(err, EMO_E_RANGE, "seq_len is %d; the model has %d positions (0 means all)", (int)how->seq_len,
                         (int)c->max_positions);
    int64_t seq_len = how->seq_len > 0 ? how->seq_len : c->max_positions;
    int32_t lead = how->prepend_eos != 0 ? c->eos : -1;
    emo_status status = emo__windows_documents(out, documents, lead, seq_len, false, err);
    if (status == EMO_OK && out->count == 0)
        status = emo__fail(err, EMO_E_INVALID_ARGUMENT, "the calibration documents have no token");
    if (status == EMO_OK)
        status = emo__windows_pack(out, EMO__CALIBRATION_TOKENS, err);
    return status;
}

emo_status emo__calibration_pass(emo_model *model, const emo__windows *w, bool easy, emo__pass **out, emo_error *err) {
    emo__pass_config config = {0};
    config.max_tokens = w->max_tokens;
    config.max_documents = w->max_windows;
    config.all_logits = true;
    config.expert_norms = easy;
    config.shared_mode = -1;
    return emo__pass_create(model, &config, out, err);
}

/* sums[j] += softmax of columns [first, first + n) of every row. */
static void add_softmax(const float *logits, int64_t rows, int32_t columns, int32_t first, int32_t n, double *sums) {
    for (int64_t t = 0; t < rows; t++) {
        const float *x = logits + t * columns + first;
        double most = (double)x[0];
        double total = 0.0;
        for (int32_t j = 1; j < n; j++)
            most = (double)x[j] > most ? (double)x[j] : most;
        for (int32_t j = 0; j < n; j++)
            total += exp((double)x[j] - most);
        for (int32_t j = 0; j < n; j++)
            sums[j] += exp((double)x[j] - most) / total;
    }
}

/* Experts cannot be ranked by sums that are no numbers: whatever came out would look like a choice. */
static emo_status check_finite(const double *sums, int32_t n, int32_t layer, emo_error *err) {
    for (int32_t j = 0; j < n; j++) {
        if (!isfinite(sums[j]))
            return emo__fail(err, EMO_E_NUMERIC,
                             "layer %d: what its router says of the calibration documents is not finite; the model has "
                             "weights that are not (emo_model_info.non_finite counts them)",
                             (int)layer);
    }
    return EMO_OK;
}

size_t emo__stats_scratch(const emo_model *model, int64_t tokens) {
    int32_t most = 1;
    for (int32_t l = 0; l < model->config.layers; l++)
        most = model->config.layer[l].experts > most ? model->config.layer[l].experts : most;
    return (size_t)tokens * (size_t)most;
}

emo_status emo__stats_add_probs(emo__pass *pass, int32_t layer, int64_t tokens, double *sums, float *scratch,
                                emo_error *err) {
    const emo__route_view *r = emo__pass_route(pass, layer);
    int32_t n = r->routed;
    emo_status status = emo__pass_download(pass, scratch, r->scores, (size_t)tokens * (size_t)n * sizeof(float), err);
    for (int64_t t = 0; status == EMO_OK && t < tokens; t++) {
        for (int32_t j = 0; j < n; j++)
            sums[j] += (double)scratch[t * n + j];
    }
    if (status == EMO_OK && r->shared == 1)
        sums[n] += (double)tokens; /* a softmax over one logit */
    if (status == EMO_OK && r->shared > 1) {
        status = emo__pass_download(pass, scratch, r->logits, (size_t)tokens * (size_t)r->columns * sizeof(float), err);
        if (status == EMO_OK)
            add_softmax(scratch, tokens, r->columns, n, r->shared, sums + n);
    }
    return status == EMO_OK ? check_finite(sums, n + r->shared, layer, err) : status;
}

/* Host buffers of one collection. */
typedef struct collector {
    emo_model *model;
    emo__pass *pass;
    emo__packed packed;
    float *scratch;   /* logits or scores */
    float *before;    /* [tokens, hidden] residual before the block; the next three only for EASY-EP */
    float *after;     /* [tokens, hidden] */
    float *input;     /* [tokens, hidden] */
    int32_t *indices; /* [tokens, K] */
    float *weights;   /* [tokens, K] */
    float *norms;     /* [tokens, K] */
} collector;

static emo_status collector_create(emo_model *model, const emo__windows *w, bool easy, collector *c, emo_error *err) {
    const emo__mem *mem = &model->rt->mem;
    memset(c, 0, sizeof *c);
    c->model = model;
    emo_status status = emo__packed_create(w, &c->packed, err);
    if (status == EMO_OK)
        status = emo__calibration_pass(model, w, easy, &c->pass, err);
    if (status != EMO_OK)
        return status;
    size_t wide = (size_t)w->max_tokens * (size_t)model->config.hidden;
    size_t chosen = (size_t)w->max_tokens * (size_t)model->config.top_k;
    bool full = true;
    c->scratch = emo__malloc_array(mem, emo__stats_scratch(model, w->max_tokens), sizeof(float));
    if (easy) {
        c->before = emo__malloc_array(mem, wide, sizeof(float));
        c->after = emo__malloc_array(mem, wide, sizeof(float));
        c->input = emo__malloc_array(mem, wide, sizeof(float));
        c->indices = emo__malloc_array(mem, chosen, sizeof(int32_t));
        c->weights = emo__malloc_array(mem, chosen, sizeof(float));
        c->norms = emo__malloc_array(mem, chosen, sizeof(float));
        full = c->before != NULL && c->after != NULL && c->input != NULL && c->indices != NULL && c->weights != NULL &&
               c->norms != NULL;
    }
    return c->scratch != NULL && full ? EMO_OK : emo__fail_memory(err, wide * sizeof(float));
}

static void collector_free(collector *c) {
    const emo__mem *mem = &c->model->rt->mem;
    emo__packed_free(&c->packed);
    emo__pass_destroy(c->pass);
    emo__free(mem, c->scratch);
    emo__free(mem, c->before);
    emo__free(mem, c->after);
    emo__free(mem, c->input);
    emo__free(mem, c->indices);
    emo__free(mem, c->weights);
    emo__free(mem, c->norms);
}

/* max(0, 1 - cos(x, x + y)): how much the block turns the token. */
static double turn(const float *x, const float *before, const float *after, int64_t n) {
    double xz = 0.0;
    double xx = 0.0;
    double zz = 0.0;
    for (int64_t i = 0; i < n; i++) {
        double a = (double)x[i];
        double z = a + ((double)after[i] - (double)before[i]);
        xz += a * z;
        xx += a * a;
        zz += z * z;
    }
    double norm = sqrt(xx) * sqrt(zz);
    double cosine = norm > 0.0 ? xz / norm : 0.0;
    return cosine < 1.0 ? 1.0 - cosine : 0.0;
}

/* The pass stands right before EXPERTS of the layer; afterwards right behind it. */
static emo_status add_easy(collector *c, int32_t layer, int64_t tokens, double *sums, const emo__limit *behind,
                           bool *done, emo_error *err) {
    const emo__route_view *r = emo__pass_route(c->pass, layer);
    int64_t d = c->model->config.hidden;
    int64_t k = r->k_total;
    size_t wide = (size_t)tokens * (size_t)d * sizeof(float);
    size_t chosen = (size_t)tokens * (size_t)k * sizeof(float);
    emo_status status;
    EMO_TRY(status = emo__pass_download(c->pass, c->before, emo__pass_residual(c->pass), wide, err));
    EMO_TRY(status = emo__pass_advance(c->pass, behind, done, err));
    EMO_TRY(status = emo__pass_download(c->pass, c->after, emo__pass_residual(c->pass), wide, err));
    EMO_TRY(status = emo__pass_download(c->pass, c->input, emo__pass_block_input(c->pass), wide, err));
    EMO_TRY(status = emo__pass_download(c->pass, c->indices, r->indices, chosen, err));
    EMO_TRY(status = emo__pass_download(c->pass, c->weights, r->weights, chosen, err));
    EMO_TRY(status = emo__pass_download(c->pass, c->norms, r->out_norm, chosen, err));
    for (int64_t t = 0; t < tokens; t++) {
        double s = turn(c->input + t * d, c->before + t * d, c->after + t * d, d);
        for (int64_t j = t * k; j < (t + 1) * k; j++) {
            if (c->indices[j] >= 0)
                sums[c->indices[j]] += (double)c->weights[j] * (double)c->norms[j] * s;
        }
    }
done:
    return status;
}

static emo_status collect_batch(collector *c, const emo__batch *batch, int32_t only_layer, emo_stats *stats,
                                const emo_progress *progress, emo_error *err) {
    int32_t layers = c->model->config.layers;
    bool done = false;
    emo__limit limit = {0};
    limit.progress = progress;
    emo_status status = emo__pass_begin(c->pass, batch, err);
    for (int32_t l = 0; status == EMO_OK && l < layers; l++) {
        if (c->model->config.layer[l].experts == 0 || (only_layer >= 0 && l != only_layer))
            continue;
        limit.stop_layer = l;
        limit.stop_stage = EMO__STAGE_EXPERTS;
        status = emo__pass_advance(c->pass, &limit, &done, err);
        if (status == EMO_OK)
            status = emo__stats_add_probs(c->pass, l, batch->tokens, stats->probs + stats->offset[l], c->scratch, err);
        if (status == EMO_OK && stats->easy != NULL) {
            limit.stop_layer = l + 1 < layers ? l + 1 : -1;
            limit.stop_stage = l + 1 < layers ? EMO__STAGE_ATTN_NORM : EMO__STAGE_FINAL_NORM;
            status = add_easy(c, l, batch->tokens, stats->easy + stats->offset[l], &limit, &done, err);
            if (status == EMO_OK)
                status = check_finite(stats->easy + stats->offset[l], stats->experts[l], l, err);
        }
    }
    return status;
}

emo_status emo__stats_collect(emo_model *model, const emo__windows *w, const emo__allowed *allowed, int32_t only_layer,
                              emo_stats *stats, const emo_progress *progress, emo_error *err) {
    collector c;
    emo__phase phase = {progress, "calibrate", 0, (uint64_t)w->tokens, 0, 0};
    emo_progress inner = {&phase, emo__phase_report};
    emo_status status = collector_create(model, w, stats->easy != NULL, &c, err);
    for (size_t b = 0; status == EMO_OK && b < w->n_batches; b++) {
        emo__batch batch;
        emo__packed_fill(&c.packed, w, b, &batch);
        batch.labels = NULL;
        batch.allowed = allowed != NULL ? (const uint8_t *const *)allowed->rows : NULL;
        status = collect_batch(&c, &batch, only_layer, stats, &inner, err);
        phase.done += (uint64_t)batch.tokens;
        if (status == EMO_OK)
            stats->tokens += batch.tokens;
    }
    collector_free(&c);
    return status;
}
