/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the simulator's own files share. One kernel runs at a time, under one lock, in the thread that waits for it:
 * blocks one after another, the threads of a block as fibers.
 */
#ifndef CUDASIM_INTERNAL_H
#define CUDASIM_INTERNAL_H

#define CUDASIM_NO_MIN_MAX
#include "cudasim/control.h"
#include "cudasim/device.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#undef warpSize

#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define CUDASIM_ASAN 1
#endif
#if !defined(__x86_64__) && !defined(CUDASIM_UCONTEXT)
#define CUDASIM_UCONTEXT 1
#endif
#ifdef CUDASIM_UCONTEXT
#include <ucontext.h>
#endif

namespace cudasim {

/* ---- options.cpp: set from CUDASIM_* variables at first use, or by control.h ---- */
enum class Blas { there, missing, refusing }; /* cuBLASLt: refusing has no way for any product */
struct Options {
    uint32_t seed; /* 0: threads, warps and blocks in order; else a random order */
    int streams;   /* 0: work runs when it is enqueued; 1: when something waits for it; 2: any order it may have */
    int async;     /* cp.async lands 0: at once; 1: at the wait; 2: either */
    size_t memory; /* bytes of device memory */
    size_t shared_opt_in; /* most shared memory of a block */
    int fail_alloc;       /* n > 0: the n-th allocation from now on fails, and those after it */
    int fail_graph;       /* the same for graphs that are instantiated */
    int multiprocessors;
    int major, minor;
    Blas blas;
};
extern Options options;
extern int heuristics; /* questions that cuBLASLt's heuristic was asked */
extern std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;
#define CUDASIM_LOCK cudasim::Guard guard_(cudasim::lock)

/* ---- report.cpp ---- */
void finding(const char *format, ...) __attribute__((format(printf, 1, 2)));
void watch_end();                   /* at the program's end: check red zones, exit with 97 when there were findings */
std::string code_line(uint64_t pc); /* pc relative to this module */
uint64_t relative(const void *pc);
extern cudaError_t last_error;   /* cleared by cudaGetLastError */
extern cudaError_t sticky_error; /* a kernel died: every later call says so */
cudaError_t fail(cudaError_t error);

/* ---- fiber.cpp ---- */
#ifdef CUDASIM_UCONTEXT
using Context = ucontext_t;
#else
using Context = void *;
#endif
struct Stack {
    char *base;
    Context context;
    void *fake; /* AddressSanitizer's */
};
constexpr int max_threads = 1024;
Stack *stack_take();
void stack_release(Stack *s);
void stack_prepare(Stack *s, void (*entry)());
void stack_enter(Stack *s);                /* from the host; returns when stack_leave is called */
void stack_switch(Stack *from, Stack *to); /* from == NULL: never to be resumed */
[[noreturn]] void stack_leave(void);       /* back to stack_enter's caller */
void stack_started(void);                  /* first thing on a new stack */
extern char *stack_region;
#ifdef CUDASIM_ASAN
constexpr size_t stack_bytes = 256 << 10; /* instrumented frames are larger */
#else
constexpr size_t stack_bytes = 64 << 10;
#endif
constexpr size_t stack_slot = stack_bytes + 4096; /* a guard page below each stack */
/* Inside the stacks of fibers? */
inline bool on_stacks(const void *p) {
    return (size_t)((const char *)p - stack_region) < stack_slot * (max_threads + 1);
}

/* ---- block.cpp ---- */
enum class State : uint8_t { fresh, ready, at_barrier, in_warp, done };
struct PendingCopy {
    char *dst;
    const char *src;
    int bytes, valid, group;
    const void *pc;
};
struct Fiber : Lane {
    Stack *stack;
    State state;
    const char *file;
    int line;
    unsigned mask; /* of the warp operation it waits in */
    void *argument;
    std::vector<PendingCopy> copies;
    int group;
    bool late;          /* cp.async lands at the wait */
    uint32_t clock[32]; /* what this thread knows of its warp's lanes (happens-before) */
};
using CollectiveFn = void (*)(unsigned mask, void **arguments);
struct Collective {
    unsigned mask, arrived;
    CollectiveFn fn;
    const char *file;
    int line;
};
struct WarpState {
    unsigned ready, alive;
    Collective at[32]; /* meetings under way: arrived is not 0 */
};
struct SharedArray {
    const void *key;
    char *data;
    size_t bytes;
    const char *name;
};
constexpr size_t shared_static_limit = 48 << 10;
constexpr size_t shared_dynamic_offset = 64 << 10;
constexpr size_t shared_bytes = shared_dynamic_offset + (228 << 10);
struct Block {
    std::vector<Fiber> fibers;
    WarpState warp[32];
    uint32_t ready_warps;
    int count, alive, arrived, reduced;
    uint32_t epoch; /* barriers passed */
    unsigned next_warp;
    const char *barrier_file;
    int barrier_line;
    std::vector<SharedArray> arrays;
    size_t static_used, dynamic_bytes;
    char *shared;
    uint32_t number, serial; /* in the grid; among all blocks that ever ran */
    uint32_t grid_first;     /* serial of the grid's first block */
    const LaunchConfig *config;
    Entry entry;
    void *arguments;
    uint64_t random;
    bool shuffle;
    bool aborted;
    Fiber *now;
    Stack *retired; /* left by a fiber that ended; free once another runs */
};
extern Block block;
inline bool in_kernel() { return current != nullptr; }
void block_wait();                                /* the running fiber is blocked: run another */
void block_mark(Fiber *f);                        /* may run again */
void block_maybe_yield();                         /* in random order: let others go first, sometimes */
[[noreturn]] void block_abort(cudaError_t error); /* the kernel dies; its other blocks do not run */
uint32_t block_random();
cudaError_t run_grid(const LaunchConfig &config, Entry entry, void *arguments);
void copies_land(Fiber *f, size_t count);
extern uint64_t threads_run;

/* ---- warp.cpp ---- */
void collective(unsigned mask, CollectiveFn fn, void *argument, bool orders, const char *file, int line);

/* ---- memory.cpp ---- */
bool is_device(const void *p);
bool is_pinned(const void *p, size_t bytes);
bool is_argument(const void *p);
void arguments_free(void *p);
bool inside_allocation(const void *p, size_t bytes, bool report, const char *what);
void shared_begin(); /* a new block: arrays gone, all NaN */
size_t memory_live();
char *arena_base();
size_t arena_size();
std::string describe_device(const void *p); /* "4 bytes past the end of 64 allocated ones" */
bool fails_now(int &countdown);             /* an option's: counts the call; 1 stays, so that later ones fail too */
bool allocation_fails();                    /* counts towards Options::fail_alloc */
void memory_check_red_zones();

/* ---- check.cpp: nothing in the plain build ---- */
enum class Access : uint8_t { read, write, atomic };
void check_access(const void *p, size_t bytes, Access kind, const void *pc);
void check_written(const void *p, size_t bytes);             /* by the host or a library: now initialised */
void check_copied(void *dst, const void *src, size_t bytes); /* initialised where src is */
/* in_stream: as an operation of a stream, which others may race with. */
void check_allocated(const void *p, size_t bytes, bool live, bool in_stream);
void check_async(void *dst, const void *src, int bytes, int valid, const void *pc);
void check_async_landed(void *dst, int bytes, const void *pc);
void check_initialised(const void *p, size_t bytes, const char *what); /* a library or the host reads it */
void check_forget_reports();

/* ---- stream.cpp ---- */
/* What has happened before: for every stream (and branch of a graph) the number of its last operation. */
using Clock = std::vector<uint32_t>;
struct Node {
    std::function<cudaError_t()> run;
    std::vector<std::shared_ptr<Node>> before;
    Clock clock;         /* with this operation in it */
    uint32_t stream = 0; /* whose number clock[stream] is */
    const char *name = "";
    bool done = false;
};
using NodePtr = std::shared_ptr<Node>;
void run_node(const NodePtr &target);
cudaError_t wait_stream(CUstream_st *s);
CUstream_st *stream_of(cudaStream_t s);
const std::set<CUstream_st *> &all_streams();

/* ---- clock.cpp ---- */
void clock_join(Clock &into, const Clock &from);
void clock_stamp(Node &node, uint32_t stream); /* the stream's next operation */
uint32_t clock_new_stream();                   /* a number for a stream or a branch of a graph */
const Clock &clock_host();
const Clock &clock_issued();
void clock_host_waited(const Clock &clock); /* the host knows that all of it is done */
/* The operation that runs: touches of memory are its. Numbers up to actor_base happened before everything. */
struct Actor {
    uint32_t stream, number;
    const char *name;
};
extern uint32_t actor, actor_base;
void actor_begin(const Node &node);
bool actor_before(uint32_t earlier); /* did that operation happen before the one that runs? */
const Actor &actor_of(uint32_t id);  /* id > actor_base */

/* ---- stream.cpp, graph.cpp ---- */
cudaError_t enqueue(cudaStream_t stream, const char *name, std::function<cudaError_t()> run, NodePtr *out = nullptr);
cudaError_t drain(const NodePtr &target); /* NULL: everything */
bool is_capturing(cudaStream_t stream);
cudaError_t stream_valid(cudaStream_t stream);
/* A call that capturing forbids, of the calling thread or of any: makes the capture invalid. */
cudaError_t capture_forbids(const char *call);

/* What a program asked of the device: control.h. */
extern cudasim_counts counts;

/* Streams that record a graph together. */
struct Capture {
    std::vector<NodePtr> nodes;
    enum cudaStreamCaptureMode mode;
    std::thread::id thread;
    bool invalid = false;
};

} // namespace cudasim

struct CUstream_st {
    uint32_t number = 0; /* in clocks */
    cudasim::NodePtr last;
    std::vector<cudasim::NodePtr> extra; /* events waited for */
    cudasim::Capture *capture = nullptr;
    bool origin = false; /* capture began here */
    bool blocking = true;
    bool launched = false; /* it has run kernels */
};
struct CUevent_st {
    cudasim::NodePtr node;
    cudasim::Capture *capture = nullptr;
    int asked = 0;
};

#endif
