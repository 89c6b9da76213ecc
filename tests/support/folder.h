/* SPDX-License-Identifier: Apache-2.0 */
/* A temporary folder for a test program, and small files in it. */
#ifndef EMO_TESTS_FOLDER_H
#define EMO_TESTS_FOLDER_H

#include "support/support.h"

/* Makes an empty folder below TMPDIR (or /tmp) and gives its path; fails the test if it cannot be had. */
const char *test_folder(void);
/* Removes it with all that is in it. */
void test_folder_remove(void);
/* folder/name; one of a ring of 8 static buffers. */
const char *test_path(const char *name);
/* Writes a file (its parent folders are made), returns its path as test_path does. */
const char *test_write(const char *name, const void *data, size_t size);
/* The same, gzip-compressed, as one member appended to what the file has. */
const char *test_append_gzip(const char *name, const char *text, size_t size);
/* Contents, malloc'ed. */
unsigned char *test_read(const char *path, size_t *size);

/* setup() and teardown() of a group of tests: a folder. */
#define TEST_FOLDER                                                                                                    \
    static int setup(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        (void)test_folder();                                                                                           \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int teardown(void **state) {                                                                                \
        (void)state;                                                                                                   \
        test_folder_remove();                                                                                          \
        return 0;                                                                                                      \
    }

/* As TEST_RUNTIME, with a folder. */
#define TEST_RUNTIME_AND_FOLDER(threads, isa)                                                                          \
    static emo_runtime *rt;                                                                                            \
    static int setup(void **state) {                                                                                   \
        (void)state;                                                                                                   \
        (void)test_folder();                                                                                           \
        rt = test_runtime(threads, isa);                                                                               \
        return 0;                                                                                                      \
    }                                                                                                                  \
    static int teardown(void **state) {                                                                                \
        (void)state;                                                                                                   \
        emo_runtime_release(rt);                                                                                       \
        test_folder_remove();                                                                                          \
        return 0;                                                                                                      \
    }

#endif
