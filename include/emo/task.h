/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file task.h
 * @brief Evaluation by task: multiple choice, generation and perplexity described in a JSON file, and what expert
 * subsets of several sizes leave of each score.
 *
 * docs/evaluation.md describes the task file. A set is read and checked as a whole, data files included, before any
 * model is needed; emo_task_run() then gives a score for every task and column. A column is the model with all experts,
 * with a subset of `keep` experts chosen for each task from its validation items, with a random subset of that size, or
 * with a mask.
 *
 *     emo_task_set_open(rt, "tasks.json", NULL, &set, &err);
 *     emo_task_run(model, set, &options, &results, &err);
 *     emo_task_results_score(results, task, column, 0, &score, &err);
 *
 * Thread rule: sets and results are immutable; any thread, concurrently.
 */
#ifndef EMO_TASK_H
#define EMO_TASK_H

#include <emo/mask.h>
#include <emo/model.h>
#include <emo/select.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Tasks with their items, and groups of tasks. It keeps its runtime alive. */
typedef struct emo_task_set emo_task_set;
/** Scores of a run. They keep their set alive. */
typedef struct emo_task_results emo_task_results;

typedef int32_t emo_task_type;
enum {
    EMO_TASK_CHOICE = 0,     /**< the likeliest of several continuations */
    EMO_TASK_GENERATION = 1, /**< a text generated greedily, compared with the right answers */
    EMO_TASK_PERPLEXITY = 2  /**< how likely a text is */
};

/** Options of emo_task_set_open(). */
typedef struct emo_task_set_options {
    uint32_t struct_size;
    int32_t reserved;      /**< 0 */
    int64_t limit;         /**< items of each task at most, whatever its file says; 0: as it says */
    const char *root;      /**< folder that relative paths of data files begin in; NULL: the task file's own */
    emo_progress progress; /**< phase "read tasks", units are tasks of the file */
} emo_task_set_options;
#define EMO_TASK_SET_OPTIONS_INIT                                                                                      \
    {                                                                                                                  \
        sizeof(emo_task_set_options), 0, 0, 0, { 0, 0 }                                                                \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_task_set_options_init(emo_task_set_options *options);
#define emo_task_set_options_init(object) EMO_STRUCT_INIT(emo_task_set_options, object)

/**
 * Reads a task file and the data files it names.
 * @param options NULL for the defaults.
 * @return EMO_E_NOT_FOUND, EMO_E_IO, EMO_E_FORMAT (an unknown or malformed key, by task and name; an item without a
 *         field that is needed, as "file:line"), EMO_E_LIMIT, EMO_E_RANGE (an option), EMO_E_CANCELLED,
 *         EMO_E_OUT_OF_MEMORY. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_task_set_open(emo_runtime *rt, const char *path,
                                                    const emo_task_set_options *options, emo_task_set **out,
                                                    emo_error *err);
/** The same from the text of a task file; root NULL: relative paths begin in the current folder. */
EMO_API EMO_MUST_CHECK emo_status emo_task_set_from_json(emo_runtime *rt, const char *text, size_t length,
                                                         const emo_task_set_options *options, emo_task_set **out,
                                                         emo_error *err);
/** Releases the caller's reference; NULL is a no-op. */
EMO_API void emo_task_set_release(emo_task_set *set);

/** What a task is. Views, valid while the set lives. */
typedef struct emo_task_info {
    const char *name;
    emo_task_type type;
    int32_t metrics;         /**< how many it has; the first is the one that groups and tables show */
    int64_t items;           /**< to be scored */
    int64_t validation;      /**< items that experts can be chosen from */
    int64_t examples;        /**< shown in front of each item (few-shot) */
    int32_t most_choices;    /**< of any item; 1 where there is nothing to choose */
    int32_t lower_is_better; /**< 1: of the first metric */
} emo_task_info;

/** The number of tasks; a task with "by" counts once for each value. 0 for NULL. */
EMO_API int32_t emo_task_set_tasks(const emo_task_set *set);
/** EMO_E_RANGE: no such task. */
EMO_API EMO_MUST_CHECK emo_status emo_task_set_task(const emo_task_set *set, int32_t task, emo_task_info *out,
                                                    emo_error *err);
/** The name of a task's metric, such as "accuracy_byte", "f1" or "bits_per_byte"; NULL outside. */
EMO_API const char *emo_task_set_metric(const emo_task_set *set, int32_t task, int32_t metric);

/** Tasks whose first metrics are averaged. Views, valid while the set lives. */
typedef struct emo_task_group {
    const char *name;
    const int32_t *members; /**< [count] the index of a task, or -1 - the index of an earlier group */
    int32_t count;
    int32_t by_items; /**< 1: members weigh as much as they have items; 0: all the same */
} emo_task_group;

/** The number of groups, those of tasks with "by" included. 0 for NULL. */
EMO_API int32_t emo_task_set_groups(const emo_task_set *set);
/** EMO_E_RANGE: no such group. */
EMO_API EMO_MUST_CHECK emo_status emo_task_set_group(const emo_task_set *set, int32_t group, emo_task_group *out,
                                                     emo_error *err);

/**
 * The text in front of what is scored or generated: description, examples, prompt.
 * @param choice the choice; prompts of most tasks are the same for all. 0 where there is nothing to choose.
 * @param buffer may be NULL when capacity is 0.
 * @param size bytes needed, the NUL included.
 * @return EMO_E_RANGE (no such task, item or choice), EMO_E_LIMIT (capacity > 0 and too small).
 */
EMO_API EMO_MUST_CHECK emo_status emo_task_set_prompt(const emo_task_set *set, int32_t task, int64_t item,
                                                      int32_t choice, char *buffer, size_t capacity, size_t *size,
                                                      emo_error *err);
/** The text that is scored after it: of a choice, or of a perplexity item; for generation the right answer as an
 *  example would show it. As above. */
EMO_API EMO_MUST_CHECK emo_status emo_task_set_continuation(const emo_task_set *set, int32_t task, int64_t item,
                                                            int32_t choice, char *buffer, size_t capacity, size_t *size,
                                                            emo_error *err);

/** Options of emo_task_run(). */
typedef struct emo_task_run_options {
    uint32_t struct_size;
    emo_select_method method;     /**< of the subsets in `keep`: usage (default), layerwise, EASY-EP or random */
    const int32_t *keep;          /**< [n_keep] columns: experts kept per MoE layer, shared ones included; 0: all */
    size_t n_keep;                /**< with n_masks 0 too: one column with all experts */
    const emo_mask *const *masks; /**< [n_masks] columns after those, the same mask for every task */
    size_t n_masks;
    int32_t random;    /**< after each subset a column of the control: so many random subsets of its size, scores over
                            all of them; 0: none */
    int32_t seq_len;   /**< most tokens of a context with its continuation, as emo_eval_options */
    int64_t examples;  /**< validation items that experts are chosen from, at most; drawn by `seed` as
                            emo_dataset_filter() does; 0: all */
    uint64_t seed;     /**< of that draw and of random subsets */
    int32_t sequences; /**< items worked on at once, 1 to 1024: memory against speed, never results; 0: by size */
    int32_t batch_tokens;  /**< tokens per forward pass; 0: 2048 */
    emo_progress progress; /**< phase "evaluate tasks", units are items of all columns; also called inside of them */
} emo_task_run_options;
#define EMO_TASK_RUN_OPTIONS_INIT                                                                                      \
    {                                                                                                                  \
        sizeof(emo_task_run_options), EMO_SELECT_USAGE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, { 0, 0 }                         \
    }
/** Fills in the defaults, as the macro does: see emo_struct_init(). */
EMO_API void emo_task_run_options_init(emo_task_run_options *options);
#define emo_task_run_options_init(object) EMO_STRUCT_INIT(emo_task_run_options, object)

/**
 * Scores every task in every column. Prompt and continuation are one text, encoded at once behind eos; scored are the
 * tokens from the first on that differs from those of the prompt alone, so that a token across the border belongs to
 * the continuation, and all choices of an item are scored from the same place. What choices and items have in common is
 * computed once (a KV cache). What is longer than seq_len loses its beginning, and is counted. Results depend neither
 * on the number of threads nor on `sequences` and `batch_tokens`.
 * @return EMO_E_INVALID_ARGUMENT (no tokenizer; subsets of a task without validation items), EMO_E_RANGE (an option;
 *         keep, as emo_select()), EMO_E_MISMATCH (a mask), EMO_E_LIMIT (a continuation longer than the window, as
 *         "file:line"), EMO_E_NUMERIC (a likelihood that is not finite), EMO_E_UNSUPPORTED (as emo_select()),
 *         EMO_E_CANCELLED, EMO_E_OUT_OF_MEMORY. The caller owns *out.
 */
EMO_API EMO_MUST_CHECK emo_status emo_task_run(emo_model *model, const emo_task_set *set,
                                               const emo_task_run_options *options, emo_task_results **out,
                                               emo_error *err);
/** Releases the caller's reference; NULL is a no-op. */
EMO_API void emo_task_results_release(emo_task_results *results);

typedef int32_t emo_task_column_kind;
enum {
    EMO_TASK_COLUMN_ALL = 0,    /**< every expert */
    EMO_TASK_COLUMN_SUBSET = 1, /**< `keep` experts by the run's method, chosen for each task */
    EMO_TASK_COLUMN_RANDOM = 2, /**< `keep` experts drawn by the seed */
    EMO_TASK_COLUMN_MASK = 3    /**< the mask of index `mask` */
};

/** What a column is. */
typedef struct emo_task_column {
    emo_task_column_kind kind;
    int32_t keep;  /**< experts kept per MoE layer, shared ones included; 0 for all experts and masks */
    int32_t mask;  /**< -1: none */
    int32_t draws; /**< subsets that the scores are over */
    double share;  /**< routed experts kept, of all routed experts of the model */
} emo_task_column;

/** The number of columns; 0 for NULL. */
EMO_API int32_t emo_task_results_columns(const emo_task_results *results);
/** EMO_E_RANGE: no such column. */
EMO_API EMO_MUST_CHECK emo_status emo_task_results_column(const emo_task_results *results, int32_t column,
                                                          emo_task_column *out, emo_error *err);

/** A score: accuracy, exact match and F1 are means over items in [0, 1]; loss is in nats a token; bits per byte and
 *  perplexity are those of all items together. */
typedef struct emo_task_score {
    double value;
    double error;      /**< standard error of a mean over items; 0 for bits per byte, loss and perplexity */
    int64_t items;     /**< it is over, all draws together */
    int64_t truncated; /**< of them lost the beginning of their prompt */
} emo_task_score;

/** The score of a task by one of its metrics. EMO_E_RANGE: no such task, column or metric. */
EMO_API EMO_MUST_CHECK emo_status emo_task_results_score(const emo_task_results *results, int32_t task, int32_t column,
                                                         int32_t metric, emo_task_score *out, emo_error *err);
/** The mean over a group's members. EMO_E_RANGE: no such group or column. */
EMO_API EMO_MUST_CHECK emo_status emo_task_results_group(const emo_task_results *results, int32_t group, int32_t column,
                                                         emo_task_score *out, emo_error *err);

/** What came of one item (of the first draw). Views, valid while the results live. */
typedef struct emo_task_item {
    const char *source;          /**< the data file as the task file names it */
    int64_t line;                /**< in it, from 1 */
    int32_t choices;             /**< 1 where there is nothing to choose; 0 for generation */
    int32_t answer;              /**< the right one; -1: there is nothing to choose */
    int32_t chosen;              /**< by the first metric; -1 */
    int32_t truncated;           /**< 1: the prompt lost its beginning */
    const double *logprobs;      /**< [choices] sums over the scored tokens, in nats */
    const double *unconditional; /**< [choices] the same after the unconditional prompt; NULL where it is not wanted */
    const int32_t *tokens;       /**< [choices] scored tokens */
    const char *text;            /**< what was generated; NULL for the other types */
    double value;                /**< the first metric of this item: 0 to 1; the loss of a perplexity item */
} emo_task_item;

/** EMO_E_RANGE: no such task, column or item. */
EMO_API EMO_MUST_CHECK emo_status emo_task_results_item(const emo_task_results *results, int32_t task, int32_t column,
                                                        int64_t item, emo_task_item *out, emo_error *err);
/** The experts a task was scored with (the first draw's); *out is NULL for all experts. The caller owns *out. */
EMO_API EMO_MUST_CHECK emo_status emo_task_results_mask(const emo_task_results *results, int32_t task, int32_t column,
                                                        emo_mask **out, emo_error *err);

#ifdef __cplusplus
}
#endif
#endif
