/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/gemm/peak.h"

#include "cpu/gemm/gemm_amx.h"

static const tile_config config __attribute__((aligned(64))) = {
    .palette = 1, .colsb = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};

void emo__peak_int8_amx(const void *memory, int loops) {
    const char *from = memory;
    uint8_t before[EMO__GEMM_STATE] __attribute__((aligned(64))) = {0};
    begin_tiles(before, &config);
    _tile_zero(C00);
    _tile_zero(C01);
    _tile_zero(C10);
    _tile_zero(C11);
    for (int i = 0; i < loops; i++)
        for (size_t at = 0; at < EMO__PEAK_INT8_BYTES; at += 4 * (size_t)TILE_BYTES) {
            _tile_loadd(A0, from + at, 64);
            _tile_loadd(B0, from + at + TILE_BYTES, 64);
            _tile_dpbssd(C00, A0, B0);
            _tile_loadd(B1, from + at + 2 * TILE_BYTES, 64);
            _tile_dpbssd(C01, A0, B1);
            _tile_loadd(A1, from + at + 3 * TILE_BYTES, 64);
            _tile_dpbssd(C10, A1, B0);
            _tile_dpbssd(C11, A1, B1);
        }
    end_tiles(before);
}
