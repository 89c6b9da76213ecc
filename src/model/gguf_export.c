/* SPDX-License-Identifier: Apache-2.0 */
/* A model to GGUF. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/progress.h"
#include "base/status.h"
#include "model/access.h"
#include "model/files.h"
#include "model/gguf.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"
#include "text/tokenizer_gguf.h"

#define PIECE ((int64_t)1 << 19) /* elements converted at a time, at least a row */

typedef struct exporter {
    emo_model *model; /* not changed */
    const emo_export_options *options;
    emo__gguf_writer *w;
    emo__gguf_item *items;
    size_t n_items;
    emo_dtype *dtypes; /* [n_items] */
    int32_t fallbacks;
    emo__access access; /* a device's weights come to the host a matrix at a time */
} exporter;

/* ---- types ---- */

/* The type that was asked for this tensor's own kind, or -1. */
static emo_dtype own_choice(const emo_export_options *o, const emo__gguf_item *item) {
    if (item->layer < 0)
        return item->which == 0 ? o->embedding : item->which == 2 ? o->head : -1;
    if (item->expert >= 0)
        return item->expert > 0 ? o->shared : -1; /* the routed experts are stacked from the first on */
    return item->which >= EMO__W_Q && item->which <= EMO__W_O ? o->attention : -1;
}

static emo_status choose(exporter *x, size_t i, emo_error *err) {
    const emo__gguf_item *item = &x->items[i];
    emo_dtype held = item->zero ? x->model->embed.dtype : emo__gguf_view(x->model, item, 0)->dtype;
    emo_dtype own = own_choice(x->options, item);
    emo_dtype dtype = own >= 0 ? own : x->options->dtype < 0 ? held : x->options->dtype;
    bool small = dtype == EMO_DTYPE_Q4_0 || dtype == EMO_DTYPE_Q4_K;
    if (item->exact)
        dtype = EMO_DTYPE_F32;
    else if (small && own < 0 && x->options->dtype >= 0 && item->layer < 0 && item->which == 2)
        dtype = EMO_DTYPE_Q8_0; /* the head's errors are not averaged by anything behind it */
    if (item->cols % emo__dtype_block(dtype) != 0 && item->cols % 32 == 0) {
        dtype = EMO_DTYPE_Q8_0;
        x->fallbacks++;
    }
    if (item->cols % emo__dtype_block(dtype) != 0)
        return emo__fail(err, EMO_E_UNSUPPORTED,
                         "tensor \"%s\" has rows of %lld, which 32 does not divide: it cannot be %s; choose f16, bf16 "
                         "or f32",
                         item->name, (long long)item->cols, emo_dtype_name(dtype));
    x->dtypes[i] = dtype;
    return EMO_OK;
}

/* ---- data ---- */

typedef struct rows_task {
    const emo__gguf_item *item;
    const emo_weight *view; /* NULL: zeros */
    emo_dtype dtype;
    int64_t first; /* row of the file */
    float *floats; /* [rows, cols] of this piece */
    char *out;
    size_t row_bytes;
    atomic_int failed;
} rows_task;

static bool f16_overflows(const void *row, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, (const char *)row + 2 * i, sizeof h);
        if ((h & 0x7C00) == 0x7C00)
            return true;
    }
    return false;
}

static void one_row(void *opaque, size_t index, size_t worker) {
    rows_task *t = opaque;
    (void)worker;
    size_t cols = (size_t)t->item->cols;
    char *out = t->out + index * t->row_bytes;
    float *floats = t->floats + index * cols;
    if (t->view == NULL) {
        memset(floats, 0, cols * sizeof *floats);
    } else {
        int64_t row = emo__gguf_row(t->item, t->first + (int64_t)index);
        const char *src = (const char *)t->view->data + emo__dtype_run(t->view->dtype, row * t->view->stride);
        if (t->view->dtype == t->dtype) {
            memcpy(out, src, t->row_bytes);
            return;
        }
        (void)emo__convert(floats, EMO_DTYPE_F32, src, t->view->dtype, cols);
    }
    bool fits = true;
    if (emo__dtype_quantised(t->dtype))
        fits = emo__quantise(out, t->dtype, floats, cols);
    else
        (void)emo__convert(out, t->dtype, floats, EMO_DTYPE_F32, cols);
    if (t->dtype == EMO_DTYPE_F16)
        fits = !f16_overflows(out, (int64_t)cols);
    if (!fits)
        atomic_store(&t->failed, 1);
}

static emo_status write_item(exporter *x, size_t i, float *floats, char *out, int64_t room, emo_error *err) {
    const emo__gguf_item *item = &x->items[i];
    rows_task t = {.item = item, .dtype = x->dtypes[i], .floats = floats, .out = out};
    t.row_bytes = emo__dtype_run(t.dtype, item->cols);
    int64_t most = room / item->cols;
    emo_status status = EMO_OK;
    for (int32_t slice = 0; status == EMO_OK && slice < item->slices; slice++) {
        emo_weight view = item->zero ? (emo_weight){0} : *emo__gguf_view(x->model, item, slice);
        t.view = item->zero ? NULL : &view;
        if (t.view != NULL)
            status = emo__access_fetch(&x->access, &view, err);
        for (t.first = 0; status == EMO_OK && t.first < item->rows; t.first += most) {
            int64_t n = item->rows - t.first < most ? item->rows - t.first : most;
            emo__parallel_for(x->model->rt, (size_t)n, one_row, &t);
            if (atomic_load(&t.failed) != 0)
                return emo__fail(err, EMO_E_NUMERIC,
                                 "tensor \"%s\" has a weight that is not finite, or too large for %s", item->name,
                                 emo_dtype_name(t.dtype));
            status = emo__gguf_writer_write(x->w, item->name, out, (size_t)n * t.row_bytes, err);
        }
    }
    return status;
}

static emo_status write_data(exporter *x, emo_error *err) {
    const emo__mem *mem = &x->model->rt->mem;
    int64_t room = PIECE;
    for (size_t i = 0; i < x->n_items; i++)
        room = x->items[i].cols > room ? x->items[i].cols : room;
    float *floats = emo__malloc_array(mem, (size_t)room, sizeof *floats);
    char *out = emo__malloc_array(mem, (size_t)room, sizeof(float));
    emo_status status = floats != NULL && out != NULL ? emo__access_begin(x->model, &x->access, err)
                                                      : emo__fail_memory(err, (size_t)room * sizeof *floats);
    if (status == EMO_OK)
        status = emo__gguf_writer_begin(x->w, err);
    for (size_t i = 0; status == EMO_OK && i < x->n_items; i++) {
        status = emo__report(&x->options->progress, "export", i, x->n_items, err);
        if (status == EMO_OK)
            status = write_item(x, i, floats, out, room, err);
    }
    if (status == EMO_OK)
        status = emo__gguf_writer_finish(x->w, err);
    emo__access_end(&x->access);
    emo__free(mem, floats);
    emo__free(mem, out);
    return status;
}

/* ---- keys ---- */

static uint32_t file_type(emo_dtype dtype) {
    switch (dtype) {
    case EMO_DTYPE_F16:
        return 1;
    case EMO_DTYPE_Q4_0:
        return 2;
    case EMO_DTYPE_Q8_0:
        return 7;
    case EMO_DTYPE_Q4_K:
        return 14;
    case EMO_DTYPE_BF16:
        return 32;
    default:
        return 0;
    }
}

static emo_status put_text(emo__gguf_writer *w, const char *key, const char *text, emo_error *err) {
    return emo__gguf_put_string(w, key, text, strlen(text), err);
}

static const char *key_of(char buf[64], const char *arch, const char *key) {
    (void)snprintf(buf, 64, "%s.%s", arch, key);
    return buf;
}

static emo_status put_shape(exporter *x, const char *arch, int32_t dense, emo_error *err) {
    const emo__config *c = &x->model->config;
    const emo__layer_config *last = &c->layer[c->layers - 1];
    emo__gguf_writer *w = x->w;
    char buf[64];
    emo_status status;
#define U32(key, value) EMO_TRY(status = emo__gguf_put_u32(w, key_of(buf, arch, key), (uint32_t)(value), err))
#define F32(key, value) EMO_TRY(status = emo__gguf_put_f32(w, key_of(buf, arch, key), (float)(value), err))
    U32("context_length", c->max_positions);
    U32("embedding_length", c->hidden);
    U32("block_count", c->layers);
    U32("feed_forward_length", c->dense_inner);
    U32("attention.head_count", c->heads);
    U32("attention.head_count_kv", c->kv_heads);
    F32("attention.layer_norm_rms_epsilon", c->eps);
    F32("rope.freq_base", c->rope_theta);
    U32("rope.dimension_count", c->head_dim);
    EMO_TRY(status = put_text(w, key_of(buf, arch, "rope.scaling.type"), "none", err));
    U32("vocab_size", c->vocab);
    if (dense < c->layers) {
        U32("expert_count", last->experts - last->shared);
        U32("expert_used_count", c->top_k - last->shared);
        U32("expert_feed_forward_length", c->inner);
        U32("expert_shared_count", 1);
        F32("expert_weights_scale", 1.0f);
        U32("leading_dense_block_count", dense);
        EMO_TRY(status = emo__gguf_put_bool(w, EMO__GGUF_NO_SHARED, last->shared == 0, err));
    }
#undef U32
#undef F32
done:
    return status;
}

static emo_status put_own(exporter *x, emo_error *err) {
    const emo__config *c = &x->model->config;
    emo_status status = EMO_OK;
    bool pruned = false;
    for (int32_t l = 0; l < c->layers; l++)
        pruned = pruned || c->layer[l].original != NULL;
    if (c->train_seq_len > 0)
        status = emo__gguf_put_u32(x->w, EMO__GGUF_TRAIN_LEN, (uint32_t)c->train_seq_len, err);
    if (status == EMO_OK && pruned) {
        emo__buf text;
        emo__buf_init(&text, &x->model->rt->mem);
        status = emo__pruning_text(x->model, &text, err);
        if (status == EMO_OK)
            status = emo__gguf_put_string(x->w, EMO__GGUF_PRUNING, text.data, text.size, err);
        emo__buf_free(&text);
    }
    return status;
}

static emo_status put_tokenizer(exporter *x, emo_error *err) {
    const emo__config *c = &x->model->config;
    const emo_tokenizer *tok = x->options->no_tokenizer != 0 ? NULL : x->model->tokenizer;
    emo__tok_ids ids = {.vocab = c->vocab,
                        .eos = c->eos >= 0   ? c->eos
                               : tok != NULL ? emo_tokenizer_eos(tok)
                                             : -1,
                        .bos = c->bos < c->vocab ? c->bos : -1,
                        .pad = c->pad};
    return emo__tok_write_gguf(tok, &ids, x->w, err);
}

static emo_status put_keys(exporter *x, emo_error *err) {
    const emo__config *c = &x->model->config;
    emo__gguf_writer *w = x->w;
    int32_t dense = 0;
    while (dense < c->layers && c->layer[dense].experts == 0)
        dense++;
    const char *arch = dense == c->layers ? "llama" : "deepseek";
    emo_dtype dtype = x->options->dtype < 0 ? x->model->embed.dtype : x->options->dtype;
    emo_status status;
    EMO_TRY(status = put_text(w, "general.architecture", arch, err));
    EMO_TRY(status = put_text(w, "general.type", "model", err));
    EMO_TRY(status = put_text(w, "general.name", x->options->name != NULL ? x->options->name : "emo", err));
    EMO_TRY(status = emo__gguf_put_u32(w, "general.file_type", file_type(dtype), err));
    if (emo__dtype_quantised(dtype))
        EMO_TRY(status = emo__gguf_put_u32(w, "general.quantization_version", 2, err));
    EMO_TRY(status = put_shape(x, arch, dense, err));
    EMO_TRY(status = put_own(x, err));
    status = put_tokenizer(x, err);
done:
    return status;
}

/* ---- all ---- */

static emo_status declare(exporter *x, emo_error *err) {
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < x->n_items; i++) {
        const emo__gguf_item *item = &x->items[i];
        int64_t dims[3] = {item->cols, item->rows, item->slices};
        bool stack = item->expert >= 0 && strstr(item->name, "_exps.") != NULL;
        status = choose(x, i, err);
        if (status == EMO_OK)
            status = emo__gguf_writer_add(x->w, item->name, x->dtypes[i], dims, item->vector ? 1 : stack ? 3 : 2, err);
    }
    return status;
}

emo_status emo__model_export_gguf(const emo_model *m, const char *path, const emo_export_options *options,
                                  emo_export_info *info, emo_error *err) {
    const emo__mem *mem = &m->rt->mem;
    /* Views are looked up through a function that loading shares, and that one writes. */
    exporter x = {.model = (emo_model *)(uintptr_t)m, .options = options};
    emo_status status = emo__gguf_can_say(&m->config, err);
    if (status == EMO_OK)
        status = emo__gguf_items(mem, &m->config, &x.items, &x.n_items, err);
    if (status == EMO_OK) {
        x.dtypes = emo__calloc(mem, x.n_items, sizeof *x.dtypes);
        status = x.dtypes != NULL ? emo__gguf_writer_create(m->rt, path, &x.w, err)
                                  : emo__fail_memory(err, x.n_items * sizeof *x.dtypes);
    }
    if (status == EMO_OK)
        status = put_keys(&x, err);
    if (status == EMO_OK)
        status = declare(&x, err);
    if (status == EMO_OK)
        status = write_data(&x, err);
    if (status == EMO_OK) {
        info->tensors = (int32_t)x.n_items;
        info->fallbacks = x.fallbacks;
        info->bytes = emo__gguf_writer_size(x.w);
    }
    emo__gguf_writer_destroy(x.w);
    emo__free(mem, x.items);
    emo__free(mem, x.dtypes);
    return status;
}
