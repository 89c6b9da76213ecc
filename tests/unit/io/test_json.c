/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers and JSON, in and out. */
#include <float.h>
#include <math.h>

#include "base/parse.h"
#include "base/runtime.h"
#include "io/json.h"
#include "support/support.h"
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
    EXPECT_OK(emo__json_parse(text, strlen(text), "doc", &root, &err));
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

static void bad_documents_are_refused(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const char *const bad[] = {"", "{", "{\"a\": 1, \"a\": 2}", "[1,]", "\"\xff\"", "{\"a\": 1} x", "nul"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        emo__json *root = NULL;
        EXPECT_STATUS(emo__json_parse(bad[i], strlen(bad[i]), "doc", &root, &err), EMO_E_FORMAT, "doc");
        assert_null(root);
    }
    char deep[200000];
    memset(deep, '[', sizeof deep);
    emo__json *root = NULL;
    EXPECT_STATUS(emo__json_parse(deep, sizeof deep, "doc", &root, &err), EMO_E_FORMAT, "deeper");
    memset(deep, '[', 64);
    memset(deep + 64, ']', 64);
    EXPECT_OK(emo__json_parse(deep, 128, "doc", &root, &err));
    emo__json_free(root);
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
        EXPECT_OK(emo__json_parse(buf.data, buf.size, "own", &root, &err));
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
        cmocka_unit_test(written_text_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
