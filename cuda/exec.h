/* SPDX-License-Identifier: Apache-2.0 */
/* What every file of the CUDA back end builds on: the opened device, the exec, their memory and their errors.
 *
 * An operator is a function `emo_cuda_<entry>` declared in ops.h. The table enters it with the exec's device current,
 * an empty scratch arena and a checked exec, and restores the host's device afterwards, so an operator only launches:
 * it may call other emo_cuda_ functions, whose scratch comes on top of its own. Nothing here waits for the device in
 * steady state. */
#ifndef EMO_CUDA_EXEC_H
#define EMO_CUDA_EXEC_H

#include <emo/sys/backend.h>
#include <pthread.h>

#include "emo_gpu.h"

#define EMO_CUDA_ALIGN 256 /* bytes: scratch, staged arrays and device memory start at multiples of it */

typedef struct emo_cuda_libraries emo_cuda_libraries; /* libraries.h */
typedef struct emo_cuda_plans emo_cuda_plans;         /* plans.cu: cached cuBLASLt plans */
typedef struct emo_cuda_block emo_cuda_block;         /* memory.cu: device memory given back, not yet free */
typedef struct emo_cuda_pinned emo_cuda_pinned;       /* pinned.cu: host memory handed out */
typedef struct emo_cuda_device emo_cuda_device;
typedef struct emo_cuda_exec emo_cuda_exec;

/* One opened GPU. */
struct emo_cuda_device {
    emo_backend base;
    emo_backend_ops ops; /* as this back end fills it; the library works on a completed copy */
    emo_backend_services services;
    emo_cuda_libraries *libraries;
    int32_t ordinal;
    int32_t multiprocessors;
    int32_t capability;   /* 10 major + minor: 90 is sm_90 */
    int32_t shared_optin; /* bytes of shared memory a block may ask for */
    uint64_t memory_bytes;
    char name[64];
    pthread_mutex_t lock;    /* everything below */
    emo_cuda_exec *execs;    /* a list through `next` */
    emo_cuda_block *blocks;  /* every piece of device memory handed out, or given back and waiting */
    uint64_t live_bytes;     /* handed out */
    uint64_t kept_bytes;     /* given back and waiting */
    uint64_t pinned_bytes;   /* host memory that is page-locked for transfers */
    emo_cuda_pinned *pinned; /* pieces of it that were handed out */
    int32_t planning;        /* a planner (planner.cu): no device is there, addresses are numbers */
    uint64_t next_address;   /* of a planner */
    int32_t said_refused;    /* the log has it that cuBLASLt refuses products */
    int32_t holds;           /* execs that hold work back */
};

/* Scratch of one exec: one chunk, and more behind it while an operator needs more than it holds. */
typedef struct emo_cuda_arena {
    void *chunks[64]; /* chunk 0 is kept, the others are given back when the next operator begins */
    size_t sizes[64];
    int32_t count;
    size_t used;   /* bytes of the last chunk in use */
    size_t wanted; /* bytes the operator has asked for so far, over all chunks */
    size_t peak;   /* the largest `wanted` since creation */
    size_t taken;  /* the largest since emo_backend_ops.exec_scratch was asked last */
} emo_cuda_arena;

enum { EMO_CUDA_RING_PARTS = 4, EMO_CUDA_DOWNLOADS = 64, EMO_CUDA_MARKS = 8 };

/* Pinned host memory through which host data goes to the device: parts used in turn, each guarded by an event. */
typedef struct emo_cuda_ring {
    char *host;
    size_t part_bytes;
    int32_t part; /* the one in use */
    size_t used;  /* bytes of it */
    cudaEvent_t done[EMO_CUDA_RING_PARTS];
    int32_t pending[EMO_CUDA_RING_PARTS]; /* the event was recorded */
} emo_cuda_ring;

/* Small downloads land in pinned memory, a ring, and reach their destination when they are waited for. */
typedef struct emo_cuda_downloads {
    char *host;
    int32_t first; /* of the list: the oldest that is under way */
    int32_t count;
    struct {
        void *dst;
        size_t offset;
        size_t bytes;
        uint64_t mark; /* the first one made after it */
    } list[EMO_CUDA_DOWNLOADS];
    uint64_t marks; /* made so far; mark m has event m % EMO_CUDA_MARKS */
    cudaEvent_t events[EMO_CUDA_MARKS];
} emo_cuda_downloads;

/* Lists of attention's work in device memory (lists.cu). */
typedef struct emo_cuda_lists emo_cuda_lists;

/* What grids are as large as there was need for so far: emo_cuda_capacity. */
enum { EMO_CUDA_CAPACITY_DOCUMENTS, EMO_CUDA_CAPACITY_SOURCES, EMO_CUDA_CAPACITIES };

/* A stream with what its operators need. */
struct emo_cuda_exec {
    emo_exec base;
    emo_cuda_device *device;
    cudaStream_t stream;
    int32_t owns_stream;
    emo_dtype compute;     /* EMO_DTYPE_F32, or EMO_DTYPE_BF16: operands of matrix products are rounded to bf16 */
    int32_t deterministic; /* cuBLASLt adds parts of sums in a fixed order; our own kernels always do */
    emo_cuda_arena arena;
    emo_cuda_ring ring;
    emo_cuda_downloads downloads;
    emo_cuda_plans *plans;
    emo_cuda_lists *lists;
    emo_tape *tape;    /* NULL until a piece of work was to be replayed (tape.cu) */
    emo_tape *holding; /* the tape while work is held back, else NULL */
    uint64_t piece;    /* the number of the latest piece */
    int64_t capacity[EMO_CUDA_CAPACITIES];
    emo_cuda_exec *next;
};

/* Whether the exec only counts what its operators would take. */
static inline int emo_cuda_planning(const emo_cuda_exec *exec) { return exec->device->planning; }

static inline emo_cuda_exec *emo_cuda_of(emo_exec *exec) { return (emo_cuda_exec *)exec; }
static inline emo_queue emo_cuda_stream(emo_exec *exec) {
    emo_queue queue = {((emo_cuda_exec *)exec)->stream, ((emo_cuda_exec *)exec)->holding};
    return queue;
}

/* Runs a call that returns an emo_status; leaves the enclosing function on a failure. */
#define EMO_CUDA_TRY(call)                                                                                             \
    do {                                                                                                               \
        emo_status try_status_ = (call);                                                                               \
        if (try_status_ != EMO_OK)                                                                                     \
            return try_status_;                                                                                        \
    } while (0)

/* ---- errors (errors.cu) ---- */

/* Fills err (domain: back end) and returns `code`. */
emo_status emo_cuda_fail(emo_error *err, emo_status code, const char *format, ...) EMO_PRINTF(3, 4);
/* The status of a runtime call, which `what` names ("cudaMalloc of 512 bytes"); EMO_OK for cudaSuccess. */
emo_status emo_cuda_check(cudaError_t result, const char *what, emo_error *err);
/* The same for a launch: EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH(...), "norm_forward", err)). */
emo_status emo_cuda_launched(cudaError_t result, const char *kernel, emo_error *err);
/* "the CUDA back end cannot ...": EMO_E_UNSUPPORTED, `what` says what it was asked for and what it can. */
emo_status emo_cuda_unsupported(emo_error *err, const char *what);

/* ---- memory of an exec (arena.cu, stage.cu) ---- */

/* Starts an operator: the scratch of the one before it is free again (its work is ahead in the stream). */
emo_status emo_cuda_begin(emo_exec *exec, emo_error *err);
/* Device memory until the next operator begins, 256-byte aligned, not initialised; bytes 0 gives a valid address. */
emo_status emo_cuda_scratch(emo_exec *exec, size_t bytes, void **out, emo_error *err);
/* Scratch taken after a mark is given back by release: its work is ahead in the stream of whatever takes it next. For
 * work in pieces, each of which needs the same. */
typedef struct emo_cuda_mark {
    int32_t count;
    size_t used, wanted;
} emo_cuda_mark;
emo_cuda_mark emo_cuda_scratch_mark(emo_exec *exec);
void emo_cuda_scratch_release(emo_exec *exec, emo_cuda_mark mark);
/* Zeroes device memory, in the order of the stream. */
emo_status emo_cuda_clear(emo_exec *exec, void *device, size_t bytes, emo_error *err);
/* A host array into device memory, in the order of the stream; `host` may be reused on return. */
emo_status emo_cuda_send(emo_exec *exec, void *device, const void *host, size_t bytes, emo_error *err);
/* A host array as scratch. `host` may be reused on return; bytes 0 gives a valid address. */
emo_status emo_cuda_stage(emo_exec *exec, const void *host, size_t bytes, void **device, emo_error *err);
emo_status emo_cuda_copy(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);

/* Zeroed memory of the host, for services.free: EMO_E_OUT_OF_MEMORY when there is none. */
emo_status emo_cuda_host_zeroed(const emo_cuda_exec *exec, size_t bytes, void **out, emo_error *err);

/* ---- work that is replayed (tape.cu) ---- */

/* Enqueues what issue(entry, stream) enqueues, now or with what is held back; `entry` has no uninitialised byte. */
emo_status emo_cuda_enqueue(emo_exec *exec, emo_issue_fn issue, const char *what, const void *entry, size_t bytes,
                            emo_error *err);
/* Values that change from step to step: NULL in *device while nothing is held back, and kernels take them from their
 * arguments; else a copy in device memory, which kernels are to take instead. */
emo_status emo_cuda_now(emo_exec *exec, const void *host, size_t bytes, void **device, emo_error *err);
/* What a grid has to cover so that it is the same in every step: `count` rounded up, and never less than before. Just
 * `count` while nothing is held back. */
int64_t emo_cuda_capacity(emo_exec *exec, int32_t kind, int64_t count);
/* `count` rounded up so that few different numbers come of it: by an eighth at the most, once there are many. */
static inline int64_t emo_cuda_rounded(int64_t count) {
    int64_t step = 16;
    while (8 * step < count)
        step *= 2;
    return (count + step - 1) / step * step;
}

/* ---- matrix products (gemm.cu) ---- */

/* C = alpha op(A) op(B) + beta C. With a compute type of bf16 both operands are rounded to bf16; sums are f32. */
emo_status emo_cuda_gemm(emo_exec *exec, const emo_gemm_args *args, emo_error *err);
/* The same in IEEE f32 whatever the exec's compute type: router logits, gradients of small matrices. */
emo_status emo_cuda_gemm_f32(emo_exec *exec, const emo_gemm_args *args, emo_error *err);

#endif
