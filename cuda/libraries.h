/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA's libraries, opened at run time so that the plug-in loads on machines without them. They are looked for in the
 * folder that the host names; without one beside the plug-in, then where the dynamic linker looks, which finds a copy
 * that the host has loaded already. */
#ifndef EMO_CUDA_LIBRARIES_H
#define EMO_CUDA_LIBRARIES_H

#include <cublasLt.h>
#include <emo/sys/backend.h>

#define EMO_CUDA_BLAS_FUNCTIONS(X)                                                                                     \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)                                                                                     \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmul)

typedef struct emo_cuda_libraries {
    int32_t blas; /* cuBLASLt is there: its functions below may be called */
#define EMO_CUDA_BLAS_FIELD(name) decltype(&::name) name;
    EMO_CUDA_BLAS_FUNCTIONS(EMO_CUDA_BLAS_FIELD)
#undef EMO_CUDA_BLAS_FIELD
} emo_cuda_libraries;

/* Fills `out`; the libraries stay open. What is missing is told to the log, and products run on kernels of our own;
 * missing from the folder that the host named, it is EMO_E_NOT_FOUND. */
emo_status emo_cuda_libraries_open(const emo_backend_services *services, emo_cuda_libraries *out, emo_error *err);

#endif
