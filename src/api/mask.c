/* SPDX-License-Identifier: Apache-2.0 */
#include "moe/mask.h"

#include <string.h>

#include "base/options.h"
#include "base/status.h"
#include "io/files.h"

#define MAX_FILE ((size_t)256 << 20)

static emo_status busy(emo_error *err) {
    return emo__fail(err, EMO_E_BUSY, "the mask is being changed by another thread");
}

/* Constant arguments are read under their guard; it is the object's own, not part of its value. */
static bool begin_read(const emo_mask *mask) { return emo__guard_try_read(&((emo_mask *)(uintptr_t)mask)->guard); }
static void end_read(const emo_mask *mask) { emo__guard_end_read(&((emo_mask *)(uintptr_t)mask)->guard); }

static emo_status check_always(const emo_mask_options *o, emo_error *err) {
    if (o->always_offsets == NULL)
        return o->always == NULL ? EMO_OK : emo__fail(err, EMO_E_INVALID_ARGUMENT, "always needs always_offsets");
    if (o->always_offsets[0] != 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "always_offsets[0] is %d; it must be 0",
                         (int)o->always_offsets[0]);
    for (int32_t l = 0; l < o->layers; l++) {
        if (o->always_offsets[l + 1] < o->always_offsets[l])
            return emo__fail(err, EMO_E_INVALID_ARGUMENT, "always_offsets descends at layer %d", (int)l);
        for (int32_t i = o->always_offsets[l]; i < o->always_offsets[l + 1]; i++) {
            if (o->always == NULL || o->always[i] < 0 || o->always[i] >= o->experts[l])
                return emo__fail(err, EMO_E_INVALID_ARGUMENT, "layer %d: an always-active id is outside its %d experts",
                                 (int)l, (int)o->experts[l]);
        }
    }
    return EMO_OK;
}

emo_status emo_mask_create_with(emo_runtime *runtime, const emo_mask_options *options, emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (runtime == NULL || options == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "options");
    emo_mask_options o = EMO_MASK_OPTIONS_INIT;
    emo_status status = emo__options_copy(&o, sizeof o, options, "emo_mask_options", err);
    if (status == EMO_OK)
        status = emo__options_reserved(o.reserved, "emo_mask_options", err);
    if (status != EMO_OK)
        return status;
    if (o.experts == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "experts is NULL");
    emo_mask *mask;
    status = emo__mask_new(runtime, o.layers, o.experts, o.shared, &mask, err);
    if (status != EMO_OK)
        return status;
    status = check_always(&o, err);
    if (status != EMO_OK) {
        emo__mask_release(mask);
        return status;
    }
    for (int32_t l = 0; o.always_offsets != NULL && l < o.layers; l++) {
        for (int32_t i = o.always_offsets[l]; i < o.always_offsets[l + 1]; i++) {
            mask->always[mask->offset[l] + (size_t)o.always[i]] = 1;
            mask->keep[mask->offset[l] + (size_t)o.always[i]] = 1;
        }
    }
    if (o.full != 0)
        memset(mask->keep, 1, mask->offset[mask->layers]);
    *out = mask;
    return EMO_OK;
}

emo_status emo_mask_create(emo_runtime *runtime, int32_t layers, const int32_t *experts, const int32_t *shared,
                           int32_t full, emo_mask **out, emo_error *err) {
    emo_mask_options o = EMO_MASK_OPTIONS_INIT;
    o.layers = layers;
    o.experts = experts;
    o.shared = shared;
    o.full = full;
    return emo_mask_create_with(runtime, &o, out, err);
}

void emo_mask_release(emo_mask *mask) { emo__mask_release(mask); }

emo_status emo_mask_clone(const emo_mask *mask, emo_mask **out, emo_error *err) {
    return emo_mask_union(mask, mask, out, err);
}

int32_t emo_mask_layers(const emo_mask *mask) { return mask != NULL ? mask->layers : 0; }

static bool has_layer(const emo_mask *mask, int32_t layer) {
    return mask != NULL && layer >= 0 && layer < mask->layers;
}

static bool has_expert(const emo_mask *mask, int32_t layer, int32_t expert) {
    return has_layer(mask, layer) && expert >= 0 && expert < mask->experts[layer];
}

int32_t emo_mask_experts(const emo_mask *mask, int32_t layer) {
    return has_layer(mask, layer) ? mask->experts[layer] : 0;
}

int32_t emo_mask_shared(const emo_mask *mask, int32_t layer) {
    return has_layer(mask, layer) ? mask->shared[layer] : 0;
}

int32_t emo_mask_get(const emo_mask *mask, int32_t layer, int32_t expert) {
    return has_expert(mask, layer, expert) ? emo__mask_row(mask, layer)[expert] : 0;
}

int32_t emo_mask_is_always(const emo_mask *mask, int32_t layer, int32_t expert) {
    return has_expert(mask, layer, expert) ? mask->always[mask->offset[layer] + (size_t)expert] : 0;
}

emo_status emo_mask_set(emo_mask *mask, int32_t layer, int32_t expert, int32_t on, emo_error *err) {
    emo__error_clear(err);
    if (mask == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "mask is NULL");
    if (!has_layer(mask, layer))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "layer is %d; the mask has layers 0 to %d", (int)layer,
                         (int)mask->layers - 1);
    if (!has_expert(mask, layer, expert))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "expert is %d; layer %d has %d experts", (int)expert, (int)layer,
                         (int)mask->experts[layer]);
    size_t at = mask->offset[layer] + (size_t)expert;
    if (on == 0 && mask->always[at] != 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "expert %d of layer %d is shared or always active and stays in every mask", (int)expert,
                         (int)layer);
    if (!emo__guard_try_write(&mask->guard))
        return emo__fail(err, EMO_E_BUSY, "the mask is in use by another thread");
    mask->keep[at] = on != 0;
    emo__guard_end_write(&mask->guard);
    return EMO_OK;
}

int32_t emo_mask_count(const emo_mask *mask, int32_t layer) {
    return has_layer(mask, layer) ? emo__mask_routed_count(mask, layer) + mask->shared[layer] : 0;
}

emo_status emo_mask_list(const emo_mask *mask, int32_t layer, int32_t *ids, int32_t capacity, int32_t *count,
                         emo_error *err) {
    emo__error_clear(err);
    if (count != NULL)
        *count = 0;
    if (mask == NULL || count == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", mask == NULL ? "mask" : "count");
    if (!has_layer(mask, layer))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "layer is %d; the mask has layers 0 to %d", (int)layer,
                         (int)mask->layers - 1);
    if (capacity < 0 || (capacity > 0 && ids == NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "capacity is %d with ids %s", (int)capacity,
                         ids == NULL ? "NULL" : "given");
    if (!begin_read(mask))
        return busy(err);
    emo_status status = EMO_OK;
    int32_t need = emo_mask_count(mask, layer);
    if (capacity > 0 && capacity < need)
        status = emo__fail(err, EMO_E_LIMIT, "layer %d keeps %d experts; there is room for %d", (int)layer, (int)need,
                           (int)capacity);
    int32_t at = 0;
    for (int32_t e = 0; status == EMO_OK && capacity > 0 && e < mask->experts[layer]; e++) {
        if (emo__mask_row(mask, layer)[e] != 0)
            ids[at++] = e;
    }
    *count = need;
    end_read(mask);
    return status;
}

static emo_status combine(int operation, const emo_mask *a, const emo_mask *b, int binary, emo_mask **out,
                          emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (a == NULL || (binary && b == NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "a mask is NULL");
    if (!begin_read(a))
        return busy(err);
    if (binary && !begin_read(b)) {
        end_read(a);
        return busy(err);
    }
    emo_status status = emo__mask_combine(operation, a, b, out, err);
    if (binary)
        end_read(b);
    end_read(a);
    return status;
}

emo_status emo_mask_union(const emo_mask *a, const emo_mask *b, emo_mask **out, emo_error *err) {
    return combine(EMO__MASK_UNION, a, b, 1, out, err);
}

emo_status emo_mask_intersect(const emo_mask *a, const emo_mask *b, emo_mask **out, emo_error *err) {
    return combine(EMO__MASK_INTERSECT, a, b, 1, out, err);
}

emo_status emo_mask_subtract(const emo_mask *a, const emo_mask *b, emo_mask **out, emo_error *err) {
    return combine(EMO__MASK_SUBTRACT, a, b, 1, out, err);
}

emo_status emo_mask_complement(const emo_mask *a, emo_mask **out, emo_error *err) {
    return combine(EMO__MASK_COMPLEMENT, a, NULL, 0, out, err);
}

int32_t emo_mask_equal(const emo_mask *a, const emo_mask *b) {
    if (a == NULL || b == NULL || a == b)
        return a == b;
    return emo__mask_same_shape(a, b, NULL) == EMO_OK && memcmp(a->keep, b->keep, a->offset[a->layers]) == 0;
}

emo_status emo_mask_from_json(emo_runtime *runtime, const char *text, size_t length, emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (runtime == NULL || text == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "text");
    return emo__mask_read(runtime, text, length, out, err);
}

static emo_status write_text(const emo_mask *mask, emo__buf *buf, emo_error *err) {
    emo__buf_init(buf, &mask->rt->mem);
    if (!begin_read(mask))
        return busy(err);
    emo_status status = emo__mask_write(mask, buf, err);
    end_read(mask);
    return status;
}

emo_status emo_mask_to_json(const emo_mask *mask, char *buffer, size_t capacity, size_t *size, emo_error *err) {
    emo__error_clear(err);
    if (size != NULL)
        *size = 0;
    if (mask == NULL || size == NULL || (capacity > 0 && buffer == NULL))
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL",
                         mask == NULL   ? "mask"
                         : size == NULL ? "size"
                                        : "buffer");
    emo__buf buf;
    emo_status status = write_text(mask, &buf, err);
    if (status == EMO_OK) {
        *size = buf.size + 1;
        if (capacity >= buf.size + 1)
            memcpy(buffer, buf.data, buf.size + 1);
        else if (capacity > 0)
            status = emo__fail(err, EMO_E_LIMIT, "the mask's JSON needs %zu bytes; there is room for %zu", buf.size + 1,
                               capacity);
    }
    emo__buf_free(&buf);
    return status;
}

emo_status emo_mask_load(emo_runtime *runtime, const char *path, emo_mask **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (runtime == NULL || path == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "path");
    char *text = NULL;
    size_t length = 0;
    emo_status status = emo__file_read(&runtime->mem, path, MAX_FILE, &text, &length, err);
    if (status == EMO_OK) {
        status = emo__mask_read(runtime, text, length, out, err);
        if (status != EMO_OK)
            status = emo__fail_prefix(err, status, "%s", path);
    }
    emo__free(&runtime->mem, text);
    return status;
}

emo_status emo_mask_save(const emo_mask *mask, const char *path, emo_error *err) {
    emo__error_clear(err);
    if (mask == NULL || path == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", mask == NULL ? "mask" : "path");
    emo__buf buf;
    emo_status status = write_text(mask, &buf, err);
    if (status == EMO_OK)
        status = emo__file_write(&mask->rt->mem, path, buf.data, buf.size, err);
    emo__buf_free(&buf);
    return status;
}
