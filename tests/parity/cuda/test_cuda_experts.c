/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA experts against the CPU's on random shapes, in f32 and in bf16. */
#include "parity/cuda/sides.h"

/* f32: sums of at most a few hundred terms of order 1 in another order, three products in a row. */
#define TOLERANCE_F32 2e-5
/* bf16 keeps 8 bits: every operand is off by up to 2^-9 of itself, and so are h, d_gate|d_up and the rows that are
 * summed per token. Errors of the terms of a sum are independent, so that relative to the largest result they stay near
 * 2^-8; a wrong formula is off by a tenth and more. */
#define TOLERANCE_BF16 2e-2
enum { MAX_EXPERTS = 12 };

typedef struct round_shape {
    int32_t n, k;
    int64_t tokens, hidden, inner;
    emo_dtype dtype;
} round_shape;

static void run_round(sides *side, const round_shape *s, int round, uint64_t *rng, double tolerance) {
    emo_error err = EMO_ERROR_INIT;
    int32_t n = s->n, k = s->k;
    int64_t tokens = s->tokens, d = s->hidden, inner = s->inner, rows = tokens * k, matrix = inner * d;
    int32_t *ids = malloc((size_t)(rows + 1) * 4), *order = malloc((size_t)(rows + 1) * 4);
    int32_t *inverse = malloc((size_t)(rows + 1) * 4), offsets[MAX_EXPERTS + 1];
    assert_true(ids != NULL && order != NULL && inverse != NULL);
    for (int64_t i = 0; i < rows; i++) { /* the last expert stays empty; some entries are left out */
        ids[i] = (int32_t)parity_draw(rng, -1, n > 1 ? n - 2 : 0);
        order[i] = 0;
    }
    emo_plan_args plan = {tokens, k, n, ids, offsets, order, inverse};
    EXPECT_OK(side->cpu.ops->plan(side->cpu.exec, &plan, &err));
    emo_expert_slot host[MAX_EXPERTS], slots[MAX_EXPERTS];
    void *bytes[3 * MAX_EXPERTS];
    memset(host, 0, sizeof host);
    for (int32_t e = 0; e < n; e++) {
        host[e].gate = parity_weight(s->dtype, inner, d, 20 + (uint64_t)e, &bytes[3 * e]);
        host[e].up = parity_weight(s->dtype, inner, d, 40 + (uint64_t)e, &bytes[3 * e + 1]);
        host[e].down = parity_weight(s->dtype, d, inner, 60 + (uint64_t)e, &bytes[3 * e + 2]);
        if (offsets[e + 1] == offsets[e]) /* nobody chose it: it need not be loaded */
            host[e].gate.data = host[e].up.data = host[e].down.data = NULL;
    }
    float *x = test_floats((size_t)(tokens * d), 1, 1.0f), *dy = test_floats((size_t)(tokens * d), 2, 1.0f);
    float *weights = test_floats((size_t)rows, 3, 1.0f);
    sides_out saved = sides_floats(rows * 2 * inner, 4), y = sides_floats(tokens * d, 5), norm = sides_floats(rows, 6);
    sides_out dx = sides_floats(tokens * d, 7), dw = sides_floats(rows, 8), grads = sides_floats(3 * n * matrix, 9);
    for (side->side = 0; side->side < SIDES_COUNT; side->side++) {
        emo_experts_args a = {
            .tokens = tokens, .hidden = d, .inner = inner, .k_total = k, .experts = n, .accumulate = round & 1};
        float *g = sides_io(side, &grads);
        for (int32_t e = 0; e < n; e++) {
            slots[e] = host[e];
            slots[e].gate = sides_weight(side, host[e].gate);
            slots[e].up = sides_weight(side, host[e].up);
            slots[e].down = sides_weight(side, host[e].down);
            if (round % 5 == 4 && e % 2 == 0)
                continue; /* gradients of some experts are not wanted, of others only some */
            slots[e].d_gate = g + 3 * e * matrix;
            slots[e].d_up = round % 5 == 2 && e % 3 == 0 ? NULL : slots[e].d_gate + matrix;
            slots[e].d_down = slots[e].d_gate + 2 * matrix;
        }
        a.table = (emo_expert_table){slots, n, NULL};
        if (side->side != SIDES_CPU)
            EXPECT_OK(side->ops->table_sync(side->exec, &a.table, &err));
        a.x = sides_in(side, x, (size_t)(tokens * d) * 4), a.dy = sides_in(side, dy, (size_t)(tokens * d) * 4);
        a.offsets = sides_in(side, offsets, (size_t)(n + 1) * 4);
        a.order = sides_in(side, order, (size_t)rows * 4), a.inverse = sides_in(side, inverse, (size_t)rows * 4);
        a.weights = sides_in(side, weights, (size_t)rows * 4);
        float *kept = sides_io(side, &saved);
        a.saved = round % 4 == 3 ? NULL : kept;
        a.y = sides_io(side, &y), a.out_norm = sides_io(side, &norm), a.d_weights = sides_io(side, &dw);
        float *d_x = sides_io(side, &dx);
        a.dx = round % 7 == 3 ? NULL : d_x;
        SIDES_RUN(side, experts_forward, &a);
        if (a.saved != NULL)
            SIDES_RUN(side, experts_backward, &a);
        sides_finish(side, "experts");
        if (side->side != SIDES_CPU)
            side->ops->table_free(side->backend, &a.table);
    }
    /* rows past the plan's end are undefined */
    for (int64_t i = offsets[n] * 2 * inner; i < rows * 2 * inner; i++)
        saved.of[1][i] = saved.of[2][i] = saved.of[0][i];
    sides_close_enough("experts saved", saved, tolerance);
    sides_close_enough("experts y", y, tolerance);
    sides_close_enough("experts out_norm", norm, tolerance);
    sides_close_enough("experts dx", dx, tolerance);
    sides_close_enough("experts d_weights", dw, tolerance);
    sides_close_enough("experts gradients", grads, tolerance);
    for (int32_t i = 0; i < 3 * n; i++)
        free(bytes[i]);
    free(ids), free(order), free(inverse), free(x), free(dy), free(weights);
}

static void run_rounds(emo_dtype compute, double tolerance, uint64_t rng) {
    sides side = sides_open(compute);
    for (int round = 0; round < 14; round++) {
        round_shape s = {.n = (int32_t)parity_draw(&rng, 1, MAX_EXPERTS),
                         .k = (int32_t)parity_draw(&rng, 1, 5),
                         .tokens = parity_draw(&rng, 1, 90),
                         .hidden = parity_draw(&rng, 1, 70),
                         .inner = parity_draw(&rng, 1, 70),
                         .dtype = parity_dtype(&rng)};
        if (round == 5 || round == 6) { /* the large tiles: 64 rows an expert, 128 columns */
            s.n = 2 + round % 2;
            s.tokens = 150;
            s.k = 2;
            s.hidden = round == 5 ? 136 : 131;
            s.inner = round == 5 ? 144 : 150;
            s.dtype = round == 5 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
        }
        if (round % 3 == 1) { /* what 16-byte copies can take */
            s.hidden = (s.hidden + 7) / 8 * 8;
            s.inner = (s.inner + 7) / 8 * 8;
            s.dtype = EMO_DTYPE_BF16;
        }
        run_round(&side, &s, round, &rng, tolerance);
    }
    sides_close(&side);
}

static void experts_f32(void **state) {
    (void)state;
    run_rounds(EMO_DTYPE_F32, TOLERANCE_F32, 6);
}

static void experts_bf16(void **state) {
    (void)state;
    run_rounds(EMO_DTYPE_BF16, TOLERANCE_BF16, 8);
}

/* ---- in phases ---- */

/* The slots of experts e with e % of == which have data; of 1: all of them. */
static void call_part(sides *side, emo_experts_args *a, const emo_expert_slot *all, int32_t which, int32_t of) {
    emo_error err = EMO_ERROR_INIT;
    emo_expert_slot slots[MAX_EXPERTS];
    for (int32_t e = 0; e < a->experts; e++) {
        slots[e] = all[e];
        if (e % of != which)
            slots[e].gate.data = slots[e].up.data = slots[e].down.data = NULL;
    }
    a->table = (emo_expert_table){slots, a->experts, NULL};
    EXPECT_OK(side->ops->table_sync(side->exec, &a->table, &err));
    SIDES_RUN(side, experts_forward, a);
    side->ops->table_free(side->backend, &a->table);
    memset(&a->table, 0, sizeof a->table); /* COMBINE does not look at it */
}

/* On one side in one call, on the other in as many as `parts` says: the same bits. Shapes with large tiles too, and the
 * same tokens in two calls, whose tiles are small. */
static void run_phases(sides *side, const round_shape *s, int32_t parts, int accumulate) {
    emo_error err = EMO_ERROR_INIT;
    int32_t n = s->n, k = s->k, offsets[MAX_EXPERTS + 1];
    int64_t d = s->hidden, tokens = s->tokens, rows = tokens * k;
    void *bytes[3 * MAX_EXPERTS];
    emo_expert_slot host[MAX_EXPERTS], slots[MAX_EXPERTS];
    memset(host, 0, sizeof host);
    for (int32_t e = 0; e < n; e++) {
        host[e].gate = parity_weight(s->dtype, s->inner, d, 20 + (uint64_t)e, &bytes[3 * e]);
        host[e].up = parity_weight(s->dtype, s->inner, d, 40 + (uint64_t)e, &bytes[3 * e + 1]);
        host[e].down = parity_weight(s->dtype, d, s->inner, 60 + (uint64_t)e, &bytes[3 * e + 2]);
    }
    int32_t *ids = malloc((size_t)rows * 4), *order = malloc((size_t)rows * 4), *inverse = malloc((size_t)rows * 4);
    float *x = test_floats((size_t)(tokens * d), 1, 1.0f), *weights = test_floats((size_t)rows, 3, 1.0f);
    sides_out y = sides_floats(tokens * d, 5), norm = sides_floats(rows, 6);
    sides_out out = sides_floats(rows * ((d + 3) / 4 * 4), 7);
    assert_true(ids != NULL && order != NULL && inverse != NULL);
    for (int64_t i = 0; i < rows; i++)
        ids[i] = (int32_t)(i * 7 % (n > 1 ? n - 1 : 1)); /* the last expert stays empty */
    for (side->side = 1; side->side < SIDES_COUNT; side->side++) {
        int64_t calls = side->side == 1 ? 1 : 2;
        for (int32_t e = 0; e < n; e++) {
            slots[e] = host[e];
            slots[e].gate = sides_weight(side, host[e].gate);
            slots[e].up = sides_weight(side, host[e].up);
            slots[e].down = sides_weight(side, host[e].down);
        }
        const float *device_x = sides_in(side, x, (size_t)(tokens * d) * 4);
        const float *device_weights = sides_in(side, weights, (size_t)rows * 4);
        float *device_y = sides_io(side, &y), *device_norm = sides_io(side, &norm), *device_out = sides_io(side, &out);
        for (int64_t c = 0; c < calls; c++) {
            int64_t first = tokens * c / calls, count = tokens * (c + 1) / calls - first;
            emo_plan_args plan = {count, k, n, ids + first * k, offsets, order, inverse};
            emo_experts_args a = {
                .tokens = count, .hidden = d, .inner = s->inner, .k_total = k, .experts = n, .accumulate = accumulate};
            EXPECT_OK(side->cpu.ops->plan(side->cpu.exec, &plan, &err));
            a.x = device_x + first * d;
            a.offsets = sides_in(side, offsets, (size_t)(n + 1) * 4);
            a.order = sides_in(side, order, (size_t)(count * k) * 4);
            a.inverse = sides_in(side, inverse, (size_t)(count * k) * 4);
            a.weights = device_weights + first * k;
            a.y = device_y + first * d;
            a.out_norm = device_norm + first * k;
            if (side->side > 1) {
                a.out = device_out;
                a.phases = EMO_EXPERTS_RUN;
                for (int32_t part = 0; part < parts; part++)
                    call_part(side, &a, slots, part, parts);
                a.phases = EMO_EXPERTS_COMBINE;
                SIDES_RUN(side, experts_forward, &a);
            } else {
                call_part(side, &a, slots, 0, 1);
            }
        }
        sides_finish(side, "experts in phases");
    }
    assert_memory_equal(y.of[1], y.of[2], y.n * sizeof(float));
    assert_memory_equal(norm.of[1], norm.of[2], norm.n * sizeof(float));
    sides_free(&y), sides_free(&norm), sides_free(&out);
    for (int32_t i = 0; i < 3 * n; i++)
        free(bytes[i]);
    free(ids), free(order), free(inverse), free(x), free(weights);
}

static void phases_keep_the_bits(void **state) {
    (void)state;
    static const round_shape shapes[] = {{8, 3, 20, 40, 24, EMO_DTYPE_BF16},
                                         {5, 2, 9, 13, 7, EMO_DTYPE_F32},
                                         {12, 4, 1, 32, 16, EMO_DTYPE_BF16},
                                         {1, 1, 3, 2, 5, EMO_DTYPE_F32},
                                         {2, 2, 120, 128, 136, EMO_DTYPE_BF16}};
    for (int compute = 0; compute < 2; compute++) {
        sides side = sides_open(compute ? EMO_DTYPE_BF16 : EMO_DTYPE_F32);
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            run_phases(&side, &shapes[i], 1 + (int32_t)i % 4, (int)i % 2);
        sides_close(&side);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(experts_f32), cmocka_unit_test(experts_bf16),
                                       cmocka_unit_test(phases_keep_the_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
