/* SPDX-License-Identifier: Apache-2.0 */
/* An expert cache where things go wrong or otherwise than usual: reads that fail, cancelling, a child process; what
 * goes through the file instead of memory, and what is refused; and which expert each policy gives up. */
#include <emo/emo.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expert_cache_support.h"
#include "model/expert_cache.h"
#include "support/far.h"
#include "support/folder.h"
#include "support/meter.h"
#include "support/stages.h"

static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":64,\"hidden_size\":32,\"intermediate_size\":16,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts_per_tok\":3,\"num_experts\":9,"
    "\"num_shared_experts\":1,\"initializer_range\":0.3,\"eos_token_id\":1,\"pad_token_id\":0}";
enum { PROMPT = 9, CHOSEN = 2, PLACE = 3 * 32 * 16 * 4 };

static emo_runtime *rt;
static emo_model *whole;
static unsigned char *bytes; /* of the safetensors file */
static size_t size;

static int setup(void **state) {
    emo_error err = EMO_ERROR_INIT;
    (void)state;
    (void)test_folder();
    rt = test_runtime(2, EMO_ISA_AUTO);
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), NULL, &whole, &err));
    EXPECT_OK(emo_model_save(whole, test_path("m"), NULL, &err));
    bytes = test_read(test_path("m/model.safetensors"), &size);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    free(bytes);
    emo_model_release(whole);
    emo_runtime_release(rt);
    test_folder_remove();
    return 0;
}

/* ---- a host's file whose reads can be made to fail ---- */

typedef struct host {
    atomic_long reads;
    atomic_long fail_at; /* this read fails, and those behind it while `sticky`; -1: none */
    int sticky;
} host;

static emo_status host_size(void *ctx, uint64_t *out) {
    (void)ctx;
    *out = size;
    return EMO_OK;
}

static emo_status host_read(void *ctx, uint64_t offset, void *data, size_t n) {
    host *h = ctx;
    long read = atomic_fetch_add(&h->reads, 1);
    long fail_at = atomic_load(&h->fail_at);
    if (fail_at >= 0 && (read == fail_at || (h->sticky && read > fail_at)))
        return EMO_E_IO;
    memcpy(data, bytes + offset, n);
    return EMO_OK;
}

static emo_model *load_host(host *h, size_t places, emo_model_load_options options) {
    emo_error err = EMO_ERROR_INIT;
    emo_source *source = NULL;
    emo_model *model = NULL;
    emo_source_vtable vtable = EMO_SOURCE_VTABLE_INIT;
    vtable.size = host_size;
    vtable.read_at = host_read;
    options.memory_budget = places * PLACE;
    EXPECT_OK(emo_source_create(rt, &vtable, h, &source, &err));
    EXPECT_OK(emo_model_load_sources(rt, config, strlen(config), &source, 1, &options, &model, &err));
    emo_source_release(source);
    return model;
}

/* ---- a session on it ---- */

static emo_session *begin(emo_model *model, const emo_progress *progress) {
    static const int32_t prompt[PROMPT] = {3, 50, 7, 7, 22, 41, 9, 60, 12};
    emo_error err = EMO_ERROR_INIT;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_session *session = NULL;
    options.max_tokens = TOKENS;
    options.ignore_eos = 1;
    if (progress != NULL)
        options.progress = *progress;
    EXPECT_OK(emo_session_create(model, &options, &session, &err));
    EXPECT_OK(emo_session_append_tokens(session, 0, prompt, PROMPT, &err));
    return session;
}

static outcome say(emo_model *model) { return finish(begin(model, NULL)); }

/* ---- reads that fail ---- */

/* The read of the pass itself fails: that is the call's status, and the next call goes on as if nothing had been. */
static void a_failed_read_is_a_status(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    outcome want = say(whole);
    host healthy = {0, -1, 0};
    options.no_prefetch = 1; /* so that every read is the session's, one after the other */
    emo_model *model = load_host(&healthy, CHOSEN, options);
    long before = atomic_load(&healthy.reads);
    outcome got = say(model);
    expect_same(&got, &want);
    long reads = atomic_load(&healthy.reads) - before;
    assert_true(reads > 60);
    emo_model_release(model);
    long stride = test_soak() ? 1 : 7;
    for (long n = 0; n < reads; n += stride) {
        host failing = {0, -1, 0};
        model = load_host(&failing, CHOSEN, options);
        emo_session *session = begin(model, NULL);
        emo_state now = EMO_STATE_PENDING;
        int failures = 0;
        atomic_store(&failing.fail_at, atomic_load(&failing.reads) + n);
        while (now != EMO_STATE_DONE) {
            emo_status status = emo_session_advance(session, NULL, &now, &err);
            if (status == EMO_OK)
                continue;
            failures++;
            EXPECT_STATUS(status, EMO_E_IO, "reading expert ");
            assert_int_equal(now, EMO_STATE_PENDING);
        }
        assert_int_equal(failures, 1);
        assert_int_equal(stats_of(model).failed_reads, 1);
        got = take(session);
        expect_same(&got, &want);
        emo_model_release(model);
    }
}

/* A read ahead that fails is no failure unless the pass's own attempt fails too. */
static void a_failed_read_ahead_is_tried_again(void **state) {
    (void)state;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    outcome want = say(whole);
    for (long n = 0; n < 40; n += 3) {
        emo_error err = EMO_ERROR_INIT;
        host failing = {0, -1, 0};
        emo_model *model = load_host(&failing, 6, options);
        emo_session *session = begin(model, NULL);
        emo_state now = EMO_STATE_PENDING;
        int failures = 0;
        atomic_store(&failing.fail_at, atomic_load(&failing.reads) + n);
        while (now != EMO_STATE_DONE)
            failures += emo_session_advance(session, NULL, &now, &err) != EMO_OK;
        assert_true(failures <= 1);
        outcome got = take(session);
        expect_same(&got, &want);
        emo_model_release(model);
    }
    /* a device that is gone: every attempt fails, and never hangs */
    host gone = {0, -1, 1};
    emo_model *model = load_host(&gone, 6, options);
    emo_session *session = begin(model, NULL);
    atomic_store(&gone.fail_at, 0);
    for (int i = 0; i < 5; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo_state now = EMO_STATE_PENDING;
        EXPECT_STATUS(emo_session_advance(session, NULL, &now, &err), EMO_E_IO, "reading expert");
    }
    atomic_store(&gone.fail_at, -1); /* and back */
    outcome got = finish(session);
    expect_same(&got, &want);
    emo_model_release(model);
}

/* Loads under a budget and generates, with the fail_at-th allocation refused; -1: none. */
static emo_status life(meter *memory, long fail_at, outcome *out) {
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options talk = EMO_SESSION_OPTIONS_INIT;
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_state now = EMO_STATE_PENDING;
    static const int32_t prompt[3] = {3, 50, 7};
    emo_status status;
    emo_runtime *metered = meter_runtime(memory, 2);
    options.memory_budget = 3 * PLACE;
    talk.max_tokens = TOKENS;
    talk.ignore_eos = 1;
    meter_arm(memory, fail_at, 0);
    EMO_TRY(status = emo_model_load_path(metered, test_path("m"), &options, &model, &err));
    EMO_TRY(status = emo_session_create(model, &talk, &session, &err));
    EMO_TRY(status = emo_session_append_tokens(session, 0, prompt, 3, &err));
    while (now != EMO_STATE_DONE)
        EMO_TRY(status = emo_session_advance(session, NULL, &now, &err));
    meter_disarm(memory);
    *out = take(session);
    session = NULL;
done:
    meter_disarm(memory);
    emo_session_release(session);
    emo_model_release(model);
    emo_runtime_release(metered);
    return status;
}

static void memory_that_runs_out_is_a_status(void **state) {
    (void)state;
    fail_allocations(life, 100, 80);
}

static void cancelling_leaves_all_usable(void **state) {
    (void)state;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    host healthy = {0, -1, 0};
    int calls = 0;
    emo_progress progress = {&calls, cancel_often};
    outcome want = say(whole);
    emo_model *model = load_host(&healthy, CHOSEN + 1, options);
    emo_session *session = begin(model, &progress);
    outcome got = finish_though_cancelled(session);
    expect_same(&got, &want);
    emo_session_release(begin(model, NULL)); /* a session that never ran */
    emo_model_release(model);
}

/* The thread that reads ahead is not in the child. */
static void a_child_goes_on(void **state) {
    (void)state;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    host healthy = {0, -1, 0};
    outcome want = say(whole);
    emo_model *model = load_host(&healthy, CHOSEN + 2, options);
    outcome got = say(model);
    expect_same(&got, &want);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        outcome mine = say(model);
        emo_model_release(model);
        _exit(memcmp(&mine, &want, sizeof mine) == 0 ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    got = say(model);
    expect_same(&got, &want);
    emo_model_release(model);
}

/* ---- through the file, or refused ---- */

static void expect_same_tensor(const emo_model *a, const emo_model *b, const char *name) {
    emo_error err = EMO_ERROR_INIT;
    float x[1024], y[1024];
    size_t n = 0, m = 0;
    EXPECT_OK(emo_model_tensor_f32(a, name, x, 1024, &n, &err));
    EXPECT_OK(emo_model_tensor_f32(b, name, y, 1024, &m, &err));
    assert_true(n == m && n > 0);
    assert_memory_equal(x, y, n * sizeof *x);
}

static void what_can_be_streamed_is(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    host healthy = {0, -1, 0};
    emo_model *model = load_host(&healthy, CHOSEN, options);
    emo_model_info info = EMO_MODEL_INFO_INIT;
    info.non_finite = 1;
    EXPECT_OK(emo_model_get_info(model, &info, &err));
    assert_true(info.loaded == info.parameters && info.non_finite == 0);
    expect_same_tensor(model, whole, "model.layers.1.mlp.experts.6.down_proj.weight");
    expect_same_tensor(model, whole, "model.layers.0.mlp.experts.8.up_proj.weight"); /* shared */

    EXPECT_OK(emo_model_save(model, test_path("again"), NULL, &err));
    size_t n = 0;
    unsigned char *again = test_read(test_path("again/model.safetensors"), &n);
    assert_int_equal(n, size);
    assert_memory_equal(again, bytes, size);
    free(again);

    emo_mask *mask = NULL;
    emo_model *small = NULL, *other = NULL, *merged = NULL;
    EXPECT_OK(emo_model_mask(model, &mask, &err));
    for (int32_t e = 0; e < 8; e += 2)
        EXPECT_OK(emo_mask_set(mask, 1, e, 0, &err));
    EXPECT_OK(emo_model_prune(model, mask, NULL, &small, &err));
    EXPECT_OK(emo_model_prune(whole, mask, NULL, &other, &err));
    outcome a = say(small), b = say(other);
    expect_same(&a, &b);
    assert_int_equal(stats_of(small).capacity, 0);
    EXPECT_OK(emo_model_merge(model, small, NULL, &merged, &err));
    a = say(merged);
    b = say(whole);
    expect_same(&a, &b);
    emo_model_release(merged);

    emo_trainer *trainer = NULL;
    emo_dataset *data = NULL;
    static const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    const size_t length = 12;
    emo_train_options train = EMO_TRAIN_OPTIONS_INIT;
    train.seq_len = 8;
    train.max_steps = 1;
    EXPECT_OK(emo_dataset_from_tokens(rt, tokens, &length, NULL, 1, 1, &data, &err));
    EXPECT_STATUS(emo_trainer_create(model, data, &train, &trainer, &err), EMO_E_UNSUPPORTED, "training needs all");
    EXPECT_STATUS(emo_model_export(model, test_path("x.gguf"), NULL, NULL, &err), EMO_E_UNSUPPORTED, "exporting");
    far_add(rt); /* a device without page-locked memory and events */
    EXPECT_STATUS(emo_model_to_device(model, "far", &err), EMO_E_UNSUPPORTED, "cannot hold fewer experts");
    EXPECT_STATUS(emo_model_merge(whole, model, NULL, &merged, &err), EMO_E_UNSUPPORTED, "merging a child");
    emo_select_options select = EMO_SELECT_OPTIONS_INIT;
    emo_mask *chosen = NULL, *same = NULL;
    select.keep = 4;
    EXPECT_OK(emo_select(model, data, &select, &chosen, &err));
    EXPECT_OK(emo_select(whole, data, &select, &same, &err));
    assert_true(emo_mask_equal(chosen, same));
    emo_mask_release(chosen);
    select.method = EMO_SELECT_LAYERWISE;
    select.keep_shared = 0;
    int32_t ids[18], offsets[3];
    size_t count = 0;
    EXPECT_STATUS(emo_select_experts(model, data, &select, ids, 18, &count, offsets, &err), EMO_E_UNSUPPORTED,
                  "memory_budget");
    outcome still = say(model);
    expect_same(&still, &b);
    emo_dataset_release(data);
    emo_mask_release(same);
    emo_mask_release(mask);
    emo_model_release(small);
    emo_model_release(other);
    emo_model_release(model);
}

/* ---- policies ---- */

/* A pass that wants these experts of a layer; returns how many of them were not there. */
static int misses(emo_model *model, emo__lease *lease, int32_t layer, const int32_t *experts, int n) {
    emo_error err = EMO_ERROR_INIT;
    uint64_t before = stats_of(model).misses;
    int32_t *offsets = emo__lease_offsets(lease);
    memset(offsets, 0, 10 * sizeof *offsets);
    for (int i = 0; i < n; i++) {
        for (int32_t e = experts[i]; e < 9; e++)
            offsets[e + 1]++;
    }
    emo__lease_begin(lease, layer, false);
    for (bool more = true, all = false; more;) {
        emo_expert_table table;
        EXPECT_OK(emo__lease_next(lease, &table, &all, &more, &err));
        if (more)
            emo__lease_done(lease);
    }
    emo__lease_end(lease);
    return (int)(stats_of(model).misses - before);
}
#define MISSES(layer, ...)                                                                                             \
    misses(model, lease, layer, (const int32_t[]){__VA_ARGS__}, (int)(sizeof((int32_t[]){__VA_ARGS__}) / 4))

static emo__lease *lease_of(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    emo__lease *lease = NULL;
    EXPECT_OK(emo__lease_create(model, &lease, &err));
    return lease;
}

static double latest_goes(void *ctx, const emo_cache_entry *entry) {
    ++*(int *)ctx;
    assert_true(entry->layer >= 0 && entry->layer < 2 && entry->expert >= 0 && entry->expert < 8);
    assert_true(entry->layers_ahead >= 1 && entry->layers_ahead <= 2 && entry->reserved == 0);
    return (double)entry->steps_unused;
}

static void each_policy_has_its_victim(void **state) {
    (void)state;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    host healthy = {0, -1, 0};
    options.no_prefetch = 1;

    options.cache_policy = EMO_CACHE_LRU;
    emo_model *model = load_host(&healthy, 3, options);
    emo__lease *lease = lease_of(model);
    emo__lease_pass(lease, NULL, 0);
    assert_int_equal(MISSES(0, 0, 1), 2);
    assert_int_equal(MISSES(0, 0, 2), 1);
    assert_int_equal(MISSES(1, 7), 1); /* 1 goes */
    assert_int_equal(MISSES(0, 0, 2), 0);
    assert_int_equal(MISSES(0, 1), 1); /* 7 goes */
    assert_int_equal(MISSES(1, 7), 1);
    assert_int_equal(MISSES(0, 0, 1, 2, 3, 4, 5, 6, 7), 8 - 2); /* more than there is room for, in groups */
    emo__lease_destroy(lease);
    emo_model_release(model);

    options.cache_policy = EMO_CACHE_LFU;
    model = load_host(&healthy, 3, options);
    lease = lease_of(model);
    emo__lease_pass(lease, NULL, 0);
    for (int i = 0; i < 3; i++)
        (void)MISSES(0, 0, 1);
    assert_int_equal(MISSES(0, 2), 1);
    assert_int_equal(MISSES(0, 3), 1); /* 2 goes, though it is the newest */
    assert_int_equal(MISSES(0, 0, 1), 0);
    emo__lease_destroy(lease);
    emo_model_release(model);

    options.cache_policy = EMO_CACHE_POOL;
    model = load_host(&healthy, 3, options);
    lease = lease_of(model);
    uint8_t flags[2][8] = {{1, 1, 0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0, 0, 1}};
    const uint8_t *allowed[2] = {flags[0], flags[1]};
    emo__lease_pass(lease, allowed, 1);
    assert_int_equal(MISSES(0, 0), 1);
    assert_int_equal(MISSES(1, 7), 1);
    assert_int_equal(MISSES(0, 1), 1);
    for (int i = 0; i < 4; i++) {
        emo__lease_pass(lease, allowed, 1); /* in the pool is as good as used */
        assert_int_equal(MISSES(0, 0), 0);
    }
    emo__lease *stranger = lease_of(model);
    emo__lease_pass(stranger, NULL, 0);
    assert_int_equal(misses(model, stranger, 0, (const int32_t[]){5}, 1), 1); /* one has to go */
    emo__lease_pass(lease, allowed, 1);
    assert_int_equal(MISSES(0, 0, 1) + MISSES(1, 7), 1); /* it takes the place of the stranger's */
    assert_int_equal(misses(model, stranger, 0, (const int32_t[]){5}, 1), 1);
    emo__lease_destroy(stranger);
    emo__lease_destroy(lease);
    emo_model_release(model);

    int calls = 0;
    options.cache_policy = EMO_CACHE_HOST;
    options.cache_worth = (emo_cache_worth){&calls, latest_goes};
    model = load_host(&healthy, 3, options);
    lease = lease_of(model);
    emo__lease_pass(lease, NULL, 0);
    (void)MISSES(0, 0);
    (void)MISSES(0, 1);
    (void)MISSES(0, 2);
    assert_int_equal(calls, 0);
    assert_int_equal(MISSES(0, 3), 1); /* 2, the one used last, has the least */
    assert_int_equal(calls, 3);
    assert_int_equal(MISSES(0, 0, 1), 0);
    emo__lease_destroy(lease);
    emo_model_release(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_read_is_a_status),
        cmocka_unit_test(a_failed_read_ahead_is_tried_again),
        cmocka_unit_test(memory_that_runs_out_is_a_status),
        cmocka_unit_test(cancelling_leaves_all_usable),
        cmocka_unit_test(a_child_goes_on),
        cmocka_unit_test(what_can_be_streamed_is),
        cmocka_unit_test(each_policy_has_its_victim),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
