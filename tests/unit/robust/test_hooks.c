/* SPDX-License-Identifier: Apache-2.0 */
/* The host's hooks: executors give the same bits as the library's own pool, the log sink gets its level and no more,
 * memory, files and threads are given back; and a violated thread rule is EMO_E_BUSY for every kind of object. */
#include <pthread.h>
#include <unistd.h>

#include "base/comm.h"
#include "base/runtime.h"
#include "model/model.h"
#include "moe/mask.h"
#include "moe/pool.h"
#include "moe/router.h"
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
    for (int i = 0; i < 1000; i++) {
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
    assert_int_equal(settled_threads(threads), threads);
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

/* ---- EMO_E_BUSY ---- */

typedef struct objects {
    emo_model *model;
    emo_mask *mask;
    emo_mask *made;
    emo_pool_policy *pool;
    emo_router *router;
    emo_comm *comm;
    emo_dataset *data;
    emo_session *session;
    emo_trainer *trainer;
} objects;

/* Each call as another thread would make it while a writer (or, for those that write, a reader) is inside. */
static emo_status model_read(objects *o, emo_error *err) {
    emo_model_info info = EMO_MODEL_INFO_INIT;
    return emo_model_get_info(o->model, &info, err);
}
static emo_status model_write(objects *o, emo_error *err) { return emo_model_set_tokenizer(o->model, NULL, err); }
static emo_status mask_read(objects *o, emo_error *err) { return emo_mask_complement(o->mask, &o->made, err); }
static emo_status mask_write(objects *o, emo_error *err) { return emo_mask_set(o->mask, 0, 1, 0, err); }
static emo_status pool_read(objects *o, emo_error *err) {
    size_t size = 0;
    return emo_pool_policy_describe(o->pool, NULL, 0, &size, err);
}
static emo_status pool_write(objects *o, emo_error *err) { return emo_pool_policy_set_forced(o->pool, 1, err); }
static emo_status router_write(objects *o, emo_error *err) {
    return emo_router_update_score_bias(o->router, 0.1f, err);
}
static emo_status comm_write(objects *o, emo_error *err) { return emo_comm_barrier(o->comm, err); }

typedef struct attempt {
    objects *o;
    emo_status (*call)(objects *o, emo_error *err);
    emo_status status;
    emo_error err;
} attempt;

static void *try_it(void *opaque) {
    attempt *a = opaque;
    a->status = a->call(a->o, &a->err);
    return NULL;
}

static void expect_busy(objects *o, emo_status (*call)(objects *, emo_error *), const char *what) {
    attempt a = {o, call, EMO_OK, EMO_ERROR_INIT};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, try_it, &a), 0);
    (void)pthread_join(thread, NULL);
    if (a.status != EMO_E_BUSY || a.err.message[0] == '\0')
        fail_msg("%s: %s %s", what, emo_status_name(a.status), a.err.message);
}

static emo_status advance_again(objects *o, emo_error *err) {
    emo_state at;
    return emo_session_advance(o->session, NULL, &at, err);
}
static emo_status append_again(objects *o, emo_error *err) {
    static const int32_t token = 3;
    return emo_session_append_tokens(o->session, 0, &token, 1, err);
}
static emo_status train_again(objects *o, emo_error *err) { return emo_trainer_step(o->trainer, NULL, err); }
static emo_status another_trainer(objects *o, emo_error *err) {
    emo_trainer *t = NULL;
    emo_train_options options = stages_train_options();
    return emo_trainer_create(o->model, o->data, &options, &t, err);
}

/* From inside a long call: another thread tries the same objects. */
static int32_t during_session(void *ctx, const emo_progress_info *info) {
    (void)info;
    expect_busy(ctx, advance_again, "advance");
    expect_busy(ctx, append_again, "append");
    expect_busy(ctx, model_write, "set a model's tokenizer");
    return 0;
}
static int32_t during_training(void *ctx, const emo_progress_info *info) {
    (void)info;
    expect_busy(ctx, train_again, "step");
    expect_busy(ctx, another_trainer, "second trainer");
    expect_busy(ctx, model_write, "set a model's tokenizer");
    return 0;
}

static void a_violated_thread_rule_is_busy(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    objects o = {0};
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_router_options router = EMO_ROUTER_OPTIONS_INIT;
    router.hidden = 4;
    router.experts = 4;
    router.top_k = 2;
    EXPECT_OK(stages_open_model(rt, &o.model, &err));
    EXPECT_OK(stages_open_data(rt, &o.data, &err));
    EXPECT_OK(emo_model_mask(o.model, &o.mask, &err));
    EXPECT_OK(emo_pool_policy_create_fixed(rt, 3, &o.pool, &err));
    EXPECT_OK(emo_router_create(rt, &router, &o.router, &err));
    emo_comm *pair[2] = {NULL, NULL};
    EXPECT_OK(emo_comm_create_local(rt, 2, pair, &err));
    o.comm = pair[0];
    const struct {
        const char *name;
        emo__guard *guard;
        emo_status (*read)(objects *, emo_error *);
        emo_status (*write)(objects *, emo_error *);
    } kinds[] = {
        {"model", &o.model->guard, model_read, model_write}, {"mask", &o.mask->guard, mask_read, mask_write},
        {"pool", &o.pool->guard, pool_read, pool_write},     {"router", &o.router->guard, NULL, router_write},
        {"comm", &o.comm->guard, NULL, comm_write},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        assert_true(emo__guard_try_write(kinds[i].guard));
        if (kinds[i].read != NULL)
            expect_busy(&o, kinds[i].read, kinds[i].name);
        expect_busy(&o, kinds[i].write, kinds[i].name);
        emo__guard_end_write(kinds[i].guard);
        assert_true(emo__guard_try_read(kinds[i].guard));
        expect_busy(&o, kinds[i].write, kinds[i].name);
        emo__guard_end_read(kinds[i].guard);
    }
    assert_null(o.made);

    emo_session_options session = EMO_SESSION_OPTIONS_INIT;
    emo_state at = EMO_STATE_PENDING;
    static const int32_t tokens[] = {1, 2};
    session.max_tokens = 1;
    session.progress = (emo_progress){&o, during_session};
    EXPECT_OK(emo_session_create(o.model, &session, &o.session, &err));
    EXPECT_OK(emo_session_append_tokens(o.session, 0, tokens, 2, &err));
    while (at != EMO_STATE_DONE)
        EXPECT_OK(emo_session_advance(o.session, NULL, &at, &err));
    emo_session_release(o.session);

    emo_train_options train_options = stages_train_options();
    train_options.max_steps = 1;
    train_options.progress = (emo_progress){&o, during_training};
    EXPECT_OK(emo_trainer_create(o.model, o.data, &train_options, &o.trainer, &err));
    EXPECT_OK(emo_trainer_run(o.trainer, &err));
    emo_trainer_release(o.trainer);
    EXPECT_OK(emo_model_set_tokenizer(o.model, NULL, &err)); /* it is free again */
    emo_comm_release(pair[0]);
    emo_comm_release(pair[1]);
    emo_router_release(o.router);
    emo_pool_policy_release(o.pool);
    emo_mask_release(o.mask);
    emo_dataset_release(o.data);
    emo_model_release(o.model);
    emo_runtime_release(rt);
}

static int setup(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    stages_setup();
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
static int teardown(void **state) {
    (void)state;
    stages_teardown();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(executors_do_not_change_a_bit),  cmocka_unit_test(the_log_sink_gets_its_level),
        cmocka_unit_test(a_violated_thread_rule_is_busy), cmocka_unit_test(stages_leave_no_file_open),
        cmocka_unit_test(a_thousand_lives_leave_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
