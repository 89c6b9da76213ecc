/* SPDX-License-Identifier: Apache-2.0 */
/* The keys and values of an attention call moved into pages in a shuffled order, NaN wherever no key lies. */
#ifndef EMO_TESTS_PAGES_H
#define EMO_TESTS_PAGES_H

#include <emo/sys/backend.h>
#include <math.h>

#include "support/support.h"

enum { PAGES_SEGMENTS = 8 };

typedef struct test_pages {
    emo_attention_segment segments[PAGES_SEGMENTS];
    int32_t *table;
    int64_t floats; /* of k, and of v */
    float *k;
    float *v;
} test_pages;

static inline void test_pages_move(const emo_attention_args *a, const test_pages *p, int64_t segment, const float *from,
                                   float *to) {
    const emo_attention_segment *s = &a->segments[segment];
    for (int64_t j = 0; j < s->k_count; j++) {
        int64_t row = p->table[p->segments[segment].k_begin + j / a->page_rows] * a->page_rows + j % a->page_rows;
        memcpy(to + row * a->kv_stride, from + (s->k_begin + j) * a->kv_stride,
               (size_t)(a->kv_heads * a->head_dim) * sizeof(float));
    }
}

/* `a` has its own rows yet; afterwards its segments, k, v and table are those of the pages (k and v on the host). */
static inline test_pages test_pages_make(emo_attention_args *a, const float *k, const float *v, int64_t page_rows) {
    test_pages p = {0};
    int64_t entries = 0;
    a->page_rows = page_rows;
    assert_true(a->n_segments <= PAGES_SEGMENTS);
    for (int64_t i = 0; i < a->n_segments; i++) {
        p.segments[i] = a->segments[i];
        p.segments[i].k_begin = entries;
        entries += (a->segments[i].k_count + page_rows - 1) / page_rows;
    }
    int64_t pages = 4; /* a power of two: odd steps go through all of them; some stay empty */
    while (pages < entries + 2)
        pages *= 2;
    p.table = malloc((size_t)(entries + 1) * sizeof *p.table);
    p.floats = pages * page_rows * a->kv_stride;
    p.k = malloc((size_t)p.floats * sizeof(float));
    p.v = malloc((size_t)p.floats * sizeof(float));
    assert_true(p.table != NULL && p.k != NULL && p.v != NULL);
    for (int64_t i = 0; i < entries; i++)
        p.table[i] = (int32_t)((i + 1) * 3 % pages);
    for (int64_t i = 0; i < p.floats; i++)
        p.k[i] = p.v[i] = NAN;
    for (int64_t i = 0; i < a->n_segments; i++) {
        test_pages_move(a, &p, i, k, p.k);
        test_pages_move(a, &p, i, v, p.v);
    }
    a->k = p.k;
    a->v = p.v;
    a->pages = p.table;
    return p; /* a->segments is the caller's to set: they are inside */
}

static inline void test_pages_free(test_pages *p) {
    free(p->table);
    free(p->k);
    free(p->v);
}

#endif
