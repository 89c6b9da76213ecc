/* SPDX-License-Identifier: Apache-2.0 */
/* Golden cases: a folder with case.json and tensors.safetensors, checked against the library. One golden_<family>.c per
 * family; golden.c finds the cases and prints a line for each. */
#ifndef EMO_TESTS_GOLDEN_H
#define EMO_TESTS_GOLDEN_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <emo/emo.h>

#include "io/json.h"

/* One tensor of a safetensors file. `data` is aligned and belongs to the file. */
typedef struct golden_tensor {
    char *name;
    char dtype[8]; /* "F32", "I64", "U8" */
    int dims;
    int64_t shape[8];
    int64_t count;
    const void *data;
} golden_tensor;

typedef struct golden_file {
    size_t count;
    golden_tensor *tensors;
    char *bytes;
} golden_file;

/* The outcome of a case: the comparison that came closest to (or went farthest beyond) its tolerance. */
typedef struct golden_result {
    int failed;
    double error;     /* of the worst quantity */
    double tolerance; /* its tolerance; 0: exact */
    double ratio;
    char quantity[96];
    char message[600]; /* why it failed */
} golden_result;

/* A case as the checkers get it. */
typedef struct golden_case {
    const char *dir;
    const emo__json *json; /* case.json */
    golden_file file;      /* tensors.safetensors */
    emo_runtime *rt;
    const char *device; /* where models go, or NULL */
} golden_case;

/* Reads a safetensors file; 0 on success, else a message in `why`. */
int golden_read(const char *path, golden_file *out, char *why, size_t capacity);
void golden_free(golden_file *file);

/* A tensor by name (printf-like); NULL when it is not there. */
const golden_tensor *golden_find(const golden_file *file, const char *name, ...) __attribute__((format(printf, 2, 3)));

/* The data of a tensor of the case with this type and count (count < 0: any); NULL, and the case has failed, if not. */
const void *golden_need(const golden_case *c, golden_result *r, const char *dtype, int64_t count, const char *name, ...)
    __attribute__((format(printf, 5, 6)));

/* libc's memory. */
const emo__mem *golden_mem(void);
/* Values of nodes; NULL, 0 or false where the node is of another type. */
const char *golden_text(const emo__json *node);
int64_t golden_whole(const emo__json *node);
double golden_real(const emo__json *node);
bool golden_is_number(const emo__json *node);
bool golden_is_true(const emo__json *node);

/* Scalars of case.json; absent or of another type: the case fails and 0 is returned. null gives the fallback of _or. */
int64_t golden_int(const golden_case *c, golden_result *r, const char *key);
double golden_number(const golden_case *c, golden_result *r, const char *key);
int64_t golden_int_or(const golden_case *c, const char *key, int64_t fallback);
double golden_number_or(const golden_case *c, const char *key, double fallback);

/* Loads the model of the case and moves it to its device; 0, else the case has failed. */
int golden_model(const golden_case *c, golden_result *r, emo_model **out);

/* Records a failure that is no number. */
void golden_fail(golden_result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Records a failed library call; 0 when the status is EMO_OK. */
int golden_call(golden_result *r, emo_status status, const emo_error *err, const char *what);

/* Compare; the case fails beyond the tolerance (largest absolute difference; NaN is infinitely far). */
void golden_close(golden_result *r, const char *quantity, const float *got, const float *want, int64_t count,
                  double tolerance);
void golden_close_1(golden_result *r, const char *quantity, double got, double want, double tolerance);
/* Relative to the largest absolute value wanted. */
void golden_relative(golden_result *r, const char *quantity, const float *got, const float *want, int64_t count,
                     double tolerance);
void golden_same_i32(golden_result *r, const char *quantity, const int32_t *got, const int64_t *want, int64_t count);
void golden_same_i64(golden_result *r, const char *quantity, const int64_t *got, const int64_t *want, int64_t count);

/* The checkers. A family without one counts as failed. */
void golden_router(const golden_case *c, golden_result *r);
void golden_infer(const golden_case *c, golden_result *r) __attribute__((weak));
void golden_train(const golden_case *c, golden_result *r) __attribute__((weak));
void golden_subset(const golden_case *c, golden_result *r) __attribute__((weak));
void golden_optim(const golden_case *c, golden_result *r) __attribute__((weak));

#endif
