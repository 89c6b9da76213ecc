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

/* How long a worker looks for new work, and the caller for the end, before they sleep. Steps follow each other within
 * microseconds, so a short spin saves a wake-up; a longer one would take the core from a neighbour, or from the very
 * worker that is waited for. */
#define SPIN_ROUNDS 2000
#define LOCK_ROUNDS 20

typedef struct worker_arg {
    struct emo__threads *pool;
    size_t index;
} worker_arg;

/* A job is tasks that are taken one by one. `ticket` holds its number and how many of its tasks nobody has taken yet. A
 * task is taken by bringing that down by one with a compare-and-exchange, which succeeds for a job that is still under
 * way alone: then what was read of the job before belongs to it, because a job is written when there is nothing left of
 * the one before. So a worker that sleeps, or that the system has stopped before it took a task, holds up nobody. */
#define LEFT_BITS 24
#define MOST_TASKS (((uint64_t)1 << LEFT_BITS) - 1)

struct emo__threads {
    _Alignas(64) atomic_uint_fast64_t ticket;
    _Atomic(emo_task_fn) fn;
    _Atomic(void *) task;
    atomic_size_t begin; /* index of the job's first task */
    atomic_uint_fast64_t count;
    _Alignas(64) atomic_uint_fast64_t unfinished; /* tasks of the job that are not done */
    atomic_size_t parked;                         /* workers that sleep */
    const emo__mem *mem;
    size_t workers;
    size_t started;
    pthread_t *threads;
    worker_arg *args;
    pthread_mutex_t turn; /* one parallel loop at a time */
    pthread_mutex_t lock; /* for sleeping and waking */
    pthread_cond_t wake;
    pthread_cond_t idle;
    pid_t owner;         /* the process the workers are in: a child of fork() has the pool without them */
    atomic_bool waiting; /* the caller sleeps */
    atomic_bool stop;
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

static uint64_t left(const emo__threads *pool) {
    return atomic_load_explicit(&pool->ticket, memory_order_acquire) & MOST_TASKS;
}

/* Takes tasks while there are any. */
static void work(emo__threads *pool, size_t worker) {
    uint64_t done = 0;
    uint64_t seen = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while ((seen & MOST_TASKS) != 0) {
        emo_task_fn fn = atomic_load_explicit(&pool->fn, memory_order_acquire);
        void *task = atomic_load_explicit(&pool->task, memory_order_acquire);
        size_t begin = atomic_load_explicit(&pool->begin, memory_order_acquire);
        uint64_t count = atomic_load_explicit(&pool->count, memory_order_acquire);
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &seen, seen - 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        fn(task, begin + (size_t)(count - (seen & MOST_TASKS)), worker);
        done++;
        seen = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
    if (done > 0 && atomic_fetch_sub(&pool->unfinished, done) == done && atomic_load(&pool->waiting)) {
        (void)pthread_mutex_lock(&pool->lock);
        (void)pthread_cond_signal(&pool->idle);
        (void)pthread_mutex_unlock(&pool->lock);
    }
}

static void *worker_main(void *opaque) {
    worker_arg *arg = opaque;
    emo__threads *pool = arg->pool;
    for (;;) {
        for (int i = 0; i < SPIN_ROUNDS && left(pool) == 0; i++)
            relax();
        if (left(pool) == 0) {
            (void)pthread_mutex_lock(&pool->lock);
            atomic_fetch_add(&pool->parked, 1);
            while (!atomic_load(&pool->stop) && (atomic_load(&pool->ticket) & MOST_TASKS) == 0)
                (void)pthread_cond_wait(&pool->wake, &pool->lock);
            atomic_fetch_sub(&pool->parked, 1);
            (void)pthread_mutex_unlock(&pool->lock);
        }
        if (atomic_load(&pool->stop))
            return NULL;
        work(pool, arg->index);
    }
}

/* Wakes as many as there is work for. A worker that has the lock is about to sleep or has just woken: if it keeps it,
 * the system has stopped it there, and the job goes on without it. */
static void wake(emo__threads *pool, uint64_t count) {
    size_t parked = atomic_load(&pool->parked);
    for (int i = 0; parked > 0 && i < LOCK_ROUNDS; i++, relax()) {
        if (pthread_mutex_trylock(&pool->lock) != 0)
            continue;
        for (size_t n = 0; n < parked && n + 1 < count; n++)
            (void)pthread_cond_signal(&pool->wake);
        (void)pthread_mutex_unlock(&pool->lock);
        return;
    }
}

/* One job of at most MOST_TASKS tasks; the caller has the turn. Every task of the one before is done, so that nobody
 * can be using its fields. */
static void run_job(emo__threads *pool, size_t begin, uint64_t count, emo_task_fn fn, void *task) {
    uint64_t job = (atomic_load(&pool->ticket) >> LEFT_BITS) + 1;
    atomic_store_explicit(&pool->fn, fn, memory_order_release);
    atomic_store_explicit(&pool->task, task, memory_order_release);
    atomic_store_explicit(&pool->begin, begin, memory_order_release);
    atomic_store_explicit(&pool->count, count, memory_order_release);
    atomic_store(&pool->unfinished, count);
    atomic_store(&pool->ticket, job << LEFT_BITS | count);
    wake(pool, count);
    work(pool, 0);
    for (int i = 0; i < SPIN_ROUNDS && atomic_load(&pool->unfinished) > 0; i++)
        relax();
    if (atomic_load(&pool->unfinished) == 0)
        return;
    (void)pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->waiting, true);
    while (atomic_load(&pool->unfinished) > 0)
        (void)pthread_cond_wait(&pool->idle, &pool->lock);
    atomic_store(&pool->waiting, false);
    (void)pthread_mutex_unlock(&pool->lock);
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
    } else {
        for (size_t i = 0; i < count; i += MOST_TASKS)
            run_job(pool, i, count - i < MOST_TASKS ? count - i : MOST_TASKS, fn, task);
    }
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
    atomic_init(&pool->parked, 0);
    atomic_init(&pool->waiting, false);
    atomic_init(&pool->stop, false);
    atomic_init(&pool->fn, NULL);
    atomic_init(&pool->task, NULL);
    atomic_init(&pool->begin, 0);
    atomic_init(&pool->count, 0);
    atomic_init(&pool->ticket, 0);
    atomic_init(&pool->unfinished, 0);
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
        atomic_store(&pool->stop, true);
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
