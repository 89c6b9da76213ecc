/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler: what each filter keeps, and that draws follow the probabilities. */
#include <math.h>

#include "support/ops.h"

enum { VOCAB = 8, DRAWS = 20000 };
/* probabilities 0.4, 0.3, 0.15, 0.1, 0.05 and next to nothing, not in order of ids */
static const double probs[VOCAB] = {0.1, 0.4, 1e-9, 0.05, 0.3, 1e-9, 0.15, 1e-9};

static const emo_sample_row plain = {1.0f, 0, 1.0f, 0.0f, 1.0f, NULL, 0, 11, 3, 0};

static void histogram(emo_sample_row how, int counts[VOCAB]) {
    emo_error err = EMO_ERROR_INIT;
    test_device d = test_device_open(2, EMO_ISA_AUTO);
    float logits[50 * VOCAB], logprobs[50];
    int32_t ids[50];
    emo_sample_row rows[50];
    memset(counts, 0, VOCAB * sizeof(int));
    for (int i = 0; i < 50 * VOCAB; i++)
        logits[i] = (float)log(probs[i % VOCAB]) + 5.0f;
    for (int n = 0; n < DRAWS; n += 50) {
        for (int i = 0; i < 50; i++) {
            rows[i] = how;
            rows[i].position = (uint64_t)(n + i);
        }
        emo_sample_args a = {50, VOCAB, logits, rows, ids, logprobs};
        EXPECT_OK(d.ops->sample(d.exec, &a, &err));
        for (int i = 0; i < 50; i++) {
            assert_in_range(ids[i], 0, VOCAB - 1);
            counts[ids[i]]++;
            /* of the unfiltered softmax, whatever the filters are */
            assert_true(fabs((double)logprobs[i] - log(probs[ids[i]])) < 1e-5);
        }
    }
    test_device_close(&d);
}

/* Pearson's statistic over the tokens that may appear; the others must not. */
static void follows(const int counts[VOCAB], const double expected[VOCAB]) {
    double total = 0.0, statistic = 0.0;
    for (int i = 0; i < VOCAB; i++)
        total += expected[i];
    for (int i = 0; i < VOCAB; i++) {
        double want = DRAWS * expected[i] / total;
        if (want < 1e-3)
            assert_int_equal(counts[i], 0);
        else
            statistic += (counts[i] - want) * (counts[i] - want) / want;
    }
    assert_true(statistic < 18.5); /* 0.1 % point for 4 degrees of freedom; the seed is fixed */
}

static void draws_follow_the_probabilities(void **state) {
    (void)state;
    int counts[VOCAB];
    histogram(plain, counts);
    follows(counts, probs);
    emo_sample_row how = plain;
    how.temperature = 0.5f; /* squares the odds */
    double squared[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        squared[i] = probs[i] * probs[i];
    histogram(how, counts);
    follows(counts, squared);
}

static void filters_keep_what_they_say(void **state) {
    (void)state;
    int counts[VOCAB];
    emo_sample_row how = plain;
    how.top_k = 2;
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 0.4, 0, 0, 0.3, 0, 0, 0});
    how = plain;
    how.top_p = 0.65f; /* 0.4 + 0.3 reaches it */
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 0.4, 0, 0, 0.3, 0, 0, 0});
    how.top_p = 0.72f;
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 0.4, 0, 0, 0.3, 0, 0.15, 0});
    how = plain;
    how.min_p = 0.2f; /* 0.08 */
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0.1, 0.4, 0, 0, 0.3, 0, 0.15, 0});
    /* top-p counts mass among the top-k: 0.4 of 0.7 is less than 0.6, of 0.95 too */
    how = plain;
    how.top_k = 2;
    how.top_p = 0.57f;
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 1, 0, 0, 0, 0, 0, 0});
    how.top_p = 0.58f;
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 0.4, 0, 0, 0.3, 0, 0, 0});
    how.top_k = 4;
    how.top_p = 0.99f;
    how.min_p = 0.3f;
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 0.4, 0, 0, 0.3, 0, 0.15, 0});
    how = plain;
    how.top_p = 0.0f; /* one token stays */
    histogram(how, counts);
    follows(counts, (const double[VOCAB]){0, 1, 0, 0, 0, 0, 0, 0});
}

static void greedy_penalty_and_ties(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    test_device d = test_device_open(1, EMO_ISA_AUTO);
    float logits[5] = {1.0f, 3.0f, 3.0f, -1.0f, 2.0f};
    int32_t history[] = {1, 2, 1, 99, -5}, id = -1;
    emo_sample_row how = {0.0f, 0, 1.0f, 0.0f, 1.0f, history, 5, 1, 1, 1};
    emo_sample_args a = {1, 5, logits, &how, &id, NULL};
    EXPECT_OK(d.ops->sample(d.exec, &a, &err));
    assert_int_equal(id, 1); /* the lower of equals */
    how.repetition_penalty = 1.4f;
    EXPECT_OK(d.ops->sample(d.exec, &a, &err));
    assert_int_equal(id, 1); /* 3 / 1.4 is above 2, and a second mention does not count */
    how.repetition_penalty = 2.0f;
    EXPECT_OK(d.ops->sample(d.exec, &a, &err));
    assert_int_equal(id, 4);
    float negative[2] = {-1.0f, -1.5f};
    int32_t first = 0;
    emo_sample_row push = {0.0f, 0, 1.0f, 0.0f, 2.0f, &first, 1, 1, 1, 1};
    emo_sample_args b = {1, 2, negative, &push, &id, NULL};
    EXPECT_OK(d.ops->sample(d.exec, &b, &err));
    assert_int_equal(id, 1);
    how.repetition_penalty = 1.0f;
    how.temperature = 1e-30f; /* next to greedy, without overflow */
    EXPECT_OK(d.ops->sample(d.exec, &a, &err));
    assert_true(id == 1 || id == 2);
    how.temperature = 1.0f;
    how.top_k = 1;
    EXPECT_OK(d.ops->sample(d.exec, &a, &err));
    assert_int_equal(id, 1);
    float bad[2] = {0.0f, NAN};
    b.logits = bad;
    EXPECT_STATUS(d.ops->sample(d.exec, &b, &err), EMO_E_NUMERIC, "row 0");
    test_device_close(&d);
}

/* A row's draw is a function of its logits and its key alone. */
static void rows_are_independent(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    enum { ROWS = 17, WIDE = 300 };
    float *logits = test_floats(ROWS * WIDE, 4, 4.0f), logprobs[3][ROWS];
    int32_t ids[3][ROWS];
    emo_sample_row how[ROWS];
    for (int i = 0; i < ROWS; i++) {
        how[i] = plain;
        how[i].sequence = (uint64_t)i;
        how[i].top_p = i % 2 ? 0.9f : 1.0f;
        how[i].top_k = i % 3 ? 0 : 50;
    }
    for (int n = 0; n < 2; n++) {
        test_device d = test_device_open(n == 0 ? 1 : 4, EMO_ISA_AUTO);
        emo_sample_args a = {ROWS, WIDE, logits, how, ids[n], logprobs[n]};
        EXPECT_OK(d.ops->sample(d.exec, &a, &err));
        for (int i = 0; n == 0 && i < ROWS; i++) {
            emo_sample_args one = {1, WIDE, logits + i * WIDE, &how[i], &ids[2][i], &logprobs[2][i]};
            EXPECT_OK(d.ops->sample(d.exec, &one, &err));
        }
        test_device_close(&d);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_equal(ids[0], ids[2], sizeof ids[0]);
    assert_memory_equal(logprobs[0], logprobs[1], sizeof logprobs[0]);
    assert_memory_equal(logprobs[0], logprobs[2], sizeof logprobs[0]);
    free(logits);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_probabilities),
        cmocka_unit_test(filters_keep_what_they_say),
        cmocka_unit_test(greedy_penalty_and_ties),
        cmocka_unit_test(rows_are_independent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
