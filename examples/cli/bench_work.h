/* SPDX-License-Identifier: Apache-2.0 */
/* The things that emo bench times: operators of a shape, layers, prompts, generation and training of a model. */
#ifndef EMO_CLI_BENCH_WORK_H
#define EMO_CLI_BENCH_WORK_H

#include "bench_lines.h"

/* What a model is to the benchmarks. */
typedef struct bench_model {
    emo_model *model; /* NULL: only the shape is known */
    emo_model_info info;
    int32_t experts; /* of a layer with experts, the shared one included; 0: a dense model */
    int32_t shared;
    emo_dtype weights;
    int32_t prompt, generated;   /* tokens */
    int32_t rows, length, calls; /* of a training step; steps a round */
} bench_model;

/* Bytes of so many weights of a type. */
double bench_weight_bytes(emo_dtype dtype, double count);

/* ---- operators ---- */

/* Adds the operators of the shape: a prompt and one token after it, or (with `backward`) the backward passes. The
 * benches are collected in *out; bench_operators_free() in any case. `only`: words that the names hold, none:
 * all. */
enum { BENCH_OPERATORS = 32 };
typedef struct bench_operator bench_operator;
typedef struct bench_operators {
    bench_operator *items[BENCH_OPERATORS];
    size_t count;
} bench_operators;
emo_status bench_add_operators(cli *c, bench_table *table, const bench_model *m, int backward, const string_list *only,
                               bench_operators *out);
void bench_operators_free(bench_operators *operators);

/* ---- models ---- */

typedef struct bench_sessions bench_sessions;
/* Adds lines for a layer, a prompt and generation, as asked. */
emo_status bench_add_inference(cli *c, bench_table *table, const bench_model *m, int layer, int prefill, int decode,
                               bench_sessions **out);
void bench_sessions_free(bench_sessions *sessions);

typedef struct bench_training bench_training;
/* Adds a training step, and of it what is forward and backward without the optimizer. */
emo_status bench_add_training(cli *c, bench_table *table, const bench_model *m, bench_training **out);
/* For its profile; NULL without training. */
const emo_trainer *bench_trainer(const bench_training *training);
void bench_training_free(bench_training *training);

#endif
