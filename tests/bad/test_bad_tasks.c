/* SPDX-License-Identifier: Apache-2.0 */
/* Task files and data files that are wrong: the status, and the words that say what and where. */
#include <emo/emo.h>

#include "support/folder.h"

TEST_RUNTIME_AND_FOLDER(1, EMO_ISA_AUTO)

/* A line of this kind is right for the tasks below. */
#define LINE "{\"q\": \"what\", \"choices\": [\"a\", \"b\"], \"answer\": 1, \"n\": {\"x\": [1, 2]}, \"s\": \"a_b\"}\n"

static void expect_wrong(const char *tasks, size_t length, const char *data, emo_status want, const char *words) {
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = (emo_task_set *)&err;
    emo_task_set_options options = EMO_TASK_SET_OPTIONS_INIT;
    (void)test_write("d.jsonl", data, strlen(data));
    options.root = test_path("");
    emo_status status = emo_task_set_from_json(rt, tasks, length, &options, &set, &err);
    if (status != want || strstr(err.message, words) == NULL)
        fail_msg("%.*s\n  got %s '%s', want %s '%s'", (int)length, tasks, emo_status_name(status), err.message,
                 emo_status_name(want), words);
    assert_null(set);
}

#define MC "\"name\": \"t\", \"type\": \"multiple_choice\", \"data\": \"d.jsonl\", \"prompt\": \"{q}\""
#define GEN "\"name\": \"t\", \"type\": \"generation\", \"data\": \"d.jsonl\", \"prompt\": \"{q}\", \"answer\": \"q\""
#define PPL "\"name\": \"t\", \"type\": \"perplexity\", \"data\": \"d.jsonl\", \"continuation\": \"{q}\""
#define ONE(task) "{\"tasks\": [{" task "}]}"

static void task_files(void **state) {
    (void)state;
    static const struct {
        const char *text;
        emo_status status;
        const char *words;
    } cases[] = {
        {"", EMO_E_FORMAT, "tasks"},
        {"[]", EMO_E_FORMAT, "must be an object with \"tasks\""},
        {"{}", EMO_E_FORMAT, "\"tasks\", a list of one or more"},
        {"{\"tasks\": []}", EMO_E_FORMAT, "a list of one or more"},
        {"{\"tasks\": [3]}", EMO_E_FORMAT, "tasks[0]"},
        {"{\"tasks\": [{" MC "}], \"more\": 1}", EMO_E_FORMAT, "unknown key \"more\""},
        {"{\"tasks\": [{" MC "}], \"groups\": {}}", EMO_E_FORMAT, "\"groups\" must be a list"},
        {"{\"tasks\": [{" MC "}, {" MC "}]}", EMO_E_FORMAT, "tasks[1] (t): there is a task of this name above"},
        {ONE("\"type\": \"perplexity\""), EMO_E_FORMAT, "name"},
        {ONE("\"name\": \"\", \"type\": \"perplexity\""), EMO_E_FORMAT, "1 to 200 bytes"},
        {ONE("\"name\": \"t\""), EMO_E_FORMAT, "type"},
        {ONE("\"name\": \"t\", \"type\": \"mc\""), EMO_E_FORMAT, "multiple_choice, generation, perplexity"},
        {ONE(MC ", \"promt\": \"x\""), EMO_E_FORMAT, "tasks[0] (t): unknown key \"promt\"; a task of type multiple"},
        {ONE(PPL ", \"choices\": \"x\""), EMO_E_FORMAT, "unknown key \"choices\""},
        {ONE(PPL ", \"examples\": {}"), EMO_E_FORMAT, "unknown key \"examples\""},
        {ONE("\"name\": \"t\", \"type\": \"generation\", \"data\": \"d.jsonl\""), EMO_E_FORMAT, "prompt"},
        {ONE("\"name\": \"t\", \"type\": \"generation\", \"prompt\": \"x\""), EMO_E_FORMAT, "\"data\" is missing"},
        {ONE(MC ", \"limit\": 0"), EMO_E_FORMAT, "limit"},
        {ONE(MC ", \"limit\": \"9\""), EMO_E_FORMAT, "limit"},
        {ONE(MC ", \"encode\": \"both\""), EMO_E_FORMAT, "whole, apart"},
        {ONE(MC ", \"by\": \"subject\""), EMO_E_FORMAT, "d.jsonl:1: there is no field \"subject\""},
        {ONE(MC ", \"description\": 5"), EMO_E_FORMAT, "description"},
        {ONE(MC ", \"continuation\": \"{q\""), EMO_E_FORMAT, "continuation: the '{' at byte 0 has no partner"},
        {ONE(MC ", \"continuation\": \"}\""), EMO_E_FORMAT, "the '}' at byte 0 has no partner"},
        {ONE(MC ", \"continuation\": \"{}\""), EMO_E_FORMAT, "names no field"},
        {ONE(MC ", \"continuation\": \"{q|upper}\""), EMO_E_FORMAT, "no filter \"upper\"; there are strip"},
        {ONE(MC ", \"continuation\": \"{q|before}\""), EMO_E_FORMAT, "takes the text to look for"},
        {ONE(MC ", \"continuation\": \"{q|strip x}\""), EMO_E_FORMAT, "takes no argument"},
        {ONE(MC ", \"continuation\": \"{q|strip|strip|strip|strip|strip}\""), EMO_E_FORMAT, "more than 4 filters"},
        {ONE(MC ", \"continuation\": \"{q|after zz}\""), EMO_E_FORMAT, "d.jsonl:1: \"q\" has no \"zz\" in it"},
        {ONE(MC ", \"continuation\": \"{what}\""), EMO_E_FORMAT, "d.jsonl:1: there is no field \"what\""},
        {ONE(MC ", \"continuation\": \"{n}\""), EMO_E_FORMAT, "must be text"},
        {ONE(MC ", \"continuation\": \"{n.x.2}\""), EMO_E_FORMAT, "no field \"n.x.2\""},
        {ONE(MC ", \"continuation\": \"\""), EMO_E_FORMAT, "there must be something to score"},
        {ONE(MC ", \"normalisation\": \"length\""), EMO_E_FORMAT, "none, token, byte, character, unconditional"},
        {ONE(MC ", \"normalisation\": []"), EMO_E_FORMAT, "has 0 entries"},
        {ONE(MC ", \"normalisation\": [1]"), EMO_E_FORMAT, "must be a string"},
        {ONE(MC ", \"answer_is\": \"colour\""), EMO_E_FORMAT, "index, number, letter, label, text"},
        {ONE(MC ", \"answer_is\": \"label\""), EMO_E_FORMAT, "need each other"},
        {ONE(MC ", \"labels\": \"choices\""), EMO_E_FORMAT, "need each other"},
        {ONE(MC ", \"answer_is\": \"label\", \"labels\": \"choices\""), EMO_E_FORMAT, "must be one of the labels"},
        {ONE(MC ", \"answer_is\": \"label\", \"labels\": \"n.x.0\""), EMO_E_FORMAT, "a label for each choice"},
        {ONE(MC ", \"answer_is\": \"letter\""), EMO_E_FORMAT, "must be the letter of a choice"},
        {ONE(MC ", \"answer_is\": \"text\""), EMO_E_FORMAT, "must be the text of a choice"},
        {ONE(MC ", \"answer\": \"n.x.1\""), EMO_E_FORMAT, "must be the index of a choice"},
        {ONE(MC ", \"answer\": \"gold\""), EMO_E_FORMAT, "no field \"gold\"; the task's \"answer\" names"},
        {ONE(MC ", \"choices\": \"q\""), EMO_E_FORMAT, "a list of 2 to 26 choices"},
        {ONE(MC ", \"choices\": [\"{q}\"]"), EMO_E_FORMAT, "has 1 entries; 2 to 26"},
        {ONE(MC ", \"choices\": [\"a\", 1]"), EMO_E_FORMAT, "\"choices\"[1] must be a text"},
        {ONE(MC ", \"choices\": 1"), EMO_E_FORMAT, "choices"},
        {ONE(MC ", \"data\": []"), EMO_E_FORMAT, "data"},
        {ONE("\"name\": \"t\", \"type\": \"perplexity\", \"data\": []"), EMO_E_FORMAT, "\"data\" has 0 entries"},
        {ONE("\"name\": \"t\", \"type\": \"perplexity\", \"data\": \"no.jsonl\""), EMO_E_NOT_FOUND, "no.jsonl"},
        {ONE(MC ", \"validation\": \"no.jsonl\""), EMO_E_NOT_FOUND, "no.jsonl"},
        {ONE(MC ", \"examples\": 2"), EMO_E_FORMAT, "must be an object with \"count\""},
        {ONE(MC ", \"examples\": {\"count\": 1}"), EMO_E_FORMAT, "either \"data\""},
        {ONE(MC ", \"examples\": {\"count\": 1, \"data\": \"d.jsonl\", \"items\": []}"), EMO_E_FORMAT,
         "either \"data\""},
        {ONE(MC ", \"examples\": {\"data\": \"d.jsonl\"}"), EMO_E_FORMAT, "count"},
        {ONE(MC ", \"examples\": {\"count\": 1025, \"data\": \"d.jsonl\"}"), EMO_E_FORMAT, "count"},
        {ONE(MC ", \"examples\": {\"count\": 1, \"data\": \"d.jsonl\", \"shots\": 1}"), EMO_E_FORMAT, "\"shots\""},
        {ONE(MC ", \"examples\": {\"count\": 1, \"data\": \"d.jsonl\", \"draw\": \"all\"}"), EMO_E_FORMAT,
         "first, task, item"},
        {ONE(MC ", \"examples\": {\"count\": 1, \"data\": \"d.jsonl\", \"seed\": -1}"), EMO_E_FORMAT, "seed"},
        {ONE(MC ", \"examples\": {\"count\": 1, \"data\": \"d.jsonl\"}"), EMO_E_FORMAT,
         "there are 1, and an item is not shown to itself"},
        {ONE(MC ", \"examples\": {\"count\": 1, \"items\": [{}]}"), EMO_E_FORMAT,
         "examples.items[0]: there is no field"},
        {ONE(MC ", \"examples\": {\"count\": 2, \"items\": [" LINE "]}"), EMO_E_FORMAT,
         "2 examples are to be shown; there are 1"},
        {ONE(GEN ", \"max_tokens\": 0"), EMO_E_FORMAT, "max_tokens"},
        {ONE(GEN ", \"stop\": [\"\"]"), EMO_E_FORMAT, "stop"},
        {ONE(GEN ", \"metrics\": [\"bleu\"]"), EMO_E_FORMAT, "exact_match, f1, prefix_match"},
        {ONE(GEN ", \"normalise\": \"case\""), EMO_E_FORMAT, "must be a list of case"},
        {ONE(GEN ", \"normalise\": [\"stem\"]"), EMO_E_FORMAT, "case, punctuation, articles, space"},
        {ONE(GEN ", \"extract\": \"number\""), EMO_E_FORMAT, "none, first_line, last_number"},
        {ONE(GEN ", \"after\": \"\""), EMO_E_FORMAT, "\"after\" is empty"},
        {ONE(PPL ", \"metrics\": [\"accuracy\"]"), EMO_E_FORMAT, "bits_per_byte, loss, perplexity"},
        {"{\"tasks\": [{" MC "}], \"groups\": [1]}", EMO_E_FORMAT, "groups[0]"},
        {"{\"tasks\": [{" MC "}], \"groups\": [{\"name\": \"g\"}]}", EMO_E_FORMAT, "\"tasks\" must be a list"},
        {"{\"tasks\": [{" MC "}], \"groups\": [{\"name\": \"t\", \"tasks\": [\"t\"]}]}", EMO_E_FORMAT, "is taken"},
        {"{\"tasks\": [{" MC "}], \"groups\": [{\"name\": \"g\", \"tasks\": [\"u\"]}]}", EMO_E_FORMAT, "(u)"},
        {"{\"tasks\": [{" MC "}], \"groups\": [{\"name\": \"g\", \"tasks\": [\"g\"]}]}", EMO_E_FORMAT, "(g)"},
        {"{\"tasks\": [{" MC "}], \"groups\": [{\"name\": \"g\", \"tasks\": [\"t\"], \"average\": \"sum\"}]}",
         EMO_E_FORMAT, "tasks, items"},
        {"{\"tasks\": [{" MC "}], \"groups\": [{\"name\": \"g\", \"tasks\": [\"t\"], \"of\": 1}]}", EMO_E_FORMAT,
         "unknown key \"of\""},
        {"{\"tasks\": [{" MC "}, {\"name\": \"p\", \"type\": \"perplexity\", \"data\": \"d.jsonl\", \"continuation\": "
         "\"{q}\"}], \"groups\": [{\"name\": \"g\", \"tasks\": [\"t\", \"p\"]}]}",
         EMO_E_FORMAT, "these have no mean"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_wrong(cases[i].text, strlen(cases[i].text), LINE, cases[i].status, cases[i].words);
    emo_error err = EMO_ERROR_INIT;
    emo_task_set *set = NULL;
    EXPECT_STATUS(emo_task_set_open(rt, test_path("none.json"), NULL, &set, &err), EMO_E_NOT_FOUND, "none.json");
    char *longest = malloc(70000);
    assert_non_null(longest);
    memset(longest, 'x', 70000);
    (void)memcpy(longest, "{\"tasks\": [{" MC ", \"description\": \"",
                 strlen("{\"tasks\": [{" MC ", \"description\": \""));
    (void)memcpy(longest + 69995, "\"}]}", 5);
    expect_wrong(longest, strlen(longest), LINE, EMO_E_LIMIT, "at most 65536");
    free(longest);
}

static void data_files(void **state) {
    (void)state;
    static const struct {
        const char *data;
        emo_status status;
        const char *words;
    } cases[] = {
        {"", EMO_E_FORMAT, "holds no items"},
        {"\n\n", EMO_E_FORMAT, "holds no items"},
        {LINE "[1]\n", EMO_E_FORMAT, "t: d.jsonl:2: an item must be a JSON object"},
        {LINE LINE "{\"q\": \n", EMO_E_FORMAT, "d.jsonl:3"},
        {LINE "\n{}\n", EMO_E_FORMAT, "d.jsonl:3: there is no field \"choices\""},
        {"{\"q\": \"\", \"choices\": [\"a\", null], \"answer\": 1}\n", EMO_E_FORMAT, "must be text"},
        {"{\"q\": \"a\\u0000b\", \"choices\": [\"a\", \"b\"], \"answer\": 1}\n", EMO_E_FORMAT, "without NULs"},
        {"{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": 2}\n", EMO_E_FORMAT, "the index of a choice"},
        {"{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": -1}\n", EMO_E_FORMAT, "the index of a choice"},
        {"{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": 0.5}\n", EMO_E_FORMAT, "the index of a choice"},
        {"{\"q\": \"\", \"choices\": [\"a\", \"b\"], \"answer\": [0]}\n", EMO_E_FORMAT, "must be text"},
        {"{\"q\": \"\xff\", \"choices\": [\"a\", \"b\"], \"answer\": 0}\n", EMO_E_FORMAT, "d.jsonl:1"},
    };
    static const char tasks[] = ONE(MC);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_wrong(tasks, sizeof tasks - 1, cases[i].data, cases[i].status, cases[i].words);
    static const char answers[] =
        ONE("\"name\": \"t\", \"type\": \"generation\", \"data\": \"d.jsonl\", \"prompt\": \"{q}\", \"answer\": \"a\"");
    expect_wrong(answers, sizeof answers - 1, "{\"q\": \"x\", \"a\": []}\n", EMO_E_FORMAT, "has no answer in it");
    expect_wrong(answers, sizeof answers - 1, "{\"q\": \"x\", \"a\": [{}]}\n", EMO_E_FORMAT, "must be text");
    /* A field that a template repeats may not become more than there is room for. */
    size_t size = (size_t)1 << 20;
    char *data = malloc(size + 64);
    char *repeat = malloc(4096);
    assert_non_null(data);
    assert_non_null(repeat);
    (void)memcpy(data, "{\"q\": \"", 7);
    memset(data + 7, 'y', size);
    (void)memcpy(data + 7 + size, "\"}\n", 4);
    (void)strcpy(
        repeat, "{\"tasks\": [{\"name\": \"t\", \"type\": \"perplexity\", \"data\": \"d.jsonl\", \"continuation\": \"");
    for (int i = 0; i < 40; i++)
        (void)strcat(repeat, "{q}");
    (void)strcat(repeat, "\"}]}");
    expect_wrong(repeat, strlen(repeat), data, EMO_E_LIMIT, "more than 16777216 bytes");
    free(repeat);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(task_files),
        cmocka_unit_test(data_files),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
