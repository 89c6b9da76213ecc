/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop of 60 frames a second that gives a language model four milliseconds of each, and looks how well it keeps them:
 *     engine_loop FRAMES [--no-wait] [CONFIG_JSON]
 * Without a configuration a small random model runs. Three times are taken of every call. Wall-clock time is what a
 * frame feels, but it grows when the system gives the core to another program meanwhile, and that says nothing about
 * the library: so the time this thread computed is taken too, and the wall-clock time of calls that were not
 * interrupted.
 */
#define _GNU_SOURCE /* RUSAGE_THREAD */
#include <emo/emo.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const char small[] = "{\"hidden_size\": 256, \"intermediate_size\": 128, \"num_hidden_layers\": 4,"
                            " \"num_attention_heads\": 8, \"num_experts\": 33, \"num_shared_experts\": 1,"
                            " \"num_experts_per_tok\": 5, \"max_position_embeddings\": 4096, \"vocab_size\": 257,"
                            " \"eos_token_id\": 256, \"pad_token_id\": 256}";

static double now_ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}
static long interruptions(void) {
    struct rusage usage;
    return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void report(const char *name, double *ms, size_t n) {
    if (n == 0)
        return;
    size_t within = 0;
    for (size_t i = 0; i < n; i++)
        within += ms[i] <= 5.0;
    qsort(ms, n, sizeof *ms, by_size);
    printf("%-24s %5zu calls, %6.2f %% within 5 ms, 99 %% within %.2f ms, longest %.2f ms\n", name, n,
           100.0 * (double)within / (double)n, ms[(n - 1) * 99 / 100], ms[n - 1]);
}

static emo_status loop(emo_session *session, size_t frames, int wait, emo_error *err) {
    double *wall = calloc(3 * frames, sizeof *wall), *cpu = wall + frames, *alone = cpu + frames;
    size_t n_alone = 0, tokens = 0;
    char prompt[600]; /* a token a byte */
    if (wall == NULL)
        return err->code = EMO_E_OUT_OF_MEMORY;
    for (size_t i = 0; i < sizeof prompt; i++)
        prompt[i] = "the quick brown fox jumps over the lazy dog; "[i % 45];
    prompt[sizeof prompt - 1] = '\0';

    const emo_budget budget = emo_budget_ms(4);
    emo_state state = EMO_STATE_DONE;
    double next = now_ms(CLOCK_MONOTONIC);
    for (size_t frame = 0; frame < frames; frame++) {
        if (state == EMO_STATE_DONE) { /* always something to do */
            tokens += emo_session_generated(session, 0, NULL, NULL);
            EMO_TRY(emo_session_reset(session, err));
            EMO_TRY(emo_session_append_text(session, prompt, err));
        }
        const long before = interruptions();
        const double start = now_ms(CLOCK_MONOTONIC), computed = now_ms(CLOCK_THREAD_CPUTIME_ID);
        EMO_TRY(emo_session_advance(session, &budget, &state, err));
        cpu[frame] = now_ms(CLOCK_THREAD_CPUTIME_ID) - computed;
        wall[frame] = now_ms(CLOCK_MONOTONIC) - start;
        if (interruptions() == before)
            alone[n_alone++] = wall[frame];
        /* Here the engine simulates, draws and plays; then it waits for the screen. */
        next += 1000.0 / 60.0;
        const double rest = next - now_ms(CLOCK_MONOTONIC);
        if (wait && rest > 0.0)
            nanosleep(&(struct timespec){0, (long)(1e6 * rest)}, NULL);
    }
    printf("%zu frames, %zu tokens generated\n", frames, tokens + emo_session_generated(session, 0, NULL, NULL));
    report("wall clock", wall, frames);
    report("computing", cpu, frames);
    report("wall, not interrupted", alone, n_alone);
done:
    free(wall);
    return err->code;
}

static emo_status run(emo_runtime *rt, const char *config, size_t length, size_t frames, int wait, emo_error *err) {
    emo_tokenizer *bytes = NULL;
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.max_tokens = 64;
    options.ignore_eos = 1;
    EMO_TRY(emo_tokenizer_create_bytes(rt, &bytes, err));
    EMO_TRY(emo_model_create_json(rt, config, length, NULL, &model, err));
    EMO_TRY(emo_model_set_tokenizer(model, bytes, err));
    EMO_TRY(emo_session_create(model, &options, &session, err));
    EMO_TRY(loop(session, frames, wait, err));
done:
    emo_session_release(session);
    emo_model_release(model);
    emo_tokenizer_release(bytes);
    return err->code;
}

int main(int argc, char **argv) {
    const int wait = argc < 3 || strcmp(argv[2], "--no-wait") != 0;
    const char *path = argc > 3 - wait ? argv[3 - wait] : NULL;
    const size_t frames = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 0;
    char text[8192];
    size_t length = 0;
    FILE *file = path != NULL ? fopen(path, "rb") : NULL;
    if (file != NULL) {
        length = fread(text, 1, sizeof text, file);
        fclose(file);
    }
    if (frames == 0 || argc > 4 - wait || (path != NULL && length == 0)) {
        fprintf(stderr, "usage: %s FRAMES [--no-wait] [CONFIG_JSON]\n", argv[0]);
        return 2;
    }
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    options.threads = 1; /* the engine's own threads want their cores; emo_runtime_options.executor would share them */
    emo_status status = emo_runtime_create(&options, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, path != NULL ? text : small, path != NULL ? length : sizeof small - 1, frames, wait, &err);
    if (status != EMO_OK)
        fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    emo_runtime_release(rt);
    return status == EMO_OK ? EXIT_SUCCESS : EXIT_FAILURE;
}
