/* SPDX-License-Identifier: Apache-2.0 */
/* y = x W^T for a few rows of x and a quantised W, as in decoding: the weight's blocks are read once and not written
 * anywhere as floats. */
#ifndef EMO_CUDA_OPS_FEW_ROWS_H
#define EMO_CUDA_OPS_FEW_ROWS_H

#include "exec.h"

int emo_cuda_few_rows_takes(const emo_gemm_args *args);
emo_status emo_cuda_few_rows(emo_exec *exec, const emo_gemm_args *args, emo_error *err);

#endif
