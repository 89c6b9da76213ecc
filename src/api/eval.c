/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/eval.h>
#include <string.h>

#include "base/checked.h"
#include "base/options.h"
#include "base/status.h"
#include "infer/eval.h"
#include "model/files.h"

static emo_status missing(emo_error *err, const char *what) {
    return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", what);
}

static emo_status begin(emo_model *model, const emo_eval_options *options, emo_eval_options *o, emo_error *err) {
    emo_status status = emo__options_copy(o, sizeof *o, options, "emo_eval_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o->reserved, "emo_eval_options", err);
    if (status == EMO_OK)
        status = emo__eval_check(o, err);
    return status == EMO_OK ? emo__model_begin_read(model, err) : status;
}

emo_status emo_eval_documents(emo_model *model, const emo_dataset *documents, const emo_eval_options *options,
                              emo_eval_result *total, emo_eval_result *per_domain, emo_eval_result *per_document,
                              emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || documents == NULL)
        return missing(err, model == NULL ? "model" : "documents");
    emo_eval_result sum = {0};
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    emo_status status = begin(model, options, &o, err);
    if (status != EMO_OK)
        return status;
    if (per_domain != NULL)
        memset(per_domain, 0, (size_t)emo_dataset_domains(documents) * sizeof *per_domain);
    status = emo__eval_documents(model, documents, &o, &sum, per_domain, per_document, err);
    emo__model_end_read(model);
    if (total != NULL)
        *total = sum;
    return status;
}

emo_status emo_eval_choices(emo_model *model, const emo_choices *items, const emo_eval_options *options,
                            emo_eval_result *total, int32_t *answers, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || items == NULL)
        return missing(err, model == NULL ? "model" : "items");
    emo_eval_result sum = {0};
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    emo_status status = begin(model, options, &o, err);
    if (status != EMO_OK)
        return status;
    status = emo__eval_choices(model, items, &o, &sum, answers, err);
    emo__model_end_read(model);
    if (total != NULL)
        *total = sum;
    return status;
}

emo_status emo_eval_logits(emo_model *model, const int32_t *tokens, size_t n, const emo_eval_options *options,
                           float *out, size_t capacity, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || tokens == NULL || out == NULL)
        return missing(err, model == NULL ? "model" : tokens == NULL ? "tokens" : "out");
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    emo_status status = begin(model, options, &o, err);
    if (status != EMO_OK)
        return status;
    size_t need = 0;
    if (n == 0 || n > (size_t)model->config.max_positions)
        status =
            emo__fail(err, EMO_E_LIMIT, "%zu tokens; from 1 to %d are possible", n, (int)model->config.max_positions);
    else if (!emo__mul_size(n, (size_t)model->config.vocab, &need) || capacity < need)
        status = emo__fail(err, EMO_E_LIMIT, "the logits are %zu x %d; the buffer has %zu", n, (int)model->config.vocab,
                           capacity);
    else
        status = emo__eval_logits(model, tokens, n, &o, out, err);
    emo__model_end_read(model);
    return status;
}
