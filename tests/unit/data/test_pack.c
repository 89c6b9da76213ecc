/* SPDX-License-Identifier: Apache-2.0 */
/* Training rows: a pure function of dataset, seed, length and row number. */
#include "data/dataset.h"
#include "data/pack.h"
#include "support/support.h"
#include "tensor/philox.h"

enum { DOCS = 13, EOS = 1000 };

static emo_dataset *dataset(emo_runtime *rt, int32_t eos) {
    emo_error err = EMO_ERROR_INIT;
    emo_dataset *ds = NULL;
    int32_t tokens[DOCS * DOCS];
    size_t lengths[DOCS];
    size_t at = 0;
    for (size_t d = 0; d < DOCS; d++) {
        lengths[d] = d * 5 % 12 + 1;
        for (size_t t = 0; t < lengths[d]; t++)
            tokens[at++] = (int32_t)(d * 20 + t);
    }
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, lengths, NULL, DOCS, eos, &ds, &err));
    for (size_t d = 0; d < DOCS; d += 3)
        ds->docs[d].prompt = ds->docs[d].count / 2;
    return ds;
}

/* The stream written out the simple way: [n] tokens and whether each counts. */
static void stream(const emo_dataset *ds, uint64_t seed, size_t n, int32_t *ids, uint8_t *counts) {
    size_t at = 0;
    for (uint64_t epoch = 0; at < n; epoch++) {
        uint32_t order[DOCS];
        emo__permutation(seed, EMO__RNG_ORDER, epoch, order, DOCS);
        for (size_t i = 0; i < DOCS; i++) {
            const emo__doc *doc = &ds->docs[order[i]];
            for (uint64_t t = 0; t < doc->count + (ds->eos >= 0); t++) {
                if (at == n)
                    return;
                ids[at] = t < doc->count ? ds->store->tokens[doc->offset + t] : ds->eos;
                counts[at++] = t >= doc->prompt;
            }
        }
    }
}

static void rows_are_cuts_of_the_stream(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    static const int32_t lengths[] = {2, 7, 16, 200}; /* 200: a row of more than one epoch */
    for (int marked = 0; marked < 2; marked++) {
        emo_dataset *ds = dataset(rt, marked ? EOS : -1);
        for (size_t l = 0; l < 4; l++) {
            size_t s = (size_t)lengths[l];
            size_t rows = 1000 / s + 3;
            int32_t *want = malloc(rows * s * sizeof *want);
            uint8_t *counts = malloc(rows * s + 1);
            assert_non_null(want);
            assert_non_null(counts);
            stream(ds, 5, rows * s, want, counts);
            emo__packer *p = NULL;
            EXPECT_OK(emo__packer_create(ds, 5, lengths[l], &p, &err));
            assert_int_equal(emo__packer_epoch_tokens(p), ds->tokens + (marked ? DOCS : 0));
            for (size_t i = 0; i < 2 * rows; i++) {
                size_t r = i < rows ? i : i * 7919 % rows; /* in order, then jumping about */
                int32_t ids[200];
                uint8_t mask[200];
                EXPECT_OK(emo__packer_row(p, r, ids, mask, &err));
                assert_memory_equal(ids, want + r * s, s * sizeof ids[0]);
                assert_memory_equal(mask, counts + r * s + 1, s - 1);
                assert_int_equal(mask[s - 1], 0);
            }
            emo__packer_destroy(p);
            free(want);
            free(counts);
        }
        emo_dataset_release(ds);
    }
    emo_runtime_release(rt);
}

static void epochs_and_seeds_differ(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_SCALAR);
    emo_dataset *ds = dataset(rt, EOS);
    emo__packer *p = NULL;
    emo__packer *q = NULL;
    int32_t a[200];
    int32_t b[200];
    EXPECT_OK(emo__packer_create(ds, 1, 50, &p, &err));
    int32_t epoch = (int32_t)emo__packer_epoch_tokens(p);
    emo__packer_destroy(p);
    EXPECT_OK(emo__packer_create(ds, 1, epoch, &p, &err));
    EXPECT_OK(emo__packer_create(ds, 2, epoch, &q, &err));
    EXPECT_OK(emo__packer_row(p, 0, a, NULL, &err));
    EXPECT_OK(emo__packer_row(p, 1, b, NULL, &err));
    assert_memory_not_equal(a, b, (size_t)epoch * 4);
    EXPECT_OK(emo__packer_row(q, 0, b, NULL, &err));
    assert_memory_not_equal(a, b, (size_t)epoch * 4);
    EXPECT_STATUS(emo__packer_row(p, UINT64_MAX, a, NULL, &err), EMO_E_RANGE, "row");
    EXPECT_OK(emo__packer_row(p, ((uint64_t)1 << 40) / (uint64_t)epoch, a, NULL, &err));
    emo__packer_destroy(p);
    emo__packer_destroy(q);
    EXPECT_STATUS(emo__packer_create(ds, 1, 1, &p, &err), EMO_E_RANGE, "seq_len");
    emo_dataset_release(ds);
    emo_runtime_release(rt);
}

static void labels(void **state) {
    (void)state;
    static const int32_t ids[5] = {1, 2, 3, 4, 5};
    static const uint8_t mask[5] = {1, 0, 1, 1, 1};
    int32_t out[5];
    assert_int_equal(emo__packer_labels(ids, mask, 5, out), 3);
    static const int32_t want[5] = {2, -100, 4, 5, -100};
    assert_memory_equal(out, want, sizeof want);
    assert_int_equal(emo__packer_labels(ids, NULL, 5, out), 4);
    assert_int_equal(out[1], 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_cuts_of_the_stream),
        cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(labels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
