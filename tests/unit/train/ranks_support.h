/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks in one process, each with a runtime, a model and data of its own, in a thread of its own. */
#ifndef EMO_TESTS_RANKS_SUPPORT_H
#define EMO_TESTS_RANKS_SUPPORT_H

#include <math.h>
#include <pthread.h>

#include "support/meter.h"
#include "train_support.h"

enum { RANKS = 2, MOST = 4, ROWS = 8, SEQ = 32, PLACES = ROWS * SEQ };

/* The pool of every document of a step, as bits, at the place in the step where the document begins. */
typedef struct pool_record {
    emo_trainer *t;
    uint8_t pool[TINY_STEPS + 1][2][PLACES];
} pool_record;

typedef struct rank_job {
    emo_train_options o;
    const char *pool;
    uint64_t model_seed;
    emo_status (*rows)(void *ctx, int64_t row, int32_t *ids, int32_t *labels, emo_error *err);
    pool_record *record;
    meter *memory;     /* the rank's runtime works on it */
    long fail_at;      /* with it: this allocation from the trainer's creation on fails */
    int64_t poison_at; /* after this step a weight of this rank alone is no number */
    int64_t leave_at;  /* after this step the rank goes without a word */
    emo_model *model;
    tiny_result r;
} rank_job;

static inline int32_t record_pools(void *ctx, const emo_progress_info *info) {
    pool_record *p = ctx;
    if (p->t == NULL || info->done + 1 < info->total || p->t->step >= TINY_STEPS)
        return 0;
    for (int32_t l = 0; l < 2; l++) {
        const emo__route_view *r = emo__pass_route(p->t->pass, l);
        for (int64_t d = 0; d < p->t->micro.n_documents; d++) {
            uint8_t bits = 0;
            for (int32_t e = 0; e < 8; e++)
                bits = (uint8_t)(bits | r->allowed[d * 8 + e] << e);
            p->pool[p->t->step + 1][l][p->t->micro.document_id[d] % PLACES] = bits;
        }
    }
    return 0;
}

static inline void steps_of_rank(rank_job *j, emo_trainer *trainer) {
    tiny_result *r = &j->r;
    while (r->status == EMO_OK && emo_trainer_at(trainer) < emo_trainer_steps(trainer)) {
        emo_step_metrics m = {0};
        m.struct_size = sizeof m;
        r->status = emo_trainer_step(trainer, &m, &r->err);
        if (r->status == EMO_OK && m.step <= TINY_STEPS)
            r->metrics[m.step] = m;
        if (j->poison_at > 0 && m.step == j->poison_at)
            ((float *)(uintptr_t)j->model->norm.data)[3] = (float)NAN;
        if (j->leave_at > 0 && m.step == j->leave_at)
            break;
    }
    r->done = emo_trainer_at(trainer);
}

static inline void *rank_main(void *ctx) {
    rank_job *j = ctx;
    emo_runtime_options ro = EMO_RUNTIME_OPTIONS_INIT;
    emo_model_create_options mo = EMO_MODEL_CREATE_OPTIONS_INIT;
    emo_runtime *rt = NULL;
    emo_pool_policy *policy = NULL;
    emo_trainer *trainer = NULL;
    tiny_result *r = &j->r;
    ro.threads = 1;
    if (j->memory != NULL)
        ro.allocator = meter_hooks(j->memory);
    mo.seed = j->model_seed;
    r->status = emo_runtime_create(&ro, &rt, &r->err);
    if (r->status == EMO_OK)
        r->status = emo_model_create_json(rt, TINY, strlen(TINY), &mo, &j->model, &r->err);
    if (r->status == EMO_OK)
        r->status = emo_pool_policy_parse(rt, j->pool, &policy, &r->err);
    if (r->status == EMO_OK) {
        emo_dataset *data = tiny_data(rt);
        j->o.pool = policy;
        if (j->record != NULL)
            j->o.progress = (emo_progress){j->record, record_pools};
        if (j->memory != NULL)
            meter_arm(j->memory, j->fail_at, 0);
        r->status = emo_trainer_create(j->model, data, &j->o, &trainer, &r->err);
        if (r->status == EMO_OK && j->rows != NULL)
            trainer->rows = (emo__row_source){NULL, j->rows};
        if (j->record != NULL)
            j->record->t = trainer;
        if (r->status == EMO_OK)
            steps_of_rank(j, trainer);
        emo_trainer_release(trainer);
        if (j->memory != NULL)
            meter_disarm(j->memory);
        tiny_weights(j->model, r);
        emo_dataset_release(data);
    }
    emo_comm_release(j->o.comm); /* a rank that leaves must not keep the others waiting */
    emo_pool_policy_release(policy);
    emo_model_release(j->model);
    emo_runtime_release(rt);
    return NULL;
}

/* Runs `n` ranks to their ends. The jobs' options are set by the caller. */
static inline void run_many(rank_job *jobs, int n) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_comm *comms[MOST] = {0};
    pthread_t threads[MOST];
    if (n > 1)
        EXPECT_OK(emo_comm_create_local(rt, n, comms, &err));
    for (int i = 0; i < n; i++) {
        jobs[i].o.comm = comms[i];
        assert_int_equal(pthread_create(&threads[i], NULL, rank_main, &jobs[i]), 0);
    }
    for (int i = 0; i < n; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    emo_runtime_release(rt);
}

static inline void run_ranks(rank_job jobs[RANKS]) { run_many(jobs, RANKS); }

static inline void prepare_many(rank_job *jobs, int n, emo_train_options o) {
    memset(jobs, 0, (size_t)n * sizeof *jobs);
    for (int i = 0; i < n; i++) {
        jobs[i].o = o;
        jobs[i].pool = "uniform:3:8";
        jobs[i].model_seed = 7; /* as tiny_model's */
        jobs[i].fail_at = -1;
    }
}

static inline void prepare(rank_job jobs[RANKS], emo_train_options o) { prepare_many(jobs, RANKS, o); }

static inline void finish_many(rank_job *jobs, int n) {
    for (int i = 0; i < n; i++)
        tiny_free(&jobs[i].r);
}

static inline void finish(rank_job jobs[RANKS]) { finish_many(jobs, RANKS); }

#endif
