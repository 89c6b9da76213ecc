/* SPDX-License-Identifier: Apache-2.0 */
#include "base/runtime.h"

#include <string.h>

#include "backend/registry.h"
#include "base/options.h"
#include "base/status.h"
#include "cpu/cpu.h"

#define MAX_THREADS 1024

static void own_parallel_for(void *ctx, size_t count, emo_task_fn fn, void *task) {
    emo__threads_for(ctx, count, fn, task);
}

static void destroy(emo_runtime *rt) {
    emo__registry_destroy(rt, rt->registry);
    if (rt->cpu != NULL)
        rt->cpu->ops->destroy(rt->cpu);
    emo__threads_destroy(rt->threads);
    emo__free(&rt->mem, rt->libraries);
    emo__mem mem = rt->mem; /* the block itself is freed through a copy of its hooks */
    emo__free(&mem, rt);
}

static emo_status check(const emo_runtime_options *options, emo_error *err) {
    if (options->threads < 0 || options->threads > MAX_THREADS)
        return emo__fail(err, EMO_E_RANGE, "threads is %d; it must be 1 to %d, or 0 for the CPUs of the process",
                         (int)options->threads, MAX_THREADS);
    emo_status status = emo__options_reserved(options->reserved, "emo_runtime_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(options->log.reserved, "emo_log_sink", err);
    if (status != EMO_OK)
        return status;
    if (options->log.level < EMO_LOG_ERROR || options->log.level > EMO_LOG_DEBUG)
        return emo__fail(err, EMO_E_RANGE, "log.level is %d; it must be one of EMO_LOG_*", (int)options->log.level);
    if (options->isa != EMO_ISA_AUTO) {
        if (emo_isa_name(options->isa) == NULL)
            return emo__fail(err, EMO_E_RANGE, "isa is %d, which is no instruction-set level", (int)options->isa);
        if (!emo__cpu_has_isa(options->isa))
            return emo__fail(err, EMO_E_UNSUPPORTED, "isa %s: this machine has %s at best", emo_isa_name(options->isa),
                             emo_isa_name(emo__cpu_best_isa()));
    }
    if (options->libraries != NULL && options->libraries[0] != '/')
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "libraries is '%s'; it must be the absolute path of a folder",
                         options->libraries);
    if ((options->allocator.alloc == NULL) != (options->allocator.free == NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "allocator needs both alloc and free, or neither");
    if (options->executor.parallel_for != NULL &&
        (options->executor.concurrency < 1 || options->executor.concurrency > MAX_THREADS))
        return emo__fail(err, EMO_E_RANGE, "executor.concurrency is %zu; it must be 1 to %d",
                         options->executor.concurrency, MAX_THREADS);
    return EMO_OK;
}

emo_status emo_runtime_create(const emo_runtime_options *options, emo_runtime **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    emo_runtime_options opt = EMO_RUNTIME_OPTIONS_INIT;
    emo_status status = emo__options_copy(&opt, sizeof opt, options, "emo_runtime_options", err);
    if (status == EMO_OK)
        status = check(&opt, err);
    if (status != EMO_OK)
        return status;

    emo__mem mem;
    emo__mem_init(&mem, &opt.allocator);
    emo_runtime *rt = emo__calloc(&mem, 1, sizeof *rt);
    if (rt == NULL)
        return emo__fail_memory(err, sizeof *rt);
    emo__ref_init(&rt->ref);
    rt->mem = mem;
    rt->log = opt.log;
    rt->isa = opt.isa == EMO_ISA_AUTO ? emo__cpu_best_isa() : opt.isa;
    if (opt.executor.parallel_for != NULL) {
        rt->executor = opt.executor;
    } else {
        size_t workers = opt.threads > 0 ? (size_t)opt.threads : emo__cpu_count();
        if (workers > MAX_THREADS)
            workers = MAX_THREADS;
        status = emo__threads_create(&rt->mem, workers, &rt->threads, err);
        rt->executor.ctx = rt->threads;
        rt->executor.concurrency = workers;
        rt->executor.parallel_for = own_parallel_for;
    }
    if (status == EMO_OK && opt.libraries != NULL) {
        rt->libraries = emo__strdup(&rt->mem, opt.libraries);
        status = rt->libraries != NULL ? EMO_OK : emo__fail_memory(err, strlen(opt.libraries) + 1);
    }
    if (status == EMO_OK)
        status = emo__cpu_backend_create(rt, &rt->cpu, err);
    if (status == EMO_OK)
        status = emo__registry_create(rt, rt->cpu, &rt->registry, err);
    if (status != EMO_OK) {
        destroy(rt);
        return status;
    }
    *out = rt;
    return EMO_OK;
}

void emo_runtime_release(emo_runtime *runtime) {
    if (runtime != NULL && emo__ref_put(&runtime->ref))
        destroy(runtime);
}

int32_t emo_runtime_threads(const emo_runtime *runtime) {
    return runtime != NULL ? (int32_t)runtime->executor.concurrency : 0;
}

emo_isa emo_runtime_isa(const emo_runtime *runtime) { return runtime != NULL ? runtime->isa : EMO_ISA_AUTO; }
