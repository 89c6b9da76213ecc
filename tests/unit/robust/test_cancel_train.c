/* SPDX-License-Identifier: Apache-2.0 */
/* Training cancelled at every report: trainers while they are made or read a checkpoint, steps, validation,
 * checkpoints. What is in the run folder can be gone on with to the same bits. */
#include "cancel_support.h"

static emo_status train(watch *w, emo_error *err) {
    static float want[STAGES_VOCAB * 16];
    static float got[STAGES_VOCAB * 16];
    static int known;
    size_t n = 0;
    emo_model *own = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = stages_train_options();
    emo_error ignored = EMO_ERROR_INIT;
    MUST(stages_open_model(rt, &own, err));
    stages_clean();
    o.progress = watching(w);
    o.accumulate = 2;
    o.balance_scope = EMO_BALANCE_WINDOW; /* counts of a micro-batch that was cancelled must not stay */
    o.out = stages_run();
    o.checkpoint_every = 1;
    o.valid = data;
    o.valid_every = 1;
    emo_status status = emo_trainer_create(own, data, &o, &trainer, err);
    if (status == EMO_OK)
        status = emo_trainer_run(trainer, err);
    if (status == EMO_E_CANCELLED) {
        w->cancel_at = -1;
        if (trainer == NULL && emo_trainer_create(own, data, &o, &trainer, &ignored) != EMO_OK)
            fail_msg("create again: %s", ignored.message);
        emo_status rest = emo_trainer_run(trainer, &ignored);
        if (rest != EMO_OK)
            fail_msg("run again: %s", ignored.message);
        assert_int_equal(emo_trainer_at(trainer), 2);
    }
    emo_trainer_release(trainer);
    if (emo_model_tensor_f32(own, "model.embed_tokens.weight", got, STAGES_VOCAB * 16, &n, &ignored) != EMO_OK)
        fail_msg("weights: %s", ignored.message);
    if (known)
        assert_memory_equal(got, want, sizeof want);
    memcpy(want, got, sizeof want);
    known = 1;
    emo_model_release(own);
    return status;
}

/* A run without a checkpoint before its last step but those that are asked for. */
static emo_train_options three_steps(void) {
    emo_train_options o = stages_train_options();
    o.max_steps = 3;
    o.checkpoint_every = 0;
    return o;
}

/* What is in the run folder can be gone on with, to the weights of an uninterrupted run. */
static void expect_resumable(int64_t at_least, emo_error *err) {
    static float want[STAGES_VOCAB * 16];
    static float got[STAGES_VOCAB * 16];
    static int known;
    size_t n = 0;
    emo_model *own = NULL;
    emo_trainer *trainer = NULL;
    emo_error ignored = EMO_ERROR_INIT;
    emo_train_options o = three_steps();
    o.out = stages_run();
    o.resume = 1;
    err = &ignored;
    MUST(stages_open_model(rt, &own, err));
    MUST(emo_trainer_create(own, data, &o, &trainer, err));
    assert_true(emo_trainer_at(trainer) >= at_least);
    MUST(emo_trainer_run(trainer, err));
    emo_trainer_release(trainer);
    MUST(emo_model_tensor_f32(own, "model.embed_tokens.weight", got, STAGES_VOCAB * 16, &n, err));
    if (known)
        assert_memory_equal(got, want, sizeof want);
    memcpy(want, got, sizeof want);
    known = 1;
    emo_model_release(own);
}

/* The second checkpoint of a run is cancelled: the first one is whole, and the trainer writes the second again. */
static emo_status checkpoint(watch *w, emo_error *err) {
    long cancel_at = w->cancel_at;
    emo_model *own = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = three_steps();
    MUST(stages_open_model(rt, &own, err));
    stages_clean();
    o.out = stages_run();
    o.progress = watching(w);
    w->cancel_at = -1;
    MUST(emo_trainer_create(own, data, &o, &trainer, err));
    MUST(emo_trainer_step(trainer, NULL, err));
    MUST(emo_trainer_checkpoint(trainer, err));
    MUST(emo_trainer_step(trainer, NULL, err));
    long before = w->calls;
    w->calls = 0;
    w->cancel_at = cancel_at;
    emo_status status = emo_trainer_checkpoint(trainer, err);
    if (status == EMO_E_CANCELLED && cancel_at % 2 == 0) {
        w->cancel_at = -1;
        emo_error ignored = EMO_ERROR_INIT;
        if (emo_trainer_checkpoint(trainer, &ignored) != EMO_OK)
            fail_msg("checkpoint again: %s", ignored.message);
    }
    emo_trainer_release(trainer);
    emo_model_release(own);
    expect_resumable(status == EMO_E_CANCELLED && cancel_at % 2 != 0 ? 1 : 2, err);
    assert_true(before > 0);
    return status;
}

/* Creating a trainer with options that change the model, and one that reads a checkpoint: cancelled, no trainer, the
 * model keeps its options, and the folder is as it was. */
static emo_status create_trainer(watch *w, emo_error *err) {
    emo_model *own = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = stages_train_options();
    MUST(stages_open_model(rt, &own, err));
    o.progress = watching(w);
    o.gating = EMO_ROUTER_SIGMOID;
    o.score_bias_rate = 0.01f;
    size_t tensors = own->n_params;
    emo_status status = emo_trainer_create(own, data, &o, &trainer, err);
    assert_int_equal(trainer != NULL, status == EMO_OK);
    assert_true((own->config.gating != 0) == (status == EMO_OK));
    assert_int_equal(own->n_params, status == EMO_OK ? tensors + 2 : tensors);
    emo_trainer_release(trainer);
    if (status != EMO_OK) { /* as it was: it can be saved for others */
        emo_error ignored = EMO_ERROR_INIT;
        if (emo_model_save(own, folder, NULL, &ignored) != EMO_OK)
            fail_msg("save: %s", ignored.message);
    }
    emo_model_release(own);
    return status;
}

static emo_status resume(watch *w, emo_error *err) {
    static int made;
    emo_model *own = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = three_steps();
    o.out = stages_run();
    if (!made) {
        stages_clean();
        MUST(stages_open_model(rt, &own, err));
        MUST(emo_trainer_create(own, data, &o, &trainer, err));
        MUST(emo_trainer_step(trainer, NULL, err));
        MUST(emo_trainer_checkpoint(trainer, err));
        emo_trainer_release(trainer);
        emo_model_release(own);
        trainer = NULL;
        made = 1;
    }
    MUST(stages_open_model(rt, &own, err));
    o.resume = 1;
    o.progress = watching(w);
    emo_status status = emo_trainer_create(own, data, &o, &trainer, err);
    assert_int_equal(trainer != NULL, status == EMO_OK);
    if (trainer == NULL) { /* the same model, again */
        emo_error ignored = EMO_ERROR_INIT;
        w->cancel_at = -1;
        if (emo_trainer_create(own, data, &o, &trainer, &ignored) != EMO_OK)
            fail_msg("resume again: %s", ignored.message);
    }
    assert_int_equal(emo_trainer_at(trainer), 1);
    emo_trainer_release(trainer);
    emo_model_release(own);
    return status;
}

static void every_long_call_can_be_cancelled_anywhere(void **state) {
    static const cancelled_call calls[] = {
        {"train", train, 4},
        {"create a trainer", create_trainer, 4},
        {"checkpoint", checkpoint, 8},
        {"resume", resume, 8},
    };
    (void)state;
    cancel_anywhere(calls, sizeof calls / sizeof calls[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_long_call_can_be_cancelled_anywhere),
    };
    return cmocka_run_group_tests(tests, cancel_setup, cancel_teardown);
}
