/* SPDX-License-Identifier: Apache-2.0 */
/* New keys and values into the cache: a block per piece of a segment. */
#include "ops/attention.h"

enum { ROWS = 16 /* of a block */, THREADS = 256 };

__global__ static void __launch_bounds__(THREADS) store_k(emo_store_kv_args a, const emo_at_work *list) {
    emo_at_work w = list[blockIdx.x];
    int64_t n = (int64_t)w.count * a.width, from = (w.q_begin + w.first) * a.width;
    int64_t to = (w.k_begin + w.k_count - w.q_count + w.first) * a.width;
    for (int64_t i = (int64_t)threadIdx.x; i < n; i += THREADS) {
        a.cache_k[to + i] = a.k[from + i];
        a.cache_v[to + i] = a.v[from + i];
    }
}

static void fill_rows(const emo_attention_args *a, int64_t rows, emo_at_list *list) {
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        for (int64_t first = 0; first < s->q_count; first += rows)
            emo_at_push(list, s, first, s->q_count - first < rows ? s->q_count - first : rows, -1, 0);
    }
}

/* The asked rows as runs of rows that lie together in the cache, whose k_begin is a row of it; to NULL: only counted.
 */
static int64_t runs_of(const emo_store_kv_args *a, emo_attention_segment *to) {
    int64_t n = 0;
    for (int64_t i = 0; i < a->n_segments; i++) {
        const emo_attention_segment *s = &a->segments[i];
        int64_t from = s->q_begin > a->first ? s->q_begin : a->first;
        int64_t last = s->q_begin + s->q_count < a->last ? s->q_begin + s->q_count : a->last;
        for (int64_t run = 0; from < last; from += run) {
            int64_t key = s->k_count - s->q_count + (from - s->q_begin), row = s->k_begin + key;
            run = last - from;
            if (a->page_rows > 0) {
                int64_t inside = key % a->page_rows;
                run = run < a->page_rows - inside ? run : a->page_rows - inside;
                row = a->pages[s->k_begin + key / a->page_rows] * a->page_rows + inside;
            }
            if (to != NULL) {
                emo_attention_segment one = {from, run, row, run};
                to[n] = one;
            }
            n++;
        }
    }
    return n;
}

emo_status emo_cuda_store_kv(emo_exec *exec, const emo_store_kv_args *args, emo_error *err) {
    const emo_backend_services *services = &emo_cuda_of(exec)->device->services;
    const emo_at_work *work;
    int64_t count, runs = runs_of(args, NULL);
    size_t bytes = (size_t)(runs + 1) * sizeof(emo_attention_segment);
    emo_store_kv_args a = *args;
    emo_attention_args of;
    void *host = NULL;
    EMO_CUDA_TRY(emo_cuda_host_zeroed(emo_cuda_of(exec), bytes, &host, err));
    emo_attention_segment *segments = (emo_attention_segment *)host;
    memset(&of, 0, sizeof of);
    of.n_segments = runs_of(args, segments);
    of.segments = segments;
    emo_status status = emo_cuda_attention_list(exec, &of, fill_rows, ROWS, &work, &count, err);
    services->free(services->ctx, segments);
    EMO_CUDA_TRY(status);
    if (count == 0)
        return EMO_OK;
    a.segments = NULL; /* the host's: the kernel reads the list */
    a.pages = NULL;
    a.n_segments = a.page_rows = 0;
    return emo_cuda_launched(EMO_LAUNCH(store_k, (unsigned)count, THREADS, 0, emo_cuda_stream(exec), a, work),
                             "store_kv", err);
}
