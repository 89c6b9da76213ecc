/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/select.h>
#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "model/files.h"
#include "subset/select.h"

static emo_status missing(emo_error *err, const char *what) {
    return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", what);
}

static emo_status check_options(const emo_select_options *options, emo_select_options *o, emo_error *err) {
    emo_status status = emo__options_copy(o, sizeof *o, options, "emo_select_options", err);
    if (status != EMO_OK)
        return status;
    if (o->method < EMO_SELECT_USAGE || o->method > EMO_SELECT_RANDOM)
        return emo__fail(err, EMO_E_RANGE, "emo_select_options.method is %d; it must be one of EMO_SELECT_*",
                         (int)o->method);
    if (o->keep_shared < -1)
        return emo__fail(err, EMO_E_RANGE, "emo_select_options.keep_shared is %d; -1 means all", (int)o->keep_shared);
    if (o->keep < 1)
        return emo__fail(err, EMO_E_RANGE, "emo_select_options.keep is %d; it must be at least 1", (int)o->keep);
    if (o->seq_len < 0)
        return emo__fail(err, EMO_E_RANGE, "emo_select_options.seq_len is %d; 0 means whole documents",
                         (int)o->seq_len);
    return emo__option_flag(o->prepend_eos, "emo_select_options.prepend_eos", err);
}

emo_status emo_select(emo_model *model, const emo_dataset *calibration, const emo_select_options *options,
                      emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (model == NULL)
        return missing(err, "model");
    emo_select_options o = EMO_SELECT_OPTIONS_INIT;
    emo__keep_lists keep = {0};
    emo_status status = check_options(options, &o, err);
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__select(model, calibration, &o, &keep, err);
    if (status == EMO_OK)
        status = emo__keep_to_mask(model, &keep, out, err);
    emo__keep_free(&keep);
    emo__model_end_read(model);
    return status;
}

emo_status emo_select_experts(emo_model *model, const emo_dataset *calibration, const emo_select_options *options,
                              int32_t *ids, size_t capacity, size_t *count, int32_t *offsets, emo_error *err) {
    emo__error_clear(err);
    if (count != NULL)
        *count = 0;
    if (model == NULL || offsets == NULL || (ids == NULL && capacity > 0))
        return missing(err, model == NULL ? "model" : offsets == NULL ? "offsets" : "ids");
    emo_select_options o = EMO_SELECT_OPTIONS_INIT;
    emo__keep_lists keep = {0};
    emo_status status = check_options(options, &o, err);
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = capacity == 0 ? emo__select_begin(model, &o, &keep, err) : emo__select(model, calibration, &o, &keep, err);
    if (status == EMO_OK) {
        size_t n = (size_t)keep.offsets[keep.layers];
        memcpy(offsets, keep.offsets, ((size_t)keep.layers + 1) * sizeof *offsets);
        if (count != NULL)
            *count = n;
        if (capacity > 0 && capacity < n)
            status = emo__fail(err, EMO_E_LIMIT, "%zu ids; the buffer has room for %zu", n, capacity);
        else if (capacity > 0)
            memcpy(ids, keep.ids, n * sizeof *ids);
    }
    emo__keep_free(&keep);
    emo__model_end_read(model);
    return status;
}

emo_status emo_select_from_stats(const emo_model *model, const emo_stats *stats, const emo_select_options *options,
                                 emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return missing(err, "out");
    *out = NULL;
    if (model == NULL || stats == NULL)
        return missing(err, model == NULL ? "model" : "stats");
    emo_select_options o = EMO_SELECT_OPTIONS_INIT;
    emo__keep_lists keep = {0};
    emo_status status = check_options(options, &o, err);
    if (status == EMO_OK && o.method != EMO_SELECT_USAGE && o.method != EMO_SELECT_EASY_EP)
        status = emo__fail(err, EMO_E_INVALID_ARGUMENT,
                           "statistics serve EMO_SELECT_USAGE and EMO_SELECT_EASY_EP; use emo_select() for the others");
    if (status == EMO_OK)
        status = emo__model_begin_read(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__select_from_stats(model, stats, &o, &keep, err);
    if (status == EMO_OK)
        status = emo__keep_to_mask(model, &keep, out, err);
    emo__keep_free(&keep);
    emo__model_end_read(model);
    return status;
}
