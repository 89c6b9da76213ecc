/* SPDX-License-Identifier: Apache-2.0 */
/* A violated thread rule is EMO_E_BUSY for every kind of object that can change; the others (datasets, choices,
 * sources, statistics) never change once they are made. */
#include <pthread.h>
#include <stdatomic.h>

#include "base/comm.h"
#include "base/runtime.h"
#include "infer/session.h"
#include "model/model.h"
#include "moe/mask.h"
#include "moe/pool.h"
#include "moe/router.h"
#include "support/stages.h"
#include "text/vocab.h"

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
    emo_tokenizer *tokenizer;
    emo_decoder *decoder;
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
static emo_status tokenizer_read(objects *o, emo_error *err) {
    int32_t ids[8];
    size_t n = 0;
    return emo_tokenizer_encode(o->tokenizer, "ab", 2, ids, 8, &n, err);
}
static emo_status tokenizer_write(objects *o, emo_error *err) { return emo_tokenizer_set_eos(o->tokenizer, 256, err); }
static emo_status session_read(objects *o, emo_error *err) {
    float logits[STAGES_VOCAB];
    return emo_session_logits(o->session, 0, logits, STAGES_VOCAB, err);
}
static emo_status session_write(objects *o, emo_error *err) { return emo_session_reset(o->session, err); }
static emo_status decoder_write(objects *o, emo_error *err) {
    const char *text;
    size_t n = 0;
    return emo_decoder_push(o->decoder, 'a', &text, &n, err);
}
static emo_status router_weights(objects *o, emo_error *err) {
    static const float weights[16] = {1.0f};
    return emo_router_set_weights(o->router, weights, 16, err);
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
static emo_status checkpoint_again(objects *o, emo_error *err) { return emo_trainer_checkpoint(o->trainer, err); }
static emo_status run_again(objects *o, emo_error *err) { return emo_trainer_run(o->trainer, err); }
static emo_status another_trainer(objects *o, emo_error *err) {
    emo_trainer *t = NULL;
    emo_train_options options = stages_train_options();
    return emo_trainer_create(o->model, o->data, &options, &t, err);
}

/* From inside a long call: another thread tries the same objects. */
static int32_t during_session(void *ctx, const emo_progress_info *info) {
    if (strcmp(info->phase, "tokenize") == 0) /* the session is appended to, not advanced */
        return 0;
    expect_busy(ctx, advance_again, "advance");
    expect_busy(ctx, append_again, "append");
    expect_busy(ctx, session_write, "reset");
    expect_busy(ctx, session_read, "logits");
    expect_busy(ctx, model_write, "set a model's tokenizer");
    return 0;
}
static int32_t during_training(void *ctx, const emo_progress_info *info) {
    if (strcmp(info->phase, "copy") == 0) /* there is no trainer yet */
        return 0;
    expect_busy(ctx, train_again, "step");
    expect_busy(ctx, run_again, "run");
    expect_busy(ctx, checkpoint_again, "checkpoint");
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
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &o.tokenizer, &err));
    const struct {
        const char *name;
        emo__guard *guard;
        emo_status (*read)(objects *, emo_error *);
        emo_status (*write)(objects *, emo_error *);
    } kinds[] = {
        {"model", &o.model->guard, model_read, model_write},
        {"mask", &o.mask->guard, mask_read, mask_write},
        {"pool", &o.pool->guard, pool_read, pool_write},
        {"router", &o.router->guard, NULL, router_write},
        {"comm", &o.comm->guard, NULL, comm_write},
        {"tokenizer", &o.tokenizer->guard, tokenizer_read, tokenizer_write},
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
    emo_tokenizer_release(o.tokenizer);

    emo_session_options session = EMO_SESSION_OPTIONS_INIT;
    emo_state at = EMO_STATE_PENDING;
    static const int32_t tokens[] = {1, 2};
    session.max_tokens = 1;
    session.progress = (emo_progress){&o, during_session};
    EXPECT_OK(emo_session_create(o.model, &session, &o.session, &err));
    EXPECT_OK(emo_session_append_tokens(o.session, 0, tokens, 2, &err));
    assert_true(emo__guard_try_read(&o.session->guard)); /* as another thread does that reads logits */
    expect_busy(&o, session_write, "reset");
    emo__guard_end_read(&o.session->guard);
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

/* ---- Two threads that do not care ---- */

typedef struct careless {
    objects *o;
    emo_status (*call)(objects *o, emo_error *err);
    atomic_int *stop;
    long done;
    long busy;
    emo_status wrong; /* a status that is neither EMO_OK nor EMO_E_BUSY */
} careless;

static void *call_on(void *opaque) {
    careless *c = opaque;
    while (atomic_load(c->stop) == 0) {
        emo_error err = EMO_ERROR_INIT;
        emo_status status = c->call(c->o, &err);
        c->done += status == EMO_OK;
        c->busy += status == EMO_E_BUSY;
        if (status != EMO_OK && status != EMO_E_BUSY)
            c->wrong = status;
    }
    return NULL;
}

/* Both threads call without a pause: each call works or is refused, none of them does harm (which ThreadSanitizer would
 * see). Until the first thread is refused, or `tries` calls. */
static long meet(objects *o, emo_status (*first)(objects *, emo_error *), emo_status (*second)(objects *, emo_error *),
                 const char *what, long tries) {
    atomic_int stop = 0;
    careless two[2] = {{o, first, &stop, 0, 0, EMO_OK}, {o, second, &stop, 0, 0, EMO_OK}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, call_on, &two[1]), 0);
    careless *mine = &two[0];
    for (long i = 0; i < tries && mine->busy == 0; i++) {
        emo_error err = EMO_ERROR_INIT;
        emo_status status = mine->call(o, &err);
        mine->done += status == EMO_OK;
        mine->busy += status == EMO_E_BUSY;
        if (status != EMO_OK && status != EMO_E_BUSY)
            mine->wrong = status;
    }
    atomic_store(&stop, 1);
    (void)pthread_join(thread, NULL);
    for (size_t i = 0; i < 2; i++) {
        if (two[i].wrong != EMO_OK)
            fail_msg("%s: %s", what, emo_status_name(two[i].wrong));
    }
    return two[0].busy + two[1].busy;
}

static void careless_threads_do_no_harm(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    objects o = {0};
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_router_options router = EMO_ROUTER_OPTIONS_INIT;
    router.hidden = 4;
    router.experts = 4;
    router.top_k = 2;
    EXPECT_OK(stages_open_model(rt, &o.model, &err));
    EXPECT_OK(emo_model_mask(o.model, &o.mask, &err));
    EXPECT_OK(emo_pool_policy_create_fixed(rt, 3, &o.pool, &err));
    EXPECT_OK(emo_router_create(rt, &router, &o.router, &err));
    EXPECT_OK(emo_tokenizer_create_bytes(rt, &o.tokenizer, &err));
    EXPECT_OK(emo_decoder_create(o.tokenizer, NULL, &o.decoder, &err));
    EXPECT_OK(emo_session_create(o.model, NULL, &o.session, &err));
    (void)meet(&o, model_read, model_write, "model", 2000);
    (void)meet(&o, pool_read, pool_write, "pool", 2000);
    (void)meet(&o, router_weights, router_weights, "router", 2000);
    (void)meet(&o, tokenizer_read, tokenizer_write, "tokenizer", 2000);
    (void)meet(&o, mask_write, mask_write, "mask", 2000);
    (void)meet(&o, session_write, session_write, "session", 2000);
    /* the decoder's guard cannot be held from outside: two threads must really meet in it */
    assert_true(meet(&o, decoder_write, decoder_write, "decoder", 200000000) > 0);
    emo_session_release(o.session);
    emo_decoder_release(o.decoder);
    emo_tokenizer_release(o.tokenizer);
    emo_router_release(o.router);
    emo_pool_policy_release(o.pool);
    emo_mask_release(o.mask);
    emo_model_release(o.model);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_violated_thread_rule_is_busy),
        cmocka_unit_test(careless_threads_do_no_harm),
    };
    return cmocka_run_group_tests(tests, stages_setup, stages_teardown);
}
