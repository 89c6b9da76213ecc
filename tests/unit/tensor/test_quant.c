/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised blocks: the byte layouts, the error of a round trip, sizes, and what is refused. */
#include <math.h>

#include "support/support.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

enum { N = 256 * 64 };
static const emo_dtype formats[] = {EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};

/* Sums of twelve uniform numbers: nearly normal, variance 1. */
static void gaussian(float *x, size_t n, uint64_t seed) {
    static float parts[12 * N];
    test_fill(parts, 12 * n, seed, 0.5f);
    for (size_t i = 0; i < n; i++) {
        x[i] = 0.0f;
        for (size_t j = 0; j < 12; j++)
            x[i] += parts[12 * i + j];
    }
}

static double rmse(const float *a, const float *b, size_t n) {
    double sum = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum / (double)n);
}

static double round_trip(const float *x, size_t n, emo_dtype dtype) {
    static unsigned char blocks[N * 2];
    static float back[N];
    assert_true(emo__quantise(blocks, dtype, x, n));
    emo__dequantise(back, blocks, dtype, n);
    return rmse(x, back, n);
}

static void sizes(void **state) {
    (void)state;
    size_t bytes;
    assert_true(emo__dtype_bytes(EMO_DTYPE_Q8_0, 64, &bytes) && bytes == 68);
    assert_true(emo__dtype_bytes(EMO_DTYPE_Q4_0, 64, &bytes) && bytes == 36);
    assert_true(emo__dtype_bytes(EMO_DTYPE_Q4_K, 512, &bytes) && bytes == 288);
    assert_true(emo__dtype_bytes(EMO_DTYPE_F16, 3, &bytes) && bytes == 6);
    assert_false(emo__dtype_bytes(EMO_DTYPE_Q4_K, 128, &bytes));
    assert_false(emo__dtype_bytes(EMO_DTYPE_Q8_0, -32, &bytes));
    assert_false(emo__dtype_bytes(EMO_DTYPE_F64, INT64_MAX, &bytes));
    assert_false(emo__dtype_bytes(77, 32, &bytes));
    assert_int_equal(emo__dtype_block(EMO_DTYPE_BF16), 1);
    assert_int_equal(emo__dtype_block(77), 0);
    for (size_t i = 0; i < 3; i++)
        assert_true(emo__dtype_quantised(formats[i]));
    assert_false(emo__dtype_quantised(EMO_DTYPE_F16));
}

/* Blocks written by hand, element for element as the formats are published. */
static void layouts(void **state) {
    (void)state;
    float x[256];
    unsigned char b[144] = {0};
    uint16_t half = emo__f32_to_f16(0.5f);
    memcpy(b, &half, 2);
    b[2] = 3;
    b[33] = (unsigned char)(signed char)-128;
    emo__dequantise(x, b, EMO_DTYPE_Q8_0, 32);
    assert_true(x[0] == 1.5f && x[1] == 0.0f && x[31] == -64.0f);
    memset(b + 2, 0x88, 16);
    b[2] = 0xF0; /* element 0: 0, element 16: 15 */
    emo__dequantise(x, b, EMO_DTYPE_Q4_0, 32);
    assert_true(x[0] == -4.0f && x[16] == 3.5f && x[1] == 0.0f && x[17] == 0.0f);
    memset(b, 0, sizeof b);
    uint16_t quarter = emo__f32_to_f16(0.25f);
    memcpy(b, &half, 2);
    memcpy(b + 2, &quarter, 2);
    b[4] = 5 | 2 << 6;  /* group 0: s 5; group 4: high bits of s */
    b[8] = 7 | 1 << 6;  /* group 0: t 7; group 4: high bits of t */
    b[12] = 9 | 4 << 4; /* group 4: s = 9 + 32, t = 4 + 16 */
    b[16] = 0x2B;       /* element 0: 11, element 32 (group 1): 2 */
    b[16 + 64] = 0x0D;  /* element 128 (group 4): 13 */
    emo__dequantise(x, b, EMO_DTYPE_Q4_K, 256);
    assert_true(x[0] == 0.5f * 5 * 11 - 0.25f * 7);
    assert_true(x[1] == -0.25f * 7);
    assert_true(x[32] == 0.0f); /* group 1 has s = t = 0 */
    assert_true(x[128] == 0.5f * 41 * 13 - 0.25f * 20);
}

/* The plain rules: one division by the largest element of a block, no search. */
static double plain_q4_0(const float *x, size_t n) {
    double sum = 0.0;
    for (size_t at = 0; at < n; at += 32) {
        float most = 0.0f;
        for (size_t i = 0; i < 32; i++)
            most = fabsf(x[at + i]) > fabsf(most) ? x[at + i] : most;
        float d = emo__f16_to_f32(emo__f32_to_f16(most / -8.0f));
        for (size_t i = 0; i < 32; i++) {
            int q = (int)floorf(x[at + i] / d + 8.5f);
            float gap = d * (float)((q > 15 ? 15 : q < 0 ? 0 : q) - 8) - x[at + i];
            sum += (double)gap * (double)gap;
        }
    }
    return sqrt(sum / (double)n);
}

static double plain_ranges(const float *x, size_t n) {
    double sum = 0.0;
    for (size_t at = 0; at < n; at += 32) {
        float low = 0.0f, high = x[at];
        for (size_t i = 0; i < 32; i++) {
            low = fminf(low, x[at + i]);
            high = fmaxf(high, x[at + i]);
        }
        float d = (high - low) / 15.0f;
        for (size_t i = 0; i < 32; i++) {
            float gap = low + d * roundf((x[at + i] - low) / d) - x[at + i];
            sum += (double)gap * (double)gap;
        }
    }
    return sqrt(sum / (double)n);
}

static void errors_are_those_of_the_format(void **state) {
    (void)state;
    static float x[N];
    for (int kind = 0; kind < 3; kind++) {
        if (kind == 0)
            gaussian(x, N, 5);
        else
            test_fill(x, N, 6, kind == 1 ? 0.02f : 300.0f);
        for (size_t i = 0; kind == 2 && i < N; i += 3)
            x[i] = fabsf(x[i]) * 0.1f; /* skewed */
        /* a uniform rounding error of one step d has the deviation d / sqrt(12); d as f16 adds 2^-11 of the value */
        double steps = 0.0, squares = 0.0;
        for (size_t at = 0; at < N; at += 32) {
            double most = 0.0;
            for (size_t i = at; i < at + 32; i++) {
                most = fmax(most, fabs((double)x[i]));
                squares += (double)x[i] * (double)x[i];
            }
            steps += most * most / (127.0 * 127.0 * 12.0);
        }
        double q8 = sqrt(steps / (N / 32)) + sqrt(squares / N) / 2048.0;
        double got8 = round_trip(x, N, EMO_DTYPE_Q8_0);
        double got4 = round_trip(x, N, EMO_DTYPE_Q4_0);
        double gotk = round_trip(x, N, EMO_DTYPE_Q4_K);
        assert_true(got8 < 1.02 * q8);
        /* searching must not lose to the plain rules; on normal numbers it wins by several percent */
        assert_true(got4 < (kind == 0 ? 0.95 : 1.0) * plain_q4_0(x, N));
        /* 6-bit scales cost little, the search gains more on normal numbers */
        assert_true(gotk < (kind == 0 ? 0.95 : 1.02) * plain_ranges(x, N));
    }
}

static void special_blocks(void **state) {
    (void)state;
    float x[256] = {0};
    for (size_t f = 0; f < 3; f++) {
        assert_true(round_trip(x, 256, formats[f]) == 0.0); /* zeros stay zeros */
        x[3] = NAN;
        unsigned char b[512];
        assert_false(emo__quantise(b, formats[f], x, 256));
        x[3] = -INFINITY;
        assert_false(emo__quantise(b, formats[f], x, 256));
        x[3] = 3e38f;
        assert_false(emo__quantise(b, formats[f], x, 256));
        x[3] = 0.0f;
        assert_false(emo__quantise(b, formats[f], x, 255));
        /* tiny numbers become zeros, not garbage */
        for (int i = 0; i < 256; i++)
            x[i] = (i % 2 != 0 ? 1e-35f : -1e-38f);
        assert_true(round_trip(x, 256, formats[f]) < 1e-7);
        memset(x, 0, sizeof x);
    }
    assert_false(emo__quantise(x, EMO_DTYPE_F16, x, 256));
    /* one constant, of either sign: q4_k and q4_0 have it exactly up to the f16 scale, q8_0 too */
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < 256; i++)
            x[i] = 0.37f * (float)sign;
        for (size_t f = 0; f < 3; f++)
            assert_true(round_trip(x, 256, formats[f]) < 0.37 / 1024.0);
    }
    unsigned char bad[144] = {0};
    assert_int_equal(emo__quant_non_finite(bad, EMO_DTYPE_Q4_K, 256), 0);
    bad[3] = 0x7C;
    assert_int_equal(emo__quant_non_finite(bad, EMO_DTYPE_Q4_K, 256), 1);
    bad[1] = 0xFE;
    assert_int_equal(emo__quant_non_finite(bad, EMO_DTYPE_Q8_0, 32), 1);
}

/* emo__convert reads blocks as any float type. */
static void conversion(void **state) {
    (void)state;
    static float x[512], want[512], got[512];
    unsigned char b[512 * 34 / 32];
    uint16_t half[512];
    gaussian(x, 512, 9);
    for (size_t f = 0; f < 3; f++) {
        assert_true(emo__quantise(b, formats[f], x, 512));
        emo__dequantise(want, b, formats[f], 512);
        assert_true(emo__convert(got, EMO_DTYPE_F32, b, formats[f], 512));
        assert_memory_equal(got, want, sizeof want);
        assert_true(emo__convert(half, EMO_DTYPE_BF16, b, formats[f], 512));
        for (size_t i = 0; i < 512; i++)
            assert_int_equal(half[i], emo__f32_to_bf16(want[i]));
        assert_false(emo__convert(b, formats[f], x, EMO_DTYPE_F32, 512)); /* quantising can fail: emo__quantise */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),          cmocka_unit_test(layouts),
        cmocka_unit_test(special_blocks), cmocka_unit_test(errors_are_those_of_the_format),
        cmocka_unit_test(conversion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
