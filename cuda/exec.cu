/* SPDX-License-Identifier: Apache-2.0 */
/* Execs: a stream with its scratch, transfers and cached plans. */
#include <string.h>

#include "device.h"
#include "plans.h"
#include "tape.h"

static void destroy(emo_cuda_exec *e) {
    emo_cuda_device *device = e->device;
    (void)emo_cuda_tape_issue(e, "the exec goes", NULL);
    if (!emo_cuda_planning(e) && (e->stream != NULL || !e->owns_stream))
        (void)cudaStreamSynchronize(e->stream);
    emo_cuda_tape_destroy(e);
    emo_cuda_lists_destroy(e);
    emo_cuda_plans_destroy(e);
    emo_cuda_arena_destroy(e);
    emo_cuda_transfers_destroy(e);
    (void)pthread_mutex_lock(&device->lock);
    for (emo_cuda_exec **at = &device->execs; *at != NULL; at = &(*at)->next)
        if (*at == e) {
            *at = e->next;
            break;
        }
    emo_cuda_memory_forget(device, e);
    (void)pthread_mutex_unlock(&device->lock);
    if (e->owns_stream && e->stream != NULL)
        (void)cudaStreamDestroy(e->stream);
    device->services.free(device->services.ctx, e);
}

void emo_cuda_exec_destroy(emo_exec *exec) {
    int previous;
    if (exec == NULL)
        return;
    const emo_cuda_device *device = emo_cuda_of(exec)->device;
    emo_status entered = emo_cuda_enter(device, &previous, NULL);
    destroy(emo_cuda_of(exec));
    if (entered == EMO_OK)
        emo_cuda_leave(device, previous);
}

static emo_status fill(emo_cuda_exec *e, const emo_exec_options *options, emo_error *err) {
    emo_cuda_device *device = e->device;
    e->compute = options != NULL ? options->compute : EMO_DTYPE_F32;
    e->deterministic = options == NULL || options->deterministic != 0;
    if (emo_cuda_planning(e)) {
        e->stream = EMO_NO_STREAM;
    } else if (options != NULL && options->host_stream != NULL) {
        e->stream = (cudaStream_t)options->host_stream;
    } else {
        e->owns_stream = 1;
        EMO_CUDA_TRY(emo_cuda_check(cudaStreamCreateWithFlags(&e->stream, cudaStreamNonBlocking),
                                    "cudaStreamCreateWithFlags", err));
    }
    (void)pthread_mutex_lock(&device->lock);
    if (device->execs != NULL && device->execs->next == NULL)
        emo_cuda_memory_shared(device);
    e->next = device->execs;
    device->execs = e;
    (void)pthread_mutex_unlock(&device->lock);
    EMO_CUDA_TRY(emo_cuda_transfers_create(e, err));
    return emo_cuda_plans_create(e, err);
}

emo_status emo_cuda_host_zeroed(const emo_cuda_exec *exec, size_t bytes, void **out, emo_error *err) {
    const emo_backend_services *services = &exec->device->services;
    *out = services->alloc(services->ctx, bytes);
    if (*out == NULL)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for %zu bytes", bytes);
    memset(*out, 0, bytes);
    return EMO_OK;
}

emo_status emo_cuda_exec_create(emo_backend *backend, const emo_exec_options *options, emo_exec **out, emo_error *err) {
    emo_cuda_device *device = emo_cuda_device_of(backend);
    int previous;
    *out = NULL;
    if (options != NULL && options->compute != EMO_DTYPE_F32 && options->compute != EMO_DTYPE_BF16)
        return emo_cuda_unsupported(err, "compute in this data type; f32 and bf16 are supported");
    EMO_CUDA_TRY(emo_cuda_enter(device, &previous, err));
    emo_cuda_exec *e = (emo_cuda_exec *)device->services.alloc(device->services.ctx, sizeof *e);
    emo_status status = EMO_OK;
    if (e == NULL) {
        status = emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for an exec of %zu bytes", sizeof *e);
    } else {
        memset(e, 0, sizeof *e);
        e->base.backend = backend;
        e->device = device;
        status = fill(e, options, err);
        if (status == EMO_OK)
            *out = &e->base;
        else
            destroy(e);
    }
    emo_cuda_leave(device, previous);
    return status;
}
