/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file runtime.h
 * @brief The runtime: memory, log, threads and back ends that all other objects share.
 *
 * A child of fork() may go on using and releasing what it inherited: its one thread then does the work of the pool,
 * with the same results. Objects that another thread was using at the moment of the fork give EMO_E_BUSY there; the
 * folder of a run stays locked until parent and child are done with it; objects on devices belong to the parent.
 */
#ifndef EMO_RUNTIME_H
#define EMO_RUNTIME_H

#include <emo/hooks.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct emo_runtime emo_runtime;

/** Instruction-set levels of the CPU back end. A level never exceeds what the machine has. */
typedef int32_t emo_isa;
enum {
    EMO_ISA_AUTO = 0,
    EMO_ISA_SCALAR = 1,
    EMO_ISA_NEON = 16,
    EMO_ISA_NEON_DOT = 20,  /**< with dot products of 8 bits */
    EMO_ISA_NEON_BF16 = 24, /**< with those and bf16 */
    EMO_ISA_AVX2 = 32,
    EMO_ISA_AVX512 = 48,
    EMO_ISA_AVX512_VNNI = 52, /**< with whole numbers of 8 bits */
    EMO_ISA_AVX512_BF16 = 56, /**< with that and bf16; chosen by itself where it is faster than AVX-512 without */
    EMO_ISA_AMX = 64          /**< AMX tiles, where the system lets the process have them */
};

/** Options of emo_runtime_create(). Zeroed hooks mean the library's own. */
typedef struct emo_runtime_options {
    uint32_t struct_size;
    int32_t threads;         /**< workers of the library's pool, 1..1024; 0: the CPUs this process may use */
    emo_isa isa;             /**< highest level to use; EMO_ISA_AUTO: the best the machine has */
    int32_t reserved;        /**< 0 */
    emo_allocator allocator; /**< alloc NULL: malloc */
    emo_log_sink log;        /**< log NULL: silent */
    emo_executor executor;   /**< parallel_for NULL: the library's own pool, which parks and never spins for long */
    const char *libraries; /**< folder of the libraries that plug-ins open themselves (cuBLASLt), and only there; NULL:
                              beside the plug-in, then where the dynamic linker looks */
} emo_runtime_options;

#define EMO_RUNTIME_OPTIONS_INIT                                                                                       \
    { sizeof(emo_runtime_options), 0, EMO_ISA_AUTO, 0, {0, 0, 0}, {0, 0, EMO_LOG_WARNING, 0}, {0, 0, 0}, 0 }

/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_runtime_options_init(emo_runtime_options *options);
#define emo_runtime_options_init(object) EMO_STRUCT_INIT(emo_runtime_options, object)

/**
 * Creates a runtime. The caller owns *out and releases it with emo_runtime_release().
 * @param options NULL for defaults.
 * @return EMO_OK, EMO_E_RANGE (an option, by name), EMO_E_UNSUPPORTED (the machine lacks the asked instruction set),
 *         EMO_E_LIMIT (the system starts no more threads), EMO_E_OUT_OF_MEMORY. Any thread.
 */
EMO_API EMO_MUST_CHECK emo_status emo_runtime_create(const emo_runtime_options *options, emo_runtime **out,
                                                     emo_error *err);

/** Releases the caller's reference; objects made from the runtime keep it alive. NULL is a no-op. Any thread. */
EMO_API void emo_runtime_release(emo_runtime *runtime);

/** The number of workers in use. Any thread. */
EMO_API int32_t emo_runtime_threads(const emo_runtime *runtime);

/** The instruction-set level in use. Any thread. */
EMO_API emo_isa emo_runtime_isa(const emo_runtime *runtime);

/** The name of a level, such as "avx512"; NULL if unknown. Static storage. */
EMO_API const char *emo_isa_name(emo_isa isa);

#ifdef __cplusplus
}
#endif
#endif
