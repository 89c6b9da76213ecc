/* SPDX-License-Identifier: Apache-2.0 */
#include "eval/answers.h"

#include <string.h>

#include "base/status.h"

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_word(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80;
}
static bool is_punctuation(char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

/* ---- extraction ---- */

static const char *last_after(const char *text, const char *after) {
    const char *found = text;
    for (const char *at = text; (at = strstr(at, after)) != NULL; at++)
        found = at + strlen(after);
    return found;
}

/* The length of a number at p: digits with commas between them, then perhaps a point and digits; 0: none. */
static size_t number_length(const char *p) {
    size_t n = 0;
    if (!is_digit(p[0]) && !(p[0] == '.' && is_digit(p[1])))
        return 0;
    while (is_digit(p[n]) || (p[n] == ',' && n > 0 && is_digit(p[n + 1])))
        n++;
    if (p[n] == '.' && is_digit(p[n + 1])) {
        n++;
        while (is_digit(p[n]))
            n++;
    }
    return n;
}

/* One notation for a value: no commas, no zeros in front, none at the end of a fraction, no point without one. */
static emo_status append_number(const char *p, size_t n, bool negative, emo__buf *out, emo_error *err) {
    size_t begin = out->size;
    emo_status status = negative ? emo__buf_append(out, "-", 1, err) : EMO_OK;
    size_t digits = out->size;
    bool fraction = false;
    for (size_t i = 0; status == EMO_OK && i < n; i++) {
        if (p[i] == ',' || (p[i] == '0' && out->size == digits && i + 1 < n && p[i + 1] != '.'))
            continue;
        if (p[i] == '.' && out->size == digits)
            status = emo__buf_append(out, "0", 1, err);
        fraction = fraction || p[i] == '.';
        if (status == EMO_OK)
            status = emo__buf_append(out, p + i, 1, err);
    }
    if (status != EMO_OK)
        return status;
    while (fraction && (out->data[out->size - 1] == '0' || out->data[out->size - 1] == '.')) {
        fraction = out->data[out->size - 1] != '.';
        out->size--;
    }
    if (negative && out->size == digits + 1 && out->data[digits] == '0') { /* -0 */
        out->data[begin] = '0';
        out->size = begin + 1;
    }
    out->data[out->size] = '\0';
    return EMO_OK;
}

static emo_status append_last_number(const char *text, emo__buf *out, emo_error *err) {
    const char *last = NULL;
    size_t length = 0;
    for (const char *p = text; *p != '\0';) {
        size_t n = number_length(p);
        if (n > 0) {
            last = p;
            length = n;
        }
        p += n > 0 ? n : 1;
    }
    if (last == NULL)
        return EMO_OK;
    const char *before = last; /* a minus, perhaps with a $ between, that does not join two words or numbers */
    if (before > text && before[-1] == '$')
        before--;
    bool negative =
        before > text && before[-1] == '-' && (before - 1 == text || !(is_word(before[-2]) || before[-2] == ')'));
    return append_number(last, length, negative, out, err);
}

static emo_status extract(const emo__answer_rule *rule, const char *text, emo__buf *out, emo_error *err) {
    if (rule->after != NULL)
        text = last_after(text, rule->after);
    if (rule->extract == EMO__EXTRACT_LAST_NUMBER)
        return append_last_number(text, out, err);
    if (rule->extract == EMO__EXTRACT_LINE) {
        while (is_space(*text))
            text++;
        return emo__buf_append(out, text, strcspn(text, "\n"), err);
    }
    return emo__buf_append(out, text, strlen(text), err);
}

/* ---- normalisation, in place ---- */

static bool is_article(const char *word, size_t length) {
    static const char *const articles[] = {"a", "an", "the"};
    for (size_t i = 0; i < sizeof articles / sizeof articles[0]; i++) {
        size_t n = strlen(articles[i]);
        bool equal = n == length;
        for (size_t c = 0; equal && c < n; c++)
            equal = (char)(word[c] | 32) == articles[i][c];
        if (equal)
            return true;
    }
    return false;
}

static void drop_articles(char *s) {
    size_t to = 0;
    for (size_t i = 0; s[i] != '\0';) {
        size_t n = 0;
        while (s[i + n] != '\0' && !is_space(s[i + n]))
            n++;
        if (n > 0 && is_article(s + i, n)) {
            i += n;
            continue;
        }
        n += n == 0 ? 1 : 0;
        memmove(s + to, s + i, n);
        to += n;
        i += n;
    }
    s[to] = '\0';
}

static void join_spaces(char *s) {
    size_t to = 0;
    for (size_t i = 0; s[i] != '\0'; i++) {
        if (!is_space(s[i]))
            s[to++] = s[i];
        else if (to > 0 && s[to - 1] != ' ')
            s[to++] = ' ';
    }
    while (to > 0 && s[to - 1] == ' ')
        to--;
    s[to] = '\0';
}

emo_status emo__answer_normal(const emo__answer_rule *rule, const char *text, emo__buf *out, emo_error *err) {
    size_t begin = out->size;
    emo_status status = emo__buf_reserve(out, 1, err);
    if (status == EMO_OK)
        status = extract(rule, text, out, err);
    if (status != EMO_OK)
        return status;
    char *s = out->data + begin;
    s[out->size - begin] = '\0';
    if (rule->extract == EMO__EXTRACT_LAST_NUMBER) /* it has its notation, in which the point counts */
        return EMO_OK;
    size_t to = 0;
    for (size_t i = 0; s[i] != '\0'; i++) {
        if (rule->punctuation && is_punctuation(s[i]))
            continue;
        s[to++] = (char)(rule->lower && s[i] >= 'A' && s[i] <= 'Z' ? s[i] + 32 : s[i]);
    }
    s[to] = '\0';
    if (rule->articles)
        drop_articles(s);
    if (rule->space)
        join_spaces(s);
    out->size = begin + strlen(s);
    return EMO_OK;
}

/* ---- measures ---- */

double emo__answer_exact(const char *got, const char *want) { return strcmp(got, want) == 0 ? 1.0 : 0.0; }

double emo__answer_prefix(const char *got, const char *want) {
    size_t n = strlen(want);
    if (strncmp(got, want, n) != 0)
        return 0.0;
    return n == 0 ? emo__answer_exact(got, want) : is_word(got[n]) ? 0.0 : 1.0;
}

typedef struct word {
    const char *text;
    size_t length;
} word;

static emo_status words_of(const emo__mem *mem, const char *text, word **out, size_t *count, emo_error *err) {
    size_t n = 0;
    *out = emo__malloc_array(mem, strlen(text) / 2 + 1, sizeof **out);
    if (*out == NULL)
        return emo__fail_memory(err, (strlen(text) / 2 + 1) * sizeof **out);
    for (const char *p = text; *p != '\0';) {
        size_t length = 0;
        while (p[length] != '\0' && !is_space(p[length]))
            length++;
        if (length > 0)
            (*out)[n++] = (word){p, length};
        p += length > 0 ? length : 1;
    }
    *count = n;
    return EMO_OK;
}

/* Words in both, each as often as in the text that has it less often. `got` loses those that were found. */
static size_t overlap(word *got, size_t n_got, const word *want, size_t n_want) {
    size_t common = 0;
    for (size_t w = 0; w < n_want; w++) {
        for (size_t g = 0; g < n_got; g++) {
            if (got[g].length == want[w].length && memcmp(got[g].text, want[w].text, want[w].length) == 0) {
                got[g] = got[--n_got];
                common++;
                break;
            }
        }
    }
    return common;
}

emo_status emo__answer_f1(const emo__mem *mem, const char *got, const char *want, double *f1, emo_error *err) {
    word *a = NULL;
    word *b = NULL;
    size_t n_a = 0;
    size_t n_b = 0;
    emo_status status = words_of(mem, got, &a, &n_a, err);
    if (status == EMO_OK)
        status = words_of(mem, want, &b, &n_b, err);
    *f1 = 0.0;
    if (status == EMO_OK && (n_a == 0 || n_b == 0)) {
        *f1 = n_a == n_b ? 1.0 : 0.0;
    } else if (status == EMO_OK) {
        size_t common = overlap(a, n_a, b, n_b);
        *f1 = 2.0 * (double)common / (double)(n_a + n_b);
    }
    emo__free(mem, a);
    emo__free(mem, b);
    return status;
}
