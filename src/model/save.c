/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a model as the reference's own code reads it. */
#include <string.h>

#include "base/progress.h"
#include "base/status.h"
#include "io/files.h"
#include "model/access.h"
#include "model/extra.h"
#include "model/files.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

#define SHARD_BYTES UINT64_C(5000000000)
#define PIECE ((size_t)1 << 20) /* elements converted at a time */

static emo_dtype saved_dtype(const emo__param *p, const emo_model_save_options *options) {
    return options->dtype < 0 || emo__param_is_score_bias(p) ? p->view->dtype : options->dtype;
}

/* Views are dense unless a loader of another format makes them otherwise: rows one by one are right for both. */
static emo_status write_param(emo__access *access, emo__st_writer *w, const emo__named_param *named, emo_dtype dtype,
                              void *scratch, emo_error *err) {
    const emo__param *p = named->param;
    emo_weight held;
    const emo_weight *view = &held;
    emo_status status = emo__access_view(access, p, &held, err);
    size_t item = emo__dtype_size(dtype);
    bool dense = view->stride == p->cols;
    size_t runs = dense ? 1 : (size_t)p->rows;
    size_t length = dense ? (size_t)emo__param_count(p) : (size_t)p->cols;
    for (size_t r = 0; status == EMO_OK && r < runs; r++) {
        const char *row = (const char *)view->data + emo__dtype_run(view->dtype, (int64_t)r * view->stride);
        for (size_t at = 0; status == EMO_OK && at < length; at += PIECE) {
            size_t n = length - at < PIECE ? length - at : PIECE;
            const void *host = NULL;
            status = emo__access_read(access, row + emo__dtype_run(view->dtype, (int64_t)at),
                                      emo__dtype_run(view->dtype, (int64_t)n), &host, err);
            if (status != EMO_OK)
                break;
            if (dtype != view->dtype) {
                (void)emo__convert(scratch, dtype, host, view->dtype, n);
                host = scratch;
            }
            status = emo__st_writer_write(w, named->name, host, n * item, err);
        }
    }
    return status;
}

/* What is written: parameters, and tensors of the model's files that are none, in the byte order of the names. */
typedef struct content {
    emo__named_param *sorted;
    emo__extra *extra;
    size_t n_extra;
} content;

/* Calls one of the two for every tensor in order. */
typedef struct visitor {
    const emo_model *model;
    emo__access access;
    emo__st_writer *w;
    const emo_model_save_options *options;
    void *scratch; /* [PIECE] floats */
    size_t done;
    size_t total;
    emo_status (*param)(struct visitor *v, const emo__named_param *named, emo_error *err);
    emo_status (*extra)(struct visitor *v, const emo__extra *extra, emo_error *err);
} visitor;

static emo_status visit(visitor *v, const content *all, emo_error *err) {
    size_t n = v->model->n_params;
    emo_status status = EMO_OK;
    for (size_t p = 0, x = 0; status == EMO_OK && p + x < n + all->n_extra; v->done++) {
        bool param = x == all->n_extra || (p < n && strcmp(all->sorted[p].name, all->extra[x].entry->name) < 0);
        status = param ? v->param(v, &all->sorted[p], err) : v->extra(v, &all->extra[x], err);
        p += param ? 1 : 0;
        x += param ? 0 : 1;
    }
    return status;
}

static emo_status declare_param(visitor *v, const emo__named_param *named, emo_error *err) {
    const emo__param *p = named->param;
    int64_t shape[2] = {p->rows, p->cols};
    return emo__st_writer_add(v->w, named->name, saved_dtype(p, v->options), p->vector != 0 ? shape + 1 : shape,
                              p->vector != 0 ? 1 : 2, err);
}

static emo_status declare_extra(visitor *v, const emo__extra *extra, emo_error *err) {
    return emo__st_writer_add_like(v->w, extra->entry, err);
}

static emo_status copy_param(visitor *v, const emo__named_param *named, emo_error *err) {
    emo_status status = emo__report(&v->options->progress, "save", v->done, v->total, err);
    if (status != EMO_OK)
        return status;
    return write_param(&v->access, v->w, named, saved_dtype(named->param, v->options), v->scratch, err);
}

static emo_status copy_extra(visitor *v, const emo__extra *extra, emo_error *err) {
    return emo__extra_write(extra, v->w, v->scratch, PIECE * sizeof(float), err);
}

static emo_status write_weights(const emo_model *m, const char *folder, const emo_model_save_options *options,
                                emo_error *err) {
    const emo__mem *mem = &m->rt->mem;
    content all = {NULL, NULL, 0};
    visitor v = {.model = m, .options = options, .param = declare_param, .extra = declare_extra};
    uint64_t shard = options->shard_bytes == 0 ? SHARD_BYTES : options->shard_bytes;
    emo_status status;
    EMO_TRY(status = emo__model_sorted(m, &all.sorted, err));
    EMO_TRY(status = emo__model_extra(m, all.sorted, &all.extra, &all.n_extra, err));
    EMO_TRY(status = emo__st_writer_create(m->rt, folder, shard, &v.w, err));
    EMO_TRY(status = visit(&v, &all, err));
    v.scratch = emo__malloc_array(mem, PIECE, sizeof(float));
    if (v.scratch == NULL)
        EMO_TRY(status = emo__fail_memory(err, PIECE * sizeof(float)));
    EMO_TRY(status = emo__access_begin(m, &v.access, err));
    EMO_TRY(status = emo__st_writer_begin(v.w, err));
    v.total = v.done;
    v.done = 0;
    v.param = copy_param;
    v.extra = copy_extra;
    EMO_TRY(status = visit(&v, &all, err));
    status = emo__st_writer_finish(v.w, err);
done:
    emo__access_end(&v.access);
    emo__st_writer_destroy(v.w);
    emo__free(mem, v.scratch);
    emo__free(mem, all.extra);
    emo__free(mem, all.sorted);
    return status;
}

static void layer_numbers(emo__jw *w, const char *key, const emo__config *c, bool shared) {
    emo__jw_row(w, key);
    for (int32_t l = 0; l < c->layers; l++)
        emo__jw_i64(w, NULL, shared ? c->layer[l].original_shared : c->layer[l].original_experts);
    emo__jw_array_end(w);
}

/* The reference's keys, and the shape of the model that the ids belong to under keys of our own. */
emo_status emo__pruning_text(const emo_model *m, emo__buf *out, emo_error *err) {
    const emo__config *c = &m->config;
    emo__jw w;
    int32_t keep = 0;
    int32_t shared = 0;
    for (int32_t l = 0; l < c->layers; l++) {
        keep = c->layer[l].experts > keep ? c->layer[l].experts : keep;
        shared = c->layer[l].shared > shared ? c->layer[l].shared : shared;
    }
    emo__jw_begin(&w, out, 2, err);
    emo__jw_object(&w, NULL);
    emo__jw_i64(&w, "prune_keep_k", keep);
    emo__jw_i64(&w, "num_shared_experts", shared);
    emo__jw_string(&w, "pruning_method", m->prune_method != NULL ? m->prune_method : "unknown");
    emo__jw_array(&w, "experts_kept_per_layer");
    for (int32_t l = 0; l < c->layers; l++) {
        emo__jw_row(&w, NULL);
        for (int32_t e = 0; e < c->layer[l].experts; e++)
            emo__jw_i64(&w, NULL, c->layer[l].original != NULL ? c->layer[l].original[e] : e);
        emo__jw_array_end(&w);
    }
    emo__jw_array_end(&w);
    layer_numbers(&w, "emo_parent_experts", c, false);
    layer_numbers(&w, "emo_parent_shared", c, true);
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}

static emo_status generation_text(const emo_model *m, emo__buf *out, emo_error *err) {
    const emo__config *c = &m->config;
    if (c->beside != NULL && c->beside->files[EMO__BESIDE_GENERATION] != NULL)
        return emo__buf_append(out, c->beside->files[EMO__BESIDE_GENERATION],
                               c->beside->lengths[EMO__BESIDE_GENERATION], err);
    emo__jw w;
    emo__jw_begin(&w, out, 2, err);
    emo__jw_object(&w, NULL);
    emo__jw_bool(&w, "_from_model_config", true);
    if (c->bos >= 0)
        emo__jw_i64(&w, "bos_token_id", c->bos);
    if (c->eos >= 0)
        emo__jw_i64(&w, "eos_token_id", c->eos);
    if (c->pad >= 0)
        emo__jw_i64(&w, "pad_token_id", c->pad);
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}

static bool is_pruned(const emo__config *c) {
    for (int32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].original != NULL)
            return true;
    }
    return false;
}

static emo_status write_text(const emo_model *m, emo__buf *path, const char *folder, const char *name,
                             const emo__buf *text, emo_error *err) {
    emo_status status = emo__path_join(path, folder, name, err);
    return status == EMO_OK ? emo__file_write(&m->rt->mem, path->data, text->data, text->size, err) : status;
}

/* What is beside the weights; config.json comes last, so that the others are there once it is. */
static emo_status write_beside(const emo_model *m, const char *folder, emo_dtype dtype, emo_error *err) {
    emo__buf path;
    emo__buf text;
    emo__buf_init(&path, &m->rt->mem);
    emo__buf_init(&text, &m->rt->mem);
    emo_status status;
    EMO_TRY(status = generation_text(m, &text, err));
    EMO_TRY(status = write_text(m, &path, folder, "generation_config.json", &text, err));
    text.size = 0;
    if (is_pruned(&m->config)) {
        EMO_TRY(status = emo__pruning_text(m, &text, err));
        EMO_TRY(status = write_text(m, &path, folder, "pruning_metadata.json", &text, err));
        text.size = 0;
    } else {
        /* ids of a pruned model that was here before would be taken for this one's */
        EMO_TRY(status = emo__path_join(&path, folder, "pruning_metadata.json", err));
        EMO_TRY(status = emo__remove_tree(&m->rt->mem, path.data, err));
    }
    EMO_TRY(status = emo__save_tokenizer(m, folder, err));
    EMO_TRY(status = emo__config_write(&m->config, dtype, &text, err));
    EMO_TRY(status = write_text(m, &path, folder, "config.json", &text, err));
    status = emo__sync_dir(folder, err);
done:
    emo__buf_free(&path);
    emo__buf_free(&text);
    return status;
}

static emo_status can_be_saved(const emo_model *m, const emo_model_save_options *options, emo_error *err) {
    for (size_t i = 0; i < m->n_params; i++) {
        const emo__param *p = &m->params[i];
        if (!emo__param_loaded(m, p))
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "expert %d of layer %d was left out when the model was loaded; to save what is there, "
                             "prune the model to its mask first",
                             (int)p->expert, (int)p->layer);
        if (options->dtype < 0 && emo__dtype_quantised(p->view->dtype)) {
            char name[EMO__NAME_MAX];
            emo__param_name(p, name);
            return emo__fail(err, EMO_E_UNSUPPORTED,
                             "tensor \"%s\" is held as %s, which safetensors cannot store; choose f32, bf16 or f16",
                             name, emo_dtype_name(p->view->dtype));
        }
    }
    if (emo__config_extended(&m->config) && options->extended == 0)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "the reference's configuration has no key for %s, which this model has; set "
                         "emo_model_save_options.extended to save it for this library alone",
                         m->config.score_bias ? "a score bias" : "sigmoid gating");
    return EMO_OK;
}

static emo_status write_folder(const emo_model *m, const char *folder, const emo_model_save_options *options,
                               emo_error *err) {
    emo_dtype dtype = options->dtype < 0 ? m->embed.dtype : options->dtype;
    bool has_config = false;
    emo__buf path;
    emo__buf_init(&path, &m->rt->mem);
    emo_status status = emo__path_join(&path, folder, "config.json", err);
    if (status == EMO_OK)
        status = emo__path_probe(path.data, &has_config, err);
    emo__buf_free(&path);
    /* In a new folder weights appear last, so that they are never there without what describes them. Over another model
     * they come first: they take longest and fail most, and until then the old model is whole. */
    if (status == EMO_OK && !has_config)
        status = write_beside(m, folder, dtype, err);
    if (status == EMO_OK)
        status = write_weights(m, folder, options, err);
    if (status == EMO_OK && has_config)
        status = write_beside(m, folder, dtype, err);
    return status;
}

emo_status emo__model_save(const emo_model *m, const char *folder, const emo_model_save_options *options,
                           emo_error *err) {
    emo_status status = can_be_saved(m, options, err);
    if (status == EMO_OK)
        status = emo__mkdirs(&m->rt->mem, folder, err);
    return status == EMO_OK ? write_folder(m, folder, options, err) : status;
}

emo_status emo__model_save_into(const emo_model *m, const char *folder, const emo_model_save_options *options,
                                emo_error *err) {
    emo_status status = can_be_saved(m, options, err);
    return status == EMO_OK ? write_folder(m, folder, options, err) : status;
}
