/* SPDX-License-Identifier: Apache-2.0 */
#include "train_report.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void train_report_begin(train_report *report, cli *c) {
    memset(report, 0, sizeof(*report));
    report->c = c;
    report->valid_loss = NAN;
    report->last.loss = NAN;
}

int32_t train_report_progress(void *ctx, const emo_progress_info *info) {
    train_report *report = ctx;
    emo_progress line = cli_progress(report->c);
    /* A checkpoint is finished also after Ctrl-C: it is what the run goes on from. */
    if (strcmp(info->phase, "checkpoint") == 0)
        return 0;
    /* Once steps are done their line says more than the phase does. */
    return report->steps_seen > 0 ? interrupt_seen() : line.report(line.ctx, info);
}

int32_t train_report_step(void *ctx, const emo_step_metrics *m) {
    train_report *report = ctx;
    cli *c = report->c;
    double now = seconds_now();
    report->steps_seen++;
    report->last = *m;
    /* The first steps are slower: forget them soon. */
    double weight = report->steps_seen <= 20 ? 1.0 / (double)report->steps_seen : 0.05;
    report->seconds_per_step += weight * (m->seconds - report->seconds_per_step);
    int validated = !isnan(m->valid_loss);
    if (validated)
        report->valid_loss = m->valid_loss;
    if (m->skipped && !c->common.quiet) {
        progress_clear(&c->line);
        fprintf(stderr,
                "emo: warning: step %" PRId64 " was skipped: its gradients were not finite, or no token counted\n",
                m->step);
    }
    report->skipped += m->skipped;

    char speed[32], eta[32], line[160], valid[48] = "";
    if (validated)
        snprintf(valid, sizeof(valid), "  valid %.4f", m->valid_loss);
    double left = m->steps > 0 ? (double)(m->steps - m->step) * report->seconds_per_step : INFINITY;
    snprintf(line, sizeof(line), "step %*" PRId64 " of %" PRId64 "  loss %.4f%s  lr %.2e  %s tok/s  %s left",
             m->steps > 9999 ? 6 : 4, m->step, m->steps, m->loss, valid, m->lr,
             human_count(m->tokens_per_second, speed), human_time(left, eta));
    int last = m->steps > 0 && m->step >= m->steps;
    /* On a terminal the line is written over and only now and then kept. */
    double every = c->line.visible ? 10.0 : 1.0;
    int keep = !c->common.json && !c->common.quiet &&
               (report->steps_seen == 1 || validated || last || now - report->printed >= every);
    if (keep) {
        progress_clear(&c->line);
        printf("%s\n", line);
        fflush(stdout);
        report->printed = now;
    } else {
        progress_print(&c->line, 0, "%s", line);
    }
    return interrupt_seen();
}

static const char *schedule_name(emo_schedule schedule) {
    switch (schedule) {
    case EMO_SCHEDULE_LINEAR:
        return "linear";
    case EMO_SCHEDULE_CONSTANT:
        return "constant";
    case EMO_SCHEDULE_WSD:
        return "wsd";
    default:
        return "cosine";
    }
}

static const char *scope_name(const emo_train_options *o, char buffer[32]) {
    switch (o->balance_scope) {
    case EMO_BALANCE_MICROBATCH:
        return "microbatch";
    case EMO_BALANCE_DOCUMENT:
        return "document";
    case EMO_BALANCE_WINDOW:
        snprintf(buffer, 32, "window:%d", (int)o->balance_window);
        return buffer;
    default:
        return "batch";
    }
}

static const char *gating_name(const emo_train_options *o) {
    return o->gating < 0 ? "the model's own" : o->gating == EMO_ROUTER_SIGMOID ? "sigmoid" : "softmax";
}

/* An option that may be left to the library, as text. */
static const char *steps_or(int64_t steps, const char *automatic, char buffer[32]) {
    if (steps < 0)
        return automatic;
    snprintf(buffer, 32, "%" PRId64 " steps", steps);
    return buffer;
}

static void print_data(const char *name, const emo_dataset *data) {
    char tokens[32];
    printf("  %-16s %" PRId64 " documents in %d domains, %s tokens\n", name, (int64_t)emo_dataset_count(data),
           (int)emo_dataset_domains(data), human_count((double)emo_dataset_tokens(data), tokens));
}

void print_settings(const train_settings *s) {
    const emo_train_options *o = s->options;
    const char *isa = emo_isa_name(s->isa);
    char a[32], b[32];
    printf("Training %s\n", o->out);
    printf("  %-16s %s: %s parameters, %s used per token\n", "model", s->model,
           human_count((double)s->info->parameters, a), human_count((double)s->info->active, b));
    print_data("data", s->data);
    if (s->valid != NULL)
        print_data("valid", s->valid);
    printf("  %-16s %s\n", "pool", s->pool);
    if (s->mask != NULL)
        printf("  %-16s %s\n", "mask", s->mask);
    printf("  %-16s %s\n", "train-only", o->train_only == EMO_TRAIN_EXPERTS ? "experts" : "all");
    if (o->max_steps > 0)
        printf("  %-16s %" PRId64 "\n", "steps", o->max_steps);
    else if (o->max_tokens > 0)
        printf("  %-16s %" PRId64 "\n", "tokens", o->max_tokens);
    else
        printf("  %-16s %g\n", "minutes", o->max_minutes);
    printf("  %-16s %d rows of %d tokens, in %d micro-batch%s\n", "batch", (int)o->batch_rows, (int)o->seq_len,
           (int)o->accumulate, o->accumulate == 1 ? "" : "es");
    printf("  %-16s %g, %s, warmup %s, down to %g of it\n", "lr", (double)o->lr, schedule_name(o->schedule),
           steps_or(o->warmup, "5 % of the run", a), o->schedule == EMO_SCHEDULE_CONSTANT ? 1.0 : (double)o->alpha_f);
    if (o->schedule == EMO_SCHEDULE_WSD)
        printf("  %-16s %s\n", "decay", steps_or(o->decay, "10 % of the run", a));
    printf("  %-16s betas %g and %g, eps %g, weight decay %g, gradient norm at most %g\n", "adamw", (double)o->beta1,
           (double)o->beta2, (double)o->eps, (double)o->weight_decay, (double)o->max_grad_norm);
    printf("  %-16s weight %g, over %s; z-loss weight %g (router), %g (logits)\n", "balance", (double)o->balance_weight,
           scope_name(o, a), (double)o->z_weight, (double)o->lm_z_weight);
    if (o->gating >= 0 || o->score_bias_rate > 0.0f || o->jitter > 0.0f)
        printf("  %-16s %s gating, score bias by %g a step, jitter %g\n", "router", gating_name(o),
               (double)o->score_bias_rate, (double)o->jitter);
    if (o->repetition_count > 0)
        printf("  %-16s rows with %d repetitions of up to %d tokens are left out of the loss\n", "filter",
               (int)o->repetition_count, (int)o->repetition_period);
    if (o->checkpoint_every > 0)
        printf("  %-16s every %" PRId64 " steps, the last %d are kept\n", "checkpoints", o->checkpoint_every,
               (int)o->keep_checkpoints);
    else
        printf("  %-16s at the end\n", "checkpoints");
    printf("  %-16s %" PRIu64 "\n", "seed", o->seed);
    printf("  %-16s %d threads, %s, %s products\n", "machine", (int)s->threads, isa == NULL ? "?" : isa,
           emo_dtype_name(s->compute));
    fflush(stdout);
}

void json_settings(json_writer *json, const train_settings *s) {
    const emo_train_options *o = s->options;
    char scope[32];
    json_open(json, "settings");
    json_string(json, "model", s->model);
    json_integer(json, "documents", (int64_t)emo_dataset_count(s->data));
    json_integer(json, "domains", emo_dataset_domains(s->data));
    json_integer(json, "data_tokens", (int64_t)emo_dataset_tokens(s->data));
    json_string(json, "pool", s->pool);
    json_string(json, "mask", s->mask);
    json_string(json, "train_only", o->train_only == EMO_TRAIN_EXPERTS ? "experts" : "all");
    json_integer(json, "max_steps", o->max_steps);
    json_integer(json, "max_tokens", o->max_tokens);
    json_number(json, "max_minutes", o->max_minutes);
    json_integer(json, "batch", o->batch_rows);
    json_integer(json, "seq_len", o->seq_len);
    json_integer(json, "accumulate", o->accumulate);
    json_number(json, "lr", (double)o->lr);
    json_string(json, "schedule", schedule_name(o->schedule));
    json_integer(json, "warmup", o->warmup);
    json_integer(json, "decay", o->decay);
    json_number(json, "alpha_f", (double)o->alpha_f);
    json_number(json, "weight_decay", (double)o->weight_decay);
    json_number(json, "max_grad_norm", (double)o->max_grad_norm);
    json_string(json, "balance_scope", scope_name(o, scope));
    json_number(json, "balance_weight", (double)o->balance_weight);
    json_number(json, "z_weight", (double)o->z_weight);
    json_number(json, "lm_z_weight", (double)o->lm_z_weight);
    json_string(json, "gating", gating_name(o));
    json_number(json, "score_bias_rate", (double)o->score_bias_rate);
    json_number(json, "jitter", (double)o->jitter);
    json_integer(json, "repetition_count", o->repetition_count);
    json_integer(json, "checkpoint_every", o->checkpoint_every);
    json_unsigned(json, "seed", o->seed);
    json_integer(json, "threads", s->threads);
    json_string(json, "isa", emo_isa_name(s->isa));
    json_string(json, "compute", emo_dtype_name(s->compute));
    json_close(json);
}

/* Entry `index` of the profile; 0 past the last. */
static int profile_entry(const emo_trainer *trainer, size_t index, emo_train_profile_entry *entry) {
    const emo_train_profile_entry empty = EMO_TRAIN_PROFILE_ENTRY_INIT;
    *entry = empty;
    return emo_trainer_profile(trainer, index, entry, NULL) == EMO_OK;
}

static double profile_total(const emo_trainer *trainer) {
    emo_train_profile_entry entry;
    double total = 0.0;
    for (size_t i = 0; profile_entry(trainer, i, &entry); i++)
        total += entry.seconds;
    return total > 0.0 ? total : 1.0;
}

void print_profile(const emo_trainer *trainer) {
    text_table table;
    emo_train_profile_entry entry;
    double total = profile_total(trainer);
    table_begin(&table, 5);
    table_cell(&table, "operator");
    table_cell(&table, "pass");
    table_cell(&table, "calls");
    table_cell(&table, "seconds");
    table_cell(&table, "share");
    for (size_t i = 0; profile_entry(trainer, i, &entry); i++) {
        table_cell(&table, "%s", emo_train_part_name(entry.part));
        table_cell(&table, "%s", entry.backward ? "backward" : "forward");
        table_cell(&table, "%" PRIu64, entry.calls);
        table_cell(&table, "%.3f", entry.seconds);
        table_cell(&table, "%.1f %%", 100.0 * entry.seconds / total);
    }
    printf("\n");
    table_print(&table, stdout);
}

void json_profile(json_writer *json, const emo_trainer *trainer) {
    emo_train_profile_entry entry;
    double total = profile_total(trainer);
    json_open_array(json, "profile");
    for (size_t i = 0; profile_entry(trainer, i, &entry); i++) {
        json_open(json, NULL);
        json_string(json, "operator", emo_train_part_name(entry.part));
        json_string(json, "pass", entry.backward ? "backward" : "forward");
        json_unsigned(json, "calls", entry.calls);
        json_number(json, "seconds", entry.seconds);
        json_number(json, "share", entry.seconds / total);
        json_close(json);
    }
    json_close_array(json);
}
