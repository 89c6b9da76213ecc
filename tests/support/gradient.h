/* SPDX-License-Identifier: Apache-2.0 */
/* Gradient checks by central differences. The loss is a function of one array of f32 inputs that it reads in place. */
#ifndef EMO_TESTS_GRADIENT_H
#define EMO_TESTS_GRADIENT_H

#include <math.h>

#include "support/support.h"

typedef double (*test_loss_fn)(void *context);

/* Fails unless `grad` is the gradient of loss over x[0..n): along `directions` dense random directions and at 24 single
 * elements. `step` is the difference's half width, `tolerance` is relative to the size of what is compared. */
static inline void test_gradient(test_loss_fn loss, void *context, float *x, const float *grad, size_t n, double step,
                                 double tolerance) {
    float *start = malloc(n * sizeof(float)), *way = malloc(n * sizeof(float));
    assert_true(start != NULL && way != NULL);
    memcpy(start, x, n * sizeof(float));
    double norm = 0.0;
    for (size_t i = 0; i < n; i++)
        norm += (double)grad[i] * (double)grad[i];
    norm = sqrt(norm);
    for (size_t trial = 0; trial < 28; trial++) {
        double length = 0.0, expected = 0.0, far = 0.0, near;
        test_fill(way, n, 1000 + trial, 1.0f);
        for (size_t i = 0; i < n; i++) {
            if (trial >= 4)
                way[i] = i == (trial * 7919) % n ? 1.0f : 0.0f;
            length += (double)way[i] * (double)way[i];
        }
        double reach = step / sqrt(length) * (trial < 4 ? 4.0 : 1.0);
        /* the way as f32 arithmetic really goes it */
        for (size_t i = 0; i < n; i++)
            x[i] = start[i] + (float)(reach * (double)way[i]);
        for (size_t i = 0; i < n; i++)
            expected += (double)grad[i] * ((double)x[i] - (double)start[i]);
        far = loss(context);
        for (size_t i = 0; i < n; i++)
            x[i] = start[i] - (float)(reach * (double)way[i]);
        for (size_t i = 0; i < n; i++)
            expected -= (double)grad[i] * ((double)x[i] - (double)start[i]);
        near = loss(context);
        double slope = (far - near) / (2.0 * reach * sqrt(length)), want = expected / (2.0 * reach * sqrt(length));
        if (!(fabs(slope - want) <= tolerance * (fabs(want) + norm / sqrt((double)n))))
            fail_msg("direction %zu: difference quotient %g, gradient %g", trial, slope, want);
    }
    memcpy(x, start, n * sizeof(float));
    free(start);
    free(way);
}

#endif
