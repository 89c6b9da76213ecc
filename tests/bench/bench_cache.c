/* SPDX-License-Identifier: Apache-2.0 */
/* Generation in less memory than the model has, with and without a pool chosen by the prompt:
 *   bench_cache MODEL MEBIBYTES [POOL] [PROMPT TOKENS] [GENERATED TOKENS] [pool|lru|lfu] [keep]
 * Each of the two in a session of its own on a freshly loaded model (POOL 0: only the one without); random tokens.
 * "keep" leaves what was read of the file in the system's cache; MEBIBYTES 0: the whole model is there. For prompt and
 * generation: tokens per second, experts asked for that were there, bytes read, and how much of the time was spent
 * waiting for reads; then a sum over the bits of the tokens and their log-probabilities, the same for every budget and
 * policy. At last the most memory that was resident. */
#include <emo/emo.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"

typedef struct request {
    const char *path;
    emo_model_load_options load;
    int pool, prompt, generated;
} request;

static void row(const char *what, int tokens, double seconds, const emo_cache_stats *a, const emo_cache_stats *b) {
    uint64_t hits = b->hits - a->hits, misses = b->misses - a->misses;
    printf("%-24s %8.2f tokens/s  %6.2f %% there  %8.1f MiB a token read  %5.1f %% of %.1f s stood still\n", what,
           tokens / seconds, 100.0 * (double)hits / (double)(hits + misses > 0 ? hits + misses : 1),
           (double)(b->bytes_read - a->bytes_read) / 1048576.0 / tokens,
           100.0 * (double)(b->stall_ns - a->stall_ns) * 1e-9 / seconds, seconds);
    fflush(stdout);
}

static uint64_t add(uint64_t sum, const void *data, size_t size) {
    const unsigned char *at = data;
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ at[i]) * 0x100000001b3u;
    return sum;
}

/* Two runs with the same sum chose the same tokens with the same probabilities. */
static void bits(const emo_session *session, const char *name) {
    const int32_t *tokens = NULL;
    const float *logprobs = NULL;
    size_t n = emo_session_generated(session, 0, &tokens, &logprobs);
    uint64_t sum = add(add(0xcbf29ce484222325u, tokens, n * sizeof *tokens), logprobs, n * sizeof *logprobs);
    printf("%-24s bits %016llx\n", name, (unsigned long long)sum);
}

static emo_status generate(emo_session *session, const emo_model *model, int tokens, const char *name, emo_error *err) {
    emo_cache_stats before = EMO_CACHE_STATS_INIT, first = EMO_CACHE_STATS_INIT, after = EMO_CACHE_STATS_INIT;
    emo_state state = EMO_STATE_PENDING;
    char what[64];
    uint64_t start = emo__now_ns(), middle = 0;
    EMO_TRY(emo_model_get_cache_stats(model, &before, err));
    while (state != EMO_STATE_DONE) {
        EMO_TRY(emo_session_advance(session, NULL, &state, err));
        if (middle == 0) {
            middle = emo__now_ns();
            EMO_TRY(emo_model_get_cache_stats(model, &first, err));
        }
    }
    EMO_TRY(emo_model_get_cache_stats(model, &after, err));
    double decode = (double)(emo__now_ns() - middle) * 1e-9;
    (void)snprintf(what, sizeof what, "%s, prompt", name);
    row(what, tokens, (double)(middle - start) * 1e-9, &before, &first);
    (void)snprintf(what, sizeof what, "%s, generation", name);
    row(what, (int)emo_session_generated(session, 0, NULL, NULL) - 1, decode, &first, &after);
    bits(session, name);
done:
    return err->code;
}

static emo_status run(emo_runtime *rt, const request *r, bool pooled, emo_error *err) {
    emo_model *model = NULL;
    emo_session *session = NULL;
    emo_pool_policy *pool = NULL;
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    emo_cache_stats stats = EMO_CACHE_STATS_INIT;
    char name[32] = "every expert";
    EMO_TRY(emo_model_load_path(rt, r->path, &r->load, &model, err));
    EMO_TRY(emo_model_get_cache_stats(model, &stats, err));
    if (pooled) {
        (void)snprintf(name, sizeof name, "pool of %d", r->pool);
        EMO_TRY(emo_pool_policy_from_prompt(rt, r->pool, &pool, err));
        options.pool = pool;
    } else {
        printf("%llu of %llu experts fit in %.2f GiB\n", (unsigned long long)stats.capacity,
               (unsigned long long)stats.experts, (double)stats.bytes / 1073741824.0);
    }
    options.max_tokens = r->generated + 1;
    options.temperature = 1.0f;
    options.ignore_eos = 1;
    EMO_TRY(emo_session_create(model, &options, &session, err));
    for (int i = 0; i < r->prompt; i++) {
        int32_t id = (int32_t)(((uint64_t)i * 2654435761u + 12345u) % 100003u);
        EMO_TRY(emo_session_append_tokens(session, 0, &id, 1, err));
    }
    EMO_TRY(generate(session, model, r->prompt, name, err));
done:
    emo_session_release(session);
    emo_model_release(model);
    emo_pool_policy_release(pool);
    return err->code;
}

int main(int argc, char **argv) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    struct rusage usage;
    if (argc < 3) {
        (void)fprintf(stderr,
                      "usage: %s MODEL MEBIBYTES [POOL] [PROMPT TOKENS] [GENERATED TOKENS] [pool|lru|lfu] [keep]\n",
                      argv[0]);
        return 2;
    }
    request r = {argv[1], EMO_MODEL_LOAD_OPTIONS_INIT, argc > 3 ? atoi(argv[3]) : 32, argc > 4 ? atoi(argv[4]) : 128,
                 argc > 5 ? atoi(argv[5]) : 32};
    const char *policy = argc > 6 ? argv[6] : "pool";
    r.load.memory_budget = strtoull(argv[2], NULL, 10) << 20;
    r.load.compute = EMO_DTYPE_BF16;
    r.load.drop_source = argc <= 7;
    r.load.cache_policy = strcmp(policy, "lru") == 0   ? EMO_CACHE_LRU
                          : strcmp(policy, "lfu") == 0 ? EMO_CACHE_LFU
                                                       : EMO_CACHE_POOL;
    emo_status status = emo_runtime_create(NULL, &rt, &err);
    if (status == EMO_OK)
        status = run(rt, &r, false, &err);
    if (status == EMO_OK && r.pool > 0)
        status = run(rt, &r, true, &err);
    if (status != EMO_OK)
        (void)fprintf(stderr, "%s: %s\n", emo_status_name(status), err.message);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        printf("at most %.2f GiB resident\n", (double)usage.ru_maxrss / 1048576.0);
    emo_runtime_release(rt);
    return status != EMO_OK;
}
