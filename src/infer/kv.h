/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of every sequence in two blocks: [layers][sequences * rows][kv_heads * head_dim]. */
#ifndef EMO_SRC_INFER_KV_H
#define EMO_SRC_INFER_KV_H

#include "model/pass.h"

typedef struct emo__kv {
    emo_backend *backend;
    float *k;
    float *v;
    int64_t layers;
    int64_t sequences;
    int64_t rows;  /* per sequence; 0: nothing allocated yet */
    int64_t width; /* floats per row: kv_heads * head_dim */
} emo__kv;

void emo__kv_init(emo__kv *kv, const emo_model *model, int64_t sequences);
void emo__kv_free(emo__kv *kv);
/* Room for `need` rows per sequence: doubles, up to `limit` (need <= limit). The first held[s] rows of each sequence
 * are kept. On failure the cache is as it was. Not while a pass that uses it is under way. */
EMO_MUST_CHECK emo_status emo__kv_grow(emo__kv *kv, emo_exec *exec, int64_t need, int64_t limit, const int64_t *held,
                                       emo_error *err);
/* Row of the whole cache at which a sequence begins. */
static inline int64_t emo__kv_row(const emo__kv *kv, int64_t sequence) { return sequence * kv->rows; }
static inline emo__kv_view emo__kv_view_of(const emo__kv *kv) {
    emo__kv_view view = {kv->k, kv->v, kv->sequences * kv->rows * kv->width};
    return view;
}

#endif
