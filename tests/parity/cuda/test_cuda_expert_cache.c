/* SPDX-License-Identifier: Apache-2.0 */
/* Models under a memory budget on the CUDA back end: the bits of models without one, whatever the weights, the places
 * and the policies; copies beside the work of passes, and in order with it; what goes wrong. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

#include "../../unit/model/expert_cache_support.h"
#include "backend/registry.h"
#include "cudasim/control.h"
#include "support/folder.h"
#include "support/meter.h"
#include "support/mirror.h"
#include "support/stages.h"

/* q4_k: gate and up have rows of whole blocks, down falls back to q8_0. Layer 0 is dense. */
#define CONFIG(HIDDEN)                                                                                                 \
    "{\"model_type\":\"emo\",\"vocab_size\":60,\"hidden_size\":" HIDDEN                                                \
    ",\"intermediate_size\":32,\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"           \
    "\"max_position_embeddings\":64,\"num_experts_per_tok\":3,\"num_experts_per_layer\":[0,7,7],"                      \
    "\"num_shared_experts_per_layer\":[0,1,1],\"dense_intermediate_size\":32,\"initializer_range\":0.2,"               \
    "\"eos_token_id\":1,\"pad_token_id\":0}"
static const char narrow[] = CONFIG("24"), wide[] = CONFIG("256");
enum { PROMPT = 7, EXPERTS = 12, CHOSEN = 2, LAYERS = 2 /* with experts */ };

static emo_runtime *rt;
static const cudasim_control_table *simulator; /* NULL: a real device */
static int checked; /* the build gives back what it has at once, which waits, and checks every access: slowly */

static emo_runtime *device_runtime(void) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *on = test_runtime(2, EMO_ISA_AUTO);
    EXPECT_OK(emo_runtime_load_backend(on, mirror_plugin(), &err));
    return on;
}

static int setup(void **state) {
    (void)state;
    rt = device_runtime();
    simulator = mirror_simulator(mirror_plugin());
    checked = strstr(mirror_plugin(), "_hooked") != NULL;
    return test_folder() == NULL;
}

static int teardown(void **state) {
    (void)state;
    mirror_expect_clean(mirror_plugin());
    emo_runtime_release(rt);
    test_folder_remove();
    return 0;
}

/* ---- models ---- */

/* As a folder, or a GGUF file where the type is quantised; written when first asked for. */
static const char *model_file(emo_dtype dtype) {
    emo_error err = EMO_ERROR_INIT;
    const char *path = test_path(emo_dtype_name(dtype));
    if (access(path, F_OK) == 0)
        return path;
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    emo_model *model = NULL;
    const char *config = dtype == EMO_DTYPE_Q4_K ? wide : narrow;
    if (dtype == EMO_DTYPE_Q8_0 || dtype == EMO_DTYPE_Q4_0)
        config = CONFIG("32");
    options.seed = 5;
    EXPECT_OK(emo_model_create_json(rt, config, strlen(config), &options, &model, &err));
    if (dtype == EMO_DTYPE_F32 || dtype == EMO_DTYPE_BF16) {
        emo_model_save_options how = EMO_MODEL_SAVE_OPTIONS_INIT;
        how.dtype = dtype;
        EXPECT_OK(emo_model_save(model, path, &how, &err));
    } else {
        emo_export_options how = EMO_EXPORT_OPTIONS_INIT;
        how.dtype = dtype;
        EXPECT_OK(emo_model_export(model, path, &how, NULL, &err));
    }
    emo_model_release(model);
    return path;
}

/* On the CPU, with so many places; 0: no budget. */
static emo_model *load(emo_runtime *on, emo_dtype dtype, size_t places, emo_model_load_options options) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = NULL;
    if (places > 0) {
        options.memory_budget = UINT64_MAX;
        EXPECT_OK(emo_model_load_path(on, model_file(dtype), &options, &model, &err));
        emo_cache_stats stats = stats_of(model);
        assert_int_equal(stats.capacity, EXPERTS);
        emo_model_release(model);
        options.memory_budget = stats.bytes / stats.capacity * places;
    }
    EXPECT_OK(emo_model_load_path(on, model_file(dtype), &options, &model, &err));
    return model;
}

static emo_model *on_device(emo_dtype dtype, size_t places, emo_model_load_options options) {
    emo_error err = EMO_ERROR_INIT;
    emo_model *model = load(rt, dtype, places, options);
    EXPECT_OK(emo_model_to_device(model, "cuda", &err));
    return model;
}

static emo_session_options talk_options(void) {
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.max_tokens = TOKENS;
    options.ignore_eos = 1;
    return options;
}

static emo_session *begin(emo_model *model, const emo_session_options *options) {
    static const int32_t prompt[PROMPT] = {3, 50, 7, 7, 22, 41, 9};
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    EXPECT_OK(emo_session_create(model, options, &session, &err));
    EXPECT_OK(emo_session_append_tokens(session, 0, prompt, PROMPT, &err));
    return session;
}

static outcome say(emo_model *model, const emo_session_options *options) { return finish(begin(model, options)); }

static emo_pool_policy *prompt_pool(int32_t size) {
    emo_error err = EMO_ERROR_INIT;
    emo_pool_policy *pool = NULL;
    EXPECT_OK(emo_pool_policy_from_prompt(rt, size, &pool, &err));
    return pool;
}

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
    outcome got = finish(session);
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

/* ---- what events are for ---- */

static emo_status (*order_really)(emo_exec *exec, emo_event *event, emo_error *err);
static emo_exec *copier; /* the exec that copies, once it was seen */
static emo_status (*stream_really)(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err);
static int forget_copies; /* 1: the copier's events are not waited for; 0: those of passes */

static emo_status forgetful(emo_exec *exec, emo_event *event, emo_error *err) {
    return (exec == copier) == (forget_copies != 0) ? EMO_OK : order_really(exec, event, err);
}

static emo_status seen(emo_exec *exec, void *dst, const void *src, size_t bytes, emo_error *err) {
    copier = exec;
    return stream_really(exec, dst, src, bytes, err);
}

/* With either half of the order gone the text is another: work that nobody ordered has not been done. */
static void an_order_that_is_missing_shows(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options();
    emo_backend *device = NULL;
    char text[4096];
    if (simulator == NULL || checked) /* there memory that is given back orders all that was enqueued */
        skip();
    simulator->streams(1); /* what nobody waits for has not run */
    emo_model *whole = on_device(EMO_DTYPE_F32, 0, options);
    outcome want = say(whole, &plain);
    emo_model_release(whole);
    EXPECT_OK(emo__registry_open(rt->registry, "cuda", &device, &err));
    emo_backend_ops *ops = (emo_backend_ops *)(uintptr_t)device->ops;
    order_really = ops->event_order;
    stream_really = ops->stream;
    options.no_prefetch = 1;
    for (forget_copies = 0; forget_copies < 2; forget_copies++) {
        emo_model *model = on_device(EMO_DTYPE_F32, CHOSEN, options);
        emo_session *session = begin(model, &plain);
        emo_state now = EMO_STATE_PENDING;
        emo_status status = EMO_OK;
        ops->event_order = forgetful;
        ops->stream = seen;
        while (status == EMO_OK && now != EMO_STATE_DONE)
            status = emo_session_advance(session, NULL, &now, &err);
        ops->event_order = order_really;
        ops->stream = stream_really;
        (void)simulator->take(text, sizeof text);
        outcome got;
        memset(&got, 0, sizeof got);
        if (status == EMO_OK)
            got = take(session);
        else
            emo_session_release(session);
        assert_true(status != EMO_OK || memcmp(&want, &got, sizeof got) != 0);
        emo_model_release(model);
    }
    (void)simulator->take(text, sizeof text);
    emo_model *model = on_device(EMO_DTYPE_F32, CHOSEN, options);
    outcome got = say(model, &plain);
    expect_same(&want, &got);
    emo_model_release(model);
}

/* Two execs and an array: one fills it, the other reads it, the first fills it anew. The checker sees it when an event
 * is left out. */
static void an_event_orders_two_execs(void **state) {
    (void)state;
    enum { N = 1 };
    emo_error err = EMO_ERROR_INIT;
    emo_backend *device = NULL;
    EXPECT_OK(emo__registry_open(rt->registry, "cuda", &device, &err));
    const emo_backend_ops *ops = device->ops;
    for (int without = 0; without < 3; without++) { /* none is left out, the first, the second */
        emo_exec *copies = NULL, *works = NULL;
        emo_event *filled = NULL, *used = NULL;
        float *pinned = NULL, *array = NULL, *out = NULL, first[N], second[N];
        char text[4096];
        if (without > 0 && simulator == NULL)
            break;
        EXPECT_OK(ops->exec_create(device, NULL, &copies, &err));
        EXPECT_OK(ops->exec_create(device, NULL, &works, &err));
        EXPECT_OK(ops->event_create(device, &filled, &err));
        EXPECT_OK(ops->event_create(device, &used, &err));
        EXPECT_OK(ops->pinned_alloc(device, 2 * N * sizeof(float), (void **)&pinned, &err));
        EXPECT_OK(ops->mem_alloc(device, N * sizeof(float), (void **)&array, &err));
        EXPECT_OK(ops->mem_alloc(device, N * sizeof(float), (void **)&out, &err));
        for (int i = 0; i < 2 * N; i++)
            pinned[i] = (float)(i / N + 1);
        emo_swiglu_args args = {.tokens = 1, .inner = N, .gate = array, .up = array, .stride = N, .y = out};
        EXPECT_OK(ops->event_order(works, filled, &err)); /* never recorded: nothing to wait for */
        EXPECT_OK(ops->stream(copies, array, pinned, N * sizeof(float), &err));
        EXPECT_OK(ops->event_record(copies, filled, &err));
        if (without != 1)
            EXPECT_OK(ops->event_order(works, filled, &err));
        EXPECT_OK(ops->swiglu_forward(works, &args, &err));
        EXPECT_OK(ops->event_record(works, used, &err));
        if (without != 2)
            EXPECT_OK(ops->event_order(copies, used, &err));
        EXPECT_OK(ops->stream(copies, array, pinned + N, N * sizeof(float), &err));
        EXPECT_OK(ops->event_record(copies, filled, &err));
        EXPECT_OK(ops->event_wait(device, filled, &err));
        EXPECT_OK(ops->download(works, first, out, N * sizeof(float), &err));
        EXPECT_OK(ops->synchronize(works, &err));
        EXPECT_OK(ops->swiglu_forward(works, &args, &err));
        EXPECT_OK(ops->download(works, second, out, N * sizeof(float), &err));
        EXPECT_OK(ops->synchronize(works, &err));
        size_t found = simulator != NULL ? simulator->take(text, sizeof text) : 0;
        bool right = fabsf(first[0] - 0.731059f) < 1e-5f && fabsf(second[0] - 4.0f * 0.880797f) < 1e-5f;
        if (without == 0)
            assert_true(right && found == 0);
        else
            assert_true(checked ? found > 0 : !right);
        ops->exec_destroy(copies);
        ops->exec_destroy(works);
        ops->event_destroy(device, filled);
        ops->event_destroy(device, used);
        ops->pinned_free(device, pinned);
        ops->mem_free(device, array);
        ops->mem_free(device, out);
    }
}

/* ---- several sessions ---- */

typedef struct talker {
    emo_model *model;
    const emo_session_options *options;
    outcome got;
} talker;

static void *talk(void *arg) {
    talker *t = arg;
    t->got = say(t->model, t->options);
    return NULL;
}

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
            talkers[i] = (talker){.model = model, .options = &talks[i]};
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

/* ---- what goes wrong ---- */

/* A call that may fail for want of memory, once, and then is made again. */
#define ONCE_MORE(call)                                                                                                \
    do {                                                                                                               \
        emo_status status_ = (call);                                                                                   \
        if (status_ != EMO_OK) {                                                                                       \
            EXPECT_STATUS(status_, EMO_E_OUT_OF_MEMORY, "");                                                           \
            assert_int_equal(failed++, 0);                                                                             \
            simulator->fail_allocation(0);                                                                             \
            EXPECT_OK(call);                                                                                           \
        }                                                                                                              \
    } while (0)

/* Device and page-locked memory that runs out at the n-th allocation: a status, and the same call works later. */
static void device_memory_that_runs_out(void **state) {
    (void)state;
    static const int32_t prompt[] = {3, 50, 7};
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options();
    if (simulator == NULL)
        skip();
    options.no_prefetch = 1;
    outcome want;
    int failures = 0;
    size_t before = simulator->live();
    for (int n = 0;; n += 1 + n / (checked ? 1 : 6)) { /* 0: none fails */
        emo_error err = EMO_ERROR_INIT;
        emo_runtime *fresh = device_runtime(); /* nothing was given back there that could be handed out again */
        emo_model *model = load(fresh, EMO_DTYPE_BF16, CHOSEN, options);
        emo_session *session = NULL;
        emo_state now = EMO_STATE_PENDING;
        int failed = 0;
        simulator->fail_allocation(n);
        ONCE_MORE(emo_model_to_device(model, "cuda", &err));
        ONCE_MORE(emo_session_create(model, &plain, &session, &err));
        EXPECT_OK(emo_session_append_tokens(session, 0, prompt, 3, &err));
        while (now != EMO_STATE_DONE)
            ONCE_MORE(emo_session_advance(session, NULL, &now, &err));
        simulator->fail_allocation(0);
        outcome got = take(session);
        if (n == 0)
            want = got;
        expect_same(&want, &got);
        emo_model_release(model);
        emo_runtime_release(fresh);
        assert_int_equal(simulator->live(), before);
        failures += failed;
        if (n > 0 && failed == 0)
            break;
    }
    assert_true(failures > (checked ? 5 : 8));
}

/* Of the host's memory. */
static emo_status life(meter *memory, long fail_at, outcome *out) {
    static const int32_t prompt[] = {3, 50, 7};
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options();
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_state now = EMO_STATE_PENDING;
    emo_status status;
    emo_runtime *metered = meter_runtime(memory, 2);
    options.memory_budget = 3 * 3 * 24 * 32 * 2 + 3 * 64;
    plain.max_tokens = TOKENS;
    EMO_TRY(status = emo_runtime_load_backend(metered, mirror_plugin(), &err));
    EMO_TRY(status = emo_model_load_path(metered, model_file(EMO_DTYPE_BF16), &options, &model, &err));
    meter_arm(memory, fail_at, 0);
    EMO_TRY(status = emo_model_to_device(model, "cuda", &err));
    EMO_TRY(status = emo_session_create(model, &plain, &session, &err));
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

static void host_memory_that_runs_out(void **state) {
    (void)state;
    meter healthy = METER_INIT;
    outcome want, got;
    if (checked) /* the checks are of the device's work */
        skip();
    assert_int_equal(life(&healthy, -1, &want), EMO_OK);
    long calls = atomic_load(&healthy.calls);
    for (long n = 0; n < calls; n += stages_stride(calls, 12)) {
        meter failing = METER_INIT;
        emo_status status = life(&failing, n, &got);
        if (status == EMO_OK)
            expect_same(&got, &want);
        else
            assert_int_equal(status, EMO_E_OUT_OF_MEMORY);
        meter_check(&failing, "a model under a budget on a device");
    }
}

static int32_t cancel_often(void *ctx, const emo_progress_info *info) {
    (void)info;
    return ++*(int *)ctx % 3 == 0;
}

static void cancelling_leaves_all_usable(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options(), often = talk_options();
    int calls = 0, cancelled = 0;
    emo_model *model = on_device(EMO_DTYPE_BF16, CHOSEN + 1, options);
    outcome want = say(model, &plain);
    often.progress = (emo_progress){&calls, cancel_often};
    emo_session *session = begin(model, &often);
    for (emo_state now = EMO_STATE_PENDING; now != EMO_STATE_DONE;) {
        emo_status status = emo_session_advance(session, NULL, &now, &err);
        assert_true(status == EMO_OK || status == EMO_E_CANCELLED);
        cancelled += status == EMO_E_CANCELLED;
    }
    assert_true(cancelled > 3);
    outcome got = take(session);
    expect_same(&want, &got);
    session = begin(model, &plain); /* left in the middle */
    emo_budget step = emo_budget_unlimited();
    emo_state now = EMO_STATE_PENDING;
    step.steps = 1;
    for (int i = 0; i < 9; i++)
        EXPECT_OK(emo_session_advance(session, &step, &now, &err));
    got = say(model, &plain); /* with as few places as that leaves */
    expect_same(&want, &got);
    emo_session_release(session);
    emo_model_release(model);
}

int main(void) {
    if (mirror_plugin() == NULL)
        return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(models_move),
        cmocka_unit_test(the_budget_is_device_memory),
        cmocka_unit_test(copies_beside_the_work),
        cmocka_unit_test(an_order_that_is_missing_shows),
        cmocka_unit_test(an_event_orders_two_execs),
        cmocka_unit_test(sessions_share_the_places),
        cmocka_unit_test(device_memory_that_runs_out),
        cmocka_unit_test(host_memory_that_runs_out),
        cmocka_unit_test(cancelling_leaves_all_usable),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
