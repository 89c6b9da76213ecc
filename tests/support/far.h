/* SPDX-License-Identifier: Apache-2.0 */
/* A device named "far" that computes with the CPU's operators but keeps its memory from the host: outside its own calls
 * every access ends the process, and downloads arrive when the exec is synchronised, no sooner. Code that takes a
 * device's memory for the host's does not survive here. */
#ifndef EMO_TESTS_FAR_H
#define EMO_TESTS_FAR_H

#include "support/support.h"

/* Adds the device to a runtime. */
void far_add(emo_runtime *rt);
/* The n-th allocation of device memory from now on fails, once; 0: none. */
void far_fail_allocation(int n);
/* Bytes of device memory now allocated. */
size_t far_live_bytes(void);

#endif
