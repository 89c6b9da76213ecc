/* SPDX-License-Identifier: Apache-2.0 */
/* Layers, prompts and generation of a model. */
#include "bench_work.h"

#include <stdlib.h>

struct bench_sessions {
    const bench_model *m;
    int32_t *ids;
    emo_session *ready;   /* has a prompt behind it, and so many tokens to generate */
    emo_session *layered; /* the same without a head */
};

/* The same ids in every program that measures beside this one. */
static int32_t prompt_id(int64_t i, int32_t vocab) { return (int32_t)((i * 7919 + i * i % 97) % (vocab - 1)); }

static emo_status advance(cli *c, emo_session *session, double *seconds) {
    emo_state state = EMO_STATE_PENDING;
    double begin = seconds_now();
    emo_status status = emo_session_advance(session, NULL, &state, &c->err);
    *seconds = seconds_now() - begin;
    return status;
}

/* A session in the place of *at, with the prompt done in *seconds. */
static emo_status prompt(cli *c, bench_sessions *s, int head, emo_session **at, double *seconds) {
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    options.max_tokens = head ? s->m->generated + 1 : -1;
    options.capacity = s->m->prompt + s->m->generated + 1;
    options.ignore_eos = 1;
    emo_session_release(*at);
    *at = NULL;
    emo_status status = emo_session_create(s->m->model, &options, at, &c->err);
    if (status == EMO_OK)
        status = emo_session_append_tokens(*at, 0, s->ids, (size_t)s->m->prompt, &c->err);
    return status == EMO_OK ? advance(c, *at, seconds) : status;
}

static emo_status run_prefill(cli *c, void *ctx, double *seconds) {
    bench_sessions *s = ctx;
    return prompt(c, s, 1, &s->ready, seconds);
}

static emo_status run_decode(cli *c, void *ctx, double *seconds) {
    bench_sessions *s = ctx;
    double all = 0.0, once = 0.0;
    emo_status status = s->ready != NULL ? EMO_OK : prompt(c, s, 1, &s->ready, &once);
    for (int32_t i = 0; status == EMO_OK && i < s->m->generated; i++) {
        status = advance(c, s->ready, &once);
        all += once;
    }
    emo_session_release(s->ready);
    s->ready = NULL;
    *seconds = all / s->m->generated;
    return status;
}

static emo_status run_layer_prompt(cli *c, void *ctx, double *seconds) {
    bench_sessions *s = ctx;
    emo_status status = prompt(c, s, 0, &s->layered, seconds);
    *seconds /= s->m->info.layers;
    return status;
}

static emo_status run_layer_token(cli *c, void *ctx, double *seconds) {
    bench_sessions *s = ctx;
    double all = 0.0, once = 0.0;
    emo_status status = s->layered != NULL ? EMO_OK : prompt(c, s, 0, &s->layered, &once);
    for (int32_t i = 0; status == EMO_OK && i < s->m->generated; i++) {
        status = emo_session_append_tokens(s->layered, 0, &s->ids[i % s->m->prompt], 1, &c->err);
        if (status == EMO_OK)
            status = advance(c, s->layered, &once);
        all += once;
    }
    emo_session_release(s->layered);
    s->layered = NULL;
    *seconds = all / s->m->generated / s->m->info.layers;
    return status;
}

typedef struct amounts {
    double body, head;               /* weights a token uses */
    double body_bytes, head_bytes;   /* of these */
    double whole_bytes;              /* of all layers */
    double attention_of_prompt, one; /* operations of attention in all layers */
    double kept;                     /* bytes of keys and values in all layers */
} amounts;

static amounts amounts_of(const bench_model *m) {
    const emo_model_info *i = &m->info;
    double hidden = (double)i->heads * i->head_dim, n = m->prompt;
    int small = m->weights == EMO_DTYPE_Q4_0 || m->weights == EMO_DTYPE_Q4_K; /* their head is q8_0 */
    amounts a;
    a.body = (double)(i->active - i->embedding);
    a.head = (double)i->vocab * i->hidden;
    a.body_bytes = bench_weight_bytes(m->weights, a.body);
    a.head_bytes = bench_weight_bytes(small ? EMO_DTYPE_Q8_0 : m->weights, a.head);
    a.whole_bytes = bench_weight_bytes(m->weights, (double)(i->loaded - i->embedding));
    a.attention_of_prompt = 4.0 * hidden * n * (n + 1) / 2 * i->layers;
    a.one = 4.0 * hidden * n * i->layers;
    a.kept = 8.0 * n * i->kv_heads * i->head_dim * i->layers;
    /* few tokens do not reach all experts */
    double reached = a.body_bytes * n;
    a.whole_bytes = reached < a.whole_bytes ? reached : a.whole_bytes;
    return a;
}

static emo_status add(cli *c, bench_table *table, bench_sessions *s, const char *what, bench_run run, int64_t tokens,
                      double operations, double bytes) {
    bench_line *line = tokens > 1 ? bench_add(c, table, "%s, %lld tokens", what, (long long)tokens)
                                  : bench_add(c, table, "%s, 1 token after %d", what, (int)s->m->prompt);
    if (line == NULL)
        return c->err.code;
    line->tokens = tokens;
    line->operations = operations;
    line->bytes = bytes;
    line->run = run;
    line->ctx = s;
    return EMO_OK;
}

emo_status bench_add_inference(cli *c, bench_table *table, const bench_model *m, int layer, int prefill, int decode,
                               bench_sessions **out) {
    bench_sessions *s = calloc(1, sizeof(*s));
    *out = s;
    if (s != NULL)
        s->ids = malloc((size_t)m->prompt * sizeof(*s->ids));
    if (s == NULL || s->ids == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    s->m = m;
    for (int32_t i = 0; i < m->prompt; i++)
        s->ids[i] = prompt_id(i, m->info.vocab);
    amounts a = amounts_of(m);
    double layers = m->info.layers, n = m->prompt, products = 2.0 * a.body;
    emo_status status = EMO_OK;
    if (layer)
        status = add(c, table, s, "layer", run_layer_prompt, m->prompt, (products * n + a.attention_of_prompt) / layers,
                     (a.whole_bytes + a.kept) / layers);
    if (status == EMO_OK && layer)
        status = add(c, table, s, "layer", run_layer_token, 1, (products + a.one) / layers,
                     (a.body_bytes + a.kept) / layers);
    if (status == EMO_OK && prefill)
        status = add(c, table, s, "prefill", run_prefill, m->prompt,
                     products * n + a.attention_of_prompt + 2.0 * a.head, a.whole_bytes + a.head_bytes + a.kept);
    if (status == EMO_OK && decode)
        status = add(c, table, s, "decode", run_decode, 1, products + a.one + 2.0 * a.head,
                     a.body_bytes + a.head_bytes + a.kept);
    return status;
}

void bench_sessions_free(bench_sessions *s) {
    if (s == NULL)
        return;
    emo_session_release(s->ready);
    emo_session_release(s->layered);
    free(s->ids);
    free(s);
}
