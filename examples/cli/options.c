/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_WORD = 64, COMMON_COUNT = 10, HELP_COLUMN = 30, HELP_WIDTH = 110 };

int usage_error(const command_text *text, const char *format, ...) {
    fprintf(stderr, "%s: ", text->name);
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\nTry '%s --help'.\n", text->name);
    return EXIT_CODE_USAGE;
}

/* ---- Did you mean ---- */

/* Levenshtein distance of two short words; longer ones count as far apart. */
static size_t edit_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST_WORD || m > LONGEST_WORD)
        return LONGEST_WORD;
    size_t row[LONGEST_WORD + 1];
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t above = row[j];
            size_t best = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            if (above + 1 < best)
                best = above + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
            diagonal = above;
        }
    }
    return row[m];
}

const char *nearest_word(const char *word, const char *const *words) {
    const char *best = NULL;
    size_t length = strlen(word), limit = length / 3 + 1;
    for (; *words != NULL; words++) {
        /* A beginning of three letters or more is a good guess too: --temp for --temperature. */
        size_t distance = length >= 3 && strncmp(word, *words, length) == 0 ? 1 : edit_distance(word, *words);
        if (distance <= limit) {
            limit = distance == 0 ? 0 : distance - 1;
            best = *words;
        }
        if (distance == 0)
            break;
    }
    return best;
}

/* ---- Values ---- */

static int list_add(string_list *list, const char *item) {
    const char **grown = realloc((void *)list->items, (list->count + 1) * sizeof(*grown));
    if (grown == NULL)
        return 0;
    list->items = grown;
    list->items[list->count++] = item;
    return 1;
}

static int is_choice(const char *choices, const char *word) {
    size_t length = strlen(word);
    for (const char *at = choices; at != NULL; at = strchr(at, '|')) {
        if (*at == '|')
            at++;
        size_t span = strcspn(at, "|");
        if (span == length && strncmp(at, word, span) == 0)
            return 1;
    }
    return 0;
}

static int out_of_range(const option *o, double value) {
    return (o->min < o->max || o->min > o->max) && !(value >= o->min && value <= o->max);
}

static parse_result bad_number(const command_text *text, const option *o, const char *word, const char *what) {
    if (o->min < o->max && isfinite(o->max) && o->max < 1e15)
        usage_error(text, "--%s takes %s from %.15g to %.15g, not '%s'.", o->name, what, o->min, o->max, word);
    else if (o->min < o->max)
        usage_error(text, "--%s takes %s of at least %.15g, not '%s'.", o->name, what, o->min, word);
    else
        usage_error(text, "--%s takes %s, not '%s'.", o->name, what, word);
    return PARSE_ERROR;
}

static parse_result set_integer(const command_text *text, option *o, const char *word) {
    char *end = NULL;
    errno = 0;
    long long value = strtoll(word, &end, 10);
    int wrong = end == word || *end != '\0' || errno != 0 || out_of_range(o, (double)value);
    if (o->kind == OPTION_INT32 && (value > INT32_MAX || value < INT32_MIN))
        wrong = 1;
    if (wrong)
        return bad_number(text, o, word, "a whole number");
    if (o->kind == OPTION_INT32)
        *(int32_t *)o->value = (int32_t)value;
    else
        *(int64_t *)o->value = (int64_t)value;
    return PARSE_RUN;
}

static parse_result set_seed(const command_text *text, option *o, const char *word) {
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(word, &end, 10);
    if (end == word || *end != '\0' || errno != 0 || strchr(word, '-') != NULL)
        return bad_number(text, o, word, "a whole number that is not negative");
    *(uint64_t *)o->value = (uint64_t)value;
    return PARSE_RUN;
}

static parse_result set_real(const command_text *text, option *o, const char *word) {
    char *end = NULL;
    double value = strtod(word, &end); /* the program never leaves the "C" locale */
    if (end == word || *end != '\0' || !isfinite(value) || out_of_range(o, value))
        return bad_number(text, o, word, "a number");
    if (o->kind == OPTION_FLOAT)
        *(float *)o->value = (float)value;
    else
        *(double *)o->value = value;
    return PARSE_RUN;
}

static parse_result set_size(const command_text *text, option *o, const char *word) {
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    char *end = NULL;
    double value = strtod(word, &end), unit = 1.0;
    for (size_t i = 0; end != word && i < sizeof units / sizeof units[0]; i++, unit *= 1024.0) {
        if (strcmp(end, units[i]) != 0 || !(value * unit >= 1.0) || !(value * unit < 1e18))
            continue;
        *(uint64_t *)o->value = (uint64_t)(value * unit);
        return PARSE_RUN;
    }
    return bad_number(text, o, word, "a number of bytes such as 512MiB or 2GiB");
}

static parse_result set_value(const command_text *text, option *o, const char *word) {
    switch (o->kind) {
    case OPTION_STRING:
        *(const char **)o->value = word;
        return PARSE_RUN;
    case OPTION_CHOICE:
        if (!is_choice(o->argument, word)) {
            usage_error(text, "--%s takes one of %s, not '%s'.", o->name, o->argument, word);
            return PARSE_ERROR;
        }
        *(const char **)o->value = word;
        return PARSE_RUN;
    case OPTION_LIST:
    case OPTION_REPEAT:
        if (!list_add(o->value, word)) {
            usage_error(text, "out of memory.");
            return PARSE_ERROR;
        }
        return PARSE_RUN;
    case OPTION_INT32:
    case OPTION_INT64:
        return set_integer(text, o, word);
    case OPTION_SEED:
        return set_seed(text, o, word);
    case OPTION_FLOAT:
    case OPTION_DOUBLE:
        return set_real(text, o, word);
    case OPTION_SIZE:
        return set_size(text, o, word);
    case OPTION_FLAG:
        break;
    }
    return PARSE_ERROR;
}

/* ---- Tables ---- */

option *options_find(option *table, const char *name) {
    for (; table->name != NULL; table++) {
        if (strcmp(table->name, name) == 0)
            return table;
    }
    return NULL;
}

static void fill_common(option rows[COMMON_COUNT + 1], common_options *common) {
    const option filled[COMMON_COUNT + 1] = {
        {"threads", OPTION_INT32, &common->threads, "N", "worker threads", "the CPUs of this process", 1, 1024, 0, 0},
        {"isa", OPTION_CHOICE, &common->isa,
         "auto|scalar|neon|neon-dot|neon-bf16|avx2|avx512|avx512-vnni|avx512-bf16|amx",
         "highest instruction set to use", "auto", 0, 0, 0, 0},
        {"compute", OPTION_CHOICE, &common->compute, "f32|bf16",
         "what matrix products are computed in; bf16 is rounded, and faster where the processor multiplies it",
         "f32; bf16 for quantised files", 0, 0, 0, 0},
        {"no-map", OPTION_FLAG, &common->no_map, NULL,
         "read weights into memory of the program instead of using the mapped file", NULL, 0, 0, 0, 0},
        {"device", OPTION_STRING, &common->device, "NAME", "where models are: cpu, cuda, cuda:1", "cpu", 0, 0, 0, 0},
        {"backend", OPTION_STRING, &common->backend, "FILE", "the plug-in that brings the device",
         "libemo_NAME.so beside the program", 0, 0, 0, 0},
        {"cuda-libraries", OPTION_STRING, &common->libraries, "DIR", "folder of NVIDIA's libraries, such as cuBLASLt",
         "beside the plug-in, then where the dynamic linker looks", 0, 0, 0, 0},
        {"json", OPTION_FLAG, &common->json, NULL, "print one JSON object instead of text", NULL, 0, 0, 0, 0},
        {"quiet", OPTION_FLAG, &common->quiet, NULL, "print the result only: no progress, no warnings", NULL, 0, 0, 0,
         0},
        {"help", OPTION_FLAG, &common->help, NULL, "show this text", NULL, 0, 0, 0, 0},
        {NULL, OPTION_FLAG, NULL, NULL, NULL, NULL, 0, 0, 0, 0}};
    memcpy(rows, filled, sizeof(filled));
}

/* ---- Help ---- */

/* Prints text wrapped at HELP_WIDTH, lines after the first one indented to `column`; `at` is where the cursor is. */
static void print_wrapped(const char *text, size_t column, size_t at) {
    size_t start = at;
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (at > start && at + 1 + word > HELP_WIDTH) {
            printf("\n%*s", (int)column, "");
            at = start = column;
        }
        if (at > start) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)word, text);
        at += word;
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

static void print_option(const option *o) {
    char head[160];
    int length =
        o->argument == NULL || o->kind == OPTION_FLAG
            ? snprintf(head, sizeof(head), "  --%s", o->name)
            : snprintf(head, sizeof(head), "  --%s %s%s", o->name, o->argument, o->kind == OPTION_LIST ? "..." : "");
    printf("%s", head);
    size_t at = length < 0 ? 0 : (size_t)length;
    if (at + 2 > HELP_COLUMN) {
        putchar('\n');
        at = 0;
    }
    printf("%*s", (int)(HELP_COLUMN - at), "");
    char body[640];
    const char *more = o->kind == OPTION_REPEAT ? "; may be given several times" : o->required ? "; required" : "";
    if (o->fallback != NULL)
        snprintf(body, sizeof(body), "%s%s (default: %s)", o->help, more, o->fallback);
    else
        snprintf(body, sizeof(body), "%s%s", o->help, more);
    print_wrapped(body, HELP_COLUMN, HELP_COLUMN);
}

static void print_help(const command_text *text, const option *table, const option *common) {
    printf("Usage: %s %s\n\n%s\n", text->name, text->usage, text->summary);
    if (table->name != NULL)
        printf("\nOptions:\n");
    for (; table->name != NULL; table++)
        print_option(table);
    printf("\nOptions of every command:\n");
    for (; common->name != NULL; common++)
        print_option(common);
    if (text->notes != NULL)
        printf("\n%s\n", text->notes);
}

/* ---- Parsing ---- */

parse_result option_set(const command_text *text, option *o, const char *word) { return set_value(text, o, word); }

static void unknown_option(const command_text *text, const char *name, const option *table, const option *common) {
    const char *words[96];
    size_t n = 0;
    for (; table->name != NULL && n + 1 < sizeof(words) / sizeof(words[0]); table++)
        words[n++] = table->name;
    for (; common->name != NULL && n + 1 < sizeof(words) / sizeof(words[0]); common++)
        words[n++] = common->name;
    words[n] = NULL;
    const char *near = nearest_word(name, words);
    if (near != NULL)
        usage_error(text, "there is no option --%s; did you mean --%s?", name, near);
    else
        usage_error(text, "there is no option --%s.", name);
}

/* True for an argument that is an option: it begins with two dashes. Negative numbers stay values. */
static int looks_like_option(const char *word) { return word[0] == '-' && word[1] == '-' && word[2] != '\0'; }

/* One option at argv[i], with its values; returns the index of the next argument, or -1 after an error. */
static int parse_option(const command_text *text, option *table, option *common, int argc, char **argv, int i) {
    char name[LONGEST_WORD];
    const char *word = argv[i] + 2;
    size_t length = strcspn(word, "=");
    if (length >= sizeof(name))
        length = sizeof(name) - 1;
    memcpy(name, word, length);
    name[length] = '\0';
    const char *inline_value = strchr(word, '=');

    option *o = options_find(table, name);
    if (o == NULL)
        o = options_find(common, name);
    if (o == NULL) {
        unknown_option(text, name, table, common);
        return -1;
    }
    if (o->given > 0 && o->kind != OPTION_LIST && o->kind != OPTION_REPEAT && o->kind != OPTION_FLAG) {
        usage_error(text, "--%s was given twice.", name);
        return -1;
    }
    o->given++;
    i++;
    if (o->kind == OPTION_FLAG) {
        if (inline_value != NULL) {
            usage_error(text, "--%s takes no value.", name);
            return -1;
        }
        *(int32_t *)o->value = 1;
        return i;
    }
    if (inline_value != NULL)
        return set_value(text, o, inline_value + 1) == PARSE_RUN ? i : -1;
    if (i >= argc || looks_like_option(argv[i])) {
        usage_error(text, "--%s needs a value: --%s %s.", name, name, o->argument);
        return -1;
    }
    do {
        if (set_value(text, o, argv[i]) != PARSE_RUN)
            return -1;
        i++;
    } while (o->kind == OPTION_LIST && i < argc && !looks_like_option(argv[i]) && strcmp(argv[i], "--") != 0);
    return i;
}

parse_result options_parse(const command_text *text, option *table, common_options *common, string_list *operands,
                           int argc, char **argv) {
    option shared[COMMON_COUNT + 1];
    fill_common(shared, common);
    /* Help wins over whatever else is wrong. */
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(text, table, shared);
            return PARSE_HELP;
        }
    }
    int only_operands = 0;
    for (int i = 0; i < argc;) {
        if (!only_operands && strcmp(argv[i], "--") == 0) {
            only_operands = 1;
            i++;
        } else if (!only_operands && looks_like_option(argv[i])) {
            i = parse_option(text, table, shared, argc, argv, i);
            if (i < 0)
                return PARSE_ERROR;
        } else if (!only_operands && argv[i][0] == '-' && argv[i][1] != '\0') {
            usage_error(text, "options have two dashes and a whole name; '%s' is none.", argv[i]);
            return PARSE_ERROR;
        } else if (operands == NULL || operands->count >= (size_t)text->max_operands) {
            usage_error(text, "'%s' is one argument too many.", argv[i]);
            return PARSE_ERROR;
        } else {
            if (!list_add(operands, argv[i++]))
                return PARSE_ERROR;
        }
    }
    for (const option *o = table; o->name != NULL; o++) {
        if (o->required && o->given == 0) {
            usage_error(text, "--%s %s is required: %s.", o->name, o->argument, o->help);
            return PARSE_ERROR;
        }
    }
    return PARSE_RUN;
}

void options_free(option *table, string_list *operands) {
    for (; table->name != NULL; table++) {
        if (table->kind == OPTION_LIST || table->kind == OPTION_REPEAT) {
            string_list *list = table->value;
            free((void *)list->items);
            list->items = NULL;
            list->count = 0;
        }
    }
    if (operands != NULL) {
        free((void *)operands->items);
        operands->items = NULL;
        operands->count = 0;
    }
}
