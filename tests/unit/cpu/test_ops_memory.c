/* SPDX-License-Identifier: Apache-2.0 */
/* Every operator with scratch memory survives the failure of each of its allocations, and works afterwards. */
#include <math.h>

#include "support/meter.h"
#include "support/ops.h"
#include "tensor/dtype.h"

enum { TOKENS = 70, HIDDEN = 24, VOCAB = 50, N = TOKENS * HIDDEN };

static float *x, *y, *z, *w, *big;
static int32_t labels[TOKENS], ids[2];
static double sums[2];
static uint16_t half[HIDDEN];

static emo_status call(int which, const emo_backend_ops *ops, emo_exec *exec, emo_error *err) {
    static const emo_attention_segment segment = {0, TOKENS, 0, TOKENS};
    emo_attention_args attention = {.n_segments = 1, .segments = &segment, .q_last = TOKENS, .heads = 2};
    attention.kv_heads = 2;
    attention.head_dim = 12;
    attention.q = attention.k = attention.v = attention.d_o = x;
    attention.q_stride = attention.kv_stride = attention.o_stride = HIDDEN;
    attention.o = y;
    attention.lse = w;
    attention.dq = attention.dk = attention.dv = z;
    emo_norm_args norm = {TOKENS, HIDDEN, 1e-6f, x, test_weight(half, EMO_DTYPE_BF16, 1, HIDDEN), y, w, x, z, 0, big};
    emo_head_args head = {.tokens = TOKENS, .hidden = HIDDEN, .x = x, .labels = labels, .ce_scale = 1.0f, .dx = z};
    head.weight = test_weight(big, EMO_DTYPE_F32, VOCAB, HIDDEN);
    static const int32_t rows[2] = {3, 1};
    emo_head_logits_args logits = {2, HIDDEN, rows, x, head.weight, y};
    emo_sumsq_args sumsq = {N, x, sums};
    emo_sample_row how[2] = {{1.0f, 0, 0.9f, 0.0f, 1.0f, NULL, 0, 1, 1, 1},
                             {0.0f, 0, 1.0f, 0.0f, 1.0f, NULL, 0, 1, 1, 1}};
    emo_sample_args sample = {2, VOCAB, x, how, ids, NULL};
    switch (which) {
    case 0:
        return ops->attention_forward(exec, &attention, err);
    case 1:
        return ops->attention_backward(exec, &attention, err);
    case 2:
        return ops->norm_forward(exec, &norm, err);
    case 3:
        return ops->norm_backward(exec, &norm, err);
    case 4:
        return ops->head_loss(exec, &head, err);
    case 5:
        return ops->head_logits(exec, &logits, err);
    case 6:
        return ops->sumsq(exec, &sumsq, err);
    default:
        return ops->sample(exec, &sample, err);
    }
}

static void allocations_may_fail(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    x = test_floats(N, 1, 1.0f);
    y = test_floats(N, 2, 1.0f);
    z = test_floats(N, 3, 1.0f);
    w = test_floats(N, 4, 1.0f);
    big = test_floats(VOCAB * HIDDEN, 5, 1.0f);
    for (int i = 0; i < TOKENS; i++)
        labels[i] = i % VOCAB;
    for (int i = 0; i < HIDDEN; i++)
        half[i] = emo__f32_to_bf16(1.0f);
    for (int which = 0; which < 8; which++) {
        int failures = 0;
        for (long n = 0;; n++) {
            meter m = METER_INIT;
            emo_runtime *rt = meter_runtime(&m, 2);
            emo_exec *exec = NULL;
            EXPECT_OK(rt->cpu->ops->exec_create(rt->cpu, NULL, &exec, &err));
            meter_arm(&m, n, 1);
            emo_status status = call(which, rt->cpu->ops, exec, &err);
            int failed = status != EMO_OK;
            if (failed) {
                assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
                assert_true(strlen(err.message) > 0);
                meter_disarm(&m);
                EXPECT_OK(call(which, rt->cpu->ops, exec, &err));
                failures++;
            }
            rt->cpu->ops->exec_destroy(exec);
            emo_runtime_release(rt);
            meter_check(&m, "failing allocations");
            if (!failed)
                break;
        }
        assert_true(failures > 0); /* each of these needs scratch memory */
    }
    float *blocks[] = {x, y, z, w, big};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        free(blocks[i]);
}

static emo_exec *reserved(emo_runtime *rt, size_t bytes) {
    emo_error err = EMO_ERROR_INIT;
    emo_exec *exec = NULL;
    EXPECT_OK(rt->cpu->ops->exec_create(rt->cpu, NULL, &exec, &err));
    EXPECT_OK(rt->cpu->ops->exec_reserve(exec, bytes, &err));
    return exec;
}

/* The scratch of an exec that is gone serves the next one; one such region is kept, none that is little. */
static void scratch_passes_on(void **state) {
    (void)state;
    const size_t large = (size_t)6 << 20, small = (size_t)1 << 16;
    meter m = METER_INIT;
    emo_runtime *rt = meter_runtime(&m, 1);
    const emo_backend_ops *ops = rt->cpu->ops;
    long live = m.live;
    ops->exec_destroy(reserved(rt, small));
    assert_int_equal(m.live, live);
    ops->exec_destroy(reserved(rt, large));
    assert_int_equal(m.live, live + 1);
    long calls = m.calls;
    emo_exec *first = reserved(rt, large / 2), *second = NULL;
    assert_int_equal(m.calls, calls + 1); /* the exec alone */
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(ops->exec_reserve(first, large, &err)); /* it has room for more than was asked for at first */
    assert_int_equal(m.calls, calls + 1);
    second = reserved(rt, large);
    assert_int_equal(m.calls, calls + 3);
    ops->exec_destroy(first);
    ops->exec_destroy(second);
    assert_int_equal(m.live, live + 1);
    ops->exec_destroy(reserved(rt, 2 * large)); /* what was kept is too little */
    assert_int_equal(m.live, live + 1);
    assert_true(m.bytes >= (long)(2 * large));
    emo_runtime_release(rt);
    meter_check(&m, "scratch that was kept");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(allocations_may_fail), cmocka_unit_test(scratch_passes_on)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
