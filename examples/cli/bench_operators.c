/* SPDX-License-Identifier: Apache-2.0 */
/* Operators of a model's shape. */
#include "bench_work.h"

#include <stdlib.h>
#include <string.h>

struct bench_operator {
    emo_bench *bench;
    int32_t calls; /* in a round, so that it lasts long enough for the clock; 0: not known yet */
};

#define ROUND_SECONDS 0.02 /* of one operator */

double bench_weight_bytes(emo_dtype dtype, double count) {
    switch (dtype) {
    case EMO_DTYPE_F16:
    case EMO_DTYPE_BF16:
        return 2 * count;
    case EMO_DTYPE_Q8_0:
        return count * 34 / 32;
    case EMO_DTYPE_Q4_0:
        return count * 18 / 32;
    case EMO_DTYPE_Q4_K:
        return count * 144 / 256;
    default:
        return 4 * count;
    }
}

static emo_status run_operator(cli *c, void *ctx, double *seconds) {
    bench_operator *op = ctx;
    emo_status status = emo_bench_run(op->bench, 1, seconds, &c->err); /* the caches have something else */
    if (status == EMO_OK && op->calls == 0) {
        double calls = ROUND_SECONDS / (*seconds > 1e-7 ? *seconds : 1e-7);
        op->calls = calls > 1e5 ? 100000 : calls < 1 ? 1 : (int32_t)calls;
    }
    return status == EMO_OK ? emo_bench_run(op->bench, op->calls, seconds, &c->err) : status;
}

static int wanted(const string_list *only, const char *name) {
    for (size_t i = 0; i < only->count; i++) {
        if (strstr(name, only->items[i]) != NULL)
            return 1;
    }
    return only->count == 0;
}

typedef struct adding {
    cli *c;
    bench_table *table;
    const bench_model *m;
    const string_list *only;
    bench_operators *out;
} adding;

static emo_status add(adding *a, const char *name, emo_bench_options *o) {
    char full[64];
    if (o->kind == EMO_BENCH_ADAMW)
        (void)snprintf(full, sizeof(full), "%s, %.0f weights", name, (double)o->tokens * (double)o->hidden);
    else
        (void)snprintf(full, sizeof(full), "%s%s, %lld token%s", name, o->backward ? " backward" : "",
                       (long long)o->tokens, o->tokens == 1 ? "" : "s");
    if (!wanted(a->only, full))
        return EMO_OK;
    bench_operator *op = a->out->count < BENCH_OPERATORS ? calloc(1, sizeof(*op)) : NULL;
    if (op == NULL)
        return cli_fail(a->c, EMO_E_OUT_OF_MEMORY, "out of memory");
    a->out->items[a->out->count++] = op;
    progress_print(&a->c->line, 1, "operands of %s", full);
    emo_status status = emo_bench_create(a->c->rt, o, &op->bench, &a->c->err);
    bench_line *line = status == EMO_OK ? bench_add(a->c, a->table, "%s", full) : NULL;
    if (line == NULL)
        return a->c->err.code;
    emo_bench_work(op->bench, &line->operations, &line->bytes);
    line->tokens = o->kind == EMO_BENCH_ADAMW ? 0 : o->tokens;
    line->run = run_operator;
    line->ctx = op;
    if (o->kind == EMO_BENCH_ATTENTION || o->kind == EMO_BENCH_ROUTE)
        line->peak = LIMIT_F32; /* whatever the rest computes in */
    else if (o->kind != EMO_BENCH_LINEAR && o->kind != EMO_BENCH_EXPERTS && o->kind != EMO_BENCH_HEAD_LOSS &&
             o->kind != EMO_BENCH_HEAD_LOGITS)
        line->peak = LIMIT_READ;
    return EMO_OK;
}

static emo_status add_one(adding *a, emo_bench_kind kind, const char *name, int64_t tokens, int backward) {
    const emo_model_info *info = &a->m->info;
    emo_bench_options o = EMO_BENCH_OPTIONS_INIT;
    int has_matrix = kind == EMO_BENCH_LINEAR || kind == EMO_BENCH_EXPERTS || kind == EMO_BENCH_EMBED ||
                     kind == EMO_BENCH_HEAD_LOSS || kind == EMO_BENCH_HEAD_LOGITS;
    o.kind = kind;
    o.weights = has_matrix ? a->m->weights : EMO_DTYPE_F32;
    o.compute = cli_compute(a->c);
    o.backward = backward;
    o.experts = a->m->experts + (a->m->shared == 0);
    o.top_k = info->top_k + (a->m->shared == 0);
    o.heads = info->heads;
    o.tokens = tokens;
    o.hidden = info->hidden;
    o.inner = kind == EMO_BENCH_EXPERTS ? info->expert_inner : info->hidden;
    o.vocab = info->vocab;
    if (kind == EMO_BENCH_ATTENTION && tokens == 1)
        o.past = a->m->prompt;
    return add(a, name, &o);
}

emo_status bench_add_operators(cli *c, bench_table *table, const bench_model *m, int backward, const string_list *only,
                               bench_operators *out) {
    static const struct {
        emo_bench_kind kind;
        const char *name;
        int experts, prompt, token, backward; /* is it for models with experts, a prompt, one token, the backward? */
    } kinds[] = {
        {EMO_BENCH_EMBED, "embed", 0, 1, 0, 1},         {EMO_BENCH_NORM, "norm", 0, 1, 0, 1},
        {EMO_BENCH_LINEAR, "linear", 0, 1, 1, 1},       {EMO_BENCH_ROPE, "rope", 0, 1, 0, 0},
        {EMO_BENCH_ATTENTION, "attention", 0, 1, 1, 1}, {EMO_BENCH_ROUTE, "route", 1, 1, 1, 1},
        {EMO_BENCH_PLAN, "plan", 1, 1, 0, 0},           {EMO_BENCH_EXPERTS, "experts", 1, 1, 1, 1},
        {EMO_BENCH_HEAD_LOGITS, "head", 0, 0, 1, 0},    {EMO_BENCH_HEAD_LOSS, "head and loss", 0, 0, 0, 1},
    };
    adding a = {c, table, m, only, out};
    emo_status status = EMO_OK;
    for (size_t i = 0; status == EMO_OK && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (kinds[i].experts && m->experts == 0)
            continue;
        if (backward ? kinds[i].backward : kinds[i].prompt)
            status = add_one(&a, kinds[i].kind, kinds[i].name, m->prompt, backward);
        if (status == EMO_OK && !backward && kinds[i].token)
            status = add_one(&a, kinds[i].kind, kinds[i].name, 1, 0);
    }
    if (status == EMO_OK && backward)
        status = add_one(&a, EMO_BENCH_ADAMW, "adamw", (32 << 20) / m->info.hidden, 0); /* more than a cache holds */
    return status;
}

void bench_operators_free(bench_operators *operators) {
    for (size_t i = 0; i < operators->count; i++) {
        emo_bench_release(operators->items[i]->bench);
        free(operators->items[i]);
    }
    memset(operators, 0, sizeof(*operators));
}
