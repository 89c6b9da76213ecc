/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers to text and back, independent of the locale. */
#ifndef EMO_SRC_BASE_PARSE_H
#define EMO_SRC_BASE_PARSE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The whole of text[0..length) as a decimal number ([+-]digits[.digits][e[+-]digits]), correctly rounded. False when
 * it is malformed or too large for a double. */
bool emo__parse_double(const char *text, size_t length, double *out);

/* The whole of text[0..length) as a decimal integer; false when malformed or out of int64's range. */
bool emo__parse_i64(const char *text, size_t length, int64_t *out);

/* Writes the shortest decimal text that reads back as the same value (a '.' as point); returns its length. Infinities
 * and NaN give "null", as JSON has no word for them. */
#define EMO__NUMBER_TEXT 40u
size_t emo__format_f64(char text[EMO__NUMBER_TEXT], double value);
size_t emo__format_f32(char text[EMO__NUMBER_TEXT], float value); /* the shortest for float */

#endif
