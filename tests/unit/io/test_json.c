/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and JSON, in and out. */
#include <float.h>
#include <math.h>

#include "base/parse.h"
#include "base/runtime.h"
#include "io/json.h"
#include "support/meter.h"
#include "tensor/philox.h"

static double parsed(const char *text) {
    double value = -12345.0;
    if (!emo__parse_double(text, strlen(text), &value))
        return (double)NAN;
    return value;
}

static void doubles_are_read_like_the_c_library_does(void **state) {
    (void)state;
    static const char *const texts[] = {"0",
                                        "-0.0",
                                        "1",
                                        "0.1",
                                        "1e23",
                                        "8.5e22",
                                        "9007199254740993",
                                        "9007199254740992.99999999999999999999",
                                        "2.2250738585072014e-308",
                                        "2.2250738585072011e-308",
                                        "4.9406564584124654e-324",
                                        "2.4703282292062327e-324",
                                        "2.4703282292062328e-324",
                                        "1.7976931348623157e308",
                                        "123456789012345678901234567890e-50",
                                        "000.00001234e+3",
                                        "5.e1",
                                        ".5",
                                        "179769313486231580793e288",
                                        "1e-400"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        double want = strtod(texts[i], NULL);
        if (parsed(texts[i]) != want)
            fail_msg("%s: got %.17g, want %.17g", texts[i], parsed(texts[i]), want);
    }
    assert_true(signbit(parsed("-0.0")));
    static const char *const bad[] = {"", "-", ".", "1e", "e5", "1e+", "0x10", "1 ", " 1", "1e400", "nan", "1.2.3"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        double value;
        if (emo__parse_double(bad[i], strlen(bad[i]), &value))
            fail_msg("'%s' was taken as %g", bad[i], value);
    }
}

static void random_doubles_survive_text(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 20000; i++) {
        emo__philox r = emo__philox_draw(7, EMO__RNG_TEST, i, 0, 0);
        uint64_t bits = (uint64_t)r.v[0] << 32 | r.v[1];
        double value;
        memcpy(&value, &bits, sizeof value);
        if (!isfinite(value))
            continue;
        char text[64];
        (void)snprintf(text, sizeof text, "%.17g", value);
        assert_true(parsed(text) == value);
        char own[EMO__NUMBER_TEXT];
        size_t n = emo__format_f64(own, value);
        assert_int_equal(n, strlen(own));
        if (strtod(own, NULL) != value)
            fail_msg("%.17g was written as %s", value, own);
        float f;
        memcpy(&f, &r.v[2], sizeof f);
        if (isfinite(f)) {
            (void)emo__format_f32(own, f);
            assert_true(strtof(own, NULL) == f);
        }
    }
    char own[EMO__NUMBER_TEXT];
    (void)emo__format_f64(own, 0.1);
    assert_string_equal(own, "0.1");
    (void)emo__format_f32(own, 0.1f);
    assert_string_equal(own, "0.1");
    (void)emo__format_f64(own, (double)INFINITY);
    assert_string_equal(own, "null");
}

static void integers_have_borders(void **state) {
    (void)state;
    int64_t v = 0;
    assert_true(emo__parse_i64("9223372036854775807", 19, &v) && v == INT64_MAX);
    assert_true(emo__parse_i64("-9223372036854775808", 20, &v) && v == INT64_MIN);
    assert_false(emo__parse_i64("9223372036854775808", 19, &v));
    assert_false(emo__parse_i64("-9223372036854775809", 20, &v));
    assert_false(emo__parse_i64("", 0, &v));
    assert_false(emo__parse_i64("-", 1, &v));
    assert_false(emo__parse_i64("12a", 3, &v));
}

static void typed_members(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    const char *text = "{\"a\": 5, \"f\": 1e6, \"h\": 0.5, \"s\": \"x\\u0000y\", \"n\": null, \"b\": true,"
                       " \"l\": [1, 2, 300], \"t\": \"word\"}";
    emo__json *root = NULL;
    EXPECT_OK(emo__json_parse(&rt->mem, text, strlen(text), "doc", &root, &err));
    int64_t i64 = 0;
    int32_t i32 = 0;
    EXPECT_OK(emo__json_need_i64(root, "a", "doc", 0, 10, &i64, &err));
    assert_int_equal(i64, 5);
    EXPECT_OK(emo__json_opt_i32(root, "f", "doc", 1, 0, 2000000, &i32, &err));
    assert_int_equal(i32, 1000000);
    EXPECT_OK(emo__json_opt_i32(root, "n", "doc", 7, 0, 10, &i32, &err));
    assert_int_equal(i32, 7);
    EXPECT_STATUS(emo__json_need_i64(root, "a", "doc", 6, 10, &i64, &err), EMO_E_FORMAT, "\"a\" is 5");
    EXPECT_STATUS(emo__json_need_i64(root, "h", "doc", 0, 10, &i64, &err), EMO_E_FORMAT, "\"h\" must be an integer");
    EXPECT_STATUS(emo__json_need_i64(root, "zz", "doc", 0, 10, &i64, &err), EMO_E_FORMAT, "\"zz\" is missing");
    double f64 = 0;
    EXPECT_OK(emo__json_opt_f64(root, "h", "doc", 0, 0, 1, &f64, &err));
    assert_true(f64 == 0.5);
    EXPECT_STATUS(emo__json_opt_f64(root, "b", "doc", 0, 0, 1, &f64, &err), EMO_E_FORMAT, "number");
    bool flag = false;
    EXPECT_OK(emo__json_opt_bool(root, "b", "doc", false, &flag, &err));
    assert_true(flag);
    const char *word = NULL;
    EXPECT_STATUS(emo__json_opt_string(root, "s", "doc", NULL, &word, &err), EMO_E_FORMAT, "NUL");
    EXPECT_OK(emo__json_need_string(root, "t", "doc", &word, &err));
    assert_string_equal(word, "word");
    int32_t *list = NULL;
    size_t count = 0;
    EXPECT_OK(emo__json_opt_i32s(root, "l", "doc", 0, 300, &rt->mem, &list, &count, &err));
    assert_int_equal(count, 3);
    assert_int_equal(list[2], 300);
    emo__free(&rt->mem, list);
    EXPECT_STATUS(emo__json_opt_i32s(root, "l", "doc", 0, 200, &rt->mem, &list, &count, &err), EMO_E_FORMAT,
                  "\"l\"[2]");
    emo__json_free(root);
    emo_runtime_release(rt);
}

/* What RFC 8259 refuses, and what this reader refuses besides; each with the place. */
static const struct {
    const char *text;
    const char *words;
} refused[] = {
    {"", "line 1 column 1: the text ends where a value is expected"},
    {" \n\t ", "line 2 column 3: the text ends"},
    {"{", "line 1 column 2: a key in quotes"},
    {"[", "the text ends where a value"},
    {"[1", "the text ends inside"},
    {"{\"a\"", "':' is expected"},
    {"{\"a\":", "the text ends where a value"},
    {"{\"a\":1", "the text ends inside"},
    {"{\"a\":1,}", "a key in quotes"},
    {"{a:1}", "a key in quotes"},
    {"{1:1}", "a key in quotes"},
    {"{\"a\" 1}", "':' is expected"},
    {"{\"a\":1 \"b\":2}", "',' or '}'"},
    {"[1 2]", "line 1 column 4: ',' or ']'"},
    {"[1,\n2,\n]", "line 3 column 1: no value"},
    {"[,1]", "no value"},
    {"[1}", "',' or ']'"},
    {"{]", "a key in quotes"},
    {"]", "no value"},
    {"{} {}", "line 1 column 4: something follows"},
    {"1 1", "something follows"},
    {"nul", "no value"},
    {"nulll", "something follows"},
    {"True", "no value"},
    {"NaN", "no value"},
    {"Infinity", "no value"},
    {"-Infinity", "a minus sign without"},
    {"-", "a minus sign without"},
    {"+1", "no value"},
    {"01", "begins with 0"},
    {"-01", "begins with 0"},
    {".5", "no value"},
    {"1.", "behind its point"},
    {"1.e5", "behind its point"},
    {"1e", "exponent"},
    {"1e+", "exponent"},
    {"0x10", "something follows"},
    {"1e400", "too large for a double"},
    {"-1e400", "too large for a double"},
    {"9223372036854775808", "more than 64 bits"},
    {"-9223372036854775809", "more than 64 bits"},
    {"'a'", "no value"},
    {"\"a", "without its closing quote"},
    {"\"a\\", "an escape"},
    {"\"a\\\"", "without its closing quote"},
    {"\"\\x41\"", "an escape"},
    {"\"\\u12g4\"", "an escape"},
    {"\"\\u123", "an escape"},
    {"\"\\ud800\"", "half of a surrogate pair"},
    {"\"\\ud800\\u0041\"", "half of a surrogate pair"},
    {"\"\\udc00\"", "half of a surrogate pair"},
    {"\"\\ud800\\ud800\"", "half of a surrogate pair"},
    {"\"\n\"", "a control character"},
    {"\"\x1f\"", "a control character"},
    {"\"\x80\"", "UTF-8"},
    {"\"\xc0\x80\"", "UTF-8"},
    {"\"\xc3\"", "UTF-8"},
    {"\"\xe0\x80\x80\"", "UTF-8"},
    {"\"\xed\xa0\x80\"", "UTF-8"},
    {"\"\xf0\x80\x80\x80\"", "UTF-8"},
    {"\"\xf4\x90\x80\x80\"", "UTF-8"},
    {"\"\xf5\x80\x80\x80\"", "UTF-8"},
    {"\"\xff\"", "UTF-8"},
    {"\xef\xbb\xbf{}", "no value"},
    {"{\"a\": 1, \"b\": 2, \"a\": 3}", "duplicate key \"a\""},
    {"{\"a\\u0000\": 1}", "a NUL"},
    {"{\"\": 1, \"\": 2}", "duplicate"},
    {"{\"x\": {\"1\":0,\"2\":0,\"3\":0,\"4\":0,\"5\":0,\"6\":0,\"7\":0,\"8\":0,\"9\":0,\"1\":0}}",
     "duplicate key \"1\""},
    {"/* no */ 1", "no value"},
    {"[1] // no", "something follows"},
};

static void each_refusal_has_its_place(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        emo__json *root = NULL;
        size_t n = strlen(refused[i].text);
        char *text = malloc(n + 1); /* of the very size, so that a tool sees what reads beyond it */
        assert_non_null(text);
        memcpy(text, refused[i].text, n);
        emo_status status = emo__json_parse(&rt->mem, text, n, "doc", &root, &err);
        if (status != EMO_E_FORMAT || strstr(err.message, refused[i].words) == NULL ||
            strstr(err.message, "doc: invalid JSON") == NULL)
            fail_msg("%s: %s '%s', want '%s'", refused[i].text, emo_status_name(status), err.message, refused[i].words);
        assert_null(root);
        free(text);
    }
    emo_runtime_release(rt);
}

/* A document and what it becomes when it is written again: order, escapes and numbers stay. */
static const char *const kept[][2] = {
    {"null", "null"},
    {" true ", "true"},
    {"-0", "0"},
    {"[-0.0, 1E2, 0.1, 1e-7, 123456789012345678, 1.0]", "[-0, 1e+02, 0.1, 1e-07, 123456789012345678, 1]"},
    {"\"\"", "\"\""},
    {"\"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\u0041\"",
     "\"\xc3\xa9\xf0\x9f\x98\x80/\\u0008\\u000c\\n\\u000d\\u0009A\""},
    {"\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\x7f\"", "\"\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\x7f\""},
    {"{}", "{}"},
    {"[]", "[]"},
    {"[[],{},[[]],{\"a\":[]}]", "[[], {}, [[]], {\"a\": []}]"},
    {"\r\n{\"z\":{\"y\":[{\"x\":{}}]},\"a\":null,\"\":0}\t", "{\"z\": {\"y\": [{\"x\": {}}]}, \"a\": null, \"\": 0}"},
    {"{\"10\":0,\"9\":1,\"8\":2,\"7\":3,\"6\":4,\"5\":5,\"4\":6,\"3\":7,\"2\":8,\"1\":{\"a\":9}}",
     "{\"10\": 0, \"9\": 1, \"8\": 2, \"7\": 3, \"6\": 4, \"5\": 5, \"4\": 6, \"3\": 7, \"2\": 8, \"1\": {\"a\": 9}}"},
};

static void documents_keep_what_they_say(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++) {
        emo__json *root = NULL;
        emo__buf copy;
        emo__jw w;
        EXPECT_OK(emo__json_parse(&rt->mem, kept[i][0], strlen(kept[i][0]), "doc", &root, &err));
        emo__buf_init(&copy, &rt->mem);
        emo__jw_begin(&w, &copy, 0, &err);
        emo__jw_node(&w, NULL, root);
        EXPECT_OK(emo__jw_end(&w));
        assert_string_equal(copy.data, kept[i][1]);
        emo__json_free(root);
        emo__buf_free(&copy);
    }
    emo_runtime_release(rt);
}

/* Objects of every size around the border where they get a table: each key is found, others are not. */
static void members_are_found(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static char text[400000];
    static const int sizes[] = {0, 1, 7, 8, 9, 10, 16, 17, 31, 33, 500, 20000};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t n = 0;
        n += (size_t)snprintf(text + n, sizeof text - n, "[3, {");
        for (int i = 0; i < sizes[s]; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s\"k%d\":%d", i > 0 ? "," : "", i * 7, i);
        n += (size_t)snprintf(text + n, sizeof text - n, "}, \"last\"]");
        emo__json *root = NULL;
        EXPECT_OK(emo__json_parse(&rt->mem, text, n, "doc", &root, &err));
        const emo__json *object = emo__json_at(root, 1);
        assert_int_equal(emo__json_size(root), 3);
        assert_int_equal(emo__json_size(object), sizes[s]);
        assert_string_equal(emo__json_string(emo__json_at(root, 2), NULL), "last");
        int seen = 0;
        for (emo__json_iter it = emo__json_members(object); emo__json_next(&it); seen++) {
            int64_t value = -1;
            assert_true(emo__json_i64(it.value, &value) && value == seen);
            assert_ptr_equal(emo__json_get(object, it.key), it.value);
        }
        assert_int_equal(seen, sizes[s]);
        assert_false(emo__json_has(object, "k3"));
        assert_false(emo__json_has(object, ""));
        assert_null(emo__json_get(root, "k0")); /* a list has no members, an object no places */
        assert_null(emo__json_at(object, 0));
        assert_null(emo__json_at(root, 3));
        emo__json_free(root);
    }
    assert_null(emo__json_get(NULL, "a"));
    assert_int_equal(emo__json_size(NULL), 0);
    emo__json_free(NULL);
    emo_runtime_release(rt);
}

/* No memory at the N-th allocation: that status and nothing left, for every N. */
static void memory_may_run_out_anywhere(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    meter hook = METER_INIT;
    emo_runtime *rt = meter_runtime(&hook, 1);
    static char text[20000];
    size_t n = 0;
    for (int i = 0; i < 600; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s\"key %d\":[%d,{\"a\":%d.5}]", i > 0 ? "," : "{", i, i, i);
    text[n++] = '}';
    long failures = 0;
    for (long at = 0;; at++) {
        emo__json *root = NULL;
        meter_arm(&hook, at, 0);
        emo_status status = emo__json_parse(&rt->mem, text, n, "doc", &root, &err);
        long refused_count = atomic_load(&hook.refused);
        meter_disarm(&hook);
        if (refused_count == 0) {
            EXPECT_OK(status);
            emo__json_free(root);
            break;
        }
        assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
        assert_null(root);
        failures++;
    }
    assert_true(failures > 5);
    emo_runtime_release(rt);
    meter_check(&hook, "JSON");
}

static void bad_documents_are_refused(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static const char *const bad[] = {"", "{", "{\"a\": 1, \"a\": 2}", "[1,]", "\"\xff\"", "{\"a\": 1} x", "nul"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        emo__json *root = NULL;
        EXPECT_STATUS(emo__json_parse(&rt->mem, bad[i], strlen(bad[i]), "doc", &root, &err), EMO_E_FORMAT, "doc");
        assert_null(root);
    }
    char deep[200000];
    memset(deep, '[', sizeof deep);
    emo__json *root = NULL;
    EXPECT_STATUS(emo__json_parse(&rt->mem, deep, sizeof deep, "doc", &root, &err), EMO_E_FORMAT, "deeper");
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    EXPECT_OK(emo__json_parse(&rt->mem, deep, 128, "doc", &root, &err));
    emo__json_free(root);
    emo_runtime_release(rt);
}

static void written_text_reads_back(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    for (int indent = 0; indent <= 2; indent += 2) {
        emo__buf buf;
        emo__jw w;
        emo__buf_init(&buf, &rt->mem);
        emo__jw_begin(&w, &buf, indent, &err);
        emo__jw_object(&w, NULL);
        emo__jw_string(&w, "quote\"key", "line\nback\\slash \x01 \xc3\xa9");
        emo__jw_row(&w, "row");
        emo__jw_i64(&w, NULL, INT64_MIN);
        emo__jw_f64(&w, NULL, 1e-7);
        emo__jw_array_end(&w);
        emo__jw_array(&w, "empty");
        emo__jw_array_end(&w);
        emo__jw_bool(&w, "no", false);
        emo__jw_null(&w, "nothing");
        emo__jw_object_end(&w);
        EXPECT_OK(emo__jw_end(&w));
        emo__json *root = NULL;
        EXPECT_OK(emo__json_parse(&rt->mem, buf.data, buf.size, "own", &root, &err));
        assert_string_equal(emo__json_string(emo__json_get(root, "quote\"key"), NULL),
                            "line\nback\\slash \x01 \xc3\xa9");
        int64_t low = 0;
        double small = 0;
        assert_true(emo__json_i64(emo__json_at(emo__json_get(root, "row"), 0), &low) && low == INT64_MIN);
        assert_true(emo__json_f64(emo__json_at(emo__json_get(root, "row"), 1), &small) && small == 1e-7);
        assert_true(emo__json_has(root, "nothing") && emo__json_get(root, "nothing") == NULL);
        emo__buf copy;
        emo__buf_init(&copy, &rt->mem);
        emo__jw_begin(&w, &copy, indent, &err);
        emo__jw_node(&w, NULL, root);
        EXPECT_OK(emo__jw_end(&w));
        assert_string_equal(copy.data, buf.data);
        emo__json_free(root);
        emo__buf_free(&copy);
        emo__buf_free(&buf);
    }
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doubles_are_read_like_the_c_library_does),
        cmocka_unit_test(random_doubles_survive_text),
        cmocka_unit_test(integers_have_borders),
        cmocka_unit_test(typed_members),
        cmocka_unit_test(bad_documents_are_refused),
        cmocka_unit_test(each_refusal_has_its_place),
        cmocka_unit_test(documents_keep_what_they_say),
        cmocka_unit_test(members_are_found),
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(written_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
