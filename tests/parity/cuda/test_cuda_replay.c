/* SPDX-License-Identifier: Apache-2.0 */
/* Steps and tokens that a CUDA device replays from graphs: the bits of those that are launched one by one, no waiting
 * in between, and what becomes of it where no graph can be made. */
#include "../../unit/infer/infer_support.h"
#include "../../unit/train/train_support.h"
#include "cudasim/control.h"
#include "support/mirror.h"

static void place(emo_model *model) {
    emo_error err = EMO_ERROR_INIT;
    EXPECT_OK(emo_runtime_load_backend(model->rt, mirror_plugin(), &err));
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
}

/* NULL on a GPU. */
static const cudasim_control_table *simulator(void) { return mirror_simulator(mirror_plugin()); }

/* A build that gives every array memory of its own: it is slow, and waits where it gives some back. */
static int checked(void) { return simulator() != NULL && strstr(mirror_plugin(), "_hooked") != NULL; }

static cudasim_counts counts(void) {
    cudasim_counts c = {0};
    if (simulator() != NULL)
        simulator()->counts(&c);
    return c;
}

/* ---- training ---- */

typedef struct told {
    tiny_result r;
    emo_trainer *trainer;
    int64_t last;
    int64_t stop;     /* after this step; 0: never */
    int64_t replayed; /* steps, at the end */
    size_t waits;     /* most between two steps that were replayed */
    int64_t named;    /* the first step that the log calls not finite */
    int graphless;    /* the log says that no graph can be made */
} told;

static int fail_at; /* this allocation of a run fails; 0: none */

static int32_t on_step(void *ctx, const emo_step_metrics *m) {
    told *t = ctx;
    cudasim_counts c = counts();
    assert_int_equal(m->step, t->last + 1);
    t->last = m->step;
    t->r.metrics[m->step] = *m;
    if (m->step > 3 && c.waits > t->waits)
        t->waits = c.waits;
    return m->step == t->stop;
}

static void on_log(void *ctx, emo_log_level level, const char *message) {
    told *t = ctx;
    const char *step = strstr(message, "the gradients of step ");
    if (step != NULL && t->named == 0)
        t->named = strtol(step + strlen("the gradients of step "), NULL, 10);
    t->graphless |= level == EMO_LOG_WARNING && strstr(message, "no graph could be made") != NULL;
}

static emo_train_options small_options(void) {
    emo_train_options o = tiny_options();
    o.batch_rows = 2;
    o.seq_len = 16;
    return o;
}

/* The whole run by emo_trainer_run, which is a step ahead of what it tells. */
static void run(told *t, emo_dtype compute, const char *pool, emo_train_options o) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    emo_pool_policy *policy = NULL;
    if (mirror_plugin() == NULL)
        skip();
    options.threads = 1;
    options.log.ctx = t;
    options.log.log = on_log;
    EXPECT_OK(emo_runtime_create(&options, &rt, &err));
    emo_model *model = tiny_model(rt, TINY);
    EXPECT_OK(emo_model_set_compute(model, compute, &err));
    place(model);
    emo_dataset *data = tiny_data(rt);
    EXPECT_OK(emo_pool_policy_parse(rt, pool, &policy, &err));
    o.pool = policy;
    o.on_step = on_step;
    o.on_step_ctx = t;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t->trainer, &err));
    (void)counts();
    if (fail_at > 0)
        simulator()->fail_allocation(fail_at);
    t->r.status = emo_trainer_run(t->trainer, &t->r.err);
    if (fail_at > 0)
        simulator()->fail_allocation(0);
    if (t->stop != 0) { /* and on to the end */
        EXPECT_STATUS(t->r.status, EMO_E_CANCELLED, "");
        assert_int_equal(t->last, t->stop + 1); /* the one that was under way */
        assert_int_equal(emo_trainer_at(t->trainer), t->last);
        t->stop = 0;
        t->r.status = emo_trainer_run(t->trainer, &t->r.err);
    }
    EXPECT_OK(t->r.status);
    t->r.done = emo_trainer_at(t->trainer);
    t->replayed = emo_trainer_replayed(t->trainer);
    emo_trainer_release(t->trainer);
    tiny_weights(model, &t->r);
    emo_pool_policy_release(policy);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* Every micro-batch has other documents, pools and counts of labels. The first run stops in the middle and goes on. */
static void steps_are_replayed(void **state) {
    (void)state;
    for (int i = checked() ? 1 : 0; i < 2; i++) {
        told plain = {0}, replayed = {0};
        emo_train_options o = small_options();
        o.max_steps = checked() ? 4 : 6;
        o.balance_scope = i == 1 ? EMO_BALANCE_DOCUMENT : EMO_BALANCE_WINDOW;
        o.balance_window = 3;
        o.accumulate = i == 1 && !checked() ? 2 : 1;
        o.jitter = i == 0 ? 0.01f : 0.0f;
        o.recompute = i == 1 ? EMO_RECOMPUTE_LAYER : EMO_RECOMPUTE_EXPERTS;
        o.optimizer_on = i == 1 ? EMO_OPTIMIZER_HOST : EMO_OPTIMIZER_DEVICE;
        o.no_graph = 1;
        run(&plain, i == 1 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32, "uniform:3:8", o);
        o.no_graph = 0;
        replayed.stop = i == 0 ? 3 : 0;
        run(&replayed, i == 1 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32, "uniform:3:8", o);
        tiny_same(&plain.r, &replayed.r, 1);
        assert_int_equal(plain.replayed, 0);
        if (replayed.replayed < (checked() ? 1 : 3))
            fail_msg("%lld of %lld steps were replayed", (long long)replayed.replayed, (long long)o.max_steps);
        if (simulator() != NULL && !checked())
            assert_int_equal(replayed.waits, 1); /* for the step before */
        tiny_free(&plain.r), tiny_free(&replayed.r);
    }
}

/* What a step in steady state asks of the device: two graphs with their values, and losses that are on their way. */
static void a_step_waits_for_nothing(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    if (mirror_plugin() == NULL || simulator() == NULL)
        skip();
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_model *model = tiny_model(rt, TINY);
    place(model);
    emo_dataset *data = tiny_data(rt);
    emo_train_options o = small_options();
    emo_trainer *t = NULL;
    o.max_steps = checked() ? 7 : 9;
    EXPECT_OK(emo_trainer_create(model, data, &o, &t, &err));
    for (int64_t s = 1; s <= o.max_steps; s++) {
        int64_t before = emo_trainer_replayed(t);
        (void)counts();
        EXPECT_OK(emo__trainer_enqueue(t, &err));
        cudasim_counts c = counts();
        EXPECT_OK(emo__trainer_collect(t, NULL, &err));
        if (s <= 6)
            continue;
        assert_int_equal(emo_trainer_replayed(t), before + 1);
        assert_int_equal(c.waits, 0);
        assert_int_equal(c.graphs, 2);
        assert_int_equal(c.launches, 0);
        assert_int_equal(c.to_device, 2);
        assert_int_equal(c.to_host, 3);
    }
    emo_trainer_release(t);
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
}

/* The step is named, when it is read, though the next one is under way by then. */
static void the_step_that_is_not_finite_is_named(void **state) {
    (void)state;
    told t = {0};
    int64_t first = 0;
    emo_train_options o = small_options();
    o.max_steps = TINY_MOST;
    o.lr = 1000.0f;
    o.max_grad_norm = 0.0f;
    o.warmup = 0;
    run(&t, EMO_DTYPE_F32, "uniform:3:8", o);
    for (int64_t s = o.max_steps; s > 0; s--)
        first = t.r.metrics[s].skipped ? s : first;
    assert_true(first > 1);
    assert_int_equal(t.named, first);
    tiny_free(&t.r);
}

/* ---- generation ---- */

enum { TOKENS = 14 };

static const char thin_config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":600,\"num_experts_per_tok\":2,"
    "\"num_experts\":5,\"num_shared_experts\":1,\"initializer_range\":0.3,\"eos_token_id\":256,\"pad_token_id\":0}";

typedef struct spoken {
    emo_runtime *rt;
    emo_model *model;
    emo_session *session;
    size_t waits;
} spoken;

static spoken speak(int32_t no_graph, int round) {
    emo_error err = EMO_ERROR_INIT;
    spoken s = {0};
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_state state = EMO_STATE_PENDING;
    emo_budget one = {.tokens = 1};
    if (mirror_plugin() == NULL)
        skip();
    s.rt = test_runtime(1, EMO_ISA_AUTO);
    s.model = test_model(s.rt, round == 0 ? thin_config : wild_config, 5);
    place(s.model);
    o.sequences = 1 + round;
    o.max_tokens = TOKENS;
    o.ignore_eos = 1;
    o.temperature = round == 0 ? 0.0f : 0.9f;
    o.top_p = round == 0 ? 1.0f : 0.9f;
    o.repetition_penalty = round == 0 ? 1.0f : 1.2f;
    o.seed = 4;
    o.no_graph = no_graph;
    s.session = test_session(s.model, &o);
    for (int32_t q = 0; q < o.sequences; q++)
        test_append(s.session, q, round == 0 ? 506 : 7, 1 + (uint64_t)q); /* 506: across a split of the keys */
    while (state != EMO_STATE_DONE) {
        (void)counts();
        EXPECT_OK(emo_session_advance(s.session, &one, &state, &err));
        size_t c = counts().waits;
        size_t n = emo_session_generated(s.session, 0, NULL, NULL);
        s.waits += state != EMO_STATE_DONE && n > 1 ? c : 0;
    }
    return s;
}

static void quiet(spoken *s) {
    emo_session_release(s->session);
    emo_model_release(s->model);
    emo_runtime_release(s->rt);
}

static void tokens_are_replayed(void **state) {
    (void)state;
    for (int round = checked() ? 1 : 0; round < 2; round++) {
        spoken plain = speak(1, round), replayed = speak(0, round);
        for (int32_t q = 0; q <= round; q++) {
            static float a[VOCAB], b[VOCAB];
            emo_error err = EMO_ERROR_INIT;
            test_same_output(plain.session, q, replayed.session, q);
            EXPECT_OK(emo_session_logits(plain.session, q, a, VOCAB, &err));
            EXPECT_OK(emo_session_logits(replayed.session, q, b, VOCAB, &err));
            assert_memory_equal(a, b, sizeof a);
        }
        assert_int_equal(emo_session_generated(plain.session, 0, NULL, NULL), TOKENS);
        assert_int_equal(emo_session_replayed(plain.session), 0);
        if (simulator() != NULL && !checked()) /* one a token, at its end; and one where the cache grew */
            assert_int_equal(replayed.waits, round == 0 ? TOKENS : TOKENS - 1);
        if (emo_session_replayed(replayed.session) < TOKENS / 2)
            fail_msg("%lld of 13 tokens were replayed", (long long)emo_session_replayed(replayed.session));
        quiet(&plain);
        quiet(&replayed);
    }
}

/* ---- where no graph can be made ---- */

/* Capturing fails, or there is no memory for the first graph, or for the second: steps are launched from there on, with
 * the same bits. A step allocates nothing else. */
static void without_graphs(void **state) {
    (void)state;
    told plain = {0};
    emo_train_options o = small_options();
    if (mirror_plugin() == NULL || simulator() == NULL)
        skip();
    o.max_steps = 3;
    o.no_graph = 1;
    run(&plain, EMO_DTYPE_F32, "uniform:3:8", o);
    assert_false(plain.graphless);
    o.no_graph = 0;
    for (int i = 0; i < (checked() ? 1 : 3); i++) { /* in checked builds steps allocate */
        told failing = {0};
        simulator()->fail_graph(i == 0);
        fail_at = i;
        run(&failing, EMO_DTYPE_F32, "uniform:3:8", o);
        simulator()->fail_graph(0);
        tiny_same(&plain.r, &failing.r, 1);
        assert_int_equal(failing.replayed, 0);
        assert_true(failing.graphless);
        tiny_free(&failing.r);
    }
    fail_at = 0;
    tiny_free(&plain.r);
}

/* Out of device memory at each allocation of a session, its first tokens' pieces among them: a status, and it goes on
 * where it stopped. */
static void out_of_memory_while_generating(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    int32_t wanted[4] = {0};
    int failed = 1;
    if (mirror_plugin() == NULL || simulator() == NULL)
        skip();
    for (int n = 0; failed; n += n < 8 || !checked() ? 1 : n / 2) { /* 0: none fails */
        emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
        emo_model *model = test_model(rt, thin_config, 5);
        emo_session_options o = EMO_SESSION_OPTIONS_INIT;
        emo_state at = EMO_STATE_PENDING;
        const int32_t *tokens = NULL;
        place(model);
        o.max_tokens = 4;
        o.ignore_eos = 1;
        emo_session *session = test_session(model, &o);
        test_append(session, 0, 3, 1);
        simulator()->fail_allocation(n);
        emo_status status = EMO_OK;
        while (status == EMO_OK && at != EMO_STATE_DONE)
            status = emo_session_advance(session, NULL, &at, &err);
        simulator()->fail_allocation(0);
        failed = n == 0 || status != EMO_OK;
        if (status != EMO_OK)
            assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
        while (at != EMO_STATE_DONE)
            EXPECT_OK(emo_session_advance(session, NULL, &at, &err));
        assert_int_equal(emo_session_generated(session, 0, &tokens, NULL), 4);
        if (n == 0)
            memcpy(wanted, tokens, sizeof wanted);
        assert_memory_equal(tokens, wanted, sizeof wanted);
        emo_session_release(session);
        emo_model_release(model);
        emo_runtime_release(rt);
    }
}

static void nothing_was_found(void **state) {
    (void)state;
    if (mirror_plugin() == NULL)
        skip();
    mirror_expect_clean(mirror_plugin());
}

/* With a name: that test alone. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_replayed),
        cmocka_unit_test(a_step_waits_for_nothing),
        cmocka_unit_test(the_step_that_is_not_finite_is_named),
        cmocka_unit_test(tokens_are_replayed),
        cmocka_unit_test(without_graphs),
        cmocka_unit_test(out_of_memory_while_generating),
        cmocka_unit_test(nothing_was_found),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
