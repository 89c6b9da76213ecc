/* SPDX-License-Identifier: Apache-2.0 */
/* Multiple-choice items as the inside sees them. */
#ifndef EMO_SRC_DATA_CHOICES_H
#define EMO_SRC_DATA_CHOICES_H

#include <emo/data.h>

#include "base/runtime.h"

struct emo_choices {
    emo__ref ref;
    emo_runtime *rt;
    emo_choice_item *items; /* each owns its strings */
    size_t count;
    size_t capacity;
};

emo_status emo__choices_open(emo_runtime *rt, const char *path, emo_choices **out, emo_error *err);
void emo__choices_release(emo_choices *choices);

#endif
