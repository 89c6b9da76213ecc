/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/few_rows.h"

#include "kernel.h"

enum { ROWS = 8, WARPS = 8 };

/* A warp per row of W: a lane takes eight neighbours at a time, 256 apart, and multiplies them with every row of x. */
__global__ static void __launch_bounds__(WARPS * 32) few_rows_k(emo_gemm_args g) {
    int64_t n = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    int lane = (int)(threadIdx.x & 31u);
    if (n >= g.n)
        return;
    const char *w = (const char *)g.b + emo_run_bytes(g.b_dtype, n * g.ldb);
    float sum[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; r++)
        sum[r] = 0.0f;
    for (int64_t k = lane * 8; k < g.k; k += 256) {
        float v[8];
        emo_dequantise<8>(w, g.b_dtype, k, v);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            if (r < g.m) {
                const float *x = g.a + r * g.lda + k;
#pragma unroll
                for (int j = 0; j < 8; j++)
                    sum[r] = fmaf(x[j], v[j], sum[r]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        if (r >= g.m)
            break;
        float all = g.alpha * emo_warp_sum(sum[r]);
        if (lane == 0) {
            float *c = g.c + r * g.ldc + n;
            *c = g.beta != 0.0f ? all + g.beta * *c : all;
        }
    }
}

int emo_cuda_few_rows_takes(const emo_gemm_args *args) {
    return emo_is_quantised(args->b_dtype) && args->trans_b && !args->trans_a && args->m <= ROWS;
}

emo_status emo_cuda_few_rows(emo_exec *exec, const emo_gemm_args *args, emo_error *err) {
    return emo_cuda_launched(
        EMO_LAUNCH(few_rows_k, emo_blocks(args->n, WARPS), WARPS * 32, 0, emo_cuda_stream(exec), *args),
        "a product with a quantised weight", err);
}
