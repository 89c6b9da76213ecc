/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench.h"

#include "base/options.h"
#include "base/status.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

static emo_status check_shape(const emo_bench_options *o, emo_error *err) {
    const struct {
        const char *name;
        int64_t value, least, most;
    } fields[] = {
        {"experts", o->experts, 2, EMO__BENCH_EXPERTS},
        {"top_k", o->top_k, 2, o->experts},
        {"heads", o->heads, 1, 1024},
        {"tokens", o->tokens, 1, 1 << 20},
        {"hidden", o->hidden, 1, 1 << 16},
        {"inner", o->inner, 1, 1 << 18},
        {"vocab", o->vocab, 1, 1 << 20},
        {"document", o->document, 0, 1 << 20},
        {"past", o->past, 0, 1 << 20},
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (fields[i].value < fields[i].least || fields[i].value > fields[i].most)
            return emo__fail(err, EMO_E_RANGE, "emo_bench_options.%s is %lld; it must be from %lld to %lld",
                             fields[i].name, (long long)fields[i].value, (long long)fields[i].least,
                             (long long)fields[i].most);
    if (o->hidden % o->heads != 0 || o->hidden / o->heads % 2 != 0)
        return emo__fail(err, EMO_E_RANGE,
                         "emo_bench_options.heads is %d, which does not divide hidden %lld into an even number",
                         (int)o->heads, (long long)o->hidden);
    if (o->past > 0 && (o->backward || o->kind != EMO_BENCH_ATTENTION))
        return emo__fail(err, EMO_E_RANGE, "emo_bench_options.past is for attention, forward");
    return EMO_OK;
}

static bool has_backward(emo_bench_kind kind) {
    return kind >= EMO_BENCH_EMBED && kind != EMO_BENCH_ROPE && kind != EMO_BENCH_PLAN &&
           kind != EMO_BENCH_HEAD_LOGITS && kind != EMO_BENCH_ADAMW && kind != EMO_BENCH_SUMSQ;
}

static emo_status check_options(const emo_bench_options *o, emo_error *err) {
    int64_t block = emo__dtype_block(o->weights);
    if (!((o->kind >= EMO_BENCH_READ && o->kind <= EMO_BENCH_PEAK_INT8) ||
          (o->kind >= EMO_BENCH_EMBED && o->kind <= EMO_BENCH_SUMSQ)))
        return emo__fail(err, EMO_E_RANGE, "emo_bench_options.kind is %d, which is none", (int)o->kind);
    if (!emo__dtype_float(o->weights) && block <= 1)
        return emo__fail(err, EMO_E_RANGE, "emo_bench_options.weights is %d; it must be a type of weights",
                         (int)o->weights);
    if (o->compute != EMO_DTYPE_F32 && o->compute != EMO_DTYPE_BF16)
        return emo__fail(err, EMO_E_RANGE, "emo_bench_options.compute is %d; it must be F32 or BF16", (int)o->compute);
    if (o->backward != 0 && !(o->backward == 1 && has_backward(o->kind)))
        return emo__fail(err, EMO_E_RANGE, "emo_bench_options.backward is %d; this operator has 0%s", (int)o->backward,
                         has_backward(o->kind) ? " and 1" : "");
    if (o->backward && block > 1)
        return emo__fail(err, EMO_E_UNSUPPORTED, "quantised weights have no backward pass");
    if (o->bytes < 1 || o->bytes > (uint64_t)1 << 40 || o->bytes % (4 << 20) != 0)
        return emo__fail(err, EMO_E_RANGE, "emo_bench_options.bytes must be a multiple of 4 MiB up to 1 TiB");
    emo_status status = check_shape(o, err);
    if (status == EMO_OK && (o->hidden % block != 0 || (o->kind == EMO_BENCH_EXPERTS && o->inner % block != 0)))
        return emo__fail(err, EMO_E_RANGE, "rows of %lld or %lld are no whole blocks of %s", (long long)o->hidden,
                         (long long)o->inner, emo_dtype_name(o->weights));
    return status;
}

emo_status emo_bench_create(emo_runtime *runtime, const emo_bench_options *options, emo_bench **out, emo_error *err) {
    emo__error_clear(err);
    if (out != NULL)
        *out = NULL;
    if (runtime == NULL || out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "out");
    emo_bench_options o = EMO_BENCH_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_bench_options", err);
    if (status == EMO_OK)
        status = check_options(&o, err);
    return status == EMO_OK ? emo__bench_create(runtime, &o, out, err) : status;
}

void emo_bench_release(emo_bench *bench) {
    if (bench != NULL)
        emo__bench_destroy(bench);
}

void emo_bench_work(const emo_bench *bench, double *operations, double *bytes) {
    if (operations != NULL)
        *operations = bench != NULL ? bench->operations : 0.0;
    if (bytes != NULL)
        *bytes = bench != NULL ? bench->bytes : 0.0;
}

emo_status emo_bench_run(emo_bench *bench, int32_t calls, double *seconds, emo_error *err) {
    emo__error_clear(err);
    if (seconds != NULL)
        *seconds = 0.0;
    if (bench == NULL || seconds == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", bench == NULL ? "bench" : "seconds");
    if (calls < 1)
        return emo__fail(err, EMO_E_RANGE, "calls is %d; it must be 1 or more", (int)calls);
    if (!emo__guard_try_write(&bench->guard))
        return emo__fail(err, EMO_E_BUSY, "another thread uses this bench");
    emo_status status = emo__bench_run(bench, calls, seconds, err);
    emo__guard_end_write(&bench->guard);
    return status;
}
