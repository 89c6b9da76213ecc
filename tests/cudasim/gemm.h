/* SPDX-License-Identifier: Apache-2.0 */
/* The product behind the stand-ins for cuBLAS and cuBLASLt. */
#ifndef CUDASIM_GEMM_H
#define CUDASIM_GEMM_H

#include <library_types.h>
#include <stddef.h>

namespace cudasim {

/* A matrix in device memory; op(M) is rows x cols. Element (i, j) of op(M) lies at i * down + j * right. */
struct Matrix {
    const void *data;
    cudaDataType_t type;
    int rows, cols;
    size_t down, right;
};

size_t element_bytes(cudaDataType_t type); /* 0: not one the simulator knows */
/* D = alpha A B + beta C, sums in f32 in the order of k; C is not read when beta is 0. bias (f32 or bf16, [rows]) may
 * be NULL. */
void gemm(float alpha, const Matrix &a, const Matrix &b, float beta, const Matrix &c, const Matrix &d,
          const Matrix *bias, const char *who);
/* Memory of a column-major matrix as the library was told of it; op N or T. */
Matrix column_major(const void *data, cudaDataType_t type, int rows, int cols, long long ld, bool transposed);

} // namespace cudasim

#endif
