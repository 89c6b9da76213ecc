/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/mask.h"

#include <string.h>

#include "base/status.h"

static emo_status check_shape(int32_t layers, const int32_t *experts, const int32_t *shared, size_t *total,
                              emo_error *err) {
    if (layers < 1 || layers > EMO__MASK_MAX_LAYERS)
        return emo__fail(err, EMO_E_RANGE, "layers is %d; it must be 1 to %d", (int)layers, EMO__MASK_MAX_LAYERS);
    *total = 0;
    for (int32_t l = 0; l < layers; l++) {
        if (experts[l] < 0 || experts[l] > EMO__MASK_MAX_EXPERTS)
            return emo__fail(err, EMO_E_RANGE, "layer %d: %d experts; it must be 0 to %d", (int)l, (int)experts[l],
                             EMO__MASK_MAX_EXPERTS);
        int32_t h = shared != NULL ? shared[l] : 0;
        if (h < 0 || h > experts[l])
            return emo__fail(err, EMO_E_RANGE, "layer %d: %d shared experts of %d", (int)l, (int)h, (int)experts[l]);
        *total += (size_t)experts[l];
    }
    if (*total > EMO__MASK_MAX_TOTAL)
        return emo__fail(err, EMO_E_LIMIT, "%zu experts over all layers; at most %d are possible", *total,
                         EMO__MASK_MAX_TOTAL);
    return EMO_OK;
}

emo_status emo__mask_new(emo_runtime *rt, int32_t layers, const int32_t *experts, const int32_t *shared, emo_mask **out,
                         emo_error *err) {
    *out = NULL;
    size_t total = 0;
    emo_status status = check_shape(layers, experts, shared, &total, err);
    if (status != EMO_OK)
        return status;
    /* one block: the struct, offsets, experts, shared, keep, always */
    size_t count = (size_t)layers;
    size_t at_offset = (sizeof(emo_mask) + 63u) & ~(size_t)63u;
    size_t at_experts = at_offset + (count + 1) * sizeof(size_t);
    size_t at_shared = at_experts + count * sizeof(int32_t);
    size_t at_keep = at_shared + count * sizeof(int32_t);
    size_t bytes = at_keep + 2 * total;
    char *block = emo__calloc(&rt->mem, 1, bytes);
    if (block == NULL)
        return emo__fail_memory(err, bytes);
    emo_mask *mask = (emo_mask *)(void *)block;
    emo__ref_init(&mask->ref);
    emo__guard_init(&mask->guard);
    mask->rt = emo__runtime_retain(rt);
    mask->layers = layers;
    mask->offset = (size_t *)(void *)(block + at_offset);
    mask->experts = (int32_t *)(void *)(block + at_experts);
    mask->shared = (int32_t *)(void *)(block + at_shared);
    mask->keep = (uint8_t *)(block + at_keep);
    mask->always = mask->keep + total;
    size_t at = 0;
    for (int32_t l = 0; l < layers; l++) {
        mask->experts[l] = experts[l];
        mask->shared[l] = shared != NULL ? shared[l] : 0;
        mask->offset[l] = at;
        at += (size_t)experts[l];
        size_t h = (size_t)mask->shared[l];
        if (h > 0) {
            memset(mask->keep + at - h, 1, h);
            memset(mask->always + at - h, 1, h);
        }
    }
    mask->offset[layers] = at;
    *out = mask;
    return EMO_OK;
}

void emo__mask_release(emo_mask *mask) {
    if (mask != NULL && emo__ref_put(&mask->ref)) {
        emo_runtime *rt = mask->rt;
        emo__free(&rt->mem, mask);
        emo_runtime_release(rt);
    }
}

emo_status emo__mask_same_shape(const emo_mask *a, const emo_mask *b, emo_error *err) {
    if (a->layers != b->layers)
        return emo__fail(err, EMO_E_MISMATCH, "one mask has %d layers, the other %d", (int)a->layers, (int)b->layers);
    for (int32_t l = 0; l < a->layers; l++) {
        if (a->experts[l] != b->experts[l] || a->shared[l] != b->shared[l])
            return emo__fail(err, EMO_E_MISMATCH,
                             "layer %d: one mask has %d experts (%d shared), the other %d (%d shared)", (int)l,
                             (int)a->experts[l], (int)a->shared[l], (int)b->experts[l], (int)b->shared[l]);
    }
    return EMO_OK;
}

int32_t emo__mask_routed_count(const emo_mask *mask, int32_t layer) {
    int32_t count = 0;
    const uint8_t *row = emo__mask_row(mask, layer);
    for (int32_t e = 0; e < mask->experts[layer] - mask->shared[layer]; e++)
        count += row[e];
    return count;
}

emo_status emo__mask_combine(int operation, const emo_mask *a, const emo_mask *b, emo_mask **out, emo_error *err) {
    *out = NULL;
    emo_status status = b != NULL ? emo__mask_same_shape(a, b, err) : EMO_OK;
    if (status != EMO_OK)
        return status;
    emo_mask *mask;
    status = emo__mask_new(a->rt, a->layers, a->experts, a->shared, &mask, err);
    if (status != EMO_OK)
        return status;
    for (size_t i = 0; i < a->offset[a->layers]; i++) {
        int x = a->keep[i];
        int y = b != NULL ? b->keep[i] : 0;
        int stay = a->always[i];
        int keep;
        switch (operation) {
        case EMO__MASK_UNION:
            keep = x | y;
            stay |= b != NULL ? b->always[i] : 0;
            break;
        case EMO__MASK_INTERSECT:
            keep = x & y;
            stay |= b != NULL ? b->always[i] : 0;
            break;
        case EMO__MASK_SUBTRACT:
            keep = x & !y;
            break;
        default:
            keep = !x;
            break;
        }
        mask->always[i] = (uint8_t)stay;
        mask->keep[i] = (uint8_t)(keep | stay);
    }
    *out = mask;
    return EMO_OK;
}
