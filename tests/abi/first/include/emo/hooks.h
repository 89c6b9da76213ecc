/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file hooks.h
 * @brief What a host may supply: memory, log, progress and cancellation, execution of parallel work.
 *
 * Every hook is copied at the creation of the object that takes it; `ctx` must outlive that object.
 * Hooks may be called from any of the library's threads unless their text says otherwise.
 */
#ifndef EMO_HOOKS_H
#define EMO_HOOKS_H

#include <emo/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Memory. `alloc` returns NULL on failure; `free` gets the pointer, size and alignment of the allocation. */
typedef struct emo_allocator {
    void *ctx;
    void *(*alloc)(void *ctx, size_t size, size_t alignment);
    void (*free)(void *ctx, void *ptr, size_t size, size_t alignment);
} emo_allocator;

typedef int32_t emo_log_level;
enum { EMO_LOG_ERROR = 0, EMO_LOG_WARNING = 1, EMO_LOG_INFO = 2, EMO_LOG_DEBUG = 3 };

/** Log sink; the default is silent. `message` is valid during the call only. */
typedef struct emo_log_sink {
    void *ctx;
    void (*log)(void *ctx, emo_log_level level, const char *message);
    emo_log_level level; /**< messages above this level are not produced */
    int32_t reserved;    /**< 0 */
} emo_log_sink;

/** How far a long call is. */
typedef struct emo_progress_info {
    const char *phase; /**< what is going on, such as "tokenize"; static storage */
    uint64_t done;     /**< units finished */
    uint64_t total;    /**< units in all, 0 if not known */
} emo_progress_info;

/**
 * Progress and cancellation of a long call. A non-zero return cancels: the call ends with EMO_E_CANCELLED and leaves
 * every object usable. Called on the thread of the caller, at most some tens of milliseconds apart on usual work.
 */
typedef struct emo_progress {
    void *ctx;
    int32_t (*report)(void *ctx, const emo_progress_info *info);
} emo_progress;

/** One piece of parallel work. `worker` is in [0, concurrency); no two pieces run at once under one worker number. */
typedef void (*emo_task_fn)(void *task, size_t index, size_t worker);

/**
 * Parallel execution by the host. `parallel_for` runs fn(task, i, worker) for every i in [0, count) and returns when
 * all are finished; it may be called from several threads at once and must not be called from inside a task.
 */
typedef struct emo_executor {
    void *ctx;
    size_t concurrency; /**< number of workers, at least 1 */
    void (*parallel_for)(void *ctx, size_t count, emo_task_fn fn, void *task);
} emo_executor;

#ifdef __cplusplus
}
#endif
#endif
