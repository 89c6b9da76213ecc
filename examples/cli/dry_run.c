/* SPDX-License-Identifier: Apache-2.0 */
#include "dry_run.h"

#include <inttypes.h>

/* Multiplications and additions of one token's forward pass: two for every weight that works on it (the embedding is
 * looked up, the head is a product), and the scores and sums over half a row of keys on average. */
static double forward_flops(const emo_model_info *i, int32_t seq_len) {
    int64_t table = (int64_t)i->vocab * i->hidden;
    int64_t working = i->active - (i->embedding > table ? table : 0); /* tied: the one matrix is the head */
    double width = (double)i->heads * (double)i->head_dim;
    return 2.0 * (double)working + 4.0 * (double)i->layers * width * 0.5 * (double)seq_len;
}

static int64_t total_tokens(const emo_train_options *o) {
    if (o->max_tokens > 0)
        return o->max_tokens;
    return o->max_steps > 0 ? o->max_steps * o->batch_rows * o->seq_len : 0;
}

void dry_run_print(cli *c, const dry_run *d) {
    const emo_model_info *i = d->info;
    const emo_train_options *o = d->options;
    int64_t batch = (int64_t)o->batch_rows * o->seq_len;
    int64_t tokens = total_tokens(o);
    double forward = forward_flops(i, o->seq_len), training = 3.0 * forward;
    double state = 16.0 * (double)i->parameters; /* f32: weight, gradient, two moments */
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "name", d->name);
        json_string(&json, "model", d->model);
        json_integer(&json, "parameters", i->parameters);
        json_integer(&json, "parameters_without_embeddings", i->parameters - i->embedding);
        json_integer(&json, "active", i->active);
        json_integer(&json, "active_without_embeddings", i->active - i->embedding);
        json_number(&json, "training_bytes", state);
        json_integer(&json, "f32_bytes", 4 * i->parameters);
        json_integer(&json, "bf16_bytes", 2 * i->parameters);
        json_number(&json, "forward_flops_per_token", forward);
        json_number(&json, "training_flops_per_token", training);
        json_integer(&json, "tokens", tokens);
        json_integer(&json, "tokens_per_step", batch);
        json_integer(&json, "steps", (tokens + batch - 1) / batch);
        json_integer(&json, "batch", o->batch_rows);
        json_integer(&json, "seq_len", o->seq_len);
        json_integer(&json, "accumulate", o->accumulate);
        json_string(&json, "pool", d->pool);
        json_number(&json, "lr", (double)o->lr);
        json_string(&json, "schedule", d->schedule);
        json_integer(&json, "warmup", o->warmup);
        json_number(&json, "final_lr", (double)o->alpha_f);
        json_number(&json, "weight_decay", (double)o->weight_decay);
        json_string(&json, "balance_scope", d->balance_scope);
        json_number(&json, "balance_weight", (double)o->balance_weight);
        json_close(&json);
        return;
    }
    char a[32], b[32], e[32];
    if (d->name != NULL)
        printf("%s\n", d->name);
    printf("  %-16s %s\n", "model", d->model);
    printf("  %-16s %s (%s without embeddings)\n", "parameters", human_count((double)i->parameters, a),
           human_count((double)(i->parameters - i->embedding), b));
    printf("  %-16s %s (%s without embeddings)\n", "active a token", human_count((double)i->active, a),
           human_count((double)(i->active - i->embedding), b));
    printf(
        "  %-16s %s to train (weights, gradients and moments; activations besides); a model of %s in f32, %s in bf16\n",
        "memory", human_bytes(state, a), human_bytes(4.0 * (double)i->parameters, b),
        human_bytes(2.0 * (double)i->parameters, e));
    printf("  %-16s %.4g forward, %.4g in training, in rows of %d tokens\n", "FLOPs a token", forward, training,
           (int)o->seq_len);
    printf("  %-16s %d rows of %d tokens (%s) in %d micro-batch%s\n", "a step", (int)o->batch_rows, (int)o->seq_len,
           human_count((double)batch, a), (int)o->accumulate, o->accumulate == 1 ? "" : "es");
    if (tokens > 0)
        printf("  %-16s %s tokens, %" PRId64 " steps, %.3g FLOPs\n", "the run", human_count((double)tokens, a),
               (tokens + batch - 1) / batch, training * (double)tokens);
    printf("  %-16s %s, balance over %s with weight %g\n", "pool", d->pool, d->balance_scope,
           (double)o->balance_weight);
    printf("  %-16s %g, %s, down to %g of it; weight decay %g\n", "lr", (double)o->lr, d->schedule, (double)o->alpha_f,
           (double)o->weight_decay);
}
