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
    {EMO__PATTERN_QWEN2, EMO__SCAN_QWEN2},
    {EMO__PATTERN_GPT2, EMO__SCAN_GPT2},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", EMO__SCAN_GPT2},
};

const char *const emo__behavior_names[5] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext",
                                            "Contiguous"};

static emo_status init(emo__split *split, const emo__mem *mem, const char *pattern, size_t length, bool allow_scanner,
                       emo_error *err) {
    for (size_t i = 0; allow_scanner && i < sizeof known / sizeof known[0]; i++) {
        if (length == strlen(known[i].pattern) && memcmp(pattern, known[i].pattern, length) == 0)
            split->scanner = known[i].scanner;
    }
    if (split->scanner == EMO__SCAN_REGEX) {
        emo_status status = emo__regex_create(mem, pattern, length, split->literal, &split->regex, err);
        if (status != EMO_OK)
            return status;
    }
    split->pattern = emo__strndup(mem, pattern, length);
    if (split->pattern == NULL) {
        emo__split_free(split, mem);
        return emo__fail_memory(err, length + 1);
    }
    return EMO_OK;
}

emo_status emo__split_init(emo__split *split, const emo__mem *mem, const char *pattern, size_t length, bool literal,
                           bool allow_scanner, emo_error *err) {
    memset(split, 0, sizeof *split);
    split->literal = literal;
    return init(split, mem, pattern, length, allow_scanner && !literal, err);
}

emo_status emo__split_init_as(emo__split *split, const emo__mem *mem, const char *pattern, size_t length, bool literal,
                              emo__behavior behavior, bool invert, emo_error *err) {
    memset(split, 0, sizeof *split);
    split->literal = literal;
    split->behavior = behavior;
    split->invert = invert;
    /* the known patterns match everything: isolated, and kept alone, their matches are the scanner's pieces */
    bool tiles = behavior == EMO__ISOLATED || (behavior == EMO__REMOVED && invert);
    return init(split, mem, pattern, length, tiles && !literal, err);
}

void emo__split_init_digits(emo__split *split, bool individual) {
    memset(split, 0, sizeof *split);
    split->scanner = individual ? EMO__SCAN_DIGIT : EMO__SCAN_DIGITS;
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

static size_t scan_digits(const unsigned char *p, size_t n, size_t i, size_t digits) {
    size_t length;
    if (class_at(p, i, &length) == EMO__CLASS_NUMBER)
        return run(p, n, i + length, EMO__CLASS_NUMBER, digits - 1);
    do
        i += length;
    while (i < n && class_at(p, i, &length) != EMO__CLASS_NUMBER);
    return i;
}

size_t emo__scan(emo__scanner scanner, const char *text, size_t length, size_t from) {
    const unsigned char *p = (const unsigned char *)text;
    switch (scanner) {
    case EMO__SCAN_GPT2:
        return scan_gpt2(p, length, from);
    case EMO__SCAN_DIGITS:
        return scan_digits(p, length, from, SIZE_MAX);
    case EMO__SCAN_DIGIT:
        return scan_digits(p, length, from, 1);
    default:
        return scan_cl100k(p, length, from, scanner == EMO__SCAN_CL100K ? 3 : 1);
    }
}

/* Puts matches and what lies between them together as the behaviour asks. */
typedef struct joiner {
    const emo__split *split;
    const char *text;
    emo__piece_fn fn;
    void *ctx;
    size_t begin, end; /* what is held back */
    bool held, match;  /* of the last segment */
} joiner;

static emo_status release(joiner *j, emo_error *err) {
    bool any = j->held && j->end > j->begin;
    j->held = false;
    return any ? j->fn(j->ctx, j->text + j->begin, j->end - j->begin, err) : EMO_OK;
}

/* The next segment; an empty one only where a match is empty. */
static emo_status segment(joiner *j, size_t begin, size_t end, bool match, emo_error *err) {
    bool before = j->match, joins = false;
    match = match != j->split->invert;
    j->match = match;
    switch (j->split->behavior) {
    case EMO__REMOVED:
        if (match)
            return EMO_OK;
        break;
    case EMO__MERGED_WITH_PREVIOUS:
        joins = match && !before;
        break;
    case EMO__MERGED_WITH_NEXT:
        joins = !match && before;
        break;
    case EMO__CONTIGUOUS:
        joins = match == before;
        break;
    default:
        break;
    }
    if (joins && j->held) {
        j->end = end;
        return EMO_OK;
    }
    emo_status status = release(j, err);
    j->begin = begin;
    j->end = end;
    j->held = true;
    return status;
}

static emo_status run_regex(const emo__split *split, emo__regex_scratch **scratch, const char *text, size_t length,
                            emo__piece_fn fn, void *ctx, emo_error *err) {
    joiner j = {.split = split, .text = text, .fn = fn, .ctx = ctx};
    size_t done = 0, from = 0; /* segments are out up to `done`; the search goes on at `from` */
    bool matched = false;      /* a match ends at `done` */
    while (from <= length) {
        bool found;
        size_t begin, end;
        emo_status status = emo__regex_next(split->regex, scratch, text, length, from, &found, &begin, &end, err);
        if (status != EMO_OK)
            return status;
        if (!found)
            break;
        if (end == begin && matched && end == done) { /* empty, right behind a match: look again one character on */
            if (end == length)
                break;
            uint32_t c;
            from = end + emo__utf8_read((const unsigned char *)text + end, &c);
            continue;
        }
        if (begin > done && (status = segment(&j, done, begin, false, err)) != EMO_OK)
            return status;
        if ((status = segment(&j, begin, end, true, err)) != EMO_OK)
            return status;
        matched = true;
        done = end;
        from = end;
    }
    emo_status status = done < length ? segment(&j, done, length, false, err) : EMO_OK;
    return status == EMO_OK ? release(&j, err) : status;
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
