/* SPDX-License-Identifier: Apache-2.0 */
/* Atomics (fibers do not run at once, so plain operations do) and fences. */
#include "cudasim/internal.h"

#include <algorithm>

namespace cudasim {

template <class U, class S>
static U apply(U old, Atomic op, U a, U b) {
    switch (op) {
    case Atomic::add:
        return old + a;
    case Atomic::sub:
        return old - a;
    case Atomic::max_u:
        return std::max(old, a);
    case Atomic::min_u:
        return std::min(old, a);
    case Atomic::max_s:
        return (U)std::max((S)old, (S)a);
    case Atomic::min_s:
        return (U)std::min((S)old, (S)a);
    case Atomic::exchange:
        return a;
    case Atomic::compare:
        return old == a ? b : old;
    case Atomic::bit_and:
        return old & a;
    case Atomic::bit_or:
        return old | a;
    case Atomic::bit_xor:
        return old ^ a;
    }
    return old;
}

uint32_t atomic32(uint32_t *p, Atomic op, uint32_t a, uint32_t b) {
    check_access(p, 4, Access::atomic, __builtin_return_address(0));
    uint32_t old = *p;
    *p = apply<uint32_t, int32_t>(old, op, a, b);
    return old;
}

uint64_t atomic64(uint64_t *p, Atomic op, uint64_t a, uint64_t b) {
    check_access(p, 8, Access::atomic, __builtin_return_address(0));
    uint64_t old = *p;
    *p = apply<uint64_t, int64_t>(old, op, a, b);
    return old;
}

float atomic_add(float *p, float v) {
    check_access(p, 4, Access::atomic, __builtin_return_address(0));
    float old = *p;
    *p = old + v;
    return old;
}

double atomic_add(double *p, double v) {
    check_access(p, 8, Access::atomic, __builtin_return_address(0));
    double old = *p;
    *p = old + v;
    return old;
}

/* Memory is consistent here; what a fence orders between blocks only a device can tell. */
void thread_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

} // namespace cudasim
