/* SPDX-License-Identifier: Apache-2.0 */
/* Reaching the CPU operators of a runtime. */
#ifndef EMO_TESTS_OPS_H
#define EMO_TESTS_OPS_H

#include "base/runtime.h"
#include "support/support.h"
#include <emo/sys/backend.h>

typedef struct test_device {
    emo_runtime *rt;
    emo_exec *exec;
    const emo_backend_ops *ops;
} test_device;

static inline test_device test_device_open(int32_t threads, emo_isa isa) {
    emo_error err = EMO_ERROR_INIT;
    test_device d = {test_runtime(threads, isa), NULL, NULL};
    d.ops = d.rt->cpu->ops;
    EXPECT_OK(d.ops->exec_create(d.rt->cpu, NULL, &d.exec, &err));
    return d;
}

static inline void test_device_close(test_device *d) {
    d->ops->exec_destroy(d->exec);
    emo_runtime_release(d->rt);
}

/* The levels that the machine has, lowest first; returns how many. */
static inline size_t test_levels(emo_isa levels[4]) {
    static const emo_isa all[] = {EMO_ISA_SCALAR, EMO_ISA_NEON, EMO_ISA_AVX2, EMO_ISA_AVX512};
    size_t n = 0;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (test_has_isa(all[i]))
            levels[n++] = all[i];
    }
    return n;
}

/* Numbers for a test; stops the test when memory is out. */
static inline float *test_floats(size_t n, uint64_t seed, float scale) {
    float *x = malloc((n + 1) * sizeof(float));
    assert_non_null(x);
    test_fill(x, n, seed, scale);
    return x;
}

static inline emo_weight test_weight(const void *data, emo_dtype dtype, int64_t rows, int64_t cols) {
    emo_weight w = {data, NULL, dtype, EMO_LAYOUT_ROWS, rows, cols, cols};
    return w;
}

#endif
