/* SPDX-License-Identifier: Apache-2.0 */
/* Many sequences in one session: wall time and bytes of experts, in the order of arrival and grouped by pools, by
 * turns: bench_serve [threads] [rounds]. 32 prompts of 4 domains, 8 in a batch, 24 tokens and 32 generated ones each,
 * pools of 16 of 127 experts. Two layers of random f32 weights (0.9 GB); tokens of a domain share a direction that a
 * quarter of the experts looks for, as in the test of groups. */
#include <emo/session.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "model/model.h"

enum { DOMAINS = 4, CROWD = 32, AT_ONCE = 8, POOL = 16, PROMPT = 24, TOKENS = 32, WIDTH = 768, VOCAB = 1024, MOST = 9 };

static const char config[] =
    "{\"model_type\":\"emo\",\"vocab_size\":1024,\"hidden_size\":768,\"intermediate_size\":384,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":12,\"max_position_embeddings\":256,\"num_experts_per_tok\":8,\"num_experts\":128,"
    "\"num_shared_experts\":1,\"initializer_range\":0.03,\"eos_token_id\":0,\"pad_token_id\":0}";

typedef struct outcome {
    double seconds;
    emo_session_statistics did;
} outcome;

static int failed(emo_status status, const emo_error *err) {
    if (status != EMO_OK)
        fprintf(stderr, "%s\n", err->message);
    return status != EMO_OK;
}

static uint32_t state = 1;
static float noise(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (float)(1 << 23) - 1.0f;
}

static void make_domains(emo_model *model) {
    static float directions[DOMAINS][WIDTH];
    float *embed = (float *)(uintptr_t)model->embed.data;
    for (int i = 0; i < DOMAINS * WIDTH; i++)
        (&directions[0][0])[i] = noise();
    for (int32_t id = 0; id < VOCAB; id++)
        for (int i = 0; i < WIDTH; i++)
            embed[id * WIDTH + i] += 0.4f * directions[id / (VOCAB / DOMAINS)][i];
    for (int32_t l = 0; l < model->config.layers; l++) {
        float *router = (float *)(uintptr_t)model->layers[l].w[EMO__W_ROUTER].data;
        for (int32_t e = 0; e < 127; e++)
            for (int i = 0; i < WIDTH; i++)
                router[e * WIDTH + i] += (0.010f + 0.0006f * (float)(e / DOMAINS)) * directions[e % DOMAINS][i];
    }
}

/* Prompts first, then the clock runs. */
static int serve(emo_model *model, const emo_pool_policy *pool, emo_batching batching, outcome *out) {
    emo_error err = EMO_ERROR_INIT;
    emo_session *session = NULL;
    emo_session_options o = EMO_SESSION_OPTIONS_INIT;
    emo_session_statistics before = EMO_SESSION_STATISTICS_INIT, after = EMO_SESSION_STATISTICS_INIT;
    emo_state now = EMO_STATE_PENDING;
    o.pool = pool;
    o.sequences = CROWD;
    o.batch_sequences = AT_ONCE;
    o.batching = batching;
    o.max_tokens = TOKENS;
    o.ignore_eos = 1;
    o.count_experts = 1;
    if (failed(emo_session_create(model, &o, &session, &err), &err))
        return 0;
    for (int32_t i = 0; i < CROWD; i++) {
        int32_t ids[PROMPT], domain = (i * i + i) / 2 % CROWD / (CROWD / DOMAINS);
        for (int t = 0; t < PROMPT; t++)
            ids[t] = domain * (VOCAB / DOMAINS) + (t * 29 + i * 11 + t * t * i) % (VOCAB / DOMAINS);
        if (failed(emo_session_append_tokens(session, i, ids, PROMPT, &err), &err))
            return 0;
    }
    size_t begun = 0;
    while (begun < CROWD) {
        if (failed(emo_session_advance(session, NULL, &now, &err), &err))
            return 0;
        begun = 0;
        for (int32_t i = 0; i < CROWD; i++)
            begun += emo_session_generated(session, i, NULL, NULL) > 0;
    }
    if (failed(emo_session_get_statistics(session, &before, &err), &err))
        return 0;
    uint64_t start = emo__now_ns();
    while (now != EMO_STATE_DONE)
        if (failed(emo_session_advance(session, NULL, &now, &err), &err))
            return 0;
    out->seconds = (double)(emo__now_ns() - start) * 1e-9;
    if (failed(emo_session_get_statistics(session, &after, &err), &err))
        return 0;
    emo_session_release(session);
    out->did = after;
    out->did.decode_batches -= before.decode_batches;
    out->did.decode_sequences -= before.decode_sequences;
    out->did.decode_experts -= before.decode_experts;
    out->did.decode_expert_bytes -= before.decode_expert_bytes;
    return 1;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = NULL;
    emo_model *model = NULL;
    emo_pool_policy *pool = NULL;
    emo_runtime_options options = EMO_RUNTIME_OPTIONS_INIT;
    emo_model_create_options create = EMO_MODEL_CREATE_OPTIONS_INIT;
    static const char *const names[] = {"arrival", "pool"};
    outcome last[2];
    double seconds[2][MOST];
    int rounds = argc > 2 ? atoi(argv[2]) : 3;
    options.threads = argc > 1 ? atoi(argv[1]) : 2;
    rounds = rounds < 1 ? 1 : rounds > MOST ? MOST : rounds;
    if (failed(emo_runtime_create(&options, &rt, &err), &err) ||
        failed(emo_model_create_json(rt, config, strlen(config), &create, &model, &err), &err) ||
        failed(emo_pool_policy_from_prompt(rt, POOL, &pool, &err), &err))
        return 1;
    make_domains(model);
    for (int i = 0; i < 2 * rounds; i++) {
        if (!serve(model, pool, i % 2 == 0 ? EMO_BATCHING_ARRIVAL : EMO_BATCHING_POOL, &last[i % 2]))
            return 1;
        seconds[i % 2][i / 2] = last[i % 2].seconds;
    }
    for (int b = 0; b < 2; b++) {
        const emo_session_statistics *did = &last[b].did;
        double batches = (double)did->decode_batches, tokens = (double)did->decode_sequences;
        qsort(seconds[b], (size_t)rounds, sizeof(double), ascending);
        double median = seconds[b][rounds / 2];
        last[b].seconds = median;
        printf("%-8s %.0f batches of %.2f sequences, %.1f experts and %.1f MB each; %.1f tokens/s, waited %d at most\n",
               names[b], batches, tokens / batches, (double)did->decode_experts / batches,
               (double)did->decode_expert_bytes / batches * 1e-6, tokens / median, (int)did->longest_wait);
    }
    printf("by pool: %.1f %% of the bytes, %.1f %% of the time\n",
           100.0 * (double)last[1].did.decode_expert_bytes / (double)last[0].did.decode_expert_bytes,
           100.0 * last[1].seconds / last[0].seconds);
    emo_pool_policy_release(pool);
    emo_model_release(model);
    emo_runtime_release(rt);
    return 0;
}
