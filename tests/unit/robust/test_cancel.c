/* SPDX-License-Identifier: Apache-2.0 */
/* The progress hook cancels at its k-th call, for every k of every long call: EMO_E_CANCELLED, nothing leaks, and the
 * same objects do the same work afterwards. Progress itself: a phase, never more done than there is, never backwards
 * but to the beginning.
 */
#include "cancel_support.h"

static int32_t next_text(void *ctx, const char **text, size_t *length) {
    int *left = ctx;
    *text = "the cat sat on the mat and the rate of the loan is what it is";
    *length = strlen(*text);
    return (*left)-- > 0;
}

static emo_status tokenizer_train(watch *w, emo_error *err) {
    int left = 8;
    emo_text_reader reader = {&left, next_text};
    emo_tokenizer_train_options o = EMO_TOKENIZER_TRAIN_OPTIONS_INIT;
    emo_tokenizer *tok = NULL;
    o.vocab_size = 280;
    o.progress = watching(w);
    emo_status status = emo_tokenizer_train(rt, &o, &reader, &tok, err);
    assert_int_equal(tok != NULL, status == EMO_OK);
    emo_tokenizer_release(tok);
    return status;
}

/* A text long enough for reports in its middle. */
enum { LONG_TEXT = 300000 };
static char *long_text(void) {
    static const char words[] = "the cat sat on the mat 1234 and the rate of the loan, ";
    char *text = malloc(LONG_TEXT + 1);
    assert_non_null(text);
    for (size_t i = 0; i < LONG_TEXT; i++)
        text[i] = words[i % (sizeof words - 1)];
    text[LONG_TEXT] = '\0';
    return text;
}

static emo_status encode(watch *w, emo_error *err) {
    emo_tokenizer_encode_options o = EMO_TOKENIZER_ENCODE_OPTIONS_INIT;
    size_t n = 1;
    char *text = long_text();
    o.progress = watching(w);
    emo_status status = emo_tokenizer_encode_with(emo_model_tokenizer(model), &o, text, LONG_TEXT, NULL, 0, &n, err);
    assert_int_equal(n > 0, status == EMO_OK);
    free(text);
    return status;
}

static emo_status from_text(watch *w, emo_error *err) {
    char *text = long_text();
    const char *texts[3] = {"a cat", text, "a loan"};
    emo_dataset_options o = EMO_DATASET_OPTIONS_INIT;
    emo_dataset *got = NULL;
    o.progress = watching(w);
    emo_status status = emo_dataset_from_text_with(rt, emo_model_tokenizer(model), texts, NULL, 3, &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_dataset_release(got);
    free(text);
    return status;
}

static emo_status create(watch *w, emo_error *err) {
    static const char config[] = "{\"vocab_size\":150000,\"hidden_size\":16,\"intermediate_size\":8,"
                                 "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"num_experts\":4,"
                                 "\"num_experts_per_tok\":2,\"eos_token_id\":1}"; /* two matrices in several pieces */
    emo_model_create_options o = EMO_MODEL_CREATE_OPTIONS_INIT;
    emo_model *got = NULL;
    o.progress = watching(w);
    emo_status status = emo_model_create_json(rt, config, sizeof config - 1, &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_model_release(got);
    return status;
}

static emo_status eval_logits(watch *w, emo_error *err) {
    static const int32_t tokens[] = {3, 4, 5, 6};
    static float logits[4 * STAGES_VOCAB];
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    o.progress = watching(w);
    return emo_eval_logits(model, tokens, 4, &o, logits, 4 * STAGES_VOCAB, err);
}

static emo_status count_non_finite(watch *w, emo_error *err) {
    emo_model_info info = EMO_MODEL_INFO_INIT;
    info.non_finite = 1;
    info.progress = watching(w);
    emo_status status = emo_model_get_info(model, &info, err);
    assert_true(info.progress.ctx == w); /* the caller's, also afterwards */
    return status;
}

static emo_status append_text(watch *w, emo_error *err) {
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_session *session = NULL;
    char *text = long_text();
    text[200000] = '\0';
    o.progress = watching(w);
    MUST(emo_session_create(model, &o, &session, err));
    emo_status status = emo_session_append_text(session, text, err);
    if (status == EMO_E_LIMIT) /* it is longer than the session: encoded it was */
        status = EMO_OK;
    emo_session_release(session);
    free(text);
    return status;
}

static emo_status open_file(const char *path, watch *w, emo_error *err) {
    const char *paths[1] = {path};
    emo_dataset_options o = EMO_DATASET_OPTIONS_INIT;
    emo_dataset *got = NULL;
    o.progress = watching(w);
    emo_status status = emo_dataset_open(rt, paths, 1, emo_model_tokenizer(model), &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_dataset_release(got);
    return status;
}

static emo_status dataset_open(watch *w, emo_error *err) {
    char path[800];
    (void)snprintf(path, sizeof path, "%s/../d.jsonl", stages_model());
    return open_file(path, w, err);
}

static emo_status load(watch *w, emo_error *err) {
    emo_model_load_options o = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_model *got = NULL;
    o.progress = watching(w);
    o.dtype = EMO_DTYPE_BF16;
    emo_status status = emo_model_load_path(rt, stages_model(), &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_model_release(got);
    return status;
}

static emo_status save(watch *w, emo_error *err) {
    emo_model_save_options o = EMO_MODEL_SAVE_OPTIONS_INIT;
    o.progress = watching(w);
    return emo_model_save(model, folder, &o, err);
}

static emo_status collect(watch *w, emo_error *err) {
    emo_stats_options o = EMO_STATS_OPTIONS_INIT;
    emo_stats *stats = NULL;
    o.progress = watching(w);
    emo_status status = emo_stats_collect(model, data, &o, &stats, err);
    assert_int_equal(stats != NULL, status == EMO_OK);
    emo_stats_release(stats);
    return status;
}

static emo_status choose(emo_select_method method, watch *w, emo_error *err) {
    emo_select_options o = EMO_SELECT_OPTIONS_INIT;
    emo_mask *mask = NULL;
    o.method = method;
    o.keep = 4;
    o.progress = watching(w);
    emo_status status = emo_select(model, data, &o, &mask, err);
    assert_int_equal(mask != NULL, status == EMO_OK);
    emo_mask_release(mask);
    return status;
}
static emo_status select_usage(watch *w, emo_error *err) { return choose(EMO_SELECT_USAGE, w, err); }
static emo_status select_layerwise(watch *w, emo_error *err) { return choose(EMO_SELECT_LAYERWISE, w, err); }
static emo_status select_easy_ep(watch *w, emo_error *err) { return choose(EMO_SELECT_EASY_EP, w, err); }

static emo_status evaluate(watch *w, emo_error *err) {
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    emo_eval_result total;
    o.progress = watching(w);
    o.batch_tokens = 8;
    return emo_eval_documents(model, data, &o, &total, NULL, NULL, err);
}

static emo_status evaluate_choices(watch *w, emo_error *err) {
    char path[800];
    (void)snprintf(path, sizeof path, "%s/../mc.jsonl", stages_model());
    emo_eval_options o = EMO_EVAL_OPTIONS_INIT;
    emo_eval_result total;
    emo_choices *items = NULL;
    o.progress = watching(w);
    MUST(emo_choices_open(rt, path, &items, err));
    emo_status status = emo_eval_choices(model, items, &o, &total, NULL, err);
    emo_choices_release(items);
    return status;
}

static emo_status load_sources(watch *w, emo_error *err) {
    char path[800];
    (void)snprintf(path, sizeof path, "%s/model.safetensors", stages_model());
    emo_model_load_options o = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_source *source = NULL;
    emo_model *got = NULL;
    o.progress = watching(w);
    MUST(emo_source_open_path(rt, path, &source, err));
    emo_status status = emo_model_load_sources(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), (emo_source *const *)&source,
                                               1, &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_model_release(got);
    emo_source_release(source);
    return status;
}

static emo_mask *some_experts(emo_error *err) {
    emo_select_options o = EMO_SELECT_OPTIONS_INIT;
    emo_mask *mask = NULL;
    o.method = EMO_SELECT_RANDOM;
    o.keep = 4;
    MUST(emo_select(model, data, &o, &mask, err));
    return mask;
}

static emo_status prune(watch *w, emo_error *err) {
    emo_prune_options o = EMO_PRUNE_OPTIONS_INIT;
    emo_mask *mask = some_experts(err);
    emo_model *got = NULL;
    o.progress = watching(w);
    emo_status status = emo_model_prune(model, mask, &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_model_release(got);
    emo_mask_release(mask);
    return status;
}

static emo_status merge(watch *w, emo_error *err) {
    emo_merge_options o = EMO_MERGE_OPTIONS_INIT;
    emo_mask *mask = some_experts(err);
    emo_model *child = NULL;
    emo_model *got = NULL;
    o.progress = watching(w);
    o.rest = 1;
    MUST(emo_model_prune(model, mask, NULL, &child, err));
    emo_status status = emo_model_merge(model, child, &o, &got, err);
    assert_int_equal(got != NULL, status == EMO_OK);
    emo_model_release(got);
    emo_model_release(child);
    emo_mask_release(mask);
    return status;
}

/* A document of more than 4 MB: reports in its middle. */
static emo_status open_long(watch *w, emo_error *err) {
    static char path[800];
    if (path[0] == '\0') {
        (void)snprintf(path, sizeof path, "%s/../long.txt", stages_model());
        char *text = long_text();
        FILE *file = fopen(path, "wb");
        assert_non_null(file);
        for (int i = 0; i < 15; i++)
            assert_int_equal(fwrite(text, 1, LONG_TEXT, file), LONG_TEXT);
        assert_int_equal(fclose(file), 0);
        free(text);
    }
    return open_file(path, w, err);
}

static emo_status advance(watch *w, emo_error *err) {
    static int32_t want[3];
    static int known;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_session *session = NULL;
    emo_state state = EMO_STATE_PENDING;
    o.progress = watching(w);
    o.max_tokens = 3;
    o.ignore_eos = 1;
    MUST(emo_session_create(model, &o, &session, err));
    emo_status status = emo_session_append_text(session, "the cat sat on the mat", err);
    emo_error ignored = EMO_ERROR_INIT;
    if (status != EMO_OK && emo_session_append_text(session, "the cat sat on the mat", &ignored) != EMO_OK)
        fail_msg("append again: %s", ignored.message);
    while (status == EMO_OK && state != EMO_STATE_DONE)
        status = emo_session_advance(session, NULL, &state, err);
    while (state != EMO_STATE_DONE) { /* it resumes where it was */
        if (emo_session_advance(session, NULL, &state, &ignored) != EMO_OK)
            fail_msg("advance again: %s", ignored.message);
    }
    const int32_t *tokens = NULL;
    assert_int_equal(emo_session_generated(session, 0, &tokens, NULL), 3);
    if (known)
        assert_memory_equal(tokens, want, sizeof want);
    memcpy(want, tokens, sizeof want);
    known = 1;
    emo_session_release(session);
    return status;
}

static emo_status tasks_open(watch *w, emo_error *err) {
    emo_progress progress = watching(w);
    emo_task_set *set = NULL;
    emo_status status = stages_open_tasks(rt, &progress, &set, err);
    assert_int_equal(set != NULL, status == EMO_OK);
    emo_task_set_release(set);
    return status;
}

static emo_status tasks_run(emo_select_method method, watch *w, emo_error *err) {
    emo_progress progress = watching(w);
    emo_task_set *set = NULL;
    emo_task_results *results = NULL;
    MUST(stages_open_tasks(rt, NULL, &set, err));
    emo_status status = stages_run_tasks(model, set, method, &progress, &results, err);
    assert_int_equal(results != NULL, status == EMO_OK);
    emo_task_results_release(results);
    emo_task_set_release(set);
    return status;
}
static emo_status tasks_usage(watch *w, emo_error *err) { return tasks_run(EMO_SELECT_USAGE, w, err); }
static emo_status tasks_layerwise(watch *w, emo_error *err) { return tasks_run(EMO_SELECT_LAYERWISE, w, err); }

static void every_long_call_can_be_cancelled_anywhere(void **state) {
    static const cancelled_call calls[] = {
        {"tokenizer train", tokenizer_train, 2},
        {"encode", encode, 4},
        {"dataset from text", from_text, 5},
        {"model create", create, 2},
        {"dataset open", dataset_open, 1},
        {"dataset open, a long document", open_long, 20},
        {"load", load, 2},
        {"load from sources", load_sources, 2},
        {"save", save, 2},
        {"stats", collect, 2},
        {"select by usage", select_usage, 2},
        {"select layerwise", select_layerwise, 2},
        {"select by EASY-EP", select_easy_ep, 2},
        {"prune", prune, 2},
        {"merge", merge, 4},
        {"eval", evaluate, 2},
        {"eval of choices", evaluate_choices, 2},
        {"logits", eval_logits, 2},
        {"weights that are no numbers", count_non_finite, 1},
        {"tasks open", tasks_open, 4},
        {"tasks run, subsets by usage", tasks_usage, 20},
        {"tasks run, subsets layerwise", tasks_layerwise, 20},
        {"append text", append_text, 2},
        {"advance", advance, 4},
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
