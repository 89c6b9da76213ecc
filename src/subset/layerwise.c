/* SPDX-License-Identifier: Apache-2.0 */
/* Greedy layerwise selection: layer l is chosen from its router probabilities in the model whose layers before l are
 * restricted already. All calibration batches are held at layer l, chosen, and let go on: one forward pass in all. */
#include <string.h>

#include "base/status.h"
#include "model/files.h"
#include "subset/select.h"

/* Batches beyond this are not held in memory; each layer then runs them again from the start. */
#define MAX_HELD 8

typedef struct held {
    emo__pass *pass;
    emo__packed packed;
    emo__batch batch;
} held;

typedef struct layerwise {
    emo_model *model;
    const emo__windows *w;
    const emo_select_options *options;
    emo__allowed allowed;
    held *runs; /* [n_runs] */
    size_t n_runs;
    double *sums;   /* [most experts] */
    uint8_t *keep;  /* [most experts] */
    float *scratch; /* of emo__stats_add_probs */
    emo__phase phase;
} layerwise;

static emo_status create(layerwise *lw, emo_error *err) {
    const emo__mem *mem = &lw->model->rt->mem;
    size_t experts = emo__stats_scratch(lw->model, 1);
    emo_status status = emo__allowed_create(lw->model, NULL, lw->w->max_windows, true, &lw->allowed, err);
    if (status != EMO_OK)
        return status;
    lw->n_runs = lw->w->n_batches <= MAX_HELD ? lw->w->n_batches : 1;
    lw->runs = emo__calloc(mem, lw->n_runs, sizeof *lw->runs);
    lw->sums = emo__calloc(mem, experts, sizeof *lw->sums);
    lw->keep = emo__calloc(mem, experts, 1);
    lw->scratch = emo__malloc_array(mem, emo__stats_scratch(lw->model, lw->w->max_tokens), sizeof(float));
    if (lw->runs == NULL || lw->sums == NULL || lw->keep == NULL || lw->scratch == NULL)
        return emo__fail_memory(err, experts * sizeof(double));
    for (size_t i = 0; status == EMO_OK && i < lw->n_runs; i++) {
        status = emo__packed_create(lw->w, &lw->runs[i].packed, err);
        if (status == EMO_OK)
            status = emo__calibration_pass(lw->model, lw->w, false, &lw->runs[i].pass, err);
    }
    return status;
}

static void destroy(layerwise *lw) {
    const emo__mem *mem = &lw->model->rt->mem;
    for (size_t i = 0; lw->runs != NULL && i < lw->n_runs; i++) {
        emo__pass_destroy(lw->runs[i].pass);
        emo__packed_free(&lw->runs[i].packed);
    }
    emo__free(mem, lw->runs);
    emo__free(mem, lw->sums);
    emo__free(mem, lw->keep);
    emo__free(mem, lw->scratch);
    emo__allowed_free(&lw->allowed);
}

static emo_status begin(layerwise *lw, held *run, size_t batch, emo_error *err) {
    emo__packed_fill(&run->packed, lw->w, batch, &run->batch);
    run->batch.labels = NULL;
    run->batch.allowed = (const uint8_t *const *)lw->allowed.rows;
    return emo__pass_begin(run->pass, &run->batch, err);
}

/* Brings every batch to the experts of layer l and sums the layer's probabilities. */
static emo_status measure(layerwise *lw, int32_t l, bool first, emo_error *err) {
    emo_progress inner = {&lw->phase, emo__phase_report};
    emo__limit limit = {0};
    limit.stop_layer = l;
    limit.stop_stage = EMO__STAGE_EXPERTS;
    limit.progress = &inner;
    memset(lw->sums, 0, (size_t)lw->model->config.layer[l].experts * sizeof *lw->sums);
    emo_status status = EMO_OK;
    for (size_t b = 0; status == EMO_OK && b < lw->w->n_batches; b++) {
        bool again = lw->n_runs < lw->w->n_batches;
        held *run = &lw->runs[again ? 0 : b];
        bool done = false;
        if (first || again)
            status = begin(lw, run, b, err);
        if (status == EMO_OK)
            status = emo__pass_advance(run->pass, &limit, &done, err);
        if (status == EMO_OK)
            status = emo__stats_add_probs(run->pass, l, run->batch.tokens, lw->sums, lw->scratch, err);
    }
    return status;
}

/* Restricts layer l and lets the held batches choose again. */
static emo_status restrict_layer(layerwise *lw, int32_t l, const int32_t *ids, int32_t n, emo_error *err) {
    int32_t routed = emo__config_routed(&lw->model->config, l);
    memset(lw->keep, 0, (size_t)lw->model->config.layer[l].experts);
    for (int32_t i = 0; i < n; i++)
        lw->keep[ids[i]] = 1;
    emo__allowed_set(&lw->allowed, l, routed, lw->keep);
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && lw->n_runs == lw->w->n_batches && i < lw->n_runs; i++)
        status = emo__pass_reselect(lw->runs[i].pass, l, err);
    return status;
}

static emo_status select_held(emo_model *model, const emo__windows *w, const emo_select_options *options,
                              emo__keep_lists *out, emo_error *err) {
    layerwise lw = {0};
    lw.model = model;
    lw.w = w;
    lw.options = options;
    lw.phase = (emo__phase){&options->progress, "select", 0, (uint64_t)model->config.layers, 0, 0};
    bool first = true;
    emo_status status = create(&lw, err);
    for (int32_t l = 0; status == EMO_OK && l < model->config.layers; l++) {
        int32_t *ids = out->ids + out->offsets[l];
        if (model->config.layer[l].experts == 0)
            continue;
        lw.phase.done = (uint64_t)l;
        status = measure(&lw, l, first, err);
        first = false;
        if (status == EMO_OK) {
            int32_t n = emo__select_layer(model, l, lw.sums, options, ids);
            status = restrict_layer(&lw, l, ids, n, err);
        }
    }
    destroy(&lw);
    return status;
}

/* With fewer shared experts than the model has, a token gets more routed ones: no mask says that, so each layer is
 * measured in a model that is really pruned up to it (its weights borrowed). */
static emo_status select_pruned(emo_model *model, const emo__windows *w, const emo_select_options *options,
                                emo__keep_lists *out, emo_error *err) {
    emo__keep_lists now;
    emo_mask *all = NULL;
    emo_status status = emo__model_mask(model, &all, err);
    for (int32_t l = 0; status == EMO_OK && l < model->config.layers; l++) {
        emo_model *step = NULL;
        emo_stats *stats = NULL;
        if (model->config.layer[l].experts == 0)
            continue;
        status = emo__keep_from_mask(model, all, &now, err);
        if (status == EMO_OK) {
            /* the layers before l are kept as chosen, the others whole */
            int32_t at = out->offsets[l];
            int32_t from = now.offsets[l];
            int32_t rest = now.offsets[now.layers] - from;
            memmove(now.ids + at, now.ids + from, (size_t)rest * sizeof *now.ids);
            memcpy(now.ids, out->ids, (size_t)at * sizeof *now.ids);
            for (int32_t i = now.layers; i >= 0; i--)
                now.offsets[i] = i >= l ? now.offsets[i] - from + at : out->offsets[i];
            status = emo__prune(model, &now, "layerwise", true, NULL, &step, err);
        }
        emo__keep_free(&now);
        if (status == EMO_OK)
            status = emo__stats_for(step, false, &stats, err);
        if (status == EMO_OK)
            status = emo__stats_collect(step, w, NULL, l, stats, &options->progress, err);
        if (status == EMO_OK)
            (void)emo__select_layer(model, l, stats->probs + stats->offset[l], options, out->ids + out->offsets[l]);
        emo_stats_release(stats);
        emo_model_release(step);
    }
    emo_mask_release(all);
    return status;
}

emo_status emo__select_layerwise(emo_model *model, const emo__windows *w, const emo_select_options *options,
                                 emo__keep_lists *out, emo_error *err) {
    bool fewer = false;
    for (int32_t l = 0; l < model->config.layers; l++)
        fewer = fewer || (options->keep_shared >= 0 && options->keep_shared < model->config.layer[l].shared);
    emo_status status = emo__select_begin(model, options, out, err);
    if (status != EMO_OK)
        return status;
    return fewer ? select_pruned(model, w, options, out, err) : select_held(model, w, options, out, err);
}
