/* SPDX-License-Identifier: Apache-2.0 */
/* What the program reads by itself: recipes, and the words of its command line. */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <unistd.h>

#include "cli.h"
#include "config.h"
#include "fuzz/fuzz.h"
#include "recipe.h"

/* One option of each kind. */
typedef struct values {
    int32_t flag;
    const char *string;
    const char *choice;
    string_list list;
    string_list repeat;
    int32_t small;
    int64_t large;
    uint64_t seed;
    float single;
    double twice;
} values;

enum { ROWS = 11 };

static void fill(option *table, values *v) {
    const option rows[ROWS] = {
        {"dry-run", OPTION_FLAG, &v->flag, NULL, "flag", NULL, 0, 0, 0, 0},
        {"pool", OPTION_STRING, &v->string, "WORDS", "string", "none", 0, 0, 0, 0},
        {"schedule", OPTION_CHOICE, &v->choice, "cosine|linear|wsd", "choice", "cosine", 0, 0, 0, 0},
        {"data", OPTION_LIST, &v->list, "PATH", "list", NULL, 0, 0, 0, 0},
        {"more", OPTION_REPEAT, &v->repeat, "WORD", "repeat", NULL, 0, 0, 0, 0},
        {"batch", OPTION_INT32, &v->small, "N", "int32", "12", 1, 1 << 20, 0, 0},
        {"steps", OPTION_INT64, &v->large, "N", "int64", NULL, 1, 9e15, 0, 0},
        {"seed", OPTION_SEED, &v->seed, "N", "seed", "0", 0, 0, 0, 0},
        {"lr", OPTION_FLOAT, &v->single, "X", "float", "0.004", 0, 1e3, 0, 0},
        {"minutes", OPTION_DOUBLE, &v->twice, "M", "double", NULL, 0.001, 1e6, 0, 0},
        OPTION_END};
    memset(v, 0, sizeof *v);
    v->small = 12;
    v->large = 1;
    v->single = 0.004f;
    v->twice = 1;
    memcpy(table, rows, sizeof rows);
}

/* Whatever was read lies in the range of its row. */
static void check_values(const values *v) {
    FUZZ_CHECK(v->flag == 0 || v->flag == 1);
    FUZZ_CHECK(v->small >= 1 && v->small <= 1 << 20 && v->large >= 1);
    FUZZ_CHECK(v->single >= 0 && v->single <= 1e3f && v->twice >= 0.001 && v->twice <= 1e6);
    FUZZ_CHECK(v->choice == NULL || strcmp(v->choice, "cosine") == 0 || strcmp(v->choice, "linear") == 0 ||
               strcmp(v->choice, "wsd") == 0);
    for (size_t i = 0; i < v->list.count; i++)
        FUZZ_CHECK(v->list.items[i] != NULL);
}

/* The program's own sentences go nowhere while it reads. */
static void hush(int kept[2]) {
    int nowhere = open("/dev/null", O_WRONLY);
    for (int i = 0; i < 2; i++) {
        (void)fflush(i == 0 ? stdout : stderr);
        kept[i] = dup(i + 1);
        FUZZ_CHECK(nowhere >= 0 && kept[i] >= 0 && dup2(nowhere, i + 1) >= 0);
    }
    (void)close(nowhere);
}

static void speak(const int kept[2]) {
    for (int i = 0; i < 2; i++) {
        (void)fflush(i == 0 ? stdout : stderr);
        FUZZ_CHECK(dup2(kept[i], i + 1) >= 0);
        (void)close(kept[i]);
    }
}

static const command_text words = {"emo fuzz", "[options]", "Reads words.", NULL, 4};

void fuzz_recipe(const uint8_t *data, size_t size) {
    option table[ROWS];
    values v;
    recipe r;
    cli c;
    int kept[2];
    memset(&r, 0, sizeof r);
    memset(&c, 0, sizeof c);
    fill(table, &v);
    c.text = &words;
    c.table = table;
    const char *path = fuzz_file("recipe.json", data, size);
    hush(kept);
    recipe_apply(&c, path, &r);
    speak(kept);
    check_values(&v);
    bool good = c.code == 0 && c.err.code == EMO_OK;
    FUZZ_CHECK(good || c.code != 0 || c.err.message[0] != '\0');
    if (good && r.config != NULL) {
        FUZZ_CHECK(r.config >= r.text && strlen(r.config) <= size);
        (void)config_has(r.config, "eos_token_id");
        char *whole = config_complete(r.config, 300, 299);
        FUZZ_CHECK(whole != NULL && strlen(whole) >= strlen(r.config));
        free(whole);
    }
    options_free(table, NULL);
    recipe_free(&r);
}

/* The bytes are the words, with a line end after each. */
void fuzz_options(const uint8_t *data, size_t size) {
    option table[ROWS];
    values v;
    common_options common;
    string_list operands = {NULL, 0};
    char *argv[65];
    int argc = 0;
    int kept[2];
    memset(&common, 0, sizeof common);
    fill(table, &v);
    char *text = malloc(size + 1);
    FUZZ_CHECK(text != NULL);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    for (char *at = text; argc < 64 && at < text + size; at += strlen(at) + 1) {
        char *end = strchr(at, '\n');
        if (end != NULL)
            *end = '\0';
        argv[argc++] = at;
    }
    argv[argc] = NULL;
    hush(kept);
    parse_result result = options_parse(&words, table, &common, &operands, argc, argv);
    speak(kept);
    check_values(&v);
    if (result == PARSE_RUN)
        FUZZ_CHECK(operands.count <= 4);
    options_free(table, &operands);
    free(text);
}
