/* SPDX-License-Identifier: Apache-2.0 */
/* The part of cuBLAS that stands for its products: GemmEx, strided and grouped. */
#include <cublas_v2.h>

#include "cudasim/gemm.h"
#include "cudasim/internal.h"

struct cublasContext {
    cudaStream_t stream;
    bool device_scalars;
};

namespace cudasim {

struct Call {
    bool ta, tb;
    int m, n, k, lda, ldb, ldc, batches;
    long long sa, sb, sc;
    float alpha, beta;
    cudaDataType_t at, bt, ct;
};

static cublasStatus_t valid(const Call &c, cublasComputeType_t compute) {
    if (element_bytes(c.at) == 0 || c.at != c.bt || (c.ct != CUDA_R_32F && c.ct != c.at))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (c.m < 0 || c.n < 0 || c.k < 0 || c.lda < (c.ta ? c.k : c.m) || c.ldb < (c.tb ? c.n : c.k) || c.ldc < c.m)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

static void product(const Call &g, const void *a, const void *b, void *c, const char *who) {
    Matrix out = column_major(c, g.ct, g.m, g.n, g.ldc, false);
    gemm(g.alpha, column_major(a, g.at, g.m, g.k, g.lda, g.ta), column_major(b, g.bt, g.k, g.n, g.ldb, g.tb), g.beta,
         out, out, nullptr, who);
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t *out) {
    CUDASIM_LOCK;
    if (allocation_fails())
        return CUBLAS_STATUS_ALLOC_FAILED;
    *out = new cublasContext{nullptr, false};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
    handle->stream = stream;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t mode) {
    return mode == CUBLAS_TF32_TENSOR_OP_MATH ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void *, size_t) { return CUBLAS_STATUS_SUCCESS; }

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m,
                                          int n, int k, const void *alpha, const void *a, cudaDataType at, int lda,
                                          long long sa, const void *b, cudaDataType bt, int ldb, long long sb,
                                          const void *beta, void *c, cudaDataType ct, int ldc, long long sc,
                                          int batches, cublasComputeType_t compute, cublasGemmAlgo_t) {
    CUDASIM_LOCK;
    Call g{ta != CUBLAS_OP_N,     tb != CUBLAS_OP_N,    m,  n,  k, lda, ldb, ldc, batches, sa, sb, sc,
           *(const float *)alpha, *(const float *)beta, at, bt, ct};
    cublasStatus_t status = valid(g, compute);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    cudaError_t error = enqueue(handle->stream, "cuBLAS", [=] {
        for (int i = 0; i < g.batches; i++)
            product(g, (const char *)a + (size_t)(i * g.sa) * element_bytes(g.at),
                    (const char *)b + (size_t)(i * g.sb) * element_bytes(g.bt),
                    (char *)c + (size_t)(i * g.sc) * element_bytes(g.ct), "cublasGemmEx");
        return cudaSuccess;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb, int m, int n, int k,
                            const void *alpha, const void *a, cudaDataType at, int lda, const void *b, cudaDataType bt,
                            int ldb, const void *beta, void *c, cudaDataType ct, int ldc, cublasComputeType_t compute,
                            cublasGemmAlgo_t algo) {
    return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, at, lda, 0, b, bt, ldb, 0, beta, c, ct, ldc, 0,
                                      1, compute, algo);
}

/* The arrays of addresses lie on the device and are read when the work runs; the shapes lie on the host. */
cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t ta[],
                                          const cublasOperation_t tb[], const int m[], const int n[], const int k[],
                                          const void *alpha, const void *const a[], cudaDataType_t at, const int lda[],
                                          const void *const b[], cudaDataType_t bt, const int ldb[], const void *beta,
                                          void *const c[], cudaDataType_t ct, const int ldc[], int groups,
                                          const int group_size[], cublasComputeType_t compute) {
    CUDASIM_LOCK;
    std::vector<Call> calls;
    for (int i = 0; i < groups; i++) {
        Call g{ta[i] != CUBLAS_OP_N,
               tb[i] != CUBLAS_OP_N,
               m[i],
               n[i],
               k[i],
               lda[i],
               ldb[i],
               ldc[i],
               group_size[i],
               0,
               0,
               0,
               ((const float *)alpha)[i],
               ((const float *)beta)[i],
               at,
               bt,
               ct};
        cublasStatus_t status = valid(g, compute);
        if (status != CUBLAS_STATUS_SUCCESS)
            return status;
        calls.push_back(g);
    }
    cudaError_t error = enqueue(handle->stream, "cuBLAS", [=] {
        size_t at_matrix = 0;
        for (const Call &g : calls)
            for (int i = 0; i < g.batches; i++, at_matrix++) {
                for (const void *entry :
                     {(const void *)&a[at_matrix], (const void *)&b[at_matrix], (const void *)&c[at_matrix]})
                    if (!inside_allocation(entry, sizeof(void *), true, "an array of cublasGemmGroupedBatchedEx"))
                        return cudaErrorIllegalAddress;
                product(g, a[at_matrix], b[at_matrix], c[at_matrix], "cublasGemmGroupedBatchedEx");
            }
        return cudaSuccess;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} /* extern "C" */
