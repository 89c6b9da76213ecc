/* SPDX-License-Identifier: Apache-2.0 */
#include "io/source.h"

#include "base/options.h"
#include "base/status.h"

static emo_status check(const emo_runtime *rt, emo_source **out, emo_error *err) {
    emo__error_clear(err);
    if (out == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "out is NULL");
    *out = NULL;
    if (rt == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "rt is NULL");
    return EMO_OK;
}

emo_status emo_source_open_path(emo_runtime *rt, const char *path, emo_source **out, emo_error *err) {
    emo_status status = check(rt, out, err);
    if (status != EMO_OK)
        return status;
    if (path == NULL || path[0] == '\0')
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "path is %s", path == NULL ? "NULL" : "empty");
    return emo__source_open_path(rt, path, out, err);
}

emo_status emo_source_from_memory(emo_runtime *rt, const void *data, size_t size, emo_source **out, emo_error *err) {
    emo_status status = check(rt, out, err);
    if (status != EMO_OK)
        return status;
    if (data == NULL && size > 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "data is NULL but size is %zu", size);
    return emo__source_from_memory(rt, data, size, out, err);
}

emo_status emo_source_create(emo_runtime *rt, const emo_source_vtable *vtable, void *ctx, emo_source **out,
                             emo_error *err) {
    emo_status status = check(rt, out, err);
    if (status != EMO_OK)
        return status;
    if (vtable == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "vtable is NULL");
    emo_source_vtable table = EMO_SOURCE_VTABLE_INIT;
    status = emo__options_copy(&table, sizeof table, vtable, "emo_source_vtable", err);
    if (status == EMO_OK)
        status = emo__options_reserved(table.reserved, "emo_source_vtable", err);
    if (status != EMO_OK)
        return status;
    if (table.size == NULL || table.read_at == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "emo_source_vtable needs size and read_at");
    return emo__source_create(rt, &table, ctx, out, err);
}

emo_status emo_source_read_at(const emo_source *source, uint64_t offset, void *data, size_t size, emo_error *err) {
    emo__error_clear(err);
    if (source == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "source is NULL");
    if (data == NULL && size > 0)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "data is NULL but size is %zu", size);
    return emo__source_read_at(source, offset, data, size, err);
}

void emo_source_release(emo_source *source) { emo__source_release(source); }
