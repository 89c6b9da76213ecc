/* SPDX-License-Identifier: Apache-2.0 */
/* A model under a memory budget: the same bits as without, whatever the budget, the source and the threads; reads that
 * fail; what is refused, and what is read through. */
#include <emo/emo.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "expert_cache_support.h"
#include "model/model.h"
#include "support/folder.h"
#include "support/meter.h"

/* q4_k: gate and up have rows of whole blocks, down falls back to q8_0: places of mixed types */
static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":300,\"hidden_size\":256,\"intermediate_size\":32,\"num_hidden_layers\":3,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"max_position_embeddings\":64,\"num_experts_per_tok\":4,"
    "\"num_experts_per_layer\":[0,13,13],\"num_shared_experts_per_layer\":[0,1,1],\"dense_intermediate_size\":64,"
    "\"initializer_range\":0.2,\"eos_token_id\":256,\"pad_token_id\":0}";
enum { PROMPT = 18, EXPERTS = 24, CHOSEN = 3, SEQUENCES = 2 };

TEST_RUNTIME_AND_FOLDER(2, EMO_ISA_AUTO)

static emo_model *make(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = 5;
    emo_model *model = NULL;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    return model;
}

/* The model as a folder or a GGUF file, written when first asked for. */
static const char *folder_of(emo_dtype dtype) {
    emo_error err = EMO_ERROR_INIT;
    const char *path = test_path(emo_dtype_name(dtype));
    if (access(path, F_OK) != 0) {
        emo_model *model = make();
        emo_model_save_options options = EMO_MODEL_SAVE_OPTIONS_INIT;
        options.dtype = dtype;
        EXPECT_OK(emo_model_save(model, path, &options, &err));
        emo_model_release(model);
    }
    return path;
}

static const char *gguf_of(emo_dtype dtype) {
    emo_error err = EMO_ERROR_INIT;
    char name[32];
    snprintf(name, sizeof name, "%s.gguf", emo_dtype_name(dtype));
    const char *path = test_path(name);
    if (access(path, F_OK) != 0) {
        emo_model *model = make();
        emo_export_options options = EMO_EXPORT_OPTIONS_INIT;
        options.dtype = dtype;
        EXPECT_OK(emo_model_export(model, path, &options, NULL, &err));
        emo_model_release(model);
    }
    return path;
}

/* Experts that fit `places` of them; 0: no budget. The size of a place is asked of a cache that holds everything. */
static emo_model *load(emo_runtime *on, const char *path, size_t places, emo_model_load_options options) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    if (places > 0) {
        options.memory_budget = UINT64_MAX;
        EXPECT_OK(emo_model_load_path(on, path, &options, &model, &err));
        emo_cache_stats stats = stats_of(model);
        assert_true(stats.capacity > 0 && stats.capacity == stats.experts);
        emo_model_release(model);
        options.memory_budget = stats.bytes / stats.capacity * places + 7;
    }
    EXPECT_OK(emo_model_load_path(on, path, &options, &model, &err));
    return model;
}

/* ---- what a model says ---- */

static emo_session *begin(emo_model *model, const emo_session_options *options) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    emo_session_options o = *options;
    o.sequences = SEQUENCES;
    o.max_tokens = TOKENS;
    o.ignore_eos = 1;
    EXPECT_OK(emo_session_create(model, &o, &session, &err));
    for (int32_t s = 0; s < SEQUENCES; s++) {
        for (int32_t i = 0; i < PROMPT - 5 * s; i++) {
            int32_t id = (i * 37 + s * 101 + i * i * (s + 3)) % 256;
            EXPECT_OK(emo_session_append_tokens(session, s, &id, 1, &err));
        }
    }
    return session;
}

static outcome say(emo_model *model, const emo_session_options *options) { return finish(begin(model, options)); }

static emo_pool_policy *prompt_pool(int32_t size) {
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, size, &pool, &err));
    return pool;
}

/* ---- equality ---- */

static const size_t some_places[] = {CHOSEN, CHOSEN + 1, EXPERTS / 2, EXPERTS};

/* With `first` on, every other number of places. */
static void compare_all(const char *path, size_t first, emo_model_load_options options) {
    emo_session_options plain = EMO_SESSION_OPTIONS_INIT;
    emo_session_options pooled = EMO_SESSION_OPTIONS_INIT;
    emo_pool_policy *pool = prompt_pool(5);
    pooled.pool = pool;
    emo_model *whole = load(rt, path, 0, options);
    assert_int_equal(stats_of(whole).capacity, 0);
    outcome want = say(whole, &plain);
    outcome want_pooled = say(whole, &pooled);
    emo_model_release(whole);
    for (size_t i = first; i < sizeof some_places / sizeof some_places[0]; i += 2) {
        emo_model_load_options o = options;
        o.no_prefetch = i / 2 % 2;
        o.drop_source = i % 2;
        o.cache_policy = (emo_cache_policy)(i % 3);
        emo_model *model = load(rt, path, some_places[i], o);
        emo_cache_stats stats = stats_of(model);
        assert_int_equal(stats.capacity, some_places[i]);
        assert_int_equal(stats.experts, EXPERTS);
        outcome got = say(model, &plain);
        expect_same(&want, &got);
        got = say(model, &pooled);
        expect_same(&want_pooled, &got);
        stats = stats_of(model);
        assert_true(stats.misses > 0 && stats.bytes_read > 0 && stats.read_ns > 0);
        assert_true(stats.present <= stats.capacity);
        assert_true(some_places[i] < EXPERTS || stats.evictions == 0);
        assert_true(some_places[i] > CHOSEN + 1 || stats.evictions > 0);
        if (o.no_prefetch != 0)
            assert_int_equal(stats.read_ahead, 0);
        emo_model_release(model);
    }
    emo_pool_policy_release(pool);
}

static void same_bits_from_safetensors(void **state) {
    (void)state;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    compare_all(folder_of(EMO_DTYPE_F32), 0, options);
    compare_all(folder_of(EMO_DTYPE_F32), 1, options);
    options.dtype = EMO_DTYPE_BF16; /* converted as they are read */
    compare_all(folder_of(EMO_DTYPE_F32), 0, options);
    options.dtype = -1;
    options.no_map = 1;
    compare_all(folder_of(EMO_DTYPE_BF16), 1, options);
    options.compute = EMO_DTYPE_BF16;
    compare_all(folder_of(EMO_DTYPE_BF16), 0, options);
}

static void same_bits_from_gguf(void **state) {
    (void)state;
    static const emo_dtype types[] = {EMO_DTYPE_BF16, EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        compare_all(gguf_of(types[i]), i % 2, options);
    options.dtype = EMO_DTYPE_F32; /* from blocks */
    compare_all(gguf_of(EMO_DTYPE_Q4_K), 0, options);
    options.dtype = -1;
    options.compute = EMO_DTYPE_BF16; /* quantised activations */
    compare_all(gguf_of(EMO_DTYPE_Q4_K), 0, options);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    emo_session_options plain = EMO_SESSION_OPTIONS_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_model *whole = load(rt, gguf_of(EMO_DTYPE_Q4_0), 0, options);
    outcome want = say(whole, &plain);
    emo_model_release(whole);
    for (int32_t threads = 1; threads < 8; threads += 2) {
        emo_runtime *other = test_runtime(threads, EMO_ISA_AUTO);
        emo_model *model = load(other, gguf_of(EMO_DTYPE_Q4_0), CHOSEN + 2, options);
        outcome got = say(model, &plain);
        expect_same(&want, &got);
        emo_model_release(model);
        emo_runtime_release(other);
    }
}

/* ---- masks and subsets ---- */

static emo_mask *few_experts(const emo_model *model, int32_t keep) {
    emo_error err = EMO_ERROR_INIT;
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t l = 1; l < 3; l++) {
        for (int32_t e = keep; e < 12; e++)
            EXPECT_OK(emo_mask_set(mask, l, (e * 5 + l) % 12, 0, &err));
    }
    return mask;
}

static void a_mask_says_which(void **state) {
    (void)state;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_model_load_options plain = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_model *whole = load(rt, folder_of(EMO_DTYPE_BF16), 0, plain);
    emo_mask *mask = few_experts(whole, 5);
    options.mask = mask;
    outcome want = say(whole, &options);
    emo_model *model = load(rt, folder_of(EMO_DTYPE_BF16), 10, plain); /* all of the mask */
    outcome got = say(model, &options);
    expect_same(&want, &got);
    emo_cache_stats stats = stats_of(model);
    assert_int_equal(stats.evictions, 0); /* no other expert was ever read */
    assert_true(stats.present <= 10);
    emo_model_release(model);

    plain.subset = mask; /* and a load subset */
    options.mask = NULL;
    model = load(rt, folder_of(EMO_DTYPE_BF16), 4, plain);
    assert_int_equal(stats_of(model).experts, 10);
    got = say(model, &options);
    expect_same(&want, &got);
    emo_mask *has = NULL;
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_model_mask(model, &has, &err));
    assert_int_equal(emo_mask_count(has, 1), 6);
    emo_mask_release(has);
    emo_model_release(model);

    emo_mask *two = few_experts(whole, 2); /* fewer than a token chooses: fewer are needed */
    plain.subset = two;
    model = load(rt, folder_of(EMO_DTYPE_BF16), 2, plain);
    (void)say(model, &options);
    emo_model_release(model);
    emo_mask_release(two);
    emo_mask_release(mask);
    emo_model_release(whole);
}

/* What is asked for only later is read while the session stands still, and then nothing is missed. */
typedef struct patience {
    const emo_model *model;
    uint64_t present;
} patience;

static int32_t wait_for_experts(void *ctx, const emo_progress_info *info) {
    const patience *p = ctx;
    (void)info;
    for (int i = 0; i < 5000 && stats_of(p->model).present < p->present; i++) {
        struct timespec pause = {0, 1000000};
        nanosleep(&pause, NULL);
    }
    return 0;
}

static void a_mask_is_read_ahead(void **state) {
    (void)state;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_model_load_options plain = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_model *model = load(rt, folder_of(EMO_DTYPE_BF16), 12, plain);
    emo_mask *mask = few_experts(model, 5);
    patience p = {model, 10};
    options.mask = mask;
    options.progress.ctx = &p;
    options.progress.report = wait_for_experts;
    (void)say(model, &options);
    emo_cache_stats stats = stats_of(model);
    assert_int_equal(stats.read_ahead, 10);
    assert_int_equal(stats.misses, 0);
    assert_int_equal(stats.stall_ns, 0);
    assert_true(stats.hits > 0);
    emo_model_release(model);
    emo_mask_release(mask);
}

/* ---- several sessions ---- */

static void sessions_share_the_places(void **state) {
    (void)state;
    enum { TALKERS = 3 };
    emo_model_load_options plain = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options options[TALKERS] = {EMO_SESSION_OPTIONS_INIT, EMO_SESSION_OPTIONS_INIT,
                                            EMO_SESSION_OPTIONS_INIT};
    emo_pool_policy *pool = prompt_pool(4);
    emo_model *whole = load(rt, gguf_of(EMO_DTYPE_Q8_0), 0, plain);
    emo_mask *mask = few_experts(whole, 6);
    options[1].pool = pool;
    options[2].mask = mask;
    for (int32_t no_prefetch = 0; no_prefetch < 2; no_prefetch++) {
        pthread_t threads[TALKERS];
        talker talkers[TALKERS];
        plain.no_prefetch = no_prefetch;
        emo_model *model = load(rt, gguf_of(EMO_DTYPE_Q8_0), CHOSEN, plain); /* as few as one token needs */
        for (int i = 0; i < TALKERS; i++) {
            talkers[i] = (talker){.model = model, .options = &options[i], .say = say};
            assert_int_equal(pthread_create(&threads[i], NULL, talk, &talkers[i]), 0);
        }
        for (int i = 0; i < TALKERS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            outcome want = say(whole, &options[i]);
            expect_same(&want, &talkers[i].got);
        }
        emo_model_release(model);
    }
    emo_model_release(whole);
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
}

/* ---- budgets ---- */

static void too_small_a_budget_is_refused(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_model *model = NULL;
    char need[32];
    const uint64_t place = 3 * 256 * 32 * sizeof(float);
    snprintf(need, sizeof need, " need %llu ", (unsigned long long)(CHOSEN * place));
    options.memory_budget = CHOSEN * place - 1;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_RANGE, need);
    assert_null(model);
    options.memory_budget = 1;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_RANGE,
                  "token chooses");
    options.memory_budget = CHOSEN * place;
    EXPECT_OK(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err));
    assert_int_equal(stats_of(model).bytes, CHOSEN * place);
    emo_model_release(model);
    options.cache_policy = 4;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_RANGE,
                  "cache_policy");
    options.cache_policy = EMO_CACHE_HOST;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_INVALID_ARGUMENT,
                  "worth");
    options.cache_policy = EMO_CACHE_LRU;
    options.no_prefetch = 2;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_RANGE,
                  "no_prefetch");
    options.no_prefetch = 0;
    options.drop_source = -1;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_RANGE,
                  "drop_source");
    options.drop_source = 0;
    options.reserved = 1;
    EXPECT_STATUS(emo_model_load_path(rt, folder_of(EMO_DTYPE_F32), &options, &model, &err), EMO_E_RANGE, "reserved");
}

/* What the host's allocator hands out: the dense part and the places, and little besides. */
static void the_budget_is_kept(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    meter memory = METER_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_model *model = NULL;
    const long expert = 3 * 256 * 32 * (long)sizeof(float);
    emo_runtime *metered = meter_runtime(&memory, 2);
    options.no_map = 1;
    long before = atomic_load(&memory.bytes);
    EXPECT_OK(emo_model_load_path(metered, folder_of(EMO_DTYPE_F32), &options, &model, &err));
    long all = atomic_load(&memory.bytes) - before;
    emo_model_release(model);
    options.memory_budget = 500000; /* 5 experts of 24 */
    before = atomic_load(&memory.bytes);
    EXPECT_OK(emo_model_load_path(metered, folder_of(EMO_DTYPE_F32), &options, &model, &err));
    long held = atomic_load(&memory.bytes) - before;
    assert_in_range(held, all - (EXPERTS - 5) * expert, all - EXPERTS * expert + 500000);
    emo_model_release(model);
    emo_runtime_release(metered);
    meter_check(&memory, "a model under a budget");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits_from_safetensors),    cmocka_unit_test(same_bits_from_gguf),
        cmocka_unit_test(threads_do_not_matter),         cmocka_unit_test(a_mask_says_which),
        cmocka_unit_test(a_mask_is_read_ahead),          cmocka_unit_test(sessions_share_the_places),
        cmocka_unit_test(too_small_a_budget_is_refused), cmocka_unit_test(the_budget_is_kept),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
