/* SPDX-License-Identifier: Apache-2.0 */
/* The first weights of a new model. */
#include <math.h>

#include "base/progress.h"
#include "base/status.h"
#include "model/model.h"
#include "tensor/philox.h"

/* Elements [first, last) of a matrix: normal numbers cut at 3 std by rejection. Draw i of an element retries with the
 * next counter, so that a value is a function of its place alone. */
static void init_matrix(float *out, int64_t first, int64_t last, uint64_t seed, uint64_t ordinal, double std) {
    for (int64_t i = first; i < last; i++) {
        double z = 4.0;
        for (uint32_t attempt = 0; fabs(z) > 3.0; attempt++) {
            emo__philox r = emo__philox_draw(seed, EMO__RNG_INIT, ordinal, (uint64_t)i, attempt);
            double u = 1.0 - emo__uniform_f64(r.v[0], r.v[1]); /* (0, 1] */
            double v = emo__uniform_f64(r.v[2], r.v[3]);
            z = sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
        }
        out[i] = (float)(z * std);
    }
}

#define PIECE 16384 /* elements */
#define PIECES 128  /* between two reports */

typedef struct init_task {
    emo_model *model;
    uint64_t seed;
    size_t param[PIECES];
    int64_t first[PIECES];
    size_t count;
} init_task;

static void init_piece(void *opaque, size_t index, size_t worker) {
    (void)worker;
    const init_task *task = opaque;
    size_t at = task->param[index];
    const emo__param *p = &task->model->params[at];
    float *data = (float *)(uintptr_t)p->view->data;
    int64_t first = task->first[index];
    int64_t last = emo__param_count(p) - first < PIECE ? emo__param_count(p) : first + PIECE;
    bool bias = emo__param_is_score_bias(p) || (p->vector != 0 && p->group == EMO__P_DENSE &&
                                                p->which != EMO__W_ATTN_NORM && p->which != EMO__W_FFN_NORM);
    if (p->vector != 0) {
        for (int64_t i = first; i < last; i++)
            data[i] = bias ? 0.0f : 1.0f;
    } else {
        init_matrix(data, first, last, task->seed, at, task->model->config.initializer_range);
    }
}

/* Puts the next pieces behind (*param, *first) into the task. */
static void next_pieces(init_task *task, size_t *param, int64_t *first) {
    for (task->count = 0; task->count < PIECES && *param < task->model->n_params; task->count++) {
        task->param[task->count] = *param;
        task->first[task->count] = *first;
        *first += PIECE;
        if (*first >= emo__param_count(&task->model->params[*param])) {
            (*param)++;
            *first = 0;
        }
    }
}

emo_status emo__model_init_weights(emo_model *m, uint64_t seed, const emo_progress *progress, emo_error *err) {
    int64_t *offsets = emo__malloc_array(&m->rt->mem, m->n_params, sizeof *offsets);
    if (offsets == NULL)
        return emo__fail_memory(err, m->n_params * sizeof *offsets);
    float *flat = NULL;
    int64_t count = 0;
    emo_status status = emo__model_to_f32(m, 0, &flat, &count, offsets, NULL, err);
    emo__free(&m->rt->mem, offsets);
    init_task task;
    task.model = m;
    task.seed = seed;
    size_t param = 0;
    int64_t first = 0;
    while (status == EMO_OK && param < m->n_params) {
        status = emo__report(progress, "initialise", param, m->n_params, err);
        next_pieces(&task, &param, &first);
        if (status == EMO_OK)
            emo__parallel_for(m->rt, task.count, init_piece, &task);
    }
    return status;
}
