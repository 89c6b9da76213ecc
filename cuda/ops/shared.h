/* SPDX-License-Identifier: Apache-2.0 */
/* Last steps of sums that are made in parts. */
#ifndef EMO_CUDA_OPS_SHARED_H
#define EMO_CUDA_OPS_SHARED_H

#include "exec.h"

typedef struct emo_total_now {
    int64_t n;
    double scale;
} emo_total_now;
/* out[0] += scale * the sum of `values`, in a fixed order (rows.cu). now: NULL, or where n and scale are read on the
 * device instead. */
emo_status emo_cuda_total(emo_exec *exec, const double *values, int64_t n, double scale, const emo_total_now *now,
                          double *out, emo_error *err);
/* out[c] += the sum over p of parts[p, c], p ascending (norm.cu). */
emo_status emo_cuda_add_parts(emo_exec *exec, const float *parts, int64_t n_parts, int64_t width, float *out,
                              emo_error *err);

#endif
