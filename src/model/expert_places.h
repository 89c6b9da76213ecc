/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for experts in a back end, and how they get there.
 *
 * On the CPU an expert is read into its place. On a device it is read into a lane, page-locked host memory, and copied
 * from there on an exec of its own, next to the work of passes. Events keep the order: a pass's work waits for the copy
 * into a place, and the next copy into it waits for the last work that read it. The host waits for neither. */
#ifndef EMO_SRC_MODEL_EXPERT_PLACES_H
#define EMO_SRC_MODEL_EXPERT_PLACES_H

#include <emo/sys/backend.h>
#include <stdbool.h>

#include "base/memory.h"

/* Experts on their way at a time: one that is read, one that is copied, one that a pass waits for. */
enum { EMO__LANES = 3 };

typedef struct emo__place {
    emo_event *filled; /* behind the last copy into it */
    emo_event *used;   /* behind the last work that read it */
    uint64_t fill;     /* the number of that copy */
    uint64_t user;     /* the lease whose work that was; 0: none since it was filled */
} emo__place;

typedef struct emo__lane {
    char *host;
    emo_event *copied; /* behind the last copy from it */
    bool busy;         /* some thread's */
} emo__lane;

typedef struct emo__places {
    emo_backend *backend;
    char *memory; /* [capacity, bytes] */
    size_t bytes; /* of a place */
    size_t capacity;
    /* on a device; else NULL and 0 */
    emo__place *order; /* [capacity] */
    emo_exec *exec;    /* copies */
    emo__lane lanes[EMO__LANES];
    uint64_t fills; /* copies so far: exec does them in this order */
} emo__places;

static inline bool emo__places_on_device(const emo__places *places) { return places->order != NULL; }
static inline char *emo__places_at(const emo__places *places, int32_t place) {
    return places->memory + (size_t)place * places->bytes;
}

/* Whether a back end other than the CPU's has what places need. */
EMO_MUST_CHECK emo_status emo__places_check(const emo_backend *backend, emo_error *err);
/* Takes the memory; of a device, with what copies need. On a failure nothing is taken. */
EMO_MUST_CHECK emo_status emo__places_open(emo__places *places, const emo__mem *mem, emo_backend *backend, bool device,
                                           size_t capacity, size_t bytes, emo_error *err);
/* Waits for copies under way, gives all back. Also what was never opened. */
void emo__places_close(emo__places *places, const emo__mem *mem);

/* A lane that is nobody's, now the caller's; NULL: all are somebody's. */
emo__lane *emo__places_lane(emo__places *places);
/* Waits until what was read into it before has been copied. */
EMO_MUST_CHECK emo_status emo__places_lane_ready(const emo__places *places, const emo__lane *lane, emo_error *err);
/* The rest is for one thread at a time. */

/* Copies the lane's bytes into the place, once nobody reads what was there. On a failure nothing is under way. */
EMO_MUST_CHECK emo_status emo__places_copy(emo__places *places, int32_t place, const emo__lane *lane, size_t bytes,
                                           emo_error *err);
/* The work of `user` that is enqueued on its exec by now is the last that reads the place. */
EMO_MUST_CHECK emo_status emo__places_used(emo__places *places, int32_t place, emo_exec *exec, uint64_t user,
                                           emo_error *err);

#endif
