/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The part of cuBLASLt that a cached plan needs: descriptors, a heuristic, the product. It holds callers to what they
 * told the heuristic: the shapes, the alignment of each operand, the workspace (which it scribbles over). Some shapes
 * get an algorithm that adds the parts of its sums in the output in an order of chance, unless the caller forbids it.
 */
#include <cublasLt.h>

#include "cudasim/gemm.h"
#include "cudasim/internal.h"

struct cublasLtContext {
    int unused;
};

namespace cudasim {

struct Product { /* fits the opaque struct */
    cublasComputeType_t compute;
    cudaDataType_t scale;
    int trans_a, trans_b, device_scalars;
    cublasLtEpilogue_t epilogue;
    const void *bias;
    cudaDataType_t bias_type;
};
struct Layout {
    uint64_t rows, cols;
    int64_t ld, batch_stride;
    cudaDataType_t type;
    int32_t order, batches;
};
struct Preference {
    uint64_t workspace;
    uint32_t align[4];
    uint32_t reductions;
};
struct Algo {
    uint64_t magic, shape, workspace;
    uint32_t align[4];
    uint32_t reduction;
};
static_assert(sizeof(Product) <= sizeof(cublasLtMatmulDescOpaque_t), "a descriptor fits");
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "a layout fits");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "a preference fits");
static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t), "an algorithm fits");
constexpr uint64_t algo_magic = 0x63756461736d616cull;
int heuristics;

template <class T, class Opaque>
static T &as(Opaque *opaque) {
    return *reinterpret_cast<T *>(opaque);
}
template <class T, class Opaque>
static const T &as(const Opaque *opaque) {
    return *reinterpret_cast<const T *>(opaque);
}

template <class T>
static cublasStatus_t set(T &field, const void *value, size_t bytes) {
    if (value == nullptr || bytes != sizeof field)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&field, value, sizeof field);
    return CUBLAS_STATUS_SUCCESS;
}

static uint64_t shape_of(const Product &p, const Layout &a, const Layout &b, const Layout &c, const Layout &d) {
    uint64_t h = 1469598103934665603ull;
    auto mix = [&h](uint64_t v) { h = (h ^ v) * 1099511628211ull; };
    for (const Layout *l : {&a, &b, &c, &d}) {
        mix(l->rows);
        mix(l->cols);
        mix((uint64_t)l->ld);
        mix((uint64_t)l->type);
        mix((uint64_t)l->order);
        mix((uint64_t)l->batches);
    }
    mix((uint64_t)p.trans_a * 2 + (uint64_t)p.trans_b);
    mix((uint64_t)p.epilogue);
    mix((uint64_t)p.compute);
    return h;
}

/* op(M) of a layout. */
static Matrix view(const void *data, const Layout &l, bool transposed, int batch) {
    const char *base = (const char *)data + (size_t)batch * (size_t)l.batch_stride * element_bytes(l.type);
    bool by_rows = l.order == CUBLASLT_ORDER_ROW;
    int rows = (int)(transposed ? l.cols : l.rows), cols = (int)(transposed ? l.rows : l.cols);
    return column_major(base, l.type, rows, cols, l.ld, transposed != by_rows);
}

static bool agree(const Product &p, const Layout &a, const Layout &b, const Layout &c, const Layout &d) {
    uint64_t m = p.trans_a ? a.cols : a.rows, k = p.trans_a ? a.rows : a.cols;
    uint64_t k2 = p.trans_b ? b.cols : b.rows, n = p.trans_b ? b.rows : b.cols;
    return k == k2 && d.rows == m && d.cols == n && c.rows == m && c.cols == n && a.batches == d.batches &&
           b.batches == d.batches;
}

static bool supported(const Product &p, const Layout &a, const Layout &b, const Layout &c, const Layout &d) {
    bool types = a.type == b.type && c.type == d.type && (d.type == CUDA_R_32F || d.type == a.type);
    bool compute = p.compute == CUBLAS_COMPUTE_32F || p.compute == CUBLAS_COMPUTE_32F_PEDANTIC;
    bool epilogue = p.epilogue == CUBLASLT_EPILOGUE_DEFAULT || p.epilogue == CUBLASLT_EPILOGUE_BIAS;
    return types && compute && epilogue && p.scale == CUDA_R_32F;
}

/* A third of each sum after the other, in turns from the first one on and from the last one on. */
static void by_chance(float alpha, const Matrix &a, const Matrix &b, float beta, const Matrix &c, const Matrix &d,
                      const Matrix *bias) {
    static bool turn;
    turn = !turn;
    for (int i = 0; i < 3; i++) {
        int part = turn ? i : 2 - i, first = a.cols * part / 3, count = a.cols * (part + 1) / 3 - first;
        Matrix left = a, right = b;
        left.data = (const char *)a.data + (size_t)first * a.right * element_bytes(a.type);
        right.data = (const char *)b.data + (size_t)first * b.down * element_bytes(b.type);
        left.cols = right.rows = count;
        gemm(alpha, left, right, i == 0 ? beta : 1.0f, i == 0 ? c : d, d, i == 0 ? bias : nullptr, "cublasLtMatmul");
    }
}

} // namespace cudasim

using namespace cudasim;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t *out) {
    CUDASIM_LOCK;
    if (allocation_fails())
        return CUBLAS_STATUS_ALLOC_FAILED;
    *out = new cublasLtContext{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}
size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }

/* ---- descriptors ---- */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale) {
    *out = new cublasLtMatmulDescOpaque_t();
    as<Product>(*out) = Product{compute, scale, 0, 0, 0, CUBLASLT_EPILOGUE_DEFAULT, nullptr, CUDA_R_32F};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
    delete desc;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    Product &p = as<Product>(desc);
    cublasOperation_t op = CUBLAS_OP_N;
    cublasStatus_t status = CUBLAS_STATUS_NOT_SUPPORTED;
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        status = set(op, value, bytes);
        p.trans_a = op == CUBLAS_OP_T;
        break;
    case CUBLASLT_MATMUL_DESC_TRANSB:
        status = set(op, value, bytes);
        p.trans_b = op == CUBLAS_OP_T;
        break;
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        status = set(p.device_scalars, value, bytes);
        break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        status = set(p.epilogue, value, bytes);
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        status = set(p.bias, value, bytes);
        break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
        status = set(p.bias_type, value, bytes);
        break;
    default:
        break;
    }
    return op == CUBLAS_OP_C ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t cols,
                                          int64_t ld) {
    *out = nullptr;
    if (rows == 0 || cols == 0 || ld < (int64_t)rows || element_bytes(type) == 0)
        return CUBLAS_STATUS_INVALID_VALUE;
    *out = new cublasLtMatrixLayoutOpaque_t();
    as<Layout>(*out) = Layout{rows, cols, ld, 0, type, CUBLASLT_ORDER_COL, 1};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes) {
    Layout &l = as<Layout>(layout);
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return set(l.order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return set(l.batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return set(l.batch_stride, value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
    *out = new cublasLtMatmulPreferenceOpaque_t();
    as<Preference>(*out) = Preference{
        0, {256, 256, 256, 256}, CUBLASLT_REDUCTION_SCHEME_MASK}; /* what cuBLASLt expects unless told otherwise */
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    Preference &p = as<Preference>(preference);
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(p.workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return set(p.align[0], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return set(p.align[1], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return set(p.align[2], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return set(p.align[3], value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(p.reductions, value, bytes);
    default:
        return CUBLAS_STATUS_NOT_SUPPORTED;
    }
}

/* ---- the heuristic and the product ---- */

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int requested,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
    CUDASIM_LOCK;
    *found = 0;
    if (handle == nullptr || requested < 1)
        return CUBLAS_STATUS_INVALID_VALUE;
    heuristics++;
    const Product &p = as<Product>(desc);
    const Layout &la = as<Layout>(a), &lb = as<Layout>(b), &lc = as<Layout>(c), &ld = as<Layout>(d);
    if (!agree(p, la, lb, lc, ld))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(p, la, lb, lc, ld) || options.blas == Blas::refusing)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    const Preference &wish = as<Preference>(preference);
    /* Some shapes want a workspace, so that callers must have one; what does not fit is not offered. */
    uint64_t shape = shape_of(p, la, lb, lc, ld), workspace = shape % 3 == 0 ? 0 : 4096 << shape % 4;
    bool in_place = shape % 5 < 2 && ld.type == CUDA_R_32F && (wish.reductions & CUBLASLT_REDUCTION_SCHEME_INPLACE);
    Algo algo{algo_magic,
              shape,
              workspace <= wish.workspace ? workspace : 0,
              {},
              in_place ? (uint32_t)CUBLASLT_REDUCTION_SCHEME_INPLACE : (uint32_t)CUBLASLT_REDUCTION_SCHEME_NONE};
    memcpy(algo.align, wish.align, sizeof algo.align);
    results[0] = cublasLtMatmulHeuristicResult_t();
    memcpy(&results[0].algo, &algo, sizeof algo);
    results[0].workspaceSize = algo.workspace;
    results[0].state = CUBLAS_STATUS_SUCCESS;
    *found = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *chosen, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    CUDASIM_LOCK;
    if (handle == nullptr)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    Product p = as<Product>(desc);
    Layout la = as<Layout>(a_layout), lb = as<Layout>(b_layout), lc = as<Layout>(c_layout), ld = as<Layout>(d_layout);
    if (!agree(p, la, lb, lc, ld))
        return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(p, la, lb, lc, ld))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    Algo algo{algo_magic, shape_of(p, la, lb, lc, ld), 0, {16, 16, 16, 16}, CUBLASLT_REDUCTION_SCHEME_NONE};
    if (chosen != nullptr)
        memcpy(&algo, chosen, sizeof algo);
    if (algo.magic != algo_magic || algo.shape != shape_of(p, la, lb, lc, ld)) {
        finding("cublasLtMatmul: the algorithm was chosen for another product");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    const void *operands[4] = {a, b, c, d};
    for (int i = 0; i < 4; i++)
        if (algo.align[i] != 0 && (uintptr_t)operands[i] % algo.align[i] != 0) {
            finding("cublasLtMatmul: operand %c is not aligned to the %u bytes the heuristic was promised", "ABCD"[i],
                    algo.align[i]);
            return CUBLAS_STATUS_INVALID_VALUE;
        }
    if (workspace_bytes < algo.workspace) {
        finding("cublasLtMatmul: a workspace of %zu bytes, the algorithm needs %zu", workspace_bytes,
                (size_t)algo.workspace);
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    float factors[2] = {0, 0};
    if (!p.device_scalars) {
        memcpy(&factors[0], alpha, sizeof(float));
        memcpy(&factors[1], beta, sizeof(float));
    }
    if (algo.workspace > 0 && (uintptr_t)workspace % 256 != 0) {
        finding("cublasLtMatmul: the workspace is not aligned to 256 bytes");
        return CUBLAS_STATUS_INVALID_VALUE;
    }
    size_t used = algo.workspace;
    bool in_place = algo.reduction == CUBLASLT_REDUCTION_SCHEME_INPLACE;
    float al = factors[0], be = factors[1];
    cudaError_t error = enqueue(stream, "cublasLtMatmul", [=] {
        float x = al, y = be;
        if (p.device_scalars) {
            check_initialised(alpha, sizeof x, "cublasLtMatmul");
            check_initialised(beta, sizeof y, "cublasLtMatmul");
            memcpy(&x, alpha, sizeof x);
            memcpy(&y, beta, sizeof y);
        }
        if (used > 0) {
            if (!inside_allocation(workspace, used, true, "the workspace of cublasLtMatmul"))
                return cudaErrorIllegalAddress;
            memset(workspace, 0xff, used);
            check_written(workspace, used);
        }
        Matrix bias = column_major(p.bias, p.bias_type, (int)ld.rows, 1, (long long)ld.rows, false);
        const Matrix *add = p.epilogue == CUBLASLT_EPILOGUE_BIAS ? &bias : nullptr;
        for (int i = 0; i < ld.batches; i++) {
            Matrix left = view(a, la, p.trans_a != 0, i), right = view(b, lb, p.trans_b != 0, i);
            Matrix from = view(c, lc, false, i), to = view(d, ld, false, i);
            if (in_place && left.cols > 2)
                by_chance(x, left, right, y, from, to, add);
            else
                gemm(x, left, right, y, from, to, add, "cublasLtMatmul");
        }
        return cudaSuccess;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

} /* extern "C" */
