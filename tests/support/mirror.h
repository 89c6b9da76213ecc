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

#endif
