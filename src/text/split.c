/* SPDX-License-Identifier: Apache-2.0 */
#include "text/split.h"

#include <string.h>

#include "base/status.h"
#include "text/unicode.h"

/* The same pattern is written in several ways; all of these mean the scanner's. */
static const struct {
    const char *pattern;
    emo__scanner scanner;
} known[] = {
    {EMO__PATTERN_CL100K, EMO__SCAN_CL100K},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
     "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     EMO__SCAN_QWEN2},
    {EMO__PATTERN_GPT2, EMO__SCAN_GPT2},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", EMO__SCAN_GPT2},
};

emo_status emo__split_init(emo__split *split, const emo__mem *mem, const char *pattern, size_t length, bool literal,
                           bool allow_scanner, emo_error *err) {
    memset(split, 0, sizeof *split);
    for (size_t i = 0; allow_scanner && !literal && i < sizeof known / sizeof known[0]; i++) {
        if (length == strlen(known[i].pattern) && memcmp(pattern, known[i].pattern, length) == 0)
            split->scanner = known[i].scanner;
    }
    if (split->scanner == EMO__SCAN_REGEX) {
        emo_status status = emo__regex_create(mem, pattern, length, literal, &split->regex, err);
        if (status != EMO_OK)
            return status;
    }
    split->literal = literal;
    split->pattern = emo__strndup(mem, pattern, length);
    if (split->pattern == NULL) {
        emo__split_free(split, mem);
        return emo__fail_memory(err, length + 1);
    }
    return EMO_OK;
}

void emo__split_free(emo__split *split, const emo__mem *mem) {
    emo__regex_destroy(split->regex);
    emo__free(mem, split->pattern);
    memset(split, 0, sizeof *split);
}

/* The class of the character at p + i and its length. */
static inline int class_at(const unsigned char *p, size_t i, size_t *length) {
    if (p[i] < 0x80) {
        *length = 1;
        return emo__ascii_class[p[i]];
    }
    uint32_t c;
    *length = emo__utf8_read(p + i, &c);
    return emo__char_class(c);
}

/* The end of the run of `class` that begins at i; at most `limit` characters. */
static inline size_t run(const unsigned char *p, size_t n, size_t i, int class, size_t limit) {
    size_t length;
    while (i < n && limit > 0 && class_at(p, i, &length) == class) {
        i += length;
        limit--;
    }
    return i;
}

/* The length of 's 't 're 've 'm 'll 'd at i, where an apostrophe stands; 0: none. */
static size_t contraction(const unsigned char *p, size_t n, size_t i, bool any_case) {
    size_t left = n - i;
    if (left < 2)
        return 0;
    unsigned fold = any_case ? 0x20 : 0;
    unsigned a = p[i + 1] | fold;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (left < 3)
        return 0;
    unsigned b = p[i + 2] | fold;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return 3;
    /* the long s folds to s */
    return any_case && p[i + 1] == 0xC5 && p[i + 2] == 0xBF ? 3 : 0;
}

/* \s+(?!\S)|\s+ for the run of white space [i, end): it leaves its last character to the word behind it. */
static size_t space_end(const unsigned char *p, size_t n, size_t i, size_t end) {
    if (end == n)
        return end;
    size_t last = end - 1;
    while ((p[last] & 0xC0) == 0x80)
        last--;
    return last > i ? last : end;
}

static size_t scan_cl100k(const unsigned char *p, size_t n, size_t i, size_t digits) {
    if (p[i] == '\'') {
        size_t length = contraction(p, n, i, true);
        if (length > 0)
            return i + length;
    }
    size_t length, next;
    int class = class_at(p, i, &length);
    if (class == EMO__CLASS_LETTER)
        return run(p, n, i + length, EMO__CLASS_LETTER, SIZE_MAX);
    if (class == EMO__CLASS_NUMBER)
        return run(p, n, i + length, EMO__CLASS_NUMBER, digits - 1);
    bool newline = p[i] == '\n' || p[i] == '\r';
    int after = i + length < n ? class_at(p, i + length, &next) : EMO__CLASS_SPACE;
    if (!newline && after == EMO__CLASS_LETTER)
        return run(p, n, i + length, EMO__CLASS_LETTER, SIZE_MAX);
    if (class == EMO__CLASS_OTHER || (p[i] == ' ' && after == EMO__CLASS_OTHER)) {
        size_t end = run(p, n, i + length, EMO__CLASS_OTHER, SIZE_MAX);
        while (end < n && (p[end] == '\n' || p[end] == '\r'))
            end++;
        return end;
    }
    size_t end = run(p, n, i, EMO__CLASS_SPACE, SIZE_MAX);
    for (size_t k = end; k > i; k--) {
        if (p[k - 1] == '\n' || p[k - 1] == '\r')
            return k;
    }
    return space_end(p, n, i, end);
}

static size_t scan_gpt2(const unsigned char *p, size_t n, size_t i) {
    if (p[i] == '\'') {
        size_t length = contraction(p, n, i, false);
        if (length > 0)
            return i + length;
    }
    size_t length;
    int class = class_at(p, i, &length);
    if (p[i] == ' ' && i + 1 < n) {
        size_t next;
        int after = class_at(p, i + 1, &next);
        if (after != EMO__CLASS_SPACE)
            return run(p, n, i + 1, after, SIZE_MAX);
    }
    size_t end = run(p, n, i + length, class, SIZE_MAX);
    return class == EMO__CLASS_SPACE ? space_end(p, n, i, end) : end;
}

size_t emo__scan(emo__scanner scanner, const char *text, size_t length, size_t from) {
    const unsigned char *p = (const unsigned char *)text;
    if (scanner == EMO__SCAN_GPT2)
        return scan_gpt2(p, length, from);
    return scan_cl100k(p, length, from, scanner == EMO__SCAN_CL100K ? 3 : 1);
}

static emo_status run_regex(const emo__split *split, emo__regex_scratch **scratch, const char *text, size_t length,
                            emo__piece_fn fn, void *ctx, emo_error *err) {
    size_t done = 0, from = 0; /* pieces are out up to `done`; the search goes on at `from` */
    while (from <= length) {
        bool found;
        size_t begin, end;
        emo_status status = emo__regex_next(split->regex, scratch, text, length, from, &found, &begin, &end, err);
        if (status != EMO_OK)
            return status;
        if (!found)
            break;
        if (begin > done && (status = fn(ctx, text + done, begin - done, err)) != EMO_OK)
            return status;
        if (end > begin && (status = fn(ctx, text + begin, end - begin, err)) != EMO_OK)
            return status;
        done = end;
        from = end;
        if (end == begin) { /* an empty match: a border; look again one character on */
            if (end == length)
                break;
            uint32_t c;
            from += emo__utf8_read((const unsigned char *)text + end, &c);
        }
    }
    return done < length ? fn(ctx, text + done, length - done, err) : EMO_OK;
}

emo_status emo__split_run(const emo__split *split, emo__regex_scratch **scratch, const char *text, size_t length,
                          emo__piece_fn fn, void *ctx, emo_error *err) {
    if (split->scanner == EMO__SCAN_REGEX)
        return run_regex(split, scratch, text, length, fn, ctx, err);
    for (size_t at = 0; at < length;) {
        size_t end = emo__scan(split->scanner, text, length, at);
        emo_status status = fn(ctx, text + at, end - at, err);
        if (status != EMO_OK)
            return status;
        at = end;
    }
    return EMO_OK;
}
