/* SPDX-License-Identifier: Apache-2.0 */
/* The N-th allocation fails, for every N of every stage of a model's life: EMO_E_OUT_OF_MEMORY each time, nothing
 * leaks, and what is still there can be used or released. Once the N-th alone fails, once all from the N-th on (that,
 * and the round trip through all stages, for a sample of N outside the long form). */
#include <unistd.h>

#include "support/meter.h"
#include "support/stages.h"

/* Thousands of files are written: a disk that is asked to keep each of them would take minutes. */
int fsync(int fd) { return fd < 0 ? -1 : 0; }

static meter hook = METER_INIT;

static long fail_every_one(const stage *s, int sticky) {
    long last = 0;
    long stride = 1;
    for (long n = -1; n < last; n += n < 0 ? 1 : stride) {
        emo_error err = EMO_ERROR_INIT;
        stages_clean();
        emo_runtime *rt = meter_runtime(&hook, 1);
        meter_arm(&hook, n, sticky);
        emo_status status = s->run(rt, &err);
        long refused = atomic_load(&hook.refused);
        meter_disarm(&hook);
        if (n < 0) {
            if (status != EMO_OK)
                fail_msg("%s: %s: %s", s->name, emo_status_name(status), err.message);
            last = atomic_load(&hook.calls);
            stride = stages_stride(last, s->whole || sticky != 0 ? 60 : last);
        } else if (refused > 0 && status != EMO_E_OUT_OF_MEMORY) {
            fail_msg("%s, allocation %ld of %ld: %s: %s", s->name, n, last, emo_status_name(status), err.message);
        } else if (refused > 0) {
            assert_int_equal(err.code, status);
            assert_true(err.message[0] != '\0');
        }
        emo_runtime_release(rt);
        char what[64];
        (void)snprintf(what, sizeof what, "%s, allocation %ld", s->name, n);
        meter_check(&hook, what);
    }
    print_message("%s: %ld allocations, %s\n", s->name, last, sticky != 0 ? "all from one on" : "one at a time");
    return last;
}

static void every_stage_survives(void **state) {
    (void)state;
    long total = 0;
    for (const stage *s = stages; s->run != NULL; s++) {
        total += fail_every_one(s, 0);
        (void)fail_every_one(s, 1);
    }
    assert_true(total > 500);
}

static void runtimes(void **state) {
    (void)state;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 3;
    options.allocator = meter_hooks(&hook);
    int threads = count_threads();
    long last = 1;
    for (long n = -1; n < last; n++) {
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *rt = NULL;
        meter_arm(&hook, n, 0);
        emo_status status = emo_runtime_create(&options, &rt, &err);
        meter_disarm(&hook);
        if (n < 0)
            last = atomic_load(&hook.calls);
        assert_int_equal(status, n < 0 ? EMO_OK : EMO_E_OUT_OF_MEMORY);
        assert_int_equal(rt == NULL, n >= 0);
        emo_runtime_release(rt);
        meter_check(&hook, "runtime");
        assert_int_equal(settled_threads(threads), threads);
    }
}

/* A step that ran out of memory is done again with the same result; so is an advance. */
static void objects_go_on(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    double want[2] = {0, 0};
    for (long n = -1;; n++) {
        stages_clean();
        emo_runtime *rt = meter_runtime(&hook, 1);
        emo_model *model = NULL;
        emo_dataset *data = NULL;
        emo_trainer *trainer = NULL;
        emo_train_options options = stages_train_options();
        EXPECT_OK(stages_open_model(rt, &model, &err));
        EXPECT_OK(stages_open_data(rt, &data, &err));
        options.out = stages_run();
        options.checkpoint_every = 1;
        EXPECT_OK(emo_trainer_create(model, data, &options, &trainer, &err));
        long failures = 0;
        for (int s = 0; s < 2; s++) { /* a wrong first step would show in the second one's loss */
            emo_step_metrics m = {0};
            m.struct_size = sizeof m;
            meter_arm(&hook, n, 0);
            emo_status status = emo_trainer_step(trainer, &m, &err);
            if (status == EMO_OK)
                status = emo_trainer_checkpoint(trainer, &err);
            failures += atomic_load(&hook.refused);
            meter_disarm(&hook);
            if (status != EMO_OK) {
                assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
                if (emo_trainer_at(trainer) == s)
                    EXPECT_OK(emo_trainer_step(trainer, &m, &err));
                EXPECT_OK(emo_trainer_checkpoint(trainer, &err));
            }
            assert_int_equal(emo_trainer_at(trainer), s + 1);
            if (n < 0)
                want[s] = m.total_loss;
            else if (m.step == s + 1 && m.total_loss != want[s]) /* 0: done, and its checkpoint failed */
                fail_msg("allocation %ld, step %d: %.17g, not %.17g", n, s + 1, m.total_loss, want[s]);
        }
        emo_trainer_release(trainer);
        emo_dataset_release(data);
        emo_model_release(model);
        emo_runtime_release(rt);
        meter_check(&hook, "trainer");
        if (n >= 0 && failures == 0)
            break;
    }
}

/* A trainer that could not be made leaves the model as it was. */
static void models_go_on(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int32_t tokens[] = {1, 2, 3};
    float want[3 * STAGES_VOCAB];
    float got[3 * STAGES_VOCAB];
    for (long n = -1;; n++) {
        emo_runtime *rt = meter_runtime(&hook, 1);
        emo_model *model = NULL;
        emo_dataset *data = NULL;
        emo_trainer *trainer = NULL;
        emo_train_options options = stages_train_options();
        EXPECT_OK(stages_open_model(rt, &model, &err));
        EXPECT_OK(stages_open_data(rt, &data, &err));
        meter_arm(&hook, n, 0);
        emo_status status = emo_trainer_create(model, data, &options, &trainer, &err);
        meter_disarm(&hook);
        emo_trainer_release(trainer);
        EXPECT_OK(emo_eval_logits(model, tokens, 3, NULL, n < 0 ? want : got, 3 * STAGES_VOCAB, &err));
        if (n >= 0)
            assert_memory_equal(want, got, sizeof want);
        emo_dataset_release(data);
        emo_model_release(model);
        emo_runtime_release(rt);
        meter_check(&hook, "model");
        if (n >= 0 && status == EMO_OK)
            break;
        assert_int_equal(status, n < 0 ? EMO_OK : EMO_E_OUT_OF_MEMORY);
    }
}

static void sessions_go_on(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    int32_t want[6];
    for (long n = -1;; n++) {
        emo_runtime *rt = meter_runtime(&hook, 1);
        emo_model *model = NULL;
        emo_session *session = NULL;
        emo_session_options options = EMO_SESSION_OPTIONS_INIT;
        options.max_tokens = 6;
        options.ignore_eos = 1;
        emo_state at = EMO_STATE_PENDING;
        EXPECT_OK(stages_open_model(rt, &model, &err));
        EXPECT_OK(emo_session_create(model, &options, &session, &err));
        EXPECT_OK(emo_session_append_text(session, "the cat sat", &err));
        meter_arm(&hook, n, 0);
        emo_status status = EMO_OK;
        while (status == EMO_OK && at != EMO_STATE_DONE)
            status = emo_session_advance(session, NULL, &at, &err);
        long failures = atomic_load(&hook.refused);
        meter_disarm(&hook);
        if (status != EMO_OK) {
            assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
            while (at != EMO_STATE_DONE)
                EXPECT_OK(emo_session_advance(session, NULL, &at, &err));
        }
        const int32_t *tokens = NULL;
        assert_int_equal(emo_session_generated(session, 0, &tokens, NULL), 6);
        if (n < 0)
            memcpy(want, tokens, sizeof want);
        else
            assert_memory_equal(tokens, want, sizeof want);
        emo_session_release(session);
        emo_model_release(model);
        emo_runtime_release(rt);
        meter_check(&hook, "session");
        if (n >= 0 && failures == 0)
            break;
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(runtimes),       cmocka_unit_test(objects_go_on),        cmocka_unit_test(models_go_on),
        cmocka_unit_test(sessions_go_on), cmocka_unit_test(every_stage_survives),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
