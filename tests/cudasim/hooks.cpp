/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a compiler calls with -fsanitize=thread, without its library: every load and store of the code so built lands
 * here. Host code passes through; it may not touch device memory.
 */
#include "cudasim/internal.h"

#ifdef CUDASIM_HOOKS

namespace cudasim {

static void report_host(const void *p, bool write, const void *pc) {
    static std::set<const void *> seen;
    CUDASIM_LOCK;
    if (seen.insert(pc).second)
        finding("host code %s device memory at %s", write ? "writes" : "reads", code_line(relative(pc)).c_str());
    (void)p;
}

/* Inline, so that a kernel's access costs one call. */
static inline __attribute__((always_inline)) void hook(const void *p, size_t bytes, bool write, bool aligned,
                                                       const void *pc) {
    if (!on_stacks(__builtin_frame_address(0))) {
        if (is_device(p))
            report_host(p, write, pc);
        return;
    }
    if (!in_kernel()) /* a kernel that is being left */
        return;
    if (aligned && ((uintptr_t)p & (bytes - 1)) != 0 && !on_stacks(p)) {
        finding("misaligned address: %s of %zu bytes by thread %u of block %u in %s at %s", write ? "write" : "read",
                bytes, block.now->linear, block.number, block.config->name, code_line(relative(pc)).c_str());
        block_abort(cudaErrorMisalignedAddress);
    }
    check_access(p, bytes, write ? Access::write : Access::read, pc);
}

} // namespace cudasim

#define HERE __builtin_return_address(0)
#define EXPORT extern "C" __attribute__((visibility("hidden")))

#define ACCESS(n)                                                                                                      \
    EXPORT void __tsan_read##n(void *p) { cudasim::hook(p, n, false, true, HERE); }                                    \
    EXPORT void __tsan_write##n(void *p) { cudasim::hook(p, n, true, true, HERE); }                                    \
    EXPORT void __tsan_unaligned_read##n(void *p) { cudasim::hook(p, n, false, false, HERE); }                         \
    EXPORT void __tsan_unaligned_write##n(void *p) { cudasim::hook(p, n, true, false, HERE); }                         \
    EXPORT void __tsan_volatile_read##n(void *p) { cudasim::hook(p, n, false, true, HERE); }                           \
    EXPORT void __tsan_volatile_write##n(void *p) { cudasim::hook(p, n, true, true, HERE); }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)

EXPORT void __tsan_read_range(void *p, size_t n) { cudasim::hook(p, n, false, false, HERE); }
EXPORT void __tsan_write_range(void *p, size_t n) { cudasim::hook(p, n, true, false, HERE); }
EXPORT void __tsan_init(void) {}
EXPORT void __tsan_func_entry(void *) {}
EXPORT void __tsan_func_exit(void) {}
EXPORT void __tsan_vptr_update(void **, void *) {}
EXPORT void __tsan_vptr_read(void **) {}

/* Host code may use C and C++ atomics. */
#define ATOMIC(bits, T)                                                                                                \
    EXPORT T __tsan_atomic##bits##_load(const volatile T *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }     \
    EXPORT void __tsan_atomic##bits##_store(volatile T *p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }     \
    EXPORT T __tsan_atomic##bits##_exchange(volatile T *p, T v, int) {                                                 \
        return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                                            \
    }                                                                                                                  \
    EXPORT T __tsan_atomic##bits##_fetch_add(volatile T *p, T v, int) {                                                \
        return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                                             \
    }                                                                                                                  \
    EXPORT T __tsan_atomic##bits##_fetch_sub(volatile T *p, T v, int) {                                                \
        return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                                             \
    }                                                                                                                  \
    EXPORT T __tsan_atomic##bits##_fetch_or(volatile T *p, T v, int) {                                                 \
        return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST);                                                              \
    }                                                                                                                  \
    EXPORT T __tsan_atomic##bits##_fetch_and(volatile T *p, T v, int) {                                                \
        return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST);                                                             \
    }                                                                                                                  \
    EXPORT int __tsan_atomic##bits##_compare_exchange_strong(volatile T *p, T *c, T v, int, int) {                     \
        return __atomic_compare_exchange_n(p, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                        \
    }                                                                                                                  \
    EXPORT int __tsan_atomic##bits##_compare_exchange_weak(volatile T *p, T *c, T v, int, int) {                       \
        return __atomic_compare_exchange_n(p, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                        \
    }                                                                                                                  \
    EXPORT T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T c, T v, int, int) {                           \
        __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                              \
        return c;                                                                                                      \
    }
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
EXPORT void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
EXPORT void __tsan_atomic_signal_fence(int) {}

#endif
