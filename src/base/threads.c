/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "base/threads.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "base/status.h"

/* How long a worker looks for new work before it parks. Steps follow each other within microseconds, so a short
 * spin saves a wake-up; a longer one would take the core from a neighbour. */
#define SPIN_ROUNDS 2000

typedef struct worker_arg {
    struct emo__threads *pool;
    size_t index;
} worker_arg;

struct emo__threads {
    const emo__mem *mem;
    pid_t owner; /* the process the workers are in: a child of fork() has the pool without them */
    size_t workers;
    size_t started;
    pthread_t *threads;
    worker_arg *args;
    pthread_mutex_t turn; /* one parallel loop at a time */
    pthread_mutex_t lock; /* guards the fields below */
    pthread_cond_t wake;
    pthread_cond_t idle;
    size_t parked;
    bool stop;
    /* The job. fn is NULL between jobs; a worker enters and the owner closes under `lock`, so that no worker ever
     * reads a job that is over. */
    atomic_uint_fast64_t generation;
    atomic_uint_fast64_t ticket; /* next index to hand out */
    atomic_size_t inside;        /* workers that may still read the job */
    emo_task_fn fn;
    void *task;
    size_t count;
};

size_t emo__cpu_count(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        int n = CPU_COUNT(&set);
        if (n > 0)
            return (size_t)n;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (size_t)n : 1;
}

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

static void run_indices(emo__threads *pool, size_t worker) {
    emo_task_fn fn = pool->fn;
    void *task = pool->task;
    size_t count = pool->count;
    for (;;) {
        uint64_t index = atomic_fetch_add_explicit(&pool->ticket, 1, memory_order_acq_rel);
        if (index >= count)
            return;
        fn(task, (size_t)index, worker);
    }
}

static void *worker_main(void *opaque) {
    worker_arg *arg = opaque;
    emo__threads *pool = arg->pool;
    uint64_t seen = 0;
    for (;;) {
        uint64_t now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        for (int i = 0; i < SPIN_ROUNDS && now == seen; i++) {
            relax();
            now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        }
        (void)pthread_mutex_lock(&pool->lock);
        while (!pool->stop && atomic_load(&pool->generation) == seen) {
            pool->parked++;
            (void)pthread_cond_wait(&pool->wake, &pool->lock);
            pool->parked--;
        }
        bool stop = pool->stop;
        seen = atomic_load(&pool->generation);
        /* Enter the job under the lock: the owner closes it under the same lock once it is drained. */
        bool open = !stop && pool->fn != NULL;
        if (open)
            atomic_fetch_add(&pool->inside, 1);
        (void)pthread_mutex_unlock(&pool->lock);
        if (stop)
            return NULL;
        if (open) {
            run_indices(pool, arg->index);
            (void)pthread_mutex_lock(&pool->lock);
            if (atomic_fetch_sub(&pool->inside, 1) == 1)
                (void)pthread_cond_signal(&pool->idle);
            (void)pthread_mutex_unlock(&pool->lock);
        }
    }
}

/* In a child of fork() there are no workers, and the locks are as whoever held them left them: the child's one thread
 * does the work and touches none. Asking the system each time costs less than a wake-up. */
static bool is_orphaned(const emo__threads *pool) { return getpid() != pool->owner; }

void emo__threads_for(emo__threads *pool, size_t count, emo_task_fn fn, void *task) {
    if (count == 0)
        return;
    if (is_orphaned(pool)) {
        for (size_t i = 0; i < count; i++)
            fn(task, i, 0);
        return;
    }
    (void)pthread_mutex_lock(&pool->turn);
    if (count == 1 || pool->started == 0) {
        for (size_t i = 0; i < count; i++)
            fn(task, i, 0);
        (void)pthread_mutex_unlock(&pool->turn);
        return;
    }
    (void)pthread_mutex_lock(&pool->lock);
    pool->fn = fn;
    pool->task = task;
    pool->count = count;
    atomic_store(&pool->ticket, 0);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    if (pool->parked > 0)
        (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);

    run_indices(pool, 0);

    for (int i = 0; i < SPIN_ROUNDS && atomic_load(&pool->inside) > 0; i++)
        relax();
    (void)pthread_mutex_lock(&pool->lock);
    while (atomic_load(&pool->inside) > 0)
        (void)pthread_cond_wait(&pool->idle, &pool->lock);
    pool->fn = NULL;
    (void)pthread_mutex_unlock(&pool->lock);
    (void)pthread_mutex_unlock(&pool->turn);
}

/* The host's signals are the host's. */
int emo__thread_start(pthread_t *thread, void *(*run)(void *), void *arg) {
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    int rc = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (rc != 0)
        return rc;
    rc = pthread_create(thread, NULL, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

emo_status emo__threads_create(const emo__mem *mem, size_t workers, emo__threads **out, emo_error *err) {
    *out = NULL;
    emo__threads *pool = emo__calloc(mem, 1, sizeof *pool);
    if (pool == NULL)
        return emo__fail_memory(err, sizeof *pool);
    pool->mem = mem;
    pool->owner = getpid();
    pool->workers = workers < 1 ? 1 : workers;
    (void)pthread_mutex_init(&pool->turn, NULL);
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
    (void)pthread_cond_init(&pool->idle, NULL);
    atomic_init(&pool->generation, 0);
    atomic_init(&pool->ticket, 0);
    atomic_init(&pool->inside, 0);
    if (pool->workers > 1) {
        pool->threads = emo__calloc(mem, pool->workers - 1, sizeof *pool->threads);
        pool->args = emo__calloc(mem, pool->workers - 1, sizeof *pool->args);
        if (pool->threads == NULL || pool->args == NULL) {
            emo__threads_destroy(pool);
            return emo__fail_memory(err, workers * sizeof *pool->args);
        }
    }
    for (size_t i = 0; i + 1 < pool->workers; i++) {
        pool->args[i].pool = pool;
        pool->args[i].index = i + 1;
        int rc = emo__thread_start(&pool->threads[i], worker_main, &pool->args[i]);
        if (rc != 0) {
            emo__threads_destroy(pool);
            return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_SYSTEM, rc, "thread %zu of %zu could not be started",
                                i + 1, workers);
        }
        pool->started++;
    }
    *out = pool;
    return EMO_OK;
}

void emo__threads_destroy(emo__threads *pool) {
    if (pool == NULL)
        return;
    if (!is_orphaned(pool)) { /* else there is nobody to wait for, and destroying a condition would wait for ever */
        (void)pthread_mutex_lock(&pool->lock);
        pool->stop = true;
        (void)pthread_cond_broadcast(&pool->wake);
        (void)pthread_mutex_unlock(&pool->lock);
        for (size_t i = 0; i < pool->started; i++)
            (void)pthread_join(pool->threads[i], NULL);
        (void)pthread_cond_destroy(&pool->idle);
        (void)pthread_cond_destroy(&pool->wake);
        (void)pthread_mutex_destroy(&pool->lock);
        (void)pthread_mutex_destroy(&pool->turn);
    }
    const emo__mem *mem = pool->mem;
    emo__free(mem, pool->threads);
    emo__free(mem, pool->args);
    emo__free(mem, pool);
}
