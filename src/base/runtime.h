/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime object as the inside sees it: memory, log, workers, back ends. */
#ifndef EMO_SRC_BASE_RUNTIME_H
#define EMO_SRC_BASE_RUNTIME_H

#include <emo/runtime.h>

#include "base/memory.h"
#include "base/refcount.h"
#include "base/threads.h"

struct emo_backend;
struct emo__registry;

struct emo_runtime {
    emo__ref ref;
    emo__mem mem;
    emo_log_sink log;
    emo_executor executor;          /* the host's, or one that calls `threads` */
    emo__threads *threads;          /* NULL when the host supplies the executor */
    emo_isa isa;                    /* resolved level, never EMO_ISA_AUTO */
    struct emo_backend *cpu;        /* owned; the CPU back end is always there */
    struct emo__registry *registry; /* owned; the CPU and the devices of plug-ins */
    char *libraries;                /* the option; NULL: not given */
};

static inline emo_runtime *emo__runtime_retain(emo_runtime *rt) {
    emo__ref_get(&rt->ref);
    return rt;
}

/* Runs fn(task, i, worker) for i < count on the runtime's workers; worker < emo_runtime_threads(rt). */
static inline void emo__parallel_for(const emo_runtime *rt, size_t count, emo_task_fn fn, void *task) {
    if (count == 1)
        fn(task, 0, 0);
    else if (count > 1)
        rt->executor.parallel_for(rt->executor.ctx, count, fn, task);
}

/* Formats and hands a message to the log sink, when its level asks for it. */
void emo__log(const emo_runtime *rt, emo_log_level level, const char *fmt, ...) EMO_PRINTF(3, 4);

#endif
