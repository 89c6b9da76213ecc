/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench.h"

#include "backend/registry.h"
#include "base/clock.h"
#include "base/status.h"

static bool is_limit(const emo_bench *bench) { return bench->o.kind < EMO_BENCH_EMBED; }

static emo_status call(emo_bench *bench, emo_error *err) {
    if (!is_limit(bench))
        return emo__bench_call_operator(bench, err);
    emo__bench_call_limit(bench);
    return EMO_OK;
}

emo_status emo__bench_create(emo_runtime *rt, const emo_bench_options *o, emo_bench **out, emo_error *err) {
    emo_bench *bench = emo__calloc(&rt->mem, 1, sizeof *bench);
    if (bench == NULL)
        return emo__fail_memory(err, sizeof *bench);
    bench->rt = emo__runtime_retain(rt);
    emo__guard_init(&bench->guard);
    bench->o = *o;
    bench->o.device = NULL; /* the caller's text */
    bench->variants = 1;
    bench->status = o->device == NULL ? EMO_OK : emo__registry_open(rt->registry, o->device, &bench->backend, err);
    if (o->device == NULL)
        bench->backend = rt->cpu;
    if (bench->status == EMO_OK && is_limit(bench) && bench->backend != rt->cpu)
        bench->status = emo__fail(err, EMO_E_UNSUPPORTED, "limits are measured on the CPU, not on %s", o->device);
    if (bench->status == EMO_OK) {
        emo_exec_options options = {.struct_size = sizeof options, .compute = o->compute};
        bench->ops = bench->backend->ops;
        bench->status = bench->ops->exec_create(bench->backend, &options, &bench->exec, err);
    }
    if (bench->status == EMO_OK && is_limit(bench))
        emo__bench_make_limit(bench, err);
    else if (bench->status == EMO_OK)
        emo__bench_make_operator(bench, err);
    emo_status status = bench->status;
    if (status == EMO_OK)
        status = call(bench, err); /* makes scratch */
    if (status == EMO_OK)
        status = bench->ops->synchronize(bench->exec, err);
    if (status == EMO_OK)
        *out = bench;
    else
        emo__bench_destroy(bench);
    return status;
}

void emo__bench_destroy(emo_bench *bench) {
    emo_runtime *rt = bench->rt;
    if (bench->slots != NULL && bench->o.kind == EMO_BENCH_EXPERTS)
        bench->ops->table_free(bench->backend, &bench->args.experts.table);
    for (int32_t i = 0; i < bench->n_blocks; i++)
        bench->ops->mem_free(bench->backend, bench->blocks[i]);
    if (bench->exec != NULL)
        bench->ops->exec_destroy(bench->exec);
    emo__free(&rt->mem, bench->slots);
    emo__free(&rt->mem, bench->segments);
    emo__free(&rt->mem, bench->random);
    emo__free(&rt->mem, bench->limit);
    emo__free(&rt->mem, bench);
    emo_runtime_release(rt);
}

emo_status emo__bench_run(emo_bench *bench, int32_t calls, double *seconds, emo_error *err) {
    emo_status status = EMO_OK;
    uint64_t begin = emo__now_ns();
    for (int32_t i = 0; status == EMO_OK && i < calls; i++)
        status = call(bench, err);
    if (status == EMO_OK)
        status = bench->ops->synchronize(bench->exec, err);
    *seconds = (double)(emo__now_ns() - begin) * 1e-9 / calls;
    return status;
}
