/* SPDX-License-Identifier: Apache-2.0 */
/* Repairing UTF-8, the character classes that the split patterns need, normalisation. */
#ifndef EMO_SRC_TEXT_UNICODE_H
#define EMO_SRC_TEXT_UNICODE_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/utf8.h"

/* Classes as the regular expressions see them: \p{L}, \p{N}, \s; the rest is OTHER. They do not overlap. */
enum { EMO__CLASS_OTHER = 0, EMO__CLASS_LETTER = 1, EMO__CLASS_NUMBER = 2, EMO__CLASS_SPACE = 3 };
extern const uint8_t emo__ascii_class[128];
int emo__char_class(uint32_t c);
/* A letter, mark, digit, connector or joiner: what single_word looks for beside a token. */
bool emo__is_word(uint32_t c);

/* Appends text with each maximal invalid subsequence replaced by U+FFFD. With `stream` a cut character at the end is
 * left out and *left is its length (0 to 3); without, it is replaced too. */
EMO_MUST_CHECK emo_status emo__utf8_clean(emo__buf *out, const char *text, size_t n, bool stream, size_t *left,
                                          emo_error *err);

typedef enum emo__form { EMO__NFC = 0, EMO__NFD = 1, EMO__NFKC = 2, EMO__NFKD = 3 } emo__form;

/* Appends the normal form of valid UTF-8. O(n) but for a sort of each run of combining marks. */
EMO_MUST_CHECK emo_status emo__utf8_normalize(emo__form form, emo__buf *out, const char *text, size_t n,
                                              emo_error *err);
/* True when no character of the text can be changed by the form, found out cheaply; false: perhaps. */
bool emo__utf8_surely_normal(emo__form form, const char *text, size_t n);

#endif
