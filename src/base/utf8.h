/* SPDX-License-Identifier: Apache-2.0 */
/* UTF-8 as Unicode 15, table 3-7, has it: no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef EMO_SRC_BASE_UTF8_H
#define EMO_SRC_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one character of valid UTF-8 at p; returns its length, 1 to 4. */
static inline size_t emo__utf8_read(const unsigned char *p, uint32_t *c) {
    if (p[0] < 0x80) {
        *c = p[0];
        return 1;
    }
    if (p[0] < 0xE0) {
        *c = (uint32_t)(p[0] & 0x1F) << 6 | (uint32_t)(p[1] & 0x3F);
        return 2;
    }
    if (p[0] < 0xF0) {
        *c = (uint32_t)(p[0] & 0x0F) << 12 | (uint32_t)(p[1] & 0x3F) << 6 | (uint32_t)(p[2] & 0x3F);
        return 3;
    }
    *c = (uint32_t)(p[0] & 0x07) << 18 | (uint32_t)(p[1] & 0x3F) << 12 | (uint32_t)(p[2] & 0x3F) << 6 |
         (uint32_t)(p[3] & 0x3F);
    return 4;
}

/* Writes c as UTF-8; returns the length, 1 to 4. */
size_t emo__utf8_write(uint32_t c, unsigned char *out);

/* Looks at the character at p[0..n), n > 0. Positive: its length. 0: the bytes are the start of a character that is cut
 * by the end. Negative: -k, the first k bytes are a maximal invalid subsequence. */
int emo__utf8_check(const unsigned char *p, size_t n);

/* The length of the longest valid prefix that ends at a character border. */
size_t emo__utf8_valid_prefix(const char *text, size_t n);

static inline bool emo__utf8_valid(const char *text, size_t length) {
    return emo__utf8_valid_prefix(text, length) == length;
}

#endif
