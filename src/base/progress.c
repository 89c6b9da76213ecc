/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include "base/status.h"

emo_status emo__report(const emo_progress *progress, const char *phase, uint64_t done, uint64_t total, emo_error *err) {
    emo_progress_info info = {phase, done, total};
    if (progress == NULL || progress->report == NULL || progress->report(progress->ctx, &info) == 0)
        return EMO_OK;
    return emo__fail(err, EMO_E_CANCELLED, "cancelled by the progress hook after %llu of %llu (%s)",
                     (unsigned long long)done, (unsigned long long)total, phase);
}

void emo__phase_next(emo__phase *phase, uint64_t room) {
    phase->done += phase->room;
    phase->room = room;
    phase->seen = 0;
}

int32_t emo__phase_report(void *opaque, const emo_progress_info *info) {
    emo__phase *phase = opaque;
    uint64_t part = info->done < phase->room ? info->done : phase->room;
    phase->seen = part > phase->seen ? part : phase->seen;
    emo_progress_info whole = {phase->name, phase->done + phase->seen, phase->total};
    return phase->outer->report == NULL ? 0 : phase->outer->report(phase->outer->ctx, &whole);
}

int32_t emo__note_report(void *opaque, const emo_progress_info *info) {
    emo__note *note = opaque;
    if (note->wanted == 0 && note->hook->report != NULL && note->hook->report(note->hook->ctx, info) != 0)
        note->wanted = 1;
    return 0;
}
