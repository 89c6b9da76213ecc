/* SPDX-License-Identifier: Apache-2.0 */
/* Matrix products through cuBLASLt. What it needs for a shape is asked once and kept. */
#ifndef EMO_CUDA_PLANS_H
#define EMO_CUDA_PLANS_H

#include "exec.h"

emo_status emo_cuda_plans_create(emo_cuda_exec *exec, emo_error *err);
void emo_cuda_plans_destroy(emo_cuda_exec *exec);

/* C = alpha op(A) op(B) + beta C, both operands f32 or, when `bf16`, both bf16 (lda, ldb in elements). *done is 0, and
 * nothing has happened, where cuBLASLt is missing or has no way for this product. */
emo_status emo_cuda_plans_run(emo_exec *exec, const emo_gemm_args *args, int bf16, int *done, emo_error *err);

#endif
