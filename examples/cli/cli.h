/* SPDX-License-Identifier: Apache-2.0 */
/* What the commands share: beginning, failing and ending, files, masks in words. */
#ifndef EMO_CLI_CLI_H
#define EMO_CLI_CLI_H

#include "options.h"
#include "output.h"

#include <emo/emo.h>

#include <stdatomic.h>

/* One run of one command. */
typedef struct cli {
    const command_text *text;
    option *table;
    string_list operands;
    common_options common;
    emo_runtime *rt;
    char *plugin;  /* of --device or --backend; NULL: none is needed */
    emo_error err; /* of the last call; cli_end() turns it into the exit code */
    int code;      /* an exit code that was decided elsewhere, 0: none */
    progress_line line;
    atomic_int warnings; /* printed so far */
} cli;

/* Parses the arguments and creates the runtime. 0: the command is over, return c->code. */
int cli_begin(cli *c, const command_text *text, option *table, int argc, char **argv);

/* Reports an error if there is one, frees everything, returns the exit code. */
int cli_end(cli *c);

/* Fails with a status and a sentence of the program's own. */
emo_status cli_fail(cli *c, emo_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Fails with a sentence about wrong arguments (exit code 2). */
void cli_usage(cli *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The exit code of a status. */
int exit_code_of(emo_status status);

/* True when the option was given on the command line. */
int cli_given(const cli *c, const char *name);

/* The library's progress hook over the progress line. */
emo_progress cli_progress(cli *c);

/* Reads a whole file ("-": standard input), with a NUL after it. The caller frees *text. */
emo_status cli_read_file(cli *c, const char *path, char **text, size_t *length);

/* What lies at a path. */
int path_exists(const char *path);
int path_is_folder(const char *path);
int same_folder(const char *a, const char *b);
/* folder + "/" + name, allocated; NULL when there is no memory. */
char *path_join(const char *folder, const char *name);

/* What --compute names. */
emo_dtype cli_compute(const cli *c);

/* The element type of weights that a word names, -1: none ("keep"). */
emo_dtype dtype_by_name(const char *name);

/* What a command asks of the expert cache. */
typedef struct cache_arguments {
    uint64_t budget; /* 0: none */
    const char *policy;
    int32_t no_prefetch;
    int32_t drop_source;
} cache_arguments;
#define CACHE_OPTIONS(a)                                                                                               \
    {"memory-budget",                                                                                                  \
     OPTION_SIZE,                                                                                                      \
     &(a)->budget,                                                                                                     \
     "SIZE",                                                                                                           \
     "bytes for experts that not every token uses, read when they are asked for: 512MiB, 2GiB",                        \
     "all of them",                                                                                                    \
     0,                                                                                                                \
     0,                                                                                                                \
     0,                                                                                                                \
     0},                                                                                                               \
        {"cache-policy",                                                                                               \
         OPTION_CHOICE,                                                                                                \
         &(a)->policy,                                                                                                 \
         "pool|lru|lfu",                                                                                               \
         "which expert goes when there is no room",                                                                    \
         "pool",                                                                                                       \
         0,                                                                                                            \
         0,                                                                                                            \
         0,                                                                                                            \
         0},                                                                                                           \
        {"no-prefetch", OPTION_FLAG, &(a)->no_prefetch, NULL, "read no expert ahead of need", NULL, 0, 0, 0, 0}, {     \
        "drop-source", OPTION_FLAG, &(a)->drop_source, NULL, "let the system forget what was read of the model file",  \
            NULL, 0, 0, 0, 0                                                                                           \
    }
/* The same as cli_load_model under a budget. */
emo_status cli_load_within(cli *c, const char *folder, const emo_mask *subset, const cache_arguments *cache,
                           emo_model **out);
/* What the cache did: one line on stderr, or "cache": {...}. Nothing without a budget. */
void cli_cache_report(const emo_model *model);
void json_cache(json_writer *json, const emo_model *model);

/* Loads a model with the progress line; NULL subset: everything. */
emo_status cli_load_model(cli *c, const char *folder, const emo_mask *subset, emo_model **out);

/* Writes the model at a path, or only a mask's experts of it (mask NULL: all), as a GGUF file. The model that was
 * loaded for it is the caller's to release, also after a failure. */
emo_status cli_export(cli *c, const char *path, const char *mask, const char *out, emo_export_options *options,
                      emo_export_info *info, emo_model **model);

/* "9 of 33 experts in each of 4 MoE layers" or the like. */
void describe_mask(const emo_mask *mask, char *buffer, size_t capacity);
/* "layers": [{"layer", "experts", "shared", "kept", "keep": [...]}] */
void json_mask_layers(json_writer *json, const emo_mask *mask);

int cmd_tokenizer(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_select(int argc, char **argv);
int cmd_prune(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_mask(int argc, char **argv);

/* The last row of every option table. */
#define OPTION_END                                                                                                     \
    { NULL, OPTION_FLAG, NULL, NULL, NULL, NULL, 0, 0, 0, 0 }

#endif
