/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/status.h"
#include "infer/session.h"

static emo_status out_of_range(const char *field, int64_t value, int64_t low, int64_t high, emo_error *err) {
    return emo__fail(err, EMO_E_RANGE, "emo_session_options.%s is %lld; it must be in [%lld, %lld]", field,
                     (long long)value, (long long)low, (long long)high);
}

static emo_status check_float(const char *field, float value, bool good, const char *want, emo_error *err) {
    return good
               ? EMO_OK
               : emo__fail(err, EMO_E_RANGE, "emo_session_options.%s is %g; it must be %s", field, (double)value, want);
}

static emo_status check_sampling(const emo_model *model, const emo_session_options *o, emo_error *err) {
    emo_status status;
    (void)model;
    EMO_TRY(status = check_float("temperature", o->temperature, isfinite(o->temperature) && o->temperature >= 0.0f,
                                 "0 (greedy) or a positive number", err));
    EMO_TRY(status = check_float("top_p", o->top_p, o->top_p > 0.0f && o->top_p <= 1.0f, "in (0, 1]", err));
    EMO_TRY(status = check_float("min_p", o->min_p, o->min_p >= 0.0f && o->min_p <= 1.0f, "in [0, 1]", err));
    EMO_TRY(status =
                check_float("repetition_penalty", o->repetition_penalty,
                            isfinite(o->repetition_penalty) && o->repetition_penalty > 0.0f, "a positive number", err));
    if (o->top_k < 0)
        return out_of_range("top_k", o->top_k, 0, INT32_MAX, err);
    if (o->repetition_window < 0)
        return out_of_range("repetition_window", o->repetition_window, 0, INT32_MAX, err);
done:
    return status;
}

emo_status emo__session_check(const emo_model *model, const emo_session_options *o, emo_error *err) {
    if (o->sequences < 1 || o->sequences > 1024)
        return out_of_range("sequences", o->sequences, 1, 1024, err);
    if (o->capacity < 0 || o->capacity > model->config.max_positions)
        return out_of_range("capacity", o->capacity, 0, model->config.max_positions, err);
    if (o->max_tokens < -1)
        return out_of_range("max_tokens", o->max_tokens, -1, INT32_MAX, err);
    if (o->ignore_eos != 0 && o->ignore_eos != 1)
        return out_of_range("ignore_eos", o->ignore_eos, 0, 1, err);
    if (o->prepend_eos != 0 && o->prepend_eos != 1)
        return out_of_range("prepend_eos", o->prepend_eos, 0, 1, err);
    if (o->pool != NULL && emo_pool_policy_kind(o->pool) != EMO_POOL_NONE &&
        emo_pool_policy_scope(o->pool) != EMO_POOL_SCOPE_PROMPT)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "emo_session_options.pool does not have the scope EMO_POOL_SCOPE_PROMPT: in a session the "
                         "prompt chooses the pool");
    return check_sampling(model, o, err);
}
