/* SPDX-License-Identifier: Apache-2.0 */
/* Grouped products in f32, for shapes and types without a kernel of their own: 32 x 32 tiles in shared memory. Rows of
 * a group lie together; where groups begin is known on the device alone, so the grid has room for every way to cut
 * them, and blocks without a tile leave at once. */
#include "kernel.h"
#include "ops.h"

enum { TILE = 32, DEPTH = 16, SIDE = 8, PER_THREAD = TILE / SIDE, THREADS = SIDE * SIDE };

/* [rows, depth] elements of an operand: element (i, k) lies at data[i * row + k * col]. */
typedef struct tile_operand {
    const void *data;
    int32_t dtype;
    int64_t row, col;
    int64_t rows;
} tile_operand;

__device__ static void load_tile(const tile_operand &o, int64_t i0, int64_t k0, int64_t depth,
                                 float (*tile)[TILE + 1]) {
    for (int n = (int)threadIdx.x; n < TILE * DEPTH; n += THREADS) {
        /* neighbours in memory for neighbouring threads */
        int i = o.col == 1 ? n / DEPTH : n % TILE, k = o.col == 1 ? n % DEPTH : n / TILE;
        int inside = i0 + i < o.rows && k0 + k < depth;
        tile[k][i] = inside ? emo_element(o.data, o.dtype, (i0 + i) * o.row + (k0 + k) * o.col) : 0.0f;
    }
}

/* c[i, j] (+)= sum_k a(i, k) b(j, k) for one tile; the sum goes over k ascending. */
__device__ static void multiply_tile(const tile_operand &a, const tile_operand &b, int64_t depth, int64_t i0,
                                     int64_t j0, float *c, int64_t ldc, int accumulate, float (*left)[TILE + 1],
                                     float (*right)[TILE + 1]) {
    float sum[PER_THREAD][PER_THREAD];
    int ti = (int)threadIdx.x / SIDE, tj = (int)threadIdx.x % SIDE;
    for (int i = 0; i < PER_THREAD; i++)
        for (int j = 0; j < PER_THREAD; j++)
            sum[i][j] = 0.0f;
    for (int64_t k0 = 0; k0 < depth; k0 += DEPTH) {
        load_tile(a, i0, k0, depth, left);
        load_tile(b, j0, k0, depth, right);
        __syncthreads();
        for (int k = 0; k < DEPTH; k++)
            for (int i = 0; i < PER_THREAD; i++)
                for (int j = 0; j < PER_THREAD; j++)
                    sum[i][j] += left[k][ti + i * SIDE] * right[k][tj + j * SIDE];
        __syncthreads();
    }
    for (int i = 0; i < PER_THREAD; i++)
        for (int j = 0; j < PER_THREAD; j++) {
            int64_t row = i0 + ti + i * SIDE, col = j0 + tj + j * SIDE;
            if (row < a.rows && col < b.rows) {
                float *at = &c[row * ldc + col];
                *at = accumulate ? *at + sum[i][j] : sum[i][j];
            }
        }
}

__device__ static const emo_weight *slot_weight(const emo_expert_slot *slot, int32_t which) {
    return which == EMO_SLOT_GATE ? &slot->gate : which == EMO_SLOT_UP ? &slot->up : &slot->down;
}

/* The group whose tile number `tile` is, over groups in order; -1 past the last. *tile becomes its number inside. */
__device__ static int32_t find_group(const int32_t *offsets, int32_t groups, int64_t *tile) {
    for (int32_t g = 0; g < groups; g++) {
        int64_t tiles = (offsets[g + 1] - offsets[g] + TILE - 1) / TILE;
        if (*tile < tiles)
            return g;
        *tile -= tiles;
    }
    return -1;
}

__global__ static void grouped_rows_kernel(emo_grouped_gemm_args a, const emo_expert_slot *slots) {
    EMO_SHARED(float, room, 2 * DEPTH * (TILE + 1));
    float(*left)[TILE + 1] = (float(*)[TILE + 1]) room;
    float(*right)[TILE + 1] = left + DEPTH;
    int64_t tile = blockIdx.x;
    int32_t g = find_group(a.offsets, a.groups, &tile);
    if (g < 0)
        return;
    const emo_weight *w = slot_weight(&slots[g], a.slot);
    int64_t first = a.offsets[g], rows = a.offsets[g + 1] - first;
    int forward = a.mode == EMO_GROUPED_FORWARD;
    int64_t outs = forward ? w->rows : w->cols, depth = forward ? w->cols : w->rows, j0 = (int64_t)blockIdx.y * TILE;
    if (j0 >= outs || w->data == NULL)
        return;
    tile_operand x = {a.a + first * a.lda, EMO_DTYPE_F32, a.lda, 1, rows};
    tile_operand y = {w->data, w->dtype, forward ? w->stride : 1, forward ? 1 : w->stride, outs};
    multiply_tile(x, y, depth, tile * TILE, j0, a.c + first * a.ldc, a.ldc, a.accumulate, left, right);
}

__global__ static void grouped_weight_kernel(emo_grouped_gemm_args a, const emo_expert_slot *slots) {
    EMO_SHARED(float, room, 2 * DEPTH * (TILE + 1));
    float(*left)[TILE + 1] = (float(*)[TILE + 1]) room;
    float(*right)[TILE + 1] = left + DEPTH;
    const emo_expert_slot *slot = &slots[blockIdx.z];
    const emo_weight *w = slot_weight(slot, a.slot);
    float *gradient = a.slot == EMO_SLOT_GATE ? slot->d_gate : a.slot == EMO_SLOT_UP ? slot->d_up : slot->d_down;
    int64_t first = a.offsets[blockIdx.z], depth = a.offsets[blockIdx.z + 1] - first;
    int64_t i0 = (int64_t)blockIdx.y * TILE, j0 = (int64_t)blockIdx.x * TILE;
    if (gradient == NULL || depth <= 0 || i0 >= w->rows || j0 >= w->cols)
        return;
    tile_operand x = {a.a + first * a.lda, EMO_DTYPE_F32, 1, a.lda, w->rows};
    tile_operand y = {a.b + first * a.ldb, EMO_DTYPE_F32, 1, a.ldb, w->cols};
    multiply_tile(x, y, depth, i0, j0, gradient, w->cols, 1, left, right);
}

emo_status emo_cuda_grouped_gemm(emo_exec *exec, const emo_grouped_gemm_args *args, emo_error *err) {
    cudaStream_t stream = emo_cuda_stream(exec);
    const emo_expert_slot *slots = (const emo_expert_slot *)args->table.device;
    int64_t rows = 0, cols = 0;
    if (args->groups <= 0 || args->max_rows <= 0)
        return EMO_OK;
    if (slots == NULL || args->groups > args->table.count)
        return emo_cuda_fail(err, EMO_E_INTERNAL,
                             "a grouped product over %d groups has a table of %d experts that is %s in device memory",
                             (int)args->groups, (int)args->table.count, slots != NULL ? "there" : "not");
    for (int32_t g = 0; g < args->groups; g++) {
        const emo_expert_slot *slot = &args->table.slots[g];
        const emo_weight *w = args->slot == EMO_SLOT_GATE ? &slot->gate
                              : args->slot == EMO_SLOT_UP ? &slot->up
                                                          : &slot->down;
        rows = w->rows > rows ? w->rows : rows;
        cols = w->cols > cols ? w->cols : cols;
    }
    if (rows <= 0 || cols <= 0)
        return EMO_OK;
    if (args->mode == EMO_GROUPED_WGRAD) {
        dim3 grid(emo_blocks(cols, TILE), emo_blocks(rows, TILE), (unsigned)args->groups);
        return emo_cuda_launched(EMO_LAUNCH((grouped_weight_kernel), grid, THREADS, 0, stream, *args, slots),
                                 "grouped_weight", err);
    }
    int64_t outs = args->mode == EMO_GROUPED_FORWARD ? rows : cols;
    dim3 grid(emo_blocks(args->max_rows, TILE) + (unsigned)args->groups, emo_blocks(outs, TILE));
    return emo_cuda_launched(EMO_LAUNCH((grouped_rows_kernel), grid, THREADS, 0, stream, *args, slots), "grouped_rows",
                             err);
}
