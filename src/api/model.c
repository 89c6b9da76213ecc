/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/model.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "model/access.h"
#include "model/expert_cache.h"
#include "model/files.h"
#include "model/finite.h"
#include "subset/prune.h"
#include "tensor/dtype.h"

static emo_status missing(emo_error *err, const char *what) {
    return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", what);
}

static emo_status computable(emo_dtype compute, const char *what, emo_status otherwise, emo_error *err) {
    return compute == EMO_DTYPE_F32 || compute == EMO_DTYPE_BF16
               ? EMO_OK
               : emo__fail(err, otherwise, "%s is %d; it must be F32 or BF16", what, (int)compute);
}

static emo_status computing(emo_status status, emo_dtype compute, emo_model **model) {
    if (status == EMO_OK && compute == -1)
        (*model)->compute = emo__model_quantised(*model) != NULL ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
    else if (status == EMO_OK)
        (*model)->compute = compute;
    return status;
}

emo_status emo_model_create_json(emo_runtime *rt, const char *config, size_t length,
                                 const emo_model_create_options *options, emo_model **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (rt == NULL || config == NULL)
        return missing(err, rt == NULL ? "rt" : "config");
    emo_model_create_options o = EMO_MODEL_CREATE_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_model_create_options", err);
    if (status == EMO_OK)
        status = computable(o.compute, "emo_model_create_options.compute", EMO_E_RANGE, err);
    return status == EMO_OK
               ? computing(emo__model_create(rt, config, length, o.seed, &o.progress, out, err), o.compute, out)
               : status;
}

static emo_status cache_options(const emo_model_load_options *o, emo_error *err) {
    emo_status status = EMO_OK;
    if (o->cache_policy < EMO_CACHE_POOL || o->cache_policy > EMO_CACHE_HOST)
        return emo__fail(err, EMO_E_RANGE, "emo_model_load_options.cache_policy is %d; it must be an EMO_CACHE_*",
                         (int)o->cache_policy);
    if ((o->cache_policy == EMO_CACHE_HOST) != (o->cache_worth.worth != NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "emo_model_load_options.cache_worth goes with the policy EMO_CACHE_HOST, and only with it");
    status = emo__option_flag(o->no_prefetch, "emo_model_load_options.no_prefetch", err);
    if (status == EMO_OK)
        status = emo__option_flag(o->drop_source, "emo_model_load_options.drop_source", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o->reserved, "emo_model_load_options", err);
    return status;
}

static emo_status load_options(const emo_model_load_options *options, emo_model_load_options *o, emo_error *err) {
    emo_status status = emo__options_copy(o, sizeof *o, options, "emo_model_load_options", err);
    if (status == EMO_OK && o->compute != -1)
        status = computable(o->compute, "emo_model_load_options.compute", EMO_E_RANGE, err);
    if (status == EMO_OK && o->dtype != -1 && !emo__dtype_float(o->dtype))
        status = emo__fail(err, EMO_E_RANGE, "emo_model_load_options.dtype is %d; it must be -1, F32, F16 or BF16",
                           (int)o->dtype);
    if (status == EMO_OK)
        status = emo__option_flag(o->no_map, "emo_model_load_options.no_map", err);
    if (status == EMO_OK)
        status = cache_options(o, err);
    return status;
}

emo_status emo_model_load_path(emo_runtime *rt, const char *folder, const emo_model_load_options *options,
                               emo_model **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (rt == NULL || folder == NULL)
        return missing(err, rt == NULL ? "rt" : "folder");
    emo_model_load_options o = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_status status = load_options(options, &o, err);
    return status == EMO_OK ? computing(emo__model_load_path(rt, folder, &o, out, err), o.compute, out) : status;
}

emo_status emo_model_load_sources(emo_runtime *rt, const char *config, size_t config_length, emo_source *const *weights,
                                  size_t n_weights, const emo_model_load_options *options, emo_model **out,
                                  emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (rt == NULL || weights == NULL)
        return missing(err, rt == NULL ? "rt" : "weights");
    if (n_weights == 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "n_weights is 0; a model needs at least one weight source");
    for (size_t i = 0; i < n_weights; i++) {
        if (weights[i] == NULL)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "weights[%zu] is NULL", i);
    }
    emo_model_load_options o = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_status status = load_options(options, &o, err);
    if (status == EMO_OK)
        status = emo__model_load_sources(rt, config, config_length, weights, n_weights, &o, out, err);
    return computing(status, o.compute, out);
}

static void fill_info(const emo_model *model, emo_model_info *info) {
    const emo__config *c = &model->config;
    info->layers = c->layers;
    info->hidden = c->hidden;
    info->heads = c->heads;
    info->kv_heads = c->kv_heads;
    info->head_dim = c->head_dim;
    info->vocab = c->vocab;
    info->expert_inner = c->inner;
    info->top_k = c->top_k;
    info->max_positions = c->max_positions;
    info->eos = c->eos;
    info->dtype = model->embed.dtype;
    int64_t expert = 3 * (int64_t)c->inner * c->hidden;
    for (size_t i = 0; i < model->n_params; i++) {
        int64_t n = emo__param_count(&model->params[i]);
        info->parameters += n;
        info->loaded += emo__param_loaded(model, &model->params[i]) ? n : 0;
        info->active += model->params[i].expert < 0 ? n : 0;
        info->embedding += model->params[i].view == &model->embed || model->params[i].view == &model->head ? n : 0;
    }
    for (int32_t l = 0; l < c->layers; l++)
        info->active += c->layer[l].experts > 0 ? c->top_k * expert : 0;
}

emo_status emo_model_info_json(emo_runtime *rt, const char *config, size_t length, emo_model_info *info,
                               emo_error *err) {
    emo__error_clear(err);
    if (rt == NULL || config == NULL)
        return missing(err, rt == NULL ? "rt" : "config");
    emo_model_info full = EMO_MODEL_INFO_INIT;
    emo__config c;
    emo_model *shape = NULL; /* names and sizes; no weights */
    emo_status status = info != NULL ? emo__info_check(info, "emo_model_info", err) : missing(err, "info");
    if (status != EMO_OK)
        return status;
    status = emo__config_parse(&rt->mem, config, length, &c, err);
    if (status != EMO_OK)
        emo__config_free(&c);
    else
        status = emo__model_new(rt, &c, &shape, err);
    if (status == EMO_OK) {
        fill_info(shape, &full);
        emo__info_give(info, &full, sizeof full);
    }
    emo_model_release(shape);
    return status;
}

emo_status emo_model_get_info(const emo_model *model, emo_model_info *info, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL)
        return missing(err, "model");
    emo_model_info full = EMO_MODEL_INFO_INIT;
    emo_status status = info != NULL ? emo__info_check(info, "emo_model_info", err) : missing(err, "info");
    if (status != EMO_OK)
        return status;
    uint32_t size = info->struct_size;
    if (size >= offsetof(emo_model_info, progress) + sizeof info->progress)
        full.progress = info->progress;
    status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    fill_info(model, &full);
    if (size >= offsetof(emo_model_info, non_finite) + sizeof info->non_finite && info->non_finite != 0)
        status = emo__model_non_finite(model, &full.progress, &full.non_finite, err);
    emo__model_end_read(model);
    if (status == EMO_OK)
        emo__info_give(info, &full, sizeof full);
    return status;
}

emo_status emo_model_get_cache_stats(const emo_model *model, emo_cache_stats *stats, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || stats == NULL)
        return missing(err, model == NULL ? "model" : "stats");
    emo_cache_stats full = EMO_CACHE_STATS_INIT;
    emo_status status = emo__info_check(stats, "emo_cache_stats", err);
    if (status != EMO_OK)
        return status;
    if (model->cache != NULL)
        emo__expert_cache_stats(model->cache, &full);
    emo__info_give(stats, &full, sizeof full);
    return EMO_OK;
}

int32_t emo_model_experts(const emo_model *model, int32_t layer) {
    if (model == NULL || layer < 0 || layer >= model->config.layers)
        return -1;
    return model->config.layer[layer].experts;
}

int32_t emo_model_shared(const emo_model *model, int32_t layer) {
    if (model == NULL || layer < 0 || layer >= model->config.layers)
        return -1;
    return model->config.layer[layer].shared;
}

int32_t emo_model_original_expert(const emo_model *model, int32_t layer, int32_t expert) {
    if (model == NULL || layer < 0 || layer >= model->config.layers || expert < 0 ||
        expert >= model->config.layer[layer].experts)
        return -1;
    const int32_t *original = model->config.layer[layer].original;
    return original != NULL ? original[expert] : expert;
}

emo_status emo_model_config_json(const emo_model *model, char *buffer, size_t capacity, size_t *size, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || (buffer == NULL && capacity > 0))
        return missing(err, model == NULL ? "model" : "buffer");
    if (size != NULL)
        *size = 0;
    emo_status status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    emo__buf text;
    emo__buf_init(&text, &model->rt->mem);
    status = emo__config_write(&model->config, model->embed.dtype, &text, err);
    if (status == EMO_OK && size != NULL)
        *size = text.size;
    if (status == EMO_OK && capacity > 0) {
        if (capacity <= text.size)
            status = emo__fail(err, EMO_E_LIMIT, "the text needs %zu bytes and its NUL; the buffer has %zu", text.size,
                               capacity);
        else
            memcpy(buffer, text.data, text.size + 1);
    }
    emo__buf_free(&text);
    emo__model_end_read(model);
    return status;
}

const emo_tokenizer *emo_model_tokenizer(const emo_model *model) { return model == NULL ? NULL : model->tokenizer; }

emo_status emo_model_set_tokenizer(emo_model *model, emo_tokenizer *tokenizer, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL)
        return missing(err, "model");
    emo_status status = emo__model_begin_write(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__model_set_tokenizer(model, tokenizer, err);
    emo__model_end_write(model);
    return status;
}

emo_status emo_model_set_compute(emo_model *model, emo_dtype compute, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL)
        return missing(err, "model");
    emo_status status = computable(compute, "compute", EMO_E_UNSUPPORTED, err);
    if (status == EMO_OK)
        status = emo__model_begin_write(model, err);
    if (status != EMO_OK)
        return status;
    model->compute = compute;
    emo__model_end_write(model);
    return EMO_OK;
}

emo_dtype emo_model_compute(const emo_model *model) { return model != NULL ? model->compute : EMO_DTYPE_F32; }

emo_status emo_model_mask(const emo_model *model, emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (model == NULL)
        return missing(err, "model");
    emo_status status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__model_mask(model, out, err);
    emo__model_end_read(model);
    return status;
}

static emo_status read_tensor(const emo_model *model, const char *name, float *out, size_t capacity, size_t *count,
                              emo_error *err) {
    const emo__param *p = emo__model_find(model, name);
    if (p == NULL)
        return emo__fail(err, EMO_E_NOT_FOUND, "the model has no tensor \"%s\"", name);
    size_t n = (size_t)emo__param_count(p);
    if (count != NULL)
        *count = n;
    if (capacity == 0)
        return EMO_OK;
    if (!emo__param_loaded(model, p))
        return emo__fail(err, EMO_E_NOT_FOUND, "tensor \"%s\" was left out when the model was loaded", name);
    if (capacity < n)
        return emo__fail(err, EMO_E_LIMIT, "tensor \"%s\" has %zu elements; the buffer has %zu", name, n, capacity);
    return emo__param_read_f32(model, p, out, err);
}

emo_status emo_model_tensor_f32(const emo_model *model, const char *name, float *out, size_t capacity, size_t *count,
                                emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || name == NULL || (out == NULL && capacity > 0))
        return missing(err, model == NULL ? "model" : name == NULL ? "name" : "out");
    if (count != NULL)
        *count = 0;
    emo_status status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = read_tensor(model, name, out, capacity, count, err);
    emo__model_end_read(model);
    return status;
}

emo_status emo_model_save(const emo_model *model, const char *folder, const emo_model_save_options *options,
                          emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || folder == NULL)
        return missing(err, model == NULL ? "model" : "folder");
    emo_model_save_options o = EMO_MODEL_SAVE_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_model_save_options", err);
    if (status == EMO_OK && o.dtype != -1 && !emo__dtype_float(o.dtype))
        status = emo__fail(err, EMO_E_RANGE, "emo_model_save_options.dtype is %d; it must be -1, F32, F16 or BF16",
                           (int)o.dtype);
    if (status == EMO_OK && o.extended != 0 && o.extended != 1)
        status =
            emo__fail(err, EMO_E_RANGE, "emo_model_save_options.extended is %d; it must be 0 or 1", (int)o.extended);
    if (status == EMO_OK)
        status = emo__options_reserved(o.reserved, "emo_model_save_options", err);
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__model_save(model, folder, &o, err);
    emo__model_end_read(model);
    return status;
}

emo_status emo_model_prune(const emo_model *model, const emo_mask *mask, const emo_prune_options *options,
                           emo_model **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    emo_prune_options o = EMO_PRUNE_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_prune_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o.reserved, "emo_prune_options", err);
    if (status != EMO_OK)
        return status;
    if (model == NULL)
        return missing(err, "model");
    if ((o.keep == NULL) != (o.keep_offsets == NULL))
        return missing(err, o.keep == NULL ? "emo_prune_options.keep" : "emo_prune_options.keep_offsets");
    if ((mask == NULL) == (o.keep == NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "either a mask or emo_prune_options.keep must say what is kept, and not both");
    status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    emo__keep_lists keep;
    status = mask != NULL ? emo__keep_from_mask(model, mask, &keep, err)
                          : emo__keep_from_ids(model, o.keep, o.keep_offsets, &keep, err);
    if (status == EMO_OK)
        status = emo__prune(model, &keep, o.method != NULL ? o.method : "mask", false, &o.progress, out, err);
    emo__keep_free(&keep);
    emo__model_end_read(model);
    return status;
}

emo_status emo_model_merge(const emo_model *parent, const emo_model *child, const emo_merge_options *options,
                           emo_model **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (parent == NULL || child == NULL)
        return missing(err, parent == NULL ? "parent" : "child");
    emo_merge_options o = EMO_MERGE_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_merge_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o.reserved, "emo_merge_options", err);
    if (status == EMO_OK && !(o.average >= 0.0f && o.average <= 1.0f))
        status =
            emo__fail(err, EMO_E_RANGE, "emo_merge_options.average is %g; it must be in [0, 1]", (double)o.average);
    if (status == EMO_OK)
        status = emo__option_flag(o.router, "emo_merge_options.router", err);
    if (status == EMO_OK)
        status = emo__option_flag(o.shared, "emo_merge_options.shared", err);
    if (status == EMO_OK)
        status = emo__option_flag(o.rest, "emo_merge_options.rest", err);
    if (status == EMO_OK)
        status = emo__model_begin_read(parent, err);
    if (status != EMO_OK)
        return status;
    status = emo__model_begin_read(child, err);
    if (status == EMO_OK) {
        status = emo__merge(parent, child, &o, out, err);
        emo__model_end_read(child);
    }
    emo__model_end_read(parent);
    return status;
}
