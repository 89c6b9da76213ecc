/* SPDX-License-Identifier: Apache-2.0 */
/* Dense matrix products without cuBLASLt: for machines that lack it, and for products that it has no way for. */
#ifndef EMO_CUDA_OPS_PRODUCT_H
#define EMO_CUDA_OPS_PRODUCT_H

#include "exec.h"

/* C = alpha op(A) op(B) + beta C for k > 0; B of any weight type, of a quantised one when trans_b alone. A is f32, or
 * bf16 when `a_dtype` says so (lda in elements). bf16: operands are rounded to bf16 and multiplied on tensor cores;
 * else everything is IEEE f32. Sums go along k in ascending order, whatever the sizes. */
emo_status emo_cuda_product(emo_exec *exec, const emo_gemm_args *args, emo_dtype a_dtype, int bf16, emo_error *err);

#endif
