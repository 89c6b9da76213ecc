/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products through cuBLASLt. Its matrices are column-major: a row-major C = A B is asked for as C^T = B^T A^T.
 * What cuBLASLt needs for a shape is asked once and kept. Operands are f32 with f32 products (no TF32), or bf16 with
 * f32 sums; a weight of another type than the product's is converted in pieces into scratch first. */
#include <string.h>

#include "device.h"
#include "kernel.h"
#include "libraries.h"
#include "ops/few_rows.h"

enum { PLAN_SLOTS = 1024, PLAN_LIMIT = 768, THREADS = 256 };
#define WORKSPACE_BYTES ((size_t)32 << 20)
#define CONVERTED_ELEMENTS ((int64_t)16 << 20) /* of a weight at a time */

/* What a plan depends on. Compared as bytes: padding is zeroed. */
typedef struct plan_key {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, bf16;
    uint32_t align_a, align_b, align_c;
} plan_key;

typedef struct plan {
    plan_key key;
    int32_t used;
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
} plan;

struct emo_cuda_plans {
    cublasLtHandle_t handle;
    int32_t count;
    plan slots[PLAN_SLOTS];
};

static emo_status blas_check(cublasStatus_t result, const char *what, emo_error *err) {
    if (result == CUBLAS_STATUS_SUCCESS)
        return EMO_OK;
    emo_status code = result == CUBLAS_STATUS_ALLOC_FAILED    ? EMO_E_OUT_OF_MEMORY
                      : result == CUBLAS_STATUS_NOT_SUPPORTED ? EMO_E_UNSUPPORTED
                                                              : EMO_E_BACKEND;
    (void)emo_cuda_fail(err, code, "%s failed with cuBLAS status %d", what, (int)result);
    if (err != NULL)
        err->number = (int64_t)result;
    return code;
}

/* ---- plans ---- */

static void drop_plan(const emo_cuda_libraries *lib, plan *p) {
    if (p->a != NULL)
        (void)lib->cublasLtMatrixLayoutDestroy(p->a);
    if (p->b != NULL)
        (void)lib->cublasLtMatrixLayoutDestroy(p->b);
    if (p->c != NULL)
        (void)lib->cublasLtMatrixLayoutDestroy(p->c);
    if (p->product != NULL)
        (void)lib->cublasLtMatmulDescDestroy(p->product);
    memset(p, 0, sizeof *p);
}

static void drop_plans(emo_cuda_exec *exec) {
    for (int32_t i = 0; i < PLAN_SLOTS; i++)
        drop_plan(exec->device->libraries, &exec->plans->slots[i]);
    exec->plans->count = 0;
}

emo_status emo_cuda_plans_create(emo_cuda_exec *exec, emo_error *err) {
    if (emo_cuda_planning(exec))
        return EMO_OK;
    emo_cuda_device *device = exec->device;
    exec->plans = (emo_cuda_plans *)device->services.alloc(device->services.ctx, sizeof *exec->plans);
    if (exec->plans == NULL)
        return emo_cuda_fail(err, EMO_E_OUT_OF_MEMORY, "out of host memory for the plans of matrix products");
    memset(exec->plans, 0, sizeof *exec->plans);
    return blas_check(device->libraries->cublasLtCreate(&exec->plans->handle), "cublasLtCreate", err);
}

void emo_cuda_plans_destroy(emo_cuda_exec *exec) {
    if (exec->plans == NULL)
        return;
    drop_plans(exec);
    if (exec->plans->handle != NULL)
        (void)exec->device->libraries->cublasLtDestroy(exec->plans->handle);
    exec->device->services.free(exec->device->services.ctx, exec->plans);
    exec->plans = NULL;
}

/* A column-major matrix; a single column may have come with any distance to the next. */
static cublasStatus_t layout(const emo_cuda_libraries *lib, cublasLtMatrixLayout_t *out, cudaDataType_t type,
                             int64_t rows, int64_t cols, int64_t ld) {
    if (cols == 1 && ld < rows)
        ld = rows;
    return lib->cublasLtMatrixLayoutCreate(out, type, (uint64_t)rows, (uint64_t)cols, ld);
}

static emo_status make_plan(emo_cuda_exec *exec, plan *p, emo_error *err) {
    const emo_cuda_libraries *lib = exec->device->libraries;
    const plan_key *k = &p->key;
    cudaDataType_t type = k->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    cublasOperation_t first = k->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, second = k->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    size_t room = WORKSPACE_BYTES;
    EMO_CUDA_TRY(blas_check(lib->cublasLtMatmulDescCreate(&p->product, CUBLAS_COMPUTE_32F, CUDA_R_32F),
                            "cublasLtMatmulDescCreate", err));
    cublasStatus_t result =
        lib->cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = lib->cublasLtMatmulDescSetAttribute(p->product, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    if (result == CUBLAS_STATUS_SUCCESS)
        result =
            k->trans_b ? layout(lib, &p->a, type, k->k, k->n, k->ldb) : layout(lib, &p->a, type, k->n, k->k, k->ldb);
    if (result == CUBLAS_STATUS_SUCCESS)
        result =
            k->trans_a ? layout(lib, &p->b, type, k->m, k->k, k->lda) : layout(lib, &p->b, type, k->k, k->m, k->lda);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = layout(lib, &p->c, CUDA_R_32F, k->n, k->m, k->ldc);
    EMO_CUDA_TRY(blas_check(result, "describing a matrix product to cuBLASLt", err));
    cublasLtMatmulPreference_t wish = NULL;
    EMO_CUDA_TRY(blas_check(lib->cublasLtMatmulPreferenceCreate(&wish), "cublasLtMatmulPreferenceCreate", err));
    result =
        lib->cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room);
    if (result == CUBLAS_STATUS_SUCCESS) /* cuBLASLt's A is our B */
        result = lib->cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                           &k->align_b, sizeof k->align_b);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = lib->cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                           &k->align_a, sizeof k->align_a);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = lib->cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                           &k->align_c, sizeof k->align_c);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = lib->cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                                           &k->align_c, sizeof k->align_c);
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    memset(&found, 0, sizeof found);
    if (result == CUBLAS_STATUS_SUCCESS)
        result = lib->cublasLtMatmulAlgoGetHeuristic(exec->plans->handle, p->product, p->a, p->b, p->c, p->c, wish, 1,
                                                     &found, &n_found);
    (void)lib->cublasLtMatmulPreferenceDestroy(wish);
    EMO_CUDA_TRY(blas_check(result, "cublasLtMatmulAlgoGetHeuristic", err));
    if (n_found < 1)
        return emo_cuda_fail(err, EMO_E_UNSUPPORTED, "cuBLASLt knows no way for a product of %lld x %lld x %lld",
                             (long long)k->m, (long long)k->n, (long long)k->k);
    p->algo = found.algo;
    p->workspace = found.workspaceSize;
    return EMO_OK;
}

static uint64_t hash_of(const plan_key *key) {
    const unsigned char *bytes = (const unsigned char *)key;
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < sizeof *key; i++)
        h = (h ^ bytes[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static emo_status find_plan(emo_cuda_exec *exec, const plan_key *key, plan **out, emo_error *err) {
    emo_cuda_plans *plans = exec->plans;
    if (plans->count >= PLAN_LIMIT)
        drop_plans(exec);
    for (uint64_t at = hash_of(key) % PLAN_SLOTS;; at = (at + 1) % PLAN_SLOTS) {
        plan *p = &plans->slots[at];
        if (p->used && memcmp(&p->key, key, sizeof *key) == 0) {
            *out = p;
            return EMO_OK;
        }
        if (!p->used) {
            memcpy(&p->key, key, sizeof *key);
            emo_status status = make_plan(exec, p, err);
            if (status != EMO_OK) {
                drop_plan(exec->device->libraries, p);
                return status;
            }
            p->used = 1;
            plans->count++;
            *out = p;
            return EMO_OK;
        }
    }
}

/* The alignment that cuBLASLt may count on, for the rows too. */
static uint32_t alignment(const void *data, int64_t ld, size_t item) {
    uint64_t bits = (uint64_t)(uintptr_t)data | (uint64_t)ld * item | 256u;
    return (uint32_t)(bits & (~bits + 1u));
}

/* ---- conversion ---- */

template <class T>
__global__ static void convert_kernel(T *dst, const void *src, int32_t dtype, int64_t rows, int64_t cols, int64_t ld) {
    int64_t i = emo_index();
    if (i >= rows * cols)
        return;
    float v = emo_element(src, dtype, i / cols * ld + i % cols);
    emo_store_element(dst, i, v);
}

/* A [rows, cols] piece as a dense array of the product's type, unless it is of that type already. */
static emo_status operand(emo_exec *exec, const void **data, emo_dtype dtype, int64_t *ld, int64_t rows, int64_t cols,
                          int bf16, emo_error *err) {
    void *dense;
    if (dtype == (bf16 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32))
        return EMO_OK;
    EMO_CUDA_TRY(emo_cuda_scratch(exec, (size_t)(rows * cols) * (bf16 ? 2 : 4), &dense, err));
    unsigned blocks = emo_blocks(rows * cols, THREADS);
    if (bf16)
        EMO_CUDA_TRY(
            emo_cuda_launched(EMO_LAUNCH((convert_kernel<__nv_bfloat16>), blocks, THREADS, 0, emo_cuda_stream(exec),
                                         (__nv_bfloat16 *)dense, *data, dtype, rows, cols, *ld),
                              "convert", err));
    else
        EMO_CUDA_TRY(emo_cuda_launched(EMO_LAUNCH((convert_kernel<float>), blocks, THREADS, 0, emo_cuda_stream(exec),
                                                  (float *)dense, *data, dtype, rows, cols, *ld),
                                       "convert", err));
    *data = dense;
    *ld = cols;
    return EMO_OK;
}

/* c = beta c: a product over nothing. */
__global__ static void scale_kernel(float *c, float beta, int64_t rows, int64_t cols, int64_t ld) {
    int64_t i = emo_index();
    if (i >= rows * cols)
        return;
    float *at = &c[i / cols * ld + i % cols];
    *at = beta != 0.0f ? beta * *at : 0.0f;
}

/* ---- the product ---- */

static emo_status run(emo_exec *exec, const emo_gemm_args *g, int bf16, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    plan_key key;
    plan *p = NULL;
    void *workspace = NULL;
    size_t item = bf16 ? 2 : 4;
    if (emo_cuda_planning(e)) /* the most that cuBLASLt may ask for */
        return emo_cuda_scratch(exec, WORKSPACE_BYTES, &workspace, err);
    memset(&key, 0, sizeof key);
    key.m = g->m, key.n = g->n, key.k = g->k, key.lda = g->lda, key.ldb = g->ldb, key.ldc = g->ldc;
    key.trans_a = g->trans_a != 0, key.trans_b = g->trans_b != 0, key.bf16 = bf16;
    key.align_a = alignment(g->a, g->lda, item);
    key.align_b = alignment(g->b, g->ldb, item);
    key.align_c = alignment(g->c, g->ldc, 4);
    EMO_CUDA_TRY(find_plan(e, &key, &p, err));
    if (p->workspace > 0)
        EMO_CUDA_TRY(emo_cuda_scratch(exec, p->workspace, &workspace, err));
    return blas_check(e->device->libraries->cublasLtMatmul(e->plans->handle, p->product, &g->alpha, g->b, p->a, g->a,
                                                           p->b, &g->beta, g->c, p->c, g->c, p->c, &p->algo, workspace,
                                                           p->workspace, e->stream),
                      "cublasLtMatmul", err);
}

static emo_status gemm(emo_exec *exec, const emo_gemm_args *args, int bf16, emo_error *err) {
    emo_gemm_args g = *args;
    if (g.m <= 0 || g.n <= 0)
        return EMO_OK;
    if (g.k <= 0)
        return emo_cuda_launched(EMO_LAUNCH((scale_kernel), emo_blocks(g.m * g.n, THREADS), THREADS, 0,
                                            emo_cuda_stream(exec), g.c, g.beta, g.m, g.n, g.ldc),
                                 "scale", err);
    if (!emo_is_weight_type(g.b_dtype) || (emo_is_quantised(g.b_dtype) && !g.trans_b))
        return emo_cuda_unsupported(err,
                                    "multiply by a weight of this data type; it can by f32, f16 and bf16, and from "
                                    "the rows of quantised ones");
    if (emo_cuda_few_rows_takes(&g))
        return emo_cuda_few_rows(exec, &g, err);
    const void *a = g.a;
    EMO_CUDA_TRY(operand(exec, &a, EMO_DTYPE_F32, &g.lda, g.trans_a ? g.k : g.m, g.trans_a ? g.m : g.k, bf16, err));
    g.a = (const float *)a;
    /* Converted weights are taken a few columns of C at a time, each piece into the same scratch. */
    int converts = g.b_dtype != (bf16 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32);
    int64_t step = converts && g.k < CONVERTED_ELEMENTS ? CONVERTED_ELEMENTS / g.k : g.n;
    for (int64_t at = 0; at < args->n; at += step) {
        emo_gemm_args piece = g;
        emo_cuda_mark mark = emo_cuda_scratch_mark(exec);
        int64_t left = args->n - at;
        const void *b = (const char *)g.b + emo_run_bytes(g.b_dtype, g.trans_b ? at * g.ldb : at);
        piece.n = left < step ? left : step;
        piece.c = g.c + at;
        EMO_CUDA_TRY(
            operand(exec, &b, g.b_dtype, &piece.ldb, g.trans_b ? piece.n : g.k, g.trans_b ? g.k : piece.n, bf16, err));
        piece.b = b;
        EMO_CUDA_TRY(run(exec, &piece, bf16, err));
        emo_cuda_scratch_release(exec, mark);
    }
    return EMO_OK;
}

emo_status emo_cuda_gemm_f32(emo_exec *exec, const emo_gemm_args *args, emo_error *err) {
    return gemm(exec, args, 0, err);
}

emo_status emo_cuda_gemm(emo_exec *exec, const emo_gemm_args *args, emo_error *err) {
    return gemm(exec, args, emo_cuda_of(exec)->compute == EMO_DTYPE_BF16, err);
}
