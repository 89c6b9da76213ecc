/* SPDX-License-Identifier: Apache-2.0 */
/* An allocator hook that counts, checks what it gets back, and fails where it is told to. */
#ifndef EMO_TESTS_METER_H
#define EMO_TESTS_METER_H

#include <stdatomic.h>

#include "support/support.h"

typedef struct meter {
    atomic_long live;    /* blocks handed out and not given back */
    atomic_long bytes;   /* of those */
    atomic_long calls;   /* allocations asked for */
    atomic_long wrong;   /* frees with another size or alignment than the allocation, or of no block of ours */
    atomic_long odd;     /* alignments that are no power of two, sizes of 0 */
    atomic_long refused; /* allocations that were made to fail */
    long fail_at;        /* this allocation fails, from 0; -1: none */
    int sticky;          /* and all that come after it */
} meter;

#define METER_INIT                                                                                                     \
    { 0, 0, 0, 0, 0, 0, -1, 0 }

/* From here on counted from 0. */
void meter_arm(meter *m, long fail_at, int sticky);
void meter_disarm(meter *m);
emo_allocator meter_hooks(meter *m);
/* A runtime on the meter; fails the test if it cannot be had. */
emo_runtime *meter_runtime(meter *m, int32_t threads);
/* Fails the test when blocks are left or one came back wrong; `what` is said then. */
void meter_check(const meter *m, const char *what);

/* Open file descriptors, threads, and mapped files of this process. */
int count_fds(void);
int count_threads(void);
int count_maps(void);
/* Bytes that malloc() has handed out; 0 where that cannot be asked. */
size_t heap_in_use(void);
/* The count once it is `expected`, or after two seconds whatever it is then: the system lists a thread for a moment
 * after it was joined. */
int settled_threads(int expected);

#endif
