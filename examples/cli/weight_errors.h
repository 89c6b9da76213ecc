/* SPDX-License-Identifier: Apache-2.0 */
/* How far the weights of a model are from those of the model it was made from. */
#ifndef EMO_CLI_WEIGHT_ERRORS_H
#define EMO_CLI_WEIGHT_ERRORS_H

#include "cli.h"

/* One tensor, or the same matrix of all routed experts of a layer. */
typedef struct weight_error {
    char name[64]; /* as in a GGUF file */
    int64_t elements;
    double squares; /* sum of squared differences */
    double norm;    /* sum of squares of the original */
    double largest; /* absolute difference */
} weight_error;

typedef struct weight_errors {
    weight_error *items;
    size_t count;
    weight_error all; /* of every matrix together */
} weight_errors;

/* Compares all matrices of `made` with those of `original`, of which it has all experts or some. Free it in any case.
 */
emo_status weight_errors_collect(cli *c, const emo_model *original, const emo_model *made, weight_errors *out);
void weight_errors_free(weight_errors *errors);

/* Root mean square of the differences; the same over that of the original, 0 for a matrix of zeros. */
double weight_error_rms(const weight_error *error);
double weight_error_relative(const weight_error *error);

#endif
