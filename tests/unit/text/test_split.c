/* SPDX-License-Identifier: Apache-2.0 */
/* The scanners give the pieces of their regular expressions; UTF-8 is mended; NFC. */
#include "support/support.h"
#include "text/split.h"
#include "unit/text/text_support.h"

#define QWEN2                                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *pattern;
    emo__scanner scanner;
} patterns[] = {{EMO__PATTERN_CL100K, EMO__SCAN_CL100K}, {QWEN2, EMO__SCAN_QWEN2}, {EMO__PATTERN_GPT2, EMO__SCAN_GPT2}};

typedef struct pieces {
    const char *text;
    size_t ends[512];
    size_t n;
} pieces;

static emo_status collect(void *ctx, const char *piece, size_t length, emo_error *err) {
    (void)err;
    pieces *p = ctx;
    assert_true(length > 0);
    assert_true(p->n < 512);
    assert_ptr_equal(piece, p->text + (p->n > 0 ? p->ends[p->n - 1] : 0));
    p->ends[p->n++] = (size_t)(piece - p->text) + length;
    return EMO_OK;
}

/* Characters for which the table and PCRE2 agree, which decides with one-character matches. */
static bool agreed(const emo__regex *const classes[3], emo__regex_scratch **scratch, uint32_t c) {
    emo_error err = EMO_ERROR_INIT;
    unsigned char text[4];
    size_t n = emo__utf8_write(c, text), begin, end;
    int class = EMO__CLASS_OTHER;
    for (int k = 0; k < 3; k++) {
        bool found;
        EXPECT_OK(emo__regex_next(classes[k], scratch, (char *)text, n, 0, &found, &begin, &end, &err));
        if (found)
            class = k + 1;
    }
    return class == emo__char_class(c);
}

static void classes_agree_with_the_regular_expressions(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const char *const names[3] = {"\\p{L}", "\\p{N}", "\\s"};
    emo__regex *classes[3];
    for (int k = 0; k < 3; k++)
        EXPECT_OK(emo__regex_create(&rt->mem, names[k], strlen(names[k]), false, &classes[k], &err));
    emo__regex_scratch *scratch = NULL;
    size_t different = 0, old = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c <= 0xDFFF)
            continue;
        if (!agreed((const emo__regex *const *)classes, &scratch, c)) {
            different++;
            old += c < 0x0C00;
        }
    }
    /* the engine may be some Unicode versions apart: a version adds a few thousand letters, none in old blocks */
    assert_int_equal(old, 0);
    assert_true(different < 20000);
    emo__regex_scratch_free(scratch);
    for (int k = 0; k < 3; k++)
        emo__regex_destroy(classes[k]);
    emo_runtime_release(rt);
}

static void scanners_agree_with_the_regular_expressions(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    /* all of old age, so that both libraries know them; picked for the corners of the patterns */
    static const uint32_t alphabet[] = {
        'a',    'Z',    's',    'S',    't',    'r',    'e',     'v',     'm',     'l',     'L',     'd',     'D',
        '0',    '9',    '5',    '\'',   '\'',   '\'',   '.',     '!',     '_',     ' ',     ' ',     ' ',     '\t',
        '\n',   '\n',   '\r',   '\v',   0,      0x7F,   0x85,    0xA0,    0xAA,    0xB2,    0xBD,    0xE9,    0x17F,
        0x212A, 0x300,  0x416,  0x5D0,  0x660,  0x939,  0x940,   0x2003,  0x2028,  0x200B,  0x180E,  0x2019,  0x2160,
        0x3000, 0x4E2D, 0x3042, 0xAC00, 0xFEFF, 0xFFFD, 0x10348, 0x1D400, 0x1D7D8, 0x1F600, 0x20000, 0xE0001, 0x10FFFF};
    uint64_t seed = 1;
    for (size_t k = 0; k < 3; k++) {
        emo__split fast, slow;
        const char *pattern = patterns[k].pattern;
        EXPECT_OK(emo__split_init(&fast, &rt->mem, pattern, strlen(pattern), false, true, &err));
        EXPECT_OK(emo__split_init(&slow, &rt->mem, pattern, strlen(pattern), false, false, &err));
        assert_int_equal(fast.scanner, patterns[k].scanner);
        assert_int_equal(slow.scanner, EMO__SCAN_REGEX);
        emo__regex_scratch *scratch = NULL;
        for (int round = 0; round < 40000; round++) {
            unsigned char text[64 * 4];
            size_t n = 0, chars = text_random(&seed) % 24 + 1;
            for (size_t i = 0; i < chars; i++)
                n += emo__utf8_write(alphabet[text_random(&seed) % (sizeof alphabet / sizeof alphabet[0])], text + n);
            pieces a = {.text = (char *)text}, b = {.text = (char *)text};
            EXPECT_OK(emo__split_run(&fast, &scratch, a.text, n, collect, &a, &err));
            EXPECT_OK(emo__split_run(&slow, &scratch, b.text, n, collect, &b, &err));
            if (a.n != b.n || memcmp(a.ends, b.ends, a.n * sizeof a.ends[0]) != 0) {
                char hex[64 * 8] = "";
                for (size_t i = 0; i < n; i++)
                    (void)snprintf(hex + 2 * i, 3, "%02x", text[i]);
                fail_msg("pattern %zu: other pieces for %s", k, hex);
            }
        }
        emo__regex_scratch_free(scratch);
        emo__split_free(&fast, &rt->mem);
        emo__split_free(&slow, &rt->mem);
    }
    emo_runtime_release(rt);
}

static void expect_pieces(emo_runtime *rt, const char *pattern, bool literal, const char *text, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    emo__split split;
    emo__regex_scratch *scratch = NULL;
    EXPECT_OK(emo__split_init(&split, &rt->mem, pattern, strlen(pattern), literal, true, &err));
    pieces p = {.text = text};
    EXPECT_OK(emo__split_run(&split, &scratch, text, strlen(text), collect, &p, &err));
    char got[256] = "";
    for (size_t i = 0, n = 0; i < p.n; i++) {
        size_t begin = i > 0 ? p.ends[i - 1] : 0;
        n += (size_t)snprintf(got + n, sizeof got - n, "%s%.*s", i ? "|" : "", (int)(p.ends[i] - begin), text + begin);
    }
    assert_string_equal(got, want);
    emo__regex_scratch_free(scratch);
    emo__split_free(&split, &rt->mem);
}

typedef struct joined {
    char text[256];
    size_t n;
} joined;

static emo_status join(void *ctx, const char *piece, size_t length, emo_error *err) {
    (void)err;
    joined *all = ctx;
    all->n += (size_t)snprintf(all->text + all->n, sizeof all->text - all->n, "%s%.*s", all->n > 0 ? "|" : "",
                               (int)length, piece);
    return EMO_OK;
}

static void known_pieces(void **state) {
    (void)state;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    expect_pieces(rt, EMO__PATTERN_CL100K, false, "It's  12345 (ok)\n\n x", "It|'s| | |123|45| (|ok|)\n\n| x");
    expect_pieces(rt, EMO__PATTERN_GPT2, false, "It's  12345 (ok)\n\n x", "It|'s| | 12345| (|ok|)|\n\n| x");
    expect_pieces(rt, "[0-9]", false, "a1b22", "a|1|b|2|2");
    expect_pieces(rt, "x*", false, "axxb", "a|xx|b"); /* empty matches are borders */
    expect_pieces(rt, "(?=b)", false, "abab", "a|ba|b");
    expect_pieces(rt, "a.b", true, "aaxba.b", "aaxb|a.b"); /* plain text */
    emo_runtime_release(rt);
}

/* What Hugging Face's tokenizers make of the same: syntax and matches of Oniguruma, behaviours of Split. */
static void patterns_mean_what_they_mean_elsewhere(void **state) {
    (void)state;
    static const struct {
        const char *pattern;
        emo__behavior behavior;
        bool invert;
        const char *text, *want;
    } rows[] = {
        {"\\s+", EMO__ISOLATED, false, "a  b \n", "a|  |b| \n"},
        {"\\s+", EMO__REMOVED, false, "a  b \n", "a|b"},
        {"\\s+", EMO__REMOVED, true, "a  b \n", "  | \n"},
        {"\\s+", EMO__MERGED_WITH_PREVIOUS, false, " a  b \n", " |a  |b \n"},
        {"\\s+", EMO__MERGED_WITH_NEXT, false, "a  b \n", "a|  b| \n"},
        {"\\s", EMO__CONTIGUOUS, false, "a  b \n", "a|  |b| \n"},
        {"\\s", EMO__MERGED_WITH_PREVIOUS, false, "a  b \n", "a | |b |\n"},
        {"\\s", EMO__MERGED_WITH_NEXT, false, "a  b \n", "a| | b| |\n"},
        {"\\s", EMO__MERGED_WITH_PREVIOUS, true, "a  b \n", "a| | b| |\n"},
        {"\\s", EMO__MERGED_WITH_NEXT, true, "ab  c", "ab | |c"},
        {"\\s", EMO__CONTIGUOUS, true, "ab  c", "ab|  |c"},
        {"x*", EMO__MERGED_WITH_PREVIOUS, false, "axxb", "axx|b"},
        {"x*", EMO__MERGED_WITH_NEXT, false, "axxb", "a|xxb"},
        {"x*", EMO__CONTIGUOUS, true, "axxb", "a|xx|b"},
        {"x*", EMO__REMOVED, false, "axxb", "a|b"},
        {"x*", EMO__REMOVED, true, "axxb", "xx"},
        {"(?=b)", EMO__MERGED_WITH_NEXT, false, "abab", "a|ba|b"},
        {"^b", EMO__ISOLATED, false, "a\nb\nb", "a\n|b|\n|b"},
        {"a$", EMO__ISOLATED, false, "ba\na", "b|a|\n|a"},
        {"\\s++$", EMO__ISOLATED, false, "a  \nb  \n", "a  \nb|  \n"},
        {"(?m)a.b", EMO__ISOLATED, false, "xa\nbx", "x|a\nb|x"},
        {"(?m:a.)b", EMO__ISOLATED, false, "xa\nbx", "x|a\nb|x"},
        {".+", EMO__ISOLATED, false, "a\rb\nc", "a\rb|\n|c"},
        {"\\d{1,3}+", EMO__ISOLATED, false, "a12345b", "a|12345|b"},
        {"\\d{1,3}", EMO__ISOLATED, false, "a12345b", "a|123|45|b"},
        {"\\d{,2}", EMO__ISOLATED, false, "a12345b", "a|12|34|5|b"},
        {"(?:a|b1){2}+", EMO__ISOLATED, false, "xab1aab1x", "x|ab1aa|b1x"},
        {"\\h+", EMO__ISOLATED, false, "xyzabc 12", "xyz|abc| |12"},
        {"\\p{Letter}+", EMO__ISOLATED, false, "ab12", "ab|12"},
        {"\\p{Han}+", EMO__ISOLATED, false,
         "a\xE6\xBC\xA2\xE3\x80\x81"
         "b",
         "a|\xE6\xBC\xA2|\xE3\x80\x81"
         "b"},
        {"\\p{^L}+", EMO__ISOLATED, false, "ab12", "ab|12"},
        {"\\w+", EMO__ISOLATED, false, "(a_1\xC2\xB2\xE2\x93\x90)\xE2\x80\x8D",
         "(|a_1\xC2\xB2\xE2\x93\x90|)\xE2\x80\x8D"},
        {"[\\w]+", EMO__ISOLATED, false, "(a_1\xC2\xB2\xE2\x93\x90)", "(|a_1|\xC2\xB2|\xE2\x93\x90|)"},
        {"\\bab\\b", EMO__ISOLATED, false, "ab abc ab", "ab| abc |ab"},
        {"[^\\s\\d]+", EMO__ISOLATED, false, "ab 1c", "ab| 1|c"},
        {"[\\S]+", EMO__ISOLATED, false,
         "ab\xC2\xA0"
         "c",
         "ab|\xC2\xA0|c"},
        {"\\u3042+", EMO__ISOLATED, false, "x\xE3\x81\x82\xE3\x81\x82", "x|\xE3\x81\x82\xE3\x81\x82"},
        {"(?i:'s)", EMO__ISOLATED, false, "'s'S'\xC5\xBF", "'s|'S|'\xC5\xBF"},
        {"[]a]+", EMO__ISOLATED, false, "b]ab", "b|]a|b"},
        {"\\x{3042}", EMO__ISOLATED, false, "x\xE3\x81\x82", "x|\xE3\x81\x82"},
        {"(?<=a)b", EMO__ISOLATED, false, "abb", "a|b|b"},
        {"b\\Z", EMO__ISOLATED, false, "b\nb\n", "b\n|b|\n"},
        {"b\\z", EMO__ISOLATED, false, "b\nb", "b\n|b"},
    };
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        emo_error err = EMO_ERROR_INIT;
        emo__split split;
        emo__regex_scratch *scratch = NULL;
        EXPECT_OK(emo__split_init_as(&split, &rt->mem, rows[r].pattern, strlen(rows[r].pattern), false,
                                     rows[r].behavior, rows[r].invert, &err));
        joined all = {"", 0};
        EXPECT_OK(emo__split_run(&split, &scratch, rows[r].text, strlen(rows[r].text), join, &all, &err));
        if (strcmp(all.text, rows[r].want) != 0)
            fail_msg("row %zu, %s: got '%s', want '%s'", r, rows[r].pattern, all.text, rows[r].want);
        emo__regex_scratch_free(scratch);
        emo__split_free(&split, &rt->mem);
    }
    emo_runtime_release(rt);
}

static void what_a_pattern_needs_is_named(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *words;
    } rows[] = {
        {"[\\p{L}&&[a]]", "intersection"},
        {"[a[b]]", "class in a class"},
        {"[[:alpha:]]", "POSIX"},
        {"(?~a)", "group"},
        {"(*FAIL)", "(*"},
        {"\\Qa", "\\Q"},
        {"a\\Kb", "\\K"},
        {"(a)\\1", NULL},
        {"[\\W]", "\\W in a class"},
        {"\\xC3\\xA9", "byte"},
        {"\\pL", "{name}"},
        {"\\p{}", "property"},
    };
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        emo_error err = EMO_ERROR_INIT;
        emo__split split;
        const char *pattern = rows[r].pattern;
        if (rows[r].words == NULL) {
            EXPECT_OK(emo__split_init(&split, &rt->mem, pattern, strlen(pattern), false, true, &err));
            emo__split_free(&split, &rt->mem);
            continue;
        }
        EXPECT_STATUS(emo__split_init(&split, &rt->mem, pattern, strlen(pattern), false, true, &err), EMO_E_UNSUPPORTED,
                      rows[r].words);
    }
    emo_runtime_release(rt);
}

static void digits_stand_apart(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const char *const want[2] = {"a |12\xC2\xB2| b|3", "a |1|2|\xC2\xB2| b|3"};
    for (int single = 0; single < 2; single++) {
        emo__split split;
        emo__regex_scratch *scratch = NULL;
        emo__split_init_digits(&split, single == 1);
        joined all = {"", 0};
        EXPECT_OK(emo__split_run(&split, &scratch, "a 12\xC2\xB2 b3", 9, join, &all, &err));
        assert_string_equal(all.text, want[single]);
        emo__split_free(&split, &rt->mem);
    }
    emo_runtime_release(rt);
}

static void a_pattern_that_explodes_is_stopped(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo__split split;
    emo__regex_scratch *scratch = NULL;
    EXPECT_OK(emo__split_init(&split, &rt->mem, "(a|aa)+(?=c)$", 13, false, true, &err));
    char text[61];
    memset(text, 'a', 60);
    text[60] = 'b';
    pieces p = {.text = text};
    EXPECT_STATUS(emo__split_run(&split, &scratch, text, 61, collect, &p, &err), EMO_E_LIMIT, "too long");
    emo__regex_scratch_free(scratch);
    emo__split_free(&split, &rt->mem);
    EXPECT_STATUS(emo__split_init(&split, &rt->mem, "(a", 2, false, true, &err), EMO_E_FORMAT, "at byte 2");
    EXPECT_STATUS(emo__split_init(&split, &rt->mem, "\xFF", 1, false, true, &err), EMO_E_FORMAT, "UTF-8");
    EXPECT_STATUS(emo__split_init(&split, &rt->mem, "\\C", 2, false, true, &err), EMO_E_UNSUPPORTED, "\\C");
    emo_runtime_release(rt);
}

static void invalid_bytes_become_replacement_characters(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
#define R "\xEF\xBF\xBD"
    static const char *const cases[][2] = {
        {"a\x80z", "a" R "z"},
        {"\xC0\xAF", R R},             /* overlong */
        {"\xE0\x80\xAF", R R R},       /* overlong */
        {"\xED\xA0\x80", R R R},       /* a surrogate */
        {"\xF4\x90\x80\x80", R R R R}, /* above U+10FFFF */
        {"\xE2\x82(", R "("},          /* a maximal part is one */
        {"\xF0\x9F\x98", R},           /* cut by the end */
        {"\xF0\x9F\x98\xF0\x9F\x98\x80!", R "\xF0\x9F\x98\x80!"},
        {"\xFF\xFEok", R R "ok"},
    };
#undef R
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        emo__buf out;
        emo__buf_init(&out, &rt->mem);
        size_t left;
        EXPECT_OK(emo__utf8_clean(&out, cases[i][0], strlen(cases[i][0]), false, &left, &err));
        assert_string_equal(out.data, cases[i][1]);
        emo__buf_free(&out);
    }
    emo_runtime_release(rt);
}

static void nfc_of(emo_runtime *rt, const char *text, const char *want) {
    emo_error err = EMO_ERROR_INIT;
    emo__buf out;
    emo__buf_init(&out, &rt->mem);
    EXPECT_OK(emo__utf8_normalize(EMO__NFC, &out, text, strlen(text), &err));
    assert_string_equal(out.data, want);
    emo__buf_free(&out);
}

static void other_forms(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    static const struct {
        emo__form form;
        const char *text, *want;
    } rows[] = {
        {EMO__NFD, "\xC3\xA9", "e\xCC\x81"},
        {EMO__NFD, "\xEF\xAC\x81", "\xEF\xAC\x81"},
        {EMO__NFD, "\xEA\xB0\x81", "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8"},
        {EMO__NFKC,
         "\xEF\xAC\x81"
         "e\xCC\x81",
         "fi\xC3\xA9"},
        {EMO__NFKC, "\xC2\xA0", " "},
        {EMO__NFKD, "\xE1\xBA\x9B", "s\xCC\x87"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        emo__buf out;
        emo__buf_init(&out, &rt->mem);
        size_t n = strlen(rows[i].text);
        EXPECT_OK(emo__utf8_normalize(rows[i].form, &out, rows[i].text, n, &err));
        assert_string_equal(out.data, rows[i].want);
        assert_true(strcmp(rows[i].text, rows[i].want) == 0 || !emo__utf8_surely_normal(rows[i].form, rows[i].text, n));
        emo__buf_free(&out);
    }
    emo_runtime_release(rt);
}

static void nfc_composes(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    nfc_of(rt, "e\xCC\x81", "\xC3\xA9");
    nfc_of(rt, "\xC3\xA9", "\xC3\xA9");
    nfc_of(rt, "\xE2\x84\xAB", "\xC3\x85");                             /* Angstrom sign */
    nfc_of(rt, "q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87");               /* marks in canonical order */
    nfc_of(rt, "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", "\xEA\xB0\x81"); /* Hangul */
    nfc_of(rt, "\xEF\xAC\x81", "\xEF\xAC\x81");                         /* compatibility forms stay */
    /* a long run of marks out of order must not take quadratic time */
    size_t n = 400000;
    char *text = malloc(2 * n + 1);
    assert_non_null(text);
    text[0] = 'q';
    for (size_t i = 0; i < n; i++)
        memcpy(text + 1 + 2 * i, i % 2 ? "\xCC\xA3" : "\xCC\x87", 2);
    emo__buf out;
    emo__buf_init(&out, &rt->mem);
    EXPECT_OK(emo__utf8_normalize(EMO__NFC, &out, text, 2 * n + 1, &err));
    assert_int_equal(out.size, 2 * n + 1);
    assert_memory_equal(out.data + 1, "\xCC\xA3\xCC\xA3", 4);
    emo__buf_free(&out);
    free(text);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_agree_with_the_regular_expressions),
        cmocka_unit_test(scanners_agree_with_the_regular_expressions),
        cmocka_unit_test(known_pieces),
        cmocka_unit_test(patterns_mean_what_they_mean_elsewhere),
        cmocka_unit_test(what_a_pattern_needs_is_named),
        cmocka_unit_test(digits_stand_apart),
        cmocka_unit_test(a_pattern_that_explodes_is_stopped),
        cmocka_unit_test(invalid_bytes_become_replacement_characters),
        cmocka_unit_test(nfc_composes),
        cmocka_unit_test(other_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
