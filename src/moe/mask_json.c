/* SPDX-License-Identifier: Apache-2.0 */
/* Masks as JSON. Reading trusts nothing; writing gives ids in ascending order, so that equal masks are equal texts. */
#include <stdio.h>
#include <string.h>

#include "base/status.h"
#include "io/json.h"
#include "moe/mask.h"

/* Sets flags[id] (and also[id]) for every id of the array under `key`. */
static emo_status read_ids(const emo__mem *mem, const emo__json *layer, const char *key, const char *where,
                           int32_t experts, uint8_t *flags, uint8_t *also, emo_error *err) {
    int32_t *ids = NULL;
    size_t count = 0;
    if (experts == 0)
        return EMO_OK;
    emo_status status = emo__json_opt_i32s(layer, key, where, 0, experts - 1, mem, &ids, &count, err);
    for (size_t i = 0; status == EMO_OK && i < count; i++) {
        flags[ids[i]] = 1;
        if (also != NULL)
            also[ids[i]] = 1;
    }
    emo__free(mem, ids);
    return status;
}

static emo_status read_header(const emo__json *root, const emo__json **layers, emo_error *err) {
    const char *format = NULL;
    int32_t version = 0;
    if (emo__json_typeof(root) != EMO__JSON_OBJECT)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 1, "mask: the JSON is not an object");
    emo_status status = emo__json_need_string(root, "format", "mask", &format, err);
    if (status == EMO_OK && strcmp(format, "emo-mask") != 0)
        status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 1, "mask: format is not \"emo-mask\"");
    if (status == EMO_OK)
        status = emo__json_need_i32(root, "version", "mask", 1, INT32_MAX, &version, err);
    if (status == EMO_OK && version > 1)
        status = emo__fail(err, EMO_E_UNSUPPORTED, "mask: version %d; this library reads version 1", (int)version);
    if (status != EMO_OK)
        return status;
    *layers = emo__json_get(root, "layers");
    size_t count = emo__json_size(*layers);
    if (emo__json_typeof(*layers) != EMO__JSON_ARRAY || count < 1 || count > EMO__MASK_MAX_LAYERS)
        return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, 1, "mask: layers is not an array of 1 to %d layers",
                            EMO__MASK_MAX_LAYERS);
    return EMO_OK;
}

static emo_status read_layers(emo_runtime *rt, const emo__json *layers, int32_t *shape, emo_mask **out,
                              emo_error *err) {
    int32_t count = (int32_t)emo__json_size(layers);
    int32_t *experts = shape;
    int32_t *shared = shape + count;
    emo_mask *mask = NULL;
    char where[48];
    emo_status status = EMO_OK;
    for (int32_t l = 0; status == EMO_OK && l < count; l++) {
        const emo__json *layer = emo__json_at(layers, (size_t)l);
        (void)snprintf(where, sizeof where, "mask: layers[%d]", (int)l);
        if (emo__json_typeof(layer) != EMO__JSON_OBJECT)
            return emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, l, "%s is not an object", where);
        status = emo__json_need_i32(layer, "experts", where, 0, EMO__MASK_MAX_EXPERTS, &experts[l], err);
        if (status == EMO_OK)
            status = emo__json_opt_i32(layer, "shared", where, 0, 0, experts[l], &shared[l], err);
        if (status == EMO_OK && experts[l] > 0 && emo__json_get(layer, "keep") == NULL)
            status = emo__fail_at(err, EMO_E_FORMAT, EMO_DOMAIN_FILE, l, "%s: keep is missing", where);
    }
    if (status == EMO_OK)
        status = emo__mask_new(rt, count, experts, shared, &mask, err);
    for (int32_t l = 0; status == EMO_OK && l < count; l++) {
        const emo__json *layer = emo__json_at(layers, (size_t)l);
        (void)snprintf(where, sizeof where, "mask: layers[%d]", (int)l);
        uint8_t *keep = mask->keep + mask->offset[l];
        uint8_t *always = mask->always + mask->offset[l];
        status = read_ids(&rt->mem, layer, "keep", where, experts[l], keep, NULL, err);
        if (status == EMO_OK)
            status = read_ids(&rt->mem, layer, "always", where, experts[l], keep, always, err);
    }
    if (status != EMO_OK) {
        emo__mask_release(mask);
        return status;
    }
    *out = mask;
    return EMO_OK;
}

emo_status emo__mask_read(emo_runtime *rt, const char *text, size_t length, emo_mask **out, emo_error *err) {
    *out = NULL;
    emo__json *root = NULL;
    const emo__json *layers = NULL;
    emo_status status = emo__json_parse(&rt->mem, text, length, "mask", &root, err);
    if (status != EMO_OK)
        return status;
    status = read_header(root, &layers, err);
    if (status == EMO_OK) {
        size_t count = emo__json_size(layers);
        int32_t *shape = emo__calloc(&rt->mem, count * 2, sizeof *shape);
        status =
            shape != NULL ? read_layers(rt, layers, shape, out, err) : emo__fail_memory(err, count * 2 * sizeof *shape);
        emo__free(&rt->mem, shape);
    }
    emo__json_free(root);
    return status;
}

static void write_ids(emo__jw *w, const char *key, const uint8_t *flags, int32_t count) {
    emo__jw_row(w, key);
    for (int32_t e = 0; e < count; e++) {
        if (flags[e] != 0)
            emo__jw_i64(w, NULL, e);
    }
    emo__jw_array_end(w);
}

emo_status emo__mask_write(const emo_mask *mask, emo__buf *buf, emo_error *err) {
    emo__jw w;
    emo__jw_begin(&w, buf, 1, err);
    emo__jw_object(&w, NULL);
    emo__jw_string(&w, "format", "emo-mask");
    emo__jw_i64(&w, "version", 1);
    emo__jw_array(&w, "layers");
    for (int32_t l = 0; l < mask->layers; l++) {
        int32_t experts = mask->experts[l];
        int32_t routed = experts - mask->shared[l];
        const uint8_t *always = mask->always + mask->offset[l];
        emo__jw_object(&w, NULL);
        emo__jw_i64(&w, "experts", experts);
        emo__jw_i64(&w, "shared", mask->shared[l]);
        write_ids(&w, "keep", emo__mask_row(mask, l), experts);
        if (routed > 0 && memchr(always, 1, (size_t)routed) != NULL)
            write_ids(&w, "always", always, routed);
        emo__jw_object_end(&w);
    }
    emo__jw_array_end(&w);
    emo__jw_object_end(&w);
    return emo__jw_end(&w);
}
