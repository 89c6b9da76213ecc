/* SPDX-License-Identifier: Apache-2.0 */
/* Things to call functions on, with NULL in their places; shared by the programs that try every public function so. */
#ifndef EMO_TESTS_NULL_THINGS_H
#define EMO_TESTS_NULL_THINGS_H

#include <emo/emo.h>
#include <emo/sys/comm.h>

#include "support/stages.h"

static emo_error err;
static emo_error *e; /* &err, or NULL in the second round */

#define REFUSED(call)                                                                                                  \
    do {                                                                                                               \
        err.code = 1;                                                                                                  \
        err.message[0] = '\0';                                                                                         \
        emo_status refused_ = (call);                                                                                  \
        if (refused_ != EMO_E_INVALID_ARGUMENT)                                                                        \
            fail_msg("%s: %s %s", #call, emo_status_name(refused_), err.message);                                      \
        if (e != NULL && (err.code != EMO_E_INVALID_ARGUMENT || err.message[0] == '\0'))                               \
            fail_msg("%s: the error says nothing", #call);                                                             \
    } while (0)

typedef struct things {
    emo_runtime *rt;
    emo_tokenizer *tok;
    emo_decoder *decoder;
    emo_dataset *data;
    emo_choices *items;
    emo_model *model;
    emo_mask *mask;
    emo_pool_policy *pool;
    emo_router *router;
    emo_stats *stats;
    emo_comm *comm;
    emo_source *source;
    emo_session *session;
    emo_trainer *trainer;
    emo_model *trained;
    emo_task_set *tasks;
    emo_task_results *results;
} things;

static const char *path; /* of a folder that may be written */

static inline void things_open(things *t) {
    memset(t, 0, sizeof *t);
    t->rt = test_runtime(1, EMO_ISA_AUTO);
    static const char item[] = "{\"context\": \"the\", \"choices\": [\" cat\", \" rate\"], \"answer\": 1}\n";
    char items_path[700];
    (void)snprintf(items_path, sizeof items_path, "%s/items.jsonl", stages_model());
    FILE *file = fopen(items_path, "wb");
    assert_non_null(file);
    (void)fputs(item, file);
    (void)fclose(file);
    EXPECT_OK(stages_open_data(t->rt, &t->data, &err));
    EXPECT_OK(stages_open_model(t->rt, &t->model, &err));
    EXPECT_OK(stages_open_model(t->rt, &t->trained, &err));
    EXPECT_OK(emo_choices_open(t->rt, items_path, &t->items, &err));
    EXPECT_OK(stages_open_tasks(t->rt, NULL, &t->tasks, &err));
    EXPECT_OK(emo_task_run(t->model, t->tasks, NULL, &t->results, &err));
    EXPECT_OK(emo_tokenizer_create_bytes(t->rt, &t->tok, &err));
    EXPECT_OK(emo_decoder_create(t->tok, NULL, &t->decoder, &err));
    EXPECT_OK(emo_model_mask(t->model, &t->mask, &err));
    EXPECT_OK(emo_pool_policy_create_fixed(t->rt, 4, &t->pool, &err));
    EXPECT_OK(emo_comm_create_single(t->rt, &t->comm, &err));
    EXPECT_OK(emo_source_from_memory(t->rt, "x", 1, &t->source, &err));
    EXPECT_OK(emo_stats_collect(t->model, t->data, NULL, &t->stats, &err));
    emo_router_options router = EMO_ROUTER_OPTIONS_INIT;
    router.hidden = 4;
    router.experts = 4;
    router.top_k = 2;
    EXPECT_OK(emo_router_create(t->rt, &router, &t->router, &err));
    EXPECT_OK(emo_session_create(t->model, NULL, &t->session, &err));
    emo_train_options train = stages_train_options();
    EXPECT_OK(emo_trainer_create(t->trained, t->data, &train, &t->trainer, &err));
    path = stages_run();
}

static inline void things_close(things *t) {
    emo_trainer_release(t->trainer);
    emo_session_release(t->session);
    emo_router_release(t->router);
    emo_stats_release(t->stats);
    emo_source_release(t->source);
    emo_comm_release(t->comm);
    emo_pool_policy_release(t->pool);
    emo_mask_release(t->mask);
    emo_decoder_release(t->decoder);
    emo_tokenizer_release(t->tok);
    emo_task_results_release(t->results);
    emo_task_set_release(t->tasks);
    emo_choices_release(t->items);
    emo_model_release(t->trained);
    emo_model_release(t->model);
    emo_dataset_release(t->data);
    emo_runtime_release(t->rt);
}

/* Every call twice: with a place for the error, and without. */
static inline void things_try(void (*calls)(const things *t)) {
    things t;
    e = &err;
    things_open(&t);
    calls(&t);
    e = NULL;
    calls(&t);
    things_close(&t);
}

#endif
