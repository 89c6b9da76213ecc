/* SPDX-License-Identifier: Apache-2.0 */
/* fork(): the child goes on with what it inherited, with the same results, can make new objects, and releases all of
 * it; what another thread was using is busy there, and nothing ever hangs. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/folder.h"
#include "support/meter.h"
#include "support/stages.h"

#if defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#endif

enum { THREADS = 4, TOKENS = 24 };

typedef struct inherited {
    meter memory;
    emo_runtime *rt;
    emo_model *model;
    emo_session *session;
} inherited;

/* Nothing of cmocka in the child: it says by its exit status which line went wrong. */
#define CHILD_CHECK(condition)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "child, line %d: %s\n", __LINE__, #condition);                                             \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static void begin(inherited *h) {
    emo_error err = EMO_ERROR_INIT;
    h->memory = (meter)METER_INIT;
    h->rt = meter_runtime(&h->memory, THREADS);
    EXPECT_OK(stages_open_model(h->rt, &h->model, &err));
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = TOKENS;
    o.ignore_eos = 1;
    EXPECT_OK(emo_session_create(h->model, &o, &h->session, &err));
    EXPECT_OK(emo_session_append_text(h->session, "a boat on the river", &err));
    emo_state state = EMO_STATE_PENDING;
    while (emo_session_generated(h->session, 0, NULL, NULL) < TOKENS / 2)
        EXPECT_OK(emo_session_advance(h->session, NULL, &state, &err)); /* its workers have worked, and are parked */
}

static emo_status finish(inherited *h, int32_t *tokens) {
    const int32_t *view = NULL;
    emo_state state = EMO_STATE_PENDING;
    while (state != EMO_STATE_DONE) {
        emo_status status = emo_session_advance(h->session, NULL, &state, NULL);
        if (status != EMO_OK)
            return status;
    }
    if (emo_session_generated(h->session, 0, &view, NULL) != TOKENS)
        return EMO_E_INTERNAL;
    memcpy(tokens, view, TOKENS * sizeof *tokens);
    return EMO_OK;
}

static void end(inherited *h) {
    emo_session_release(h->session);
    emo_model_release(h->model);
    emo_runtime_release(h->rt);
}

static void wait_for(pid_t child) {
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFSIGNALED(status))
        fail_msg("the child ended by signal %d%s", WTERMSIG(status), WTERMSIG(status) == SIGALRM ? ": it hung" : "");
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void a_child_goes_on(void **state) {
    (void)state;
    inherited h;
    int32_t tokens[TOKENS];
    int pipes[2];
    begin(&h);
    assert_int_equal(pipe(pipes), 0);
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(60);
        int32_t mine[TOKENS];
        CHILD_CHECK(finish(&h, mine) == EMO_OK);
        /* new objects with threads of their own */
        emo_runtime_options o = EMO_RUNTIME_OPTIONS_INIT;
        emo_runtime *fresh = NULL;
        emo_model *again = NULL;
        emo_error err = EMO_ERROR_INIT;
        o.threads = 2;
        CHILD_CHECK(emo_runtime_create(&o, &fresh, &err) == EMO_OK);
        CHILD_CHECK(stages_open_model(fresh, &again, &err) == EMO_OK);
        emo_model_release(again);
        emo_runtime_release(fresh);
        end(&h);
        CHILD_CHECK(atomic_load(&h.memory.live) == 0 && atomic_load(&h.memory.wrong) == 0);
        CHILD_CHECK(write(pipes[1], mine, sizeof mine) == (ssize_t)sizeof mine);
        _exit(0);
    }
    assert_true(child > 0);
    int32_t theirs[TOKENS];
    assert_int_equal(finish(&h, tokens), EMO_OK); /* the parent goes on beside it */
    wait_for(child);
    assert_int_equal(read(pipes[0], theirs, sizeof theirs), (ssize_t)sizeof theirs);
    assert_memory_equal(tokens, theirs, sizeof tokens);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    end(&h);
    meter_check(&h.memory, "after fork");
}

/* A child that never touches anything but the releases, and one that only ends. */
static void a_child_may_just_release(void **state) {
    (void)state;
    inherited h;
    begin(&h);
    for (int releases = 0; releases < 2; releases++) {
        pid_t child = fork();
        if (child == 0) {
            (void)alarm(60);
            if (releases)
                end(&h);
            _exit(0);
        }
        assert_true(child > 0);
        wait_for(child);
    }
    int32_t tokens[TOKENS];
    assert_int_equal(finish(&h, tokens), EMO_OK);
    end(&h);
    meter_check(&h.memory, "after two children");
}

typedef struct holder {
    inherited *h;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int inside;
    int leave;
} holder;

/* A progress hook that stays inside a call until it is told to go on. */
static int32_t stay(void *ctx, const emo_progress_info *info) {
    (void)info;
    holder *k = ctx;
    (void)pthread_mutex_lock(&k->lock);
    k->inside = 1;
    (void)pthread_cond_broadcast(&k->changed);
    while (!k->leave)
        (void)pthread_cond_wait(&k->changed, &k->lock);
    (void)pthread_mutex_unlock(&k->lock);
    return 0;
}

static void *advance(void *arg) {
    holder *k = arg;
    emo_state state = EMO_STATE_PENDING;
    return emo_session_advance(k->h->session, NULL, &state, NULL) == EMO_OK ? NULL : arg;
}

static void what_another_thread_uses_is_busy(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    inherited h;
    holder k = {&h, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    h.memory = (meter)METER_INIT;
    h.rt = meter_runtime(&h.memory, THREADS);
    EXPECT_OK(stages_open_model(h.rt, &h.model, &err));
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = 2;
    o.progress = (emo_progress){&k, stay};
    EXPECT_OK(emo_session_create(h.model, &o, &h.session, &err));
    EXPECT_OK(emo_session_append_text(h.session, "a boat on the river", &err));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, advance, &k), 0);
    (void)pthread_mutex_lock(&k.lock);
    while (!k.inside)
        (void)pthread_cond_wait(&k.changed, &k.lock);
    (void)pthread_mutex_unlock(&k.lock);

    pid_t child = fork();
    if (child == 0) {
        (void)alarm(60);
        emo_state at = EMO_STATE_PENDING;
        emo_session *other = NULL;
        CHILD_CHECK(emo_session_advance(h.session, NULL, &at, NULL) == EMO_E_BUSY);
        o.progress = (emo_progress){NULL, NULL};
        CHILD_CHECK(emo_session_create(h.model, &o, &other, NULL) == EMO_OK); /* the model was only read */
        CHILD_CHECK(emo_session_append_text(other, "a boat", NULL) == EMO_OK);
        while (at != EMO_STATE_DONE)
            CHILD_CHECK(emo_session_advance(other, NULL, &at, NULL) == EMO_OK);
        emo_session_release(other);
        _exit(0);
    }
    assert_true(child > 0);
    wait_for(child);
    (void)pthread_mutex_lock(&k.lock);
    k.leave = 1;
    (void)pthread_cond_broadcast(&k.changed);
    (void)pthread_mutex_unlock(&k.lock);
    void *bad = NULL;
    assert_int_equal(pthread_join(thread, &bad), 0);
    assert_null(bad);
    end(&h);
    meter_check(&h.memory, "after a fork inside a call");
}

/* Both have the lock of the run folder; and no file of the library goes on into another program. */
static void a_run_folder_is_locked_until_both_are_done(void **state) {
    (void)state;
    enum { FILES = 256 };
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_model *model = NULL, *other = NULL;
    emo_dataset *data = NULL;
    emo_trainer *trainer = NULL, *second = NULL;
    int before[FILES], pipes[2], held = 0;
    assert_int_equal(pipe(pipes), 0);
    for (int fd = 0; fd < FILES; fd++)
        before[fd] = fcntl(fd, F_GETFD);
    stages_clean();
    emo_train_options o = stages_train_options();
    o.out = stages_run();
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_model(rt, &other, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
    EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
    for (int fd = 0; fd < FILES; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (before[fd] != -1 || flags == -1)
            continue;
        assert_true(flags & FD_CLOEXEC);
        held++;
    }
    assert_true(held > 0);

    pid_t child = fork();
    if (child == 0) {
        char byte;
        (void)alarm(60);
        (void)close(pipes[1]);
        CHILD_CHECK(read(pipes[0], &byte, 1) == 0); /* until the parent closes its end */
        emo_trainer_release(trainer);
        _exit(0);
    }
    assert_true(child > 0);
    emo_trainer_release(trainer);
    o.resume = 1;
    EXPECT_STATUS(emo_trainer_create(other, data, &o, &second, &err), EMO_E_BUSY, "lock");
    (void)close(pipes[0]);
    (void)close(pipes[1]);
    wait_for(child);
    EXPECT_OK(emo_trainer_create(other, data, &o, &second, &err));
    emo_trainer_release(second);
    emo_dataset_release(data);
    emo_model_release(other);
    emo_model_release(model);
    emo_runtime_release(rt);
}

int main(void) {
#ifdef UNDER_TSAN
    return 77; /* it does not support threads in the child of a program with threads */
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_goes_on),
        cmocka_unit_test(a_child_may_just_release),
        cmocka_unit_test(what_another_thread_uses_is_busy),
        cmocka_unit_test(a_run_folder_is_locked_until_both_are_done),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
