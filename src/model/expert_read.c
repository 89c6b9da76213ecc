/* SPDX-License-Identifier: Apache-2.0 */
/* Reading experts: what a lease waits for, and ahead of it. */
#include "base/clock.h"
#include "base/status.h"
#include "io/source.h"
#include "model/expert_cache_state.h"
#include "tensor/dtype.h"
#include "tensor/quant.h"

/* Elements converted at a time: whole blocks of every type. */
enum { PIECE = 16 * EMO__QUANT_MAX_BLOCK };

static emo_status read_converted(const emo__cached_part *part, int64_t elements, char *dst, emo_error *err) {
    unsigned char piece[PIECE * sizeof(float)];
    emo_status status = EMO_OK;
    for (int64_t at = 0; status == EMO_OK && at < elements; at += PIECE) {
        int64_t n = elements - at < PIECE ? elements - at : PIECE;
        status = emo__source_read_at(part->source, part->offset + emo__dtype_run(part->file, at), piece,
                                     emo__dtype_run(part->file, n), err);
        if (status == EMO_OK)
            (void)emo__convert(dst + emo__dtype_run(part->held, at), part->held, piece, part->file, (size_t)n);
    }
    return status;
}

static emo_status read_part(const emo__expert_cache *c, const emo__cached_part *part, char *dst, emo_error *err) {
    size_t bytes = emo__dtype_run(part->file, c->elements);
    emo_status status = part->file == part->held ? emo__source_read_at(part->source, part->offset, dst, bytes, err)
                                                 : read_converted(part, c->elements, dst, err);
    if (c->drop)
        emo__source_forget(part->source, part->offset, bytes);
    return status;
}

emo_status emo__expert_cache_read(const emo__expert_cache *c, int32_t layer, int32_t expert, int32_t which, void *dst,
                                  emo_error *err) {
    return read_part(c, &emo__expert_cache_find(c, layer, expert)->part[which], dst, err);
}

emo__cached *emo__expert_cache_next_demand(emo__expert_cache *c) {
    for (int32_t i = emo__cached_pop(&c->demand, c->n); i >= 0; i = emo__cached_pop(&c->demand, c->n)) {
        emo__cached *x = &c->experts[i];
        if (x->state == EMO__EXPERT_QUEUED) {
            x->state = EMO__EXPERT_READING;
            return x;
        }
    }
    return NULL;
}

/* On a device: room to read into, from where it is copied. */
static emo__lane *take_lane(emo__expert_cache *c) {
    emo__lane *lane = NULL;
    while (emo__places_on_device(&c->places) && lane == NULL) {
        lane = emo__places_lane(&c->places);
        if (lane == NULL)
            (void)pthread_cond_wait(&c->changed, &c->lock);
    }
    return lane;
}

emo_status emo__expert_cache_fill(emo__expert_cache *c, emo__cached *x, emo_error *err) {
    emo__lane *lane = take_lane(c);
    char *to = lane != NULL ? lane->host : emo__places_at(&c->places, x->place);
    emo__expert_cache_leave(c);
    emo_status status = lane != NULL ? emo__places_lane_ready(&c->places, lane, err) : EMO_OK;
    uint64_t start = emo__now_ns();
    uint64_t bytes = 0;
    for (int i = 0; status == EMO_OK && i < 3; i++) {
        status = read_part(c, &x->part[i], to + x->part[i].at, err);
        bytes += status == EMO_OK ? emo__dtype_run(x->part[i].file, c->elements) : 0;
    }
    uint64_t ns = emo__now_ns() - start;
    emo__expert_cache_enter(c);
    if (status == EMO_OK && lane != NULL)
        status = emo__places_copy(&c->places, x->place, lane, emo__expert_cache_bytes(c, x), err);
    if (lane != NULL)
        lane->busy = false;
    c->stats.read_ns += ns;
    c->stats.bytes_read += bytes;
    if (status == EMO_OK) {
        x->state = EMO__EXPERT_READY;
        x->used_pass = c->passes > x->used_pass ? c->passes : x->used_pass;
        x->used_step = c->steps;
    } else {
        c->stats.failed_reads++;
        x->state = EMO__EXPERT_FAILED;
        if (x->pins == 0)
            emo__expert_cache_drop(c, x);
        status = emo__fail_prefix(err, status, "reading expert %d of layer %d", (int)x->expert, (int)x->layer);
    }
    (void)pthread_cond_broadcast(&c->changed);
    return status;
}

/* The next expert to be read ahead, with a place; NULL: none. */
static emo__cached *next_ahead(emo__expert_cache *c) {
    for (int32_t i = emo__cached_pop(&c->ahead, c->n); i >= 0; i = emo__cached_pop(&c->ahead, c->n)) {
        emo__cached *x = &c->experts[i];
        x->ahead = false;
        if (x->state == EMO__EXPERT_ABSENT && emo__expert_cache_make_room(c, x, true, true)) {
            x->state = EMO__EXPERT_READING;
            return x;
        }
    }
    return NULL;
}

static void *reader_main(void *arg) {
    emo__expert_cache *c = arg;
    emo__expert_cache_enter(c);
    while (!c->stop) {
        emo__cached *x = emo__expert_cache_next_demand(c);
        bool ahead = x == NULL;
        if (ahead)
            x = next_ahead(c);
        if (x == NULL)
            (void)pthread_cond_wait(&c->work, &c->lock);
        else if (emo__expert_cache_fill(c, x, NULL) == EMO_OK && ahead)
            c->stats.read_ahead++;
    }
    emo__expert_cache_leave(c);
    return NULL;
}

emo_status emo__expert_cache_start_reader(emo__expert_cache *c, emo_error *err) {
    int rc = emo__thread_start(&c->reader, reader_main, c);
    if (rc != 0)
        return emo__fail_at(err, EMO_E_LIMIT, EMO_DOMAIN_SYSTEM, rc,
                            "the thread that reads experts ahead could not be started");
    c->has_reader = true;
    return EMO_OK;
}
