/* SPDX-License-Identifier: Apache-2.0 */
/* A training process ends without warning at its N-th change of the file system, for every N (a sample of them in the
 * short form), once while it begins a run and once while it goes on with one: whatever is in the folder then can be
 * read, and the resumed run ends with the files of an uninterrupted one. A write that is cut off is half done. */
#define _GNU_SOURCE 1
#include <sys/wait.h>

#include "support/folder.h"
#include "support/meter.h"
#include "support/stages.h"
#include "system_calls.h"

enum { STEPS = 3 };

/* Trains to the end in this process, from what the folder holds; the calls of `kinds` count from the trainer's making
 * on. */
static emo_status run(long kill_at, emo_error *err) {
    emo_runtime *rt = NULL;
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_trainer *trainer = NULL;
    emo_runtime_options ro = EMO_RUNTIME_OPTIONS_INIT;
    emo_train_options o = stages_train_options();
    emo_status status;
    ro.threads = 1;
    o.max_steps = STEPS;
    o.checkpoint_every = 1;
    o.keep_checkpoints = 1;
    o.resume = 1;
    o.out = stages_run();
    EMO_TRY(status = emo_runtime_create(&ro, &rt, err));
    EMO_TRY(status = stages_open_model(rt, &model, err));
    EMO_TRY(status = stages_open_data(rt, &data, err));
    calls.die = kill_at >= 0;
    calls_arm(CALL_CHANGES, kill_at, 0);
    EMO_TRY(status = emo_trainer_create(model, data, &o, &trainer, err));
    status = emo_trainer_run(trainer, err);
done:
    emo_trainer_release(trainer);
    calls.armed = 0;
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    return status;
}

/* The same in a process that is killed at a call. */
static void run_and_die(long kill_at) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        emo_error err = EMO_ERROR_INIT;
        _exit(run(kill_at, &err) == EMO_OK ? 0 : 1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    /* a resumed run makes fewer calls: it may have reached its end */
    if (WIFSIGNALED(how) ? WTERMSIG(how) != SIGKILL : WEXITSTATUS(how) != 0)
        fail_msg("call %ld: the process ended with %d", kill_at, how);
}

static void must_load(emo_runtime *rt, const char *folder, long kill_at) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    if (emo_model_load_path(rt, folder, NULL, &model, &err) != EMO_OK)
        fail_msg("call %ld: %s", kill_at, err.message);
    emo_model_release(model);
}

/* The newest checkpoint loads, and so does the exported model; returns whether there is a checkpoint. */
static int check_folder(emo_runtime *rt, long kill_at) {
    char path[800];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", stages_run());
    int exported = access(path, F_OK) == 0;
    if (exported)
        must_load(rt, stages_run(), kill_at);
    (void)snprintf(path, sizeof path, "%s/state/latest", stages_run());
    if (access(path, F_OK) != 0)
        return 0;
    size_t size = 0;
    char *name = (char *)test_read(path, &size);
    assert_in_range(size, 6, 20);
    (void)snprintf(path, sizeof path, "%s/state/%.*s", stages_run(), (int)size, name);
    free(name);
    assert_true(exported); /* it is written before the checkpoint counts */
    must_load(rt, path, kill_at);
    return 1;
}

/* What a run leaves: the weights' file, and the metrics without their times. */
typedef struct leavings {
    unsigned char *weights;
    size_t size;
    char metrics[4096];
} leavings;

static leavings take_leavings(void) {
    leavings l = {NULL, 0, ""};
    char path[800];
    size_t size = 0;
    size_t at = 0;
    (void)snprintf(path, sizeof path, "%s/model.safetensors", stages_run());
    l.weights = test_read(path, &l.size);
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", stages_run());
    char *text = (char *)test_read(path, &size);
    text[size] = '\0';
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        *end = '\0';
        char *times = strstr(line, "\"seconds\"");
        assert_non_null(times);
        *times = '\0';
        at += (size_t)snprintf(l.metrics + at, sizeof l.metrics - at, "%s\n", line);
        assert_true(at < sizeof l.metrics);
        line = end + 1;
    }
    free(text);
    return l;
}

static void killed_at_every_change(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    stages_clean();
    EXPECT_OK(run(-1, &err));
    long last = calls.seen;
    long stride = stages_stride(last, 60);
    long checkpoints = 0;
    leavings want = take_leavings();
    assert_true(last > 60);
    for (long n = 0; n < last; n += stride) {
        stages_clean();
        run_and_die(n);
        checkpoints += check_folder(rt, n);
        run_and_die(n * 7 % last); /* and again while it goes on */
        checkpoints += check_folder(rt, n);
        EXPECT_OK(run(-1, &err));
        leavings got = take_leavings();
        assert_string_equal(got.metrics, want.metrics);
        assert_int_equal(got.size, want.size);
        assert_memory_equal(got.weights, want.weights, want.size);
        free(got.weights);
        /* nothing half-written is left in the folder */
        static const char *const unfinished[] = {"model.safetensors.tmp-", "config.json.tmp-", "tokenizer.json.tmp-",
                                                 "latest.tmp-", "writing-"};
        static const char *const folders[] = {"", "/state"};
        for (size_t f = 0; f < 2; f++) {
            char path[800];
            (void)snprintf(path, sizeof path, "%s%s", stages_run(), folders[f]);
            DIR *dir = opendir(path);
            assert_non_null(dir);
            for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
                for (size_t i = 0; i < sizeof unfinished / sizeof unfinished[0]; i++) {
                    if (strncmp(entry->d_name, unfinished[i], strlen(unfinished[i])) == 0)
                        fail_msg("call %ld: %s is left", n, entry->d_name);
                }
            }
            (void)closedir(dir);
        }
    }
    print_message("%ld changes, %ld kills, %ld of them with a checkpoint\n", last, 2 * ((last + stride - 1) / stride),
                  checkpoints);
    assert_true(checkpoints > 0);
    free(want.weights);
    emo_runtime_release(rt);
}

/* A writer that is killed leaves its temporary file; the next writer of the same path takes it away, one of another
 * path or a living one's is left alone. */
static void leftovers_are_swept(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_tokenizer *tok = NULL;
    char path[800];
    (void)snprintf(path, sizeof path, "%s-left.json", stages_run());
    EXPECT_OK(emo_tokenizer_load(rt, stages_model(), &tok, &err));
    const char *base = strrchr(path, '/') + 1;
    char left[900];
    char living[900];
    char other[900];
    (void)snprintf(left, sizeof left, "%s", test_write("run-left.json.tmp-1-0", "x", 1));
    (void)snprintf(living, sizeof living, "%s", test_write("run-left.json.tmp-2-0", "x", 1));
    (void)snprintf(other, sizeof other, "%s", test_write("run-left.json2.tmp-1-0", "x", 1));
    assert_string_equal(base, "run-left.json");
    int fd = open(living, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    EXPECT_OK(emo_tokenizer_save(tok, path, &err));
    assert_int_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(left, F_OK), 0);
    assert_int_equal(access(living, F_OK), 0);
    assert_int_equal(access(other, F_OK), 0);
    (void)close(fd);
    EXPECT_OK(emo_tokenizer_save(tok, path, &err));
    assert_int_not_equal(access(living, F_OK), 0);
    emo_tokenizer_release(tok);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leftovers_are_swept),
        cmocka_unit_test(killed_at_every_change),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
