/* SPDX-License-Identifier: Apache-2.0 */
#include <emo/device.h>
#include <emo/model.h>

#include <string.h>
#include <unistd.h>

#include "backend/plugin.h"
#include "backend/registry.h"
#include "base/status.h"
#include "model/files.h"
#include "model/move.h"

emo_status emo_runtime_load_backend(emo_runtime *runtime, const char *path, emo_error *err) {
    emo__error_clear(err);
    if (runtime == NULL || path == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "path");
    return emo__plugin_load(runtime, runtime->registry, path, err);
}

emo_status emo_model_to_device(emo_model *model, const char *device, emo_error *err) {
    emo__error_clear(err);
    if (model == NULL || device == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", model == NULL ? "model" : "device");
    emo_backend *backend = NULL;
    emo_status status = emo__registry_open(model->rt->registry, device, &backend, err);
    if (status == EMO_OK)
        status = emo__model_begin_write(model, err);
    if (status != EMO_OK)
        return status;
    status = emo__model_move(model, backend, err);
    emo__model_end_write(model);
    return status;
}

int32_t emo_device_count(const emo_runtime *runtime) {
    return runtime != NULL ? emo__registry_count(runtime->registry) : 0;
}

static void take_name(char *to, size_t size, const char *name) {
    size_t length = name != NULL ? strlen(name) : 0;
    length = length < size ? length : size - 1;
    memset(to, 0, size);
    memcpy(to, name != NULL ? name : "", length);
}

static emo_status ask(const emo_runtime *rt, const emo_backend *backend, emo_device_info *out, emo_error *err) {
    take_name(out->backend, sizeof out->backend, backend->name);
    take_name(out->name, sizeof out->name, backend->name);
    if (backend == rt->cpu) {
        out->kind = EMO_DEVICE_CPU;
        take_name(out->name, sizeof out->name, emo_isa_name(rt->isa));
        long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
        out->memory = pages > 0 && page > 0 ? (int64_t)pages * page : 0;
    } else if (backend->ops->device_info != NULL) {
        emo_backend_device_info own;
        memset(&own, 0, sizeof own);
        emo_status status = backend->ops->device_info(backend, &own, err);
        if (status != EMO_OK)
            return emo__fail_prefix(err, status < 0 ? status : EMO_E_BACKEND, "back end '%s'", backend->name);
        own.name[sizeof own.name - 1] = '\0';
        if (own.name[0] != '\0')
            take_name(out->name, sizeof out->name, own.name);
        out->kind = own.kind;
        out->memory = own.memory_bytes > INT64_MAX ? INT64_MAX : (int64_t)own.memory_bytes;
    }
    static const emo_dtype dtypes[] = {EMO_DTYPE_F32,  EMO_DTYPE_F16,  EMO_DTYPE_BF16,
                                       EMO_DTYPE_Q8_0, EMO_DTYPE_Q4_0, EMO_DTYPE_Q4_K};
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (backend->ops->supports(backend, EMO_OP_EXPERTS, dtypes[i]))
            out->dtypes[out->n_dtypes++] = dtypes[i];
    return EMO_OK;
}

emo_status emo_device_get_info(const emo_runtime *runtime, int32_t index, emo_device_info *info, emo_error *err) {
    emo__error_clear(err);
    if (runtime == NULL || info == NULL)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT, "%s is NULL", runtime == NULL ? "runtime" : "info");
    uint32_t size = info->struct_size;
    if (size < sizeof size)
        return emo__fail(err, EMO_E_INVALID_ARGUMENT,
                         "emo_device_info.struct_size is %u; start from EMO_DEVICE_INFO_INIT", (unsigned)size);
    const emo_backend *backend = emo__registry_get(runtime->registry, index);
    if (backend == NULL)
        return emo__fail(err, EMO_E_RANGE, "device %d: this runtime has devices 0 to %d", (int)index,
                         (int)emo_device_count(runtime) - 1);
    emo_device_info full = EMO_DEVICE_INFO_INIT;
    emo_status status = ask(runtime, backend, &full, err);
    if (status != EMO_OK)
        return status;
    memcpy(info, &full, size < sizeof full ? size : sizeof full);
    info->struct_size = size;
    return EMO_OK;
}
