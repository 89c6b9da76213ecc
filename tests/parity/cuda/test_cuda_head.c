/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA head and the drawing of tokens against the CPU's. */
#include "parity/cuda/sides.h"

/* Sums of at most a few hundred terms of order 1 in another order, and another exp. */
#define TOLERANCE_F32 2e-5
/* One product with operands rounded to 8 bits, then one with its softmax; relative to the largest result. */
#define TOLERANCE_BF16 2e-2

static void run_heads(emo_dtype compute, double tolerance, int rounds) {
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 4;
    sides side = sides_open(compute);
    for (int round = 0; round < rounds; round++) {
        int64_t tokens = round == 3 ? 300 : parity_draw(&rng, 1, 60), d = parity_draw(&rng, 1, 40);
        int64_t vocab = round == 5 ? 1500 : parity_draw(&rng, 2, 200);
        void *w;
        float *x = test_floats((size_t)(tokens * d), 1, 1.0f);
        int32_t labels[300], rows[7];
        for (int64_t t = 0; t < tokens; t++)
            labels[t] = parity_draw(&rng, 0, 3) == 0 ? -100 : (int32_t)parity_draw(&rng, 0, vocab - 1);
        for (int i = 0; i < 7; i++)
            rows[i] = (int32_t)parity_draw(&rng, 0, tokens - 1);
        emo_weight weight = parity_weight(parity_dtype(&rng), vocab, d, 6, &w);
        sides_out loss = sides_floats(tokens, 2), dx = sides_floats(tokens * d, 3), dw = sides_floats(vocab * d, 4);
        sides_out logits = sides_floats(7 * vocab, 5), first = sides_floats(tokens * vocab, 6);
        double ce[SIDES_COUNT] = {1.0, 1.0, 1.0}, z[SIDES_COUNT] = {2.0, 2.0, 2.0};
        for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
            emo_head_args a = {.tokens = tokens, .hidden = d, .ce_scale = 0.7f, .z_scale = 0.01f};
            a.x = sides_in(&side, x, (size_t)(tokens * d) * 4);
            a.weight = sides_weight(&side, weight);
            a.labels = sides_in(&side, labels, (size_t)tokens * 4);
            a.token_loss = sides_io(&side, &loss);
            float *d_x = sides_io(&side, &dx), *d_w = sides_io(&side, &dw);
            a.dx = round % 4 == 0 ? NULL : d_x;
            a.d_weight = round % 5 == 1 ? NULL : d_w;
            a.ce_sum = sides_put(&side, &ce[side.side], sizeof ce[0], 1);
            a.z_sum = sides_put(&side, &z[side.side], sizeof z[0], 1);
            emo_head_logits_args l = {.n_rows = 7, .hidden = d, .x = a.x, .weight = a.weight};
            l.rows = sides_in(&side, rows, sizeof rows);
            l.logits = sides_io(&side, &logits);
            SIDES_RUN(&side, head_loss, &a);
            SIDES_RUN(&side, head_logits, &l);
            l.rows = NULL;
            l.n_rows = tokens;
            l.logits = sides_io(&side, &first);
            SIDES_RUN(&side, head_logits, &l);
            sides_finish(&side, "head");
        }
        assert_true(fabs(ce[0] - ce[1]) < tolerance * ce[0] && ce[1] == ce[2]);
        assert_true(fabs(z[0] - z[1]) < tolerance * z[0] && z[1] == z[2]);
        sides_close_enough("head token_loss", loss, tolerance);
        sides_close_enough("head dx", dx, tolerance);
        sides_close_enough("head d_weight", dw, tolerance);
        sides_close_enough("head_logits of rows", logits, tolerance);
        sides_close_enough("head_logits", first, tolerance);
        free(x), free(w);
    }
    sides_close(&side);
}

static void heads_f32(void **state) {
    (void)state;
    run_heads(EMO_DTYPE_F32, TOLERANCE_F32, 9);
}

static void heads_bf16(void **state) {
    (void)state;
    run_heads(EMO_DTYPE_BF16, TOLERANCE_BF16, 4);
}

/* The same ids as the CPU for the same logits, whatever the filters: draws would only differ where a running sum meets
 * the random number to within a rounding error, some 1e-15 of the mass. */
static void samples(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { ROWS = 24, MOST = 700, HISTORY = 40 };
    uint64_t rng = 12;
    sides side = sides_open(EMO_DTYPE_F32);
    for (int round = 0; round < 6; round++) {
        int64_t vocab = round == 0 ? 1 : parity_draw(&rng, 2, round % 2 ? MOST : 50);
        float *logits = test_floats((size_t)(ROWS * vocab), 30 + (uint64_t)round, 4.0f);
        int32_t history[HISTORY];
        for (int i = 0; i < HISTORY; i++) /* some twice, some outside */
            history[i] = (int32_t)parity_draw(&rng, -1, vocab);
        if (round == 2) /* ties everywhere */
            for (int64_t i = 0; i < ROWS * vocab; i++)
                logits[i] = (float)(i % 3);
        emo_sample_row how[ROWS];
        for (int i = 0; i < ROWS; i++) {
            how[i] = (emo_sample_row){.temperature = i % 6 == 5 ? 0.0f : 0.3f + 0.2f * (float)(i % 4),
                                      .top_k = i % 3 == 1 ? (int32_t)parity_draw(&rng, 1, 60) : 0,
                                      .top_p = i % 4 >= 2 ? 0.05f * (float)parity_draw(&rng, 0, 19) : 1.0f,
                                      .min_p = i % 5 == 3 ? 0.05f : 0.0f,
                                      .repetition_penalty = i % 7 == 4 ? 1.3f : 1.0f,
                                      .history = history,
                                      .history_count = HISTORY,
                                      .seed = 77,
                                      .sequence = (uint64_t)i,
                                      .position = (uint64_t)round};
        }
        sides_bytes ids = sides_exact(ROWS * sizeof(int32_t));
        sides_out logprobs = sides_floats(ROWS, 3);
        for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
            emo_sample_args a = {.rows = ROWS, .vocab = vocab, .how = how};
            a.logits = sides_in(&side, logits, (size_t)(ROWS * vocab) * 4);
            a.ids = sides_io_bytes(&side, &ids);
            float *out = sides_io(&side, &logprobs);
            a.logprobs = round == 4 ? NULL : out;
            SIDES_RUN(&side, sample, &a);
            sides_finish(&side, "sample");
        }
        sides_equal("sample ids", ids);
        sides_close_enough("sample logprobs", logprobs, TOLERANCE_F32);
        free(logits);
    }
    sides_close(&side);
}

/* Logits that are not finite give id -1; the other rows are drawn as ever. */
static void rows_that_are_not_finite(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    float logits[9] = {1.0f, 2.0f, 0.0f, 1.0f, NAN, 0.0f, INFINITY, 1.0f, 2.0f};
    int32_t ids[3] = {7, 7, 7};
    emo_sample_row how[3];
    memset(how, 0, sizeof how);
    for (int i = 0; i < 3; i++)
        how[i].top_p = how[i].repetition_penalty = 1.0f;
    sides side = sides_open(EMO_DTYPE_F32);
    side.side = 1;
    emo_sample_args a = {.rows = 3, .vocab = 3, .how = how};
    a.logits = sides_in(&side, logits, sizeof logits);
    a.ids = sides_put(&side, ids, sizeof ids, 1);
    SIDES_RUN(&side, sample, &a);
    sides_finish(&side, "sample");
    assert_true(ids[0] == 1 && ids[1] == -1 && ids[2] == -1);
    sides_close(&side);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(heads_f32), cmocka_unit_test(heads_bf16),
                                       cmocka_unit_test(samples), cmocka_unit_test(rows_that_are_not_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
