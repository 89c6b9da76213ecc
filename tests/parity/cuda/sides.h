/* SPDX-License-Identifier: Apache-2.0 */
/* One operator on three sides: the CPU back end, and twice the CUDA back end that EMO_CUDA_PLUGIN names (the
 * simulator's build of it, or a real one). The two CUDA runs must agree to the bit; against the CPU the caller gives a
 * tolerance. */
#ifndef EMO_TESTS_SIDES_H
#define EMO_TESTS_SIDES_H

#include <dlfcn.h>
#include <emo/device.h>
#include <math.h>

#include "backend/registry.h"
#include "cudasim/control.h"
#include "parity/parity.h"

enum { SIDES_MOST = 96, SIDES_CPU = 0, SIDES_COUNT = 3 };

typedef struct sides_copy {
    void *device;
    void *host; /* NULL: not brought back */
    size_t bytes;
} sides_copy;

typedef struct sides {
    test_device cpu;
    emo_backend *backend;
    const emo_backend_ops *ops;
    emo_exec *exec;
    const cudasim_control_table *control; /* NULL on a real device */
    int side;
    int n_copies;
    sides_copy copies[SIDES_MOST];
} sides;

/* Skips the program when there is no plug-in or no device. */
static inline sides sides_open(emo_dtype compute) {
    emo_error err = EMO_ERROR_INIT;
    sides s;
    memset(&s, 0, sizeof s);
    const char *path = getenv("EMO_CUDA_PLUGIN");
    if (path == NULL || path[0] == 0)
        exit(77);
    s.cpu = test_device_open(2, EMO_ISA_AUTO);
    emo_status status = emo_runtime_load_backend(s.cpu.rt, path, &err);
    if (status == EMO_E_UNSUPPORTED || status == EMO_E_NOT_FOUND) {
        printf("skipped: %s\n", err.message);
        exit(77);
    }
    if (status != EMO_OK)
        fail_msg("%s: %s", path, err.message);
    EXPECT_OK(emo__registry_open(s.cpu.rt->registry, "cuda", &s.backend, &err));
    s.ops = s.backend->ops;
    emo_exec_options options = {.struct_size = sizeof options, .compute = compute, .deterministic = 1};
    EXPECT_OK(s.ops->exec_create(s.backend, &options, &s.exec, &err));
    void *library = dlopen(path, RTLD_NOW | RTLD_NOLOAD);
    if (library != NULL) {
        s.control = dlsym(library, CUDASIM_CONTROL_SYMBOL);
        dlclose(library);
    }
    return s;
}

static inline void sides_no_findings(sides *s, const char *what) {
    static char text[4000];
    if (s->control == NULL || s->control->findings() == 0)
        return;
    s->control->take(text, sizeof text);
    fail_msg("%s: the simulator found:\n%s", what, text);
}

static inline void sides_close(sides *s) {
    s->ops->exec_destroy(s->exec);
    test_device_close(&s->cpu);
}

/* The table and exec of the side that is running. */
#define SIDES_RUN(s, entry, args)                                                                                      \
    do {                                                                                                               \
        if ((s)->side == SIDES_CPU)                                                                                    \
            EXPECT_OK((s)->cpu.ops->entry((s)->cpu.exec, args, &err));                                                 \
        else                                                                                                           \
            EXPECT_OK((s)->ops->entry((s)->exec, args, &err));                                                         \
    } while (0)

static inline void *sides_put(sides *s, void *host, size_t bytes, int back) {
    emo_error err = EMO_ERROR_INIT;
    if (s->side == SIDES_CPU || host == NULL)
        return host;
    assert_true(s->n_copies < SIDES_MOST);
    sides_copy *c = &s->copies[s->n_copies++];
    EXPECT_OK(s->ops->mem_alloc(s->backend, bytes > 0 ? bytes : 1, &c->device, &err));
    if (bytes > 0)
        EXPECT_OK(s->ops->upload(s->exec, c->device, host, bytes, &err));
    c->host = back ? host : NULL;
    c->bytes = bytes;
    return c->device;
}

/* Read by the operator, on the running side. */
static inline const void *sides_in(sides *s, const void *host, size_t bytes) {
    return sides_put(s, (void *)(uintptr_t)host, bytes, 0);
}

static inline emo_weight sides_weight(sides *s, emo_weight w) {
    w.data = sides_in(s, w.data, (size_t)(w.rows * w.stride) * (w.dtype == EMO_DTYPE_F32 ? 4 : 2));
    return w;
}

/* Brings the outputs of the running side back and frees its memory. */
static inline void sides_finish(sides *s, const char *what) {
    emo_error err = EMO_ERROR_INIT;
    if (s->side == SIDES_CPU)
        return;
    for (int i = 0; i < s->n_copies; i++)
        if (s->copies[i].host != NULL && s->copies[i].bytes > 0)
            EXPECT_OK(s->ops->download(s->exec, s->copies[i].host, s->copies[i].device, s->copies[i].bytes, &err));
    EXPECT_OK(s->ops->synchronize(s->exec, &err));
    while (s->n_copies > 0)
        s->ops->mem_free(s->backend, s->copies[--s->n_copies].device);
    sides_no_findings(s, what);
}

/* ---- outputs: the same start on every side, so that what is added to, and what must stay untouched, counts too ----
 */

typedef struct sides_out {
    float *of[SIDES_COUNT];
    size_t n;
} sides_out;

static inline sides_out sides_floats(int64_t n, uint64_t seed) {
    sides_out out = {.n = (size_t)n};
    for (int i = 0; i < SIDES_COUNT; i++)
        out.of[i] = test_floats((size_t)n, seed, 1.0f);
    return out;
}

static inline float *sides_io(sides *s, const sides_out *out) {
    return sides_put(s, out->of[s->side], out->n * sizeof(float), 1);
}

static inline void sides_free(sides_out *out) {
    for (int i = 0; i < SIDES_COUNT; i++)
        free(out->of[i]);
}

/* |difference| <= tolerance * max(1, largest value) from the CPU, no difference between the CUDA runs; frees. */
static inline void sides_close_enough(const char *what, sides_out out, double tolerance) {
    double largest = 1.0;
    for (size_t i = 0; i < out.n; i++)
        largest = fabs((double)out.of[0][i]) > largest ? fabs((double)out.of[0][i]) : largest;
    double difference = test_max_diff(out.of[0], out.of[1], out.n);
    if (!(difference <= tolerance * largest)) {
        size_t at = 0;
        while (at + 1 < out.n && fabs((double)out.of[0][at] - (double)out.of[1][at]) <= tolerance * largest)
            at++;
        fail_msg("%s: CPU and CUDA differ by %g (element %zu of %zu: %g and %g), allowed are %g of %g", what,
                 difference, at, out.n, (double)out.of[0][at], (double)out.of[1][at], tolerance, largest);
    }
    if (memcmp(out.of[1], out.of[2], out.n * sizeof(float)) != 0)
        fail_msg("%s: two CUDA runs differ", what);
    sides_free(&out);
}

/* Bytes that must be equal on all sides. */
typedef struct sides_bytes {
    void *of[SIDES_COUNT];
    size_t bytes;
} sides_bytes;

static inline sides_bytes sides_exact(size_t bytes) {
    sides_bytes out = {.bytes = bytes};
    for (int i = 0; i < SIDES_COUNT; i++) {
        out.of[i] = malloc(bytes + 1);
        assert_non_null(out.of[i]);
        for (size_t b = 0; b < bytes / sizeof(int32_t); b++)
            ((int32_t *)out.of[i])[b] = (int32_t)(b % 7);
        for (size_t b = bytes / sizeof(int32_t) * sizeof(int32_t); b < bytes; b++)
            ((char *)out.of[i])[b] = 0;
    }
    return out;
}

static inline void *sides_io_bytes(sides *s, const sides_bytes *out) {
    return sides_put(s, out->of[s->side], out->bytes, 1);
}

static inline void sides_equal(const char *what, sides_bytes out) {
    for (int i = 1; i < SIDES_COUNT; i++)
        if (memcmp(out.of[0], out.of[i], out.bytes) != 0)
            fail_msg("%s: CPU and CUDA differ", what);
    for (int i = 0; i < SIDES_COUNT; i++)
        free(out.of[i]);
}

#endif
