/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a tiny model in stages, for tests that make things fail: each stage makes what it needs from files that
 * stages_setup() wrote, and releases all of it, whatever happens. */
#ifndef EMO_TESTS_STAGES_H
#define EMO_TESTS_STAGES_H

#include <emo/emo.h>

#include "support/support.h"

/* In a stage, in place of an assertion: nothing is left behind when it does not hold. */
#define STAGE_CHECK(condition)                                                                                         \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            status = stages_wrong(#condition, err);                                                                    \
            goto done;                                                                                                 \
        }                                                                                                              \
    } while (0)
emo_status stages_wrong(const char *what, emo_error *err);

#define STAGES_VOCAB 262
#define STAGES_CONFIG                                                                                                  \
    "{\"model_type\":\"emo\",\"vocab_size\":262,\"hidden_size\":16,\"intermediate_size\":8,\"num_hidden_layers\":2,"   \
    "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts\":9,\"num_shared_experts\":1,"             \
    "\"num_experts_per_tok\":3,\"eos_token_id\":261}"

typedef emo_status (*stage_fn)(emo_runtime *rt, emo_error *err);
typedef struct stage {
    const char *name;
    stage_fn run;
    int whole; /* goes through all of it: too long for every failure but in the long form */
} stage;
/* How far apart the failures of a loop over `calls` lie: 1 in the long form, and in the short one where there are no
 * more than `most`. */
long stages_stride(long calls, long most);

/* All stages; the last has run NULL. */
extern const stage stages[];

/* Makes the folder and its files with a healthy library; removes them. For a group of cmocka's: `state` is not used. */
int stages_setup(void **state);
int stages_teardown(void **state);
/* Removes what the stages write, so that each run begins alike. */
void stages_clean(void);
/* folder/name, one of a ring (see test_path). */
const char *stages_model(void);
const char *stages_run(void);

/* The pieces, from what the setup wrote; NULL and *err on failure. */
emo_status stages_open_data(emo_runtime *rt, emo_dataset **out, emo_error *err);
emo_status stages_open_model(emo_runtime *rt, emo_model **out, emo_error *err);
emo_train_options stages_train_options(void);

/* stages_tasks.c: tasks of every type, written by the setup; their stage. `progress` may be NULL. */
void stages_tasks_setup(void);
emo_status stages_open_tasks(emo_runtime *rt, const emo_progress *progress, emo_task_set **out, emo_error *err);
emo_status stages_run_tasks(emo_model *model, const emo_task_set *set, emo_select_method method,
                            const emo_progress *progress, emo_task_results **out, emo_error *err);
emo_status stages_tasks(emo_runtime *rt, emo_error *err);

#endif
