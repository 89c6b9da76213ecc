/* SPDX-License-Identifier: Apache-2.0 */
/* Operators in parts: whatever windows their tasks are shown through, the bits are those of whole calls. */
#include <math.h>

#include "backend/composed.h"
#include "support/ops.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

enum { HIDDEN = 96, INNER = 64, EXPERTS = 5, CHOSEN = 3, MOST = 70, VOCAB = 333, HEADS = 6, KV_HEADS = 2, DIM = 20 };
enum { KEYS = 700, WIDTH = HEADS * DIM, KV_WIDTH = KV_HEADS * DIM };

typedef struct problem {
    test_device device;
    int64_t tokens;
    emo_dtype dtype; /* of the weights */
    float x[MOST * HIDDEN], q[MOST * WIDTH], k[KEYS * KV_WIDTH], v[KEYS * KV_WIDTH], weights[MOST * CHOSEN];
    int32_t indices[MOST * CHOSEN], offsets[EXPERTS + 1], order[MOST * CHOSEN], inverse[MOST * CHOSEN];
    int32_t rows[3];
    emo_weight linear, head, bias;
    emo_expert_slot slots[EXPERTS];
    void *memory[3 * EXPERTS + 3];
    int n_memory;
} problem;

/* What an operator leaves; the first member is the only one that it adds to. */
typedef struct result {
    float sum[MOST * HIDDEN];
    float out[MOST * VOCAB];
    float more[MOST * VOCAB];
} result;

static emo_weight weight(problem *p, int64_t rows, int64_t cols, uint64_t seed) {
    size_t n = (size_t)(rows * cols);
    float *values = test_floats(n, seed, 0.3f);
    void *data = malloc(n * sizeof(float));
    assert_non_null(data);
    if (emo__dtype_quantised(p->dtype))
        assert_true(emo__quantise(data, p->dtype, values, n));
    else
        assert_true(emo__convert(data, p->dtype, values, EMO_DTYPE_F32, n));
    free(values);
    p->memory[p->n_memory++] = data;
    return test_weight(data, p->dtype, rows, cols);
}

static problem *make(int32_t threads, emo_isa isa, emo_dtype compute, emo_dtype dtype, int64_t tokens) {
    emo_error err = EMO_ERROR_INIT;
    problem *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->device = (test_device){test_runtime(threads, isa), NULL, NULL};
    p->device.ops = p->device.rt->cpu->ops;
    const emo_exec_options options = {.compute = compute};
    EXPECT_OK(p->device.ops->exec_create(p->device.rt->cpu, &options, &p->device.exec, &err));
    p->tokens = tokens;
    p->dtype = dtype;
    test_fill(p->x, MOST * HIDDEN, 1, 1.0f);
    test_fill(p->q, MOST * WIDTH, 2, 1.0f);
    test_fill(p->k, KEYS * KV_WIDTH, 3, 1.0f);
    test_fill(p->v, KEYS * KV_WIDTH, 4, 1.0f);
    test_fill(p->weights, MOST * CHOSEN, 5, 1.0f);
    for (int32_t i = 0; i < (int32_t)tokens * CHOSEN; i++)
        p->indices[i] = i % 11 == 7 ? -1 : (i / CHOSEN * 3 + i % CHOSEN * 2) % (EXPERTS - 1); /* none for the last */
    const emo_plan_args plan = {tokens, CHOSEN, EXPERTS, p->indices, p->offsets, p->order, p->inverse};
    EXPECT_OK(p->device.ops->plan(p->device.exec, &plan, &err));
    p->rows[0] = 0;
    p->rows[1] = (int32_t)tokens / 2;
    p->rows[2] = (int32_t)tokens - 1;
    p->linear = weight(p, HIDDEN, HIDDEN, 10);
    p->head = weight(p, VOCAB, HIDDEN, 11);
    for (int e = 0; e < EXPERTS; e++) {
        p->slots[e].gate = weight(p, INNER, HIDDEN, 20 + (uint64_t)e);
        p->slots[e].up = weight(p, INNER, HIDDEN, 30 + (uint64_t)e);
        p->slots[e].down = weight(p, HIDDEN, INNER, 40 + (uint64_t)e);
    }
    p->bias = test_weight(p->x + 7, EMO_DTYPE_F32, 1, HIDDEN);
    return p;
}

static void drop(problem *p) {
    while (p->n_memory > 0)
        free(p->memory[--p->n_memory]);
    test_device_close(&p->device);
    free(p);
}

/* Two in one list of tasks, one of which adds. */
static void linear(problem *p, result *r) {
    emo_error err = EMO_ERROR_INIT;
    emo_linear_args a = {.tokens = p->tokens, .x = p->x, .x_stride = HIDDEN, .weight = p->linear, .y = r->sum};
    a.bias = p->bias;
    a.y_stride = HIDDEN;
    a.accumulate = 1;
    EXPECT_OK(p->device.ops->linear_forward(p->device.exec, &a, &err));
    a.bias.data = NULL;
    a.accumulate = 0;
    a.y = r->out;
    a.y_stride = HIDDEN + 5;
    EXPECT_OK(p->device.ops->linear_forward(p->device.exec, &a, &err));
}

static void experts(problem *p, result *r) {
    emo_error err = EMO_ERROR_INIT;
    const emo_experts_args a = {.tokens = p->tokens,
                                .hidden = HIDDEN,
                                .inner = INNER,
                                .k_total = CHOSEN,
                                .experts = EXPERTS,
                                .x = p->x,
                                .offsets = p->offsets,
                                .order = p->order,
                                .inverse = p->inverse,
                                .weights = p->weights,
                                .table = {p->slots, EXPERTS, NULL},
                                .y = r->sum,
                                .accumulate = 1,
                                .out_norm = r->out};
    EXPECT_OK(p->device.ops->experts_forward(p->device.exec, &a, &err));
}

/* A long cache with few rows, a short one, one with as many keys as rows. */
static void attention(problem *p, result *r) {
    emo_error err = EMO_ERROR_INIT;
    int64_t most = p->tokens;
    const emo_attention_segment segments[3] = {
        {0, most / 2, 0, 515}, {most / 2, most - most / 2, 515, 80}, {most, 0, 600, 1}};
    const emo_attention_args a = {.n_segments = 3,
                                  .segments = segments,
                                  .q_first = 0,
                                  .q_last = most,
                                  .heads = HEADS,
                                  .kv_heads = KV_HEADS,
                                  .head_dim = DIM,
                                  .scale = 0.25f,
                                  .q = p->q,
                                  .q_stride = WIDTH,
                                  .k = p->k,
                                  .v = p->v,
                                  .kv_stride = KV_WIDTH,
                                  .o = r->out,
                                  .o_stride = WIDTH,
                                  .lse = r->more};
    EXPECT_OK(p->device.ops->attention_forward(p->device.exec, &a, &err));
}

static void dense(problem *p, result *r) {
    emo_error err = EMO_ERROR_INIT;
    const emo_swiglu_args a = {
        .tokens = p->tokens, .inner = HIDDEN / 2, .gate = p->x, .up = p->x + HIDDEN / 2, .stride = HIDDEN, .y = r->out};
    EXPECT_OK(p->device.ops->swiglu_forward(p->device.exec, &a, &err));
}

static void head(problem *p, result *r) {
    emo_error err = EMO_ERROR_INIT;
    const emo_head_logits_args a = {p->tokens < 3 ? 1 : 3, HIDDEN, p->rows, p->x, p->head, r->out};
    EXPECT_OK(p->device.ops->head_logits(p->device.exec, &a, &err));
}

static void same_in_parts(problem *p, void (*run)(problem *, result *), int64_t work, int64_t step, int64_t least) {
    result *want = calloc(1, sizeof *want), *got = calloc(1, sizeof *got);
    assert_non_null(want);
    assert_non_null(got);
    test_fill(want->sum, MOST * HIDDEN, 77, 1.0f);
    memcpy(got->sum, want->sum, sizeof got->sum);
    run(p, want);
    int64_t tasks = INT64_MAX, first = 0;
    for (int64_t last; first < tasks; first = last) {
        last = first + 1 + (first * 7 + 3) % step;
        assert_int_equal(p->device.ops->window(p->device.exec, first, last, work), 0);
        run(p, got);
        int64_t count = p->device.ops->window(p->device.exec, 0, 0, 0);
        assert_true(first == 0 || count == tasks);
        tasks = count;
    }
    assert_true(tasks >= least);
    assert_memory_equal(got, want, sizeof *got);
    memset(got, 0, sizeof *got); /* and whole calls are whole again */
    test_fill(got->sum, MOST * HIDDEN, 77, 1.0f);
    run(p, got);
    assert_memory_equal(got, want, sizeof *got);
    free(want);
    free(got);
}

static void parts_are_the_whole(void **state) {
    (void)state;
    static const struct {
        emo_isa isa;
        emo_dtype compute, dtype;
    } kinds[] = {{EMO_ISA_AUTO, EMO_DTYPE_F32, EMO_DTYPE_F32},
                 {EMO_ISA_SCALAR, EMO_DTYPE_F32, EMO_DTYPE_BF16},
                 {EMO_ISA_AUTO, EMO_DTYPE_BF16, EMO_DTYPE_BF16},
                 {EMO_ISA_AUTO, EMO_DTYPE_BF16, EMO_DTYPE_Q8_0},
                 {EMO_ISA_AUTO, EMO_DTYPE_F32, EMO_DTYPE_Q4_0}};
    static const int64_t tokens[] = {1, 2, MOST}, work[] = {1, 50000, 400000};
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++)
        for (size_t n = 0; n < sizeof tokens / sizeof tokens[0]; n++) {
            problem *p = make(n == 1 ? 1 : 3, kinds[kind].isa, kinds[kind].compute, kinds[kind].dtype, tokens[n]);
            for (size_t w = 0; w < sizeof work / sizeof work[0]; w++)
                for (int64_t step = 1; step < 30; step += 13) {
                    int small = work[w] == 1;
                    same_in_parts(p, linear, work[w], step, small ? 4 : 2);
                    same_in_parts(p, experts, work[w], step, small ? 10 : 3);
                    same_in_parts(p, attention, work[w], step, small && n > 0 ? 11 : 2);
                    same_in_parts(p, dense, work[w], step, 1);
                    same_in_parts(p, head, work[w], step, small ? 6 : 1);
                }
            drop(p);
        }
}

/* Composed operators do not run in parts: a table that needs one of those that must has no window. */
static void composed_operators_run_whole(void **state) {
    (void)state;
    test_device d = test_device_open(1, EMO_ISA_SCALAR);
    emo_backend_ops ops = *d.ops;
    emo__backend_complete(&ops);
    assert_true(ops.window != NULL && ops.window == d.ops->window);
    ops.norm_forward = NULL;
    emo__backend_complete(&ops);
    assert_non_null(ops.window);
    ops.experts_forward = NULL;
    emo__backend_complete(&ops);
    assert_null(ops.window);
    test_device_close(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_are_the_whole),
                                       cmocka_unit_test(composed_operators_run_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
