/* SPDX-License-Identifier: Apache-2.0 */
/* Communicators of one process: sums, order, disagreement, and that a lost rank never leaves another waiting. */
#include <pthread.h>

#include <emo/comm.h>

#include "support/support.h"

enum { RANKS = 4, COUNT = 37, ROUNDS = 200 };

typedef struct job {
    emo_comm *comm;
    emo_status status;
    float f[COUNT];
    int64_t l[COUNT];
    int mode;
    emo_error err;
} job;

static void run(void *(*fn)(void *), job *jobs, int mode) {
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_comm *comms[RANKS];
    EXPECT_OK(emo_comm_create_local(rt, RANKS, comms, &err));
    if (mode == 3)
        EXPECT_OK(emo_comm_set_timeout(comms[2], 0.2, &err)); /* one for all */
    emo_runtime_release(rt);                                  /* the handles keep it alive */
    pthread_t threads[RANKS];
    for (int r = 0; r < RANKS; r++) {
        memset(&jobs[r], 0, sizeof jobs[r]);
        jobs[r].comm = comms[r];
        jobs[r].mode = mode;
        assert_int_equal(emo_comm_rank(comms[r]), r);
        assert_int_equal(emo_comm_size(comms[r]), RANKS);
        assert_int_equal(pthread_create(&threads[r], NULL, fn, &jobs[r]), 0);
    }
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_join(threads[r], NULL), 0);
    for (int r = 0; r < RANKS; r++)
        emo_comm_release(jobs[r].comm);
}

static void *sums(void *arg) {
    job *j = arg;
    int rank = emo_comm_rank(j->comm);
    for (int round = 0; round < ROUNDS && j->status == EMO_OK; round++) {
        for (int i = 0; i < COUNT; i++) {
            j->f[i] = rank == 0 ? 1e8f : rank == 1 ? -1e8f : (float)(rank * i + round);
            j->l[i] = rank * 1000000007LL + i;
        }
        j->status = emo_comm_all_reduce_sum(j->comm, j->f, COUNT, EMO_DTYPE_F32, NULL);
        if (j->status == EMO_OK)
            j->status = emo_comm_all_reduce_sum(j->comm, j->l, COUNT, EMO_DTYPE_I64, NULL);
        if (j->status == EMO_OK)
            j->status = emo_comm_barrier(j->comm, NULL);
    }
    int32_t word = rank == 2 ? 4711 : 0;
    if (j->status == EMO_OK)
        j->status = emo_comm_broadcast(j->comm, &word, sizeof word, 2, NULL);
    if (j->status == EMO_OK && word != 4711)
        j->status = EMO_E_INTERNAL;
    return NULL;
}

static void ordered_sums(void **state) {
    (void)state;
    static job jobs[RANKS];
    run(sums, jobs, 0);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(jobs[r].status, EMO_OK);
        for (int i = 0; i < COUNT; i++) {
            /* in rank order the large ones cancel first, so that the result is exact */
            assert_true(jobs[r].f[i] == (float)(5 * i + 2 * (ROUNDS - 1)));
            assert_true(jobs[r].l[i] == 6 * 1000000007LL + 4 * i);
        }
    }
}

/* Rank 3 leaves (mode 0), aborts (mode 1) or asks for something else (mode 2) in the third round. */
static void *lost(void *arg) {
    job *j = arg;
    int rank = emo_comm_rank(j->comm);
    for (int round = 0; round < 5 && j->status == EMO_OK; round++) {
        if (rank == 3 && round == 2 && j->mode == 0) {
            emo_comm_release(j->comm);
            j->comm = NULL;
            return NULL;
        }
        if (rank == 3 && round == 2 && j->mode == 1)
            emo_comm_abort(j->comm);
        size_t count = rank == 3 && round == 2 && j->mode == 2 ? COUNT - 1 : COUNT;
        j->status = emo_comm_all_reduce_sum(j->comm, j->f, count, EMO_DTYPE_F32, NULL);
    }
    return NULL;
}

static void nobody_waits_for_ever(void **state) {
    (void)state;
    static job jobs[RANKS];
    for (int repeat = 0; repeat < 20; repeat++) {
        run(lost, jobs, 0);
        for (int r = 0; r < 3; r++)
            assert_int_equal(jobs[r].status, EMO_E_COMM);
        run(lost, jobs, 1);
        for (int r = 0; r < RANKS; r++)
            assert_int_equal(jobs[r].status, EMO_E_COMM);
        run(lost, jobs, 2);
        for (int r = 0; r < RANKS; r++)
            assert_int_equal(jobs[r].status, EMO_E_MISMATCH);
    }
}

static void *late(void *arg) {
    job *j = arg;
    if (emo_comm_rank(j->comm) == 3)
        return NULL; /* neither comes nor leaves */
    while (j->status == EMO_OK)
        j->status = emo_comm_barrier(j->comm, &j->err);
    return NULL;
}

static void nobody_waits_for_who_never_comes(void **state) {
    (void)state;
    static job jobs[RANKS];
    run(late, jobs, 3);
    for (int r = 0; r < 3; r++) {
        assert_int_equal(jobs[r].status, EMO_E_COMM);
        assert_non_null(strstr(jobs[r].err.message, "within 0.2 seconds"));
    }
    assert_int_equal(jobs[3].status, EMO_OK);
}

static void arguments(void **state) {
    (void)state;
    emo_error err = EMO_ERROR_INIT;
    emo_runtime *rt = test_runtime(1, EMO_ISA_AUTO);
    emo_comm *one = NULL;
    EXPECT_OK(emo_comm_create_single(rt, &one, &err));
    float v = 3.0f;
    EXPECT_OK(emo_comm_all_reduce_sum(one, &v, 1, EMO_DTYPE_F32, &err));
    assert_true(v == 3.0f);
    EXPECT_OK(emo_comm_barrier(one, &err));
    EXPECT_STATUS(emo_comm_all_reduce_sum(one, &v, 1, EMO_DTYPE_BF16, &err), EMO_E_INVALID_ARGUMENT, "dtype");
    EXPECT_STATUS(emo_comm_broadcast(one, &v, 4, 1, &err), EMO_E_INVALID_ARGUMENT, "root");
    EXPECT_STATUS(emo_comm_all_reduce_sum(NULL, &v, 1, EMO_DTYPE_F32, &err), EMO_E_INVALID_ARGUMENT, "comm");
    EXPECT_OK(emo_comm_set_timeout(one, 1.0, &err));
    EXPECT_STATUS(emo_comm_set_timeout(one, -1.0, &err), EMO_E_RANGE, "seconds");
    EXPECT_STATUS(emo_comm_set_timeout(one, 2e9, &err), EMO_E_RANGE, "seconds");
    emo_comm *many[2];
    EXPECT_STATUS(emo_comm_create_local(rt, 0, many, &err), EMO_E_RANGE, "ranks");
    emo_comm_release(one);
    emo_comm_release(NULL);
    emo_runtime_release(rt);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordered_sums),
        cmocka_unit_test(nobody_waits_for_ever),
        cmocka_unit_test(nobody_waits_for_who_never_comes),
        cmocka_unit_test(arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
