/* SPDX-License-Identifier: Apache-2.0 */
/* The head's losses, gradients and logits against sums in double. */
#include <math.h>

#include "support/ops.h"
#include "tensor/dtype.h"

enum { TOKENS = 301, HIDDEN = 37, VOCAB = 203 }; /* more than one chunk of tokens */

typedef struct head {
    emo_head_args args;
    float *x, *w, *dx, *dw, *dw_base, *loss;
    void *data;
    int32_t labels[TOKENS];
    double ce, z;
} head;

static void open_head(head *h, emo_dtype dtype) {
    h->x = test_floats(TOKENS * HIDDEN, 1, 1.0f);
    h->w = test_floats(VOCAB * HIDDEN, 2, 1.0f);
    h->dx = test_floats(TOKENS * HIDDEN, 3, 1.0f);
    h->dw = test_floats(VOCAB * HIDDEN, 4, 1.0f);
    h->dw_base = test_floats(VOCAB * HIDDEN, 4, 1.0f);
    h->loss = test_floats(TOKENS, 5, 1.0f);
    h->data = malloc(VOCAB * HIDDEN * sizeof(float));
    assert_non_null(h->data);
    assert_true(emo__convert(h->data, dtype, h->w, EMO_DTYPE_F32, VOCAB * HIDDEN));
    assert_true(emo__convert(h->w, EMO_DTYPE_F32, h->data, dtype, VOCAB * HIDDEN));
    for (int i = 0; i < TOKENS; i++)
        h->labels[i] = i % 7 == 3 ? -100 : i * 31 % VOCAB;
    h->ce = 10.0;
    h->z = 20.0;
    emo_head_args a = {TOKENS,    HIDDEN,  h->x,   test_weight(h->data, dtype, VOCAB, HIDDEN),
                       h->labels, h->loss, &h->ce, &h->z,
                       0.5f,      0.01f,   h->dx,  h->dw};
    h->args = a;
}

static void close_head(head *h) {
    void *all[] = {h->x, h->w, h->dx, h->dw, h->dw_base, h->loss, h->data};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

static void matches_the_definition(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    static const emo_dtype dtypes[] = {EMO_DTYPE_F32, EMO_DTYPE_F16, EMO_DTYPE_BF16};
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    for (size_t c = 0; c < 3; c++) {
        head h;
        open_head(&h, dtypes[c]);
        double *dw = calloc(VOCAB * HIDDEN, sizeof(double)), *dx = calloc(TOKENS * HIDDEN, sizeof(double));
        double loss[TOKENS], p[VOCAB], ce = 10.0, z = 20.0;
        assert_true(dw != NULL && dx != NULL);
        for (int t = 0; t < TOKENS; t++) {
            double sum = 0.0;
            loss[t] = 0.0;
            if (h.labels[t] < 0)
                continue;
            for (int v = 0; v < VOCAB; v++) {
                p[v] = 0.0;
                for (int i = 0; i < HIDDEN; i++)
                    p[v] += (double)h.x[t * HIDDEN + i] * (double)h.w[v * HIDDEN + i];
                sum += exp(p[v]);
            }
            double lse = log(sum);
            loss[t] = lse - p[h.labels[t]];
            ce += loss[t];
            z += lse * lse;
            for (int v = 0; v < VOCAB; v++) {
                double q = exp(p[v] - lse);
                double g = 0.5 * (q - (v == h.labels[t])) + 0.01 * 2.0 * lse * q;
                for (int i = 0; i < HIDDEN; i++) {
                    dx[t * HIDDEN + i] += g * (double)h.w[v * HIDDEN + i];
                    dw[v * HIDDEN + i] += g * (double)h.x[t * HIDDEN + i];
                }
            }
        }
        for (size_t l = 0; l < n_levels; l++) {
            test_device d = test_device_open(2, levels[l]);
            memcpy(h.dw, h.dw_base, VOCAB * HIDDEN * sizeof(float));
            h.ce = 10.0;
            h.z = 20.0;
            EXPECT_OK(d.ops->head_loss(d.exec, &h.args, &err));
            test_device_close(&d);
            /* f32 sums of 203 exponentials and of dot products of length 37 */
            for (int t = 0; t < TOKENS; t++)
                assert_true(fabs((double)h.loss[t] - loss[t]) < 1e-5);
            assert_true(fabs(h.ce - ce) < 1e-4 && fabs(h.z - z) < 1e-3);
            for (int i = 0; i < TOKENS * HIDDEN; i++)
                assert_true(fabs((double)h.dx[i] - dx[i]) < 5e-6);
            for (int i = 0; i < VOCAB * HIDDEN; i++)
                assert_true(fabs((double)h.dw[i] - (double)h.dw_base[i] - dw[i]) < 1e-5);
        }
        free(dw);
        free(dx);
        close_head(&h);
    }
}

static void threads_and_wanted_outputs_do_not_matter(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    head one, other;
    open_head(&one, EMO_DTYPE_F32);
    open_head(&other, EMO_DTYPE_F32);
    test_device d = test_device_open(1, EMO_ISA_AUTO);
    EXPECT_OK(d.ops->head_loss(d.exec, &one.args, &err));
    test_device_close(&d);
    for (int32_t threads = 2; threads <= 4; threads += 2) {
        memcpy(other.dw, other.dw_base, VOCAB * HIDDEN * sizeof(float));
        other.ce = 10.0;
        other.z = 20.0;
        d = test_device_open(threads, EMO_ISA_AUTO);
        EXPECT_OK(d.ops->head_loss(d.exec, &other.args, &err));
        assert_memory_equal(one.dx, other.dx, TOKENS * HIDDEN * sizeof(float));
        assert_memory_equal(one.dw, other.dw, VOCAB * HIDDEN * sizeof(float));
        assert_memory_equal(one.loss, other.loss, TOKENS * sizeof(float));
        assert_true(one.ce == other.ce && one.z == other.z);
        /* losses only */
        emo_head_args a = other.args;
        a.dx = a.d_weight = NULL;
        other.ce = 10.0;
        a.z_sum = NULL;
        EXPECT_OK(d.ops->head_loss(d.exec, &a, &err));
        assert_memory_equal(one.loss, other.loss, TOKENS * sizeof(float));
        assert_true(one.ce == other.ce);
        test_device_close(&d);
    }
    close_head(&one);
    close_head(&other);
}

static void logits_of_chosen_rows(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    head h;
    open_head(&h, EMO_DTYPE_BF16);
    emo_isa levels[4];
    size_t n_levels = test_levels(levels);
    static const int32_t rows[] = {300, 0, 17, 17};
    float *all = test_floats(TOKENS * VOCAB, 1, 1.0f), chosen[4 * VOCAB];
    for (size_t l = 0; l < n_levels; l++) {
        test_device d = test_device_open(2, levels[l]);
        emo_head_logits_args a = {TOKENS, HIDDEN, NULL, h.x, h.args.weight, all};
        EXPECT_OK(d.ops->head_logits(d.exec, &a, &err));
        for (int t = 0; t < TOKENS; t += 50) {
            for (int v = 0; v < VOCAB; v++) {
                double want = 0.0;
                for (int i = 0; i < HIDDEN; i++)
                    want += (double)h.x[t * HIDDEN + i] * (double)h.w[v * HIDDEN + i];
                assert_true(fabs((double)all[t * VOCAB + v] - want) < 1e-5);
            }
        }
        for (int n = 1; n <= 4; n++) { /* also one at a time: the bits stay */
            emo_head_logits_args b = {n, HIDDEN, rows, h.x, h.args.weight, chosen};
            EXPECT_OK(d.ops->head_logits(d.exec, &b, &err));
            for (int r = 0; r < n; r++)
                assert_memory_equal(chosen + r * VOCAB, all + rows[r] * VOCAB, VOCAB * sizeof(float));
        }
        test_device_close(&d);
    }
    free(all);
    close_head(&h);
}

static void refuses_labels_outside(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    head h;
    open_head(&h, EMO_DTYPE_F32);
    test_device d = test_device_open(1, EMO_ISA_AUTO);
    h.labels[5] = VOCAB;
    EXPECT_STATUS(d.ops->head_loss(d.exec, &h.args, &err), EMO_E_INVALID_ARGUMENT, "token 5");
    h.labels[5] = -1;
    EXPECT_STATUS(d.ops->head_loss(d.exec, &h.args, &err), EMO_E_INVALID_ARGUMENT, "label -1");
    test_device_close(&d);
    close_head(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_the_definition),
        cmocka_unit_test(threads_and_wanted_outputs_do_not_matter),
        cmocka_unit_test(logits_of_chosen_rows),
        cmocka_unit_test(refuses_labels_outside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
