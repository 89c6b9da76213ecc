/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "golden/golden.h"

void golden_fail(golden_result *r, const char *fmt, ...) {
    if (!r->failed || r->message[0] == '\0') {
        va_list args;
        va_start(args, fmt);
        (void)vsnprintf(r->message, sizeof r->message, fmt, args);
        va_end(args);
    }
    r->failed = 1;
}

int golden_call(golden_result *r, emo_status status, const emo_error *err, const char *what) {
    if (status == EMO_OK)
        return 0;
    golden_fail(r, "%s: %s: %s", what, emo_status_name(status), err->message);
    return -1;
}

static void record(golden_result *r, const char *quantity, double error, double tolerance) {
    double ratio = tolerance > 0.0 ? error / tolerance : (error > 0.0 ? INFINITY : 0.0);
    if (ratio >= r->ratio || r->quantity[0] == '\0') {
        r->ratio = ratio;
        r->error = error;
        r->tolerance = tolerance;
        (void)snprintf(r->quantity, sizeof r->quantity, "%s", quantity);
    }
    if (!(error <= tolerance))
        golden_fail(r, "%s: error %.3g, tolerance %.3g", quantity, error, tolerance);
}

static double worst(const float *got, const float *want, int64_t count) {
    double w = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (isnan(d))
            return INFINITY;
        w = d > w ? d : w;
    }
    return w;
}

void golden_close(golden_result *r, const char *quantity, const float *got, const float *want, int64_t count,
                  double tolerance) {
    if (got == NULL || want == NULL)
        golden_fail(r, "%s: nothing to compare", quantity);
    else
        record(r, quantity, worst(got, want, count), tolerance);
}

void golden_close_1(golden_result *r, const char *quantity, double got, double want, double tolerance) {
    double d = fabs(got - want);
    record(r, quantity, isnan(d) ? INFINITY : d, tolerance);
}

void golden_relative(golden_result *r, const char *quantity, const float *got, const float *want, int64_t count,
                     double tolerance) {
    if (got == NULL || want == NULL) {
        golden_fail(r, "%s: nothing to compare", quantity);
        return;
    }
    double largest = 0.0;
    for (int64_t i = 0; i < count; i++)
        largest = fabs((double)want[i]) > largest ? fabs((double)want[i]) : largest;
    record(r, quantity, worst(got, want, count) / (largest > 0.0 ? largest : 1.0), tolerance);
}

void golden_same_i32(golden_result *r, const char *quantity, const int32_t *got, const int64_t *want, int64_t count) {
    if (got == NULL || want == NULL) {
        golden_fail(r, "%s: nothing to compare", quantity);
        return;
    }
    double different = 0.0;
    for (int64_t i = 0; i < count; i++)
        different += got[i] != want[i] ? 1.0 : 0.0;
    record(r, quantity, different, 0.0);
}

void golden_same_i64(golden_result *r, const char *quantity, const int64_t *got, const int64_t *want, int64_t count) {
    if (got == NULL || want == NULL) {
        golden_fail(r, "%s: nothing to compare", quantity);
        return;
    }
    double different = 0.0;
    for (int64_t i = 0; i < count; i++)
        different += got[i] != want[i] ? 1.0 : 0.0;
    record(r, quantity, different, 0.0);
}
