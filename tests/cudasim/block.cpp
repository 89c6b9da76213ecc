/* SPDX-License-Identifier: Apache-2.0 */
/* A block: its threads take turns on one CPU thread; barriers; a grid is its blocks one after another. */
#include "cudasim/internal.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <stdio.h>

namespace cudasim {

Lane *current;
Block block;
uint64_t threads_run;
static uint32_t next_serial;
static uint32_t grids_run;

uint32_t block_random() {
    block.random ^= block.random << 13;
    block.random ^= block.random >> 7;
    block.random ^= block.random << 17;
    return (uint32_t)(block.random >> 16);
}

void block_mark(Fiber *f) {
    if (f->state != State::fresh)
        f->state = State::ready;
    block.warp[f->linear >> 5].ready |= 1u << f->lane;
    block.ready_warps |= 1u << (f->linear >> 5);
}

static unsigned any_bit(uint32_t mask) {
    for (unsigned skip = block_random() % (unsigned)__builtin_popcount(mask); skip > 0; skip--)
        mask &= mask - 1;
    return (unsigned)__builtin_ctz(mask);
}

/* The next thread that may run, or NULL. In order: a warp goes on as long as it can. */
static Fiber *pick() {
    if (block.ready_warps == 0)
        return nullptr;
    unsigned w = block.next_warp;
    if (block.shuffle)
        w = any_bit(block.ready_warps);
    else if ((block.ready_warps >> w & 1) == 0)
        block.next_warp = w = (unsigned)__builtin_ctz(block.ready_warps);
    WarpState &warp = block.warp[w];
    unsigned lane = block.shuffle ? any_bit(warp.ready) : (unsigned)__builtin_ctz(warp.ready);
    warp.ready &= ~(1u << lane);
    if (warp.ready == 0)
        block.ready_warps &= ~(1u << w);
    return &block.fibers[w * 32 + lane];
}

static void run_as(Fiber *f) {
    block.now = f;
    current = f;
}

static void retire(Stack *s) {
    if (block.retired != nullptr)
        stack_release(block.retired);
    block.retired = s;
}

/* Threads that never blocked run on the stack of the one that ended before them. */
static void fiber_main() {
    stack_started();
    retire(nullptr);
    for (;;) {
        Fiber *f = block.now;
        block.entry(block.arguments);
        f = block.now;
        Stack *stack = f->stack;
        if (!f->copies.empty())
            copies_land(f, f->copies.size());
        f->state = State::done;
        f->stack = nullptr;
        block.alive--;
        block.warp[f->linear >> 5].alive &= ~(1u << f->lane);
        if (block.arrived > 0 && block.arrived == block.alive) {
            /* Threads that left do not hold up the others. */
            block.arrived = 0;
            block.epoch++;
            for (int i = 0; i < block.count; i++)
                if (block.fibers[(size_t)i].state == State::at_barrier)
                    block_mark(&block.fibers[(size_t)i]);
        }
        Fiber *next = pick();
        if (next == nullptr) {
            if (block.alive > 0) {
                f->stack = stack;
                block_wait();
            }
            retire(stack);
            current = nullptr;
            stack_leave();
        }
        if (next->state == State::fresh) {
            next->state = State::ready;
            next->stack = stack;
            run_as(next);
            continue;
        }
        retire(stack);
        run_as(next);
        stack_switch(nullptr, next->stack);
    }
}

static void report_deadlock() {
    std::map<std::string, std::pair<int, unsigned>> places;
    for (int i = 0; i < block.count; i++) {
        Fiber &f = block.fibers[(size_t)i];
        if (f.state != State::at_barrier && f.state != State::in_warp)
            continue;
        char mask[40];
        snprintf(mask, sizeof mask, "a warp operation of mask %08x", f.mask);
        std::string where = f.state == State::at_barrier ? "__syncthreads" : mask;
        where += std::string(" at ") + f.file + ":" + std::to_string(f.line);
        places.try_emplace(where, 0, f.linear).first->second.first++;
    }
    std::string text;
    for (auto &[where, who] : places)
        text += "; " + std::to_string(who.first) + " (first " + std::to_string(who.second) + ") wait in " + where;
    finding("deadlock in %s, block %u: %d of %d threads are left%s", block.config->name, block.number, block.alive,
            block.count, text.c_str());
}

void block_wait() {
    Fiber *me = block.now;
    Fiber *next = pick();
    if (next == nullptr) {
        report_deadlock();
        block_abort(cudaErrorLaunchFailure);
    }
    if (next == me)
        return;
    if (next->state == State::fresh) {
        next->stack = stack_take();
        stack_prepare(next->stack, fiber_main);
        next->state = State::ready;
    }
    run_as(next);
    stack_switch(me->stack, next->stack);
    retire(nullptr);
}

void block_maybe_yield() {
    if (block.shuffle && (block_random() & 1) != 0) {
        block_mark(block.now);
        block_wait();
    }
}

void block_abort(cudaError_t error) {
    block.aborted = true;
    sticky_error = error;
    current = nullptr;
    stack_leave();
}

void barrier(const char *file, int line) {
    Fiber *me = block.now;
    if (block.arrived == 0) {
        block.barrier_file = file;
        block.barrier_line = line;
    } else if (block.barrier_line != line || (block.barrier_file != file && strcmp(block.barrier_file, file) != 0)) {
        finding("divergent barrier in %s, block %u: thread %u waits at %s:%d, others at %s:%d", block.config->name,
                block.number, me->linear, file, line, block.barrier_file, block.barrier_line);
        block_abort(cudaErrorLaunchFailure);
    }
    if (++block.arrived < block.alive) {
        me->state = State::at_barrier;
        me->file = file;
        me->line = line;
        block_wait();
        return;
    }
    block.arrived = 0;
    block.epoch++;
    for (int i = 0; i < block.count; i++)
        if (block.fibers[(size_t)i].state == State::at_barrier)
            block_mark(&block.fibers[(size_t)i]);
    block_maybe_yield();
}

int barrier_reduce(int op, int value, const char *file, int line) {
    if (block.arrived == 0)
        block.reduced = op == 1;
    if (op == 0)
        block.reduced |= value != 0;
    else if (op == 1)
        block.reduced &= value != 0;
    else
        block.reduced += value != 0;
    barrier(file, line);
    int result = block.reduced;
    barrier(file, line); /* nobody starts the next one before all have read */
    return result;
}

static void run_block(const LaunchConfig &config, dim3 id, uint32_t number) {
    dim3 dim = config.block;
    int n = (int)(dim.x * dim.y * dim.z);
    block.count = block.alive = n;
    block.arrived = 0;
    block.epoch = 0;
    block.ready_warps = 0;
    block.next_warp = 0;
    block.number = number;
    block.serial = ++next_serial;
    block.dynamic_bytes = config.shared;
    block.shuffle = options.seed != 0;
    block.random =
        (options.seed * 0x9E3779B97F4A7C15ull) ^ (((uint64_t)grids_run << 32 | number) * 0xD1B54A32D192ED03ull);
    if (block.random == 0)
        block.random = 1;
    for (int i = 0; i < 4; i++)
        block_random();
    shared_begin();
    bool late = options.async == 1 || (options.async == 2 && (block_random() & 1) != 0);
    for (int i = 0; i < n; i++) {
        Fiber &f = block.fibers[(size_t)i];
        unsigned u = (unsigned)i;
        f.thread = uint3{u % dim.x, u / dim.x % dim.y, u / (dim.x * dim.y)};
        f.block = uint3{id.x, id.y, id.z};
        f.block_dim = dim;
        f.grid_dim = config.grid;
        f.linear = u;
        f.lane = u & 31;
        f.stack = nullptr;
        f.state = State::fresh;
        f.copies.clear();
        f.group = 0;
        f.late = late;
        memset(f.clock, 0, sizeof f.clock);
        f.clock[f.lane] = 1;
    }
    for (int w = 0; w * 32 < n; w++) {
        WarpState &warp = block.warp[w];
        int lanes = std::min(32, n - w * 32);
        warp.ready = warp.alive = lanes == 32 ? ~0u : (1u << lanes) - 1;
        for (Collective &c : warp.at)
            c.arrived = 0;
        block.ready_warps |= 1u << w;
    }
    Fiber *first = pick();
    first->stack = stack_take();
    stack_prepare(first->stack, fiber_main);
    first->state = State::ready;
    run_as(first);
    stack_enter(first->stack);
    retire(nullptr);
    if (block.aborted)
        for (int i = 0; i < n; i++)
            if (block.fibers[(size_t)i].stack != nullptr)
                stack_release(block.fibers[(size_t)i].stack);
}

cudaError_t run_grid(const LaunchConfig &config, Entry entry, void *arguments) {
    if (block.fibers.empty())
        block.fibers.resize(max_threads);
    uint64_t blocks = (uint64_t)config.grid.x * config.grid.y * config.grid.z;
    grids_run++;
    threads_run += blocks * config.block.x * config.block.y * config.block.z;
    block.config = &config;
    block.entry = entry;
    block.arguments = arguments;
    block.aborted = false;
    block.grid_first = next_serial + 1;
    uint64_t step = 1, offset = 0;
    if (options.seed != 0) { /* a walk that visits every block once */
        step = (options.seed * 2654435761ull | 1) % blocks;
        while (step == 0 || std::gcd(step, blocks) != 1)
            step++;
        offset = options.seed * 40503ull % blocks;
    }
    for (uint64_t i = 0; i < blocks && !block.aborted; i++) {
        uint64_t b = (i * step + offset) % blocks;
        dim3 g = config.grid;
        run_block(config, dim3((unsigned)(b % g.x), (unsigned)(b / g.x % g.y), (unsigned)(b / ((uint64_t)g.x * g.y))),
                  (uint32_t)b);
    }
    return block.aborted ? sticky_error : cudaSuccess;
}

} // namespace cudasim
