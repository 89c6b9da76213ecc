/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting a text into the pieces that are encoded one by one. */
#ifndef EMO_SRC_TEXT_SPLIT_H
#define EMO_SRC_TEXT_SPLIT_H

#include "text/regex.h"

/* The patterns that most tokenizers use have a scanner by hand, which gives the same pieces as the pattern. */
#define EMO__PATTERN_CL100K                                                                                            \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"           \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define EMO__PATTERN_QWEN2                                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define EMO__PATTERN_GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* Scanners cut a text into pieces without gaps. */
typedef enum emo__scanner {
    EMO__SCAN_REGEX = 0,
    EMO__SCAN_CL100K = 1, /* numbers in groups of up to three digits */
    EMO__SCAN_QWEN2 = 2,  /* the same with single digits */
    EMO__SCAN_GPT2 = 3,
    EMO__SCAN_DIGITS = 4, /* the pre-tokenizer Digits: runs of numbers, and what is between */
    EMO__SCAN_DIGIT = 5   /* the same with single digits */
} emo__scanner;

/* What becomes of the matches, as in Hugging Face's. */
typedef enum emo__behavior {
    EMO__ISOLATED = 0,
    EMO__REMOVED,
    EMO__MERGED_WITH_PREVIOUS,
    EMO__MERGED_WITH_NEXT,
    EMO__CONTIGUOUS
} emo__behavior;
extern const char *const emo__behavior_names[5];

typedef struct emo__split {
    emo__scanner scanner;
    emo__behavior behavior;
    bool invert; /* matches and what lies between them change places */
    bool literal;
    emo__regex *regex; /* EMO__SCAN_REGEX */
    char *pattern;     /* as in the file, NUL-terminated; NULL for digits */
} emo__split;

/* Takes a copy of the pattern. `allow_scanner` false: always the regular expression, for tests. */
EMO_MUST_CHECK emo_status emo__split_init(emo__split *split, const emo__mem *mem, const char *pattern, size_t length,
                                          bool literal, bool allow_scanner, emo_error *err);
/* The same with a behaviour. */
EMO_MUST_CHECK emo_status emo__split_init_as(emo__split *split, const emo__mem *mem, const char *pattern, size_t length,
                                             bool literal, emo__behavior behavior, bool invert, emo_error *err);
void emo__split_init_digits(emo__split *split, bool individual);
void emo__split_free(emo__split *split, const emo__mem *mem);

/* The end of the piece of text[0..length) that begins at `from` < length. */
size_t emo__scan(emo__scanner scanner, const char *text, size_t length, size_t from);

/* Called for each piece, in order; pieces are never empty. */
typedef emo_status (*emo__piece_fn)(void *ctx, const char *piece, size_t length, emo_error *err);
EMO_MUST_CHECK emo_status emo__split_run(const emo__split *split, emo__regex_scratch **scratch, const char *text,
                                         size_t length, emo__piece_fn fn, void *ctx, emo_error *err);

#endif
