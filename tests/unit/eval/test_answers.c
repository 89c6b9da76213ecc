/* SPDX-License-Identifier: Apache-2.0 */
/* Answers against cases worked out by hand. */
#include <math.h>

#include "base/runtime.h"
#include "eval/answers.h"
#include "support/support.h"

TEST_RUNTIME(1, EMO_ISA_AUTO)

static void expect_normal(const emo__answer_rule *rule, const char *text, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    emo__buf out;
    emo__buf_init(&out, &rt->mem);
    EXPECT_OK(emo__buf_append(&out, ">", 1, &err)); /* it appends */
    EXPECT_OK(emo__answer_normal(rule, text, &out, &err));
    assert_string_equal(out.data + 1, want);
    assert_int_equal(out.size, strlen(want) + 1);
    emo__buf_free(&out);
}

static void normalisations(void **state) {
    (void)state;
    static const emo__answer_rule none = {0};
    static const emo__answer_rule all = {NULL, EMO__EXTRACT_NONE, true, true, true, true};
    static const emo__answer_rule lower = {NULL, EMO__EXTRACT_NONE, true, false, false, false};
    static const emo__answer_rule articles = {NULL, EMO__EXTRACT_NONE, false, false, true, false};
    static const emo__answer_rule line = {NULL, EMO__EXTRACT_LINE, false, false, false, true};
    emo__answer_rule after = {(char *)(uintptr_t) "answer is", EMO__EXTRACT_NONE, false, false, false, true};
    expect_normal(&none, " The  Cat.\n", " The  Cat.\n");
    expect_normal(&none, "", "");
    expect_normal(&all, " The  Cat,\n and an owl: A! ", "cat and owl");
    expect_normal(&all, "the", "");
    expect_normal(&all, "U.S.A.", "usa");
    expect_normal(&all, "The Beatles' theme", "beatles theme");
    expect_normal(&all, "\xc3\x89t\xc3\xa9", "\xc3\x89t\xc3\xa9"); /* letters beyond ASCII stay as they are */
    expect_normal(&lower, "The A.", "the a.");
    expect_normal(&articles, "An ant, the ant", " ant,  ant");
    expect_normal(&line, "\n\n Paris \nis in France", "Paris");
    expect_normal(&after, "The answer is 4. No, the answer is  5 ", "5");
    expect_normal(&after, "no such words", "no such words");
}

static void last_numbers(void **state) {
    (void)state;
    static const emo__answer_rule rule = {NULL, EMO__EXTRACT_LAST_NUMBER, true, true, true, true};
    static const char *const cases[][2] = {
        {"She sold 48/2 = 24 clips.\n#### 72", "72"},
        {"The answer is 1,234,567.", "1234567"},
        {"costs $18.50 in all", "18.5"},
        {"18.00", "18"},
        {"it is 007", "7"},
        {"0", "0"},
        {"-0.0", "0"},
        {".5 of it", "0.5"},
        {"minus: -3", "-3"},
        {"a loss of -$2,500.10", "-2500.1"},
        {"5-3", "3"},
        {"x-3", "3"},
        {"3, 4 and 5, no more", "5"},
        {"1,2,", "12"},
        {"version 1.2.3", "0.3"},
        {"no number", ""},
        {"100", "100"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        expect_normal(&rule, cases[i][0], cases[i][1]);
}

static double f1(const char *got, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    double value = -1.0;
    EXPECT_OK(emo__answer_f1(&rt->mem, got, want, &value, &err));
    return value;
}

static void measures(void **state) {
    (void)state;
    assert_true(emo__answer_exact("a b", "a b") == 1.0 && emo__answer_exact("a b", "a") == 0.0);
    assert_true(emo__answer_prefix("paris france", "paris") == 1.0);
    assert_true(emo__answer_prefix("parisian", "paris") == 0.0);
    assert_true(emo__answer_prefix("paris", "paris") == 1.0);
    assert_true(emo__answer_prefix("paris", "") == 0.0 && emo__answer_prefix("", "") == 1.0);
    assert_true(f1("cat sat", "cat sat") == 1.0);
    assert_true(f1("", "") == 1.0 && f1("", "cat") == 0.0 && f1("cat", "") == 0.0);
    assert_true(f1("dog", "cat") == 0.0);
    /* 2 of 3 words are right, and 2 of 4 are found: 2 * 2/3 * 1/2 / (2/3 + 1/2) = 4/7 */
    assert_true(fabs(f1("cat sat here", "the cat sat down") - 4.0 / 7.0) < 1e-15);
    /* a word counts as often as both have it: 1 in common of 3 and 1 */
    assert_true(fabs(f1("cat cat cat", "cat") - 0.5) < 1e-15);
    assert_true(fabs(f1("a a b", "a a c") - 2.0 / 3.0) < 1e-15);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(normalisations),
        cmocka_unit_test(last_numbers),
        cmocka_unit_test(measures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
