/* SPDX-License-Identifier: Apache-2.0 */
/* emo generate: a prompt goes on, token by token. */
#include "prompts.h"

#include <stdlib.h>
#include <string.h>

static const command_text text = {
    "emo generate",
    "--model DIR --prompt TEXT [--mask FILE] [--pool prompt:P] [--memory-budget SIZE] [--tokens N] [sampling options]",
    "Continues a prompt, on standard output as it comes. With --mask only the mask's experts are read from the file.\n"
    "With --prompts many of them at once: a JSON object for each, a line, as it is done.",
    "With --quiet only the continuation is printed; otherwise the prompt stands before it. Prompt i of --prompts\n"
    "draws with the seed N + i, and gives what it gives alone with that seed.",
    0};

static void print_json(const emo_session *session, const emo_model *model, const char *prompt, const char *generated,
                       double first, double seconds) {
    const int32_t *tokens = NULL;
    const float *logprobs = NULL;
    size_t n = emo_session_generated(session, 0, &tokens, &logprobs);
    json_writer json = {stdout, 0, {0}};
    json_open(&json, NULL);
    json_string(&json, "prompt", prompt);
    json_string(&json, "text", generated);
    json_open_array(&json, "tokens");
    for (size_t i = 0; i < n; i++)
        json_integer(&json, NULL, tokens[i]);
    json_close_array(&json);
    json_open_array(&json, "logprobs");
    for (size_t i = 0; i < n; i++)
        json_number(&json, NULL, (double)logprobs[i]);
    json_close_array(&json);
    json_string(&json, "stop", stop_name(emo_session_stop_reason(session, 0)));
    json_number(&json, "prompt_seconds", first);
    json_number(&json, "seconds", seconds);
    json_number(&json, "tokens_per_second", n > 1 && seconds > first ? (double)(n - 1) / (seconds - first) : 0.0);
    json_cache(&json, model);
    json_close(&json);
}

/* Generates until the end; prints as it goes unless --json wants it all at once. */
static emo_status run(cli *c, emo_session *session, const emo_model *model, const char *prompt) {
    growing_text all = {NULL, 0}; /* only needed for --json */
    emo_status status = EMO_OK;
    emo_state state = EMO_STATE_PENDING;
    double start = seconds_now(), first = 0;
    int line_open = 0;
    while (state != EMO_STATE_DONE) {
        emo_budget budget = emo_budget_ms(50); /* short slices, so that an interruption is noticed at once */
        status = emo_session_advance(session, &budget, &state, &c->err);
        if (status == EMO_OK && interrupt_seen() && state != EMO_STATE_DONE)
            status = cli_fail(c, EMO_E_CANCELLED, "stopped on request");
        if (status != EMO_OK)
            break;
        if (first <= 0 && emo_session_generated(session, 0, NULL, NULL) > 0)
            first = seconds_now() - start;
        const char *piece = emo_session_text(session);
        if (piece == NULL || piece[0] == '\0')
            continue;
        progress_clear(&c->line);
        if (c->common.json) {
            status = text_add(c, &all, piece);
            if (status != EMO_OK)
                break;
            continue;
        }
        fputs(piece, stdout);
        fflush(stdout);
        line_open = piece[strlen(piece) - 1] != '\n';
    }
    double seconds = seconds_now() - start;
    progress_clear(&c->line);
    if (line_open || (!c->common.json && !c->common.quiet))
        putchar('\n');
    if (status == EMO_OK && c->common.json)
        print_json(session, model, prompt, all.data == NULL ? "" : all.data, first, seconds);
    if (status == EMO_OK && !c->common.json && c->line.visible) {
        size_t n = emo_session_generated(session, 0, NULL, NULL);
        fprintf(stderr, "[%zu tokens, stopped by %s; prompt %.2f s, then %.1f tokens/s]\n", n,
                stop_name(emo_session_stop_reason(session, 0)), first,
                n > 1 && seconds > first ? (double)(n - 1) / (seconds - first) : 0.0);
        cli_cache_report(model);
    }
    free(all.data);
    return status;
}

int cmd_generate(int argc, char **argv) {
    const char *folder = NULL, *mask_path = NULL, *pool_text = NULL, *prompt = NULL, *prompt_path = NULL;
    const char *prompts = NULL, *schedule = NULL;
    string_list stop = {NULL, 0};
    emo_session_options options = EMO_SESSION_OPTIONS_INIT;
    cache_arguments cache = {0, NULL, 0, 0};
    options.max_tokens = 100;
    options.batch_sequences = 8;
    option table[] = {
        {"model", OPTION_STRING, &folder, "DIR", "the model folder", NULL, 0, 0, 1, 0},
        {"prompt", OPTION_STRING, &prompt, "TEXT", "the text to continue", NULL, 0, 0, 0, 0},
        {"prompt-file", OPTION_STRING, &prompt_path, "FILE",
         "or the file it is in, less a last newline; - for standard input", NULL, 0, 0, 0, 0},
        {"prompts", OPTION_STRING, &prompts, "FILE",
         "or many: JSON Lines with a \"text\" each, or a folder of text files", NULL, 0, 0, 0, 0},
        {"batch", OPTION_INT32, &options.batch_sequences, "N", "with --prompts: prompts in a step of the model at most",
         "8", 1, 1024, 0, 0},
        {"schedule", OPTION_CHOICE, &schedule, "arrival|pool",
         "with --prompts: which go together: as they came, or those that use the same experts", "arrival", 0, 0, 0, 0},
        {"mask", OPTION_STRING, &mask_path, "FILE", "use only these experts; the others are not read", "all experts", 0,
         0, 0, 0},
        {"pool", OPTION_STRING, &pool_text, "prompt:P", "P routed experts per layer, chosen by the prompt", "none", 0,
         0, 0, 0},
        CACHE_OPTIONS(&cache),
        {"tokens", OPTION_INT32, &options.max_tokens, "N", "tokens to generate at most", "100", 1, INT32_MAX, 0, 0},
        {"temperature", OPTION_FLOAT, &options.temperature, "T", "0 takes the most probable token always", "0", 0, 1000,
         0, 0},
        {"top-k", OPTION_INT32, &options.top_k, "K", "sample from the K most probable tokens; 0: all", "0", 0,
         INT32_MAX, 0, 0},
        {"top-p", OPTION_FLOAT, &options.top_p, "P", "sample from the most probable tokens of this mass", "1", 0, 1, 0,
         0},
        {"min-p", OPTION_FLOAT, &options.min_p, "P", "drop tokens below this share of the best one", "0", 0, 1, 0, 0},
        {"repetition-penalty", OPTION_FLOAT, &options.repetition_penalty, "X", "above 1 discourages repetition", "1", 0,
         1000, 0, 0},
        {"seed", OPTION_SEED, &options.seed, "N", "of the sampling", "0", 0, 0, 0, 0},
        {"stop", OPTION_REPEAT, &stop, "STR", "end before this text", NULL, 0, 0, 0, 0},
        {"no-graph", OPTION_FLAG, &options.no_graph, NULL,
         "launch every token anew, also on a device that could replay it", NULL, 0, 0, 0, 0},
        {"ignore-eos", OPTION_FLAG, &options.ignore_eos, NULL, "go on after the end-of-text token", NULL, 0, 0, 0, 0},
        OPTION_END};
    cli c;
    if (!cli_begin(&c, &text, table, argc, argv))
        return c.code;
    emo_mask *mask = NULL;
    emo_pool_policy *pool = NULL;
    emo_model *model = NULL;
    emo_session *session = NULL;
    char *from_file = NULL;
    if ((prompt != NULL) + (prompt_path != NULL) + (prompts != NULL) != 1) {
        cli_usage(&c, "give one of --prompt TEXT, --prompt-file FILE and --prompts FILE.");
        goto done;
    }
    if (prompt_path != NULL) {
        size_t length = 0;
        EMO_TRY(cli_read_file(&c, prompt_path, &from_file, &length));
        if (strlen(from_file) != length) {
            cli_fail(&c, EMO_E_FORMAT, "%s holds a NUL byte and is not a text", prompt_path);
            goto done;
        }
        if (length > 0 && from_file[length - 1] == '\n') /* which editors put there */
            from_file[length - 1] = '\0';
        prompt = from_file;
    }
    if (pool_text != NULL)
        EMO_TRY(emo_pool_policy_parse(c.rt, pool_text, &pool, &c.err));
    if (pool != NULL && emo_pool_policy_kind(pool) != EMO_POOL_NONE &&
        emo_pool_policy_scope(pool) != EMO_POOL_SCOPE_PROMPT) {
        cli_usage(&c, "a pool in generation is chosen by the prompt: --pool prompt:P, not '%s'.", pool_text);
        goto done;
    }
    if (mask_path != NULL)
        EMO_TRY(emo_mask_load(c.rt, mask_path, &mask, &c.err));
    EMO_TRY(cli_load_within(&c, folder, mask, &cache, &model));
    options.pool = pool;
    options.stop = stop.items;
    options.n_stop = stop.count;
    options.progress = cli_progress(&c);
    if (schedule != NULL && strcmp(schedule, "pool") == 0)
        options.batching = EMO_BATCHING_POOL;
    if (prompts != NULL) {
        EMO_TRY(generate_many(&c, model, &options, prompts));
        goto done;
    }
    EMO_TRY(emo_session_create(model, &options, &session, &c.err));
    EMO_TRY(emo_session_append_text(session, prompt, &c.err));
    if (!c.common.json && !c.common.quiet) {
        progress_clear(&c.line);
        fputs(prompt, stdout);
        fflush(stdout);
    }
    EMO_TRY(run(&c, session, model, prompt));
done:
    emo_session_release(session);
    emo_model_release(model);
    emo_mask_release(mask);
    emo_pool_policy_release(pool);
    free(from_file);
    return cli_end(&c);
}
