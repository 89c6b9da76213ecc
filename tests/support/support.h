/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests share: cmocka with its includes in the right order, an error that prints, deterministic numbers. */
#ifndef EMO_TESTS_SUPPORT_H
#define EMO_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <emo/base.h>
#include <emo/runtime.h>

/* Fails the test with the error's message when the call did not return EMO_OK. `err` must be an emo_error. */
#define EXPECT_OK(call)                                                                                                \
    do {                                                                                                               \
        emo_status expect_ok_status_ = (call);                                                                         \
        if (expect_ok_status_ != EMO_OK)                                                                               \
            fail_msg("%s: %s: %s", #call, emo_status_name(expect_ok_status_), err.message);                            \
    } while (0)

/* Fails unless the call returned `status`, with a message that contains `words` (NULL: any). */
#define EXPECT_STATUS(call, status, words)                                                                             \
    do {                                                                                                               \
        emo_status expect_status_ = (call);                                                                            \
        if (expect_status_ != (status))                                                                                \
            fail_msg("%s: got %s (%s), want %s", #call, emo_status_name(expect_status_), err.message,                  \
                     emo_status_name(status));                                                                         \
        else if ((const char *)(words) != NULL && strstr(err.message, (const char *)(words)) == NULL)                  \
            fail_msg("%s: message '%s' lacks '%s'", #call, err.message, (const char *)(words));                        \
    } while (0)

/* A runtime with `threads` workers and the given instruction-set cap; fails the test if it cannot be had. */
emo_runtime *test_runtime(int32_t threads, emo_isa isa);

/* A runtime for all tests of a program, `rt`, with the setup and the teardown of their group. */
#define TEST_RUNTIME(threads, isa)                                                                                     \
    static emo_runtime *rt;                                                                                            \
    static int setup(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        rt = test_runtime(threads, isa);                                                                               \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int teardown(void **state) {                                                                                \
        (void)state;                                                                                                   \
        emo_runtime_release(rt);                                                                                       \
        return 0;                                                                                                      \
    }

/* True in the long form of the tests (EMO_SOAK is set): loops of failures leave nothing out. */
int test_soak(void);

/* True when the machine has the level. */
int test_has_isa(emo_isa isa);

/* out[i] uniform in [-scale, scale), a function of (seed, i) alone. */
void test_fill(float *out, size_t n, uint64_t seed, float scale);

/* Largest |a - b|; NaN anywhere gives infinity. */
double test_max_diff(const float *a, const float *b, size_t n);

#endif
