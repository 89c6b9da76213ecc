/* SPDX-License-Identifier: Apache-2.0 */
/* Quantised weights on the CUDA back end: lookups, products of few rows and of many, experts, against the CPU's, which
 * multiply the same floats. */
#include "parity/cuda/sides.h"
#include "tensor/quant.h"

/* Sums of 256 products of order 1 in another order. */
#define TOLERANCE_F32 2e-5
/* Both operands rounded to 8 bits. */
#define TOLERANCE_BF16 2e-2
enum { HIDDEN = 256, WIDTH = 512, EXPERTS = 3 };
static const emo_dtype types[] = {EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};

static emo_weight quantised(emo_dtype dtype, int64_t rows, int64_t cols, uint64_t seed, void **bytes) {
    float *x = test_floats((size_t)(rows * cols), seed, 0.5f);
    *bytes = malloc(emo__dtype_run(dtype, rows * cols) + 1);
    assert_non_null(*bytes);
    assert_true(emo__quantise(*bytes, dtype, x, (size_t)(rows * cols)));
    free(x);
    return test_weight(*bytes, dtype, rows, cols);
}

static emo_weight on_side(sides *s, emo_weight w) {
    w.data = sides_in(s, w.data, emo__dtype_run(w.dtype, w.rows * w.cols));
    return w;
}

static void products(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const int64_t rows[] = {1, 8, 9, 40};
    for (int compute = 0; compute < 2; compute++) {
        sides side = sides_open(compute ? EMO_DTYPE_BF16 : EMO_DTYPE_F32);
        for (int round = 0; round < 12; round++) {
            int64_t n = rows[round % 4], out = 30 + round;
            void *bytes;
            emo_weight w = quantised(types[round % 3], out, WIDTH, 3, &bytes);
            float *x = test_floats((size_t)(n * WIDTH), 4, 1.0f);
            int32_t ids[4] = {0, (int32_t)out - 1, 5, 5};
            sides_out y = sides_floats(n * out, 5), found = sides_floats(4 * WIDTH, 6);
            for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
                emo_linear_args a = {.tokens = n, .x_stride = WIDTH, .y_stride = out, .accumulate = round & 1};
                a.weight = on_side(&side, w);
                a.x = sides_in(&side, x, (size_t)(n * WIDTH) * 4);
                a.y = sides_io(&side, &y);
                SIDES_RUN(&side, linear_forward, &a);
                emo_embed_args e = {.tokens = 4, .hidden = WIDTH, .weight = a.weight};
                e.ids = sides_in(&side, ids, sizeof ids);
                e.out = sides_io(&side, &found);
                SIDES_RUN(&side, embed_forward, &e);
                sides_finish(&side, "quantised product");
            }
            sides_close_enough("quantised product", y, compute ? TOLERANCE_BF16 : TOLERANCE_F32);
            sides_close_enough("quantised lookup", found, 0.0); /* the same products of two floats */
            free(bytes), free(x);
        }
        sides_close(&side);
    }
}

static void experts(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (int round = 0; round < 6; round++) {
        sides side = sides_open(round >= 3 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32);
        int64_t tokens = round % 3 == 1 ? 1 : 20, inner = 256;
        int32_t ids[40], order[40] = {0}, inverse[40], offsets[EXPERTS + 1];
        for (int64_t i = 0; i < 2 * tokens; i++)
            ids[i] = (int32_t)(i % 2 == 0 ? 0 : 1 + i % 3 % 2);
        emo_plan_args plan = {tokens, 2, EXPERTS, ids, offsets, order, inverse};
        EXPECT_OK(side.cpu.ops->plan(side.cpu.exec, &plan, &err));
        emo_expert_slot host[EXPERTS], slots[EXPERTS];
        void *bytes[3 * EXPERTS];
        memset(host, 0, sizeof host);
        for (int e = 0; e < EXPERTS; e++) {
            host[e].gate = quantised(types[round % 3], inner, HIDDEN, 10 + (uint64_t)e, &bytes[3 * e]);
            host[e].up = quantised(types[(round + 1) % 3], inner, HIDDEN, 20 + (uint64_t)e, &bytes[3 * e + 1]);
            host[e].down = quantised(types[round % 3], HIDDEN, inner, 30 + (uint64_t)e, &bytes[3 * e + 2]);
        }
        float *x = test_floats((size_t)tokens * HIDDEN, 1, 1.0f), *weights = test_floats((size_t)tokens * 2, 2, 1.0f);
        sides_out y = sides_floats(tokens * HIDDEN, 3);
        for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
            emo_experts_args a = {.tokens = tokens, .hidden = HIDDEN, .inner = inner, .k_total = 2, .experts = EXPERTS};
            for (int e = 0; e < EXPERTS; e++) {
                slots[e] = host[e];
                slots[e].gate = on_side(&side, host[e].gate);
                slots[e].up = on_side(&side, host[e].up);
                slots[e].down = on_side(&side, host[e].down);
            }
            a.table = (emo_expert_table){slots, EXPERTS, NULL};
            if (side.side != SIDES_CPU)
                EXPECT_OK(side.ops->table_sync(side.exec, &a.table, &err));
            a.x = sides_in(&side, x, (size_t)tokens * HIDDEN * 4);
            a.offsets = sides_in(&side, offsets, sizeof offsets);
            a.order = sides_in(&side, order, sizeof order), a.inverse = sides_in(&side, inverse, sizeof inverse);
            a.weights = sides_in(&side, weights, (size_t)tokens * 2 * 4);
            a.y = sides_io(&side, &y);
            SIDES_RUN(&side, experts_forward, &a);
            sides_finish(&side, "quantised experts");
            if (side.side != SIDES_CPU)
                side.ops->table_free(side.backend, &a.table);
        }
        sides_close_enough("quantised experts", y, round >= 3 ? TOLERANCE_BF16 : TOLERANCE_F32);
        for (int i = 0; i < 3 * EXPERTS; i++)
            free(bytes[i]);
        free(x), free(weights);
        sides_close(&side);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(products), cmocka_unit_test(experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
