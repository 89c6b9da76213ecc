/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped products in f32, for shapes and types without a kernel of their own. Rows of a group lie together; where
 * groups begin is known on the device alone, so the grid has room for every way to cut them, and blocks without a tile
 * leave at once. */
#include "experts_table.h"
#include "kernel.h"
#include "ops.h"
#include "ops/tile_f32.h"

/* One tile of a group's result [rows, cols], its sums `depth` long. */
typedef struct group_tile {
    int64_t i0, j0;
    int64_t rows, cols;
    int64_t depth;
} group_tile;

/* c[i, j] (+)= the sums of the tile. */
__device__ static void put_tile(const group_tile &t, const float (&acc)[4][4], float *c, int64_t ldc, int accumulate) {
    int tx = (int)(threadIdx.x & 15u), ty = (int)(threadIdx.x >> 4);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int64_t row = t.i0 + ty * 4 + i, col = t.j0 + tx * 4 + j;
            if (row < t.rows && col < t.cols) {
                float *at = &c[row * ldc + col];
                *at = accumulate ? *at + acc[i][j] : acc[i][j];
            }
        }
}

__device__ static const emo_weight *slot_weight(const emo_expert_slot *slot, int32_t which) {
    return which == EMO_SLOT_GATE ? &slot->gate : which == EMO_SLOT_UP ? &slot->up : &slot->down;
}

/* The group whose tile number `tile` is, over groups in order; -1 past the last. *tile becomes its number inside. */
__device__ static int32_t find_group(const int32_t *offsets, int32_t groups, int64_t *tile) {
    for (int32_t g = 0; g < groups; g++) {
        int64_t tiles = (offsets[g + 1] - offsets[g] + EMO_TILE - 1) / EMO_TILE;
        if (*tile < tiles)
            return g;
        *tile -= tiles;
    }
    return -1;
}

template <bool FORWARD>
__global__ static void __launch_bounds__(EMO_TILE_BLOCK, 1)
    grouped_rows_kernel(emo_grouped_gemm_args a, const emo_expert_slot *slots) {
    EMO_SHARED(float, left, EMO_TILE_ROOM);
    EMO_SHARED(float, right, EMO_TILE_ROOM);
    int64_t tile = blockIdx.x;
    int32_t g = find_group(a.offsets, a.groups, &tile);
    if (g < 0)
        return;
    const emo_weight w = *slot_weight(&slots[g], a.slot);
    int64_t first = a.offsets[g];
    group_tile t = {tile * EMO_TILE, (int64_t)blockIdx.y * EMO_TILE, a.offsets[g + 1] - first,
                    FORWARD ? w.rows : w.cols, FORWARD ? w.cols : w.rows};
    if (t.j0 >= t.cols || w.data == NULL)
        return;
    const float *x = a.a + first * a.lda;
    float acc[4][4];
    emo_tile_f32<false, !FORWARD>(
        t.depth, [&](int i, int64_t k) { return t.i0 + i < t.rows && k < t.depth ? x[(t.i0 + i) * a.lda + k] : 0.0f; },
        [&](int j, int64_t k) {
            if (t.j0 + j >= t.cols || k >= t.depth)
                return 0.0f;
            return FORWARD ? emo_element(w.data, w.dtype, (t.j0 + j) * w.stride + k)
                           : emo_element(w.data, w.dtype, k * w.stride + t.j0 + j);
        },
        left, right, acc);
    put_tile(t, acc, a.c + first * a.ldc, a.ldc, a.accumulate);
}

__global__ static void __launch_bounds__(EMO_TILE_BLOCK, 1)
    grouped_weight_kernel(emo_grouped_gemm_args a, const emo_expert_slot *slots) {
    EMO_SHARED(float, left, EMO_TILE_ROOM);
    EMO_SHARED(float, right, EMO_TILE_ROOM);
    const emo_expert_slot *slot = &slots[blockIdx.z];
    const emo_weight *w = slot_weight(slot, a.slot);
    float *gradient = a.slot == EMO_SLOT_GATE ? slot->d_gate : a.slot == EMO_SLOT_UP ? slot->d_up : slot->d_down;
    int64_t first = a.offsets[blockIdx.z];
    group_tile t = {(int64_t)blockIdx.y * EMO_TILE, (int64_t)blockIdx.x * EMO_TILE, w->rows, w->cols,
                    a.offsets[blockIdx.z + 1] - first};
    if (gradient == NULL || t.depth <= 0 || t.i0 >= t.rows || t.j0 >= t.cols)
        return;
    const float *x = a.a + first * a.lda, *y = a.b + first * a.ldb;
    float acc[4][4];
    emo_tile_f32<true, true>(
        t.depth, [&](int i, int64_t k) { return t.i0 + i < t.rows && k < t.depth ? x[k * a.lda + t.i0 + i] : 0.0f; },
        [&](int j, int64_t k) { return t.j0 + j < t.cols && k < t.depth ? y[k * a.ldb + t.j0 + j] : 0.0f; }, left,
        right, acc);
    put_tile(t, acc, gradient, t.cols, 1);
}

emo_status emo_cuda_grouped_gemm(emo_exec *exec, const emo_grouped_gemm_args *args, emo_error *err) {
    emo_queue stream = emo_cuda_stream(exec);
    const emo_cuda_table *table = emo_cuda_table_of(&args->table);
    if (args->groups <= 0 || args->max_rows <= 0)
        return EMO_OK;
    if (table == NULL || args->groups > table->count)
        return emo_cuda_fail(err, EMO_E_INTERNAL,
                             "a grouped product over %d groups has a table of %d experts that is %s in device memory",
                             (int)args->groups, (int)args->table.count, table != NULL ? "there" : "not");
    const emo_expert_slot *slots = table->slots;
    int64_t rows = table->rows[args->slot], cols = table->cols[args->slot];
    if (rows <= 0 || cols <= 0)
        return EMO_OK;
    if (args->mode == EMO_GROUPED_WGRAD) {
        dim3 grid(emo_blocks(cols, EMO_TILE), emo_blocks(rows, EMO_TILE), (unsigned)args->groups);
        return emo_cuda_launched(EMO_LAUNCH((grouped_weight_kernel), grid, EMO_TILE_BLOCK, 0, stream, *args, slots),
                                 "grouped_weight", err);
    }
    int forward = args->mode == EMO_GROUPED_FORWARD;
    dim3 grid(emo_blocks(args->max_rows, EMO_TILE) + (unsigned)args->groups,
              emo_blocks(forward ? rows : cols, EMO_TILE));
    cudaError_t launched =
        forward ? EMO_LAUNCH((grouped_rows_kernel<true>), grid, EMO_TILE_BLOCK, 0, stream, *args, slots)
                : EMO_LAUNCH((grouped_rows_kernel<false>), grid, EMO_TILE_BLOCK, 0, stream, *args, slots);
    return emo_cuda_launched(launched, "grouped_rows", err);
}
