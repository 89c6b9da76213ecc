/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/product.h"

#include "ops/fragments.h"
#include "ops/tile_f32.h"

/* Blocks of a launch are numbered along the columns of C first. */
__device__ static inline int64_t tile_row(const emo_gemm_args &g, int64_t tile) {
    return (int64_t)blockIdx.x / emo_ceil_div(g.n, tile) * tile;
}
__device__ static inline int64_t tile_column(const emo_gemm_args &g, int64_t tile) {
    return (int64_t)blockIdx.x % emo_ceil_div(g.n, tile) * tile;
}

__device__ static inline void put(const emo_gemm_args &g, int64_t row, int64_t col, float sum) {
    if (row >= g.m || col >= g.n)
        return;
    float *c = g.c + row * g.ldc + col;
    *c = g.beta != 0.0f ? g.alpha * sum + g.beta * *c : g.alpha * sum;
}

/* ---- f32 ---- */

template <bool TRANS_A, bool TRANS_B>
__global__ static void __launch_bounds__(EMO_TILE_BLOCK, 1) product_f32_k(emo_gemm_args g) {
    EMO_SHARED(float, left, EMO_TILE_ROOM);
    EMO_SHARED(float, right, EMO_TILE_ROOM);
    int64_t m0 = tile_row(g, EMO_TILE), n0 = tile_column(g, EMO_TILE);
    float acc[4][4];
    emo_tile_f32<TRANS_A, !TRANS_B>(
        g.k,
        [&](int i, int64_t k) {
            if (m0 + i >= g.m || k >= g.k)
                return 0.0f;
            return TRANS_A ? g.a[k * g.lda + m0 + i] : g.a[(m0 + i) * g.lda + k];
        },
        [&](int j, int64_t k) {
            if (n0 + j >= g.n || k >= g.k)
                return 0.0f;
            return TRANS_B ? emo_element((const char *)g.b + emo_run_bytes(g.b_dtype, (n0 + j) * g.ldb), g.b_dtype, k)
                           : emo_plain_element(g.b, g.b_dtype, k * g.ldb + n0 + j);
        },
        left, right, acc);
    int tx = (int)(threadIdx.x & 15u), ty = (int)(threadIdx.x >> 4);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            put(g, m0 + ty * 4 + i, n0 + tx * 4 + j, acc[i][j]);
}

/* ---- bf16: 64 x 64 in steps of 32, four warps of 32 x 32 ---- */

enum { SIDE = 64, DEPTH = 32, WARPS = 4, WIDE = 32, CHUNKS = SIDE * DEPTH / 8, EACH = CHUNKS / (WARPS * 32) };

/* Chunks of one operand for one step, as this thread takes part in them: loaded into registers while the step before is
 * multiplied, then rounded into shared memory. STEPS: lines of the operand are steps of the sum. */
template <bool STEPS>
struct operand_part {
    static constexpr int CH = STEPS ? SIDE / 8 : DEPTH / 8;
    const char *data;
    int64_t ld, first, count, depth; /* the tile's first line of `count`; the length of the sum */
    int32_t dtype;
    float v[EACH][8];

    __device__ inline void load(int64_t k0) {
#pragma unroll
        for (int q = 0; q < EACH; q++) {
            int i = (int)threadIdx.x + q * WARPS * 32, r = i / CH, c = i % CH * 8;
            int64_t line = STEPS ? k0 + r : first + r, col = STEPS ? first + c : k0 + c;
            int valid = line < (STEPS ? depth : count) ? emo_valid8(col, STEPS ? count : depth) : 0;
            emo_fetch8<!STEPS>(data + emo_run_bytes(dtype, line * ld), dtype, col, valid, v[q]);
        }
    }
    __device__ inline void store(__nv_bfloat16 *shared) const {
#pragma unroll
        for (int q = 0; q < EACH; q++) {
            int i = (int)threadIdx.x + q * WARPS * 32;
            *(uint4 *)(shared + emo_swizzle<CH>(i / CH, i % CH)) = emo_narrow8(v[q]);
        }
    }
};

template <bool TRANS_A, bool TRANS_B>
__global__ static void __launch_bounds__(WARPS * 32, 1) product_bf16_k(emo_gemm_args g, int32_t a_dtype) {
    EMO_SHARED(__nv_bfloat16, left, 2 * SIDE * DEPTH);
    EMO_SHARED(__nv_bfloat16, right, 2 * SIDE * DEPTH);
    int64_t m0 = tile_row(g, SIDE), n0 = tile_column(g, SIDE);
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5), wm = warp / 2 * WIDE, wn = warp % 2 * WIDE;
    operand_part<TRANS_A> a;
    operand_part<!TRANS_B> b;
    a.data = (const char *)g.a, a.ld = g.lda, a.first = m0, a.count = g.m, a.depth = g.k, a.dtype = a_dtype;
    b.data = (const char *)g.b, b.ld = g.ldb, b.first = n0, b.count = g.n, b.depth = g.k, b.dtype = g.b_dtype;
    float acc[WIDE / 16][WIDE / 8][4] = {};
    a.load(0);
    b.load(0);
    int slot = 0; /* of shared memory: while one is multiplied, the other is filled */
    for (int64_t k0 = 0; k0 < g.k; k0 += DEPTH, slot ^= 1) {
        __nv_bfloat16 *sa = left + slot * SIDE * DEPTH, *sb = right + slot * SIDE * DEPTH;
        a.store(sa);
        b.store(sb);
        __syncthreads();
        if (k0 + DEPTH < g.k) {
            a.load(k0 + DEPTH);
            b.load(k0 + DEPTH);
        }
#pragma unroll
        for (int h16 = 0; h16 < DEPTH / 16; h16++) {
            uint32_t fa[WIDE / 16][4], fb[WIDE / 8][2];
            emo_left_fragments<TRANS_A, operand_part<TRANS_A>::CH>(sa, wm, h16, lane, fa);
            emo_right_fragments<!TRANS_B, operand_part<!TRANS_B>::CH>(sb, wn, h16, lane, fb);
            emo_mma_tile(acc, fa, fb);
        }
    }
#pragma unroll
    for (int i = 0; i < WIDE / 16; i++)
#pragma unroll
        for (int j = 0; j < WIDE / 8; j++)
#pragma unroll
            for (int q = 0; q < 4; q++)
                put(g, m0 + wm + i * 16 + (lane >> 2) + q / 2 * 8, n0 + wn + j * 8 + (lane & 3) * 2 + q % 2,
                    acc[i][j][q]);
}

/* ---- launching ---- */

template <bool TRANS_A, bool TRANS_B>
static cudaError_t launch(const emo_gemm_args &g, emo_dtype a_dtype, int bf16, unsigned blocks,
                          const emo_queue &stream) {
    return bf16 ? EMO_LAUNCH((product_bf16_k<TRANS_A, TRANS_B>), blocks, WARPS * 32, 0, stream, g, a_dtype)
                : EMO_LAUNCH((product_f32_k<TRANS_A, TRANS_B>), blocks, EMO_TILE_BLOCK, 0, stream, g);
}

emo_status emo_cuda_product(emo_exec *exec, const emo_gemm_args *args, emo_dtype a_dtype, int bf16, emo_error *err) {
    static_assert((int)SIDE == (int)EMO_TILE, "both kernels cut C the same way");
    int64_t rows = emo_ceil_div(args->m, EMO_TILE), columns = emo_ceil_div(args->n, EMO_TILE);
    emo_queue stream = emo_cuda_stream(exec);
    if (rows > INT32_MAX / columns)
        return emo_cuda_unsupported(err, "launch this many blocks of a product at once: the limit is 2^31 - 1");
    unsigned blocks = (unsigned)(rows * columns);
    cudaError_t launched;
    if (args->trans_a)
        launched = args->trans_b ? launch<true, true>(*args, a_dtype, bf16, blocks, stream)
                                 : launch<true, false>(*args, a_dtype, bf16, blocks, stream);
    else
        launched = args->trans_b ? launch<false, true>(*args, a_dtype, bf16, blocks, stream)
                                 : launch<false, false>(*args, a_dtype, bf16, blocks, stream);
    return emo_cuda_launched(launched, "a matrix product", err);
}
