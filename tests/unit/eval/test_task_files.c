/* SPDX-License-Identifier: Apache-2.0 */
/* What task files and data files become: prompts to the byte, answers in every form, splits, examples, groups. */
#include <emo/emo.h>

#include "support/folder.h"

TEST_RUNTIME_AND_FOLDER(1, EMO_ISA_AUTO)

static void put(const char *name, const char *text) { (void)test_write(name, text, strlen(text)); }

static emo_task_set *open_set(const char *tasks) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = NULL;
    put("tasks.json", tasks);
    EXPECT_OK(emo_task_set_open(rt, test_path("tasks.json"), NULL, &set, &err));
    return set;
}

static void expect_prompt(const emo_task_set *set, int32_t task, int64_t item, int32_t choice, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    static char text[4096];
    size_t size = 0;
    EXPECT_OK(emo_task_set_prompt(set, task, item, choice, text, sizeof text, &size, &err));
    assert_string_equal(text, want);
    assert_int_equal(size, strlen(want) + 1);
}

static void expect_continuation(const emo_task_set *set, int32_t task, int64_t item, int32_t choice, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    static char text[4096];
    size_t size = 0;
    EXPECT_OK(emo_task_set_continuation(set, task, item, choice, text, sizeof text, &size, &err));
    assert_string_equal(text, want);
}

#define ARC                                                                                                            \
    "{\"q\": \"Which is hot?\", \"choices\": {\"text\": [\"ice\", \"fire\"], \"label\": [\"A\", \"B\"]}, \"key\": "    \
    "\"B\"}\n"                                                                                                         \
    "\n"                                                                                                               \
    "{\"q\": \"2+2\", \"choices\": {\"text\": [3, 4, 5], \"label\": [\"1\", \"2\", \"3\"]}, \"key\": \"2\"}\r\n"

static void prompts_to_the_byte(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    put("arc.jsonl", ARC);
    put("dev.jsonl", "{\"q\": \"One?\", \"choices\": {\"text\": [\"x\", \"y\"], \"label\": [\"A\", \"B\"]}, \"key\": "
                     "\"A\"}\n{\"q\": \"Two?\", \"choices\": {\"text\": [\"u\", \"v\"], \"label\": [\"A\", \"B\"]}, "
                     "\"key\": \"B\"}\n");
    emo_task_set *set = open_set(
        "{\"tasks\": [{\"name\": \"arc\", \"type\": \"multiple_choice\", \"data\": \"arc.jsonl\","
        "\"choices\": \"choices.text\", \"labels\": \"choices.label\", \"answer\": \"key\", \"answer_is\": \"label\","
        "\"description\": \"Look:\\n\", \"prompt\": \"Q: {q}\\n{choices}A:\", \"continuation\": \" {letter}\","
        "\"examples\": {\"count\": 2, \"data\": \"dev.jsonl\"}, \"separator\": \"\\n--\\n\"},"
        "{\"name\": \"cloze\", \"type\": \"multiple_choice\", \"data\": [\"arc.jsonl\", \"dev.jsonl\"],"
        "\"choices\": \"choices.text\", \"labels\": \"choices.label\", \"answer\": \"key\", \"answer_is\": \"label\","
        "\"prompt\": \"{{{q|lower|before ?}}}\", \"limit\": 1}]}");
    assert_int_equal(emo_task_set_tasks(set), 2);
    assert_int_equal(emo_task_set_groups(set), 0);
    emo_task_info info;
    EXPECT_OK(emo_task_set_task(set, 0, &info, &err));
    assert_string_equal(info.name, "arc");
    assert_int_equal(info.items, 2);
    assert_int_equal(info.examples, 2);
    assert_int_equal(info.most_choices, 3);
    assert_int_equal(info.metrics, 2);
    assert_string_equal(emo_task_set_metric(set, 0, 0), "accuracy");
    assert_string_equal(emo_task_set_metric(set, 0, 1), "accuracy_byte");
    assert_null(emo_task_set_metric(set, 0, 2));
    EXPECT_OK(emo_task_set_task(set, 1, &info, &err));
    assert_int_equal(info.items, 1);
    static const char shots[] = "Look:\nQ: One?\nA. x\nB. y\nA: A\n--\nQ: Two?\nA. u\nB. v\nA: B\n--\n";
    char want[512];
    (void)snprintf(want, sizeof want, "%sQ: Which is hot?\nA. ice\nB. fire\nA:", shots);
    expect_prompt(set, 0, 0, 0, want);
    expect_prompt(set, 0, 0, 1, want);
    (void)snprintf(want, sizeof want, "%sQ: 2+2\nA. 3\nB. 4\nC. 5\nA:", shots);
    expect_prompt(set, 0, 1, 2, want);
    expect_continuation(set, 0, 1, 2, " C");
    expect_prompt(set, 1, 0, 0, "{which is hot}");
    expect_continuation(set, 1, 0, 1, " fire");
    size_t size = 0;
    char small[8];
    EXPECT_OK(emo_task_set_prompt(set, 1, 0, 0, NULL, 0, &size, &err));
    assert_int_equal(size, 15);
    EXPECT_STATUS(emo_task_set_prompt(set, 1, 0, 0, small, sizeof small, &size, &err), EMO_E_LIMIT, "15 bytes");
    EXPECT_STATUS(emo_task_set_prompt(set, 2, 0, 0, NULL, 0, &size, &err), EMO_E_RANGE, "there are 2");
    EXPECT_STATUS(emo_task_set_prompt(set, 0, 2, 0, NULL, 0, &size, &err), EMO_E_RANGE, "item 2");
    EXPECT_STATUS(emo_task_set_continuation(set, 0, 0, 2, NULL, 0, &size, &err), EMO_E_RANGE, "choice 2");
    EXPECT_STATUS(emo_task_set_task(set, -1, &info, &err), EMO_E_RANGE, "task -1");
    emo_task_set_release(set);
}

/* The choice may stand in the prompt: what follows is the same for all. */
static void partial_prompts(void **state) {
    (void)state;
    put("wino.jsonl", "{\"s\": \"Ann told Bea that _ was tired.\", \"o1\": \"Ann\", \"o2\": \"Bea\", \"a\": \"2\"}\n");
    put("how.jsonl", "{\"c\": \"[header] Boil [title] Fill a pot. [substeps] Slowly\", \"e\": [\"a\", \"b\"], "
                     "\"label\": true, \"s\": \"high_school_law\"}\n");
    emo_task_set *set = open_set(
        "{\"tasks\": [{\"name\": \"w\", \"type\": \"multiple_choice\", \"data\": \"wino.jsonl\","
        "\"choices\": [\"{o1}\", \"{o2}\"], \"answer\": \"a\", \"answer_is\": \"number\","
        "\"prompt\": \"{s|before _}{choice}\", \"continuation\": \"{s|after _}\","
        "\"examples\": {\"count\": 1, \"items\": [{\"s\": \"I _.\", \"o1\": \"x\", \"o2\": \"y\", \"a\": 1}]}},"
        "{\"name\": \"h\", \"type\": \"multiple_choice\", \"data\": \"how.jsonl\", \"choices\": \"e\","
        "\"answer\": \"label\", \"prompt\": \"{s|spaces}: {c|unbracket}\", \"continuation\": \" {choice}\"}]}");
    expect_prompt(set, 0, 0, 0, "I x.\n\nAnn told Bea that Ann");
    expect_prompt(set, 0, 0, 1, "I x.\n\nAnn told Bea that Bea");
    expect_continuation(set, 0, 0, 0, " was tired.");
    expect_continuation(set, 0, 0, 1, " was tired.");
    expect_prompt(set, 1, 0, 0, "high school law:  Boil. Fill a pot. Slowly");
    emo_task_set_release(set);
}

/* Every form of the right answer, through what an example shows of it. */
static void answers_in_every_form(void **state) {
    (void)state;
    static const char *const forms[][2] = {
        {"index", "2"},      {"index", "\"2\""},  {"number", "3"},     {"number", "\"3\""},
        {"letter", "\"C\""}, {"letter", "\"c\""}, {"text", "\"z z\""},
    };
    put("one.jsonl", "{\"c\": [\"x\", \"y\", \"z z\"], \"a\": 0}\n");
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        char tasks[1024];
        char data[256];
        (void)snprintf(data, sizeof data, "{\"c\": [\"x\", \"y\", \"z z\"], \"a\": %s}\n", forms[i][1]);
        put("one.jsonl", data);
        (void)snprintf(
            tasks, sizeof tasks,
            "{\"tasks\": [{\"name\": \"t\", \"type\": \"multiple_choice\", \"data\": \"one.jsonl\", "
            "\"choices\": \"c\", \"answer\": \"a\", \"answer_is\": \"%s\", \"prompt\": \"P:\", \"examples\": "
            "{\"count\": 1, \"items\": [{\"c\": [\"x\", \"y\", \"z z\"], \"a\": %s}]}}]}",
            forms[i][0], forms[i][1]);
        emo_task_set *set = open_set(tasks);
        expect_prompt(set, 0, 0, 0, "P: z z\n\nP:");
        emo_task_set_release(set);
    }
}

static void subjects_and_groups(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    put("mmlu.jsonl", "{\"q\": \"1\", \"c\": [\"a\", \"b\"], \"answer\": 0, \"subject\": \"law\"}\n"
                      "{\"q\": \"2\", \"c\": [\"a\", \"b\"], \"answer\": 1, \"subject\": \"art\"}\n"
                      "{\"q\": \"3\", \"c\": [\"a\", \"b\"], \"answer\": 1, \"subject\": \"law\"}\n"
                      "{\"q\": \"4\", \"c\": [\"a\", \"b\"], \"answer\": 1, \"subject\": \"law\"}\n");
    put("dev.jsonl", "{\"q\": \"d1\", \"c\": [\"a\", \"b\"], \"answer\": 0, \"subject\": \"art\"}\n"
                     "{\"q\": \"d2\", \"c\": [\"a\", \"b\"], \"answer\": 0, \"subject\": \"law\"}\n");
    emo_task_set *set = open_set(
        "{\"tasks\": [{\"name\": \"mmlu\", \"type\": \"multiple_choice\", \"data\": \"mmlu.jsonl\", \"choices\": \"c\","
        "\"validation\": \"dev.jsonl\", \"by\": \"subject\", \"limit\": 2, \"prompt\": \"{q}\","
        "\"examples\": {\"count\": 1, \"data\": \"dev.jsonl\"}},"
        "{\"name\": \"plain\", \"type\": \"multiple_choice\", \"data\": \"mmlu.jsonl\", \"choices\": \"c\","
        "\"prompt\": \"{q}\"}],"
        "\"groups\": [{\"name\": \"both\", \"tasks\": [\"mmlu\", \"plain\"], \"average\": \"items\"}]}");
    assert_int_equal(emo_task_set_tasks(set), 3);
    emo_task_info info;
    EXPECT_OK(emo_task_set_task(set, 0, &info, &err));
    assert_string_equal(info.name, "mmlu:art");
    assert_int_equal(info.items, 1);
    assert_int_equal(info.validation, 1);
    EXPECT_OK(emo_task_set_task(set, 1, &info, &err));
    assert_string_equal(info.name, "mmlu:law");
    assert_int_equal(info.items, 2);
    expect_prompt(set, 0, 0, 0, "d1 a\n\n2");
    expect_prompt(set, 1, 1, 0, "d2 a\n\n3");
    assert_int_equal(emo_task_set_groups(set), 2);
    emo_task_group group;
    EXPECT_OK(emo_task_set_group(set, 0, &group, &err));
    assert_string_equal(group.name, "mmlu");
    assert_int_equal(group.count, 2);
    assert_int_equal(group.members[1], 1);
    EXPECT_OK(emo_task_set_group(set, 1, &group, &err));
    assert_int_equal(group.members[0], -1);
    assert_int_equal(group.members[1], 2);
    assert_int_equal(group.by_items, 1);
    EXPECT_STATUS(emo_task_set_group(set, 2, &group, &err), EMO_E_RANGE, "there are 2");
    emo_task_set_release(set);
}

/* Examples drawn from the items themselves: never the item, never twice, by the seed alone. */
static void drawn_examples(void **state) {
    (void)state;
    char data[2048] = "";
    for (int i = 0; i < 12; i++) {
        char line[64];
        (void)snprintf(line, sizeof line, "{\"q\": \"<%c>\", \"answer\": \"%c\"}\n", 'a' + i, 'A' + i);
        (void)strcat(data, line);
    }
    (void)test_append_gzip("g.jsonl.gz", data, strlen(data));
    static const char *const draws[] = {"first", "task", "item"};
    for (int d = 0; d < 3; d++) {
        char tasks[512];
        char texts[2][12][256];
        (void)snprintf(tasks, sizeof tasks,
                       "{\"tasks\": [{\"name\": \"g\", \"type\": \"generation\", \"data\": \"g.jsonl.gz\", \"prompt\": "
                       "\"{q}\", \"separator\": \";\", \"examples\": {\"count\": 3, \"data\": \"g.jsonl.gz\", "
                       "\"draw\": \"%s\", \"seed\": 5}}]}",
                       draws[d]);
        for (int round = 0; round < 2; round++) {
            emo_error err = EMO_ERROR_INIT;
            emo_task_set *set = open_set(tasks);
            for (int i = 0; i < 12; i++) {
                size_t size = 0;
                EXPECT_OK(emo_task_set_prompt(set, 0, i, 0, texts[round][i], 256, &size, &err));
                char own[8];
                (void)snprintf(own, sizeof own, "<%c>", 'a' + i);
                const char *found = strstr(texts[round][i], own);
                assert_ptr_equal(found, texts[round][i] + strlen(texts[round][i]) - 3);
                assert_int_equal(strlen(texts[round][i]), 3 * 6 + 3); /* "<a> A;" three times */
                for (int k = 0; k < 3; k++) {
                    for (int j = 0; j < k; j++)
                        assert_int_not_equal(texts[round][i][6 * k + 1], texts[round][i][6 * j + 1]);
                }
            }
            emo_task_set_release(set);
        }
        for (int i = 0; i < 12; i++)
            assert_string_equal(texts[0][i], texts[1][i]);
        int same = memcmp(texts[0][10], texts[0][11], 18) == 0;
        assert_int_equal(same, d != 2);
        assert_int_equal(memcmp(texts[0][11], "<a> A;<b> B;<c> C;", 18) == 0, d == 0);
        if (d == 0)
            assert_memory_equal(texts[0][1], "<a> A;<c> C;<d> D;", 18);
    }
}

static void limits_and_roots(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    put("sub/data.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"three\"}\n");
    static const char tasks[] =
        "{\"comment\": \"x\", \"tasks\": [{\"name\": \"p\", \"type\": \"perplexity\", \"data\": "
        "\"data.jsonl\", \"limit\": 2}]}";
    emo_task_set_options options = EMO_TASK_SET_OPTIONS_INIT;
    emo_task_set *set = NULL;
    emo_task_info info;
    options.root = test_path("sub");
    for (int limit = 0; limit < 4; limit++) {
        options.limit = limit;
        EXPECT_OK(emo_task_set_from_json(rt, tasks, sizeof tasks - 1, &options, &set, &err));
        EXPECT_OK(emo_task_set_task(set, 0, &info, &err));
        assert_int_equal(info.items, limit == 1 ? 1 : 2);
        assert_int_equal(info.lower_is_better, 1);
        assert_string_equal(emo_task_set_metric(set, 0, 0), "bits_per_byte");
        expect_prompt(set, 0, 0, 0, "");
        expect_continuation(set, 0, 0, 0, "one");
        emo_task_set_release(set);
    }
    options.limit = -1;
    EXPECT_STATUS(emo_task_set_from_json(rt, tasks, sizeof tasks - 1, &options, &set, &err), EMO_E_RANGE, "limit");
    options.limit = 0;
    options.reserved = 1;
    EXPECT_STATUS(emo_task_set_from_json(rt, tasks, sizeof tasks - 1, &options, &set, &err), EMO_E_RANGE, "reserved");
    assert_null(set);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prompts_to_the_byte),   cmocka_unit_test(partial_prompts),
        cmocka_unit_test(answers_in_every_form), cmocka_unit_test(subjects_and_groups),
        cmocka_unit_test(drawn_examples),        cmocka_unit_test(limits_and_roots),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
