/* SPDX-License-Identifier: Apache-2.0 */
/* Warp-wide operations: all lanes of the mask meet, the last one computes for all. Only __syncwarp orders memory. */
#include "cudasim/internal.h"

#include <algorithm>

namespace cudasim {

/* What the lanes of the mask know of each other becomes common knowledge, and a new time begins for each. */
static void order_lanes(Fiber *warp, unsigned mask) {
    uint32_t known[32] = {};
    for (unsigned m = mask; m != 0; m &= m - 1) {
        const Fiber &f = warp[__builtin_ctz(m)];
        for (int i = 0; i < 32; i++)
            known[i] = std::max(known[i], f.clock[i]);
    }
    uint32_t next = 0;
    for (unsigned m = mask; m != 0; m &= m - 1)
        next = std::max(next, known[__builtin_ctz(m)] + 1);
    for (unsigned m = mask; m != 0; m &= m - 1) {
        Fiber &f = warp[__builtin_ctz(m)];
        memcpy(f.clock, known, sizeof known);
        f.clock[f.lane] = next;
    }
}

void collective(unsigned mask, CollectiveFn fn, void *argument, bool orders, const char *file, int line) {
    Fiber *me = block.now;
    unsigned w = me->linear >> 5;
    WarpState &warp = block.warp[w];
    Fiber *lanes = &block.fibers[w * 32];
    /* A short last warp may be named whole: lanes that never were are ignored. */
    int there = block.count - (int)w * 32;
    unsigned named = there >= 32 ? mask : mask & ((1u << there) - 1);
    /* The meeting of this mask that is under way, or a new one. Others may be too: halves of a warp, and its whole. */
    Collective *meeting = nullptr;
    for (Collective &at : warp.at) {
        if (at.arrived != 0 && at.mask == named) {
            meeting = &at;
            break;
        }
        if (at.arrived == 0 && meeting == nullptr)
            meeting = &at;
    }
    Collective &c = *meeting; /* 32 lanes: at most 31 others wait */
    const char *wrong = (named >> me->lane & 1) == 0 ? "the caller is not in it"
                        : (named & ~warp.alive) != 0 ? "it names lanes that have exited"
                        : c.arrived != 0 && (c.fn != fn || (fn != nullptr && c.line != line)) ? "lanes disagree"
                                                                                              : nullptr;
    if (wrong != nullptr) {
        finding("bad warp mask %08x in %s, block %u, thread %u at %s:%d: %s (alive %08x)%s%s", mask, block.config->name,
                block.number, me->linear, file, line, wrong, warp.alive, c.arrived != 0 ? "; others wait at line " : "",
                c.arrived != 0 ? std::to_string(c.line).c_str() : "");
        block_abort(cudaErrorLaunchFailure);
    }
    c.mask = named;
    c.fn = fn;
    c.file = file;
    c.line = line;
    c.arrived |= 1u << me->lane;
    me->argument = argument;
    if (c.arrived != named) {
        me->state = State::in_warp;
        me->mask = named;
        me->file = file;
        me->line = line;
        block_wait();
        return;
    }
    if (fn != nullptr) {
        void *arguments[32];
        for (unsigned m = named; m != 0; m &= m - 1)
            arguments[__builtin_ctz(m)] = lanes[__builtin_ctz(m)].argument;
        fn(named, arguments);
    }
    c.arrived = 0;
    if (orders)
        order_lanes(lanes, named);
    unsigned others = named & ~(1u << me->lane);
    for (unsigned m = others; m != 0; m &= m - 1)
        lanes[__builtin_ctz(m)].state = State::ready;
    if (others != 0) {
        warp.ready |= others;
        block.ready_warps |= 1u << w;
    }
    block_maybe_yield();
}

void warp_sync(unsigned mask, const char *file, int line) { collective(mask, nullptr, nullptr, true, file, line); }

unsigned active_mask() { return 1u << block.now->lane; /* any set of lanes that has the caller is a right answer */ }

/* ---- shuffles ---- */

struct ShuffleArgs {
    uint64_t value, result;
    int x, width;
    Shuffle mode;
};

/* As the PTX ISA's shfl.sync: a lane whose source lies outside its segment keeps its own value. */
static void shuffle_all(unsigned mask, void **arguments) {
    for (unsigned m = mask; m != 0; m &= m - 1) {
        int i = __builtin_ctz(m);
        auto *a = (ShuffleArgs *)arguments[i];
        int base = i & ~(a->width - 1), end = base + a->width, from = i;
        switch (a->mode) {
        case Shuffle::index:
            from = base + (a->x & (a->width - 1));
            break;
        case Shuffle::up:
            from = i - a->x < base ? i : i - a->x;
            break;
        case Shuffle::down:
            from = i + a->x >= end ? i : i + a->x;
            break;
        case Shuffle::exclusive:
            from = (i ^ a->x) >= end ? i : i ^ a->x;
            break;
        }
        bool there = from >= 0 && from < 32 && (mask >> from & 1) != 0;
        a->result = there ? ((ShuffleArgs *)arguments[from])->value : 0xfff7dead7fa7deadull; /* undefined: NaN, odd */
    }
}

uint64_t shuffle(unsigned mask, uint64_t value, int x, int width, Shuffle mode, const char *file, int line) {
    ShuffleArgs a{value, 0, x, width, mode};
    collective(mask, shuffle_all, &a, false, file, line);
    return a.result;
}

/* ---- votes, matches, reductions ---- */

struct VoteArgs {
    uint32_t value, result;
    Vote op;
};

static uint32_t combine(Vote op, uint32_t r, uint32_t v, bool first) {
    switch (op) {
    case Vote::any:
        return r | v;
    case Vote::add:
        return r + v;
    case Vote::max_u:
        return first ? v : std::max(r, v);
    case Vote::min_u:
        return first ? v : std::min(r, v);
    case Vote::max_s:
        return first ? v : (uint32_t)std::max((int32_t)r, (int32_t)v);
    case Vote::min_s:
        return first ? v : (uint32_t)std::min((int32_t)r, (int32_t)v);
    case Vote::all:
    case Vote::bit_and:
        return first ? v : r & v;
    case Vote::bit_or:
        return r | v;
    case Vote::bit_xor:
        return r ^ v;
    default:
        return 0;
    }
}

static void vote_all(unsigned mask, void **arguments) {
    Vote op = ((VoteArgs *)arguments[__builtin_ctz(mask)])->op;
    uint32_t result = 0;
    bool first = true;
    for (unsigned m = mask; m != 0; m &= m - 1, first = false) {
        int i = __builtin_ctz(m);
        auto *a = (VoteArgs *)arguments[i];
        if (op == Vote::ballot) {
            result |= (a->value != 0 ? 1u : 0u) << i;
        } else if (op == Vote::match) {
            a->result = 0;
            for (unsigned n = mask; n != 0; n &= n - 1)
                if (((VoteArgs *)arguments[__builtin_ctz(n)])->value == a->value)
                    a->result |= 1u << __builtin_ctz(n);
        } else {
            result = combine(op, result, a->value, first);
        }
    }
    if (op != Vote::match)
        for (unsigned m = mask; m != 0; m &= m - 1)
            ((VoteArgs *)arguments[__builtin_ctz(m)])->result = result;
}

uint32_t vote(unsigned mask, uint32_t value, Vote op, const char *file, int line) {
    VoteArgs a{value, 0, op};
    collective(mask, vote_all, &a, false, file, line);
    return a.result;
}

/* ---- the butterflies of emo_gpu.h as one meeting: the same additions in the same order ---- */

template <class T, class Op>
static void butterfly(void **arguments, Op op) {
    T v[32], next[32];
    for (int i = 0; i < 32; i++)
        v[i] = *(T *)arguments[i];
    for (int o = 16; o > 0; o >>= 1) {
        for (int i = 0; i < 32; i++)
            next[i] = op(v[i], v[i ^ o]);
        memcpy(v, next, sizeof v);
    }
    for (int i = 0; i < 32; i++)
        *(T *)arguments[i] = v[i];
}
static void sum_f32(unsigned, void **a) {
    butterfly<float>(a, [](float x, float y) { return x + y; });
}
static void sum_f64(unsigned, void **a) {
    butterfly<double>(a, [](double x, double y) { return x + y; });
}
static void max_f32(unsigned, void **a) {
    butterfly<float>(a, [](float x, float y) { return y > x || y != y ? y : x; });
}

static void whole_warp(CollectiveFn fn, void *argument, const char *file, int line) {
    if (block.count - (int)(block.now->linear & ~31u) < 32) {
        finding("a collective of the whole warp in a short warp of %s at %s:%d", block.config->name, file, line);
        block_abort(cudaErrorLaunchFailure);
    }
    collective(~0u, fn, argument, false, file, line);
}

float warp_sum(float v, const char *file, int line) {
    whole_warp(sum_f32, &v, file, line);
    return v;
}
double warp_sum(double v, const char *file, int line) {
    whole_warp(sum_f64, &v, file, line);
    return v;
}
float warp_max(float v, const char *file, int line) {
    whole_warp(max_f32, &v, file, line);
    return v;
}

} // namespace cudasim
