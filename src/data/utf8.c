/* SPDX-License-Identifier: Apache-2.0 */
#include "data/dataset.h"

bool emo__utf8_valid(const char *text, size_t length) {
    const unsigned char *p = (const unsigned char *)text;
    const unsigned char *end = p + length;
    while (p < end) {
        unsigned char c = *p++;
        if (c < 0x80)
            continue;
        /* The second byte's range depends on the first: no overlong forms, no surrogates, nothing above U+10FFFF. */
        unsigned more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        unsigned char low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
        unsigned char high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
        if (c < 0xC2 || c > 0xF4 || (size_t)(end - p) < more)
            return false;
        if (p[0] < low || p[0] > high)
            return false;
        for (unsigned i = 1; i < more; i++) {
            if (p[i] < 0x80 || p[i] > 0xBF)
                return false;
        }
        p += more;
    }
    return true;
}
