/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the dynamic linker is to the real plug-in: the stand-in for cuBLASLt is "where the linker looks" unless a test
 * takes it away, and in every folder that has a file of its name.
 */
#include <cublasLt.h>
#include <unistd.h>

#include "cudasim/internal.h"

namespace cudasim {

#define TEXT(x) #x
#define SONAME(base, major) base ".so." TEXT(major)
static const char soname[] = SONAME("libcublasLt", CUBLAS_VER_MAJOR);

#define FUNCTIONS(X)                                                                                                   \
    X(cublasLtCreate)                                                                                                  \
    X(cublasLtDestroy)                                                                                                 \
    X(cublasLtGetVersion)                                                                                              \
    X(cublasLtMatmulDescCreate)                                                                                        \
    X(cublasLtMatmulDescDestroy)                                                                                       \
    X(cublasLtMatmulDescSetAttribute)                                                                                  \
    X(cublasLtMatrixLayoutCreate)                                                                                      \
    X(cublasLtMatrixLayoutDestroy)                                                                                     \
    X(cublasLtMatrixLayoutSetAttribute)                                                                                \
    X(cublasLtMatmulPreferenceCreate)                                                                                  \
    X(cublasLtMatmulPreferenceDestroy)                                                                                 \
    X(cublasLtMatmulPreferenceSetAttribute)                                                                            \
    X(cublasLtMatmulAlgoGetHeuristic)                                                                                  \
    X(cublasLtMatmul)

static const char *error;

void *library_open(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash != nullptr ? slash + 1 : path;
    bool there =
        strcmp(name, soname) == 0 && (slash != nullptr ? access(path, R_OK) == 0 : options.blas != Blas::missing);
    error = there ? nullptr : "no such library";
    return there ? (void *)soname : nullptr;
}

const char *library_error() { return error; }

void *library_symbol(void *library, const char *name) {
    if (library != (void *)soname)
        return nullptr;
#define FIND(function)                                                                                                 \
    if (strcmp(name, #function) == 0)                                                                                  \
        return (void *)&::function;
    FUNCTIONS(FIND)
#undef FIND
    return nullptr;
}

} // namespace cudasim
