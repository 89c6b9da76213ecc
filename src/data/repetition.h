/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that say the same thing over and over. */
#ifndef EMO_SRC_DATA_REPETITION_H
#define EMO_SRC_DATA_REPETITION_H

#include <stdbool.h>
#include <stdint.h>

/* Whether some span of 1 to max_period tokens stands at least `count` times in a row in ids[0 .. n). count >= 2. */
bool emo__repeats(const int32_t *ids, int64_t n, int32_t max_period, int32_t count);

#endif
