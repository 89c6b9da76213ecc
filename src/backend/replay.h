/* SPDX-License-Identifier: Apache-2.0 */
/* The table's entries for work that comes again, and for waiting for a part of it, where a back end has them. */
#ifndef EMO_SRC_BACKEND_REPLAY_H
#define EMO_SRC_BACKEND_REPLAY_H

#include <emo/sys/backend.h>
#include <stdbool.h>

/* Keys of pieces that share an exec. */
enum { EMO__PIECE_MICROBATCH = 1, EMO__PIECE_UPDATE = 2, EMO__PIECE_TOKEN = 3 };

EMO_MUST_CHECK static inline emo_status emo__replay_begin(emo_exec *exec, uint64_t key, emo_error *err) {
    const emo_backend_ops *ops = exec->backend->ops;
    return ops->replay_begin != NULL ? ops->replay_begin(exec, key, err) : EMO_OK;
}

/* Always called after a begin, whatever failed in between: `status` is what the piece gave so far, and stays when it is
 * a failure. Without a begin it does nothing. */
EMO_MUST_CHECK static inline emo_status emo__replay_end(emo_exec *exec, emo_status status, emo_error *err) {
    const emo_backend_ops *ops = exec->backend->ops;
    emo_status ended = ops->replay_end != NULL ? ops->replay_end(exec, status == EMO_OK ? err : NULL) : EMO_OK;
    return status == EMO_OK ? ended : status;
}

/* How many pieces did not run by a graph that was there. */
static inline int64_t emo__replay_misses(const emo_exec *exec) {
    const emo_backend_ops *ops = exec->backend->ops;
    emo_replay_counts counts = {0};
    if (ops->replay_counts != NULL)
        ops->replay_counts(exec, &counts);
    return counts.plain + counts.recorded;
}

/* Whether calls return before their work is done. */
static inline bool emo__works_ahead(const emo_exec *exec) { return exec->backend->ops->mark != NULL; }

#endif
