/* SPDX-License-Identifier: Apache-2.0 */
/* Errors of the CUDA runtime as statuses of the library. */
#include <stdarg.h>
#include <stdio.h>

#include "exec.h"

emo_status emo_cuda_fail(emo_error *err, emo_status code, const char *format, ...) {
    if (err != NULL) {
        va_list args;
        err->code = code;
        err->domain = EMO_DOMAIN_BACKEND;
        err->number = 0;
        va_start(args, format);
        (void)vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return code;
}

emo_status emo_cuda_check(cudaError_t result, const char *what, emo_error *err) {
    if (result == cudaSuccess)
        return EMO_OK;
    (void)cudaGetLastError(); /* an error that is not sticky must not show up in the host's next call */
    emo_status code = result == cudaErrorMemoryAllocation ? EMO_E_OUT_OF_MEMORY : EMO_E_BACKEND;
    (void)emo_cuda_fail(err, code, "%s failed: %s (%s)", what, cudaGetErrorString(result), cudaGetErrorName(result));
    if (err != NULL)
        err->number = (int64_t)result;
    return code;
}

emo_status emo_cuda_launched(cudaError_t result, const char *kernel, emo_error *err) {
    if (result == cudaSuccess)
        return EMO_OK;
    (void)cudaGetLastError();
    (void)emo_cuda_fail(err, EMO_E_BACKEND, "kernel '%s' could not be launched: %s (%s)%s", kernel,
                        cudaGetErrorString(result), cudaGetErrorName(result),
                        result == cudaErrorNoKernelImageForDevice
                            ? "; the plug-in was not built for this GPU: add its architecture to EMO_CUDA_ARCHITECTURES"
                            : "");
    if (err != NULL)
        err->number = (int64_t)result;
    return EMO_E_BACKEND;
}

emo_status emo_cuda_unsupported(emo_error *err, const char *what) {
    return emo_cuda_fail(err, EMO_E_UNSUPPORTED, "the CUDA back end cannot %s", what);
}
