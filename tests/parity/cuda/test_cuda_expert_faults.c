/* SPDX-License-Identifier: Apache-2.0 */
/* A memory budget on the CUDA back end where things go wrong: an order that is left out, memory that runs out,
 * cancelling. */
#include <math.h>
#include <stdatomic.h>

#include "expert_cache_device.h"
#include "support/meter.h"
#include "support/stages.h"

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
    if (checked) /* the checks are of the device's work */
        skip();
    fail_allocations(life, 0, 12);
}

static void cancelling_leaves_all_usable(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_model_load_options options = EMO_MODEL_LOAD_OPTIONS_INIT;
    emo_session_options plain = talk_options(), often = talk_options();
    int calls = 0;
    emo_model *model = on_device(EMO_DTYPE_BF16, CHOSEN + 1, options);
    outcome want = say(model, &plain);
    often.progress = (emo_progress){&calls, cancel_often};
    emo_session *session = begin(model, &often);
    outcome got = finish_though_cancelled(session);
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
        cmocka_unit_test(an_order_that_is_missing_shows), cmocka_unit_test(an_event_orders_two_execs),
        cmocka_unit_test(device_memory_that_runs_out),    cmocka_unit_test(host_memory_that_runs_out),
        cmocka_unit_test(cancelling_leaves_all_usable),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
