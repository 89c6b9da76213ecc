/* SPDX-License-Identifier: Apache-2.0 */
/* How well a generated text answers: extraction, normalisation, exact match, F1. */
#ifndef EMO_SRC_EVAL_ANSWERS_H
#define EMO_SRC_EVAL_ANSWERS_H

#include <stdbool.h>

#include "base/memory.h"

typedef enum emo__extract {
    EMO__EXTRACT_NONE,
    EMO__EXTRACT_LINE,       /* up to the first line feed */
    EMO__EXTRACT_LAST_NUMBER /* the last number in the text, in one notation */
} emo__extract;

/* What of a text counts. Extraction goes first, then the normalisations in this order. */
typedef struct emo__answer_rule {
    char *after; /* only what follows its last occurrence, where it occurs; NULL: all */
    emo__extract extract;
    bool lower;       /* A-Z */
    bool punctuation; /* ASCII punctuation is dropped */
    bool articles;    /* the words a, an, the are dropped */
    bool space;       /* runs of white space become a space; none at the ends */
} emo__answer_rule;

/* A text under the rule, appended to *out. */
EMO_MUST_CHECK emo_status emo__answer_normal(const emo__answer_rule *rule, const char *text, emo__buf *out,
                                             emo_error *err);

/* 1.0 or 0.0, or F1 between 0 and 1, of two texts that are normal. */
double emo__answer_exact(const char *got, const char *want);
double emo__answer_prefix(const char *got, const char *want); /* got begins with want, up to the end of a word */
EMO_MUST_CHECK emo_status emo__answer_f1(const emo__mem *mem, const char *got, const char *want, double *f1,
                                         emo_error *err);

#endif
