/* SPDX-License-Identifier: Apache-2.0 */
/* Statistics and selection: sums, files, ties, random choices, options, cancellation, failing allocations. */
#include <emo/emo.h>
#include <math.h>
#include <unistd.h>

#include "base/runtime.h"
#include "io/files.h"
#include "model/model.h"
#include "subset/select.h"
#include "support/meter.h"

static const char config[] =
    "{\"vocab_size\":64,\"hidden_size\":32,\"intermediate_size\":8,\"num_hidden_layers\":3,\"num_attention_heads\":2,"
    "\"max_position_embeddings\":64,\"num_experts_per_tok\":3,\"num_experts_per_layer\":[9,0,7],"
    "\"num_shared_experts\":1,\"dense_intermediate_size\":12,\"eos_token_id\":1,\"pad_token_id\":0,"
    "\"initializer_range\":0.3}";

TEST_RUNTIME(2, EMO_ISA_AUTO)

static emo_model *make(emo_runtime *own) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(own, config, strlen(config), NULL, &model, &err));
    return model;
}

#define DOCS 11
static emo_dataset *documents(size_t first, size_t count) {
    emo_error err = EMO_ERROR_INIT;
    int32_t tokens[DOCS * 40];
    size_t lengths[DOCS];
    size_t n = 0;
    for (size_t d = 0; d < count; d++) {
        lengths[d] = 5 + 3 * (first + d);
        for (size_t t = 0; t < lengths[d]; t++)
            tokens[n++] = (int32_t)(((first + d) * 13 + t * t * 7 + 2) % 64);
    }
    emo_dataset *data = NULL;
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, lengths, NULL, count, 1, &data, &err));
    return data;
}

static emo_stats *collect(emo_model *model, const emo_dataset *data) {
    emo_error err = EMO_ERROR_INIT;
    emo_stats_options options = EMO_STATS_OPTIONS_INIT;
    options.easy_ep = 1;
    emo_stats *stats = NULL;
    EXPECT_OK(emo_stats_collect(model, data, &options, &stats, &err));
    return stats;
}

static void probabilities_are_means(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(rt);
    emo_dataset *data = documents(0, DOCS);
    emo_stats *stats = collect(model, data);
    assert_int_equal(emo_stats_layers(stats), 3);
    assert_int_equal(emo_stats_tokens(stats), emo_dataset_tokens(data) + DOCS); /* one end-of-text each */
    double probs[9];
    size_t n = 0;
    EXPECT_OK(emo_stats_probs(stats, 0, probs, 9, &n, &err));
    assert_int_equal(n, 9);
    double sum = 0.0;
    for (size_t e = 0; e < 8; e++)
        sum += probs[e];
    assert_true(fabs(sum - 1.0) < 1e-6); /* f32 probabilities */
    assert_true(probs[8] == 1.0);        /* one shared expert */
    EXPECT_OK(emo_stats_probs(stats, 1, probs, 9, &n, &err));
    assert_int_equal(n, 0);
    EXPECT_STATUS(emo_stats_probs(stats, 3, probs, 9, &n, &err), EMO_E_RANGE, "layer 3");
    EXPECT_STATUS(emo_stats_probs(stats, 0, probs, 8, &n, &err), EMO_E_LIMIT, "9 experts");
    emo_stats_release(stats);
    emo_dataset_release(data);
    emo_model_release(model);
}

static void parts_add_up_and_files_keep_them(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(rt);
    emo_dataset *all = documents(0, DOCS);
    emo_dataset *some = documents(0, 4);
    emo_dataset *others = documents(4, DOCS - 4);
    emo_stats *a = collect(model, some);
    emo_stats *b = collect(model, others);
    emo_stats *whole = collect(model, all);
    emo_stats *sum = NULL;
    EXPECT_OK(emo_stats_merge(a, b, &sum, &err));
    assert_int_equal(emo_stats_tokens(sum), emo_stats_tokens(whole));
    char path[] = "/tmp/emo_test_stats_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    EXPECT_OK(emo_stats_save(sum, path, &err));
    emo_stats *back = NULL;
    EXPECT_OK(emo_stats_load(rt, path, &back, &err));
    for (int32_t l = 0; l < 3; l += 2) {
        double want[9];
        double got[9];
        size_t n = 0;
        EXPECT_OK(emo_stats_probs(whole, l, want, 9, &n, &err));
        EXPECT_OK(emo_stats_probs(back, l, got, 9, &n, &err));
        for (size_t e = 0; e < n; e++)
            assert_true(fabs(want[e] - got[e]) < 1e-12); /* doubles, another order of summation */
        EXPECT_OK(emo_stats_easy_ep(sum, l, want, 9, &n, &err));
        EXPECT_OK(emo_stats_easy_ep(back, l, got, 9, &n, &err));
        assert_memory_equal(want, got, n * sizeof(double)); /* JSON keeps every bit */
    }
    static const char *const bad[] = {
        "{}",
        "{\"format\":\"other\",\"version\":1,\"tokens\":1,\"probability_sums\":[[1]]}",
        "{\"format\":\"emo-stats\",\"version\":1,\"tokens\":-1,\"probability_sums\":[[1]]}",
        "{\"format\":\"emo-stats\",\"version\":1,\"tokens\":1,\"probability_sums\":[]}",
        "{\"format\":\"emo-stats\",\"version\":1,\"tokens\":1,\"probability_sums\":[[\"a\"]]}",
        "{\"format\":\"emo-stats\",\"version\":1,\"tokens\":1,\"probability_sums\":[[1]],\"easy_ep_scores\":[[1,2]]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        emo_stats *none = NULL;
        EXPECT_OK(emo__file_write(&rt->mem, path, bad[i], strlen(bad[i]), &err));
        EXPECT_STATUS(emo_stats_load(rt, path, &none, &err), EMO_E_FORMAT, path);
        assert_null(none);
    }
    (void)unlink(path);
    emo_stats_release(back);
    emo_stats_release(sum);
    emo_stats_release(whole);
    emo_stats_release(a);
    emo_stats_release(b);
    emo_dataset_release(all);
    emo_dataset_release(some);
    emo_dataset_release(others);
    emo_model_release(model);
}

static void ties_go_to_the_lower_id(void **state) {
    (void)state;
    emo_model *model = make(rt);
    static const double scores[9] = {1, 2, 2, 0, 2, 1, 0, 0, 9};
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    int32_t ids[9];
    options.keep = 3;
    assert_int_equal(emo__select_layer(model, 0, scores, &options, ids), 3);
    static const int32_t three[] = {1, 2, 8};
    assert_memory_equal(ids, three, sizeof three);
    options.keep = 5;
    assert_int_equal(emo__select_layer(model, 0, scores, &options, ids), 5);
    static const int32_t five[] = {0, 1, 2, 4, 8};
    assert_memory_equal(ids, five, sizeof five);
    options.keep_shared = 0;
    assert_int_equal(emo__select_layer(model, 0, scores, &options, ids), 5);
    static const int32_t none[] = {0, 1, 2, 4, 5};
    assert_memory_equal(ids, none, sizeof none);
    emo_model_release(model);
}

static emo_mask *choose(emo_model *model, const emo_dataset *data, emo_select_method method, uint64_t seed,
                        int32_t seq_len) {
    emo_error err = EMO_ERROR_INIT;
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    options.method = method;
    options.keep = 4;
    options.seed = seed;
    options.seq_len = seq_len;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_select(model, data, &options, &mask, &err));
    return mask;
}

static void every_method_keeps_what_was_asked_for(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(rt);
    emo_dataset *data = documents(0, DOCS);
    for (emo_select_method m = EMO_SELECT_USAGE; m <= EMO_SELECT_RANDOM; m++) {
        emo_mask *a = choose(model, data, m, 3, 0);
        emo_mask *b = choose(model, data, m, 3, 0);
        assert_true(emo_mask_equal(a, b));
        assert_int_equal(emo_mask_count(a, 0), 4);
        assert_int_equal(emo_mask_count(a, 1), 0);
        assert_int_equal(emo_mask_count(a, 2), 4);
        assert_int_equal(emo_mask_get(a, 2, 6), 1);
        emo_mask_release(a);
        emo_mask_release(b);
    }
    emo_mask *a = choose(model, NULL, EMO_SELECT_RANDOM, 3, 0);
    int other = 0;
    for (uint64_t seed = 4; seed < 9; seed++) {
        emo_mask *b = choose(model, NULL, EMO_SELECT_RANDOM, seed, 0);
        other += emo_mask_equal(a, b) == 0;
        emo_mask_release(b);
    }
    assert_true(other >= 4);
    emo_mask_release(a);
    /* statistics and selection agree */
    emo_stats *stats = collect(model, data);
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    options.keep = 4;
    for (emo_select_method m = EMO_SELECT_USAGE; m <= EMO_SELECT_EASY_EP; m += 2) {
        emo_mask *from = NULL;
        options.method = m;
        EXPECT_OK(emo_select_from_stats(model, stats, &options, &from, &err));
        emo_mask *direct = choose(model, data, m, 0, 0);
        assert_true(emo_mask_equal(from, direct));
        emo_mask_release(from);
        emo_mask_release(direct);
    }
    emo_stats_release(stats);
    emo_dataset_release(data);
    emo_model_release(model);
}

/* Layer by layer in models that are really pruned: the same choice, in one pass or, with too many batches to hold, in
 * one per layer. */
static void layerwise_equals_repeated_pruning(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(rt);
    emo_dataset *data = documents(0, DOCS);
    emo_mask *got = choose(model, data, EMO_SELECT_LAYERWISE, 0, 0);
    emo_mask *step = NULL;
    EXPECT_OK(emo_model_mask(model, &step, &err));
    for (int32_t l = 0; l < 3; l += 2) {
        emo_stats_options options = EMO_STATS_OPTIONS_INIT;
        emo_stats *stats = NULL;
        options.mask = step;
        EXPECT_OK(emo_stats_collect(model, data, &options, &stats, &err));
        double probs[9];
        int32_t ids[9];
        size_t n = 0;
        EXPECT_OK(emo_stats_probs(stats, l, probs, 9, &n, &err));
        emo_select_options how = EMO_SELECT_OPTIONS_INIT;
        how.keep = 4;
        (void)emo__select_layer(model, l, probs, &how, ids);
        for (int32_t e = 0; e < (int32_t)n - 1; e++)
            EXPECT_OK(emo_mask_set(step, l, e, e == ids[0] || e == ids[1] || e == ids[2], &err));
        emo_stats_release(stats);
    }
    assert_true(emo_mask_equal(got, step));
    emo_mask_release(step);

    emo__windows many;
    emo__windows_init(&many, &rt->mem);
    EXPECT_OK(emo__windows_documents(&many, data, 1, 64, false, &err));
    EXPECT_OK(emo__windows_pack(&many, 1, &err));
    assert_int_equal(many.n_batches, DOCS);
    emo_select_options how = EMO_SELECT_OPTIONS_INIT;
    how.keep = 4;
    emo__keep_lists lists = {0};
    EXPECT_OK(emo__select_layerwise(model, &many, &how, &lists, &err));
    EXPECT_OK(emo__keep_to_mask(model, &lists, &step, &err));
    assert_true(emo_mask_equal(got, step));
    emo__keep_free(&lists);
    emo__windows_free(&many);
    emo_mask_release(step);
    emo_mask_release(got);
    emo_dataset_release(data);
    emo_model_release(model);
}

static int32_t cancel_at(void *ctx, const emo_progress_info *info) {
    (void)info;
    int *left = ctx;
    return --*left < 0;
}

static void options_are_checked_and_calls_cancelled(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = make(rt);
    emo_dataset *data = documents(0, DOCS);
    emo_select_options options = EMO_SELECT_OPTIONS_INIT;
    emo_mask *mask = NULL;
    EXPECT_STATUS(emo_select(model, data, NULL, &mask, &err), EMO_E_RANGE, "keep is 0");
    options.keep = 8;
    EXPECT_STATUS(emo_select(model, data, &options, &mask, &err), EMO_E_RANGE, "layer 2");
    options.keep = 1;
    EXPECT_STATUS(emo_select(model, data, &options, &mask, &err), EMO_E_RANGE, "above 1");
    options.keep = 4;
    options.keep_shared = 0;
    EXPECT_STATUS(emo_select(model, data, &options, &mask, &err), EMO_E_INVALID_ARGUMENT, "emo_select_experts");
    int32_t ids[8];
    int32_t offsets[4];
    size_t count = 0;
    EXPECT_OK(emo_select_experts(model, data, &options, ids, 8, &count, offsets, &err));
    assert_int_equal(count, 8);
    assert_int_equal(offsets[1], 4);
    assert_int_equal(offsets[2], 4);
    options.method = EMO_SELECT_LAYERWISE;
    EXPECT_OK(emo_select_experts(model, data, &options, ids, 8, &count, offsets, &err));
    options.keep_shared = -1;
    options.seq_len = 65;
    EXPECT_STATUS(emo_select(model, data, &options, &mask, &err), EMO_E_RANGE, "seq_len");
    options.seq_len = 0;
    EXPECT_STATUS(emo_select(model, NULL, &options, &mask, &err), EMO_E_INVALID_ARGUMENT, "calibration");
    options.method = 7;
    EXPECT_STATUS(emo_select(model, data, &options, &mask, &err), EMO_E_RANGE, "method");
    assert_null(mask);
    for (emo_select_method m = EMO_SELECT_USAGE; m <= EMO_SELECT_EASY_EP; m++) {
        int left = 9;
        options.method = m;
        options.progress.ctx = &left;
        options.progress.report = cancel_at;
        EXPECT_STATUS(emo_select(model, data, &options, &mask, &err), EMO_E_CANCELLED, "cancel");
    }
    emo_mask *usable = choose(model, data, EMO_SELECT_USAGE, 0, 0); /* the model is not left busy */
    emo_mask_release(usable);
    emo_dataset_release(data);
    emo_model_release(model);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    meter memory = METER_INIT;
    emo_runtime *own = meter_runtime(&memory, 1);
    emo_model *model = make(own);
    emo_dataset *data = documents(0, 3);
    long before = atomic_load(&memory.live);
    static const int32_t shared[] = {-1, -1, -1, 0};
    for (int32_t m = 0; m < 4; m++) {
        emo_select_options options = EMO_SELECT_OPTIONS_INIT;
        options.method = m < 3 ? m : EMO_SELECT_LAYERWISE;
        options.keep = 4;
        options.keep_shared = shared[m];
        emo_status status = EMO_E_OUT_OF_MEMORY;
        for (long n = 0; status != EMO_OK; n++) {
            int32_t ids[8];
            int32_t offsets[4];
            assert_true(n < 2000);
            meter_arm(&memory, n, 1);
            status = emo_select_experts(model, data, &options, ids, 8, NULL, offsets, NULL);
            if (status != EMO_OK)
                assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
            assert_int_equal(atomic_load(&memory.live), before);
        }
    }
    meter_disarm(&memory);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(own);
    meter_check(&memory, "failing allocations");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probabilities_are_means),           cmocka_unit_test(parts_add_up_and_files_keep_them),
        cmocka_unit_test(ties_go_to_the_lower_id),           cmocka_unit_test(every_method_keeps_what_was_asked_for),
        cmocka_unit_test(layerwise_equals_repeated_pruning), cmocka_unit_test(options_are_checked_and_calls_cancelled),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
