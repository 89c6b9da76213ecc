/* SPDX-License-Identifier: Apache-2.0 */
/* The angles of RoPE: tables of a row per position, which grow with the positions that batches have. */
#include <math.h>

#include "base/status.h"
#include "model/pass_state.h"

/* Rows come in blocks, so that a token after a token needs new ones rarely. */
enum { FIRST_ROWS = 256, BLOCK_ROWS = 64 };

emo_status emo__pass_angles_room(emo__pass *p, int64_t positions, emo_error *err) {
    p->rope_need = (positions + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
    p->rope_first = p->rope_rows;
    if (positions <= p->rope_room)
        return EMO_OK;
    int64_t half = p->model->config.head_dim / 2, room = p->rope_room > 0 ? p->rope_room : FIRST_ROWS;
    while (room < positions)
        room *= 2;
    size_t bytes = (size_t)(room * half) * sizeof(float), filled = (size_t)(p->rope_rows * half) * sizeof(float);
    void *cosines = NULL, *sines = NULL;
    emo_status status = p->ops->mem_alloc(p->model->backend, bytes, &cosines, err);
    if (status == EMO_OK)
        status = p->ops->mem_alloc(p->model->backend, bytes, &sines, err);
    if (status == EMO_OK && filled > 0)
        status = p->ops->copy(p->exec, cosines, p->cos, filled, err);
    if (status == EMO_OK && filled > 0)
        status = p->ops->copy(p->exec, sines, p->sin, filled, err);
    if (status != EMO_OK) {
        p->ops->mem_free(p->model->backend, cosines);
        p->ops->mem_free(p->model->backend, sines);
        return status;
    }
    p->ops->mem_free(p->model->backend, p->cos);
    p->ops->mem_free(p->model->backend, p->sin);
    p->cos = cosines;
    p->sin = sines;
    p->rope_room = room;
    return EMO_OK;
}

/* As the reference computes them: f32 frequencies, f32 angles. */
emo_status emo__pass_angles(emo__pass *p, int64_t first, int64_t last, emo_error *err) {
    const emo__config *c = &p->model->config;
    int64_t half = c->head_dim / 2, position = p->rope_first + first, count = last - first, at = position * half;
    size_t bytes = (size_t)(count * half) * sizeof(float);
    float *host = emo__alloc(&p->model->rt->mem, 2 * bytes);
    if (host == NULL)
        return emo__fail_memory(err, 2 * bytes);
    for (int64_t i = 0; i < half; i++) {
        float exponent = (float)(2 * i) / (float)c->head_dim;
        float frequency = 1.0f / (float)pow(c->rope_theta, (double)exponent);
        for (int64_t t = 0; t < count; t++) {
            double angle = (double)((float)(position + t) * frequency);
            host[t * half + i] = (float)cos(angle);
            host[(count + t) * half + i] = (float)sin(angle);
        }
    }
    emo_status status = p->ops->upload(p->exec, p->cos + at, host, bytes, err);
    if (status == EMO_OK)
        status = p->ops->upload(p->exec, p->sin + at, host + count * half, bytes, err);
    emo__free(&p->model->rt->mem, host);
    if (status == EMO_OK)
        p->rope_rows = p->rope_first + last;
    return status;
}
