/* SPDX-License-Identifier: Apache-2.0 */
/* What the ranks of a run settle among themselves: whether all are well, who wants to stop, and what they start from.
 * Only the first rank reads and writes the run folder; the others get its state through the communicator. */
#include <string.h>

#include "base/comm.h"
#include "base/status.h"
#include "train/trainer.h"

/* What the first rank tells the others before the weights. */
typedef struct start_state {
    int64_t step;
    int64_t steps;
    int64_t tokens;
    double seconds;
    uint64_t options; /* hash of the run's description */
    uint64_t words;   /* of the balancing counts */
} start_state;

emo_status emo__ranks_sum(emo_trainer *t, double *values, size_t count, emo_error *err) {
    if (t->ranks == 1)
        return EMO_OK;
    emo_status status = t->ops->upload(t->exec, t->exchange, values, count * sizeof *values, err);
    if (status == EMO_OK)
        status = emo_comm_all_reduce_sum(t->comm, t->exchange, count, EMO_DTYPE_F64, err);
    if (status == EMO_OK)
        status = t->ops->download(t->exec, values, t->exchange, count * sizeof *values, err);
    if (status == EMO_OK)
        status = t->ops->synchronize(t->exec, err);
    return status;
}

/* A few bytes of the first rank's to all. */
emo_status emo__ranks_tell(emo_trainer *t, void *data, size_t bytes, emo_error *err) {
    if (t->ranks == 1)
        return EMO_OK;
    emo_status status = t->ops->upload(t->exec, t->exchange, data, bytes, err);
    if (status == EMO_OK)
        status = emo_comm_broadcast(t->comm, t->exchange, bytes, 0, err);
    if (status == EMO_OK)
        status = t->ops->download(t->exec, data, t->exchange, bytes, err);
    if (status == EMO_OK)
        status = t->ops->synchronize(t->exec, err);
    return status;
}

emo_status emo__ranks_agree(emo_trainer *t, emo_status mine, emo_error *err) {
    emo_error other = EMO_ERROR_INIT;
    double failed = mine != EMO_OK ? 1.0 : 0.0;
    emo_status status = emo__ranks_sum(t, &failed, 1, &other);
    if (mine != EMO_OK)
        return mine;
    if (status != EMO_OK)
        return emo__fail(err, status, "%s", other.message);
    return failed > 0.0 ? emo__fail(err, EMO_E_COMM, "rank %d: another rank has failed", (int)t->rank) : EMO_OK;
}

emo_status emo__ranks_stop(emo_trainer *t, bool mine, bool *stop, emo_error *err) {
    double wanted = mine ? 1.0 : 0.0;
    emo_status status = emo__ranks_sum(t, &wanted, 1, err);
    *stop = wanted > 0.0;
    return status;
}

/* The balancing counts of the first rank to all. */
static emo_status share_balance(emo_trainer *t, size_t words, emo_error *err) {
    size_t bytes = words * sizeof(int32_t);
    void *device = NULL;
    int32_t *host = emo__alloc(&t->rt->mem, bytes);
    emo_status status = EMO_OK;
    if (host == NULL)
        return emo__fail_memory(err, bytes);
    EMO_TRY(status = t->ops->mem_alloc(t->model->backend, bytes, &device, err));
    if (t->rank == 0) {
        EMO_TRY(status = emo__balance_export(t->balance, t->exec, host, err));
        EMO_TRY(status = t->ops->upload(t->exec, device, host, bytes, err));
    }
    EMO_TRY(status = emo_comm_broadcast(t->comm, device, bytes, 0, err));
    if (t->rank != 0) {
        EMO_TRY(status = t->ops->download(t->exec, host, device, bytes, err));
        EMO_TRY(status = t->ops->synchronize(t->exec, err));
        status = emo__balance_import(t->balance, t->exec, host, words, err);
    }
done:
    t->ops->mem_free(t->model->backend, device);
    emo__free(&t->rt->mem, host);
    return status;
}

emo_status emo__ranks_share_start(emo_trainer *t, emo_error *err) {
    if (t->ranks == 1)
        return EMO_OK;
    start_state s = {t->step, t->steps, t->tokens, t->seconds_done, 0, emo__balance_state_words(t->balance)};
    size_t moments = (size_t)t->grad_count * sizeof(float);
    uint64_t own = 0;
    emo_status status;
    if (t->rank == 0)
        EMO_TRY(status = emo__run_hash(t, &s.options, err));
    EMO_TRY(status = emo__ranks_tell(t, &s, sizeof s, err));
    t->step = s.step;
    t->steps = s.steps;
    t->tokens = s.tokens;
    t->seconds_done = s.seconds;
    status = emo__run_hash(t, &own, err);
    if (status == EMO_OK && own != s.options)
        status = emo__fail(err, EMO_E_MISMATCH, "rank %d has other options, data or model than rank 0", (int)t->rank);
    EMO_TRY(status = emo__ranks_agree(t, status, err));
    EMO_TRY(status = emo_comm_broadcast(t->comm, t->flat, (size_t)t->flat_count * sizeof(float), 0, err));
    if (t->step > 0) {
        EMO_TRY(status = emo_comm_broadcast(t->comm, t->m, moments, 0, err));
        EMO_TRY(status = emo_comm_broadcast(t->comm, t->v, moments, 0, err));
        if (s.words > 0)
            status = share_balance(t, (size_t)s.words, err);
    }
done:
    return status;
}
