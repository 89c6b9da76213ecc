/* SPDX-License-Identifier: Apache-2.0 */
/* Prompts with their examples. */
#include <string.h>

#include "base/status.h"
#include "eval/tasks.h"
#include "tensor/philox.h"

/* An item is never an example of itself. */
static bool same_item(const emo__task_item *a, const emo__task_item *b) {
    return a->line != 0 && a->line == b->line && strcmp(a->file, b->file) == 0;
}

static bool among(const size_t *list, size_t n, size_t value) {
    for (size_t i = 0; i < n; i++) {
        if (list[i] == value)
            return true;
    }
    return false;
}

/* The places in task->shots of the examples of an item; there are enough of them. */
static size_t choose(const emo__task *task, const emo__task_item *item, size_t index, size_t *out) {
    const emo__task_spec *spec = task->spec;
    size_t want = (size_t)spec->n_shots;
    size_t n = 0;
    uint64_t key = spec->draw == EMO__DRAW_ITEM ? index : 0;
    for (uint64_t attempt = 0; n < want; attempt++) {
        size_t at = (size_t)attempt;
        if (spec->draw != EMO__DRAW_FIRST) {
            emo__philox r = emo__philox_draw(spec->seed, EMO__RNG_SHOTS, key, attempt, 0);
            at = (size_t)emo__uniform_below(r.v[0], r.v[1], task->n_shots);
        } else if (at >= task->n_shots) {
            break;
        }
        if (!among(out, n, at) && !same_item(item, &spec->shots.items[task->shots[at]]))
            out[n++] = at;
    }
    return n;
}

static emo_status append(emo__buf *out, const char *text, emo_error *err) {
    if (out->size > EMO__TASK_PROMPT_MAX)
        return emo__fail(err, EMO_E_LIMIT, "a prompt with its examples is longer than %zu bytes; show fewer of them",
                         EMO__TASK_PROMPT_MAX);
    return emo__buf_append(out, text, strlen(text), err);
}

emo_status emo__task_prompt(const emo__task *task, const emo__task_item *item, size_t index, int32_t choice,
                            emo__buf *out, emo_error *err) {
    const emo__task_spec *spec = task->spec;
    size_t places[EMO__TASK_SHOTS_MAX];
    emo_status status;
    EMO_TRY(status = emo__buf_reserve(out, 1, err));
    EMO_TRY(status = append(out, item->description, err));
    size_t n = choose(task, item, index, places);
    for (size_t i = 0; i < n; i++) {
        const emo__task_item *shot = &spec->shots.items[task->shots[places[i]]];
        EMO_TRY(status = append(out, shot->prompts[spec->prompt_each ? shot->answer : 0], err));
        EMO_TRY(status = append(out, shot->continuations[shot->answer], err));
        EMO_TRY(status = append(out, spec->separator, err));
    }
    status = append(out, item->prompts[spec->prompt_each ? choice : 0], err);
done:
    return status;
}
