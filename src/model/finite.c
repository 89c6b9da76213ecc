/* SPDX-License-Identifier: Apache-2.0 */
#include "model/finite.h"

#include <string.h>

#include "base/progress.h"
#include "base/status.h"
#include "model/access.h"
#include "tensor/quant.h"

/* Parameters between two reports: an expert of the released shape has three of 4 MB each. */
#define BATCH 64

typedef struct finite_task {
    const emo__param *params; /* [n <= BATCH] */
    int64_t counts[BATCH];
} finite_task;

/* By their bits: the exponent is all ones. */
static int64_t non_finite_of(const emo_weight *view) {
    int64_t found = 0;
    for (int64_t r = 0; view->data != NULL && r < view->rows; r++) {
        size_t at = (size_t)(r * view->stride);
        for (int64_t c = 0; c < view->cols; c++, at++) {
            if (view->dtype == EMO_DTYPE_F32) {
                uint32_t bits;
                memcpy(&bits, (const char *)view->data + at * sizeof bits, sizeof bits);
                found += (bits & 0x7f800000u) == 0x7f800000u;
            } else if (emo__dtype_quantised(view->dtype)) {
                const char *row = (const char *)view->data + emo__dtype_run(view->dtype, (int64_t)at);
                found += emo__quant_non_finite(row, view->dtype, (size_t)view->cols);
                break; /* the whole row, by its blocks */
            } else {
                uint16_t bits;
                memcpy(&bits, (const char *)view->data + at * sizeof bits, sizeof bits);
                uint16_t mask = view->dtype == EMO_DTYPE_F16 ? 0x7c00u : 0x7f80u;
                found += (bits & mask) == mask;
            }
        }
    }
    return found;
}

static void count_one(void *opaque, size_t index, size_t worker) {
    finite_task *task = opaque;
    (void)worker;
    task->counts[index] = non_finite_of(task->params[index].view);
}

/* Weights on a device, or of experts that come and go, one tensor at a time. */
static emo_status count_far(emo__access *access, const emo__param *param, int64_t *count, emo_error *err) {
    emo_weight view;
    emo_status status = emo__access_view(access, param, &view, err);
    if (status == EMO_OK)
        status = emo__access_fetch(access, &view, err);
    if (status == EMO_OK)
        *count += non_finite_of(&view);
    return status;
}

emo_status emo__model_non_finite(const emo_model *model, const emo_progress *progress, int64_t *count, emo_error *err) {
    bool here = emo__model_on_host(model) && model->cache == NULL;
    emo__access access;
    *count = 0;
    emo_status status = emo__access_begin(model, &access, err);
    for (size_t done = 0; status == EMO_OK && done < model->n_params;) {
        finite_task task = {.params = model->params + done};
        size_t n = model->n_params - done < BATCH ? model->n_params - done : BATCH;
        if (here)
            emo__parallel_for(model->rt, n, count_one, &task);
        for (size_t i = 0; status == EMO_OK && i < n; i++) {
            if (!here)
                status = count_far(&access, &task.params[i], count, err);
            *count += task.counts[i];
        }
        done += n;
        if (status == EMO_OK)
            status = emo__report(progress, "count", done, model->n_params, err);
    }
    emo__access_end(&access);
    return status;
}
