/* SPDX-License-Identifier: Apache-2.0 */
/* A model's weights for the host: wherever the back end keeps them. Weights in host memory are used where they are. */
#ifndef EMO_SRC_MODEL_ACCESS_H
#define EMO_SRC_MODEL_ACCESS_H

#include "model/model.h"

/* Whether operators' memory is the host's: true for the CPU's back end. */
static inline bool emo__model_on_host(const emo_model *model) { return model->backend == model->rt->cpu; }

/* The first parameter that is held in quantised blocks; NULL: none. */
const emo__param *emo__model_quantised(const emo_model *model);

typedef struct emo__access {
    const emo_model *model;
    emo_exec *exec; /* of its own; NULL while the weights are the host's */
    void *room;     /* host memory for what is read from a device */
    size_t capacity;
    void *expert; /* host memory for a matrix of an expert that comes and goes */
    size_t expert_capacity;
} emo__access;

EMO_MUST_CHECK emo_status emo__access_begin(const emo_model *model, emo__access *access, emo_error *err);
void emo__access_end(emo__access *access);

/* *out: `bytes` bytes at `data` for reading, until the next call on this access. */
EMO_MUST_CHECK emo_status emo__access_read(emo__access *access, const void *data, size_t bytes, const void **out,
                                           emo_error *err);
/* The same for all rows of a view, whose data then is where they can be read. */
EMO_MUST_CHECK emo_status emo__access_fetch(emo__access *access, emo_weight *view, emo_error *err);
/* *out: a parameter's view. A matrix of an expert that comes and goes is read first, and is there until the next call
 * on this access. */
EMO_MUST_CHECK emo_status emo__access_view(emo__access *access, const emo__param *param, emo_weight *out,
                                           emo_error *err);
/* Bytes of the host to `data`; complete when the access ends or reads. */
EMO_MUST_CHECK emo_status emo__access_write(emo__access *access, void *data, const void *src, size_t bytes,
                                            emo_error *err);
/* Waits until what was written is there. */
EMO_MUST_CHECK emo_status emo__access_flush(emo__access *access, emo_error *err);

/* Rows [first, first + n) of a parameter as f32. */
EMO_MUST_CHECK emo_status emo__access_f32(emo__access *access, const emo__param *param, int64_t first, int64_t n,
                                          float *out, emo_error *err);

#endif
