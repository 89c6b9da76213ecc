/* SPDX-License-Identifier: Apache-2.0 */
#include "support/support.h"

#include <math.h>

#include "tensor/philox.h"

emo_runtime *test_runtime(int32_t threads, emo_isa isa) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = threads;
    options.isa = isa;
    emo_runtime *rt = NULL;
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    return rt;
}

int test_soak(void) {
    const char *value = getenv("EMO_SOAK");
    return value != NULL && value[0] != '\0';
}

int test_has_isa(emo_isa isa) {
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1;
    options.isa = isa;
    emo_runtime *rt = NULL;
    int has = emo_runtime_create(&options, &rt, NULL) == EMO_OK;
    emo_runtime_release(rt);
    return has;
}

void test_fill(float *out, size_t n, uint64_t seed, float scale) {
    for (size_t i = 0; i < n; i++) {
        emo__philox r = emo__philox_draw(seed, EMO__RNG_TEST, i, 0, 0);
        out[i] = scale * (2.0f * emo__uniform_f32(r.v[0]) - 1.0f);
    }
}

double test_max_diff(const float *a, const float *b, size_t n) {
    double worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (isnan(d))
            return INFINITY;
        if (d > worst)
            worst = d;
    }
    return worst;
}
