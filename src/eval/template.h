/* SPDX-License-Identifier: Apache-2.0 */
/* Texts with {fields} in them, and what they become for one item of a data file. */
#ifndef EMO_SRC_EVAL_TEMPLATE_H
#define EMO_SRC_EVAL_TEMPLATE_H

#include "io/json.h"

#define EMO__TEMPLATE_MAX ((size_t)64 << 10) /* bytes of a template */
#define EMO__TEXT_MAX ((size_t)16 << 20)     /* of what it becomes */

typedef enum emo__piece_kind {
    EMO__PIECE_TEXT,
    EMO__PIECE_FIELD,
    EMO__PIECE_CHOICES, /* a line for each choice */
    EMO__PIECE_CHOICE,
    EMO__PIECE_LETTER,
    EMO__PIECE_ANSWER
} emo__piece_kind;

/* Which of the names choices, choice, letter and answer are not fields in a template. */
enum { EMO__NAMES_NONE = 0, EMO__NAMES_CHOICE = 1, EMO__NAMES_CHOICES = 2, EMO__NAMES_ANSWER = 4 };

#define EMO__FILTERS 4
typedef struct emo__filter {
    int kind;
    char *argument; /* NULL: it takes none */
} emo__filter;

typedef struct emo__piece {
    emo__piece_kind kind;
    char *text; /* as it is, or a field's path; NULL for the others */
    emo__filter filters[EMO__FILTERS];
    int n_filters;
} emo__piece;

typedef struct emo__template {
    const emo__mem *mem;
    emo__piece *pieces;
    size_t count;
    size_t capacity;
} emo__template;

/* `names`: EMO__NAMES_*. `where` is for messages. EMO_E_FORMAT, EMO_E_LIMIT. */
EMO_MUST_CHECK emo_status emo__template_parse(const emo__mem *mem, const char *text, int names, const char *where,
                                              emo__template *out, emo_error *err);
void emo__template_free(emo__template *t);
bool emo__template_uses(const emo__template *t, emo__piece_kind kind);

/* What a template is filled in with. */
typedef struct emo__values {
    const emo__json *item;
    const char *where;        /* "file:line" */
    char *const *choices;     /* [n_choices] */
    int32_t n_choices;        /* at most 26 where letters are wanted */
    int32_t choice;           /* the one {choice} and {letter} stand for */
    const char *answer;       /* NULL: none */
    const emo__template *row; /* of a choice in {choices} */
} emo__values;

/* Appends to *out. EMO_E_FORMAT (a field that is missing or no text, by place), EMO_E_LIMIT. */
EMO_MUST_CHECK emo_status emo__template_render(const emo__template *t, const emo__values *values, emo__buf *out,
                                               emo_error *err);

/* The node at a path of keys and indices such as "choices.text" or "options.0"; NULL: none. A member whose name is the
 * whole path comes first. */
const emo__json *emo__field(const emo__json *item, const char *path);
/* Appends a string, number or truth value as text; false, with nothing done and *status EMO_OK, for what is none. */
bool emo__field_text(const emo__json *node, emo__buf *out, emo_status *status, emo_error *err);

#endif
