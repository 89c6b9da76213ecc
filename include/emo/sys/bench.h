/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file sys/bench.h
 * @brief Timing one operator of a device, or what bounds it: bytes a second, operations a second. Stable per minor
 * version.
 *
 * A bench makes its own operands of a shape, at random, and runs one operator of the table (sys/backend.h) on them.
 * Whoever compares runs several by turns: the operator, reading memory, multiplying in registers and the first-level
 * cache. `emo bench` does so.
 */
#ifndef EMO_SYS_BENCH_H
#define EMO_SYS_BENCH_H

#include <emo/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/** One thing to be timed, with its operands. */
typedef struct emo_bench emo_bench;

typedef int32_t emo_bench_kind;
enum {
    /* limits of the CPU; they have no shape */
    EMO_BENCH_READ = 1,      /**< every worker reads memory, in order: at each call another eighth of `bytes` */
    EMO_BENCH_PEAK = 2,      /**< the innermost loop of products, f32 or bf16 as `compute` says, on operands in cache */
    EMO_BENCH_PEAK_INT8 = 3, /**< the same for whole numbers of 8 bits; EMO_E_UNSUPPORTED where a level sums none */
    /* operators */
    EMO_BENCH_EMBED = 16,
    EMO_BENCH_NORM = 17,
    EMO_BENCH_LINEAR = 18, /**< [tokens, hidden] times [inner, hidden] */
    EMO_BENCH_ROPE = 19,
    EMO_BENCH_ATTENTION = 20,
    EMO_BENCH_ROUTE = 21, /**< router, pools of a quarter of the experts (from 64 tokens on), top-k */
    EMO_BENCH_PLAN = 22,
    EMO_BENCH_EXPERTS = 23, /**< tokens evenly over the routed experts, and all of them through the shared one */
    EMO_BENCH_SWIGLU = 24,
    EMO_BENCH_HEAD_LOSS = 25, /**< logits and loss; backward: with their gradient */
    EMO_BENCH_HEAD_LOGITS = 26,
    EMO_BENCH_ADAMW = 27, /**< of a matrix [tokens, hidden] */
    EMO_BENCH_SUMSQ = 28  /**< the same */
};

/** What is timed, and the shape of it. */
typedef struct emo_bench_options {
    uint32_t struct_size;
    emo_bench_kind kind;
    const char *device; /**< NULL: "cpu" */
    emo_dtype weights;  /**< F32; F16, BF16, or forward Q8_0, Q4_0, Q4_K */
    emo_dtype compute;  /**< F32 or BF16 */
    int32_t backward;   /**< 1: the backward pass */
    int32_t experts;    /**< all of them, of which the last is shared; 33 */
    int32_t top_k;      /**< experts a token, the shared one included; 4 */
    int32_t heads;      /**< 8; divides hidden into an even number */
    int64_t tokens;     /**< 512 */
    int64_t hidden;     /**< 256 */
    int64_t inner;      /**< of an expert and of SWIGLU; the outputs of LINEAR; 128 */
    int64_t vocab;      /**< 8192 */
    int64_t document;   /**< tokens of a document, the last one may be shorter; 0: all tokens are one */
    int64_t past;       /**< of ATTENTION, one document, forward: keys before those of the tokens; 0 */
    uint64_t bytes;     /**< of READ, a multiple of 4 MiB; 512 MiB */
} emo_bench_options;
#define EMO_BENCH_OPTIONS_INIT                                                                                         \
    { sizeof(emo_bench_options), EMO_BENCH_READ, 0, 0, 0, 0, 33, 4, 8, 512, 256, 128, 8192, 0, 0, UINT64_C(512) << 20 }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_bench_options_init(emo_bench_options *options);
#define emo_bench_options_init(object) EMO_STRUCT_INIT(emo_bench_options, object)

/**
 * Makes the operands and runs once. The caller owns *out, which keeps the runtime alive.
 * @return EMO_E_RANGE (an option, by name), EMO_E_UNSUPPORTED (the device has no such operator for such weights, or the
 *         processor no such instructions), EMO_E_NOT_FOUND (no such device), EMO_E_OUT_OF_MEMORY, EMO_E_BACKEND.
 */
EMO_API EMO_MUST_CHECK emo_status emo_bench_create(emo_runtime *runtime, const emo_bench_options *options,
                                                   emo_bench **out, emo_error *err);
/** Releases it; NULL is a no-op. */
EMO_API void emo_bench_release(emo_bench *bench);

/** Operations (a multiplication and an addition are two) and bytes of one call: the least that moves when nothing is
 *  read or written twice. Either may be NULL; 0 for a NULL bench. */
EMO_API void emo_bench_work(const emo_bench *bench, double *operations, double *bytes);

/** Runs `calls` times, 1 or more, and gives the mean seconds of a call. Where there are few tokens, calls use several
 *  sets of weights by turns, so that no cache holds them. EMO_E_BUSY, EMO_E_RANGE, or what the operator says. */
EMO_API EMO_MUST_CHECK emo_status emo_bench_run(emo_bench *bench, int32_t calls, double *seconds, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
