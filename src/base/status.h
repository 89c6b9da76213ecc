/* SPDX-License-Identifier: Apache-2.0 */
/* Filling in emo_error. Every failing path goes through emo__fail so that code and message always agree. */
#ifndef EMO_SRC_BASE_STATUS_H
#define EMO_SRC_BASE_STATUS_H

#include <emo/base.h>

/* Clears *err (nullable). First statement of every public call that takes one. */
void emo__error_clear(emo_error *err);

/* Sets code, domain EMO_DOMAIN_ARGUMENT and the message; returns code. Long messages are cut at a UTF-8 border. */
emo_status emo__fail(emo_error *err, emo_status code, const char *fmt, ...) EMO_PRINTF(3, 4);

/* The same with a domain and a number (errno, byte offset, line). */
emo_status emo__fail_at(emo_error *err, emo_status code, emo_error_domain domain, int64_t number, const char *fmt, ...)
    EMO_PRINTF(5, 6);

/* "out of memory" with the number of bytes that were asked for. */
emo_status emo__fail_memory(emo_error *err, size_t bytes);

/* Puts "<prefix>: " before the message that is there already; returns err's code (or `code` when err is NULL). */
emo_status emo__fail_prefix(emo_error *err, emo_status code, const char *fmt, ...) EMO_PRINTF(3, 4);

/* The static analyser sees one file at a time; this tells it that a failure is never EMO_OK. (The line stands for the
 * message: two failures with one code are not the same branch.) */
#if defined(__clang_analyzer__) && !defined(EMO__IN_STATUS_C)
static inline emo_status emo__analysed_failure(const emo_error *err, emo_status code, int line) {
    return code < 0 ? code : EMO_E_INTERNAL;
}
void emo__analysed_use(const char *fmt, ...); /* what a message shows is not a dead store */
#define emo__fail(err, code, ...) (emo__analysed_use(__VA_ARGS__), emo__analysed_failure(err, code, __LINE__))
#define emo__fail_at(err, code, domain, number, ...)                                                                   \
    (emo__analysed_use(__VA_ARGS__), emo__analysed_failure(err, code, __LINE__))
#define emo__fail_memory(err, bytes) emo__analysed_failure(err, EMO_E_OUT_OF_MEMORY, __LINE__)
#define emo__fail_prefix(err, code, ...) (emo__analysed_use(__VA_ARGS__), emo__analysed_failure(err, code, __LINE__))
#endif

#endif
