/* SPDX-License-Identifier: Apache-2.0 */
/* Models to be timed: of a shape that has a name, with random weights of any type, or from a file. */
#ifndef EMO_CLI_BENCH_SHAPE_H
#define EMO_CLI_BENCH_SHAPE_H

#include "cli.h"

typedef struct bench_shape {
    const char *name;
    int32_t hidden, layers, heads, experts, inner, top_k, vocab, positions;
    int32_t rows, length; /* of a training step; 0: too large to be trained unless it is asked for */
} bench_shape;

#define BENCH_SHAPES "tiny|small|released-2-layers"

/* NULL: no such name. */
const bench_shape *bench_shape_named(const char *name);

/* A model of the shape with random weights of a type. Quantised ones pass through a file in TMPDIR or /tmp. */
emo_status bench_model_of_shape(cli *c, const bench_shape *shape, emo_dtype dtype, emo_model **out);
/* The same from the text of a config.json. */
emo_status bench_model_of_config(cli *c, const char *config, size_t length, emo_dtype dtype, emo_model **out);

#endif
