/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file base.h
 * @brief Statuses, errors, data types: what every other header builds on.
 */
#ifndef EMO_BASE_H
#define EMO_BASE_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#if defined(EMO_BUILD)
#define EMO_API __declspec(dllexport)
#else
#define EMO_API
#endif
#elif defined(__GNUC__)
#define EMO_API __attribute__((visibility("default")))
#else
#define EMO_API
#endif

#if defined(__GNUC__)
#define EMO_MUST_CHECK __attribute__((warn_unused_result))
#define EMO_PRINTF(fmt_index, args_index) __attribute__((format(printf, fmt_index, args_index)))
#else
#define EMO_MUST_CHECK
#define EMO_PRINTF(fmt_index, args_index)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** The result of every call that can fail: 0 is success, a negative value an error; nothing else occurs. */
typedef int32_t emo_status;

/** One row per status: X(constant, value, one-line text). Codes are never renumbered. */
#define EMO_STATUS_TABLE(X)                                                                                            \
    X(EMO_OK, 0, "success")                                                                                            \
    X(EMO_E_INVALID_ARGUMENT, -1, "an argument is invalid")                                                            \
    X(EMO_E_OUT_OF_MEMORY, -2, "out of memory")                                                                        \
    X(EMO_E_IO, -3, "reading or writing failed")                                                                       \
    X(EMO_E_NOT_FOUND, -4, "not found")                                                                                \
    X(EMO_E_FORMAT, -5, "malformed data")                                                                              \
    X(EMO_E_UNSUPPORTED, -6, "not supported")                                                                          \
    X(EMO_E_BUSY, -7, "the object is in use by another thread")                                                        \
    X(EMO_E_CANCELLED, -8, "cancelled by the caller")                                                                  \
    X(EMO_E_MISMATCH, -9, "the objects do not fit together")                                                           \
    X(EMO_E_RANGE, -10, "an option is out of range")                                                                   \
    X(EMO_E_EXISTS, -11, "it exists already")                                                                          \
    X(EMO_E_LIMIT, -12, "a limit was exceeded")                                                                        \
    X(EMO_E_BACKEND, -13, "the back end failed")                                                                       \
    X(EMO_E_NUMERIC, -14, "a number is not finite")                                                                    \
    X(EMO_E_COMM, -15, "communication between ranks failed")                                                           \
    X(EMO_E_INTERNAL, -16, "internal error, please report it")

enum {
#define EMO_STATUS_CONSTANT(name, value, text) name = value,
    EMO_STATUS_TABLE(EMO_STATUS_CONSTANT)
#undef EMO_STATUS_CONSTANT
};

/** Where an error came from; informative. */
typedef int32_t emo_error_domain;
enum {
    EMO_DOMAIN_NONE = 0,
    EMO_DOMAIN_ARGUMENT = 1, /**< the call itself */
    EMO_DOMAIN_SYSTEM = 2,   /**< the operating system; `number` is errno */
    EMO_DOMAIN_FILE = 3,     /**< the contents of a file; `number` is a byte offset or a line, see the message */
    EMO_DOMAIN_BACKEND = 4   /**< a back end; `number` is its own code */
};

/**
 * Error detail, allocated by the caller and nullable everywhere. Every call that takes one clears it at entry.
 * The layout is frozen.
 */
typedef struct emo_error {
    emo_status code;         /**< as the call returned */
    emo_error_domain domain; /**< where it came from */
    int64_t number;          /**< errno, offset, line or index: see domain */
    char message[496];       /**< UTF-8, NUL-terminated: what was wrong, where, and what would be right */
} emo_error;

/** An empty error. */
#define EMO_ERROR_INIT                                                                                                 \
    {                                                                                                                  \
        0, 0, 0, { 0 }                                                                                                 \
    }

/** Evaluates a call; on an error jumps to the label `done` of the enclosing function. */
#define EMO_TRY(call)                                                                                                  \
    do {                                                                                                               \
        if ((call) != EMO_OK)                                                                                          \
            goto done;                                                                                                 \
    } while (0)

/** The name of a status, such as "EMO_E_IO"; "EMO_E_UNKNOWN" for a value not in the table. Static storage; any thread.
 */
EMO_API const char *emo_status_name(emo_status status);

/** One line of text for a status. Static storage; any thread. */
EMO_API const char *emo_status_text(emo_status status);

/** Element types. Gaps are for growth. */
typedef int32_t emo_dtype;
enum {
    EMO_DTYPE_F32 = 0,
    EMO_DTYPE_F16 = 1,
    EMO_DTYPE_BF16 = 2,
    EMO_DTYPE_U8 = 16,
    EMO_DTYPE_I32 = 17,
    EMO_DTYPE_I64 = 18,
    EMO_DTYPE_F64 = 19,
    EMO_DTYPE_Q8_0 = 32, /**< weights only: blocks of 32, 8 bits and one f16 scale */
    EMO_DTYPE_Q4_0 = 33, /**< weights only: blocks of 32, 4 bits and one f16 scale */
    EMO_DTYPE_Q4_K = 34  /**< weights only: blocks of 256, 4 bits, 6-bit scales and offsets for every 32 */
};

/** The name of a data type in lower case, such as "bf16"; NULL if unknown. Static storage; any thread. */
EMO_API const char *emo_dtype_name(emo_dtype dtype);

/**
 * The size in bytes of a public struct in the linked library, by its name, such as "emo_error": bindings compare it
 * with the layout they were written for. 0 for a name that is none, and for NULL. A struct that begins with struct_size
 * may be larger than in older headers; the others never change. Never fails; any thread.
 */
EMO_API size_t emo_struct_size(const char *name);

/**
 * Fills a public struct that begins with struct_size with its defaults, by its name, such as "emo_train_options": for
 * languages without the INIT macros. Exactly `size` bytes are written, however large the struct is in the library, and
 * struct_size becomes `size`; bytes beyond the library's struct become 0.
 * @param size of the struct as the caller has it, 4 to 65536.
 * @return the size of the struct in the library; 0 if nothing was written: no such struct, such a size, or NULL. Any
 *         thread.
 */
EMO_API size_t emo_struct_init(const char *name, void *object, size_t size);

/** What emo_x_options_init() and its like are in C and C++: the struct has the size of these headers. The functions
 *  behind them, which programs of before look up, fill in the struct as the first release that had it knew it. */
#ifdef __cplusplus
#define EMO_STRUCT_INIT(type, object)                                                                                  \
    ((void)emo_struct_init(#type, true ? (object) : static_cast<type *>(nullptr), sizeof(type)))
#else
#define EMO_STRUCT_INIT(type, object) ((void)emo_struct_init(#type, 1 ? (object) : (type *)0, sizeof(type)))
#endif

#ifdef __cplusplus
}
#endif
#endif
