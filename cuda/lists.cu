/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of attention's work. In a piece of work they are made once, among its values: the layers of a model ask for the
 * same ones. Else they are scratch. */
#include "ops/attention.h"

#include "device.h"
#include "tape.h"

enum { LISTS = 24 };

/* What a list was made for. */
typedef struct list_key {
    emo_at_fill fill; /* NULL: no list */
    int64_t rows;
    int64_t q_first, q_last;
    int32_t heads, kv_heads;
} list_key;

typedef struct list {
    list_key key;
    emo_attention_segment *segments; /* those it was made of */
    int64_t n_segments, segment_room;
    uint64_t piece; /* among whose values it is; below: there */
    const emo_at_work *work;
    int64_t count;
    int64_t most;  /* what pieces had need for, rounded up: entries behind the end have count 0 */
    uint64_t last; /* use */
} list;

struct emo_cuda_lists {
    uint64_t uses;
    list of[LISTS];
};

static int same_key(const list_key *a, const list_key *b) {
    return a->fill == b->fill && a->rows == b->rows && a->q_first == b->q_first && a->q_last == b->q_last &&
           a->heads == b->heads && a->kv_heads == b->kv_heads;
}

static int same_segments(const list *l, const emo_attention_args *a) {
    return l->n_segments == a->n_segments &&
           (a->n_segments == 0 || memcmp(l->segments, a->segments, (size_t)a->n_segments * sizeof *a->segments) == 0);
}

static emo_status counted(const emo_attention_args *a, const list_key *key, int64_t *count, emo_error *err) {
    emo_at_list out = {NULL, 0};
    key->fill(a, key->rows, &out);
    *count = out.count;
    return out.count <= INT32_MAX ? EMO_OK : emo_cuda_unsupported(err, "attend over more than 2^31 - 1 tiles at once");
}

/* For this call alone. */
static emo_status make_scratch(emo_cuda_exec *e, const list_key *key, const emo_attention_args *a,
                               const emo_at_work **work, int64_t *count, emo_error *err) {
    const emo_backend_services *services = &e->device->services;
    void *host = NULL, *staged = NULL;
    EMO_CUDA_TRY(counted(a, key, count, err));
    if (*count == 0)
        return EMO_OK;
    size_t bytes = (size_t)*count * sizeof **work;
    EMO_CUDA_TRY(emo_cuda_host_zeroed(e, bytes, &host, err));
    emo_at_list out = {(emo_at_work *)host, 0};
    key->fill(a, key->rows, &out);
    emo_status status = emo_cuda_stage(&e->base, out.host, bytes, &staged, err);
    services->free(services->ctx, out.host);
    *work = (const emo_at_work *)staged;
    return status;
}

/* ---- in a piece ---- */

/* One of this key from an earlier piece, else the one that was not used for longest; NULL: the piece needs all. */
static list *choose(const emo_cuda_exec *e, const list_key *key) {
    list *found = NULL;
    for (int32_t i = 0; i < LISTS; i++) {
        list *l = &e->lists->of[i];
        int own = same_key(&l->key, key), best = found != NULL && same_key(&found->key, key);
        if (l->piece != e->piece && (found == NULL || own > best || (own == best && l->last < found->last)))
            found = l;
    }
    return found;
}

static emo_status keep_segments(emo_cuda_exec *e, list *l, const emo_attention_args *a, emo_error *err) {
    const emo_backend_services *services = &e->device->services;
    size_t bytes = (size_t)a->n_segments * sizeof *a->segments;
    if (a->n_segments > l->segment_room) {
        void *segments = NULL;
        EMO_CUDA_TRY(emo_cuda_host_zeroed(e, bytes, &segments, err));
        services->free(services->ctx, l->segments);
        l->segments = (emo_attention_segment *)segments;
        l->segment_room = a->n_segments;
    }
    if (bytes > 0)
        memcpy(l->segments, a->segments, bytes);
    l->n_segments = a->n_segments;
    return EMO_OK;
}

/* *made 0: there was no room, and nothing is held back any more. */
static emo_status make(emo_cuda_exec *e, list *l, const emo_attention_args *a, int *made, emo_error *err) {
    emo_tape_values v;
    *made = 0;
    l->piece = 0; /* until it is whole */
    EMO_CUDA_TRY(keep_segments(e, l, a, err));
    EMO_CUDA_TRY(counted(a, &l->key, &l->count, err));
    l->count = emo_cuda_rounded(l->count);
    l->count = l->most = l->count > l->most ? l->count : l->most;
    l->work = NULL;
    if (l->count > 0) {
        size_t bytes = (size_t)l->count * sizeof *l->work;
        EMO_CUDA_TRY(emo_cuda_tape_values(e, bytes, &v, err));
        if (v.host == NULL)
            return EMO_OK;
        emo_at_list out = {(emo_at_work *)v.host, 0};
        memset(v.host, 0, bytes);
        l->key.fill(a, l->key.rows, &out);
        l->work = (const emo_at_work *)v.device;
    }
    l->piece = e->piece;
    *made = 1;
    return EMO_OK;
}

static emo_status make_lists(emo_cuda_exec *e, emo_error *err) {
    if (e->lists != NULL)
        return EMO_OK;
    void *lists = NULL;
    EMO_CUDA_TRY(emo_cuda_host_zeroed(e, sizeof *e->lists, &lists, err));
    e->lists = (emo_cuda_lists *)lists;
    return EMO_OK;
}

emo_status emo_cuda_attention_list(emo_exec *exec, const emo_attention_args *a, emo_at_fill fill, int64_t rows,
                                   const emo_at_work **work, int64_t *count, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    list_key key = {fill, rows, a->q_first, a->q_last, a->heads, a->kv_heads};
    list *l = NULL;
    int made = 1;
    *work = NULL;
    *count = 0;
    if (e->holding == NULL)
        return make_scratch(e, &key, a, work, count, err);
    EMO_CUDA_TRY(make_lists(e, err));
    for (int32_t i = 0; i < LISTS && l == NULL; i++)
        if (e->lists->of[i].piece == e->piece && same_key(&e->lists->of[i].key, &key) &&
            same_segments(&e->lists->of[i], a))
            l = &e->lists->of[i];
    if (l == NULL) {
        l = choose(e, &key);
        if (l == NULL) {
            EMO_CUDA_TRY(emo_cuda_tape_issue(e, "it has more lists than are kept", err));
            return make_scratch(e, &key, a, work, count, err);
        }
        if (!same_key(&l->key, &key))
            l->most = 0;
        l->key = key;
        EMO_CUDA_TRY(make(e, l, a, &made, err));
    }
    if (!made)
        return make_scratch(e, &key, a, work, count, err);
    l->last = ++e->lists->uses;
    *work = l->work;
    *count = l->count;
    return EMO_OK;
}

void emo_cuda_lists_destroy(emo_cuda_exec *exec) {
    const emo_backend_services *services = &exec->device->services;
    for (int32_t i = 0; exec->lists != NULL && i < LISTS; i++)
        services->free(services->ctx, exec->lists->of[i].segments);
    services->free(services->ctx, exec->lists);
    exec->lists = NULL;
}
