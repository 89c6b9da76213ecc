/* SPDX-License-Identifier: Apache-2.0 */
/* The device, its attributes, kernel launches, function attributes, errors. */
#include "cudasim/internal.h"

#include <algorithm>
#include <map>
#include <stdio.h>

namespace cudasim {

static std::map<const void *, int> opted_in; /* dynamic shared memory a kernel was given */

/* The copy of the arguments lives as long as anything may launch with it (a graph: as long as the graph). */
cudaError_t enqueue_kernel(const LaunchConfig &c, Entry entry, void *arguments) {
    CUDASIM_LOCK;
    std::shared_ptr<void> owned(arguments, arguments_free);
    size_t threads = (size_t)c.block.x * c.block.y * c.block.z;
    auto it = opted_in.find(c.function);
    size_t limit = it != opted_in.end() ? (size_t)it->second : shared_static_limit;
    bool shape = threads > 0 && threads <= (size_t)max_threads && c.block.z <= 64 && c.grid.x > 0 && c.grid.y > 0 &&
                 c.grid.z > 0 && c.grid.x <= 0x7fffffff && c.grid.y <= 65535 && c.grid.z <= 65535;
    if (!shape || c.shared > limit) {
        finding("bad launch of %s at %s:%d: grid %u,%u,%u, block %u,%u,%u, %zu bytes of dynamic shared memory (%zu are "
                "allowed)",
                c.name, c.file, c.line, c.grid.x, c.grid.y, c.grid.z, c.block.x, c.block.y, c.block.z, c.shared, limit);
        return fail(shape ? cudaErrorInvalidValue : cudaErrorInvalidConfiguration);
    }
    LaunchConfig config = c;
    counts.launches += !is_capturing(c.stream);
    if (stream_valid(c.stream) == cudaSuccess)
        stream_of(c.stream)->launched = true;
    return enqueue(c.stream, c.name, [config, entry, owned] { return run_grid(config, entry, owned.get()); });
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

/* ---- errors ---- */

cudaError_t cudaGetLastError(void) {
    CUDASIM_LOCK;
    cudaError_t error = last_error;
    last_error = sticky_error;
    return error;
}
cudaError_t cudaPeekAtLastError(void) {
    CUDASIM_LOCK;
    return last_error;
}

#define CUDASIM_ERRORS(X)                                                                                              \
    X(cudaSuccess, "no error")                                                                                         \
    X(cudaErrorInvalidValue, "invalid argument")                                                                       \
    X(cudaErrorMemoryAllocation, "out of memory")                                                                      \
    X(cudaErrorInvalidConfiguration, "invalid configuration argument")                                                 \
    X(cudaErrorInvalidDevice, "invalid device ordinal")                                                                \
    X(cudaErrorInvalidResourceHandle, "invalid resource handle")                                                       \
    X(cudaErrorIllegalAddress, "an illegal memory access was encountered")                                             \
    X(cudaErrorMisalignedAddress, "misaligned address")                                                                \
    X(cudaErrorLaunchFailure, "unspecified launch failure")                                                            \
    X(cudaErrorNotReady, "device not ready")                                                                           \
    X(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing")                           \
    X(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work")

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
#define CUDASIM_TEXT(code, text)                                                                                       \
    case code:                                                                                                         \
        return text;
        CUDASIM_ERRORS(CUDASIM_TEXT)
    default:
        return "an error of the simulated device";
    }
}
const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define CUDASIM_NAME(code, text)                                                                                       \
    case code:                                                                                                         \
        return #code;
        CUDASIM_ERRORS(CUDASIM_NAME)
    default:
        return "cudaError";
    }
}

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *out) {
    *out = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *out) {
    *out = 0;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : fail(cudaErrorInvalidDevice); }
cudaError_t cudaDriverGetVersion(int *out) {
    *out = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *out) {
    *out = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr attribute, int device) {
    if (device != 0)
        return fail(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
        *out = options.multiprocessors;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *out = options.major;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *out = options.minor;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *out = (int)options.shared_opt_in;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *out = (int)shared_static_limit;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *out = (int)options.shared_opt_in + 1024;
        break;
    case cudaDevAttrMaxThreadsPerBlock:
        *out = max_threads;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *out = 2048;
        break;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY:
        *out = 1024;
        break;
    case cudaDevAttrMaxBlockDimZ:
        *out = 64;
        break;
    case cudaDevAttrMaxGridDimX:
        *out = 0x7fffffff;
        break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
        *out = 65535;
        break;
    case cudaDevAttrWarpSize:
        *out = 32;
        break;
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrUnifiedAddressing:
        *out = 1;
        break;
    default:
        *out = 0;
        break;
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device) {
    if (device != 0)
        return fail(cudaErrorInvalidDevice);
    *out = cudaDeviceProp();
    snprintf(out->name, sizeof out->name, "simulated CUDA device");
    out->totalGlobalMem = options.memory;
    out->major = options.major;
    out->minor = options.minor;
    out->multiProcessorCount = options.multiprocessors;
    out->sharedMemPerBlock = shared_static_limit;
    out->sharedMemPerBlockOptin = options.shared_opt_in;
    out->warpSize = 32;
    out->maxThreadsPerBlock = max_threads;
    out->maxThreadsPerMultiProcessor = 2048;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int) {
    *out = reinterpret_cast<cudaMemPool_t>(&options);
    return cudaSuccess;
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

/* ---- functions ---- */

cudaError_t cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attribute, int value) {
    CUDASIM_LOCK;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || (size_t)value > options.shared_opt_in)
        return fail(cudaErrorInvalidValue);
    opted_in[function] = std::max(value, (int)shared_static_limit);
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *out, const void *function) {
    CUDASIM_LOCK;
    *out = cudaFuncAttributes();
    auto it = opted_in.find(function);
    out->maxDynamicSharedSizeBytes = it != opted_in.end() ? it->second : (int)shared_static_limit;
    out->maxThreadsPerBlock = max_threads;
    out->numRegs = 32;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *out, const void *, int threads, size_t shared) {
    if (threads <= 0 || threads > max_threads)
        return fail(cudaErrorInvalidValue);
    int by_shared = shared > 0 ? (int)((options.shared_opt_in + 1024) / shared) : 16;
    *out = std::max(0, std::min(std::min(2048 / threads, by_shared), 16));
    return cudaSuccess;
}

} /* extern "C" */
