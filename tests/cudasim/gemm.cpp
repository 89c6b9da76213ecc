/* SPDX-License-Identifier: Apache-2.0 */
#include "cudasim/gemm.h"

#include <cuda_fp16.h>

#include "cudasim/internal.h"

namespace cudasim {

size_t element_bytes(cudaDataType_t type) {
    return type == CUDA_R_32F ? 4 : type == CUDA_R_16BF || type == CUDA_R_16F ? 2 : 0;
}

static float load(const Matrix &m, size_t at) {
    if (m.type == CUDA_R_32F)
        return ((const float *)m.data)[at];
    if (m.type == CUDA_R_16BF)
        return __bfloat162float(((const __nv_bfloat16 *)m.data)[at]);
    return __half2float(((const __half *)m.data)[at]);
}

static void store(const Matrix &m, size_t at, float v) {
    if (m.type == CUDA_R_32F)
        ((float *)const_cast<void *>(m.data))[at] = v;
    else if (m.type == CUDA_R_16BF)
        ((__nv_bfloat16 *)const_cast<void *>(m.data))[at] = __float2bfloat16(v);
    else
        ((__half *)const_cast<void *>(m.data))[at] = __float2half(v);
}

Matrix column_major(const void *data, cudaDataType_t type, int rows, int cols, long long ld, bool transposed) {
    return transposed ? Matrix{data, type, rows, cols, (size_t)ld, 1} : Matrix{data, type, rows, cols, 1, (size_t)ld};
}

/* Every line of memory that the matrix has. */
template <class Fn>
static bool each_line(const Matrix &m, Fn fn) {
    bool lines_are_columns = m.down == 1;
    int lines = lines_are_columns ? m.cols : m.rows, length = lines_are_columns ? m.rows : m.cols;
    size_t stride = lines_are_columns ? m.right : m.down, item = element_bytes(m.type);
    for (int i = 0; i < lines; i++)
        if (!fn((char *)const_cast<void *>(m.data) + (size_t)i * stride * item, (size_t)length * item))
            return false;
    return true;
}

static bool readable(const Matrix &m, const char *who, bool read) {
    return each_line(m, [&](void *p, size_t bytes) {
        if (!is_device(p)) {
            finding("%s: operand at %p is not device memory", who, p);
            return false;
        }
        if (!inside_allocation(p, bytes, true, who))
            return false;
        if (read)
            check_initialised(p, bytes, who);
        return true;
    });
}

/* row += v * b over n columns, n a multiple of 8. */
#if defined(__x86_64__) && !defined(__clang__)
__attribute__((target_clones("avx2,fma", "default")))
#endif
static void
multiply(float *c, const float *a, const float *b, int m, int n, int k) {
    using Vec = float __attribute__((vector_size(32)));
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j += 32) {
            Vec sum[4] = {};
            int width = n - j < 32 ? (n - j) / 8 : 4;
            for (int p = 0; p < k; p++) {
                float v = a[(size_t)i * (size_t)k + (size_t)p];
                const float *row = b + (size_t)p * (size_t)n + j;
                if (width == 4) {
                    Vec w[4];
                    memcpy(w, row, sizeof w);
                    for (int q = 0; q < 4; q++)
                        sum[q] += v * w[q];
                } else {
                    for (int q = 0; q < width; q++) {
                        Vec w;
                        memcpy(&w, row + q * 8, sizeof w);
                        sum[q] += v * w;
                    }
                }
            }
            memcpy(c + (size_t)i * (size_t)n + j, sum, (size_t)width * sizeof(Vec));
        }
}

void gemm(float alpha, const Matrix &a, const Matrix &b, float beta, const Matrix &c, const Matrix &d,
          const Matrix *bias, const char *who) {
    int m = a.rows, k = a.cols, n = b.cols, wide = (n + 7) / 8 * 8;
    if (m <= 0 || n <= 0)
        return;
    if (!readable(a, who, true) || !readable(b, who, true) || (beta != 0 && !readable(c, who, true)) ||
        !readable(d, who, false) || (bias != nullptr && !readable(*bias, who, true)))
        return;
    std::vector<float> left((size_t)m * (size_t)k), right((size_t)k * (size_t)wide), out((size_t)m * (size_t)wide);
    for (int i = 0; i < m; i++)
        for (int p = 0; p < k; p++)
            left[(size_t)i * (size_t)k + (size_t)p] = load(a, (size_t)i * a.down + (size_t)p * a.right);
    for (int p = 0; p < k; p++)
        for (int j = 0; j < n; j++)
            right[(size_t)p * (size_t)wide + (size_t)j] = load(b, (size_t)p * b.down + (size_t)j * b.right);
    multiply(out.data(), left.data(), right.data(), m, wide, k);
    for (int i = 0; i < m; i++) {
        float add = bias != nullptr ? load(*bias, (size_t)i) : 0.0f;
        for (int j = 0; j < n; j++) {
            float v = alpha * out[(size_t)i * (size_t)wide + (size_t)j] + add;
            if (beta != 0)
                v += beta * load(c, (size_t)i * c.down + (size_t)j * c.right);
            store(d, (size_t)i * d.down + (size_t)j * d.right, v);
        }
    }
    each_line(d, [](void *p, size_t bytes) {
        check_written(p, bytes);
        return true;
    });
}

} // namespace cudasim
