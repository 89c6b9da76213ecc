/* SPDX-License-Identifier: Apache-2.0 */
/* What the expert kernels share: the six products of a layer of experts, where their operands lie and what becomes of
 * their results. Activations are T: bf16 for the tensor cores, f32 for IEEE arithmetic.
 *
 * Rows are assignments in plan order, so an expert's rows are neighbours; tiles of them never cross an expert's end.
 *     GATE_UP      gate|up = x[token] W^T            then h = silu(gate) up, in registers
 *     DOWN         out = h W_down^T
 *     DOWN_INPUT   p = dy[token] W_down              then h again, d_gate|d_up, and dot(h, p) for the router
 *     INPUT        d_rows = d_gate W_gate + d_up W_up
 *     WEIGHT_UP    d_gate, d_up += (d_gate|d_up)^T x[token]
 *     WEIGHT_DOWN  d_down += dy[token]^T (weight h) */
#ifndef EMO_CUDA_OPS_EXPERTS_H
#define EMO_CUDA_OPS_EXPERTS_H

#include "experts_table.h"
#include "ops.h"
#include "ops/tiles.h"

enum { EMO_X_GATE_UP, EMO_X_DOWN, EMO_X_DOWN_INPUT, EMO_X_INPUT, EMO_X_WEIGHT_UP, EMO_X_WEIGHT_DOWN };

template <class T>
struct emo_experts_job {
    const emo_expert_slot *slots; /* on the device */
    const int32_t *offsets;       /* [experts + 1] */
    const int32_t *token;         /* [rows] */
    const float *weight;          /* [rows] routing weights in plan order */
    const emo_cuda_tile *tiles;   /* tiles of rows; not for weight gradients */
    int64_t columns;              /* blocks per tile of rows; for weight gradients: blocks per row of blocks */
    int64_t hidden;
    int64_t inner;
    int64_t hidden_stride; /* of T rows of hidden elements: multiples of 8 where T is bf16 */
    int64_t inner_stride;
    const T *x;     /* [tokens, hidden] */
    const T *dy;    /* [tokens, hidden] */
    float *saved;   /* [rows, 2 inner] f32 gate|up, or NULL */
    T *h;           /* [rows, inner]: forward h; backward weight * h */
    T *d_pre;       /* [rows, 2 inner_stride]: d_gate at 0, d_up at inner_stride */
    T *out;         /* [rows, hidden]: expert outputs or input gradients */
    float *partial; /* [columns, row_capacity] dot(h, p) over a block's columns */
    int64_t row_capacity;
};

__device__ static inline void emo_put(float *p, float v) { *p = v; }
__device__ static inline void emo_put(__nv_bfloat16 *p, float v) { *p = __float2bfloat16(v); }
__device__ static inline float emo_get(const float *p) { return *p; }
__device__ static inline float emo_get(const __nv_bfloat16 *p) { return __bfloat162float(*p); }

/* A weight as a block holds it in registers. */
struct emo_x_matrix {
    const char *data;
    int64_t stride; /* bytes */
    int32_t dtype;
};

__device__ static inline emo_x_matrix emo_x_matrix_of(const emo_weight &w) {
    emo_x_matrix m = {(const char *)w.data, emo_run_bytes(w.dtype, w.stride), w.dtype};
    return m;
}

/* Where a block works, and the parts of its expert's slot that its product needs. */
struct emo_x_place {
    emo_x_matrix first_weight; /* gate, or down */
    emo_x_matrix up;
    float *first_gradient; /* d_gate, or d_down */
    float *d_up;
    int64_t first; /* row in plan order: of the tile, or of the expert for weight gradients */
    int32_t rows;
    int64_t m0; /* weight gradients: first row of the gradient's tile */
    int64_t n0;
    int64_t depth; /* length of the sums */
};

/* The columns of a product's result; the length of its sums. */
template <int KIND, class T>
__device__ static inline int64_t emo_x_columns(const emo_experts_job<T> &job) {
    return KIND == EMO_X_GATE_UP || KIND == EMO_X_DOWN_INPUT || KIND == EMO_X_WEIGHT_DOWN ? job.inner : job.hidden;
}
template <int KIND, class T>
__device__ static inline int64_t emo_x_depth(const emo_experts_job<T> &job) {
    return KIND == EMO_X_DOWN ? job.inner : KIND == EMO_X_INPUT ? 2 * job.inner_stride : job.hidden;
}

/* GATE_UP computes a column of gate and the same column of up in one thread: the tile's columns come in groups of
 * `width`, first half gate, second half up. Returns the column of the matrix, counted from the tile's first. */
__device__ static inline int emo_x_paired(int column, int width, int *up) {
    int part = column % width, each = width / 2;
    *up = part >= each;
    return column / width * each + part % each;
}

__device__ static inline float emo_x_sigmoid(float v) { return 1.0f / (1.0f + expf(-v)); }

/* gate and up of one element of a row. */
template <class T>
__device__ static inline void emo_x_activate(const emo_experts_job<T> &job, int64_t row, int64_t col, float gate,
                                             float up) {
    if (job.saved != NULL) {
        float *saved = job.saved + row * 2 * job.inner + col;
        saved[0] = gate;
        saved[job.inner] = up;
    }
    emo_put(job.h + row * job.inner_stride + col, gate * emo_x_sigmoid(gate) * up);
}

/* p = dot(dy, W_down column) of one element: h is computed again from what the forward pass saved. Returns h p. */
template <class T>
__device__ static inline float emo_x_activate_back(const emo_experts_job<T> &job, int64_t row, int64_t col, float w,
                                                   float p) {
    const float *saved = job.saved + row * 2 * job.inner + col;
    float gate = saved[0], up = saved[job.inner], sigma = emo_x_sigmoid(gate);
    float silu = gate * sigma, h = silu * up, dh = w * p;
    T *d_pre = job.d_pre + row * 2 * job.inner_stride + col;
    emo_put(d_pre, dh * up * (sigma * (1.0f + gate * (1.0f - sigma))));
    emo_put(d_pre + job.inner_stride, dh * silu);
    emo_put(job.h + row * job.inner_stride + col, w * h);
    return h * p;
}

/* Element (m, n) of a weight gradient: where it is added, NULL when it is not wanted. Rows of WEIGHT_UP are columns of
 * d_pre: gate's, then up's from inner_stride on. */
template <int KIND, class T>
__device__ static inline float *emo_x_gradient(const emo_experts_job<T> &job, const emo_x_place &at, int64_t m,
                                               int64_t n) {
    int64_t columns = emo_x_columns<KIND>(job);
    if (n >= columns)
        return NULL;
    if (KIND == EMO_X_WEIGHT_DOWN)
        return m < job.hidden ? at.first_gradient + m * columns + n : NULL;
    float *to = m < job.inner_stride ? at.first_gradient : at.d_up;
    int64_t row = m < job.inner_stride ? m : m - job.inner_stride;
    return to != NULL && row < job.inner ? to + row * columns + n : NULL;
}

/* The place of this block with tiles of bm rows and bn columns. False: there is nothing to do. */
template <int KIND, class T>
__device__ static inline bool emo_x_find(const emo_experts_job<T> &job, int bm, int bn, emo_x_place &at) {
    int64_t block = blockIdx.x;
    if (KIND == EMO_X_WEIGHT_UP || KIND == EMO_X_WEIGHT_DOWN) {
        int32_t expert = (int32_t)blockIdx.y;
        at.first = job.offsets[expert];
        at.rows = job.offsets[expert + 1] - (int32_t)at.first;
        if (at.rows == 0) /* its slot, which may be empty, is not looked at */
            return false;
        const emo_expert_slot *slot = job.slots + expert;
        at.first_gradient = KIND == EMO_X_WEIGHT_DOWN ? slot->d_down : slot->d_gate;
        at.d_up = KIND == EMO_X_WEIGHT_DOWN ? NULL : slot->d_up;
        at.m0 = block / job.columns * bm;
        at.n0 = block % job.columns * bn;
        at.depth = at.rows;
        if (KIND == EMO_X_WEIGHT_DOWN)
            return at.first_gradient != NULL;
        return (at.first_gradient != NULL && at.m0 < job.inner) || (at.d_up != NULL && at.m0 + bm > job.inner_stride);
    }
    emo_cuda_tile tile = job.tiles[block / job.columns];
    if (tile.group < 0)
        return false;
    const emo_expert_slot *slot = job.slots + tile.group;
    if (KIND == EMO_X_GATE_UP || KIND == EMO_X_INPUT) {
        at.first_weight = emo_x_matrix_of(slot->gate);
        at.up = emo_x_matrix_of(slot->up);
    } else {
        at.first_weight = emo_x_matrix_of(slot->down);
    }
    at.first = tile.first;
    at.rows = tile.rows;
    at.n0 = block % job.columns * (KIND == EMO_X_GATE_UP ? bn / 2 : bn);
    at.depth = emo_x_depth<KIND>(job);
    return true;
}

/* ---- steps around the products (experts_rows.cu) ---- */

/* Token and weight of every row in plan order, and its tiles of `step` rows, as scratch; for the phase RUN only the
 * tiles of experts that are there. */
emo_status emo_cuda_experts_lists(emo_exec *exec, const emo_experts_args *args, int32_t step, int32_t **token,
                                  float **weight, emo_cuda_tiles *tiles, emo_error *err);
/* bf16 copy of f32 rows, its stride rounded up to `stride`. */
emo_status emo_cuda_experts_narrow(emo_exec *exec, const float *x, int64_t rows, int64_t cols, int64_t stride,
                                   __nv_bfloat16 *out, emo_error *err);
/* y[t] (+)= sum_j weights[t,j] src[inverse[t,j]], weights NULL: 1. src is bf16 when `narrow`, else f32. */
emo_status emo_cuda_experts_combine(emo_exec *exec, const emo_experts_args *args, const float *weights, const void *src,
                                    int narrow, int64_t stride, float *y, int32_t accumulate, emo_error *err);
emo_status emo_cuda_experts_norms(emo_exec *exec, const emo_experts_args *args, const void *src, int narrow,
                                  int64_t stride, emo_error *err);
/* d_weights from the partial dots. */
emo_status emo_cuda_experts_dots(emo_exec *exec, const emo_experts_args *args, const float *partial, int64_t columns,
                                 int64_t capacity, emo_error *err);

/* ---- what both directions ask of the table ---- */

typedef struct emo_cuda_experts_shape {
    int narrow; /* compute in bf16 */
    int fast;   /* every loaded matrix is bf16 and aligned for 16-byte copies */
    int large;  /* tiles of 128 x 128 rather than 64 x 64 */
    int64_t rows;
    int64_t hidden_stride;
    int64_t inner_stride;
} emo_cuda_experts_shape;

emo_cuda_experts_shape emo_cuda_experts_shape_of(emo_exec *exec, const emo_experts_args *args);

#endif
