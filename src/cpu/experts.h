/* SPDX-License-Identifier: Apache-2.0 */
/* What the expert operators share: tiles of per-expert products as one list of tasks. */
#ifndef EMO_SRC_CPU_EXPERTS_H
#define EMO_SRC_CPU_EXPERTS_H

#include "cpu/gemm/gemm.h"
#include "cpu/swiglu.h"

/* One tile of one expert's product. */
typedef struct emo__tile {
    int32_t expert;
    int32_t kind; /* which product; the caller's numbers */
    int64_t m0;
    int64_t m1;
    int64_t n0;
    int64_t n1;
} emo__tile;

/* A counted list: with `tiles` NULL, adding only counts. */
typedef struct emo__tile_list {
    emo__tile *tiles;
    size_t count;
} emo__tile_list;

/* Appends the tiles of an m x n product; `want`, max_rows and max_cols as in emo__gemm_cut. */
void emo__tile_list_add(emo__tile_list *list, const emo__gemm_kernels *kernels, int32_t expert, int32_t kind, int64_t m,
                        int64_t n, int64_t want, int64_t max_rows, int64_t max_cols);

/* How many of them have rows. */
int64_t emo__active_groups(const int32_t *offsets, int32_t groups);

/* Tiles that each of `groups` with rows should give, so that all workers stay busy. */
int64_t emo__tiles_per_group(const emo__cpu_exec *cpu, const int32_t *offsets, int32_t groups);

/* Whether each row block may run through several products in one task, its intermediate rows still in the cache: only
 * when row blocks alone give every worker enough tasks. `list` then gets (or counts) one tile per row block, over all
 * of `inner`. Results do not depend on the answer. */
enum { EMO__FUSED_ROWS = 224, EMO__FUSED_INNER = 512 };
int emo__fuse_rows(const emo__cpu_exec *cpu, const int32_t *offsets, int32_t experts, int64_t inner, int64_t max_inner,
                   int32_t kind, emo__tile_list *list);

/* The token of each assignment in plan order and, when not NULL, its weight: products then read rows through plain
 * numbers. */
void emo__assignment_rows(const emo_experts_args *args, int32_t *token, float *weight);

const emo_weight *emo__slot_weight(const emo_expert_slot *slot, int32_t which);
float *emo__slot_gradient(const emo_expert_slot *slot, int32_t which);

/* Rows [first, ...) of a weight as the product's B with trans set, or columns [first, ...) with trans not set. */
emo__gemm_operand emo__weight_part(const emo_weight *weight, int trans, int64_t first);

emo_status emo__cpu_experts_forward(emo_exec *exec, const emo_experts_args *args, emo_error *err);
emo_status emo__cpu_experts_backward(emo_exec *exec, const emo_experts_args *args, emo_error *err);

/* Fails with EMO_E_INTERNAL when an expert with rows is not loaded. */
EMO_MUST_CHECK emo_status emo__experts_loaded(const emo_expert_table *table, const int32_t *offsets, int32_t groups,
                                              emo_error *err);

#endif
