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

/* offsets: [groups + 1] on the device, ascending, at most max_rows. Groups may be empty. */
emo_status emo_cuda_tiles_make(emo_exec *exec, const int32_t *offsets, int64_t groups, int64_t max_rows, int32_t step,
                               emo_cuda_tiles *out, emo_error *err);

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

#endif
