/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kernels see when a host compiler builds them: the built-in variables, barriers, warp operations, atomics and the
 * launch, on top of the real CUDA headers. Reached through cuda/emo_gpu.h alone.
 */
#ifndef CUDASIM_DEVICE_H
#define CUDASIM_DEVICE_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <new>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cudasim {

/* The part of a simulated thread that kernels read. */
struct Lane {
    uint3 thread;
    uint3 block;
    dim3 block_dim;
    dim3 grid_dim;
    unsigned linear; /* number in the block */
    unsigned lane;   /* number in the warp */
};
extern Lane *current __attribute__((visibility("hidden")));

struct LaunchConfig {
    dim3 grid;
    dim3 block;
    size_t shared;
    cudaStream_t stream;
    const void *function;
    const char *name;
    const char *file;
    int line;
};
using Entry = void (*)(void *);
void *arguments_alloc(size_t bytes); /* launch arguments lie in a range of their own: think of the constant bank */
cudaError_t enqueue_kernel(const LaunchConfig &config, Entry entry, void *arguments);

/* dlopen, dlerror and dlsym for NVIDIA's libraries. */
void *library_open(const char *path);
const char *library_error();
void *library_symbol(void *library, const char *name);

enum class Vote { ballot, any, all, add, max_u, min_u, max_s, min_s, bit_and, bit_or, bit_xor, match };
enum class Shuffle { index, up, down, exclusive };

void barrier(const char *file, int line);
int barrier_reduce(int op, int value, const char *file, int line); /* op 0: or, 1: and, 2: count */
void warp_sync(unsigned mask, const char *file, int line);
uint64_t shuffle(unsigned mask, uint64_t value, int x, int width, Shuffle mode, const char *file, int line);
uint32_t vote(unsigned mask, uint32_t value, Vote op, const char *file, int line);
unsigned active_mask();
float warp_sum(float v, const char *file, int line);
double warp_sum(double v, const char *file, int line);
float warp_max(float v, const char *file, int line);

void *shared_static(const void *key, size_t bytes, size_t align, const char *name);
void *shared_dynamic();
void mma_tile(float *acc, const uint32_t *a, const uint32_t *b, int mi, int nj, const char *file, int line);
void ldmatrix(uint32_t *r, const void *row, int count, bool trans, const char *file, int line);
void copy_async(void *dst, const void *src, int bytes, int valid);
void copy_commit();
void copy_wait(int groups);
void thread_fence();

enum class Atomic { add, sub, max_u, min_u, max_s, min_s, exchange, compare, bit_and, bit_or, bit_xor };
uint32_t atomic32(uint32_t *p, Atomic op, uint32_t a, uint32_t b);
uint64_t atomic64(uint64_t *p, Atomic op, uint64_t a, uint64_t b);
float atomic_add(float *p, float v);
double atomic_add(double *p, double v);

template <class... P, class... A>
cudaError_t launch(const LaunchConfig &config, void (*kernel)(P...), A &&...args) {
    struct Arguments {
        void (*kernel)(P...);
        std::tuple<std::decay_t<P>...> values;
    };
    void *room = arguments_alloc(sizeof(Arguments));
    if (room == nullptr)
        return cudaErrorMemoryAllocation;
    auto *bound = new (room) Arguments{kernel, std::tuple<std::decay_t<P>...>(static_cast<P>(args)...)};
    return enqueue_kernel(
        config,
        [](void *v) {
            auto *b = static_cast<Arguments *>(v);
            std::apply(b->kernel, b->values);
        },
        bound);
}

template <class T>
inline uint64_t to_bits(T v) {
    static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    return u;
}
template <class T>
inline T from_bits(uint64_t u) {
    T v;
    memcpy(&v, &u, sizeof v);
    return v;
}

} // namespace cudasim

/* A plain __shared__ would be one variable for all blocks: only EMO_SHARED is right. */
#undef __shared__
#define __shared__ __shared__is_written_EMO_SHARED
#define threadIdx (cudasim::current->thread)
#define blockIdx (cudasim::current->block)
#define blockDim (cudasim::current->block_dim)
#define gridDim (cudasim::current->grid_dim)
#define warpSize 32
#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif

#define CUDASIM_AT const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()

static inline void __syncthreads(CUDASIM_AT) { cudasim::barrier(file_, line_); }
static inline int __syncthreads_or(int p, CUDASIM_AT) { return cudasim::barrier_reduce(0, p, file_, line_); }
static inline int __syncthreads_and(int p, CUDASIM_AT) { return cudasim::barrier_reduce(1, p, file_, line_); }
static inline int __syncthreads_count(int p, CUDASIM_AT) { return cudasim::barrier_reduce(2, p, file_, line_); }
static inline void __syncwarp(unsigned mask = 0xffffffffu, CUDASIM_AT) { cudasim::warp_sync(mask, file_, line_); }
static inline unsigned __activemask() { return cudasim::active_mask(); }

#define CUDASIM_SHUFFLE(name, type, mode)                                                                              \
    template <class T>                                                                                                 \
    static inline T name(unsigned mask, T v, type x, int width = 32, CUDASIM_AT) {                                     \
        return cudasim::from_bits<T>(                                                                                  \
            cudasim::shuffle(mask, cudasim::to_bits(v), (int)x, width, cudasim::Shuffle::mode, file_, line_));         \
    }
CUDASIM_SHUFFLE(__shfl_sync, int, index)
CUDASIM_SHUFFLE(__shfl_up_sync, unsigned, up)
CUDASIM_SHUFFLE(__shfl_down_sync, unsigned, down)
CUDASIM_SHUFFLE(__shfl_xor_sync, int, exclusive)
#undef CUDASIM_SHUFFLE

#define CUDASIM_VOTE(result, name, type, value, op)                                                                    \
    static inline result name(unsigned mask, type v, CUDASIM_AT) {                                                     \
        return (result)cudasim::vote(mask, value, cudasim::Vote::op, file_, line_);                                    \
    }
CUDASIM_VOTE(unsigned, __ballot_sync, int, v != 0, ballot)
CUDASIM_VOTE(int, __any_sync, int, v != 0, any)
CUDASIM_VOTE(int, __all_sync, int, v != 0, all)
CUDASIM_VOTE(unsigned, __match_any_sync, unsigned, v, match)
CUDASIM_VOTE(unsigned, __reduce_add_sync, unsigned, v, add)
CUDASIM_VOTE(int, __reduce_add_sync, int, (uint32_t)v, add)
CUDASIM_VOTE(unsigned, __reduce_max_sync, unsigned, v, max_u)
CUDASIM_VOTE(unsigned, __reduce_min_sync, unsigned, v, min_u)
CUDASIM_VOTE(int, __reduce_max_sync, int, (uint32_t)v, max_s)
CUDASIM_VOTE(int, __reduce_min_sync, int, (uint32_t)v, min_s)
CUDASIM_VOTE(unsigned, __reduce_and_sync, unsigned, v, bit_and)
CUDASIM_VOTE(unsigned, __reduce_or_sync, unsigned, v, bit_or)
CUDASIM_VOTE(unsigned, __reduce_xor_sync, unsigned, v, bit_xor)
#undef CUDASIM_VOTE

/* Atomics are calls, so that the checker knows them from plain accesses. */
static inline float atomicAdd(float *p, float v) { return cudasim::atomic_add(p, v); }
static inline double atomicAdd(double *p, double v) { return cudasim::atomic_add(p, v); }
#define CUDASIM_ATOMIC(name, signed_op, unsigned_op)                                                                   \
    static inline int name(int *p, int v) {                                                                            \
        return (int)cudasim::atomic32((uint32_t *)p, cudasim::Atomic::signed_op, (uint32_t)v, 0);                      \
    }                                                                                                                  \
    static inline unsigned name(unsigned *p, unsigned v) {                                                             \
        return cudasim::atomic32(p, cudasim::Atomic::unsigned_op, v, 0);                                               \
    }
CUDASIM_ATOMIC(atomicAdd, add, add)
CUDASIM_ATOMIC(atomicSub, sub, sub)
CUDASIM_ATOMIC(atomicMax, max_s, max_u)
CUDASIM_ATOMIC(atomicMin, min_s, min_u)
CUDASIM_ATOMIC(atomicExch, exchange, exchange)
CUDASIM_ATOMIC(atomicAnd, bit_and, bit_and)
CUDASIM_ATOMIC(atomicOr, bit_or, bit_or)
CUDASIM_ATOMIC(atomicXor, bit_xor, bit_xor)
#undef CUDASIM_ATOMIC
static inline unsigned atomicCAS(unsigned *p, unsigned compare, unsigned v) {
    return cudasim::atomic32(p, cudasim::Atomic::compare, compare, v);
}
static inline int atomicCAS(int *p, int compare, int v) {
    return (int)cudasim::atomic32((uint32_t *)p, cudasim::Atomic::compare, (uint32_t)compare, (uint32_t)v);
}
static inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long v) {
    return cudasim::atomic64((uint64_t *)p, cudasim::Atomic::add, v, 0);
}
static inline unsigned long long atomicMax(unsigned long long *p, unsigned long long v) {
    return cudasim::atomic64((uint64_t *)p, cudasim::Atomic::max_u, v, 0);
}
static inline unsigned long long atomicCAS(unsigned long long *p, unsigned long long compare, unsigned long long v) {
    return cudasim::atomic64((uint64_t *)p, cudasim::Atomic::compare, compare, v);
}

static inline void __threadfence() { cudasim::thread_fence(); }
static inline void __threadfence_block() { cudasim::thread_fence(); }

template <class T>
static inline T __ldg(const T *p) {
    return *p;
}
template <class T>
static inline T __ldcs(const T *p) {
    return *p;
}
template <class T>
static inline T __ldcg(const T *p) {
    return *p;
}
template <class T>
static inline void __stcs(T *p, T v) {
    *p = v;
}
template <class T>
static inline void __stcg(T *p, T v) {
    *p = v;
}

static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
static inline int __clz(int v) { return v != 0 ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __ffsll(long long v) { return __builtin_ffsll(v); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
static inline unsigned __float_as_uint(float f) { return cudasim::from_bits<unsigned>(cudasim::to_bits(f)); }
static inline float __uint_as_float(unsigned u) { return cudasim::from_bits<float>(cudasim::to_bits(u)); }
static inline int __float_as_int(float f) { return cudasim::from_bits<int>(cudasim::to_bits(f)); }
static inline float __int_as_float(int i) { return cudasim::from_bits<float>(cudasim::to_bits(i)); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
/* glibc declares __expf and its like without exporting them: macros take their place. */
#define __expf(x) expf(x)
#define __logf(x) logf(x)

/* CUDA's min and max: of two types, and a NaN loses against a number. */
#ifndef CUDASIM_NO_MIN_MAX
#define CUDASIM_MIN_MAX(name, compare, of_float, of_double)                                                            \
    template <class A, class B, class = std::enable_if_t<std::is_arithmetic_v<A> && std::is_arithmetic_v<B>>>          \
    static inline auto name(A a, B b)->std::common_type_t<A, B> {                                                      \
        using T = std::common_type_t<A, B>;                                                                            \
        if constexpr (std::is_same_v<T, float>)                                                                        \
            return of_float(a, b);                                                                                     \
        else if constexpr (std::is_floating_point_v<T>)                                                                \
            return of_double(a, b);                                                                                    \
        else                                                                                                           \
            return (T)a compare(T) b ? (T)a : (T)b;                                                                    \
    }
CUDASIM_MIN_MAX(min, <, fminf, fmin)
CUDASIM_MIN_MAX(max, >, fmaxf, fmax)
#undef CUDASIM_MIN_MAX
#endif

#endif
