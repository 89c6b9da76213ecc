/* SPDX-License-Identifier: Apache-2.0 */
/* Completing a back end's table. */
#include "backend/composed.h"
#include "base/status.h"

static emo_status missing(const emo_exec *exec, const char *name, emo_error *err) {
    return emo__fail(err, EMO_E_UNSUPPORTED, "back end '%s' has no operator '%s'",
                     exec->backend->name != NULL ? exec->backend->name : "?", name);
}

#define DEFINE_NOTHING(entry, type)
#define DEFINE_MISSING(entry, type)                                                                                    \
    static emo_status missing_##entry(emo_exec *exec, const type *args, emo_error *err) {                              \
        (void)args;                                                                                                    \
        return missing(exec, #entry, err);                                                                             \
    }
EMO_OPERATORS(DEFINE_NOTHING, DEFINE_MISSING)

/* Composed operators are more than the loops of others: they do not run in parts. */
static void check_window(emo_backend_ops *ops) {
    if (ops->linear_forward == NULL || ops->attention_forward == NULL || ops->experts_forward == NULL ||
        ops->swiglu_forward == NULL || ops->head_logits == NULL)
        ops->window = NULL;
}

void emo__backend_complete(emo_backend_ops *ops) {
    check_window(ops);
#define FILL_COMPOSED(entry, type)                                                                                     \
    if (ops->entry == NULL)                                                                                            \
        ops->entry = emo__composed_##entry;
#define FILL_MISSING(entry, type)                                                                                      \
    if (ops->entry == NULL)                                                                                            \
        ops->entry = missing_##entry;
    EMO_OPERATORS(FILL_COMPOSED, FILL_MISSING)
#undef FILL_COMPOSED
#undef FILL_MISSING
}
