/* SPDX-License-Identifier: Apache-2.0 */
/* Regular expressions over valid UTF-8. The only file that knows PCRE2. */
#ifndef EMO_SRC_TEXT_REGEX_H
#define EMO_SRC_TEXT_REGEX_H

#include <stdbool.h>

#include "base/memory.h"

typedef struct emo__regex emo__regex;

/* Compiles a pattern of tokenizer.json (see dialect.h) with Unicode classes; \s is Unicode's White_Space. `literal`:
 * the pattern is plain text. EMO_E_FORMAT with the place when it does not compile, EMO_E_UNSUPPORTED with the name of
 * what it needs. mem must outlive the result. */
EMO_MUST_CHECK emo_status emo__regex_create(const emo__mem *mem, const char *pattern, size_t length, bool literal,
                                            emo__regex **out, emo_error *err);
void emo__regex_destroy(emo__regex *regex);

/* Room for one match at a time; one per thread of use. *scratch NULL at first. */
typedef struct emo__regex_scratch emo__regex_scratch;
void emo__regex_scratch_free(emo__regex_scratch *scratch);

/* The first match at or after `from`: *found false: none. EMO_E_LIMIT when matching takes too much. */
EMO_MUST_CHECK emo_status emo__regex_next(const emo__regex *regex, emo__regex_scratch **scratch, const char *text,
                                          size_t length, size_t from, bool *found, size_t *begin, size_t *end,
                                          emo_error *err);

#endif
