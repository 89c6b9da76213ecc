/* SPDX-License-Identifier: Apache-2.0 */
#include "recipe.h"

#include <stdlib.h>
#include <string.h>

/* ---- JSON, as far as a recipe needs it: strings without escapes, no numbers of its own ---- */

typedef struct reader {
    cli *c;
    const char *path;
    char *at;
} reader;

static int wrong(reader *r, const char *what) {
    cli_fail(r->c, EMO_E_FORMAT, "%s: %s near '%.20s'", r->path, what, r->at);
    return 0;
}

static void skip_space(reader *r) { r->at += strspn(r->at, " \t\r\n"); }

/* A string, ended by a NUL where its closing quote was. */
static int read_string(reader *r, char **out) {
    if (*r->at != '"')
        return wrong(r, "a string is expected");
    *out = ++r->at;
    r->at += strcspn(r->at, "\"\\");
    if (*r->at != '"')
        return wrong(r, *r->at == '\\' ? "strings of a recipe have no escapes" : "a string does not end");
    *r->at++ = '\0';
    return 1;
}

/* Goes behind a value of any kind; *begin is where it stands. */
static int skip_value(reader *r, char **begin) {
    int depth = 0;
    skip_space(r);
    *begin = r->at;
    do {
        char ch = *r->at;
        if (ch == '{' || ch == '[') {
            depth++;
            r->at++;
        } else if ((ch == '}' || ch == ']') && depth > 0) {
            depth--;
            r->at++;
        } else if (ch == '"') {
            for (r->at++; *r->at != '"' && *r->at != '\0'; r->at++)
                r->at += *r->at == '\\' && r->at[1] != '\0';
            if (*r->at++ == '\0')
                return r->at--, wrong(r, "a string does not end");
        } else if (depth > 0 && strchr(",: \t\r\n", ch) != NULL && ch != '\0') {
            r->at++;
        } else {
            size_t n = strcspn(r->at, ",:{}[]\" \t\r\n");
            if (n == 0)
                return wrong(r, "a value is expected");
            r->at += n;
        }
    } while (depth > 0);
    return 1;
}

/* The next key of an object, its value coming; 0 at the end or after an error. */
static int next_key(reader *r, int *first, char **key) {
    skip_space(r);
    if (*r->at == '}') {
        r->at++;
        return 0;
    }
    if (!*first) {
        if (*r->at != ',')
            return wrong(r, "a comma is expected");
        r->at++;
        skip_space(r);
    }
    *first = 0;
    if (!read_string(r, key))
        return 0;
    skip_space(r);
    if (*r->at != ':')
        return wrong(r, "a colon is expected");
    r->at++;
    skip_space(r);
    return 1;
}

static int open_object(reader *r) {
    skip_space(r);
    if (*r->at != '{')
        return wrong(r, "an object is expected");
    r->at++;
    return 1;
}

/* ---- Options ---- */

static int set_word(reader *r, option *o, char *word) {
    if (option_set(r->c->text, o, word) == PARSE_RUN)
        return 1;
    r->c->code = EXIT_CODE_FORMAT; /* the sentence was printed */
    return 0;
}

static int is_length(const char *name) {
    return strcmp(name, "steps") == 0 || strcmp(name, "tokens") == 0 || strcmp(name, "minutes") == 0;
}

/* The value at r->at for one option; it is only passed over when the command line has its own. */
static int read_option(reader *r, const char *name, int own_length) {
    option *o = options_find(r->c->table, name);
    char *value = NULL, *end = NULL;
    if (o == NULL || strcmp(name, "recipe") == 0 || strcmp(name, "config") == 0 || strcmp(name, "from") == 0) {
        cli_fail(r->c, EMO_E_FORMAT, "%s: \"train\" has \"%s\", which is no option a recipe may set", r->path, name);
        return 0;
    }
    if (o->given > 0 || (own_length && is_length(name)))
        return skip_value(r, &value);
    o->given++;
    if (*r->at == '[') {
        r->at++;
        for (skip_space(r); *r->at != ']'; skip_space(r)) {
            if (!read_string(r, &value) || !set_word(r, o, value))
                return 0;
            skip_space(r);
            if (*r->at == ',')
                r->at++;
            else if (*r->at != ']')
                return wrong(r, "a comma is expected");
        }
        r->at++;
        return 1;
    }
    if (*r->at == '"')
        return read_string(r, &value) && set_word(r, o, value);
    if (!skip_value(r, &value))
        return 0;
    end = r->at;
    char next = *end;
    *end = '\0'; /* the word ends here; put back afterwards: numbers and truth values are copied */
    int ok = 1;
    if (o->kind == OPTION_FLAG)
        *(int32_t *)o->value = strcmp(value, "true") == 0;
    else if (o->kind == OPTION_STRING || o->kind == OPTION_CHOICE || o->kind == OPTION_LIST || o->kind == OPTION_REPEAT)
        ok = wrong(r, "a string is expected");
    else
        ok = set_word(r, o, value);
    *end = next;
    return ok;
}

static void read_train(reader *r) {
    char *key = NULL;
    int first = 1;
    int own_length = cli_given(r->c, "steps") || cli_given(r->c, "tokens") || cli_given(r->c, "minutes");
    if (!open_object(r))
        return;
    while (next_key(r, &first, &key)) {
        if (!read_option(r, key, own_length))
            return;
    }
}

static void read_recipe(reader *r, recipe *out) {
    char *key = NULL, *value = NULL, *config_end = NULL;
    int first = 1, known = 0;
    if (!open_object(r))
        return;
    while (r->c->err.code == EMO_OK && r->c->code == 0 && next_key(r, &first, &key)) {
        if (strcmp(key, "train") == 0) {
            read_train(r);
        } else if (strcmp(key, "config") == 0) {
            if (!skip_value(r, &value))
                return;
            out->config = value;
            config_end = r->at;
        } else if (strcmp(key, "name") == 0 || strcmp(key, "format") == 0 || strcmp(key, "start") == 0) {
            if (!read_string(r, &value))
                return;
            known |= key[0] == 'f' && strcmp(value, "emo-recipe") == 0;
            out->goes_on |= key[0] == 's' && strcmp(value, "model") == 0;
            out->name = key[0] == 'n' ? value : out->name;
        } else {
            if (!skip_value(r, &value))
                return;
            if (strcmp(key, "version") == 0 && strtol(value, NULL, 10) != 1)
                cli_fail(r->c, EMO_E_UNSUPPORTED, "%s: a recipe of version %ld; this program reads version 1", r->path,
                         strtol(value, NULL, 10));
        }
    }
    if (r->c->err.code != EMO_OK || r->c->code != 0)
        return;
    skip_space(r);
    if (*r->at != '\0')
        (void)wrong(r, "the recipe has ended, but there is more");
    else if (!known)
        cli_fail(r->c, EMO_E_FORMAT, "%s: a recipe begins with \"format\": \"emo-recipe\"", r->path);
    if (config_end != NULL)
        *config_end = '\0';
}

void recipe_apply(cli *c, const char *path, recipe *out) {
    size_t length = 0;
    if (cli_read_file(c, path, &out->text, &length) != EMO_OK)
        return;
    if (strlen(out->text) != length) {
        cli_fail(c, EMO_E_FORMAT, "%s holds a NUL byte and is not JSON", path);
        return;
    }
    reader r = {c, path, out->text};
    read_recipe(&r, out);
}

void recipe_free(recipe *r) {
    free(r->text);
    memset(r, 0, sizeof(*r));
}
