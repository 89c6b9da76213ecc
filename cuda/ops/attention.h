/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in IEEE f32: what forward and backward share.
 *
 * Rows are pairs (query, head of a kv head's group): pair p of a segment is query p / group, head p % group of the kv
 * head, so that the group's heads read each key once. 256 threads form a 16 x 16 square: thread (y, x) has RT rows from
 * y RT on and the columns x, x + 16, ... of a product. Rows lie in shared memory with D + 4 floats, D the head's size
 * rounded up to a power of two, the rest zeros. Key tiles are counted from the segment's first key, and what a row does
 * not see adds exact zeros: a row's bits do not depend on the rows beside it. */
#ifndef EMO_CUDA_OPS_ATTENTION_H
#define EMO_CUDA_OPS_ATTENTION_H

#include <math.h>

#include "exec.h"
#include "kernel.h"
#include "ops.h"

enum { EMO_AT_BLOCK = 256, EMO_AT_MOST = 256 /* head_dim */, EMO_AT_CHUNK = 512 /* keys of a split */ };

/* One tile of work; made on the host from the segments, which are host memory. count 0: none. */
typedef struct emo_at_work {
    int64_t q_begin; /* row of the segment's query 0 */
    int64_t k_begin;
    int32_t q_count;
    int32_t k_count;
    int32_t first; /* first pair of the tile (backward of keys: first key) */
    int32_t count; /* pairs, or keys */
    int32_t chunk; /* split of the keys; -1: all of them */
    int32_t place; /* first row of the partial results */
} emo_at_work;

typedef struct emo_at_shape {
    int32_t group;        /* query heads per kv head */
    int32_t vector;       /* rows can be read four floats at a time */
    int32_t page_shift;   /* log2 of the rows of a page; meaningful with pages */
    const int32_t *pages; /* the call's page table on the device; NULL: none */
} emo_at_shape;

__device__ static inline int64_t emo_at_query(const emo_at_work &w, const emo_at_shape &s, int32_t pair) {
    return w.q_begin + pair / s.group;
}
__device__ static inline int32_t emo_at_head(const emo_at_shape &s, int32_t pair) {
    return (int32_t)blockIdx.y * s.group + pair % s.group;
}
/* Row of the cache that holds a key of the segment. */
__device__ static inline int64_t emo_at_key(const emo_at_work &w, const emo_at_shape &s, int32_t key) {
    if (s.pages == NULL)
        return w.k_begin + key;
    return ((int64_t)s.pages[w.k_begin + (key >> s.page_shift)] << s.page_shift) + (key & ((1 << s.page_shift) - 1));
}
/* Keys that the pair's query sees. */
__device__ static inline int32_t emo_at_seen(const emo_at_work &w, const emo_at_shape &s, int32_t pair) {
    return pair / s.group + w.k_count - w.q_count + 1;
}

/* `rows` rows of D floats: line(r) gives row r or NULL for zeros. */
template <int D, class Line>
__device__ static inline void emo_at_load(float *to, int rows, int32_t head_dim, int32_t vector, Line line) {
    if (vector) {
        for (int i = (int)threadIdx.x; i < rows * (D / 4); i += EMO_AT_BLOCK) {
            int r = i / (D / 4), c = i % (D / 4) * 4;
            const float *from = line(r);
            float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
            if (from != NULL && c < head_dim)
                v = *(const float4 *)(from + c);
            *(float4 *)(to + r * (D + 4) + c) = v;
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < rows * D; i += EMO_AT_BLOCK) {
        int r = i / D, c = i % D;
        const float *from = line(r);
        to[r * (D + 4) + c] = from != NULL && c < head_dim ? from[c] : 0.0f;
    }
}

/* s[i][j] = dot(a row y RT + i, b row x + 16 j) */
template <int D, int RT, int CT>
__device__ static inline void emo_at_dots(const float *a, const float *b, float (&s)[RT][CT]) {
    int x = (int)(threadIdx.x & 15u), y = (int)(threadIdx.x >> 4);
#pragma unroll
    for (int i = 0; i < RT; i++)
#pragma unroll
        for (int j = 0; j < CT; j++)
            s[i][j] = 0.0f;
#pragma unroll 4
    for (int d = 0; d < D; d += 4) {
        float4 u[RT], v[CT];
#pragma unroll
        for (int i = 0; i < RT; i++)
            u[i] = *(const float4 *)(a + (y * RT + i) * (D + 4) + d);
#pragma unroll
        for (int j = 0; j < CT; j++)
            v[j] = *(const float4 *)(b + (x + 16 * j) * (D + 4) + d);
#pragma unroll
        for (int i = 0; i < RT; i++)
#pragma unroll
            for (int j = 0; j < CT; j++) {
                s[i][j] = fmaf(u[i].x, v[j].x, s[i][j]);
                s[i][j] = fmaf(u[i].y, v[j].y, s[i][j]);
                s[i][j] = fmaf(u[i].z, v[j].z, s[i][j]);
                s[i][j] = fmaf(u[i].w, v[j].w, s[i][j]);
            }
    }
}

/* out[i][j] += sum over k < n of c[(y RT + i) row + k step] v[k][x + 16 j] */
template <int D, int RT>
__device__ static inline void emo_at_add(const float *c, int row, int step, const float *v, int n,
                                         float (&out)[RT][D / 16]) {
    int x = (int)(threadIdx.x & 15u), y = (int)(threadIdx.x >> 4);
#pragma unroll 4
    for (int k = 0; k < n; k++) {
        float p[RT];
#pragma unroll
        for (int i = 0; i < RT; i++)
            p[i] = c[(y * RT + i) * row + k * step];
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            float value = v[k * (D + 4) + x + 16 * j];
#pragma unroll
            for (int i = 0; i < RT; i++)
                out[i][j] = fmaf(p[i], value, out[i][j]);
        }
    }
}

/* Runs `statement` with D as a constant. */
#define EMO_AT_DIM(head_dim, statement)                                                                                \
    do {                                                                                                               \
        if ((head_dim) <= 32) {                                                                                        \
            constexpr int D = 32;                                                                                      \
            statement;                                                                                                 \
        } else if ((head_dim) <= 64) {                                                                                 \
            constexpr int D = 64;                                                                                      \
            statement;                                                                                                 \
        } else if ((head_dim) <= 128) {                                                                                \
            constexpr int D = 128;                                                                                     \
            statement;                                                                                                 \
        } else {                                                                                                       \
            constexpr int D = 256;                                                                                     \
            statement;                                                                                                 \
        }                                                                                                              \
    } while (0)

/* A list of work on the host. */
typedef struct emo_at_list {
    emo_at_work *host; /* NULL: only counted */
    int64_t count;
} emo_at_list;

static inline void emo_at_push(emo_at_list *list, const emo_attention_segment *s, int64_t first, int64_t count,
                               int32_t chunk, int64_t place) {
    if (list->host != NULL) {
        emo_at_work *w = &list->host[list->count];
        memset(w, 0, sizeof *w);
        w->q_begin = s->q_begin;
        w->k_begin = s->k_begin;
        w->q_count = (int32_t)s->q_count;
        w->k_count = (int32_t)s->k_count;
        w->first = (int32_t)first;
        w->count = (int32_t)count;
        w->chunk = chunk;
        w->place = (int32_t)place;
    }
    list->count++;
}

/* The arguments for a kernel: the segments are the host's, and tell equal launches of different steps apart. */
static inline emo_attention_args emo_at_given(const emo_attention_args *a) {
    emo_attention_args given = *a;
    given.segments = NULL;
    given.n_segments = 0;
    given.pages = NULL;
    return given;
}

/* What both directions ask of their arguments; fills in the shape. (attention_forward.cu) */
emo_status emo_cuda_attention_check(const emo_attention_args *a, emo_at_shape *shape, emo_error *err);

/* Stages the page table of a call that has one. (attention_forward.cu) */
emo_status emo_cuda_attention_pages(emo_exec *exec, const emo_attention_args *a, emo_at_shape *shape, emo_error *err);

/* Adds the tiles of `rows` rows (or keys) to the list. */
typedef void (*emo_at_fill)(const emo_attention_args *a, int64_t rows, emo_at_list *list);
/* The list that fill makes of these segments, in device memory; *count 0: nothing to do. It is made and uploaded once
 * for all layers: lists are kept with the segments they were made of, and made anew when the segments are others. While
 * work is held back, the list has room for the most there was so far: entries behind its end have count 0, and their
 * blocks leave at once. (lists.cu) */
emo_status emo_cuda_attention_list(emo_exec *exec, const emo_attention_args *a, emo_at_fill fill, int64_t rows,
                                   const emo_at_work **work, int64_t *count, emo_error *err);

#endif
