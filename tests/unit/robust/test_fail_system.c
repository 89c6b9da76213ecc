/* SPDX-License-Identifier: Apache-2.0 */
/* The N-th call to the system fails, for every N: opening, reading, writing, syncing, renaming, making folders,
 * starting threads. A status that names the path each time, nothing leaks, no file stays open; and what a run folder
 * held before can still be resumed. The functions below take the place of libc's for the library in this program. */
#define _GNU_SOURCE 1 /* RTLD_NEXT */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "support/meter.h"
#include "support/stages.h"

enum {
    CALL_OPEN = 1,
    CALL_READ = 2,
    CALL_WRITE = 4,
    CALL_SYNC = 8,
    CALL_RENAME = 16,
    CALL_MKDIR = 32,
    CALL_THREAD = 64
};

static int armed;    /* kinds that count */
static long seen;    /* calls so far */
static long fail_at; /* -1: none */
static int code;     /* errno of the failure */

static int fails(int kind) {
    if ((armed & kind) == 0 || seen++ != fail_at)
        return 0;
    errno = code;
    return 1;
}

int open(const char *path, int flags, ...) {
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return fails(CALL_OPEN) ? -1 : (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
ssize_t read(int fd, void *data, size_t size) { return fails(CALL_READ) ? -1 : syscall(SYS_read, fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t at) {
    return fails(CALL_READ) ? -1 : syscall(SYS_pread64, fd, data, size, at);
}
ssize_t write(int fd, const void *data, size_t size) {
    if (size > 4096 && (armed & CALL_WRITE) != 0)
        size = size / 2; /* short writes are no errors */
    return fails(CALL_WRITE) ? -1 : syscall(SYS_write, fd, data, size);
}
int fsync(int fd) { return fails(CALL_SYNC) || fd < 0 ? -1 : 0; } /* a disk would take minutes */
int rename(const char *from, const char *to) {
    return fails(CALL_RENAME) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}
int mkdir(const char *path, mode_t mode) {
    return fails(CALL_MKDIR) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *symbol = dlsym(RTLD_NEXT, "pthread_create");
    memcpy(&real, &symbol, sizeof real);
    return fails(CALL_THREAD) ? EAGAIN : real(thread, attr, fn, arg);
}

static meter hook = METER_INIT;

/* Runs a stage with the N-th of the calls of `kinds` failing, for every N. */
static void fail_every_one(const stage *s, int kinds, int error, emo_status want) {
    long last = 0;
    long failures = 0;
    int fds = count_fds();
    for (long n = -1; n < last; n++) {
        emo_error err = EMO_ERROR_INIT;
        stages_clean();
        emo_runtime *rt = meter_runtime(&hook, 1);
        seen = 0;
        fail_at = n;
        code = error;
        armed = kinds;
        emo_status status = s->run(rt, &err);
        armed = 0;
        if (n < 0) {
            if (status != EMO_OK)
                fail_msg("%s: %s", s->name, err.message);
            last = seen;
        } else if (status != EMO_OK) { /* some failures are no harm: a map that is read instead */
            failures++;
            if (status != want || strchr(err.message, '/') == NULL)
                fail_msg("%s, call %ld of %ld: %s: %s", s->name, n, last, emo_status_name(status), err.message);
        }
        emo_runtime_release(rt);
        meter_check(&hook, s->name);
        if (count_fds() != fds)
            fail_msg("%s, call %ld of %ld: a file is left open", s->name, n, last);
    }
    print_message("%s: %ld calls, %ld of them matter\n", s->name, last, failures);
}

static void every_call_to_the_system_fails(void **state) {
    (void)state;
    for (const stage *s = stages; s->run != NULL; s++) {
        fail_every_one(s, CALL_OPEN | CALL_READ | CALL_RENAME | CALL_SYNC, EIO, EMO_E_IO);
        fail_every_one(s, CALL_WRITE | CALL_MKDIR, ENOSPC, EMO_E_IO);
    }
}

/* A run of two steps whose second checkpoint fails at any point: the first one is still there, and the run goes on from
 * it to the same end. */
static void the_old_checkpoint_stays(void **state) {
    (void)state;
    double want = 0.0;
    long last = 0;
    for (long n = -1; n < last; n++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = meter_runtime(&hook, 1);
        emo_model *model = NULL;
        emo_dataset *data = NULL;
        emo_trainer *trainer = NULL;
        emo_train_options o = stages_train_options();
        emo_step_metrics m = {0};
        m.struct_size = sizeof m;
        stages_clean();
        o.out = stages_run();
        o.checkpoint_every = 1;
        o.keep_checkpoints = 1;
        o.max_steps = 3;
        EXPECT_OK(stages_open_model(rt, &model, &err));
        EXPECT_OK(stages_open_data(rt, &data, &err));
        EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
        EXPECT_OK(emo_trainer_step(trainer, &m, &err));
        seen = 0;
        fail_at = n;
        code = ENOSPC;
        armed = CALL_OPEN | CALL_WRITE | CALL_SYNC | CALL_RENAME | CALL_MKDIR;
        emo_status status = emo_trainer_step(trainer, &m, &err);
        armed = 0;
        if (n < 0)
            last = seen;
        if (status != EMO_OK)
            assert_int_equal(status, EMO_E_IO);
        emo_trainer_release(trainer);
        emo_model_release(model);
        /* another process would find this */
        o.resume = 1;
        EXPECT_OK(stages_open_model(rt, &model, &err));
        EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
        int64_t at = emo_trainer_at(trainer);
        if (at != 1 && at != 2)
            fail_msg("call %ld of %ld: resumed at %lld", n, last, (long long)at);
        while (emo_trainer_at(trainer) < 3)
            EXPECT_OK(emo_trainer_step(trainer, &m, &err));
        if (n < 0)
            want = m.total_loss;
        else if (m.total_loss != want)
            fail_msg("call %ld of %ld: ends with %.17g, not %.17g", n, last, m.total_loss, want);
        emo_trainer_release(trainer);
        emo_model_release(model);
        emo_dataset_release(data);
        emo_runtime_release(rt);
        meter_check(&hook, "run");
    }
    assert_true(last > 10);
}

static void every_thread_fails_to_start(void **state) {
    (void)state;
    int before = count_threads();
    for (long n = 0; n < 4; n++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
        emo_runtime *rt = NULL;
        options.threads = 4; /* three are started */
        options.allocator = meter_hooks(&hook);
        seen = 0;
        fail_at = n;
        armed = CALL_THREAD;
        emo_status status = emo_runtime_create(&options, &rt, &err);
        armed = 0;
        if (n < 3) {
            assert_int_equal(status, EMO_E_LIMIT);
            assert_non_null(strstr(err.message, "thread"));
            assert_null(rt);
        } else {
            assert_int_equal(status, EMO_OK);
        }
        emo_runtime_release(rt);
        meter_check(&hook, "threads");
        assert_int_equal(settled_threads(before), before);
    }
}

/* ---- A source of the host's whose N-th read fails ---- */

typedef struct host_file {
    FILE *file;
    uint64_t size;
    long reads;
    long fail_at;
} host_file;

static emo_status host_size(void *ctx, uint64_t *size) {
    *size = ((host_file *)ctx)->size;
    return EMO_OK;
}
static emo_status host_read(void *ctx, uint64_t offset, void *data, size_t size) {
    host_file *f = ctx;
    if (f->reads++ == f->fail_at)
        return EMO_E_IO;
    if (fseek(f->file, (long)offset, SEEK_SET) != 0 || fread(data, 1, size, f->file) != size)
        return EMO_E_FORMAT;
    return EMO_OK;
}

static void every_read_of_a_host_source_fails(void **state) {
    (void)state;
    char path[700];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", stages_model());
    long last = 0;
    for (long n = -1; n < last; n++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = meter_runtime(&hook, 1);
        host_file f = {fopen(path, "rb"), 0, 0, n};
        assert_non_null(f.file);
        assert_int_equal(fseek(f.file, 0, SEEK_END), 0);
        f.size = (uint64_t)ftell(f.file);
        emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
        vtable.size = host_size;
        vtable.read_at = host_read;
        emo_source *source = NULL;
        emo_model *model = NULL;
        EXPECT_OK(emo_source_create(rt, &vtable, &f, &source, &err));
        emo_status status = emo_model_load_sources(rt, STAGES_CONFIG, strlen(STAGES_CONFIG),
                                                   (emo_source *const *)&source, 1, NULL, &model, &err);
        if (n < 0)
            last = f.reads;
        assert_int_equal(status, n < 0 ? EMO_OK : EMO_E_IO);
        assert_int_equal(model == NULL, n >= 0);
        emo_model_release(model);
        emo_source_release(source);
        emo_runtime_release(rt);
        meter_check(&hook, "host source");
        (void)fclose(f.file);
    }
    assert_true(last > 5);
}

static int setup(void **state) {
    (void)state;
    stages_setup();
    return 0;
}
static int teardown(void **state) {
    (void)state;
    stages_teardown();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_fails_to_start),
        cmocka_unit_test(every_read_of_a_host_source_fails),
        cmocka_unit_test(the_old_checkpoint_stays),
        cmocka_unit_test(every_call_to_the_system_fails),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
