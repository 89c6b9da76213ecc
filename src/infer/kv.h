/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of every sequence in pages of rows from one store: [layers][pages * page_rows][kv_heads * head_dim],
 * once for keys and once for values. A page has the same number in every layer.
 *
 * A lane is what one sequence holds: its pages in the order of its tokens. Pages that are full may belong to several
 * lanes; only a lane's last pages are written to, and those it has alone. A back end that reads no page tables gets
 * pages as long as the longest sequence, so that every lane is one run of rows.
 */
#ifndef EMO_SRC_INFER_KV_H
#define EMO_SRC_INFER_KV_H

#include "model/pass.h"

#define EMO__KV_PAGE_ROWS 64 /* rows of a page unless asked otherwise: a block of keys of the CPU's attention */

typedef struct emo__kv_lane {
    int32_t *pages;
    size_t n;
    size_t cap;
} emo__kv_lane;

typedef struct emo__kv {
    emo_model *model; /* the owner of the cache holds it */
    emo_backend *backend;
    const emo__mem *mem;
    float *k;
    float *v;
    int64_t layers;
    int64_t width; /* floats per row: kv_heads * head_dim */
    bool tables;   /* attention reads page tables */
    int64_t page_rows;
    int64_t pages;      /* in the store */
    int64_t most_pages; /* the store may grow to */
    int64_t used;       /* pages that a lane holds */
    int32_t *holders;   /* [pages] lanes that hold each */
    int64_t lowest;     /* no page below it is free */
    int64_t n_lanes;
    emo__kv_lane *lanes;
    int32_t *table; /* the pages of the lanes in a batch, one after the other */
    size_t n_table;
    size_t cap_table;
} emo__kv;

/* No sequence gets longer than `longest` rows. page_rows: a power of two; budget: bytes of the store, of which there
 * are to be as many pages as fit; 0: enough for every lane. */
EMO_MUST_CHECK emo_status emo__kv_init(emo__kv *kv, emo_model *model, int64_t lanes, int64_t longest, int64_t page_rows,
                                       uint64_t budget, emo_error *err);
void emo__kv_free(emo__kv *kv);
/* Bytes of a page in all layers, keys and values. */
uint64_t emo__kv_page_bytes(const emo__kv *kv);
/* Pages that a lane lacks for so many rows, and pages that are free or may still come. */
int64_t emo__kv_lacks(const emo__kv *kv, int64_t lane, int64_t rows);
static inline int64_t emo__kv_available(const emo__kv *kv) { return kv->most_pages - kv->used; }
/* Room for so many rows; what the lane has is kept. There must be pages available. The store may grow, hence not while
 * a pass that uses it is under way; exec: that of the pass, or NULL when all passes have been waited for. After a
 * failure the lane may have some of the pages, which is no harm. */
EMO_MUST_CHECK emo_status emo__kv_reserve(emo__kv *kv, emo_exec *exec, int64_t lane, int64_t rows, emo_error *err);
/* The lane gives its pages back. */
void emo__kv_release(emo__kv *kv, int64_t lane);
/* An empty lane takes part in the first `rows` rows of another, a whole number of pages. */
EMO_MUST_CHECK emo_status emo__kv_share(emo__kv *kv, int64_t lane, int64_t from, int64_t rows, emo_error *err);
/* Begins the tables of a batch, adds those of a lane (k_begin of its segment), shows them. The view is valid until the
 * next batch begins. */
static inline void emo__kv_begin(emo__kv *kv) { kv->n_table = 0; }
EMO_MUST_CHECK emo_status emo__kv_place(emo__kv *kv, int64_t lane, int64_t rows, int64_t *k_begin, emo_error *err);
emo__kv_view emo__kv_view_of(const emo__kv *kv);

#endif
