/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "base/options.h"
#include "base/status.h"
#include "infer/session.h"

/* `of` names the struct of a field. */
static emo_status check_range(const char *of, const char *field, int64_t value, int64_t low, int64_t high,
                              emo_error *err) {
    return value >= low && value <= high ? EMO_OK
                                         : emo__fail(err, EMO_E_RANGE, "%s.%s is %lld; it must be in [%lld, %lld]", of,
                                                     field, (long long)value, (long long)low, (long long)high);
}

static emo_status check_float(const char *of, const char *field, float value, bool good, const char *want,
                              emo_error *err) {
    return good ? EMO_OK : emo__fail(err, EMO_E_RANGE, "%s.%s is %g; it must be %s", of, field, (double)value, want);
}

/* What sessions and sequences both have. */
static emo_status check_sampling(const char *of, const emo_sequence_options *o, emo_error *err) {
    emo_status status;
    EMO_TRY(status = check_range(of, "max_tokens", o->max_tokens, -1, INT32_MAX, err));
    EMO_TRY(status = check_float(of, "temperature", o->temperature, isfinite(o->temperature) && o->temperature >= 0.0f,
                                 "0 (greedy) or a positive number", err));
    EMO_TRY(status = check_float(of, "top_p", o->top_p, o->top_p > 0.0f && o->top_p <= 1.0f, "in (0, 1]", err));
    EMO_TRY(status = check_float(of, "min_p", o->min_p, o->min_p >= 0.0f && o->min_p <= 1.0f, "in [0, 1]", err));
    EMO_TRY(status =
                check_float(of, "repetition_penalty", o->repetition_penalty,
                            isfinite(o->repetition_penalty) && o->repetition_penalty > 0.0f, "a positive number", err));
    EMO_TRY(status = check_range(of, "top_k", o->top_k, 0, INT32_MAX, err));
    EMO_TRY(status = check_range(of, "repetition_window", o->repetition_window, 0, INT32_MAX, err));
    EMO_TRY(status = check_range(of, "ignore_eos", o->ignore_eos, 0, 1, err));
    status = emo__options_reserved(o->reserved, of, err);
done:
    return status;
}

emo_status emo__sequence_check(const emo_sequence_options *o, emo_error *err) {
    return check_sampling("emo_sequence_options", o, err);
}

static emo_status check_batches(const char *of, const emo_session_options *o, emo_error *err) {
    emo_status status;
    EMO_TRY(status = check_range(of, "batch_sequences", o->batch_sequences, 0, 1024, err));
    EMO_TRY(status = check_range(of, "batch_tokens", o->batch_tokens, 1, 65536, err));
    EMO_TRY(status = check_range(of, "batching", o->batching, EMO_BATCHING_ARRIVAL, EMO_BATCHING_POOL, err));
    EMO_TRY(status = check_range(of, "max_wait", o->max_wait, 1, 1 << 20, err));
    EMO_TRY(status = check_range(of, "page_tokens", o->page_tokens, 1, 4096, err));
    EMO_TRY(status = check_range(of, "share_prefix", o->share_prefix, 0, 1, err));
    EMO_TRY(status = check_range(of, "count_experts", o->count_experts, 0, 1, err));
    EMO_TRY(status = check_range(of, "no_graph", o->no_graph, 0, 1, err));
    if ((o->page_tokens & (o->page_tokens - 1)) != 0)
        status =
            emo__fail(err, EMO_E_RANGE, "%s.page_tokens is %d; it must be a power of two", of, (int)o->page_tokens);
done:
    return status;
}

emo_status emo__session_check(const emo_model *model, const emo_session_options *o, emo_error *err) {
    static const char of[] = "emo_session_options";
    emo_sequence_options each = EMO_SEQUENCE_OPTIONS_INIT;
    emo_status status;
    emo__sequence_defaults(o, &each);
    EMO_TRY(status = check_range(of, "sequences", o->sequences, 1, 1024, err));
    EMO_TRY(status = check_range(of, "capacity", o->capacity, 0, model->config.max_positions, err));
    EMO_TRY(status = check_range(of, "prepend_eos", o->prepend_eos, 0, 1, err));
    if (o->pool != NULL && emo_pool_policy_kind(o->pool) != EMO_POOL_NONE &&
        emo_pool_policy_scope(o->pool) != EMO_POOL_SCOPE_PROMPT)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "emo_session_options.pool does not have the scope EMO_POOL_SCOPE_PROMPT: in a session the "
                         "prompt chooses the pool");
    EMO_TRY(status = check_sampling(of, &each, err));
    status = check_batches(of, o, err);
done:
    return status;
}

void emo__sequence_defaults(const emo_session_options *o, emo_sequence_options *each) {
    each->max_tokens = o->max_tokens;
    each->temperature = o->temperature;
    each->top_k = o->top_k;
    each->top_p = o->top_p;
    each->min_p = o->min_p;
    each->repetition_penalty = o->repetition_penalty;
    each->repetition_window = o->repetition_window;
    each->seed = o->seed;
    each->ignore_eos = o->ignore_eos;
}
