/* SPDX-License-Identifier: Apache-2.0 */
/* The N-th call to the system fails, for every N (in the short form a sample of them, where there are many): opening,
 * reading, writing, syncing, renaming, removing, listing, looking, locking, closing, mapping, starting threads. A
 * status that names the path each time, nothing leaks, no file stays open; and what a run folder held before can still
 * be resumed. Calls that are interrupted by signals are no failures at all. */
#define _GNU_SOURCE 1 /* RTLD_NEXT */
#include "support/meter.h"
#include "support/stages.h"
#include "system_calls.h"

static meter hook = METER_INIT;

/* Runs a stage with the N-th of the calls of `kinds` failing, for every N. */
static void fail_every_one(const stage *s, int kinds, int error, emo_status want) {
    long last = 0;
    long failures = 0;
    long stride = 1;
    int fds = count_fds();
    for (long n = -1; n < last; n += n < 0 ? 1 : stride) {
        emo_error err = EMO_ERROR_INIT;
        stages_clean();
        emo_runtime *rt = meter_runtime(&hook, 1);
        calls_arm(kinds, n, error);
        emo_status status = s->run(rt, &err);
        calls.armed = 0;
        if (n < 0) {
            if (status != EMO_OK)
                fail_msg("%s: %s", s->name, err.message);
            last = calls.seen;
            stride = stages_stride(last, s->whole ? 40 : 100);
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
        fail_every_one(s, CALL_REMOVE | CALL_STAT | CALL_LIST | CALL_LOCK | CALL_CLOSE | CALL_MAP, EIO, EMO_E_IO);
        fail_every_one(s, CALL_WRITE | CALL_MKDIR, ENOSPC, EMO_E_IO);
    }
}

static void interrupted_calls_are_made_again(void **state) {
    (void)state;
    for (const stage *s = stages; s->run != NULL; s++) {
        emo_error err = EMO_ERROR_INIT;
        stages_clean();
        emo_runtime *rt = meter_runtime(&hook, 1);
        calls.interrupted = 1;
        calls_arm(CALL_OPEN | CALL_READ | CALL_WRITE | CALL_SYNC | CALL_LOCK, -1, EINTR);
        emo_status status = s->run(rt, &err);
        calls.armed = 0;
        calls.interrupted = 0;
        if (status != EMO_OK)
            fail_msg("%s: %s", s->name, err.message);
        emo_runtime_release(rt);
        meter_check(&hook, s->name);
    }
}

/* A folder that holds a run of two steps is opened again while one look at its files fails: the run goes on, or there
 * is a status; it is never taken for an empty folder. */
static void a_run_is_never_overlooked(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    long last = 0;
    emo_runtime *rt = meter_runtime(&hook, 1);
    emo_dataset *data = NULL;
    stages_clean();
    EXPECT_OK(stages_open_data(rt, &data, &err));
    long stride = 1;
    for (long n = -2; n < last; n += n < 0 ? 1 : stride) { /* -2 makes the run, -1 counts */
        emo_model *model = NULL;
        emo_trainer *trainer = NULL;
        emo_train_options o = stages_train_options();
        o.out = stages_run();
        o.resume = n > -2;
        EXPECT_OK(stages_open_model(rt, &model, &err));
        calls_arm(CALL_STAT | CALL_LIST | CALL_OPEN | CALL_READ, n, EIO);
        emo_status status = emo_trainer_create(model, data, &o, &trainer, &err);
        calls.armed = 0;
        if (n == -2)
            EXPECT_OK(emo_trainer_run(trainer, &err));
        else if (n == -1)
            last = calls.seen, stride = stages_stride(last, 100);
        if (status == EMO_OK && emo_trainer_at(trainer) != 2)
            fail_msg("call %ld of %ld: begins at %lld", n, last, (long long)emo_trainer_at(trainer));
        if (status != EMO_OK && (status != EMO_E_IO || strchr(err.message, '/') == NULL))
            fail_msg("call %ld of %ld: %s: %s", n, last, emo_status_name(status), err.message);
        emo_trainer_release(trainer);
        emo_model_release(model);
    }
    emo_dataset_release(data);
    emo_runtime_release(rt);
    meter_check(&hook, "run");
    assert_true(last > 10);
}

/* A disk that is full for a while: the step's metrics are written as soon as that is possible, and no step is made
 * before. */
static void no_step_is_left_out_of_the_metrics(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = meter_runtime(&hook, 1);
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = stages_train_options();
    char path[700];
    char text[4096] = "";
    stages_clean();
    o.out = stages_run();
    o.max_steps = 3;
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
    EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
    for (int i = 0; i < 3; i++) { /* the first of them makes step 2, the others nothing */
        calls_arm(CALL_WRITE, 0, ENOSPC);
        EXPECT_STATUS(emo_trainer_run(trainer, &err), EMO_E_IO, "metrics.jsonl: cannot write: no space left");
        calls.armed = 0;
        assert_int_equal(emo_trainer_at(trainer), 2);
    }
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", stages_run());
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int step = 1; step <= 3; step++) {
        char want[32];
        (void)snprintf(want, sizeof want, "{\"step\": %d,", step);
        assert_non_null(fgets(text, sizeof text, file));
        assert_memory_equal(text, want, strlen(want));
        assert_non_null(strstr(text, "}\n"));
    }
    assert_null(fgets(text, sizeof text, file));
    (void)fclose(file);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&hook, "metrics");
}

/* The folder of a run is moved away, and another one takes its place: nothing is written into that; back in its place
 * the run goes on. */
static void a_folder_that_goes_away_is_noticed(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = meter_runtime(&hook, 1);
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = stages_train_options();
    char away[700];
    char path[800];
    stages_clean();
    o.out = stages_run();
    o.max_steps = 3;
    o.checkpoint_every = 1;
    (void)snprintf(away, sizeof away, "%s-away", stages_run());
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
    EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
    assert_int_equal(rename(stages_run(), away), 0);
    for (int with = 0; with < 2; with++) { /* nothing at the path, then a strange folder */
        if (with) {
            assert_int_equal(mkdir(stages_run(), 0777), 0);
            (void)snprintf(path, sizeof path, "%s/state", stages_run());
            assert_int_equal(mkdir(path, 0777), 0);
            (void)snprintf(path, sizeof path, "%s/state/lock", stages_run());
            FILE *file = fopen(path, "w");
            assert_non_null(file);
            (void)fclose(file);
        }
        EXPECT_STATUS(emo_trainer_run(trainer, &err), EMO_E_NOT_FOUND, "removed, moved or replaced");
        EXPECT_STATUS(emo_trainer_checkpoint(trainer, &err), EMO_E_NOT_FOUND, "removed, moved or replaced");
        (void)snprintf(path, sizeof path, "%s/metrics.jsonl", stages_run());
        assert_int_not_equal(access(path, F_OK), 0);
        (void)snprintf(path, sizeof path, "%s/state/step-2", stages_run());
        assert_int_not_equal(access(path, F_OK), 0);
    }
    stages_clean();
    assert_int_equal(rename(away, stages_run()), 0);
    assert_int_equal(emo_trainer_at(trainer), 2);
    EXPECT_OK(emo_trainer_run(trainer, &err));
    emo_trainer_release(trainer);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&hook, "away");
}

/* A run of two steps whose second checkpoint fails at any point: the first one is still there, and the run goes on from
 * it to the same end. */
static void the_old_checkpoint_stays(void **state) {
    (void)state;
    double want = 0.0;
    long last = 0;
    long stride = 1;
    for (long n = -1; n < last; n += n < 0 ? 1 : stride) {
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
        calls_arm(CALL_CHANGES | CALL_STAT, n, ENOSPC);
        emo_status status = emo_trainer_step(trainer, &m, &err);
        calls.armed = 0;
        if (n < 0)
            last = calls.seen, stride = stages_stride(last, 100);
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
        calls_arm(CALL_THREAD, n, EAGAIN);
        emo_status status = emo_runtime_create(&options, &rt, &err);
        calls.armed = 0;
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_thread_fails_to_start),        cmocka_unit_test(every_read_of_a_host_source_fails),
        cmocka_unit_test(the_old_checkpoint_stays),           cmocka_unit_test(interrupted_calls_are_made_again),
        cmocka_unit_test(a_run_is_never_overlooked),          cmocka_unit_test(no_step_is_left_out_of_the_metrics),
        cmocka_unit_test(a_folder_that_goes_away_is_noticed), cmocka_unit_test(every_call_to_the_system_fails),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
