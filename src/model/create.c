/* SPDX-License-Identifier: Apache-2.0 */
/* New models, and what making and loading share: guards, the tokenizer, the tensors by name. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/files.h"
#include "text/vocab.h"

/* The guard is no part of what const promises. */
static emo__guard *guard_of(const emo_model *model) { return (emo__guard *)(uintptr_t)&model->guard; }

emo_status emo__model_begin_read(const emo_model *model, emo_error *err) {
    if (!emo__guard_try_read(guard_of(model)))
        return emo__fail(err, EMO_E_BUSY, "the model is being changed by another thread");
    return EMO_OK;
}

void emo__model_end_read(const emo_model *model) { emo__guard_end_read(guard_of(model)); }

emo_status emo__model_begin_write(emo_model *model, emo_error *err) {
    if (!emo__guard_try_write(&model->guard))
        return emo__fail(err, EMO_E_BUSY, "the model is in use by another thread");
    return EMO_OK;
}

void emo__model_end_write(emo_model *model) { emo__guard_end_write(&model->guard); }

emo_status emo__model_create(emo_runtime *rt, const char *config, size_t length, uint64_t seed,
                             const emo_progress *progress, emo_model **out, emo_error *err) {
    *out = NULL;
    emo__config c;
    emo_model *model = NULL;
    emo_status status = emo__config_parse(&rt->mem, config, length, &c, err);
    if (status != EMO_OK)
        emo__config_free(&c);
    else
        status = emo__model_new(rt, &c, &model, err);
    if (status == EMO_OK)
        status = emo__model_init_weights(model, seed, progress, err);
    if (status == EMO_OK)
        *out = model;
    else
        emo_model_release(model);
    return status;
}

emo_status emo__model_set_tokenizer(emo_model *model, emo_tokenizer *tokenizer, emo_error *err) {
    if (tokenizer != NULL) {
        if (emo_tokenizer_vocab_size(tokenizer) > model->config.vocab)
            return emo__fail(err, EMO_E_MISMATCH, "the tokenizer has ids up to %d; the model's vocab_size is %d",
                             (int)emo_tokenizer_vocab_size(tokenizer) - 1, (int)model->config.vocab);
        emo__ref_get(&tokenizer->ref);
    }
    emo_tokenizer_release(model->tokenizer);
    model->tokenizer = tokenizer;
    return EMO_OK;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const emo__named_param *)a)->name, ((const emo__named_param *)b)->name);
}

emo_status emo__model_sorted(const emo_model *model, emo__named_param **out, emo_error *err) {
    emo__named_param *list = emo__malloc_array(&model->rt->mem, model->n_params, sizeof *list);
    *out = list;
    if (list == NULL)
        return emo__fail_memory(err, model->n_params * sizeof *list);
    for (size_t i = 0; i < model->n_params; i++) {
        list[i].param = &model->params[i];
        emo__param_name(list[i].param, list[i].name);
    }
    qsort(list, model->n_params, sizeof *list, by_name);
    return EMO_OK;
}

const emo__param *emo__model_find(const emo_model *model, const char *name) {
    char buf[EMO__NAME_MAX];
    for (size_t i = 0; i < model->n_params; i++) {
        emo__param_name(&model->params[i], buf);
        if (strcmp(buf, name) == 0)
            return &model->params[i];
    }
    return NULL;
}
