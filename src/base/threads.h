/* SPDX-License-Identifier: Apache-2.0 */
/* The library's own pool of workers. Workers spin briefly, then park on a condition variable. The caller works along,
 * and waits for tasks that others have taken, never for a worker that has none. */
#ifndef EMO_SRC_BASE_THREADS_H
#define EMO_SRC_BASE_THREADS_H

#include <pthread.h>

#include "base/memory.h"

typedef struct emo__threads emo__threads;

/* `workers` counts the calling thread: workers - 1 threads are started. */
EMO_MUST_CHECK emo_status emo__threads_create(const emo__mem *mem, size_t workers, emo__threads **out, emo_error *err);
void emo__threads_destroy(emo__threads *pool);

/* Runs fn(task, i, worker) for all i < count; returns when all are done. Indices are handed out in order, one at a
 * time, so that uneven work balances. Calls from several threads at once take turns. In a child of fork() the calling
 * thread does all of it. */
void emo__threads_for(emo__threads *pool, size_t count, emo_task_fn fn, void *task);

/* pthread_create() with all signals blocked in the new thread, so that none is ever delivered to it. Returns errno. */
int emo__thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* CPUs this process may use, at least 1. */
size_t emo__cpu_count(void);

#endif
