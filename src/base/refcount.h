/* SPDX-License-Identifier: Apache-2.0 */
/* Reference counts, and the guard that turns a violated thread rule into EMO_E_BUSY. */
#ifndef EMO_SRC_BASE_REFCOUNT_H
#define EMO_SRC_BASE_REFCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/status.h"

typedef struct emo__ref {
    atomic_int count;
} emo__ref;

static inline void emo__ref_init(emo__ref *ref) { atomic_init(&ref->count, 1); }
static inline void emo__ref_get(emo__ref *ref) { atomic_fetch_add_explicit(&ref->count, 1, memory_order_relaxed); }
/* True when this was the last reference. */
static inline bool emo__ref_put(emo__ref *ref) {
    return atomic_fetch_sub_explicit(&ref->count, 1, memory_order_acq_rel) == 1;
}

/* 0: free; n > 0: n readers; -1: one writer. Readers are calls that take a const object. */
typedef struct emo__guard {
    atomic_int state;
} emo__guard;

static inline void emo__guard_init(emo__guard *guard) { atomic_init(&guard->state, 0); }

static inline bool emo__guard_try_write(emo__guard *guard) {
    int expected = 0;
    return atomic_compare_exchange_strong(&guard->state, &expected, -1);
}
static inline void emo__guard_end_write(emo__guard *guard) { atomic_store(&guard->state, 0); }

static inline bool emo__guard_try_read(emo__guard *guard) {
    int now = atomic_load(&guard->state);
    while (now >= 0) {
        if (atomic_compare_exchange_weak(&guard->state, &now, now + 1))
            return true;
    }
    return false;
}
static inline void emo__guard_end_read(emo__guard *guard) { atomic_fetch_sub(&guard->state, 1); }

#endif
