/* SPDX-License-Identifier: Apache-2.0 */
/* The host's hooks: executors give the same bits as the library's own pool, the log sink gets its level and no more,
 * and memory, files, mappings and threads are given back. */
#include <pthread.h>
#include <unistd.h>

#include "support/folder.h"
#include "support/meter.h"
#include "support/stages.h"

/* ---- Executors ---- */

static void serial_for(void *ctx, size_t count, emo_task_fn fn, void *task) {
    atomic_fetch_add((atomic_long *)ctx, 1);
    for (size_t i = count; i > 0; i--) /* backwards: the order must not matter */
        fn(task, i - 1, 0);
}

enum { HOST_WORKERS = 3 };

typedef struct share {
    atomic_size_t next;
    size_t count;
    emo_task_fn fn;
    void *task;
} share;
typedef struct hand {
    share *work;
    size_t worker;
} hand;

static void *work(void *opaque) {
    hand *h = opaque;
    for (size_t i = atomic_fetch_add(&h->work->next, 1); i < h->work->count; i = atomic_fetch_add(&h->work->next, 1))
        h->work->fn(h->work->task, i, h->worker);
    return NULL;
}

static void threads_for(void *ctx, size_t count, emo_task_fn fn, void *task) {
    atomic_fetch_add((atomic_long *)ctx, 1);
    share s = {0, count, fn, task};
    hand hands[HOST_WORKERS];
    pthread_t threads[HOST_WORKERS];
    int started[HOST_WORKERS] = {0};
    for (size_t w = 0; w < HOST_WORKERS; w++) {
        hands[w] = (hand){&s, w};
        started[w] = w > 0 && pthread_create(&threads[w], NULL, work, &hands[w]) == 0;
    }
    (void)work(&hands[0]);
    for (size_t w = 1; w < HOST_WORKERS; w++) {
        if (started[w])
            (void)pthread_join(threads[w], NULL);
    }
}

/* Losses of two steps, and the model's numbers after them. */
static void train(const emo_runtime_options *options, double losses[2], float *row) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    emo_pool_policy *pool = NULL;
    emo_trainer *trainer = NULL;
    emo_train_options o = stages_train_options();
    size_t n = 0;
    EXPECT_OK(emo_runtime_create(options, &rt, &err));
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 3, 8, &pool, &err));
    o.pool = pool;
    EXPECT_OK(emo_trainer_create(model, data, &o, &trainer, &err));
    for (int s = 0; s < 2; s++) {
        emo_step_metrics m = {0};
        m.struct_size = sizeof m;
        EXPECT_OK(emo_trainer_step(trainer, &m, &err));
        losses[s] = m.total_loss;
    }
    emo_trainer_release(trainer);
    EXPECT_OK(emo_model_tensor_f32(model, "model.embed_tokens.weight", row, STAGES_VOCAB * 16, &n, &err));
    emo_pool_policy_release(pool);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

static void executors_do_not_change_a_bit(void **state) {
    (void)state;
    static float want[STAGES_VOCAB * 16];
    static float got[STAGES_VOCAB * 16];
    double losses[2];
    double other[2];
    atomic_long calls = 0;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 2;
    train(&options, losses, want);
    options.executor = (emo_executor){&calls, 1, serial_for};
    for (int i = 0; i < 2; i++) {
        atomic_store(&calls, 0);
        train(&options, other, got);
        assert_true(atomic_load(&calls) > 10);
        assert_memory_equal(losses, other, sizeof losses);
        assert_memory_equal(want, got, sizeof want);
        options.executor = (emo_executor){&calls, HOST_WORKERS, threads_for};
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    options.executor.concurrency = 0;
    EXPECT_STATUS(emo_runtime_create(&options, &rt, &err), EMO_E_RANGE, "concurrency");
}

/* ---- Log ---- */

typedef struct log_book {
    atomic_long count[4];
} log_book;

static void write_down(void *ctx, emo_log_level level, const char *message) {
    assert_in_range(level, EMO_LOG_ERROR, EMO_LOG_DEBUG);
    assert_true(message != NULL && message[0] != '\0');
    atomic_fetch_add(&((log_book *)ctx)->count[level], 1);
}

static void the_log_sink_gets_its_level(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    for (emo_log_level level = EMO_LOG_ERROR; level <= EMO_LOG_DEBUG; level++) {
        log_book book = {{0, 0, 0, 0}};
        emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
        emo_runtime *rt = NULL;
        emo_model *model = NULL;
        options.threads = 1;
        options.log.ctx = &book;
        options.log.log = write_down;
        options.log.level = level;
        EXPECT_OK(emo_runtime_create(&options, &rt, &err));
        /* a tokenizer of an unsupported kind beside a model is passed over with a warning */
        EXPECT_OK(emo_model_load_path(rt, test_path("odd"), NULL, &model, &err));
        assert_null(emo_model_tokenizer(model));
        assert_int_equal(atomic_load(&book.count[EMO_LOG_WARNING]) > 0, level >= EMO_LOG_WARNING);
        for (emo_log_level above = level + 1; above <= EMO_LOG_DEBUG; above++)
            assert_int_equal(atomic_load(&book.count[above]), 0);
        emo_model_release(model);
        emo_runtime_release(rt);
    }
}

/* ---- Nothing is left ---- */

static void a_thousand_lives_leave_nothing(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    meter m = METER_INIT;
    int fds = count_fds();
    int threads = count_threads();
    static const int32_t tokens[] = {1, 2, 3};
    int maps = count_maps();
    for (int i = 0; i < (test_soak() ? 10000 : 1000); i++) {
        emo_runtime *rt = meter_runtime(&m, 2);
        emo_model *model = NULL;
        emo_mask *mask = NULL;
        emo_session *session = NULL;
        emo_session_options options = EMO_SESSION_OPTIONS_INIT;
        emo_state at = EMO_STATE_PENDING;
        options.max_tokens = 1;
        EXPECT_OK(stages_open_model(rt, &model, &err));
        EXPECT_OK(emo_model_mask(model, &mask, &err));
        options.mask = mask;
        EXPECT_OK(emo_session_create(model, &options, &session, &err));
        EXPECT_OK(emo_session_append_tokens(session, 0, tokens, 3, &err));
        while (at != EMO_STATE_DONE)
            EXPECT_OK(emo_session_advance(session, NULL, &at, &err));
        emo_session_release(session);
        emo_mask_release(mask);
        emo_model_release(model);
        emo_runtime_release(rt);
        if (atomic_load(&m.live) != 0)
            meter_check(&m, "a life");
    }
    meter_check(&m, "at the end");
    assert_int_equal(atomic_load(&m.bytes), 0);
    assert_int_equal(count_fds(), fds);
    assert_int_equal(count_maps(), maps);
    assert_int_equal(settled_threads(threads), threads);
}

/* Objects that no file is needed for, each made, used and released; `round` varies what they do. */
static void a_life_of_everything(emo_runtime *rt, emo_dataset *data, emo_model *model, int round) {
    emo_error err = EMO_ERROR_INIT;
    static const char *const texts[] = {"the cat", "a mat"};
    static const int32_t experts[] = {9, 5};
    static const int32_t shared[] = {1, 0};
    emo_tokenizer *tok = NULL;
    emo_decoder *decoder = NULL;
    emo_dataset *made = NULL;
    emo_dataset *part = NULL;
    emo_mask *a = NULL;
    emo_mask *b = NULL;
    emo_pool_policy *pool = NULL;
    emo_router *router = NULL;
    emo_comm *pair[2] = {NULL, NULL};
    emo_source *source = NULL;
    emo_stats *stats = NULL;
    emo_model *fresh = NULL;
    emo_trainer *trainer = NULL;
    const char *text;
    size_t n = 0;
    int32_t ids[32];
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &tok, &err));
    EXPECT_OK(emo_tokenizer_encode(tok, texts[0], strlen(texts[0]), ids, 32, &n, &err));
    EXPECT_OK(emo_decoder_create(tok, NULL, &decoder, &err));
    EXPECT_OK(emo_decoder_push(decoder, ids[0], &text, &n, &err));
    EXPECT_OK(emo_dataset_from_text(rt, tok, texts, NULL, 2, &made, &err));
    EXPECT_OK(emo_dataset_filter(made, NULL, 1, (uint64_t)round, &part, &err));
    EXPECT_OK(emo_mask_create(rt, 2, experts, shared, round % 2, &a, &err));
    EXPECT_OK(emo_mask_complement(a, &b, &err));
    EXPECT_OK(emo_pool_policy_create_uniform(rt, 3, 8, &pool, &err));
    EXPECT_OK(emo_comm_create_local(rt, 2, pair, &err));
    emo_router_options ro = EMO_ROUTER_OPTIONS_INIT;
    emo_router_batch batch = EMO_ROUTER_BATCH_INIT;
    emo_routing routing = EMO_ROUTING_INIT;
    float x[4 * 4];
    test_fill(x, 16, (uint64_t)round, 1.0f);
    ro.hidden = 4;
    ro.experts = 9;
    ro.top_k = 2;
    batch.rows = 1;
    batch.seq_len = 4;
    batch.x = x;
    EXPECT_OK(emo_router_create(rt, &ro, &router, &err));
    EXPECT_OK(emo_router_forward(router, &batch, pool, NULL, &routing, &err));
    EXPECT_OK(emo_source_from_memory(rt, x, sizeof x, &source, &err));
    EXPECT_OK(emo_stats_collect(model, data, NULL, &stats, &err));
    EXPECT_OK(emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), NULL, &fresh, &err));
    emo_train_options to = stages_train_options();
    to.pool = pool;
    EXPECT_OK(emo_trainer_create(fresh, data, &to, &trainer, &err));
    EXPECT_OK(emo_trainer_step(trainer, NULL, &err));
    EXPECT_STATUS(emo_mask_set(a, 7, 0, 1, &err), EMO_E_INVALID_ARGUMENT,
                  "layer"); /* a failure leaves nothing either */
    emo_trainer_release(trainer);
    emo_model_release(fresh);
    emo_stats_release(stats);
    emo_source_release(source);
    emo_router_release(router);
    emo_comm_release(pair[0]);
    emo_comm_release(pair[1]);
    emo_pool_policy_release(pool);
    emo_mask_release(a);
    emo_mask_release(b);
    emo_dataset_release(part);
    emo_dataset_release(made);
    emo_decoder_release(decoder);
    emo_tokenizer_release(tok);
}

static void a_thousand_lives_of_everything(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    meter m = METER_INIT;
    emo_runtime *rt = meter_runtime(&m, 2);
    emo_model *model = NULL;
    emo_dataset *data = NULL;
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    a_life_of_everything(rt, data, model, 0);
    long live = atomic_load(&m.live);
    long bytes = atomic_load(&m.bytes);
    int fds = count_fds();
    int threads = count_threads();
    int maps = count_maps();
    size_t heap = heap_in_use();
    for (int i = 0; i < (test_soak() ? 10000 : 1000); i++) {
        a_life_of_everything(rt, data, model, i);
        if (atomic_load(&m.live) != live)
            fail_msg("life %d: %ld blocks more", i, atomic_load(&m.live) - live);
    }
    assert_int_equal(atomic_load(&m.bytes), bytes);
    assert_int_equal(count_fds(), fds);
    assert_int_equal(settled_threads(threads), threads);
    assert_int_equal(count_maps(), maps);
    /* what libraries below take past the hooks; a block of 64 bytes lost in each life would be twice as much */
    if (heap_in_use() > heap + 32 * 1024)
        fail_msg("%zu bytes of the heap more", heap_in_use() - heap);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&m, "at the end");
}

static void stages_leave_no_file_open(void **state) {
    (void)state;
    int fds = count_fds();
    int threads = count_threads();
    for (const stage *s = stages; s->run != NULL; s++) {
        for (int i = 0; i < 3; i++) {
            emo_error err = EMO_ERROR_INIT;
            meter m = METER_INIT;
            stages_clean();
            emo_runtime *rt = meter_runtime(&m, 2);
            if (s->run(rt, &err) != EMO_OK)
                fail_msg("%s: %s", s->name, err.message);
            emo_runtime_release(rt);
            meter_check(&m, s->name);
            assert_int_equal(count_fds(), fds);
            assert_int_equal(settled_threads(threads), threads);
        }
    }
}

static int setup(void **state) {
    emo_error err = EMO_ERROR_INIT;
    (void)stages_setup(state);
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = NULL;
    static const char other[] = "{\"model\":{\"type\":\"Unigram\"}}";
    EXPECT_OK(emo_model_create_json(rt, STAGES_CONFIG, strlen(STAGES_CONFIG), NULL, &model, &err));
    EXPECT_OK(emo_model_save(model, test_path("odd"), NULL, &err));
    (void)test_write("odd/tokenizer.json", other, sizeof other - 1);
    emo_model_release(model);
    emo_runtime_release(rt);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(executors_do_not_change_a_bit),  cmocka_unit_test(the_log_sink_gets_its_level),
        cmocka_unit_test(stages_leave_no_file_open),      cmocka_unit_test(a_thousand_lives_leave_nothing),
        cmocka_unit_test(a_thousand_lives_of_everything),
    };
    return cmocka_run_group_tests(tests, setup, stages_teardown);
}
