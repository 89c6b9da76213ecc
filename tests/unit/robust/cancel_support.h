/* SPDX-License-Identifier: Apache-2.0 */
/* The progress hook cancels at its k-th call, for every k of every long call: what the programs that try it share. */
#ifndef EMO_TESTS_CANCEL_SUPPORT_H
#define EMO_TESTS_CANCEL_SUPPORT_H

#include <unistd.h>

#include "model/model.h"
#include "support/meter.h"
#include "support/stages.h"

/* Many small files are written: a disk that is asked to keep each of them would take long. */
int fsync(int fd) { return fd < 0 ? -1 : 0; }

static meter hook = METER_INIT;

typedef struct watch {
    long calls;
    long cancel_at; /* -1: never */
    const char *phase;
    uint64_t done;
} watch;

static inline int32_t report(void *ctx, const emo_progress_info *info) {
    watch *w = ctx;
    assert_non_null(info->phase);
    assert_true(info->phase[0] != '\0');
    assert_true(info->total == 0 || info->done <= info->total);
    if (w->phase == info->phase && info->done != 0) /* a phase may begin anew: the next micro-batch */
        assert_true(info->done >= w->done);
    w->phase = info->phase;
    w->done = info->done;
    return w->calls++ == w->cancel_at;
}

static inline emo_progress watching(watch *w) {
    emo_progress progress = {w, report};
    return progress;
}

/* What the calls work on; made once, by a healthy library. */
static emo_runtime *rt;
static emo_model *model;
static emo_dataset *data;
static char folder[700];

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        if ((call) != EMO_OK)                                                                                          \
            fail_msg("%s: %s", #call, err->message);                                                                   \
    } while (0)

typedef emo_status (*long_call)(watch *w, emo_error *err);

typedef struct cancelled_call {
    const char *name;
    long_call call;
    long least; /* calls of the hook that such tiny work must make */
} cancelled_call;

static inline void cancel_anywhere(const cancelled_call *calls, size_t n) {
    for (size_t i = 0; i < n; i++) {
        emo_error err = EMO_ERROR_INIT;
        watch w = {0, -1, NULL, 0};
        if (calls[i].call(&w, &err) != EMO_OK)
            fail_msg("%s: %s", calls[i].name, err.message);
        long total = w.calls;
        print_message("%s: %ld reports\n", calls[i].name, total);
        assert_true(total >= calls[i].least);
        long live = atomic_load(&hook.live);
        long stride = 1 + total / 60; /* every call of short work, and a sample of long work */
        for (long k = 0; k < total; k += stride) {
            w = (watch){0, k, NULL, 0};
            emo_status status = calls[i].call(&w, &err);
            if (status != EMO_E_CANCELLED)
                fail_msg("%s, report %ld of %ld: %s: %s", calls[i].name, k, total, emo_status_name(status),
                         err.message);
            if (atomic_load(&hook.live) != live)
                fail_msg("%s, report %ld: %ld blocks more", calls[i].name, k, atomic_load(&hook.live) - live);
        }
        w = (watch){0, -1, NULL, 0};
        if (calls[i].call(&w, &err) != EMO_OK)
            fail_msg("%s, again: %s", calls[i].name, err.message);
    }
}

static inline int cancel_setup(void **state) {
    emo_error err = EMO_ERROR_INIT;
    (void)stages_setup(state);
    rt = meter_runtime(&hook, 2);
    EXPECT_OK(stages_open_model(rt, &model, &err));
    EXPECT_OK(stages_open_data(rt, &data, &err));
    (void)snprintf(folder, sizeof folder, "%s-saved", stages_model());
    return 0;
}
static inline int cancel_teardown(void **state) {
    emo_dataset_release(data);
    emo_model_release(model);
    emo_runtime_release(rt);
    meter_check(&hook, "at the end");
    return stages_teardown(state);
}

#endif
