/* SPDX-License-Identifier: Apache-2.0 */
/* A tuned subset gives its experts back to the model it was taken from. */
#include <string.h>

#include "base/status.h"
#include "model/access.h"
#include "model/files.h"
#include "subset/prune.h"
#include "tensor/dtype.h"

typedef struct merger {
    emo_model *to; /* a copy of the parent, where the parent is */
    const emo_model *child;
    emo__access into, from; /* the weights of both */
    float a;
    float *row; /* scratch [2, widest row] */
    int64_t widest;
} merger;

/* Where the child's expert e of a layer lies in the parent, -1: nowhere. */
static int32_t parent_place(const emo__layer_config *parent, const emo__layer_config *child, int32_t e) {
    int32_t id = child->original != NULL ? child->original[e] : e;
    if (parent->original == NULL)
        return id < parent->experts ? id : -1;
    for (int32_t i = 0; i < parent->experts; i++) {
        if (parent->original[i] == id)
            return i;
    }
    return -1;
}

static emo_status check_field(int64_t parent, int64_t child, const char *name, emo_error *err) {
    if (parent == child)
        return EMO_OK;
    return emo__fail(err, EMO_E_MISMATCH, "%s: the parent has %lld, the child %lld", name, (long long)parent,
                     (long long)child);
}

static emo_status check_layer(const emo__config *p, const emo__config *c, int32_t l, emo_error *err) {
    const emo__layer_config *parent = &p->layer[l];
    const emo__layer_config *child = &c->layer[l];
    if ((parent->experts == 0) != (child->experts == 0))
        return emo__fail(err, EMO_E_MISMATCH, "layer %d is dense in one of the models only", (int)l);
    if (child->experts > 0 && child->original == NULL && child->experts != parent->experts)
        return emo__fail(err, EMO_E_MISMATCH,
                         "layer %d: the child has %d of %d experts and no record of which; its folder lacks "
                         "pruning_metadata.json",
                         (int)l, (int)child->experts, (int)parent->experts);
    for (int32_t e = 0; e < child->experts; e++) {
        int32_t at = parent_place(parent, child, e);
        if (at < 0)
            return emo__fail(err, EMO_E_MISMATCH, "layer %d: the parent lacks expert %d of the child", (int)l,
                             (int)(child->original != NULL ? child->original[e] : e));
        bool shared = e >= child->experts - child->shared;
        if (shared != (at >= parent->experts - parent->shared))
            return emo__fail(err, EMO_E_MISMATCH, "layer %d: expert %d is shared in one of the models only", (int)l,
                             (int)at);
    }
    return EMO_OK;
}

static emo_status check_fit(const emo_model *parent, const emo_model *child, emo_error *err) {
    const emo__config *p = &parent->config;
    const emo__config *c = &child->config;
    if (parent->subset != NULL || child->subset != NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "the %s was loaded with some of its experts only",
                         parent->subset != NULL ? "parent" : "child");
    emo_status status;
    EMO_TRY(status = check_field(p->layers, c->layers, "num_hidden_layers", err));
    EMO_TRY(status = check_field(p->hidden, c->hidden, "hidden_size", err));
    EMO_TRY(status = check_field(p->inner, c->inner, "intermediate_size", err));
    for (int32_t l = 0; l < p->layers; l++)
        EMO_TRY(status = check_layer(p, c, l, err));
done:
    return status;
}

/* Row of the copy, (1 - a) parent + a child, rounded to the parent's type. */
static void merge_row(const merger *mg, void *dst, emo_dtype to, const void *src, emo_dtype from, size_t n) {
    if (mg->a < 1.0f) {
        float *mine = mg->row;
        float *theirs = mg->row + mg->widest;
        (void)emo__convert(mine, EMO_DTYPE_F32, dst, to, n);
        (void)emo__convert(theirs, EMO_DTYPE_F32, src, from, n);
        for (size_t i = 0; i < n; i++)
            mine[i] = (1.0f - mg->a) * mine[i] + mg->a * theirs[i];
        (void)emo__convert(dst, to, mine, EMO_DTYPE_F32, n);
    } else {
        (void)emo__convert(dst, to, src, from, n);
    }
}

/* Rows [to_row, to_row + n) of a view of the copy, whose rows lie close together, from the child's from `row` on. */
static emo_status merge_rows(merger *mg, const emo_weight *to, int64_t to_row, const emo_weight *from, int64_t row,
                             int64_t n, emo_error *err) {
    size_t cols = (size_t)to->cols, to_item = emo__dtype_size(to->dtype), from_item = emo__dtype_size(from->dtype);
    char *place = (char *)(uintptr_t)to->data + (size_t)to_row * cols * to_item;
    const char *theirs = (const char *)from->data + (size_t)(row * from->stride) * from_item;
    const void *mine, *read;
    emo_status status = emo__access_read(&mg->into, place, (size_t)n * cols * to_item, &mine, err);
    if (status == EMO_OK)
        status = emo__access_read(&mg->from, theirs, ((size_t)((n - 1) * from->stride) + cols) * from_item, &read, err);
    for (int64_t r = 0; status == EMO_OK && r < n; r++)
        merge_row(mg, (char *)(uintptr_t)mine + (size_t)r * cols * to_item, to->dtype,
                  (const char *)read + (size_t)(r * from->stride) * from_item, from->dtype, cols);
    if (status == EMO_OK && mine != place)
        status = emo__access_write(&mg->into, place, mine, (size_t)n * cols * to_item, err);
    return status;
}

static emo_status merge_matrix(merger *mg, const emo_weight *to, const emo_weight *from, emo_error *err) {
    return merge_rows(mg, to, 0, from, 0, to->rows, err);
}

/* The score bias of a routed expert goes with its row of the gate. */
static emo_status merge_bias(merger *mg, int32_t l, int32_t at, int32_t e, emo_error *err) {
    emo_weight to = mg->to->layers[l].w[EMO__W_SCORE_BIAS], from = mg->child->layers[l].w[EMO__W_SCORE_BIAS];
    const emo__layer_config *child = &mg->child->config.layer[l];
    if (to.data == NULL || from.data == NULL || e >= child->experts - child->shared)
        return EMO_OK;
    to.cols = from.cols = from.stride = 1;
    return merge_rows(mg, &to, at, &from, e, 1, err);
}

static emo_status merge_expert(merger *mg, const emo_expert_slot *to, const emo_expert_slot *from, emo_error *err) {
    emo_status status = merge_matrix(mg, &to->gate, &from->gate, err);
    if (status == EMO_OK)
        status = merge_matrix(mg, &to->up, &from->up, err);
    return status == EMO_OK ? merge_matrix(mg, &to->down, &from->down, err) : status;
}

static emo_status merge_layer(merger *mg, int32_t l, const emo_merge_options *options, emo_error *err) {
    const emo__layer_config *parent = &mg->to->config.layer[l];
    const emo__layer_config *child = &mg->child->config.layer[l];
    emo_status status = EMO_OK;
    for (int32_t e = 0; e < child->experts; e++) {
        int32_t at = parent_place(parent, child, e);
        if (e < child->experts - child->shared || options->shared != 0)
            EMO_TRY(status = merge_expert(mg, &mg->to->layers[l].experts[at], &mg->child->layers[l].experts[e], err));
        if (options->router != 0) {
            EMO_TRY(status = merge_rows(mg, &mg->to->layers[l].w[EMO__W_ROUTER], at,
                                        &mg->child->layers[l].w[EMO__W_ROUTER], e, 1, err));
            EMO_TRY(status = merge_bias(mg, l, at, e, err));
        }
    }
done:
    return status;
}

/* Everything outside the feed-forward blocks: attention, norms, embedding, head. */
static bool is_rest(const emo__param *p) {
    return p->expert < 0 && p->group != EMO__P_ROUTER && !(p->group == EMO__P_DENSE && p->which >= EMO__W_MLP_GATE);
}

static emo_status merge_rest(merger *mg, emo_error *err) {
    for (size_t i = 0; i < mg->to->n_params; i++) {
        const emo__param *p = &mg->to->params[i];
        if (!is_rest(p))
            continue;
        char name[EMO__NAME_MAX];
        emo__param_name(p, name);
        const emo__param *from = emo__model_find(mg->child, name);
        if (from == NULL)
            return emo__fail(err, EMO_E_MISMATCH, "the child has no tensor \"%s\"", name);
        if (from->rows != p->rows || from->cols != p->cols)
            return emo__fail(err, EMO_E_MISMATCH,
                             "tensor \"%s\" is [%lld, %lld] in the parent, [%lld, %lld] in the child", name,
                             (long long)p->rows, (long long)p->cols, (long long)from->rows, (long long)from->cols);
        emo_status status = merge_matrix(mg, p->view, from->view, err);
        if (status != EMO_OK)
            return status;
    }
    return EMO_OK;
}

/* A copy with memory of its own, on the same device. */
static emo_status copy_model(const emo_model *from, const emo_progress *progress, emo_model **out, emo_error *err) {
    emo__config c;
    emo_model *m = NULL;
    *out = NULL;
    emo_status status = emo__config_copy(&from->config, &c, err);
    if (status != EMO_OK)
        emo__config_free(&c);
    else
        status = emo__model_new(from->rt, &c, &m, err);
    if (status == EMO_OK) {
        m->backend = from->backend;
        m->compute = from->compute;
    }
    for (size_t i = 0; status == EMO_OK && i < m->n_params; i++) {
        const emo_weight *view = from->params[i].view;
        m->params[i].view->data = view->data;
        m->params[i].view->dtype = view->dtype;
        m->params[i].view->stride = view->stride;
    }
    if (status == EMO_OK)
        status = emo__model_own(m, from, NULL, progress, err);
    if (status == EMO_OK && from->prune_method != NULL) {
        m->prune_method = emo__strdup(&from->rt->mem, from->prune_method);
        if (m->prune_method == NULL)
            status = emo__fail_memory(err, strlen(from->prune_method) + 1);
    }
    if (status == EMO_OK && from->tokenizer != NULL)
        status = emo__model_set_tokenizer(m, from->tokenizer, err);
    if (status == EMO_OK)
        *out = m;
    else
        emo_model_release(m);
    return status;
}

emo_status emo__merge(const emo_model *parent, const emo_model *child, const emo_merge_options *options,
                      emo_model **out, emo_error *err) {
    *out = NULL;
    merger mg = {.child = child, .a = options->average, .widest = 1};
    const emo__mem *mem = &parent->rt->mem;
    emo_status status = check_fit(parent, child, err);
    if (status == EMO_OK)
        status = emo__model_need_all(child, "merging a child", err);
    if (status == EMO_OK && emo__model_quantised(parent) != NULL)
        status = emo__fail(err, EMO_E_UNSUPPORTED,
                           "the parent's weights are quantised; merge with the model they were made from");
    if (status == EMO_OK && emo__model_quantised(child) != NULL)
        status = emo__fail(err, EMO_E_UNSUPPORTED, "the child's weights are quantised, which merging cannot use");
    if (status == EMO_OK)
        status = copy_model(parent, &options->progress, &mg.to, err);
    for (size_t i = 0; i < parent->n_params; i++)
        mg.widest = parent->params[i].cols > mg.widest ? parent->params[i].cols : mg.widest;
    if (status == EMO_OK) {
        mg.row = emo__malloc_array(mem, 2 * (size_t)mg.widest, sizeof *mg.row);
        if (mg.row == NULL)
            status = emo__fail_memory(err, 2 * (size_t)mg.widest * sizeof *mg.row);
    }
    if (status == EMO_OK)
        status = emo__access_begin(mg.to, &mg.into, err);
    if (status == EMO_OK)
        status = emo__access_begin(child, &mg.from, err);
    for (int32_t l = 0; status == EMO_OK && l < parent->config.layers; l++) {
        status = merge_layer(&mg, l, options, err);
        if (status == EMO_OK)
            status = emo__report(&options->progress, "merge", (uint64_t)l + 1, (uint64_t)parent->config.layers, err);
    }
    if (status == EMO_OK && options->rest != 0)
        status = merge_rest(&mg, err);
    emo__access_end(&mg.into); /* waits */
    emo__access_end(&mg.from);
    if (status == EMO_OK)
        status = emo__model_finish(mg.to, err);
    emo__free(mem, mg.row);
    if (status == EMO_OK)
        *out = mg.to;
    else
        emo_model_release(mg.to);
    return status;
}
