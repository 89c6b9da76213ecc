/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a model: which tensors, from where, into views or into memory of the model's own. */
#include <string.h>

#include "base/checked.h"
#include "base/progress.h"
#include "base/status.h"
#include "io/files.h"
#include "io/source.h"
#include "model/expert_cache.h"
#include "model/files.h"
#include "model/gguf.h"
#include "tensor/dtype.h"

#define MAX_JSON ((size_t)64 << 20)
#define ALIGN 64u
#define MAX_WARNINGS 8

/* Where one parameter comes from. st NULL: outside the load subset, or read on demand. */
typedef struct place {
    const emo__st *st;
    const emo__st_entry *entry;
    emo_dtype dtype;  /* as it will be held */
    const void *view; /* in the mapped file; NULL: to be read */
} place;

typedef struct loader {
    emo_model *model;
    const emo_model_load_options *options;
    place *places; /* [n_params] */
    size_t bytes;  /* of all that is to be read */
} loader;

/* Finds a tensor in the folder's files or in the given sources. */
static emo_status find(const emo_model *m, const char *name, place *at, emo_error *err) {
    if (m->files != NULL)
        return emo__st_set_find(m->files, name, &at->st, &at->entry, err);
    for (size_t i = 0; i < m->n_opened; i++) {
        at->entry = emo__st_find(m->opened[i], name);
        if (at->entry != NULL) {
            at->st = m->opened[i];
            return EMO_OK;
        }
    }
    return emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_FILE, 0, "tensor \"%s\" is in none of the %zu weight sources",
                        name, m->n_opened);
}

static emo_status place_param(loader *ld, size_t i, const char *name, emo_error *err) {
    emo_model *m = ld->model;
    const emo__param *p = &m->params[i];
    place *at = &ld->places[i];
    emo_status status = find(m, name, at, err);
    if (status != EMO_OK)
        return status;
    int64_t shape[2] = {p->rows, p->cols};
    status = p->vector != 0 ? emo__st_check_shape(at->entry, shape + 1, 1, err)
                            : emo__st_check_shape(at->entry, shape, 2, err);
    if (status != EMO_OK)
        return status;
    emo_dtype held = at->entry->dtype;
    if (!emo__dtype_float(held))
        return emo__fail_at(err, EMO_E_UNSUPPORTED, EMO_DOMAIN_FILE, 0,
                            "tensor \"%s\" has element type %s; weights are F32, F16 or BF16", name,
                            at->entry->dtype_name);
    at->dtype = emo__param_is_score_bias(p) ? EMO_DTYPE_F32 : ld->options->dtype < 0 ? held : ld->options->dtype;
    if (emo__expert_cache_holds(m->cache, p->layer, p->expert)) { /* read when it is asked for */
        emo__expert_cache_place(m->cache, p->layer, p->expert, p->which, emo__st_source(at->st), at->entry->offset,
                                held, at->dtype);
        at->st = NULL;
        return EMO_OK;
    }
    size_t item = emo__dtype_size(at->dtype);
    if (at->dtype == held && ld->options->no_map == 0) {
        const void *data = emo__st_data(at->st, at->entry);
        if (data != NULL && (uintptr_t)data % item == 0)
            at->view = data;
    }
    size_t bytes = 0;
    if (at->view == NULL &&
        (!emo__mul_size((size_t)emo__param_count(p), item, &bytes) || !emo__add_size(bytes, ALIGN - 1, &bytes) ||
         !emo__add_size(ld->bytes, bytes / ALIGN * ALIGN, &ld->bytes)))
        return emo__fail_memory(err, SIZE_MAX);
    return EMO_OK;
}

bool emo__param_wanted(const emo_model *m, const emo__param *p) {
    return p->expert < 0 || m->subset == NULL || emo_mask_get(m->subset, p->layer, p->expert) != 0;
}

static emo_status read_params(loader *ld, emo_error *err) {
    emo_model *m = ld->model;
    char *block = NULL;
    emo_status status = EMO_OK;
    if (ld->bytes > 0)
        status = emo__model_block(m, ld->bytes, (void **)&block, err);
    size_t at = 0;
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        emo__param *p = &m->params[i];
        const place *from = &ld->places[i];
        if (from->st == NULL)
            continue;
        status = emo__report(&ld->options->progress, "load", i, m->n_params, err);
        if (status != EMO_OK)
            break;
        if (from->view == NULL) {
            size_t count = (size_t)emo__param_count(p);
            status = emo__st_read_as(from->st, from->entry, 0, count, from->dtype, block + at, err);
            emo__param_bind(p, block + at, from->dtype);
            at += (count * emo__dtype_size(from->dtype) + ALIGN - 1) / ALIGN * ALIGN;
        } else {
            emo__param_bind(p, from->view, from->dtype);
        }
    }
    return status == EMO_OK ? emo__report(&ld->options->progress, "load", m->n_params, m->n_params, err) : status;
}

static bool is_known(const emo__named_param *sorted, size_t n, const char *name) {
    size_t low = 0;
    while (low < n) {
        size_t mid = low + (n - low) / 2;
        int order = strcmp(sorted[mid].name, name);
        if (order == 0)
            return true;
        if (order < 0)
            low = mid + 1;
        else
            n = mid;
    }
    return false;
}

static void warn_one(const emo_model *m, const emo__named_param *sorted, const char *name, size_t *extra) {
    if (is_known(sorted, m->n_params, name))
        return;
    if (++*extra <= MAX_WARNINGS)
        emo__log(m->rt, EMO_LOG_WARNING, "tensor \"%s\" is not part of the model and is not used", name);
}

/* Tensors that no parameter asks for: a sign of a config.json that does not belong to the weights. */
static emo_status warn_extra(const emo_model *m, emo_error *err) {
    emo__named_param *sorted = NULL;
    emo_status status = emo__model_sorted(m, &sorted, err);
    size_t extra = 0;
    if (status == EMO_OK && m->files != NULL) {
        for (size_t i = 0; i < emo__st_set_count(m->files); i++)
            warn_one(m, sorted, emo__st_set_name(m->files, i), &extra);
    }
    for (size_t f = 0; status == EMO_OK && f < m->n_opened; f++) {
        for (size_t i = 0; i < emo__st_count(m->opened[f]); i++)
            warn_one(m, sorted, emo__st_at(m->opened[f], i)->name, &extra);
    }
    if (extra > MAX_WARNINGS)
        emo__log(m->rt, EMO_LOG_WARNING, "%zu tensors in all are not part of the model", extra);
    emo__free(&m->rt->mem, sorted);
    return status;
}

emo_status emo__model_set_subset(emo_model *m, const emo_mask *wish, emo_error *err) {
    static const float any = 0.0f;
    const emo__config *c = &m->config;
    /* Every expert counts as loadable while the mask is made; the data are set afterwards. */
    for (size_t i = 0; i < m->n_params; i++)
        m->params[i].view->data = &any;
    emo_status status = emo__model_mask(m, &m->subset, err);
    for (int32_t l = 0; status == EMO_OK && l < c->layers; l++) {
        int32_t n = c->layer[l].experts;
        uint8_t *keep = emo__malloc_array(&m->rt->mem, (size_t)n + 1, 1);
        if (keep == NULL)
            status = emo__fail_memory(err, (size_t)n + 1);
        else
            status = emo__model_keep(m, wish, l, keep, err);
        for (int32_t e = 0; status == EMO_OK && e < n; e++) {
            if (keep[e] == 0)
                status = emo_mask_set(m->subset, l, e, 0, err);
        }
        emo__free(&m->rt->mem, keep);
    }
    for (size_t i = 0; i < m->n_params; i++)
        m->params[i].view->data = NULL;
    return status;
}

static emo_status load_weights(emo_model *m, const emo_model_load_options *options, emo_error *err) {
    loader ld = {m, options, NULL, 0};
    emo_status status = EMO_OK;
    if (options->subset != NULL)
        status = emo__model_set_subset(m, options->subset, err);
    if (status == EMO_OK)
        status = emo__expert_cache_create(m, options, &m->cache, err);
    if (status == EMO_OK) {
        ld.places = emo__calloc(&m->rt->mem, m->n_params, sizeof *ld.places);
        if (ld.places == NULL)
            status = emo__fail_memory(err, m->n_params * sizeof *ld.places);
    }
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        char name[EMO__NAME_MAX];
        emo__param_name(&m->params[i], name);
        if (emo__param_wanted(m, &m->params[i]))
            status = place_param(&ld, i, name, err);
    }
    if (status == EMO_OK)
        status = warn_extra(m, err);
    if (status == EMO_OK)
        status = read_params(&ld, err);
    if (status == EMO_OK && m->cache != NULL)
        status = emo__expert_cache_open(m->cache, err);
    if (status == EMO_OK)
        status = emo__model_finish(m, err);
    emo__free(&m->rt->mem, ld.places);
    return status;
}

static emo_status open_sources(emo_model *m, emo_source *const *sources, size_t n, emo_error *err) {
    m->opened = emo__calloc(&m->rt->mem, n, sizeof(emo__st *));
    if (m->opened == NULL)
        return emo__fail_memory(err, n * sizeof(emo__st *));
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        status = emo__st_open(m->rt, sources[i], &m->opened[i], err);
        if (status == EMO_OK)
            m->n_opened++;
    }
    return status;
}

emo_status emo__model_read_method(emo_model *m, const char *text, size_t length, emo_error *err) {
    emo__json *root = NULL;
    const char *method = NULL;
    emo_status status = emo__json_parse(&m->rt->mem, text, length, "pruning_metadata.json", &root, err);
    if (status == EMO_OK)
        status = emo__json_opt_string(root, "pruning_method", "pruning_metadata.json", "unknown", &method, err);
    if (status == EMO_OK) {
        m->prune_method = emo__strdup(&m->rt->mem, method);
        if (m->prune_method == NULL)
            status = emo__fail_memory(err, strlen(method) + 1);
    }
    emo__json_free(root);
    return status;
}

emo_status emo__model_load_sources(emo_runtime *rt, const char *config, size_t config_length,
                                   emo_source *const *weights, size_t n_weights, const emo_model_load_options *options,
                                   emo_model **out, emo_error *err) {
    *out = NULL;
    if (config == NULL) { /* then the one source says it */
        if (n_weights == 1 && emo__gguf_detect(weights[0]))
            return emo__model_load_gguf(rt, weights[0], options, out, err);
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "config is NULL, and the source is no single GGUF file");
    }
    emo__config c;
    emo_model *m = NULL;
    const char *pruning = options->pruning;
    emo_status status = emo__config_parse(&rt->mem, config, config_length, &c, err);
    if (status == EMO_OK && pruning != NULL)
        status = emo__config_read_pruning(&c, pruning, strlen(pruning), err);
    if (status != EMO_OK)
        emo__config_free(&c);
    else
        status = emo__model_new(rt, &c, &m, err);
    if (status == EMO_OK && pruning != NULL)
        status = emo__model_read_method(m, pruning, strlen(pruning), err);
    if (status == EMO_OK)
        status = open_sources(m, weights, n_weights, err);
    if (status == EMO_OK)
        status = load_weights(m, options, err);
    if (status == EMO_OK)
        *out = m;
    else
        emo_model_release(m);
    return status;
}

/* A file of the folder; *text NULL when it is not there. */
static emo_status read_beside(emo_runtime *rt, emo__buf *path, const char *folder, const char *name, char **text,
                              size_t *length, emo_error *err) {
    *text = NULL;
    *length = 0;
    emo_status status = emo__path_join(path, folder, name, err);
    if (status == EMO_OK)
        status = emo__file_read_if_there(&rt->mem, path->data, MAX_JSON, text, length, err);
    return status;
}

emo_status emo__model_take_tokenizer(emo_model *m, emo_tokenizer *tokenizer, emo_status status, const emo_error *why,
                                     const char *where, emo_error *err) {
    if (status == EMO_E_UNSUPPORTED) {
        /* The model runs on token ids all the same. */
        emo__log(m->rt, EMO_LOG_WARNING, "%s has a tokenizer of a kind this library does not read: %s", where,
                 why->message);
        return EMO_OK;
    }
    if (status != EMO_OK)
        return emo__fail_at(err, status, why->domain, why->number, "%s", why->message);
    if (tokenizer == NULL)
        return EMO_OK;
    /* config.json says which one ends a text; an id the tokenizer lacks (EMO_E_RANGE) leaves its own. */
    if (m->config.eos >= 0 && emo_tokenizer_eos(tokenizer) != m->config.eos)
        status = emo_tokenizer_set_eos(tokenizer, m->config.eos, NULL);
    if (status == EMO_OK || status == EMO_E_RANGE)
        status = emo__model_set_tokenizer(m, tokenizer, err);
    emo_tokenizer_release(tokenizer);
    return status;
}

static emo_status load_tokenizer(emo_model *m, emo__buf *path, const char *folder, emo_error *err) {
    bool there = false;
    emo_status status = emo__path_join(path, folder, "tokenizer.json", err);
    if (status == EMO_OK)
        status = emo__path_probe(path->data, &there, err);
    if (!there)
        return status;
    emo_tokenizer *tokenizer = NULL;
    emo_error why = EMO_ERROR_INIT;
    status = emo_tokenizer_load(m->rt, path->data, &tokenizer, &why);
    status = emo__model_take_tokenizer(m, tokenizer, status, &why, path->data, err);
    if (status == EMO_OK && m->tokenizer != NULL) {
        m->config.beside->has_tokenizer = true;
        m->config.beside->tokenizer = emo_tokenizer_hash(m->tokenizer);
    }
    return status;
}

/* A path that is a file must be a GGUF file. */
static emo_status load_file(emo_runtime *rt, const char *path, const emo_model_load_options *options, emo_model **out,
                            emo_error *err) {
    emo_source *source = NULL;
    emo_status status = emo__source_open_path(rt, path, &source, err);
    if (status == EMO_OK && !emo__gguf_detect(source))
        status =
            emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 0,
                         "\"%s\" is no GGUF file; a model is such a file, or the folder that has config.json", path);
    if (status == EMO_OK)
        status = emo__model_load_gguf(rt, source, options, out, err);
    emo__source_release(source);
    return status;
}

emo_status emo__model_load_path(emo_runtime *rt, const char *folder, const emo_model_load_options *options,
                                emo_model **out, emo_error *err) {
    *out = NULL;
    emo__config c;
    emo_model *m = NULL;
    emo__buf path;
    char *text = NULL;
    char *pruning = NULL;
    size_t length = 0;
    size_t pruning_length = 0;
    bool there = false;
    emo_status status = emo__path_probe(folder, &there, err);
    if (status != EMO_OK)
        return status;
    if (there && !emo__path_is_dir(folder))
        return load_file(rt, folder, options, out, err);
    memset(&c, 0, sizeof c);
    emo__buf_init(&path, &rt->mem);
    status = read_beside(rt, &path, folder, "config.json", &text, &length, err);
    if (status == EMO_OK && text == NULL)
        status = emo__fail_at(err, EMO_E_NOT_FOUND, EMO_DOMAIN_FILE, 0, "\"%s\" has no config.json", folder);
    if (status == EMO_OK)
        status = emo__config_parse(&rt->mem, text, length, &c, err);
    if (status == EMO_OK)
        status = emo__beside_read(c.beside, folder, err);
    if (status == EMO_OK && options->pruning != NULL) {
        pruning_length = strlen(options->pruning);
        pruning = emo__strndup(&rt->mem, options->pruning, pruning_length);
        if (pruning == NULL)
            status = emo__fail_memory(err, pruning_length + 1);
    } else if (status == EMO_OK) {
        status = read_beside(rt, &path, folder, "pruning_metadata.json", &pruning, &pruning_length, err);
    }
    if (status == EMO_OK && pruning != NULL)
        status = emo__config_read_pruning(&c, pruning, pruning_length, err);
    if (status == EMO_OK)
        status = emo__model_new(rt, &c, &m, err);
    else
        emo__config_free(&c);
    if (status == EMO_OK && pruning != NULL)
        status = emo__model_read_method(m, pruning, pruning_length, err);
    if (status == EMO_OK)
        status = emo__st_set_open(rt, folder, &m->files, err);
    if (status == EMO_OK)
        status = load_weights(m, options, err);
    if (status == EMO_OK)
        status = load_tokenizer(m, &path, folder, err);
    emo__free(&rt->mem, text);
    emo__free(&rt->mem, pruning);
    emo__buf_free(&path);
    if (status == EMO_OK)
        *out = m;
    else
        emo_model_release(m);
    return status;
}
