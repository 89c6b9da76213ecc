/* SPDX-License-Identifier: Apache-2.0 */
#include "dry_run.h"

#include <inttypes.h>
#include <string.h>

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

/* ---- memory ---- */

typedef struct memory_row {
    const char *key, *words;
    int64_t bytes;
} memory_row;

enum { MEMORY_ROWS = 7 };

static void memory_rows(const emo_train_plan *p, memory_row rows[MEMORY_ROWS]) {
    const memory_row all[MEMORY_ROWS] = {
        {"weights", "weights, f32", p->weights},
        {"gradients", "gradients, f32", p->gradients},
        {"moments", "moments of AdamW, f32", p->moments},
        {"saved", "activations saved for the backward pass", p->saved},
        {"activations", "other activations", p->activations},
        {"workspace", "workspace of the operators", p->workspace},
        {"tables", "tables, counts and sums", p->tables},
    };
    memcpy(rows, all, sizeof(all));
}

static void json_plan(json_writer *json, const emo_train_plan *p, const char *device) {
    memory_row rows[MEMORY_ROWS];
    memory_rows(p, rows);
    json_open(json, "memory");
    json_string(json, "device", device);
    for (int i = 0; i < MEMORY_ROWS; i++)
        json_integer(json, rows[i].key, rows[i].bytes);
    json_integer(json, "total", p->total);
    json_integer(json, "micro_batch", p->micro_batch);
    json_integer(json, "micro_batch_tokens", p->tokens);
    json_integer(json, "trained", p->trained);
    json_integer(json, "pinned", p->pinned);
    json_integer(json, "available", p->available);
    if (p->fits < 0)
        json_null(json, "fits");
    else
        json_boolean(json, "fits", p->fits);
    json_open(json, "workspaces");
    for (emo_train_part part = 0; emo_train_part_name(part) != NULL; part++)
        if (p->workspaces[part] > 0)
            json_integer(json, emo_train_part_name(part), p->workspaces[part]);
    json_close(json);
    json_close(json);
}

static void print_plan(const emo_train_plan *p, const char *device) {
    memory_row rows[MEMORY_ROWS];
    char text[32], of[32];
    emo_train_part largest = 0;
    memory_rows(p, rows);
    for (emo_train_part part = 0; emo_train_part_name(part) != NULL; part++)
        largest = p->workspaces[part] > p->workspaces[largest] ? part : largest;
    printf("\nmemory on %s\n", device);
    for (int i = 0; i < MEMORY_ROWS; i++) {
        printf("  %12s  %s", human_bytes((double)rows[i].bytes, text), rows[i].words);
        if (strcmp(rows[i].key, "workspace") == 0 && p->workspace > 0)
            printf("; the largest is for: %s", emo_train_part_name(largest));
        printf("\n");
    }
    printf("  %12s  in all", human_bytes((double)p->total, text));
    if (p->fits >= 0)
        printf("; %s %s are free", p->fits ? "it fits:" : "it does not fit:", human_bytes((double)p->available, of));
    printf("\n  %12s  of it for a micro-batch of %" PRId64 " tokens\n", human_bytes((double)p->micro_batch, text),
           p->tokens);
    if (p->pinned > 0)
        printf("  %12s  of the host, page-locked\n", human_bytes((double)p->pinned, text));
}

void dry_run_print(cli *c, const dry_run *d) {
    const char *device = d->device != NULL ? d->device : "cpu";
    const emo_model_info *i = d->info;
    const emo_train_options *o = d->options;
    int64_t batch = (int64_t)o->batch_rows * o->seq_len;
    int64_t tokens = total_tokens(o);
    double forward = forward_flops(i, o->seq_len), training = 3.0 * forward;
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "name", d->name);
        json_string(&json, "model", d->model);
        json_integer(&json, "parameters", i->parameters);
        json_integer(&json, "parameters_without_embeddings", i->parameters - i->embedding);
        json_integer(&json, "active", i->active);
        json_integer(&json, "active_without_embeddings", i->active - i->embedding);
        json_number(&json, "training_bytes", (double)(d->plan->weights + d->plan->gradients + d->plan->moments));
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
        json_plan(&json, d->plan, device);
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
    printf("  %-16s %s to train on %s; a model of %s in f32, %s in bf16\n", "memory",
           human_bytes((double)d->plan->total, a), device, human_bytes(4.0 * (double)i->parameters, b),
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
    print_plan(d->plan, device);
}
