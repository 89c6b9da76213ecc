/* SPDX-License-Identifier: Apache-2.0 */
/* Masks over a model's experts. */
#include <string.h>

#include "base/runtime.h"
#include "base/status.h"
#include "model/files.h"

static bool own_shape(const emo__config *c, const emo_mask *mask) {
    if (emo_mask_layers(mask) != c->layers)
        return false;
    for (int32_t l = 0; l < c->layers; l++) {
        if (emo_mask_experts(mask, l) != c->layer[l].experts || emo_mask_shared(mask, l) != c->layer[l].shared)
            return false;
    }
    return true;
}

/* The shape of the model this one was pruned from. */
static bool parent_shape(const emo__config *c, const emo_mask *mask) {
    if (emo_mask_layers(mask) != c->layers)
        return false;
    bool pruned = false;
    for (int32_t l = 0; l < c->layers; l++) {
        if (emo_mask_experts(mask, l) != c->layer[l].original_experts)
            return false;
        pruned = pruned || c->layer[l].original != NULL;
    }
    return pruned;
}

static emo_status wrong_shape(const emo__config *c, const emo_mask *mask, emo_error *err) {
    if (emo_mask_layers(mask) != c->layers)
        return emo__fail(err, EMO_E_MISMATCH, "the mask has %d layers, the model %d", (int)emo_mask_layers(mask),
                         (int)c->layers);
    int32_t l = 0;
    while (l < c->layers - 1 && emo_mask_experts(mask, l) == c->layer[l].experts &&
           emo_mask_shared(mask, l) == c->layer[l].shared)
        l++;
    return emo__fail(err, EMO_E_MISMATCH, "layer %d: the mask is for %d experts (%d shared), the model has %d (%d)",
                     (int)l, (int)emo_mask_experts(mask, l), (int)emo_mask_shared(mask, l), (int)c->layer[l].experts,
                     (int)c->layer[l].shared);
}

static int32_t find_original(const emo__layer_config *layer, int32_t id) {
    if (layer->original == NULL)
        return id < layer->experts ? id : -1;
    for (int32_t e = 0; e < layer->experts; e++) {
        if (layer->original[e] == id)
            return e;
    }
    return -1;
}

static emo_status keep_by_original(const emo__config *c, const emo_mask *mask, int32_t l, uint8_t *keep,
                                   emo_error *err) {
    const emo__layer_config *layer = &c->layer[l];
    for (int32_t id = 0; id < layer->original_experts; id++) {
        if (emo_mask_get(mask, l, id) == 0)
            continue;
        int32_t e = find_original(layer, id);
        if (e >= 0)
            keep[e] = 1;
        else if (emo_mask_is_always(mask, l, id) == 0)
            return emo__fail(err, EMO_E_MISMATCH, "expert %d of layer %d is in the mask but not in this pruned model",
                             (int)id, (int)l);
    }
    return EMO_OK;
}

emo_status emo__model_keep(const emo_model *model, const emo_mask *mask, int32_t l, uint8_t *keep, emo_error *err) {
    const emo__config *c = &model->config;
    const emo__layer_config *layer = &c->layer[l];
    if (mask == NULL) {
        for (int32_t e = 0; e < layer->experts; e++)
            keep[e] = emo__expert_loaded(model, l, e);
        return EMO_OK;
    }
    if (layer->experts > 0)
        memset(keep, 0, (size_t)layer->experts);
    if (own_shape(c, mask)) {
        for (int32_t e = 0; e < layer->experts; e++)
            keep[e] = (uint8_t)emo_mask_get(mask, l, e);
    } else if (parent_shape(c, mask)) {
        emo_status status = keep_by_original(c, mask, l, keep, err);
        if (status != EMO_OK)
            return status;
    } else {
        return wrong_shape(c, mask, err);
    }
    for (int32_t e = layer->experts - layer->shared; e < layer->experts; e++)
        keep[e] = 1;
    for (int32_t i = 0; i < layer->n_always; i++)
        keep[layer->always[i]] = 1;
    for (int32_t e = 0; e < layer->experts; e++) {
        if (keep[e] != 0 && !emo__expert_loaded(model, l, e))
            return emo__fail(err, EMO_E_MISMATCH,
                             "expert %d of layer %d is in the mask but was left out when the model was loaded", (int)e,
                             (int)l);
    }
    return EMO_OK;
}

int32_t emo__choices(const emo__config *config, int32_t layer, const uint8_t *keep) {
    int32_t chosen = emo__config_chosen(config, layer);
    int32_t left = 0;
    for (int32_t e = 0; e < emo__config_routed(config, layer); e++)
        left += keep[e] != 0;
    left -= config->layer[layer].n_always; /* these come on top of the chosen ones */
    return left < chosen ? left : chosen;
}

void emo__few_experts_add(emo__few_experts *few, const emo__config *config, int32_t layer, const uint8_t *keep) {
    int32_t left = emo__choices(config, layer, keep);
    if (left >= emo__config_chosen(config, layer))
        return;
    if (few->layers++ == 0) {
        few->first = layer;
        few->left = left;
    }
}

void emo__few_experts_report(const emo__few_experts *few, const emo_model *model) {
    if (few->layers > 0 && !model->told_few)
        emo__log(
            model->rt, EMO_LOG_WARNING,
            "layer %d: %d routed experts are left to choose from, fewer than the %d that each token chooses: top-k "
            "is reduced to what is left (%d such layers)",
            (int)few->first, (int)few->left, (int)emo__config_chosen(&model->config, few->first), (int)few->layers);
}

/* The shape of the model as emo_mask_options wants it. */
static emo_status empty_mask(const emo_model *model, emo_mask **out, emo_error *err) {
    const emo__config *c = &model->config;
    const emo__mem *mem = &model->rt->mem;
    size_t layers = (size_t)c->layers;
    size_t n_always = 0;
    for (size_t l = 0; l < layers; l++)
        n_always += (size_t)c->layer[l].n_always;
    int32_t *block = emo__calloc(mem, 3 * layers + 1 + n_always, sizeof *block);
    if (block == NULL)
        return emo__fail_memory(err, (3 * layers + 1 + n_always) * sizeof *block);
    int32_t *shared = block + layers;
    int32_t *offsets = shared + layers;
    int32_t *always = offsets + layers + 1;
    int32_t at = 0;
    for (size_t l = 0; l < layers; l++) {
        block[l] = c->layer[l].experts;
        shared[l] = c->layer[l].shared;
        offsets[l] = at;
        for (int32_t i = 0; i < c->layer[l].n_always; i++)
            always[at++] = c->layer[l].always[i];
    }
    offsets[layers] = at;
    emo_mask_options options = EMO_MASK_OPTIONS_INIT;
    options.layers = c->layers;
    options.experts = block;
    options.shared = shared;
    options.always_offsets = n_always > 0 ? offsets : NULL;
    options.always = n_always > 0 ? always : NULL;
    emo_status status = emo_mask_create_with(model->rt, &options, out, err);
    emo__free(mem, block);
    return status;
}

emo_status emo__model_mask(const emo_model *model, emo_mask **out, emo_error *err) {
    *out = NULL;
    emo_mask *mask = NULL;
    emo_status status = empty_mask(model, &mask, err);
    for (int32_t l = 0; status == EMO_OK && l < model->config.layers; l++) {
        for (int32_t e = 0; status == EMO_OK && e < model->config.layer[l].experts; e++) {
            if (emo__expert_loaded(model, l, e))
                status = emo_mask_set(mask, l, e, 1, err);
        }
    }
    if (status == EMO_OK)
        *out = mask;
    else
        emo_mask_release(mask);
    return status;
}
