/* SPDX-License-Identifier: Apache-2.0 */
/* Work that comes again: held back, compared, replayed.
 *
 * Between replay_begin and replay_end an exec enqueues nothing. Launches, copies, zeroing and products become entries
 * of its tape (launch.h); host data goes into the tape's values, a block with one fixed place in device memory. At the
 * end the values are uploaded at once, and the tape is compared with those that came before, byte for byte:
 *
 *   never seen             enqueued entry by entry
 *   seen once              enqueued into a graph, which is kept and launched
 *   equal to a kept graph  that graph is launched
 *
 * What changes from step to step has to stand in the values, not among the arguments, and grids have to cover the most
 * work there can be (lists.cu; emo_cuda_capacity). What cannot be held back ends the holding: all entries so far are
 * enqueued, and the rest of the piece goes straight to the stream. A replay is therefore never other work than the
 * piece without it.
 *
 * A planner holds nothing back, and counts the values. */
#ifndef EMO_CUDA_TAPE_H
#define EMO_CUDA_TAPE_H

#include "device.h"

emo_status emo_cuda_replay_begin(emo_exec *exec, uint64_t key, emo_error *err);
emo_status emo_cuda_replay_end(emo_exec *exec, emo_error *err);
emo_status emo_cuda_replay_reserve(emo_exec *exec, size_t bytes, emo_error *err);
void emo_cuda_replay_counts(const emo_exec *exec, emo_replay_counts *out);

/* Enqueues what is held back, if anything; from here to the end of the piece nothing is. `why` is for the log. */
emo_status emo_cuda_tape_issue(emo_cuda_exec *exec, const char *why, emo_error *err);
/* Room for host data in the values: `host` is to be filled at once, `device` is where kernels will find it. Both NULL:
 * nothing is held back (any more). */
typedef struct emo_tape_values {
    void *host, *device;
    size_t room; /* the most the piece's value of this number was, and at least `bytes` */
} emo_tape_values;
emo_status emo_cuda_tape_values(emo_cuda_exec *exec, size_t bytes, emo_tape_values *out, emo_error *err);
/* Checked builds: scratch of a piece, each array with memory of its own, the same from piece to piece. */
emo_status emo_cuda_tape_scratch(emo_cuda_exec *exec, size_t bytes, void **out, emo_error *err);
void emo_cuda_tape_destroy(emo_cuda_exec *exec);

#endif
