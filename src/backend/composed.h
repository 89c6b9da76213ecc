/* SPDX-License-Identifier: Apache-2.0 */
/* The composed defaults of the block operators: primitives of any back end's table put together, which is both what a
 * back end without a fused version runs and the oracle of those that have one. They touch device memory through
 * operators alone, never wait for the device and read no count on the host. */
#ifndef EMO_SRC_BACKEND_COMPOSED_H
#define EMO_SRC_BACKEND_COMPOSED_H

#include <emo/sys/backend.h>

/* Arguments of attention that every back end refuses. */
EMO_MUST_CHECK emo_status emo__attention_check(const emo_attention_args *a, emo_error *err);

/* Fills every NULL operator: block operators by their composed default, where one exists, the others by an entry that
 * fails with EMO_E_UNSUPPORTED and names what is missing. */
void emo__backend_complete(emo_backend_ops *ops);

/* One composed call: temporary device arrays, and the first failure, after which everything else is skipped. */
enum { EMO__COMPOSED_BLOCKS = 32 };
typedef struct emo__composed {
    emo_exec *exec;
    const emo_backend_ops *ops;
    emo_error *err;
    emo_status status;
    int32_t count;
    void *blocks[EMO__COMPOSED_BLOCKS];
} emo__composed;

emo__composed emo__composed_begin(emo_exec *exec, emo_error *err);
emo_status emo__composed_end(emo__composed *c); /* frees the arrays */

/* Zeroed device arrays of rows x cols elements; NULL after a failure. */
float *emo__composed_floats(emo__composed *c, int64_t rows, int64_t cols);
int32_t *emo__composed_ints(emo__composed *c, int64_t rows, int64_t cols);
/* [count] ones. */
float *emo__composed_ones(emo__composed *c, int64_t count);

/* Runs a table entry unless something failed before: EMO__RUN(c, gemm, .m = ..., ...). */
#define EMO__RUN(c, entry, type, ...)                                                                                  \
    do {                                                                                                               \
        if ((c)->status == EMO_OK) {                                                                                   \
            type run_args_ = {__VA_ARGS__};                                                                            \
            (c)->status = (c)->ops->entry((c)->exec, &run_args_, (c)->err);                                            \
        }                                                                                                              \
    } while (0)

/* Shapes of elementwise arguments: a dense [rows, cols] array, one number per row, one row for all. */
static inline emo_array emo__dense(const float *data, int64_t stride) {
    return (emo_array){(float *)(uintptr_t)data, stride, 1};
}
static inline emo_array emo__per_row(const float *data) { return (emo_array){(float *)(uintptr_t)data, 1, 0}; }
static inline emo_array emo__one_row(const float *data) { return (emo_array){(float *)(uintptr_t)data, 0, 1}; }
static inline emo_array emo__no_array(void) { return (emo_array){0, 0, 0}; }

/* out = alpha x + beta y, out = alpha x y, out = x^alpha; add: out += . */
void emo__composed_add(emo__composed *c, int64_t rows, int64_t cols, float alpha, emo_array x, float beta, emo_array y,
                       emo_array out);
void emo__composed_mul(emo__composed *c, int64_t rows, int64_t cols, float alpha, emo_array x, emo_array y,
                       emo_array out);
void emo__composed_pow(emo__composed *c, int64_t rows, int64_t cols, emo_array x, float power, emo_array out);
/* out[r] = sum_c x[r,c] y[r,c] */
void emo__composed_dot(emo__composed *c, int64_t rows, int64_t cols, emo_array x, emo_array y, float *out);
/* A weight's single row as floats. */
float *emo__composed_row(emo__composed *c, const emo_weight *weight);

emo_status emo__composed_linear_forward(emo_exec *exec, const emo_linear_args *a, emo_error *err);
emo_status emo__composed_linear_backward(emo_exec *exec, const emo_linear_args *a, emo_error *err);
emo_status emo__composed_swiglu_forward(emo_exec *exec, const emo_swiglu_args *a, emo_error *err);
emo_status emo__composed_swiglu_backward(emo_exec *exec, const emo_swiglu_args *a, emo_error *err);
emo_status emo__composed_norm_forward(emo_exec *exec, const emo_norm_args *a, emo_error *err);
emo_status emo__composed_norm_backward(emo_exec *exec, const emo_norm_args *a, emo_error *err);
emo_status emo__composed_experts_forward(emo_exec *exec, const emo_experts_args *a, emo_error *err);
emo_status emo__composed_experts_backward(emo_exec *exec, const emo_experts_args *a, emo_error *err);
emo_status emo__composed_attention_forward(emo_exec *exec, const emo_attention_args *a, emo_error *err);
emo_status emo__composed_attention_backward(emo_exec *exec, const emo_attention_args *a, emo_error *err);
emo_status emo__composed_store_kv(emo_exec *exec, const emo_store_kv_args *a, emo_error *err);
emo_status emo__composed_head_loss(emo_exec *exec, const emo_head_args *a, emo_error *err);
emo_status emo__composed_head_logits(emo_exec *exec, const emo_head_logits_args *a, emo_error *err);
emo_status emo__composed_route_forward(emo_exec *exec, const emo_route_args *a, emo_error *err);
emo_status emo__composed_route_backward(emo_exec *exec, const emo_route_args *a, emo_error *err);

#endif
