/* SPDX-License-Identifier: Apache-2.0 */
/* From the packed stream to what a pass takes: rows, labels, documents, pools. Rows are numbered over the whole run, so
 * that documents, pools and order depend neither on ranks nor on accumulation. */
#include <string.h>

#include "base/checked.h"
#include "base/status.h"
#include "data/repetition.h"
#include "moe/documents.h"
#include "moe/pool.h"
#include "train/trainer.h"

emo_status emo__step_data_create(emo_trainer *t, emo_error *err) {
    const emo__mem *mem = &t->rt->mem;
    size_t seq = (size_t)t->opt.seq_len;
    size_t tokens = (size_t)t->rank_rows * seq;
    size_t micro = (size_t)t->micro_rows * seq;
    size_t layers = (size_t)t->model->config.layers;
    emo__step_data *d = &t->data;
    emo__micro_data *u = &t->micro;
    d->ids = emo__malloc_array(mem, tokens, sizeof *d->ids);
    d->labels = emo__malloc_array(mem, tokens, sizeof *d->labels);
    d->positions = emo__malloc_array(mem, tokens, sizeof *d->positions);
    d->label_mask = emo__malloc_array(mem, seq, 1);
    u->attention = emo__malloc_array(mem, micro, sizeof *u->attention);
    u->begin = emo__malloc_array(mem, micro + 1, sizeof *u->begin);
    u->document_id = emo__malloc_array(mem, micro, sizeof *u->document_id);
    u->cut = emo__malloc_array(mem, (tokens > micro ? tokens : micro) + 1, sizeof *u->cut);
    u->pool_size = emo__calloc(mem, layers, sizeof *u->pool_size);
    u->allowed = emo__calloc(mem, layers, sizeof *u->allowed);
    bool ok = d->ids && d->labels && d->positions && d->label_mask && u->attention && u->begin && u->document_id &&
              u->cut && u->pool_size && u->allowed;
    for (size_t l = 0; ok && l < layers; l++) {
        int32_t routed = emo__config_routed(&t->model->config, (int32_t)l);
        if (routed == 0)
            continue;
        u->pool_size[l] = emo__malloc_array(mem, micro, sizeof **u->pool_size);
        ok = u->pool_size[l] != NULL;
        if (ok && t->keep != NULL) {
            size_t bytes;
            u->allowed[l] = emo__mul_size(micro, (size_t)routed, &bytes) ? emo__alloc(mem, bytes) : NULL;
            ok = u->allowed[l] != NULL;
            for (size_t i = 0; ok && i < micro; i++)
                memcpy(u->allowed[l] + i * (size_t)routed, t->keep[l], (size_t)routed);
        }
    }
    return ok ? EMO_OK : emo__fail_memory(err, tokens * sizeof(int32_t));
}

void emo__step_data_destroy(emo_trainer *t) {
    const emo__mem *mem = &t->rt->mem;
    emo__free(mem, t->data.ids);
    emo__free(mem, t->data.labels);
    emo__free(mem, t->data.positions);
    emo__free(mem, t->data.label_mask);
    emo__free(mem, t->micro.attention);
    emo__free(mem, t->micro.begin);
    emo__free(mem, t->micro.document_id);
    emo__free(mem, t->micro.cut);
    for (int32_t l = 0; l < t->model->config.layers; l++) {
        if (t->micro.pool_size != NULL)
            emo__free(mem, t->micro.pool_size[l]);
        if (t->micro.allowed != NULL)
            emo__free(mem, t->micro.allowed[l]);
    }
    emo__free(mem, t->micro.pool_size);
    emo__free(mem, t->micro.allowed);
}

/* Number in the step of a row of this rank. A micro-batch of all ranks together is a run of rows, so that a step of R
 * ranks is the step of one rank with micro-batches R times as large. */
static int64_t step_row(const emo_trainer *t, int64_t row) {
    int64_t micro = row / t->micro_rows;
    return (micro * t->ranks + t->rank) * t->micro_rows + row % t->micro_rows;
}

/* And in the whole run. */
static int64_t global_row(const emo_trainer *t, int64_t step, int64_t row) {
    return (step - 1) * t->opt.batch_rows + step_row(t, row);
}

static emo_status load_row(emo_trainer *t, int64_t row, int32_t *ids, int32_t *labels, emo_error *err) {
    if (t->rows.row != NULL)
        return t->rows.row(t->rows.ctx, row, ids, labels, err);
    emo_status status = emo__packer_row(t->packer, (uint64_t)row, ids, t->data.label_mask, err);
    if (status == EMO_OK)
        (void)emo__packer_labels(ids, t->data.label_mask, t->opt.seq_len, labels);
    return status;
}

emo_status emo__step_data_load(emo_trainer *t, int64_t step, emo_error *err) {
    emo__step_data *d = &t->data;
    int32_t seq = t->opt.seq_len;
    d->n_labels = 0;
    d->n_filtered = 0;
    for (int64_t r = 0; r < t->rank_rows; r++) {
        int32_t *ids = d->ids + r * seq;
        int32_t *labels = d->labels + r * seq;
        emo_status status = load_row(t, global_row(t, step, r), ids, labels, err);
        if (status != EMO_OK)
            return status;
        if (t->opt.repetition_count > 0 && emo__repeats(ids, seq, t->opt.repetition_period, t->opt.repetition_count)) {
            d->n_filtered++;
            for (int32_t i = 0; i < seq; i++)
                labels[i] = -100;
        }
        for (int32_t i = 0; i < seq; i++) {
            d->n_labels += labels[i] != -100 ? 1 : 0;
            d->positions[r * seq + i] = i;
        }
    }
    d->n_documents = t->pool != NULL && t->pool->scope == EMO_POOL_SCOPE_ROW
                         ? t->rank_rows
                         : emo__router_documents(d->ids, t->rank_rows, seq, t->model->config.eos, t->micro.cut);
    return EMO_OK;
}

static emo_status draw_pools(emo_trainer *t, int64_t step, emo__batch *batch, emo_error *err) {
    const emo__config *c = &t->model->config;
    emo__micro_data *u = &t->micro;
    for (int32_t l = 0; l < c->layers; l++) {
        if (c->layer[l].experts == 0)
            continue;
        emo__pool_request request = {0};
        emo__pool_rule rule;
        request.seed = t->opt.seed;
        request.step = (uint64_t)step;
        request.layer = l;
        request.routed = emo__config_routed(c, l);
        request.chosen = emo__config_chosen(c, l);
        request.training = 1;
        request.documents = t->planning != NULL ? 1 : u->n_documents; /* nobody looks at the others' sizes */
        request.ids = u->document_id;
        emo_status status = emo__pool_sizes(t->pool, &request, u->pool_size[l], &rule, err);
        if (status != EMO_OK)
            return status;
        if (!rule.restricts)
            continue;
        batch->pool_size = (const int32_t *const *)u->pool_size;
        batch->pool_mass = rule.mass;
        batch->pool_min = rule.min;
        batch->pool_max = rule.max;
        batch->forced = rule.forced;
    }
    return EMO_OK;
}

emo_status emo__micro_prepare(emo_trainer *t, int64_t step, int32_t index, emo__batch *batch, emo_error *err) {
    emo__micro_data *u = &t->micro;
    const emo__step_data *d = &t->data;
    int64_t seq = t->opt.seq_len;
    int64_t first = index * t->micro_rows;
    int64_t tokens = t->micro_rows * seq;
    const int32_t *ids = d->ids + first * seq;
    int32_t eos = t->model->config.eos;

    u->n_attention = emo__attention_documents(ids, t->micro_rows, seq, eos, u->cut);
    for (int64_t i = 0; i < u->n_attention; i++) {
        int64_t begin = u->cut[i];
        int64_t count = u->cut[i + 1] - begin;
        u->attention[i] = (emo_attention_segment){begin, count, begin, count};
    }
    bool by_row = t->pool != NULL && t->pool->scope == EMO_POOL_SCOPE_ROW;
    u->n_documents = by_row ? emo__row_documents(t->micro_rows, seq, u->begin)
                            : emo__router_documents(ids, t->micro_rows, seq, eos, u->begin);
    for (int64_t i = 0; i < u->n_documents; i++)
        u->document_id[i] = (global_row(t, step, first) * seq) + u->begin[i];

    memset(batch, 0, sizeof *batch);
    batch->tokens = tokens;
    batch->ids = ids;
    batch->positions = d->positions + first * seq;
    batch->n_attention = u->n_attention;
    batch->attention = u->attention;
    batch->n_documents = u->n_documents;
    batch->document_begin = u->begin;
    batch->allowed = t->keep != NULL ? (const uint8_t *const *)u->allowed : NULL;
    batch->labels = d->labels + first * seq;
    batch->seed = t->opt.seed;
    batch->step = (uint64_t)step;
    batch->jitter = t->opt.jitter;
    batch->first_token = step_row(t, first) * seq;
    /* Gradients are summed over the ranks, and N is that of all of them: however the rows are shared out, every label
     * weighs the same. */
    double share = 1.0 / (double)d->all_labels;
    batch->ce_scale = (float)share;
    batch->lm_z_scale = (float)(share * (double)t->opt.lm_z_weight);
    return draw_pools(t, step, batch, err);
}
