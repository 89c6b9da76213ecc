/* SPDX-License-Identifier: Apache-2.0 */
#include "model/profile.h"

#include "base/clock.h"

void emo__profile_start(emo__profile *profile) {
    if (profile != NULL)
        profile->last = emo__now_ns();
}

void emo__profile_lap(emo__profile *profile, emo_exec *exec, emo_train_part part, int backward) {
    if (profile == NULL)
        return;
    if (exec != NULL) /* a failure shows at the next operator, which has somewhere to say so */
        (void)exec->backend->ops->synchronize(exec, NULL);
    if (exec != NULL && profile->scratch != NULL) {
        int64_t bytes = (int64_t)exec->backend->ops->exec_scratch(exec);
        profile->scratch[part] = bytes > profile->scratch[part] ? bytes : profile->scratch[part];
    }
    uint64_t now = emo__now_ns();
    emo__profile_cell *cell = &profile->cells[part][backward != 0];
    cell->calls++;
    cell->ns += now - profile->last;
    profile->last = now;
}
