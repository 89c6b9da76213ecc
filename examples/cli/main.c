/* SPDX-License-Identifier: Apache-2.0 */
/* The emo program: one command a file, dispatched here. */
#include "cli.h"

#include <emo/version.h>

#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"tokenizer", cmd_tokenizer, "train a tokenizer; encode and decode with one"},
    {"train", cmd_train, "train a model with document pools (or without), go on, fine-tune a subset"},
    {"eval", cmd_eval, "loss, perplexity and bits per byte by domain; multiple choice; tasks"},
    {"select", cmd_select, "choose experts for a domain from a few documents"},
    {"prune", cmd_prune, "write the smaller model that has only a mask's experts"},
    {"merge", cmd_merge, "put a tuned subset back into its parent"},
    {"convert", cmd_convert, "write a model folder in another element type or shard size"},
    {"export", cmd_export, "write a GGUF file for other programs"},
    {"quantize", cmd_quantize, "write a smaller GGUF file and say how far its weights are off"},
    {"generate", cmd_generate, "continue a prompt"},
    {"bench", cmd_bench, "time operators, layers, prompts, generation and training beside the machine's limits"},
    {"info", cmd_info, "say what a file or folder is"},
    {"mask", cmd_mask, "union, intersection, difference and complement of expert masks"},
};
enum { COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *file) {
    fprintf(file, "Usage: emo COMMAND [options]\n\n"
                  "Trains and runs mixture-of-experts language models whose experts can be loaded a few at a time.\n\n"
                  "Commands:\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(file, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fprintf(file,
            "\n'emo COMMAND --help' explains a command. Every command takes --threads N, --isa NAME, --compute TYPE,\n"
            "--device NAME, --backend FILE, --cuda-libraries DIR, --no-map, --json, --quiet.\n"
            "'emo --version' prints the version.\n\n"
            "Exit codes:\n"
            "  0    success\n"
            "  1    failure at run time: memory, reading or writing, a number that is not finite\n"
            "  2    wrong usage, or an option out of range\n"
            "  3    input that is malformed\n"
            "  4    something is missing, or is there already\n"
            "  5    not supported, or things that do not fit together\n"
            "  130  cancelled\n");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_help(stderr);
        return EXIT_CODE_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        if (argc == 2) {
            print_help(stdout);
            return EXIT_CODE_OK;
        }
        static char help[] = "--help"; /* emo help train */
        word = argv[2];
        argv[2] = help;
        argv++;
        argc--;
    } else if (strcmp(word, "--version") == 0) {
        printf("emo %s\n", emo_version_string());
        return EXIT_CODE_OK;
    }
    interrupt_install();
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, word) == 0)
            return commands[i].run(argc - 2, argv + 2);
    }
    const char *names[COMMANDS + 1];
    for (int i = 0; i < COMMANDS; i++)
        names[i] = commands[i].name;
    names[COMMANDS] = NULL;
    const char *near = nearest_word(word, names);
    if (near != NULL)
        fprintf(stderr, "emo: there is no command '%s'; did you mean '%s'?\nTry 'emo --help'.\n", word, near);
    else
        fprintf(stderr, "emo: there is no command '%s'.\nTry 'emo --help'.\n", word);
    return EXIT_CODE_USAGE;
}
