/* SPDX-License-Identifier: Apache-2.0 */
/* Models under a memory budget on the CUDA back end: the bits of models without one, whatever the weights, the places
 * and the policies; what they take of the device; copies beside the work of passes; sessions that share. */
#include <pthread.h>

#include "expert_cache_device.h"

/* ---- the same bits ---- */

static double oldest_goes(void *ctx, const emo_cache_entry *entry) {
    ++*(int *)ctx;
    return -(double)entry->steps_unused;
}

static void same_bits(void **state) {
    (void)state;
    static const struct {
        emo_dtype dtype, compute;
    } kinds[] = {{EMO_DTYPE_F32, EMO_DTYPE_F32},
                 {EMO_DTYPE_BF16, EMO_DTYPE_BF16},
                 {EMO_DTYPE_Q8_0, EMO_DTYPE_BF16},
                 {EMO_DTYPE_Q4_0, EMO_DTYPE_F32},
                 {EMO_DTYPE_Q4_K, EMO_DTYPE_F32}};
    static const size_t places[] = {CHOSEN, EXPERTS / 2, EXPERTS};
    emo_pool_policy *pool = prompt_pool(4);
    emo_session_options plain = talk_options(), pooled = talk_options();
    pooled.pool = pool;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
        bool large = kinds[i].dtype == EMO_DTYPE_Q4_K;
        if (checked && i % 2 == 0)
            continue; /* the slow build has one in bf16 and one of blocks */
        options.compute = kinds[i].compute;
        emo_model *whole = on_device(kinds[i].dtype, 0, options);
        outcome want[2] = {say(whole, &plain), say(whole, &pooled)};
        emo_model_release(whole);
        for (size_t j = large ? 1 : 0; j < (large || checked ? 2 : 3); j++) {
            int asked = 0;
            options.cache_policy = (emo_cache_policy)((i + j) % 4);
            options.cache_worth = (emo_cache_worth){NULL, NULL};
            if (options.cache_policy == EMO_CACHE_HOST)
                options.cache_worth = (emo_cache_worth){&asked, oldest_goes};
            options.no_prefetch = (int32_t)(i + j) % 2;
            emo_model *model = on_device(kinds[i].dtype, places[j], options);
            outcome got = say(model, j % 2 == 0 ? &plain : &pooled);
            expect_same(&want[j % 2], &got);
            emo_cache_stats stats = stats_of(model);
            assert_int_equal(stats.capacity, places[j]);
            assert_int_equal(stats.experts, EXPERTS);
            assert_true(stats.misses > 0 && stats.bytes_read > 0 && stats.present <= stats.capacity);
            assert_true(j == 2 ? stats.evictions == 0 && stats.hits > stats.misses : j == 1 || stats.evictions > 0);
            assert_true(options.cache_policy != EMO_CACHE_HOST || j > 0 || asked > 0);
            emo_model_release(model);
        }
    }
    emo_pool_policy_release(pool);
}

/* To the device and back, and again: empty each time, and the same text. */
static void models_move(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options();
    if (checked) /* the same work as in the plain build */
        skip();
    emo_model *model = load(rt, EMO_DTYPE_BF16, CHOSEN + 1, options);
    outcome on_cpu = say(model, &plain);
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
    assert_int_equal(stats_of(model).present, 0);
    outcome there = say(model, &plain);
    EXPECT_OK(emo_model_to_device(model, "cpu", &err));
    outcome back = say(model, &plain);
    expect_same(&on_cpu, &back);
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
    outcome again = say(model, &plain);
    expect_same(&there, &again);
    emo_model_release(model);
}

static size_t device_bytes(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_backend *device = NULL;
    emo_backend_memory memory = {0};
    EXPECT_OK(emo__registry_open(rt->registry, "cuda", &device, &err));
    EXPECT_OK(device->ops->memory(device, &memory, &err));
    return (size_t)memory.live_bytes;
}

/* What is uploaded: the dense part, and of the experts as many as there are places; of a mask's, no more than it has.
 */
static void the_budget_is_device_memory(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options();
    const size_t expert = 3 * 24 * 32 * sizeof(float);
    const size_t slack = EXPERTS * 3 * 256; /* a whole model aligns each matrix */
    const size_t blocks = 2 * 512;          /* memory is handed out in pieces of that */
    if (checked)
        skip();
    assert_int_equal(device_bytes(), 0);
    emo_model *model = on_device(EMO_DTYPE_F32, 0, options);
    size_t whole = device_bytes();
    emo_model_release(model);
    model = on_device(EMO_DTYPE_F32, CHOSEN, options);
    assert_in_range(device_bytes(), whole - (EXPERTS - CHOSEN) * expert - slack,
                    whole - (EXPERTS - CHOSEN) * expert + blocks);
    emo_mask *mask = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t e = 0; e < 3; e++)
        EXPECT_OK(emo_mask_set(mask, 1, e * 2, 0, &err));
    emo_model_release(model);

    options.subset = mask;
    model = on_device(EMO_DTYPE_F32, 0, options);
    outcome want = say(model, &plain);
    emo_model_release(model);
    options.memory_budget = UINT64_MAX;
    EXPECT_OK(emo_model_load_path(rt, model_file(EMO_DTYPE_F32), &options, &model, &err));
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
    assert_int_equal(stats_of(model).capacity, EXPERTS - 3);
    assert_in_range(device_bytes(), whole - 3 * expert - slack, whole - 3 * expert + blocks);
    outcome got = say(model, &plain);
    expect_same(&want, &got);
    emo_model_release(model);
    emo_mask_release(mask);
    assert_int_equal(device_bytes(), 0);
}

/* ---- on a stream of its own ---- */

/* Every expert of a prompt's pool comes by one copy in a stream that runs no kernel. Once they are there a token waits
 * once a layer for the choice and once for itself, and nothing is copied but what any token needs. */
static void copies_beside_the_work(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options talk = talk_options();
    cudasim_counts first, whole, budget, token;
    enum { POOL = 4 };
    const struct timespec pause = {0, 1000000};
    if (simulator == NULL)
        skip();
    emo_pool_policy *pool = prompt_pool(POOL);
    emo_budget one = emo_budget_unlimited();
    emo_state now = EMO_STATE_PENDING;
    one.tokens = 1;
    talk.pool = pool;
    talk.no_graph = 1; /* launches that can be counted */
    emo_model *model = on_device(EMO_DTYPE_BF16, 0, options);
    emo_session *session = begin(model, &talk);
    simulator->counts(NULL);
    EXPECT_OK(emo_session_advance(session, &one, &now, &err));
    simulator->counts(&first);
    EXPECT_OK(emo_session_advance(session, &one, &now, &err));
    simulator->counts(NULL);
    EXPECT_OK(emo_session_advance(session, &one, &now, &err));
    simulator->counts(&whole);
    outcome want = finish(session);
    emo_model_release(model);

    model = on_device(EMO_DTYPE_BF16, EXPERTS, options);
    talk.no_graph = 0; /* under a budget no batch is replayed */
    session = begin(model, &talk);
    simulator->counts(NULL);
    EXPECT_OK(emo_session_advance(session, &one, &now, &err)); /* the prompt: pools are chosen */
    for (int i = 0; i < 20000 && stats_of(model).present < LAYERS * POOL; i++)
        nanosleep(&pause, NULL);
    simulator->counts(&budget);
    emo_cache_stats stats = stats_of(model);
    assert_int_equal(stats.present, LAYERS * POOL);
    assert_true(stats.read_ahead > 0);
    EXPECT_OK(emo_session_advance(session, &one, &now, &err));
    simulator->counts(NULL);
    EXPECT_OK(emo_session_advance(session, &one, &now, &err));
    simulator->counts(&token);
    assert_int_equal(stats_of(model).misses, stats.misses);
    while (now != EMO_STATE_DONE)
        EXPECT_OK(emo_session_advance(session, NULL, &now, &err));
    assert_int_equal(emo_session_replayed(session), 0);
    outcome got = take(session);
    expect_same(&want, &got);
    assert_int_equal(budget.beside, first.beside + LAYERS * POOL); /* a session begins with uploads */
    assert_int_equal(token.beside, 0);
    if (!checked)
        assert_int_equal(token.waits, whole.waits + LAYERS);
    assert_int_equal(token.launches, whole.launches);
    assert_int_equal(token.to_device, whole.to_device);
    emo_model_release(model);
    emo_pool_policy_release(pool);
}

/* ---- several sessions ---- */

static void sessions_share_the_places(void **state) {
    (void)state;
    enum { TALKERS = 3 };
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options talks[TALKERS] = {talk_options(), talk_options(), talk_options()};
    emo_pool_policy *pool = prompt_pool(3);
    talks[1].pool = pool;
    emo_model *whole = on_device(EMO_DTYPE_BF16, 0, options);
    outcome want[TALKERS];
    for (int i = 0; i < TALKERS; i++)
        want[i] = say(whole, &talks[i]);
    for (size_t places = CHOSEN; places < (checked ? CHOSEN + 1 : CHOSEN + 3); places += 2) {
        pthread_t threads[TALKERS];
        talker talkers[TALKERS];
        emo_model *model = on_device(EMO_DTYPE_BF16, places, options);
        if (simulator != NULL)
            simulator->streams(places > CHOSEN ? 2 : 1); /* 2: in any order that events allow */
        for (int i = 0; i < TALKERS; i++) {
            talkers[i] = (talker){.model = model, .options = &talks[i], .say = say};
            assert_int_equal(pthread_create(&threads[i], NULL, talk, &talkers[i]), 0);
        }
        for (int i = 0; i < TALKERS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
            expect_same(&want[i], &talkers[i].got);
        }
        if (simulator != NULL)
            simulator->streams(1);
        emo_model_release(model);
    }
    emo_model_release(whole);
    emo_pool_policy_release(pool);
}

/* With a name: that test alone. */
int main(int argc, char **argv) {
    if (mirror_plugin() == NULL)
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(models_move),
        cmocka_unit_test(the_budget_is_device_memory),
        cmocka_unit_test(copies_beside_the_work),
        cmocka_unit_test(sessions_share_the_places),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, setup, teardown);
}
