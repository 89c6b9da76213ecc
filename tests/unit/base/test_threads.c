/* SPDX-License-Identifier: Apache-2.0 */
/* Runtimes come and go: threads that cannot be started, many cycles, blocked signals, calls from several threads. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#include "support/support.h"

#include "base/runtime.h"

#define WORKERS 4

typedef int (*create_fn)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static atomic_int fail_at; /* counts down with each thread that is started; the one that brings it to 0 fails */

/* Stands before the C library's: the library under test is linked into this program. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg) {
    if (atomic_load(&fail_at) > 0 && atomic_fetch_sub(&fail_at, 1) == 1)
        return EAGAIN;
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");
    create_fn real;
    memcpy(&real, &symbol, sizeof real);
    return real(thread, attr, start, arg);
}

typedef struct ledger {
    atomic_llong live; /* bytes */
} ledger;

static void *ledger_alloc(void *ctx, size_t size, size_t alignment) {
    void *p = NULL;
    if (posix_memalign(&p, alignment < sizeof p ? sizeof p : alignment, size) != 0)
        return NULL;
    atomic_fetch_add(&((ledger *)ctx)->live, (long long)size);
    return p;
}

static void ledger_free(void *ctx, void *p, size_t size, size_t alignment) {
    (void)alignment;
    atomic_fetch_sub(&((ledger *)ctx)->live, (long long)size);
    free(p);
}

static void mark(void *task, size_t index, size_t worker) {
    assert_true(worker < WORKERS);
    ((unsigned char *)task)[index]++;
}

static void use(emo_runtime *rt) {
    unsigned char seen[64] = {0};
    emo__parallel_for(rt, sizeof seen, mark, seen);
    for (size_t i = 0; i < sizeof seen; i++)
        assert_int_equal(seen[i], 1);
}

static void threads_that_do_not_start(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    ledger book = {0};
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = WORKERS;
    options.allocator = (emo_allocator){&book, ledger_alloc, ledger_free};
    for (int n = 1; n < WORKERS; n++) {
        emo_runtime *rt = (emo_runtime *)&book; /* must become NULL */
        atomic_store(&fail_at, n);
        EXPECT_STATUS(emo_runtime_create(&options, &rt, &err), EMO_E_LIMIT, "could not be started");
        assert_int_equal(atomic_load(&fail_at), 0);
        assert_null(rt);
        assert_int_equal(err.domain, EMO_DOMAIN_SYSTEM);
        assert_int_equal(err.number, EAGAIN);
        assert_int_equal(atomic_load(&book.live), 0);
    }
    emo_runtime *rt = NULL;
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    use(rt);
    emo_runtime_release(rt);
    assert_int_equal(atomic_load(&book.live), 0);
}

/* The threads of this process, as the kernel counts them; -1 where it does not say. */
static int threads_now(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    int n = -1;
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, "Threads:", 8) == 0)
            n = (int)strtol(line + 8, NULL, 10);
    }
    if (file != NULL)
        (void)fclose(file);
    return n;
}

static void many_cycles(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    ledger book = {0};
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = WORKERS;
    options.allocator = (emo_allocator){&book, ledger_alloc, ledger_free};
    int before = threads_now();
    for (int cycle = 0; cycle < 500; cycle++) {
        emo_runtime *rt = NULL;
        EXPECT_OK(emo_runtime_create(&options, &rt, &err));
        if (cycle % 3 != 0) /* some end before their workers have seen any work */
            use(rt);
        emo_runtime_release(rt);
        assert_int_equal(atomic_load(&book.live), 0);
    }
    /* The kernel may count a thread that was joined a moment longer. */
    int after = threads_now();
    for (int i = 0; i < 1000 && after > before; i++) {
        (void)sched_yield();
        after = threads_now();
    }
    assert_int_equal(after, before);
}

typedef struct seen_masks {
    atomic_int blocked;
    atomic_int open;
} seen_masks;

static void look_at_signals(void *task, size_t index, size_t worker) {
    (void)index;
    sigset_t blocked;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    seen_masks *seen = task;
    if (worker > 0)
        atomic_fetch_add(sigismember(&blocked, SIGUSR1) == 1 ? &seen->blocked : &seen->open, 1);
}

static void workers_take_no_signals(void **state) {
    (void)state;
    sigset_t before;
    sigset_t after;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    emo_runtime *rt = test_runtime(WORKERS, EMO_ISA_AUTO);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&after, SIGUSR1), sigismember(&before, SIGUSR1));
    seen_masks seen = {0};
    for (int i = 0; i < 1000000 && atomic_load(&seen.blocked) + atomic_load(&seen.open) == 0; i++)
        emo__parallel_for(rt, 64, look_at_signals, &seen); /* until a worker other than this thread took part */
    assert_true(atomic_load(&seen.blocked) > 0);
    assert_int_equal(atomic_load(&seen.open), 0);
    emo_runtime_release(rt);
}

static void *use_often(void *arg) {
    for (int i = 0; i < 200; i++)
        use(arg);
    return NULL;
}

static void loops_from_several_threads(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(WORKERS, EMO_ISA_AUTO);
    pthread_t hosts[3];
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&hosts[i], NULL, use_often, rt), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_join(hosts[i], NULL), 0);
    emo_runtime_release(rt);
}

typedef struct short_job {
    uint32_t number;
    atomic_uint ran; /* tasks of this job */
    atomic_uint wrong;
    size_t count;
} short_job;

static void run_short(void *task, size_t index, size_t worker) {
    short_job *job = task;
    atomic_fetch_add(&job->ran, 1);
    if (index >= job->count || worker >= WORKERS)
        atomic_fetch_add(&job->wrong, 1);
    if (job->number % 64 == 0 && worker > 0) /* the others are done long before */
        for (int i = 0; i < 50; i++)
            (void)sched_yield();
}

/* Jobs follow each other so fast that workers come late, or meet the next one: each task runs once, with its job. */
static void short_jobs_one_after_the_other(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(WORKERS, EMO_ISA_AUTO);
    for (uint32_t n = 0; n < 5000; n++) {
        short_job job = {.number = n, .count = 2 + n % 7};
        emo__parallel_for(rt, job.count, run_short, &job);
        assert_int_equal(atomic_load(&job.ran), job.count);
        assert_int_equal(atomic_load(&job.wrong), 0);
        if (n % 500 == 0)
            (void)usleep(2000); /* all sleep */
    }
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_do_not_start),      cmocka_unit_test(many_cycles),
        cmocka_unit_test(workers_take_no_signals),        cmocka_unit_test(loops_from_several_threads),
        cmocka_unit_test(short_jobs_one_after_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
