/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-ins for cuBLAS, cuBLASLt and cuRAND: results against plain loops, and callers held to their word. */
#include "cudasim/support.h"

#include <cublasLt.h>
#include <cublas_v2.h>
#include <curand.h>

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

static void test_gemm(void **) {
    cublasHandle_t handle;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    for (int which = 0; which < 4; which++) {
        bool ta = which & 1, tb = which & 2;
        int m = 5, n = 35, k = 11, lda = (ta ? k : m) + 2, ldb = (tb ? n : k) + 1, ldc = m + 3;
        std::vector<float> a = numbers((size_t)(lda * (ta ? m : k)), 1), b = numbers((size_t)(ldb * (tb ? k : n)), 2),
                           c = numbers((size_t)(ldc * n), 3);
        Buffer<float> da(a), db(b), dc(c);
        float alpha = 2, beta = which < 2 ? 0.0f : -1.0f;
        assert_int_equal(cublasGemmEx(handle, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, m, n, k,
                                      &alpha, da.data, CUDA_R_32F, lda, db.data, CUDA_R_32F, ldb, &beta, dc.data,
                                      CUDA_R_32F, ldc, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                         CUBLAS_STATUS_SUCCESS);
        expect_product(dc.get(), a, lda, ta, b, ldb, tb, c, ldc, m, n, k, alpha, beta);
    }
    float one = 1, zero = 0;
    Buffer<float> x(64);
    assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 8, 4, 4, &one, x.data, CUDA_R_32F, 7, x.data,
                                  CUDA_R_32F, 4, &zero, x.data, CUDA_R_32F, 8, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasGemmEx(handle, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, x.data, CUDA_R_32F, 4, x.data,
                                  CUDA_R_32F, 4, &zero, x.data, CUDA_R_32F, 4, CUBLAS_COMPUTE_32F_FAST_TF32,
                                  CUBLAS_GEMM_DEFAULT),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    cublasDestroy(handle);
}

/* Two groups of two products each; the arrays of addresses lie on the device. */
static void test_grouped(void **) {
    cublasHandle_t handle;
    assert_int_equal(cublasCreate(&handle), CUBLAS_STATUS_SUCCESS);
    int m[2] = {4, 3}, n[2] = {6, 9}, k[2] = {5, 8}, sizes[2] = {2, 2};
    cublasOperation_t ta[2] = {CUBLAS_OP_N, CUBLAS_OP_T}, tb[2] = {CUBLAS_OP_N, CUBLAS_OP_N};
    int lda[2] = {4, 8}, ldb[2] = {5, 8}, ldc[2] = {4, 3};
    float alpha[2] = {1, 1}, beta[2] = {0, 0};
    std::vector<float> a = numbers(200, 5), b = numbers(300, 6), c(200, 0.0f);
    Buffer<float> da(a), db(b), dc(c);
    std::vector<const void *> pa, pb;
    std::vector<void *> pc;
    for (int i = 0; i < 4; i++) {
        pa.push_back(da.data + i * 40);
        pb.push_back(db.data + i * 72);
        pc.push_back(dc.data + i * 30);
    }
    Buffer<const void *> ga(pa), gb(pb);
    Buffer<void *> gc(pc);
    assert_int_equal(cublasGemmGroupedBatchedEx(handle, ta, tb, m, n, k, alpha, ga.data, CUDA_R_32F, lda, gb.data,
                                                CUDA_R_32F, ldb, beta, gc.data, CUDA_R_32F, ldc, 2, sizes,
                                                CUBLAS_COMPUTE_32F),
                     CUBLAS_STATUS_SUCCESS);
    std::vector<float> got = dc.get();
    for (int i = 0; i < 4; i++) {
        int g = i / 2;
        std::vector<float> x(a.begin() + i * 40, a.end()), y(b.begin() + i * 72, b.end()),
            z(got.begin() + i * 30, got.end());
        expect_product(z, x, lda[g], g == 1, y, ldb[g], false, c, ldc[g], m[g], n[g], k[g], 1, 0);
    }
    cublasDestroy(handle);
}

/* ---- cuBLASLt: a plan as the back end keeps it ---- */

struct Plan {
    cublasLtHandle_t handle = nullptr;
    cublasLtMatmulDesc_t product = nullptr;
    cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;
    cublasLtMatmulHeuristicResult_t found;
    Plan(int m, int n, int k, uint32_t align) {
        cublasLtMatmulPreference_t wish;
        size_t room = 1 << 20;
        int count = 0;
        assert_int_equal(cublasLtCreate(&handle), CUBLAS_STATUS_SUCCESS);
        assert_int_equal(cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F, CUDA_R_32F), CUBLAS_STATUS_SUCCESS);
        assert_int_equal(cublasLtMatrixLayoutCreate(&a, CUDA_R_32F, (uint64_t)m, (uint64_t)k, m),
                         CUBLAS_STATUS_SUCCESS);
        assert_int_equal(cublasLtMatrixLayoutCreate(&b, CUDA_R_32F, (uint64_t)k, (uint64_t)n, k),
                         CUBLAS_STATUS_SUCCESS);
        assert_int_equal(cublasLtMatrixLayoutCreate(&c, CUDA_R_32F, (uint64_t)m, (uint64_t)n, m),
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
                       size_t room) {
        float one = 1, zero = 0;
        return cublasLtMatmul(handle, product, &one, x, a, y, b, &zero, z, c, z, c, algo, workspace, room, nullptr);
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

/* What a layout, a preference and a descriptor refuse, as the library does. */
static void test_matmul_refusals(void **) {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t layout;
    cublasLtMatmulPreference_t wish;
    cublasOperation_t conjugate = CUBLAS_OP_C;
    int32_t order = CUBLASLT_ORDER_ROW;
    uint32_t room = 1;
    assert_int_equal(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 4, 4, 3), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 0, 4, 4), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatrixLayoutCreate(&layout, CUDA_R_32F, 4, 4, 4), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, 1),
                     CUBLAS_STATUS_INVALID_VALUE);
    cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescCreate(&product, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F);
    assert_int_equal(cublasLtMatmulDescSetAttribute(product, CUBLASLT_MATMUL_DESC_TRANSA, &conjugate, sizeof conjugate),
                     CUBLAS_STATUS_NOT_SUPPORTED);
    cublasLtMatmulPreferenceCreate(&wish);
    assert_int_equal(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
                                                          sizeof room), /* it is 64 bits */
                     CUBLAS_STATUS_INVALID_VALUE);
    /* TF32, shapes that do not fit each other, nothing asked for */
    Plan plan(8, 8, 8, 16), other(8, 8, 4, 16);
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    assert_int_equal(
        cublasLtMatmulAlgoGetHeuristic(plan.handle, product, plan.a, plan.b, plan.c, plan.c, wish, 1, &found, &count),
        CUBLAS_STATUS_NOT_SUPPORTED);
    assert_int_equal(cublasLtMatmulAlgoGetHeuristic(plan.handle, plan.product, plan.a, other.b, plan.c, plan.c, wish, 1,
                                                    &found, &count),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(cublasLtMatmulAlgoGetHeuristic(plan.handle, plan.product, plan.a, plan.b, plan.c, plan.c, wish, 0,
                                                    &found, &count),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(count, 0);
    cublasLtMatmulPreferenceDestroy(wish);
    cublasLtMatmulDescDestroy(product);
    assert_string_equal(take_findings().c_str(), "");
}

/* Rows of a row-major left operand, and a bias added to the rows of the result. */
static void test_matmul_orders(void **) {
    const int m = 5, n = 7, k = 6;
    Plan plan(m, n, k, 4);
    int32_t order = CUBLASLT_ORDER_ROW;
    int64_t ld = k;
    cublasLtMatrixLayout_t rows;
    std::vector<float> x = numbers(m * k, 1), y = numbers(k * n, 2), z(m * n, 0.0f), bias = numbers(m, 4);
    Buffer<float> dx(x), dy(y), dz(z), db(bias);
    /* m rows of k: the layout is made for columns of m, then told otherwise */
    assert_int_equal(cublasLtMatrixLayoutCreate(&rows, CUDA_R_32F, m, k, ld), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(cublasLtMatrixLayoutSetAttribute(rows, CUBLASLT_MATRIX_LAYOUT_ORDER, &order, sizeof order),
                     CUBLAS_STATUS_SUCCESS);
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const float *address = db.data;
    cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    cublasLtMatmulDescSetAttribute(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &address, sizeof address);
    cublasLtMatrixLayoutDestroy(plan.a);
    plan.a = rows;
    Buffer<char> work(1 << 16);
    assert_int_equal(plan.run(dx.data, dy.data, dz.data, nullptr, work.data, work.count), CUBLAS_STATUS_SUCCESS);
    std::vector<float> got = dz.get();
    for (int j = 0; j < n; j++)
        for (int i = 0; i < m; i++) {
            float sum = bias[(size_t)i];
            for (int p = 0; p < k; p++)
                sum += x[(size_t)(i * k + p)] * y[(size_t)(j * k + p)];
            assert_true(got[(size_t)(j * m + i)] == sum);
        }
    assert_string_equal(take_findings().c_str(), "");
}

/* What the heuristic offers fits the workspace and the ways to add parts of sums that were allowed. */
static void test_matmul_limits(void **) {
    int with_workspace = 0, by_chance = 0;
    for (int m = 3; m < 20; m++)
        for (int allowed = 0; allowed < 2; allowed++) {
            Plan plan(m, 7, 64, 4);
            cublasLtMatmulPreference_t wish;
            uint64_t room = allowed ? 1 << 20 : 0;
            uint32_t reductions =
                CUBLASLT_REDUCTION_SCHEME_MASK & (allowed ? ~0u : ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_INPLACE);
            int count = 0;
            cublasLtMatmulPreferenceCreate(&wish);
            cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
            assert_int_equal(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                                  &reductions, sizeof reductions),
                             CUBLAS_STATUS_SUCCESS);
            assert_int_equal(cublasLtMatmulAlgoGetHeuristic(plan.handle, plan.product, plan.a, plan.b, plan.c, plan.c,
                                                            wish, 1, &plan.found, &count),
                             CUBLAS_STATUS_SUCCESS);
            cublasLtMatmulPreferenceDestroy(wish);
            assert_true(plan.found.workspaceSize <= room);
            with_workspace += plan.found.workspaceSize > 0;
            /* Numbers whose sums depend on their order. */
            std::vector<float> x((size_t)(m * 64)), y(64 * 7);
            for (size_t i = 0; i < x.size(); i++)
                x[i] = 1.0f / (float)(i + 3);
            for (size_t i = 0; i < y.size(); i++)
                y[i] = 1.0f / (float)(2 * i + 7);
            Buffer<float> dx(x), dy(y), first((size_t)(m * 7)), second((size_t)(m * 7));
            Buffer<char> work(1 << 20);
            plan.run(dx.data, dy.data, first.data, &plan.found.algo, work.data, work.count);
            plan.run(dx.data, dy.data, second.data, &plan.found.algo, work.data, work.count);
            int differs = first.get() != second.get();
            assert_true(allowed || !differs);
            by_chance += differs;
        }
    assert_true(with_workspace > 0 && by_chance > 0);
    assert_string_equal(take_findings().c_str(), "");
}

static void test_random(void **) {
    curandGenerator_t g;
    const size_t n = 20000;
    Buffer<float> u(n), v(n);
    assert_int_equal(curandCreateGenerator(&g, CURAND_RNG_PSEUDO_PHILOX4_32_10), CURAND_STATUS_SUCCESS);
    assert_int_equal(curandSetPseudoRandomGeneratorSeed(g, 5), CURAND_STATUS_SUCCESS);
    assert_int_equal(curandGenerateUniform(g, u.data, n), CURAND_STATUS_SUCCESS);
    assert_int_equal(curandGenerateNormal(g, v.data, n, 1.0f, 0.5f), CURAND_STATUS_SUCCESS);
    double sum = 0, mean = 0, square = 0;
    std::vector<float> a = u.get(), b = v.get();
    for (float x : a) {
        assert_true(x > 0 && x <= 1);
        sum += x;
    }
    for (float x : b)
        mean += x / (double)n;
    for (float x : b)
        square += (x - mean) * (x - mean) / (double)n;
    /* Five standard deviations of the mean of n: 0.29 / sqrt(n), 0.5 / sqrt(n), and of the variance. */
    assert_true(fabs(sum / (double)n - 0.5) < 5 * 0.29 / sqrt((double)n));
    assert_true(fabs(mean - 1.0) < 5 * 0.5 / sqrt((double)n));
    assert_true(fabs(square - 0.25) < 5 * 0.25 * sqrt(2.0 / (double)n));
    assert_int_equal(curandSetPseudoRandomGeneratorSeed(g, 5), CURAND_STATUS_SUCCESS);
    assert_int_equal(curandGenerateUniform(g, v.data, n), CURAND_STATUS_SUCCESS);
    assert_true(v.get() == a);
    curandDestroyGenerator(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gemm),
                                       cmocka_unit_test(test_grouped),
                                       cmocka_unit_test(test_matmul),
                                       cmocka_unit_test(test_matmul_promises),
                                       cmocka_unit_test(test_matmul_refusals),
                                       cmocka_unit_test(test_matmul_orders),
                                       cmocka_unit_test(test_matmul_limits),
                                       cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
