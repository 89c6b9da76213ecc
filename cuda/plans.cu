/* SPDX-License-Identifier: Apache-2.0 */
/* cuBLASLt's matrices are column-major: a row-major C = A B is asked for as C^T = B^T A^T. */
#include "plans.h"

#include <stdio.h>
#include <string.h>

#include "device.h"
#include "libraries.h"
#include "tape.h"

enum { PLAN_SLOTS = 1024, PLAN_LIMIT = 768 };
#define WORKSPACE_BYTES ((size_t)32 << 20)

/* What a plan depends on. Compared as bytes: padding is zeroed. */
typedef struct plan_key {
    int64_t m, n, k, lda, ldb, ldc;
    int32_t trans_a, trans_b, bf16;
    uint32_t align_a, align_b, align_c;
} plan_key;

typedef struct plan {
    plan_key key;
    int32_t used;
    int32_t refused; /* cuBLASLt has no way for it */
    int32_t tried;   /* cuBLASLt has run it */
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

/* cuBLASLt has no way for a product, or none on this device. */
static int refuses(cublasStatus_t result) {
    return result == CUBLAS_STATUS_NOT_SUPPORTED || result == CUBLAS_STATUS_ARCH_MISMATCH;
}

static emo_status blas_check(cublasStatus_t result, const char *what, emo_error *err) {
    if (result == CUBLAS_STATUS_SUCCESS)
        return EMO_OK;
    emo_status code = result == CUBLAS_STATUS_ALLOC_FAILED ? EMO_E_OUT_OF_MEMORY : EMO_E_BACKEND;
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
    emo_cuda_device *device = exec->device;
    if (emo_cuda_planning(exec) || !device->libraries->blas)
        return EMO_OK;
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

/* Once per device: a model asks for the same products again and again. */
static void say_refused(emo_cuda_device *device, const plan_key *k) {
    char text[256];
    (void)pthread_mutex_lock(&device->lock);
    int said = device->said_refused;
    device->said_refused = 1;
    (void)pthread_mutex_unlock(&device->lock);
    if (said)
        return;
    (void)snprintf(text, sizeof text,
                   "cuBLASLt has no way for a %s product of %lld x %lld x %lld on %s: it and others like it run on the "
                   "library's own kernels",
                   k->bf16 ? "bf16" : "f32", (long long)k->m, (long long)k->n, (long long)k->k, device->name);
    device->services.log(device->services.ctx, EMO_LOG_WARNING, text);
}

/* A plan, or one that is refused. */
static emo_status make_plan(emo_cuda_exec *exec, plan *p, emo_error *err) {
    const emo_cuda_libraries *lib = exec->device->libraries;
    const plan_key *k = &p->key;
    cudaDataType_t type = k->bf16 ? CUDA_R_16BF : CUDA_R_32F;
    cublasOperation_t first = k->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N, second = k->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    size_t room = WORKSPACE_BYTES;
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
    if (exec->deterministic) /* parts of a sum are added where they have a place each, not in the output */
        reductions &= ~(uint32_t)CUBLASLT_REDUCTION_SCHEME_INPLACE;
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
    if (result == CUBLAS_STATUS_SUCCESS)
        result = lib->cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                                           &reductions, sizeof reductions);
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
    if (refuses(result) || (result == CUBLAS_STATUS_SUCCESS && n_found < 1)) {
        p->refused = 1;
        say_refused(exec->device, k);
        return EMO_OK;
    }
    EMO_CUDA_TRY(blas_check(result, "cublasLtMatmulAlgoGetHeuristic", err));
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
    if (plans->count >= PLAN_LIMIT && !emo_cuda_capturing(exec)) {
        EMO_CUDA_TRY(emo_cuda_tape_issue(exec, "the plans of products are made anew", err));
        drop_plans(exec);
    }
    for (uint64_t at = hash_of(key) % PLAN_SLOTS;; at = (at + 1) % PLAN_SLOTS) {
        plan *p = &plans->slots[at];
        if (p->used && memcmp(&p->key, key, sizeof *key) == 0) {
            *out = p;
            return EMO_OK;
        }
        if (!p->used) {
            if (emo_cuda_capturing(exec))
                return emo_cuda_fail(err, EMO_E_BACKEND,
                                     "a product of %lld x %lld x %lld is new while a graph is recorded; run the same "
                                     "step once before it is recorded",
                                     (long long)key->m, (long long)key->n, (long long)key->k);
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

/* A product on its way to cuBLASLt. The key is there to tell apart plans that came to stand in one place. */
typedef struct product {
    plan_key key;
    const emo_cuda_libraries *lib;
    cublasLtHandle_t handle;
    const plan *p;
    const void *a, *b;
    float *c;
    void *workspace;
    float alpha, beta;
} product;

static cublasStatus_t multiply(const product *x, cudaStream_t stream) {
    const plan *p = x->p;
    return x->lib->cublasLtMatmul(x->handle, p->product, &x->alpha, x->b, p->a, x->a, p->b, &x->beta, x->c, p->c, x->c,
                                  p->c, &p->algo, x->workspace, p->workspace, stream);
}

/* Of a plan that has run before: cuBLASLt refuses it no more. */
static cudaError_t issue_product(const void *entry, cudaStream_t stream) {
    cublasStatus_t result = multiply((const product *)entry, stream);
    return result == CUBLAS_STATUS_SUCCESS        ? cudaSuccess
           : result == CUBLAS_STATUS_ALLOC_FAILED ? cudaErrorMemoryAllocation
                                                  : cudaErrorLaunchFailure;
}

emo_status emo_cuda_plans_run(emo_exec *exec, const emo_gemm_args *g, int bf16, int *done, emo_error *err) {
    emo_cuda_exec *e = emo_cuda_of(exec);
    plan_key key;
    plan *p = NULL;
    void *workspace = NULL;
    size_t item = bf16 ? 2 : 4;
    *done = 0;
    if (emo_cuda_planning(e)) { /* the most that cuBLASLt may ask for */
        *done = 1;
        return emo_cuda_scratch(exec, WORKSPACE_BYTES, &workspace, err);
    }
    if (!e->device->libraries->blas)
        return EMO_OK;
    memset(&key, 0, sizeof key);
    key.m = g->m, key.n = g->n, key.k = g->k, key.lda = g->lda, key.ldb = g->ldb, key.ldc = g->ldc;
    key.trans_a = g->trans_a != 0, key.trans_b = g->trans_b != 0, key.bf16 = bf16;
    key.align_a = alignment(g->a, g->lda, item);
    key.align_b = alignment(g->b, g->ldb, item);
    key.align_c = alignment(g->c, g->ldc, 4);
    EMO_CUDA_TRY(find_plan(e, &key, &p, err));
    if (p->refused)
        return EMO_OK;
    if (p->workspace > 0)
        EMO_CUDA_TRY(emo_cuda_scratch(exec, p->workspace, &workspace, err));
    product x;
    memset(&x, 0, sizeof x);
    x.key = key;
    x.lib = e->device->libraries;
    x.handle = e->plans->handle;
    x.p = p;
    x.a = g->a, x.b = g->b, x.c = g->c;
    x.workspace = workspace;
    x.alpha = g->alpha, x.beta = g->beta;
    if (p->tried) {
        *done = 1;
        return emo_cuda_enqueue(exec, issue_product, "cublasLtMatmul", &x, sizeof x, err);
    }
    EMO_CUDA_TRY(emo_cuda_tape_issue(e, "cuBLASLt has not run one of its products yet", err));
    cublasStatus_t result = multiply(&x, e->stream);
    if (refuses(result)) { /* the heuristic was wrong about it */
        p->refused = 1;
        say_refused(e->device, &key);
        return EMO_OK;
    }
    *done = 1;
    p->tried = 1;
    return blas_check(result, "cublasLtMatmul", err);
}
