/* SPDX-License-Identifier: Apache-2.0 */
/* Token embedding. */
#include <string.h>

#include "base/status.h"
#include "cpu/ops_kernels.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

/* tokens per task of the lookup, and tasks of the backward pass (each owns the ids of one residue) */
enum { EMBED_TOKENS = 64, EMBED_OWNERS = 32 };

typedef struct embed_task {
    const emo_embed_args *args;
    const emo__ops_kernels *kernels;
} embed_task;

static void forward_rows(void *task, size_t index, size_t worker) {
    const emo_embed_args *a = ((const embed_task *)task)->args;
    const emo_weight *w = &a->weight;
    int64_t last = ((int64_t)index + 1) * EMBED_TOKENS;
    (void)worker;
    for (int64_t t = (int64_t)index * EMBED_TOKENS; t < last && t < a->tokens; t++) {
        const char *row = (const char *)w->data + emo__dtype_run(w->dtype, a->ids[t] * w->stride);
        (void)emo__convert(a->out + t * a->hidden, EMO_DTYPE_F32, row, w->dtype, (size_t)a->hidden);
    }
}

static emo_status embed_forward(emo_exec *exec, const emo_embed_args *args, emo_error *err) {
    emo_dtype dtype = args->weight.dtype;
    if (!emo__dtype_float(dtype) && !emo__dtype_quantised(dtype))
        return emo__fail(err, EMO_E_UNSUPPORTED, "an embedding cannot be %s; f32, f16 and bf16 are supported",
                         emo_dtype_name(dtype) != NULL ? emo_dtype_name(dtype) : "this type");
    embed_task t = {args, NULL};
    emo__parallel_for(emo__cpu(exec)->rt, (size_t)((args->tokens + EMBED_TOKENS - 1) / EMBED_TOKENS), forward_rows, &t);
    return EMO_OK;
}

/* A row of d_weight has one owner, who meets its tokens in order. */
static void backward_owner(void *task, size_t index, size_t worker) {
    const embed_task *t = task;
    const emo_embed_args *a = t->args;
    (void)worker;
    for (int64_t i = 0; i < a->tokens; i++) {
        if ((size_t)a->ids[i] % EMBED_OWNERS == index)
            t->kernels->add(a->hidden, a->d_out + i * a->hidden, a->d_weight + a->ids[i] * a->hidden);
    }
}

static emo_status embed_backward(emo_exec *exec, const emo_embed_args *args, emo_error *err) {
    (void)err;
    embed_task t = {args, emo__ops_kernels_of(emo__cpu(exec))};
    emo__parallel_for(emo__cpu(exec)->rt, EMBED_OWNERS, backward_owner, &t);
    return EMO_OK;
}

void emo__cpu_register_embed(emo_backend_ops *ops) {
    ops->embed_forward = embed_forward;
    ops->embed_backward = embed_backward;
}
