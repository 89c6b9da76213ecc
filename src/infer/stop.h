/* SPDX-License-Identifier: Apache-2.0 */
/* Stop strings: where the first one ends in a text, and how much of a text may still become one. */
#ifndef EMO_SRC_INFER_STOP_H
#define EMO_SRC_INFER_STOP_H

#include <stdbool.h>

#include "base/memory.h"

typedef struct emo__stops {
    char **text;
    size_t *length;
    size_t n;
} emo__stops;

/* Copies `n` strings: each valid UTF-8, 1 to 4096 bytes; at most 256. Free in every case. */
EMO_MUST_CHECK emo_status emo__stops_copy(const emo__mem *mem, const char *const *text, size_t n, emo__stops *stops,
                                          emo_error *err);
void emo__stops_free(const emo__mem *mem, emo__stops *stops);
/* The stop string that is complete first (of two that end together, the longer): *at is where it begins. */
bool emo__stops_find(const emo__stops *stops, const char *text, size_t size, size_t *at);
/* Length of the longest end of the text that is the beginning of a stop string. */
size_t emo__stops_held(const emo__stops *stops, const char *text, size_t size);

#endif
