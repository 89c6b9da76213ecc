/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/tiles.h"

enum { TILES_BLOCK = 256 };

/* One block: first the tiles before each group, then every tile looks its group up, so that one long group costs no
 * more than many short ones. */
__global__ static void __launch_bounds__(TILES_BLOCK)
    tiles_k(const int32_t *offsets, int32_t groups, int32_t step, emo_cuda_tiles tiles) {
    EMO_SHARED(int32_t, room, 33);
    int32_t done = 0;
    for (int32_t g0 = 0; g0 < groups; g0 += TILES_BLOCK) {
        int32_t g = g0 + (int32_t)threadIdx.x, total;
        int32_t mine = g < groups ? (offsets[g + 1] - offsets[g] + step - 1) / step : 0;
        int32_t before = emo_block_scan(mine, room, &total);
        if (g < groups)
            tiles.of_group[g] = done + before;
        done += total;
    }
    if (threadIdx.x == 0)
        tiles.of_group[groups] = done;
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < tiles.bound; i += TILES_BLOCK) {
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

emo_status emo_cuda_tiles_make(emo_exec *exec, const int32_t *offsets, int64_t groups, int64_t max_rows, int32_t step,
                               emo_cuda_tiles *out, emo_error *err) {
    /* every group with rows has at most one tile that is not full */
    int64_t bound = max_rows / step + (groups < max_rows ? groups : max_rows);
    void *list, *first;
    if (groups < 1 || groups >= INT32_MAX || bound > INT32_MAX)
        return emo_cuda_unsupported(err, "cut this many groups into tiles: both have to fit in 31 bits");
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)bound * sizeof(emo_cuda_tile), &list, err));
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(groups + 1) * sizeof(int32_t), &first, err));
    out->list = (emo_cuda_tile *)list;
    out->of_group = (int32_t *)first;
    out->bound = (int32_t)bound;
    return emo_cuda_launched(
        EMO_LAUNCH(tiles_k, 1, TILES_BLOCK, 0, emo_cuda_stream(exec), offsets, (int32_t)groups, step, *out), "tiles",
        err);
}
