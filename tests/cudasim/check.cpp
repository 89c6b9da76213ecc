/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checker of the hooked build: every access of a kernel to device and shared memory is held against who touched
 * the bytes before (races), whether they are allocated (bounds) and whether they were ever written. In the other builds
 * these calls do nothing.
 *
 * Two touches of one operation are ordered by a barrier between them, by __syncwarp within a warp (a vector clock per
 * lane), or by being of one thread; touches of two operations by streams, events and the host (clock.cpp).
 */
#include "cudasim/internal.h"

#ifndef CUDASIM_HOOKS
namespace cudasim {
void check_access(const void *, size_t, Access, const void *) {}
void check_written(const void *, size_t) {}
void check_copied(void *, const void *, size_t) {}
void check_allocated(const void *, size_t, bool, bool) {}
void check_async(void *, const void *, int, int, const void *) {}
void check_async_landed(void *, int, const void *) {}
void check_initialised(const void *, size_t, const char *) {}
void check_forget_reports() {}
} // namespace cudasim
#else

#include <algorithm>
#include <set>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

namespace cudasim {

/* Who touched some bytes last: lanes of a warp, warps of a block, or more than that. */
enum class Scope : uint8_t { lanes, warps, everything };
struct Touch {
    uint32_t actor;  /* 0: nobody */
    uint32_t number; /* of the block */
    uint32_t epoch;  /* barriers passed before */
    uint32_t clock;  /* of the lane */
    uint32_t lanes;
    uint32_t pc;
    uint16_t thread;
    Scope scope;
    bool atomic;
};
struct Cell { /* four bytes of memory */
    Touch written, read;
    uint32_t split; /* index of four cells, one for each byte; 0: the four are alike */
    uint8_t alive, initialised;
};

static Cell *device_cells;
static Cell *shared_cells;
static uint32_t *shared_serial; /* block that a shared cell is of */
static Cell *byte_cells;
static uint32_t byte_cells_used = 1;
static std::vector<uint32_t> byte_cells_free;
constexpr size_t byte_groups = 256 << 20;

template <class T>
static T *reserve(size_t count) {
    void *p =
        mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        fprintf(stderr, "cudasim: cannot reserve %zu bytes of addresses for the checker\n", count * sizeof(T));
        abort();
    }
    return (T *)p;
}

static void prepare() {
    if (device_cells != nullptr)
        return;
    device_cells = reserve<Cell>(arena_size() / 4);
    shared_cells = reserve<Cell>(shared_bytes / 4);
    shared_serial = reserve<uint32_t>(shared_bytes / 4);
    byte_cells = reserve<Cell>(byte_groups * 4);
}

static Cell *device_cell(const void *p) { return &device_cells[(size_t)((const char *)p - arena_base()) / 4]; }

static void unsplit(Cell &c) {
    if (c.split != 0)
        byte_cells_free.push_back(c.split);
    c.split = 0;
}

static void split(Cell &c) {
    if (byte_cells_free.empty()) {
        if (byte_cells_used == byte_groups)
            abort();
        c.split = byte_cells_used++;
    } else {
        c.split = byte_cells_free.back();
        byte_cells_free.pop_back();
    }
    for (int i = 0; i < 4; i++) {
        byte_cells[c.split * 4 + (uint32_t)i].written = c.written;
        byte_cells[c.split * 4 + (uint32_t)i].read = c.read;
    }
}

/* ---- reports ---- */

static std::string who(const Touch &t, bool write) {
    std::string text = std::string(write ? t.atomic ? "an atomic" : "a write" : "a read") + " by ";
    if (t.actor > actor_base && t.actor != actor)
        return text + actor_of(t.actor).name + ", another operation that no event or stream orders" +
               (t.pc != 0 ? " at " + code_line(t.pc) : "");
    text += "thread " + std::to_string(t.thread) + " of block " + std::to_string(t.number);
    return text + (t.pc != 0 ? " at " + code_line(t.pc) : "");
}

static std::string me(uint64_t pc) {
    if (!in_kernel())
        return actor > actor_base ? actor_of(actor).name : "the host";
    return "thread " + std::to_string(block.now->linear) + " of block " + std::to_string(block.number) + " in " +
           block.config->name + " at " + code_line(pc);
}

static std::set<std::tuple<uint32_t, uint32_t, int>> seen;
static int reports;

void check_forget_reports() {
    seen.clear();
    reports = 0;
}

/* Each pair of places is told of once, and no more than a reader can use. */
static bool first_time(uint32_t pc, uint32_t other, int kind) {
    if (pc != 0 && !seen.insert({pc, other, kind}).second)
        return false;
    return ++reports <= 200;
}

static void report_race(const Touch &before, bool wrote, Access kind, bool shared, uint32_t pc) {
    bool copies = pc == 0 && before.pc == 0; /* operations without code: once a pair of them */
    if (!first_time(copies ? actor : pc, copies ? before.actor : before.pc, (wrote ? 1 : 2) + (copies ? 10 : 0)))
        return;
    finding("race in %s memory: %s by %s after %s", shared ? "shared" : "device",
            kind == Access::read    ? "read"
            : kind == Access::write ? "write"
                                    : "atomic",
            me(pc).c_str(), who(before, wrote).c_str());
}

/* ---- touches ---- */

static bool ordered(const Touch &t, bool shared) {
    if (t.actor == 0)
        return true;
    if (t.actor != actor)
        return shared || actor_before(t.actor);
    if (t.scope == Scope::everything || !in_kernel() || t.number != block.number)
        return shared || !in_kernel();
    if (t.epoch != block.epoch)
        return true;
    const Fiber &f = *block.now;
    if (t.scope == Scope::warps || t.thread >> 5 != f.linear >> 5)
        return false;
    for (uint32_t m = t.lanes & ~(1u << f.lane); m != 0; m &= m - 1)
        if (f.clock[__builtin_ctz(m)] < t.clock)
            return false;
    return true;
}

static Touch touch_now(Access kind, uint32_t pc) {
    if (!in_kernel())
        return Touch{actor, 0, 0, 0, 0, pc, 0, Scope::everything, false};
    const Fiber &f = *block.now;
    return Touch{actor, block.number,       block.epoch,  f.clock[f.lane],       1u << f.lane,
                 pc,    (uint16_t)f.linear, Scope::lanes, kind == Access::atomic};
}

/* Another unordered touch of the same kind: the record is of all of them. */
static void merge(Touch &t, const Touch &now) {
    Touch old = t;
    t = now;
    if (old.actor != now.actor || !in_kernel())
        return;
    if (old.scope == Scope::everything || old.number != now.number) {
        t.scope = Scope::everything;
    } else if (old.scope == Scope::warps || old.thread >> 5 != now.thread >> 5) {
        t.scope = Scope::warps;
    } else {
        t.lanes |= old.lanes;
        t.clock = std::min(t.clock, old.clock);
    }
}

static void touch(Cell &c, Access kind, const Touch &now, bool shared) {
    bool after_write = ordered(c.written, shared);
    if (!after_write && !(kind == Access::atomic && c.written.atomic))
        report_race(c.written, true, kind, shared, now.pc);
    if (kind == Access::read) {
        if (ordered(c.read, shared))
            c.read = now;
        else
            merge(c.read, now);
        return;
    }
    if (!ordered(c.read, shared))
        report_race(c.read, false, kind, shared, now.pc);
    if (kind == Access::atomic && c.written.atomic && !after_write)
        merge(c.written, now);
    else
        c.written = now;
}

/* bytes: which of the four. */
static void touch_word(Cell &c, unsigned bytes, Access kind, const Touch &now, bool shared) {
    if (c.split == 0) {
        if (bytes == 15) {
            touch(c, kind, now, shared);
            return;
        }
        split(c);
    }
    for (unsigned i = 0; i < 4; i++)
        if ((bytes >> i & 1) != 0)
            touch(byte_cells[c.split * 4 + i], kind, now, shared);
    if (bytes == 15 && kind == Access::write) {
        c.written = byte_cells[c.split * 4].written;
        c.read = byte_cells[c.split * 4].read;
        unsplit(c);
    }
}

template <class Fn>
static void each_word(size_t offset, size_t bytes, Fn fn) {
    size_t end = offset + bytes;
    for (size_t word = offset / 4; word * 4 < end; word++) {
        unsigned mask = 15;
        if (word * 4 < offset)
            mask &= 15u << (offset - word * 4);
        if (word * 4 + 4 > end)
            mask &= 15u >> (word * 4 + 4 - end);
        fn(word, mask & 15u);
    }
}

static void access_shared(const char *p, size_t bytes, Access kind, uint32_t pc) {
    size_t offset = (size_t)(p - block.shared);
    bool inside = offset >= shared_dynamic_offset && offset + bytes <= shared_dynamic_offset + block.dynamic_bytes;
    for (size_t i = block.arrays.size(); !inside && i-- > 0;)
        inside = p >= block.arrays[i].data && p + bytes <= block.arrays[i].data + block.arrays[i].bytes;
    if (!inside) {
        std::string near;
        for (SharedArray &a : block.arrays)
            if (p >= a.data && p < a.data + a.bytes + 16)
                near = std::string("; it runs out of ") + a.name + " of " + std::to_string(a.bytes) +
                       " bytes at byte " + std::to_string(p - a.data);
        finding("out of bounds in shared memory: %s of %zu bytes by %s%s", kind == Access::read ? "read" : "write",
                bytes, me(pc).c_str(), near.c_str());
        block_abort(cudaErrorIllegalAddress);
    }
    Touch now = touch_now(kind, pc);
    each_word(offset, bytes, [&](size_t word, unsigned mask) {
        Cell &c = shared_cells[word];
        if (shared_serial[word] != block.serial) {
            shared_serial[word] = block.serial;
            unsplit(c);
            c = Cell();
        }
        if (kind != Access::write && (c.initialised & mask) != mask && first_time(pc, 0, 3))
            finding("uninitialised shared memory: read by %s", me(pc).c_str());
        touch_word(c, mask, kind, now, true);
        if (kind != Access::read)
            c.initialised = (uint8_t)(c.initialised | mask);
    });
}

static void access_device(const char *p, size_t bytes, Access kind, uint32_t pc) {
    Touch now = touch_now(kind, pc);
    size_t offset = (size_t)(p - arena_base());
    each_word(offset, bytes, [&](size_t word, unsigned mask) {
        Cell &c = device_cells[word];
        if ((c.alive & mask) != mask) {
            finding("out of bounds: %s of %zu bytes by %s; %s", kind == Access::read ? "read" : "write", bytes,
                    me(pc).c_str(), describe_device(p).c_str());
            block_abort(cudaErrorIllegalAddress);
        }
        if (kind != Access::write && (c.initialised & mask) != mask) {
            if (first_time(pc, 0, 3))
                finding("uninitialised device memory: read by %s", me(pc).c_str());
            c.initialised = (uint8_t)(c.initialised | mask);
        }
        touch_word(c, mask, kind, now, false);
        if (kind != Access::read)
            c.initialised = (uint8_t)(c.initialised | mask);
    });
}

extern "C" const char __ehdr_start __attribute__((visibility("hidden")));
extern "C" const char _end __attribute__((visibility("hidden")));

void check_access(const void *address, size_t bytes, Access kind, const void *at) {
    const char *p = (const char *)address;
    Fiber *f = block.now;
    if ((size_t)(p - f->stack->base) < stack_bytes)
        return;
    uint32_t pc = (uint32_t)relative(at);
    if ((size_t)(p - block.shared) < shared_bytes) {
        prepare();
        access_shared(p, bytes, kind, pc);
        return;
    }
    if (is_device(p)) {
        prepare();
        access_device(p, bytes, kind, pc);
        return;
    }
    bool read = kind == Access::read;
    bool constant =
        is_argument(p) || (p >= &__ehdr_start && p < &_end) ||
        (p >= (const char *)block.fibers.data() && p < (const char *)(block.fibers.data() + block.fibers.size()));
    if ((read && constant) || is_pinned(p, bytes))
        return;
    finding("%s: %s of %zu bytes by %s",
            on_stacks(p) ? "local memory of another thread"
            : constant   ? "constant memory written"
                         : "host memory",
            read ? "read" : "write", bytes, me(pc).c_str());
    block_abort(cudaErrorIllegalAddress);
}

/* ---- operations that are no kernels: copies, fills, libraries ---- */

template <class Fn>
static void each_device_word(const void *p, size_t bytes, Fn fn) {
    if (bytes == 0 || !is_device(p))
        return;
    prepare();
    each_word((size_t)((const char *)p - arena_base()), bytes,
              [&](size_t word, unsigned mask) { fn(device_cells[word], mask); });
}

static void touch_range(const void *p, size_t bytes, Access kind) {
    Touch now = touch_now(kind, 0);
    each_device_word(p, bytes, [&](Cell &c, unsigned mask) { touch_word(c, mask, kind, now, false); });
}

void check_written(const void *p, size_t bytes) {
    touch_range(p, bytes, Access::write);
    each_device_word(p, bytes, [](Cell &c, unsigned mask) { c.initialised = (uint8_t)(c.initialised | mask); });
}

void check_initialised(const void *p, size_t bytes, const char *what) {
    bool told = false;
    size_t at = 0;
    each_device_word(p, bytes, [&](Cell &c, unsigned mask) {
        if ((c.initialised & mask) != mask && !told) {
            told = true;
            finding("uninitialised device memory: %s reads it at byte %zu of %zu; %s", what, at, bytes,
                    describe_device(p).c_str());
        }
        at += (size_t)__builtin_popcount(mask);
        if (told)
            c.initialised = (uint8_t)(c.initialised | mask);
    });
    touch_range(p, bytes, Access::read);
}

void check_copied(void *dst, const void *src, size_t bytes) {
    touch_range(src, bytes, Access::read);
    touch_range(dst, bytes, Access::write);
    prepare();
    for (size_t i = 0; i < bytes; i++) {
        const char *from = (const char *)src + i, *to = (const char *)dst + i;
        unsigned bit = device_cell(from)->initialised >> ((size_t)(from - arena_base()) & 3) & 1u;
        unsigned shift = (unsigned)((size_t)(to - arena_base()) & 3);
        Cell &c = *device_cell(to);
        c.initialised = (uint8_t)((c.initialised & ~(1u << shift)) | bit << shift);
    }
}

void check_allocated(const void *p, size_t bytes, bool live, bool in_stream) {
    if (!live && in_stream) /* freeing is a write to all of it */
        touch_range(p, bytes, Access::write);
    each_device_word(p, bytes, [&](Cell &c, unsigned mask) {
        unsplit(c);
        uint8_t alive = c.alive;
        c = Cell();
        c.alive = (uint8_t)(live ? alive | mask : alive & ~mask);
        if (live && in_stream) /* unordered others may not use it yet */
            c.written = touch_now(Access::write, 0);
    });
}

/* ---- cp.async: the destination is nobody's until it has landed ---- */

static void forget_shared(const void *dst, int bytes) {
    each_word((size_t)((const char *)dst - block.shared), (size_t)bytes,
              [&](size_t word, unsigned mask) { shared_cells[word].initialised &= (uint8_t)~mask; });
}

void check_async(void *dst, const void *src, int bytes, int valid, const void *pc) {
    if (valid > 0)
        check_access(src, (size_t)valid, Access::read, pc);
    check_access(dst, (size_t)bytes, Access::write, pc);
    forget_shared(dst, bytes);
}

void check_async_landed(void *dst, int bytes, const void *pc) { check_access(dst, (size_t)bytes, Access::write, pc); }

} // namespace cudasim
#endif
