/* SPDX-License-Identifier: Apache-2.0 */
/* Writing a model as the reference's own code reads it. */
#include <string.h>

#include "base/status.h"
#include "io/files.h"
#include "model/files.h"
#include "tensor/dtype.h"

#define SHARD_BYTES UINT64_C(5000000000)
#define PIECE ((size_t)1 << 20) /* elements converted at a time */

static emo_dtype saved_dtype(const emo__param *p, const emo_model_save_options *options) {
    return options->dtype < 0 ? p->view->dtype : options->dtype;
}

/* Views are dense unless a loader of another format makes them otherwise: rows one by one are right for both. */
static emo_status write_param(emo__st_writer *w, const emo__named_param *named, emo_dtype dtype, void *scratch,
                              emo_error *err) {
    const emo__param *p = named->param;
    const emo_weight *view = p->view;
    size_t item = emo__dtype_size(dtype);
    size_t held = emo__dtype_size(view->dtype);
    bool dense = view->stride == p->cols;
    size_t runs = dense ? 1 : (size_t)p->rows;
    size_t length = dense ? (size_t)emo__param_count(p) : (size_t)p->cols;
    emo_status status = EMO_OK;
    for (size_t r = 0; status == EMO_OK && r < runs; r++) {
        const char *row = (const char *)view->data + r * (size_t)view->stride * held;
        if (dtype == view->dtype) {
            status = emo__st_writer_write(w, named->name, row, length * item, err);
            continue;
        }
        for (size_t at = 0; status == EMO_OK && at < length; at += PIECE) {
            size_t n = length - at < PIECE ? length - at : PIECE;
            (void)emo__convert(scratch, dtype, row + at * held, view->dtype, n);
            status = emo__st_writer_write(w, named->name, scratch, n * item, err);
        }
    }
    return status;
}

static emo_status write_all(const emo_model *m, emo__st_writer *w, const emo__named_param *sorted,
                            const emo_model_save_options *options, emo_error *err) {
    void *scratch = emo__malloc_array(&m->rt->mem, PIECE, sizeof(float));
    if (scratch == NULL)
        return emo__fail_memory(err, PIECE * sizeof(float));
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        emo_progress_info info = {"save", i, m->n_params};
        if (options->progress.report != NULL && options->progress.report(options->progress.ctx, &info) != 0)
            status = emo__fail(err, EMO_E_CANCELLED, "saving was cancelled after %zu of %zu tensors", i, m->n_params);
        else
            status = write_param(w, &sorted[i], saved_dtype(sorted[i].param, options), scratch, err);
    }
    emo__free(&m->rt->mem, scratch);
    return status;
}

static emo_status write_weights(const emo_model *m, const char *folder, const emo_model_save_options *options,
                                emo_error *err) {
    emo__named_param *sorted = NULL;
    emo__st_writer *w = NULL;
    uint64_t shard = options->shard_bytes == 0 ? SHARD_BYTES : options->shard_bytes;
    emo_status status = emo__model_sorted(m, &sorted, err);
    if (status == EMO_OK)
        status = emo__st_writer_create(m->rt, folder, shard, &w, err);
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        const emo__param *p = sorted[i].param;
        int64_t shape[2] = {p->rows, p->cols};
        const int64_t *dims = p->vector != 0 ? shape + 1 : shape;
        status = emo__st_writer_add(w, sorted[i].name, saved_dtype(p, options), dims, p->vector != 0 ? 1 : 2, err);
    }
    if (status == EMO_OK)
        status = emo__st_writer_begin(w, err);
    if (status == EMO_OK)
        status = write_all(m, w, sorted, options, err);
    if (status == EMO_OK)
        status = emo__st_writer_finish(w, err);
    emo__st_writer_destroy(w);
    emo__free(&m->rt->mem, sorted);
    return status;
}

static void layer_numbers(emo__jw *w, const char *key, const emo__config *c, bool shared) {
    emo__jw_row(w, key);
    for (int32_t l = 0; l < c->layers; l++)
        emo__jw_i64(w, NULL, shared ? c->layer[l].original_shared : c->layer[l].original_experts);
    emo__jw_array_end(w);
}

/* The reference's keys, and the shape of the model that the ids belong to under keys of our own. */
static emo_status pruning_text(const emo_model *m, emo__buf *out, emo_error *err) {
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

/* What is beside the weights. config.json comes last: a folder with it is complete. */
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
        EMO_TRY(status = pruning_text(m, &text, err));
        EMO_TRY(status = write_text(m, &path, folder, "pruning_metadata.json", &text, err));
        text.size = 0;
    } else {
        /* ids of a pruned model that was here before would be taken for this one's */
        EMO_TRY(status = emo__path_join(&path, folder, "pruning_metadata.json", err));
        EMO_TRY(status = emo__remove_tree(&m->rt->mem, path.data, err));
    }
    if (m->tokenizer != NULL) {
        EMO_TRY(status = emo__path_join(&path, folder, "tokenizer.json", err));
        EMO_TRY(status = emo_tokenizer_save(m->tokenizer, path.data, err));
    }
    EMO_TRY(status = emo__config_write(&m->config, dtype, &text, err));
    EMO_TRY(status = write_text(m, &path, folder, "config.json", &text, err));
    status = emo__sync_dir(folder, err);
done:
    emo__buf_free(&path);
    emo__buf_free(&text);
    return status;
}

emo_status emo__model_save(const emo_model *m, const char *folder, const emo_model_save_options *options,
                           emo_error *err) {
    for (size_t i = 0; i < m->n_params; i++) {
        const emo__param *p = &m->params[i];
        if (p->view->data == NULL)
            return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                             "expert %d of layer %d was left out when the model was loaded; to save what is there, "
                             "prune the model to its mask first",
                             (int)p->expert, (int)p->layer);
    }
    emo_status status = emo__mkdirs(&m->rt->mem, folder, err);
    if (status == EMO_OK)
        status = write_weights(m, folder, options, err);
    if (status == EMO_OK)
        status = write_beside(m, folder, options->dtype < 0 ? m->embed.dtype : options->dtype, err);
    return status;
}
