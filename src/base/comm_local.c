/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of one process. Each posts its call and waits; the last to arrive does the work for all, in rank order. A rank
 * that leaves or aborts, or waits longer than the world's patience, marks the world as failed, which wakes everybody.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "base/comm.h"
#include "base/status.h"

enum { CALL_REDUCE = 1, CALL_BROADCAST, CALL_BARRIER };

typedef struct posted {
    int call;
    void *data;
    size_t count;
    int32_t detail; /* data type or root */
} posted;

typedef struct world {
    emo_runtime *rt;
    pthread_mutex_t lock;
    pthread_cond_t done;
    int32_t ranks;
    int32_t alive; /* members not yet destroyed */
    int32_t arrived;
    uint64_t generation; /* finished calls */
    emo_status result;   /* of the last finished call */
    int failed;
    int late;        /* it failed because a rank did not come */
    double patience; /* seconds a call waits, at most 1e9; 0: for ever */
    posted *calls;   /* [ranks] */
} world;

typedef struct member {
    world *w;
    int32_t rank;
} member;

#define DEFINE_SUM(name, type, wide)                                                                                   \
    static void name(const world *w, size_t count) {                                                                   \
        for (size_t i = 0; i < count; i++) {                                                                           \
            wide sum = ((wide) * ((const type *)w->calls[0].data + i));                                                \
            for (int32_t r = 1; r < w->ranks; r++)                                                                     \
                sum = (wide)(sum + (wide) * ((const type *)w->calls[r].data + i));                                     \
            for (int32_t r = 0; r < w->ranks; r++)                                                                     \
                ((type *)w->calls[r].data)[i] = (type)sum;                                                             \
        }                                                                                                              \
    }
DEFINE_SUM(sum_f32, float, float)
DEFINE_SUM(sum_f64, double, double)
DEFINE_SUM(sum_i32, int32_t, uint32_t) /* unsigned: a sum that overflows wraps */
DEFINE_SUM(sum_i64, int64_t, uint64_t)

static emo_status work(const world *w) {
    const posted *first = &w->calls[0];
    for (int32_t r = 1; r < w->ranks; r++) {
        const posted *c = &w->calls[r];
        if (c->call != first->call || c->count != first->count || c->detail != first->detail)
            return EMO_E_MISMATCH;
    }
    if (first->call == CALL_BROADCAST) {
        const void *from = w->calls[first->detail].data;
        for (int32_t r = 0; r < w->ranks; r++) {
            if (r != first->detail && first->count > 0)
                memcpy(w->calls[r].data, from, first->count);
        }
    } else if (first->call == CALL_REDUCE) {
        if (first->detail == EMO_DTYPE_F32)
            sum_f32(w, first->count);
        else if (first->detail == EMO_DTYPE_F64)
            sum_f64(w, first->count);
        else if (first->detail == EMO_DTYPE_I32)
            sum_i32(w, first->count);
        else
            sum_i64(w, first->count);
    }
    return EMO_OK;
}

/* Waits until the call `mine` is finished or the world has failed; nobody waits for ever for a rank that never comes.
 */
static void wait_for(world *w, uint64_t mine) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    time_t whole = (time_t)w->patience;
    until.tv_sec += whole;
    until.tv_nsec += (long)((w->patience - (double)whole) * 1e9);
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    while (w->generation == mine && !w->failed) {
        int code = w->patience > 0.0 ? pthread_cond_timedwait(&w->done, &w->lock, &until)
                                     : pthread_cond_wait(&w->done, &w->lock);
        if (code == ETIMEDOUT && w->generation == mine && !w->failed) {
            w->failed = 1;
            w->late = 1;
            (void)pthread_cond_broadcast(&w->done);
        }
    }
}

static emo_status collective(member *m, const posted *call, emo_error *err) {
    world *w = m->w;
    emo_status status;
    (void)pthread_mutex_lock(&w->lock);
    uint64_t mine = w->generation;
    if (w->failed) {
        status = EMO_E_COMM;
    } else {
        w->calls[m->rank] = *call;
        w->arrived++;
        if (w->arrived == w->ranks) {
            w->result = work(w);
            w->arrived = 0;
            w->generation++;
            (void)pthread_cond_broadcast(&w->done);
        }
        wait_for(w, mine);
        /* result is still this call's: the next one needs this rank too */
        status = w->generation != mine ? w->result : EMO_E_COMM;
    }
    int late = w->late;
    double patience = w->patience;
    (void)pthread_mutex_unlock(&w->lock);
    if (status == EMO_E_COMM && late)
        return emo__fail(err, status, "rank %d: a rank did not come within %g seconds", (int)m->rank, patience);
    if (status == EMO_E_COMM)
        return emo__fail(err, status, "rank %d: another rank has failed, aborted or left", (int)m->rank);
    if (status == EMO_E_MISMATCH)
        return emo__fail(err, status, "rank %d: the ranks disagree on the call, its size or its data type",
                         (int)m->rank);
    return status;
}

static emo_status all_reduce_sum(void *ctx, void *data, size_t count, emo_dtype dtype, void *stream, emo_error *err) {
    (void)stream;
    posted call = {CALL_REDUCE, data, count, dtype};
    return collective(ctx, &call, err);
}

static emo_status broadcast(void *ctx, void *data, size_t bytes, int32_t root, void *stream, emo_error *err) {
    (void)stream;
    posted call = {CALL_BROADCAST, data, bytes, root};
    return collective(ctx, &call, err);
}

static emo_status barrier(void *ctx, emo_error *err) {
    posted call = {CALL_BARRIER, NULL, 0, 0};
    return collective(ctx, &call, err);
}

static void fail_all(void *ctx) {
    world *w = ((member *)ctx)->w;
    (void)pthread_mutex_lock(&w->lock);
    w->failed = 1;
    (void)pthread_cond_broadcast(&w->done);
    (void)pthread_mutex_unlock(&w->lock);
}

static void world_free(world *w) {
    emo_runtime *rt = w->rt;
    (void)pthread_cond_destroy(&w->done);
    (void)pthread_mutex_destroy(&w->lock);
    emo__free(&rt->mem, w->calls);
    emo__free(&rt->mem, w);
    emo_runtime_release(rt);
}

static void leave(void *ctx) {
    member *m = ctx;
    world *w = m->w;
    emo_runtime *rt =
        w->rt; /* the handle holds it until after this call; `w` another rank may free once it is unlocked */
    fail_all(m);
    (void)pthread_mutex_lock(&w->lock);
    int last = --w->alive == 0;
    (void)pthread_mutex_unlock(&w->lock);
    emo__free(&rt->mem, m);
    if (last)
        world_free(w);
}

static emo_status world_new(emo_runtime *rt, int32_t ranks, world **out, emo_error *err) {
    world *w = emo__calloc(&rt->mem, 1, sizeof *w);
    posted *calls = emo__calloc(&rt->mem, (size_t)ranks, sizeof *calls);
    if (w == NULL || calls == NULL) {
        emo__free(&rt->mem, w);
        emo__free(&rt->mem, calls);
        return emo__fail_memory(err, (size_t)ranks * sizeof *calls);
    }
    int code = pthread_mutex_init(&w->lock, NULL);
    if (code == 0) {
        pthread_condattr_t clock;
        code = pthread_condattr_init(&clock);
        if (code == 0) {
            code = pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
            if (code == 0)
                code = pthread_cond_init(&w->done, &clock);
            (void)pthread_condattr_destroy(&clock);
        }
        if (code != 0)
            (void)pthread_mutex_destroy(&w->lock);
    }
    if (code != 0) {
        emo__free(&rt->mem, w);
        emo__free(&rt->mem, calls);
        return emo__fail_at(err, EMO_E_OUT_OF_MEMORY, EMO_DOMAIN_SYSTEM, code, "no lock for the communicator");
    }
    w->rt = emo__runtime_retain(rt);
    w->calls = calls;
    w->ranks = ranks;
    w->patience = EMO__COMM_PATIENCE;
    *out = w;
    return EMO_OK;
}

emo_status emo__comm_local_patience(emo_comm *comm, double seconds, emo_error *err) {
    if (comm->calls.destroy != leave)
        return emo__fail(err, EMO_E_UNSUPPORTED, "only ranks of one process take a timeout; a plug-in has its own");
    world *w = ((member *)comm->ctx)->w;
    (void)pthread_mutex_lock(&w->lock);
    w->patience = seconds;
    (void)pthread_mutex_unlock(&w->lock);
    return EMO_OK;
}

emo_status emo__comm_local(emo_runtime *rt, int32_t ranks, emo_comm **out, emo_error *err) {
    static const emo_comm_vtable calls = {sizeof calls, 0, all_reduce_sum, broadcast, barrier, fail_all, leave};
    for (int32_t r = 0; r < ranks; r++)
        out[r] = NULL;
    world *w = NULL;
    emo_status status = world_new(rt, ranks, &w, err);
    if (status != EMO_OK)
        return status;
    w->alive = 1; /* this function's own hold on it */
    for (int32_t r = 0; status == EMO_OK && r < ranks; r++) {
        member *m = emo__calloc(&rt->mem, 1, sizeof *m);
        if (m == NULL) {
            status = emo__fail_memory(err, sizeof *m);
            break;
        }
        m->w = w;
        m->rank = r;
        w->alive++;
        status = emo__comm_new(rt, &calls, m, r, ranks, &out[r], err);
        if (status != EMO_OK) {
            w->alive--;
            emo__free(&rt->mem, m);
        }
    }
    if (status != EMO_OK) {
        for (int32_t r = 0; r < ranks; r++) {
            emo__comm_release(out[r]);
            out[r] = NULL;
        }
    }
    /* on success the ranks may be in use already only after return, so that no lock is needed here */
    if (--w->alive == 0)
        world_free(w);
    return status;
}
