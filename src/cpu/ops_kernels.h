/* SPDX-License-Identifier: Apache-2.0 */
/* Row kernels of the block operators, one table per instruction set. All work on f32 rows; lengths are in floats. */
#ifndef EMO_SRC_CPU_OPS_KERNELS_H
#define EMO_SRC_CPU_OPS_KERNELS_H

#include <emo/runtime.h>

#include "cpu/cpu.h"

/* One tile of attention work; see attention.c for who fills it in. Rows are (query, head of the kv head's group). */
typedef struct emo__attn_rows {
    const emo_attention_args *args;
    const emo_attention_segment *segment;
    int32_t kv_head;
    int64_t first; /* first pair of the tile: pair i is query i / group, head kv_head * group + i % group */
    int64_t count; /* pairs, at most EMO__ATTN_ROWS */
    /* forward: the keys whose turn it is, counted from the segment's first; multiples of EMO__ATTN_KEYS */
    int64_t key_first;
    int64_t key_last;
} emo__attn_rows;

enum { EMO__ATTN_ROWS = 64, EMO__ATTN_KEYS = 64 };

/* Rows of the router: m values, with room for whole lanes; what lies past them must be 0, and is after a softmax. */
enum { EMO__ROUTE_LANES = 16 };
static inline size_t emo__route_pad(size_t m) {
    return (m + EMO__ROUTE_LANES - 1) / EMO__ROUTE_LANES * EMO__ROUTE_LANES;
}

typedef struct emo__ops_kernels {
    /* y = w * x * rstd; returns rstd */
    float (*norm)(int64_t n, float eps, const float *x, const float *w, float *y);
    /* dx (+)= gradient; d_weight += dy * x * rstd when not NULL */
    void (*norm_back)(int64_t n, const float *x, const float *w, float rstd, const float *dy, float *dx, int accumulate,
                      float *d_weight);
    /* rotates pairs (x[i], x[i + half]) by the angles; sign -1 rotates back */
    void (*rope)(int64_t half, const float *cosine, const float *sine, float sign, float *x);
    float (*max)(int64_t n, const float *x);
    /* y = exp(x - shift), y may be x or NULL; returns the sum */
    float (*exp_sum)(int64_t n, const float *x, float shift, float *y);
    void (*scale)(int64_t n, float factor, float *x);
    void (*add)(int64_t n, const float *x, float *y); /* y += x */
    void (*adamw)(const emo_adamw_args *args, const emo_step_scalars *scalars, int64_t first, int64_t last);
    double (*sumsq)(int64_t n, const float *x);
    float (*route_sum)(size_t m, const float *v);
    /* z = softmax of logits[ids[0..m)], or of logits[0..m) without ids, m > 0; returns the logsumexp */
    float (*route_softmax)(const float *logits, const int32_t *ids, size_t m, float *z);
    void (*route_add)(size_t m, float factor, const float *z, float *acc); /* acc += factor z */
    /* g = p (g - sum of p g + add): through a softmax p, m values */
    void (*route_back)(size_t m, const float *p, float add, float *g);
    /* the k largest of m keys, descending, ties to the lower place; returns how many there are (k or m) */
    size_t (*route_top)(const float *key, size_t m, size_t k, float *best, int32_t *best_at);
    /* bytes of worker memory that the attention tiles need */
    size_t (*attn_forward_bytes)(int32_t head_dim);
    size_t (*attn_backward_bytes)(int32_t head_dim);
    /* what a tile keeps from keys to keys; with its first keys it is written, with its last ones read */
    size_t (*attn_state_bytes)(int32_t head_dim);
    void (*attn_forward)(const emo__attn_rows *rows, void *state, void *memory);
    /* one (segment, kv head): all its query tiles and key blocks */
    void (*attn_backward)(const emo_attention_args *args, const emo_attention_segment *segment, int32_t kv_head,
                          void *memory);
    /* the same with products by kernels that want bf16, whose panels divide 64 keys or rows */
    size_t (*attn_rounded_bytes)(const struct emo__gemm_kernels *gemm, int32_t head_dim);
    void (*attn_backward_rounded)(const emo_attention_args *args, const emo_attention_segment *segment, int32_t kv_head,
                                  const struct emo__gemm_kernels *gemm, void *memory);
} emo__ops_kernels;

extern const emo__ops_kernels emo__ops_kernels_scalar;
#if defined(__x86_64__)
extern const emo__ops_kernels emo__ops_kernels_avx2;
extern const emo__ops_kernels emo__ops_kernels_avx512;
#elif defined(__aarch64__)
extern const emo__ops_kernels emo__ops_kernels_neon;
#endif

/* The table of the exec's level. */
const emo__ops_kernels *emo__ops_kernels_of(const emo__cpu_exec *cpu);

#endif
