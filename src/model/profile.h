/* SPDX-License-Identifier: Apache-2.0 */
/* Where time goes. The clock is read between parts only: each lap belongs to the part that ends with it, so that the
 * parts add up to the whole. Everything takes NULL for "not wanted". */
#ifndef EMO_SRC_MODEL_PROFILE_H
#define EMO_SRC_MODEL_PROFILE_H

#include <emo/sys/backend.h>
#include <emo/train.h>

enum { EMO__PROFILE_PARTS = EMO_TRAIN_PART_OTHER + 1 };

typedef struct emo__profile_cell {
    uint64_t calls;
    uint64_t ns;
} emo__profile_cell;

typedef struct emo__profile {
    uint64_t last;                                  /* emo__now_ns() of the last lap's end */
    emo__profile_cell cells[EMO__PROFILE_PARTS][2]; /* forward, backward */
    int64_t *scratch; /* [EMO__PROFILE_PARTS] the most scratch of an operator of each part, kept; NULL: not wanted */
} emo__profile;

/* From now on; the time before belongs to nobody. */
void emo__profile_start(emo__profile *profile);
/* Ends a lap of `part`, once what is enqueued on `exec` (NULL: nothing) is done. */
void emo__profile_lap(emo__profile *profile, emo_exec *exec, emo_train_part part, int backward);

#endif
