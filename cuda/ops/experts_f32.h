/* SPDX-License-Identifier: Apache-2.0 */
/* The products of experts.h in IEEE f32. */
#ifndef EMO_CUDA_OPS_EXPERTS_F32_H
#define EMO_CUDA_OPS_EXPERTS_F32_H

#include "ops/experts.h"
#include "ops/tile_f32.h"

/* Element (line m of the tile, step k) of the left operand. */
template <int KIND>
__device__ static inline float emo_xf_left(const emo_experts_job<float> &job, const emo_x_place &at, int m, int64_t k) {
    if (k >= at.depth)
        return 0.0f;
    if (KIND == EMO_X_WEIGHT_UP)
        return at.m0 + m < 2 * job.inner ? job.d_pre[(at.first + k) * 2 * job.inner + at.m0 + m] : 0.0f;
    if (KIND == EMO_X_WEIGHT_DOWN)
        return at.m0 + m < job.hidden ? job.dy[(int64_t)job.token[at.first + k] * job.hidden + at.m0 + m] : 0.0f;
    if (m >= at.rows)
        return 0.0f;
    int64_t row = at.first + m;
    if (KIND == EMO_X_GATE_UP)
        return job.x[(int64_t)job.token[row] * job.hidden + k];
    if (KIND == EMO_X_DOWN)
        return job.h[row * job.inner + k];
    if (KIND == EMO_X_DOWN_INPUT)
        return job.dy[(int64_t)job.token[row] * job.hidden + k];
    return job.d_pre[row * 2 * job.inner + k];
}

template <int KIND>
__device__ static inline float emo_xf_weight(const emo_x_matrix &w, int64_t row, int64_t col) {
    if (w.data == NULL)
        return 0.0f;
    return KIND == EMO_X_GATE_UP || KIND == EMO_X_DOWN ? emo_element(w.data + row * w.stride, w.dtype, col)
                                                       : emo_plain_element(w.data + row * w.stride, w.dtype, col);
}

/* Element (step k, column n of the tile) of the right operand. */
template <int KIND>
__device__ static inline float emo_xf_right(const emo_experts_job<float> &job, const emo_x_place &at, int n,
                                            int64_t k) {
    if (k >= at.depth)
        return 0.0f;
    if (KIND == EMO_X_GATE_UP) {
        int up;
        int64_t row = at.n0 + emo_x_paired(n, 4, &up);
        if (row >= job.inner)
            return 0.0f;
        return up ? emo_xf_weight<KIND>(at.up, row, k) : emo_xf_weight<KIND>(at.first_weight, row, k);
    }
    int64_t col = at.n0 + n;
    if (col >= emo_x_columns<KIND>(job))
        return 0.0f;
    if (KIND == EMO_X_DOWN)
        return emo_xf_weight<KIND>(at.first_weight, col, k);
    if (KIND == EMO_X_DOWN_INPUT)
        return emo_xf_weight<KIND>(at.first_weight, k, col);
    if (KIND == EMO_X_INPUT)
        return k < job.inner ? emo_xf_weight<KIND>(at.first_weight, k, col)
                             : emo_xf_weight<KIND>(at.up, k - job.inner, col);
    if (KIND == EMO_X_WEIGHT_UP)
        return job.x[(int64_t)job.token[at.first + k] * job.hidden + col];
    return job.h[(at.first + k) * job.inner + col];
}

template <int KIND>
__device__ static inline void emo_xf_finish(const emo_experts_job<float> &job, const emo_x_place &at,
                                            const float (&acc)[4][4]) {
    int tx = (int)(threadIdx.x & 15u), ty = (int)(threadIdx.x >> 4);
    int64_t columns = emo_x_columns<KIND>(job);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int line = ty * 4 + i, inside = line < at.rows;
        int64_t row = at.first + line;
        float dot = 0.0f, w = KIND == EMO_X_DOWN_INPUT && inside ? job.weight[row] : 0.0f;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t n = at.n0 + tx * 4 + j;
            if (KIND == EMO_X_WEIGHT_UP || KIND == EMO_X_WEIGHT_DOWN) {
                float *to = emo_x_gradient<KIND>(job, at, at.m0 + line, n);
                if (to != NULL)
                    *to += acc[i][j];
            } else if (KIND == EMO_X_GATE_UP) { /* columns 0, 1 of a group of four are gate, 2, 3 up */
                n = at.n0 + tx * 2 + j;
                if (j < 2 && inside && n < columns)
                    emo_x_activate(job, row, n, acc[i][j & 1], acc[i][(j & 1) + 2]);
            } else if (KIND == EMO_X_DOWN_INPUT) {
                if (inside && n < columns)
                    dot += emo_x_activate_back(job, row, n, w, acc[i][j]);
            } else if (inside && n < columns) {
                job.out[row * job.hidden + n] = acc[i][j];
            }
        }
        if (KIND == EMO_X_DOWN_INPUT) {
            for (int offset = 8; offset > 0; offset >>= 1) /* the sixteen threads of a row */
                dot += __shfl_xor_sync(EMO_FULL_WARP, dot, offset);
            if (inside && tx == 0)
                job.partial[(int64_t)blockIdx.x % job.columns * job.row_capacity + row] = dot;
        }
    }
}

template <int KIND>
__global__ static void __launch_bounds__(EMO_TILE_BLOCK, 1) experts_f32_k(emo_experts_job<float> job) {
    constexpr bool A_STEPS = KIND == EMO_X_WEIGHT_UP || KIND == EMO_X_WEIGHT_DOWN;
    constexpr bool B_STEPS = KIND != EMO_X_GATE_UP && KIND != EMO_X_DOWN;
    EMO_SHARED(float, left, EMO_TILE_ROOM);
    EMO_SHARED(float, right, EMO_TILE_ROOM);
    emo_x_place at;
    if (!emo_x_find<KIND>(job, EMO_TILE, EMO_TILE, at))
        return;
    float acc[4][4];
    emo_tile_f32<A_STEPS, B_STEPS>(
        at.depth, [&](int m, int64_t k) { return emo_xf_left<KIND>(job, at, m, k); },
        [&](int n, int64_t k) { return emo_xf_right<KIND>(job, at, n, k); }, left, right, acc);
    emo_xf_finish<KIND>(job, at, acc);
}

#endif
