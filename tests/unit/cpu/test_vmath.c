/* SPDX-License-Identifier: Apache-2.0 */
/* The promised accuracy of exp, by a sweep over the floats. (The vector levels are seen through SwiGLU's tests.) */
#include <float.h>
#include <math.h>

#include "cpu/vmath.h"
#include "support/support.h"

static void test_exp(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 0x43000000u; bits += 2003) /* |x| up to 128 */
        for (uint32_t sign = 0; sign < 2; sign++) {
            float x = emo__bits_f32(bits | sign << 31);
            double want = exp((double)x), got = (double)emo__exp(x);
            if (want > (double)FLT_MAX)
                assert_true(x > 88.7228f && isinf(got));
            else if (want < (double)FLT_MIN) /* denormal: an absolute step of 2^-149 */
                assert_true(fabs(got - want) <= 2.0 * ldexp(1.0, -149));
            else if (!(fabs(got - want) <= 2.0 * (double)(nextafterf((float)want, INFINITY) - (float)want)))
                fail_msg("exp(%.9g) = %.9g, want %.9g", (double)x, got, want);
        }
    assert_true(isnan(emo__exp(NAN)));
    assert_true(emo__exp(-INFINITY) == 0.0f && isinf(emo__exp(INFINITY)) && emo__exp(0.0f) == 1.0f);
}

static void test_silu(void **state) {
    (void)state;
    for (float x = -120.0f; x < 120.0f; x += 0.037f) {
        double sigma = 1.0 / (1.0 + exp(-(double)x));
        /* exp's 2 ulp and two roundings more; below FLT_MIN only the absolute size matters */
        assert_true(fabs((double)emo__sigmoid(x) - sigma) <= 5e-7 * sigma + 1e-37);
        assert_true(fabs((double)emo__silu(x) - (double)x * sigma) <= 5e-7 * fabs((double)x * sigma) + 1e-35);
    }
    assert_true(emo__silu(-1000.0f) == 0.0f && emo__silu(1000.0f) == 1000.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_exp), cmocka_unit_test(test_silu)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
