/* SPDX-License-Identifier: Apache-2.0 */
/* emo train: a new model, a run that goes on, or a model (or a subset of its experts) that is tuned. */
#include "cli.h"
#include "config.h"
#include "dataset.h"
#include "device.h"
#include "dry_run.h"
#include "recipe.h"
#include "train_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const command_text text = {
    "emo train",
    "(--config FILE --tokenizer FILE | --from DIR | --recipe FILE) --data PATH... --out DIR (--steps N | --tokens N | "
    "--minutes M) [options]",
    "Trains a model. --out becomes the model folder (config.json, model.safetensors, tokenizer.json); the state of the "
    "run is\nin OUT/state, every step is a line of OUT/metrics.jsonl.",
    "A folder with a run in it is refused unless --resume is given. Ctrl-C writes a checkpoint; --resume goes on from "
    "it.\nThe length of a --minutes run is fixed by a short calibration and kept; --steps and --tokens repeat exactly.",
    0};

/* What the command line says. */
typedef struct train_arguments {
    const char *config, *from, *tokenizer, *pool, *schedule, *scope, *train_only, *recompute, *optimizer_on, *mask,
        *gating, *out;
    string_list data, valid;
    const char *recipe_path, *data_root, *mix_tokenizer;
    recipe recipe;
    int32_t skip_broken, dry_run;
    emo_train_options options;
} train_arguments;

/* What the run is made of. */
typedef struct train_objects {
    char *config_text;
    emo_tokenizer *tokenizer;
    const emo_tokenizer *words; /* the tokenizer in use: that one, or the model's own */
    emo_model *model;
    emo_pool_policy *pool;
    emo_mask *mask;
    emo_dataset *data, *valid;
    emo_trainer *trainer;
} train_objects;

/* ---- Options in words ---- */

static void read_words(cli *c, train_arguments *a) {
    emo_train_options *o = &a->options;
    if (strcmp(a->schedule, "linear") == 0)
        o->schedule = EMO_SCHEDULE_LINEAR;
    else if (strcmp(a->schedule, "wsd") == 0)
        o->schedule = EMO_SCHEDULE_WSD;
    else if (strcmp(a->schedule, "constant") == 0)
        o->schedule = EMO_SCHEDULE_CONSTANT;
    if (a->gating != NULL)
        o->gating = strcmp(a->gating, "sigmoid") == 0 ? EMO_ROUTER_SIGMOID : EMO_ROUTER_SOFTMAX;
    o->optimizer_on = strcmp(a->optimizer_on, "host") == 0 ? EMO_OPTIMIZER_HOST : EMO_OPTIMIZER_DEVICE;
    o->recompute = strcmp(a->recompute, "experts") == 0 ? EMO_RECOMPUTE_EXPERTS
                   : strcmp(a->recompute, "layer") == 0 ? EMO_RECOMPUTE_LAYER
                                                        : EMO_RECOMPUTE_NONE;
    o->train_only = strcmp(a->train_only, "experts") == 0 ? EMO_TRAIN_EXPERTS : EMO_TRAIN_ALL;
    if (strcmp(a->scope, "document") == 0) {
        o->balance_scope = EMO_BALANCE_DOCUMENT;
    } else if (strcmp(a->scope, "microbatch") == 0) {
        o->balance_scope = EMO_BALANCE_MICROBATCH;
    } else if (strcmp(a->scope, "batch") == 0) {
        o->balance_scope = EMO_BALANCE_BATCH;
    } else {
        char *end = NULL;
        long steps = strncmp(a->scope, "window:", 7) == 0 ? strtol(a->scope + 7, &end, 10) : 0;
        if (steps < 1 || steps > 65536 || *end != '\0') {
            cli_usage(c, "--balance-scope takes document, microbatch, batch or window:N (N steps), not '%s'.",
                      a->scope);
            return;
        }
        o->balance_scope = EMO_BALANCE_WINDOW;
        o->balance_window = (int32_t)steps;
    }
}

static void check_together(cli *c, const train_arguments *a) {
    const char *shape = a->config != NULL ? a->config : a->recipe.config;
    if (a->from == NULL && a->recipe.goes_on && !a->options.resume && !a->dry_run) {
        cli_usage(c, "this recipe goes on from a trained model: give --from DIR.");
        return;
    }
    if (a->dry_run && a->from == NULL) {
        if (shape == NULL)
            cli_usage(c, "--dry-run needs a shape: --config, --from or a --recipe that has one.");
        return;
    }
    if (!a->dry_run && (a->data.count == 0 || a->out == NULL)) {
        cli_usage(c, "--%s is required: %s.", a->out == NULL ? "out DIR" : "data PATH",
                  a->out == NULL ? "the folder of the model and the run" : "documents to train on");
        return;
    }
    int lengths = a->dry_run ? 1 : cli_given(c, "steps") + cli_given(c, "tokens") + cli_given(c, "minutes");
    if (lengths != 1)
        cli_usage(c, "give one of --steps N, --tokens N and --minutes M: how long to train.");
    else if (a->config != NULL && a->from != NULL)
        cli_usage(c, "--config begins a new model and --from goes on with one: give one of them.");
    else if (shape == NULL && a->from == NULL && !a->options.resume)
        cli_usage(c, "say what to train: --config config.json for a new model, --from DIR for one that is there.");
    else if (shape != NULL && a->from == NULL && a->tokenizer == NULL && !a->options.resume)
        cli_usage(c, "--tokenizer FILE is required with --config: the tokenizer.json to use.");
    else if (a->from != NULL && a->out != NULL && same_folder(a->from, a->out))
        cli_usage(c, "--out is the model of --from: name another folder.");
}

/* ---- Model and tokenizer ---- */

static emo_status check_tokenizer(cli *c, const train_arguments *a, const train_objects *t) {
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_status status = emo_model_get_info(t->model, &info, &c->err);
    if (status != EMO_OK)
        return status;
    const char *shape = a->config == NULL && a->recipe.config != NULL ? a->recipe_path : a->config;
    const char *where = a->from != NULL ? a->from : shape != NULL ? shape : a->out;
    int32_t words = emo_tokenizer_vocab_size(t->words), eos = emo_tokenizer_eos(t->words);
    if (info.vocab < words)
        return cli_fail(c, EMO_E_MISMATCH,
                        "%s has a vocab_size of %d, but the tokenizer has %d tokens: set vocab_size to %d or more, or "
                        "leave it out",
                        where, (int)info.vocab, (int)words, (int)words);
    if (info.eos >= 0 && eos >= 0 && info.eos != eos)
        return cli_fail(c, EMO_E_MISMATCH,
                        "%s has an eos_token_id of %d, but the tokenizer's end-of-text token is %d: set it to that, or "
                        "leave it out",
                        where, (int)info.eos, (int)eos);
    return EMO_OK;
}

static emo_status read_config(cli *c, const char *path, char **text_out) {
    size_t length = 0;
    emo_status status = cli_read_file(c, path, text_out, &length);
    if (status == EMO_OK && strlen(*text_out) != length)
        return cli_fail(c, EMO_E_FORMAT, "%s holds a NUL byte and is not JSON", path);
    return status;
}

/* A new model from the text of a configuration, completed with the tokenizer's numbers. */
static emo_status create_model(cli *c, const train_arguments *a, train_objects *t, const char *path) {
    emo_status status = EMO_OK;
    const char *config = a->recipe.config;
    if (path != a->recipe_path) {
        status = read_config(c, path, &t->config_text);
        config = t->config_text;
    }
    if (status != EMO_OK)
        return status;
    char *complete = config_complete(config, emo_tokenizer_vocab_size(t->tokenizer), emo_tokenizer_eos(t->tokenizer));
    if (complete == NULL)
        return cli_fail(c, EMO_E_OUT_OF_MEMORY, "no memory for %s", path);
    emo_model_create_options options = EMO_MODEL_CREATE_OPTIONS_INIT;
    options.seed = a->options.seed;
    options.compute = cli_compute(c);
    options.progress = cli_progress(c);
    status = emo_model_create_json(c->rt, complete, strlen(complete), &options, &t->model, &c->err);
    free(complete);
    if (status == EMO_OK)
        return cli_place_model(c, t->model);
    if (status != EMO_OK && c->err.message[0] != '\0') { /* the library does not know the file's name */
        static const char stand_in[] = "config.json: ";
        char message[sizeof(c->err.message)];
        memcpy(message, c->err.message, sizeof(message));
        const char *rest = message;
        if (strncmp(rest, stand_in, sizeof(stand_in) - 1) == 0)
            rest += sizeof(stand_in) - 1;
        /* An impossible number in a file is bad input, not a bad option. */
        return cli_fail(c, status == EMO_E_RANGE ? EMO_E_FORMAT : status, "%s: %s", path, rest);
    }
    return status;
}

/* The model and the tokenizer, from --config, --from or the run in --out. */
static emo_status open_model(cli *c, const train_arguments *a, train_objects *t) {
    emo_status status = EMO_OK;
    char *own_tokenizer = NULL, *own_config = NULL;
    const char *tokenizer = a->tokenizer, *config = a->config;
    if (config == NULL && a->from == NULL && a->tokenizer != NULL && a->recipe.config != NULL)
        config = a->recipe_path;
    if (config == NULL && a->from == NULL) { /* --resume alone */
        own_tokenizer = path_join(a->out, "tokenizer.json");
        own_config = path_join(a->out, "config.json");
        config = own_config;
        tokenizer = tokenizer == NULL ? own_tokenizer : tokenizer;
        if (config == NULL || tokenizer == NULL)
            status = cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory");
        else if (!path_exists(config))
            status = cli_fail(c, EMO_E_NOT_FOUND,
                              "%s has no config.json to go on with: give --config and --tokenizer, or --from", a->out);
    }
    if (status == EMO_OK && tokenizer != NULL)
        status = emo_tokenizer_load(c->rt, tokenizer, &t->tokenizer, &c->err);
    if (status == EMO_OK)
        status = config != NULL ? create_model(c, a, t, config) : cli_load_model(c, a->from, NULL, &t->model);
    if (status == EMO_OK) {
        t->words = t->tokenizer != NULL ? t->tokenizer : emo_model_tokenizer(t->model);
        status = t->words == NULL ? cli_fail(c, EMO_E_NOT_FOUND, "%s has no tokenizer.json: give --tokenizer FILE",
                                             a->from != NULL ? a->from : a->out)
                                  : check_tokenizer(c, a, t);
    }
    if (status == EMO_OK && t->tokenizer != NULL)
        status = emo_model_set_tokenizer(t->model, t->tokenizer, &c->err);
    free(own_tokenizer);
    free(own_config);
    return status;
}

/* ---- The run ---- */

static emo_status open_data(cli *c, const train_arguments *a, train_objects *t) {
    char *cache = path_join(a->out, "state/data");
    dataset_request request = {&a->data, t->words, cache, NULL, a->skip_broken, a->data_root, a->mix_tokenizer};
    emo_status status =
        cache == NULL ? cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory") : dataset_open(c, &request, &t->data);
    if (status == EMO_OK && a->valid.count > 0) {
        request.paths = &a->valid;
        status = dataset_open(c, &request, &t->valid);
    }
    free(cache);
    return status;
}

/* After a cancelled run: a checkpoint, so that it can go on. */
static void keep_progress(cli *c, const train_arguments *a, emo_trainer *trainer) {
    emo_error err = EMO_ERROR_INIT;
    progress_clear(&c->line);
    if (emo_trainer_at(trainer) == 0)
        return;
    if (emo_trainer_checkpoint(trainer, &err) != EMO_OK)
        fprintf(stderr, "emo train: the checkpoint could not be written: %s\n", err.message);
    else if (!c->common.quiet)
        fprintf(stderr,
                "emo train: a checkpoint is in %s after step %" PRId64 "; the same command with --resume goes on\n",
                a->out, emo_trainer_at(trainer));
}

static void print_result(cli *c, const train_arguments *a, const train_settings *settings, const train_report *report,
                         const emo_trainer *trainer, double seconds) {
    progress_clear(&c->line);
    int64_t steps = emo_trainer_at(trainer);
    double trained = report->steps_seen > 0 ? report->last.tokens_per_second : NAN;
    if (c->common.json) {
        json_writer json = {stdout, 0, {0}};
        json_open(&json, NULL);
        json_string(&json, "model", a->out);
        json_integer(&json, "steps", steps);
        json_integer(&json, "steps_now", report->steps_seen);
        if (report->steps_seen > 0)
            json_integer(&json, "tokens", report->last.tokens);
        else
            json_null(&json, "tokens");
        json_number(&json, "loss", report->last.loss);
        json_number(&json, "valid_loss", report->valid_loss);
        json_number(&json, "seconds", seconds);
        json_number(&json, "tokens_per_second", trained);
        json_integer(&json, "skipped", report->skipped);
        json_integer(&json, "parameters", settings->info->parameters);
        json_integer(&json, "active", settings->info->active);
        json_settings(&json, settings);
        if (a->options.profile)
            json_profile(&json, trainer);
        json_close(&json);
        return;
    }
    char time[32], tokens[32];
    if (report->steps_seen == 0)
        printf("%s: the run had ended already, after %" PRId64 " steps\n", a->out, steps);
    else
        printf("%s: %" PRId64 " steps, %s tokens, loss %.4f, in %s\n", a->out, steps,
               human_count((double)report->last.tokens, tokens), report->last.loss, human_time(seconds, time));
    if (a->options.profile)
        print_profile(trainer);
}

/* Refuses a folder with a run before any work is done; the trainer would refuse it later. */
static emo_status check_folder(cli *c, const train_arguments *a) {
    static const char *const marks[] = {"state/run.json", "state/latest", "model.safetensors"};
    for (size_t i = 0; !a->options.resume && i < sizeof(marks) / sizeof(marks[0]); i++) {
        char *path = path_join(a->out, marks[i]);
        int there = path != NULL && path_exists(path);
        free(path);
        if (there)
            return cli_fail(c, EMO_E_EXISTS, "%s has a %s in it: go on with --resume, or name another --out", a->out,
                            i < 2 ? "run" : "model");
    }
    return EMO_OK;
}

static emo_status dry_run_train(cli *c, const train_arguments *a) {
    emo_model_info info = EMO_MODEL_INFO_INIT;
    emo_pool_policy *pool = NULL;
    emo_mask *mask = NULL;
    char *own = NULL, *path = NULL, pool_words[4096] = "none";
    size_t size = 0;
    const char *shape = a->config != NULL ? a->config : a->from != NULL ? a->from : a->recipe_path;
    EMO_TRY(emo_pool_policy_parse(c->rt, a->pool, &pool, &c->err));
    EMO_TRY(emo_pool_policy_describe(pool, pool_words, sizeof(pool_words), &size, &c->err));
    if (a->config != NULL) {
        EMO_TRY(read_config(c, a->config, &own));
    } else if (a->from != NULL) {
        path = path_join(a->from, "config.json");
        EMO_TRY(path == NULL ? cli_fail(c, EMO_E_OUT_OF_MEMORY, "out of memory") : read_config(c, path, &own));
    }
    const char *config = own != NULL ? own : a->recipe.config;
    EMO_TRY(emo_model_info_json(c->rt, config, strlen(config), &info, &c->err));
    if (a->mask != NULL)
        EMO_TRY(emo_mask_load(c->rt, a->mask, &mask, &c->err));
    emo_train_plan plan = EMO_TRAIN_PLAN_INIT;
    emo_train_plan_options how = EMO_TRAIN_PLAN_OPTIONS_INIT;
    emo_train_options options = a->options;
    options.pool = emo_pool_policy_kind(pool) == EMO_POOL_NONE ? NULL : pool;
    options.mask = mask;
    how.compute = cli_compute(c);
    how.device = c->common.device;
    how.plugin = c->plugin;
    EMO_TRY(emo_train_plan_json(c->rt, config, strlen(config), &options, &how, &plan, &c->err));
    dry_run d = {a->recipe.name, shape, pool_words, a->schedule, a->scope, c->common.device, &info, &a->options, &plan};
    dry_run_print(c, &d);
done:
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
    free(own);
    free(path);
    return c->err.code;
}

static emo_status train(cli *c, train_arguments *a) {
    train_objects t;
    memset(&t, 0, sizeof(t));
    emo_model_info info = EMO_MODEL_INFO_INIT;
    char pool_words[4096] = "none", mask_words[160];
    size_t size = 0;
    train_report report;
    train_report_begin(&report, c);
    double start = seconds_now();

    EMO_TRY(check_folder(c, a));
    EMO_TRY(emo_pool_policy_parse(c->rt, a->pool, &t.pool, &c->err));
    EMO_TRY(emo_pool_policy_describe(t.pool, pool_words, sizeof(pool_words), &size, &c->err));
    if (a->mask != NULL)
        EMO_TRY(emo_mask_load(c->rt, a->mask, &t.mask, &c->err));
    EMO_TRY(open_model(c, a, &t));
    EMO_TRY(emo_model_get_info(t.model, &info, &c->err));
    EMO_TRY(open_data(c, a, &t));
    progress_clear(&c->line);

    a->options.pool = emo_pool_policy_kind(t.pool) == EMO_POOL_NONE ? NULL : t.pool;
    a->options.mask = t.mask;
    a->options.valid = t.valid;
    a->options.out = a->out;
    a->options.progress.ctx = &report;
    a->options.progress.report = train_report_progress;
    a->options.on_step_ctx = &report;
    a->options.on_step = train_report_step;
    train_settings settings = {&a->options,
                               pool_words,
                               a->from != NULL          ? a->from
                               : a->config != NULL      ? a->config
                               : a->recipe_path != NULL ? a->recipe_path
                                                        : a->out,
                               NULL,
                               &info,
                               t.data,
                               t.valid,
                               emo_runtime_threads(c->rt),
                               emo_runtime_isa(c->rt),
                               emo_model_compute(t.model)};
    if (t.mask != NULL) {
        describe_mask(t.mask, mask_words, sizeof(mask_words));
        settings.mask = mask_words;
    }
    EMO_TRY(emo_trainer_create(t.model, t.data, &a->options, &t.trainer, &c->err));
    if (!c->common.json && !c->common.quiet)
        print_settings(&settings);
    if (emo_trainer_run(t.trainer, &c->err) == EMO_E_CANCELLED) {
        keep_progress(c, a, t.trainer);
        cli_fail(c, EMO_E_CANCELLED, "stopped after step %" PRId64 " of %" PRId64, emo_trainer_at(t.trainer),
                 emo_trainer_steps(t.trainer));
    }
    if (c->err.code == EMO_OK && (c->common.json || !c->common.quiet))
        print_result(c, a, &settings, &report, t.trainer, seconds_now() - start);
done:
    emo_trainer_release(t.trainer);
    emo_dataset_release(t.data);
    emo_dataset_release(t.valid);
    emo_mask_release(t.mask);
    emo_pool_policy_release(t.pool);
    emo_model_release(t.model);
    emo_tokenizer_release(t.tokenizer);
    free(t.config_text);
    return c->err.code;
}

int cmd_train(int argc, char **argv) {
    train_arguments a;
    memset(&a, 0, sizeof(a));
    const emo_train_options defaults = EMO_TRAIN_OPTIONS_INIT;
    a.options = defaults;
    a.pool = "none";
    a.schedule = "cosine";
    a.scope = "batch";
    a.train_only = "all";
    a.recompute = "none";
    a.optimizer_on = "device";
    emo_train_options *o = &a.options;
    const double big = 9e15;
    option table[] = {
        {"config", OPTION_STRING, &a.config, "FILE", "config.json of a new model", NULL, 0, 0, 0, 0},
        {"from", OPTION_STRING, &a.from, "DIR", "or a model folder to start from", NULL, 0, 0, 0, 0},
        {"tokenizer", OPTION_STRING, &a.tokenizer, "FILE", "tokenizer.json", "the one in --from", 0, 0, 0, 0},
        {"recipe", OPTION_STRING, &a.recipe_path, "FILE", "configuration and options from a file; options here win",
         NULL, 0, 0, 0, 0},
        {"dry-run", OPTION_FLAG, &a.dry_run, NULL, "say parameters, memory and FLOPs, and end", NULL, 0, 0, 0, 0},
        {"data", OPTION_LIST, &a.data, "PATH", "documents to train on", NULL, 0, 0, 0, 0},
        {"data-root", OPTION_STRING, &a.data_root, "DIR", "where the paths of mix files begin", "the mix file's folder",
         0, 0, 0, 0},
        {"mix-tokenizer", OPTION_STRING, &a.mix_tokenizer, "NAME", "stands for {TOKENIZER} in mix files",
         "allenai/dolma2-tokenizer", 0, 0, 0, 0},
        {"valid", OPTION_LIST, &a.valid, "PATH", "documents to measure the loss on", "none", 0, 0, 0, 0},
        {"skip-broken", OPTION_FLAG, &a.skip_broken, NULL, "leave malformed documents out", NULL, 0, 0, 0, 0},
        {"out", OPTION_STRING, &a.out, "DIR", "the folder of the model and the run", NULL, 0, 0, 0, 0},
        {"steps", OPTION_INT64, &o->max_steps, "N", "train for so many steps", NULL, 1, big, 0, 0},
        {"tokens", OPTION_INT64, &o->max_tokens, "N", "or for so many tokens", NULL, 1, big, 0, 0},
        {"minutes", OPTION_DOUBLE, &o->max_minutes, "M", "or for about so long", NULL, 0.001, 1e6, 0, 0},
        {"pool", OPTION_STRING, &a.pool, "POLICY",
         "document pools: none, fixed:P, uniform:A:B, mass:P:A:B or scheduled:P:STEPS; none trains a standard MoE; "
         ",forced:N keeps the last N experts in",
         "none", 0, 0, 0, 0},
        {"batch", OPTION_INT32, &o->batch_rows, "ROWS", "rows a step", "12", 1, 1 << 20, 0, 0},
        {"seq-len", OPTION_INT32, &o->seq_len, "S", "tokens a row", "256", 2, 1 << 20, 0, 0},
        {"accumulate", OPTION_INT32, &o->accumulate, "N", "micro-batches a step; divides --batch", "1", 1, 4096, 0, 0},
        {"lr", OPTION_FLOAT, &o->lr, "X", "highest learning rate", "0.004", 0, 1e3, 0, 0},
        {"schedule", OPTION_CHOICE, &a.schedule, "cosine|linear|wsd|constant", "how the learning rate goes", "cosine",
         0, 0, 0, 0},
        {"warmup", OPTION_INT64, &o->warmup, "N", "steps in which it rises", "5 % of the run, at most 2000", 0, big, 0,
         0},
        {"decay", OPTION_INT64, &o->decay, "N", "wsd: steps in which it falls at the end", "10 % of the run", 0, big, 0,
         0},
        {"final-lr", OPTION_FLOAT, &o->alpha_f, "F", "the last learning rate as a share of --lr", "0.1", 0, 1, 0, 0},
        {"weight-decay", OPTION_FLOAT, &o->weight_decay, "X", "of AdamW", "0.1", 0, 1e3, 0, 0},
        {"max-grad-norm", OPTION_FLOAT, &o->max_grad_norm, "X", "gradients are clipped to it; 0: not", "1", 0, 1e9, 0,
         0},
        {"balance-scope", OPTION_STRING, &a.scope, "SCOPE",
         "over what the load is balanced: document, microbatch, batch or window:N", "batch", 0, 0, 0, 0},
        {"balance-weight", OPTION_FLOAT, &o->balance_weight, "X", "of the load-balancing loss", "0.1", 0, 1e3, 0, 0},
        {"z-weight", OPTION_FLOAT, &o->z_weight, "X", "of the router's z-loss", "0.001", 0, 1e3, 0, 0},
        {"gating", OPTION_CHOICE, &a.gating, "softmax|sigmoid", "how the router scores experts; the model keeps it",
         "the model's own: softmax", 0, 0, 0, 0},
        {"score-bias", OPTION_FLOAT, &o->score_bias_rate, "X",
         "balance by a bias on the choice, moved by X a step; 0: not", "0", 0, 1, 0, 0},
        {"jitter", OPTION_FLOAT, &o->jitter, "X", "the router's input times noise in [1 - X, 1 + X]", "0", 0, 0.999, 0,
         0},
        {"repetition-filter", OPTION_INT32, &o->repetition_count, "N",
         "no loss from rows that repeat up to 13 tokens N times in a row; 0: from all", "0", 0, 1 << 20, 0, 0},
        {"train-only", OPTION_CHOICE, &a.train_only, "experts|all", "what is trained: the routed experts, or all",
         "all", 0, 0, 0, 0},
        {"optimizer-on", OPTION_CHOICE, &a.optimizer_on, "device|host",
         "where the moments of AdamW lie: with --device cuda they may stay on the host", "device", 0, 0, 0, 0},
        {"recompute", OPTION_CHOICE, &a.recompute, "none|experts|layer",
         "what the backward pass makes again instead of keeping it: less memory, more time", "none", 0, 0, 0, 0},
        {"mask", OPTION_STRING, &a.mask, "FILE", "restrict the model to these experts", "all experts", 0, 0, 0, 0},
        {"seed", OPTION_SEED, &o->seed, "N", "of the weights, the order and the pools", "0", 0, 0, 0, 0},
        {"checkpoint-every", OPTION_INT64, &o->checkpoint_every, "N", "steps; 0: at the end only", "0", 0, big, 0, 0},
        {"valid-every", OPTION_INT64, &o->valid_every, "N", "steps; 0: at the end only", "0", 0, big, 0, 0},
        {"no-graph", OPTION_FLAG, &o->no_graph, NULL, "launch every step anew, also on a device that could replay it",
         NULL, 0, 0, 0, 0},
        {"profile", OPTION_FLAG, &o->profile, NULL, "say at the end where the time went", NULL, 0, 0, 0, 0},
        {"resume", OPTION_FLAG, &o->resume, NULL, "go on with the run in --out, if there is one", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    if (a.recipe_path != NULL)
        recipe_apply(&c, a.recipe_path, &a.recipe);
    if (c.code == 0 && c.err.code == EMO_OK)
        check_together(&c, &a);
    if (c.code == 0 && c.err.code == EMO_OK)
        read_words(&c, &a);
    if (c.code == 0 && c.err.code == EMO_OK)
        (void)(a.dry_run ? dry_run_train(&c, &a) : train(&c, &a));
    int code = cli_end(&c);
    recipe_free(&a.recipe);
    return code;
}
