/* SPDX-License-Identifier: Apache-2.0 */
/* Tasks on a model: run.c makes columns and goes through tasks, run_subsets.c chooses experts, one file for each type
 * fills a cell, results.c answers questions about them. */
#ifndef EMO_SRC_EVAL_RUN_H
#define EMO_SRC_EVAL_RUN_H

#include "eval/scorer.h"
#include "eval/tasks.h"

typedef struct emo__item_result {
    int32_t chosen;    /* by the first metric; -1 */
    int32_t truncated; /* 1: the prompt lost its beginning */
    size_t at;         /* of its scores in the cell */
    char *text;        /* generated; NULL */
    double loss;       /* perplexity */
    int64_t tokens;
} emo__item_result;

/* A task in a column. */
typedef struct emo__cell {
    emo_mask *mask;                /* of the first draw; NULL: all experts */
    emo__item_result *items;       /* [n_data], of the first draw, as the next four */
    double *values;                /* [n_data, n_metrics] */
    double *logprobs;              /* [choices of all items]; NULL for generation */
    double *unconditional;         /* the same; NULL: not wanted */
    int32_t *tokens;               /* the same */
    double sum[EMO__TASK_METRICS]; /* over all draws */
    double square[EMO__TASK_METRICS];
    double loss;
    int64_t n_tokens;
    int64_t n_bytes;
    int64_t n_items;
    int64_t n_truncated;
} emo__cell;

struct emo_task_results {
    emo__ref ref;
    emo_runtime *rt;
    emo_task_set *set; /* retained */
    emo_task_column *columns;
    size_t n_columns;
    emo__cell *cells; /* [tasks, columns] */
};
static inline emo__cell *emo__results_cell(const emo_task_results *r, size_t task, size_t column) {
    return &r->cells[task * r->n_columns + column];
}
void emo__task_results_release(emo_task_results *results);
/* Frees what a cell holds. */
void emo__cell_free(const emo__mem *mem, emo__cell *cell);

typedef struct emo__task_run {
    emo_model *model;
    const emo_task_set *set;
    const emo_task_run_options *options;
    int64_t seq_len;
    emo__phase phase;
    emo_progress inner; /* what the parts of a run report to */
} emo__task_run;

/* Options are copied over the defaults; everything in them is checked here. */
EMO_MUST_CHECK emo_status emo__task_run_all(emo_model *model, const emo_task_set *set,
                                            const emo_task_run_options *options, emo_task_results **out,
                                            emo_error *err);

/* ---- texts to tokens (run_tokens.c) ---- */

/* The tokens of prompt and continuation, eos in front where the model has one. `from` is the place of the first token
 * that is not the prompt's: the first that differs from those of the prompt alone. */
typedef struct emo__pair {
    int32_t *tokens;
    size_t count;
    size_t from;
} emo__pair;
EMO_MUST_CHECK emo_status emo__pair_make(const emo__task_run *run, const emo__task_spec *spec, const char *prompt,
                                         const char *continuation, emo__pair *out, emo_error *err);
/* eos where the model has one, a, b: the tokens of a pair, `from` left to the caller. */
EMO_MUST_CHECK emo_status emo__pair_join(const emo__task_run *run, const int32_t *a, size_t n_a, const int32_t *b,
                                         size_t n_b, emo__pair *out, emo_error *err);
void emo__pair_free(const emo__task_run *run, emo__pair *pair);

/* ---- one type each: fills in items, values and scores of a cell whose arrays are there ---- */

EMO_MUST_CHECK emo_status emo__run_choices(emo__task_run *run, const emo__task *task, const emo_mask *mask,
                                           emo__cell *cell, emo_error *err);
EMO_MUST_CHECK emo_status emo__run_generation(emo__task_run *run, const emo__task *task, const emo_mask *mask,
                                              emo__cell *cell, emo_error *err);
EMO_MUST_CHECK emo_status emo__run_perplexity(emo__task_run *run, const emo__task *task, const emo_mask *mask,
                                              emo__cell *cell, emo_error *err);

/* ---- run_subsets.c ---- */

/* What a task's experts are chosen from; made when it is wanted first. */
typedef struct emo__chooser {
    emo_dataset *documents;
    emo_stats *stats;
} emo__chooser;
/* The experts of a column and draw; *out NULL: all. */
EMO_MUST_CHECK emo_status emo__choose_experts(const emo__task_run *run, const emo__task *task,
                                              const emo_task_column *column, int32_t draw, emo__chooser *chooser,
                                              emo_mask **out, emo_error *err);
void emo__chooser_free(emo__chooser *chooser);
/* Checks a column and fills in its share. */
EMO_MUST_CHECK emo_status emo__check_column(const emo__task_run *run, emo_task_column *column, emo_error *err);

#endif
