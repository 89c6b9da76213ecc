/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that lie group after group, cut into tiles of at most `step` rows that never cross a group's end: the pieces of
 * documents, the row blocks of experts. Offsets live on the device, so the table is built there, and a grid covers the
 * largest number of tiles there can be; blocks beyond the real ones leave at once. */
#ifndef EMO_CUDA_OPS_TILES_H
#define EMO_CUDA_OPS_TILES_H

#include "exec.h"
#include "kernel.h"

typedef struct emo_cuda_tile {
    int32_t group; /* -1: no tile */
    int32_t first; /* row */
    int32_t rows;
} emo_cuda_tile;

typedef struct emo_cuda_tiles {
    emo_cuda_tile *list; /* [bound] ascending by row, -1 behind the last */
    int32_t *of_group;   /* [groups + 1] first tile of each group */
    int32_t bound;
} emo_cuda_tiles;

/* Room for the tiles of `groups` groups with at most max_rows rows, as scratch. */
emo_status emo_cuda_tiles_room(emo_exec *exec, int64_t groups, int64_t max_rows, int32_t step, emo_cuda_tiles *out,
                               emo_error *err);
/* And filled. offsets: [groups + 1] on the device, ascending, at most max_rows. Groups may be empty. live: NULL, or the
 * number of groups there are, on the device, of which `groups` is the most. */
emo_status emo_cuda_tiles_make(emo_exec *exec, const int32_t *offsets, int64_t groups, const int64_t *live,
                               int64_t max_rows, int32_t step, emo_cuda_tiles *out, emo_error *err);

/* Exclusive prefix sum over a block of at most 1024 threads; *total gets the sum. room: 33 elements of shared memory,
 * which may be used again at once. Every thread of the block calls it. */
__device__ static inline int32_t emo_block_scan(int32_t v, int32_t *room, int32_t *total) {
    int lane = (int)(threadIdx.x & 31u), warp = (int)(threadIdx.x >> 5), warps = (int)(blockDim.x >> 5);
    int32_t sum = v;
    for (int offset = 1; offset < 32; offset <<= 1) {
        int32_t before = __shfl_up_sync(EMO_FULL_WARP, sum, (unsigned)offset);
        if (lane >= offset)
            sum += before;
    }
    if (lane == 31)
        room[warp] = sum;
    __syncthreads();
    int32_t base = 0, all = 0;
    for (int i = 0; i < warps; i++) {
        base += i < warp ? room[i] : 0;
        all += room[i];
    }
    __syncthreads();
    *total = all;
    return base + sum - v;
}

/* By one block: first the tiles before each group, then every tile looks its group up, so that one long group costs no
 * more than many short ones. With slots, groups whose slot has no data get no tiles. room: 33 elements of shared
 * memory. */
__device__ static inline void emo_cuda_tiles_fill(const int32_t *offsets, int32_t groups, int32_t step,
                                                  const emo_cuda_tiles &tiles, int32_t *room,
                                                  const emo_expert_slot *slots = NULL) {
    int32_t done = 0;
    for (int32_t g0 = 0; g0 < groups; g0 += (int32_t)blockDim.x) {
        int32_t g = g0 + (int32_t)threadIdx.x, total;
        int32_t mine = g < groups ? (offsets[g + 1] - offsets[g] + step - 1) / step : 0;
        if (slots != NULL && mine > 0 && slots[g].gate.data == NULL)
            mine = 0;
        int32_t before = emo_block_scan(mine, room, &total);
        if (g < groups)
            tiles.of_group[g] = done + before;
        done += total;
    }
    if (threadIdx.x == 0)
        tiles.of_group[groups] = done;
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < tiles.bound; i += (int32_t)blockDim.x) {
        emo_cuda_tile tile = {-1, 0, 0};
        if (i < done) {
            int32_t low = 0, high = groups - 1; /* the last group that starts at or before the tile */
            while (low < high) {
                int32_t middle = (low + high + 1) / 2;
                if (tiles.of_group[middle] <= i)
                    low = middle;
                else
                    high = middle - 1;
            }
            int32_t first = offsets[low] + (i - tiles.of_group[low]) * step, left = offsets[low + 1] - first;
            tile.group = low;
            tile.first = first;
            tile.rows = left < step ? left : step;
        }
        tiles.list[i] = tile;
    }
}

#endif
