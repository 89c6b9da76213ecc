/* SPDX-License-Identifier: Apache-2.0 */
/* Run folders: checkpoints, resuming after every kind of end, and what a folder refuses. */
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "io/files.h"
#include "support/folder.h"
#include "train_support.h"

/* Stops after a step. */
static int32_t stop_at(void *ctx, const emo_step_metrics *m) { return m->step == *(const int64_t *)ctx; }

static emo_train_options folder_options(const char *out) {
    emo_train_options o = tiny_options();
    o.out = out;
    o.checkpoint_every = 2;
    o.accumulate = 2; /* the counts of the step before matter then */
    return o;
}

/* Lines of metrics.jsonl: each step once, in order. */
static void check_metrics(const char *out, int64_t steps) {
    char path[1100];
    (void)snprintf(path, sizeof path, "%s/metrics.jsonl", out);
    size_t size = 0;
    char *text = (char *)test_read(path, &size);
    int64_t lines = 0;
    for (char *at = text; at < text + size; lines++) {
        char *end = memchr(at, '\n', size - (size_t)(at - text));
        char want[40];
        assert_non_null(end);
        (void)snprintf(want, sizeof want, "{\"step\": %lld,", (long long)lines + 1);
        if (strncmp(at, want, strlen(want)) != 0)
            fail_msg("line %lld of metrics.jsonl is %.40s", (long long)lines + 1, at);
        at = end + 1;
    }
    assert_int_equal(lines, steps);
    free(text);
}

static int count_checkpoints(const char *out) {
    char path[1100];
    int found = 0;
    for (int step = 0; step <= TINY_STEPS; step++) {
        (void)snprintf(path, sizeof path, "%s/state/step-%d/trainer.json", out, step);
        found += access(path, F_OK) == 0;
    }
    return found;
}

static void stopped_and_resumed_is_uninterrupted(void **state) {
    (void)state;
    static const emo_balance_scope scopes[] = {EMO_BALANCE_BATCH, EMO_BALANCE_WINDOW, EMO_BALANCE_DOCUMENT};
    for (size_t i = 0; i < sizeof scopes / sizeof scopes[0]; i++) {
        for (int64_t stop = i == 0 ? 1 : 3; stop <= (i == 0 ? 5 : 3); stop += 2) {
            char name[32];
            emo_error err = EMO_ERROR_INIT;
            (void)snprintf(name, sizeof name, "run-%d-%d", (int)i, (int)stop);
            emo_train_options o = folder_options(NULL);
            o.balance_scope = scopes[i];
            o.balance_window = 3;
            tiny_result whole = tiny_run_ok(1, TINY, "uniform:3:8", o);
            o.out = test_path(name);
            o.on_step_ctx = &stop;
            o.on_step = stop_at;
            tiny_result first = tiny_run(1, TINY, "uniform:3:8", o);
            assert_int_equal(first.status, EMO_E_CANCELLED);
            assert_int_equal(first.done, stop);
            o.on_step = NULL;
            tiny_result refused = tiny_run(1, TINY, "uniform:3:8", o);
            assert_int_equal(refused.status, EMO_E_EXISTS);
            tiny_free(&refused);
            o.resume = 1;
            tiny_result rest = tiny_run_ok(2, TINY, "uniform:3:8", o); /* other threads, same bits */
            tiny_same(&whole, &rest, stop / 2 * 2 + 1);
            check_metrics(o.out, TINY_STEPS);
            assert_int_equal(count_checkpoints(o.out), o.keep_checkpoints);
            /* it is done: nothing happens any more */
            tiny_result again = tiny_run_ok(1, TINY, "uniform:3:8", o);
            assert_int_equal(again.done, TINY_STEPS);
            assert_memory_equal(again.weights, whole.weights, whole.count * sizeof(float));
            check_metrics(o.out, TINY_STEPS);
            /* and the folder is a model */
            emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
            emo_model *model = NULL;
            tiny_result loaded = {0};
            EXPECT_OK(emo_model_load_path(rt, o.out, NULL, &model, &err));
            tiny_weights(model, &loaded);
            assert_memory_equal(loaded.weights, whole.weights, whole.count * sizeof(float));
            emo_model_release(model);
            emo_runtime_release(rt);
            tiny_free(&whole), tiny_free(&first), tiny_free(&rest), tiny_free(&again), tiny_free(&loaded);
        }
    }
}

static void a_checkpoint_by_hand(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_trainer *t = NULL;
    emo_train_options o = folder_options(test_path("hand"));
    o.checkpoint_every = 0;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    for (int i = 0; i < 3; i++)
        EXPECT_OK(emo_trainer_step(t, NULL, &err));
    EXPECT_OK(emo_trainer_checkpoint(t, &err));
    EXPECT_OK(emo_trainer_checkpoint(t, &err)); /* again: nothing to do */
    emo_model *other = tiny_model(rt, TINY);
    emo_trainer *second = NULL;
    o.resume = 1;
    EXPECT_STATUS(emo_trainer_create(other, data, &o, &second, &err), EMO_E_BUSY, "lock");
    emo_trainer_release(t);
    EXPECT_OK(emo_trainer_create(other, data, &o, &second, &err));
    assert_int_equal(emo_trainer_at(second), 3);
    EXPECT_OK(emo_trainer_step(second, NULL, &err));
    emo_trainer_release(second);
    o.out = NULL;
    o.resume = 0;
    EXPECT_OK(emo_trainer_create(other, data, &o, &second, &err));
    EXPECT_STATUS(emo_trainer_checkpoint(second, &err), EMO_E_INVALID_ARGUMENT, "out");
    emo_trainer_release(second);
    emo_model_release(other);
    emo_model_release(model);
    emo_dataset_release(data);
    emo_runtime_release(rt);
}

static void other_options_are_named(void **state) {
    (void)state;
    int64_t stop = 3;
    emo_train_options o = folder_options(test_path("options"));
    o.on_step_ctx = &stop;
    o.on_step = stop_at;
    tiny_result first = tiny_run(1, TINY, "uniform:3:8", o);
    assert_int_equal(first.status, EMO_E_CANCELLED);
    tiny_free(&first);
    o.on_step = NULL;
    o.resume = 1;
#define OTHER(config, pool, field, value, word)                                                                        \
    do {                                                                                                               \
        emo_train_options changed = o;                                                                                 \
        changed.field = (value);                                                                                       \
        tiny_result r = tiny_run(1, config, pool, changed);                                                            \
        if (r.status != EMO_E_MISMATCH || strstr(r.err.message, word) == NULL)                                         \
            fail_msg("%s: %s: %s", word, emo_status_name(r.status), r.err.message);                                    \
        tiny_free(&r);                                                                                                 \
    } while (0)
    OTHER(TINY, "uniform:3:8", lr, 0.02f, "lr");
    OTHER(TINY, "uniform:3:8", max_steps, 7, "steps");
    OTHER(TINY, "uniform:3:8", schedule, EMO_SCHEDULE_WSD, "schedule");
    OTHER(TINY, "uniform:3:8", batch_rows, 8, "batch_rows");
    OTHER(TINY, "uniform:3:8", accumulate, 1, "accumulate");
    OTHER(TINY, "uniform:3:8", seq_len, 16, "seq_len");
    OTHER(TINY, "uniform:3:8", seed, 4, "seed");
    OTHER(TINY, "uniform:3:8", seed, ((uint64_t)1 << 63) + 3, "seed");
    OTHER(TINY, "uniform:3:8", train_only, EMO_TRAIN_EXPERTS, "train_only");
    OTHER(TINY, "uniform:3:8", balance_scope, EMO_BALANCE_DOCUMENT, "balance_scope");
    OTHER(TINY, "uniform:3:8", weight_decay, 0.2f, "weight_decay");
    OTHER(TINY, "uniform:3:7", resume, 1, "pool");
    OTHER(TINY_CONFIG("[9,8]", "[1,1]", ""), "uniform:3:7", resume, 1, "another");
    tiny_compute = EMO_DTYPE_BF16;
    OTHER(TINY, "uniform:3:8", resume, 1, "compute");
    tiny_compute = EMO_DTYPE_F32;
    emo_train_options same = o;
    same.checkpoint_every = 1; /* says nothing about what is computed */
    same.keep_checkpoints = 1;
    tiny_result rest = tiny_run_ok(1, TINY, "uniform:3:8", same);
    assert_int_equal(count_checkpoints(o.out), 1);
    tiny_free(&rest);
}

/* Nothing half written is left. */
/* Puts another text of the pool into the run's file; `from` stands there now. */
static void say_pool(const char *out, const char *from, const char *to) {
    char path[1100];
    char text[8192];
    size_t size = 0;
    (void)snprintf(path, sizeof path, "%s/state/run.json", out);
    char *plan = (char *)test_read(path, &size);
    plan[size] = '\0'; /* there is room */
    char *at = strstr(plan, from);
    assert_non_null(at);
    int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - plan), plan, to, at + strlen(from));
    assert_true(n > 0 && (size_t)n < sizeof text);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, (size_t)n, file), (size_t)n);
    assert_int_equal(fclose(file), 0);
    free(plan);
}

/* The pool's text has all of the policy; a shorter one, as it was written once, is understood. */
static void pools_are_compared_by_what_they_mean(void **state) {
    (void)state;
    static const char pool[] = "uniform:3:8,forced:2,eval:5";
    int64_t stop = 2;
    emo_train_options o = folder_options(test_path("pools"));
    tiny_result whole = tiny_run_ok(1, TINY, pool, folder_options(NULL));
    o.on_step_ctx = &stop;
    o.on_step = stop_at;
    tiny_result first = tiny_run(1, TINY, pool, o);
    assert_int_equal(first.status, EMO_E_CANCELLED);
    tiny_free(&first);
    o.on_step = NULL;
    o.resume = 1;
    say_pool(o.out, pool, "uniform:3:8");
    static const char *const others[] = {"uniform:3:7,forced:2", "uniform:3:8", "uniform:3:8,forced:2,scope:row",
                                         "fixed:3,forced:2", "none"};
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        tiny_result r = tiny_run(1, TINY, others[i], o);
        if (r.status != EMO_E_MISMATCH || strstr(r.err.message, "another pool") == NULL)
            fail_msg("%s: %s: %s", others[i], emo_status_name(r.status), r.err.message);
        tiny_free(&r);
    }
    say_pool(o.out, "uniform:3:8", "no pool at all");
    tiny_result broken = tiny_run(1, TINY, pool, o);
    assert_int_equal(broken.status, EMO_E_FORMAT);
    tiny_free(&broken);
    say_pool(o.out, "no pool at all", "uniform:3:8");
    say_pool(o.out, "\"compute\"", "\"of another day\""); /* a run from before there was a choice */
    tiny_result rest = tiny_run_ok(1, TINY, "uniform:3:8,eval:7,forced:2", o); /* evaluation is no part of a run */
    tiny_same(&whole, &rest, stop + 1);
    tiny_free(&whole);
    tiny_free(&rest);
}

static void check_clean(const char *out) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo__names names = {0};
    EXPECT_OK(emo__list_files(&rt->mem, out, true, &names, &err));
    assert_true(names.count > 6);
    for (size_t i = 0; i < names.count; i++) {
        if (strstr(names.items[i], ".tmp-") != NULL || strstr(names.items[i], "writing-") != NULL)
            fail_msg("%s is left", names.items[i]);
    }
    emo__names_free(&names);
    emo_runtime_release(rt);
}

/* A run in a child that is killed without warning; wait_us into its life. */
static void run_and_kill(const emo_train_options *o, unsigned wait_us) {
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime_options ro = EMO_RUNTIME_OPTIONS_INIT;
        emo_runtime *rt = NULL;
        emo_model *model = NULL;
        emo_dataset *data = NULL;
        emo_pool_policy *pool = NULL;
        emo_trainer *t = NULL;
        emo_train_options mine = *o;
        ro.threads = 1;
        if (emo_runtime_create(&ro, &rt, &err) != EMO_OK)
            _exit(3);
        model = tiny_model(rt, TINY);
        data = tiny_data(rt);
        if (emo_pool_policy_create_uniform(rt, 3, 8, &pool, &err) != EMO_OK)
            _exit(3);
        mine.pool = pool;
        if (emo_trainer_create(model, data, &mine, &t, &err) != EMO_OK)
            _exit(4);
        _exit(emo_trainer_run(t, &err) == EMO_OK ? 0 : 5);
    }
    int how = 0;
    struct timespec pause = {0, (long)wait_us * 1000};
    (void)nanosleep(&pause, NULL);
    (void)kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFEXITED(how))
        assert_int_equal(WEXITSTATUS(how), 0);
}

static void killed_at_any_moment(void **state) {
    (void)state;
    emo_train_options o = folder_options(NULL);
    tiny_result whole = tiny_run_ok(1, TINY, "uniform:3:8", o);
    /* with a checkpoint after every step most of the time goes into writing them, so most kills fall in there */
    o.checkpoint_every = 1;
    o.resume = 1;
    unsigned at = 500;
    for (int round = 0; round < 4; round++) {
        char name[32];
        (void)snprintf(name, sizeof name, "kill-%d", round);
        o.out = test_path(name);
        for (int i = 0; i < 5; i++) {
            at = at * 1103515245u + 12345u;
            run_and_kill(&o, 2000 + (at >> 8) % 200000);
        }
        tiny_result rest = tiny_run_ok(1, TINY, "uniform:3:8", o);
        assert_int_equal(rest.done, TINY_STEPS);
        assert_memory_equal(rest.weights, whole.weights, whole.count * sizeof(float));
        check_metrics(o.out, TINY_STEPS);
        check_clean(o.out);
        tiny_free(&rest);
    }
    tiny_free(&whole);
}

static void minutes_become_steps_once(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_dataset *data = tiny_data(rt);
    emo_train_options o = folder_options(test_path("minutes"));
    int64_t steps = 0;
    int64_t stop = 2;
    o.max_steps = 0;
    o.max_minutes = 0.05; /* of which only two steps are made */
    o.on_step_ctx = &stop;
    o.on_step = stop_at;
    for (int i = 0; i < 2; i++) {
        emo_model *model = tiny_model(rt, TINY);
        emo_trainer *t = NULL;
        EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
        if (i == 0) {
            assert_int_equal(emo_trainer_steps(t), 0);
            EXPECT_STATUS(emo_trainer_run(t, &err), EMO_E_CANCELLED, "after step 2");
            steps = emo_trainer_steps(t);
            assert_true(steps > 2);
        } else {
            assert_int_equal(emo_trainer_steps(t), steps);
            assert_int_equal(emo_trainer_at(t), 2);
        }
        emo_trainer_release(t);
        emo_model_release(model);
        o.resume = 1;
        o.on_step = NULL;
        o.max_minutes = 0.1; /* the plan is kept all the same */
    }
    emo_dataset_release(data);
    emo_runtime_release(rt);
}

/* A model of half precision trains on f32 masters: small steps are not lost. */
static void bf16_models_train(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_model_save_options save = EMO_MODEL_SAVE_OPTIONS_INIT;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_trainer *t = NULL;
    save.dtype = EMO_DTYPE_BF16;
    EXPECT_OK(emo_model_save(model, test_path("bf16"), &save, &err));
    emo_model_release(model);
    EXPECT_OK(emo_model_load_path(rt, test_path("bf16"), NULL, &model, &err));
    EXPECT_OK(emo_model_get_info(model, &info, &err));
    assert_int_equal(info.dtype, EMO_DTYPE_BF16);
    tiny_result before = {0};
    tiny_result after = {0};
    tiny_weights(model, &before);
    emo_train_options o = tiny_options();
    o.lr = 1e-7f; /* far below the resolution of bf16 */
    o.warmup = 0;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    EXPECT_OK(emo_trainer_run(t, &err));
    emo_trainer_release(t);
    EXPECT_OK(emo_model_get_info(model, &info, &err));
    assert_int_equal(info.dtype, EMO_DTYPE_F32);
    tiny_weights(model, &after);
    assert_memory_not_equal(before.weights, after.weights, before.count * sizeof(float));
    assert_true(test_max_diff(before.weights, after.weights, before.count) < 1e-5);
    tiny_free(&before);
    tiny_free(&after);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* At its steps, and at the end; what it says is what an evaluation says. */
static void validation(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(2, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    emo_dataset *data = tiny_data(rt);
    emo_dataset *valid = NULL;
    emo_dataset *strange = NULL;
    emo_trainer *t = NULL;
    emo_train_options o = tiny_options();
    int32_t token = 60;
    size_t one = 1;
    EXPECT_OK(emo_dataset_filter(data, NULL, 20, 1, &valid, &err));
    EXPECT_OK(emo_dataset_from_tokens(rt, &token, &one, NULL, 1, 1, &strange, &err));
    o.valid = strange;
    EXPECT_STATUS(emo_trainer_create(model, data, &o, &t, &err), EMO_E_MISMATCH, "validation");
    o.valid = valid;
    o.valid_every = 4;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    tiny_result r = {0};
    tiny_steps(t, &r);
    assert_int_equal(r.status, EMO_OK);
    emo_trainer_release(t);
    for (int64_t s = 1; s <= TINY_STEPS; s++)
        assert_int_equal(isfinite(r.metrics[s].valid_loss) != 0, s == 4 || s == TINY_STEPS);
    assert_true(r.metrics[TINY_STEPS].valid_loss < r.metrics[4].valid_loss);
    emo_eval_result sum = {0};
    emo_eval_options eo = EMO_EVAL_OPTIONS_INIT;
    eo.seq_len = o.seq_len;
    EXPECT_OK(emo_eval_documents(model, valid, &eo, &sum, NULL, NULL, &err));
    assert_true(fabs(sum.loss_sum / (double)sum.tokens - r.metrics[TINY_STEPS].valid_loss) < 1e-9);
    emo_dataset_release(valid);
    emo_dataset_release(strange);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

static void a_model_is_not_written_over(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    EXPECT_OK(emo_model_save(model, test_path("model"), NULL, &err));
    emo_model_release(model);
    emo_runtime_release(rt);
    for (int resume = 0; resume < 2; resume++) {
        emo_train_options o = folder_options(test_path("model"));
        o.resume = resume;
        tiny_result r = tiny_run(1, TINY, NULL, o);
        assert_int_equal(r.status, EMO_E_EXISTS);
        tiny_free(&r);
    }
}

TEST_FOLDER

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stopped_and_resumed_is_uninterrupted),
        cmocka_unit_test(a_checkpoint_by_hand),
        cmocka_unit_test(other_options_are_named),
        cmocka_unit_test(pools_are_compared_by_what_they_mean),
        cmocka_unit_test(killed_at_any_moment),
        cmocka_unit_test(minutes_become_steps_once),
        cmocka_unit_test(bf16_models_train),
        cmocka_unit_test(validation),
        cmocka_unit_test(a_model_is_not_written_over),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
