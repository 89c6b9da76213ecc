/* SPDX-License-Identifier: Apache-2.0 */
/* Long options from a table: --name value, --name=value, flags and lists; and the --help text made from the table. */
#ifndef EMO_CLI_OPTIONS_H
#define EMO_CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

/* Exit codes of the program; docs/cli.md explains them. */
enum {
    EXIT_CODE_OK = 0,
    EXIT_CODE_FAILURE = 1,
    EXIT_CODE_USAGE = 2,
    EXIT_CODE_FORMAT = 3,
    EXIT_CODE_PLACE = 4,
    EXIT_CODE_UNFIT = 5,
    EXIT_CODE_CANCELLED = 130
};

/* Strings that belong to argv; the array belongs to the list. */
typedef struct string_list {
    const char **items;
    size_t count;
} string_list;

typedef enum option_kind {
    OPTION_FLAG,   /* int32_t: 1 when given */
    OPTION_STRING, /* const char * */
    OPTION_CHOICE, /* const char *; `choices` separated by '|' */
    OPTION_LIST,   /* string_list: every argument up to the next option; may be repeated */
    OPTION_REPEAT, /* string_list: one argument each time */
    OPTION_INT32,  /* int32_t in [min, max] */
    OPTION_INT64,  /* int64_t in [min, max] */
    OPTION_SEED,   /* uint64_t */
    OPTION_FLOAT,  /* float in [min, max] */
    OPTION_DOUBLE, /* double in [min, max] */
    OPTION_SIZE    /* uint64_t bytes, above 0: "800000", "512MiB", "1.5GiB" */
} option_kind;

typedef struct option {
    const char *name;     /* without the dashes */
    option_kind kind;     /* also the type behind `value` */
    void *value;          /* set where the option is given, else left alone */
    const char *argument; /* its name in the help; for OPTION_CHOICE the choices */
    const char *help;     /* one line */
    const char *fallback; /* the default as the help shows it; NULL: none */
    double min, max;      /* of numbers; both 0: no check */
    int required;         /* 1: must be given */
    int given;            /* filled in: how often it was given */
} option;

/* What a command is, for its help. The option table ends with a NULL name. */
typedef struct command_text {
    const char *name;    /* "emo train" */
    const char *usage;   /* the rest of the usage line */
    const char *summary; /* one or more lines */
    const char *notes;   /* after the options; may be NULL */
    int max_operands;    /* arguments that are no options; more is an error */
} command_text;

/* Options every command takes. */
typedef struct common_options {
    int32_t threads;
    const char *isa;
    const char *compute;
    const char *device;
    const char *backend;
    const char *libraries;
    int32_t no_map;
    int32_t json;
    int32_t quiet;
    int32_t help;
} common_options;

/* What parsing came to. */
typedef enum parse_result { PARSE_RUN, PARSE_HELP, PARSE_ERROR } parse_result;

/*
 * Reads argv[0 .. argc) into the table. PARSE_HELP: the help was printed on stdout. PARSE_ERROR: one sentence was
 * printed on stderr, the exit code is EXIT_CODE_USAGE. Lists must be freed with options_free() in every case.
 */
parse_result options_parse(const command_text *text, option *table, common_options *common, string_list *operands,
                           int argc, char **argv);

/* Sets one option from a word, as if it had been given; a list gets one more item. The word must outlive the option. */
parse_result option_set(const command_text *text, option *o, const char *word);

/* Frees the lists of a table and the operands (may be NULL). */
void options_free(option *table, string_list *operands);

/* The row of a table by name; NULL when there is none. */
option *options_find(option *table, const char *name);

/* Prints "emo train: <sentence>" and where to find help on stderr; returns EXIT_CODE_USAGE. */
int usage_error(const command_text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The word of a list closest to `word`, or NULL when none is near. `words` ends with NULL. */
const char *nearest_word(const char *word, const char *const *words);

#endif
