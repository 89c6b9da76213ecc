/* SPDX-License-Identifier: Apache-2.0 */
/* cudaMemcpy and cudaMemset. Pageable memory is staged at the call; pinned memory is touched when the work runs. */
#include "cudasim/internal.h"

namespace cudasim {

static cudaError_t check_range(const void *p, size_t bytes, const char *what) {
    if (!is_device(p))
        return cudaSuccess;
    return inside_allocation(p, bytes, true, what) ? cudaSuccess : cudaErrorInvalidValue;
}

static cudaError_t check_kind(const void *dst, const void *src, enum cudaMemcpyKind kind) {
    bool to = is_device(dst), from = is_device(src);
    bool right = kind == cudaMemcpyDefault || (kind == cudaMemcpyHostToDevice && to && !from) ||
                 (kind == cudaMemcpyDeviceToHost && !to && from) || (kind == cudaMemcpyDeviceToDevice && to && from) ||
                 (kind == cudaMemcpyHostToHost && !to && !from);
    if (right)
        return cudaSuccess;
    finding("cudaMemcpy: its kind (%d) and its addresses disagree (%s to %s)", (int)kind, from ? "device" : "host",
            to ? "device" : "host");
    return cudaErrorInvalidValue;
}

static cudaError_t transfer(void *dst, const void *src, size_t bytes) {
    cudaError_t error = check_range(dst, bytes, "cudaMemcpy to device memory");
    if (error == cudaSuccess)
        error = check_range(src, bytes, "cudaMemcpy from device memory");
    if (error != cudaSuccess)
        return error;
    memmove(dst, src, bytes);
    if (is_device(src) && is_device(dst))
        check_copied(dst, src, bytes);
    else if (is_device(dst))
        check_written(dst, bytes);
    else
        check_initialised(src, bytes, "cudaMemcpy to the host");
    return cudaSuccess;
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(stream);
    if (error != cudaSuccess || bytes == 0)
        return error;
    error = check_kind(dst, src, kind);
    if (error != cudaSuccess)
        return fail(error);
    bool capturing = is_capturing(stream);
    const void *host = !is_device(src) ? src : !is_device(dst) ? dst : nullptr;
    if (capturing && host != nullptr && !is_pinned(host, bytes))
        finding("a captured copy of %zu bytes will use pageable memory at %p whenever its graph runs", bytes, host);
    if (!capturing && host != nullptr)
        ++(is_device(src) ? counts.to_host : counts.to_device);
    if (!capturing && host != nullptr && !is_device(src))
        counts.beside += !stream_of(stream)->launched;
    if (!is_device(src) && !is_pinned(src, bytes) && !capturing) {
        auto staged = std::make_shared<std::vector<char>>((const char *)src, (const char *)src + bytes);
        return enqueue(stream, "cudaMemcpy", [=] { return transfer(dst, staged->data(), bytes); });
    }
    NodePtr node;
    error = enqueue(
        stream, "cudaMemcpy", [=] { return transfer(dst, src, bytes); }, &node);
    if (error == cudaSuccess && !is_device(dst) && !is_pinned(dst, bytes) && !capturing)
        counts.waits++, error = drain(node);
    return error;
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, enum cudaMemcpyKind kind) {
    CUDASIM_LOCK;
    cudaError_t error = cudaMemcpyAsync(dst, src, bytes, kind, nullptr);
    return error != cudaSuccess ? error : cudaStreamSynchronize(nullptr);
}

cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream) {
    CUDASIM_LOCK;
    if (width > dst_pitch || width > src_pitch)
        return fail(cudaErrorInvalidPitchValue);
    for (size_t i = 0; i < height; i++) {
        cudaError_t error =
            cudaMemcpyAsync((char *)dst + i * dst_pitch, (const char *)src + i * src_pitch, width, kind, stream);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *dst, int value, size_t bytes, cudaStream_t stream) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(stream);
    if (error != cudaSuccess || bytes == 0)
        return error;
    if (!is_device(dst)) {
        finding("cudaMemset of %zu bytes of host memory", bytes);
        return fail(cudaErrorInvalidValue);
    }
    return enqueue(stream, "cudaMemset", [=] {
        if (!inside_allocation(dst, bytes, true, "cudaMemset"))
            return cudaErrorInvalidValue;
        memset(dst, value, bytes);
        check_written(dst, bytes);
        return cudaSuccess;
    });
}

cudaError_t cudaMemset(void *dst, int value, size_t bytes) { return cudaMemsetAsync(dst, value, bytes, nullptr); }

} /* extern "C" */
