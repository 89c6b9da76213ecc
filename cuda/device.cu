/* SPDX-License-Identifier: Apache-2.0 */
/* Opening a GPU. The host's current device is put back after every entry, and nothing is ever reset. */
#include "device.h"

#include <emo/device.h>
#include <stdio.h>
#include <string.h>

#include "libraries.h"

emo_status emo_cuda_enter(const emo_cuda_device *device, int *previous, emo_error *err) {
    *previous = device->ordinal;
    if (device->planning)
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_check(cudaGetDevice(previous), "cudaGetDevice", err));
    if (*previous != device->ordinal)
        EMO_CUDA_TRY(emo_cuda_check(cudaSetDevice(device->ordinal), "cudaSetDevice", err));
    return EMO_OK;
}

void emo_cuda_leave(const emo_cuda_device *device, int previous) {
    if (previous != device->ordinal)
        (void)cudaSetDevice(previous);
}

/* "13.0" for 13000 */
static void version_text(char *out, size_t room, int version) {
    (void)snprintf(out, room, "%d.%d", version / 1000, version % 1000 / 10);
}

emo_status emo_cuda_device_count(const emo_backend_services *services, int32_t *out, emo_error *err) {
    int count = 0, driver = 0;
    char own[32], theirs[32];
    (void)services;
    *out = 0;
    version_text(own, sizeof own, CUDART_VERSION);
    (void)cudaDriverGetVersion(&driver);
    if (driver == 0) {
        (void)cudaGetLastError();
        return emo_cuda_fail(err, EMO_E_NOT_FOUND,
                             "there is no NVIDIA driver: libcuda.so.1 is missing; a driver for CUDA %s or newer is "
                             "needed",
                             own);
    }
    cudaError_t result = cudaGetDeviceCount(&count);
    if (result == cudaErrorInsufficientDriver) {
        (void)cudaGetLastError();
        version_text(theirs, sizeof theirs, driver);
        return emo_cuda_fail(err, EMO_E_NOT_FOUND,
                             "the NVIDIA driver is for CUDA %s; one for CUDA %s or newer is needed", theirs, own);
    }
    if (result == cudaErrorNoDevice || (result == cudaSuccess && count == 0)) {
        (void)cudaGetLastError();
        return emo_cuda_fail(err, EMO_E_NOT_FOUND,
                             "the NVIDIA driver sees no GPU; is one there, and does CUDA_VISIBLE_DEVICES leave it in?");
    }
    EMO_CUDA_TRY(emo_cuda_check(result, "cudaGetDeviceCount", err));
    *out = count;
    return EMO_OK;
}

static void destroy(emo_cuda_device *device) {
    int previous;
    emo_status entered = emo_cuda_enter(device, &previous, NULL);
    emo_cuda_memory_close(device);
    if (entered == EMO_OK)
        emo_cuda_leave(device, previous);
    (void)pthread_mutex_destroy(&device->lock);
    emo_backend_services services = device->services;
    services.free(services.ctx, device->libraries);
    services.free(services.ctx, device);
}

static emo_status attribute(int *out, cudaDeviceAttr which, int ordinal, emo_error *err) {
    return emo_cuda_check(cudaDeviceGetAttribute(out, which, ordinal), "cudaDeviceGetAttribute", err);
}

static emo_status describe(emo_cuda_device *device, emo_error *err) {
    cudaDeviceProp properties;
    int major = 0, minor = 0, shared = 0, multiprocessors = 0;
    EMO_CUDA_TRY(emo_cuda_check(cudaGetDeviceProperties(&properties, device->ordinal), "cudaGetDeviceProperties", err));
    EMO_CUDA_TRY(attribute(&major, cudaDevAttrComputeCapabilityMajor, device->ordinal, err));
    EMO_CUDA_TRY(attribute(&minor, cudaDevAttrComputeCapabilityMinor, device->ordinal, err));
    EMO_CUDA_TRY(attribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device->ordinal, err));
    EMO_CUDA_TRY(attribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device->ordinal, err));
    (void)snprintf(device->name, sizeof device->name, "%.63s", properties.name);
    device->memory_bytes = properties.totalGlobalMem;
    device->capability = 10 * major + minor;
    device->shared_optin = shared;
    device->multiprocessors = multiprocessors;
    if (device->capability < 80)
        return emo_cuda_fail(err, EMO_E_UNSUPPORTED, "%s has compute capability %d.%d; 8.0 or newer is needed",
                             device->name, major, minor);
    return EMO_OK;
}

emo_status emo_cuda_device_make(const emo_backend_services *services, emo_cuda_device **out, emo_error *err) {
    if (services->struct_size < sizeof *services)
        return emo_cuda_fail(err, EMO_E_UNSUPPORTED,
                             "the library offers fewer services than this plug-in was built for");
    emo_cuda_device *device = (emo_cuda_device *)services->alloc(services->ctx, sizeof *device);
    if (device != NULL)
        memset(device, 0, sizeof *device);
    if (device == NULL || pthread_mutex_init(&device->lock, NULL) != 0) {
        services->free(services->ctx, device);
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a device");
    }
    emo_cuda_fill_table(&device->ops);
    device->base.ops = &device->ops;
    device->base.name = "cuda";
    device->services = *services;
    *out = device;
    return EMO_OK;
}

emo_status emo_cuda_device_open(const emo_backend_services *services, int32_t index, emo_backend **out,
                                emo_error *err) {
    emo_cuda_device *device;
    int previous;
    *out = NULL;
    EMO_CUDA_TRY(emo_cuda_device_make(services, &device, err));
    device->ordinal = index;
    device->libraries = (emo_cuda_libraries *)services->alloc(services->ctx, sizeof *device->libraries);
    emo_status status = device->libraries != NULL
                            ? emo_cuda_libraries_open(services, device->libraries, err)
                            : emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for a device");
    if (status == EMO_OK)
        status = emo_cuda_enter(device, &previous, err);
    if (status == EMO_OK) {
        status = describe(device, err);
        emo_cuda_leave(device, previous);
    }
    if (status != EMO_OK) {
        destroy(device);
        return status;
    }
    *out = &device->base;
    return EMO_OK;
}

emo_status emo_cuda_device_info(const emo_backend *backend, emo_backend_device_info *out, emo_error *err) {
    const emo_cuda_device *device = (const emo_cuda_device *)backend;
    (void)err;
    memcpy(out->name, device->name, sizeof out->name);
    out->kind = EMO_DEVICE_CUDA;
    out->memory_bytes = device->memory_bytes;
    return EMO_OK;
}

void emo_cuda_destroy(emo_backend *backend) {
    if (backend != NULL)
        destroy(emo_cuda_device_of(backend));
}
