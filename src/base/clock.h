/* SPDX-License-Identifier: Apache-2.0 */
/* Monotonic time. */
#ifndef EMO_SRC_BASE_CLOCK_H
#define EMO_SRC_BASE_CLOCK_H

#include <stdint.h>

/* Nanoseconds since an arbitrary moment; never goes back. */
uint64_t emo__now_ns(void);

#endif
