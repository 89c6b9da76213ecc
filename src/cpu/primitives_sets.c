/* SPDX-License-Identifier: Apache-2.0 */
/* Primitives on sets of columns and segments of rows: the largest of a row, pools, sums and counts per segment. Plain
 * definitions; the fused router does the same work faster. */
#include <stdbool.h>
#include <string.h>

#include "cpu/cpu.h"

static int listed(const int32_t *list, int32_t count, int64_t c) {
    for (int32_t i = 0; i < count; i++)
        if (list[i] == c)
            return 1;
    return 0;
}

/* ---- top-k ---- */

static void topk_row(const void *args, int64_t r) {
    const emo_topk_args *a = args;
    const float *x = a->x + r * a->x_stride;
    int32_t *indices = a->indices + r * (a->k + a->n_fixed);
    float *values = a->values + r * (a->k + a->n_fixed);
    const uint8_t *set = a->allowed;
    if (set != NULL && a->set_of != NULL)
        set += a->set_of[r] * a->cols;
    int32_t have = 0;
    for (int32_t c = 0; c < a->cols; c++) {
        if ((set != NULL && set[c] == 0) || listed(a->fixed, a->n_fixed, c))
            continue;
        float key = x[c] + (a->bias != NULL ? a->bias[c] : 0.0f);
        int32_t j = have < a->k ? have++ : a->k;
        /* values holds the keys until all columns have been seen */
        while (j > 0 && key > values[j - 1]) {
            if (j < a->k) {
                values[j] = values[j - 1];
                indices[j] = indices[j - 1];
            }
            j--;
        }
        if (j < a->k) {
            values[j] = key;
            indices[j] = c;
        }
    }
    for (int32_t j = 0; j < a->k; j++) {
        indices[j] = j < have ? indices[j] : -1;
        values[j] = j < have ? x[indices[j]] : 0.0f;
    }
    for (int32_t j = 0; j < a->n_fixed; j++) {
        int32_t c = a->fixed[j];
        int beyond = c >= a->cols, out = !beyond && set != NULL && set[c] == 0;
        indices[a->k + j] = out ? -1 : c;
        values[a->k + j] = beyond ? 1.0f : out ? 0.0f : x[c];
    }
}

static emo_status topk(emo_exec *exec, const emo_topk_args *args, emo_error *err) {
    (void)err;
    emo__cpu_each_row(exec, args->rows, topk_row, args);
    return EMO_OK;
}

/* ---- pools ---- */

/* Whether column i comes before column c in the order of x, descending, ties to the lower column. */
static int before(const float *x, int64_t i, int64_t c) { return x[i] > x[c] || (x[i] == x[c] && i < c); }

static int64_t mass_size(const emo_keep_top_args *a, const float *x, const uint8_t *allowed, double weight) {
    /* A column is counted when it and all before it stay below the mass; the counted ones are the first in the order.
     */
    int64_t size = 1;
    for (int64_t c = 0; c < a->cols; c++) {
        if (allowed[c] == 0)
            continue;
        double sum = (double)x[c];
        for (int64_t i = 0; i < a->cols; i++)
            if (allowed[i] != 0 && before(x, i, c))
                sum += (double)x[i];
        size += sum < (double)a->mass * weight;
    }
    size = size < a->min ? a->min : size;
    return size > a->max ? a->max : size;
}

static void keep_row(const void *args, int64_t r) {
    const emo_keep_top_args *a = args;
    uint8_t *allowed = a->allowed + r * a->cols;
    if (a->allowed_in == NULL)
        memset(allowed, 1, (size_t)a->cols);
    else
        memcpy(allowed, a->allowed_in + r * a->cols, (size_t)a->cols);
    for (int32_t j = 0; j < a->n_fixed; j++)
        allowed[a->fixed[j]] = 1;
    bool by_mass = a->mass > 0.0f;
    if (a->x == NULL || (a->size == NULL && !by_mass))
        return;
    const float *x = a->x + r * a->cols;
    int64_t size =
        by_mass ? mass_size(a, x, allowed, (double)(a->row_begin[r + 1] - a->row_begin[r])) : (int64_t)a->size[r];
    int64_t room = size, competing = 0;
    for (int64_t c = 0; c < a->cols; c++) {
        int stays = c >= a->cols - a->forced || listed(a->fixed, a->n_fixed, c);
        room -= allowed[c] != 0 && stays;
        /* 2 marks competitors while the row is being decided */
        if (allowed[c] != 0 && !stays) {
            allowed[c] = 2;
            competing++;
        }
    }
    for (int64_t c = 0; c < a->cols && competing > 0; c++) {
        if (allowed[c] != 2)
            continue;
        int64_t better = 0;
        for (int64_t i = 0; i < a->cols; i++)
            better += allowed[i] >= 2 && before(x, i, c);
        if (better >= room)
            allowed[c] = 3;
    }
    for (int64_t c = 0; c < a->cols; c++)
        allowed[c] = allowed[c] == 1 || allowed[c] == 2;
}

static emo_status keep_top(emo_exec *exec, const emo_keep_top_args *args, emo_error *err) {
    (void)err;
    emo__cpu_each_row(exec, args->rows, keep_row, args);
    return EMO_OK;
}

/* ---- segments ---- */

static emo_status segment_ids(emo_exec *exec, const emo_segment_ids_args *args, emo_error *err) {
    (void)exec;
    (void)err;
    for (int64_t s = 0; s < args->n_segments; s++)
        for (int32_t t = args->begin[s]; t < args->begin[s + 1]; t++)
            args->set_of[t] = (int32_t)s;
    return EMO_OK;
}

static emo_status segment_sum(emo_exec *exec, const emo_segment_sum_args *args, emo_error *err) {
    (void)exec;
    (void)err;
    for (int64_t r = 0; r < args->rows; r++) {
        float *out = args->out + args->set_of[r] * args->cols;
        for (int64_t c = 0; c < args->cols; c++)
            out[c] += args->x[r * args->cols + c];
    }
    return EMO_OK;
}

static emo_status count(emo_exec *exec, const emo_count_args *args, emo_error *err) {
    (void)exec;
    (void)err;
    for (int64_t r = 0; r < args->rows; r++)
        for (int32_t j = 0; j < args->k; j++) {
            int32_t i = args->indices[r * args->k + j];
            if (i >= 0 && i < args->bins)
                args->counts[(args->set_of != NULL ? args->set_of[r] : 0) * (int64_t)args->bins + i]++;
        }
    return EMO_OK;
}

void emo__cpu_register_sets(emo_backend_ops *ops) {
    ops->topk = topk;
    ops->keep_top = keep_top;
    ops->segment_ids = segment_ids;
    ops->segment_sum = segment_sum;
    ops->count = count;
}
