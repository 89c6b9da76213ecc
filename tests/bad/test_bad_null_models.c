/* SPDX-License-Identifier: Apache-2.0 */
/* The same for models and what works on them: see test_bad_null.c. */
#include "null_things.h"
#include <emo/sys/bench.h>

static void models(const things *t) {
    emo_model *model = NULL;
    emo_mask *mask = NULL;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_source *const sources[2] = {t->source, NULL};
    char text[16];
    float numbers[4];
    size_t n = 0;
    static const int32_t list[] = {0, 1, 2};
    emo_prune_options prune = EMO_PRUNE_OPTIONS_INIT;
    REFUSED(emo_model_create_json(NULL, "{}", 2, NULL, &model, e));
    REFUSED(emo_model_create_json(t->rt, NULL, 2, NULL, &model, e));
    REFUSED(emo_model_create_json(t->rt, "{}", 2, NULL, NULL, e));
    REFUSED(emo_model_load_path(NULL, "x", NULL, &model, e));
    REFUSED(emo_model_load_path(t->rt, NULL, NULL, &model, e));
    REFUSED(emo_model_load_path(t->rt, "x", NULL, NULL, e));
    REFUSED(emo_model_load_sources(NULL, "{}", 2, sources, 1, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, NULL, 2, sources, 1, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, NULL, 1, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, sources, 0, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, sources, 2, NULL, &model, e));
    REFUSED(emo_model_load_sources(t->rt, "{}", 2, sources, 1, NULL, NULL, e));
    REFUSED(emo_model_info_json(NULL, "{}", 2, &info, e));
    REFUSED(emo_model_info_json(t->rt, NULL, 2, &info, e));
    REFUSED(emo_model_info_json(t->rt, "{}", 2, NULL, e));
    REFUSED(emo_model_get_info(NULL, &info, e));
    REFUSED(emo_model_get_info(t->model, NULL, e));
    info.struct_size = 0;
    REFUSED(emo_model_get_info(t->model, &info, e));
    emo_cache_stats cache = EMO_CACHE_STATS_INIT;
    REFUSED(emo_model_get_cache_stats(NULL, &cache, e));
    REFUSED(emo_model_get_cache_stats(t->model, NULL, e));
    cache.struct_size = 0;
    REFUSED(emo_model_get_cache_stats(t->model, &cache, e));
    REFUSED(emo_model_config_json(NULL, text, 16, &n, e));
    REFUSED(emo_model_config_json(t->model, NULL, 16, &n, e));
    REFUSED(emo_model_set_tokenizer(NULL, t->tok, e));
    REFUSED(emo_model_set_compute(NULL, EMO_DTYPE_F32, e));
    REFUSED(emo_model_mask(NULL, &mask, e));
    REFUSED(emo_model_mask(t->model, NULL, e));
    REFUSED(emo_model_tensor_f32(NULL, "x", numbers, 4, &n, e));
    REFUSED(emo_model_tensor_f32(t->model, NULL, numbers, 4, &n, e));
    REFUSED(emo_model_tensor_f32(t->model, "x", NULL, 4, &n, e));
    REFUSED(emo_model_save(NULL, path, NULL, e));
    emo_export_info exported = {0};
    REFUSED(emo_model_export(NULL, path, NULL, NULL, e));
    REFUSED(emo_model_export(t->model, NULL, NULL, NULL, e));
    REFUSED(emo_model_export(t->model, path, NULL, &exported, e)); /* no struct_size */
    emo_export_options_init(NULL);
    emo_bench *bench = NULL;
    double seconds = 1.0, work = 1.0;
    REFUSED(emo_bench_create(NULL, NULL, &bench, e));
    REFUSED(emo_bench_create(t->rt, NULL, NULL, e));
    REFUSED(emo_bench_run(NULL, 1, &seconds, e));
    emo_bench_work(NULL, &work, NULL);
    emo_bench_work(NULL, NULL, NULL);
    assert_true(work == 0.0);
    emo_bench_options_init(NULL);
    emo_bench_release(NULL);
    emo_export_info_init(NULL);
    REFUSED(emo_model_save(t->model, NULL, NULL, e));
    REFUSED(emo_model_prune(NULL, t->mask, NULL, &model, e));
    REFUSED(emo_model_prune(t->model, NULL, NULL, &model, e));
    REFUSED(emo_model_prune(t->model, t->mask, NULL, NULL, e));
    prune.keep = list;
    REFUSED(emo_model_prune(t->model, NULL, &prune, &model, e));
    prune.keep_offsets = list;
    REFUSED(emo_model_prune(t->model, t->mask, &prune, &model, e)); /* both */
    REFUSED(emo_model_merge(NULL, t->model, NULL, &model, e));
    REFUSED(emo_model_merge(t->model, NULL, NULL, &model, e));
    REFUSED(emo_model_merge(t->model, t->model, NULL, NULL, e));
    assert_int_equal(emo_model_experts(NULL, 0), -1);
    assert_int_equal(emo_model_shared(NULL, 0), -1);
    assert_int_equal(emo_model_compute(NULL), EMO_DTYPE_F32);
    assert_int_equal(emo_model_original_expert(NULL, 0, 0), -1);
    assert_null(emo_model_tokenizer(NULL));
    emo_model_create_options_init(NULL);
    emo_model_load_options_init(NULL);
    emo_model_save_options_init(NULL);
    emo_model_info_init(NULL);
    emo_prune_options_init(NULL);
    emo_merge_options_init(NULL);
    emo_model_release(NULL);
    assert_true(model == NULL && mask == NULL);
}

static void statistics(const things *t) {
    emo_stats *stats = NULL;
    emo_mask *mask = NULL;
    double probs[16];
    int32_t ids[64];
    int32_t offsets[8];
    size_t n = 0;
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    options.keep = 4;
    REFUSED(emo_stats_collect(NULL, t->data, NULL, &stats, e));
    REFUSED(emo_stats_collect(t->model, NULL, NULL, &stats, e));
    REFUSED(emo_stats_collect(t->model, t->data, NULL, NULL, e));
    REFUSED(emo_stats_probs(NULL, 0, probs, 16, &n, e));
    REFUSED(emo_stats_probs(t->stats, 0, NULL, 16, &n, e));
    REFUSED(emo_stats_easy_ep(NULL, 0, probs, 16, &n, e));
    REFUSED(emo_stats_easy_ep(t->stats, 0, NULL, 16, &n, e));
    REFUSED(emo_stats_merge(NULL, t->stats, &stats, e));
    REFUSED(emo_stats_merge(t->stats, NULL, &stats, e));
    REFUSED(emo_stats_merge(t->stats, t->stats, NULL, e));
    REFUSED(emo_stats_save(NULL, "x", e));
    REFUSED(emo_stats_save(t->stats, NULL, e));
    REFUSED(emo_stats_load(NULL, "x", &stats, e));
    REFUSED(emo_stats_load(t->rt, NULL, &stats, e));
    REFUSED(emo_stats_load(t->rt, "x", NULL, e));
    assert_int_equal(emo_stats_tokens(NULL), 0);
    assert_int_equal(emo_stats_layers(NULL), 0);
    emo_stats_options_init(NULL);
    emo_stats_release(NULL);

    REFUSED(emo_select(NULL, t->data, &options, &mask, e));
    REFUSED(emo_select(t->model, NULL, &options, &mask, e));
    REFUSED(emo_select(t->model, t->data, &options, NULL, e));
    REFUSED(emo_select_experts(NULL, t->data, &options, ids, 64, &n, offsets, e));
    REFUSED(emo_select_experts(t->model, NULL, &options, ids, 64, &n, offsets, e));
    REFUSED(emo_select_experts(t->model, t->data, &options, NULL, 64, &n, offsets, e));
    REFUSED(emo_select_experts(t->model, t->data, &options, ids, 64, &n, NULL, e));
    REFUSED(emo_select_from_stats(NULL, t->stats, &options, &mask, e));
    REFUSED(emo_select_from_stats(t->model, NULL, &options, &mask, e));
    REFUSED(emo_select_from_stats(t->model, t->stats, &options, NULL, e));
    emo_select_options_init(NULL);
    assert_true(stats == NULL && mask == NULL);
}

static void evaluation_and_sessions(const things *t) {
    emo_eval_result total;
    emo_session *session = NULL;
    emo_mask *mask = NULL;
    emo_state state = 0;
    float logits[STAGES_VOCAB];
    static const int32_t token = 3;
    REFUSED(emo_eval_documents(NULL, t->data, NULL, &total, NULL, NULL, e));
    REFUSED(emo_eval_documents(t->model, NULL, NULL, &total, NULL, NULL, e));
    REFUSED(emo_eval_choices(NULL, t->items, NULL, &total, NULL, e));
    REFUSED(emo_eval_choices(t->model, NULL, NULL, &total, NULL, e));
    REFUSED(emo_eval_logits(NULL, &token, 1, NULL, logits, STAGES_VOCAB, e));
    REFUSED(emo_eval_logits(t->model, NULL, 1, NULL, logits, STAGES_VOCAB, e));
    REFUSED(emo_eval_logits(t->model, &token, 1, NULL, NULL, STAGES_VOCAB, e));
    emo_eval_options_init(NULL);

    const int32_t *tokens = &token;
    const float *logprobs = logits;
    REFUSED(emo_session_create(NULL, NULL, &session, e));
    REFUSED(emo_session_create(t->model, NULL, NULL, e));
    REFUSED(emo_session_append_text(NULL, "x", e));
    REFUSED(emo_session_append_text(t->session, NULL, e));
    int32_t sequence = 0;
    emo_session_statistics statistics = EMO_SESSION_STATISTICS_INIT;
    REFUSED(emo_session_append_text_to(NULL, 0, "x", e));
    REFUSED(emo_session_append_text_to(t->session, 0, NULL, e));
    REFUSED(emo_session_add(NULL, NULL, &sequence, e));
    REFUSED(emo_session_add(t->session, NULL, NULL, e));
    REFUSED(emo_session_cancel(NULL, 0, e));
    REFUSED(emo_session_remove(NULL, 0, e));
    REFUSED(emo_session_get_statistics(NULL, &statistics, e));
    REFUSED(emo_session_get_statistics(t->session, NULL, e));
    assert_int_equal(sequence, -1);
    REFUSED(emo_session_append_tokens(NULL, 0, &token, 1, e));
    REFUSED(emo_session_append_tokens(t->session, 0, NULL, 1, e));
    REFUSED(emo_session_advance(NULL, NULL, &state, e));
    REFUSED(emo_session_advance(t->session, NULL, NULL, e));
    REFUSED(emo_session_logits(NULL, 0, logits, STAGES_VOCAB, e));
    REFUSED(emo_session_logits(t->session, 0, NULL, STAGES_VOCAB, e));
    REFUSED(emo_session_pool(NULL, 0, &mask, e));
    REFUSED(emo_session_pool(t->session, 0, NULL, e));
    REFUSED(emo_session_reset(NULL, e));
    assert_string_equal(emo_session_text(NULL), "");
    assert_string_equal(emo_session_text_of(NULL, 0), "");
    assert_string_equal(emo_session_text_of(t->session, 99), "");
    assert_int_equal(emo_session_generated(NULL, 0, &tokens, &logprobs), 0);
    assert_int_equal(emo_session_replayed(NULL), 0);
    assert_true(tokens == NULL && logprobs == NULL);
    assert_int_equal(emo_session_generated(t->session, 0, NULL, NULL), 0);
    assert_int_equal(emo_session_stop_reason(NULL, 0), EMO_STOP_NONE);
    emo_session_options_init(NULL);
    emo_session_release(NULL);
    assert_true(session == NULL && mask == NULL);
}

static void tasks(const things *t) {
    emo_task_set *set = NULL;
    emo_task_results *results = NULL;
    emo_mask *mask = NULL;
    emo_task_info info;
    emo_task_group group;
    emo_task_column column;
    emo_task_score score;
    emo_task_item item;
    char text[64];
    size_t n = 0;
    emo_task_set_options_init(NULL);
    emo_task_run_options_init(NULL);
    REFUSED(emo_task_set_open(NULL, "x", NULL, &set, e));
    REFUSED(emo_task_set_open(t->rt, NULL, NULL, &set, e));
    REFUSED(emo_task_set_open(t->rt, "x", NULL, NULL, e));
    REFUSED(emo_task_set_from_json(NULL, "{}", 2, NULL, &set, e));
    REFUSED(emo_task_set_from_json(t->rt, NULL, 2, NULL, &set, e));
    REFUSED(emo_task_set_from_json(t->rt, "{}", 2, NULL, NULL, e));
    assert_int_equal(emo_task_set_tasks(NULL), 0);
    assert_int_equal(emo_task_set_groups(NULL), 0);
    assert_null(emo_task_set_metric(NULL, 0, 0));
    REFUSED(emo_task_set_task(NULL, 0, &info, e));
    REFUSED(emo_task_set_task(t->tasks, 0, NULL, e));
    REFUSED(emo_task_set_group(NULL, 0, &group, e));
    REFUSED(emo_task_set_group(t->tasks, 0, NULL, e));
    REFUSED(emo_task_set_prompt(NULL, 0, 0, 0, text, sizeof text, &n, e));
    REFUSED(emo_task_set_prompt(t->tasks, 0, 0, 0, NULL, sizeof text, &n, e));
    REFUSED(emo_task_set_prompt(t->tasks, 0, 0, 0, text, sizeof text, NULL, e));
    REFUSED(emo_task_set_continuation(NULL, 0, 0, 0, text, sizeof text, &n, e));
    REFUSED(emo_task_set_continuation(t->tasks, 0, 0, 0, NULL, sizeof text, &n, e));
    REFUSED(emo_task_set_continuation(t->tasks, 0, 0, 0, text, sizeof text, NULL, e));
    REFUSED(emo_task_run(NULL, t->tasks, NULL, &results, e));
    REFUSED(emo_task_run(t->model, NULL, NULL, &results, e));
    REFUSED(emo_task_run(t->model, t->tasks, NULL, NULL, e));
    assert_int_equal(emo_task_results_columns(NULL), 0);
    REFUSED(emo_task_results_column(NULL, 0, &column, e));
    REFUSED(emo_task_results_column(t->results, 0, NULL, e));
    REFUSED(emo_task_results_score(NULL, 0, 0, 0, &score, e));
    REFUSED(emo_task_results_score(t->results, 0, 0, 0, NULL, e));
    REFUSED(emo_task_results_group(NULL, 0, 0, &score, e));
    REFUSED(emo_task_results_group(t->results, 0, 0, NULL, e));
    REFUSED(emo_task_results_item(NULL, 0, 0, 0, &item, e));
    REFUSED(emo_task_results_item(t->results, 0, 0, 0, NULL, e));
    REFUSED(emo_task_results_mask(NULL, 0, 0, &mask, e));
    REFUSED(emo_task_results_mask(t->results, 0, 0, NULL, e));
    emo_task_results_release(NULL);
    emo_task_set_release(NULL);
}

static void training(const things *t) {
    emo_trainer *trainer = NULL;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;
    double lr = 0.0;
    options.max_steps = 5;
    REFUSED(emo_trainer_create(NULL, t->data, &options, &trainer, e));
    REFUSED(emo_trainer_create(t->model, NULL, &options, &trainer, e));
    REFUSED(emo_trainer_create(t->model, t->data, &options, NULL, e));
    REFUSED(emo_trainer_run(NULL, e));
    REFUSED(emo_trainer_step(NULL, NULL, e));
    REFUSED(emo_trainer_checkpoint(NULL, e));
    REFUSED(emo_trainer_checkpoint(t->trainer, e)); /* it has no folder */
    REFUSED(emo_schedule_lr(&options, 1, NULL, e));
    REFUSED(emo_schedule_lr(NULL, 1, &lr, e)); /* the defaults have no number of steps */
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT, unsized = {0};
    REFUSED(emo_train_plan_json(NULL, "{}", 2, NULL, NULL, &plan, e));
    REFUSED(emo_train_plan_json(t->rt, NULL, 2, NULL, NULL, &plan, e));
    REFUSED(emo_train_plan_json(t->rt, "{}", 2, NULL, NULL, NULL, e));
    REFUSED(emo_train_plan_json(t->rt, "{}", 2, NULL, NULL, &unsized, e));
    emo_train_plan_options_init(NULL);
    emo_train_profile_entry entry = EMO_TRAIN_PROFILE_ENTRY_INIT;
    REFUSED(emo_trainer_profile(NULL, 0, &entry, e));
    REFUSED(emo_trainer_profile(t->trainer, 0, NULL, e));
    assert_null(emo_train_part_name(-1));
    assert_null(emo_train_part_name(EMO_TRAIN_PART_OTHER + 1));
    assert_int_equal(emo_trainer_at(NULL), 0);
    assert_int_equal(emo_trainer_steps(NULL), 0);
    assert_int_equal(emo_trainer_replayed(NULL), 0);
    emo_train_options_init(NULL);
    emo_trainer_release(NULL);
    assert_null(trainer);
}

static void all(const things *t) {
    models(t);
    statistics(t);
    evaluation_and_sessions(t);
    tasks(t);
    training(t);
}

static void null_arguments_are_refused(void **state) {
    (void)state;
    things_try(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
