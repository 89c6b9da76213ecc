/* SPDX-License-Identifier: Apache-2.0 */
/* What packing for the levels without tiles shares: elements as floats, and the stored rows behind lanes of a panel.
 * The including file defines VL, NRV, vec, load_f32, load_bf16 and load_f16 (VL elements as floats). */
#include "cpu/gemm/gemm_quant.h"
#include "tensor/dtype.h"

#define NR (NRV * VL)
#define INLINE static inline __attribute__((always_inline))

/* Into the second level; the address may lie past the operand, which a prefetch ignores. */
#define PREFETCH(address) __builtin_prefetch((const void *)(address), 0, 2)

enum { ROWS_AHEAD = 8 }; /* stored rows from the one being read to the one being prefetched */

INLINE float load_one(const char *p, emo_dtype dtype) {
    uint16_t h;
    if (dtype == EMO_DTYPE_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        return f;
    }
    memcpy(&h, p, sizeof h);
    return dtype == EMO_DTYPE_BF16 ? emo__bf16_to_f32(h) : emo__f16_to_f32(h);
}

INLINE vec load_some(const char *p, emo_dtype dtype) {
    if (dtype == EMO_DTYPE_F32)
        return load_f32(p);
    return dtype == EMO_DTYPE_BF16 ? load_bf16(p) : load_f16(p);
}

/* Up to VL lanes of a panel, from number `group` on, which are stored rows. */
typedef struct lane_group {
    const char *rows[VL];
    uintptr_t next[VL]; /* to be asked for */
    float scale[VL];
    int have; /* lanes that belong to the panel, of which some may repeat the last row */
} lane_group;

/* Short visits to many rows defeat the hardware's prefetcher: ask for the next panel's row through `order`, or for the
 * row's next k block, or the next panel's first. `more` rows follow the panel (only to prefetch). */
INLINE void find_lanes(lane_group *g, int group, int width, const emo__gemm_operand *x, int64_t first, int lanes,
                       int64_t more, int64_t k0, int64_t kc, const int64_t size) {
    g->have = width - group < VL ? width - group : VL;
    for (int l = 0; l < VL; l++) {
        int lane = group + l < lanes ? group + l : lanes - 1;
        g->rows[l] = emo__stored_row(x, first + lane, size) + k0 * size;
        g->scale[l] = x->scale != NULL ? x->scale[first + lane] : 1.0f;
    }
    for (int l = 0; l < VL; l++) {
        if (x->order != NULL) {
            int64_t row = first + (group + l < more ? width : 0) + (group + l < lanes ? group + l : 0);
            g->next[l] = (uintptr_t)(emo__stored_row(x, row, size) + k0 * size);
        } else {
            g->next[l] = (uintptr_t)g->rows[l] + (uintptr_t)((k0 + kc < x->ld ? kc : width * x->ld - k0) * size);
        }
    }
}
