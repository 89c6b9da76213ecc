/* SPDX-License-Identifier: Apache-2.0 */
/* How long the pieces are that an advance with a budget cannot be interrupted in, stage by stage, and how well calls
 * keep a budget of four milliseconds.
 *   bench_slices MODEL [threads] [f32|bf16] [prompt tokens] [generated tokens]
 * MODEL: a folder, such as emo bench --save makes. Times are of wall clocks, of the pieces in which the system neither
 * took the calling thread's core away nor read the file anew (neighbours' work is not the library's); behind them the
 * longest of all. */
#define _GNU_SOURCE /* RUSAGE_THREAD */
#include <emo/emo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "infer/session.h"
#include "model/pass_state.h"

enum { STAGES = EMO__STAGE_HEAD_LOGITS + 2, MOST = 1 << 20 }; /* the last: what comes between passes */

static const char *const names[STAGES] = {[EMO__STAGE_ANGLES] = "angles",
                                          [EMO__STAGE_EMBED] = "embed",
                                          [EMO__STAGE_ATTN_NORM] = "norm",
                                          [EMO__STAGE_QKV] = "q, k, v",
                                          [EMO__STAGE_ROPE] = "rope, cache",
                                          [EMO__STAGE_ATTENTION] = "attention",
                                          [EMO__STAGE_ATTN_OUT] = "attention's output",
                                          [EMO__STAGE_FFN_NORM] = "norm",
                                          [EMO__STAGE_ROUTE_LOGITS] = "router logits",
                                          [EMO__STAGE_ROUTE_POOL] = "pool",
                                          [EMO__STAGE_ROUTE_SELECT] = "selection",
                                          [EMO__STAGE_EXPERTS] = "experts",
                                          [EMO__STAGE_DENSE] = "dense",
                                          [EMO__STAGE_FINAL_NORM] = "last norm",
                                          [EMO__STAGE_HEAD_LOSS] = "",
                                          [EMO__STAGE_HEAD_LOGITS] = "head",
                                          [STAGES - 1] = "drawing, beginning"};

typedef struct times {
    double *ms;
    size_t n;
    double longest;
} times;

static void add(times *t, double ms, int interrupted) {
    t->longest = ms > t->longest ? ms : t->longest;
    if (!interrupted && t->n < MOST)
        t->ms[t->n++] = ms;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(const char *name, times *t) {
    if (t->n == 0)
        return;
    qsort(t->ms, t->n, sizeof *t->ms, by_size);
    size_t within = 0;
    while (within < t->n && t->ms[within] <= 5.0)
        within++;
    (void)printf("  %-20s %7zu pieces, median %6.3f, 99 %% within %6.3f, longest %6.3f ms (%.3f); %.2f %% in 5 ms\n",
                 name, t->n, t->ms[t->n / 2], t->ms[(t->n - 1) * 99 / 100], t->ms[t->n - 1], t->longest,
                 100.0 * (double)within / (double)t->n);
    t->n = 0;
    t->longest = 0.0;
}

static long interruptions(void) {
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw + usage.ru_majflt : 0;
}

static int stage_of(const emo_session *s) {
    if (s->pass == NULL || !s->in_flight)
        return STAGES - 1;
    for (size_t i = s->pass->at_step; i < s->pass->n_steps; i++) /* some have nothing to do */
        if (emo__step_rows(s->pass, &s->pass->steps[i]) > 0)
            return s->pass->steps[i].stage;
    return STAGES - 1;
}

/* Until `tokens` were generated. Times go to their stages' lists, or all to the first. Returns the seconds taken. */
static double work(emo_session *s, const emo_budget *budget, size_t tokens, int by_stage, times *t, emo_error *err) {
    emo_state state = EMO_STATE_PENDING;
    double all = 0.0;
    while (emo_session_generated(s, 0, NULL, NULL) < tokens && state != EMO_STATE_DONE) {
        int stage = by_stage ? stage_of(s) : 0;
        long before = interruptions();
        uint64_t began = emo__now_ns();
        if (emo_session_advance(s, budget, &state, err) != EMO_OK)
            return -1.0;
        double ms = (double)(emo__now_ns() - began) * 1e-6;
        if (t != NULL)
            add(&t[stage], ms, interruptions() != before);
        all += ms * 1e-3;
    }
    return all;
}

static emo_status run(emo_runtime *rt, const char *path, emo_dtype compute, int prompt, int generated, emo_error *err) {
    static const emo_budget one_slice = {UINT64_C(4000000), 1, 0}, frame = {UINT64_C(4000000), 0, 0};
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_model_load_options load = EMO_MODEL_LOAD_OPTIONS_INIT;
    load.compute = compute;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.ignore_eos = 1;
    int32_t *ids = malloc(sizeof *ids * (size_t)(prompt + generated)), *want = ids != NULL ? ids + prompt : NULL;
    times stages[STAGES];
    memset(stages, 0, sizeof stages);
    emo_status status = ids != NULL ? EMO_OK : EMO_E_OUT_OF_MEMORY;
    for (int i = 0; i < STAGES; i++) {
        stages[i].ms = malloc(MOST * sizeof(double));
        status = stages[i].ms != NULL ? status : EMO_E_OUT_OF_MEMORY;
    }
    if (status != EMO_OK)
        goto done;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    EMO_TRY(status = emo_model_load_path(rt, path, &load, &model, err));
    EMO_TRY(status = emo_model_get_info(model, &info, err));
    for (int i = 0; i < prompt; i++)
        ids[i] = (i * 7919 + i * i % 97) % (info.vocab - 1);
    for (int turn = 0; turn < 4; turn++) { /* the first reads the file */
        EMO_TRY(status = emo_session_create(model, &options, &session, err));
        EMO_TRY(status = emo_session_append_tokens(session, 0, ids, (size_t)prompt, err));
        const emo_budget *budget = turn < 2 ? NULL : turn == 2 ? &one_slice : &frame;
        times *t = turn < 2 ? NULL : stages;
        double first = work(session, budget, 1, turn == 2, t, err);
        EMO_TRY(status = err->code);
        if (turn > 1) {
            (void)printf("prompt of %d, %s: %.1f tokens/s\n", prompt, turn == 2 ? "slice by slice" : "4 ms at a time",
                         prompt / first);
            for (int i = 0; i < STAGES; i++)
                print(turn == 2 ? names[i] : "calls", &stages[i]);
        }
        double rest = work(session, budget, (size_t)generated, turn == 2, t, err);
        EMO_TRY(status = err->code);
        if (turn > 1) {
            (void)printf("generation, %s: %.2f tokens/s\n", turn == 2 ? "slice by slice" : "4 ms at a time",
                         (generated - 1) / rest);
            for (int i = 0; i < STAGES; i++)
                print(turn == 2 ? names[i] : "calls", &stages[i]);
        } else if (turn == 1) {
            (void)printf("no budget: prompt of %d %.1f tokens/s, generation %.2f tokens/s\n", prompt, prompt / first,
                         (generated - 1) / rest);
        }
        const int32_t *tokens = NULL;
        size_t n = emo_session_generated(session, 0, &tokens, NULL);
        if (turn == 0)
            memcpy(want, tokens, n * sizeof *want);
        if (n != (size_t)generated || memcmp(want, tokens, n * sizeof *want) != 0) {
            (void)fprintf(stderr, "the tokens of turn %d are others than those of the first\n", turn);
            status = EMO_E_INTERNAL;
            goto done;
        }
        emo_session_release(session);
        session = NULL;
    }
done:
    emo_session_release(session);
    emo_model_release(model);
    for (int i = 0; i < STAGES; i++)
        free(stages[i].ms);
    free(ids);
    return status;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        (void)fprintf(stderr, "usage: %s MODEL [threads] [f32|bf16] [prompt] [generated]\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    options.threads = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 1;
    emo_dtype compute = argc > 3 && strcmp(argv[3], "bf16") == 0 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
    emo_status status = emo_runtime_create(&options, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, argv[1], compute, argc > 4 ? (int)strtol(argv[4], NULL, 10) : 512,
                     argc > 5 ? (int)strtol(argv[5], NULL, 10) : 16, &err);
    if (status != EMO_OK)
        (void)fprintf(stderr, "%s\n", err.message);
    emo_runtime_release(rt);
    return status != EMO_OK;
}
