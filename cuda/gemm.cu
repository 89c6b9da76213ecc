/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products: by cuBLASLt where it is there and has a way, else by kernels of our own. cuBLASLt's operands are f32
 * or bf16; a weight of another type than the product's is converted in pieces into scratch first. */
#include "kernel.h"
#include "libraries.h"
#include "ops/few_rows.h"
#include "ops/product.h"
#include "plans.h"

enum { THREADS = 256 };
#define CONVERTED_ELEMENTS ((int64_t)16 << 20) /* of a weight at a time */

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
    if (!emo_cuda_planning(emo_cuda_of(exec)) && !emo_cuda_of(exec)->device->libraries->blas)
        return emo_cuda_product(exec, &g, EMO_DTYPE_F32, bf16, err);
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
        piece.b_dtype = bf16 ? EMO_DTYPE_BF16 : EMO_DTYPE_F32;
        int done;
        EMO_CUDA_TRY(emo_cuda_plans_run(exec, &piece, bf16, &done, err));
        if (!done)
            EMO_CUDA_TRY(emo_cuda_product(exec, &piece, piece.b_dtype, bf16, err));
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
