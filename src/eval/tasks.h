/* SPDX-License-Identifier: Apache-2.0 */
/* A task file as the inside sees it.
 *
 * A spec is what one object of the file says, with the items of its data files rendered to texts; a task is all of a
 * spec, or with "by" the part of it that has one value in that field. task_file.c reads the file and makes groups,
 * task_keys.c one object, task_items.c data files, task_prompt.c puts prompts together. */
#ifndef EMO_SRC_EVAL_TASKS_H
#define EMO_SRC_EVAL_TASKS_H

#include <emo/task.h>

#include "base/runtime.h"
#include "eval/answers.h"
#include "eval/template.h"

#define EMO__TASKS_MAX 65536          /* tasks, after "by" */
#define EMO__TASK_ITEMS_MAX (1 << 22) /* of a spec's data, examples or validation */
#define EMO__TASK_CHOICES_MAX 26      /* there are letters for so many */
#define EMO__TASK_SHOTS_MAX 1024
#define EMO__TASK_LINE_MAX ((size_t)16 << 20)
#define EMO__TASK_PROMPT_MAX ((size_t)64 << 20) /* bytes of a prompt with its examples */

typedef enum emo__metric {
    EMO__METRIC_ACCURACY, /* these five in the order of their normalisations */
    EMO__METRIC_ACCURACY_TOKEN,
    EMO__METRIC_ACCURACY_BYTE,
    EMO__METRIC_ACCURACY_CHARACTER,
    EMO__METRIC_ACCURACY_UNCONDITIONAL,
    EMO__METRIC_EXACT,
    EMO__METRIC_F1,
    EMO__METRIC_PREFIX,
    EMO__METRIC_BITS,
    EMO__METRIC_LOSS,
    EMO__METRIC_PERPLEXITY,
    EMO__METRIC_COUNT
} emo__metric;
#define EMO__TASK_METRICS 8 /* of one task */
const char *emo__metric_name(emo__metric metric);
static inline bool emo__metric_lower_is_better(emo__metric metric) { return metric >= EMO__METRIC_BITS; }

typedef struct emo__task_item {
    const char *file; /* as the task file has it; of the spec */
    uint64_t line;    /* 0: an example in the task file itself */
    char *by;         /* NULL: the task has no "by" */
    char *description;
    int32_t n_choices;    /* 1 without choices */
    int32_t answer;       /* index of the right choice; 0 without */
    char **prompts;       /* [n_choices] or, without prompt_each, [1] */
    char **continuations; /* [n_choices] */
    char **answers;       /* [n_answers] of generation */
    size_t n_answers;
} emo__task_item;

typedef struct emo__task_split {
    char **files;
    size_t n_files;
    emo__task_item *items;
    size_t count;
    size_t capacity;
} emo__task_split;

/* Which examples stand in front of an item. */
typedef enum emo__draw { EMO__DRAW_FIRST, EMO__DRAW_TASK, EMO__DRAW_ITEM } emo__draw;
/* How the field of the right answer says it. */
typedef enum emo__answer_is {
    EMO__ANSWER_INDEX,
    EMO__ANSWER_NUMBER,
    EMO__ANSWER_LETTER,
    EMO__ANSWER_LABEL,
    EMO__ANSWER_TEXT
} emo__answer_is;

typedef struct emo__task_spec {
    char *name;
    char *where; /* "tasks.json: tasks[2] (arc)" */
    emo_task_type type;
    int64_t limit; /* 0: none */
    char *by;      /* field; NULL */
    emo__template description;
    emo__template prompt;
    emo__template continuation;
    emo__template row;      /* of {choices} */
    emo__template *options; /* [n_options] choices by template; NULL: choices_field */
    size_t n_options;
    char *choices_field;
    char *labels_field;
    char *answer_field;
    emo__answer_is answer_is;
    bool prompt_each; /* the prompt depends on the choice */
    bool apart;       /* prompt and continuation are encoded each by itself */
    char *unconditional;
    char *separator;
    char **stop; /* [n_stop] */
    size_t n_stop;
    int32_t max_tokens;
    emo__answer_rule rule;
    emo__metric metrics[EMO__TASK_METRICS];
    int32_t n_metrics;
    int32_t n_shots;
    emo__draw draw;
    uint64_t seed;
    emo__task_split data;
    emo__task_split shots;
    emo__task_split validation;
} emo__task_spec;

typedef struct emo__task {
    emo__task_spec *spec;
    char *name;
    size_t *data; /* [n_data] indices of spec->data.items, and so on */
    size_t *shots;
    size_t *validation;
    size_t n_data;
    size_t n_shots;
    size_t n_validation;
    int32_t most_choices;
} emo__task;
/* The item at a place of the task's data. */
static inline const emo__task_item *emo__task_item_at(const emo__task *task, size_t index) {
    return &task->spec->data.items[task->data[index]];
}

typedef struct emo__group {
    char *name;
    int32_t *members; /* as emo_task_group */
    size_t count;
    size_t capacity;
    bool by_items;
} emo__group;

struct emo_task_set {
    emo__ref ref;
    emo_runtime *rt;
    emo__task_spec **specs;
    size_t n_specs;
    size_t cap_specs;
    emo__task *tasks;
    size_t n_tasks;
    size_t cap_tasks;
    emo__group *groups;
    size_t n_groups;
    size_t cap_groups;
};

/* ---- task_file.c ---- */

/* options are copied over the defaults and checked. `path` NULL: from text. */
EMO_MUST_CHECK emo_status emo__task_set_open(emo_runtime *rt, const char *path, const char *text, size_t length,
                                             const emo_task_set_options *options, emo_task_set **out, emo_error *err);
emo_task_set *emo__task_set_retain(const emo_task_set *set);
void emo__task_set_release(emo_task_set *set);

/* ---- task_split.c: tasks from specs ---- */

/* Adds the spec's task, or a task for each value of "by" and a group of them. */
EMO_MUST_CHECK emo_status emo__task_set_add(emo_task_set *set, emo__task_spec *spec, emo_error *err);
void emo__task_free(const emo__mem *mem, emo__task *task);

/* ---- task_keys.c ---- */

typedef struct emo__task_source {
    const emo__mem *mem;
    const char *root; /* folder; "" for the current one */
    int64_t limit;    /* from the options */
} emo__task_source;
/* Reads one object of the file into *spec (zeroed), its data files included. */
EMO_MUST_CHECK emo_status emo__task_spec_read(const emo__task_source *source, const emo__json *object,
                                              const char *where, emo__task_spec *spec, emo_error *err);
void emo__task_spec_free(const emo__mem *mem, emo__task_spec *spec);

/* ---- task_items.c ---- */

/* Reads the split's files; at most `limit` items (0: all). */
EMO_MUST_CHECK emo_status emo__task_split_read(const emo__task_source *source, const emo__task_spec *spec,
                                               int64_t limit, emo__task_split *split, emo_error *err);
/* Adds one item from its object. */
EMO_MUST_CHECK emo_status emo__task_split_add(const emo__mem *mem, const emo__task_spec *spec, const emo__json *object,
                                              const char *file, uint64_t line, const char *where,
                                              emo__task_split *split, emo_error *err);
void emo__task_split_free(const emo__mem *mem, emo__task_split *split);

/* ---- task_prompt.c ---- */

/* Appends description, examples and prompt of an item; `index` of the item in the task is what a draw depends on. */
EMO_MUST_CHECK emo_status emo__task_prompt(const emo__task *task, const emo__task_item *item, size_t index,
                                           int32_t choice, emo__buf *out, emo_error *err);

#endif
