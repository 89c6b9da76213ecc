/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for cuBLASLt: results against plain loops, and callers held to their word. */
#include "cudasim/support.h"

#include <cublasLt.h>

static std::vector<float> numbers(size_t n, unsigned seed) {
    std::vector<float> v(n);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)small_number(seed + (unsigned)i);
    return v;
}

/* Column-major: element (i, j) of op(M). */
static float at(const std::vector<float> &m, int ld, bool t, int i, int j) {
    return m[(size_t)(t ? i * ld + j : j * ld + i)];
}

static void expect_product(const std::vector<float> &got, const std::vector<float> &a, int lda, bool ta,
                           const std::vector<float> &b, int ldb, bool tb, const std::vector<float> &c, int ldc, int m,
                           int n, int k, float alpha, float beta) {
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            float sum = 0;
            for (int p = 0; p < k; p++)
                sum += at(a, lda, ta, i, p) * at(b, ldb, tb, p, j);
            float expected = alpha * sum + beta * c[(size_t)(j * ldc + i)];
            assert_true(got[(size_t)(j * ldc + i)] == expected); /* whole numbers: exact */
        }
}

/* A plan as the back end keeps it. */

struct Plan {
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulHeuristicResult_t found;
    Plan(int m, int n, int k, uint32_t align) : Plan(m, n, k, align, false, false, m, k, m) {}
    Plan(int m, int n, int k, uint32_t align, bool ta, bool tb, int lda, int ldb, int ldc) {
        cublasLtMatmulPreference_t wish;
        size_t room = 1 << 20;
        int count = 0;
        assert_int_equal(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
        assert_int_equal(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
        cublasOperation_t transposed = CUBLAS_OP_T;
        if (ta)
            cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
        if (tb)
            cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSB, &transposed, sizeof transposed);
        assert_int_equal(
            cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, (uint64_t)(ta ? k : m), (uint64_t)(ta ? m : k), lda),
            CUBLAS_STATUS_SUCCESS);
        assert_int_equal(
            cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, (uint64_t)(tb ? n : k), (uint64_t)(tb ? k : n), ldb),
            CUBLAS_STATUS_SUCCESS);
        assert_int_equal(cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, (uint64_t)m, (uint64_t)n, ldc),
                         CUBLAS_STATUS_SUCCESS);
        cublasLtMatmulPreferenceCreate(&wish);
        cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
        for (auto which : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                           CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
            cublasLtMatmulPreferenceSetAttribute(wish, which, &align, sizeof align);
        assert_int_equal(cublasLtMatmulAlgoGetHeuristic(handle, product, a, b, c, c, wish, 1, &found, &count),
                         CUBLAS_STATUS_SUCCESS);
        assert_int_equal(count, 1);
        cublasLtMatmulPreferenceDestroy(wish);
    }
    ~Plan() {
        cublasLtMatrixLayoutDestroy(a);
        cublasLtMatrixLayoutDestroy(b);
        cublasLtMatrixLayoutDestroy(c);
        cublasLtMatmulDescDestroy(product);
        cublasLtDestroy(handle);
    }
    cublasStatus_t run(const float *x, const float *y, float *z, const cublasLtMatmulAlgo_t *algo, void *workspace,
                       size_t room, float alpha = 1, float beta = 0) {
        return cublasLtMatmul(handle, product, &alpha, x, a, y, b, &beta, z, c, z, c, algo, workspace, room, nullptr);
    }
};

static void test_matmul(void **) {
    bool with_workspace = false;
    for (int m = 3; m < 9; m++) {
        int n = 7, k = 6;
        std::vector<float> x = numbers((size_t)(m * k), 1), y = numbers((size_t)(k * n), 2), z((size_t)(m * n), 0.0f);
        Plan plan(m, n, k, 4);
        Buffer<float> dx(x), dy(y), dz(z);
        Buffer<char> work(plan.found.workspaceSize + 1);
        with_workspace = with_workspace || plan.found.workspaceSize > 0;
        assert_int_equal(plan.run(dx.data, dy.data, dz.data, &plan.found.algo, work.data, plan.found.workspaceSize),
                         CUBLAS_STATUS_SUCCESS);
        expect_product(dz.get(), x, m, false, y, k, false, z, m, m, n, k, 1, 0);
        if (plan.found.workspaceSize > 0) {
            assert_int_equal(plan.run(dx.data, dy.data, dz.data, &plan.found.algo, work.data, 1),
                             CUBLAS_STATUS_INVALID_VALUE);
            assert_non_null(strstr(take_findings().c_str(), "a workspace of 1 bytes"));
        }
    }
    assert_true(with_workspace); /* else the case above was never met */
    assert_string_equal(take_findings().c_str(), "");
}

static void test_transposed(void **) {
    for (int which = 0; which < 4; which++) {
        bool ta = which & 1, tb = which & 2;
        int m = 5, n = 35, k = 11, lda = (ta ? k : m) + 2, ldb = (tb ? n : k) + 1, ldc = m + 3;
        std::vector<float> a = numbers((size_t)(lda * (ta ? m : k)), 1), b = numbers((size_t)(ldb * (tb ? k : n)), 2),
                           c = numbers((size_t)(ldc * n), 3);
        Plan plan(m, n, k, 4, ta, tb, lda, ldb, ldc);
        Buffer<float> da(a), db(b), dc(c);
        Buffer<char> work(plan.found.workspaceSize + 1);
        float alpha = 2, beta = which < 2 ? 0.0f : -1.0f;
        assert_int_equal(
            plan.run(da.data, db.data, dc.data, &plan.found.algo, work.data, plan.found.workspaceSize, alpha, beta),
            CUBLAS_STATUS_SUCCESS);
        expect_product(dc.get(), a, lda, ta, b, ldb, tb, c, ldc, m, n, k, alpha, beta);
    }
    assert_string_equal(take_findings().c_str(), "");
}

static void test_refusals(void **) {
    cublasLtMatrixLayout_t layout;
    cublasLtMatmulDesc_t product;
    assert_int_equal(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 8, 4, 7), CUBLAS_STATUS_INVALID_VALUE);
    Plan plan(4, 4, 4, 16);
    int count = 0;
    cublasLtMatmulPreference_t wish;
    cublasLtMatmulPreferenceCreate(&wish);
    cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F);
    assert_int_equal(cublasLtMatmulAlgoGetHeuristic(plan.handle, product, plan.a, plan.b, plan.c, plan.c, wish, 1,
                                                    &plan.found, &count),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    cublasLtMatmulDescDestroy(product);
    cublasLtMatmulPreferenceDestroy(wish);
}

static void test_matmul_promises(void **) {
    Plan plan(8, 8, 8, 16), other(8, 8, 4, 16);
    Buffer<float> x(numbers(80, 1)), y(numbers(80, 2)), z(80);
    Buffer<char> work(1 << 20);
    assert_int_equal(plan.run(x.data + 1, y.data, z.data, &plan.found.algo, work.data, work.count),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_non_null(strstr(take_findings().c_str(), "operand A is not aligned to the 16 bytes"));
    assert_int_equal(plan.run(x.data, y.data, z.data, &other.found.algo, work.data, work.count),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_non_null(strstr(take_findings().c_str(), "chosen for another product"));
    std::vector<float> host(64);
    assert_int_equal(plan.run(host.data(), y.data, z.data, nullptr, work.data, work.count), CUBLAS_STATUS_SUCCESS);
    (void)cudaDeviceSynchronize();
    assert_non_null(strstr(take_findings().c_str(), "is not device memory"));
    assert_int_equal(plan.run(x.data + 20, y.data, z.data, nullptr, work.data, work.count), CUBLAS_STATUS_SUCCESS);
    (void)cudaDeviceSynchronize();
    assert_non_null(strstr(take_findings().c_str(), "runs out of its allocation"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_matmul), cmocka_unit_test(test_transposed),
                                       cmocka_unit_test(test_refusals), cmocka_unit_test(test_matmul_promises)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
