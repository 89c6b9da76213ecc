/* SPDX-License-Identifier: Apache-2.0 */
#include "subset/select.h"

#include <string.h>

#include "base/status.h"
#include "model/files.h"
#include "tensor/philox.h"

static bool loaded(const emo_model *model, int32_t l, int32_t e) { return emo__expert_loaded(model, l, e); }

static int32_t kept_shared(const emo_model *model, int32_t l, const emo_select_options *options) {
    int32_t shared = model->config.layer[l].shared;
    return options->keep_shared < 0 || options->keep_shared > shared ? shared : options->keep_shared;
}

static emo_status check_keep(const emo_model *model, const emo_select_options *options, emo_error *err) {
    bool any = false;
    for (int32_t l = 0; l < model->config.layers; l++) {
        const emo__layer_config *layer = &model->config.layer[l];
        int32_t there = 0;
        if (layer->experts == 0)
            continue;
        any = true;
        for (int32_t e = 0; e < layer->experts; e++)
            there += loaded(model, l, e) ? 1 : 0;
        int32_t fixed = layer->n_always > 0 ? layer->n_always : kept_shared(model, l, options);
        there -= layer->shared - kept_shared(model, l, options);
        if (options->keep <= fixed || options->keep > there)
            return emo__fail(err, EMO_E_RANGE, "keep is %d; in layer %d it must be above %d and at most %d",
                             (int)options->keep, (int)l, (int)fixed, (int)there);
    }
    if (!any)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the model is dense: it has no experts to choose from");
    return EMO_OK;
}

emo_status emo__select_begin(const emo_model *model, const emo_select_options *options, emo__keep_lists *out,
                             emo_error *err) {
    memset(out, 0, sizeof *out);
    emo_status status = check_keep(model, options, err);
    if (status != EMO_OK)
        return status;
    int32_t layers = model->config.layers;
    out->mem = &model->rt->mem;
    out->layers = layers;
    out->offsets = emo__calloc(out->mem, (size_t)layers + 1, sizeof *out->offsets);
    out->ids = emo__calloc(out->mem, (size_t)layers * (size_t)options->keep, sizeof *out->ids);
    if (out->offsets == NULL || out->ids == NULL)
        return emo__fail_memory(err, (size_t)layers * (size_t)options->keep * sizeof *out->ids);
    for (int32_t l = 0; l < layers; l++)
        out->offsets[l + 1] = out->offsets[l] + (model->config.layer[l].experts > 0 ? options->keep : 0);
    return EMO_OK;
}

/* The `want` best of the experts [first, last), added to ids[0..n) in ascending order of id. Ties: the lower id. */
static int32_t take_best(const emo_model *model, int32_t l, const double *scores, int32_t first, int32_t last,
                         int32_t want, int32_t *ids) {
    int32_t n = 0;
    const emo__layer_config *layer = &model->config.layer[l];
    for (int32_t i = 0; i < layer->n_always; i++)
        ids[n++] = layer->always[i];
    while (n < want) {
        int32_t best = -1;
        for (int32_t e = first; e < last; e++) {
            bool taken = !loaded(model, l, e);
            for (int32_t i = 0; !taken && i < n; i++)
                taken = ids[i] == e;
            if (!taken && (best < 0 || scores[e] > scores[best]))
                best = e;
        }
        if (best < 0)
            break;
        ids[n++] = best;
    }
    for (int32_t i = 1; i < n; i++) {
        int32_t id = ids[i];
        int32_t at = i;
        for (; at > 0 && ids[at - 1] > id; at--)
            ids[at] = ids[at - 1];
        ids[at] = id;
    }
    return n;
}

int32_t emo__select_layer(const emo_model *model, int32_t l, const double *scores, const emo_select_options *options,
                          int32_t *ids) {
    const emo__layer_config *layer = &model->config.layer[l];
    int32_t routed = layer->experts - layer->shared;
    int32_t shared = kept_shared(model, l, options);
    int32_t n = take_best(model, l, scores, 0, routed, options->keep - shared, ids);
    return n + take_best(model, l, scores, routed, layer->experts, shared, ids + n);
}

/* Scores that order a layer's routed experts at random; shared ones by id. */
static emo_status select_random(const emo_model *model, const emo_select_options *options, emo__keep_lists *out,
                                emo_error *err) {
    const emo__mem *mem = &model->rt->mem;
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < model->config.layers; l++) {
        size_t n = (size_t)model->config.layer[l].experts;
        size_t routed = (size_t)emo__config_routed(&model->config, l);
        if (n == 0)
            continue;
        uint32_t *order = emo__malloc_array(mem, routed, sizeof *order);
        double *scores = emo__calloc(mem, n, sizeof *scores);
        if (order == NULL || scores == NULL) {
            status = emo__fail_memory(err, n * sizeof *scores);
        } else {
            emo__permutation(options->seed, EMO__RNG_SELECT, (uint64_t)l, order, routed);
            for (size_t i = 0; i < routed; i++)
                scores[order[i]] = -(double)i;
            (void)emo__select_layer(model, l, scores, options, out->ids + out->offsets[l]);
        }
        emo__free(mem, order);
        emo__free(mem, scores);
    }
    return status;
}

emo_status emo__select_from_stats(const emo_model *model, const emo_stats *stats, const emo_select_options *options,
                                  emo__keep_lists *out, emo_error *err) {
    const double *scores = options->method == EMO_SELECT_EASY_EP ? stats->easy : stats->probs;
    emo_status status = emo__select_begin(model, options, out, err);
    if (status == EMO_OK && stats->layers != model->config.layers)
        status = emo__fail(err, EMO_E_MISMATCH, "the statistics are of %d layers, the model has %d", (int)stats->layers,
                           (int)model->config.layers);
    if (status == EMO_OK && scores == NULL)
        status = emo__fail(err, EMO_E_NOT_FOUND, "the statistics have no EASY-EP scores; collect them with easy_ep");
    for (int32_t l = 0; status == EMO_OK && l < stats->layers; l++) {
        if (stats->experts[l] != model->config.layer[l].experts)
            status = emo__fail(err, EMO_E_MISMATCH, "layer %d: the statistics are of %d experts, the model has %d",
                               (int)l, (int)stats->experts[l], (int)model->config.layer[l].experts);
        else if (stats->experts[l] > 0)
            (void)emo__select_layer(model, l, scores + stats->offset[l], options, out->ids + out->offsets[l]);
    }
    return status;
}

static emo_status select_usage(emo_model *model, const emo__windows *w, const emo_select_options *options,
                               emo__keep_lists *out, emo_error *err) {
    emo_stats *stats = NULL;
    emo__allowed allowed = {0};
    emo_status status = emo__stats_for(model, options->method == EMO_SELECT_EASY_EP, &stats, err);
    if (status == EMO_OK)
        status = emo__allowed_create(model, NULL, w->max_windows, false, &allowed, err);
    if (status == EMO_OK)
        status = emo__stats_collect(model, w, &allowed, -1, stats, &options->progress, err);
    if (status == EMO_OK)
        status = emo__select_from_stats(model, stats, options, out, err);
    emo__allowed_free(&allowed);
    emo_stats_release(stats);
    return status;
}

static emo_status check_easy(const emo_model *model, emo_error *err) {
    for (int32_t l = 0; l < model->config.layers; l++) {
        if (model->config.layer[l].n_always > 0)
            return emo__fail(err, EMO_E_UNSUPPORTED, "EASY-EP is not defined with always-active experts (layer %d)",
                             (int)l);
    }
    return EMO_OK;
}

emo_status emo__select(emo_model *model, const emo_dataset *documents, const emo_select_options *options,
                       emo__keep_lists *out, emo_error *err) {
    emo__windows w;
    emo__calibration how = {options->seq_len, options->prepend_eos, &options->progress};
    memset(out, 0, sizeof *out);
    if (options->method == EMO_SELECT_RANDOM) {
        emo_status status = emo__select_begin(model, options, out, err);
        return status == EMO_OK ? select_random(model, options, out, err) : status;
    }
    emo_status status = check_keep(model, options, err);
    if (status == EMO_OK && options->method == EMO_SELECT_EASY_EP)
        status = check_easy(model, err);
    if (status != EMO_OK)
        return status;
    if (documents == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "calibration is NULL; only a random choice needs none");
    status = emo__calibration_windows(model, documents, &how, &w, err);
    if (status == EMO_OK && options->method == EMO_SELECT_LAYERWISE)
        status = emo__select_layerwise(model, &w, options, out, err);
    else if (status == EMO_OK)
        status = select_usage(model, &w, options, out, err);
    emo__windows_free(&w);
    return status;
}

emo_status emo__keep_to_mask(const emo_model *model, const emo__keep_lists *keep, emo_mask **out, emo_error *err) {
    *out = NULL;
    emo_mask *mask = NULL;
    emo_status status = emo__model_mask(model, &mask, err);
    for (int32_t l = 0; status == EMO_OK && l < keep->layers; l++) {
        int32_t at = keep->offsets[l];
        for (int32_t e = 0; status == EMO_OK && e < model->config.layer[l].experts; e++) {
            if (at < keep->offsets[l + 1] && keep->ids[at] == e)
                at++;
            else if (emo_mask_is_always(mask, l, e) != 0)
                status = emo__fail(err, EMO_E_INVALID_ARGUMENT,
                                   "a mask cannot leave shared expert %d of layer %d out; take emo_select_experts() "
                                   "and emo_prune_options.keep",
                                   (int)e, (int)l);
            else if (emo_mask_get(mask, l, e) != 0)
                status = emo_mask_set(mask, l, e, 0, err);
        }
    }
    if (status == EMO_OK)
        *out = mask;
    else
        emo_mask_release(mask);
    return status;
}
