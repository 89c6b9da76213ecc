/* SPDX-License-Identifier: Apache-2.0 */
/* NVIDIA's libraries, opened at run time so that the plug-in loads on machines without them. They are looked for beside
 * the plug-in and then where the dynamic linker looks, which finds a copy that the host has loaded already. */
#ifndef EMO_CUDA_LIBRARIES_H
#define EMO_CUDA_LIBRARIES_H

#include <cublasLt.h>
#include <emo/base.h>

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
#define EMO_CUDA_BLAS_FIELD(name) decltype(&::name) name;
    EMO_CUDA_BLAS_FUNCTIONS(EMO_CUDA_BLAS_FIELD)
#undef EMO_CUDA_BLAS_FIELD
} emo_cuda_libraries;

/* Fills `out`; EMO_E_NOT_FOUND says which library is missing and where it was looked for. The libraries stay open. */
emo_status emo_cuda_libraries_open(emo_cuda_libraries *out, emo_error *err);

#endif
