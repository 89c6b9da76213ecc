/* SPDX-License-Identifier: Apache-2.0 */
/* Recipes of `emo train`: a configuration and options in one JSON file. docs/recipes.md says what is in one. */
#ifndef EMO_CLI_RECIPE_H
#define EMO_CLI_RECIPE_H

#include "cli.h"

typedef struct recipe {
    char *text;         /* of the file; options point into it, so it stays until the command ends */
    const char *name;   /* NULL: none given */
    const char *config; /* text of a config.json; NULL: none */
    int goes_on;        /* 1: "start": "model", for --from */
} recipe;

/* Reads a recipe and sets the options of the command that were not given on the command line. One of --steps, --tokens
 * and --minutes there replaces the recipe's. Failures as cli_fail() or cli_usage() leave them. */
void recipe_apply(cli *c, const char *path, recipe *r);
void recipe_free(recipe *r);

#endif
