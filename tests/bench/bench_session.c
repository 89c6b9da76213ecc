/* SPDX-License-Identifier: Apache-2.0 */
/* Tokens per second of prompts and of generation, and how long a call with a small budget takes at most.
 * Times are wall-clock times; on a busy machine run it with one thread and look at the CPU time of the longest call.
 * Arguments: threads (default 1), prompt tokens (default 1024). */
#include <emo/session.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"

static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":8192,\"hidden_size\":256,\"intermediate_size\":128,\"num_hidden_layers\":6,"
    "\"num_attention_heads\":8,\"num_key_value_heads\":4,\"max_position_embeddings\":16384,\"num_experts_per_tok\":5,"
    "\"num_experts\":33,\"num_shared_experts\":1,\"eos_token_id\":0,\"pad_token_id\":0}";

typedef struct longest {
    uint64_t last;
    uint64_t last_cpu;
    uint64_t worst;
    uint64_t worst_cpu;
    uint64_t calls;
} longest;

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void look(longest *l) {
    uint64_t now = emo__now_ns();
    uint64_t cpu = cpu_ns();
    if (l->last != 0) {
        l->worst = now - l->last > l->worst ? now - l->last : l->worst;
        l->worst_cpu = cpu - l->last_cpu > l->worst_cpu ? cpu - l->last_cpu : l->worst_cpu;
    }
    l->last = now;
    l->last_cpu = cpu;
    l->calls++;
}

static int32_t on_progress(void *ctx, const emo_progress_info *info) {
    (void)info;
    look(ctx);
    return 0;
}

static int failed(emo_status status, const emo_error *err) {
    if (status != EMO_OK)
        fprintf(stderr, "%s\n", err->message);
    return status != EMO_OK;
}

static emo_session *begin(emo_model *model, const emo_session_options *o, int32_t prompt) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *s = NULL;
    if (failed(emo_session_create(model, o, &s, &err), &err))
        exit(1);
    for (int32_t q = 0; q < o->sequences; q++) {
        for (int32_t i = 0; i < prompt; i++) {
            int32_t id = 1 + (i * 131 + q * 7919 + i * i % 97) % 8191;
            if (failed(emo_session_append_tokens(s, q, &id, 1, &err), &err))
                exit(1);
        }
    }
    return s;
}

/* Until the end; the longest call goes to *l. */
static double finish(emo_session *s, const emo_budget *budget, longest *l) {
    emo_error err = EMO_ERROR_INIT;
    emo_state state = EMO_STATE_PENDING;
    uint64_t start = emo__now_ns();
    if (l != NULL)
        look(l);
    while (state != EMO_STATE_DONE) {
        if (failed(emo_session_advance(s, budget, &state, &err), &err))
            exit(1);
        if (l != NULL)
            look(l);
    }
    return (double)(emo__now_ns() - start) * 1e-9;
}

static void prompts(emo_model *model, int32_t n) {
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.max_tokens = -1;
    emo_session *s = begin(model, &o, n);
    double whole = finish(s, NULL, NULL);
    emo_session_release(s);
    printf("prompt of %d, whole                 %10.0f tokens/s\n", (int)n, n / whole);

    const emo_budget budget = emo_budget_ms(1);
    longest l = {0};
    s = begin(model, &o, n);
    double sliced = finish(s, &budget, &l);
    emo_session_release(s);
    printf("prompt of %d, 1 ms at a time        %10.0f tokens/s, %llu calls, the longest %.2f ms (CPU %.2f)\n", (int)n,
           n / sliced, (unsigned long long)l.calls - 1, (double)l.worst * 1e-6, (double)l.worst_cpu * 1e-6);

    longest between = {0};
    o.progress.ctx = &between;
    o.progress.report = on_progress;
    s = begin(model, &o, n);
    (void)finish(s, NULL, NULL);
    emo_session_release(s);
    printf("prompt of %d, progress hook         %10llu calls, at most %.2f ms apart (CPU %.2f)\n", (int)n,
           (unsigned long long)between.calls, (double)between.worst * 1e-6, (double)between.worst_cpu * 1e-6);
}

static void generation(emo_model *model, int32_t sequences, int32_t context, float temperature) {
    enum { STEPS = 200 };
    emo_error err = EMO_ERROR_INIT;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    o.sequences = sequences;
    o.max_tokens = STEPS;
    o.ignore_eos = 1;
    o.temperature = temperature;
    emo_session *s = begin(model, &o, context);
    emo_state state = EMO_STATE_PENDING;
    if (failed(emo_session_advance(s, NULL, &state, &err), &err)) /* the prompts */
        exit(1);
    size_t done = 0;
    for (int32_t q = 0; q < sequences; q++)
        done += emo_session_generated(s, q, NULL, NULL);
    longest l = {0};
    double took = finish(s, NULL, &l);
    size_t all = (size_t)sequences * STEPS;
    printf("%2d sequences after %4d, temperature %.1f %9.0f tokens/s, the longest step %.2f ms (CPU %.2f)\n",
           (int)sequences, (int)context, (double)temperature, (double)(all - done) / took, (double)l.worst * 1e-6,
           (double)l.worst_cpu * 1e-6);
    emo_session_release(s);
}

int main(int argc, char **argv) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 1;
    int32_t prompt = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 1024;
    emo_runtime *rt = NULL;
    emo_model *model = NULL;
    emo_model_info info = EMO_MODEL_INFO_INIT;
    if (prompt < 1 || prompt > 16000 || failed(emo_runtime_create(&options, &rt, &err), &err))
        return 1;
    if (failed(emo_model_create_json(rt, config, strlen(config), NULL, &model, &err), &err) ||
        failed(emo_model_get_info(model, &info, &err), &err)) {
        emo_runtime_release(rt);
        return 1;
    }
    printf("%.1f million parameters, %.1f active, %d threads\n", (double)info.parameters * 1e-6,
           (double)info.active * 1e-6, (int)options.threads);
    prompts(model, prompt);
    generation(model, 1, 16, 0.0f);
    generation(model, 1, 16, 1.0f);
    generation(model, 1, prompt, 0.0f);
    generation(model, 8, 16, 0.0f);
    emo_model_release(model);
    emo_runtime_release(rt);
    return 0;
}
