/* SPDX-License-Identifier: Apache-2.0 */
/* Reports of long calls to the host's hook, and cancellation. */
#ifndef EMO_SRC_BASE_PROGRESS_H
#define EMO_SRC_BASE_PROGRESS_H

#include <emo/hooks.h>

/* Says how far a call is. EMO_E_CANCELLED when the hook wants it to end; EMO_OK without a hook (NULL, or no report). */
EMO_MUST_CHECK emo_status emo__report(const emo_progress *progress, const char *phase, uint64_t done, uint64_t total,
                                      emo_error *err);

/* A long call whose parts report for themselves: a hook for the parts, which tells the host of the whole. */
typedef struct emo__phase {
    const emo_progress *outer;
    const char *name;
    uint64_t done;
    uint64_t total;
    uint64_t room; /* the units that the part under way has in the whole: what it reports as done counts so far */
    uint64_t seen; /* the most it has reported: a part that begins anew does not take the whole back */
} emo__phase;
/* The part under way is done; the next one has `room` units. */
void emo__phase_next(emo__phase *phase, uint64_t room);
int32_t emo__phase_report(void *phase, const emo_progress_info *info);

/* For a call that may not end in the middle: the hook's wish is kept instead of followed. */
typedef struct emo__note {
    const emo_progress *hook;
    int32_t wanted; /* 1: the hook asked for the end, and was not asked again */
} emo__note;
int32_t emo__note_report(void *note, const emo_progress_info *info);

#endif
