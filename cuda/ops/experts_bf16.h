/* SPDX-License-Identifier: Apache-2.0 */
/* The products of experts.h on tensor cores: mma.sync m16n8k16, bf16 in, f32 sums.
 *
 * A block computes BM x BN in steps of 32 along the sum. Operands pass through STAGES slots of shared memory: cp.async
 * fills the slot of step s + STAGES - 1 while step s is multiplied. fragments.h says how operands lie there.
 * Weights that are not bf16, or not aligned, cannot be copied so: they are loaded into registers before
 * the multiplication of a step and converted into the slot after it, so that the loads' latency is hidden too. */
#ifndef EMO_CUDA_OPS_EXPERTS_BF16_H
#define EMO_CUDA_OPS_EXPERTS_BF16_H

#include "ops/experts.h"
#include "ops/fragments.h"

template <int BM_, int BN_, int WM_, int WN_, int STAGES_>
struct emo_x_tile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_, BK = 32;
    static constexpr int MI = WM / 16, NJ = WN / 8, WARPS_N = BN / WN;
    static constexpr int THREADS = BM / WM * WARPS_N * 32;
    static constexpr int SHARED = STAGES * (BM + BN) * BK * 2; /* bytes */
};
typedef emo_x_tile<128, 128, 64, 32, 4> emo_x_large;
typedef emo_x_tile<64, 64, 32, 32, 4> emo_x_small;

/* A line of the left operand: its first element and how many there are; NULL: zeros. `line` is a row of the tile, or a
 * step of the sum for weight gradients. */
template <int KIND>
__device__ static inline const __nv_bfloat16 *emo_x_left(const emo_experts_job<__nv_bfloat16> &job,
                                                         const emo_x_place &at, int64_t line) {
    if (line >= at.rows)
        return NULL;
    int64_t row = at.first + line;
    if (KIND == EMO_X_GATE_UP)
        return job.x + (int64_t)job.token[row] * job.hidden_stride;
    if (KIND == EMO_X_DOWN)
        return job.h + row * job.inner_stride;
    if (KIND == EMO_X_DOWN_INPUT || KIND == EMO_X_WEIGHT_DOWN)
        return job.dy + (int64_t)job.token[row] * job.hidden_stride;
    return job.d_pre + row * 2 * job.inner_stride;
}

/* A line of a weight: a row of it (GATE_UP, DOWN), or a step of the sum (DOWN_INPUT, INPUT). */
template <int KIND, class S>
__device__ static inline const char *emo_x_weight(const emo_experts_job<__nv_bfloat16> &job, const emo_x_place &at,
                                                  int64_t line, int32_t *dtype) {
    int64_t row = KIND == EMO_X_DOWN ? at.n0 + line : line;
    int up = 0;
    if (KIND == EMO_X_GATE_UP) {
        row = at.n0 + emo_x_paired((int)line, S::WN, &up);
    } else if (KIND == EMO_X_INPUT) { /* steps of the sum are counted in d_pre's padded halves */
        up = line >= job.inner_stride;
        row = up ? line - job.inner_stride : line;
    }
    const char *data = up ? at.up.data : at.first_weight.data;
    *dtype = up ? at.up.dtype : at.first_weight.dtype;
    if (data == NULL || row >= (KIND == EMO_X_GATE_UP || KIND == EMO_X_INPUT ? job.inner : job.hidden))
        return NULL;
    return data + row * (up ? at.up.stride : at.first_weight.stride);
}

/* The right operand of a weight gradient: step `line` of the sum. */
template <int KIND>
__device__ static inline const __nv_bfloat16 *emo_x_right(const emo_experts_job<__nv_bfloat16> &job,
                                                          const emo_x_place &at, int64_t line) {
    if (line >= at.rows)
        return NULL;
    int64_t row = at.first + line;
    return KIND == EMO_X_WEIGHT_UP ? job.x + (int64_t)job.token[row] * job.hidden_stride
                                   : job.h + row * job.inner_stride;
}

/* Two neighbours in one store where they lie right for it. */
__device__ static inline void emo_x_add2(float *p, float a, float b) {
    if (((uintptr_t)p & 7u) == 0) {
        float2 v = *(float2 *)p;
        v.x += a;
        v.y += b;
        *(float2 *)p = v;
    } else {
        p[0] += a;
        p[1] += b;
    }
}

/* What becomes of the sums: acc[i][j][2 h + q] is row 16 i + lane / 4 + 8 h, column 8 j + 2 (lane % 4) + q of the
 * warp's part. `red`: shared memory, no longer in use. */
template <int KIND, class S>
__device__ static inline void emo_x_finish(const emo_experts_job<__nv_bfloat16> &job, const emo_x_place &at,
                                           float (&acc)[S::MI][S::NJ][4], float *red) {
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5);
    int wm = warp / S::WARPS_N * S::WM, wn = warp % S::WARPS_N * S::WN;
    int64_t columns = emo_x_columns<KIND>(job);
#pragma unroll
    for (int i = 0; i < S::MI; i++) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int line = wm + i * 16 + (lane >> 2) + h * 8;
            if (KIND == EMO_X_WEIGHT_UP || KIND == EMO_X_WEIGHT_DOWN) {
#pragma unroll
                for (int j = 0; j < S::NJ; j++) {
                    int64_t n = at.n0 + wn + j * 8 + (lane & 3) * 2;
                    float *to = emo_x_gradient<KIND>(job, at, at.m0 + line, n);
                    if (to != NULL && n + 1 < columns)
                        emo_x_add2(to, acc[i][j][2 * h], acc[i][j][2 * h + 1]);
                    else if (to != NULL)
                        *to += acc[i][j][2 * h];
                }
                continue;
            }
            int inside = line < at.rows;
            int64_t row = at.first + line;
            if (KIND == EMO_X_GATE_UP) {
#pragma unroll
                for (int j = 0; j < S::NJ / 2; j++) {
                    int64_t n = at.n0 + wn / 2 + j * 8 + (lane & 3) * 2;
#pragma unroll
                    for (int q = 0; q < 2; q++) {
                        if (inside && n + q < columns)
                            emo_x_activate(job, row, n + q, acc[i][j][2 * h + q], acc[i][j + S::NJ / 2][2 * h + q]);
                    }
                }
            } else if (KIND == EMO_X_DOWN_INPUT) {
                float dot = 0.0f, w = inside ? job.weight[row] : 0.0f;
#pragma unroll
                for (int j = 0; j < S::NJ; j++) {
                    int64_t n = at.n0 + wn + j * 8 + (lane & 3) * 2;
#pragma unroll
                    for (int q = 0; q < 2; q++) {
                        if (inside && n + q < columns)
                            dot += emo_x_activate_back(job, row, n + q, w, acc[i][j][2 * h + q]);
                    }
                }
                dot += __shfl_xor_sync(EMO_FULL_WARP, dot, 1);
                dot += __shfl_xor_sync(EMO_FULL_WARP, dot, 2);
                if ((lane & 3) == 0)
                    red[wn / S::WN * S::BM + line] = dot;
            } else {
#pragma unroll
                for (int j = 0; j < S::NJ; j++) {
                    int64_t n = at.n0 + wn + j * 8 + (lane & 3) * 2;
                    __nv_bfloat16 *to = job.out + row * job.hidden_stride + n;
                    if (inside && n < job.hidden_stride) /* the padding gets zeros */
                        *(uint32_t *)to = emo_pack_bf16(acc[i][j][2 * h], acc[i][j][2 * h + 1]);
                }
            }
        }
    }
    if (KIND == EMO_X_DOWN_INPUT) {
        __syncthreads();
        for (int line = (int)threadIdx.x; line < at.rows; line += S::THREADS) {
            float dot = red[line];
            for (int w = 1; w < S::WARPS_N; w++)
                dot += red[w * S::BM + line];
            job.partial[(int64_t)blockIdx.x % job.columns * job.row_capacity + at.first + line] = dot;
        }
    }
}

template <int KIND, class S, bool FAST>
__global__ static void __launch_bounds__(S::THREADS) experts_bf16_k(emo_experts_job<__nv_bfloat16> job) {
    constexpr bool GRADIENT = KIND == EMO_X_WEIGHT_UP || KIND == EMO_X_WEIGHT_DOWN;
    constexpr bool A_STEPS = GRADIENT, B_STEPS = KIND != EMO_X_GATE_UP && KIND != EMO_X_DOWN;
    constexpr int A_CH = A_STEPS ? S::BM / 8 : S::BK / 8, B_CH = B_STEPS ? S::BN / 8 : S::BK / 8;
    constexpr int A_EACH = S::BM * S::BK / 8 / S::THREADS, B_EACH = S::BN * S::BK / 8 / S::THREADS;
    EMO_DYN_SHARED(__nv_bfloat16, shared);
    emo_x_place at;
    if (!emo_x_find<KIND>(job, S::BM, S::BN, at))
        return;
    int tid = (int)threadIdx.x, lane = tid & 31, warp = tid >> 5;
    int wm = warp / S::WARPS_N * S::WM, wn = warp % S::WARPS_N * S::WN;
    __nv_bfloat16 *left = shared, *right = shared + S::STAGES * S::BM * S::BK;
    int64_t columns = emo_x_columns<KIND>(job), steps = emo_ceil_div(at.depth, S::BK);
    int64_t most_m = KIND == EMO_X_WEIGHT_UP ? 2 * job.inner_stride : job.hidden;
    float acc[S::MI][S::NJ][4], late[FAST || GRADIENT ? 1 : B_EACH][8];
#pragma unroll
    for (int i = 0; i < S::MI; i++)
#pragma unroll
        for (int j = 0; j < S::NJ; j++)
#pragma unroll
            for (int q = 0; q < 4; q++)
                acc[i][j][q] = 0.0f;

    /* Lines that are rows stay the same from step to step: their addresses are kept. */
    const __nv_bfloat16 *a_line[A_STEPS ? 1 : A_EACH];
    const char *b_line[B_STEPS ? 1 : B_EACH];
    int32_t b_type[B_STEPS ? 1 : B_EACH];
    if (!A_STEPS) {
#pragma unroll
        for (int q = 0; q < A_EACH; q++)
            a_line[A_STEPS ? 0 : q] = emo_x_left<KIND>(job, at, (tid + q * S::THREADS) / A_CH);
    }
    if (!B_STEPS) {
#pragma unroll
        for (int q = 0; q < B_EACH; q++) {
            b_type[B_STEPS ? 0 : q] = EMO_DTYPE_BF16;
            b_line[B_STEPS ? 0 : q] =
                emo_x_weight<KIND, S>(job, at, (tid + q * S::THREADS) / B_CH, &b_type[B_STEPS ? 0 : q]);
        }
    }
    auto copy_left = [&](int64_t step) {
        __nv_bfloat16 *slot = left + step % S::STAGES * (S::BM * S::BK);
#pragma unroll
        for (int q = 0; q < A_EACH; q++) {
            int i = tid + q * S::THREADS, r = i / A_CH, c = i % A_CH;
            const __nv_bfloat16 *line = A_STEPS ? emo_x_left<KIND>(job, at, step * S::BK + r) : a_line[A_STEPS ? 0 : q];
            int64_t col = A_STEPS ? at.m0 + c * 8 : step * S::BK + c * 8;
            int valid = line != NULL ? emo_valid8(col, A_STEPS ? most_m : at.depth) : 0;
            emo_cp_async16(slot + emo_swizzle<A_CH>(r, c), valid > 0 ? line + col : job.x, valid * 2);
        }
    };
    /* what: 0 copies, 1 loads into `late`, 2 stores `late` */
    auto copy_right = [&](int64_t step, int what) {
        __nv_bfloat16 *slot = right + step % S::STAGES * (S::BN * S::BK);
#pragma unroll
        for (int q = 0; q < B_EACH; q++) {
            int i = tid + q * S::THREADS, r = i / B_CH, c = i % B_CH;
            __nv_bfloat16 *to = slot + emo_swizzle<B_CH>(r, c);
            if (!FAST && !GRADIENT && what == 2) {
                uint4 packed = emo_narrow8(late[FAST || GRADIENT ? 0 : q]);
                *(uint4 *)to = packed;
                continue;
            }
            int64_t col = B_STEPS ? at.n0 + c * 8 : step * S::BK + c * 8;
            int32_t type = EMO_DTYPE_BF16;
            const char *line;
            if (GRADIENT) {
                line = (const char *)emo_x_right<KIND>(job, at, step * S::BK + r);
            } else if (B_STEPS) {
                line = emo_x_weight<KIND, S>(job, at, step * S::BK + r, &type);
            } else {
                line = b_line[B_STEPS ? 0 : q];
                type = b_type[B_STEPS ? 0 : q];
            }
            int valid = line != NULL ? emo_valid8(col, B_STEPS ? columns : at.depth) : 0;
            if (FAST || GRADIENT)
                emo_cp_async16(to, valid > 0 ? line + col * 2 : (const char *)job.x, valid * 2);
            else
                emo_fetch8<!B_STEPS>(line, type, col, valid, late[FAST || GRADIENT ? 0 : q]);
        }
    };
    constexpr bool LATE = !FAST && !GRADIENT;
#pragma unroll
    for (int s = 0; s < S::STAGES - 1; s++) {
        if (s < steps) {
            copy_left(s);
            copy_right(s, LATE ? 1 : 0);
            if (LATE)
                copy_right(s, 2);
        }
        emo_cp_commit();
    }
    for (int64_t step = 0; step < steps; step++) {
        int64_t next = step + S::STAGES - 1;
        emo_cp_wait<S::STAGES - 2>();
        __syncthreads();
        if (next < steps) {
            copy_left(next);
            copy_right(next, LATE ? 1 : 0);
        }
        emo_cp_commit();
        const __nv_bfloat16 *sa = left + step % S::STAGES * (S::BM * S::BK);
        const __nv_bfloat16 *sb = right + step % S::STAGES * (S::BN * S::BK);
#pragma unroll
        for (int h16 = 0; h16 < S::BK / 16; h16++) {
            uint32_t a[S::MI][4], b[S::NJ][2];
            emo_left_fragments<A_STEPS, A_CH>(sa, wm, h16, lane, a);
            emo_right_fragments<B_STEPS, B_CH>(sb, wn, h16, lane, b);
            emo_mma_tile(acc, a, b);
        }
        if (LATE && next < steps)
            copy_right(next, 2);
    }
    emo_cp_wait<0>();
    __syncthreads();
    emo_x_finish<KIND, S>(job, at, acc, (float *)shared);
}

#endif
