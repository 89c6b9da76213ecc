/* SPDX-License-Identifier: Apache-2.0 */
/* One operator with operands of its own, to be timed or counted. */
#ifndef EMO_SRC_BENCH_BENCH_H
#define EMO_SRC_BENCH_BENCH_H

#include <emo/sys/backend.h>
#include <emo/sys/bench.h>

#include "base/refcount.h"
#include "base/runtime.h"

enum { EMO__BENCH_BLOCKS = 96, EMO__BENCH_VARIANTS = 16, EMO__BENCH_EXPERTS = 4096 };

struct emo_bench {
    emo_runtime *rt;
    emo__guard guard;
    emo_bench_options o;
    emo_backend *backend;
    const emo_backend_ops *ops;
    emo_exec *exec;
    double operations; /* of a call */
    double bytes;
    union {
        emo_embed_args embed;
        emo_norm_args norm;
        emo_linear_args linear;
        emo_rope_args rope;
        emo_attention_args attention;
        emo_route_args route;
        emo_plan_args plan;
        emo_experts_args experts;
        emo_swiglu_args swiglu;
        emo_head_args head;
        emo_head_logits_args logits;
        emo_adamw_args adamw;
        emo_sumsq_args sumsq;
    } args;
    /* What calls use by turns. */
    int32_t variants;
    int64_t turn;
    const void *weights[EMO__BENCH_VARIANTS];
    const int32_t *offsets[EMO__BENCH_VARIANTS];
    const int32_t *order[EMO__BENCH_VARIANTS];
    const int32_t *inverse[EMO__BENCH_VARIANTS];
    /* Memory: the device's, then the host's. */
    void *blocks[EMO__BENCH_BLOCKS];
    int32_t n_blocks;
    emo_expert_slot *slots;
    emo_attention_segment *segments;
    float *random;     /* host, to be uploaded */
    void *limit;       /* operands of a limit */
    emo_status status; /* of making it: the first failure */
};

/* Operands of an operator; bench->status and *err say how it went. */
void emo__bench_make_operator(emo_bench *bench, emo_error *err);
/* One call of it. */
emo_status emo__bench_call_operator(emo_bench *bench, emo_error *err);

/* The same for a limit. */
void emo__bench_make_limit(emo_bench *bench, emo_error *err);
void emo__bench_call_limit(emo_bench *bench);

/* Checked options. */
EMO_MUST_CHECK emo_status emo__bench_create(emo_runtime *rt, const emo_bench_options *o, emo_bench **out,
                                            emo_error *err);
void emo__bench_destroy(emo_bench *bench);
EMO_MUST_CHECK emo_status emo__bench_run(emo_bench *bench, int32_t calls, double *seconds, emo_error *err);

#endif
