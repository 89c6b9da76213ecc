/* SPDX-License-Identifier: Apache-2.0 */
/* Training steps of a model on documents of random tokens. */
#include "bench_work.h"

#include <stdlib.h>
#include <string.h>

enum { DOCUMENTS = 400, SHORTEST = 40, LONGEST = 800 };

struct bench_training {
    const bench_model *m;
    emo_dataset *data;
    emo_pool_policy *pool;
    emo_trainer *trainer;
    double passes; /* seconds of forward and backward in the last step */
};

/* Documents of 40 to 800 tokens, frequent ids more often; *pairs: keys a token sees, on average. */
static emo_status make_data(cli *c, bench_training *t, double *pairs) {
    int32_t *tokens = malloc(DOCUMENTS * LONGEST * sizeof(*tokens));
    size_t lengths[DOCUMENTS], at = 0;
    uint32_t x = 12345;
    double seen = 0;
    if (tokens == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    for (size_t d = 0; d < DOCUMENTS; d++) {
        lengths[d] = SHORTEST + d * 97 % (LONGEST - SHORTEST);
        double length = (double)lengths[d] < t->m->length ? (double)lengths[d] : t->m->length;
        seen += (double)lengths[d] * length / 2;
        for (size_t i = 0; i < lengths[d]; i++) {
            x = x * 1664525u + 1013904223u;
            double u = (double)x / 4294967296.0;
            tokens[at++] = (int32_t)(2 + u * u * (t->m->info.vocab - 2));
        }
    }
    *pairs = seen / (double)at;
    emo_status status =
        emo_dataset_from_tokens(c->rt, tokens, lengths, NULL, DOCUMENTS, t->m->info.eos, &t->data, &c->err);
    free(tokens);
    return status;
}

static int is_pass(emo_train_part part) { return part >= EMO_TRAIN_PART_EMBED && part <= EMO_TRAIN_PART_HEAD; }

/* Seconds of forward and backward so far. */
static double passes_of(const emo_trainer *trainer) {
    emo_train_profile_entry entry = EMO_TRAIN_PROFILE_ENTRY_INIT;
    double seconds = 0.0;
    for (size_t i = 0; emo_trainer_profile(trainer, i, &entry, NULL) == EMO_OK; i++)
        seconds += is_pass(entry.part) ? entry.seconds : 0.0;
    return seconds;
}

static emo_status run_step(cli *c, void *ctx, double *seconds) {
    bench_training *t = ctx;
    emo_step_metrics metrics = {0};
    metrics.struct_size = sizeof(metrics);
    emo_status status = EMO_OK;
    double before = passes_of(t->trainer), begin = seconds_now();
    for (int32_t i = 0; status == EMO_OK && i < t->m->calls; i++)
        status = emo_trainer_step(t->trainer, &metrics, &c->err);
    *seconds = (seconds_now() - begin) / t->m->calls;
    t->passes = (passes_of(t->trainer) - before) / t->m->calls;
    return status;
}

/* Of the step that the line before timed. */
static emo_status run_passes(cli *c, void *ctx, double *seconds) {
    (void)c;
    *seconds = ((const bench_training *)ctx)->passes;
    return EMO_OK;
}

static emo_status add_lines(cli *c, bench_table *table, bench_training *t, double pairs) {
    const emo_model_info *i = &t->m->info;
    double tokens = (double)t->m->rows * t->m->length;
    double matrices = (double)(i->active - i->embedding) + (double)i->vocab * i->hidden;
    double operations = tokens * (6.0 * matrices + 14.0 * pairs * i->heads * i->head_dim * i->layers);
    for (int whole = 1; whole >= 0; whole--) {
        bench_line *line = bench_add(c, table, whole ? "training step, %d x %d tokens" : "forward and backward of it",
                                     (int)t->m->rows, (int)t->m->length);
        if (line == NULL)
            return c->err.code;
        line->tokens = (int64_t)tokens;
        line->operations = operations;
        /* weights twice, gradients once; the optimizer reads four numbers a weight and writes three */
        line->bytes = (double)i->parameters * (12.0 + (whole ? 28.0 : 0.0));
        line->run = whole ? run_step : run_passes;
        line->ctx = t;
    }
    return EMO_OK;
}

emo_status bench_add_training(cli *c, bench_table *table, const bench_model *m, bench_training **out) {
    bench_training *t = calloc(1, sizeof(*t));
    double pairs = 0;
    *out = t;
    if (t == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
    t->m = m;
    emo_train_options options = EMO_TRAIN_OPTIONS_INIT;
    options.batch_rows = m->rows;
    options.seq_len = m->length;
    options.max_steps = 1000000;
    options.profile = 1;
    emo_status status = make_data(c, t, &pairs);
    if (status == EMO_OK && m->experts > 0) {
        int32_t routed = m->experts - m->shared, least = m->info.top_k < routed ? m->info.top_k : routed;
        status = emo_pool_policy_create_uniform(c->rt, least, routed, &t->pool, &c->err);
        options.pool = t->pool;
    }
    if (status == EMO_OK)
        status = emo_trainer_create(m->model, t->data, &options, &t->trainer, &c->err);
    return status == EMO_OK ? add_lines(c, table, t, pairs) : status;
}

const emo_trainer *bench_trainer(const bench_training *t) { return t != NULL ? t->trainer : NULL; }

void bench_training_free(bench_training *t) {
    if (t == NULL)
        return;
    emo_trainer_release(t->trainer);
    emo_pool_policy_release(t->pool);
    emo_dataset_release(t->data);
    free(t);
}
