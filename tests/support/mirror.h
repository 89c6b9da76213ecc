/* SPDX-License-Identifier: Apache-2.0 */
/* A back end of a plug-in for tests that keep their arrays in host memory: every operator of the table carries the
 * arrays it was given into device memory of exactly their size, runs there, and carries the results back. Tests written
 * for the CPU's operators thereby run on any device. */
#ifndef EMO_TESTS_MIRROR_H
#define EMO_TESTS_MIRROR_H

#include "support/ops.h"

/* The plug-in that the environment names (EMO_CUDA_PLUGIN); NULL: none, and such tests are skipped with status 77. */
const char *mirror_plugin(void);

/* A device of the plug-in; its `ops` take host memory, `exec->backend->ops` are the back end's own. */
test_device mirror_open(const char *plugin, int32_t threads);
/* The same with an exec that computes in `compute`. */
test_device mirror_open_as(const char *plugin, int32_t threads, emo_dtype compute);

/* Closes what mirror_open opened. Fails the test with the simulator's findings, where the plug-in runs on it. */
void mirror_close(test_device *d, const char *plugin);

/* Lets the runtime's CPU back end run every operator on the plug-in's device instead, one call at a time; its memory
 * stays the host's. Until the runtime goes. */
void mirror_install(emo_runtime *rt, const char *plugin);
/* Undone, before the runtime is released. */
void mirror_remove(emo_runtime *rt);

struct cudasim_control_table;
/* How to steer the simulator that a loaded plug-in runs on; NULL: it runs on a device. */
const struct cudasim_control_table *mirror_simulator(const char *plugin);
/* Fails the test when the simulator has found anything wrong. */
void mirror_expect_clean(const char *plugin);

#endif
