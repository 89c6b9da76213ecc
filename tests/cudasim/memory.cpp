/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Device memory: one range of addresses, every allocation at a new place between red zones, filled with NaN, its pages
 * taken away when it is freed. Shared memory of the running block. Launch arguments. Pinned host memory.
 */
#include "cudasim/internal.h"

#include <algorithm>
#include <map>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace cudasim {

constexpr size_t arena_bytes = 16ull << 30, zone = 256, page = 4096;
constexpr int zone_byte = 0xa5;
static char *arena;
static size_t arena_used = page;
static size_t live_bytes;
struct Allocation {
    size_t bytes, reserved; /* reserved: up to the end of the red zone */
};
static std::map<char *, Allocation> allocations;
static std::map<char *, size_t> pinned;

constexpr size_t argument_bytes = 64 << 20;
static char *argument_base;
static size_t argument_used;
static std::multimap<size_t, char *> argument_free_list;

static char *reserve(size_t bytes) {
    void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "cudasim: cannot reserve %zu bytes of addresses\n", bytes);
        abort();
    }
    return (char *)p;
}

bool is_device(const void *p) { return arena != nullptr && (size_t)((const char *)p - arena) < arena_bytes; }
size_t memory_live() { return live_bytes; }
char *arena_base() { return arena; }
size_t arena_size() { return arena_bytes; }

bool is_pinned(const void *p, size_t bytes) {
    auto it = pinned.upper_bound((char *)p);
    return it != pinned.begin() && (char *)p + bytes <= (--it)->first + it->second;
}

bool is_argument(const void *p) {
    return argument_base != nullptr && (size_t)((const char *)p - argument_base) < argument_bytes;
}

/* Blocks of a power of two from 256 bytes on, their size in front. */
void *arguments_alloc(size_t bytes) {
    CUDASIM_LOCK;
    if (argument_base == nullptr)
        argument_base = reserve(argument_bytes);
    size_t size = 256;
    while (size < bytes + 64)
        size *= 2;
    char *p;
    auto it = argument_free_list.find(size);
    if (it != argument_free_list.end()) {
        p = it->second;
        argument_free_list.erase(it);
    } else {
        if (argument_used + size > argument_bytes)
            return nullptr;
        p = argument_base + argument_used;
        argument_used += size;
    }
    memcpy(p, &size, sizeof size);
    return p + 64;
}

void arguments_free(void *p) {
    char *start = (char *)p - 64;
    size_t size;
    memcpy(&size, start, sizeof size);
    argument_free_list.emplace(size, start);
}

/* Does [p, p + bytes) lie in one allocation? */
bool inside_allocation(const void *p, size_t bytes, bool report, const char *what) {
    auto it = allocations.upper_bound((char *)p);
    if (it != allocations.begin()) {
        --it;
        if ((char *)p + bytes <= it->first + it->second.bytes)
            return true;
        if (report && (char *)p < it->first + it->second.reserved) {
            finding("%s of %zu bytes at offset %td runs out of its allocation of %zu bytes", what, bytes,
                    (char *)p - it->first, it->second.bytes);
            return false;
        }
    }
    if (report)
        finding("%s of %zu bytes at %p: no device memory is allocated there", what, bytes, p);
    return false;
}

bool fails_now(int &countdown) {
    bool now = countdown == 1;
    countdown -= countdown > 1;
    return now;
}
bool allocation_fails() { return fails_now(options.fail_alloc); }

static cudaError_t take(void **out, size_t bytes) {
    if (out == nullptr)
        return fail(cudaErrorInvalidValue);
    *out = nullptr;
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    if (arena == nullptr) {
        arena = reserve(arena_bytes);
        watch_end();
    }
    if (bytes == 0)
        return cudaSuccess;
    if (allocation_fails() || bytes > options.memory || live_bytes > options.memory - bytes)
        return fail(cudaErrorMemoryAllocation);
    /* The end of the memory, not its beginning, touches the red zone: one byte too far is seen. */
    size_t reserved = (bytes + zone + 255) / 256 * 256;
    if (bytes >= page) /* pages of its own, so that they can be taken away */
        arena_used = (arena_used + page - 1) / page * page;
    if (reserved > arena_bytes - page - arena_used) {
        fprintf(stderr, "cudasim: all %zu bytes of addresses are used up (they are never used twice)\n", arena_bytes);
        return fail(cudaErrorMemoryAllocation);
    }
    char *p = arena + arena_used;
    arena_used += reserved;
    allocations[p] = {bytes, reserved};
    live_bytes += bytes;
    memset(p, 0xff, bytes); /* NaN in every floating-point type */
    memset(p + bytes, zone_byte, reserved - bytes);
#ifdef CUDASIM_ASAN
    ASAN_POISON_MEMORY_REGION(p + bytes, reserved - bytes);
#endif
    *out = p;
    return cudaSuccess;
}

static void check_zone(const char *p, const Allocation &a) {
#ifndef CUDASIM_ASAN
    for (size_t i = a.bytes; i < a.reserved; i++)
        if (p[i] != (char)zone_byte) {
            finding("red zone: byte %zu past the end of an allocation of %zu bytes was overwritten", i - a.bytes,
                    a.bytes);
            return;
        }
#endif
}

void memory_check_red_zones() {
    for (auto &[p, a] : allocations)
        check_zone(p, a);
}

std::string describe_device(const void *p) {
    char text[160] = "no memory is allocated there (was it freed?)";
    auto it = allocations.upper_bound((char *)p);
    if (it != allocations.begin()) {
        --it;
        ptrdiff_t offset = (const char *)p - it->first, past = offset - (ptrdiff_t)it->second.bytes;
        if (past < 0)
            snprintf(text, sizeof text, "byte %td of an allocation of %zu", offset, it->second.bytes);
        else if ((size_t)offset < it->second.reserved)
            snprintf(text, sizeof text, "%td bytes past the end of an allocation of %zu", past, it->second.bytes);
    }
    return text;
}

static cudaError_t give_back(char *p, bool in_stream) {
    auto it = allocations.find(p);
    if (it == allocations.end()) {
        finding("free of %p, which is not allocated", (void *)p);
        return fail(cudaErrorInvalidValue);
    }
    Allocation a = it->second;
    check_zone(p, a);
    allocations.erase(it);
    live_bytes -= a.bytes;
    check_allocated(p, a.bytes, false, in_stream);
    memset(p, 0xff, std::min(a.bytes, page));
    if (a.bytes >= page) /* whoever uses it now meets no memory at all */
        mmap(p + page, a.bytes / page * page - page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
             -1, 0);
#ifdef CUDASIM_ASAN
    ASAN_POISON_MEMORY_REGION(p, a.bytes);
#endif
    return cudaSuccess;
}

/* ---- shared memory ---- */

void shared_begin() {
    if (block.shared == nullptr)
        block.shared = (char *)aligned_alloc(1024, shared_bytes);
    if (block.shared == nullptr)
        abort();
    block.arrays.clear();
    block.static_used = 0;
#ifdef CUDASIM_ASAN
    ASAN_POISON_MEMORY_REGION(block.shared, shared_bytes);
    ASAN_UNPOISON_MEMORY_REGION(block.shared + shared_dynamic_offset, block.dynamic_bytes);
#endif
    memset(block.shared + shared_dynamic_offset, 0xff, block.dynamic_bytes);
}

void *shared_static(const void *key, size_t bytes, size_t align, const char *name) {
    for (SharedArray &a : block.arrays)
        if (a.key == key)
            return a.data;
    size_t offset = (block.static_used + align - 1) / align * align;
    if (offset + bytes > shared_static_limit) {
        finding("%s in %s: static shared memory over 48 KiB", name, block.config->name);
        block_abort(cudaErrorLaunchFailure);
    }
    char *p = block.shared + offset;
    block.arrays.push_back({key, p, bytes, name});
    block.static_used = offset + bytes + 16; /* a gap between arrays: running out of one is seen */
#ifdef CUDASIM_ASAN
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
#endif
    memset(p, 0xff, bytes);
    return p;
}

void *shared_dynamic() { return block.shared + shared_dynamic_offset; }

} // namespace cudasim

using namespace cudasim;

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes) {
    CUDASIM_LOCK;
    cudaError_t error = capture_forbids("cudaMalloc");
    if (error == cudaSuccess)
        error = take(out, bytes);
    if (error == cudaSuccess && bytes > 0)
        check_allocated(*out, bytes, true, false);
    return error;
}

cudaError_t cudaFree(void *p) {
    CUDASIM_LOCK;
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    if (p == nullptr)
        return cudaSuccess;
    cudaError_t error = capture_forbids("cudaFree");
    counts.waits++;
    if (error == cudaSuccess)
        error = drain(nullptr);
    return error != cudaSuccess ? error : give_back((char *)p, false);
}

/* The address is known at once; the memory is there from this point of the stream on, for those ordered after it. */
cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t stream) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(stream);
    if (error != cudaSuccess)
        return error;
    error = take(out, bytes);
    if (error != cudaSuccess || bytes == 0)
        return error;
    void *p = *out;
    return enqueue(stream, "cudaMallocAsync", [p, bytes] {
        check_allocated(p, bytes, true, true);
        return cudaSuccess;
    });
}

cudaError_t cudaFreeAsync(void *p, cudaStream_t stream) {
    CUDASIM_LOCK;
    cudaError_t error = stream_valid(stream);
    if (error != cudaSuccess || p == nullptr)
        return error;
    return enqueue(stream, "cudaFreeAsync", [p] { return give_back((char *)p, true); });
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
    CUDASIM_LOCK;
    if (out == nullptr)
        return fail(cudaErrorInvalidValue);
    *out = nullptr;
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    cudaError_t error = capture_forbids("cudaHostAlloc");
    if (error != cudaSuccess)
        return error;
    if (allocation_fails())
        return fail(cudaErrorMemoryAllocation);
    void *p = aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
    if (p == nullptr)
        return fail(cudaErrorMemoryAllocation);
    memset(p, 0xff, bytes);
    pinned[(char *)p] = bytes;
    *out = p;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **out, size_t bytes) { return cudaHostAlloc(out, bytes, 0); }

cudaError_t cudaFreeHost(void *p) {
    CUDASIM_LOCK;
    if (p == nullptr)
        return cudaSuccess;
    cudaError_t error = drain(nullptr);
    if (pinned.erase((char *)p) == 0) {
        finding("cudaFreeHost of %p, which is not pinned memory", p);
        return fail(cudaErrorInvalidValue);
    }
    free(p);
    return error;
}

cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned) {
    CUDASIM_LOCK;
    if (p == nullptr || bytes == 0)
        return fail(cudaErrorInvalidValue);
    pinned[(char *)p] = bytes;
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p) {
    CUDASIM_LOCK;
    cudaError_t error = drain(nullptr);
    return pinned.erase((char *)p) == 0 ? fail(cudaErrorHostMemoryNotRegistered) : error;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    CUDASIM_LOCK;
    if (sticky_error != cudaSuccess)
        return fail(sticky_error);
    *free_bytes = options.memory > live_bytes ? options.memory - live_bytes : 0;
    *total = options.memory;
    return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *out, const void *p) {
    CUDASIM_LOCK;
    *out = cudaPointerAttributes();
    out->type = is_device(p) ? cudaMemoryTypeDevice : is_pinned(p, 1) ? cudaMemoryTypeHost : cudaMemoryTypeUnregistered;
    out->device = out->type == cudaMemoryTypeUnregistered ? -2 : 0;
    out->devicePointer = out->type == cudaMemoryTypeUnregistered ? nullptr : (void *)p;
    out->hostPointer = out->type == cudaMemoryTypeHost ? (void *)p : nullptr;
    return cudaSuccess;
}

} /* extern "C" */
