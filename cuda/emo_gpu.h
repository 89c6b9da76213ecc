/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one portability header of the kernels. Under nvcc everything here is CUDA; under a host compiler with EMO_SIM it
 * is the simulator of tests/cudasim, so that the same sources run without a GPU (docs/cuda-simulator.md).
 *
 *   EMO_LAUNCH((kernel<...>), grid, block, dynamic_shared_bytes, stream, args...)   -> cudaError_t; nothing is started
 *                               in EMO_NO_STREAM; `stream`: a cudaStream_t, or an emo_queue, which may hold the launch
 *                               back (launch.h)
 *   EMO_LAUNCH_WIDE(the same)   for kernels that may need more shared memory than a block gets without asking
 *   EMO_SHARED(T, name, n)      T name[n] in static shared memory, 16-byte aligned
 *   EMO_DYN_SHARED(T, name)     T *name, the dynamic shared memory, 16-byte aligned
 *
 * Kernels never write __shared__, <<<>>> or asm themselves. Fragments are those of mma.sync.m16n8k16 (PTX ISA,
 * "Matrix Fragments for mma.m16n8k16 with floating point type").
 */
#ifndef EMO_GPU_H
#define EMO_GPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The stream of an exec that only counts what it would need. */
#define EMO_NO_STREAM ((cudaStream_t)(~(uintptr_t)0))

#ifdef EMO_SIM
#include "cudasim/device.h"
#define EMO_SHARED(T, name, n)                                                                                         \
    static char name##_key_;                                                                                           \
    T *const name = (T *)cudasim::shared_static(&name##_key_, sizeof(T) * (n), alignof(T) < 16 ? 16 : alignof(T), #name)
#define EMO_DYN_SHARED(T, name) T *const name = (T *)cudasim::shared_dynamic()
/* Where a warp-wide operation was called: the simulator names the line. */
#define EMO_AT_ , const char *file_ = __builtin_FILE(), int line_ = __builtin_LINE()
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define EMO_SHARED(T, name, n) __shared__ __align__(16) T name[n]
/* uint4 gives the 16 bytes that cp.async and ldmatrix need; a larger alignment would pad every kernel of the file. */
#define EMO_DYN_SHARED(T, name)                                                                                        \
    extern __shared__ uint4 emo_dynamic_shared_[];                                                                     \
    T *const name = (T *)emo_dynamic_shared_
#define EMO_AT_
#endif

#include "launch.h"

#define EMO_LAUNCH(kernel, grid, block, shared, stream, ...)                                                           \
    emo_launch(stream, emo_launch_shape{grid, block, (size_t)(shared), #kernel, __FILE__, __LINE__}, kernel,           \
               ##__VA_ARGS__)

static inline cudaError_t emo_allow_shared(const void *kernel, size_t bytes) {
    if (bytes <= 48 * 1024)
        return cudaSuccess;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}
#define EMO_LAUNCH_WIDE(kernel, grid, block, shared, stream, ...)                                                      \
    (emo_starts(stream) && emo_allow_shared((const void *)(kernel), (shared)) != cudaSuccess                           \
         ? cudaPeekAtLastError()                                                                                       \
         : EMO_LAUNCH(kernel, grid, block, shared, stream, __VA_ARGS__))

typedef __nv_bfloat16 emo_bf16;
#define EMO_DEVICE __device__ static __forceinline__
#define EMO_FULL_WARP 0xffffffffu

/* ---- tensor cores: d[16x8] += a[16x16] b[16x8], bf16 in, f32 accumulated ---- */

EMO_DEVICE void emo_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] EMO_AT_) {
#ifdef EMO_SIM
    cudasim::mma_tile(d, a, b, 1, 1, file_, line_);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* A warp's tile of MI x NJ such products: one collective in the simulator, unrolled instructions on the device. */
template <int MI, int NJ>
EMO_DEVICE void emo_mma_tile(float (&d)[MI][NJ][4], const uint32_t (&a)[MI][4], const uint32_t (&b)[NJ][2] EMO_AT_) {
#ifdef EMO_SIM
    cudasim::mma_tile(&d[0][0][0], &a[0][0], &b[0][0], MI, NJ, file_, line_);
#else
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
        for (int j = 0; j < NJ; j++)
            emo_mma_bf16(d[i][j], a[i], b[j]);
#endif
}

/* ---- ldmatrix: lane l gives the address of row l % 8 of matrix l / 8 (16 bytes, in shared memory) ---- */

EMO_DEVICE void emo_ldmatrix_x4(uint32_t (&r)[4], const void *row EMO_AT_) {
#ifdef EMO_SIM
    cudasim::ldmatrix(r, row, 4, false, file_, line_);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s)
                 : "memory");
#endif
}

EMO_DEVICE void emo_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row EMO_AT_) {
#ifdef EMO_SIM
    cudasim::ldmatrix(r, row, 4, true, file_, line_);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3},[%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(s)
                 : "memory");
#endif
}

EMO_DEVICE void emo_ldmatrix_x2(uint32_t (&r)[2], const void *row EMO_AT_) {
#ifdef EMO_SIM
    cudasim::ldmatrix(r, row, 2, false, file_, line_);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1},[%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(s) : "memory");
#endif
}

EMO_DEVICE void emo_ldmatrix_x2_trans(uint32_t (&r)[2], const void *row EMO_AT_) {
#ifdef EMO_SIM
    cudasim::ldmatrix(r, row, 2, true, file_, line_);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1},[%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(s)
                 : "memory");
#endif
}

/* ---- cp.async: shared <- global; the bytes after `valid` become 0 (valid 0: src is not read) ---- */

EMO_DEVICE void emo_cp_async16(void *dst, const void *src, int valid) {
#ifdef EMO_SIM
    cudasim::copy_async(dst, src, 16, valid);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(dst);
    asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;" ::"r"(s), "l"(src), "r"(valid) : "memory");
#endif
}

EMO_DEVICE void emo_cp_async4(void *dst, const void *src, int valid) {
#ifdef EMO_SIM
    cudasim::copy_async(dst, src, 4, valid);
#else
    uint32_t s = (uint32_t)__cvta_generic_to_shared(dst);
    asm volatile("cp.async.ca.shared.global [%0],[%1],4,%2;" ::"r"(s), "l"(src), "r"(valid) : "memory");
#endif
}

EMO_DEVICE void emo_cp_commit(void) {
#ifdef EMO_SIM
    cudasim::copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* All but the last N committed groups of this thread have landed (for this thread: a barrier shows them to others). */
template <int N>
EMO_DEVICE void emo_cp_wait(void) {
#ifdef EMO_SIM
    cudasim::copy_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* ---- warp collectives: every lane gets the same bits, in an order that is fixed ---- */

EMO_DEVICE float emo_warp_sum(float v EMO_AT_) {
#ifdef EMO_SIM
    return cudasim::warp_sum(v, file_, line_);
#else
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(EMO_FULL_WARP, v, o);
    return v;
#endif
}

EMO_DEVICE double emo_warp_sum(double v EMO_AT_) {
#ifdef EMO_SIM
    return cudasim::warp_sum(v, file_, line_);
#else
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(EMO_FULL_WARP, v, o);
    return v;
#endif
}

/* A NaN wins: it must not be lost on the way to the check for finite numbers. */
EMO_DEVICE float emo_warp_max(float v EMO_AT_) {
#ifdef EMO_SIM
    return cudasim::warp_max(v, file_, line_);
#else
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        float other = __shfl_xor_sync(EMO_FULL_WARP, v, o);
        v = other > v || other != other ? other : v;
    }
    return v;
#endif
}

/* Where kernels take the fast form; else they call the accurate functions of the CUDA library (1 to 2 ulp). */
#ifdef EMO_SIM
EMO_DEVICE float emo_exp_fast(float x) { return expf(x); }
#else
EMO_DEVICE float emo_exp_fast(float x) { return __expf(x); }
#endif

/* Two bf16 in one register, the first in the low half: as mma, ldmatrix and packed stores want them. */
EMO_DEVICE uint32_t emo_pack_bf16(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

#endif
