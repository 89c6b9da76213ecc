/* SPDX-License-Identifier: Apache-2.0 */
/* Router cases: documents, pools, top-k, losses and gradients of the stand-alone router, with one rank or two. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "golden/golden.h"

#define MAX_RANKS 8

/* Tolerances: several times the measured float32 error of the reference, far below the effect of a wrong formula. */
#define TOL_SCORES 2e-6
#define TOL_SUMS 2e-5
#define TOL_LB 3e-6
#define TOL_GRAD 1e-5

typedef struct shape {
    int64_t experts, shared, n, top_k, k, d, rows, seq, tokens;
    int train;
} shape;

typedef struct rank_job {
    const golden_case *c;
    golden_result r;
    shape s;
    int rank;
    int ranks;
    double n_local;
    emo_comm *comm;
} rank_job;

/* The reference's raw boundaries, empty documents included: skipping those is the router's part. */
static int64_t boundaries(const rank_job *job, int64_t *begin, int64_t capacity) {
    const emo__json *rank = emo__json_at(emo__json_get(job->c->json, "ranks"), (size_t)job->rank);
    const emo__json *rows = emo__json_get(rank, "document_boundaries");
    int64_t count = 0;
    if ((int64_t)emo__json_size(rows) != job->s.rows)
        return -1;
    for (int64_t row = 0; row < job->s.rows; row++) {
        const emo__json *ends = emo__json_at(rows, (size_t)row);
        if (count + (int64_t)emo__json_size(ends) + 2 > capacity)
            return -1;
        begin[count++] = row * job->s.seq;
        for (size_t i = 0; i < emo__json_size(ends); i++)
            begin[count++] = row * job->s.seq + golden_whole(emo__json_at(ends, i));
    }
    begin[count] = job->s.tokens;
    return count;
}

static emo_status make_pool(rank_job *job, int64_t documents, const int64_t *sizes, emo_pool_policy **pool,
                            emo_error *err) {
    const golden_case *c = job->c;
    golden_result *r = &job->r;
    emo_status status;
    if (job->s.train) {
        int32_t *table = calloc((size_t)documents, sizeof *table);
        if (table == NULL)
            return EMO_E_OUT_OF_MEMORY;
        for (int64_t i = 0; i < documents; i++)
            table[i] = (int32_t)sizes[i];
        status = emo_pool_policy_create_table(c->rt, 1, documents, table, pool, err);
        free(table);
    } else {
        status = emo_pool_policy_create_uniform(c->rt, (int32_t)golden_int(c, r, "min_document_expert_pool"),
                                                (int32_t)golden_int(c, r, "max_document_expert_pool"), pool, err);
        if (status == EMO_OK)
            status =
                emo_pool_policy_set_eval_pool(*pool, (int32_t)golden_int_or(c, "eval_document_expert_pool", 0), err);
    }
    if (status == EMO_OK)
        status = emo_pool_policy_set_forced(*pool, (int32_t)golden_int(c, r, "num_forced_experts"), err);
    return status;
}

static void same_u8(golden_result *r, const char *quantity, const uint8_t *got, const uint8_t *want, int64_t count) {
    if (got == NULL || want == NULL || memcmp(got, want, (size_t)count) != 0)
        golden_fail(r, "%s differ", quantity);
}

static void compare_forward(rank_job *job, const char *p, const emo_routing *g) {
    const golden_case *c = job->c;
    golden_result *r = &job->r;
    const shape *s = &job->s;
    const golden_tensor *docs = golden_find(&c->file, "%sdocs", p);
    int64_t count = docs != NULL && docs->dims == 2 ? docs->shape[0] : -1;
    if (count != g->documents) {
        golden_fail(r, "%lld documents, not %lld", (long long)g->documents, (long long)count);
        return;
    }
    const int64_t *d = golden_need(c, r, "I64", count * 3, "%sdocs", p);
    for (int64_t i = 0; d != NULL && i < count; i++) {
        if (g->document_begin[i] != d[3 * i] * s->seq + d[3 * i + 1] ||
            g->document_begin[i + 1] != d[3 * i] * s->seq + d[3 * i + 2])
            golden_fail(r, "document %lld is elsewhere", (long long)i);
    }
    int64_t sets = count * s->n;
    golden_same_i32(r, "pool_size", g->pool_size, golden_need(c, r, "I64", count, "%spool_size", p), count);
    golden_close(r, "doc_probs", g->usage, golden_need(c, r, "F32", sets, "%sdoc_probs", p), sets, TOL_SUMS);
    same_u8(r, "pools", g->allowed, golden_need(c, r, "U8", sets, "%spool", p), sets);
    int64_t chosen = s->tokens * s->top_k;
    golden_same_i32(r, "expert_indices", g->indices, golden_need(c, r, "I64", chosen, "%sexpert_indices", p), chosen);
    golden_close(r, "expert_weights", g->weights, golden_need(c, r, "F32", chosen, "%sexpert_weights", p), chosen,
                 TOL_SCORES);
    int64_t all = s->tokens * s->n;
    golden_close(r, "scores", g->scores, golden_need(c, r, "F32", all, "%sscores", p), all, TOL_SCORES);
    golden_close(r, "score_sum", g->score_sum, golden_need(c, r, "F32", s->n, "%sscore_sum", p), s->n, TOL_SUMS);
    golden_same_i32(r, "tokens_per_expert", g->counts, golden_need(c, r, "I64", s->experts, "%stokens_per_expert", p),
                    s->experts);
    if (s->train) {
        const float *lb = golden_need(c, r, "F32", 1, "%slb_loss", p);
        const float *z = golden_need(c, r, "F32", 1, "%sz_loss", p);
        const float *aux = golden_need(c, r, "F32", 1, "%saux_loss", p);
        if (lb != NULL && z != NULL && aux != NULL) {
            golden_close_1(r, "lb_loss", g->balance_loss, (double)lb[0], TOL_LB);
            golden_close_1(r, "z_loss", g->z_loss, (double)z[0], TOL_SUMS);
            golden_close_1(r, "aux_loss", g->loss, (double)aux[0], TOL_SUMS);
        }
    } else if (g->loss != 0.0) {
        golden_fail(r, "evaluation has a loss");
    }
    if (job->ranks > 1)
        golden_same_i64(r, "dp.counts", g->counts_all, golden_need(c, r, "I64", s->n, "dp.counts"), s->n);
}

static void compare_backward(rank_job *job, const char *p, emo_router *router, const emo_routing *g) {
    const golden_case *c = job->c;
    golden_result *r = &job->r;
    const shape *s = &job->s;
    emo_error err = EMO_ERROR_INIT;
    const float *factors = golden_need(c, r, "F32", s->tokens * s->k, "%sR", p);
    const float *want_l = golden_need(c, r, "F32", 1, "%sL", p);
    if (factors == NULL || want_l == NULL)
        return;
    float *dw = calloc((size_t)(s->tokens * s->top_k), sizeof *dw);
    float *dx = calloc((size_t)(s->tokens * s->d), sizeof *dx);
    float *dweight = calloc((size_t)(s->experts * s->d), sizeof *dweight);
    double loss = g->loss;
    if (dw != NULL && dx != NULL && dweight != NULL) {
        for (int64_t t = 0; t < s->tokens; t++) {
            for (int64_t j = 0; j < s->k; j++) {
                dw[t * s->top_k + j] = factors[t * s->k + j];
                loss += (double)factors[t * s->k + j] * (double)g->weights[t * s->top_k + j];
            }
            for (int64_t j = s->k; j < s->top_k; j++)
                dw[t * s->top_k + j] = 1.0f; /* must not matter: shared weights are constant */
        }
        golden_close_1(r, "L", loss, (double)want_l[0], TOL_SUMS);
        if (golden_call(r, emo_router_backward(router, g, dw, dx, dweight, &err), &err, "backward") == 0) {
            golden_close(r, "dX", dx, golden_need(c, r, "F32", s->tokens * s->d, "%sdX", p), s->tokens * s->d,
                         TOL_GRAD);
            golden_close(r, "dW", dweight, golden_need(c, r, "F32", s->experts * s->d, "%sdW", p), s->experts * s->d,
                         TOL_GRAD);
        }
    } else {
        golden_fail(r, "out of memory");
    }
    free(dw);
    free(dx);
    free(dweight);
}

static void run_rank(rank_job *job) {
    const golden_case *c = job->c;
    golden_result *r = &job->r;
    const shape *s = &job->s;
    emo_error err = EMO_ERROR_INIT;
    char p[16] = "";
    if (job->ranks > 1)
        (void)snprintf(p, sizeof p, "rank%d.", job->rank);
    const golden_tensor *sizes = golden_find(&c->file, "%spool_size", p);
    const float *x = golden_need(c, r, "F32", s->tokens * s->d, "%sx", p);
    const float *w = golden_need(c, r, "F32", s->experts * s->d, "W");
    int64_t begin[1024];
    int64_t documents = boundaries(job, begin, (int64_t)(sizeof begin / sizeof begin[0]));
    if (documents < 1)
        golden_fail(r, "case.json: document_boundaries do not fit the rows");
    if (sizes == NULL || strcmp(sizes->dtype, "I64") != 0)
        golden_fail(r, "tensor %spool_size is missing", p);
    if (r->failed)
        return;

    emo_router_options o = EMO_ROUTER_OPTIONS_INIT;
    o.hidden = (int32_t)s->d;
    o.experts = (int32_t)s->experts;
    o.shared = (int32_t)s->shared;
    o.top_k = (int32_t)s->top_k;
    o.norm_p = (float)golden_number_or(c, "normalize_expert_weights_p", 0.0);
    o.balance_weight = (float)golden_number(c, r, "lb_loss_weight");
    o.z_weight = (float)golden_number(c, r, "z_loss_weight");
    o.comm = job->comm;
    emo_router_batch b = EMO_ROUTER_BATCH_INIT;
    b.mode = s->train ? EMO_ROUTER_TRAIN : EMO_ROUTER_EVAL;
    b.rows = s->rows;
    b.seq_len = s->seq;
    b.x = x;
    b.n_documents = documents;
    b.document_begin = begin;
    b.loss_div_factor = job->n_local;
    emo_router *router = NULL;
    emo_pool_policy *pool = NULL;
    emo_routing routing = EMO_ROUTING_INIT;
    if (golden_call(r, emo_router_create(c->rt, &o, &router, &err), &err, "create") == 0 &&
        golden_call(r, emo_router_set_weights(router, w, (size_t)(s->experts * s->d), &err), &err, "weights") == 0 &&
        golden_call(r, make_pool(job, sizes->count, sizes->data, &pool, &err), &err, "pool") == 0 &&
        golden_call(r, emo_router_forward(router, &b, pool, NULL, &routing, &err), &err, "forward") == 0) {
        compare_forward(job, p, &routing);
        compare_backward(job, p, router, &routing);
    }
    emo_pool_policy_release(pool);
    emo_router_release(router);
}

static void *rank_thread(void *arg) {
    rank_job *job = arg;
    run_rank(job);
    if (job->r.failed)
        emo_comm_abort(job->comm); /* the others may be waiting for this rank */
    return NULL;
}

/* All ranks at once, each in a thread: they wait for each other inside the router. */
static void run_ranks(const golden_case *c, rank_job *jobs, int ranks) {
    emo_error err = EMO_ERROR_INIT;
    emo_comm *comms[MAX_RANKS] = {NULL};
    pthread_t threads[MAX_RANKS];
    int started = 0;
    if (golden_call(&jobs[0].r, emo_comm_create_local(c->rt, ranks, comms, &err), &err, "communicators") != 0)
        return;
    for (; started < ranks; started++) {
        jobs[started].comm = comms[started];
        if (pthread_create(&threads[started], NULL, rank_thread, &jobs[started]) != 0) {
            golden_fail(&jobs[started].r, "no thread");
            emo_comm_abort(comms[0]);
            break;
        }
    }
    for (int i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    for (int i = 0; i < ranks; i++)
        emo_comm_release(comms[i]);
}

void golden_router(const golden_case *c, golden_result *r) {
    shape s;
    s.experts = golden_int(c, r, "num_experts");
    s.shared = golden_int(c, r, "num_shared_experts");
    s.top_k = golden_int(c, r, "top_k");
    s.d = golden_int(c, r, "d_model");
    s.rows = golden_int(c, r, "batch");
    s.seq = golden_int(c, r, "seq_len");
    s.n = s.experts - s.shared;
    s.k = s.top_k - s.shared;
    s.tokens = s.rows * s.seq;
    const char *mode = golden_text(emo__json_get(c->json, "mode"));
    s.train = mode != NULL && strcmp(mode, "train") == 0;
    int64_t ranks = golden_int(c, r, "num_ranks");
    if (mode == NULL || ranks < 1 || ranks > MAX_RANKS || s.n < 1 || s.k < 1 || s.tokens < 1 || s.tokens > 1 << 20)
        golden_fail(r, "case.json: sizes or mode do not make sense");
    if (r->failed)
        return;
    rank_job jobs[MAX_RANKS];
    memset(jobs, 0, sizeof jobs);
    const emo__json *divisor = emo__json_get(c->json, "loss_div_factor");
    for (int i = 0; i < (int)ranks; i++) {
        jobs[i].c = c;
        jobs[i].s = s;
        jobs[i].rank = i;
        jobs[i].ranks = (int)ranks;
        jobs[i].n_local =
            golden_real(emo__json_typeof(divisor) == EMO__JSON_ARRAY ? emo__json_at(divisor, (size_t)i) : divisor);
    }
    if (ranks == 1)
        run_rank(&jobs[0]);
    else
        run_ranks(c, jobs, (int)ranks);
    *r = jobs[0].r;
    for (int i = 1; i < (int)ranks; i++) {
        if (jobs[i].r.failed > r->failed || (jobs[i].r.failed == r->failed && jobs[i].r.ratio > r->ratio))
            *r = jobs[i].r;
    }
}
