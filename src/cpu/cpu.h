/* SPDX-License-Identifier: Apache-2.0 */
/* The CPU back end as its own files see it. */
#ifndef EMO_SRC_CPU_CPU_H
#define EMO_SRC_CPU_CPU_H

#include <emo/sys/backend.h>
#include <stdbool.h>

#include "base/runtime.h"

typedef struct emo__cpu_backend {
    emo_backend base;
    emo_backend_ops ops;   /* filled once, at creation */
    const emo_runtime *rt; /* borrowed: the runtime owns the back end */
    bool planning;         /* a planner (planner.c): memory is counted, nothing is done */
    uint64_t planned;      /* bytes handed out by it */
    void *kept;            /* atomic: the scratch of an exec that is gone, for the next one; NULL: none */
} emo__cpu_backend;

/* The part of an operator's tasks that is to run; see emo_backend_ops.window. */
typedef struct emo__cpu_window {
    int64_t first;
    int64_t last;
    int64_t seen; /* tasks so far */
    int64_t work; /* multiply-adds of a task; 0: no window, everything runs */
} emo__cpu_window;

typedef struct emo__cpu_exec {
    emo_exec base;
    const emo_runtime *rt;
    emo_isa isa;
    const struct emo__gemm_kernels *gemm; /* of the level and of what the exec computes in */
    size_t workers;
    char *scratch; /* one region, grown on demand; an operator owns all of it during its call */
    size_t scratch_size;
    char *outer; /* a second region, for operators that call other operators while they hold theirs */
    size_t outer_size;
    size_t taken; /* the most that an operator has asked of both since the last emo_backend_ops.exec_scratch */
    emo__cpu_window window;
} emo__cpu_exec;

static inline emo__cpu_exec *emo__cpu(emo_exec *exec) { return (emo__cpu_exec *)exec; }

/* The exec's scratch, at least `bytes`, 64-byte aligned, contents undefined; NULL on failure (then err is filled).
 * A second call in the same operator may move it: ask once for all that the operator needs. */
void *emo__cpu_scratch(emo__cpu_exec *cpu, size_t bytes, emo_error *err);

/* The same from the second region, for operators built on other operators (head on gemm); those never nest. */
void *emo__cpu_outer(emo__cpu_exec *cpu, size_t bytes, emo_error *err);

/* fn(task, i, worker) for i < count on the exec's workers, as far as the window reaches; on the calling thread alone
 * when all of it is less `work`, in multiply-adds, than asking others is worth. What an operator does outside of such
 * loops is done anew for every window: it may depend on the arguments alone. */
void emo__cpu_for(emo__cpu_exec *cpu, size_t count, int64_t work, emo_task_fn fn, void *task);

/* The most rows and columns of a tile of an m x n product over k, or several that share rows; 0: no limit. With a
 * window: few enough multiply-adds, and few enough weights where rows are few and reading them is what takes time.
 * Among several workers the latter without one too. */
void emo__cpu_task_shape(const emo__cpu_exec *cpu, int64_t m, int64_t k, int products, int64_t *max_rows,
                         int64_t *max_cols);

/* The best level of this machine (never EMO_ISA_AUTO). */
emo_isa emo__cpu_best_isa(void);
/* Whether the machine can run `isa`. */
int emo__cpu_has_isa(emo_isa isa);
/* Asks the system for the use of AMX, once for the process; 0 where it refuses (then AVX-512 does the work). */
int emo__cpu_allow_amx(void);

EMO_MUST_CHECK emo_status emo__cpu_backend_create(const emo_runtime *rt, emo_backend **out, emo_error *err);

/* A planner (see emo_backend_plugin_entry) of `backend`, which is the CPU's. */
EMO_MUST_CHECK emo_status emo__cpu_planner(emo_backend *backend, emo_backend **out, emo_error *err);

/* The linear layer; with `exact` in f32, whatever the exec computes in (the router). */
EMO_MUST_CHECK emo_status emo__cpu_linear_forward(emo_exec *exec, const emo_linear_args *args, int exact,
                                                  emo_error *err);
EMO_MUST_CHECK emo_status emo__cpu_linear_backward(emo_exec *exec, const emo_linear_args *args, emo_error *err);

/* Each family of operators puts its entries into the table. */
void emo__cpu_register_embed(emo_backend_ops *ops);
void emo__cpu_register_norm(emo_backend_ops *ops);
void emo__cpu_register_attention(emo_backend_ops *ops);
void emo__cpu_register_head(emo_backend_ops *ops);
void emo__cpu_register_optim(emo_backend_ops *ops);
void emo__cpu_register_sample(emo_backend_ops *ops);
void emo__cpu_register_all(emo_backend_ops *ops);
void emo__cpu_register_gemm(emo_backend_ops *ops);
void emo__cpu_register_swiglu(emo_backend_ops *ops);
void emo__cpu_register_experts(emo_backend_ops *ops);
void emo__cpu_register_primitives(emo_backend_ops *ops);
void emo__cpu_register_sets(emo_backend_ops *ops);

/* row(args, r) for every row, in groups over the workers. */
void emo__cpu_each_row(emo_exec *exec, int64_t rows, void (*row)(const void *args, int64_t r), const void *args);

#endif
