/* SPDX-License-Identifier: Apache-2.0 */
/* Linear layers and dense SwiGLU: forward against double, backward against central differences of the double forward.
 */
#include <math.h>

#include "base/runtime.h"
#include "cpu/cpu.h"
#include "support/support.h"
#include "tensor/dtype.h"

static const emo_isa levels[] = {EMO_ISA_SCALAR, EMO_ISA_NEON, EMO_ISA_AVX2, EMO_ISA_AVX512};

typedef struct machine {
    emo_runtime *rt;
    const emo_backend_ops *ops;
    emo_exec *exec;
} machine;

static machine open_machine(int32_t threads, emo_isa isa) {
    emo_error err = EMO_ERROR_INIT;
    machine m = {.rt = test_runtime(threads, isa)};
    m.ops = m.rt->cpu->ops;
    EXPECT_OK(m.ops->exec_create(m.rt->cpu, NULL, &m.exec, &err));
    return m;
}

static void close_machine(machine *m) {
    m->ops->exec_destroy(m->exec);
    emo_runtime_release(m->rt);
}

enum { T = 19, IN = 35, OUT = 41, X_STRIDE = IN + 3, Y_STRIDE = OUT + 2 };

typedef struct layer {
    float x[T * X_STRIDE], w[OUT * IN], b[OUT], dy[T * Y_STRIDE];
} layer;

/* sum of dy y */
static double linear_loss(const layer *l) {
    double loss = 0.0;
    for (int t = 0; t < T; t++)
        for (int o = 0; o < OUT; o++) {
            double y = (double)l->b[o];
            for (int i = 0; i < IN; i++)
                y += (double)l->w[o * IN + i] * (double)l->x[t * X_STRIDE + i];
            loss += y * (double)l->dy[t * Y_STRIDE + o];
        }
    return loss;
}

static double linear_slope(layer *l, float *value) {
    float old = *value;
    *value = old + 0.25f; /* the loss is linear in each number: any step is exact but for rounding */
    double at = (double)*value, hi = linear_loss(l);
    *value = old;
    return (hi - linear_loss(l)) / (at - (double)old);
}

static void near(const char *what, int i, double want, double got, double tolerance) {
    if (!(fabs(want - got) <= tolerance))
        fail_msg("%s[%d]: %g, want %g", what, i, got, want);
}

static void test_linear(void **state) {
    (void)state;
    layer *l = malloc(sizeof *l);
    assert_non_null(l);
    test_fill((float *)l, sizeof *l / sizeof(float), 11, 1.0f);
    for (size_t level = 0; level < 3; level++) {
        if (!test_has_isa(levels[level]))
            continue;
        machine mc = open_machine(2, levels[level]);
        emo_error err = EMO_ERROR_INIT;
        float dx[T * X_STRIDE], dw[OUT * IN], db[OUT];
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            for (size_t i = 0; i < sizeof dx / sizeof dx[0]; i++)
                dx[i] = 2.0f;
            for (size_t i = 0; i < sizeof dw / sizeof dw[0]; i++)
                dw[i] = 3.0f;
            for (size_t i = 0; i < sizeof db / sizeof db[0]; i++)
                db[i] = 4.0f;
            emo_linear_args args = {.tokens = T,
                                    .x = l->x,
                                    .x_stride = X_STRIDE,
                                    .weight = {l->w, NULL, EMO_DTYPE_F32, 0, OUT, IN, IN},
                                    .y_stride = Y_STRIDE,
                                    .dy = l->dy,
                                    .dx = dx,
                                    .dx_accumulate = accumulate,
                                    .d_weight = dw,
                                    .d_bias = db};
            EXPECT_OK(mc.ops->linear_backward(mc.exec, &args, &err));
            /* 41 or 19 products below 1 in f32: about 2e-6; the stride's padding keeps its 2 */
            for (int i = 0; i < T * X_STRIDE; i += 3)
                near("dx", i, i % X_STRIDE < IN ? linear_slope(l, &l->x[i]) + (accumulate ? 2.0 : 0.0) : 2.0,
                     (double)dx[i], 1e-5);
            for (int i = 0; i < OUT * IN; i += 7)
                near("dw", i, linear_slope(l, &l->w[i]) + 3.0, (double)dw[i], 1e-5);
            for (int i = 0; i < OUT; i++)
                near("db", i, linear_slope(l, &l->b[i]) + 4.0, (double)db[i], 1e-5);
        }
        float y[T * Y_STRIDE];
        emo_linear_args forward = {.tokens = T,
                                   .x = l->x,
                                   .x_stride = X_STRIDE,
                                   .weight = {l->w, NULL, EMO_DTYPE_F32, 0, OUT, IN, IN},
                                   .bias = {l->b, NULL, EMO_DTYPE_F32, 0, 1, OUT, OUT},
                                   .y = y,
                                   .y_stride = Y_STRIDE};
        for (size_t i = 0; i < sizeof y / sizeof y[0]; i++)
            y[i] = 5.0f;
        for (int accumulate = 0; accumulate < 2; accumulate++) {
            forward.accumulate = accumulate; /* the second call doubles y */
            EXPECT_OK(mc.ops->linear_forward(mc.exec, &forward, &err));
            for (int i = 0; i < T * Y_STRIDE; i++) {
                int t = i / Y_STRIDE, o = i % Y_STRIDE;
                double want = o < OUT ? (double)l->b[o] : 5.0;
                for (int c = 0; o < OUT && c < IN; c++)
                    want += (double)l->w[o * IN + c] * (double)l->x[t * X_STRIDE + c];
                near("y", i, o < OUT ? want * (1 + accumulate) : 5.0, (double)y[i], 1e-5);
            }
        }
        close_machine(&mc);
    }
    free(l);
}

enum { ROWS = 33, INNER = 29, STRIDE = 2 * INNER + 5 };

static double silu(double z) { return z / (1.0 + exp(-z)); }

static void test_swiglu(void **state) {
    (void)state;
    float z[ROWS * STRIDE], y[ROWS * INNER], dy[ROWS * INNER], dz[ROWS * STRIDE], reference[ROWS * INNER];
    test_fill(z, ROWS * STRIDE, 21, 6.0f);
    test_fill(dy, ROWS * INNER, 22, 1.0f);
    z[0] = -200.0f; /* both ends of the sigmoid */
    z[1] = 200.0f;
    for (size_t level = 0; level < 3; level++) {
        if (!test_has_isa(levels[level]))
            continue;
        for (int32_t threads = 1; threads <= 4; threads *= 2) {
            machine mc = open_machine(threads, levels[level]);
            emo_error err = EMO_ERROR_INIT;
            emo_swiglu_args args = {.tokens = ROWS,
                                    .inner = INNER,
                                    .gate = z,
                                    .up = z + INNER,
                                    .stride = STRIDE,
                                    .y = y,
                                    .dy = dy,
                                    .d_gate = dz,
                                    .d_up = dz + INNER};
            EXPECT_OK(mc.ops->swiglu_forward(mc.exec, &args, &err));
            EXPECT_OK(mc.ops->swiglu_backward(mc.exec, &args, &err));
            for (int t = 0; t < ROWS; t++)
                for (int i = 0; i < INNER; i++) {
                    double g = (double)z[t * STRIDE + i], u = (double)z[t * STRIDE + INNER + i];
                    double d = (double)dy[t * INNER + i], h = 1e-4;
                    /* a handful of roundings of numbers up to |g u|; the differences' error is h^2 */
                    double tolerance = 2e-6 * (1.0 + fabs(g * u)) + 1e-7;
                    near("y", t * INNER + i, silu(g) * u, (double)y[t * INNER + i], tolerance);
                    near("d_up", i, d * silu(g), (double)dz[t * STRIDE + INNER + i], tolerance);
                    near("d_gate", i, d * u * (silu(g + h) - silu(g - h)) / (2.0 * h), (double)dz[t * STRIDE + i],
                         tolerance);
                }
            if (threads == 1)
                memcpy(reference, y, sizeof y);
            else
                assert_memory_equal(reference, y, sizeof y);
            close_machine(&mc);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_linear), cmocka_unit_test(test_swiglu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
