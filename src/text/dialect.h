/* SPDX-License-Identifier: Apache-2.0 */
/* The regular expressions of tokenizer.json are written for Oniguruma's Ruby-like syntax; the engine here reads Perl's.
 */
#ifndef EMO_SRC_TEXT_DIALECT_H
#define EMO_SRC_TEXT_DIALECT_H

#include <stdbool.h>

#include "base/memory.h"

/* Appends the pattern in Perl's syntax, to be compiled with Unicode classes and with ^ and $ at every line. What has no
 * equal there is EMO_E_UNSUPPORTED with its name and place. `script_prefix`: the engine wants \p{sc:Han} where the
 * script itself, without its extensions, is meant. The pattern is valid UTF-8. */
EMO_MUST_CHECK emo_status emo__dialect_translate(emo__buf *out, const char *pattern, size_t length, bool script_prefix,
                                                 emo_error *err);

#endif
