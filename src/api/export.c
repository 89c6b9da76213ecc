/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/export.h>

#include "base/options.h"
#include "base/status.h"
#include "model/access.h"
#include "model/files.h"
#include "model/gguf.h"
#include "subset/prune.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

static emo_status check_options(const emo_export_options *o, emo_error *err) {
    if (o->format != EMO_EXPORT_GGUF)
        return emo__fail(err, EMO_E_RANGE, "emo_export_options.format is %d; it must be EMO_EXPORT_GGUF",
                         (int)o->format);
    const struct {
        const char *name;
        emo_dtype dtype;
    } types[] = {{"dtype", o->dtype},
                 {"head", o->head},
                 {"embedding", o->embedding},
                 {"attention", o->attention},
                 {"shared", o->shared}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].dtype != -1 && !emo__dtype_float(types[i].dtype) && !emo__dtype_quantised(types[i].dtype))
            return emo__fail(err, EMO_E_RANGE,
                             "emo_export_options.%s is %d; it must be -1, F32, F16, BF16, Q8_0, Q4_0 or Q4_K",
                             types[i].name, (int)types[i].dtype);
    return emo__option_flag(o->no_tokenizer, "emo_export_options.no_tokenizer", err);
}

static emo_status export_model(const emo_model *model, const char *path, const emo_export_options *o,
                               emo_export_info *info, emo_error *err) {
    emo_status status = emo__model_need_all(model, "exporting", err);
    if (status != EMO_OK)
        return status;
    /* A mask, or what was loaded: the pruned model of it, its weights borrowed. */
    if (o->mask == NULL && model->subset == NULL)
        return emo__model_export_gguf(model, path, o, info, err);
    emo__keep_lists keep;
    emo_model *small = NULL;
    status = emo__keep_from_mask(model, o->mask, &keep, err);
    if (status == EMO_OK)
        status = emo__prune(model, &keep, "mask", true, NULL, &small, err);
    if (status == EMO_OK)
        status = emo__model_export_gguf(small, path, o, info, err);
    emo_model_release(small);
    emo__keep_free(&keep);
    return status;
}

emo_status emo_model_export(const emo_model *model, const char *path, const emo_export_options *options,
                            emo_export_info *info, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || path == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", model == NULL ? "model" : "path");
    emo_export_options o = EMO_EXPORT_OPTIONS_INIT;
    emo_export_info full = EMO_EXPORT_INFO_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_export_options", err);
    if (status == EMO_OK)
        status = check_options(&o, err);
    if (status == EMO_OK && info != NULL)
        status = emo__info_check(info, "emo_export_info", err);
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = export_model(model, path, &o, &full, err);
    emo__model_end_read(model);
    if (status == EMO_OK && info != NULL)
        emo__info_give(info, &full, sizeof full);
    return status;
}
