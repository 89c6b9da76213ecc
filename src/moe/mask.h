/* SPDX-License-Identifier: Apache-2.0 */
/* Masks as the inside sees them: one byte per expert, so that a layer's row is an `allowed` set of the router. */
#ifndef EMO_SRC_MOE_MASK_H
#define EMO_SRC_MOE_MASK_H

#include <emo/mask.h>

#include "base/runtime.h"

#define EMO__MASK_MAX_LAYERS 65536
#define EMO__MASK_MAX_EXPERTS 1048576
#define EMO__MASK_MAX_TOTAL (1 << 24) /* over all layers: a small file must not ask for much memory */

struct emo_mask {
    emo__ref ref;
    emo__guard guard;
    emo_runtime *rt;
    int32_t layers;
    int32_t *experts; /* [layers] E, 0 for a dense layer */
    int32_t *shared;  /* [layers] H */
    size_t *offset;   /* [layers + 1] into keep and always */
    uint8_t *keep;    /* 1: in the mask */
    uint8_t *always;  /* 1: cannot leave (shared and always-active) */
};

/* Shape only: `keep` and `always` hold the shared experts. Sizes are checked. */
EMO_MUST_CHECK emo_status emo__mask_new(emo_runtime *rt, int32_t layers, const int32_t *experts, const int32_t *shared,
                                        emo_mask **out, emo_error *err);
static inline emo_mask *emo__mask_retain(emo_mask *mask) {
    if (mask != NULL)
        emo__ref_get(&mask->ref);
    return mask;
}
void emo__mask_release(emo_mask *mask); /* NULL is a no-op */

/* The kept flags of a layer, [experts]. */
static inline const uint8_t *emo__mask_row(const emo_mask *mask, int32_t layer) {
    return mask->keep + mask->offset[layer];
}

/* Whether both have the same layers, experts and shared experts; else EMO_E_MISMATCH. */
EMO_MUST_CHECK emo_status emo__mask_same_shape(const emo_mask *a, const emo_mask *b, emo_error *err);

/* Kept routed experts of a layer. */
int32_t emo__mask_routed_count(const emo_mask *mask, int32_t layer);

enum { EMO__MASK_UNION, EMO__MASK_INTERSECT, EMO__MASK_SUBTRACT, EMO__MASK_COMPLEMENT };
/* b is NULL for the complement. */
EMO_MUST_CHECK emo_status emo__mask_combine(int operation, const emo_mask *a, const emo_mask *b, emo_mask **out,
                                            emo_error *err);

/* JSON (mask_json.c). The text of write is NUL-terminated in buf. */
EMO_MUST_CHECK emo_status emo__mask_read(emo_runtime *rt, const char *text, size_t length, emo_mask **out,
                                         emo_error *err);
EMO_MUST_CHECK emo_status emo__mask_write(const emo_mask *mask, emo__buf *buf, emo_error *err);

#endif
