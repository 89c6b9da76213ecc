/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA attention against the CPU's on random segments: one-token documents, caches (fewer queries than keys), long
 * caches that are split, slices of a call, groups of query heads. */
#include "parity/cuda/sides.h"
#include "support/pages.h"

/* f32: sums of up to a thousand terms of order 1 in another order, and another exp: relative error about
 * sqrt(1000) * 2^-24, some 2e-6. */
#define TOLERANCE_F32 2e-5
/* Operands, probabilities and their gradients are rounded to 8 bits: logits are off by some 2^-8, relative to the
 * largest result the sums stay near that; a wrong formula is off by a tenth and more. */
#define TOLERANCE_BF16 2e-2
enum { SEGMENTS = 4, ROUNDS = 16 };

static void run_round(sides *side, int round, uint64_t *rng, double tolerance) {
    emo_error err = EMO_ERROR_INIT;
    int64_t n = parity_draw(rng, 1, SEGMENTS), queries = 0, keys = 0;
    emo_attention_segment segments[SEGMENTS];
    int cache = round % 3 == 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t k = i == 0 ? 1 : parity_draw(rng, 1, round == 5 ? 200 : 70);
        int64_t q = cache ? parity_draw(rng, 1, k) : k;
        if (round % 6 == 3 && i == 1) { /* decoding on a long cache: several splits */
            k = parity_draw(rng, 500, 1300);
            q = parity_draw(rng, 1, 2);
        }
        segments[i] = (emo_attention_segment){queries, q, keys, k};
        queries += q;
        keys += k;
    }
    int32_t kv_heads = (int32_t)parity_draw(rng, 1, 2), heads = kv_heads * (int32_t)parity_draw(rng, 1, 3);
    int32_t dim = (int32_t)parity_draw(rng, 1, 20) * 2;
    if (round == 4 || round == 9)
        dim = round == 4 ? 128 : 80;
    if (round == 7 || round == 12)
        dim = round == 7 ? 256 : 200;
    int64_t odd = round % 2; /* strides that rule out wide loads */
    int64_t qs = heads * dim + 3 * odd, ks = kv_heads * dim + odd, os = heads * dim + 2 * odd;
    float *q = test_floats((size_t)(queries * qs), 1, 1.0f), *k = test_floats((size_t)(keys * ks), 2, 1.0f);
    float *v = test_floats((size_t)(keys * ks), 3, 1.0f), *d_o = test_floats((size_t)(queries * os), 4, 1.0f);
    sides_out o = sides_floats(queries * os, 5), lse = sides_floats(queries * heads, 6);
    sides_out dq = sides_floats(queries * qs, 7), dk = sides_floats(keys * ks, 8), dv = sides_floats(keys * ks, 9);
    int sliced = round % 4 == 1;
    for (side->side = 0; side->side < SIDES_COUNT; side->side++) {
        emo_attention_args a = {.n_segments = n,
                                .segments = segments,
                                .q_first = sliced ? queries / 3 : 0,
                                .q_last = sliced ? queries * 2 / 3 : queries,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .head_dim = dim,
                                .scale = 0.3f,
                                .q_stride = qs,
                                .kv_stride = ks,
                                .o_stride = os};
        test_pages pages = {0};
        int64_t rows = keys * ks;
        a.k = k, a.v = v;
        if (cache) { /* in pages, as sessions keep them */
            pages = test_pages_make(&a, k, v, round % 2 == 0 ? 16 : 64);
            a.segments = pages.segments;
            rows = pages.floats;
        }
        a.q = sides_in(side, q, (size_t)(queries * qs) * 4);
        a.k = sides_in(side, a.k, (size_t)rows * 4), a.v = sides_in(side, a.v, (size_t)rows * 4);
        a.d_o = sides_in(side, d_o, (size_t)(queries * os) * 4);
        a.o = sides_io(side, &o), a.lse = sides_io(side, &lse);
        a.dq = sides_io(side, &dq), a.dk = sides_io(side, &dk), a.dv = sides_io(side, &dv);
        SIDES_RUN(side, attention_forward, &a);
        if (!sliced && !cache) /* training: whole documents */
            SIDES_RUN(side, attention_backward, &a);
        sides_finish(side, "attention");
        test_pages_free(&pages);
    }
    sides_close_enough("attention o", o, tolerance);
    sides_close_enough("attention lse", lse, tolerance);
    sides_close_enough("attention dq", dq, tolerance);
    sides_close_enough("attention dk", dk, tolerance);
    sides_close_enough("attention dv", dv, tolerance);
    free(q), free(k), free(v), free(d_o);
}

static void attention_f32(void **state) {
    (void)state;
    uint64_t rng = 3;
    sides side = sides_open(EMO_DTYPE_F32);
    for (int round = 0; round < ROUNDS; round++)
        run_round(&side, round, &rng, TOLERANCE_F32);
    sides_close(&side);
}

static void attention_bf16(void **state) {
    (void)state;
    uint64_t rng = 8;
    sides side = sides_open(EMO_DTYPE_BF16);
    for (int round = 0; round < ROUNDS; round++)
        run_round(&side, round, &rng, TOLERANCE_BF16);
    sides_close(&side);
}

/* Rows of one sequence, alone and beside others, slice by slice and at once: the same bits. */
static void rows_do_not_depend_on_others(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { DIM = 16, HEADS = 4, ROWS = 90, STRIDE = DIM * HEADS };
    static const emo_dtype computes[] = {EMO_DTYPE_F32, EMO_DTYPE_BF16};
    for (int c = 0; c < 2; c++) {
        sides side = sides_open(computes[c]);
        float *x = test_floats(ROWS * STRIDE, 1, 1.0f), *one = test_floats(ROWS * STRIDE, 2, 1.0f);
        float *two = test_floats(ROWS * STRIDE, 2, 1.0f);
        emo_attention_segment segments[2] = {{40, 50, 40, 50}, {0, 40, 0, 40}};
        for (side.side = 1; side.side < SIDES_COUNT; side.side++) {
            emo_attention_args a = {.segments = segments,
                                    .heads = HEADS,
                                    .kv_heads = HEADS,
                                    .head_dim = DIM,
                                    .scale = 0.25f,
                                    .q_stride = STRIDE,
                                    .kv_stride = STRIDE,
                                    .o_stride = STRIDE};
            a.q = a.k = a.v = sides_in(&side, x, sizeof(float) * ROWS * STRIDE);
            a.o = sides_put(&side, side.side == 1 ? one : two, sizeof(float) * ROWS * STRIDE, 1);
            a.n_segments = side.side; /* alone, then beside another */
            a.q_last = side.side == 1 ? ROWS : 57;
            SIDES_RUN(&side, attention_forward, &a);
            if (side.side == 2) {
                a.q_first = 57, a.q_last = ROWS;
                SIDES_RUN(&side, attention_forward, &a);
            }
            sides_finish(&side, "attention");
        }
        assert_memory_equal(one + 40 * STRIDE, two + 40 * STRIDE, sizeof(float) * 50 * STRIDE);
        free(x), free(one), free(two);
        sides_close(&side);
    }
}

/* New keys and values, all of them or a slice, into dense rows and into pages; what is beside them stays. */
static void new_keys_are_stored(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    uint64_t rng = 5;
    sides side = sides_open(EMO_DTYPE_F32);
    for (int round = 0; round < 8; round++) {
        int64_t n = parity_draw(&rng, 1, SEGMENTS), queries = 0, keys = 0, width = parity_draw(&rng, 1, 40);
        emo_attention_segment segments[SEGMENTS];
        for (int64_t i = 0; i < n; i++) {
            int64_t k = parity_draw(&rng, 1, 90), q = i == 0 ? 1 : parity_draw(&rng, 1, k);
            segments[i] = (emo_attention_segment){queries, q, keys, k};
            queries += q;
            keys += k;
        }
        emo_attention_args a = {.n_segments = n, .segments = segments, .kv_heads = 1, .head_dim = (int32_t)width};
        a.kv_stride = width;
        float *k = test_floats((size_t)(queries * width), 1, 1.0f),
              *v = test_floats((size_t)(queries * width), 2, 1.0f);
        float *old = test_floats((size_t)(keys * width), 3, 1.0f);
        test_pages pages = {0};
        if (round % 2 == 1) {
            pages = test_pages_make(&a, old, old, round % 4 == 1 ? 4 : 32);
            a.segments = pages.segments;
        }
        int64_t floats = round % 2 == 1 ? pages.floats : keys * width;
        sides_out cache_k = sides_floats(floats, 4), cache_v = sides_floats(floats, 5);
        for (side.side = 0; side.side < SIDES_COUNT; side.side++) {
            emo_store_kv_args s = {.n_segments = n,
                                   .segments = a.segments,
                                   .first = round % 3 == 2 ? queries / 3 : 0,
                                   .last = round % 3 == 2 ? queries * 2 / 3 : queries,
                                   .width = width,
                                   .page_rows = a.page_rows,
                                   .pages = a.pages};
            s.k = sides_in(&side, k, (size_t)(queries * width) * 4);
            s.v = sides_in(&side, v, (size_t)(queries * width) * 4);
            s.cache_k = sides_io(&side, &cache_k), s.cache_v = sides_io(&side, &cache_v);
            SIDES_RUN(&side, store_kv, &s);
            sides_finish(&side, "store_kv");
        }
        if (round % 6 == 0) /* dense, all of them: the last key of the last segment is the last new one */
            assert_memory_equal(cache_k.of[0] + (keys - 1) * width, k + (queries - 1) * width, (size_t)width * 4);
        sides_close_enough("store_kv k", cache_k, 0.0);
        sides_close_enough("store_kv v", cache_v, 0.0);
        test_pages_free(&pages);
        free(k), free(v), free(old);
    }
    sides_close(&side);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention_f32), cmocka_unit_test(attention_bf16),
                                       cmocka_unit_test(new_keys_are_stored),
                                       cmocka_unit_test(rows_do_not_depend_on_others)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
