/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/tiles.h"

enum { TILES_BLOCK = 256 };

__global__ static void __launch_bounds__(TILES_BLOCK)
    tiles_k(const int32_t *offsets, int32_t groups, const int64_t *live, int32_t step, emo_cuda_tiles tiles) {
    EMO_SHARED(int32_t, room, 33);
    emo_cuda_tiles_fill(offsets, live != NULL ? (int32_t)*live : groups, step, tiles, room);
}

emo_status emo_cuda_tiles_room(emo_exec *exec, int64_t groups, int64_t max_rows, int32_t step, emo_cuda_tiles *out,
                               emo_error *err) {
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
    return EMO_OK;
}

emo_status emo_cuda_tiles_make(emo_exec *exec, const int32_t *offsets, int64_t groups, const int64_t *live,
                               int64_t max_rows, int32_t step, emo_cuda_tiles *out, emo_error *err) {
    EMO_CUDA_TRY(emo_cuda_tiles_room(exec, groups, max_rows, step, out, err));
    return emo_cuda_launched(
        EMO_LAUNCH(tiles_k, 1, TILES_BLOCK, 0, emo_cuda_stream(exec), offsets, (int32_t)groups, live, step, *out),
        "tiles", err);
}
