/* SPDX-License-Identifier: Apache-2.0 */
/* The operators of the CUDA back end: all that the table has. */
#ifndef EMO_CUDA_OPS_H
#define EMO_CUDA_OPS_H

#include "exec.h"

#define EMO_CUDA_DECLARE(entry, type) emo_status emo_cuda_##entry(emo_exec *exec, const type *args, emo_error *err);
EMO_OPERATORS(EMO_CUDA_DECLARE, EMO_CUDA_DECLARE)
#undef EMO_CUDA_DECLARE

#endif
