/* SPDX-License-Identifier: Apache-2.0 */
/* Generation tasks on a model that says the alphabet of a script: texts, stops, and metrics worked out by hand. */
#include <emo/emo.h>
#include <math.h>

#include "support/folder.h"
#include "unit/infer/infer_support.h"

static emo_runtime *rt;
static emo_model *model;

static void put(const char *name, const char *text) { (void)test_write(name, text, strlen(text)); }

static int setup(void **state) {
    (void)state;
    (void)test_folder();
    rt = test_runtime(2, EMO_ISA_AUTO);
    model = test_chain_model(rt, "abc def.\n42"); /* after a: "bc def.\n42", then end-of-text */
    put("items.jsonl", "{\"p\": \"Say: a\", \"r\": [\"The bc def 42\"]}\n"
                       "{\"p\": \"Q c\", \"r\": [\"xyz\", \"def ghi\"]}\n"
                       "{\"p\": \"of a\", \"r\": \"bc\"}\n"
                       "{\"p\": \".\", \"r\": 42.0}\n"
                       "{\"p\": \"a long way to the letter d\", \"r\": [\"ef\", \"ef 42\"]}\n");
    return 0;
}
static int teardown(void **state) {
    (void)state;
    emo_model_release(model);
    emo_runtime_release(rt);
    test_folder_remove();
    return 0;
}

/* `more`: keys after the others. */
static emo_task_results *run(const char *more, const emo_task_run_options *options) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = NULL;
    emo_task_results *results = NULL;
    char tasks[1024];
    (void)snprintf(tasks, sizeof tasks,
                   "{\"tasks\": [{\"name\": \"g\", \"type\": \"generation\", \"data\": \"items.jsonl\", \"prompt\": "
                   "\"{p}\", \"answer\": \"r\"%s}]}",
                   more);
    put("tasks.json", tasks);
    EXPECT_OK(emo_task_set_open(rt, test_path("tasks.json"), NULL, &set, &err));
    EXPECT_OK(emo_task_run(model, set, options, &results, &err));
    emo_task_set_release(set); /* the results keep it */
    return results;
}

static void expect(emo_task_results *results, const char *const texts[5], const double *const values[], int32_t n) {
    emo_error err = EMO_ERROR_INIT;
    for (int32_t m = 0; m < n; m++) {
        emo_task_score score;
        double sum = 0.0;
        for (int64_t i = 0; i < 5; i++) {
            emo_task_item item;
            EXPECT_OK(emo_task_results_item(results, 0, 0, i, &item, &err));
            assert_string_equal(item.text, texts[i]);
            assert_null(item.logprobs);
            assert_int_equal(item.choices, 0);
            assert_int_equal(item.answer, -1);
            if (m == 0 && fabs(item.value - values[0][i]) > 1e-12)
                fail_msg("item %d: %g, want %g", (int)i, item.value, values[0][i]);
            sum += values[m][i];
        }
        EXPECT_OK(emo_task_results_score(results, 0, 0, m, &score, &err));
        if (fabs(score.value - sum / 5.0) > 1e-12)
            fail_msg("metric %d: %g, want %g", (int)m, score.value, sum / 5.0);
        assert_int_equal(score.items, 5);
    }
    emo_task_results_release(results);
}

static void texts_and_metrics(void **state) {
    (void)state;
    static const char *const all[] = {"bc def.\n42", " def.\n42", "bc def.\n42", "\n42", "ef.\n42"};
    static const double exact[] = {1, 0, 0, 1, 1};
    static const double f1[] = {1, 0.5, 0.5, 1, 1};
    static const double prefix[] = {1, 0, 1, 1, 1};
    const double *const three[] = {exact, f1, prefix};
    for (int32_t lanes = 0; lanes < 4; lanes++) { /* how many at once changes nothing */
        emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
        options.sequences = lanes;
        expect(run(", \"metrics\": [\"exact_match\", \"f1\", \"prefix_match\"]", &options), all, three, 3);
    }
    static const char *const stopped[] = {"bc def", " def", "bc def", "", "ef"};
    static const double stopped_f1[] = {0.8, 2.0 / 3.0, 2.0 / 3.0, 0, 1};
    const double *const one[] = {stopped_f1};
    expect(run(", \"metrics\": \"f1\", \"stop\": [\".\", \"\\n\"]", NULL), stopped, one, 1);
    static const char *const two[] = {"bc", " d", "bc", "\n4", "ef"};
    static const double two_exact[] = {0, 0, 1, 0, 1};
    const double *const exact_only[] = {two_exact};
    expect(run(", \"max_tokens\": 2, \"metrics\": [\"exact_match\"]", NULL), two, exact_only, 1);
    static const double numbers[] = {1, 0, 0, 1, 1};
    const double *const last[] = {numbers};
    expect(run(", \"extract\": \"last_number\", \"metrics\": [\"exact_match\"]", NULL), all, last, 1);
    static const double as_is[] = {0, 0, 0, 0, 0};
    const double *const strict[] = {as_is};
    expect(run(", \"normalise\": [], \"metrics\": [\"exact_match\"]", NULL), all, strict, 1);
    static const double after[] = {0, 0, 0, 1, 0}; /* "42" after the point, against answers without one */
    const double *const behind[] = {after};
    expect(run(", \"after\": \".\", \"normalise\": [\"space\"], \"metrics\": [\"exact_match\"]", NULL), all, behind, 1);
}

static void long_prompts_lose_their_beginning(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const char *const two[] = {"bc", " d", "bc", "\n4", "ef"};
    emo_task_run_options options = EMO_TASK_RUN_OPTIONS_INIT;
    options.seq_len = 6; /* four tokens of prompt, or eos and three */
    emo_task_results *results = run(", \"max_tokens\": 2", &options);
    for (int64_t i = 0; i < 5; i++) {
        static const int32_t truncated[] = {1, 0, 1, 0, 1};
        emo_task_item item;
        EXPECT_OK(emo_task_results_item(results, 0, 0, i, &item, &err));
        assert_string_equal(item.text, two[i]);
        assert_int_equal(item.truncated, truncated[i]);
    }
    emo_task_results_release(results);
    emo_task_set *set = NULL;
    EXPECT_OK(emo_task_set_open(rt, test_path("tasks.json"), NULL, &set, &err));
    options.seq_len = 2;
    EXPECT_STATUS(emo_task_run(model, set, &options, &results, &err), EMO_E_LIMIT, "max_tokens is 2");
    emo_task_set_release(set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_and_metrics),
        cmocka_unit_test(long_prompts_lose_their_beginning),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
